//! Sums, also of squares, means, products and maxima over any axes.
//!
//! `y[o] = f(x[kept(o) + reduced(r)] for r in 0..terms)`: neighbouring axes of one kind are merged, so that both
//! index functions have few divisions. Many terms for few results are cut into chunks whose results go to
//! scratch and are combined in order by a second launch. The order of a sum depends on shape, batch and device
//! class alone.

use super::arity::arity;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceClass, DeviceProfile, Dispatch, Epilogue, Family, Field, Fill, Gradients, Graph,
        Grid, Io, Node, Op, OpError, RewriteCx, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{Core, Expr, Finish, Kernel, Layout, Schedule, Stored, Type, count, gemm, loop_end},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape, UNIT, maximum, strides},
};

/// How elements are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceKind {
    /// Their sum.
    Sum,
    /// Their sum divided by their number.
    Mean,
    /// The largest of them, NaN where one is.
    Max,
    /// The sum of their squares.
    SumSquares,
    /// Their product.
    Product,
}

/// Reduction over axes (ONNX ReduceSum, ReduceSumSquare, ReduceMean, ReduceProd, ReduceMax).
#[derive(Debug, Clone, PartialEq)]
pub struct Reduce {
    /// How elements are combined.
    pub kind: ReduceKind,
    /// The axes that go, in ascending order.
    pub axes: Vec<usize>,
    /// Whether they stay with extent 1.
    pub keep_dims: bool,
}

/// Neighbouring axes that are all kept or all reduced.
#[derive(Debug, Clone, Copy)]
struct Run {
    extent: usize,
    stride: usize,
    reduced: bool,
}

impl Reduce {
    fn result(&self, shape: &Shape) -> Shape {
        let reduced = |i: &usize| self.axes.contains(i);
        let dims: Vec<usize> = (0..shape.rank())
            .filter(|i| self.keep_dims || !reduced(i))
            .map(|i| if reduced(&i) { 1 } else { shape.dims()[i] })
            .collect();
        match (shape.is_batched() && !reduced(&0), &dims[..]) {
            (true, [rows, rest @ ..]) => Shape::batched(*rows, rest),
            _ => Shape::fixed(dims),
        }
    }

    /// Returns how many elements each result is made of.
    pub(super) fn terms(&self, shape: &Shape) -> Count {
        let product = self.axes.iter().map(|&a| shape.dims()[a] as u64).product();
        if shape.is_batched() && self.axes.contains(&0) {
            Count { fixed: 0, per_sample: product }
        } else {
            Count { fixed: product, per_sample: 0 }
        }
    }

    /// The batch is always in the first run: it is outermost.
    fn runs(&self, shape: &Shape) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (i, (&extent, stride)) in shape.dims().iter().zip(strides(shape.dims())).enumerate() {
            let reduced = self.axes.contains(&i);
            match runs.last_mut() {
                _ if extent == 1 && !(i == 0 && shape.is_batched()) => {}
                Some(run) if run.reduced == reduced => *run = Run { extent: run.extent * extent, stride, reduced },
                _ => runs.push(Run { extent, stride, reduced }),
            }
        }
        runs
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "reduce_sum",
            ReduceKind::Mean => "reduce_mean",
            ReduceKind::Max => "reduce_max",
            ReduceKind::SumSquares => "reduce_sum_squares",
            ReduceKind::Product => "reduce_prod",
        }
    }

    fn key(&self) -> String {
        format!("axes={:?}{}", self.axes, if self.keep_dims { " keep_dims" } else { "" })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity(self.name(), inputs, "pass the tensor to reduce")?;
        if x.dtype != DType::F32 {
            return Err(OpError::new(self.name(), "f32", x, "cast or gather the tensor to f32 first"));
        }
        if self.axes.windows(2).any(|w| w[0] >= w[1]) || self.axes.last().is_some_and(|&a| a >= x.shape.rank()) {
            let wanted = format!("different axes in ascending order, each below {}", x.shape.rank());
            return Err(OpError::new(self.name(), wanted, format!("{:?}", self.axes), "name axes that the tensor has"));
        }
        if x.shape.dims().contains(&0) {
            return Err(OpError::new(self.name(), "extents above 0", &x.shape, "reduce a tensor that has elements"));
        }
        Ok(vec![TensorType::f32(self.result(&x.shape))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let shape: Vec<usize> =
            x.shape.iter().enumerate().map(|(i, &d)| if self.axes.contains(&i) { 1 } else { d }).collect();
        let (from, to) = (strides(&x.shape), strides(&shape));
        let first = match self.kind {
            ReduceKind::Max => f64::NEG_INFINITY,
            ReduceKind::Product => 1.0,
            _ => 0.0,
        };
        let mut y = Array::full(shape, first);
        for (i, &v) in x.data.iter().enumerate() {
            let at: usize =
                (0..from.len()).filter(|k| !self.axes.contains(k)).map(|k| i / from[k] % x.shape[k] * to[k]).sum();
            y.data[at] = match self.kind {
                ReduceKind::Max => maximum(y.data[at], v),
                ReduceKind::SumSquares => y.data[at] + v * v,
                ReduceKind::Product => y.data[at] * v,
                _ => y.data[at] + v,
            };
        }
        if self.kind == ReduceKind::Mean {
            let terms: usize = self.axes.iter().map(|&a| x.shape[a]).product();
            y = y.map(|sum| sum / terms as f64);
        }
        if !self.keep_dims {
            y.shape = (0..x.shape.len()).filter(|i| !self.axes.contains(i)).map(|i| x.shape[i]).collect();
        }
        vec![y]
    }

    /// Equal maxima share their gradient equally.
    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(dy) = dy[0] else { return Ok(vec![None]) };
        let shape = g.shape(inputs[0]).clone();
        let kept = Reduce { keep_dims: true, ..self.clone() }.result(&shape);
        let mut dy = g.reshape(dy, kept.clone())?;
        match self.kind {
            ReduceKind::Sum => {}
            ReduceKind::SumSquares => {
                let twice = g.scale(inputs[0], 2.0)?;
                return Ok(vec![Some(g.mul(twice, dy)?)]);
            }
            ReduceKind::Product => {
                // Each element has the product of all others: beside one zero, that is 0 for all but the zero.
                let (zero, one) = (g.constant(0.0)?, g.constant(1.0)?);
                let mask = g.binary("equal", inputs[0], zero)?;
                let others = g.where_(mask, one, inputs[0])?;
                let product = g.prod(others, &self.axes, true)?;
                let (zeros, two) = (g.sum(mask, &self.axes, true)?, g.constant(2.0)?);
                let (none, few) = (g.binary("less", zeros, one)?, g.binary("less", zeros, two)?);
                let share = g.div(none, others)?;
                let share = g.where_(mask, few, share)?;
                let dy = g.mul(dy, product)?;
                return Ok(vec![Some(g.mul(share, dy)?)]);
            }
            ReduceKind::Mean => {
                let terms = self.terms(&shape);
                dy = g.scale(dy, (1.0 / (terms.fixed + terms.per_sample) as f64) as f32)?;
                if terms.per_sample > 0 {
                    let inv = g.inv_batch()?;
                    dy = g.mul(dy, inv)?;
                }
            }
            ReduceKind::Max => {
                let y = g.reshape(outputs[0], kept)?;
                let mask = g.binary("equal", inputs[0], y)?;
                let ties = g.sum(mask, &self.axes, true)?;
                let share = g.div(dy, ties)?;
                return Ok(vec![Some(g.mul(mask, share)?)]);
            }
        }
        Ok(vec![Some(g.expand(dy, &shape)?)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let shape = &io.inputs[0].shape;
        let mut runs = self.runs(shape);
        let (outputs, terms) = (io.outputs[0].shape.elements(), self.terms(shape));
        let inner_kept = runs.last().is_some_and(|r| !r.reduced);
        let width = if inner_kept && runs.iter().all(|r| r.stride == 1 && r.extent % 4 == 0 || r.stride % 4 == 0) {
            for run in &mut runs {
                (run.extent, run.stride) =
                    if run.stride == 1 { (run.extent / 4, 1) } else { (run.extent, run.stride / 4) };
            }
            4
        } else {
            1
        };
        let outputs = Count { fixed: outputs.fixed / width, per_sample: outputs.per_sample / width };
        let loops = match profile.class {
            DeviceClass::Cpu => {
                // A batch of 32 stands for any in the choice of chunks.
                let (lanes, n_terms) = (outputs.at(32).max(1), terms.at(32));
                let long = terms.at(gemm::LONG_BATCH).div_ceil(profile.max_iterations);
                let chunks = (128 / lanes).min(n_terms / 128).max(long).max(1);
                vec![Loop { chunks, invocations: 16, sharers: 1 }]
            }
            DeviceClass::Gpu => gpu_loops(outputs, terms, inner_kept, profile),
        };
        let problem = Problem { kind: self.kind, width: width as usize, outputs, terms };
        let last = loops[loops.len() - 1];
        (loops.into_iter())
            .map(|l| {
                let core = if l.sharers > 1 { Core::Group } else { Core::Lane };
                let variant = Schedule { split: l.chunks as usize, ..Schedule::of_width(core, width as usize) };
                if l.chunks == 1 {
                    return Candidate::single(
                        variant,
                        problem.dispatch(Slot::input(0), &runs, terms, l, Some(epilogue)),
                    );
                }
                let partial = problem.dispatch(Slot::input(0), &runs, terms, l, None);
                // Partial results lie as (outputs, chunks), so that only the outermost axis grows with the batch.
                let chunks = l.chunks as usize;
                let merge = [
                    Run { extent: 1, stride: chunks, reduced: false },
                    Run { extent: chunks, stride: 1, reduced: true },
                ];
                let merge_terms = Count { fixed: l.chunks, per_sample: 0 };
                let sharers = if l.sharers > 1 && l.chunks >= 16 { 8 } else { 1 };
                let once = Loop { chunks: 1, sharers, ..last };
                let merged = problem.dispatch(Slot::Scratch(0), &merge, merge_terms, once, Some(epilogue));
                Candidate::new(variant, vec![partial, merged], vec![outputs.times(4 * width * l.chunks)])
            })
            .collect()
    }

    fn field(&self, io: &Io) -> Field {
        let image = io.inputs[0].shape.rank() == 4 && self.axes.iter().any(|a| [1, 2].contains(a));
        if image { Field::Whole } else { Field::Point }
    }

    fn cost(&self, io: &Io) -> Cost {
        let (x, y) = (io.inputs[0].shape.elements(), io.outputs[0].shape.elements());
        let bytes = Count { fixed: 4 * (x.fixed + y.fixed), per_sample: 4 * (x.per_sample + y.per_sample) };
        Cost { flops: x, bytes }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        vec![match self.kind {
            ReduceKind::Max => Accuracy::Exact,
            ReduceKind::Product => Accuracy::Relative(self.terms(&io.inputs[0].shape).at(n) as f64 * UNIT),
            _ => Accuracy::Products { terms: self.terms(&io.inputs[0].shape).at(n) },
        }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

/// Returns the sum of a node's input over all axes but the last, if the graph has it.
pub(super) fn column_sums_of(cx: &RewriteCx, input: usize) -> Option<Value> {
    let x = cx.node().inputs[input];
    let rank = cx.graph().shape(x).rank();
    let is_sum = |node: &Node| {
        node.op().and_then(|op| op.downcast::<Reduce>()).is_some_and(|reduce| {
            let all_but_last = rank >= 2 && reduce.axes.iter().copied().eq(0..rank - 1);
            reduce.kind == ReduceKind::Sum && !reduce.keep_dims && all_but_last
        })
    };
    cx.readers(x).find(|(_, node)| is_sum(node)).map(|(sum, _)| sum)
}

/// How the terms of a result are spread over invocations.
#[derive(Debug, Clone, Copy)]
struct Loop {
    /// Parts that the terms are cut into.
    chunks: u64,
    /// Size of a workgroup.
    invocations: u32,
    /// Invocations, a power of 2, that share a part.
    sharers: u32,
}

/// Returns the ways for a GPU, the best first: lanes that share a result and, where that leaves long loops, chunks.
fn gpu_loops(outputs: Count, terms: Count, inner_kept: bool, profile: &DeviceProfile) -> Vec<Loop> {
    let (n_outputs, n_terms) = (outputs.at(profile.batch).max(1), terms.at(profile.batch));
    let serial = Loop { chunks: (8192 / n_outputs).min(n_terms / 32).clamp(1, 256), invocations: 64, sharers: 1 };
    // Neighbouring results are read by neighbouring lanes.
    let sharers = if inner_kept { 32 } else { 256 };
    if n_terms < 64 {
        return vec![serial];
    }
    let groups = n_outputs.div_ceil(u64::from(256 / sharers));
    let room = (2 * u64::from(profile.multiprocessors) / groups).max(1);
    let iterations = n_terms / u64::from(sharers);
    let chunks = if iterations > 32 { iterations.div_ceil(16).min(room) } else { 1 };
    vec![Loop { chunks, invocations: 256, sharers }, serial]
}

/// What is the same for both launches of a reduction; counts are in units of `width` elements.
struct Problem {
    kind: ReduceKind,
    width: usize,
    outputs: Count,
    terms: Count,
}

impl Problem {
    fn ty(&self) -> Type {
        Type::F32.vector(self.width)
    }

    /// Returns what is combined with the first term.
    fn first(&self) -> Expr {
        match self.kind {
            ReduceKind::Max => {
                let lowest = Type::I32.vector(self.width).splat(Expr::name("LOWEST", Type::I32));
                Expr::call("of_rank", self.ty(), [lowest])
            }
            ReduceKind::Product => self.ty().splat(1.0),
            _ => self.ty().splat(0.0),
        }
    }

    fn combine(&self, a: &Expr, b: &Expr) -> Expr {
        match self.kind {
            ReduceKind::Max => Expr::call("larger", self.ty(), [a.clone(), b.clone()]),
            ReduceKind::Product => a * b,
            _ => a + b,
        }
    }

    /// Returns a result of what is combined.
    fn result(&self, combined: &Expr) -> Expr {
        let share = |terms: u64| Expr::from((1.0 / terms as f64) as f32);
        match (self.kind, self.terms) {
            (ReduceKind::Mean, Count { fixed, per_sample: 0 }) => combined * share(fixed),
            (ReduceKind::Mean, Count { per_sample, .. }) => {
                combined * (Expr::name("step.inv_n", Type::F32) * share(per_sample))
            }
            _ => combined.clone(),
        }
    }

    /// Returns the launch that reduces what `from` binds.
    ///
    /// With `finish` the results go to output 0, scaled and through the epilogue; else to scratch.
    fn dispatch(&self, from: Slot, runs: &[Run], terms: Count, l: Loop, finish: Option<Option<&Epilogue>>) -> Dispatch {
        let (Loop { chunks, invocations, sharers }, width) = (l, self.width);
        let span = invocations / sharers;
        // What lies in scratch is squared already.
        let squares = self.kind == ReduceKind::SumSquares && from == Slot::input(0);
        let mut k = Kernel::new("reduce", invocations as usize);
        let layout = Layout::Vectors { width, words: false };
        let x = k.bind("x", layout, from);
        let y = k.bind_result("y", layout, if finish.is_some() { Slot::output(0) } else { Slot::Scratch(0) });
        let epilogue = Finish::bind(&mut k, finish.flatten(), Stored { width, words: false, columns: 0 });
        let items = self.outputs.times(chunks);
        let grid = Grid::new(items, span);
        let (i, outside) = match (sharers, span) {
            (1, _) => (k.item(items), Expr::from(false)),
            (_, 1) => (k.group(items), Expr::from(false)),
            _ => {
                let own = k.let_("own", k.workgroup_index() * span + k.lane() % span);
                let outside = k.let_("outside", own.at_least(count(items)));
                (k.let_("i", own.min(count(items) - 1u32)), outside)
            }
        };
        let end = k.let_("terms", loop_end(count(terms)));
        let (o, s, first, last) = if chunks == 1 {
            (i, Expr::from(0u32), Expr::from(0u32), end)
        } else {
            let (o, s) = (k.let_("o", &i % count(self.outputs)), k.let_("s", &i / count(self.outputs)));
            let size = k.let_("size", (&end + (chunks - 1)) / chunks);
            let first = k.let_("first", (&s * &size).min(&end));
            let last = k.let_("last", (&first + size).min(end));
            (o, s, first, last)
        };
        let base = k.let_("base", index(runs, false, &o));
        let sum = k.var("sum", self.first());
        let begin = if sharers > 1 { first + k.lane() / span } else { first };
        k.for_("r", begin, last, sharers as usize, |k, r| {
            let v = k.let_("v", x.at(base + index(runs, true, r)));
            k.set(&sum, self.combine(&sum, &if squares { &v * &v } else { v }));
        });
        if sharers > 1 {
            let (part, lane) = (k.workgroup("part", self.ty(), invocations.into()), k.lane());
            k.store(&part, &lane, &sum);
            k.tree(sharers, |k, width| k.store(&part, &lane, self.combine(&part.at(&lane), &part.at(&lane + width))));
            k.return_if(lane.at_least(span).or(outside));
            k.set(&sum, part.at(&lane));
        }
        match finish {
            Some(_) => k.store(&y, &o, epilogue.apply(self.result(&sum), &o * width, &[])),
            None => k.store(&y, &o * chunks + s, &sum),
        }
        k.launch(grid)
    }
}

/// Returns the offset of element `at` of the kept or of the reduced axes.
fn index(runs: &[Run], reduced: bool, at: &Expr) -> Expr {
    let runs: Vec<&Run> = runs.iter().filter(|r| r.reduced == reduced).collect();
    let term = |i: usize| {
        let outer = at / runs[i + 1..].iter().map(|r| r.extent).product::<usize>();
        (if i > 0 { outer % runs[i].extent } else { outer }) * runs[i].stride
    };
    (0..runs.len()).map(term).sum()
}

impl Graph {
    fn reduce(&mut self, kind: ReduceKind, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, OpError> {
        if axes.is_empty() {
            return Ok(x);
        }
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        self.apply1(Reduce { kind, axes, keep_dims }, &[x])
    }

    /// Returns the sum of `x` over `axes`, which stay with extent 1 where `keep_dims` says so.
    pub fn sum(&mut self, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, OpError> {
        self.reduce(ReduceKind::Sum, x, axes, keep_dims)
    }

    /// Returns the sum of the squares of `x` over `axes`, which stay with extent 1 where `keep_dims` says so.
    pub fn sum_squares(&mut self, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, OpError> {
        if axes.is_empty() {
            return self.unary("square", x);
        }
        self.reduce(ReduceKind::SumSquares, x, axes, keep_dims)
    }

    /// Returns the product of `x` over `axes`, which stay with extent 1 where `keep_dims` says so.
    pub fn prod(&mut self, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, OpError> {
        self.reduce(ReduceKind::Product, x, axes, keep_dims)
    }

    /// Returns the mean of all elements of `x` as a tensor of no axes.
    pub fn mean(&mut self, x: Value) -> Result<Value, OpError> {
        let axes: Vec<usize> = (0..self.shape(x).rank()).collect();
        self.reduce(ReduceKind::Mean, x, &axes, false)
    }

    /// Returns the mean of `x` over `axes`, which stay with extent 1 where `keep_dims` says so.
    pub fn mean_axes(&mut self, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, OpError> {
        self.reduce(ReduceKind::Mean, x, axes, keep_dims)
    }

    /// Returns the smallest element of `x` over `axes`, which stay with extent 1 where `keep_dims` says so.
    ///
    /// Equal minima share their gradient equally.
    pub fn min_axes(&mut self, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, OpError> {
        let opposite = self.neg(x)?;
        let largest = self.max_axes(opposite, axes, keep_dims)?;
        self.neg(largest)
    }

    /// Returns the largest element of `x` over `axes`, which stay with extent 1 where `keep_dims` says so.
    ///
    /// Equal maxima share their gradient equally.
    pub fn max_axes(&mut self, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, OpError> {
        self.reduce(ReduceKind::Max, x, axes, keep_dims)
    }
}

const KINDS: [ReduceKind; 5] =
    [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::SumSquares, ReduceKind::Product];

fn sample(rng: &mut Philox) -> Sample {
    let kind = rng.pick(&KINDS);
    let rank = if rng.below(16) == 0 { 1 } else { 2 + rng.below(3) };
    let mut dims: Vec<usize> = Vec::new();
    for axis in 0..rank {
        let sizes: &[usize] = match axis {
            0 if rng.below(4) > 0 => &[Batch],
            1 => &[1, 3, 7, 15, 16, 17, 33, 63, 64, 65],
            _ => &[1, 2, 3, 4, 6, 7, 8, 12, 15, 16, 17],
        };
        dims.push(rng.pick(sizes));
    }
    let capacity = rng.pick(&[1, 2, 3, 5, 16, 33]);
    let axes: Vec<usize> = match rng.below(4) {
        0 => (0..rank.max(2) - 1).collect(),
        1 => (rng.below(rank)..rank).collect(),
        _ => (0..rank).filter(|_| rng.below(2) == 0).collect(),
    };
    let (fill, axes) = match kind {
        ReduceKind::Max => (Fill::Distinct, axes),
        // Few numbers near one, so that no product leaves the range of 32 bits, and some zeros.
        ReduceKind::Product if rng.below(2) == 0 => (Fill::Away(0.8, 1.2), vec![rank - 1]),
        ReduceKind::Product => (Fill::Ranges(&[(0.0, 0.0), (0.5, 1.5), (-1.5, -0.5), (0.5, 1.5)]), vec![rank - 1]),
        _ => (Fill::Uniform(-1.0, 2.0), axes),
    };
    let op = Reduce { kind, axes, keep_dims: rng.below(2) == 0 };
    let n = 1 + rng.below(capacity);
    Sample::new(op, vec![(TensorType::f32(dims), fill)], capacity).with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let op = |kind, axes: &[usize]| Reduce { kind, axes: axes.to_vec(), keep_dims: false };
    let fill = Fill::Uniform(-1.0, 1.0);
    let map = || vec![(TensorType::f32([Batch, 56, 56, 64]), fill)];
    vec![
        ("column_sum_n8_c64_56", Sample::new(op(ReduceKind::Sum, &[0, 1, 2]), map(), 8)),
        ("global_mean_n8_c64_56", Sample::new(op(ReduceKind::Mean, &[1, 2]), map(), 8)),
        (
            "row_max_n256_1000",
            Sample::new(op(ReduceKind::Max, &[1]), vec![(TensorType::f32([Batch, 1000]), fill)], 256),
        ),
    ]
}

/// The reductions as a family.
pub static FAMILY: Family = Family {
    name: "reduce",
    about: "sum, sum of squares, mean, product and maximum over any axes, the batch among them (ONNX ReduceSum, ReduceSumSquare, ReduceMean, ReduceProd, ReduceMax)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "an axis that the tensor does not have",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                g.sum(x, &[2], false)
            },
        },
        Bad {
            what: "an axis named twice",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                g.mean_axes(x, &[1, 1], false)
            },
        },
        Bad {
            what: "a tensor of bytes",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::U8);
                g.max_axes(x, &[1], false)
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
