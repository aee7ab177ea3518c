//! Pictures resampled by an affine map of their own: turned, moved, enlarged, mirrored, cut.

use super::{Interpolation, pad2d::pictures};
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fault, Field, Fill, Graph, Grid, Io, Op, OpError,
        Sample, Slot, Step, TensorType, Value,
    },
    kernels,
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape, UNIT},
};

/// What stands outside a picture a b c d (Keras `fill_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FillMode {
    /// k k k k | a b c d | k k k k, the same number everywhere.
    Constant,
    /// a a a a | a b c d | d d d d.
    Nearest,
    /// d c b a | a b c d | d c b a.
    Reflect,
    /// a b c d | a b c d | a b c d.
    Wrap,
}

impl FillMode {
    const ALL: [FillMode; 4] = [FillMode::Constant, FillMode::Nearest, FillMode::Reflect, FillMode::Wrap];

    /// Returns the element of `n` that stands at a place, if one does.
    fn place(self, at: i64, n: i64) -> Option<usize> {
        let found = match self {
            FillMode::Constant => return (0..n).contains(&at).then_some(at as usize),
            FillMode::Nearest => at.clamp(0, n - 1),
            FillMode::Wrap => at.rem_euclid(n),
            FillMode::Reflect => {
                let within = at.rem_euclid(2 * n);
                within.min(2 * n - 1 - within)
            }
        };
        Some(found as usize)
    }
}

/// Pictures resampled by affine maps (Keras `ops.image.affine_transform`): pixel (column q, row p) of a result lies at
/// column m₀·q + m₁·p + m₂ and row m₃·q + m₄·p + m₅ of its picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine2d {
    /// Rows and columns of the result.
    pub size: [usize; 2],
    /// How pixels between others are made.
    pub interpolation: Interpolation,
    /// What stands outside.
    pub fill_mode: FillMode,
    /// The number outside, for [`FillMode::Constant`].
    pub fill_value: f32,
}

/// Pixels that one invocation computes, which reads the six numbers once for them.
const STRIP: usize = 8;

impl Affine2d {
    /// Returns along one axis what a position is made of: the elements of `n` and their shares.
    fn taps(&self, at: f64, n: usize) -> [(Option<usize>, f64); 2] {
        let place = |at: f64| self.fill_mode.place(at as i64, n as i64);
        match self.interpolation {
            Interpolation::Nearest => [(place(at.round()), 1.0), (None, 0.0)],
            Interpolation::Bilinear => {
                let low = at.floor();
                [(place(low), 1.0 - (at - low)), (place(low + 1.0), at - low)]
            }
        }
    }
}

/// Returns the kernel that reads all three channels of a pixel as two 64-bit words.
fn in_words(source: &str) -> String {
    let scalar =
        "fn pixels(picture: i32, row: i32, column: i32, c: u32) -> V { return pixel(picture, row, column, c); }";
    let vector = "fn two(i: u32) -> vec2<f32> {
    let word = x[i];
    return bitcast<vec2<f32>>(vec2<u32>(u32(word), u32(word >> 32u)));
}
fn pixels(picture: i32, row: i32, column: i32, c: u32) -> V {
    let there = row < H && column < W;
    let i = u32(select(0, (picture + row) * W + column, there)) * 3u;
    let a = two(i >> 1u);
    let b = two((i >> 1u) + 1u);
    return select(vec3<f32>(FILL), select(vec3<f32>(a, b.x), vec3<f32>(a.y, b), (i & 1u) == 1u), there);
}";
    source
        .replace("var<storage, read> x: array<f32>", "var<storage, read> x: array<u64>")
        .replace("{ return x[i]; }", "{ let word = x[i >> 1u]; return bitcast<f32>(u32(word >> ((i & 1u) * 32u))); }")
        .replace("const WIDTH = 1u;\nalias V = f32;", "const WIDTH = 3u;\nalias V = vec3<f32>;")
        .replace(scalar, vector)
        .replace(
            "{ y[o] = epilogue(v, o); }",
            "{ y[o] = epilogue(v.x, o); y[o + 1u] = epilogue(v.y, o + 1u); y[o + 2u] = epilogue(v.z, o + 2u); }",
        )
}

impl Op for Affine2d {
    fn name(&self) -> &'static str {
        "affine2d"
    }

    fn key(&self) -> String {
        format!("{:?} {:?} {:?} {:?}", self.size, self.interpolation, self.fill_mode, self.fill_value)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, maps] = inputs else {
            return Err(OpError::new("affine2d", "2 inputs", inputs.len(), "pass pictures and their maps"));
        };
        let [_, h, w, c] = pictures("affine2d", std::slice::from_ref(x))?;
        if !x.shape.is_batched() || *maps != TensorType::f32(x.shape.with_row(&[6])) {
            let got = format!("{maps} for {x}");
            return Err(OpError::new("affine2d", "six numbers for each picture, f32(N, 6)", got, "give each its map"));
        }
        // The kernel computes places as 32-bit integers.
        if [h, w].iter().chain(&self.size).any(|&n| n == 0 || n > 16_384) {
            let got = format!("{h}×{w} to {}×{}", self.size[0], self.size[1]);
            return Err(OpError::new("affine2d", "sides from 1 to 16384", got, "choose another size"));
        }
        if !self.fill_value.is_finite() {
            return Err(OpError::new("affine2d", "a finite fill value", self.fill_value, "give a pixel's value"));
        }
        Ok(vec![TensorType::f32(x.shape.with_row(&[self.size[0], self.size[1], c]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let ([p, q], [x, maps]) = (self.size, inputs) else { return Vec::new() };
        let &[n, h, w, c] = &x.shape[..] else { return Vec::new() };
        let fill = f64::from(self.fill_value);
        vec![Array::from_fn([n, p, q, c], |i| {
            let (b, row, column, k) = (i / (p * q * c), (i / (q * c) % p) as f64, (i / c % q) as f64, i % c);
            let m = &maps.data[b * 6..b * 6 + 6];
            let columns = self.taps(m[0] * column + m[1] * row + m[2], w);
            let rows = self.taps(m[3] * column + m[4] * row + m[5], h);
            let mut sum = 0.0;
            for (y, share_y) in rows {
                for (x_at, share_x) in columns {
                    let there = y.zip(x_at).map_or(fill, |(y, at)| x.data[((b * h + y) * w + at) * c + k]);
                    sum += share_y * share_x * if share_y * share_x == 0.0 { 0.0 } else { there };
                }
            }
            sum
        })]
    }

    fn vjp(
        &self,
        _g: &mut Graph,
        _inputs: &[Value],
        _outputs: &[Value],
        _dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        let advice = "put augmentation in front of the layers that learn";
        Err(OpError::new("affine2d", "pictures that no weight has made", "a gradient to pass on", advice))
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let x = io.inputs[0].shape.dims();
        let ([p, q], mode) = (self.size, FillMode::ALL.iter().position(|m| *m == self.fill_mode).unwrap_or(0));
        let strips = io.inputs[0].shape.with_row(&[p * q.div_ceil(STRIP)]).elements();
        let constants = [
            ("PER_SAMPLE", strips.per_sample as f64),
            ("H", x[1] as f64),
            ("W", x[2] as f64),
            ("C", x[3] as f64),
            ("P", p as f64),
            ("Q", q as f64),
            ("STRIP", STRIP as f64),
            ("STRIPS", q.div_ceil(STRIP) as f64),
            ("MODE", mode as f64),
            ("FILL", f64::from(self.fill_value)),
            ("BILINEAR", f64::from(u8::from(self.interpolation == Interpolation::Bilinear))),
        ];
        let source = include_str!("../../shaders/affine2d.wgsl");
        // A pixel of three channels lies in two words of two floats, the second of which is there if all are even.
        let wide = profile.wide_words && x[3] == 3 && (x[1] * x[2]).is_multiple_of(2);
        let (source, variant) = if wide { (in_words(source), "words") } else { (source.to_owned(), "strips") };
        let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let kernel = kernels::dispatch("affine2d", &source, &constants, Grid::new(strips, 64), slots, epilogue);
        vec![Candidate::single(variant, kernel)]
    }

    fn field(&self, _io: &Io) -> Field {
        Field::Whole
    }

    fn cost(&self, io: &Io) -> Cost {
        let flops = if self.interpolation == Interpolation::Bilinear { 10 } else { 0 };
        Cost { flops: io.outputs[0].shape.elements().times(flops), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Absolute(0.0)]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], exact: &[Array], _step: &Step) -> Vec<Array> {
        let largest = |a: &Array| a.data.iter().fold(0f64, |m, x| m.max(x.abs()));
        // Three roundings of a position, which a slope of twice the largest pixel makes into values along both axes.
        let reach = largest(inputs[1]) * (self.size[0] + self.size[1] + 1) as f64;
        let pixel = largest(inputs[0]).max(f64::from(self.fill_value.abs()));
        let bound = match self.interpolation {
            Interpolation::Nearest => 0.0,
            Interpolation::Bilinear => pixel * UNIT * (4.0 * 3.0 * reach + 8.0),
        };
        exact.iter().map(|e| e.map(|_| bound)).collect()
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns pictures (N, h, w, c) resampled by affine maps (N, 6); see [`Affine2d`]. No gradient passes.
    pub fn affine2d(&mut self, x: Value, maps: Value, how: Affine2d) -> Result<Value, OpError> {
        self.apply1(how, &[x, maps])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let side = |rng: &mut Philox| rng.pick(&[1, 2, 3, 7, 8, 15, 16, 17, 33]);
    let (h, w) = (side(rng), side(rng));
    let size = if rng.below(3) == 0 { [side(rng), side(rng)] } else { [h, w] };
    let op = Affine2d {
        size,
        interpolation: rng.pick(&[Interpolation::Nearest, Interpolation::Bilinear]),
        fill_mode: rng.pick(&FillMode::ALL),
        fill_value: rng.pick(&[0.0, 0.5]),
    };
    let (c, capacity) = (rng.pick(&[1, 2, 3, 4]), rng.pick(&[1, 2, 5]));
    let x = (TensorType::f32([Batch, h, w, c]), Fill::Uniform(-1.0, 1.0));
    let maps = (TensorType::f32([Batch, 6]), Fill::Uniform(-1.6, 1.6));
    Sample::new(op, vec![x, maps], capacity).with_n(1 + rng.below(capacity))
}

fn bad(g: &mut Graph, maps: impl Into<Shape>, size: [usize; 2]) -> Result<Value, OpError> {
    let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
    let maps = g.input("maps", maps, DType::F32);
    let (interpolation, fill_mode) = (Interpolation::Bilinear, FillMode::Reflect);
    g.affine2d(x, maps, Affine2d { size, interpolation, fill_mode, fill_value: 0.0 })
}

/// Affine maps of pictures as a family.
pub static FAMILY: Family = Family {
    name: "affine2d",
    about: "pictures resampled by an affine map each: turned, moved, enlarged, mirrored, cut (Keras ops.image.affine_transform)",
    sample,
    benches: || {
        let how =
            |interpolation| Affine2d { size: [96, 96], interpolation, fill_mode: FillMode::Reflect, fill_value: 0.0 };
        let inputs = || {
            let x = (TensorType::f32([Batch, 96, 96, 3]), Fill::Uniform(-1.0, 1.0));
            vec![x, (TensorType::f32([Batch, 6]), Fill::Uniform(-1.0, 1.0))]
        };
        vec![
            ("nearest_n32_c3_96", Sample::new(how(Interpolation::Nearest), inputs(), 32)),
            ("bilinear_n32_c3_96", Sample::new(how(Interpolation::Bilinear), inputs(), 32)),
        ]
    },
    bad: &[
        Bad { what: "maps of eight numbers", build: |g| bad(g, [Batch, 8], [4, 4]) },
        Bad { what: "one map for all", build: |g| bad(g, [1, 6], [4, 4]) },
        Bad { what: "a side of nothing", build: |g| bad(g, [Batch, 6], [0, 4]) },
    ],
    faults: &[
        Fault { what: "reflects without the edge", from: "period - 1 - select", to: "period - select" },
        Fault {
            what: "turns the other way",
            from: "vec2<f32>(m[b * 6u + 1u], m[b * 6u + 4u])",
            to: "vec2<f32>(m[b * 6u + 4u], m[b * 6u + 1u])",
        },
        Fault {
            what: "takes another picture's map",
            from: "let along = vec2<f32>(m[b * 6u]",
            to: "let along = vec2<f32>(m[0u]",
        },
        Fault { what: "skips the last strip", from: "PER_SAMPLE * step.n)", to: "PER_SAMPLE * step.n - 1u)" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};
