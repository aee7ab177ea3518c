use super::{Candidate, DeviceProfile, Epilogue, Graph, Patch, Program, RewriteCx, Value};
use crate::tensor::{Accuracy, Array, Count, DType, Philox, Shape};
use std::{any::Any, fmt, sync::Arc};

/// The shape and element type of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Extents, with a symbolic batch in front where there is one.
    pub shape: Shape,
    /// Type of the elements.
    pub dtype: DType,
}

impl TensorType {
    /// Returns the type of a tensor of 32-bit floats.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        TensorType { shape: shape.into(), dtype: DType::F32 }
    }

    /// Returns the type of a tensor of these elements.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        TensorType { shape: shape.into(), dtype }
    }

    /// Returns the bytes that a batch of `n` takes, rounded up to whole words; `u64::MAX` where they cannot be counted.
    pub fn bytes(&self, n: usize) -> u64 {
        let bytes = self.shape.elements().at(n).saturating_mul(self.dtype.bytes() as u64);
        bytes.checked_next_multiple_of(4).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// An operation cannot be built on these inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{op}{}: wanted {wanted}, got {got}; {advice}", if .node.is_empty() { String::new() } else { format!(" `{}`", .node) })]
pub struct OpError {
    /// The operation's name.
    pub op: String,
    /// The node's name.
    pub node: String,
    /// What the operation needs.
    pub wanted: String,
    /// What it was given.
    pub got: String,
    /// What to do.
    pub advice: String,
}

impl OpError {
    /// Returns an error of an operation whose node is not known yet; the graph fills it in.
    pub fn new(op: &str, wanted: impl Into<String>, got: impl fmt::Display, advice: impl Into<String>) -> Self {
        OpError {
            op: op.into(),
            node: String::new(),
            wanted: wanted.into(),
            got: got.to_string(),
            advice: advice.into(),
        }
    }

    /// Returns the error of a gradient operation that has no gradient of its own.
    pub fn first_order(op: &str) -> Self {
        OpError::new(op, "a gradient of first order", "one of second order", "differentiate only once through it")
    }
}

/// The types of a node's inputs and outputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Io {
    /// In operand order.
    pub inputs: Vec<TensorType>,
    /// In result order.
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

/// What an operation costs at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Floating-point operations, two for a multiply and add.
    pub flops: Count,
    /// Bytes read and written when each value crosses memory once.
    pub bytes: Count,
}

/// What changes from step to step, as an operation sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Samples in this batch.
    pub n: usize,
    /// The number of the step, from 0.
    pub step: u32,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Numbers that the host sets anew for each step (learning rate and the like).
    pub scalars: [f32; Step::N_SCALARS],
}

impl Step {
    /// How many host numbers a step carries.
    pub const N_SCALARS: usize = 16;

    /// Returns step 0 of seed 0 for a batch of `n`.
    pub fn of(n: usize) -> Self {
        Step { n, step: 0, seed: 0, scalars: [0.0; Self::N_SCALARS] }
    }

    /// Returns the record as kernels read it: `n`, `step`, the seed's halves, `1/n`, 0, padding, the scalars.
    pub fn words(&self) -> [u32; 24] {
        let mut words = [0; 24];
        words[0] = self.n as u32;
        words[1] = self.step;
        words[2] = self.seed as u32;
        words[3] = (self.seed >> 32) as u32;
        words[4] = (1.0 / self.n.max(1) as f32).to_bits();
        for (word, scalar) in words[8..].iter_mut().zip(self.scalars) {
            *word = scalar.to_bits();
        }
        words
    }
}

/// One operation with its attributes: everything that the crate knows about it is stated here once.
///
/// An operation from outside the crate implements the same trait.
pub trait Op: Any + fmt::Debug + Send + Sync {
    /// Returns the operation's name in snake case; its file, shader, tests and benches carry it too.
    fn name(&self) -> &'static str;

    /// Returns the attributes as text: equal keys mean equal operations.
    fn key(&self) -> String {
        String::new()
    }

    /// Returns the types of the results, or an error that says what was wanted and got.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError>;

    /// Returns the results in 64-bit floats: the definition of the operation.
    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array>;

    /// Returns the gradient to each input as graph nodes, `None` where there is none.
    ///
    /// `dy` holds the gradient to each output; at least one is there. By default an error: gradients of first order end
    /// here.
    fn vjp(
        &self,
        _g: &mut Graph,
        _inputs: &[Value],
        _outputs: &[Value],
        _dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        Err(OpError::first_order(self.name()))
    }

    /// Returns ways to run the operation, the one that needs no timing first.
    ///
    /// `epilogue` is applied to output 0 on store; only operations whose [`Op::epilogue`] is true get one.
    /// An operation that is a [`Op::view`] has none.
    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate>;

    /// Returns the arithmetic and the least memory traffic.
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

    /// Returns the elementwise program that this operation is, if it is one.
    fn pointwise(&self) -> Option<&Program> {
        None
    }

    /// Returns whether an elementwise program can be applied to output 0 as it is stored.
    fn epilogue(&self) -> bool {
        false
    }

    /// Returns whether output 0 is input 0 under another shape.
    fn view(&self) -> bool {
        false
    }

    /// Returns a change of the graph around the operation's node that computes the same values with less work or memory,
    /// if there is one.
    ///
    /// An operation may look for others by [`Op::downcast`]. A pass applies the patch where no other has replaced one of
    /// its values.
    fn rewrite(&self, _cx: &RewriteCx) -> Option<Patch> {
        None
    }

    /// Returns the multiply-accumulate operations of a matrix product or convolution, for summaries; by default none.
    fn macs(&self, _io: &Io) -> Count {
        Count::default()
    }

    /// Returns the two axes of an input along which its elements may be multiplied by zeros that stand for no element, in
    /// padding or between strides, if there are any: where the element is NaN or infinite, the result there is NaN, or it
    /// is what it would be without that product.
    fn meets_zeros(&self, _input: usize) -> Option<[usize; 2]> {
        None
    }

    /// Returns what part of input 0, a picture, one pixel of output 0 depends on.
    fn field(&self, _io: &Io) -> Field {
        Field::Point
    }

    /// Returns the outputs that overwrite an input in place, as (output, input).
    fn in_place(&self, _n_inputs: usize) -> Vec<(usize, usize)> {
        Vec::new()
    }
}

impl dyn Op {
    /// Returns the operation as a type of its own, if it is of that type.
    pub fn downcast<T: Op>(&self) -> Option<&T> {
        let op: &dyn Any = self;
        op.downcast_ref()
    }
}

/// What part of a picture one pixel of a result depends on, along height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The pixel in its place.
    Point,
    /// A window of `extent` pixels, which moves by `strides` from one pixel of the result to the next.
    Window {
        /// From the first pixel to the last.
        extent: [usize; 2],
        /// Steps.
        strides: [usize; 2],
    },
    /// A window of `extent` pixels, which moves on by one for `factor` pixels of the result.
    Spread {
        /// From the first pixel to the last.
        extent: [usize; 2],
        /// Pixels of the result for each step.
        factor: [usize; 2],
    },
    /// All of it.
    Whole,
}

/// How a sample's input is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Uniform in [low, high).
    Uniform(f64, f64),
    /// Magnitude uniform in [low, high) with a random sign: keeps away from a kink at zero.
    Away(f64, f64),
    /// All different, at least `1e-3` apart, in random order: no ties.
    Distinct,
    /// Whole numbers in 0..k.
    Index(usize),
    /// Rows of the last axis that are one-hot.
    OneHot,
    /// Uniform in one of these ranges, each as likely: keeps away from kinks between them, or hits ties.
    Ranges(&'static [(f64, f64)]),
}

impl Fill {
    /// Returns an array of this kind.
    pub fn array(self, shape: &[usize], rng: &mut Philox) -> Array {
        let len: usize = shape.iter().product();
        let data: Vec<f64> = match self {
            Fill::Uniform(low, high) => (0..len).map(|_| f64::from(rng.uniform(low, high) as f32)).collect(),
            Fill::Away(low, high) => (0..len)
                .map(|_| f64::from(rng.uniform(low, high) as f32) * if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 })
                .collect(),
            Fill::Distinct => {
                let order = rng.permutation(len);
                let gap = (2.0 / len.max(1) as f64).max(2e-3);
                order.iter().map(|&i| f64::from((f64::from(i) * gap - gap * len as f64 / 2.0) as f32)).collect()
            }
            Fill::Index(k) => (0..len).map(|_| rng.below(k) as f64).collect(),
            Fill::OneHot => {
                let last = shape.last().copied().unwrap_or(1).max(1);
                let mut data = vec![0.0; len];
                data.chunks_mut(last).for_each(|row| row[rng.below(last)] = 1.0);
                data
            }
            Fill::Ranges(ranges) => (0..len)
                .map(|_| {
                    let (low, high) = rng.pick(ranges);
                    f64::from(rng.uniform(low, high) as f32)
                })
                .collect(),
        };
        Array { shape: shape.to_vec(), data }
    }
}

/// An operation on random inputs: from it follow correctness tests, gradient checks and benches.
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
    /// Inputs that are not filled but computed, as output 0 of an operation on the inputs before them.
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
    /// What the change does.
    pub what: &'static str,
    /// Text that stands in the WGSL of at least one sample.
    pub from: &'static str,
    /// What it is replaced by.
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
    /// Changes that the tests must notice.
    pub faults: &'static [Fault],
    /// Whether the operation has a gradient.
    pub differentiable: bool,
    /// The relative error allowed in the 64-bit gradient check.
    pub gradcheck: f64,
}
