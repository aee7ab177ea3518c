//! Where the largest element along an axis stands.

use super::reduce::{Reduce, ReduceKind};
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, rank},
};

/// Index of the largest element along an axis, the first of equal ones, as u32 (ONNX ArgMax, Keras `ops.argmax`).
#[derive(Debug, Clone, PartialEq)]
pub struct Argmax {
    /// The axis, which goes.
    pub axis: usize,
}

impl Argmax {
    fn reduction(&self) -> Reduce {
        Reduce { kind: ReduceKind::Max, axes: vec![self.axis], keep_dims: false }
    }
}

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn key(&self) -> String {
        format!("axis={}", self.axis)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let largest = self.reduction().infer(inputs).map_err(|e| OpError { op: "argmax".into(), ..e })?;
        Ok(largest.into_iter().map(|t| TensorType::new(t.shape, DType::U32)).collect())
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let (terms, inner) = (x.shape[self.axis], x.shape[self.axis + 1..].iter().product::<usize>());
        let mut shape = x.shape.clone();
        shape.remove(self.axis);
        vec![Array::from_fn(shape, |o| {
            let at = |k: usize| x.data[(o / inner * terms + k) * inner + o % inner];
            (1..terms).fold(0, |best, k| if rank(at(k)) > rank(at(best)) { k } else { best }) as f64
        })]
    }

    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (shape, elements) = (&io.inputs[0].shape, io.outputs[0].shape.elements());
        let terms = self.reduction().terms(shape);
        let constants = [
            ("ELEMENTS", elements.fixed as f64),
            ("PER_SAMPLE", elements.per_sample as f64),
            ("TERMS", terms.fixed as f64),
            ("TERMS_PER_SAMPLE", terms.per_sample as f64),
            ("INNER", shape.dims()[self.axis + 1..].iter().product::<usize>() as f64),
        ];
        let slots = vec![Slot::input(0), Slot::output(0)];
        let source = shader!("argmax.wgsl");
        let kernel = kernels::dispatch("argmax", source, &constants, Grid::new(elements, 64), slots, None);
        vec![Candidate::single(Schedule::of_width(Core::Lane, 1), kernel)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements(), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }
}

impl Graph {
    /// Returns the index (u32) of the largest element of `x` along `axis`, the first of equal ones; the axis goes. NaN is the
    /// largest, as in NumPy and PyTorch.
    pub fn argmax(&mut self, x: Value, axis: usize) -> Result<Value, OpError> {
        self.apply1(Argmax { axis }, &[x])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let rank = 1 + rng.below(4);
    let mut dims: Vec<usize> = (0..rank).map(|_| rng.pick(&[1, 2, 7, 10, 15, 16, 17])).collect();
    let axis = rng.below(rank);
    dims[axis] = rng.pick(&[1, 3, 10, 63, 64, 65]);
    if rng.below(4) > 0 {
        dims[0] = Batch;
    }
    let capacity = rng.pick(&[1, 2, 3, 5, 16, 33]);
    let n = 1 + rng.below(capacity);
    // Few different numbers, so that largest ones are equal and the first must be found.
    let fill = if rng.below(2) == 0 { Fill::Index(3) } else { Fill::Distinct };
    Sample::new(Argmax { axis }, vec![(TensorType::f32(dims), fill)], capacity).with_n(n)
}

/// Argmax as a family.
pub static FAMILY: Family = Family {
    name: "argmax",
    about: "index of the largest element along any axis, the first of equal ones; NaN is the largest (ONNX ArgMax, Keras ops.argmax)",
    sample,
    benches: || {
        let x = (TensorType::f32([Batch, 1000]), Fill::Distinct);
        vec![("n64_1000", Sample::new(Argmax { axis: 1 }, vec![x], 64))]
    },
    bad: &[
        Bad {
            what: "an axis that the tensor does not have",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                g.argmax(x, 2)
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::U8);
                g.argmax(x, 1)
            },
        },
    ],
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};
