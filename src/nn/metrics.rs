//! Metrics: what a history shows besides the loss.

use super::{Bounds, Number, keras_object::described, layer::setter};
use crate::{
    graph::{Graph, OpError, Value},
    ops::Part,
    tensor::DType,
};
use serde_json::{Value as Json, json};
use std::fmt;

/// A number for an epoch, computed from sums over its samples.
pub trait Metric: fmt::Debug + Send + Sync {
    /// Returns the metric's name in a history.
    fn name(&self) -> &'static str;

    /// Returns whether it accepts logits instead of their softmax, because only the order of numbers counts.
    fn takes_logits(&self) -> bool {
        false
    }

    /// Returns the numbers among its options with their bounds, which [`Model::compile`](super::Model::compile) checks.
    fn numbers(&self) -> Vec<Number> {
        Vec::new()
    }

    /// Returns each sample's terms of the sums: shape (N), or (N, k) for k sums.
    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError>;

    /// Returns the metric from its sums over `n` samples, by default the mean.
    fn result(&self, sums: &[f64], samples: f64) -> f64 {
        sums[0] / samples
    }

    /// Returns it as Keras writes it to a file, for labels that are class indices or not; `Null` if Keras does not have
    /// it.
    fn config(&self, _classes: bool) -> Json {
        Json::Null
    }
}

fn metric(class: &str, config: Json) -> Json {
    described("keras.metrics", class, config)
}

/// Share of samples whose most probable class is the label's (Keras `accuracy`): for class indices, one-hot labels, or
/// a single number per sample on the label's side of 0.5.
///
/// ```
/// use hubel::metrics::*;
/// assert_eq!(Accuracy.name(), "accuracy");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Accuracy;

impl Metric for Accuracy {
    fn name(&self) -> &'static str {
        "accuracy"
    }

    fn takes_logits(&self) -> bool {
        true
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        if g.ty(labels).dtype == DType::F32 && g.shape(output).last() == 1 {
            return BinaryAccuracy::new().build(g, output, labels);
        }
        let hits = g.top_k_accuracy(output, labels, 1)?;
        mean_of_sample(g, hits)
    }

    fn config(&self, _classes: bool) -> Json {
        json!("accuracy")
    }
}

/// Share of samples whose label is among the k most probable classes (Keras `TopKCategoricalAccuracy` and
/// `SparseTopKCategoricalAccuracy`).
///
/// ```
/// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
/// let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(TopKAccuracy::new(5));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TopKAccuracy {
    k: usize,
}

impl TopKAccuracy {
    /// Returns the metric of the k most probable classes.
    pub fn new(k: usize) -> Self {
        TopKAccuracy { k }
    }
}

impl Metric for TopKAccuracy {
    fn name(&self) -> &'static str {
        "top_k_categorical_accuracy"
    }

    fn takes_logits(&self) -> bool {
        true
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        let hits = g.top_k_accuracy(output, labels, self.k)?;
        mean_of_sample(g, hits)
    }

    fn config(&self, classes: bool) -> Json {
        let class = if classes { "SparseTopKCategoricalAccuracy" } else { "TopKCategoricalAccuracy" };
        metric(class, json!({ "name": self.name(), "k": self.k }))
    }
}

/// Returns 1 where a prediction is above a threshold, else 0.
fn above(g: &mut Graph, output: Value, threshold: f32) -> Result<Value, OpError> {
    let threshold = g.constant(threshold)?;
    g.binary("greater", output, threshold)
}

/// Share of numbers on the label's side of a threshold, labels 0 and 1 (Keras `BinaryAccuracy`).
#[derive(Debug, Clone, Copy)]
pub struct BinaryAccuracy {
    threshold: f32,
}

impl Default for BinaryAccuracy {
    fn default() -> Self {
        BinaryAccuracy { threshold: 0.5 }
    }
}

impl BinaryAccuracy {
    /// Returns the metric with the threshold 0.5.
    pub fn new() -> Self {
        Self::default()
    }

    setter!(set
        /// Sets the threshold; 0.5 by default.
        threshold: f32);
}

impl Metric for BinaryAccuracy {
    fn name(&self) -> &'static str {
        "binary_accuracy"
    }

    fn numbers(&self) -> Vec<Number> {
        vec![Number::new("BinaryAccuracy", "threshold", self.threshold, Bounds::Finite)]
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        let seen = above(g, output, self.threshold)?;
        let same = g.binary("equal", seen, labels)?;
        mean_of_sample(g, same)
    }

    fn config(&self, _classes: bool) -> Json {
        metric("BinaryAccuracy", json!({ "name": self.name(), "threshold": self.threshold }))
    }
}

/// Declares precision or recall: what true positives are divided by.
macro_rules! ratio {
    ($(#[$meta:meta])* $Name:ident $name:literal, |$seen:ident, $labels:ident| $of:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub struct $Name {
            threshold: f32,
            class_id: Option<usize>,
        }

        impl Default for $Name {
            fn default() -> Self {
                $Name { threshold: 0.5, class_id: None }
            }
        }

        impl $Name {
            /// Returns the metric with the threshold 0.5, over all classes.
            pub fn new() -> Self {
                Self::default()
            }

            setter!(set
                /// Sets the threshold above which a prediction is positive; 0.5 by default.
                threshold: f32);

            /// Counts one class only, an index along the last axis; all by default.
            pub fn class_id(mut self, class: usize) -> Self {
                self.class_id = Some(class);
                self
            }
        }

        impl Metric for $Name {
            fn name(&self) -> &'static str {
                $name
            }

            fn numbers(&self) -> Vec<Number> {
                vec![Number::new(stringify!($Name), "threshold", self.threshold, Bounds::Finite)]
            }

            fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
                let [output, $labels] = of_class(g, [output, labels], self.class_id)?;
                let $seen = above(g, output, self.threshold)?;
                let hits = g.mul($seen, $labels)?;
                sums(g, &[hits, $of])
            }

            fn result(&self, sums: &[f64], _samples: f64) -> f64 {
                if sums[1] > 0.0 { sums[0] / sums[1] } else { 0.0 }
            }

            fn config(&self, _classes: bool) -> Json {
                let (thresholds, class_id) = (self.threshold, self.class_id);
                let config = json!({ "name": self.name(), "thresholds": thresholds, "class_id": class_id });
                metric(stringify!($Name), config)
            }
        }
    };
}

ratio! {
    /// The share of predicted positives that are true positives (Keras `Precision`), labels 0 and 1 of the output's
    /// shape.
    ///
    /// ```
    /// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
    /// let config = Compile::new(Adam::new(1e-3),
    /// BinaryCrossentropy::new()).metric(Precision::new()).metric(Recall::new());
    /// ```
    Precision "precision", |seen, labels| seen
}

ratio! {
    /// The share of actual positives that are predicted as positive (Keras `Recall`), labels 0 and 1 of the output's
    /// shape.
    Recall "recall", |seen, labels| labels
}

/// Returns tensors reduced to one class of the last axis, if one is given.
fn of_class(g: &mut Graph, tensors: [Value; 2], class: Option<usize>) -> Result<[Value; 2], OpError> {
    let Some(class) = class else { return Ok(tensors) };
    let mut cut = tensors;
    for x in &mut cut {
        let last = g.shape(*x).rank() - 1;
        *x = g.slice_axis(*x, last, Part::new(class, 1))?;
    }
    Ok(cut)
}

/// Returns the sum of each tensor's numbers in each sample, (N, tensors).
fn sums(g: &mut Graph, tensors: &[Value]) -> Result<Value, OpError> {
    let mut columns = Vec::new();
    for &x in tensors {
        let axes: Vec<usize> = (1..g.shape(x).rank()).collect();
        let sum = if axes.is_empty() { x } else { g.sum(x, &axes, false)? };
        columns.push(g.reshape(sum, [crate::tensor::Batch, 1])?);
    }
    g.concat(&columns, 1)
}

/// Root of the mean squared difference (Keras `RootMeanSquaredError`).
#[derive(Debug, Clone, Copy, Default)]
pub struct RootMeanSquaredError;

impl Metric for RootMeanSquaredError {
    fn name(&self) -> &'static str {
        "root_mean_squared_error"
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        let d = g.sub(output, labels)?;
        let squares = g.unary("square", d)?;
        mean_of_sample(g, squares)
    }

    fn result(&self, sums: &[f64], samples: f64) -> f64 {
        (sums[0] / samples).sqrt()
    }

    fn config(&self, _classes: bool) -> Json {
        metric("RootMeanSquaredError", json!({ "name": self.name() }))
    }
}

/// The curve whose area [`Auc`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Curve {
    /// Receiver operating characteristic: true positive rate over false positive rate.
    #[default]
    Roc,
    /// Precision over recall.
    PrecisionRecall,
}

const MAX_THRESHOLDS: usize = 1 << 16;

/// Area under a curve approximated by thresholds, 200 by default; labels are 0 and 1, of the output's shape (Keras
/// `AUC`).
///
/// ```
/// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
/// let config = Compile::new(Adam::new(1e-3), BinaryCrossentropy::new()).metric(Auc::new());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Auc {
    curve: Curve,
    thresholds: usize,
}

impl Default for Auc {
    fn default() -> Self {
        Auc { curve: Curve::Roc, thresholds: 200 }
    }
}

impl Auc {
    /// Returns the area under the receiver operating characteristic.
    pub fn new() -> Self {
        Self::default()
    }

    setter!(set
        /// Sets the curve; [`Curve::Roc`] by default.
        curve: Curve);

    setter!(set
        /// Sets the number of thresholds, 3 to 65,536; 200 by default.
        thresholds: usize);
}

impl Metric for Auc {
    fn name(&self) -> &'static str {
        "auc"
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        let t = self.thresholds;
        if !(3..=MAX_THRESHOLDS).contains(&t) {
            return Err(OpError::new("auc", format!("3 to {MAX_THRESHOLDS} thresholds"), t, "200 are usual"));
        }
        let mut thresholds: Vec<f32> = (0..t).map(|i| (i as f64 / (t - 1) as f64) as f32).collect();
        (thresholds[0], thresholds[t - 1]) = (-1e-7, 1.0 + 1e-7);
        let thresholds = g.literal([t], thresholds)?;
        let elements = g.shape(output).dims()[1..].iter().product();
        let shape = [crate::tensor::Batch, elements, 1];
        let (output, labels) = (g.reshape(output, shape)?, g.reshape(labels, shape)?);
        let one = g.constant(1.0)?;
        let (seen, others) = (g.binary("greater", output, thresholds)?, g.sub(one, labels)?);
        let (hits, misses) = (g.mul(seen, labels)?, g.mul(seen, others)?);
        let (hits, misses) = (g.sum(hits, &[1], false)?, g.sum(misses, &[1], false)?);
        g.concat(&[hits, misses], 1)
    }

    fn result(&self, sums: &[f64], _samples: f64) -> f64 {
        let (tp, fp) = sums.split_at(self.thresholds);
        let share = |x: f64, of: f64| if of > 0.0 { x / of } else { 0.0 };
        let steps = (0..self.thresholds - 1).map(|i| match self.curve {
            Curve::Roc => {
                let [x, y] = [fp, tp].map(|v| [i, i + 1].map(|k| share(v[k], v[0])));
                (x[0] - x[1]) * (y[0] + y[1]) / 2.0
            }
            // Davis and Goadrich 2006: between two points, true positives are interpolated linearly.
            Curve::PrecisionRecall => {
                let all = [i, i + 1].map(|k| tp[k] + fp[k]);
                let slope = share(tp[i] - tp[i + 1], all[0] - all[1]);
                let ratio = if all[0] > 0.0 && all[1] > 0.0 { all[0] / all[1] } else { 1.0 };
                let start = tp[i + 1] - slope * all[1];
                share(slope * (tp[i] - tp[i + 1] + start * ratio.ln()), tp[0])
            }
        });
        steps.sum()
    }

    fn config(&self, _classes: bool) -> Json {
        let curve = if self.curve == Curve::Roc { "ROC" } else { "PR" };
        metric("AUC", json!({ "name": self.name(), "curve": curve, "num_thresholds": self.thresholds }))
    }
}

/// Returns the mean of each sample's elements, shape (N).
pub(super) fn mean_of_sample(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    let axes: Vec<usize> = (1..g.shape(x).rank()).collect();
    if axes.is_empty() { Ok(x) } else { g.mean_axes(x, &axes, false) }
}
