//! What training makes small.

use crate::graph::{Graph, OpError, Value};
use std::fmt;

/// A loss of each sample.
pub trait Loss: fmt::Debug + Send + Sync {
    /// Returns the loss's name as Keras writes it in a history.
    fn name(&self) -> &'static str;

    /// Returns the loss of each sample, shape (N), of the model's output and the labels.
    ///
    /// `logits` is there where the output is known to be their softmax.
    fn build(&self, g: &mut Graph, output: Value, logits: Option<Value>, labels: Value) -> Result<Value, OpError>;
}

/// Cross-entropy of class probabilities (N, C) and class indices (N)
/// (Keras `SparseCategoricalCrossentropy`), computed from logits in one stable kernel where they are known.
///
/// ```
/// use hubel::prelude::*;
/// let loss = SparseCategoricalCrossentropy::new();
/// assert_eq!(loss.name(), "sparse_categorical_crossentropy");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SparseCategoricalCrossentropy {
    from_logits: bool,
}

impl SparseCategoricalCrossentropy {
    /// Returns the loss of probabilities.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the loss of logits, or of probabilities.
    pub fn from_logits(mut self, from_logits: bool) -> Self {
        self.from_logits = from_logits;
        self
    }
}

impl Loss for SparseCategoricalCrossentropy {
    fn name(&self) -> &'static str {
        "sparse_categorical_crossentropy"
    }

    fn build(&self, g: &mut Graph, output: Value, logits: Option<Value>, labels: Value) -> Result<Value, OpError> {
        let logits = match (self.from_logits, logits) {
            (true, _) => output,
            (false, Some(logits)) => logits,
            // The softmax of log p is p over its sum: Keras renormalises too.
            (false, None) => g.log(output)?,
        };
        g.softmax_cross_entropy(logits, labels)
    }
}
