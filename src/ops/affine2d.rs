//! Images resampled by an affine map of their own: turned, moved, enlarged, mirrored, cut.

use super::{Gather, Interpolation, pad2d::images};
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Field, Fill, Gradients, Graph, Grid, Io, Op, OpError,
        Patch, RewriteCx, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule, Source},
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape, UNIT},
};

/// What stands outside an image a b c d (Keras `fill_mode`).
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

/// Images resampled by affine maps (Keras `ops.image.affine_transform`): pixel (column q, row p) of a result lies at
/// column m₀·q + m₁·p + m₂ and row m₃·q + m₄·p + m₅ of its image. Inputs: images (N, h, w, c) and maps (N, 6), or a
/// table of images (R, h, w, c; f32 or u8), the numbers of its rows (N), and maps.
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

const FROM_TABLE: Gather = Gather { dtype: DType::F32 };

/// Pixels that one invocation computes, which reads the six numbers once for them.
const STRIP: usize = 8;

impl Affine2d {
    /// Returns along one axis what a position is made of: the elements of `n` and their shares.
    fn taps(&self, at: f64, n: usize) -> [(Option<usize>, f64); 2] {
        let place = |at: f64| self.fill_mode.place(at as i64, n as i64);
        if !at.is_finite() {
            return [(None, f64::NAN); 2];
        }
        match self.interpolation {
            Interpolation::Nearest => [(place(at.round()), 1.0), (None, 0.0)],
            Interpolation::Bilinear => {
                let low = at.floor();
                [(place(low), 1.0 - (at - low)), (place(low + 1.0), at - low)]
            }
        }
    }
}

/// Returns the images, or the table and the numbers of its rows, and the maps.
fn parts<T>(inputs: &[T]) -> Option<(&T, Option<&T>, &T)> {
    match inputs {
        [x, maps] => Some((x, None, maps)),
        [table, rows, maps] => Some((table, Some(rows), maps)),
        _ => None,
    }
}

impl Op for Affine2d {
    fn name(&self) -> &'static str {
        "affine2d"
    }

    fn key(&self) -> String {
        format!("{:?} {:?} {:?} {:?}", self.size, self.interpolation, self.fill_mode, self.fill_value)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let Some((x, rows, maps)) = parts(inputs) else {
            return Err(OpError::new("affine2d", "2 or 3 inputs", inputs.len(), "pass images and their maps"));
        };
        let gathered = rows.map(|rows| FROM_TABLE.infer(&[x.clone(), rows.clone()])).transpose()?;
        let x = gathered.as_ref().map_or(x, |of_table| &of_table[0]);
        let [_, h, w, c] = images("affine2d", std::slice::from_ref(x))?;
        if !x.shape.is_batched() || *maps != TensorType::f32(x.shape.with_row(&[6])) {
            let got = format!("{maps} for {x}");
            return Err(OpError::new("affine2d", "six numbers for each image, f32(N, 6)", got, "give each its map"));
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

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let Some((x, rows, maps)) = parts(inputs) else { return Vec::new() };
        let gathered = rows.map(|rows| FROM_TABLE.reference(&[x, rows], step));
        let (x, [p, q]) = (gathered.as_ref().map_or(*x, |of_table| &of_table[0]), self.size);
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
                    let in_bounds = y.zip(x_at).map_or(fill, |(y, at)| x.data[((b * h + y) * w + at) * c + k]);
                    sum += share_y * share_x * in_bounds;
                }
            }
            sum
        })]
    }

    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        let advice = "put augmentation in front of the layers that learn";
        Err(OpError::new("affine2d", "images that no weight has made", "a gradient to pass on", advice))
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Some((x, rows, maps)) = parts(&io.inputs) else { return Vec::new() };
        let [images, h, w, c] = x.shape.dims() else { return Vec::new() };
        let ([p, q], mode) = (self.size, FillMode::ALL.iter().position(|m| *m == self.fill_mode).unwrap_or(0));
        let strips = maps.shape.with_row(&[p * q.div_ceil(STRIP)]).elements();
        let mut constants = vec![
            ("PER_SAMPLE", strips.per_sample as f64),
            ("H", *h as f64),
            ("W", *w as f64),
            ("C", *c as f64),
            ("P", p as f64),
            ("Q", q as f64),
            ("STRIP", STRIP as f64),
            ("STRIPS", q.div_ceil(STRIP) as f64),
            ("MODE", mode as f64),
            ("FILL", f64::from(self.fill_value)),
            ("BILINEAR", f64::from(u8::from(self.interpolation == Interpolation::Bilinear))),
            ("BYTES", f64::from(u8::from(x.dtype == DType::U8))),
        ];
        let source = Source::from(shader!("affine2d.wgsl")).with(shader!("shared/pixels.wgsl"));
        let (width, mut source) = match (x.dtype, *c) {
            (DType::U8, 3) => (1, source.with(shader!("shared/pixels_bytes.wgsl"))),
            (DType::F32, 3) if profile.u64_loads && (h * w).is_multiple_of(2) => {
                (2, source.with(shader!("shared/pixels_words.wgsl")))
            }
            _ => (1, source),
        };
        let mut slots = vec![Slot::input(0), Slot::input(io.inputs.len() - 1), Slot::output(0)];
        if let Some(rows) = rows {
            source = source.with(shader!("shared/pixels_rows.wgsl"));
            constants.push(("ROWS", *images as f64));
            constants.push(("FLOATS", f64::from(u8::from(rows.dtype == DType::F32))));
            slots.push(Slot::input(1));
        }
        let kernel = kernels::dispatch("affine2d", source, &constants, Grid::new(strips, 64), slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, width), kernel)]
    }

    fn field(&self, _io: &Io) -> Field {
        Field::Whole
    }

    fn cost(&self, io: &Io) -> Cost {
        let flops = if self.interpolation == Interpolation::Bilinear { 10 } else { 0 };
        let (y, read) = (io.outputs[0].shape.elements(), io.inputs[0].dtype.bytes() as u64);
        Cost { flops: y.times(flops), bytes: y.times(4 + read) }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Absolute(0.0)]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], exact: &[Array], _step: &Step) -> Vec<Array> {
        let largest = |a: &Array| a.data.iter().fold(0f64, |m, x| m.max(x.abs()));
        // Three roundings of a position, which a slope of twice the largest pixel makes into values along both axes.
        let reach = inputs.last().map_or(0.0, |maps| largest(maps)) * (self.size[0] + self.size[1] + 1) as f64;
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

    fn rewrite(&self, cx: &RewriteCx) -> Option<Patch> {
        let [_, maps] = cx.node().inputs[..] else { return None };
        let gather = cx.sole_producer(0)?;
        gather.op()?.downcast::<Gather>().filter(|g| g.dtype == DType::F32)?;
        cx.patch(*self, &[gather.inputs[0], gather.inputs[1], maps], &[cx.output(0)])
    }
}

impl Graph {
    /// Returns images (N, h, w, c) resampled by affine maps (N, 6); see [`Affine2d`]. No gradient passes.
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
    let (c, capacity, images) = (rng.pick(&[1, 2, 3, 3, 4]), rng.pick(&[1, 2, 5]), rng.pick(&[1, 2, 4]));
    let maps = (TensorType::f32([Batch, 6]), Fill::Uniform(-1.6, 1.6));
    // Two numbers past the end: images of zeros.
    let rows = (TensorType::new([Batch], rng.pick(&[DType::U32, DType::F32])), Fill::Index(images + 2));
    let table = |dtype, fill| (TensorType::new([images, h, w, c], dtype), fill);
    let inputs = match rng.below(4) {
        0 => vec![table(DType::F32, Fill::Uniform(-1.0, 1.0)), rows, maps],
        1 | 2 => vec![table(DType::U8, Fill::Index(256)), rows, maps],
        _ => vec![(TensorType::f32([Batch, h, w, c]), Fill::Uniform(-1.0, 1.0)), maps],
    };
    Sample::new(op, inputs, capacity).with_n(1 + rng.below(capacity))
}

fn bad(g: &mut Graph, maps: impl Into<Shape>, size: [usize; 2]) -> Result<Value, OpError> {
    let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
    let maps = g.input("maps", maps, DType::F32);
    let (interpolation, fill_mode) = (Interpolation::Bilinear, FillMode::Reflect);
    g.affine2d(x, maps, Affine2d { size, interpolation, fill_mode, fill_value: 0.0 })
}

/// Affine maps of images as a family.
pub static FAMILY: Family = Family {
    name: "affine2d",
    about: "images resampled by an affine map each: turned, moved, enlarged, mirrored, cut (Keras ops.image.affine_transform)",
    sample,
    benches: || {
        let how =
            |interpolation| Affine2d { size: [96, 96], interpolation, fill_mode: FillMode::Reflect, fill_value: 0.0 };
        let maps = (TensorType::f32([Batch, 6]), Fill::Uniform(-1.0, 1.0));
        let images = || vec![(TensorType::f32([Batch, 96, 96, 3]), Fill::Uniform(-1.0, 1.0)), maps.clone()];
        let rows = || {
            let table = (TensorType::new([64, 96, 96, 3], DType::U8), Fill::Index(256));
            vec![table, (TensorType::new([Batch], DType::U32), Fill::Index(64)), maps.clone()]
        };
        vec![
            ("nearest_n32_c3_96", Sample::new(how(Interpolation::Nearest), images(), 32)),
            ("bilinear_n32_c3_96", Sample::new(how(Interpolation::Bilinear), images(), 32)),
            ("nearest_u8_n32_c3_96", Sample::new(how(Interpolation::Nearest), rows(), 32)),
            ("bilinear_u8_n32_c3_96", Sample::new(how(Interpolation::Bilinear), rows(), 32)),
        ]
    },
    bad: &[
        Bad { what: "maps of eight numbers", build: |g| bad(g, [Batch, 8], [4, 4]) },
        Bad { what: "one map for all", build: |g| bad(g, [1, 6], [4, 4]) },
        Bad { what: "a side of nothing", build: |g| bad(g, [Batch, 6], [0, 4]) },
    ],
    equivalent: &[("starts a loop late at k", "the loop finds numbers that are not finite, which other tests have")],
    differentiable: false,
    gradcheck: 1e-6,
};
