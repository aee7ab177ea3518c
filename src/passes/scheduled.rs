//! A graph with the order of its nodes: what kernel selection, liveness and memory work on.

use super::{error::PlanError, options::PlanOptions};
use crate::graph::{Candidate, Dispatch, Graph, Kind, Node, Slot, Value};
use std::collections::HashMap;

/// The kernels chosen for each node, by its index; views and leaves have none.
pub(super) type Selected = HashMap<usize, Candidate>;

/// A graph with the order in which its nodes run.
pub(super) struct Scheduled<'a> {
    pub graph: Graph,
    pub options: &'a PlanOptions<'a>,
    /// Indices of the live nodes.
    pub order: Vec<usize>,
    /// For each value the one whose memory it shares, through views and overwriting nodes.
    pub roots: HashMap<Value, Value>,
}

impl Scheduled<'_> {
    pub fn node(&self, i: usize) -> &Node {
        &self.graph.nodes()[i]
    }

    pub fn root(&self, v: Value) -> Value {
        self.roots[&v]
    }

    /// Returns the bytes of a value at the plan's capacity.
    pub fn bytes(&self, v: Value) -> u64 {
        self.graph.ty(v).bytes(self.options.capacity)
    }

    /// Returns the bytes that a launch of node `i` reads and writes, of a value that several slots bind once.
    pub fn moved(&self, i: usize, candidate: &Candidate, dispatch: &Dispatch) -> u64 {
        let node = self.node(i);
        let io = self.graph.io(node);
        let all = |values: Vec<Value>| values.into_iter().map(|v| self.bytes(v)).sum::<u64>();
        let mut reads: HashMap<Value, u64> = HashMap::new();
        let mut others = 0;
        for slot in &dispatch.slots {
            others += match (slot, node.op()) {
                (Slot::In(inputs), Some(op)) => {
                    for input in inputs.clone() {
                        let bytes =
                            op.read(&io, input).at(self.options.capacity) * io.inputs[input].dtype.bytes() as u64;
                        let most = reads.entry(self.root(node.inputs[input])).or_default();
                        *most = bytes.max(*most);
                    }
                    0
                }
                (Slot::Scratch(k), _) => candidate.scratch_bytes[*k].at(self.options.capacity),
                (Slot::InOut { outputs, .. }, _) => {
                    all(self.slot_values(i, slot)) + all(self.slot_values(i, &Slot::Out(outputs.clone())))
                }
                _ => all(self.slot_values(i, slot)),
            };
        }
        others + reads.values().sum::<u64>()
    }

    /// Returns the values that a slot of node `i` binds, one after another.
    pub fn slot_values(&self, i: usize, slot: &Slot) -> Vec<Value> {
        let node = self.node(i);
        match slot {
            Slot::In(range) => node.inputs[range.clone()].to_vec(),
            Slot::InOut { inputs, .. } => node.inputs[inputs.clone()].to_vec(),
            Slot::Out(range) => range.clone().map(|k| Value { node: i as u32, output: k as u32 }).collect(),
            Slot::Uniform { input, .. } => vec![node.inputs[*input]],
            Slot::Scratch(_) | Slot::Extents => Vec::new(),
        }
    }

    /// Returns an error if a value is larger than a binding. It is called before any kernel is generated.
    pub fn check_sizes(&self) -> Result<(), PlanError> {
        for &i in &self.order {
            let node = self.node(i);
            let all = if matches!(node.kind, Kind::State { .. }) { &[][..] } else { &node.outputs };
            let largest = all.iter().map(|ty| ty.bytes(self.options.capacity)).max().unwrap_or(0);
            self.check_binding(&node.name, largest)?;
        }
        Ok(())
    }

    /// Returns an error if a tensor of `bytes` bytes is larger than a binding.
    pub fn check_binding(&self, tensor: &str, bytes: u64) -> Result<(), PlanError> {
        let (capacity, limit) = (self.options.capacity, self.options.profile.max_binding_bytes);
        match bytes <= limit {
            true => Ok(()),
            false => Err(PlanError::TooLarge { tensor: tensor.into(), capacity, bytes, limit }),
        }
    }
}
