//! Which kernels compute each node: first what is legal on the adapter, then what is preferred.

use super::{
    error::PlanError,
    scheduled::{Scheduled, Selected},
};
use crate::{
    graph::{Candidate, Dispatch, Kind, Slot},
    kernels::{Access, max_iterations},
};
use std::{cmp::Reverse, collections::HashMap, ops::Range};

/// Returns the kernels of each node.
pub(super) fn select(s: &Scheduled) -> Result<Selected, PlanError> {
    let mut selected = Selected::new();
    let mut unchunked: Vec<(usize, Candidate)> = Vec::new();
    // Networks repeat their blocks.
    let mut known: HashMap<String, Vec<Candidate>> = HashMap::new();
    for &i in &s.order {
        let Some(op) = s.node(i).op().filter(|op| !op.view()) else { continue };
        let io = s.graph.io(s.node(i));
        let all = known.entry(format!("{} {op:?} {io:?}", op.key()));
        let candidates = legal(s, i, all.or_insert_with(|| op.lower(&io, &s.options.profile, None)).clone());
        let (preferred, alternative) = prefer(s, i, op.name(), candidates)?;
        selected.insert(i, preferred);
        unchunked.extend(alternative.map(|candidate| (i, candidate)));
    }
    limit_launches(s, &mut selected, unchunked);
    Ok(selected)
}

/// Returns the candidates of node `i` that the adapter can bind.
fn legal(s: &Scheduled, i: usize, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let profile = &s.options.profile;
    candidates.retain(|c| can_bind_uniforms(s, i, c));
    let fits = |c: &Candidate| c.dispatches.iter().all(|d| d.n_storage() <= profile.max_storage_buffers as usize);
    // If none fits, the error names the kernel that binds too many.
    if candidates.iter().any(fits) {
        candidates.retain(fits);
    }
    candidates
}

/// Returns an iterator over the candidates whose loops the adapter's driver runs to their end; each is looked at when it is asked
/// for. Why it leaves candidates out is kept in `refused`.
fn short<'a>(
    s: &'a Scheduled,
    i: usize,
    op: &'a str,
    candidates: Vec<Candidate>,
    refused: &'a mut Option<PlanError>,
) -> impl Iterator<Item = Candidate> + 'a {
    let (capacity, limit, max_groups) =
        (s.options.capacity, s.options.profile.max_iterations, s.options.profile.max_groups);
    let iterations = move |c: &Candidate| {
        let mut all = c.dispatches.iter().map(|d| max_iterations(d, capacity, max_groups));
        all.try_fold(0, |most, each| each.map(|each| most.max(each)))
    };
    candidates.into_iter().filter(move |candidate| {
        let found = if limit == u64::MAX { Ok(0) } else { iterations(candidate) };
        let (node, op) = (s.node(i).name.clone(), op.to_owned());
        let error = match found {
            Ok(iterations) if iterations <= limit => return true,
            Ok(iterations) => PlanError::TooLong { node, op, iterations, capacity, limit },
            Err(source) => PlanError::Unbounded { node, op, source },
        };
        let fewest = |e: &Option<PlanError>| match e {
            Some(PlanError::TooLong { iterations, .. }) => *iterations,
            _ => u64::MAX,
        };
        let error = Some(error);
        if refused.is_none() || fewest(&error) < fewest(refused) {
            *refused = error;
        }
        false
    })
}

/// Returns whether the plan can bind what a candidate reads as uniform buffers.
pub(super) fn can_bind_uniforms(s: &Scheduled, i: usize, candidate: &Candidate) -> bool {
    candidate.dispatches.iter().flat_map(|d| &d.slots).all(|slot| {
        let Slot::Uniform { input, samples } = *slot else { return true };
        let root = s.root(s.node(i).inputs[input]);
        let node = s.graph.node(root);
        match node.kind {
            Kind::Input => !s.options.external_inputs.contains(&node.name),
            Kind::State { .. } => samples.is_none(),
            Kind::Op(_) => {
                let mut outputs = s.graph.outputs().iter();
                !outputs.any(|(name, v)| s.options.external_outputs.contains(name) && s.root(*v) == root)
            }
        }
    })
}

/// Returns the variant that the options force, or else the operation's first; and, if that one has several launches for
/// chunks of the batch, the first candidate without.
fn prefer(
    s: &Scheduled,
    i: usize,
    op: &str,
    mut candidates: Vec<Candidate>,
) -> Result<(Candidate, Option<Candidate>), PlanError> {
    let is_chunked = |c: &Candidate| launches(s, c) > c.dispatches.len();
    let forced = s.options.force.as_ref().filter(|(name, _)| name == op);
    let forced = forced.and_then(|(_, variant)| candidates.iter().position(|c| c.variant == *variant));
    if let Some(forced) = forced {
        candidates[..=forced].rotate_right(1);
    }
    let mut refused = None;
    let mut candidates = short(s, i, op, candidates, &mut refused);
    if let Some(preferred) = candidates.next() {
        let wanted = forced.is_none() && is_chunked(&preferred);
        let unchunked = if wanted { candidates.find(|c| !is_chunked(c)) } else { None };
        return Ok((preferred, unchunked));
    }
    drop(candidates);
    Err(refused.unwrap_or_else(|| PlanError::NoKernel { node: s.node(i).name.clone(), op: op.into() }))
}

/// Replaces the candidates with the most launches by ones without chunks, until the plan has few enough launches.
fn limit_launches(s: &Scheduled, selected: &mut Selected, mut unchunked: Vec<(usize, Candidate)>) {
    let mut all: usize = selected.values().map(|c| launches(s, c)).sum();
    unchunked.sort_by_key(|(i, _)| (Reverse(launches(s, &selected[i])), *i));
    for (i, candidate) in unchunked {
        if all > s.options.max_launches {
            all = all - launches(s, &selected[&i]) + candidate.dispatches.len();
            selected.insert(i, candidate);
        }
    }
}

/// Returns the launches of a candidate, counting those of each chunk of the batch.
fn launches(s: &Scheduled, candidate: &Candidate) -> usize {
    candidate.dispatches.iter().map(|d| chunks(d, s.options.capacity).len()).sum()
}

/// Returns the samples of each launch of a dispatch.
pub(super) fn chunks(dispatch: &Dispatch, capacity: usize) -> Vec<Range<usize>> {
    let samples = dispatch.slots.iter().find_map(|s| match s {
        Slot::Uniform { samples, .. } => *samples,
        _ => None,
    });
    match samples {
        None => vec![Range { start: 0, end: usize::MAX }],
        Some(samples) => (0..capacity).step_by(samples.max(1)).map(|start| start..start + samples).collect(),
    }
}

/// Returns how dispatch `k` of a candidate accesses a slot: the first that binds scratch memory writes it, later ones
/// read.
pub(super) fn access(candidate: &Candidate, k: usize, slot: &Slot) -> Access {
    match slot {
        Slot::In(_) => Access::Read,
        Slot::Uniform { .. } | Slot::Extents => Access::Uniform,
        Slot::Scratch(_) if candidate.dispatches[..k].iter().any(|d| d.slots.contains(slot)) => Access::Read,
        _ => Access::ReadWrite,
    }
}
