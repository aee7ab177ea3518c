//! Values that are known before anything runs: initialisers, and what is computed from shapes.

use crate::{graph::OpError, io::onnx::messages::TensorProto};
use std::{borrow::Cow, sync::Arc};

/// ONNX's numbers of the types of elements that the importer tells apart.
pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;

/// Numbers that the rounds of a loop leave at most.
const MAX_STACKED: usize = 1 << 16;

/// Returns whether elements are whole numbers.
pub fn is_whole(elem: i32) -> bool {
    !matches!(elem, 1 | 9 | 10 | 11 | 16)
}

/// A known tensor in ONNX's order of axes.
#[derive(Debug, Clone)]
pub struct Constant {
    pub dims: Vec<usize>,
    pub elem: i32,
    /// Whether it is an initialiser, which training may change.
    pub is_parameter: bool,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Tensor(Arc<TensorProto>),
    Numbers(Arc<Vec<f64>>),
    Fill(f64),
    /// The elements are a weight of the model by now.
    Moved,
}

impl Constant {
    /// Returns a tensor of a file, checked.
    pub fn of(tensor: TensorProto) -> Result<Self, crate::io::FormatError> {
        tensor.count()?;
        let (dims, elem) = (tensor.shape()?, tensor.data_type);
        Ok(Constant { dims, elem, is_parameter: false, data: Data::Tensor(Arc::new(tensor)) })
    }

    /// Returns the tensor as an initialiser.
    pub fn into_parameter(mut self) -> Self {
        self.is_parameter = true;
        self
    }

    /// Returns a tensor of numbers, rounded to their type.
    pub fn numbers(dims: Vec<usize>, elem: i32, mut numbers: Vec<f64>) -> Self {
        match elem {
            FLOAT => numbers.iter_mut().for_each(|v| *v = f64::from(*v as f32)),
            elem if is_whole(elem) => numbers.iter_mut().for_each(|v| *v = v.trunc()),
            _ => {}
        }
        Constant { dims, elem, is_parameter: false, data: Data::Numbers(Arc::new(numbers)) }
    }

    /// Returns whole numbers along one axis.
    pub fn ints(numbers: impl IntoIterator<Item = i64>) -> Self {
        let numbers: Vec<f64> = numbers.into_iter().map(|v| v as f64).collect();
        Self::numbers(vec![numbers.len()], INT64, numbers)
    }

    /// Returns a tensor of one number.
    pub fn fill(dims: Vec<usize>, elem: i32, value: f64) -> Self {
        Constant { dims, elem, is_parameter: false, data: Data::Fill(value) }
    }

    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns the number that all elements are, if they are stored so.
    pub fn filled(&self) -> Option<f64> {
        match self.data {
            Data::Fill(value) => Some(value),
            _ => None,
        }
    }

    /// Returns tensors of equal extents as one, along a new axis in front.
    pub fn stack(all: &[Self]) -> Result<Self, OpError> {
        let Some(first) = all.first() else { return Ok(Constant::numbers(vec![0], FLOAT, Vec::new())) };
        if let Some(other) = all.iter().find(|c| c.dims != first.dims) {
            let (wanted, got) = (format!("results of extents {:?}", first.dims), format!("{:?}", other.dims));
            return Err(OpError::new("Loop", wanted, got, "export the model without the loop"));
        }
        let count = first.count().saturating_mul(all.len());
        if count > MAX_STACKED {
            let wanted = format!("at most {MAX_STACKED} numbers of all rounds");
            return Err(OpError::new("Loop", wanted, count, "export the model without the loop"));
        }
        let mut numbers = Vec::with_capacity(count);
        for constant in all {
            numbers.extend_from_slice(&constant.values()?);
        }
        Ok(Constant::numbers([&[all.len()], &first.dims[..]].concat(), first.elem, numbers))
    }

    /// Returns the tensor with other extents of the same product.
    pub fn reshaped(mut self, dims: Vec<usize>) -> Self {
        self.dims = dims;
        self
    }

    /// Returns the tensor without its elements.
    pub fn moved(&self) -> Self {
        match self.data {
            Data::Fill(_) => self.clone(),
            _ => Constant { data: Data::Moved, ..self.clone() },
        }
    }

    /// Returns the tensor with elements of its own, so that the file's bytes can go.
    pub fn detached(&self) -> Self {
        match (&self.data, self.values()) {
            (Data::Tensor(_), Ok(values)) => {
                Constant { data: Data::Numbers(Arc::new(values.into_owned())), ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// Returns the elements.
    pub fn values(&self) -> Result<Cow<'_, [f64]>, OpError> {
        Ok(match &self.data {
            Data::Numbers(numbers) => Cow::Borrowed(&numbers[..]),
            Data::Fill(value) => Cow::Owned(vec![*value; self.count()]),
            Data::Tensor(tensor) => Cow::Owned(tensor.numbers().map_err(unreadable)?),
            Data::Moved => return Err(unreadable("it is a weight of the model")),
        })
    }

    /// Returns the elements as 32-bit floats.
    pub fn floats(&self) -> Result<Vec<f32>, OpError> {
        match &self.data {
            Data::Tensor(tensor) => tensor.floats().map_err(unreadable),
            _ => Ok(self.values()?.iter().map(|&v| v as f32).collect()),
        }
    }

    /// Returns the bytes of 32-bit floats where the file has them.
    pub fn raw_floats(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Tensor(tensor) if self.elem == FLOAT && !tensor.raw_data.is_empty() => Some(&tensor.raw_data),
            _ => None,
        }
    }

    /// Returns the elements as whole numbers.
    pub fn to_ints(&self) -> Result<Vec<i64>, OpError> {
        Ok(self.values()?.iter().map(|&v| v as i64).collect())
    }

    /// Returns the number of a tensor of one.
    pub fn scalar(&self) -> Option<f64> {
        match (self.count(), self.filled()) {
            (1, Some(value)) => Some(value),
            (1, None) => self.values().ok()?.first().copied(),
            _ => None,
        }
    }
}

fn unreadable(e: impl std::fmt::Display) -> OpError {
    OpError::new("constant", "its elements", e, "export the model again")
}
