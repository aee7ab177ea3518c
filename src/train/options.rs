use super::{Callback, TrainError};
use crate::{
    data::Dataset,
    graph::{Graph, OpError, Value},
    nn::{Bounds, Loss, Metric, Number, Optimizer, check_numbers},
};
use std::{sync::Arc, time::Duration};

/// How a model is trained: optimiser, loss, metrics, seed of the first weights.
///
/// ```
/// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
/// let how = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy).seed(1);
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
    /// Returns a way to train without metrics, seed 0.
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

    /// Returns the way with a metric more, of the output named last. A second one of a kind gets `_1` behind its name in
    /// the history, a third `_2` (Keras).
    pub fn metric(self, metric: impl Metric + 'static) -> Self {
        self.with_metric(None, metric)
    }

    /// Returns the way with a metric more, of the output named last, under this name in the history.
    ///
    /// ```
    /// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
    /// let how = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new())
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

    /// Returns the way with a loss for the model's next output, of which the labels come by
    /// [`Dataset::and_labels`]; losses are added up.
    ///
    /// A history then has `loss`, and for each output `output_0_loss`, `output_0_accuracy` and so on.
    ///
    /// ```
    /// use hubel::{losses::*, metrics::*, optimizers::*, prelude::*};
    /// let how = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new())
    ///     .metric(Accuracy)
    ///     .output(MeanSquaredError)
    ///     .loss_weight(0.3);
    /// ```
    pub fn output(mut self, loss: impl Loss + 'static) -> Self {
        self.targets.push(Target::new(loss));
        self
    }

    /// Returns the way that multiplies the loss of the output named last by this (Keras `loss_weights`).
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

    /// Returns an error where a number is out of its bounds, or a name is taken.
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

    /// Returns the way with the weights of a layer, or of all layers below this path, changed at `factor` times the
    /// learning rate; the last call that names a weight's layer counts.
    ///
    /// ```
    /// use hubel::{losses::*, optimizers::*, prelude::*};
    /// let how = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).rate_factor("base", 0.1);
    /// ```
    pub fn rate_factor(mut self, layer: impl Into<String>, factor: f32) -> Self {
        self.factors.push((layer.into(), factor));
        self
    }

    /// Returns the way in which each epoch also gives `activation_norm/LAYER`, the root mean square of a layer's outputs
    /// in training, and `gradient_norm/WEIGHT`, the root mean square over the steps of the length of a weight's gradient
    /// before clipping: gradients that vanish or explode can be seen.
    pub fn norms(mut self, norms: bool) -> Self {
        self.norms = norms;
        self
    }

    /// Returns the way that trains on mixtures λ·a + (1 − λ)·b of each sample a and its neighbour b in the batch, labels
    /// too, with λ drawn for each from the Beta distribution of `alpha` and `alpha` (Zhang et al. 2018; Keras `MixUp`,
    /// which has 0.2). Labels must be numbers, as [`Dataset::to_categorical`] makes them.
    ///
    /// ```
    /// use hubel::{losses::*, optimizers::*, prelude::*};
    /// let how = Compile::new(Adam::new(1e-3), CategoricalCrossentropy::new()).mix_up(0.2);
    /// ```
    pub fn mix_up(mut self, alpha: f32) -> Self {
        self.mix_up = Some(alpha);
        self
    }

    /// Returns the way with this seed of the first weights.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// What an output is trained for.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub loss: Arc<dyn Loss>,
    pub weight: f32,
    metrics: Vec<(Option<String>, Arc<dyn Metric>)>,
}

/// Returns names with `_1`, `_2` and so on behind those that came before, or are among those given.
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

/// How far a call of fit goes.
#[derive(Debug, Clone, Copy)]
enum Span {
    More(usize),
    Until(usize),
}

/// One call of [`Trainer::fit`](super::Trainer::fit): epochs, batch, validation, callbacks.
pub struct Fit<'a> {
    span: Span,
    pub(super) batch: usize,
    pub(super) validation: Option<&'a Dataset>,
    pub(super) seed: u64,
    pub(super) shuffle: bool,
    pub(super) max_steps: Option<u64>,
    pub(super) read_every: Duration,
    pub(super) callbacks: Vec<Box<dyn Callback + 'a>>,
}

impl<'a> Fit<'a> {
    /// Returns training for `epochs` epochs more, batch 32, shuffled (Keras's defaults). The rest of an epoch that was
    /// stopped counts as one.
    pub fn epochs(epochs: usize) -> Self {
        Self::of(Span::More(epochs))
    }

    /// Returns training until `epoch` epochs are done, those before this call too, else as [`Fit::epochs`]: for a run
    /// that goes on from a checkpoint.
    ///
    /// ```
    /// use hubel::{callbacks::*, layers::*, losses::*, optimizers::*, prelude::*};
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// # let path = folder.path().join("last.safetensors");
    /// let data = Dataset::new(HostTensor::f32([4, 1], vec![1.0; 4])?, HostTensor::f32([4, 1], vec![2.0; 4])?)?;
    /// let model = Sequential::new([1]).add(Dense::new(1)).build()?;
    /// let how = || Compile::new(Sgd::new(0.1), MeanSquaredError);
    /// let mut trainer = model.compile(&Engine::reference(), how())?;
    /// trainer.fit(&data, Fit::epochs(3).callback(ModelCheckpoint::new(&path)))?;
    /// let mut resumed = model.compile(&Engine::reference(), how())?;
    /// resumed.load_checkpoint(&path)?;
    /// resumed.fit(&data, Fit::until_epoch(5))?;
    /// assert_eq!(resumed.history().epochs, [3, 4]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn until_epoch(epoch: usize) -> Self {
        Self::of(Span::Until(epoch))
    }

    /// Returns the number of epochs that are done at the end, where `done` are at the beginning.
    pub(super) fn until(&self, done: usize) -> usize {
        match self.span {
            Span::More(epochs) => done.saturating_add(epochs),
            Span::Until(epoch) => epoch,
        }
    }

    fn of(span: Span) -> Self {
        Fit {
            span,
            batch: 32,
            validation: None,
            seed: 0,
            shuffle: true,
            max_steps: None,
            read_every: Duration::from_millis(250),
            callbacks: Vec::new(),
        }
    }

    /// Returns the call with batches of `batch` samples, of all samples where there are fewer; the last of an epoch may
    /// be smaller.
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch.max(1);
        self
    }

    /// Returns the call with an evaluation on this data after every epoch.
    pub fn validation(mut self, data: &'a Dataset) -> Self {
        self.validation = Some(data);
        self
    }

    /// Returns the call with this seed of order and dropout.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Returns the call with or without a new random order in each epoch.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Returns the call stopped after so many steps, mid-epoch where they end there; the next call goes on. 0 takes none.
    pub fn max_steps(mut self, steps: u64) -> Self {
        self.max_steps = Some(steps);
        self
    }

    /// Returns the call with values read from the device after every step, not a few times a second.
    ///
    /// Each step is then waited for.
    pub fn read_every_step(mut self) -> Self {
        self.read_every = Duration::ZERO;
        self
    }

    /// Returns the call with a callback more.
    pub fn callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }
}
