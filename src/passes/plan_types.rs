use crate::{
    graph::{ALIGN_BYTES, Dispatch, Grid, TensorType},
    kernels::Access,
};
use std::{ops::Range, sync::Arc};

/// A named tensor of fixed shape in a [`Layout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Unique name.
    pub name: String,
    /// Fixed shape and type.
    pub ty: TensorType,
    /// The index of its chunk.
    pub chunk: usize,
    /// Its offset in the chunk in bytes, a multiple of 256.
    pub offset: u64,
    /// Its size in bytes, rounded up to whole words.
    pub bytes: u64,
}

/// Returns a tensor's bytes in a chunk, rounded up to the alignment.
fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN_BYTES).max(ALIGN_BYTES)
}

impl Entry {
    /// Returns the offset of the next tensor in the chunk.
    pub fn end(&self) -> u64 {
        self.offset + padded(self.bytes)
    }
}

/// The layout of a store's tensors: chunks that each fit one buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Tensors in the order given.
    pub entries: Vec<Entry>,
    /// Bytes of each chunk, multiples of 256.
    pub chunks: Vec<u64>,
}

impl Layout {
    /// Returns the layout that packs tensors contiguously, each padded to 256 bytes, and starts a new chunk if the next
    /// one would exceed `max_chunk_bytes`.
    ///
    /// A larger tensor has its own chunk.
    pub fn new(tensors: impl IntoIterator<Item = (String, TensorType)>, max_chunk_bytes: u64) -> Self {
        let mut entries = Vec::new();
        let mut chunks: Vec<u64> = Vec::new();
        for (name, ty) in tensors {
            let bytes = ty.bytes(1);
            let padded = padded(bytes);
            let offset = match chunks.last_mut() {
                Some(end) if *end + padded <= max_chunk_bytes => {
                    *end += padded;
                    *end - padded
                }
                _ => {
                    chunks.push(padded);
                    0
                }
            };
            entries.push(Entry { name, ty, chunk: chunks.len() - 1, offset, bytes });
        }
        Layout { entries, chunks }
    }

    /// Returns the tensor of this name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }
}

/// The buffer that a tensor is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BufferRef {
    /// A buffer of the session, shared by values that are not alive at once.
    Arena(usize),
    /// A chunk of one of the session's stores.
    Store {
        /// Which store.
        store: usize,
        /// Which of its chunks.
        chunk: usize,
    },
    /// A buffer of the caller; inputs are numbered first, then outputs.
    External(usize),
    /// The extents of this launch.
    Extents,
}

/// A range of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferRange {
    /// Which buffer.
    pub buffer: BufferRef,
    /// First byte, a multiple of 256.
    pub offset: u64,
    /// Bytes at the plan's capacity.
    pub bytes: u64,
}

/// A range of a buffer as a kernel reaches it.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// The range.
    pub range: BufferRange,
    /// Read or written.
    pub access: Access,
}

/// One kernel launch with its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedDispatch {
    /// The node that it computes, or computes a chunk of.
    pub node: String,
    /// The operation with its attributes, as text.
    pub op: String,
    /// Name of the kernel.
    pub kernel: String,
    /// Name of the variant.
    pub variant: String,
    /// The whole WGSL, entry point `main`.
    pub source: Arc<str>,
    /// Values of `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The members of its uniform buffer of extents, in order.
    pub extents: Vec<(String, u32)>,
    /// The workgroups, as a function of the launch's samples.
    pub grid: Grid,
    /// The samples that it computes.
    pub samples: Range<usize>,
    /// What is bound at 1, 2, …; the step record is always bound at 0.
    pub bindings: Vec<Binding>,
    /// Bytes that it reads and writes at the plan's capacity, if each value crosses memory once.
    pub bytes_moved: u64,
    /// Floating-point operations at the plan's capacity, two for a multiply and add. Of a node's launches, the first of each chunk of the
    /// batch counts them all.
    pub flops: u64,
    /// The estimated cycles of a GPU's multiprocessors, where the kernel's author knows them.
    pub cycles: Option<f64>,
    /// The launches that it is, one beside the other, if it is several: each with its own text, workgroups and bindings.
    pub members: Vec<PlannedDispatch>,
}

impl PlannedDispatch {
    /// Returns the kernel and its launch without what it binds.
    pub fn dispatch(&self) -> Dispatch {
        let PlannedDispatch { kernel, source, constants, extents, grid, .. } = self.clone();
        Dispatch { kernel, source: source.into(), constants, extents, grid, slots: Vec::new() }
    }

    /// Returns the launches that it is: one, unless several run as one.
    pub fn launches(&self) -> &[PlannedDispatch] {
        if self.members.is_empty() { std::slice::from_ref(self) } else { &self.members }
    }

    /// Returns what its pipeline is made of, the text and the constants' names and bits: launches that agree in it share one.
    pub fn pipeline_key(&self) -> (Arc<str>, Vec<(&'static str, u64)>) {
        (self.source.clone(), self.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect())
    }
}

/// A named input or output of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// Shape, possibly with a symbolic batch, and type.
    pub ty: TensorType,
    /// Its range of memory.
    pub range: BufferRange,
}

/// Which launches of a plan are of kernels that need no checks as they run. Only the planner trusts kernels: of a plan that was made or
/// changed by hand it trusts none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trust {
    /// The hash of the plan as it was made.
    pub(super) hash: u64,
    /// The launches of the crate's own operations.
    pub(super) own: Vec<bool>,
}

/// A step compiled for any batch of at most `capacity` samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The maximum number of samples in a step.
    pub capacity: usize,
    /// Bytes of each arena.
    pub arenas: Vec<u64>,
    /// Launches in order.
    pub dispatches: Vec<PlannedDispatch>,
    /// What is given for each step.
    pub inputs: Vec<Port>,
    /// What can be read after a step.
    pub outputs: Vec<Port>,
    /// Bytes of device memory of stores and arenas together.
    pub peak_bytes: u64,
    /// Minimum of [`Plan::peak_bytes`] for any layout: stores, and the peak of values alive together.
    pub lower_bound_bytes: u64,
    /// Equal for plans that run the same kernels on the same ranges, regardless of names.
    pub hash: u64,
    /// Which kernels need no checks.
    pub trust: Trust,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn a_layout_pads_to_256_and_starts_chunks_where_the_next_tensor_does_not_fit() {
        let ty = |n: usize| TensorType::new([n], DType::F32);
        let tensors = [("a", 3), ("b", 64), ("c", 65), ("d", 1000), ("e", 1)];
        let layout = Layout::new(tensors.map(|(name, n)| (name.to_owned(), ty(n))), 1024);
        let ranges: Vec<_> = layout.entries.iter().map(|e| (e.chunk, e.offset, e.bytes)).collect();
        assert_eq!(ranges, [(0, 0, 12), (0, 256, 256), (0, 512, 260), (1, 0, 4000), (2, 0, 4)]);
        assert_eq!(layout.chunks, [1024, 4096, 256]);
        assert_eq!(layout.find("d").map(|e| e.chunk), Some(1));
        assert!(layout.find("z").is_none());
    }
}
