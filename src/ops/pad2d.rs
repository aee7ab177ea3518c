//! Numbers, mirror images or edges around images, and their gradients; that of a number around crops.

use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, RewriteCx,
        Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape},
};

/// What stands around an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PadMode {
    /// A number.
    Constant(f32),
    /// The image mirrored at its first and last row (`c b | a b c | b a`).
    Reflect,
    /// The first and last row, again and again (`a a | a b c | c c`).
    Replicate,
}

impl PadMode {
    fn number(self) -> f64 {
        match self {
            PadMode::Constant(_) => 0.0,
            PadMode::Reflect => 1.0,
            PadMode::Replicate => 2.0,
        }
    }

    /// Returns which of `n` elements stands at `at`, counted from the first.
    fn origin(self, at: isize, n: usize) -> Option<usize> {
        let last = n as isize - 1;
        let at = match self {
            PadMode::Constant(_) => at,
            PadMode::Reflect => at.abs().min(2 * last - at.abs()),
            PadMode::Replicate => at.clamp(0, last),
        };
        usize::try_from(at).ok().filter(|&i| i < n)
    }
}

/// Rows and columns added around NHWC images (Keras `ZeroPadding2D`, ONNX Pad), or, with a constant, taken away
/// where negative (Keras `Cropping2D`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pad2d {
    /// `[[top, bottom], [left, right]]`.
    pub pads: [[isize; 2]; 2],
    /// What is added.
    pub mode: PadMode,
}

/// Gradient of [`Pad2d`] by mirror images or edges: each pixel sums what shows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pad2dGrad {
    /// What was padded, and how.
    pub pad: Pad2d,
}

impl Pad2d {
    /// Returns rows and columns of the result, or an error where they do not exist.
    fn size(&self, op: &str, size: [usize; 2]) -> Result<[usize; 2], OpError> {
        let mut padded = [0; 2];
        for ((padded, &n), [before, after]) in padded.iter_mut().zip(&size).zip(self.pads) {
            let sum = (n as isize).checked_add(before).and_then(|s| s.checked_add(after));
            let most = match self.mode {
                PadMode::Reflect => n as isize - 1,
                _ => isize::MAX,
            };
            let least = if matches!(self.mode, PadMode::Constant(_)) { 1 - n as isize } else { 0 };
            let fits = before.min(after) >= least && before.max(after) <= most;
            match sum.and_then(|s| usize::try_from(s).ok()).filter(|&s| s > 0 && n > 0 && fits) {
                Some(sum) => *padded = sum,
                None => {
                    let got = format!("{:?} {:?} on {}×{}", self.mode, self.pads, size[0], size[1]);
                    let wanted = "an image that keeps a pixel; nothing negative but of a constant; mirror images of less than the image";
                    return Err(OpError::new(op, wanted, got, "pad or crop less"));
                }
            }
        }
        Ok(padded)
    }
}

/// Returns the extents of f32 images.
pub(super) fn images(op: &str, inputs: &[TensorType]) -> Result<[usize; 4], OpError> {
    match inputs {
        [x] if x.dtype == DType::F32 => <[usize; 4]>::try_from(x.shape.dims()).ok(),
        _ => None,
    }
    .ok_or_else(|| {
        let got: Vec<String> = inputs.iter().map(ToString::to_string).collect();
        OpError::new(op, "f32 images (N, h, w, c)", got.join(", "), "reshape to NHWC and convert to f32")
    })
}

/// Returns the image, and the zeros that surround it as `[[top, bottom], [left, right]]`, that input 0 of a node consists
/// of.
pub(super) fn zero_padded_input(cx: &RewriteCx) -> Option<(Value, [[usize; 2]; 2])> {
    let node = cx.graph().node(*cx.node().inputs.first()?);
    let pad = node.op()?.downcast::<Pad2d>()?;
    let zeros = pad.mode == PadMode::Constant(0.0) && pad.pads.iter().flatten().all(|&p| p >= 0);
    zeros.then(|| (node.inputs[0], pad.pads.map(|side| side.map(|p| p as usize))))
}

impl Pad2d {
    /// Returns the pixels that are cut off at each side, if it does nothing else.
    pub(super) fn crop(&self) -> Option<[[usize; 2]; 2]> {
        let cut = self.pads.map(|side| side.map(|p| usize::try_from(-p)));
        let [[Ok(top), Ok(bottom)], [Ok(left), Ok(right)]] = cut else { return None };
        Some([[top, bottom], [left, right]])
    }
}

impl Op for Pad2d {
    fn name(&self) -> &'static str {
        "pad2d"
    }

    fn key(&self) -> String {
        format!("{:?} {:?}", self.pads, self.mode)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [_, h, w, c] = images("pad2d", inputs)?;
        let [p, q] = self.size("pad2d", [h, w])?;
        Ok(vec![TensorType::f32(inputs[0].shape.with_row(&[p, q, c]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [[top, bottom], [left, right]] = self.pads;
        let &[n, h, w, c] = &inputs[0].shape[..] else { return Vec::new() };
        let (p, q) = (h.saturating_add_signed(top + bottom), w.saturating_add_signed(left + right));
        let value = if let PadMode::Constant(value) = self.mode { f64::from(value) } else { 0.0 };
        vec![Array::from_fn([n, p, q, c], |i| {
            let row = self.mode.origin((i / (c * q) % p) as isize - top, h);
            let column = self.mode.origin((i / c % q) as isize - left, w);
            let at = row.zip(column).map(|(row, column)| ((i / (c * q * p) * h + row) * w + column) * c + i % c);
            at.map_or(value, |at| inputs[0].data[at])
        })]
    }

    fn vjp(&self, g: &mut Graph, _inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let back = Pad2d { pads: self.pads.map(|side| side.map(|n| -n)), mode: PadMode::Constant(0.0) };
        let dx = dy[0].map(|dy| match self.mode {
            PadMode::Constant(_) => g.apply1(back, &[dy]),
            _ => g.apply1(Pad2dGrad { pad: *self }, &[dy]),
        });
        Ok(vec![dx.transpose()?])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (x, y) = (io.inputs[0].shape.dims(), io.outputs[0].shape.dims());
        let width = kernels::width(x[3], profile);
        let elements = io.outputs[0].shape.elements().over(width as u64);
        let mut constants = vec![
            ("ELEMENTS", elements.fixed as f64),
            ("PER_SAMPLE", elements.per_sample as f64),
            ("H", x[1] as f64),
            ("W", x[2] as f64),
            ("C", (x[3] / width) as f64),
            ("P", y[1] as f64),
            ("Q", y[2] as f64),
            ("TOP", self.pads[0][0] as f64),
            ("LEFT", self.pads[1][0] as f64),
            ("MODE", self.mode.number()),
        ];
        if let PadMode::Constant(value) = self.mode {
            constants.push(("VALUE", f64::from(value)));
        }
        let source = kernels::Source::over_vectors(shader!("pad2d.wgsl"), width, profile);
        let slots = vec![Slot::input(0), Slot::output(0)];
        let kernel = kernels::dispatch("pad2d", source, &constants, Grid::new(elements, 64), slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, width), kernel)]
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Pad2dGrad {
    /// Returns the most rows and columns of the result that are copies of one pixel.
    fn cells(&self) -> [u64; 2] {
        self.pad.pads.map(|[before, after]| match self.pad.mode {
            PadMode::Replicate => (1 + before + after) as u64,
            _ => 3,
        })
    }
}

impl Op for Pad2dGrad {
    fn name(&self) -> &'static str {
        "pad2d_grad"
    }

    fn key(&self) -> String {
        self.pad.key()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [_, p, q, c] = images("pad2d_grad", inputs)?;
        let size = |n: usize, [before, after]: [isize; 2]| {
            let size = (n as isize).checked_sub(before)?.checked_sub(after)?;
            usize::try_from(size).ok()
        };
        let (h, w) = (size(p, self.pad.pads[0]).unwrap_or(0), size(q, self.pad.pads[1]).unwrap_or(0));
        self.pad.size("pad2d_grad", [h, w])?;
        if matches!(self.pad.mode, PadMode::Constant(_)) {
            let advice = "the gradient of a constant around crops";
            return Err(OpError::new("pad2d_grad", "mirror images or edges", self.pad.key(), advice));
        }
        Ok(vec![TensorType::f32(inputs[0].shape.with_row(&[h, w, c]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let ([[top, bottom], [left, right]], dy) = (self.pad.pads, inputs[0]);
        let &[n, p, q, c] = &dy.shape[..] else { return Vec::new() };
        let (h, w) = (p.saturating_add_signed(-top - bottom), q.saturating_add_signed(-left - right));
        let mut dx = Array::zeros([n, h, w, c]);
        for (i, d) in dy.data.iter().enumerate() {
            let row = self.pad.mode.origin((i / (c * q) % p) as isize - top, h);
            let column = self.pad.mode.origin((i / c % q) as isize - left, w);
            if let Some((row, column)) = row.zip(column) {
                dx.data[((i / (c * q * p) * h + row) * w + column) * c + i % c] += d;
            }
        }
        vec![dx]
    }

    fn vjp(&self, g: &mut Graph, _inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        Ok(vec![dy[0].map(|dy| g.apply1(self.pad, &[dy])).transpose()?])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let x = io.outputs[0].shape.dims();
        let width = kernels::width(x[3], profile);
        let elements = io.outputs[0].shape.elements().over(width as u64);
        let [[top, bottom], [left, right]] = self.pad.pads;
        let constants = [
            ("ELEMENTS", elements.fixed as f64),
            ("PER_SAMPLE", elements.per_sample as f64),
            ("H", x[1] as f64),
            ("W", x[2] as f64),
            ("C", (x[3] / width) as f64),
            ("TOP", top as f64),
            ("BOTTOM", bottom as f64),
            ("LEFT", left as f64),
            ("RIGHT", right as f64),
            ("MODE", self.pad.mode.number()),
        ];
        let source = kernels::Source::over_vectors(shader!("pad2d_grad.wgsl"), width, profile);
        let slots = vec![Slot::input(0), Slot::output(0)];
        let kernel = kernels::dispatch("pad2d_grad", source, &constants, Grid::new(elements, 64), slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, width), kernel)]
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        let [rows, columns] = self.cells();
        vec![Accuracy::Products { terms: rows * columns }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns images (N, h, w, c) with `[[top, bottom], [left, right]]` zeros around, or cropped where negative.
    pub fn pad2d(&mut self, x: Value, pads: [[isize; 2]; 2]) -> Result<Value, OpError> {
        self.pad2d_with(x, pads, PadMode::Constant(0.0))
    }

    /// Returns images (N, h, w, c) with `[[top, bottom], [left, right]]` pixels around, as `mode` says.
    pub fn pad2d_with(&mut self, x: Value, pads: [[isize; 2]; 2], mode: PadMode) -> Result<Value, OpError> {
        self.apply1(Pad2d { pads, mode }, &[x])
    }

    /// Returns signals (N, length, c) with `[before, after]` elements around, as `mode` says.
    ///
    /// ```
    /// use hubel::{ops::PadMode, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 5, 3], DType::F32);
    /// let y = g.pad1d(x, [1, 2], PadMode::Reflect)?;
    /// assert_eq!(g.ty(y).to_string(), "f32(N, 8, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn pad1d(&mut self, x: Value, pads: [isize; 2], mode: PadMode) -> Result<Value, OpError> {
        self.as_rows("pad1d", x, |g, rows| g.pad2d_with(rows, [[0, 0], pads], mode))
    }

    /// Returns signals (N, length, c) treated by `build` as images (N, 1, length, c).
    pub(super) fn as_rows(
        &mut self,
        op: &str,
        x: Value,
        build: impl FnOnce(&mut Graph, Value) -> Result<Value, OpError>,
    ) -> Result<Value, OpError> {
        let shape = self.shape(x).clone();
        let &[_, length, c] = shape.dims() else {
            return Err(OpError::new(op, "signals (N, length, c)", &shape, "reshape to three axes"));
        };
        let rows = self.reshape(x, shape.with_row(&[1, length, c]))?;
        let y = build(self, rows)?;
        let flat = self.shape(y).clone();
        self.reshape(y, flat.with_row(&flat.dims()[2..]))
    }
}

fn image(rng: &mut Philox, [h, w]: [usize; 2]) -> (TensorType, Fill) {
    let c = rng.pick(&[1, 2, 3, 4, 7, 16]);
    (TensorType::f32(Shape::from([Batch, h, w, c])), Fill::Uniform(-1.0, 1.0))
}

/// Returns an image's size and pads of mirror images or edges.
fn around(rng: &mut Philox) -> ([usize; 2], Pad2d) {
    let sizes = [1, 2, 3, 7, 15, 16, 17, 33];
    let size = [rng.pick(&sizes), rng.pick(&sizes)];
    let mode = rng.pick(&[PadMode::Reflect, PadMode::Replicate]);
    let pads = size.map(|n| {
        let most = if mode == PadMode::Reflect { n } else { 6 };
        [rng.below(most.min(7)) as isize, rng.below(most) as isize]
    });
    (size, Pad2d { pads, mode })
}

fn sample(rng: &mut Philox) -> Sample {
    let (mut size, mut op) = around(rng);
    if rng.below(2) == 0 {
        let sizes = [1, 2, 7, 15, 16, 17, 33];
        size = [rng.pick(&sizes), rng.pick(&sizes)];
        // At most a third is taken away on each side, so that something stays.
        let mut side = |n: usize| [rng.below(4), rng.below(4)].map(|k| k as isize - (n / 3).min(2) as isize);
        let pads = size.map(&mut side);
        op = Pad2d { pads, mode: PadMode::Constant(rng.pick(&[0.0, -1.5])) };
    }
    let capacity = rng.pick(&[1, 2, 5]);
    let n = 1 + rng.below(capacity);
    Sample::new(op, vec![image(rng, size)], capacity).with_n(n)
}

fn sample_grad(rng: &mut Philox) -> Sample {
    let (size, pad) = around(rng);
    let padded = pad.size("pad2d", size).unwrap_or(size);
    let capacity = rng.pick(&[1, 2, 5]);
    let n = 1 + rng.below(capacity);
    Sample::new(Pad2dGrad { pad }, vec![image(rng, padded)], capacity).with_n(n)
}

/// Padding and cropping as a family.
pub static FAMILY: Family = Family {
    name: "pad2d",
    about: "a number, mirror images or edges around images, or rows and columns taken away (Keras ZeroPadding2D, Cropping2D and ops.pad, ONNX Pad)",
    sample,
    benches: || {
        let x = (TensorType::f32(Shape::from([Batch, 56, 56, 64])), Fill::Uniform(-1.0, 1.0));
        vec![("pad1_n8_c64_56", Sample::new(Pad2d { pads: [[1, 1]; 2], mode: PadMode::Constant(0.0) }, vec![x], 8))]
    },
    bad: &[
        Bad {
            what: "an image cropped to nothing",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.pad2d(x, [[-2, -2], [0, 0]])
            },
        },
        Bad {
            what: "mirror images of more than the image",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.pad2d_with(x, [[4, 0], [0, 0]], PadMode::Reflect)
            },
        },
        Bad {
            what: "fewer than no edges",
            build: |g| {
                let x = g.input("x", [Batch, 4, 1], DType::F32);
                g.pad1d(x, [-1, 0], PadMode::Replicate)
            },
        },
        Bad {
            what: "a matrix",
            build: |g| {
                let x = g.input("x", [Batch, 4], DType::F32);
                g.pad2d(x, [[1, 1], [1, 1]])
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of padding by mirror images and edges as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "pad2d_grad",
    about: "gradient of pad2d by mirror images and edges: each pixel sums the cells that show it",
    sample: sample_grad,
    benches: || {
        let dy = (TensorType::f32(Shape::from([Batch, 58, 58, 64])), Fill::Uniform(-1.0, 1.0));
        let pad = Pad2d { pads: [[1, 1]; 2], mode: PadMode::Reflect };
        vec![("reflect1_n8_c64_56", Sample::new(Pad2dGrad { pad }, vec![dy], 8))]
    },
    bad: &[
        Bad {
            what: "zeros around",
            build: |g| {
                let dy = g.input("dy", [Batch, 4, 4, 1], DType::F32);
                g.apply1(Pad2dGrad { pad: Pad2d { pads: [[1, 1]; 2], mode: PadMode::Constant(0.0) } }, &[dy])
            },
        },
        Bad {
            what: "more padding than there is",
            build: |g| {
                let dy = g.input("dy", [Batch, 4, 4, 1], DType::F32);
                g.apply1(Pad2dGrad { pad: Pad2d { pads: [[3, 3]; 2], mode: PadMode::Replicate } }, &[dy])
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
