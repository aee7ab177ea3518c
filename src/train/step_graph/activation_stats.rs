//! Norms of activations and gradients, layer by layer: which values a step can show, and their norms over an epoch.

use super::metrics::accumulated;
use crate::{
    Error,
    graph::{Graph, OpError, TensorType, Value},
    nn::{Mode, Model, Weight},
    runtime::Store,
    tensor::DType,
};
use std::collections::HashSet;

const ACTIVATION: &str = "activation";
const GRADIENT: &str = "gradient";

/// Returns the name of the norm of `activation/layer` or `gradient/weight`.
fn norm_of(watched: &str) -> String {
    watched.replacen('/', "_norm/", 1)
}

/// A sum of squares by name, and the elements that each sample adds to it; `None` for a gradient, which adds once a
/// step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Norm {
    pub name: String,
    elements: Option<usize>,
}

impl Norm {
    /// Returns all norms of a model.
    pub fn all(model: &Model) -> Result<Vec<Norm>, Error> {
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

/// Returns the layers whose outputs are measured; one that is used twice is measured at its first use.
fn measured(g: &Graph, layers: &[(String, Value)]) -> Vec<(String, Value)> {
    let mut seen = HashSet::new();
    let fits = |v: Value| g.ty(v).dtype == DType::F32 && g.shape(v).is_batched();
    let layers = layers.iter().filter(|(name, value)| fits(*value) && seen.insert(name.clone()));
    layers.map(|(name, value)| (format!("{ACTIVATION}/{name}"), *value)).collect()
}

/// Returns what a step can show: the outputs of layers, `activation/layer`, and the gradients of weights before they
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

/// Adds the sums of squares of a step to its graph.
pub(super) fn build(g: &mut Graph, watched: &[(String, Value)]) -> Result<(), OpError> {
    for (name, value) in watched {
        let axes: Vec<usize> = (0..g.shape(*value).dims().len()).collect();
        let sum = g.sum_squares(*value, &axes, false)?;
        let sum = g.reshape(sum, [1])?;
        let state = g.state(&norm_of(name), TensorType::f32([1]), None);
        let new = accumulated(g, state, sum)?;
        g.update(state, new);
    }
    Ok(())
}

/// Returns the norms of an epoch of this many samples and steps, by name.
pub(crate) fn read(norms: &[Norm], sums: &Store, samples: usize, steps: usize) -> Result<Vec<(String, f64)>, Error> {
    let mut values = Vec::new();
    for Norm { name, elements } in norms {
        let sum = f64::from(sums.read(name)?.to_f32()[0]);
        let count = elements.map_or(steps, |elements| samples * elements);
        values.push((name.clone(), (sum / count.max(1) as f64).sqrt()));
    }
    Ok(values)
}
