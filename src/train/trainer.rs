use super::{
    Compile, Control, Fit, History, Inference, NotFinite, Progress, TrainError,
    norms::Norm,
    numbers::Steps,
    runner::{Compiled, Runner, largest_batch, reserve},
    step::{METRICS, ROWS, SAMPLES, Source, WEIGHTS, labels_name, sums_name},
};
use crate::{
    Error,
    data::{Dataset, are_classes},
    graph::{Step, TensorType},
    nn::{Mode, Model, below},
    ops::Accumulate,
    passes::{Layout, Plan},
    runtime::{Arena, Engine, Store, Timing},
    tensor::{Batch, HostTensor, Shape},
};
use std::{sync::Arc, time::Instant};

/// Loss and metrics of an evaluation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scores {
    /// Name and mean over all samples.
    pub values: Vec<(String, f64)>,
}

impl Scores {
    /// Returns the score of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| n == name).map(|v| v.1)
    }
}

/// A model with weights on a device, an optimiser and what it remembers.
///
/// ```no_run
/// use hubel::prelude::*;
/// let engine = Engine::new()?;
/// let mnist = data::mnist("examples/data/mnist")?;
/// let model = Sequential::new([28, 28, 1])
///     .add(Flatten::new())
///     .add(Dense::new(10).activation(Softmax))
///     .build()?;
/// let how = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy);
/// let mut trainer = model.compile(&engine, how)?;
/// let history = trainer.fit(&mnist.train, Fit::epochs(2).batch(64).validation(&mnist.test))?;
/// println!("{:?}", history.last("val_accuracy"));
/// # Ok::<(), hubel::Error>(())
/// ```
pub struct Trainer {
    pub(super) model: Model,
    pub(super) engine: Engine,
    pub(super) how: Compile,
    pub(super) params: Store,
    pub(super) moments: Option<Store>,
    pub(super) metrics: Store,
    /// How many sums of its own each metric takes.
    pub(super) sums: Vec<Option<usize>>,
    arena: Arena,
    pub(super) at: Position,
    pub(super) history: History,
    plan: Option<Arc<Plan>>,
    pub(super) norms: Vec<Norm>,
    not_finite: Option<NotFinite>,
    /// The step of [`Trainer::train_on_batch`], for so many samples with weights or without.
    on_batch: Option<((usize, bool), Runner)>,
    /// The step of [`Trainer::activations_and_gradients`] with the names that it gives, likewise.
    pub(super) watching: Option<((usize, bool), Vec<String>, Runner)>,
}

/// Where training stands, as a checkpoint keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Position {
    pub step: u64,
    pub epoch: usize,
    pub cursor: usize,
    pub seed: u64,
    /// Hash of the plan that took the last step, 0 where there was none.
    pub plan: u64,
    /// A learning rate that stands above the optimiser's own.
    pub rate: Option<f64>,
}

impl Model {
    /// Returns a trainer with this model's weights on the engine's device.
    ///
    /// Weights that were set keep their values, the others get those of their initialisers.
    pub fn compile(&self, engine: &Engine, how: Compile) -> Result<Trainer, Error> {
        Trainer::new(self.clone(), engine, how)
    }
}

impl Trainer {
    fn new(model: Model, engine: &Engine, how: Compile) -> Result<Self, Error> {
        if let Some(alpha) = how.mix_up.filter(|alpha| !(*alpha > 0.0 && alpha.is_finite())) {
            return Err(TrainError::MixUp(alpha).into());
        }
        if model.inputs().len() != 1 {
            return Err(TrainError::ManyInputs(model.inputs().len()).into());
        }
        if model.outputs().len() != how.targets.len() {
            return Err(TrainError::Outputs { wanted: model.outputs().len(), got: how.targets.len() }.into());
        }
        let limit = engine.profile().max_binding_bytes;
        let params = engine.store(Arc::new(params_layout(&model, limit)))?;
        for weight in model.weights() {
            params.write(&weight.name, &model.initial_value(weight, how.seed))?;
        }
        let trainable = || model.weights().iter().filter(|w| w.trainable);
        let moments: Vec<(String, TensorType)> = (how.optimizer.slots().iter())
            .flat_map(|slot| trainable().map(move |w| (format!("{slot}/{}", w.name), TensorType::f32(w.shape.clone()))))
            .collect();
        let moments = match moments.is_empty() {
            true => None,
            false => Some(engine.store(Arc::new(Layout::new(moments, limit)))?),
        };
        if let Some(store) = moments.as_ref().filter(|_| how.optimizer.initial() != 0.0) {
            for entry in &store.layout().entries {
                let shape = entry.ty.shape.dims().to_vec();
                let values = vec![how.optimizer.initial(); shape.iter().product()];
                store.write(&entry.name, &HostTensor::f32(shape, values)?)?;
            }
        }
        if let Some((prefix, _)) = how.factors.iter().find(|(p, _)| !trainable().any(|w| below(&w.name, p))) {
            let wanted = model.layer_names().join(", ");
            return Err(TrainError::NoLayer { got: prefix.clone(), wanted }.into());
        }
        let sums = Self::sums(&model, &how)?;
        let with_loss = 2 + sums.iter().filter(|k| k.is_none()).count();
        let own = sums.iter().enumerate().filter_map(|(i, k)| Some((sums_name(i), TensorType::f32([(*k)?]))));
        let norms = if how.norms { Norm::all(&model)? } else { Vec::new() };
        let measured = norms.iter().map(|norm| (norm.name.clone(), TensorType::f32([1])));
        let counters = [(METRICS.to_owned(), TensorType::f32([with_loss]))].into_iter().chain(own).chain(measured);
        let metrics = engine.store(Arc::new(Layout::new(counters, limit)))?;
        Ok(Trainer {
            model,
            engine: engine.clone(),
            how,
            params,
            moments,
            metrics,
            sums,
            arena: engine.arena(),
            at: Position::default(),
            history: History::default(),
            plan: None,
            norms,
            not_finite: None,
            on_batch: None,
            watching: None,
        })
    }

    /// Returns the learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.at.rate.unwrap_or_else(|| self.how.optimizer.rate(self.at.step))
    }

    /// Takes this learning rate from the next step on, instead of the optimiser's own.
    pub fn set_learning_rate(&mut self, rate: f64) {
        self.at.rate = Some(rate);
    }

    /// Returns the model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Returns the number of steps taken so far.
    pub fn steps(&self) -> u64 {
        self.at.step
    }

    /// Returns loss and metrics of all epochs so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the value that ended the last [`Trainer::fit`] with [`super::TerminateOnNaN`], if one did.
    pub fn not_finite(&self) -> Option<&NotFinite> {
        self.not_finite.as_ref()
    }

    /// Returns the plan of a training step, once [`Trainer::fit`] has begun on a device.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    pub(super) fn check(&self, data: &Dataset) -> Result<(), Error> {
        if data.is_empty() {
            return Err(TrainError::NoData.into());
        }
        data.check_weights()?;
        let (wanted, got) = (self.model.input_shape().dims()[1..].to_vec(), data.images.shape()[1..].to_vec());
        if wanted != got {
            return Err(TrainError::SampleShape { wanted, got }.into());
        }
        if data.targets().count() != self.how.targets.len() {
            return Err(TrainError::Outputs { wanted: self.how.targets.len(), got: data.targets().count() }.into());
        }
        if self.how.mix_up.is_some() && data.targets().any(are_classes) {
            let wanted = "numbers to mix, as Dataset::to_categorical makes them".into();
            return Err(TrainError::Labels { wanted, got: "class indices".into() }.into());
        }
        for ((output, target), labels) in self.model.outputs().iter().zip(&self.how.targets).zip(data.targets()) {
            check_labels(&output.shape, target.loss.takes_classes(), labels)?;
        }
        Ok(())
    }

    pub(super) fn step(&self, n: usize, first: bool) -> Step {
        let mut scalars = self.how.optimizer.scalars(self.learning_rate(), self.at.step);
        scalars[Accumulate::KEEP] = if first { 0.0 } else { 1.0 };
        Step { n, step: self.at.step as u32, seed: self.at.seed, scalars }
    }

    pub(super) fn feed(
        &self,
        runner: &mut Runner,
        step: &Step,
        data: &Dataset,
        source: &Source,
        rows: &[u32],
        mode: Mode,
    ) -> Result<(), Error> {
        runner.run(step, &as_bytes(&self.feeds(step, data, source, rows, mode)?))
    }

    /// Returns what a step is fed, by input name.
    pub(super) fn feeds(
        &self,
        step: &Step,
        data: &Dataset,
        source: &Source,
        rows: &[u32],
        mode: Mode,
    ) -> Result<Vec<(String, HostTensor)>, Error> {
        let mut feeds = rows_of(data, source, rows)?;
        if let (Source::Host, Some(weights)) = (source, data.weights_of(rows)) {
            feeds.push((WEIGHTS.into(), HostTensor::f32([rows.len()], weights)?));
        }
        if mode == Mode::Training {
            feeds.extend(self.mixed_in(data, source, rows, step)?);
        }
        Ok(feeds)
    }

    pub(super) fn read_values(&self, runner: &mut Runner, n: usize) -> Result<Vec<(String, f64)>, Error> {
        let counters = runner.read(METRICS, n)?.to_f32();
        let seen = f64::from(counters[0]).max(1.0);
        let mut values = vec![("loss".to_owned(), f64::from(counters[1]) / seen)];
        let mut scalar = counters[2..].iter();
        for (i, ((_, name, metric), &k)) in self.how.metrics().into_iter().zip(&self.sums).enumerate() {
            let sums: Vec<f64> = match k {
                None => scalar.next().map(|&x| f64::from(x)).into_iter().collect(),
                Some(_) => runner.read(&sums_name(i), n)?.to_f32().into_iter().map(f64::from).collect(),
            };
            values.push((name, metric.result(&sums, seen)));
        }
        Ok(values)
    }

    /// Trains until the asked number of epochs is done and returns the history of all epochs.
    ///
    /// A trainer that has been stopped or resumed goes on where it stood, mid-epoch too.
    pub fn fit(&mut self, data: &Dataset, mut fit: Fit) -> Result<History, Error> {
        self.check(data)?;
        if let Some(validation) = fit.validation {
            self.check(validation)?;
        }
        self.at.seed = fit.seed;
        fit.batch = fit.batch.min(data.len());
        let (source, training, _) = self.compiled(data, fit.batch, Mode::Training)?;
        let evaluation = match fit.validation {
            None => None,
            Some(data) => Some((data, self.compiled(data, fit.batch, Mode::Inference)?)),
        };
        let graphs: Vec<_> = evaluation.iter().map(|(_, (_, compiled, _))| compiled).chain([&training]).collect();
        reserve(&self.engine, &self.arena, &graphs)?;
        if let Some(plan) = training.plan() {
            if self.at.plan != 0 && self.at.plan != plan.hash {
                log::warn!("this run takes its steps by another plan than before: it will not end in the same bits");
            }
            self.at.plan = plan.hash;
            self.plan = Some(plan.clone());
        }
        let mut runner = training.runner(&self.engine, Some(&self.arena))?;
        let mut validation = match evaluation {
            None => None,
            Some((data, (source, compiled, batch))) => {
                Some((data, source, compiled.runner(&self.engine, Some(&self.arena))?, batch))
            }
        };
        let mut at = Progress { epochs: fit.epochs, samples: data.len(), ..Progress::default() };
        fit.callbacks.iter_mut().try_for_each(|c| c.begin(&at, self))?;
        let keep = fit.callbacks.iter().any(|c| c.finite());
        let run = Steps { data, batch: fit.batch, seed: fit.seed, shuffle: fit.shuffle };
        let mut snapshot = None;
        self.not_finite = None;
        let mut steps = 0;
        while self.at.epoch < fit.epochs {
            if keep {
                snapshot = self.snapshot()?.or(snapshot);
            }
            if self.at.cursor == 0 {
                fit.callbacks.iter_mut().try_for_each(|c| c.epoch_begin(self.at.epoch, self))?;
            }
            let order = run.order(self.at.epoch);
            let (began, from) = (Instant::now(), self.at.cursor);
            let mut shown = Instant::now();
            let mut stop = false;
            while self.at.cursor < data.len() && !stop {
                let rows = &order[self.at.cursor..(self.at.cursor + fit.batch).min(order.len())];
                let step = self.step(rows.len(), self.at.cursor == 0);
                self.feed(&mut runner, &step, data, &source, rows, Mode::Training)?;
                self.at.step += 1;
                self.at.cursor += rows.len();
                steps += 1;
                (at.epoch, at.seen) = (self.at.epoch, self.at.cursor);
                if shown.elapsed() >= fit.read_every {
                    at.values = self.read_values(&mut runner, rows.len())?;
                    at.samples_per_s = (self.at.cursor - from) as f64 / began.elapsed().as_secs_f64();
                    fit.callbacks.iter_mut().for_each(|c| c.progress(&at));
                    shown = Instant::now();
                }
                stop = fit.max_steps.is_some_and(|max| steps >= max);
                for callback in &mut fit.callbacks {
                    stop |= callback.step_end(&at) == Control::Stop;
                }
            }
            if self.at.cursor < data.len() {
                // The steps so far are on the device for certain.
                self.read_values(&mut runner, 1)?;
                break;
            }
            at.values = self.read_values(&mut runner, 1)?;
            at.samples_per_s = (data.len() - from) as f64 / began.elapsed().as_secs_f64();
            at.values.extend(self.read_norms(data.len(), data.len().div_ceil(fit.batch))?);
            if let Some((data, source, runner, batch)) = &mut validation {
                let scores = self.run_evaluation(data, source, runner, *batch)?;
                at.values.extend(scores.values.into_iter().map(|(name, v)| (format!("val_{name}"), v)));
            }
            self.history.push(self.at.epoch, &at.values);
            (self.at.epoch, self.at.cursor) = (self.at.epoch + 1, 0);
            fit.callbacks.iter_mut().for_each(|c| c.progress(&at));
            for callback in &mut fit.callbacks {
                stop |= callback.epoch_end(&at, self)? == Control::Stop;
            }
            if stop {
                break;
            }
        }
        let until = self.at.step;
        if let Some(snapshot) = snapshot.filter(|_| at.get("loss").is_some_and(|loss| !loss.is_finite())) {
            self.not_finite = self.trace(&mut runner, &source, &run, &snapshot, until)?;
            self.not_finite.iter().for_each(|found| log::error!("{found}"));
        }
        fit.callbacks.iter_mut().try_for_each(|c| c.end(self))?;
        Ok(self.history.clone())
    }

    /// Returns a step's runner on host samples, kept from call to call for batches of the same size.
    fn take_batch_runner(&mut self, data: &Dataset) -> Result<Runner, Error> {
        match self.on_batch.take() {
            Some((kind, runner)) if kind == batch_kind(data) => Ok(runner),
            _ => {
                let graph = self.graph(data, &Source::Host, Mode::Training)?;
                Compiled::new(&self.engine, graph, data.len(), self.stores(&Source::Host))?
                    .runner(&self.engine, Some(&self.arena))
            }
        }
    }

    /// Trains one step on these samples, in their order, and returns its loss (Keras `train_on_batch`).
    pub fn train_on_batch(&mut self, data: &Dataset) -> Result<f64, Error> {
        self.check(data)?;
        let mut runner = self.take_batch_runner(data)?;
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let step = self.step(data.len(), true);
        self.feed(&mut runner, &step, data, &Source::Host, &rows, Mode::Training)?;
        self.at.step += 1;
        let values = self.read_values(&mut runner, data.len())?;
        self.on_batch = Some((batch_kind(data), runner));
        Ok(values[0].1)
    }

    /// Returns the plan of a training step on up to `batch` samples like these, fed from the host.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let model = Sequential::new([4]).add(Dense::new(2).activation(Softmax)).build()?;
    /// let trainer = model.compile(&Engine::reference(), Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new()))?;
    /// let data = Dataset::new(HostTensor::f32([1, 4], vec![0.0; 4])?, HostTensor::u8([1], vec![1])?)?;
    /// assert!(trainer.plan_for(&data, 32)?.dispatches.len() > 2);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn plan_for(&self, data: &Dataset, batch: usize) -> Result<Plan, Error> {
        self.check(data)?;
        let graph = self.graph(data, &Source::Host, Mode::Training)?;
        let stores = self.stores(&Source::Host);
        Ok(Compiled::plan_of(&self.engine, &graph, batch.max(1), &stores)?)
    }

    /// Returns the time of each launch of a training step on these samples, in milliseconds on the device.
    ///
    /// The step is taken like any other. Empty on the reference engine.
    pub fn profile(&mut self, data: &Dataset) -> Result<Vec<Timing>, Error> {
        self.check(data)?;
        let mut runner = self.take_batch_runner(data)?;
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let step = self.step(data.len(), true);
        let feeds = self.feeds(&step, data, &Source::Host, &rows, Mode::Training)?;
        self.at.step += 1;
        let times = match &mut runner {
            Runner::Device(session) => session.profile(&step, &as_bytes(&feeds))?,
            Runner::Reference(_) => Vec::new(),
        };
        self.on_batch = Some((batch_kind(data), runner));
        Ok(times)
    }

    /// Returns where samples come from, the step for batches of at least `batch` samples, and of how many; those of an
    /// evaluation are larger where samples are small.
    fn compiled(&self, data: &Dataset, batch: usize, mode: Mode) -> Result<(Source, Compiled, usize), Error> {
        let source = self.source(data)?;
        let graph = self.graph(data, &source, mode)?;
        let batch = match mode {
            Mode::Training => batch,
            Mode::Inference => batch.max(largest_batch(&self.engine, &graph)).min(data.len()),
        };
        let compiled = Compiled::new(&self.engine, graph, batch, self.stores(&source))?;
        Ok((source, compiled, batch))
    }

    fn run_evaluation(
        &self,
        data: &Dataset,
        source: &Source,
        runner: &mut Runner,
        batch: usize,
    ) -> Result<Scores, Error> {
        let order: Vec<u32> = (0..data.len() as u32).collect();
        for (i, rows) in order.chunks(batch).enumerate() {
            self.feed(runner, &self.step(rows.len(), i == 0), data, source, rows, Mode::Inference)?;
        }
        Ok(Scores { values: self.read_values(runner, 1)? })
    }

    /// Returns loss and metrics over a whole data set, without dropout and with moving statistics.
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Scores, Error> {
        self.check(data)?;
        let (source, compiled, batch) = self.compiled(data, 1, Mode::Inference)?;
        let mut runner = compiled.runner(&self.engine, Some(&self.arena))?;
        self.run_evaluation(data, &source, &mut runner, batch)
    }

    /// Returns the model ready to run on batches of at most `batch` samples, on the trainer's weights.
    ///
    /// `taps` names layers whose outputs are results too.
    pub fn inference(&self, batch: Batch, taps: &[&str]) -> Result<Inference, Error> {
        Inference::new(&self.model, &self.engine, self.params.clone(), batch, taps)
    }

    /// Returns the model's output for f32 samples (n, …), any number of them.
    pub fn predict(&self, samples: &HostTensor) -> Result<HostTensor, Error> {
        let n = samples.shape().first().copied().unwrap_or(1);
        self.inference_of(n)?.predict(samples)
    }

    /// Returns the model ready to run on batches of a size that fits `n` samples and the device.
    fn inference_of(&self, n: usize) -> Result<Inference, Error> {
        let mut net = self.inference(Batch::up_to(n), &[])?;
        net.batch = n.min(largest_batch(&self.engine, &net.graph)).max(1);
        Ok(net)
    }

    /// Returns how many samples of each class were taken for each: a row for each class of the labels, in it a number for
    /// each class of the model's first output; or an error where labels are no class indices.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let model = Sequential::new([1]).add(Dense::new(2).kernel_initializer(Zeros)).build()?;
    /// let how = Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new().from_logits(true));
    /// let trainer = model.compile(&Engine::reference(), how)?;
    /// let data = Dataset::new(HostTensor::f32([3, 1], vec![1.0; 3])?, HostTensor::u8([3], vec![0, 1, 1])?)?;
    /// assert_eq!(trainer.confusion_matrix(&data)?, [[1, 0], [2, 0]]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn confusion_matrix(&self, data: &Dataset) -> Result<Vec<Vec<u64>>, Error> {
        self.check(data)?;
        if !data.has_classes() {
            let (wanted, got) = ("class indices, u8 or u32 (n)".into(), data.labels.dtype().to_string());
            return Err(TrainError::Labels { wanted, got }.into());
        }
        let said = self.inference_of(data.len())?.features(data, |_, _| {})?;
        let classes = self.model.output_shape().last();
        let mut matrix = vec![vec![0; classes]; classes];
        for (said, label) in said.images.to_f32().chunks(classes).zip(data.labels.to_f32()) {
            // The first of equal ones, as accuracy takes it.
            let likeliest = (0..classes).fold(0, |best, k| if said[k] > said[best] { k } else { best });
            matrix[label as usize][likeliest] += 1;
        }
        Ok(matrix)
    }

    /// Takes these values for weights of the model by name; those not named keep theirs.
    pub fn set_weights(&mut self, tensors: &[(String, HostTensor)]) -> Result<(), Error> {
        tensors.iter().try_for_each(|(name, tensor)| Ok(self.params.write(name, tensor)?))
    }

    /// Returns the model with the weights that it has learned.
    pub fn trained(&self) -> Result<Model, Error> {
        let mut model = self.model.clone();
        model.set_weights(self.weights()?)?;
        Ok(model)
    }

    /// Returns the model's weights by name, in the order of the layers.
    pub fn weights(&self) -> Result<Vec<(String, HostTensor)>, Error> {
        let names = self.model.weights().iter().map(|w| w.name.clone());
        names.map(|name| Ok((name.clone(), self.params.read(&name)?))).collect()
    }
}

/// Returns the layout of a model's weights: those that are trained first, so that they lie together.
pub(super) fn params_layout(model: &Model, limit: u64) -> Layout {
    let of = |trainable: bool| {
        let weights = model.weights().iter().filter(move |w| w.trainable == trainable);
        weights.map(|w| (w.name.clone(), TensorType::f32(w.shape.clone())))
    };
    Layout::new(of(true).chain(of(false)), limit)
}

/// Returns an error where labels are not what a loss compares an output with.
fn check_labels(output: &Shape, takes_classes: bool, labels: &HostTensor) -> Result<(), TrainError> {
    let is_classes = are_classes(labels);
    if takes_classes != is_classes {
        let wanted = if takes_classes { "class indices, u8 or u32 (n)" } else { "numbers, f32 (n, …)" };
        return Err(TrainError::Labels { wanted: wanted.into(), got: labels.dtype().to_string() });
    }
    if !is_classes {
        let (wanted, got) = (&output.dims()[1..], &labels.shape()[1..]);
        if wanted != got {
            let wanted = format!("{wanted:?} for each sample");
            return Err(TrainError::Labels { wanted, got: format!("{got:?}") });
        }
        return Ok(());
    }
    let (classes, labels) = (output.last(), labels.to_array());
    match labels.data.iter().position(|&l| l as usize >= classes) {
        Some(sample) => Err(TrainError::Label { sample, label: labels.data[sample] as u32, classes }),
        None => Ok(()),
    }
}

pub(super) fn batch_kind(data: &Dataset) -> (usize, bool) {
    (data.len(), data.weights.is_some())
}

/// Returns samples and labels, or where they lie on the device, by input name.
pub(super) fn rows_of(data: &Dataset, source: &Source, rows: &[u32]) -> Result<Vec<(String, HostTensor)>, Error> {
    if let Source::Device(_) = source {
        return Ok(vec![(ROWS.to_owned(), HostTensor::u32([rows.len()], rows.to_vec())?)]);
    }
    let mut feeds = vec![(SAMPLES.to_owned(), data.rows(rows)?)];
    for (k, labels) in data.targets().enumerate() {
        feeds.push((labels_name(k), data.part_of(labels, rows)?));
    }
    Ok(feeds)
}

pub(super) fn as_bytes(feeds: &[(String, HostTensor)]) -> Vec<(&str, &[u8])> {
    feeds.iter().map(|(name, tensor)| (name.as_str(), tensor.bytes())).collect()
}
