//! How large activations and gradients are, layer by layer, summed on the device over an epoch.

use super::{Trainer, step::kept_and};
use crate::{
    Error,
    graph::{Graph, OpError, TensorType, Value},
    nn::{Mode, Model, Weight},
    tensor::DType,
};
use std::collections::HashSet;

const ACTIVATIONS: &str = "activation_norm/";
const GRADIENTS: &str = "gradient_norm/";

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
        let activations = activations.map(|(name, value)| Norm { name, elements: Some(g.shape(value).row()) });
        let trained = model.weights().iter().filter(|w| w.trainable);
        Ok(activations
            .chain(trained.map(|w| Norm { name: format!("{GRADIENTS}{}", w.name), elements: None }))
            .collect())
    }
}

/// Returns the layers whose outputs are measured; one that is used twice is measured where it is used first.
fn measured(g: &Graph, layers: &[(String, Value)]) -> Vec<(String, Value)> {
    let mut seen = HashSet::new();
    let fits = |v: Value| g.ty(v).dtype == DType::F32 && g.shape(v).is_batched();
    let layers = layers.iter().filter(|(name, value)| fits(*value) && seen.insert(name.clone()));
    layers.map(|(name, value)| (format!("{ACTIVATIONS}{name}"), *value)).collect()
}

/// Adds the sums of a step to its graph.
pub(super) fn build(
    g: &mut Graph,
    layers: &[(String, Value)],
    weights: &[&Weight],
    gradients: &[Value],
) -> Result<(), OpError> {
    let gradients = weights.iter().zip(gradients).map(|(w, &gradient)| (format!("{GRADIENTS}{}", w.name), gradient));
    for (name, value) in measured(g, layers).into_iter().chain(gradients) {
        let axes: Vec<usize> = (0..g.shape(value).dims().len()).collect();
        let sum = g.sum_squares(value, &axes, false)?;
        let sum = g.reshape(sum, [1])?;
        let state = g.state(&name, TensorType::f32([1]), None);
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
}
