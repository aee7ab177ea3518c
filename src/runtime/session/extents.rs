//! The extents of a plan's launches: one uniform buffer, in which each launch binds its own.

use crate::{
    graph::ALIGN_BYTES,
    passes::{BufferRange, BufferRef, Plan, PlannedDispatch},
    runtime::{
        Result, RuntimeError,
        gpu::{DeviceBuffer, Gpu},
    },
};

/// Returns the buffer, or an error if a launch binds a range that no planner gives it.
pub(super) fn upload(gpu: &Gpu, plan: &Plan) -> Result<DeviceBuffer> {
    let padded = |words: usize| (4 * words as u64).next_multiple_of(ALIGN_BYTES);
    // Of several launches in one, each starts anew.
    let room = |d: &PlannedDispatch| padded(d.extents.len()) + ALIGN_BYTES * (d.members.len() as u64 + 1);
    let most = plan.dispatches.iter().map(room).sum::<u64>().max(ALIGN_BYTES);
    let mut words = vec![0u32; ALIGN_BYTES as usize / 4];
    for dispatch in &plan.dispatches {
        let bound: Vec<BufferRange> =
            dispatch.bindings.iter().map(|b| b.range).filter(|range| range.buffer == BufferRef::Extents).collect();
        let mut rest = &dispatch.extents[..];
        for (i, range) in bound.iter().enumerate() {
            // Of launches in one, each has a binding of its own.
            let n = if i + 1 == bound.len() { rest.len() } else { rest.len().min((range.bytes / 4) as usize) };
            if range.bytes < 4 * n as u64 || range.offset.saturating_add(padded(n)) > most {
                let message = format!("{n} extents are bound at byte {} with {} bytes", range.offset, range.bytes);
                return Err(RuntimeError::Plan {
                    node: dispatch.node.clone(),
                    kernel: dispatch.kernel.clone(),
                    message,
                });
            }
            let start = (range.offset / 4) as usize;
            words.resize(words.len().max(start + (padded(n) / 4) as usize), 0);
            let own;
            (own, rest) = rest.split_at(n);
            words[start..start + n].iter_mut().zip(own).for_each(|(word, e)| *word = e.1);
        }
    }
    let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let buffer = gpu.buffer("the extents of launches", 4 * words.len() as u64, uniform, false)?;
    gpu.upload(&buffer.raw, 0, bytemuck::cast_slice(&words))?;
    Ok(buffer)
}
