//! The graph of a training or evaluation step, as functions that each add one stage to it.
//!
//! In order: [`feeds`] makes samples and labels from the step's inputs, [`mix_up`] blends them with their neighbours,
//! the model computes its outputs, [`losses`] compares them with the labels, [`metrics`] sums losses and metrics on the
//! device, and in training [`update`] turns gradients into new weights, while [`activation_stats`] sums their norms.
//!
//! It takes a model, its `Compile` options, the kind of data (shapes, types, in device memory or fed from the host) and
//! the layouts of the weights and moments, and returns a `Graph` whose inputs [`feeds()`] fills, whose states are the
//! trainer's stores, whose outputs are sums, and whose updates overwrite those states. Only `Source` and the
//! functions called `read` touch a device.

pub(crate) mod activation_stats;
pub(crate) mod feeds;
mod losses;
pub(crate) mod metrics;
mod mix_up;
pub(crate) mod update;

use self::{
    feeds::{Feed, Source},
    metrics::MetricSums,
    update::StateLayouts,
};
use super::config::Compile;
use crate::{
    Error,
    data::Dataset,
    graph::{Graph, Step, Value},
    nn::{Mode, Model, Weight},
};

/// The inputs to building the graph of a step.
pub(crate) struct StepSpec<'a> {
    pub model: &'a Model,
    pub config: &'a Compile,
    pub metrics: &'a [MetricSums],
    pub layouts: StateLayouts<'a>,
}

/// The graph of a step.
pub(crate) struct StepGraph {
    pub graph: Graph,
    /// The outputs of layers and the gradients of weights by name, see [`activation_stats::watched`]; in training only.
    pub watched: Vec<(String, Value)>,
}

/// Builds the graph of a step on data like these.
pub(crate) fn build(spec: &StepSpec, data: &Dataset, source: &Source, mode: Mode) -> Result<StepGraph, Error> {
    let StepSpec { model, config, metrics, layouts } = spec;
    let classes = config.takes_classes();
    let mut g = Graph::new();
    let mut samples = feeds::build(&mut g, data, source, &classes)?;
    if config.mix_up.is_some() && mode == Mode::Training {
        samples = mix_up::build(&mut g, data, source, samples)?;
    }
    let labels = feeds::reshape_labels(&mut g, model, &classes, &samples.labels)?;
    let built = model.assemble(&mut g, &[samples.x], mode)?;
    let losses = losses::build(&mut g, &config.targets, &built, &labels, samples.weights)?;
    metrics::build(&mut g, metrics, &built, &labels, losses)?;
    if mode == Mode::Inference {
        return Ok(StepGraph { graph: g, watched: Vec::new() });
    }
    let loss = g.mean(losses)?;
    let weights: Vec<&Weight> = built.weights.iter().filter(|w| w.trainable).collect();
    let values: Vec<Value> = weights.iter().map(|w| w.value).collect();
    let gradients = g.gradients(loss, &values)?;
    let watched = activation_stats::watched(&g, &built.layers, &weights, &gradients);
    if config.norms {
        activation_stats::build(&mut g, &watched)?;
    }
    update::build(&mut g, config, layouts, &weights, &gradients)?;
    update::merge_averages(&mut g, layouts)?;
    Ok(StepGraph { graph: g, watched })
}

/// Returns what a step on these rows is fed, by input name.
pub(crate) fn feeds<'d>(
    config: &Compile,
    mode: Mode,
    source: &Source,
    step: &Step,
    data: &'d Dataset,
    rows: &[u32],
) -> Result<Vec<(String, Feed<'d>)>, Error> {
    let classes = config.takes_classes();
    let mut feeds = feeds::tensors(data, source, &classes, rows)?;
    if let Some(alpha) = config.mix_up.filter(|_| mode == Mode::Training) {
        feeds.extend(mix_up::tensors(alpha, step, data, source, rows)?);
    }
    Ok(feeds)
}
