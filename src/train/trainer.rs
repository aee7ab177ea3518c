use super::{
    CallbackState, Compile, Fit, History, Inference, NotFinite, TrainError,
    norms::Norm,
    numbers::Steps,
    observers::Observers,
    runner::{Compiled, Runner, largest_batch, reserve},
    step::{METRICS, ROWS, SAMPLES, Source, WEIGHTS, label_row, labels_name, sums_name},
};
use crate::{
    Error,
    data::{Dataset, are_classes},
    graph::{Step, TensorType},
    nn::{Bounds, Mode, Model, Number, below},
    ops::Accumulate,
    passes::{Layout, Plan},
    runtime::{Arena, Engine, Store, Timing},
    tensor::{Batch, DType, Data, HostTensor, Shape},
};
use std::sync::{Arc, Mutex, PoisonError};

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
/// use hubel::{layers::*, losses::*, metrics::*, optimizers::*, prelude::*};
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
    /// What the callbacks of the last call of fit remember, or those of a checkpoint.
    pub(super) remembered: Vec<CallbackState>,
    /// Whether the next call of fit goes on from a checkpoint.
    pub(super) resumed: bool,
    fitting: bool,
    /// Names of the classes that were trained on last.
    classes: Vec<String>,
    /// The step of [`Trainer::train_on_batch`], for at most so many samples of this kind.
    on_batch: Option<(usize, Kind, Runner)>,
    /// The step of [`Trainer::evaluate`].
    evaluating: Option<Evaluating>,
    /// The step of [`Trainer::predict`].
    predicting: Mutex<Option<Inference>>,
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
    /// Fingerprint of the data that the epoch was begun on, 0 where it is not known.
    pub data: u64,
}

/// An evaluation's step, for data of one kind.
struct Evaluating {
    kind: Kind,
    source: Source,
    runner: Runner,
    batch: usize,
}

/// What a step's plan takes of a data set; of one that steps are fed from, neither the number of samples nor how their
/// values are stored.
#[derive(Debug, Clone, PartialEq)]
struct Kind {
    tensors: Vec<(Vec<usize>, Option<DType>)>,
    stored: Option<(usize, [u32; 2])>,
}

impl Kind {
    fn of(data: &Dataset, source: &Source) -> Self {
        let fed = matches!(source, Source::Host);
        let tensors = [&data.images].into_iter().chain(data.targets()).chain(&data.weights);
        let tensors = tensors.map(|t| (t.shape()[1..].to_vec(), (!fed).then_some(t.dtype()))).collect();
        let values = [data.scale, data.offset].map(f32::to_bits);
        Kind { tensors, stored: (!fed).then_some((data.len(), values)) }
    }
}

impl Model {
    /// Returns a trainer with this model's weights on the engine's device.
    ///
    /// Weights that were set keep their values, the others get those of their initialisers. The trainer has a model of its
    /// own: what is done to this one afterwards does not change it; see [`Trainer::set_trainable`] and
    /// [`Trainer::set_weights`].
    pub fn compile(&self, engine: &Engine, how: Compile) -> Result<Trainer, Error> {
        Trainer::new(self.clone(), engine, how)
    }
}

impl Trainer {
    fn new(model: Model, engine: &Engine, how: Compile) -> Result<Self, Error> {
        how.check()?;
        let trained = |prefix: &str| model.weights().iter().any(|w| w.trainable && below(&w.name, prefix));
        if let Some((prefix, _)) = how.factors.iter().find(|(prefix, _)| !trained(prefix)) {
            let wanted = model.layer_names().join(", ");
            return Err(TrainError::NoLayer { got: prefix.clone(), wanted }.into());
        }
        Self::build(model, engine, how)
    }

    fn build(model: Model, engine: &Engine, how: Compile) -> Result<Self, Error> {
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
            remembered: Vec::new(),
            resumed: false,
            fitting: false,
            classes: Vec::new(),
            on_batch: None,
            evaluating: None,
            predicting: Mutex::new(None),
            watching: None,
        })
    }

    /// Returns the learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.at.rate.unwrap_or_else(|| self.how.optimizer.rate(self.at.step))
    }

    /// Takes this learning rate from the next step on, instead of the optimiser's own; an error where it is no finite
    /// number of at least 0, or the optimiser's rate is a schedule (Keras).
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<(), TrainError> {
        self.check_settable("set_learning_rate")?;
        rate_number(rate).check()?;
        self.at.rate = Some(rate);
        Ok(())
    }

    /// Returns an error where the learning rate is a schedule.
    pub(super) fn check_settable(&self, by: &'static str) -> Result<(), TrainError> {
        if self.how.optimizer.has_schedule() { Err(TrainError::Schedule(by)) } else { Ok(()) }
    }

    /// Freezes a layer, or lets the optimiser change it again, from the next [`Trainer::fit`] or
    /// [`Trainer::train_on_batch`] on; layers inside a model in this one by path. Weights stay, and so do the moments of
    /// those that were trained and will be. An error where there is no such layer, or where `fit` runs.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let model = Sequential::new([1]).add(Dense::new(2).name("base")).add(Dense::new(1).name("head")).build()?;
    /// let mut trainer = model.compile(&Engine::reference(), Compile::new(Adam::new(0.1), MeanSquaredError))?;
    /// let data = Dataset::new(HostTensor::f32([1, 1], vec![1.0])?, HostTensor::f32([1, 1], vec![2.0])?)?;
    /// trainer.set_trainable("base", false)?;
    /// let before = trainer.weights()?;
    /// trainer.train_on_batch(&data)?;
    /// let after = trainer.weights()?;
    /// assert!(before[0] == after[0] && before[2] != after[2]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn set_trainable(&mut self, path: &str, trainable: bool) -> Result<(), Error> {
        if self.fitting {
            return Err(TrainError::InFit("Trainer::set_trainable").into());
        }
        let mut model = self.trained()?;
        model.set_trainable(path, trainable)?;
        let new = Self::build(model, &self.engine, self.how.clone())?;
        for store in new.changing() {
            for entry in &store.layout().entries {
                let same = |old: &&Store| old.layout().find(&entry.name).is_some_and(|known| known.ty == entry.ty);
                if let Some(old) = self.changing().find(same) {
                    store.write(&entry.name, &old.read(&entry.name)?)?;
                }
            }
        }
        self.at.plan = 0;
        (self.model, self.params, self.moments) = (new.model, new.params, new.moments);
        (self.metrics, self.norms, self.sums) = (new.metrics, new.norms, new.sums);
        (self.on_batch, self.watching) = (None, None);
        self.forget();
        Ok(())
    }

    /// Frees what evaluations and predictions keep.
    fn forget(&mut self) {
        self.evaluating = None;
        self.predicting = Mutex::new(None);
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
        let used = |option, value: f32| Number::new("Dataset", option, value, Bounds::Finite);
        [used("scale", data.scale), used("offset", data.offset)]
            .iter()
            .try_for_each(Number::check)
            .map_err(TrainError::from)?;
        let (wanted, got) = (self.model.input_shape().dims()[1..].to_vec(), data.images.shape()[1..].to_vec());
        if wanted != got {
            return Err(TrainError::SampleShape { wanted, got }.into());
        }
        if data.targets().count() != self.how.targets.len() {
            return Err(TrainError::Outputs { wanted: self.how.targets.len(), got: data.targets().count() }.into());
        }
        if self.how.mix_up.is_some() && self.how.takes_classes().contains(&true) {
            let wanted = "numbers to mix, as Dataset::to_categorical makes them".into();
            return Err(TrainError::Labels { wanted, got: "class indices".into() }.into());
        }
        for ((output, target), labels) in self.model.outputs().iter().zip(&self.how.targets).zip(data.targets()) {
            check_labels(&output.shape, target.loss.takes_classes(), labels)?;
        }
        Ok(())
    }

    pub(super) fn step(&self, n: usize, first: bool) -> Result<Step, TrainError> {
        let rate = self.learning_rate();
        rate_number(rate).check()?;
        let mut scalars = self.how.optimizer.scalars(rate, self.at.step);
        scalars[Accumulate::KEEP] = if first { 0.0 } else { 1.0 };
        Ok(Step { n, step: self.at.step as u32, seed: self.at.seed, scalars })
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
        let mut feeds = rows_of(data, source, &self.how.takes_classes(), rows)?;
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

    /// Returns the names of the values that an epoch gives.
    pub(super) fn value_names(&self, validated: bool) -> Vec<String> {
        let own: Vec<String> =
            ["loss".to_owned()].into_iter().chain(self.how.metrics().into_iter().map(|m| m.1)).collect();
        let validation = own.iter().filter(|_| validated).map(|name| format!("val_{name}")).collect::<Vec<_>>();
        own.into_iter().chain(self.norms.iter().map(|norm| norm.name.clone())).chain(validation).collect()
    }

    /// Trains for the epochs that are asked for and returns the history of all epochs.
    ///
    /// A trainer that was stopped or resumed amid an epoch goes on there; where the epoch was begun on other data, it
    /// begins anew, which is said in the log.
    pub fn fit(&mut self, data: &Dataset, fit: Fit) -> Result<History, Error> {
        self.during_fit(|trainer| trainer.fit_on(data, fit))
    }

    /// Trains on batches that an iterator gives (Keras `fit` of a generator). `batches` is asked for those of each epoch, by
    /// its number from 0; the epoch ends with them. [`Fit::batch`], [`Fit::shuffle`] and the order of [`Fit::seed`] are the
    /// iterator's own affair, and a call that ends amid an epoch leaves it: the next begins it anew.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let x = HostTensor::f32([6, 1], (0..6).map(|i| i as f32).collect())?;
    /// let data = Dataset::new(x.clone(), x)?;
    /// let model = Sequential::new([1]).add(Dense::new(1)).build()?;
    /// let mut trainer = model.compile(&Engine::reference(), Compile::new(Sgd::new(0.01), MeanSquaredError))?;
    /// let batches = |_epoch| [[0, 1, 2], [3, 4, 5]].into_iter().map(|rows| data.select(&rows));
    /// let history = trainer.fit_batches(batches, Fit::epochs(20).validation(&data))?;
    /// assert!(trainer.steps() == 40 && history.last("val_loss") < history.get("val_loss").map(|all| all[0]));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn fit_batches<I, E>(&mut self, batches: impl FnMut(usize) -> I, fit: Fit) -> Result<History, Error>
    where
        I: IntoIterator<Item = Result<Dataset, E>>,
        Error: From<E>,
    {
        self.during_fit(|trainer| trainer.fit_on_batches(batches, fit))
    }

    fn during_fit<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.forget();
        self.fitting = true;
        self.not_finite = None;
        let done = run(self);
        self.fitting = false;
        done
    }

    fn fit_on(&mut self, data: &Dataset, fit: Fit) -> Result<History, Error> {
        self.check(data)?;
        if let Some(validation) = fit.validation {
            self.check(validation)?;
            same_classes(&data.classes, &validation.classes)?;
        }
        self.classes.clone_from(&data.classes);
        self.go_on_with(data);
        self.at.seed = fit.seed;
        let steps = Steps { data, batch: fit.batch.min(data.len()), seed: fit.seed, shuffle: fit.shuffle };
        let (source, training, _) = self.compiled(data, steps.batch, Mode::Training)?;
        let evaluation = match fit.validation {
            None => None,
            Some(data) => Some((data, self.compiled(data, steps.batch, Mode::Inference)?)),
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
        let mut observers = Observers::begin(self, fit, data.len())?;
        let keep = observers.keep();
        let (mut broken_since, mut ended) = (None, observers.left == 0);
        while !ended && self.at.epoch < observers.at.epochs {
            observers.epoch_begin(self)?;
            let snapshot = if keep { Some(self.snapshot()?) } else { None };
            if keep && self.not_finite_before()? {
                break;
            }
            let order = steps.order(self.at.epoch);
            while self.at.cursor < data.len() && !ended {
                let rows = &order[self.at.cursor..(self.at.cursor + steps.batch).min(order.len())];
                let step = self.step(rows.len(), self.at.cursor == 0)?;
                self.feed(&mut runner, &step, data, &source, rows, Mode::Training)?;
                self.at.step += 1;
                self.at.cursor += rows.len();
                ended = observers.step_end(self, &mut runner, rows.len())?;
            }
            observers.read(self, &mut runner, 1)?;
            let broken = keep && self.is_broken(&observers)?;
            if broken {
                (broken_since, ended) = (snapshot, true);
            }
            if self.at.cursor < data.len() {
                break;
            }
            observers.at.values.extend(self.read_norms(data.len(), data.len().div_ceil(steps.batch))?);
            if let Some((data, source, runner, batch)) = &mut validation {
                let scores = self.run_evaluation(data, source, runner, *batch)?;
                observers.at.values.extend(scores.values.into_iter().map(|(name, v)| (format!("val_{name}"), v)));
            }
            ended |= observers.epoch_end(self, broken)?;
        }
        if let Some(snapshot) = broken_since {
            let until = self.at.step;
            self.not_finite = self.trace(&mut runner, &source, &steps, &snapshot, until)?;
            self.not_finite.iter().for_each(|found| log::error!("{found}"));
        }
        observers.end(self)?;
        Ok(self.history.clone())
    }

    fn fit_on_batches<I, E>(&mut self, mut batches: impl FnMut(usize) -> I, fit: Fit) -> Result<History, Error>
    where
        I: IntoIterator<Item = Result<Dataset, E>>,
        Error: From<E>,
    {
        let validation = fit.validation;
        validation.map_or(Ok(()), |data| self.check(data))?;
        (self.at.cursor, self.at.data, self.at.seed) = (0, 0, fit.seed);
        let mut observers = Observers::begin(self, fit, 0)?;
        let keep = observers.keep();
        let mut ended = observers.left == 0;
        while !ended && self.at.epoch < observers.at.epochs {
            observers.epoch_begin(self)?;
            if keep && self.not_finite_before()? {
                break;
            }
            let (mut steps, mut last) = (0, None);
            let mut rest = batches(self.at.epoch).into_iter().peekable();
            while !ended && let Some(batch) = rest.next() {
                let batch = batch?;
                self.check(&batch)?;
                if let Some(data) = validation {
                    same_classes(&batch.classes, &data.classes)?;
                }
                let mut runner = self.take_batch_runner(&batch)?;
                let rows: Vec<u32> = (0..batch.len() as u32).collect();
                let step = self.step(batch.len(), self.at.cursor == 0)?;
                self.feed(&mut runner, &step, &batch, &Source::Host, &rows, Mode::Training)?;
                self.at.step += 1;
                self.at.cursor += batch.len();
                steps += 1;
                ended = observers.step_end(self, &mut runner, batch.len())?;
                self.keep_batch_runner(&batch, runner);
                last = Some(batch);
            }
            let Some(last) = last else { return Err(TrainError::NoData.into()) };
            let mut runner = self.take_batch_runner(&last)?;
            observers.read(self, &mut runner, last.len())?;
            self.keep_batch_runner(&last, runner);
            let broken = keep && self.is_broken(&observers)?;
            if rest.peek().is_none() {
                observers.at.values.extend(self.read_norms(self.at.cursor, steps)?);
                if let Some(data) = validation {
                    let scores = self.evaluate(data)?;
                    observers.at.values.extend(scores.values.into_iter().map(|(name, v)| (format!("val_{name}"), v)));
                }
                ended |= observers.epoch_end(self, broken)?;
            }
            self.at.cursor = 0;
            if broken {
                let step = self.at.step - 1;
                let found = self.first_not_finite(&last)?.map(|found| NotFinite { step, ..found });
                self.not_finite = found;
                break;
            }
        }
        observers.end(self)?;
        Ok(self.history.clone())
    }

    /// Returns whether weights or moments hold a value that is no finite number before a step, which is then the one found.
    fn not_finite_before(&mut self) -> Result<bool, Error> {
        self.not_finite = self.flaw(self.at.step)?;
        self.not_finite.iter().for_each(|found| log::error!("{found}"));
        Ok(self.not_finite.is_some())
    }

    /// Returns whether the loss, a weight or a moment is no finite number after the steps so far.
    fn is_broken(&self, observers: &Observers) -> Result<bool, Error> {
        let lost = observers.at.get("loss").is_some_and(|loss| !loss.is_finite());
        Ok(lost || self.flaw(self.at.step)?.is_some())
    }

    /// Begins the epoch anew where it was begun on other data than these.
    fn go_on_with(&mut self, data: &Dataset) {
        let print = fingerprint(data);
        let other = (self.at.data != 0 && self.at.data != print) || self.at.cursor >= data.len();
        if self.at.cursor > 0 && other {
            let (epoch, seen, n) = (self.at.epoch + 1, self.at.cursor, data.len());
            log::warn!("epoch {epoch} was begun on other data, {seen} samples of them: it begins anew, on {n} samples");
            self.at.cursor = 0;
        }
        self.at.data = print;
    }

    /// Returns a step's runner on host samples, kept from call to call for batches that fit into it.
    fn take_batch_runner(&mut self, data: &Dataset) -> Result<Runner, Error> {
        let wanted = Kind::of(data, &Source::Host);
        match self.on_batch.take() {
            Some((capacity, kind, runner)) if capacity >= data.len() && kind == wanted => Ok(runner),
            _ => {
                let graph = self.graph(data, &Source::Host, Mode::Training)?;
                Compiled::new(&self.engine, graph, data.len(), self.stores(&Source::Host))?
                    .runner(&self.engine, Some(&self.arena))
            }
        }
    }

    fn keep_batch_runner(&mut self, data: &Dataset, runner: Runner) {
        let capacity = runner.capacity().unwrap_or(usize::MAX);
        self.on_batch = Some((capacity, Kind::of(data, &Source::Host), runner));
    }

    /// Trains one step on these samples, in their order, and returns its loss (Keras `train_on_batch`).
    pub fn train_on_batch(&mut self, data: &Dataset) -> Result<f64, Error> {
        self.check(data)?;
        let mut runner = self.take_batch_runner(data)?;
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let step = self.step(data.len(), true)?;
        self.feed(&mut runner, &step, data, &Source::Host, &rows, Mode::Training)?;
        self.at.step += 1;
        let values = self.read_values(&mut runner, data.len())?;
        self.keep_batch_runner(data, runner);
        Ok(values[0].1)
    }

    /// Returns the plan of a training step on up to `batch` samples like these, fed from the host.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
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
        let step = self.step(data.len(), true)?;
        let feeds = self.feeds(&step, data, &Source::Host, &rows, Mode::Training)?;
        self.at.step += 1;
        let times = match &mut runner {
            Runner::Device(session) => session.profile(&step, &as_bytes(&feeds))?,
            Runner::Reference(_) => Vec::new(),
        };
        self.keep_batch_runner(data, runner);
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
            self.feed(runner, &self.step(rows.len(), i == 0)?, data, source, rows, Mode::Inference)?;
        }
        Ok(Scores { values: self.read_values(runner, 1)? })
    }

    /// Returns loss and metrics over a whole data set, without dropout and with moving statistics.
    ///
    /// What it takes is kept on the device for the next call with data of the same kind: shapes, types and number of samples.
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Scores, Error> {
        self.check(data)?;
        same_classes(&self.classes, &data.classes)?;
        let fits = |kept: &Evaluating| {
            let whole = matches!(kept.source, Source::Device(_)) || data.len() <= kept.batch;
            whole && kept.kind == Kind::of(data, &kept.source)
        };
        let mut kept = match self.evaluating.take().filter(fits) {
            Some(kept) => {
                if let Source::Device(store) = &kept.source {
                    self.stored(data)?.iter().try_for_each(|(name, t)| store.write(name, t))?;
                }
                kept
            }
            None => self.evaluation_of(data)?,
        };
        let scores = self.run_evaluation(data, &kept.source, &mut kept.runner, kept.batch)?;
        self.evaluating = Some(kept);
        Ok(scores)
    }

    /// Returns a step that evaluates data of this kind: fed from the host where one batch holds them all, so that it does for
    /// other numbers of samples too.
    fn evaluation_of(&self, data: &Dataset) -> Result<Evaluating, Error> {
        let graph = self.graph(data, &Source::Host, Mode::Inference)?;
        let most = largest_batch(&self.engine, &graph);
        let (source, compiled, batch) = if data.len() <= most {
            let batch = few_sizes(data.len(), most);
            (Source::Host, Compiled::new(&self.engine, graph, batch, self.stores(&Source::Host))?, batch)
        } else {
            self.compiled(data, 1, Mode::Inference)?
        };
        let runner = compiled.runner(&self.engine, Some(&self.arena))?;
        Ok(Evaluating { kind: Kind::of(data, &source), source, runner, batch })
    }

    /// Returns the model ready to run on batches of at most `batch` samples, on the trainer's weights.
    ///
    /// `taps` names layers whose outputs are results too.
    pub fn inference(&self, batch: Batch, taps: &[&str]) -> Result<Inference, Error> {
        Inference::new(&self.model, &self.engine, self.params.clone(), batch, taps)
    }

    /// Returns the model's output for f32 samples (n, …), any number of them; an error where the batch axis n is missing.
    ///
    /// What it takes is kept on the device for the next call; weights are always those of now.
    pub fn predict(&self, samples: &HostTensor) -> Result<HostTensor, Error> {
        let n = samples.shape().first().copied().unwrap_or(1);
        self.predicted(n, |net| net.predict(samples))
    }

    /// Returns what `run` makes of the model, ready for batches of a size that fits `n` samples and the device.
    fn predicted<T>(&self, n: usize, run: impl FnOnce(&mut Inference) -> Result<T, Error>) -> Result<T, Error> {
        let mut kept = self.predicting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut net = match kept.take() {
            Some(net) => net,
            None => self.inference(Batch::up_to(1), &[])?,
        };
        let wanted = few_sizes(n, largest_batch(&self.engine, &net.graph));
        if net.batch < wanted {
            net = self.inference(Batch::up_to(wanted), &[])?;
        }
        let result = run(&mut net)?;
        *kept = Some(net);
        Ok(result)
    }

    /// Returns how many samples of each class were taken for each: a row for each class of the labels, in it a number for
    /// each class of the model's first output; or an error where labels are no class indices.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
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
        same_classes(&self.classes, &data.classes)?;
        let said = self.predicted(data.len(), |net| net.features(data, |_, _| {}))?;
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
    let (wanted, row) = (label_row(output, takes_classes), &labels.shape()[1..]);
    let got = || format!("{} {:?}", labels.dtype(), labels.shape());
    if takes_classes && !are_classes(labels) {
        let wanted = format!("class indices, u8, u32 or i32, {wanted:?} for each sample");
        return Err(TrainError::Labels { wanted, got: got() });
    }
    // An axis of extent 1 may be missing, or be there.
    let squeezed = |row: &[usize]| row.iter().rposition(|&d| d != 1).map_or(0, |last| last + 1);
    if wanted[..squeezed(wanted)] != row[..squeezed(row)] {
        return Err(TrainError::Labels { wanted: format!("{wanted:?} for each sample"), got: got() });
    }
    if !takes_classes {
        return Ok(());
    }
    let classes = output.last();
    let beyond = match labels.data() {
        Data::U8(all) => all.iter().position(|&l| usize::from(l) >= classes).map(|i| (i, u32::from(all[i]))),
        Data::U32(all) => all.iter().position(|&l| l as usize >= classes).map(|i| (i, all[i])),
        _ => None,
    };
    match beyond {
        Some((i, label)) => Err(TrainError::Label { sample: i / row.iter().product::<usize>().max(1), label, classes }),
        None => Ok(()),
    }
}

/// Returns the size of a batch for `n` samples: sizes of twice one another, so that there are few plans.
fn few_sizes(n: usize, most: usize) -> usize {
    n.min(most).max(1).next_power_of_two().min(most)
}

fn rate_number(rate: f64) -> Number {
    Number::new("optimizer", "learning_rate", rate, Bounds::AtLeastZero)
}

/// Returns an error where both data sets name their classes, and not alike.
fn same_classes(wanted: &[String], got: &[String]) -> Result<(), TrainError> {
    if wanted.is_empty() || got.is_empty() || wanted == got {
        return Ok(());
    }
    let not_in = |names: &[String], others: &[String]| names.iter().find(|name| !others.contains(name)).cloned();
    let advice = match (not_in(wanted, got), not_in(got, wanted)) {
        (Some(missing), _) => format!("`{missing}` is missing"),
        (None, Some(more)) => format!("`{more}` is one more"),
        (None, None) => "their order differs".into(),
    };
    Err(TrainError::ClassNames { wanted: wanted.join(", "), got: got.join(", "), advice })
}

/// Returns a number that other data hardly have: of how many samples there are, of what shape, with which labels.
fn fingerprint(data: &Dataset) -> u64 {
    let hash = |h: u64, byte: &u8| (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let sizes = [data.len()].into_iter().chain(data.sample_shape().iter().copied());
    let sizes: Vec<u8> = sizes.flat_map(|n| (n as u64).to_le_bytes()).collect();
    let labels = data.labels.bytes();
    let labels = &labels[..labels.len().min(1 << 20)];
    // 0 stands for data that are not known.
    sizes.iter().chain(labels).fold(0xcbf2_9ce4_8422_2325, hash).max(1)
}

pub(super) fn batch_kind(data: &Dataset) -> (usize, bool) {
    (data.len(), data.weights.is_some())
}

/// Returns samples and labels, or where they lie on the device, by input name.
pub(super) fn rows_of(
    data: &Dataset,
    source: &Source,
    classes: &[bool],
    rows: &[u32],
) -> Result<Vec<(String, HostTensor)>, Error> {
    if let Source::Device(_) = source {
        return Ok(vec![(ROWS.to_owned(), HostTensor::u32([rows.len()], rows.to_vec())?)]);
    }
    let mut feeds = vec![(SAMPLES.to_owned(), data.rows(rows)?)];
    for (k, (labels, &classes)) in data.targets().zip(classes).enumerate() {
        let part = data.part_of(labels, rows)?;
        let part = if classes { part } else { HostTensor::f32(part.shape(), part.to_f32())? };
        feeds.push((labels_name(k), part));
    }
    Ok(feeds)
}

pub(super) fn as_bytes(feeds: &[(String, HostTensor)]) -> Vec<(&str, &[u8])> {
    feeds.iter().map(|(name, tensor)| (name.as_str(), tensor.bytes())).collect()
}
