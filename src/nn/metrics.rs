//! What a history shows beside the loss.

use crate::graph::{Graph, OpError, Value};
use std::fmt;

/// A number for each sample whose mean over an epoch is shown.
pub trait Metric: fmt::Debug + Send + Sync {
    /// Returns the metric's name in a history.
    fn name(&self) -> &'static str;

    /// Returns the metric of each sample, shape (N).
    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError>;
}

/// Share of samples whose most probable class is the label (Keras `accuracy` with class indices).
///
/// ```
/// use hubel::prelude::*;
/// assert_eq!(Accuracy.name(), "accuracy");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Accuracy;

impl Metric for Accuracy {
    fn name(&self) -> &'static str {
        "accuracy"
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        g.sparse_categorical_accuracy(output, labels)
    }
}
