//! Invariants of graphs and plans. Builds with debug assertions check them after each pass; the test kit always does.

use super::plan_types::{BufferRange, BufferRef, Plan, PlannedDispatch};
use crate::{
    graph::{ALIGN_BYTES, Graph, Value},
    kernels::Access,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A violated invariant of a graph or plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A node of a graph reads a value that no node before it computes.
    #[error("node `{node}` reads a value that no node before it computes")]
    Order {
        /// The node, or the result or state that names the value.
        node: String,
    },
    /// A node's output types differ from those that its operation infers.
    #[error("the output types of node `{node}` ({op}) differ from those that its operation infers from its inputs")]
    Types {
        /// The node.
        node: String,
        /// Its operation.
        op: String,
    },
    /// A launch reads a value that has not been written.
    #[error("launch {launch} (`{node}`) reads {range} before its value has been written")]
    Undefined {
        /// The launch, or the number of launches if an output is read.
        launch: usize,
        /// Its node, or the output.
        node: String,
        /// The range it reads.
        range: BufferRange,
    },
    /// A launch reads a value whose memory has been overwritten.
    #[error("launch {launch} (`{node}`) reads {range} after its value has been overwritten")]
    Overwritten {
        /// The launch, or the number of launches if an output is read.
        launch: usize,
        /// Its node, or the output.
        node: String,
        /// The range it reads.
        range: BufferRange,
    },
    /// A launch binds one buffer for reading and for writing.
    #[error("launch {launch} (`{node}`) binds one buffer for reading, at {read}, and for writing, at {written}")]
    ReadAndWritten {
        /// The launch.
        launch: usize,
        /// Its node.
        node: String,
        /// The range it reads.
        read: BufferRange,
        /// The range it writes.
        written: BufferRange,
    },
    /// A range is not inside its buffer, or a value is not inside the range that binds it.
    #[error("launch {launch} (`{node}`): {range} reaches beyond byte {end}, the end of its buffer or binding")]
    OutOfBounds {
        /// The launch.
        launch: usize,
        /// Its node.
        node: String,
        /// The range.
        range: BufferRange,
        /// The end of the buffer, or of the bound range.
        end: u64,
    },
    /// A range does not start at a multiple of [`ALIGN_BYTES`].
    #[error("launch {launch} (`{node}`): {range} does not start at a multiple of 256 bytes")]
    Misaligned {
        /// The launch.
        launch: usize,
        /// Its node.
        node: String,
        /// The range.
        range: BufferRange,
    },
    /// A kernel's declared bindings differ from the launch's.
    #[error("launch {launch} (`{node}`): kernel {kernel} declares {wanted} bindings, the launch has {got}")]
    Unbound {
        /// The launch.
        launch: usize,
        /// Its node.
        node: String,
        /// The kernel.
        kernel: String,
        /// Bindings that the kernel declares, without the step record.
        wanted: usize,
        /// Bindings of the launch.
        got: usize,
    },
}

/// The content of a range of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// A value of the graph, not a view of one.
    Value(Value),
    /// Scratch memory of a node.
    Scratch {
        /// Index of the node.
        node: usize,
        /// Which of its scratch buffers.
        number: usize,
    },
}

/// A value in a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The value.
    pub content: Content,
    /// Its bytes; what follows it in the binding starts at the next multiple of [`ALIGN_BYTES`].
    pub bytes: u64,
}

/// The contents of one of a launch's bindings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What the range must hold before the launch, in order of offsets.
    pub reads: Vec<Held>,
    /// What it holds after the launch, in order of offsets.
    pub writes: Vec<Held>,
}

/// The contents of a [`Plan`]'s ranges, from [`traced_plan`](super::traced_plan), with which [`verify`] compares the
/// plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// For each launch and each of its bindings.
    pub launches: Vec<Vec<Traffic>>,
    /// For each input of the plan.
    pub inputs: Vec<Content>,
    /// For each output of the plan.
    pub outputs: Vec<Content>,
    /// The states with their ranges.
    pub states: Vec<(Content, BufferRange)>,
    /// For each store the bytes of its chunks.
    pub stores: Vec<Vec<u64>>,
}

/// Returns the first violation in a graph: a node that reads what no node before it computes, or whose types are wrong.
pub fn verify_graph(graph: &Graph) -> Result<(), Violation> {
    let is_defined = |v: &Value, before: usize| {
        let node = graph.nodes().get(v.node as usize).filter(|_| (v.node as usize) < before);
        node.is_some_and(|node| (v.output as usize) < node.outputs.len())
    };
    for (i, node) in graph.nodes().iter().enumerate() {
        if !node.inputs.iter().all(|v| is_defined(v, i)) {
            return Err(Violation::Order { node: node.name.clone() });
        }
        let Some(op) = node.op() else { continue };
        let types: Vec<_> = node.inputs.iter().map(|&v| graph.ty(v).clone()).collect();
        if op.infer(&types).ok().as_ref() != Some(&node.outputs) {
            return Err(Violation::Types { node: node.name.clone(), op: op.name().into() });
        }
    }
    let n = graph.nodes().len();
    for (name, v) in graph.outputs() {
        if !is_defined(v, n) {
            return Err(Violation::Order { node: name.clone() });
        }
    }
    for (state, v) in graph.updates() {
        if !is_defined(state, n) || !is_defined(v, n) {
            return Err(Violation::Order { node: format!("an update of node {}", state.node) });
        }
    }
    Ok(())
}

/// Returns the first violation of a plan's invariants: every slot is bound, ranges are aligned and inside their
/// buffers, no launch reads and writes one buffer, and each value is still in the range where a launch reads it.
pub fn verify(plan: &Plan, trace: &Trace) -> Result<(), Violation> {
    let mut memory = Contents::default();
    for (range, content) in plan.inputs.iter().map(|p| p.range).zip(&trace.inputs) {
        memory.write(&range, range.offset, range.bytes, *content);
    }
    for (content, range) in &trace.states {
        memory.write(range, range.offset, range.bytes, *content);
    }
    for (launch, dispatch) in plan.dispatches.iter().enumerate() {
        let traffic = trace.launches.get(launch).map_or(&[][..], Vec::as_slice);
        verify_bindings(plan, trace, launch, dispatch)?;
        let bindings = dispatch.bindings.iter().zip(traffic);
        for (binding, traffic) in bindings.clone() {
            let mut offset = binding.range.offset;
            for held in &traffic.reads {
                let error = memory.read(&binding.range, offset, held.content, binding.access == Access::Uniform);
                error.map_err(|e| e.of(launch, &dispatch.node, binding.range))?;
                offset += held.bytes.next_multiple_of(ALIGN_BYTES);
            }
        }
        for (binding, traffic) in bindings {
            let mut offset = binding.range.offset;
            for held in &traffic.writes {
                let end = binding.range.offset + binding.range.bytes;
                if offset + held.bytes > end {
                    let (node, range) =
                        (dispatch.node.clone(), BufferRange { offset, bytes: held.bytes, ..binding.range });
                    return Err(Violation::OutOfBounds { launch, node, range, end });
                }
                memory.write(&binding.range, offset, held.bytes, held.content);
                offset += held.bytes.next_multiple_of(ALIGN_BYTES);
            }
        }
    }
    for (port, &content) in plan.outputs.iter().zip(&trace.outputs) {
        // An output may be a state that the step updates: it reads the updated value.
        if !matches!(port.range.buffer, BufferRef::Store { .. }) {
            let error = memory.read(&port.range, port.range.offset, content, false);
            error.map_err(|e| e.of(plan.dispatches.len(), &port.name, port.range))?;
        }
    }
    Ok(())
}

/// Checks the bindings of one launch on their own.
fn verify_bindings(plan: &Plan, trace: &Trace, launch: usize, dispatch: &PlannedDispatch) -> Result<(), Violation> {
    let node = || dispatch.node.clone();
    let (wanted, got) = (declared(&dispatch.source), dispatch.bindings.len());
    if wanted != got {
        return Err(Violation::Unbound { launch, node: node(), kernel: dispatch.kernel.clone(), wanted, got });
    }
    for binding in &dispatch.bindings {
        let range = binding.range;
        if !range.offset.is_multiple_of(ALIGN_BYTES) {
            return Err(Violation::Misaligned { launch, node: node(), range });
        }
        let end = match range.buffer {
            BufferRef::Arena(i) => plan.arenas.get(i).copied().unwrap_or(0),
            BufferRef::Store { store, chunk } => {
                trace.stores.get(store).and_then(|s| s.get(chunk)).copied().unwrap_or(0)
            }
            // The caller's buffers are as large as their ports; extents are the session's.
            BufferRef::External(_) | BufferRef::Extents => u64::MAX,
        };
        if range.offset.saturating_add(range.bytes) > end {
            return Err(Violation::OutOfBounds { launch, node: node(), range, end });
        }
    }
    let (writes, reads): (Vec<_>, Vec<_>) = dispatch.bindings.iter().partition(|b| b.access == Access::ReadWrite);
    for read in reads {
        if let Some(write) = writes.iter().find(|w| w.range.buffer == read.range.buffer) {
            let (read, written) = (read.range, write.range);
            return Err(Violation::ReadAndWritten { launch, node: node(), read, written });
        }
    }
    Ok(())
}

/// Returns the bindings that WGSL declares after the step record, binding 0.
fn declared(source: &str) -> usize {
    let numbers = source.split("@binding(").skip(1).filter_map(|rest| rest.split(')').next()?.trim().parse().ok());
    numbers.collect::<HashSet<usize>>().len().saturating_sub(1)
}

/// The contents of memory: for each buffer, by first byte, the end and the content.
#[derive(Default)]
struct Contents {
    buffers: HashMap<BufferRef, BTreeMap<u64, (u64, Content)>>,
    written: HashSet<Content>,
}

enum Lost {
    Undefined,
    Overwritten,
}

impl Lost {
    fn of(self, launch: usize, node: &str, range: BufferRange) -> Violation {
        let node = node.to_owned();
        match self {
            Lost::Undefined => Violation::Undefined { launch, node, range },
            Lost::Overwritten => Violation::Overwritten { launch, node, range },
        }
    }
}

impl Contents {
    fn write(&mut self, range: &BufferRange, from: u64, bytes: u64, content: Content) {
        let buffer = self.buffers.entry(range.buffer).or_default();
        let to = from + bytes;
        let lost: Vec<u64> =
            buffer.range(..to).rev().take_while(|(_, (end, _))| *end > from).map(|(&at, _)| at).collect();
        for at in lost {
            buffer.remove(&at);
        }
        buffer.insert(from, (to, content));
        self.written.insert(content);
    }

    /// Checks that a value starts at a byte of a buffer, or, for a part of it, contains that byte.
    fn read(&self, range: &BufferRange, from: u64, content: Content, part: bool) -> Result<(), Lost> {
        let found = self.buffers.get(&range.buffer).and_then(|buffer| buffer.range(..=from).next_back());
        let holds =
            |(&at, &(end, held)): (&u64, &(u64, Content))| held == content && (at == from || (part && from < end));
        match found.is_some_and(holds) {
            true => Ok(()),
            false if self.written.contains(&content) => Err(Lost::Overwritten),
            false => Err(Lost::Undefined),
        }
    }
}
