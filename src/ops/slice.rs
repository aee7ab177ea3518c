//! Parts of a tensor, every so many elements along each axis, and the gradient, which puts them back among zeros.

use super::{
    arity::arity,
    transpose::{MAX_RUNS, strided_copy},
};
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Expr, Finish, Kernel, Layout, Schedule, Stored, Type},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape, strides},
};

/// What is taken along one axis: elements `start`, `start + step`, …, `size` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first element.
    pub start: usize,
    /// How many.
    pub size: usize,
    /// How far apart; negative runs backwards.
    pub step: isize,
}

impl Part {
    /// Returns `size` neighbouring elements from `start` on.
    pub fn new(start: usize, size: usize) -> Self {
        Part { start, size, step: 1 }
    }

    /// Returns all of an axis of `extent`.
    pub fn all(extent: usize) -> Self {
        Part::new(0, extent)
    }

    fn fits(&self, extent: usize) -> bool {
        let last = (self.size as isize).checked_sub(1).and_then(|n| n.checked_mul(self.step));
        let last = last.and_then(|moved| moved.checked_add(isize::try_from(self.start).ok()?));
        self.step != 0 && self.size > 0 && self.start < extent && last.is_some_and(|l| l >= 0 && (l as usize) < extent)
    }

    /// Returns which element of the part is element `i` of the axis.
    fn position(&self, i: usize) -> Option<usize> {
        let moved = i as isize - self.start as isize;
        let k = usize::try_from(moved / self.step).ok()?;
        (moved % self.step == 0 && k < self.size).then_some(k)
    }
}

/// Slice (ONNX): a part of each of the last axes; those before them, the batch among them, stay whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// What is taken of the last axes.
    pub parts: Vec<Part>,
}

/// Gradient of [`Slice`]: zeros of `shape` with the operand in place of the parts.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceGrad {
    /// The shape that was sliced.
    pub shape: Shape,
    /// What was taken of the last axes.
    pub parts: Vec<Part>,
}

/// Returns the shape of the parts, or an error where they do not fit.
fn sliced(op: &str, shape: &Shape, parts: &[Part]) -> Result<Shape, OpError> {
    let first = usize::from(shape.is_batched());
    let skip = shape.rank().checked_sub(parts.len()).filter(|&skip| skip >= first);
    let fit = skip.is_some_and(|skip| parts.iter().zip(&shape.dims()[skip..]).all(|(p, &n)| p.fits(n)));
    if !fit || axes(shape, parts).len() > MAX_RUNS {
        let wanted = format!("parts of the last axes of {shape} without the batch, at most {MAX_RUNS} groups of axes");
        let got: Vec<String> = parts.iter().map(|p| format!("{}+{}·{}", p.start, p.size, p.step)).collect();
        return Err(OpError::new(op, wanted, got.join(", "), "keep both ends inside the axis and the step from zero"));
    }
    let mut dims = shape.dims().to_vec();
    let skip = dims.len() - parts.len();
    dims[skip..].iter_mut().zip(parts).for_each(|(n, p)| *n = p.size);
    Ok(if shape.is_batched() { shape.with_row(&dims[1..]) } else { Shape::fixed(dims) })
}

/// Returns a part of each axis: what is given, whole axes before it.
fn of_each(dims: &[usize], parts: &[Part]) -> Vec<Part> {
    let whole = dims[..dims.len() - parts.len()].iter().map(|&n| Part::all(n));
    whole.chain(parts.iter().copied()).collect()
}

/// Returns extent and part of each group of axes: an axis that stays whole belongs to the one before it, where that
/// is taken without steps.
fn axes(shape: &Shape, parts: &[Part]) -> Vec<(usize, Part)> {
    let mut axes: Vec<(usize, Part)> = Vec::new();
    for (i, (&extent, part)) in shape.dims().iter().zip(of_each(shape.dims(), parts)).enumerate() {
        match axes.last_mut() {
            _ if extent == 1 && !(i == 0 && shape.is_batched()) => {}
            Some((outer, before)) if part == Part::all(extent) && before.step == 1 => {
                *before = Part::new(before.start * extent, before.size * extent);
                *outer *= extent;
            }
            _ => axes.push((extent, part)),
        }
    }
    axes
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn key(&self) -> String {
        format!("{:?}", self.parts)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity("slice", inputs, "pass the tensor to slice")?;
        if x.dtype.bytes() != 4 {
            return Err(OpError::new("slice", "a type of 32 bits", x, "gather or cast the tensor to f32 first"));
        }
        Ok(vec![TensorType { shape: sliced("slice", &x.shape, &self.parts)?, dtype: x.dtype }])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let parts = of_each(&x.shape, &self.parts);
        let shape: Vec<usize> = parts.iter().map(|p| p.size).collect();
        let (from, to) = (strides(&x.shape), strides(&shape));
        let source = |i: usize| -> usize {
            let at = |k: usize| parts[k].start as isize + (i / to[k] % shape[k]) as isize * parts[k].step;
            (0..to.len()).map(|k| at(k) as usize * from[k]).sum()
        };
        vec![Array::from_fn(shape.clone(), |i| x.data[source(i)])]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let x = g.ty(inputs[0]).clone();
        let back = SliceGrad { shape: x.shape, parts: self.parts.clone() };
        Ok(vec![dy[0].filter(|_| x.dtype == DType::F32).map(|dy| g.apply1(back, &[dy])).transpose()?])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let axes = axes(&io.inputs[0].shape, &self.parts);
        let extents: Vec<usize> = axes.iter().map(|a| a.0).collect();
        let from = strides(&extents);
        let runs: Vec<(usize, isize)> =
            axes.iter().zip(&from).map(|((_, p), &stride)| (p.size, p.step * stride as isize)).collect();
        let base = axes.iter().zip(&from).map(|((_, p), stride)| p.start * stride).sum();
        vec![strided_copy("slice", &runs, base, io.outputs[0].shape.elements(), profile)]
    }

    fn columns(&self, io: &Io) -> Option<usize> {
        let dims = io.inputs[0].shape.dims();
        let (last, others) = self.parts.split_last()?;
        let whole = others.iter().zip(&dims[dims.len() - self.parts.len()..]).all(|(p, &n)| *p == Part::all(n));
        (whole && last.step == 1 && io.inputs[0].dtype == DType::F32).then_some(last.start)
    }

    fn read(&self, io: &Io, _input: usize) -> Count {
        io.outputs[0].shape.elements()
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: Count::default(), bytes: io.outputs[0].shape.elements().times(8) }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }
}

impl Op for SliceGrad {
    fn name(&self) -> &'static str {
        "slice_grad"
    }

    fn key(&self) -> String {
        format!("{} {:?}", self.shape, self.parts)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let wanted = TensorType::f32(sliced("slice_grad", &self.shape, &self.parts)?);
        match inputs {
            [dy] if *dy == wanted => Ok(vec![TensorType::f32(self.shape.clone())]),
            _ => {
                let got: Vec<String> = inputs.iter().map(ToString::to_string).collect();
                Err(OpError::new("slice_grad", wanted.to_string(), got.join(", "), "pass the gradient to the slice"))
            }
        }
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let (shape, dy) = (self.shape.at(step.n), inputs[0]);
        let (to, from) = (strides(&shape), strides(&dy.shape));
        let parts = of_each(&shape, &self.parts);
        let source = |i: usize| -> Option<usize> {
            let at = |k: usize| parts[k].position(i / to[k] % shape[k]);
            (0..to.len()).map(|k| Some(at(k)? * from[k])).sum()
        };
        vec![Array::from_fn(shape.clone(), |i| source(i).map_or(0.0, |at| dy.data[at]))]
    }

    fn vjp(&self, g: &mut Graph, _inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        Ok(vec![dy[0].map(|dy| g.slice(dy, &self.parts)).transpose()?])
    }

    /// One invocation per four elements of the result where the innermost axis and its part are multiples of four.
    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let mut axes = axes(&self.shape, &self.parts);
        let width = match axes.last_mut() {
            Some((extent, part)) if part.step == 1 => {
                let width = [*extent, part.start, part.size].map(|n| kernels::width(n, profile)).into_iter().min();
                let width = width.unwrap_or(1);
                (*extent, *part) = (*extent / width, Part::new(part.start / width, part.size / width));
                width
            }
            _ => 1,
        };
        let (extents, sizes): (Vec<usize>, Vec<usize>) = axes.iter().map(|(extent, p)| (*extent, p.size)).unzip();
        let (to, from) = (strides(&extents), strides(&sizes));
        let elements = io.outputs[0].shape.elements().over(width as u64);
        let mut k = Kernel::new("slice_grad", 64);
        let words = profile.u64_loads;
        let x = k.bind("x", Layout::Vectors { width, words }, Slot::input(0));
        let y = k.bind_result("y", Layout::Vectors { width, words }, Slot::output(0));
        let finish = Finish::bind(&mut k, epilogue, Stored { width, words, columns: 0 });
        let i = k.item(elements);
        let (mut at, mut inside) = (Expr::from(0u32), Expr::from(true));
        for (n, (extent, part)) in axes.iter().enumerate() {
            let (outer, stride) = (&i / to[n], from[n]);
            // The batch has no extent here.
            let a = if n == 0 { outer } else { outer % *extent };
            if *part == Part::all(*extent) {
                at = at + a * stride;
                continue;
            }
            let (sign, step) = (part.step.signum() as i32, part.step.unsigned_abs() as i32);
            let d = k.let_(format!("d{n}"), (a.i32() - part.start as i32) * sign);
            let fits = [d.at_least(0), (&d % step).equals(0), d.less(step * part.size as i32)];
            inside = fits.into_iter().fold(inside, |all, one| all.and(one));
            at = at + (d / step).u32() * stride;
        }
        let value = k.var("value", Type::F32.vector(width).splat(0.0));
        k.if_(inside, |k| k.set(&value, x.at(at)));
        k.store(&y, &i, finish.apply(value, &i * width, &[]));
        vec![Candidate::single(Schedule::of_width(Core::Elements, width), k.launch(Grid::new(elements, 64)))]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: Count::default(), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns a part of each of the last axes of `x`; the axes before them, the batch among them, stay whole.
    ///
    /// ```
    /// use hubel::{ops::Part, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 8, 9, 3], DType::F32);
    /// let mirrored = Part { start: 8, size: 9, step: -1 };
    /// let y = g.slice(x, &[Part::new(2, 4), mirrored, Part::all(3)])?;
    /// assert_eq!(g.ty(y).to_string(), "f32(N, 4, 9, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn slice(&mut self, x: Value, parts: &[Part]) -> Result<Value, OpError> {
        let dims = self.shape(x).dims();
        let whole =
            parts.len() <= dims.len() && parts.iter().rev().zip(dims.iter().rev()).all(|(p, &n)| *p == Part::all(n));
        if whole { Ok(x) } else { self.apply1(Slice { parts: parts.to_vec() }, &[x]) }
    }

    /// Returns `x` with a part of one axis, the others whole.
    pub fn slice_axis(&mut self, x: Value, axis: usize, part: Part) -> Result<Value, OpError> {
        let inner = self.shape(x).dims().get(axis..).and_then(|dims| Some(dims.split_first()?.1));
        let Some(inner) = inner else {
            let wanted = format!("an axis below {}", self.shape(x).rank());
            return Err(OpError::new("slice", wanted, axis, "name an axis that the tensor has"));
        };
        let parts: Vec<Part> = [part].into_iter().chain(inner.iter().map(|&n| Part::all(n))).collect();
        self.slice(x, &parts)
    }
}

fn operation(rng: &mut Philox) -> (Slice, Shape) {
    let rank = 1 + rng.below(4);
    let batched = rng.below(4) > 0;
    let mut dims = Vec::new();
    let mut parts = Vec::new();
    for axis in 0..rank {
        if axis == 0 && batched {
            dims.push(Batch);
            continue;
        }
        let sizes: &[usize] =
            if axis < 3 && rank < 4 { &[1, 2, 7, 8, 15, 16, 17, 63, 64, 65] } else { &[1, 4, 7, 12, 16, 17] };
        let n = rng.pick(sizes);
        dims.push(n);
        let step = rng.pick(&[1isize, 1, 1, 2, 3, -1, -2]);
        let quads = step == 1 && n.is_multiple_of(4) && n > 4 && rng.below(2) == 0;
        let start = if quads { 4 * rng.below(n / 4) } else { rng.below(n) };
        let room = if step > 0 { n - start } else { start + 1 }.div_ceil(step.unsigned_abs());
        let size = if quads { 4 * (1 + rng.below(room / 4)) } else { 1 + rng.below(room) };
        parts.push(if rng.below(3) == 0 { Part::all(n) } else { Part { start, size, step } });
    }
    (Slice { parts }, Shape::from(dims))
}

fn sample(rng: &mut Philox) -> Sample {
    let (op, shape) = operation(rng);
    let capacity = rng.pick(&[1, 2, 3, 5, 8]);
    let n = 1 + rng.below(capacity);
    Sample::new(op, vec![(TensorType::f32(shape), Fill::Distinct)], capacity).with_n(n)
}

fn sample_grad(rng: &mut Philox) -> Sample {
    let (op, shape) = operation(rng);
    let capacity = rng.pick(&[1, 2, 3, 5, 8]);
    let n = 1 + rng.below(capacity);
    let dy = sliced("slice", &shape, &op.parts).unwrap_or_else(|_| shape.clone());
    let op = SliceGrad { shape, parts: op.parts };
    Sample::new(op, vec![(TensorType::f32(dy), Fill::Uniform(-1.0, 1.0))], capacity).with_n(n)
}

fn crop() -> (Slice, Shape) {
    let parts = vec![Part::new(4, 48), Part::new(2, 48), Part::all(64)];
    (Slice { parts }, Shape::from([Batch, 56, 56, 64]))
}

/// Slice as a family.
pub static FAMILY: Family = Family {
    name: "slice",
    about: "a part of each axis, every so many elements, also backwards; the batch whole (ONNX Slice, Keras Cropping)",
    sample,
    benches: || {
        let (op, shape) = crop();
        vec![("crop_n8_c64_56", Sample::new(op, vec![(TensorType::f32(shape), Fill::Uniform(-1.0, 1.0))], 8))]
    },
    bad: &[
        Bad {
            what: "a part past the end",
            build: |g| {
                let x = g.input("x", [Batch, 5], DType::F32);
                g.slice_axis(x, 1, Part::new(3, 3))
            },
        },
        Bad {
            what: "a part of the batch",
            build: |g| {
                let x = g.input("x", [Batch, 5], DType::F32);
                g.slice_axis(x, 0, Part { start: 0, size: 1, step: 2 })
            },
        },
        Bad {
            what: "a step of zero",
            build: |g| {
                let x = g.input("x", [Batch, 5], DType::F32);
                g.slice_axis(x, 1, Part { start: 0, size: 2, step: 0 })
            },
        },
        Bad {
            what: "an axis that is not there",
            build: |g| {
                let x = g.input("x", [Batch, 5], DType::F32);
                g.slice_axis(x, 2, Part::new(0, 1))
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let x = g.input("x", [Batch, 5], DType::U8);
                g.slice_axis(x, 1, Part::new(0, 1))
            },
        },
    ],
    equivalent: &[
        ("adds for a product at y", "samples have no more than four axes that stay apart"),
        ("leaves a term out at y", "samples have no more than four axes that stay apart"),
    ],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of slice as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "slice_grad",
    about: "gradient of slice: zeros with the operand in place of the parts",
    sample: sample_grad,
    benches: || {
        let (op, shape) = crop();
        let dy = TensorType::f32([Batch, 48, 48, 64]);
        let op = SliceGrad { shape, parts: op.parts };
        vec![("crop_n8_c64_56", Sample::new(op, vec![(dy, Fill::Uniform(-1.0, 1.0))], 8))]
    },
    bad: &[Bad {
        what: "a gradient of another shape",
        build: |g| {
            let dy = g.input("dy", [Batch, 4], DType::F32);
            let parts = vec![Part::new(1, 3)];
            g.apply1(SliceGrad { shape: Shape::from([Batch, 5]), parts }, &[dy])
        },
    }],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
