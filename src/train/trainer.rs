use super::{
    Compile, Control, Fit, History, Inference, Progress,
    runner::{Compiled, Runner, reserve},
};
use crate::{
    Error,
    data::{Dataset, shuffled},
    graph::{Arg, Graph, Instr, OpError, Program, Step, TensorType, Value},
    nn::{Mode, Model},
    ops::{Accumulate, Elementwise, elementary},
    passes::{Layout, Plan},
    runtime::{Arena, Engine, Store, Timing},
    tensor::{Batch, DType, HostTensor, Shape},
};
use std::{ops::Range, sync::Arc, time::Instant};

/// Training was asked for something that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// The data set has no samples.
    #[error("the data set is empty; give at least one sample")]
    NoData,
    /// Samples do not fit the model.
    #[error("the model takes samples of shape {wanted:?}, the data set has {got:?}; resize or pad the samples")]
    SampleShape {
        /// What the model takes.
        wanted: Vec<usize>,
        /// What was given.
        got: Vec<usize>,
    },
    /// A model has more inputs, or outputs, than were given.
    #[error("the model has {wanted} inputs, {got} were given; pass samples for each, in the model's order")]
    Inputs {
        /// The model's.
        wanted: usize,
        /// Those given.
        got: usize,
    },
    /// A model cannot be trained by a single data set.
    #[error(
        "training takes a model of one input and one output, this one has {inputs} and {outputs}; train a part of it"
    )]
    Branches {
        /// The model's inputs.
        inputs: usize,
        /// The model's outputs.
        outputs: usize,
    },
    /// Labels are not what the loss compares the model's output with.
    #[error(
        "the loss compares the model's output with {wanted}, the labels are {got}; choose another loss or convert them"
    )]
    Labels {
        /// What the loss takes.
        wanted: String,
        /// What was given.
        got: String,
    },
    /// No layer that is trained has this name.
    #[error("no trained layer is called `{got}`; there are {wanted}")]
    NoLayer {
        /// The name given.
        got: String,
        /// Names that there are.
        wanted: String,
    },
    /// A callback watches a value that training does not give.
    #[error("no value is called `{got}`: there are {wanted}; values that begin with val_ need validation data")]
    NoValue {
        /// The name given.
        got: String,
        /// Names that there are.
        wanted: String,
    },
    /// A label names no class.
    #[error("label {label} of sample {sample} names no class: the model has {classes} outputs, labels run from 0")]
    Label {
        /// Index of the sample.
        sample: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A checkpoint belongs to another run.
    #[error("the checkpoint does not fit this run: {what}: wanted {wanted}, got {got}")]
    Checkpoint {
        /// What differs.
        what: String,
        /// What this run has.
        wanted: String,
        /// What the checkpoint has.
        got: String,
    },
}

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
    how: Compile,
    pub(super) params: Store,
    pub(super) moments: Option<Store>,
    pub(super) metrics: Store,
    /// How many sums each metric takes.
    sums: Vec<usize>,
    arena: Arena,
    pub(super) at: Position,
    pub(super) history: History,
    plan: Option<Arc<Plan>>,
    on_batch: Option<(usize, Runner)>,
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

const METRICS: &str = "metrics";
const WEIGHTS: &str = "data/weights";

fn sums_name(metric: usize) -> String {
    format!("{METRICS}/{metric}")
}

/// Returns whether a weight's name lies at or below a layer's.
fn below(name: &str, layer: &str) -> bool {
    name.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns sums added to a state in place, which starts anew where [`Accumulate::KEEP`] is 0.
fn kept_and(g: &mut Graph, state: Value, sums: Value) -> Result<Value, OpError> {
    let instrs = vec![
        Instr { f: elementary("where_positive")?, args: vec![Arg::Input(0), Arg::Scalar(Accumulate::KEEP)] },
        Instr { f: elementary("add")?, args: vec![Arg::Instr(0), Arg::Input(1)] },
    ];
    let program = Program { n_inputs: 2, instrs, result: Arg::Instr(1) };
    g.apply1(Elementwise { program, shape: None, in_place: true }, &[state, sums])
}

impl Model {
    /// Returns a trainer with this model's weights on the engine's device.
    ///
    /// Weights that were set keep their values, the others get those of their initialisers.
    pub fn compile(&self, engine: &Engine, how: Compile) -> Result<Trainer, Error> {
        Trainer::new(self.clone(), engine, how)
    }
}

/// Where samples come from.
enum Source {
    /// A data set in device memory; steps name its rows.
    Device(Store),
    /// Host memory; steps carry the samples.
    Host,
}

impl Trainer {
    fn new(model: Model, engine: &Engine, how: Compile) -> Result<Self, Error> {
        if (model.inputs().len(), model.outputs().len()) != (1, 1) {
            let (inputs, outputs) = (model.inputs().len(), model.outputs().len());
            return Err(TrainError::Branches { inputs, outputs }.into());
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
        let scalar = sums.iter().filter(|k| **k == 0).count();
        let counters = [(METRICS.to_owned(), TensorType::f32([2 + scalar]))].into_iter();
        let counters = counters.chain(
            (sums.iter().enumerate()).filter(|(_, k)| **k > 0).map(|(i, &k)| (sums_name(i), TensorType::f32([k]))),
        );
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
            on_batch: None,
        })
    }

    /// Returns how many sums each metric takes, 0 for a number that the loss's kernel adds up too.
    fn sums(model: &Model, how: &Compile) -> Result<Vec<usize>, Error> {
        let mut g = Graph::new();
        let output = g.input("output", model.output_shape(), DType::F32);
        let row = model.output_shape().dims()[1..].to_vec();
        let batched = |row: &[usize]| [Batch].into_iter().chain(row.iter().copied()).collect::<Vec<_>>();
        let labels = match how.loss.takes_classes() {
            true => g.input("labels", batched(&row[..row.len().saturating_sub(1)]), DType::U32),
            false => g.input("labels", batched(&row), DType::F32),
        };
        let mut sums = Vec::new();
        for metric in &how.metrics {
            let built = metric.build(&mut g, output, labels)?;
            // One launch takes loss and six metrics.
            let alone = g.shape(built).rank() == 1 && sums.iter().filter(|k| **k == 0).count() < 6;
            sums.push(if alone { 0 } else { g.shape(built).dims()[1..].iter().product::<usize>().max(1) });
        }
        Ok(sums)
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

    /// Returns the plan of a training step, once [`Trainer::fit`] has begun on a device.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    fn stores(&self, data: &Source) -> Vec<Store> {
        let mut stores = vec![self.params.clone(), self.metrics.clone()];
        stores.extend(self.moments.clone());
        if let Source::Device(store) = data {
            stores.push(store.clone());
        }
        stores
    }

    /// Puts a data set into device memory where it fits, as it is stored.
    fn source(&self, data: &Dataset) -> Result<Source, Error> {
        let limit = self.engine.profile().max_binding_bytes;
        if self.engine.is_reference() || data.images.bytes().len() as u64 > limit {
            return Ok(Source::Host);
        }
        let ty = |t: &HostTensor| TensorType::new(Shape::fixed(t.shape()), t.dtype());
        let tensors = [
            ("data/images", Some(&data.images)),
            ("data/labels", Some(&data.labels)),
            (WEIGHTS, data.weights.as_ref()),
        ];
        let tensors = || tensors.into_iter().filter_map(|(name, t)| Some((name, t?)));
        let entries = tensors().map(|(name, t)| (name.to_owned(), ty(t)));
        let store = self.engine.store(Arc::new(Layout::new(entries, limit)))?;
        tensors().try_for_each(|(name, t)| store.write(name, t))?;
        Ok(Source::Device(store))
    }

    /// Builds the graph of a training or evaluation step.
    fn graph(&self, data: &Dataset, source: &Source, mode: Mode) -> Result<Graph, Error> {
        let mut g = Graph::new();
        let (x, y, weights) = match source {
            Source::Host => {
                let x = g.input("x", self.model.input_shape(), DType::F32);
                let dims: Vec<usize> = [Batch].into_iter().chain(data.labels.shape()[1..].iter().copied()).collect();
                let y = g.input("y", dims, if data.has_classes() { DType::U32 } else { DType::F32 });
                (x, y, data.weights.as_ref().map(|_| g.input(WEIGHTS, [Batch], DType::F32)))
            }
            Source::Device(store) => {
                let rows = g.input("rows", [Batch], DType::U32);
                let table = |g: &mut Graph, name: &str| {
                    let ty = store.layout().find(name).map(|e| e.ty.clone());
                    g.state(name, ty.unwrap_or_else(|| TensorType::f32([0])), None)
                };
                let images = table(&mut g, "data/images");
                let labels = table(&mut g, "data/labels");
                let x = g.gather(images, rows)?;
                let y = if data.has_classes() { g.gather_labels(labels, rows) } else { g.gather(labels, rows) }?;
                let weights = match &data.weights {
                    None => None,
                    Some(_) => {
                        let all = table(&mut g, WEIGHTS);
                        Some(g.gather(all, rows)?)
                    }
                };
                (rescale(&mut g, x, data.scale, data.offset)?, y, weights)
            }
        };
        let built = self.model.assemble(&mut g, &[x], mode)?;
        let (output, logits) = (built.outputs[0], built.logits[0]);
        let mut losses = self.how.loss.build(&mut g, output, logits, y)?;
        if let Some(weights) = weights {
            losses = g.mul(losses, weights)?;
        }
        for &penalty in &built.penalties {
            losses = g.add(losses, penalty)?;
        }
        let mut rows = vec![losses];
        for (i, (metric, &k)) in self.how.metrics.iter().zip(&self.sums).enumerate() {
            let output = logits.filter(|_| metric.takes_logits()).unwrap_or(output);
            let each = metric.build(&mut g, output, y)?;
            if k == 0 {
                rows.push(each);
                continue;
            }
            let each = g.reshape(each, [Batch, k])?;
            let sum = g.sum(each, &[0], false)?;
            let state = g.state(&sums_name(i), TensorType::f32([k]), None);
            let new = kept_and(&mut g, state, sum)?;
            g.update(state, new);
            g.output(&sums_name(i), new);
        }
        let counters = g.state(METRICS, TensorType::f32([1 + rows.len()]), None);
        let counted = g.accumulate(counters, &rows)?;
        g.update(counters, counted);
        g.output(METRICS, counted);
        if mode == Mode::Training {
            let loss = g.mean(losses)?;
            let weights: Vec<&crate::nn::Weight> = built.weights.iter().filter(|w| w.trainable).collect();
            let values: Vec<Value> = weights.iter().map(|w| w.value).collect();
            let gradients = g.gradients(loss, &values)?;
            let gradients = self.how.optimizer.clip(&mut g, &gradients)?;
            for (run, factor) in self.runs(weights.iter().map(|w| w.name.as_str())) {
                let mut slots: Vec<Vec<Value>> = Vec::new();
                for slot in self.how.optimizer.slots() {
                    let names = weights[run.clone()].iter();
                    let slot = names
                        .map(|w| g.state(&format!("{slot}/{}", w.name), TensorType::f32(w.shape.clone()), None))
                        .collect();
                    slots.push(slot);
                }
                for (state, mut new) in
                    self.how.optimizer.build(&mut g, &values[run.clone()], &gradients[run], &slots, factor)?
                {
                    let weight = weights.iter().find(|w| w.value == state);
                    if let Some(constraint) = weight.and_then(|w| w.constraint.as_ref()) {
                        new = constraint.build(&mut g, new)?;
                    }
                    g.update(state, new);
                }
            }
        }
        Ok(g)
    }

    /// Cuts weights into runs that lie one behind the other, moments too, and have one factor of the learning rate, so
    /// that one kernel updates a run.
    fn runs<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<(Range<usize>, f32)> {
        let slots = self.how.optimizer.slots();
        let mut runs: Vec<(Range<usize>, f32)> = Vec::new();
        let mut ends: Vec<(usize, u64)> = Vec::new();
        for (i, name) in names.enumerate() {
            let moments = slots.iter().filter_map(|s| self.moments.as_ref()?.layout().find(&format!("{s}/{name}")));
            let entries: Vec<_> = self.params.layout().find(name).into_iter().chain(moments).collect();
            let starts = entries.iter().map(|e| (e.chunk, e.offset));
            let factor = self.how.factors.iter().rev().find(|(p, _)| below(name, p)).map_or(1.0, |f| f.1);
            match runs.last_mut() {
                Some((run, before)) if *before == factor && starts.eq(ends.iter().copied()) => run.end = i + 1,
                _ => runs.push((i..i + 1, factor)),
            }
            ends = entries.iter().map(|e| (e.chunk, e.offset + e.bytes.next_multiple_of(256).max(256))).collect();
        }
        runs
    }

    fn check(&self, data: &Dataset) -> Result<(), Error> {
        if data.is_empty() {
            return Err(TrainError::NoData.into());
        }
        let (wanted, got) = (self.model.input_shape().dims()[1..].to_vec(), data.images.shape()[1..].to_vec());
        if wanted != got {
            return Err(TrainError::SampleShape { wanted, got }.into());
        }
        let output = self.model.output_shape();
        if self.how.loss.takes_classes() != data.has_classes() {
            let wanted =
                if self.how.loss.takes_classes() { "class indices, u8 or u32 (n)" } else { "numbers, f32 (n, …)" };
            return Err(TrainError::Labels { wanted: wanted.into(), got: data.labels.dtype().to_string() }.into());
        }
        if !data.has_classes() {
            let (wanted, got) = (&output.dims()[1..], &data.labels.shape()[1..]);
            if wanted != got {
                let wanted = format!("{wanted:?} for each sample");
                return Err(TrainError::Labels { wanted, got: format!("{got:?}") }.into());
            }
            return Ok(());
        }
        let classes = output.last();
        let labels = data.labels.to_array();
        match labels.data.iter().position(|&l| l as usize >= classes) {
            Some(sample) => {
                let label = labels.data[sample] as u32;
                Err(TrainError::Label { sample, label, classes }.into())
            }
            None => Ok(()),
        }
    }

    fn step(&self, n: usize, first: bool) -> Step {
        let mut scalars = self.how.optimizer.scalars(self.learning_rate(), self.at.step);
        scalars[Accumulate::KEEP] = if first { 0.0 } else { 1.0 };
        Step { n, step: self.at.step as u32, seed: self.at.seed, scalars }
    }

    fn feed(
        &self,
        runner: &mut Runner,
        step: &Step,
        data: &Dataset,
        source: &Source,
        rows: &[u32],
    ) -> Result<(), Error> {
        match source {
            Source::Device(_) => runner.run(step, &[("rows", bytemuck::cast_slice(rows))]),
            Source::Host => {
                let (x, y, weights) = (data.rows(rows)?, data.labels_of(rows)?, data.weights_of(rows));
                let feeds = [("x", x.bytes()), ("y", y.bytes()), (WEIGHTS, bytemuck::cast_slice(&weights))];
                runner.run(step, &feeds[..2 + usize::from(data.weights.is_some())])
            }
        }
    }

    fn read_values(&self, runner: &mut Runner, n: usize) -> Result<Vec<(String, f64)>, Error> {
        let counters = runner.read(METRICS, n)?.to_f32();
        let seen = f64::from(counters[0]).max(1.0);
        let mut values = vec![("loss".to_owned(), f64::from(counters[1]) / seen)];
        let mut scalar = counters[2..].iter();
        for (i, (metric, &k)) in self.how.metrics.iter().zip(&self.sums).enumerate() {
            let sums: Vec<f64> = match k {
                0 => scalar.next().map(|&x| f64::from(x)).into_iter().collect(),
                _ => runner.read(&sums_name(i), n)?.to_f32().into_iter().map(f64::from).collect(),
            };
            values.push((metric.name().to_owned(), metric.result(&sums, seen)));
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
        let (source, training) = self.compiled(data, fit.batch, Mode::Training)?;
        let evaluation = match fit.validation {
            None => None,
            Some(data) => Some((data, self.compiled(data, fit.batch.max(256), Mode::Inference)?)),
        };
        let graphs: Vec<_> = evaluation.iter().map(|(_, (_, compiled))| compiled).chain([&training]).collect();
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
            Some((data, (source, compiled))) => Some((data, source, compiled.runner(&self.engine, Some(&self.arena))?)),
        };
        let mut at = Progress { epochs: fit.epochs, samples: data.len(), ..Progress::default() };
        fit.callbacks.iter_mut().try_for_each(|c| c.begin(&at, self))?;
        let mut steps = 0;
        while self.at.epoch < fit.epochs {
            fit.callbacks.iter_mut().try_for_each(|c| c.epoch_begin(self.at.epoch, self))?;
            let order = if fit.shuffle {
                shuffled(fit.seed, self.at.epoch as u32, data.len())
            } else {
                (0..data.len() as u32).collect()
            };
            let (began, from) = (Instant::now(), self.at.cursor);
            let mut shown = Instant::now();
            let mut stop = false;
            while self.at.cursor < data.len() && !stop {
                let rows = &order[self.at.cursor..(self.at.cursor + fit.batch).min(order.len())];
                let step = self.step(rows.len(), self.at.cursor == 0);
                self.feed(&mut runner, &step, data, &source, rows)?;
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
            if let Some((data, source, runner)) = &mut validation {
                let scores = self.run_evaluation(data, source, runner, fit.batch.max(256))?;
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
        fit.callbacks.iter_mut().try_for_each(|c| c.end(self))?;
        Ok(self.history.clone())
    }

    /// Returns a step's runner on host samples, kept from call to call for batches of the same size.
    fn take_batch_runner(&mut self, data: &Dataset) -> Result<Runner, Error> {
        match self.on_batch.take() {
            Some((n, runner)) if n == data.len() => Ok(runner),
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
        self.feed(&mut runner, &step, data, &Source::Host, &rows)?;
        self.at.step += 1;
        let values = self.read_values(&mut runner, data.len())?;
        self.on_batch = Some((data.len(), runner));
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
        Ok(Compiled::plan_of(&self.engine, &graph, batch, &stores)?)
    }

    /// Returns the time of each launch of a training step on these samples, in milliseconds on the device.
    ///
    /// The step is taken like any other. Empty on the reference engine.
    pub fn profile(&mut self, data: &Dataset) -> Result<Vec<Timing>, Error> {
        self.check(data)?;
        let mut runner = self.take_batch_runner(data)?;
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let (x, y, weights) = (data.rows(&rows)?, data.labels_of(&rows)?, data.weights_of(&rows));
        let feeds = [("x", x.bytes()), ("y", y.bytes()), (WEIGHTS, bytemuck::cast_slice(&weights))];
        let step = self.step(data.len(), true);
        self.at.step += 1;
        let times = match &mut runner {
            Runner::Device(session) => session.profile(&step, &feeds[..2 + usize::from(data.weights.is_some())])?,
            Runner::Reference(_) => Vec::new(),
        };
        self.on_batch = Some((data.len(), runner));
        Ok(times)
    }

    fn compiled(&self, data: &Dataset, batch: usize, mode: Mode) -> Result<(Source, Compiled), Error> {
        let source = self.source(data)?;
        let graph = self.graph(data, &source, mode)?;
        let compiled = Compiled::new(&self.engine, graph, batch, self.stores(&source))?;
        Ok((source, compiled))
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
            self.feed(runner, &self.step(rows.len(), i == 0), data, source, rows)?;
        }
        Ok(Scores { values: self.read_values(runner, 1)? })
    }

    /// Returns loss and metrics over a whole data set, without dropout and with moving statistics.
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Scores, Error> {
        self.check(data)?;
        let batch = 256.min(data.len());
        let (source, compiled) = self.compiled(data, batch, Mode::Inference)?;
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
        self.inference(Batch::up_to(n.min(256)), &[])?.predict(samples)
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

fn rescale(g: &mut Graph, x: Value, scale: f32, offset: f32) -> Result<Value, OpError> {
    if (scale, offset) == (1.0, 0.0) {
        return Ok(x);
    }
    let (mul, add) = (elementary("mul")?, elementary("add")?);
    let instrs = vec![
        Instr { f: mul, args: vec![Arg::Input(0), Arg::Const(scale)] },
        Instr { f: add, args: vec![Arg::Instr(0), Arg::Const(offset)] },
    ];
    g.apply1(Elementwise::from(Program { n_inputs: 1, instrs, result: Arg::Instr(1) }), &[x])
}
