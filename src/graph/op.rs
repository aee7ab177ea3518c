//! The [`Op`] trait and what goes with it: samples, planted faults, local rewrites.

use super::types::{Fill, Gradients, OpError, Step, TensorType};
use super::{
    Candidate, ColumnParts, Declined, DeviceProfile, Dispatch, Epilogue, Graph, Node, Program, Slot, SumKind, Value,
};
use crate::tensor::{Accuracy, Array, Count, Philox};
use std::{any::Any, collections::HashMap, fmt, sync::Arc};

/// The types of a node's inputs and outputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Io {
    /// In operand order.
    pub inputs: Vec<TensorType>,
    /// In output order.
    pub outputs: Vec<TensorType>,
}

impl Io {
    /// Returns the bytes of all inputs and outputs together.
    pub fn bytes(&self) -> Count {
        self.inputs.iter().chain(&self.outputs).fold(Count::default(), |sum, t| {
            let b = t.shape.elements().times(t.dtype.bytes() as u64);
            Count { fixed: sum.fixed + b.fixed, per_sample: sum.per_sample + b.per_sample }
        })
    }
}

/// The minimum cost of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Floating-point operations, two for a multiply and add.
    pub flops: Count,
    /// Bytes read and written if each value crosses memory once.
    pub bytes: Count,
}

/// Where an operation is from; every type has it.
pub trait Origin {
    /// Returns whether the operation is the crate's own, whose kernels are tested to need no checks as they run.
    fn is_own(&self) -> bool;
}

impl<T> Origin for T {
    fn is_own(&self) -> bool {
        std::any::type_name::<T>().starts_with("hubel::ops::")
    }
}

/// An operation with its attributes. Everything that the crate knows about it is stated here once.
///
/// An operation from outside the crate implements the same trait.
pub trait Op: Origin + Any + fmt::Debug + Send + Sync {
    /// Returns the operation's name in snake case, also that of its file, shader, tests and benches.
    fn name(&self) -> &'static str;

    /// Returns the attributes as text: equal keys mean equal operations.
    fn key(&self) -> String {
        String::new()
    }

    /// Returns the types of the outputs, or an error that says what was wanted and got.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError>;

    /// Returns the outputs in 64-bit floats: the definition of the operation.
    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array>;

    /// Returns the gradient to each input as graph nodes, `None` if there is none.
    ///
    /// `dy` holds the gradient to each output, at least one of them. By default an error: the operation is a gradient,
    /// which has no second order.
    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Err(OpError::first_order(self.name()))
    }

    /// Returns the candidates to run the operation; the first is taken.
    ///
    /// `epilogue` is applied to output 0 on store; only operations whose [`Op::epilogue`] is true get one.
    /// An operation that is a [`Op::view`] has none.
    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate>;

    /// Returns the ways to run the operation that [`Op::lower`] does not offer on these operands, and why. Only people ask.
    fn declines(&self, _io: &Io, _profile: &DeviceProfile) -> Vec<Declined> {
        Vec::new()
    }

    /// Returns the arithmetic and the minimum memory traffic.
    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs.first().map(|t| t.shape.elements()).unwrap_or_default(), bytes: io.bytes() }
    }

    /// Returns how exact a kernel is, for each output, at a batch of `n`.
    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy>;

    /// Returns the largest error allowed for each element of each output.
    ///
    /// By default [`Op::accuracy`] with the reference on the operands' magnitudes.
    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let absolute: Vec<Array> = inputs.iter().map(|a| a.map(f64::abs)).collect();
        let magnitudes = self.reference(&absolute.iter().collect::<Vec<_>>(), step);
        (self.accuracy(io, step.n).iter().zip(exact).zip(&magnitudes))
            .map(|((a, e), m)| Array::from_fn(e.shape.clone(), |i| a.bound(&[], e.data[i], m.data[i])))
            .collect()
    }

    /// Returns the operation as an elementwise program, if it is one.
    fn pointwise(&self) -> Option<&Program> {
        None
    }

    /// Returns whether an elementwise program can be applied to output 0 as it is stored.
    fn epilogue(&self) -> bool {
        false
    }

    /// Returns whether some kernel can apply an elementwise program to an input as it is loaded, and loads its elements seldom enough.
    fn prologue(&self, _io: &Io, _input: usize) -> bool {
        false
    }

    /// Returns whether kernels that apply a program to an input as they load it can store what it makes of each element, too.
    fn keeps(&self, _io: &Io, _input: usize) -> bool {
        false
    }

    /// Returns the first of the columns of input 0 that output 0 consists of, neighbours in each row, if it is a copy of them.
    fn columns(&self, _io: &Io) -> Option<usize> {
        None
    }

    /// Returns the elements of an input that are read.
    fn read(&self, io: &Io, input: usize) -> Count {
        io.inputs[input].shape.elements()
    }

    /// Returns what computes the pixels of output 0, images, that are not 0 by definition, if only some are.
    fn pixels(&self, _io: &Io) -> Option<Pixels> {
        None
    }

    /// Returns whether output 0 is input 0 with another shape.
    fn view(&self) -> bool {
        false
    }

    /// Returns a change of the graph around the operation's node that computes the same values with less work or memory,
    /// if there is one.
    ///
    /// An operation may find others by `op.downcast::<T>()`. A pass applies the patch unless another has replaced one
    /// of its values.
    fn rewrite(&self, _cx: &RewriteCx) -> Option<Patch> {
        None
    }

    /// Appends smaller operations that compute the same, which fuse with their neighbours where kernels can be large, and returns
    /// their outputs; by default there are none.
    fn decompose(&self, _g: &mut Graph, _inputs: &[Value]) -> Option<Result<Vec<Value>, OpError>> {
        None
    }

    /// Returns the operation as column sums of one of its inputs, if it is that: the kernel that computes this input may then begin
    /// them.
    fn column_sums(&self) -> Option<&dyn ColumnSums> {
        None
    }

    /// Returns the multiply-accumulate operations of a matrix product or convolution, for summaries; by default none.
    fn macs(&self, _io: &Io) -> Count {
        Count::default()
    }

    /// Returns the two axes of an input along which its elements may meet zeros of padding or between strides, if any:
    /// for an element that is NaN or infinite, a kernel may either compute that product, which gives NaN, or skip it.
    fn meets_zeros(&self, _input: usize) -> Option<[usize; 2]> {
        None
    }

    /// Returns the receptive field in input 0, an image, of one pixel of output 0.
    fn field(&self, _io: &Io) -> Field {
        Field::Point
    }

    /// Returns the outputs that overwrite an input in place, as (output, input).
    fn in_place(&self, _n_inputs: usize) -> Vec<(usize, usize)> {
        Vec::new()
    }
}

impl dyn Op {
    /// Returns the operation as its concrete type, if it is of that type.
    pub fn downcast<T: Op>(&self) -> Option<&T> {
        let op: &dyn Any = self;
        op.downcast_ref()
    }
}

/// Images of which only some pixels are not 0.
#[derive(Debug, Clone)]
pub struct Pixels {
    /// The operation that computes these alone, of the same inputs.
    pub op: Arc<dyn Op>,
    /// How many pixels, along height and width, are from the first one, at 0, to the next.
    pub steps: [usize; 2],
}

/// The part of an image that one pixel of an output depends on, along height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The pixel at the same position.
    Point,
    /// A window of `extent` pixels, which moves by `strides` from one output pixel to the next.
    Window {
        /// From the first pixel to the last.
        extent: [usize; 2],
        /// Steps.
        strides: [usize; 2],
    },
    /// A window of `extent` pixels, which moves by one for every `factor` output pixels.
    Spread {
        /// From the first pixel to the last.
        extent: [usize; 2],
        /// Output pixels for each step.
        factor: [usize; 2],
    },
    /// All of it.
    Whole,
}

/// An operation on random inputs, for correctness tests, gradient checks and benches.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The operation with its attributes.
    pub op: Arc<dyn Op>,
    /// Type and filling of each input.
    pub inputs: Vec<(TensorType, Fill)>,
    /// The batch that the plan is built for.
    pub capacity: usize,
    /// The batch that runs.
    pub n: usize,
    /// Inputs that are computed, as output 0 of an operation on the inputs before them.
    pub derived: Vec<(usize, Arc<dyn Op>)>,
}

impl Sample {
    /// Returns a sample that runs at full capacity.
    pub fn new(op: impl Op + 'static, inputs: Vec<(TensorType, Fill)>, capacity: usize) -> Self {
        Sample { op: Arc::new(op), inputs, capacity, n: capacity, derived: Vec::new() }
    }

    /// Returns the sample with a smaller batch than its plan's.
    pub fn with_n(mut self, n: usize) -> Self {
        self.n = n;
        self
    }

    /// Returns the sample with input `i` computed by `op` from the inputs before it.
    pub fn derived(mut self, i: usize, op: impl Op + 'static) -> Self {
        self.derived.push((i, Arc::new(op)));
        self
    }

    /// Returns random inputs for the batch that runs.
    pub fn arrays(&self, rng: &mut Philox) -> Vec<Array> {
        let mut arrays: Vec<Array> =
            self.inputs.iter().map(|(ty, fill)| fill.array(&ty.shape.at(self.n), rng)).collect();
        for (i, op) in &self.derived {
            let before: Vec<&Array> = arrays[..*i].iter().collect();
            arrays[*i] = op.reference(&before, &Step::of(self.n)).swap_remove(0);
        }
        arrays
    }
}

/// An operation that adds up the columns of one of its inputs and does nothing else with it.
pub trait ColumnSums {
    /// Returns the index of this input.
    fn summed(&self) -> usize;

    /// Returns what is added up; indices are among the operation's inputs.
    fn kind(&self) -> SumKind;

    /// Returns the launch that makes the outputs of parts in scratch buffer 0: those of another kernel, or the operation's own.
    /// `slots` says what it binds for each slot of the operation.
    fn merge(
        &self,
        io: &Io,
        parts: Option<&ColumnParts>,
        profile: &DeviceProfile,
        slots: &dyn Fn(Slot) -> Slot,
    ) -> Dispatch;
}

/// A construction that must be refused.
#[derive(Clone, Copy)]
pub struct Bad {
    /// What is wrong with it.
    pub what: &'static str,
    /// Builds it; must return an error.
    pub build: fn(&mut Graph) -> Result<Value, OpError>,
}

/// A change to an operation's WGSL that its own tests must notice.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The change in words.
    pub what: &'static str,
    /// Text in the WGSL of at least one sample.
    pub from: &'static str,
    /// Its replacement.
    pub to: &'static str,
}

/// An operation family: one line in the list of all operations.
pub struct Family {
    /// The operation's name.
    pub name: &'static str,
    /// One sentence for the table of operations, with the source of the definition.
    pub about: &'static str,
    /// Returns a random sample.
    pub sample: fn(&mut Philox) -> Sample,
    /// Returns named samples for benches.
    pub benches: fn() -> Vec<(&'static str, Sample)>,
    /// Constructions that must be refused.
    pub bad: &'static [Bad],
    /// Faults derived from the kernels that no sample can notice, as (fault, why), named as the test
    /// `planted_faults_are_noticed` names them.
    pub equivalent: &'static [(&'static str, &'static str)],
    /// Whether the operation has a gradient.
    pub differentiable: bool,
    /// The relative error allowed in the 64-bit gradient check.
    pub gradcheck: f64,
}

/// The live nodes that read each value, in order, once for each operand; an output of the graph counts as
/// [`Readers::RESULT`].
#[derive(Debug, Clone, Default)]
pub struct Readers(HashMap<Value, Vec<usize>>);

impl Readers {
    /// The reader of a value that is an output of the graph.
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
    /// Returns the graph around the node with this index.
    pub fn new(graph: &'a Graph, readers: &'a Readers, node: usize) -> Self {
        RewriteCx { graph, readers, node, shards: None }
    }

    /// Returns the same with the matrix `whole` split by rows into these matrices.
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

    /// Returns an output of the node.
    pub fn output(&self, k: usize) -> Value {
        Value { node: self.node as u32, output: k as u32 }
    }

    /// Returns the node that computes an input, if nothing else reads that input.
    pub fn sole_producer(&self, input: usize) -> Option<&'a Node> {
        let v = *self.node().inputs.get(input)?;
        (self.readers.of_value(v) == [self.node]).then(|| self.graph.node(v))
    }

    /// Returns the node that reads an output, with its own output 0, if nothing else does.
    pub fn sole_reader(&self, output: usize) -> Option<(Value, &'a Node)> {
        match *self.readers.of_value(self.output(output)) {
            [i] if i != Readers::RESULT => Some((Value { node: i as u32, output: 0 }, &self.graph.nodes()[i])),
            _ => None,
        }
    }

    /// Returns the nodes that read a value, with output 0 of each.
    pub fn readers(&self, v: Value) -> impl Iterator<Item = (Value, &'a Node)> {
        let nodes = self.readers.of_value(v).iter().filter(|&&i| i != Readers::RESULT);
        nodes.map(|&i| (Value { node: i as u32, output: 0 }, &self.graph.nodes()[i]))
    }

    /// Returns the matrices, in order, that an input is split into by rows, if it is too large for one binding.
    pub fn shards(&self, input: usize) -> Option<&'a [Value]> {
        let v = self.node().inputs.get(input)?;
        self.shards.filter(|(whole, _)| whole == v).map(|(_, shards)| shards)
    }

    /// Returns the patch of one operation on values of the graph, whose outputs replace `replaced`, in order.
    ///
    /// `None` if the operation refuses its inputs.
    pub fn patch(&self, op: impl Op, inputs: &[Value], replaced: &[Value]) -> Option<Patch> {
        let mut patch = Patch::default();
        let inputs: Vec<Value> = inputs.iter().map(|&v| patch.tap(self.graph, v)).collect();
        let outputs = patch.graph.apply(op, &inputs).ok()?;
        replaced.iter().zip(outputs).for_each(|(&old, new)| patch.replace(old, new));
        Some(patch)
    }
}

/// A change of a graph around one node: new nodes, and the values that they replace.
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
    /// Returns the value of [`Patch::graph`] for the value `v` of the graph to change.
    pub fn tap(&mut self, graph: &Graph, v: Value) -> Value {
        let ty = graph.ty(v);
        let tap = self.graph.input("tap", ty.shape.clone(), ty.dtype);
        self.taps.insert(tap, v);
        tap
    }

    /// Replaces `old`, a value of the graph to change, by `new`, a value of [`Patch::graph`].
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
