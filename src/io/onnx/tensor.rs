//! Elements of ONNX's tensors.

use super::messages::TensorProto;
use crate::{
    io::{Flaw, FormatError, checked_bytes},
    tensor::HostTensor,
};
use half::{bf16, f16};

/// The types of elements that are read, by ONNX's numbers: bytes of an element and its name.
const TYPES: [(i32, usize, &str); 13] = [
    (1, 4, "float"),
    (2, 1, "uint8"),
    (3, 1, "int8"),
    (4, 2, "uint16"),
    (5, 2, "int16"),
    (6, 4, "int32"),
    (7, 8, "int64"),
    (9, 1, "bool"),
    (10, 2, "float16"),
    (11, 8, "double"),
    (12, 4, "uint32"),
    (13, 8, "uint64"),
    (16, 2, "bfloat16"),
];

/// Returns the name of a type by its number.
pub(crate) fn type_name(data_type: i32) -> String {
    let name = TYPES.iter().find(|t| t.0 == data_type).map(|t| t.2);
    name.map_or_else(|| format!("type {data_type}"), str::to_owned)
}

impl TensorProto {
    /// Returns the extents, or an error unless they are natural numbers whose product fits.
    pub fn shape(&self) -> Result<Vec<usize>, FormatError> {
        let what = format!("the tensor `{}`", self.name);
        let negative = |d: &&i64| **d < 0;
        if let Some(d) = self.dims.iter().find(negative) {
            return Err(FormatError::new(Flaw::Syntax, what, "extents from 0 up", d));
        }
        if self.dims.len() > 16 {
            return Err(FormatError::new(Flaw::Rank, what, "at most 16 axes", self.dims.len()));
        }
        let dims: Vec<u64> = self.dims.iter().map(|&d| d as u64).collect();
        checked_bytes(&what, &dims, 8, 16 << 30)?;
        Ok(dims.iter().map(|&d| d as usize).collect())
    }

    /// Returns the number of elements, or an error unless there are as many as the extents say.
    pub fn count(&self) -> Result<usize, FormatError> {
        let what = || format!("the tensor `{}`", self.name);
        let wanted: usize = self.shape()?.iter().product();
        let Some((_, width, _)) = TYPES.iter().find(|t| t.0 == self.data_type) else {
            let known: Vec<&str> = TYPES.iter().map(|t| t.2).collect();
            return Err(FormatError::new(Flaw::Type, what(), known.join(", "), type_name(self.data_type)));
        };
        let got = match self.data_type {
            _ if !self.raw_data.is_empty() => {
                let bytes = self.raw_data.len();
                if bytes != wanted * width {
                    return Err(FormatError::new(Flaw::ByteCount, what(), format!("{} bytes", wanted * width), bytes));
                }
                wanted
            }
            1 => self.float_data.len(),
            7 => self.int64_data.len(),
            11 => self.double_data.len(),
            12 | 13 => self.uint64_data.len(),
            _ => self.int32_data.len(),
        };
        if got != wanted {
            return Err(FormatError::new(Flaw::ByteCount, what(), format!("{wanted} elements"), got));
        }
        Ok(wanted)
    }

    /// Returns the elements as 64-bit floats.
    pub fn numbers(&self) -> Result<Vec<f64>, FormatError> {
        self.count()?;
        let raw = &self.raw_data[..];
        macro_rules! of {
            ($ty:ty, $number:expr) => {
                raw.chunks_exact(size_of::<$ty>())
                    .map(|c| $number(<$ty>::from_le_bytes(std::array::from_fn(|i| c[i]))))
                    .collect()
            };
        }
        let of_ints = |number: fn(i32) -> f64| self.int32_data.iter().map(|&v| number(v)).collect();
        Ok(match (self.data_type, raw.is_empty()) {
            (1, false) => of!(f32, f64::from),
            (1, true) => self.float_data.iter().map(|&v| f64::from(v)).collect(),
            (2 | 9, false) => raw.iter().map(|&v| f64::from(v)).collect(),
            (3, false) => of!(i8, f64::from),
            (4, false) => of!(u16, f64::from),
            (5, false) => of!(i16, f64::from),
            (6, false) => of!(i32, f64::from),
            (7, false) => of!(i64, |v| v as f64),
            (7, true) => self.int64_data.iter().map(|&v| v as f64).collect(),
            (10, false) => of!(u16, |v| f16::from_bits(v).to_f64()),
            (10, true) => of_ints(|v| f16::from_bits(v as u16).to_f64()),
            (11, false) => of!(f64, |v| v),
            (11, true) => self.double_data.clone(),
            (12, false) => of!(u32, f64::from),
            (13, false) => of!(u64, |v| v as f64),
            (12 | 13, true) => self.uint64_data.iter().map(|&v| v as f64).collect(),
            (16, false) => of!(u16, |v| bf16::from_bits(v).to_f64()),
            (16, true) => of_ints(|v| bf16::from_bits(v as u16).to_f64()),
            _ => of_ints(f64::from),
        })
    }

    /// Returns the elements as 32-bit floats.
    pub fn floats(&self) -> Result<Vec<f32>, FormatError> {
        if self.data_type != 1 {
            return Ok(self.numbers()?.into_iter().map(|v| v as f32).collect());
        }
        self.count()?;
        match self.raw_data.is_empty() {
            true => Ok(self.float_data.clone()),
            false => Ok(bytemuck::pod_collect_to_vec(&self.raw_data)),
        }
    }

    /// Returns the tensor: floats as f32, whole numbers and booleans as i32.
    pub fn host(&self) -> Result<HostTensor, FormatError> {
        let shape = self.shape()?;
        let error = |e: crate::tensor::TensorError| FormatError::new(Flaw::ByteCount, "the tensor", "its elements", e);
        match self.data_type {
            1 | 10 | 11 | 16 => HostTensor::f32(shape, self.floats()?).map_err(error),
            _ => HostTensor::i32(shape, self.numbers()?.into_iter().map(|v| v as i32).collect()).map_err(error),
        }
    }
}
