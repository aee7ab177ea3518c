//! How a model is trained: the options of `Model::compile`.

use super::error::TrainError;
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Bounds, Loss, Metric, Number, Optimizer, check_numbers},
};
use std::sync::Arc;

/// How a model is trained: optimiser, losses, metrics, seed of the initial weights.
///
/// ```
/// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
/// let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy).seed(1);
/// ```
#[derive(Debug, Clone)]
pub struct Compile {
    pub(super) optimizer: Arc<dyn Optimizer>,
    pub(super) targets: Vec<Target>,
    pub(super) seed: u64,
    pub(super) factors: Vec<(String, f32)>,
    pub(super) norms: bool,
    pub(super) mix_up: Option<f32>,
}

impl Compile {
    /// Trains with this optimiser and loss, without metrics and with seed 0.
    pub fn new(optimizer: impl Optimizer + 'static, loss: impl Loss + 'static) -> Self {
        Compile {
            optimizer: Arc::new(optimizer),
            targets: vec![Target::new(loss)],
            seed: 0,
            factors: Vec::new(),
            norms: false,
            mix_up: None,
        }
    }

    /// Adds a metric for the most recently added output. In the history the second metric of a kind is called `NAME_1`,
    /// the third `NAME_2` (Keras).
    pub fn metric(self, metric: impl Metric + 'static) -> Self {
        self.with_metric(None, metric)
    }

    /// Adds a metric for the most recently added output, under this name in the history.
    ///
    /// ```
    /// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
    /// let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new())
    ///     .metric(Accuracy)
    ///     .metric_named("top3", TopKAccuracy::new(3));
    /// ```
    pub fn metric_named(self, name: impl Into<String>, metric: impl Metric + 'static) -> Self {
        self.with_metric(Some(name.into()), metric)
    }

    fn with_metric(mut self, name: Option<String>, metric: impl Metric + 'static) -> Self {
        if let Some(target) = self.targets.last_mut() {
            target.metrics.push((name, Arc::new(metric)));
        }
        self
    }

    /// Adds a loss for the model's next output, whose labels [`Dataset::and_labels`](crate::data::Dataset::and_labels)
    /// supplies. Losses are summed.
    ///
    /// The history then has `loss`, and for each output `output_0_loss`, `output_0_accuracy` and so on.
    ///
    /// ```
    /// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
    /// let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new())
    ///     .metric(Accuracy)
    ///     .output(MeanSquaredError)
    ///     .loss_weight(0.3);
    /// ```
    pub fn output(mut self, loss: impl Loss + 'static) -> Self {
        self.targets.push(Target::new(loss));
        self
    }

    /// Multiplies the loss of the most recently added output by this (Keras `loss_weights`); 1 by default.
    pub fn loss_weight(mut self, weight: f32) -> Self {
        if let Some(target) = self.targets.last_mut() {
            target.weight = weight;
        }
        self
    }

    /// Returns every metric with its output and its name in a history.
    pub(super) fn metrics(&self) -> Vec<(usize, String, Arc<dyn Metric>)> {
        let prefix = |k: usize| if self.targets.len() > 1 { format!("output_{k}_") } else { String::new() };
        let given: Vec<String> = self.given_names().chain(["loss".to_owned()]).collect();
        let mut all: Vec<(usize, String, Arc<dyn Metric>)> = Vec::new();
        for (k, target) in self.targets.iter().enumerate() {
            let own =
                (self.targets.len() > 1).then(|| (None, Arc::new(LossOf(target.loss.clone())) as Arc<dyn Metric>));
            let metrics: Vec<_> = own.into_iter().chain(target.metrics.iter().cloned()).collect();
            let unnamed = metrics.iter().filter(|m| m.0.is_none());
            let mut made = distinct(unnamed.map(|m| prefix(k) + m.1.name()), &given).into_iter();
            for (name, metric) in metrics {
                let name = name.map(|name| prefix(k) + &name).or_else(|| made.next()).unwrap_or_default();
                all.push((k, name, metric));
            }
        }
        all
    }

    /// Returns the names that the user gave metrics.
    fn given_names(&self) -> impl Iterator<Item = String> {
        let several = self.targets.len() > 1;
        let named = self.targets.iter().enumerate().flat_map(|(k, t)| t.metrics.iter().map(move |m| (k, m.0.as_ref())));
        named.filter_map(move |(k, name)| Some(if several { format!("output_{k}_{}", name?) } else { name?.clone() }))
    }

    /// Returns an error if a number is out of bounds, or a name is taken.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        check_numbers(self.optimizer.numbers())?;
        for target in &self.targets {
            check_numbers(target.loss.numbers())?;
            Number::new("Compile", "loss_weight", target.weight, Bounds::Finite).check()?;
            target.metrics.iter().try_for_each(|(_, metric)| check_numbers(metric.numbers()))?;
        }
        let of = |option, value: f32, bounds| Number::new("Compile", option, value, bounds);
        check_numbers(self.factors.iter().map(|(_, factor)| of("rate_factor", *factor, Bounds::AtLeastZero)))?;
        check_numbers(self.mix_up.map(|alpha| of("mix_up", alpha, Bounds::Positive)))?;
        let names: Vec<String> = self.given_names().collect();
        let taken = |name: &String| names.iter().filter(|n| *n == name).count() > 1 || name == "loss";
        match names.iter().find(|name| taken(name) || name.is_empty() || name.starts_with("val_")) {
            Some(name) => Err(TrainError::MetricName(name.clone())),
            None => Ok(()),
        }
    }

    /// Returns for each output whether its labels are class indices.
    pub(super) fn takes_classes(&self) -> Vec<bool> {
        self.targets.iter().map(|target| target.loss.takes_classes()).collect()
    }

    /// Trains the weights of a layer, or of all layers below this path, at `factor` times the learning rate. If several
    /// calls name a layer, the last one applies.
    ///
    /// ```
    /// use hubel::{losses::*, optimizers::*, prelude::*};
    /// let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).rate_factor("base", 0.1);
    /// ```
    pub fn rate_factor(mut self, layer: impl Into<String>, factor: f32) -> Self {
        self.factors.push((layer.into(), factor));
        self
    }

    /// Reports after each epoch `activation_norm/LAYER`, the root mean square of a layer's outputs in training, and
    /// `gradient_norm/WEIGHT`, the root mean square over the steps of the L2 norm of a weight's gradient before
    /// clipping. They show vanishing and exploding gradients. Off by default.
    pub fn norms(mut self, norms: bool) -> Self {
        self.norms = norms;
        self
    }

    /// Trains on mixtures λ·a + (1 − λ)·b of each sample a and its neighbour b in the batch, and of their labels, with λ
    /// drawn for each sample from Beta(`alpha`, `alpha`) (Zhang et al. 2018; Keras `MixUp`, whose default is 0.2).
    /// Labels must be numbers, as [`Dataset::to_categorical`](crate::data::Dataset::to_categorical) returns them.
    ///
    /// ```
    /// use hubel::{losses::*, optimizers::*, prelude::*};
    /// let config = Compile::new(Adam::new(1e-3), CategoricalCrossentropy::new()).mix_up(0.2);
    /// ```
    pub fn mix_up(mut self, alpha: f32) -> Self {
        self.mix_up = Some(alpha);
        self
    }

    /// Sets the seed of the initial weights; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// The loss and metrics of one output.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub loss: Arc<dyn Loss>,
    pub weight: f32,
    pub metrics: Vec<(Option<String>, Arc<dyn Metric>)>,
}

/// Returns the names, with `_1`, `_2` and so on appended if an earlier name or one of `given` is the same.
pub(super) fn distinct(names: impl Iterator<Item = String>, given: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        let numbered = (1..).map(|i| format!("{name}_{i}"));
        let free = [name.clone()].into_iter().chain(numbered).find(|n| !all.contains(n) && !given.contains(n));
        all.extend(free);
    }
    all
}

impl Target {
    fn new(loss: impl Loss + 'static) -> Self {
        Target { loss: Arc::new(loss), weight: 1.0, metrics: Vec::new() }
    }
}

/// The loss of one output among several.
#[derive(Debug)]
struct LossOf(Arc<dyn Loss>);

impl Metric for LossOf {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        self.0.build(g, output, None, labels)
    }
}
