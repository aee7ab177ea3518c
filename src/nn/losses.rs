//! Losses: what training minimises.

use super::{Bounds, Metric, Number, keras_object::described, layer::setter, metrics::mean_of_sample};
use crate::{
    graph::{Graph, OpError, Value},
    ops::Elementwise,
};
use serde_json::{Value as Json, json};
use std::fmt;

/// A loss, computed for each sample.
pub trait Loss: fmt::Debug + Send + Sync {
    /// Returns the loss's name in Keras's history.
    fn name(&self) -> &'static str;

    /// Returns whether labels are class indices (N) instead of numbers of the output's shape.
    fn takes_classes(&self) -> bool {
        false
    }

    /// Returns the numbers among its options with their bounds, which [`Model::compile`](super::Model::compile) checks.
    fn numbers(&self) -> Vec<Number> {
        Vec::new()
    }

    /// Returns the loss of each sample, shape (N), of the model's output and the labels.
    ///
    /// `logits` is given if the output is known to be their softmax.
    fn build(&self, g: &mut Graph, output: Value, logits: Option<Value>, labels: Value) -> Result<Value, OpError>;

    /// Returns it as Keras writes it to a file, or `Null` for one that Keras does not have.
    fn config(&self) -> Json {
        Json::Null
    }
}

const MODULE: &str = "keras.losses";

/// Cross-entropy of class probabilities (N, …, C) and class indices (N), the mean over each sample's positions (Keras
/// `SparseCategoricalCrossentropy`); computed from logits in one stable kernel if they are known.
///
/// ```
/// use hubel::losses::*;
/// let loss = SparseCategoricalCrossentropy::new();
/// assert_eq!(loss.name(), "sparse_categorical_crossentropy");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SparseCategoricalCrossentropy {
    from_logits: bool,
}

impl SparseCategoricalCrossentropy {
    /// Returns the loss for probabilities.
    pub fn new() -> Self {
        Self::default()
    }

    setter!(set
        /// Sets whether the model's outputs are logits; by default they are probabilities.
        from_logits: bool);
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

    fn config(&self) -> Json {
        described(MODULE, "SparseCategoricalCrossentropy", json!({ "from_logits": self.from_logits }))
    }
}

/// Declares losses of predictions p and labels t of one shape, which are metrics too: their mean over a sample is its
/// loss.
macro_rules! losses {
    ($($(#[$meta:meta])* $Loss:ident $name:literal { $($(#[$doc:meta])* $option:ident: $ty:ty = $default:expr, $bounds:ident)? }
       |$o:ident, $g:ident, $p:ident, $t:ident| $each:expr;)*) => {$(
        losses! { @struct $(#[$meta])* $Loss { $($(#[$doc])* $option: $ty = $default)? } }

        impl $Loss {
            fn each(&self, $g: &mut Graph, $p: Value, $t: Value) -> Result<Value, OpError> {
                #[allow(unused_variables, reason = "not every expression that the macro takes uses it")]
                let $o = self;
                $each
            }
        }

        impl Loss for $Loss {
            fn name(&self) -> &'static str {
                $name
            }

            fn build(&self, g: &mut Graph, output: Value, _: Option<Value>, labels: Value) -> Result<Value, OpError> {
                let each = self.each(g, output, labels)?;
                mean_of_sample(g, each)
            }

            fn numbers(&self) -> Vec<Number> {
                vec![$(Number::new(stringify!($Loss), stringify!($option), self.$option, Bounds::$bounds))?]
            }

            fn config(&self) -> Json {
                described(MODULE, stringify!($Loss), json!({ $(stringify!($option): self.$option)? }))
            }
        }

        impl Metric for $Loss {
            fn name(&self) -> &'static str {
                $name
            }

            fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
                Loss::build(self, g, output, None, labels)
            }

            fn numbers(&self) -> Vec<Number> {
                Loss::numbers(self)
            }

            fn config(&self, _classes: bool) -> Json {
                // Keras has no such metric, or one of the other sign.
                match stringify!($Loss) {
                    "Huber" | "CosineSimilarity" => Json::Null,
                    class => described("keras.metrics", class, json!({ "name": $name })),
                }
            }
        }
    )*};
    (@struct $(#[$meta:meta])* $Loss:ident { }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $Loss;
    };
    (@struct $(#[$meta:meta])* $Loss:ident { $(#[$doc:meta])* $option:ident: $ty:ty = $default:expr }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub struct $Loss {
            $option: $ty,
        }

        impl Default for $Loss {
            fn default() -> Self {
                $Loss { $option: $default }
            }
        }

        impl $Loss {
            /// Returns the loss with Keras's defaults.
            pub fn new() -> Self {
                Self::default()
            }

            setter!(set $(#[$doc])* $option: $ty = $default);
        }
    };
}

/// Keras's `epsilon`.
const EPSILON: f32 = 1e-7;

/// Returns x over the root of the sum of its squares along the last axis, at least 1e-12.
fn normalized(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    let last = g.shape(x).rank() - 1;
    let (sum, min) = (g.sum_squares(x, &[last], true)?, g.constant(1e-12)?);
    let sum = g.max(sum, min)?;
    let norm = g.unary("rsqrt", sum)?;
    g.mul(x, norm)
}

/// Returns max(0, 1 − t·p), with a label of 0 read as −1.
fn hinge(g: &mut Graph, p: Value, t: Value) -> Result<Value, OpError> {
    let (zero, minus, one) = (g.constant(0.0)?, g.constant(-1.0)?, g.constant(1.0)?);
    let none = g.binary("equal", t, zero)?;
    let t = g.apply1(Elementwise::named("where")?, &[none, minus, t])?;
    let product = g.mul(t, p)?;
    let short = g.sub(one, product)?;
    g.relu(short)
}

losses! {
    /// Mean of the squared differences (Keras `MeanSquaredError`), as a loss or a metric.
    ///
    /// ```
    /// use hubel::{losses::*, optimizers::*, prelude::*};
    /// let config = Compile::new(Adam::new(1e-3), MeanSquaredError).metric(MeanAbsoluteError);
    /// ```
    MeanSquaredError "mean_squared_error" {} |o, g, p, t| {
        let d = g.sub(p, t)?;
        g.unary("square", d)
    };
    /// Mean of the absolute differences (Keras `MeanAbsoluteError`), as a loss or a metric.
    MeanAbsoluteError "mean_absolute_error" {} |o, g, p, t| {
        let d = g.sub(p, t)?;
        g.unary("abs", d)
    };
    /// Mean of the absolute differences in per cent of the labels (Keras `MeanAbsolutePercentageError`).
    MeanAbsolutePercentageError "mean_absolute_percentage_error" {} |o, g, p, t| {
        let (d, size, min) = (g.sub(t, p)?, g.unary("abs", t)?, g.constant(EPSILON)?);
        let (d, size) = (g.unary("abs", d)?, g.max(size, min)?);
        let share = g.div(d, size)?;
        g.scale(share, 100.0)
    };
    /// Mean of the squared differences of log(1 + x) (Keras `MeanSquaredLogarithmicError`).
    MeanSquaredLogarithmicError "mean_squared_logarithmic_error" {} |o, g, p, t| {
        let (min, one) = (g.constant(EPSILON)?, g.constant(1.0)?);
        let mut logs = [p, t];
        for x in &mut logs {
            let above = g.max(*x, min)?;
            let more = g.add(above, one)?;
            *x = g.log(more)?;
        }
        let d = g.sub(logs[0], logs[1])?;
        g.unary("square", d)
    };
    /// Half the squared difference, but a straight line beyond `delta` (Huber 1964; Keras `Huber`).
    ///
    /// ```
    /// use hubel::{losses::*, optimizers::*, prelude::*};
    /// let config = Compile::new(Adam::new(1e-3), Huber::new().delta(0.5));
    /// ```
    Huber "huber_loss" {
        /// Sets the difference beyond which the loss is linear.
        delta: f32 = 1.0, Positive
    } |o, g, p, t| {
        // |d| = inside + outside, the part inside at most delta: inside² / 2 + delta · outside.
        let (d, delta) = (g.sub(p, t)?, g.constant(o.delta)?);
        let size = g.unary("abs", d)?;
        let inside = g.min(size, delta)?;
        let outside = g.sub(size, inside)?;
        let square = g.unary("square", inside)?;
        let (square, line) = (g.scale(square, 0.5)?, g.mul(outside, delta)?);
        g.add(square, line)
    };
    /// log cosh of the difference (Keras `LogCosh`).
    LogCosh "log_cosh" {} |o, g, p, t| {
        let d = g.sub(p, t)?;
        let rest = g.scale(d, -2.0)?;
        let (rest, ln_2) = (g.unary("softplus", rest)?, g.constant(std::f32::consts::LN_2)?);
        let sum = g.add(d, rest)?;
        g.sub(sum, ln_2)
    };
    /// max(0, 1 − label · prediction) with labels −1 (or 0) and 1 (Keras `Hinge`).
    Hinge "hinge" {} |o, g, p, t| hinge(g, p, t);
    /// The square of [`Hinge`]'s numbers (Keras `SquaredHinge`).
    SquaredHinge "squared_hinge" {} |o, g, p, t| {
        let each = hinge(g, p, t)?;
        g.unary("square", each)
    };
    /// max(0, 1 + the largest prediction for a wrong class − that for the right one), labels one-hot (Keras
    /// `CategoricalHinge`).
    CategoricalHinge "categorical_hinge" {} |o, g, p, t| {
        let (last, one) = (g.shape(p).rank() - 1, g.constant(1.0)?);
        let (right, other) = (g.mul(t, p)?, g.sub(one, t)?);
        let wrong = g.mul(other, p)?;
        let (right, wrong) = (g.sum(right, &[last], false)?, g.max_axes(wrong, &[last], false)?);
        let margin = g.sub(wrong, right)?;
        let short = g.add(margin, one)?;
        g.relu(short)
    };
    /// Kullback-Leibler divergence of probabilities along the last axis, Σ t · log(t / p) (Keras `KLDivergence`).
    KLDivergence "kl_divergence" {} |o, g, p, t| {
        let last = g.shape(p).rank() - 1;
        let (p, t) = (g.clip(p, EPSILON, 1.0)?, g.clip(t, EPSILON, 1.0)?);
        let (log_t, log_p) = (g.log(t)?, g.log(p)?);
        let ratio = g.sub(log_t, log_p)?;
        let each = g.mul(t, ratio)?;
        g.sum(each, &[last], false)
    };
    /// prediction − label · log(prediction) (Keras `Poisson`).
    Poisson "poisson" {} |o, g, p, t| {
        let min = g.constant(EPSILON)?;
        let above = g.add(p, min)?;
        let log = g.log(above)?;
        let gain = g.mul(t, log)?;
        g.sub(p, gain)
    };
    /// Minus the cosine of the angle between prediction and label along the last axis (Keras `CosineSimilarity`).
    CosineSimilarity "cosine_similarity" {} |o, g, p, t| {
        let last = g.shape(p).rank() - 1;
        let (p, t) = (normalized(g, p)?, normalized(g, t)?);
        let product = g.mul(p, t)?;
        let cosine = g.sum(product, &[last], false)?;
        g.neg(cosine)
    };
}

/// Returns labels with this share of each spread evenly over `classes`.
fn smoothed(g: &mut Graph, labels: Value, share: f32, classes: usize) -> Result<Value, OpError> {
    if share == 0.0 {
        return Ok(labels);
    }
    let (kept, spread) = (g.scale(labels, 1.0 - share)?, g.constant(share / classes as f32)?);
    g.add(kept, spread)
}

/// Cross-entropy of probabilities (N, …) and labels of 0 and 1 (Keras `BinaryCrossentropy`), with probabilities clipped
/// to [1e-7, 1 − 1e-7].
///
/// ```
/// use hubel::{losses::*, optimizers::*, prelude::*};
/// let config = Compile::new(Adam::new(1e-3), BinaryCrossentropy::new());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct BinaryCrossentropy {
    from_logits: bool,
    label_smoothing: f32,
}

impl BinaryCrossentropy {
    /// Returns the loss for probabilities.
    pub fn new() -> Self {
        Self::default()
    }

    setter!(set
        /// Sets the share of each label that is spread evenly over all classes; 0 by default.
        label_smoothing: f32);

    setter!(set
        /// Sets whether the model's outputs are logits; by default they are probabilities.
        from_logits: bool);
}

impl Loss for BinaryCrossentropy {
    fn name(&self) -> &'static str {
        "binary_crossentropy"
    }

    fn numbers(&self) -> Vec<Number> {
        vec![Number::new("BinaryCrossentropy", "label_smoothing", self.label_smoothing, Bounds::Share)]
    }

    fn build(&self, g: &mut Graph, output: Value, _: Option<Value>, labels: Value) -> Result<Value, OpError> {
        let labels = smoothed(g, labels, self.label_smoothing, 2)?;
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

    fn config(&self) -> Json {
        let config = json!({ "from_logits": self.from_logits, "label_smoothing": self.label_smoothing });
        described(MODULE, "BinaryCrossentropy", config)
    }
}

/// Cross-entropy of class probabilities (N, …, C) and labels of that shape, one-hot or probabilities, the mean over
/// each sample's positions (Keras `CategoricalCrossentropy`); computed from logits in one stable kernel if they are
/// known.
///
/// ```
/// use hubel::{losses::*, optimizers::*, prelude::*};
/// let config = Compile::new(Adam::new(1e-3), CategoricalCrossentropy::new());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CategoricalCrossentropy {
    from_logits: bool,
    label_smoothing: f32,
}

impl CategoricalCrossentropy {
    /// Returns the loss for probabilities.
    pub fn new() -> Self {
        Self::default()
    }

    setter!(set
        /// Sets the share of each label that is spread evenly over all classes; 0 by default.
        label_smoothing: f32);

    setter!(set
        /// Sets whether the model's outputs are logits; by default they are probabilities.
        from_logits: bool);
}

impl Loss for CategoricalCrossentropy {
    fn name(&self) -> &'static str {
        "categorical_crossentropy"
    }

    fn numbers(&self) -> Vec<Number> {
        vec![Number::new("CategoricalCrossentropy", "label_smoothing", self.label_smoothing, Bounds::Share)]
    }

    fn build(&self, g: &mut Graph, output: Value, logits: Option<Value>, labels: Value) -> Result<Value, OpError> {
        let logits = match (self.from_logits, logits) {
            (true, _) => output,
            (false, Some(logits)) => logits,
            (false, None) => g.log(output)?,
        };
        let labels = {
            let classes = g.shape(labels).last();
            smoothed(g, labels, self.label_smoothing, classes)?
        };
        let each = g.softmax_cross_entropy(logits, labels)?;
        mean_of_sample(g, each)
    }

    fn config(&self) -> Json {
        let config = json!({ "from_logits": self.from_logits, "label_smoothing": self.label_smoothing });
        described(MODULE, "CategoricalCrossentropy", config)
    }
}
