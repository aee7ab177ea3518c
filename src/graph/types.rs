//! Types of values, errors of operations, and the record of a step.

use super::Value;
use crate::tensor::{Array, DType, Philox, Shape};
use std::fmt;

/// The shape and element type of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Extents, possibly with a symbolic batch first.
    pub shape: Shape,
    /// Type of the elements.
    pub dtype: DType,
}

impl TensorType {
    /// Returns the type of a tensor of 32-bit floats.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        TensorType { shape: shape.into(), dtype: DType::F32 }
    }

    /// Returns the type of a tensor of these elements.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        TensorType { shape: shape.into(), dtype }
    }

    /// Returns the bytes of a batch of `n`, rounded up to whole words; `u64::MAX` if that overflows.
    pub fn bytes(&self, n: usize) -> u64 {
        let bytes = self.shape.elements().at(n).saturating_mul(self.dtype.bytes() as u64);
        bytes.checked_next_multiple_of(4).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// An operation cannot be built on these inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{op}{}: wanted {wanted}, got {got}; {advice}", if .node.is_empty() { String::new() } else { format!(" `{}`", .node) })]
#[non_exhaustive]
pub struct OpError {
    /// The operation's name.
    pub op: String,
    /// The node's name.
    pub node: String,
    /// What the operation needs.
    pub wanted: String,
    /// What it was given.
    pub got: String,
    /// What to do.
    pub advice: String,
}

impl OpError {
    /// Returns an error of an operation; the graph fills in the node.
    pub fn new(op: &str, wanted: impl Into<String>, got: impl fmt::Display, advice: impl Into<String>) -> Self {
        OpError {
            op: op.into(),
            node: String::new(),
            wanted: wanted.into(),
            got: got.to_string(),
            advice: advice.into(),
        }
    }

    /// Returns the error of a gradient operation, which has no gradient.
    pub fn first_order(op: &str) -> Self {
        OpError::new(op, "a first-order gradient", "a second-order one", "differentiate only once through it")
    }
}

/// What changes from step to step, as an operation sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Samples in this batch.
    pub n: usize,
    /// The number of the step, from 0.
    pub step: u32,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Numbers that the host sets in each step, such as the learning rate.
    pub scalars: [f32; Step::N_SCALARS],
}

impl Step {
    /// The number of host numbers of a step.
    pub const N_SCALARS: usize = 16;

    /// Returns step 0 of seed 0 for a batch of `n`.
    pub fn of(n: usize) -> Self {
        Step { n, step: 0, seed: 0, scalars: [0.0; Self::N_SCALARS] }
    }

    /// Returns the record as kernels read it: `n`, `step`, the seed's halves, `1/n`, 0, padding, the scalars.
    pub fn words(&self) -> [u32; 24] {
        let mut words = [0; 24];
        words[0] = self.n as u32;
        words[1] = self.step;
        words[2] = self.seed as u32;
        words[3] = (self.seed >> 32) as u32;
        words[4] = (1.0 / self.n.max(1) as f32).to_bits();
        for (word, scalar) in words[8..].iter_mut().zip(self.scalars) {
            *word = scalar.to_bits();
        }
        words
    }
}

/// How a sample's input is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Uniform in [low, high).
    Uniform(f64, f64),
    /// Magnitude uniform in [low, high) with a random sign, to avoid a kink at zero.
    Away(f64, f64),
    /// All different, at least `1e-3` apart, in random order, to avoid ties.
    Distinct,
    /// Whole numbers in 0..k.
    Index(usize),
    /// Rows of the last axis that are one-hot.
    OneHot,
    /// Uniform in one of these ranges with equal probability, to avoid kinks between them or to hit ties.
    Ranges(&'static [(f64, f64)]),
}

impl Fill {
    /// Returns an array of this kind.
    pub fn array(self, shape: &[usize], rng: &mut Philox) -> Array {
        let len: usize = shape.iter().product();
        let data: Vec<f64> = match self {
            Fill::Uniform(low, high) => (0..len).map(|_| f64::from(rng.uniform(low, high) as f32)).collect(),
            Fill::Away(low, high) => (0..len)
                .map(|_| f64::from(rng.uniform(low, high) as f32) * if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 })
                .collect(),
            Fill::Distinct => {
                let order = rng.permutation(len);
                let gap = (2.0 / len.max(1) as f64).max(2e-3);
                order.iter().map(|&i| f64::from((f64::from(i) * gap - gap * len as f64 / 2.0) as f32)).collect()
            }
            Fill::Index(k) => (0..len).map(|_| rng.below(k) as f64).collect(),
            Fill::OneHot => {
                let last = shape.last().copied().unwrap_or(1).max(1);
                let mut data = vec![0.0; len];
                data.chunks_mut(last).for_each(|row| row[rng.below(last)] = 1.0);
                data
            }
            Fill::Ranges(ranges) => (0..len)
                .map(|_| {
                    let (low, high) = rng.pick(ranges);
                    f64::from(rng.uniform(low, high) as f32)
                })
                .collect(),
        };
        Array { shape: shape.to_vec(), data }
    }
}

/// The result of an operation's gradient: for each input the gradient to it, `None` if there is none.
pub type Gradients = Result<Vec<Option<Value>>, OpError>;
