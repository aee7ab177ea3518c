use super::{DType, strides};
use half::{bf16, f16};

/// A tensor in host memory could not be created or read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The number of elements does not fit the shape.
    #[error("a tensor of shape {shape:?} has {wanted} elements, but {got} were given")]
    Count {
        /// The requested shape.
        shape: Vec<usize>,
        /// The number of elements that the shape has.
        wanted: usize,
        /// The number of elements given.
        got: usize,
    },
    /// The product of the extents does not fit in memory.
    #[error("a tensor of shape {shape:?} is too large to address")]
    TooLarge {
        /// The requested shape.
        shape: Vec<usize>,
    },
}

/// The elements of a [`HostTensor`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit floats.
    F16(Vec<f16>),
    /// Brain floats.
    BF16(Vec<bf16>),
    /// Bytes.
    U8(Vec<u8>),
    /// Signed integers.
    I32(Vec<i32>),
    /// Unsigned integers.
    U32(Vec<u32>),
}

/// A dense row-major tensor in host memory; images are NHWC.
///
/// ```
/// use hubel::prelude::*;
/// let t = HostTensor::f32([2, 2], vec![1.0, 2.0, 3.0, 4.0])?;
/// assert_eq!(t.to_f32(), [1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    shape: Vec<usize>,
    data: Data,
}

macro_rules! constructor {
    ($(#[$doc:meta])* $name:ident, $ty:ty, $variant:ident) => {
        $(#[$doc])*
        pub fn $name(shape: impl Into<Vec<usize>>, data: Vec<$ty>) -> Result<Self, TensorError> {
            Self::new(shape, Data::$variant(data))
        }
    };
}

impl HostTensor {
    /// Returns a tensor of these elements, or an error if their number does not fit the shape.
    pub fn new(shape: impl Into<Vec<usize>>, data: Data) -> Result<Self, TensorError> {
        let shape = shape.into();
        let wanted = shape
            .iter()
            .try_fold(1usize, |p, &d| p.checked_mul(d))
            .ok_or_else(|| TensorError::TooLarge { shape: shape.clone() })?;
        let tensor = HostTensor { shape, data };
        match tensor.len() {
            got if got == wanted => Ok(tensor),
            got => Err(TensorError::Count { shape: tensor.shape, wanted, got }),
        }
    }

    constructor!(
        /// Returns a tensor of 32-bit floats.
        f32, f32, F32
    );
    constructor!(
        /// Returns a tensor of bytes.
        u8, u8, U8
    );
    constructor!(
        /// Returns a tensor of signed integers.
        i32, i32, I32
    );
    constructor!(
        /// Returns a tensor of unsigned integers.
        u32, u32, U32
    );

    /// Returns the extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Returns the type of the elements.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::U8(_) => DType::U8,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
        }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::F16(v) => v.len(),
            Data::BF16(v) => v.len(),
            Data::U8(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::U32(v) => v.len(),
        }
    }

    /// Returns whether the tensor is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the elements as bytes in memory, little-endian on every supported machine.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::F16(v) => bytemuck::cast_slice(v),
            Data::BF16(v) => bytemuck::cast_slice(v),
            Data::U8(v) => v,
            Data::I32(v) => bytemuck::cast_slice(v),
            Data::U32(v) => bytemuck::cast_slice(v),
        }
    }

    /// Returns a tensor from raw little-endian elements, or an error if their number does not fit.
    pub fn from_bytes(shape: impl Into<Vec<usize>>, dtype: DType, bytes: &[u8]) -> Result<Self, TensorError> {
        let data = match dtype {
            DType::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            DType::F16 => Data::F16(bytemuck::pod_collect_to_vec(bytes)),
            DType::BF16 => Data::BF16(bytemuck::pod_collect_to_vec(bytes)),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::I32 => Data::I32(bytemuck::pod_collect_to_vec(bytes)),
            DType::U32 => Data::U32(bytemuck::pod_collect_to_vec(bytes)),
        };
        Self::new(shape, data)
    }

    /// Returns the elements as 32-bit floats.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            Data::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Data::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Data::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Data::I32(v) => v.iter().map(|&x| x as f32).collect(),
            Data::U32(v) => v.iter().map(|&x| x as f32).collect(),
        }
    }

    /// Returns the rows `start .. start + n` of the first axis, or `None` if out of range.
    pub fn rows(&self, start: usize, n: usize) -> Option<HostTensor> {
        let rows = *self.shape.first()?;
        let end = start.checked_add(n).filter(|&end| end <= rows)?;
        let row_bytes = self.bytes().len() / rows.max(1);
        let mut shape = self.shape.clone();
        shape[0] = n;
        HostTensor::from_bytes(shape, self.dtype(), &self.bytes()[start * row_bytes..end * row_bytes]).ok()
    }

    /// Returns the tensor with its axes permuted to this order.
    pub(crate) fn transposed(&self, order: &[usize]) -> HostTensor {
        let strides = strides(&self.shape);
        let shape: Vec<usize> = order.iter().map(|&axis| self.shape[axis]).collect();
        let strides: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
        let width = self.dtype().bytes();
        let bytes = gather(self.bytes(), width, &shape, &strides, 0);
        HostTensor::from_bytes(shape, self.dtype(), &bytes).unwrap_or_else(|_| self.clone())
    }

    /// Returns the same elements with another shape, or an error if their number differs.
    pub fn reshape(self, shape: impl Into<Vec<usize>>) -> Result<HostTensor, TensorError> {
        Self::new(shape, self.data)
    }
}

/// Returns the elements of `width` bytes at `offset + Σ coordinate · stride` for all coordinates of a shape, the last
/// varying fastest; strides and offset count elements. The caller ensures that they are inside `bytes`.
pub(crate) fn gather(bytes: &[u8], width: usize, shape: &[usize], strides: &[usize], offset: usize) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * width);
    for i in 0..count {
        let mut rest = i;
        let at = shape.iter().zip(strides).rev().fold(offset, |at, (&extent, &stride)| {
            let step = rest % extent * stride;
            rest /= extent;
            at + step
        });
        out.extend_from_slice(&bytes[at * width..(at + 1) * width]);
    }
    out
}
