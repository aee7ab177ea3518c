//! Whether the right class is among the likeliest, for each row.

use super::arity::arity;
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape, rank},
};

/// Accuracy of classes (Keras): scores (N, C) and labels → f32 (N), 1 where the label's score is among the `k` largest,
/// equal ones by their place. NaN is the largest score; a label whose own score is NaN or −∞ is among none.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoricalAccuracy {
    /// Whether labels are class numbers (N) instead of one-hot rows (N, C).
    pub sparse: bool,
    /// How many of the largest scores count.
    pub k: usize,
}

/// Returns whether the score at `at` is among the `k` largest of a row.
fn among(row: &[f64], at: usize, k: usize) -> bool {
    let v = rank(row[at]);
    let before = row.iter().enumerate().filter(|(c, x)| rank(**x) > v || (rank(**x) == v && *c < at)).count();
    row[at] >= f64::from(f32::MIN) && before < k
}

fn first_largest(row: &[f64]) -> usize {
    (1..row.len()).fold(0, |best, c| if rank(row[c]) > rank(row[best]) { c } else { best })
}

impl Op for CategoricalAccuracy {
    fn name(&self) -> &'static str {
        if self.sparse { "sparse_categorical_accuracy" } else { "categorical_accuracy" }
    }

    fn key(&self) -> String {
        format!("k={}", self.k)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, labels] = arity(self.name(), inputs, "pass the scores and the labels")?;
        if x.shape.rank() < 2 || x.dtype != DType::F32 || x.shape.dims().contains(&0) {
            return Err(OpError::new(self.name(), "f32 scores (N, C)", x, "pass a row of scores for each sample"));
        }
        if self.k == 0 {
            return Err(OpError::new(self.name(), "k of at least 1", 0, "take 1 for the likeliest class alone"));
        }
        let dims = &x.shape.dims()[1..x.shape.rank() - 1];
        let rows = x.shape.with_row(dims);
        let fits = if self.sparse {
            labels.shape == rows && matches!(labels.dtype, DType::U8 | DType::I32 | DType::U32)
        } else {
            *labels == *x
        };
        if !fits {
            let wanted = if self.sparse { format!("whole numbers {rows}") } else { format!("one-hot rows {x}") };
            let advice = "class numbers go to sparse_categorical_accuracy, one-hot rows to categorical_accuracy";
            return Err(OpError::new(self.name(), format!("labels: {wanted}"), labels, advice));
        }
        Ok(vec![TensorType::f32(rows)])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (x, labels) = (inputs[0], inputs[1]);
        let (&classes, rows) = x.shape.split_last().unwrap_or((&1, &[]));
        vec![Array::from_fn(rows, |r| {
            let at = r * classes..(r + 1) * classes;
            let label = if self.sparse { labels.data[r] as usize } else { first_largest(&labels.data[at.clone()]) };
            f64::from(u8::from(label < classes && among(&x.data[at], label, self.k)))
        })]
    }

    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None, None])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let rows = io.outputs[0].shape.elements();
        let mut constants = vec![
            ("FIXED", rows.fixed as f64),
            ("PER_SAMPLE", rows.per_sample as f64),
            ("CLASSES", io.inputs[0].shape.last() as f64),
            ("K", self.k as f64),
        ];
        let source = if self.sparse {
            constants.push(("BYTES", f64::from(u8::from(io.inputs[1].dtype == DType::U8))));
            shader!("sparse_categorical_accuracy.wgsl")
        } else {
            shader!("categorical_accuracy.wgsl")
        };
        let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let grid = Grid::new(rows, 64);
        let dispatch = kernels::dispatch(self.name(), source, &constants, grid, slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Lane, 1), dispatch)]
    }

    fn cost(&self, io: &Io) -> Cost {
        let bytes = io.inputs.iter().chain(&io.outputs).fold(Count::default(), |sum, t| {
            let b = t.shape.elements().times(t.dtype.bytes() as u64);
            Count { fixed: sum.fixed + b.fixed, per_sample: sum.per_sample + b.per_sample }
        });
        Cost { flops: io.inputs[0].shape.elements(), bytes }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns f32 (N): 1 where the first largest of `scores` (N, C) stands at the class number in `labels` (N).
    pub fn sparse_categorical_accuracy(&mut self, scores: Value, labels: Value) -> Result<Value, OpError> {
        self.apply1(CategoricalAccuracy { sparse: true, k: 1 }, &[scores, labels])
    }

    /// Returns f32 (N): 1 where the score of the label is among the `k` largest of `scores` (N, C); labels are class
    /// numbers (N), or rows (N, C) whose first largest number is the label's.
    pub fn top_k_accuracy(&mut self, scores: Value, labels: Value, k: usize) -> Result<Value, OpError> {
        let sparse = self.ty(labels).dtype != DType::F32;
        let k = k.min(self.shape(scores).last());
        self.apply1(CategoricalAccuracy { sparse, k }, &[scores, labels])
    }

    /// Returns f32 (N): 1 where the first largest of `scores` (N, C) stands where that of `labels` (N, C) does.
    pub fn categorical_accuracy(&mut self, scores: Value, labels: Value) -> Result<Value, OpError> {
        self.apply1(CategoricalAccuracy { sparse: false, k: 1 }, &[scores, labels])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let capacity = rng.pick(&[1, 7, 15, 16, 17, 33, 63, 64, 65, 100]);
    let n = 1 + rng.below(capacity);
    let classes = rng.pick(&[1, 2, 3, 5, 7, 10, 15, 16, 17, 63, 64, 65]);
    let x = match rng.below(4) {
        0 => Shape::from([Batch, rng.pick(&[2, 3, 5]), classes]),
        1 => Shape::fixed([rng.pick(&[7, 15, 16, 17, 63, 65]), classes]),
        _ => Shape::from([Batch, classes]),
    };
    let rows = x.with_row(&x.dims()[1..x.rank() - 1]);
    let sparse = rng.below(3) > 0;
    let labels = if sparse {
        let dtype = rng.pick(&[DType::U8, DType::I32, DType::U32]);
        // Now and then a label that is no class.
        (TensorType::new(rows, dtype), Fill::Index(classes + classes / 10))
    } else {
        // Shares too, of which several may be largest.
        (TensorType::f32(x.clone()), if capacity.is_multiple_of(2) { Fill::OneHot } else { Fill::Index(3) })
    };
    // Few different scores, so that largest ones are equal and the first must be found.
    let fill = if rng.below(2) == 0 { Fill::Index(3) } else { Fill::Distinct };
    let k = rng.pick(&[1, 1, 2, 5]);
    Sample::new(CategoricalAccuracy { sparse, k }, vec![(TensorType::f32(x), fill), labels], capacity).with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let scores = (TensorType::f32([Batch, 10]), Fill::Distinct);
    let labels = (TensorType::new([Batch], DType::U32), Fill::Index(10));
    vec![("n64_10", Sample::new(CategoricalAccuracy { sparse: true, k: 1 }, vec![scores, labels], 64))]
}

/// The accuracies of classes as a family.
pub static FAMILY: Family = Family {
    name: "accuracy",
    about: "1 where the label's score is among the k largest (Keras SparseCategoricalAccuracy, TopKCategoricalAccuracy)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "one-hot labels for class numbers",
            build: |g| {
                let (x, t) = (g.input("x", [Batch, 3], DType::F32), g.input("t", [Batch, 3], DType::F32));
                g.sparse_categorical_accuracy(x, t)
            },
        },
        Bad {
            what: "class numbers for one-hot labels",
            build: |g| {
                let (x, t) = (g.input("x", [Batch, 3], DType::F32), g.input("t", [Batch], DType::U32));
                g.categorical_accuracy(x, t)
            },
        },
        Bad {
            what: "scores without classes",
            build: |g| {
                let (x, t) = (g.input("x", [Batch], DType::F32), g.input("t", [Batch], DType::U32));
                g.sparse_categorical_accuracy(x, t)
            },
        },
    ],
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};
