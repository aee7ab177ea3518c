use super::{DType, Data, HostTensor};

/// A row-major tensor of 64-bit floats, in which reference evaluation computes.
///
/// Integers and bytes are stored as 64-bit floats, which represent them exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Elements, last axis fastest.
    pub data: Vec<f64>,
}

impl Array {
    /// Returns an array filled with one value.
    pub fn full(shape: impl Into<Vec<usize>>, value: f64) -> Self {
        let shape = shape.into();
        let len = shape.iter().product();
        Array { shape, data: vec![value; len] }
    }

    /// Returns an array of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        Self::full(shape, 0.0)
    }

    /// Returns an array whose element `i` (row-major) is `f(i)`.
    pub fn from_fn(shape: impl Into<Vec<usize>>, f: impl Fn(usize) -> f64) -> Self {
        let shape = shape.into();
        let len: usize = shape.iter().product();
        Array { shape, data: (0..len).map(f).collect() }
    }

    /// Returns the array with `f` applied to each element.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }

    /// Returns the elements rounded to `dtype`.
    pub fn to_host(&self, dtype: DType) -> HostTensor {
        let data = match dtype {
            DType::F32 => Data::F32(self.data.iter().map(|&x| x as f32).collect()),
            DType::F16 => Data::F16(self.data.iter().map(|&x| half::f16::from_f64(x)).collect()),
            DType::BF16 => Data::BF16(self.data.iter().map(|&x| half::bf16::from_f64(x)).collect()),
            DType::U8 => Data::U8(self.data.iter().map(|&x| x as u8).collect()),
            DType::I32 => Data::I32(self.data.iter().map(|&x| x as i32).collect()),
            DType::U32 => Data::U32(self.data.iter().map(|&x| x as u32).collect()),
        };
        HostTensor::new(self.shape.clone(), data).unwrap_or_else(|_| unreachable!("an array's data fits its shape"))
    }
}

impl HostTensor {
    /// Returns the elements as 64-bit floats, which represent every supported type exactly.
    pub fn to_array(&self) -> Array {
        let data = match self.data() {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        };
        Array { shape: self.shape().to_vec(), data }
    }
}
