use crate::{
    kernels::Access,
    passes::{BufferRef, PlannedDispatch},
    runtime::{
        Engine, Result,
        gpu::{self, DeviceBuffer, Gpu},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Activation memory that several sessions share; clones share it.
///
/// A session uses the buffers that are large enough and replaces the others by larger ones. Reserve for the largest
/// plan first to avoid replacements.
#[derive(Clone, Default)]
pub struct Arena {
    buffers: Arc<Mutex<Vec<Arc<DeviceBuffer>>>>,
}

impl Engine {
    /// Returns an empty arena that sessions can share; it grows as they are created.
    pub fn arena(&self) -> Arena {
        Arena::default()
    }
}

impl Arena {
    /// Reserves room for arenas of these sizes in bytes, or returns an error if memory is full.
    pub fn reserve(&self, engine: &Engine, arenas: &[u64]) -> Result<()> {
        engine.gpu().map_or(Ok(()), |gpu| self.take(gpu, arenas, &[]).map(|_| ()))
    }

    /// Returns the bytes of each buffer.
    pub fn bytes(&self) -> Vec<u64> {
        self.lock().iter().map(|b| b.raw.size()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<DeviceBuffer>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(
        &self,
        gpu: &Gpu,
        arenas: &[u64],
        dispatches: &[PlannedDispatch],
    ) -> Result<Vec<Arc<DeviceBuffer>>> {
        let mut buffers = self.lock();
        let missing = |i: usize, bytes: u64| buffers.get(i).is_none_or(|b| b.raw.size() < bytes);
        let more: u64 = (arenas.iter().enumerate()).filter(|&(i, &bytes)| missing(i, bytes)).map(|(_, &b)| b).sum();
        for (i, &bytes) in arenas.iter().enumerate() {
            gpu.check_size(|| format!("arena {i} ({})", largest(dispatches, Some(i))), bytes)?;
        }
        gpu.check_budget(|| format!("activations ({})", largest(dispatches, None)), more)?;
        for (i, &bytes) in arenas.iter().enumerate() {
            if buffers.get(i).is_some_and(|b| b.raw.size() >= bytes) {
                continue;
            }
            let usage = gpu::tensors();
            let buffer = Arc::new(gpu.buffer(&format!("arena {i}"), bytes, usage, false)?);
            match buffers.get_mut(i) {
                Some(old) => *old = buffer,
                None => buffers.push(buffer),
            }
        }
        Ok(buffers[..arenas.len()].to_vec())
    }
}

/// Lists the three nodes with the largest bindings in an arena, or in all.
fn largest(dispatches: &[PlannedDispatch], arena: Option<usize>) -> String {
    let mut nodes: HashMap<&str, u64> = HashMap::new();
    for dispatch in dispatches {
        for binding in dispatch.bindings.iter().filter(|b| b.access == Access::ReadWrite) {
            if let BufferRef::Arena(i) = binding.range.buffer
                && arena.is_none_or(|a| a == i)
            {
                let largest = nodes.entry(&dispatch.node).or_default();
                *largest = (*largest).max(binding.range.bytes);
            }
        }
    }
    let mut nodes: Vec<(&str, u64)> = nodes.into_iter().collect();
    nodes.sort_by_key(|&(name, bytes)| (std::cmp::Reverse(bytes), name));
    let text: Vec<String> = nodes
        .iter()
        .take(3)
        .map(|(name, bytes)| format!("`{name}` {}", crate::runtime::error::Bytes(*bytes)))
        .collect();
    if text.is_empty() { "no node".into() } else { format!("largest: {}", text.join(", ")) }
}
