//! Whether the likeliest class is the right one, for each row.

use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fault, Fill, Graph, Grid, Io, Op, OpError, Sample, Slot,
        Step, TensorType, Value,
    },
    kernels,
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape},
};

/// Accuracy of classes (Keras): scores (N, C) and labels → f32 (N), 1 where the first largest score is the label's.
#[derive(Debug, Clone, PartialEq)]
pub struct CategoricalAccuracy {
    /// Whether labels are class numbers (N) instead of one-hot rows (N, C).
    pub sparse: bool,
}

fn first_largest(row: &[f64]) -> usize {
    (1..row.len()).fold(0, |best, c| if row[c] > row[best] { c } else { best })
}

impl Op for CategoricalAccuracy {
    fn name(&self) -> &'static str {
        if self.sparse { "sparse_categorical_accuracy" } else { "categorical_accuracy" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, labels] = inputs else {
            return Err(OpError::new(self.name(), "2 inputs", inputs.len(), "pass the scores and the labels"));
        };
        if x.shape.rank() < 2 || x.dtype != DType::F32 || x.shape.dims().contains(&0) {
            return Err(OpError::new(self.name(), "f32 scores (N, C)", x, "pass a row of scores for each sample"));
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
            let label = if self.sparse { labels.data[r] } else { first_largest(&labels.data[at.clone()]) as f64 };
            f64::from(u8::from(first_largest(&x.data[at]) as f64 == label))
        })]
    }

    fn vjp(
        &self,
        _g: &mut Graph,
        _inputs: &[Value],
        _outputs: &[Value],
        _dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        Ok(vec![None, None])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let rows = io.outputs[0].shape.elements();
        let mut constants = vec![
            ("FIXED", rows.fixed as f64),
            ("PER_SAMPLE", rows.per_sample as f64),
            ("CLASSES", io.inputs[0].shape.last() as f64),
        ];
        let source = if self.sparse {
            constants.push(("BYTES", f64::from(u8::from(io.inputs[1].dtype == DType::U8))));
            include_str!("../../shaders/sparse_categorical_accuracy.wgsl")
        } else {
            include_str!("../../shaders/categorical_accuracy.wgsl")
        };
        let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let grid = Grid::new(rows, 64);
        let turns = Count { fixed: 2 * io.inputs[0].shape.last() as u64, per_sample: 0 };
        let dispatch = kernels::dispatch(self.name(), source, &constants, grid, slots, epilogue).turns(turns, 1);
        vec![Candidate::single("rows", dispatch)]
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
        self.apply1(CategoricalAccuracy { sparse: true }, &[scores, labels])
    }

    /// Returns f32 (N): 1 where the first largest of `scores` (N, C) stands where that of `labels` (N, C) does.
    pub fn categorical_accuracy(&mut self, scores: Value, labels: Value) -> Result<Value, OpError> {
        self.apply1(CategoricalAccuracy { sparse: false }, &[scores, labels])
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
        (TensorType::new(rows, dtype), Fill::Index(classes))
    } else {
        (TensorType::f32(x.clone()), Fill::OneHot)
    };
    // Few different scores, so that largest ones are equal and the first must be found.
    let fill = if rng.below(2) == 0 { Fill::Index(3) } else { Fill::Distinct };
    Sample::new(CategoricalAccuracy { sparse }, vec![(TensorType::f32(x), fill), labels], capacity).with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let scores = (TensorType::f32([Batch, 10]), Fill::Distinct);
    let labels = (TensorType::new([Batch], DType::U32), Fill::Index(10));
    vec![("n64_10", Sample::new(CategoricalAccuracy { sparse: true }, vec![scores, labels], 64))]
}

/// The accuracies of classes as a family.
pub static FAMILY: Family = Family {
    name: "accuracy",
    about: "1 where the first largest score is the label's (Keras SparseCategoricalAccuracy, CategoricalAccuracy)",
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
    faults: &[
        Fault { what: "finds the last largest", from: "if (v > best)", to: "if (v >= best)" },
        Fault { what: "drops the last class", from: "c < CLASSES;", to: "c + 1u < CLASSES;" },
        Fault { what: "takes the wrong byte", from: "((row & 3u) * 8u)", to: "((row & 1u) * 8u)" },
        Fault { what: "skips the last row", from: "* step.n) { return; }", to: "* step.n - 1u) { return; }" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};
