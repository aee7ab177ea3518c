//! Launches: each chosen kernel with the ranges that it binds.

use super::{
    alias::roots,
    arenas::Memory,
    error::PlanError,
    fused::Fused,
    hash::hash,
    plan_types::{Binding, BufferRange, BufferRef, Plan, PlannedDispatch, Port, Trust},
    scheduled::{Scheduled, Selected},
    select::{access, chunks},
    steps::{Steps, joined},
    verify::{Content, Held, Trace, Traffic},
};
use crate::{
    graph::{ALIGN_BYTES, Candidate, Dispatch, Grid, Kind, Node, Slot, UNIFORM_BYTES, Value},
    kernels::{Access, Whole, max_iterations, workgroup_size},
};
use std::{collections::HashMap, ops::Range};

/// Returns the plan, and the contents of its ranges.
pub(super) fn emit(
    s: &Scheduled,
    selected: &Selected,
    steps: &Steps,
    memory: &Memory,
) -> Result<(Plan, Trace), PlanError> {
    let emitter = Emitter { s, memory, views: roots(&s.graph, false) };
    let mut arenas = memory.arenas.clone();
    let (mut dispatches, mut own, mut launches, mut places) = (Vec::new(), Vec::new(), Vec::new(), Places::default());
    for step in &steps.steps {
        let mut members: Vec<Launched> = Vec::new();
        for &(i, k) in step {
            members.extend(emitter.launch(i, (&selected[&i], k), &mut places)?);
        }
        for Binding { range, .. } in members.iter().flat_map(|member| &member.0.bindings) {
            // The last chunk of a uniform buffer may be longer than the tensor.
            if let BufferRef::Arena(a) = range.buffer {
                arenas[a] = arenas[a].max(range.offset + range.bytes);
            }
        }
        for (dispatch, traffic, is_own) in if step.len() > 1 { vec![as_one(members, &mut places)] } else { members } {
            dispatches.push(dispatch);
            launches.push(traffic);
            own.push(is_own);
        }
    }
    let (inputs, input_contents) = emitter.inputs();
    let (outputs, output_contents) = emitter.outputs();
    let kept: u64 = s.options.layouts.iter().flat_map(|l| &l.chunks).sum();
    let mut plan = Plan {
        capacity: s.options.capacity,
        peak_bytes: arenas.iter().sum::<u64>() + kept,
        lower_bound_bytes: memory.peak_live_bytes + kept,
        arenas,
        dispatches,
        inputs,
        outputs,
        hash: 0,
        trust: Trust::default(),
    };
    plan.hash = hash(&plan);
    plan.trust = Trust { hash: plan.hash, own };
    let stores = s.options.layouts.iter().map(|l| l.chunks.clone()).collect();
    let states = emitter.states();
    Ok((plan, Trace { launches, inputs: input_contents, outputs: output_contents, states, stores }))
}

/// A launch, what its ranges hold, and whether its kernel is the crate's own and ends.
type Launched = (PlannedDispatch, Vec<Traffic>, bool);

/// Returns launches as one.
fn as_one(members: Vec<Launched>, places: &mut Places) -> Launched {
    let parts: Vec<Dispatch> = members.iter().map(|member| member.0.dispatch()).collect();
    let whole = joined(&parts.iter().collect::<Vec<_>>(), parts.first().map_or(1, workgroup_size));
    // Launches were put together since they can be.
    let Whole { source, grid, extents: ends } =
        whole.unwrap_or(Whole { source: String::new(), grid: Grid::fixed(0), extents: Vec::new() });
    let words = |word: fn(&PlannedDispatch) -> &str| {
        let mut words: Vec<&str> = members.iter().map(|member| word(&member.0)).collect();
        words.dedup();
        words.join(" + ")
    };
    // Each has its extents in a binding of whole vectors.
    let extents = members.iter().flat_map(|(d, ..)| {
        let padding = d.extents.len().next_multiple_of(4) - d.extents.len();
        d.extents.iter().cloned().chain(std::iter::repeat_n((String::new(), 0), padding))
    });
    let of_ends = Binding { range: places.of(&ends), access: Access::Uniform };
    let sum = |of: fn(&PlannedDispatch) -> u64| members.iter().map(|member| of(&member.0)).sum();
    let dispatch = PlannedDispatch {
        node: members.first().map(|member| member.0.node.clone()).unwrap_or_default(),
        op: words(|d| &d.op),
        kernel: words(|d| &d.kernel),
        variant: words(|d| &d.variant),
        source: source.into(),
        constants: Vec::new(),
        extents: extents.chain(ends).collect(),
        grid,
        samples: 0..usize::MAX,
        bindings: members.iter().flat_map(|member| member.0.bindings.clone()).chain([of_ends]).collect(),
        bytes_moved: sum(|d| d.bytes_moved),
        flops: sum(|d| d.flops),
        cycles: members.iter().map(|member| member.0.cycles).sum(),
        members: members.iter().map(|member| member.0.clone()).collect(),
    };
    let is_own = members.iter().all(|member| member.2);
    (dispatch, members.into_iter().flat_map(|member| member.1).chain([Traffic::default()]).collect(), is_own)
}

/// Returns the floating-point operations of a node on these samples.
fn flops(s: &Scheduled, i: usize, samples: &Range<usize>) -> u64 {
    let Some(op) = s.node(i).op() else { return 0 };
    let n = samples.end.min(s.options.capacity).saturating_sub(samples.start);
    op.cost(&s.graph.io(s.node(i))).flops.at(n)
}

/// Returns whether a node's kernels are the crate's own.
fn is_own(node: &Node) -> bool {
    let Some(op) = node.op() else { return false };
    match op.downcast::<Fused>() {
        None => op.is_own(),
        Some(fused) => fused.anchor.is_own() && fused.sums.as_ref().is_none_or(|sums| sums.is_own()),
    }
}

/// Where the extents of launches lie in the session's buffer of them: equal ones once.
#[derive(Default)]
struct Places {
    offsets: HashMap<Vec<u32>, u64>,
    end: u64,
}

impl Places {
    fn of(&mut self, extents: &[(String, u32)]) -> BufferRange {
        let bytes = (4 * extents.len() as u64).next_multiple_of(16);
        let offset = *self.offsets.entry(extents.iter().map(|e| e.1).collect()).or_insert(self.end);
        self.end = self.end.max(offset + bytes.next_multiple_of(ALIGN_BYTES));
        BufferRange { buffer: BufferRef::Extents, offset, bytes }
    }
}

struct Emitter<'a> {
    s: &'a Scheduled<'a>,
    memory: &'a Memory,
    /// For each value, the one that it is a view of.
    views: HashMap<Value, Value>,
}

impl Emitter<'_> {
    /// Returns launch `k` of node `i`, one for each chunk of the batch.
    fn launch(
        &self,
        i: usize,
        (candidate, k): (&Candidate, usize),
        places: &mut Places,
    ) -> Result<Vec<Launched>, PlanError> {
        let (s, dispatch) = (self.s, &candidate.dispatches[k]);
        let modes: Vec<Access> = dispatch.slots.iter().map(|slot| access(candidate, k, slot)).collect();
        let all = chunks(dispatch, s.options.capacity);
        let n_chunks = all.len().max(1) as u64;
        let bound = || max_iterations(dispatch, s.options.capacity, s.options.profile.max_groups);
        let is_own = is_own(s.node(i)) && bound().is_ok();
        let traffic: Vec<Traffic> =
            dispatch.slots.iter().zip(&modes).map(|(slot, &m)| self.traffic(i, slot, m)).collect();
        let moved = s.moved(i, candidate, dispatch);
        let launch = |(chunk, samples): (usize, Range<usize>)| {
            let extents = dispatch.extents_at(chunk);
            let place = places.of(&extents);
            let planned = PlannedDispatch {
                node: s.node(i).name.clone(),
                op: describe(s.node(i)),
                kernel: dispatch.kernel.clone(),
                variant: candidate.variant.clone(),
                source: dispatch.source.text().clone(),
                constants: dispatch.constants.clone(),
                extents,
                grid: dispatch.grid,
                bindings: self.bindings(i, dispatch, &modes, chunk, place)?,
                bytes_moved: moved / n_chunks,
                flops: if k == 0 { flops(s, i, &samples) } else { 0 },
                samples,
                cycles: candidate.cycles.filter(|_| k == 0),
                members: Vec::new(),
            };
            Ok((planned, traffic.clone(), is_own))
        };
        all.into_iter().enumerate().map(launch).collect()
    }

    /// Returns the bindings of a launch of node `i`, or an error if the adapter does not allow them.
    fn bindings(
        &self,
        i: usize,
        dispatch: &Dispatch,
        modes: &[Access],
        chunk: usize,
        extents: BufferRange,
    ) -> Result<Vec<Binding>, PlanError> {
        let node = self.s.node(i);
        let bind = |(slot, &access): (&Slot, &Access)| {
            let group = || PlanError::Group { node: node.name.clone() };
            let range = if *slot == Slot::Extents { Some(extents) } else { self.range(i, slot, chunk) };
            Ok(Binding { range: range.ok_or_else(group)?, access })
        };
        let bindings: Vec<Binding> = dispatch.slots.iter().zip(modes).map(bind).collect::<Result<_, _>>()?;
        let got = bindings.iter().filter(|b| b.access != Access::Uniform).count();
        let limit = self.s.options.profile.max_storage_buffers as usize;
        if got > limit {
            let (node, kernel) = (node.name.clone(), dispatch.kernel.clone());
            return Err(PlanError::Bindings { node, kernel, got, limit });
        }
        let largest = bindings.iter().map(|b| b.range.bytes).max().unwrap_or(0);
        self.s.check_binding(&node.name, largest)?;
        Ok(bindings)
    }

    /// Returns the range that a slot of node `i` binds, or `None` if its values are not contiguous.
    fn range(&self, i: usize, slot: &Slot, chunk: usize) -> Option<BufferRange> {
        let guard = self.s.options.guard_bytes.next_multiple_of(ALIGN_BYTES);
        match *slot {
            Slot::Scratch(k) => {
                let block = self.memory.scratch(i, k)?;
                Some(BufferRange { offset: block.offset + guard, bytes: block.bytes - guard, ..block })
            }
            Slot::Uniform { input, samples } => {
                let mut range = self.values_range(&self.s.slot_values(i, slot), guard)?;
                range.bytes = range.bytes.min(UNIFORM_BYTES);
                if let Some(samples) = samples {
                    range.bytes = self.s.graph.ty(self.s.node(i).inputs[input]).bytes(samples);
                    range.offset += chunk as u64 * range.bytes;
                }
                Some(range)
            }
            _ => self.values_range(&self.s.slot_values(i, slot), guard),
        }
    }

    /// Returns the range of contiguous values, with a guard after it.
    fn values_range(&self, values: &[Value], guard: u64) -> Option<BufferRange> {
        let ranges: Vec<BufferRange> = values.iter().filter_map(|&v| self.memory.range(self.s, v)).collect();
        let mut range = *ranges.first()?;
        let mut end = range.offset;
        for next in &ranges {
            if next.buffer != range.buffer || next.offset != end {
                return None;
            }
            end = next.offset + next.bytes.next_multiple_of(ALIGN_BYTES);
        }
        if ranges.len() > 1 {
            range.bytes = end - range.offset;
        } else if !matches!(range.buffer, BufferRef::External(_)) {
            // Kernels may access the tensor as an array of vec4.
            range.bytes = range.bytes.next_multiple_of(16);
        }
        if guard > 0 && matches!(range.buffer, BufferRef::Arena(_)) {
            range.bytes = range.bytes.next_multiple_of(ALIGN_BYTES) + guard;
        }
        Some(range)
    }

    /// Returns the contents of a slot of node `i`, before and after the launch.
    fn traffic(&self, i: usize, slot: &Slot, access: Access) -> Traffic {
        let held = |values: &[Value]| -> Vec<Held> {
            let held = |&v: &Value| Held { content: self.content(v), bytes: self.s.bytes(v) };
            values.iter().map(held).collect()
        };
        let all = held(&self.s.slot_values(i, slot));
        match slot {
            Slot::Scratch(k) => {
                let bytes = self
                    .memory
                    .scratch(i, *k)
                    .map_or(0, |block| block.bytes - 2 * self.s.options.guard_bytes.next_multiple_of(ALIGN_BYTES));
                let scratch = vec![Held { content: Content::Scratch { node: i, number: *k }, bytes }];
                match access {
                    Access::ReadWrite => Traffic { reads: Vec::new(), writes: scratch },
                    _ => Traffic { reads: scratch, writes: Vec::new() },
                }
            }
            Slot::InOut { outputs, .. } => {
                Traffic { reads: all, writes: held(&self.s.slot_values(i, &Slot::Out(outputs.clone()))) }
            }
            Slot::Out(_) => Traffic { reads: Vec::new(), writes: all },
            _ => Traffic { reads: all, writes: Vec::new() },
        }
    }

    fn content(&self, v: Value) -> Content {
        Content::Value(self.views[&v])
    }

    fn port(&self, name: &str, v: Value) -> Option<(Port, Content)> {
        let range = self.memory.range(self.s, v)?;
        Some((Port { name: name.to_owned(), ty: self.s.graph.ty(v).clone(), range }, self.content(v)))
    }

    /// Returns the inputs of the graph.
    fn inputs(&self) -> (Vec<Port>, Vec<Content>) {
        let nodes = self.s.graph.nodes().iter().enumerate().filter(|(_, n)| matches!(n.kind, Kind::Input));
        nodes.filter_map(|(i, n)| self.port(&n.name, Value { node: i as u32, output: 0 })).unzip()
    }

    /// Returns the results of the graph.
    fn outputs(&self) -> (Vec<Port>, Vec<Content>) {
        self.s.graph.outputs().iter().filter_map(|(name, v)| self.port(name, *v)).unzip()
    }

    /// Returns the states of the graph with their ranges.
    fn states(&self) -> Vec<(Content, BufferRange)> {
        let nodes = self.s.graph.nodes().iter().enumerate().filter(|(_, n)| matches!(n.kind, Kind::State { .. }));
        let values = nodes.map(|(i, _)| Value { node: i as u32, output: 0 });
        values.filter_map(|v| Some((self.content(v), self.memory.range(self.s, v)?))).collect()
    }
}

fn describe(node: &Node) -> String {
    let Some(op) = node.op() else { return String::new() };
    let key = op.key();
    if key.is_empty() { op.name().to_owned() } else { format!("{}({key})", op.name()) }
}
