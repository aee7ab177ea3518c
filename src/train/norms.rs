//! How large activations and gradients are, layer by layer: their norms, summed on the device over an epoch, and
//! themselves.

use super::{
    Trainer,
    runner::Compiled,
    step::{Source, kept_and},
    trainer::batch_kind,
};
use crate::{
    Error,
    data::Dataset,
    graph::{Graph, OpError, TensorType, Value},
    nn::{Mode, Model, Weight},
    tensor::{DType, HostTensor},
};
use std::collections::HashSet;

const ACTIVATION: &str = "activation";
const GRADIENT: &str = "gradient";

/// Returns the name of the norm of what is watched as `activation/layer` or `gradient/weight`.
fn norm_of(watched: &str) -> String {
    watched.replacen('/', "_norm/", 1)
}

/// A sum of squares by name, and the elements that each sample adds; a gradient adds to it once a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm {
    pub name: String,
    elements: Option<usize>,
}

impl Norm {
    /// Returns all norms of a model.
    pub(super) fn all(model: &Model) -> Result<Vec<Norm>, Error> {
        let mut g = Graph::new();
        let x = g.input("x", model.input_shape(), DType::F32);
        let layers = model.assemble(&mut g, &[x], Mode::Training)?.layers;
        let activations = measured(&g, &layers).into_iter();
        let activations =
            activations.map(|(name, value)| Norm { name: norm_of(&name), elements: Some(g.shape(value).row()) });
        let trained = model.weights().iter().filter(|w| w.trainable);
        Ok(activations
            .chain(trained.map(|w| Norm { name: norm_of(&format!("{GRADIENT}/{}", w.name)), elements: None }))
            .collect())
    }
}

/// Returns the layers whose outputs are measured; one that is used twice is measured where it is used first.
fn measured(g: &Graph, layers: &[(String, Value)]) -> Vec<(String, Value)> {
    let mut seen = HashSet::new();
    let fits = |v: Value| g.ty(v).dtype == DType::F32 && g.shape(v).is_batched();
    let layers = layers.iter().filter(|(name, value)| fits(*value) && seen.insert(name.clone()));
    layers.map(|(name, value)| (format!("{ACTIVATION}/{name}"), *value)).collect()
}

/// Returns what a step can tell of: the outputs of layers, `activation/layer`, and the gradients of weights before they
/// are clipped, `gradient/weight`.
pub(super) fn watched(
    g: &Graph,
    layers: &[(String, Value)],
    weights: &[&Weight],
    gradients: &[Value],
) -> Vec<(String, Value)> {
    let gradients = weights.iter().zip(gradients).map(|(w, &gradient)| (format!("{GRADIENT}/{}", w.name), gradient));
    measured(g, layers).into_iter().chain(gradients).collect()
}

/// Adds the sums of a step to its graph.
pub(super) fn build(g: &mut Graph, watched: &[(String, Value)]) -> Result<(), OpError> {
    for (name, value) in watched {
        let axes: Vec<usize> = (0..g.shape(*value).dims().len()).collect();
        let sum = g.sum_squares(*value, &axes, false)?;
        let sum = g.reshape(sum, [1])?;
        let state = g.state(&norm_of(name), TensorType::f32([1]), None);
        let new = kept_and(g, state, sum)?;
        g.update(state, new);
    }
    Ok(())
}

impl Trainer {
    /// Returns the norms of an epoch of so many samples and steps.
    pub(super) fn read_norms(&self, samples: usize, steps: usize) -> Result<Vec<(String, f64)>, Error> {
        let mut norms = Vec::new();
        for Norm { name, elements } in &self.norms {
            let sum = f64::from(self.metrics.read(name)?.to_f32()[0]);
            let count = elements.map_or(steps, |elements| samples * elements);
            norms.push((name.clone(), (sum / count.max(1) as f64).sqrt()));
        }
        Ok(norms)
    }

    /// Returns the outputs of all layers, `activation/layer`, and the gradients of all weights that are trained,
    /// `gradient/weight`, in a training step on these samples; nothing is learned. The plan is kept for further calls with as
    /// many samples.
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
        let kind = batch_kind(data);
        let (names, mut runner) = match self.watching.take() {
            Some((known, names, runner)) if known == kind => (names, runner),
            _ => {
                let (mut graph, watched) = self.watched_graph(data, &Source::Host, Mode::Training)?;
                let names: Vec<String> = watched.iter().map(|(name, _)| name.clone()).collect();
                graph.set_outputs(watched);
                graph.set_updates(Vec::new());
                let compiled = Compiled::new(&self.engine, graph, data.len(), self.stores(&Source::Host))?;
                (names, compiled.runner(&self.engine, None)?)
            }
        };
        let (step, rows) = (self.step(data.len(), true)?, (0..data.len() as u32).collect::<Vec<_>>());
        self.feed(&mut runner, &step, data, &Source::Host, &rows, Mode::Training)?;
        let values = names.iter().map(|name| Ok((name.clone(), runner.read(name, data.len())?))).collect();
        self.watching = Some((kind, names, runner));
        values
    }
}
