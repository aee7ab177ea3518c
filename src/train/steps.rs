//! Single training steps, and what all steps of a trainer share: their graph, their compilation, their step record.

use super::{
    data_check::check_data,
    error::TrainError,
    prepared_step::{CompiledStep, DataKind, PreparedStep, in_parts},
    runner::{Compiled, largest_batch},
    step_graph::{self, StepGraph, StepSpec, feeds::Source, metrics, update::StateLayouts},
    trainer::Trainer,
};
use crate::{
    Error,
    data::Dataset,
    graph::{Graph, Step},
    nn::Mode,
    ops::Accumulate,
    passes::{Choice, Plan, choices},
    runtime::{Profile, Store},
    tensor::HostTensor,
};
use std::time::Instant;

/// Returns the rows of a whole data set, in its order.
pub(super) fn all_rows(data: &Dataset) -> Vec<u32> {
    (0..data.len() as u32).collect()
}

impl Trainer {
    /// Returns an error if the model cannot be trained or evaluated on this data.
    pub(super) fn check(&self, data: &Dataset) -> Result<(), Error> {
        check_data(&self.model, &self.config, data)
    }

    /// Builds the graph of a step on data like these.
    pub(super) fn step_graph(&self, data: &Dataset, source: &Source, mode: Mode) -> Result<StepGraph, Error> {
        let moments = self.state.moments.as_ref().map(|store| store.layout().as_ref());
        let layouts = StateLayouts { params: self.state.params.layout(), moments };
        let spec = StepSpec { model: &self.model, config: &self.config, metrics: &self.metrics, layouts };
        step_graph::build(&spec, data, source, mode)
    }

    /// Returns the stores that the graph of a step names.
    pub(super) fn stores(&self, source: &Source) -> Vec<Store> {
        self.state.stores().chain(source.store()).cloned().collect()
    }

    /// Compiles the graph of a step on data like these.
    pub(super) fn compile_graph(
        &self,
        graph: Graph,
        data: &Dataset,
        source: Source,
        mode: Mode,
        capacity: usize,
    ) -> Result<CompiledStep, Error> {
        let compiled = Compiled::new(&self.engine, graph, capacity, self.stores(&source))?;
        Ok(CompiledStep { compiled, kind: DataKind::of(data, &source), source, mode, capacity })
    }

    /// Compiles a step for a whole data set, copied into device memory if it fits, in batches of `batch` samples; those
    /// of an evaluation are larger if samples are small.
    pub(super) fn compile_step(&self, data: &Dataset, mode: Mode, batch: usize) -> Result<CompiledStep, Error> {
        let source = Source::upload(&self.engine, data, &self.config.takes_classes())?;
        let graph = self.step_graph(data, &source, mode)?.graph;
        let capacity = match mode {
            Mode::Training => batch,
            Mode::Inference => batch.max(largest_batch(&self.engine, &graph)).min(data.len()),
        };
        self.compile_graph(graph, data, source, mode, capacity)
    }

    /// Returns the record of the next step, of `n` samples; the sums of metrics restart if it is the `first` of them.
    pub(super) fn next_step(&self, n: usize, first: bool) -> Result<Step, Error> {
        let rate = Self::checked_rate(self.learning_rate())?;
        let mut scalars = self.config.optimizer.scalars(rate, self.position.step);
        scalars[Accumulate::KEEP] = if first { 0.0 } else { 1.0 };
        Ok(Step { n, step: self.position.step as u32, seed: self.position.seed, scalars })
    }

    /// Runs a training step on these rows.
    pub(super) fn train_step(
        &mut self,
        prepared: &mut PreparedStep,
        data: &Dataset,
        rows: &[u32],
        first: bool,
    ) -> Result<(), Error> {
        let step = self.next_step(rows.len(), first)?;
        prepared.run(&self.config, &step, data, rows)?;
        self.position.step += 1;
        Ok(())
    }

    /// Returns a training step fed from the host: the cached one, if it fits this data.
    fn take_training_step(&mut self, data: &Dataset) -> Result<PreparedStep, Error> {
        match self.cache.training.take().filter(|step| step.fits(data)) {
            Some(cached) => Ok(cached),
            None => self.compile_training_step(data),
        }
    }

    /// Returns a training step fed from the host, for batches of this data's size or less.
    pub(super) fn compile_training_step(&self, data: &Dataset) -> Result<PreparedStep, Error> {
        let graph = self.step_graph(data, &Source::Host, Mode::Training)?.graph;
        let capacity = if self.engine.is_reference() { usize::MAX } else { data.len() };
        self.compile_graph(graph, data, Source::Host, Mode::Training, capacity)?
            .prepare(&self.engine, Some(&self.arena))
    }

    /// Trains one step on these samples, in their order, and returns its loss (Keras `train_on_batch`).
    pub fn train_on_batch(&mut self, data: &Dataset) -> Result<f64, Error> {
        self.check(data)?;
        let mut prepared = self.take_training_step(data)?;
        self.train_step(&mut prepared, data, &all_rows(data), true)?;
        let values = metrics::read(&self.metrics, &mut prepared.runner)?;
        self.cache.training = Some(prepared);
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
        let graph = self.step_graph(data, &Source::Host, Mode::Training)?.graph;
        Ok(Compiled::plan_of(&self.engine, &graph, batch.max(1), &self.stores(&Source::Host))?)
    }

    /// Returns what was considered for each convolution and product of the plan that [`Trainer::plan_for`] returns.
    pub fn choices_for(&self, data: &Dataset, batch: usize) -> Result<Vec<Choice>, Error> {
        self.check(data)?;
        let graph = self.step_graph(data, &Source::Host, Mode::Training)?.graph;
        let stores = self.stores(&Source::Host);
        Ok(choices(&graph, &Compiled::options(&self.engine, batch.max(1), &stores))?)
    }

    /// Takes this many training steps on these samples, at least one, and returns the time of each launch in the step of median time.
    ///
    /// The steps are taken like any other, after one that is not timed. An error on the reference engine. See [`Profile`] for an example.
    pub fn profile(&mut self, data: &Dataset, steps: usize) -> Result<Profile, Error> {
        self.train_on_batch(data)?;
        let mut prepared = self.take_training_step(data)?;
        let rows = all_rows(data);
        let mut profiles = Vec::new();
        for _ in 0..steps.max(1) {
            let step = self.next_step(data.len(), true)?;
            let start = Instant::now();
            let feeds = step_graph::feeds(&self.config, Mode::Training, &Source::Host, &step, data, &rows)?;
            let ms = start.elapsed().as_secs_f64() * 1e3;
            self.position.step += 1;
            profiles.push(prepared.runner.profile(&step, &in_parts(&feeds))?.after("gather samples", ms));
        }
        self.cache.training = Some(prepared);
        Profile::median(profiles).ok_or_else(|| TrainError::NoData.into())
    }

    /// Returns the outputs of all layers, `activation/layer`, and the gradients of all trainable weights,
    /// `gradient/weight`, in a training step on these samples; nothing is learned. The plan is kept for further calls
    /// with the same number of samples.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let model = Sequential::new([2]).add(Dense::new(1).name("head")).build()?;
    /// let mut trainer = model.compile(&Engine::reference(), Compile::new(Sgd::new(0.1), MeanSquaredError))?;
    /// let data = Dataset::new(HostTensor::f32([1, 2], vec![0.0, 1.0])?, HostTensor::f32([1, 1], vec![1.0])?)?;
    /// let names: Vec<String> = trainer.activations_and_gradients(&data)?.into_iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["activation/head", "gradient/head/kernel", "gradient/head/bias"]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn activations_and_gradients(&mut self, data: &Dataset) -> Result<Vec<(String, HostTensor)>, Error> {
        self.check(data)?;
        let fits = |(_, step): &(_, PreparedStep)| step.capacity == data.len() && step.fits(data);
        let (names, mut prepared) = match self.cache.watching.take().filter(fits) {
            Some(cached) => cached,
            None => {
                let StepGraph { mut graph, watched } = self.step_graph(data, &Source::Host, Mode::Training)?;
                let names: Vec<String> = watched.iter().map(|(name, _)| name.clone()).collect();
                graph.set_outputs(watched);
                graph.set_updates(Vec::new());
                let compiled = self.compile_graph(graph, data, Source::Host, Mode::Training, data.len())?;
                (names, compiled.prepare(&self.engine, None)?)
            }
        };
        let step = self.next_step(data.len(), true)?;
        prepared.run(&self.config, &step, data, &all_rows(data))?;
        let values = names.iter().map(|name| Ok((name.clone(), prepared.runner.read(name, data.len())?))).collect();
        self.cache.watching = Some((names, prepared));
        values
    }
}
