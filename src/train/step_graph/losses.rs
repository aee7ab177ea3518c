//! The loss of each sample.

use crate::{
    Error,
    graph::{Graph, Value},
    nn::Assembled,
    train::{config::Target, error::TrainError},
};

/// Returns the loss of each sample (N): the weighted sum over the outputs, times the samples' weights, plus the penalties.
pub(super) fn build(
    g: &mut Graph,
    targets: &[Target],
    built: &Assembled,
    labels: &[Value],
    weights: Option<Value>,
) -> Result<Value, Error> {
    let mut sum = None;
    for (k, target) in targets.iter().enumerate() {
        let mut losses = target.loss.build(g, built.outputs[k], built.logits[k], labels[k])?;
        if target.weight != 1.0 {
            losses = g.scale(losses, target.weight)?;
        }
        sum = Some(match sum {
            None => losses,
            Some(sum) => g.add(sum, losses)?,
        });
    }
    let mut losses = sum.ok_or(TrainError::NoData)?;
    if let Some(weights) = weights {
        losses = g.mul(losses, weights)?;
    }
    for &penalty in &built.penalties {
        losses = g.add(losses, penalty)?;
    }
    Ok(losses)
}
