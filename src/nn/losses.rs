//! What training makes small.

use super::Metric;
use crate::graph::{Graph, OpError, Value};
use std::fmt;

/// A loss of each sample.
pub trait Loss: fmt::Debug + Send + Sync {
    /// Returns the loss's name as Keras writes it in a history.
    fn name(&self) -> &'static str;

    /// Returns whether labels are class indices (N) and not numbers of the output's shape.
    fn takes_classes(&self) -> bool {
        false
    }

    /// Returns the loss of each sample, shape (N), of the model's output and the labels.
    ///
    /// `logits` is there where the output is known to be their softmax.
    fn build(&self, g: &mut Graph, output: Value, logits: Option<Value>, labels: Value) -> Result<Value, OpError>;
}

/// Cross-entropy of class probabilities (N, …, C) and class indices (N), the mean over each sample's places
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

    fn takes_classes(&self) -> bool {
        true
    }

    fn build(&self, g: &mut Graph, output: Value, logits: Option<Value>, labels: Value) -> Result<Value, OpError> {
        let logits = match (self.from_logits, logits) {
            (true, _) => output,
            (false, Some(logits)) => logits,
            // The softmax of log p is p over its sum: Keras renormalises too.
            (false, None) => g.log(output)?,
        };
        let each = g.softmax_cross_entropy(logits, labels)?;
        mean_of_sample(g, each)
    }
}

/// Returns the mean of each sample's elements, shape (N).
fn mean_of_sample(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    let axes: Vec<usize> = (1..g.shape(x).rank()).collect();
    if axes.is_empty() { Ok(x) } else { g.mean_axes(x, &axes, false) }
}

/// Declares a loss of the elements' differences.
macro_rules! difference {
    ($($(#[$meta:meta])* $Loss:ident $name:literal $function:literal;)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $Loss;

        impl Loss for $Loss {
            fn name(&self) -> &'static str {
                $name
            }

            fn build(&self, g: &mut Graph, output: Value, _: Option<Value>, labels: Value) -> Result<Value, OpError> {
                let difference = g.sub(output, labels)?;
                let each = g.unary($function, difference)?;
                mean_of_sample(g, each)
            }
        }

        impl Metric for $Loss {
            fn name(&self) -> &'static str {
                $name
            }

            fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
                Loss::build(self, g, output, None, labels)
            }
        }
    )*};
}

difference! {
    /// Mean of the squared differences (Keras `MeanSquaredError`), as a loss or a metric.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let how = Compile::new(Adam::new(1e-3), MeanSquaredError).metric(MeanAbsoluteError);
    /// ```
    MeanSquaredError "mean_squared_error" "square";
    /// Mean of the differences' magnitudes (Keras `MeanAbsoluteError`), as a loss or a metric.
    MeanAbsoluteError "mean_absolute_error" "abs";
}

/// Cross-entropy of probabilities (N, …) and labels of 0 and 1 (Keras `BinaryCrossentropy`), probabilities held within
/// [1e-7, 1 − 1e-7].
///
/// ```
/// use hubel::prelude::*;
/// let how = Compile::new(Adam::new(1e-3), BinaryCrossentropy::new());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct BinaryCrossentropy {
    from_logits: bool,
}

impl BinaryCrossentropy {
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

impl Loss for BinaryCrossentropy {
    fn name(&self) -> &'static str {
        "binary_crossentropy"
    }

    fn build(&self, g: &mut Graph, output: Value, _: Option<Value>, labels: Value) -> Result<Value, OpError> {
        let each = if self.from_logits {
            // softplus(x) − x·label.
            let (positive, product) = (g.unary("softplus", output)?, g.mul(output, labels)?);
            g.sub(positive, product)?
        } else {
            let p = g.clip(output, 1e-7, 1.0 - 1e-7)?;
            let one = g.constant(1.0)?;
            let (rest, other) = (g.sub(one, p)?, g.sub(one, labels)?);
            let (log, log_rest) = (g.log(p)?, g.log(rest)?);
            let (hit, miss) = (g.mul(labels, log)?, g.mul(other, log_rest)?);
            let sum = g.add(hit, miss)?;
            g.neg(sum)?
        };
        mean_of_sample(g, each)
    }
}

/// Cross-entropy of class probabilities (N, …, C) and labels of that shape, one-hot or probabilities, the mean over
/// each sample's places
/// (Keras `CategoricalCrossentropy`), computed from logits in one stable kernel where they are known.
///
/// ```
/// use hubel::prelude::*;
/// let how = Compile::new(Adam::new(1e-3), CategoricalCrossentropy::new());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CategoricalCrossentropy {
    from_logits: bool,
}

impl CategoricalCrossentropy {
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

impl Loss for CategoricalCrossentropy {
    fn name(&self) -> &'static str {
        "categorical_crossentropy"
    }

    fn build(&self, g: &mut Graph, output: Value, logits: Option<Value>, labels: Value) -> Result<Value, OpError> {
        let logits = match (self.from_logits, logits) {
            (true, _) => output,
            (false, Some(logits)) => logits,
            (false, None) => g.log(output)?,
        };
        let each = g.softmax_cross_entropy(logits, labels)?;
        mean_of_sample(g, each)
    }
}
