//! Lifetimes of values, and which values need one contiguous range.

use super::{
    error::PlanError,
    plan_types::BufferRange,
    scheduled::{Scheduled, Selected},
    steps::Steps,
};
use crate::graph::{ALIGN_BYTES, Slot, Value};
use std::collections::{BTreeMap, HashMap};

/// A block of memory with its lifetime, both ends included.
pub(super) struct Block {
    pub bytes: u64,
    /// Steps.
    pub first: usize,
    pub last: usize,
}

/// All memory that a plan allocates.
#[derive(Default)]
pub(super) struct Blocks {
    pub blocks: Vec<Block>,
    /// For each alias root, its block and the offset in it.
    pub of_value: HashMap<Value, (usize, u64)>,
    /// For each scratch buffer, by (node, number), its block.
    pub of_scratch: HashMap<(usize, usize), usize>,
}

impl Blocks {
    /// Returns the block that a slot of node `i` binds, if the plan allocates it.
    pub fn of_slot(&self, s: &Scheduled, i: usize, slot: &Slot) -> Option<usize> {
        if let Slot::Scratch(k) = slot {
            return self.of_scratch.get(&(i, *k)).copied();
        }
        let v = *s.slot_values(i, slot).first()?;
        self.of_value.get(&s.root(v)).map(|b| b.0)
    }

    fn push(&mut self, bytes: u64, [first, last]: [usize; 2]) -> usize {
        self.blocks.push(Block { bytes, first, last });
        self.blocks.len() - 1
    }
}

/// Returns a block for each group of values that one slot binds, for each other value and for each scratch buffer.
pub(super) fn blocks(
    s: &Scheduled,
    selected: &Selected,
    fixed: &HashMap<Value, BufferRange>,
    steps: &Steps,
) -> Result<Blocks, PlanError> {
    let spans = spans(s, steps);
    let guard = s.options.guard_bytes.next_multiple_of(ALIGN_BYTES);
    let mut blocks = Blocks::default();
    for (i, members) in groups(s, selected, fixed) {
        if members.iter().all(|v| blocks.of_value.contains_key(v)) {
            continue;
        }
        if members.iter().any(|v| blocks.of_value.contains_key(v)) {
            return Err(PlanError::Group { node: s.node(i).name.clone() });
        }
        let alive = members.iter().filter_map(|v| spans.get(v));
        let first = alive.clone().map(|span| span[0]).min().unwrap_or(0);
        let last = alive.map(|span| span[1]).max().unwrap_or(usize::MAX);
        let bytes: u64 = members.iter().map(|&v| s.bytes(v).next_multiple_of(ALIGN_BYTES)).sum();
        let block = blocks.push(bytes + 2 * guard, [first, last]);
        let mut offset = guard;
        for v in members {
            blocks.of_value.insert(v, (block, offset));
            offset += s.bytes(v).next_multiple_of(ALIGN_BYTES);
        }
    }
    for (v, span) in spans {
        if !fixed.contains_key(&v) && !blocks.of_value.contains_key(&v) {
            let block = blocks.push(s.bytes(v).next_multiple_of(ALIGN_BYTES) + 2 * guard, span);
            blocks.of_value.insert(v, (block, guard));
        }
    }
    for &i in &s.order {
        let scratch = selected.get(&i).map_or(&[][..], |c| &c.scratch_bytes);
        let span = steps.span(i).unwrap_or_default();
        for (k, bytes) in scratch.iter().enumerate() {
            let bytes = bytes.at(s.options.capacity);
            s.check_binding(&s.node(i).name, bytes)?;
            let block = blocks.push(bytes.next_multiple_of(ALIGN_BYTES) + 2 * guard, span);
            blocks.of_scratch.insert((i, k), block);
        }
    }
    Ok(blocks)
}

/// Returns for each alias root the steps of the first launch that writes it and the last that needs it.
///
/// Inputs and states are alive from the start, outputs of the graph to the end.
fn spans(s: &Scheduled, steps: &Steps) -> BTreeMap<Value, [usize; 2]> {
    let mut spans: BTreeMap<Value, [usize; 2]> = BTreeMap::new();
    for &i in &s.order {
        let node = s.node(i);
        // A view has no launch, and its memory is that of what it shows.
        let span = steps.span(i).unwrap_or_default();
        for output in 0..node.outputs.len() as u32 {
            spans.entry(s.root(Value { node: i as u32, output })).or_insert(span);
        }
        for &v in &node.inputs {
            spans.entry(s.root(v)).and_modify(|of| of[1] = of[1].max(span[1]));
        }
    }
    for (_, v) in s.graph.outputs() {
        spans.entry(s.root(*v)).and_modify(|span| span[1] = usize::MAX);
    }
    spans
}

/// Returns the alias roots that one slot of a node binds together, if the plan chooses their memory.
fn groups(s: &Scheduled, selected: &Selected, fixed: &HashMap<Value, BufferRange>) -> Vec<(usize, Vec<Value>)> {
    let mut groups = Vec::new();
    for &i in &s.order {
        let Some(candidate) = selected.get(&i) else { continue };
        for slot in candidate.dispatches.iter().flat_map(|d| &d.slots) {
            let members: Vec<Value> = s.slot_values(i, slot).into_iter().map(|v| s.root(v)).collect();
            if members.len() > 1 && !members.iter().any(|v| fixed.contains_key(v)) {
                groups.push((i, members));
            }
        }
    }
    groups
}
