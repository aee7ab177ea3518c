//! Boxes that no better box of their class overlaps.

use crate::kernels::{Source, shader};
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Field, Fill, Gradients, Graph, Grid, Io, Op, OpError,
        Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape, rank},
};

/// For each sample and class up to `max` boxes by falling score, without those that overlap a better one: boxes (N, b, 4)
/// and scores (N, c, b) → rows (N, c·max, 3) of sample, class and box, −1 where there are fewer (ONNX NonMaxSuppression,
/// which leaves these out). Of equal scores the first counts as better; NaN is no score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NonMaxSuppression {
    /// The most boxes of a sample and class.
    pub max: usize,
    /// The share of the union of two boxes that their intersection may have, from 0 to 1.
    pub iou_threshold: f32,
    /// What scores must be above.
    pub score_threshold: Option<f32>,
    /// Whether boxes are centre and size (x, y, w, h) instead of two corners.
    pub center: bool,
}

/// Lanes of a workgroup.
const LANES: usize = 64;
/// The most boxes of a sample: their bits are in workgroup memory.
const MAX_BOXES: usize = 1 << 16;

/// Returns what a device has of a number: 32 bits, and 0 below the smallest normal one. Decisions about whole rows follow.
fn held(x: f64) -> f64 {
    let x = x as f32;
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { f64::from(x) }
}

fn area([left, top, right, bottom]: [f64; 4]) -> f64 {
    held(held(right - left).max(0.0) * held(bottom - top).max(0.0))
}

impl NonMaxSuppression {
    /// Returns low and high corner of a box, of one that reaches beyond 2⁶⁰ a point.
    fn corners(&self, v: &[f64]) -> [f64; 4] {
        match *v {
            [a, b, w, h] if v.iter().all(|x| x.abs() <= 2f64.powi(60)) => match self.center {
                true => [held(a - w * 0.5), held(b - h * 0.5), held(a + w * 0.5), held(b + h * 0.5)],
                false => [a.min(w), b.min(h), a.max(w), b.max(h)],
            },
            _ => [0.0; 4],
        }
    }

    fn overlap(&self, a: [f64; 4], b: [f64; 4]) -> bool {
        let common = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
        common > held(f64::from(self.iou_threshold) * held(held(area(a) + area(b)) - common))
    }

    /// Returns samples, classes and boxes.
    fn sizes<'t>(&self, inputs: &'t [TensorType]) -> Option<(&'t Shape, usize, usize)> {
        let [boxes, scores] = inputs else { return None };
        let (&[n, b, 4], &[m, c, d]) = (boxes.shape.dims(), scores.shape.dims()) else { return None };
        let alike = boxes.shape.is_batched() == scores.shape.is_batched() && n == m && b == d;
        let floats = boxes.dtype == DType::F32 && scores.dtype == DType::F32;
        (alike && floats && n > 0 && c > 0 && (1..=MAX_BOXES).contains(&b)).then_some((&scores.shape, c, b))
    }
}

impl Op for NonMaxSuppression {
    fn name(&self) -> &'static str {
        "non_max_suppression"
    }

    fn key(&self) -> String {
        format!("max={} iou={:?} score={:?} center={}", self.max, self.iou_threshold, self.score_threshold, self.center)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let Some((shape, classes, boxes)) = self.sizes(inputs) else {
            let got: Vec<String> = inputs.iter().map(ToString::to_string).collect();
            let wanted = format!("f32 boxes (N, b, 4) and f32 scores (N, classes, b), b up to {MAX_BOXES}");
            return Err(OpError::new(self.name(), wanted, got.join(", "), "keep the best boxes, by `top_k`"));
        };
        let thresholds = (0.0..=1.0).contains(&self.iou_threshold) && self.score_threshold.is_none_or(|t| !t.is_nan());
        if !thresholds || !(1..=boxes).contains(&self.max) {
            let wanted = format!("1 to {boxes} boxes, an iou_threshold from 0 to 1 and scores above a number");
            return Err(OpError::new(self.name(), wanted, self.key(), "ask for no more boxes than there are"));
        }
        Ok(vec![TensorType::f32(shape.with_row(&[classes * self.max, 3]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (boxes, scores) = (inputs[0], inputs[1]);
        let &[n, c, b] = &scores.shape[..] else { return Vec::new() };
        let mut rows = vec![-1.0; n * c * self.max * 3];
        for (of, kept_rows) in rows.chunks_mut(self.max * 3).enumerate() {
            let (sample, own) = (of / c, &scores.data[of * b..][..b]);
            let corners = |i: usize| self.corners(&boxes.data[(sample * b + i) * 4..][..4]);
            let is_open = |i: &usize| !own[*i].is_nan() && self.score_threshold.is_none_or(|t| own[*i] > f64::from(t));
            let mut order: Vec<usize> = (0..b).filter(is_open).collect();
            order.sort_by_key(|&i| std::cmp::Reverse(rank(own[i])));
            let mut kept: Vec<usize> = Vec::new();
            for i in order {
                if kept.len() < self.max && !kept.iter().any(|&k| self.overlap(corners(k), corners(i))) {
                    kept.push(i);
                }
            }
            for (row, &i) in kept_rows.chunks_mut(3).zip(&kept) {
                row.copy_from_slice(&[sample as f64, (of % c) as f64, i as f64]);
            }
        }
        vec![Array { shape: vec![n, c * self.max, 3], data: rows }]
    }

    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None, None])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Some((shape, classes, boxes)) = self.sizes(&io.inputs) else { return Vec::new() };
        let (samples, per_sample) = if shape.is_batched() { (0, shape.dims()[0]) } else { (shape.dims()[0], 0) };
        let least = self.score_threshold.map_or(-2_139_095_041, |t| {
            let size = i64::from(t.to_bits() & 0x7fff_ffff);
            if t < 0.0 { -size } else { size }
        });
        let constants = [
            ("SAMPLES", samples as f64),
            ("PER_SAMPLE", per_sample as f64),
            ("CLASSES", classes as f64),
            ("BOXES", boxes as f64),
            ("K", self.max as f64),
            ("LEAST", least as f64),
            ("IOU", f64::from(self.iou_threshold)),
            ("CENTER", f64::from(u8::from(self.center))),
        ];
        let words = boxes.div_ceil(LANES * 32) * LANES;
        let source = Source::from(shader!("non_max_suppression.wgsl")).constant("WORDS", words);
        let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let grid = Grid::new(shape.with_row(&[classes]).elements(), 1);
        let kernel = kernels::dispatch("non_max_suppression", source, &constants, grid, slots, None);
        vec![Candidate::single(Schedule::of_width(Core::Group, 1), kernel)]
    }

    fn field(&self, _io: &Io) -> Field {
        Field::Whole
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[1].shape.elements().times(16 * self.max as u64), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }
}

impl Graph {
    /// Returns which boxes of boxes (N, b, 4) and scores (N, classes, b) remain, as rows (N, classes·max, 3) of sample, class and
    /// box; see [`NonMaxSuppression`].
    pub fn non_max_suppression(
        &mut self,
        boxes: Value,
        scores: Value,
        options: NonMaxSuppression,
    ) -> Result<Value, OpError> {
        self.apply1(options, &[boxes, scores])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let boxes = rng.pick(&[1, 2, 7, 15, 63, 64, 65, 130]);
    let classes = rng.pick(&[1, 1, 2, 3]);
    let first = if rng.below(4) > 0 { Batch } else { rng.pick(&[1, 2, 3]) };
    let capacity = rng.pick(&[1, 2, 3, 5]);
    let n = 1 + rng.below(capacity);
    // Corners on a grid: areas and these shares of them are exact, and many scores are equal.
    let op = NonMaxSuppression {
        max: 1 + rng.below(boxes.min(12)),
        iou_threshold: rng.pick(&[0.0, 0.25, 0.5, 0.75, 1.0]),
        score_threshold: rng.pick(&[None, Some(0.0), Some(3.0), Some(-0.5)]),
        center: rng.below(2) == 0,
    };
    let scores = if rng.below(2) == 0 { Fill::Index(9) } else { Fill::Distinct };
    let inputs =
        vec![(TensorType::f32([first, boxes, 4]), Fill::Index(12)), (TensorType::f32([first, classes, boxes]), scores)];
    Sample::new(op, inputs, capacity).with_n(n)
}

const PLAIN: NonMaxSuppression = NonMaxSuppression { max: 2, iou_threshold: 0.5, score_threshold: None, center: false };

/// Non-maximum suppression as a family.
pub static FAMILY: Family = Family {
    name: "non_max_suppression",
    about: "which boxes of each sample and class no better one overlaps, by falling score (ONNX NonMaxSuppression, torchvision ops.nms)",
    sample,
    benches: || {
        let boxes = (TensorType::f32([Batch, 8400, 4]), Fill::Uniform(0.0, 640.0));
        let scores = (TensorType::f32([Batch, 1, 8400]), Fill::Uniform(0.0, 1.0));
        let op = NonMaxSuppression { max: 100, score_threshold: Some(0.25), ..PLAIN };
        vec![("n1_8400_100", Sample::new(op, vec![boxes, scores], 1))]
    },
    bad: &[
        Bad {
            what: "scores of other boxes",
            build: |g| {
                let boxes = g.input("boxes", [Batch, 5, 4], DType::F32);
                let scores = g.input("scores", [Batch, 1, 6], DType::F32);
                g.non_max_suppression(boxes, scores, PLAIN)
            },
        },
        Bad {
            what: "more boxes than there are",
            build: |g| {
                let boxes = g.input("boxes", [Batch, 1, 4], DType::F32);
                let scores = g.input("scores", [Batch, 1, 1], DType::F32);
                g.non_max_suppression(boxes, scores, PLAIN)
            },
        },
        Bad {
            what: "a share above 1",
            build: |g| {
                let boxes = g.input("boxes", [Batch, 5, 4], DType::F32);
                let scores = g.input("scores", [Batch, 1, 5], DType::F32);
                g.non_max_suppression(boxes, scores, NonMaxSuppression { iou_threshold: 1.5, ..PLAIN })
            },
        },
    ],
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};
