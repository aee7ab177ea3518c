//! Local rewrites: what an operation sees of the graph around its node, and the change that it offers.

use super::{Graph, Node, Op, Value};
use std::collections::HashMap;

/// The live nodes that read each value, in order, once for each operand; a result of the graph counts as
/// [`Readers::RESULT`].
#[derive(Debug, Clone, Default)]
pub struct Readers(HashMap<Value, Vec<usize>>);

impl Readers {
    /// The reader of a value that is a result of the graph.
    pub const RESULT: usize = usize::MAX;

    /// Returns the readers of a graph's values.
    pub fn of(graph: &Graph) -> Self {
        let live = graph.live();
        let nodes = graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]);
        let operands = nodes.flat_map(|(i, node)| node.inputs.iter().map(move |&v| (v, i)));
        let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
        for (v, i) in operands.chain(graph.outputs().iter().map(|(_, v)| (*v, Self::RESULT))) {
            readers.entry(v).or_default().push(i);
        }
        Readers(readers)
    }

    /// Returns the readers of a value.
    pub fn of_value(&self, v: Value) -> &[usize] {
        self.0.get(&v).map_or(&[], Vec::as_slice)
    }
}

/// The graph around the node of an operation, for [`Op::rewrite`].
#[derive(Debug, Clone, Copy)]
pub struct RewriteCx<'a> {
    graph: &'a Graph,
    readers: &'a Readers,
    node: usize,
    shards: Option<(Value, &'a [Value])>,
}

impl<'a> RewriteCx<'a> {
    /// Returns the surroundings of node number `node`.
    pub fn new(graph: &'a Graph, readers: &'a Readers, node: usize) -> Self {
        RewriteCx { graph, readers, node, shards: None }
    }

    /// Returns the same surroundings where the matrix `whole` exists only as these matrices of some of its rows each.
    pub fn with_shards(self, whole: Value, shards: &'a [Value]) -> Self {
        RewriteCx { shards: Some((whole, shards)), ..self }
    }

    /// Returns the graph.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// Returns the node to rewrite.
    pub fn node(&self) -> &'a Node {
        &self.graph.nodes()[self.node]
    }

    /// Returns a result of the node.
    pub fn output(&self, k: usize) -> Value {
        Value { node: self.node as u32, output: k as u32 }
    }

    /// Returns the node that computes an input, if nothing else reads that input.
    pub fn sole_producer(&self, input: usize) -> Option<&'a Node> {
        let v = *self.node().inputs.get(input)?;
        (self.readers.of_value(v) == [self.node]).then(|| self.graph.node(v))
    }

    /// Returns the nodes that read a value, with result 0 of each.
    pub fn readers(&self, v: Value) -> impl Iterator<Item = (Value, &'a Node)> {
        let nodes = self.readers.of_value(v).iter().filter(|&&i| i != Readers::RESULT);
        nodes.map(|&i| (Value { node: i as u32, output: 0 }, &self.graph.nodes()[i]))
    }

    /// Returns the matrices of some rows each, in order, that an input has to be read from, where it is too large for one
    /// binding.
    pub fn shards(&self, input: usize) -> Option<&'a [Value]> {
        let v = self.node().inputs.get(input)?;
        self.shards.filter(|(whole, _)| whole == v).map(|(_, shards)| shards)
    }

    /// Returns the patch of one operation on values of the graph, whose results take the place of `replaced`, in order.
    ///
    /// `None` where the operation refuses its inputs.
    pub fn patch(&self, op: impl Op, inputs: &[Value], replaced: &[Value]) -> Option<Patch> {
        let mut patch = Patch::default();
        let inputs: Vec<Value> = inputs.iter().map(|&v| patch.tap(self.graph, v)).collect();
        let outputs = patch.graph.apply(op, &inputs).ok()?;
        replaced.iter().zip(outputs).for_each(|(&old, new)| patch.replace(old, new));
        Some(patch)
    }
}

/// A change of a graph around one node: new nodes, and the values that they take the place of.
///
/// ```
/// use hubel::{graph::Patch, prelude::*};
/// let mut g = Graph::new();
/// let x = g.input("x", [Batch, 4], F32);
/// let y = g.scale(x, 1.0)?;
/// let mut patch = Patch::default();
/// let tap = patch.tap(&g, x);
/// patch.replace(y, tap);
/// assert_eq!(patch.replaced().len(), 1);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// The new nodes. Its inputs are the values that [`Patch::tap`] reads from the graph around it.
    pub graph: Graph,
    taps: HashMap<Value, Value>,
    replaced: Vec<(Value, Value)>,
}

impl Patch {
    /// Returns the value of [`Patch::graph`] that is the value `v` of the graph to change.
    pub fn tap(&mut self, graph: &Graph, v: Value) -> Value {
        let ty = graph.ty(v);
        let tap = self.graph.input("tap", ty.shape.clone(), ty.dtype);
        self.taps.insert(tap, v);
        tap
    }

    /// Puts `new`, a value of [`Patch::graph`], in the place of `old`, a value of the graph to change.
    pub fn replace(&mut self, old: Value, new: Value) {
        self.replaced.push((old, new));
    }

    /// Returns the taps, as (value of [`Patch::graph`], value of the graph to change).
    pub fn taps(&self) -> impl Iterator<Item = (Value, Value)> {
        self.taps.iter().map(|(&tap, &source)| (tap, source))
    }

    /// Returns whether the patch reads a value of the graph to change.
    pub fn reads(&self, v: Value) -> bool {
        self.taps.values().any(|&tapped| tapped == v)
    }

    /// Returns the values replaced, as (value of the graph to change, value of [`Patch::graph`]).
    pub fn replaced(&self) -> &[(Value, Value)] {
        &self.replaced
    }
}
