//! The same elements under another shape: no kernel, the planner gives both the same memory.

use super::arity::arity;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Io, Op, OpError, Sample, Step,
        TensorType, Value,
    },
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape},
};

/// Reshape (ONNX): row-major order is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Reshape {
    /// The new shape.
    pub shape: Shape,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn key(&self) -> String {
        self.shape.to_string()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity("reshape", inputs, "pass the tensor to reshape")?;
        if x.shape.elements() != self.shape.elements() {
            let advice = "choose extents with the same product";
            return Err(OpError::new("reshape", format!("as many elements as {}", self.shape), &x.shape, advice));
        }
        Ok(vec![TensorType { shape: self.shape.clone(), dtype: x.dtype }])
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        vec![Array { shape: self.shape.at(step.n), data: inputs[0].data.clone() }]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let shape = g.shape(inputs[0]).clone();
        Ok(vec![dy[0].map(|dy| g.reshape(dy, shape)).transpose()?])
    }

    fn lower(&self, _io: &Io, _profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        Vec::new()
    }

    fn cost(&self, _io: &Io) -> Cost {
        Cost::default()
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn view(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns the elements of `x`, in order, under another shape.
    pub fn reshape(&mut self, x: Value, shape: impl Into<Shape>) -> Result<Value, OpError> {
        let shape = shape.into();
        if *self.shape(x) == shape { Ok(x) } else { self.apply1(Reshape { shape }, &[x]) }
    }

    /// Returns `x` with all axes but the first made one (Keras `Flatten`).
    pub fn flatten(&mut self, x: Value) -> Result<Value, OpError> {
        let shape = self.shape(x);
        let flat = shape.with_row(&[shape.row()]);
        self.reshape(x, flat)
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let (a, b) = (rng.pick(&[1, 3, 7, 16]), rng.pick(&[1, 4, 5, 17]));
    let capacity = rng.pick(&[1, 2, 5]);
    let input = TensorType::f32([Batch, a, b]);
    let n = 1 + rng.below(capacity);
    Sample::new(Reshape { shape: Shape::from([Batch, a * b]) }, vec![(input, Fill::Uniform(-1.0, 1.0))], capacity)
        .with_n(n)
}

/// Reshape as a family.
pub static FAMILY: Family = Family {
    name: "reshape",
    about: "the same elements under another shape, without a kernel (ONNX Reshape, Keras Flatten)",
    sample,
    benches: Vec::new,
    bad: &[Bad {
        what: "another number of elements",
        build: |g| {
            let x = g.input("x", [Batch, 6], DType::F32);
            g.reshape(x, [Batch, 4])
        },
    }],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
