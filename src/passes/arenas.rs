//! Memory: an arena and an offset for each block.

use super::{
    liveness::Blocks,
    plan_types::{BufferRange, BufferRef},
    scheduled::{Scheduled, Selected},
    select::access,
    steps::Steps,
};
use crate::{
    graph::{Slot, Value},
    kernels::Access,
};
use std::{cmp::Reverse, collections::HashMap};

/// Where every block is.
pub(super) struct Memory {
    /// Bytes of each arena.
    pub arenas: Vec<u64>,
    /// Peak bytes of blocks that are alive together.
    pub peak_live_bytes: u64,
    blocks: Blocks,
    /// Arena and offset of each block.
    offsets: Vec<(usize, u64)>,
    fixed: HashMap<Value, BufferRange>,
}

impl Memory {
    /// Returns the range of a value.
    pub fn range(&self, s: &Scheduled, v: Value) -> Option<BufferRange> {
        let (root, bytes) = (s.root(v), s.bytes(v));
        if let Some(range) = self.fixed.get(&root).or_else(|| self.fixed.get(&v)) {
            return Some(BufferRange { bytes, ..*range });
        }
        let &(block, inner) = self.blocks.of_value.get(&root)?;
        let (arena, offset) = self.offsets[block];
        Some(BufferRange { buffer: BufferRef::Arena(arena), offset: offset + inner, bytes })
    }

    /// Returns the range of the whole block of scratch buffer `k` of node `i`.
    pub fn scratch(&self, i: usize, k: usize) -> Option<BufferRange> {
        let &block = self.blocks.of_scratch.get(&(i, k))?;
        let (arena, offset) = self.offsets[block];
        Some(BufferRange { buffer: BufferRef::Arena(arena), offset, bytes: self.blocks.blocks[block].bytes })
    }
}

/// Assigns every block an arena that none of its conflicts has, and a range that is disjoint from those of all blocks
/// alive at the same time.
pub(super) fn arrange(
    s: &Scheduled,
    selected: &Selected,
    steps: &Steps,
    blocks: Blocks,
    fixed: HashMap<Value, BufferRange>,
) -> Memory {
    let conflicts = conflicts(s, selected, steps, &blocks);
    let all = &blocks.blocks;
    // Guards around tensors are checked after the step, so nothing may be reused.
    let reuse = s.options.guard_bytes == 0;
    let mut arenas: Vec<u64> = Vec::new();
    let mut placed: Vec<Vec<usize>> = Vec::new();
    let mut offsets: Vec<Option<(usize, u64)>> = vec![None; all.len()];
    let mut by_time: Vec<usize> = (0..all.len()).collect();
    by_time.sort_by_key(|&b| (all[b].first, Reverse(all[b].bytes), b));
    for b in by_time {
        let block = &all[b];
        let taken: Vec<usize> = conflicts[b].iter().filter_map(|&c| offsets[c].map(|o| o.0)).collect();
        let limit = s.options.profile.max_buffer_bytes.max(block.bytes);
        let mut arena = 0;
        let offset = loop {
            if arena == arenas.len() {
                arenas.push(0);
                placed.push(Vec::new());
            }
            // Blocks are in the order of their first node, so ended ones stay ended.
            placed[arena].retain(|&p| !reuse || all[p].last >= block.first);
            let alive = placed[arena].iter().filter(|&&p| !reuse || all[p].first <= block.last);
            let busy = alive.filter_map(|&p| offsets[p].map(|(_, offset)| (offset, offset + all[p].bytes)));
            let offset = first_fit(busy.collect(), block.bytes);
            if !taken.contains(&arena) && offset + block.bytes <= limit {
                break offset;
            }
            arena += 1;
        };
        arenas[arena] = arenas[arena].max(offset + block.bytes);
        placed[arena].push(b);
        offsets[b] = Some((arena, offset));
    }
    let peak_live_bytes = peak_live_bytes(&blocks, steps.steps.len().max(1));
    Memory { arenas, peak_live_bytes, blocks, offsets: offsets.into_iter().flatten().collect(), fixed }
}

/// Returns the first offset with `bytes` free bytes between busy ranges.
fn first_fit(mut busy: Vec<(u64, u64)>, bytes: u64) -> u64 {
    busy.sort_unstable();
    let mut at = 0;
    for (start, end) in busy {
        if at + bytes <= start {
            break;
        }
        at = at.max(end);
    }
    at
}

/// Returns for each block those that must not share its arena, because a launch reads one and writes the other: wgpu
/// tracks whole buffers.
fn conflicts(s: &Scheduled, selected: &Selected, steps: &Steps, blocks: &Blocks) -> Vec<Vec<usize>> {
    let mut conflicts = vec![Vec::new(); blocks.blocks.len()];
    for step in &steps.steps {
        let side = |write: bool| -> Vec<usize> {
            let of_launch = |&(i, k): &(usize, usize)| {
                let candidate = &selected[&i];
                let is_write = move |s: &&Slot| (access(candidate, k, s) == Access::ReadWrite) == write;
                let slots = candidate.dispatches[k].slots.iter().filter(is_write);
                slots.filter_map(|slot| blocks.of_slot(s, i, slot)).collect::<Vec<_>>()
            };
            step.iter().flat_map(of_launch).collect()
        };
        let (reads, writes) = (side(false), side(true));
        for (&r, &w) in reads.iter().flat_map(|r| writes.iter().map(move |w| (r, w))).filter(|(r, w)| r != w) {
            conflicts[r].push(w);
            conflicts[w].push(r);
        }
    }
    conflicts
}

/// Returns the peak bytes of blocks that are alive together.
fn peak_live_bytes(blocks: &Blocks, n_steps: usize) -> u64 {
    let mut changes = vec![[0u64; 2]; n_steps + 1];
    for block in blocks.blocks.iter().filter(|b| b.first < n_steps) {
        changes[block.first][0] += block.bytes;
        changes[block.last.min(n_steps - 1) + 1][1] += block.bytes;
    }
    let mut alive = 0;
    let at = |[more, less]: &[u64; 2]| {
        alive = alive + more - less;
        alive
    };
    changes.iter().map(at).max().unwrap_or(0)
}
