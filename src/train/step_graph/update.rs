//! New weights from gradients.

use crate::{
    Error,
    graph::{Graph, TensorType, Value},
    nn::{Weight, below},
    ops::{self, Rule},
    passes::{Entry, Layout},
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
    let place = |w: &Weight| layouts.params.find(&w.name).map(|entry| (entry.chunk, entry.offset));
    let mut pairs: Vec<(&Weight, Value)> = weights.iter().copied().zip(gradients).collect();
    pairs.sort_by_key(|(weight, _)| place(weight));
    let (weights, gradients): (Vec<&Weight>, Vec<Value>) = pairs.into_iter().unzip();
    let (weights, gradients) = (&weights[..], &gradients[..]);
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

/// Makes one operation of the moving averages of states that are contiguous in device memory, as those of batch normalisation are.
pub(super) fn merge_averages(g: &mut Graph, layouts: &StateLayouts) -> Result<(), Error> {
    let average = |(state, new): &(Value, Value)| {
        let op = *g.node(*new).op()?.downcast::<ops::Optimizer>()?;
        let entry = layouts.params.find(&g.node(*state).name)?;
        // One that follows an earlier average of the same step stays on its own.
        let only = g.node(*new).inputs[0] == *state;
        (only && matches!(op.rule, Rule::MovingAverage { .. })).then(|| (entry, op, *state, g.node(*new).inputs[1]))
    };
    let mut found: Vec<_> = g.updates().iter().filter_map(average).collect();
    found.sort_by_key(|(entry, ..)| (entry.chunk, entry.offset));
    let follows = |a: &(&Entry, ops::Optimizer, Value, Value), b: &(&Entry, ops::Optimizer, Value, Value)| {
        a.1 == b.1 && (a.0.chunk, a.0.end()) == (b.0.chunk, b.0.offset)
    };
    for run in found.chunk_by(follows) {
        let (states, batches): (Vec<Value>, Vec<Value>) =
            run.iter().map(|(_, _, state, batch)| (*state, *batch)).unzip();
        let new = g.optimize(run[0].1, &states, &batches, &[])?;
        states.into_iter().zip(new).for_each(|(state, new)| g.update(state, new));
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
