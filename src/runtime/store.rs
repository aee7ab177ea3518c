use super::{
    Engine, Result, RuntimeError,
    error::Bytes,
    gpu::{DeviceBuffer, Gpu},
    readback::{self, Readback},
};
use crate::{
    passes::{Entry, Layout},
    tensor::HostTensor,
};
use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Named tensors in device memory that outlive sessions: weights, moments, data sets. Clones share them.
///
/// Tensors that were read are kept on the host until a step or a write changes them, and [`Store::read`] returns them
/// after the device is lost: weights that were read after the last step can still be saved.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    layout: Arc<Layout>,
    memory: Memory,
}

enum Memory {
    Host(Mutex<HashMap<String, HostTensor>>),
    Device { gpu: Arc<Gpu>, chunks: Vec<DeviceBuffer>, readback: Mutex<Readback>, kept: Mutex<Kept> },
}

/// Host copies of tensors that have not changed since.
#[derive(Default)]
struct Kept {
    changes: u64,
    tensors: HashMap<String, HostTensor>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Returns zero-filled memory for named tensors, one buffer per chunk, or an error that names a tensor that does
    /// not fit.
    pub fn store(&self, layout: Arc<Layout>) -> Result<Store> {
        Store::new(self, layout)
    }
}

impl Store {
    pub(super) fn new(engine: &Engine, layout: Arc<Layout>) -> Result<Self> {
        let memory = match engine.gpu() {
            None => {
                let (bytes, budget) = (layout.chunks.iter().sum::<u64>(), super::engine::host_budget());
                if let Some(limit) = budget.filter(|&limit| bytes > limit) {
                    return Err(RuntimeError::OutOfMemory { what: describe(&layout, None), bytes, limit });
                }
                Memory::Host(Mutex::default())
            }
            Some(gpu) => {
                let total: u64 = layout.chunks.iter().sum();
                for (i, &bytes) in layout.chunks.iter().enumerate() {
                    gpu.check_size(|| describe(&layout, Some(i)), bytes)?;
                }
                gpu.check_budget(|| describe(&layout, None), total)?;
                let usage = super::gpu::tensors();
                let chunks = (layout.chunks.iter().enumerate())
                    .map(|(i, &bytes)| gpu.buffer(&describe(&layout, Some(i)), bytes, usage, false))
                    .collect::<Result<_>>()?;
                Memory::Device { gpu: gpu.clone(), chunks, readback: Mutex::default(), kept: Mutex::default() }
            }
        };
        let store = Store { inner: Arc::new(Inner { engine: engine.clone(), layout, memory }) };
        if engine.is_reference() {
            store.reset()?;
        }
        Ok(store)
    }

    /// Returns the layout of the tensors.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.inner.layout
    }

    /// Returns the engine that the store was created on.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(super) fn chunk(&self, chunk: usize) -> Option<&wgpu::Buffer> {
        match &self.inner.memory {
            Memory::Host(_) => None,
            Memory::Device { chunks, .. } => chunks.get(chunk).map(|b| &b.raw),
        }
    }

    /// Drops host copies, since a step or a write is about to change the tensors.
    pub(super) fn changes(&self) {
        if let Memory::Device { kept, .. } = &self.inner.memory {
            let mut kept = lock(kept);
            kept.changes += 1;
            kept.tensors.clear();
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.inner.layout.find(name).ok_or_else(|| RuntimeError::UnknownName {
            kind: "tensor",
            name: name.into(),
            known: self.inner.layout.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Replaces a tensor, or returns an error with its shape and type. Does not wait.
    pub fn write(&self, name: &str, tensor: &HostTensor) -> Result<()> {
        let entry = self.entry(name)?;
        if entry.ty.dtype != tensor.dtype() || entry.ty.shape.dims() != tensor.shape() {
            let got = format!("{}{:?}", tensor.dtype(), tensor.shape());
            return Err(RuntimeError::Mismatch { name: name.into(), wanted: entry.ty.to_string(), got });
        }
        match &self.inner.memory {
            Memory::Host(tensors) => {
                lock(tensors).insert(name.to_owned(), tensor.clone());
                Ok(())
            }
            Memory::Device { gpu, chunks, .. } => {
                self.changes();
                gpu.upload(&chunks[entry.chunk].raw, entry.offset, tensor.bytes())
            }
        }
    }

    /// Returns a tensor, blocking until all steps submitted before it are done.
    pub fn read(&self, name: &str) -> Result<HostTensor> {
        let entry = self.entry(name)?;
        match &self.inner.memory {
            Memory::Host(tensors) => host(&lock(tensors), entry),
            Memory::Device { gpu, chunks, readback, kept } => {
                let changes = lock(kept).changes;
                let range = (entry.offset, readback::exact_bytes(&entry.ty, 1));
                let bytes = lock(readback).read(gpu, &chunks[entry.chunk].raw, range, name, gpu.timeout);
                keep(kept, changes, entry, bytes)
            }
        }
    }

    /// Async form of [`Store::read`].
    pub async fn read_async(&self, name: &str) -> Result<HostTensor> {
        let entry = self.entry(name)?;
        match &self.inner.memory {
            Memory::Host(tensors) => host(&lock(tensors), entry),
            Memory::Device { gpu, chunks, readback, kept } => {
                let changes = lock(kept).changes;
                let range = (entry.offset, readback::exact_bytes(&entry.ty, 1));
                let mut own = mem::take(&mut *lock(readback));
                let bytes = own.read_async(gpu, &chunks[entry.chunk].raw, range, name, gpu.timeout).await;
                *lock(readback) = own;
                keep(kept, changes, entry, bytes)
            }
        }
    }

    /// Returns all tensors in the layout's order, blocking.
    pub fn read_all(&self) -> Result<Vec<(String, HostTensor)>> {
        self.inner.layout.entries.iter().map(|e| Ok((e.name.clone(), self.read(&e.name)?))).collect()
    }

    /// Async form of [`Store::read_all`].
    pub async fn read_all_async(&self) -> Result<Vec<(String, HostTensor)>> {
        let mut all = Vec::with_capacity(self.inner.layout.entries.len());
        for entry in &self.inner.layout.entries {
            all.push((entry.name.clone(), self.read_async(&entry.name).await?));
        }
        Ok(all)
    }

    /// Fills all tensors with zeros.
    pub fn reset(&self) -> Result<()> {
        match &self.inner.memory {
            Memory::Host(tensors) => {
                let mut all = HashMap::new();
                for entry in &self.inner.layout.entries {
                    let bytes = vec![0; readback::exact_bytes(&entry.ty, 1) as usize];
                    all.insert(entry.name.clone(), readback::tensor(&entry.name, &entry.ty, 1, &bytes)?);
                }
                *lock(tensors) = all;
            }
            Memory::Device { gpu, chunks, .. } => {
                self.changes();
                gpu.submit("a reset", |encoder| chunks.iter().for_each(|c| encoder.clear_buffer(&c.raw, 0, None)))?;
                gpu.check_alive()?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", describe(&self.inner.layout, None))
    }
}

/// Keeps a tensor that was read if it has not changed since; after the loss of the device, returns the kept one.
fn keep(kept: &Mutex<Kept>, changes: u64, entry: &Entry, read: Result<Vec<u8>>) -> Result<HostTensor> {
    let mut kept = lock(kept);
    match read {
        Ok(bytes) => {
            let tensor = readback::tensor(&entry.name, &entry.ty, 1, &bytes)?;
            if kept.changes == changes {
                kept.tensors.insert(entry.name.clone(), tensor.clone());
            }
            Ok(tensor)
        }
        Err(error @ RuntimeError::DeviceLost { .. }) => kept.tensors.get(&entry.name).cloned().ok_or(error),
        Err(error) => Err(error),
    }
}

fn host(tensors: &HashMap<String, HostTensor>, entry: &Entry) -> Result<HostTensor> {
    tensors.get(&entry.name).cloned().ok_or_else(|| RuntimeError::UnknownName {
        kind: "tensor",
        name: entry.name.clone(),
        known: tensors.keys().cloned().collect::<Vec<_>>().join(", "),
    })
}

/// Lists the three largest tensors of a chunk, or of all.
fn describe(layout: &Layout, chunk: Option<usize>) -> String {
    let mut entries: Vec<&Entry> = layout.entries.iter().filter(|e| chunk.is_none_or(|c| e.chunk == c)).collect();
    let n = entries.len();
    entries.sort_by_key(|e| std::cmp::Reverse(e.bytes));
    let largest = entries.iter().take(3).map(|e| format!("`{}` {} ({})", e.name, e.ty, Bytes(e.bytes)));
    let largest = largest.collect::<Vec<_>>().join(", ");
    if n > 3 { format!("the memory of {n} tensors, the largest {largest},") } else { largest }
}
