//! The graph: values, nodes, the [`Op`] trait, and kernels as plain data. No device is named here.
//!
//! Unstable but for [`Graph`]'s methods that build a network: values, nodes, the trait of operations.
//!
//! **In**: layers ([`crate::nn`]), the training step ([`crate::train`]) and applications call the methods that
//! operations add to [`Graph`], such as `conv2d` or `add`. Each is one [`Graph::apply`] of an [`Op`] to [`Value`]s.
//!
//! **Out**: a [`Graph`] of [`Node`]s with named outputs and the updates of its states. [`crate::passes`] rewrites
//! it and makes it a plan; [`evaluate`] computes it in 64-bit floats from each operation's [`Op::reference`].
//!
//! A node is an input, fed in each step; a state, which persists under its name (a weight, a moment, a data set); or an
//! operation. An operation lowers itself to [`Candidate`]s: [`Dispatch`]es of WGSL with [`Slot`]s for their bindings
//! and a [`Grid`] for their workgroups, chosen for a [`DeviceProfile`]. An elementwise operation is a [`Program`],
//! which fusion composes and which becomes the [`Epilogue`] of another operation's kernel.
//!
//! Invariants, which every method and pass keeps:
//! - a node comes after the nodes whose values it reads;
//! - a node's output types are what its operation infers from its input types;
//! - the batch is the outermost axis of a tensor or none: every size is a `Count`, fixed plus a part per sample;
//! - names of nodes are unique, since states are found by theirs;
//! - an operation that overwrites an input in place says so by [`Op::in_place`], and every other reader runs before it.
//!
//! Where to start: [`Graph::apply`] here, then the [`Op`] trait in `op.rs`, then one operation such as
//! `src/ops/reshape.rs`. `kernel.rs` has the data that describes kernels; `op.rs` also has rewrites, by which an
//! operation changes the graph around itself.

mod counts;
mod evaluate;
mod kernel;
mod op;
mod program;
mod types;
mod wgsl;

pub use counts::Counts;
pub use evaluate::{Evaluation, evaluate};
pub use kernel::{
    ALIGN_BYTES, BYTES_PER_CYCLE, CHUNK_INDEX, Candidate, ColumnParts, DISCRETE_MULTIPROCESSORS, Declined, DeviceClass,
    DeviceProfile, Dispatch, Epilogue, Grid, MAX_SOFTWARE_ITERATIONS, NOMINAL_BATCH, Prologue, Slot, SumKind,
    UNIFORM_BYTES,
};
pub use op::{Bad, ColumnSums, Cost, Family, Fault, Field, Io, Op, Origin, Patch, Pixels, Readers, RewriteCx, Sample};
pub use program::{Arg, Elementary, ElementaryGrad, Instr, Program, wgsl_f32};
pub use types::{Fill, Gradients, OpError, Step, TensorType};
pub use wgsl::Wgsl;

use crate::tensor::{DType, Philox, Shape};
use std::{collections::HashMap, fmt, sync::Arc};

/// One result of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// Index of the node.
    pub node: u32,
    /// Which of its outputs.
    pub output: u32,
}

/// Computes the initial value of a parameter.
pub trait Initialize: fmt::Debug + Send + Sync {
    /// Returns row-major values of a tensor of this shape.
    fn fill(&self, shape: &[usize], rng: &mut Philox) -> Vec<f32>;
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Fed in each step.
    Input,
    /// Kept from step to step under the node's name: a weight, a moment, a counter, a data set.
    State {
        /// Its initial value, if the graph knows it.
        initial: Option<Arc<dyn Initialize>>,
        /// Whether an optimiser may update it.
        trainable: bool,
    },
    /// Computed.
    Op(Arc<dyn Op>),
}

/// A step of the computation.
#[derive(Debug, Clone)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Operands.
    pub inputs: Vec<Value>,
    /// Types of the results.
    pub outputs: Vec<TensorType>,
}

impl Node {
    /// Returns the operation, if the node is one.
    pub fn op(&self) -> Option<&Arc<dyn Op>> {
        match &self.kind {
            Kind::Op(op) => Some(op),
            _ => None,
        }
    }
}

/// A computation of named nodes, in topological order.
///
/// ```
/// use hubel::prelude::*;
/// let mut g = Graph::new();
/// let x = g.input("x", [Batch, 4], DType::F32);
/// let y = g.relu(x)?;
/// assert_eq!(g.ty(y).to_string(), "f32(N, 4)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    outputs: Vec<(String, Value)>,
    updates: Vec<(Value, Value)>,
    scope: String,
    names: HashMap<String, usize>,
}

impl Graph {
    /// Returns an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input, which is fed in each step.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Value {
        self.leaf(name, Kind::Input, TensorType::new(shape, dtype))
    }

    /// Adds a trainable weight of 32-bit floats.
    pub fn parameter(&mut self, name: &str, shape: impl Into<Shape>, initial: impl Initialize + 'static) -> Value {
        let kind = Kind::State { initial: Some(Arc::new(initial)), trainable: true };
        self.leaf(name, kind, TensorType::f32(shape))
    }

    /// Adds a state, which is kept from step to step and not updated by an optimiser.
    pub fn state(&mut self, name: &str, ty: TensorType, initial: Option<Arc<dyn Initialize>>) -> Value {
        self.leaf(name, Kind::State { initial, trainable: false }, ty)
    }

    fn leaf(&mut self, name: &str, kind: Kind, ty: TensorType) -> Value {
        let name = self.unique(name.to_owned());
        self.nodes.push(Node { name, kind, inputs: Vec::new(), outputs: vec![ty] });
        Value { node: self.nodes.len() as u32 - 1, output: 0 }
    }

    /// Applies an operation and returns its outputs, or an error that names operation and node.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        self.apply_arc(Arc::new(op), inputs)
    }

    /// Applies a shared operation and returns its outputs, or an error that names operation and node.
    pub fn apply_arc(&mut self, op: Arc<dyn Op>, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let name = if self.scope.is_empty() { op.name().to_owned() } else { format!("{}/{}", self.scope, op.name()) };
        let types: Vec<TensorType> = inputs.iter().map(|&v| self.ty(v).clone()).collect();
        let outputs = op.infer(&types).map_err(|e| OpError { node: name.clone(), ..e })?;
        if let Some(large) = outputs.iter().find(|t| !t.shape.is_countable()) {
            let advice = "choose smaller extents";
            return Err(OpError {
                node: name, ..OpError::new(op.name(), "at most 2³² − 1 elements", large, advice)
            });
        }
        let name = self.unique(name);
        let n = outputs.len();
        self.nodes.push(Node { name, kind: Kind::Op(op), inputs: inputs.to_vec(), outputs });
        let node = self.nodes.len() as u32 - 1;
        Ok((0..n as u32).map(|output| Value { node, output }).collect())
    }

    /// Applies an operation and returns its first output.
    pub fn apply1(&mut self, op: impl Op + 'static, inputs: &[Value]) -> Result<Value, OpError> {
        Ok(self.apply(op, inputs)?[0])
    }

    fn unique(&mut self, name: String) -> String {
        let count = self.names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{}", *count - 1) }
    }

    /// Runs `build` with `name` as a prefix of the names of its nodes.
    pub fn scoped<T>(&mut self, name: &str, build: impl FnOnce(&mut Graph) -> T) -> T {
        let outer = std::mem::replace(&mut self.scope, name.to_owned());
        if !outer.is_empty() {
            self.scope = format!("{outer}/{name}");
        }
        let result = build(self);
        self.scope = outer;
        result
    }

    /// Marks a value as an output with a name.
    pub fn output(&mut self, name: &str, value: Value) {
        self.outputs.push((name.to_owned(), value));
    }

    /// Makes `state` hold `value` after a step, and nothing else that it was to hold; `value` must overwrite `state` in place.
    pub fn update(&mut self, state: Value, value: Value) {
        self.updates.retain(|(other, _)| *other != state);
        self.updates.push((state, value));
    }

    /// Returns the named outputs.
    pub fn outputs(&self) -> &[(String, Value)] {
        &self.outputs
    }

    /// Replaces the named outputs.
    pub fn set_outputs(&mut self, outputs: Vec<(String, Value)>) {
        self.outputs = outputs;
    }

    /// Returns the states that a step changes, with their new values.
    pub fn updates(&self) -> &[(Value, Value)] {
        &self.updates
    }

    /// Replaces the updates.
    pub fn set_updates(&mut self, updates: Vec<(Value, Value)>) {
        self.updates = updates;
    }

    /// Returns all nodes in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the node that computes a value.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.node as usize]
    }

    /// Returns the type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.node(value).outputs[value.output as usize]
    }

    /// Returns the shape of a value.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.ty(value).shape
    }

    /// Returns the types around a node.
    pub fn io(&self, node: &Node) -> Io {
        Io { inputs: node.inputs.iter().map(|&v| self.ty(v).clone()).collect(), outputs: node.outputs.clone() }
    }

    /// Returns the input or state of this name.
    pub fn find(&self, name: &str) -> Option<Value> {
        let node = self.nodes.iter().position(|n| n.name == name)?;
        Some(Value { node: node as u32, output: 0 })
    }

    /// Returns for each node whether outputs or updates need it.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for value in self.outputs.iter().map(|o| o.1).chain(self.updates.iter().map(|u| u.1)) {
            live[value.node as usize] = true;
        }
        for i in (0..self.nodes.len()).rev() {
            if live[i] {
                for input in &self.nodes[i].inputs {
                    live[input.node as usize] = true;
                }
            }
        }
        live
    }

    /// Returns a copy of the graph, made node by node.
    ///
    /// `rewrite` gets each live node with its operands already mapped, and returns the values that replace its outputs;
    /// [`Graph::push_node`] copies a node unchanged.
    pub fn rebuild(&self, mut rewrite: impl FnMut(&mut Graph, usize, Node) -> Vec<Value>) -> Graph {
        let mut out = Graph::new();
        let mut map: Vec<Vec<Value>> = vec![Vec::new(); self.nodes.len()];
        let live = self.live();
        let to = |map: &[Vec<Value>], v: Value| map[v.node as usize][v.output as usize];
        for (i, node) in self.nodes.iter().enumerate() {
            if live[i] {
                let mut node = node.clone();
                node.inputs = node.inputs.iter().map(|&v| to(&map, v)).collect();
                map[i] = rewrite(&mut out, i, node);
            }
        }
        out.outputs = self.outputs.iter().map(|(n, v)| (n.clone(), to(&map, *v))).collect();
        let kept = self.updates.iter().map(|&(s, v)| (to(&map, s), to(&map, v))).collect();
        out.updates = kept;
        out
    }

    /// Appends a node under its own name and returns its outputs.
    pub fn push_node(&mut self, node: Node) -> Vec<Value> {
        let n = node.outputs.len() as u32;
        let index = self.nodes.len() as u32;
        self.names.entry(node.name.clone()).or_insert(1);
        self.nodes.push(node);
        (0..n).map(|output| Value { node: index, output }).collect()
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |v: Value| match v.output {
            0 => self.node(v).name.clone(),
            k => format!("{}.{k}", self.node(v).name),
        };
        for node in &self.nodes {
            let types: Vec<String> = node.outputs.iter().map(ToString::to_string).collect();
            let inputs: Vec<String> = node.inputs.iter().map(|&v| name(v)).collect();
            match &node.kind {
                Kind::Input => writeln!(f, "{}: {} = input", node.name, types[0])?,
                Kind::State { .. } => writeln!(f, "{}: {} = state", node.name, types[0])?,
                Kind::Op(op) => {
                    let key = op.key();
                    let key = if key.is_empty() { key } else { format!("[{key}]") };
                    writeln!(f, "{}: {} = {}{key}({})", node.name, types.join(", "), op.name(), inputs.join(", "))?;
                }
            }
        }
        for (label, value) in &self.outputs {
            writeln!(f, "output {label} = {}", name(*value))?;
        }
        for (state, value) in &self.updates {
            writeln!(f, "update {} = {}", name(*state), name(*value))?;
        }
        Ok(())
    }
}
