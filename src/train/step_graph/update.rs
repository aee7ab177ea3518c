//! New weights from gradients.

use crate::{
    Error,
    graph::{Graph, TensorType, Value},
    nn::{Weight, below},
    passes::Layout,
    train::config::Compile,
};
use std::ops::Range;

/// The layouts of weights and moments in device memory.
pub(crate) struct StateLayouts<'a> {
    pub params: &'a Layout,
    pub moments: Option<&'a Layout>,
}

/// Clips the gradients, and overwrites each weight and its moments with what the optimiser and the weight's constraint
/// return.
pub(super) fn build(
    g: &mut Graph,
    config: &Compile,
    layouts: &StateLayouts,
    weights: &[&Weight],
    gradients: &[Value],
) -> Result<(), Error> {
    let gradients = config.optimizer.clip(g, gradients)?;
    let values: Vec<Value> = weights.iter().map(|w| w.value).collect();
    for (run, factor) in contiguous_runs(config, layouts, weights) {
        let mut moments: Vec<Vec<Value>> = Vec::new();
        for name in config.optimizer.moments() {
            let names = weights[run.clone()].iter();
            let states =
                names.map(|w| g.state(&format!("{name}/{}", w.name), TensorType::f32(w.shape.clone()), None)).collect();
            moments.push(states);
        }
        let updates = config.optimizer.build(g, &values[run.clone()], &gradients[run], &moments, factor)?;
        for (state, mut new) in updates {
            let weight = weights.iter().find(|w| w.value == state);
            if let Some(constraint) = weight.and_then(|w| w.constraint.as_ref()) {
                new = constraint.build(g, new)?;
            }
            g.update(state, new);
        }
    }
    Ok(())
}

/// Splits weights into runs that are contiguous in device memory, moments too, and share one factor of the learning
/// rate, so that one kernel updates a run.
fn contiguous_runs(config: &Compile, layouts: &StateLayouts, weights: &[&Weight]) -> Vec<(Range<usize>, f32)> {
    let names = config.optimizer.moments();
    let mut runs: Vec<(Range<usize>, f32)> = Vec::new();
    let mut ends: Vec<(usize, u64)> = Vec::new();
    for (i, weight) in weights.iter().enumerate() {
        let name = weight.name.as_str();
        let moments = names.iter().filter_map(|s| layouts.moments?.find(&format!("{s}/{name}")));
        let entries: Vec<_> = layouts.params.find(name).into_iter().chain(moments).collect();
        let starts = entries.iter().map(|e| (e.chunk, e.offset));
        let factor = config.factors.iter().rev().find(|(p, _)| below(name, p)).map_or(1.0, |f| f.1);
        match runs.last_mut() {
            Some((run, before)) if *before == factor && starts.eq(ends.iter().copied()) => run.end = i + 1,
            _ => runs.push((i..i + 1, factor)),
        }
        ends = entries.iter().map(|e| (e.chunk, e.end())).collect();
    }
    runs
}
