//! Images in another size, and the gradient, which each pixel gathers from the results that read it.

use super::pad2d::images;
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Dispatch, Epilogue, Family, Field, Fill, Gradients, Graph, Grid, Io, Op,
        OpError, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape},
};

/// How a pixel between others is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The pixel whose area it lies in.
    Nearest,
    /// The four neighbours, weighted by their distances along each axis; no smoothing when an image shrinks.
    Bilinear,
}

impl Interpolation {
    /// Returns the elements of `n` that element `o` of `m` is made of, with their weights: its position is
    /// `(o + ½)·n/m − ½`, held between the first and the last.
    fn taps(self, o: usize, m: usize, n: usize) -> [(usize, f64); 2] {
        let at = (2 * o + 1) * n;
        match self {
            Interpolation::Nearest => [(at / (2 * m), 1.0), (0, 0.0)],
            Interpolation::Bilinear => {
                let (low, rest) = (at.saturating_sub(m) / (2 * m), at.saturating_sub(m) % (2 * m));
                let share = if low + 1 < n { rest as f64 / (2 * m) as f64 } else { 0.0 };
                [(low, 1.0 - share), ((low + 1).min(n - 1), share)]
            }
        }
    }

    /// Returns for each of n pixels `(from, to, weight)` along both axes.
    fn pairs(self, [p, q]: [usize; 2], [h, w]: [usize; 2]) -> Vec<(usize, usize, f64)> {
        let mut pairs = Vec::new();
        for at in 0..p * q {
            for (row, a) in self.taps(at / q, p, h) {
                for (column, b) in self.taps(at % q, q, w).into_iter().filter(|tap| a * tap.1 > 0.0) {
                    pairs.push((at, row * w + column, a * b));
                }
            }
        }
        pairs
    }

    /// Returns what the kernels' whole weights are multiplied by.
    fn scale(self, [p, q]: [usize; 2]) -> f64 {
        match self {
            Interpolation::Nearest => 1.0,
            Interpolation::Bilinear => 1.0 / (4 * p * q) as f64,
        }
    }
}

/// Resize of NHWC images with half-pixel centres (Keras `ops.image.resize`, `UpSampling2D`; ONNX Resize).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize2d {
    /// Rows and columns of the result.
    pub size: [usize; 2],
    /// How pixels between others are made.
    pub interpolation: Interpolation,
}

/// Gradient of [`Resize2d`] to images of `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize2dGrad {
    /// Rows and columns of the images that were resized.
    pub size: [usize; 2],
    /// How pixels between others were made.
    pub interpolation: Interpolation,
}

/// Returns the type of images of another size.
fn resized(op: &str, inputs: &[TensorType], size: [usize; 2]) -> Result<Vec<TensorType>, OpError> {
    let [_, h, w, c] = images(op, inputs)?;
    // The kernels compute positions as 32-bit integers.
    if [h, w].iter().chain(&size).any(|&n| n == 0 || n > 16_384) {
        let got = format!("{h}×{w} to {}×{}", size[0], size[1]);
        return Err(OpError::new(op, "sides from 1 to 16384", got, "choose another size"));
    }
    Ok(vec![TensorType::f32(inputs[0].shape.with_row(&[size[0], size[1], c]))])
}

/// Returns the launch of a kernel over the images `of` that it writes, `small` being the resize's operand.
fn launch(
    (kernel, source): (&'static str, &str),
    interpolation: Interpolation,
    of: &Shape,
    [small, large]: [&Shape; 2],
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) -> (String, Dispatch) {
    let width = kernels::width(of.last(), profile);
    let elements = of.elements().over(width as u64);
    let (x, y) = (small.dims(), large.dims());
    let constants = [
        ("ELEMENTS", elements.fixed as f64),
        ("PER_SAMPLE", elements.per_sample as f64),
        ("H", x[1] as f64),
        ("W", x[2] as f64),
        ("C", (of.last() / width) as f64),
        ("P", y[1] as f64),
        ("Q", y[2] as f64),
        ("BILINEAR", f64::from(u8::from(interpolation == Interpolation::Bilinear))),
        ("SCALE", interpolation.scale([y[1], y[2]])),
    ];
    let source = kernels::Source::over_vectors(source, width, profile);
    let slots = vec![Slot::input(0), Slot::output(0)];
    let launch = kernels::dispatch(kernel, source, &constants, Grid::new(elements, 64), slots, epilogue);
    (Schedule::of_width(Core::Elements, width).into(), launch)
}

impl Op for Resize2d {
    fn name(&self) -> &'static str {
        "resize2d"
    }

    fn key(&self) -> String {
        format!("{:?} {:?}", self.size, self.interpolation)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        resized("resize2d", inputs, self.size)
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let ([p, q], x) = (self.size, inputs[0]);
        let &[n, h, w, c] = &x.shape[..] else { return Vec::new() };
        let mut y = Array::zeros([n, p, q, c]);
        for (to, from, weight) in self.interpolation.pairs(self.size, [h, w]) {
            for (b, k) in (0..n).flat_map(|b| (0..c).map(move |k| (b, k))) {
                y.data[(b * p * q + to) * c + k] += weight * x.data[(b * h * w + from) * c + k];
            }
        }
        vec![y]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let dims = g.shape(inputs[0]).dims();
        let back = Resize2dGrad { size: [dims[1], dims[2]], interpolation: self.interpolation };
        Ok(vec![dy[0].map(|dy| g.apply1(back, &[dy])).transpose()?])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (x, y) = (&io.inputs[0].shape, &io.outputs[0].shape);
        let kernel = ("resize2d", shader!("resize2d.wgsl"));
        let (variant, launch) = launch(kernel, self.interpolation, y, [x, y], profile, epilogue);
        vec![Candidate::single(variant, launch)]
    }

    fn field(&self, io: &Io) -> Field {
        let from = io.inputs[0].shape.dims();
        let extent = if self.interpolation == Interpolation::Nearest { [1, 1] } else { [2, 2] };
        let factor = [0, 1].map(|axis| (self.size[axis] / from[axis + 1].max(1)).max(1));
        Field::Spread { extent, factor }
    }

    fn cost(&self, io: &Io) -> Cost {
        let flops = if self.interpolation == Interpolation::Bilinear { 10 } else { 0 };
        Cost { flops: io.outputs[0].shape.elements().times(flops), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![match self.interpolation {
            Interpolation::Nearest => Accuracy::Exact,
            Interpolation::Bilinear => Accuracy::Products { terms: 4 },
        }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Resize2dGrad {
    /// Returns the most rows and columns of the result that read one pixel: at the edge up to one and a half pixels' breadth
    /// of them, inside two.
    fn readers(&self, dy: &Shape) -> [u64; 2] {
        [0, 1].map(|axis| {
            let results = dy.dims()[axis + 1];
            ((2 * results).div_ceil(self.size[axis]) + 1).min(results) as u64
        })
    }
}

impl Op for Resize2dGrad {
    fn name(&self) -> &'static str {
        "resize2d_grad"
    }

    fn key(&self) -> String {
        format!("{:?} {:?}", self.size, self.interpolation)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        resized("resize2d_grad", inputs, self.size)
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let ([h, w], dy) = (self.size, inputs[0]);
        let &[n, p, q, c] = &dy.shape[..] else { return Vec::new() };
        let mut dx = Array::zeros([n, h, w, c]);
        for (from, to, weight) in self.interpolation.pairs([p, q], [h, w]) {
            for (b, k) in (0..n).flat_map(|b| (0..c).map(move |k| (b, k))) {
                dx.data[(b * h * w + to) * c + k] += weight * dy.data[(b * p * q + from) * c + k];
            }
        }
        vec![dx]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let dims = g.shape(inputs[0]).dims();
        let back = Resize2d { size: [dims[1], dims[2]], interpolation: self.interpolation };
        Ok(vec![dy[0].map(|dy| g.apply1(back, &[dy])).transpose()?])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (dy, dx) = (&io.inputs[0].shape, &io.outputs[0].shape);
        let kernel = ("resize2d_grad", shader!("resize2d_grad.wgsl"));
        let (variant, launch) = launch(kernel, self.interpolation, dx, [dx, dy], profile, epilogue);
        vec![Candidate::single(variant, launch)]
    }

    fn cost(&self, io: &Io) -> Cost {
        let flops = if self.interpolation == Interpolation::Bilinear { 8 } else { 1 };
        Cost { flops: io.inputs[0].shape.elements().times(flops), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        let [rows, columns] = self.readers(&io.inputs[0].shape);
        vec![Accuracy::Products { terms: rows * columns }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns images (N, h, w, c) in another size, with half-pixel centres.
    pub fn resize2d(&mut self, x: Value, size: [usize; 2], interpolation: Interpolation) -> Result<Value, OpError> {
        self.apply1(Resize2d { size, interpolation }, &[x])
    }

    /// Returns signals (N, length, c) in another length, with half-pixel centres.
    ///
    /// ```
    /// use hubel::{ops::Interpolation, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 5, 3], DType::F32);
    /// let y = g.resize1d(x, 10, Interpolation::Bilinear)?;
    /// assert_eq!(g.ty(y).to_string(), "f32(N, 10, 3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn resize1d(&mut self, x: Value, length: usize, interpolation: Interpolation) -> Result<Value, OpError> {
        self.as_rows("resize1d", x, |g, rows| g.resize2d(rows, [1, length], interpolation))
    }
}

const METHODS: [Interpolation; 2] = [Interpolation::Nearest, Interpolation::Bilinear];

fn random(rng: &mut Philox, op: impl Fn([usize; 2], [usize; 2], Interpolation) -> (Sample, [usize; 2])) -> Sample {
    let sides = [1, 2, 3, 7, 8, 15, 16, 17, 33];
    let side = |rng: &mut Philox| [rng.pick(&sides), rng.pick(&sides)];
    let (from, to) = (side(rng), side(rng));
    // Half of the samples are enlarged by whole numbers, as most are in practice.
    let to = if rng.below(2) == 0 { from.map(|n| n * (1 + rng.below(3))) } else { to };
    let (mut sample, [h, w]) = op(from, to, rng.pick(&METHODS));
    let capacity = rng.pick(&[1, 2, 5]);
    let c = rng.pick(&[1, 2, 3, 4, 7, 16]);
    sample.inputs = vec![(TensorType::f32(Shape::from([Batch, h, w, c])), Fill::Uniform(-1.0, 1.0))];
    sample.capacity = capacity;
    sample.with_n(1 + rng.below(capacity))
}

fn sample(rng: &mut Philox) -> Sample {
    random(rng, |from, size, interpolation| (Sample::new(Resize2d { size, interpolation }, Vec::new(), 1), from))
}

fn sample_grad(rng: &mut Philox) -> Sample {
    random(rng, |size, to, interpolation| (Sample::new(Resize2dGrad { size, interpolation }, Vec::new(), 1), to))
}

fn map(side: usize) -> Vec<(TensorType, Fill)> {
    vec![(TensorType::f32([Batch, side, side, 64]), Fill::Uniform(-1.0, 1.0))]
}

/// Resize as a family.
pub static FAMILY: Family = Family {
    name: "resize2d",
    about: "images in another size, nearest or bilinear, half-pixel centres (Keras ops.image.resize and UpSampling2D, ONNX Resize)",
    sample,
    benches: || {
        let op = |interpolation| Resize2d { size: [56, 56], interpolation };
        vec![
            ("nearest_n8_c64_28_to_56", Sample::new(op(Interpolation::Nearest), map(28), 8)),
            ("bilinear_n8_c64_28_to_56", Sample::new(op(Interpolation::Bilinear), map(28), 8)),
        ]
    },
    bad: &[
        Bad {
            what: "a side of nothing",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.resize2d(x, [0, 4], Interpolation::Nearest)
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::U8);
                g.resize2d(x, [8, 8], Interpolation::Nearest)
            },
        },
        Bad {
            what: "images as signals",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.resize1d(x, 8, Interpolation::Bilinear)
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of resize as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "resize2d_grad",
    about: "gradient of resize2d: each pixel sums the results that read it, by their weights",
    sample: sample_grad,
    benches: || {
        let op = |interpolation| Resize2dGrad { size: [28, 28], interpolation };
        vec![
            ("nearest_n8_c64_28_to_56", Sample::new(op(Interpolation::Nearest), map(56), 8)),
            ("bilinear_n8_c64_28_to_56", Sample::new(op(Interpolation::Bilinear), map(56), 8)),
        ]
    },
    bad: &[Bad {
        what: "a matrix",
        build: |g| {
            let dy = g.input("dy", [Batch, 4], DType::F32);
            g.apply1(Resize2dGrad { size: [2, 2], interpolation: Interpolation::Nearest }, &[dy])
        },
    }],
    equivalent: &[
        ("leaves a term out at last", "elements of no weight may be read or not"),
        ("takes for false at by", "skips what has no weight"),
        ("takes for false at share", "skips what has no weight"),
        ("takes the other sign at first", "elements of no weight may be read or not"),
        ("takes the other sign at last", "elements of no weight may be read or not"),
    ],
    differentiable: true,
    gradcheck: 1e-6,
};
