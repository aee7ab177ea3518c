//! The first value of a step that is not a finite number.

use crate::tensor::HostTensor;
use std::fmt;

/// The first value of a training step, in the order of its nodes, that is infinite or NaN.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NotFinite {
    /// The step, from 0.
    pub step: u64,
    /// The node, prefixed with its layer's name; the name of a weight, or `x` for the samples.
    pub node: String,
    /// The operation of the node, `weight`, `moment` or `input`.
    pub op: String,
    /// The element, in row-major order.
    pub index: usize,
    /// Its value.
    pub value: f32,
}

impl NotFinite {
    /// Returns the first value of a tensor that is not finite.
    pub(super) fn find(step: u64, node: &str, op: &str, tensor: &HostTensor) -> Option<Self> {
        let values = tensor.to_f32();
        let index = values.iter().position(|x| !x.is_finite())?;
        Some(NotFinite { step, node: node.into(), op: op.into(), index, value: values[index] })
    }
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotFinite { step, node, op, index, value } = self;
        write!(f, "the first non-finite value is {value}, element {index} of `{node}` ({op}) in step {step}")
    }
}
