//! Numbers that a graph knows.

use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Dispatch, Epilogue, Family, Gradients, Graph, Grid, Io, Op, OpError,
        Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Count, Philox, Shape},
};

/// A small tensor of given numbers: means and scales of channels and the like.
#[derive(Debug, Clone, PartialEq)]
pub struct Literal {
    /// The extents.
    pub shape: Vec<usize>,
    /// The numbers, row-major.
    pub values: Vec<f32>,
}

/// Numbers at most; a launch has them as its extents, and kernels read them as a uniform buffer.
const MOST: usize = 4096;

impl Op for Literal {
    fn name(&self) -> &'static str {
        "literal"
    }

    fn key(&self) -> String {
        format!("{:?} {:?}", self.shape, self.values)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if !inputs.is_empty() || elements != Some(self.values.len()) || !(1..=MOST).contains(&self.values.len()) {
            let wanted = format!("1 to {MOST} numbers, as many as {:?} has", self.shape);
            return Err(OpError::new("literal", wanted, self.values.len(), "keep larger tensors as states"));
        }
        if !self.values.iter().all(|v| v.is_finite()) {
            return Err(OpError::new("literal", "finite numbers", "one that is not", "give other numbers"));
        }
        Ok(vec![TensorType::f32(Shape::fixed(self.shape.clone()))])
    }

    fn reference(&self, _inputs: &[&Array], _step: &Step) -> Vec<Array> {
        vec![Array::from_fn(self.shape.clone(), |i| f64::from(self.values[i]))]
    }

    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(Vec::new())
    }

    fn lower(&self, _io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let n = self.values.len();
        let vectors = n.div_ceil(4);
        let source = format!(
            "@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> values: array<vec4<u32>, {vectors}>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i >= {n}u) {{ return; }}
    y[i] = epilogue(bitcast<f32>(values[i / 4u][i % 4u]), i);
}}
"
        );
        let grid = Grid::new(Count { fixed: n as u64, per_sample: 0 }, 64);
        let slots = vec![Slot::output(0), Slot::Extents];
        let launch = kernels::dispatch("literal", source, &[], grid, slots, epilogue);
        let values = self.values.iter().map(|v| v.to_bits()).chain(std::iter::repeat(0)).take(4 * vectors);
        let extents = values.enumerate().map(|(i, bits)| (format!("v{i}"), bits)).collect();
        vec![Candidate::single(Schedule::of_width(Core::Elements, 1), Dispatch { extents, ..launch })]
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
    /// Returns a tensor of given numbers, at most 4,096.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let mut g = Graph::new();
    /// let mean = g.literal([3], [0.485, 0.456, 0.406])?;
    /// assert_eq!(g.ty(mean).to_string(), "f32(3)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn literal(&mut self, shape: impl Into<Vec<usize>>, values: impl Into<Vec<f32>>) -> Result<Value, OpError> {
        self.apply1(Literal { shape: shape.into(), values: values.into() }, &[])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let shape = vec![rng.pick(&[1, 2, 3]), rng.pick(&[1, 3, 16, 63, 64, 65])];
    let values = (0..shape[0] * shape[1]).map(|_| rng.uniform(-4.0, 4.0) as f32).collect();
    Sample::new(Literal { shape, values }, Vec::new(), 1)
}

/// Literals as a family.
pub static FAMILY: Family = Family {
    name: "literal",
    about: "a small tensor of given numbers (ONNX Constant)",
    sample,
    benches: || {
        let values = vec![0.5; 1024];
        vec![("1024", Sample::new(Literal { shape: vec![1024], values }, Vec::new(), 1))]
    },
    bad: &[
        Bad { what: "numbers that do not fill the shape", build: |g| g.literal([2, 2], [1.0, 2.0, 3.0]) },
        Bad { what: "no number", build: |g| g.literal([1], [f32::INFINITY]) },
        Bad { what: "too many numbers", build: |g| g.literal([5000], vec![0.0; 5000]) },
    ],
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};
