//! Which launches run as one: small ones of which none needs another, and halves of a gradient, one beside the other.
//! A gradient to weights that moves much memory runs beside a product that computes much, or the reverse.
//!
//! Launches are placed in the order of the schedule: where none of the last few needs it and it fits one of them, a launch joins that one,
//! else it follows them. Launches that make results of parts wait until something needs what they make, or another one comes along that
//! they fit: most results of long sums are needed at the end of a step. So are gradients to weights, which wait for a few steps.

use super::{
    alias::roots,
    schedule::needs,
    scheduled::{Scheduled, Selected},
    select::{access, chunks},
};
use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Dispatch, Node, Slot, Value},
    kernels::{Access, Core, Part, Schedule, Whole, join, workgroup_size},
    passes::plan_types::{BufferRange, BufferRef},
};
use std::collections::{HashMap, HashSet};

/// How far back a launch may join another one.
const WINDOW: usize = 4;
/// Most launches in one, of which products; and most uniform buffers. Lavapipe of Mesa 22 crashes on some texts of three products.
const MOST: usize = 8;
const MOST_PRODUCTS: usize = 2;
const MOST_UNIFORM: usize = 10;
/// How many steps a product may wait for another one that it goes well with.
const PATIENCE: usize = 24;
/// What running as one must save, of the shorter of two products.
const WORTH: f64 = 0.1;
/// Bytes of parts that may wait to be added, at least: a GPU of more multiprocessors has more memory, and more parts.
const MOST_WAITING: u64 = 64 << 20;

/// A launch: a node, and which of its launches.
pub(super) type Launch = (usize, usize);

/// The launches of a plan, those together that run as one.
pub(super) struct Steps {
    pub steps: Vec<Vec<Launch>>,
    /// The first and the last step of each node that has any.
    spans: HashMap<usize, [usize; 2]>,
}

impl Steps {
    /// Returns the first and the last step of a node; views and leaves have none.
    pub fn span(&self, node: usize) -> Option<[usize; 2]> {
        self.spans.get(&node).copied()
    }
}

/// Returns the steps of a plan, of which states and what the caller binds lie in `fixed` ranges.
pub(super) fn steps(s: &Scheduled, selected: &Selected, fixed: &HashMap<Value, BufferRange>) -> Steps {
    let joins = s.options.optimize && s.options.profile.class == DeviceClass::Gpu;
    let needs = if joins { needs(&s.graph) } else { Vec::new() };
    let mut placing = Placing {
        s,
        selected,
        fixed,
        needs,
        views: roots(&s.graph, false),
        joins,
        steps: Vec::new(),
        at: HashMap::new(),
        waiting: Vec::new(),
        known: HashMap::new(),
    };
    for &i in &s.order {
        let Some(candidate) = selected.get(&i) else { continue };
        for k in 0..candidate.dispatches.len() {
            placing.add((i, k));
        }
    }
    placing.flush();
    let mut spans: HashMap<usize, [usize; 2]> = HashMap::new();
    for (&(i, _), &at) in &placing.at {
        let span = spans.entry(i).or_insert([at, at]);
        *span = [span[0].min(at), span[1].max(at)];
    }
    Steps { steps: placing.steps, spans }
}

/// What is asked of a launch that may join others.
#[derive(Clone)]
struct Facts {
    lanes: u32,
    /// What computes, where that takes many registers.
    core: Option<Core>,
    storage: usize,
    uniform: usize,
    /// Estimated cycles of the multiprocessors and of the memory, of products.
    cycles: Option<[f64; 2]>,
    /// Buffers of fixed ranges that it reads, and that it writes.
    reads: HashSet<BufferRef>,
    writes: HashSet<BufferRef>,
}

struct Placing<'a> {
    s: &'a Scheduled<'a>,
    selected: &'a Selected,
    fixed: &'a HashMap<Value, BufferRange>,
    /// For each node those that run before it, and for each value the one that it is a view of.
    needs: Vec<Vec<usize>>,
    views: HashMap<Value, Value>,
    joins: bool,
    steps: Vec<Vec<Launch>>,
    at: HashMap<Launch, usize>,
    /// Launches that wait, with the number of steps by which they are placed, if anything is.
    waiting: Vec<(Launch, usize)>,
    known: HashMap<Launch, Option<Facts>>,
}

impl<'a> Placing<'a> {
    fn dispatch(&self, (i, k): Launch) -> (&'a Candidate, &'a Dispatch) {
        let candidate = &self.selected[&i];
        (candidate, &candidate.dispatches[k])
    }

    fn add(&mut self, launch: Launch) {
        if !self.joins {
            self.at.insert(launch, self.steps.len());
            return self.steps.push(vec![launch]);
        }
        while let Some(late) = self.waiting.iter().position(|(_, by)| *by <= self.steps.len()) {
            let (late, _) = self.waiting.remove(late);
            self.need(late);
            self.place(late);
        }
        if let Some(patience) = self.waits(launch) {
            self.waiting.push((launch, patience.saturating_add(self.steps.len())));
            let most = MOST_WAITING.max(u64::from(self.s.options.profile.multiprocessors) << 20);
            let nodes: HashSet<usize> = self.waiting.iter().map(|((i, _), _)| *i).collect();
            let bytes = |i: &usize| -> u64 {
                self.selected[i].scratch_bytes.iter().map(|bytes| bytes.at(self.s.options.capacity)).sum()
            };
            if nodes.iter().map(bytes).sum::<u64>() > most {
                self.flush();
            }
            return;
        }
        self.need(launch);
        self.place(launch);
    }

    /// Returns for how many steps a launch may wait: one that makes results of parts until they are needed, a product of which a later
    /// launch of its own makes the results, or nothing but a step's end needs them, for a few.
    fn waits(&mut self, launch: Launch) -> Option<usize> {
        let (candidate, _) = self.dispatch(launch);
        let last = launch.1 + 1 == candidate.dispatches.len();
        let outputs = self.s.node(launch.0).outputs.len() as u32;
        let own = |v: &Value| v.node as usize == launch.0 && v.output < outputs;
        let mut readers = (self.s.graph.nodes().iter()).filter(|node| node.inputs.iter().any(own));
        let at_end = |node: &Node| node.op().is_some_and(|op| !op.in_place(node.inputs.len()).is_empty());
        let facts = self.facts(launch)?;
        match facts.core {
            None => (last && (launch.1 > 0 || readers.next().is_none())).then_some(usize::MAX),
            Some(_) => (launch.1 == 0 && facts.cycles.is_some() && readers.all(at_end)).then_some(PATIENCE),
        }
    }

    /// Returns the nodes of which a launch needs launches, with their number: those that write what it reads, and all launches of nodes that
    /// read what it overwrites.
    fn needed(&self, (i, k): Launch) -> Vec<(usize, usize)> {
        let node = self.s.node(i);
        let mut needed = if k > 0 { vec![(i, k)] } else { Vec::new() };
        for v in &node.inputs {
            let source = self.views[v];
            let j = source.node as usize;
            let Some(candidate) = self.selected.get(&j) else { continue };
            let writes = |slot: &Slot| match slot {
                Slot::Out(outputs) | Slot::InOut { outputs, .. } => outputs.contains(&(source.output as usize)),
                _ => false,
            };
            let last = candidate.dispatches.iter().rposition(|d| d.slots.iter().any(writes));
            needed.push((j, last.map_or(candidate.dispatches.len(), |last| last + 1)));
        }
        if node.op().is_some_and(|op| !op.in_place(node.inputs.len()).is_empty()) {
            let all = |&j: &usize| Some((j, self.selected.get(&j)?.dispatches.len()));
            needed.extend(self.needs[i].iter().filter_map(all));
        }
        needed
    }

    /// Places the launches that wait and that a launch needs.
    fn need(&mut self, launch: Launch) {
        for (node, n) in self.needed(launch) {
            while let Some(at) = self.waiting.iter().position(|(l, _)| l.0 == node && l.1 < n) {
                let (launch, _) = self.waiting.remove(at);
                self.need(launch);
                self.place(launch);
            }
        }
    }

    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            let (launch, _) = self.waiting.remove(0);
            self.need(launch);
            self.place(launch);
        }
    }

    /// Returns the first step that a launch may be in, once all that it needs have theirs.
    fn earliest(&self, launch: Launch) -> Option<usize> {
        let needed = self.needed(launch).into_iter().flat_map(|(node, n)| (0..n).map(move |k| (node, k)));
        needed.map(|launch| self.at.get(&launch).map(|at| at + 1)).try_fold(0, |first, at| Some(first.max(at?)))
    }

    fn place(&mut self, launch: Launch) {
        let earliest = self.earliest(launch).unwrap_or(self.steps.len()).max(self.steps.len().saturating_sub(WINDOW));
        let found = (earliest..self.steps.len()).rev().find(|&at| self.fits(at, launch));
        let at = found.unwrap_or_else(|| {
            self.steps.push(Vec::new());
            self.steps.len() - 1
        });
        self.steps[at].push(launch);
        self.at.insert(launch, at);
        let mut n = 0;
        while let Some(&(other, _)) = self.waiting.get(n) {
            let ready = self.earliest(other).is_some_and(|first| first <= at);
            if ready && self.goes_well(at, other) && self.fits(at, other) {
                self.waiting.remove(n);
                self.steps[at].push(other);
                self.at.insert(other, at);
            } else {
                n += 1;
            }
        }
    }

    /// Returns whether a launch that waits saves time in a step: a product only where one computes while the other moves memory.
    fn goes_well(&mut self, at: usize, launch: Launch) -> bool {
        let Some(own) = self.facts(launch).and_then(|facts| facts.cycles) else { return true };
        let members = self.steps[at].clone();
        let others: Option<Vec<[f64; 2]>> = members.into_iter().map(|l| self.facts(l)?.cycles).collect();
        let Some(others) = others else { return false };
        let step = others.iter().fold([0.0, 0.0], |sum, cycles| [sum[0] + cycles[0], sum[1] + cycles[1]]);
        let longest = |cycles: [f64; 2]| f64::max(cycles[0], cycles[1]);
        let saved = longest(own) + longest(step) - longest([own[0] + step[0], own[1] + step[1]]);
        saved > WORTH * longest(own).min(longest(step))
    }

    fn facts(&mut self, launch: Launch) -> Option<Facts> {
        if let Some(known) = self.known.get(&launch) {
            return known.clone();
        }
        let facts = self.find_facts(launch);
        self.known.insert(launch, facts.clone());
        facts
    }

    fn find_facts(&self, launch: Launch) -> Option<Facts> {
        let (candidate, dispatch) = self.dispatch(launch);
        let uniform = |slot: &&Slot| matches!(slot, Slot::Uniform { .. } | Slot::Extents);
        let chunked = dispatch.slots.iter().any(|slot| matches!(slot, Slot::Uniform { samples: Some(_), .. }));
        if chunked || chunks(dispatch, self.s.options.capacity).len() != 1 {
            return None;
        }
        let light = [Core::Elements, Core::Lane, Core::Group, Core::Gather, Core::Chains];
        let core = candidate.variant.parse::<Schedule>().ok().map(|schedule| schedule.core);
        let core = core.filter(|core| launch.1 == 0 && !light.contains(core));
        let (mut reads, mut writes) = (HashSet::new(), HashSet::new());
        for slot in &dispatch.slots {
            let to = if access(candidate, launch.1, slot) == Access::ReadWrite { &mut writes } else { &mut reads };
            let values = self.s.slot_values(launch.0, slot);
            to.extend(
                values
                    .iter()
                    .filter_map(|v| self.fixed.get(&self.s.root(*v)).or_else(|| self.fixed.get(v)))
                    .map(|r| r.buffer),
            );
        }
        Some(Facts {
            lanes: workgroup_size(dispatch),
            core,
            storage: dispatch.n_storage(),
            uniform: dispatch.slots.iter().filter(uniform).count(),
            cycles: candidate.cycles.filter(|_| launch.1 == 0 && core.is_some()).map(|cycles| {
                let DeviceProfile { bytes_per_cycle, multiprocessors, .. } = self.s.options.profile;
                let each = f64::from(bytes_per_cycle.max(1)) * f64::from(multiprocessors.max(1));
                [cycles, self.s.moved(launch.0, candidate, dispatch) as f64 / each]
            }),
            reads,
            writes,
        })
    }

    /// Returns whether a launch can be one with those of a step.
    fn fits(&mut self, at: usize, launch: Launch) -> bool {
        let members = self.steps[at].clone();
        let Some(own) = self.facts(launch) else { return false };
        let mut others = Vec::new();
        for &member in &members {
            let Some(facts) = self.facts(member) else { return false };
            others.push(facts);
        }
        let apart = |other: &Facts| other.reads.is_disjoint(&own.writes) && other.writes.is_disjoint(&own.reads);
        let like = |other: &Facts| other.lanes == own.lanes && other.core == own.core;
        let storage = own.storage + others.iter().map(|other| other.storage).sum::<usize>();
        let uniform = own.uniform + others.iter().map(|other| other.uniform).sum::<usize>();
        let most = if own.core.is_some() { MOST_PRODUCTS } else { MOST };
        let few = members.len() < most
            && uniform <= MOST_UNIFORM
            && storage <= self.s.options.profile.max_storage_buffers as usize;
        few && others.iter().all(|other| like(other) && apart(other)) && {
            let all = members.into_iter().chain([launch]).map(|launch| self.dispatch(launch).1);
            joined(&all.collect::<Vec<_>>(), own.lanes).is_some()
        }
    }
}

/// Returns launches as one, whose workgroups have so many lanes.
pub(super) fn joined(dispatches: &[&Dispatch], lanes: u32) -> Option<Whole> {
    let parts = dispatches.iter().map(|d| Part { source: &d.source, constants: &d.constants, grid: d.grid, lanes });
    join(&parts.collect::<Vec<_>>())
}
