//! Why each convolution and product has the kernel that it has: for people, made anew when they ask.

use super::{
    error::PlanError,
    options::PlanOptions,
    plan::scheduled,
    scheduled::Scheduled,
    select::{can_bind_uniforms, select},
};
use crate::{
    graph::{Candidate, DeviceClass, Graph},
    kernels::max_iterations,
};
use std::fmt;

/// A way to compute a node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Considered {
    /// The variant of the kernel, or the core of one that there is none of.
    pub variant: String,
    /// What it was compared by: estimated nanoseconds at a batch of 64 on a processor, cycles at the plan's capacity on a GPU.
    pub score: Option<f64>,
    /// Whether the plan has it.
    pub taken: bool,
    /// Why, or why not.
    pub why: String,
}

/// The ways to compute a node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The node.
    pub node: String,
    /// Its operation.
    pub op: String,
    /// What the scores are.
    pub unit: &'static str,
    /// The one taken, then the others in the order in which they would be, then those that declined.
    pub considered: Vec<Considered>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.node, self.op)?;
        for c in &self.considered {
            let score = c.score.map_or("-".into(), |score| format!("{score:.0}"));
            let mark = if c.taken { "→" } else { " " };
            writeln!(f, "  {mark} {score:>12} {}  {:44} {}", self.unit, c.variant, c.why)?;
        }
        Ok(())
    }
}

/// Returns for each node of which the kernel is chosen by an estimate, or has cores that decline it, what was considered.
///
/// It plans the graph as [`plan`](super::plan()) does.
pub fn choices(graph: &Graph, options: &PlanOptions) -> Result<Vec<Choice>, PlanError> {
    let options = &options.of_capacity();
    let s = scheduled(graph, options)?;
    let selected = select(&s)?;
    let mut choices = Vec::new();
    for &i in &s.order {
        let (Some(taken), Some(op)) = (selected.get(&i), s.node(i).op()) else { continue };
        let io = s.graph.io(s.node(i));
        let candidates = op.lower(&io, &options.profile, None);
        let declines = op.declines(&io, &options.profile);
        if declines.is_empty() && candidates.iter().all(|c| c.score.is_none()) {
            continue;
        }
        let mut considered: Vec<Considered> = candidates.iter().map(|c| consider(&s, i, c, taken)).collect();
        considered.sort_by_key(|c| !c.taken);
        considered.extend(declines.into_iter().map(|d| Considered {
            variant: d.core,
            score: None,
            taken: false,
            why: format!("declines: {}", d.why),
        }));
        let unit = if options.profile.class == DeviceClass::Cpu { "ns" } else { "cycles" };
        choices.push(Choice { node: s.node(i).name.clone(), op: op.name().into(), unit, considered });
    }
    Ok(choices)
}

fn consider(s: &Scheduled, i: usize, c: &Candidate, taken: &Candidate) -> Considered {
    let is_taken = c.variant == taken.variant;
    let why = if is_taken { "taken".into() } else { refusal(s, i, c).unwrap_or_else(|| slower(c, taken)) };
    Considered { variant: c.variant.clone(), score: c.score, taken: is_taken, why }
}

/// Returns why a candidate cannot be taken.
fn refusal(s: &Scheduled, i: usize, c: &Candidate) -> Option<String> {
    let (profile, capacity) = (&s.options.profile, s.options.capacity);
    if !can_bind_uniforms(s, i, c) {
        return Some("what it reads as a uniform buffer cannot be bound as one here".into());
    }
    let n_storage = c.dispatches.iter().map(|d| d.n_storage()).max().unwrap_or(0);
    if n_storage > profile.max_storage_buffers as usize {
        return Some(format!(
            "it binds {n_storage} storage buffers, the adapter at most {}",
            profile.max_storage_buffers
        ));
    }
    if profile.max_iterations == u64::MAX {
        return None;
    }
    let iterations = c.dispatches.iter().map(|d| max_iterations(d, capacity, profile.max_groups));
    match iterations.collect::<Result<Vec<_>, _>>() {
        Ok(all) => {
            let most = all.into_iter().max().unwrap_or(0);
            (most > profile.max_iterations).then(|| {
                format!("a loop of {most} iterations, the adapter's driver ends them after {}", profile.max_iterations)
            })
        }
        Err(error) => Some(format!("no bound of its loops: {error}")),
    }
}

/// Returns why a candidate that could be taken is not.
fn slower(c: &Candidate, taken: &Candidate) -> String {
    match (c.score, taken.score) {
        (Some(score), Some(best)) if score >= best => format!("estimated to take {:.2} times as long", score / best),
        (Some(_), Some(_)) => "it is cut into more launches than the plan may have".into(),
        _ => "without an estimate on this kind of device: for HUBEL_VARIANT alone".into(),
    }
}
