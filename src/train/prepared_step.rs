//! A step compiled for data of one kind, and kept for the next data of that kind.

use super::{
    config::Compile,
    inference::Inference,
    runner::{Compiled, Runner},
    step_graph::{
        self,
        feeds::{Feed, Source},
    },
};
use crate::{
    Error,
    data::Dataset,
    graph::Step,
    nn::Mode,
    runtime::{Arena, Engine},
    tensor::DType,
};
use std::sync::Mutex;

/// A training or evaluation step, compiled, without device memory of its own yet.
pub(super) struct CompiledStep {
    pub compiled: Compiled,
    pub kind: DataKind,
    pub source: Source,
    pub mode: Mode,
    /// The largest batch.
    pub capacity: usize,
}

impl CompiledStep {
    /// Returns the step ready to run, with activations in `arena` if given.
    pub fn prepare(self, engine: &Engine, arena: Option<&Arena>) -> Result<PreparedStep, Error> {
        let CompiledStep { compiled, kind, source, mode, capacity } = self;
        Ok(PreparedStep { runner: compiled.runner(engine, arena)?, kind, source, mode, capacity })
    }
}

/// A training or evaluation step ready to run.
pub(super) struct PreparedStep {
    pub runner: Runner,
    pub source: Source,
    /// The largest batch.
    pub capacity: usize,
    kind: DataKind,
    mode: Mode,
}

impl PreparedStep {
    /// Returns whether the step can run on this data, in one batch if it is fed from the host.
    pub fn fits(&self, data: &Dataset) -> bool {
        let whole = self.source.store().is_some() || data.len() <= self.capacity;
        whole && self.kind == DataKind::of(data, &self.source)
    }

    /// Runs the step on these rows.
    pub fn run(&mut self, config: &Compile, step: &Step, data: &Dataset, rows: &[u32]) -> Result<(), Error> {
        let feeds = step_graph::feeds(config, self.mode, &self.source, step, data, rows)?;
        self.runner.run(step, &in_parts(&feeds))
    }
}

/// Returns what a step is fed as the bytes of each input.
pub(super) fn in_parts<'a>(feeds: &'a [(String, Feed<'_>)]) -> Vec<(&'a str, Vec<&'a [u8]>)> {
    feeds.iter().map(|(name, feed)| (name.as_str(), feed.parts())).collect()
}

/// The properties of a data set that a step's plan depends on. If steps are fed from the host, these include neither
/// the number of samples nor how labels are stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DataKind {
    tensors: Vec<(Vec<usize>, Option<DType>)>,
    bytes: bool,
    values: [u32; 2],
    stored: Option<usize>,
}

impl DataKind {
    pub fn of(data: &Dataset, source: &Source) -> Self {
        let fed = matches!(source, Source::Host);
        let tensors = [&data.images].into_iter().chain(data.targets()).chain(&data.weights);
        let tensors = tensors.map(|t| (t.shape()[1..].to_vec(), (!fed).then_some(t.dtype()))).collect();
        let values = [data.scale, data.offset].map(f32::to_bits);
        let bytes = data.images.dtype() == DType::U8;
        DataKind { tensors, bytes, values, stored: (!fed).then_some(data.len()) }
    }
}

/// The steps that a trainer keeps from call to call.
#[derive(Default)]
pub(super) struct StepCache {
    /// Of [`Trainer::train_on_batch`](super::Trainer::train_on_batch).
    pub training: Option<PreparedStep>,
    /// Of [`Trainer::evaluate`](super::Trainer::evaluate).
    pub evaluation: Option<PreparedStep>,
    /// Of [`Trainer::predict`](super::Trainer::predict).
    pub prediction: Mutex<Option<Inference>>,
    /// Of [`Trainer::activations_and_gradients`](super::Trainer::activations_and_gradients), with the names of its
    /// outputs.
    pub watching: Option<(Vec<String>, PreparedStep)>,
}

impl StepCache {
    /// Frees the memory of evaluations and predictions.
    pub fn clear_inference(&mut self) {
        self.evaluation = None;
        self.prediction = Mutex::default();
    }
}
