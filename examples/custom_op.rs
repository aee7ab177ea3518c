//! An operation that Hubel does not have, with kernel, definition and gradient, tested and trained like its own.
//!
//! `cargo run --release --example custom_op` first runs the tests of the crate's own operations on it
//! (`hubel::testing`, feature `testing`), then trains a small network with it.
//!
//! The operation is the squash of capsule networks (Sabour, Frosst, Hinton 2017, equation 1), over the last axis:
//! y = x · |x| / (1 + |x|²). With s = |x|² + ε and f = √s / (1 + s), y = f·x and
//! dx = f·dy + (x·dy) · x · (1 − s) / (√s · (1 + s)²).

use anyhow::Result;
use hubel::{
    graph::{
        Bad, Candidate, DeviceProfile, Epilogue, Family, Fill, Gradients, Grid, Io, Op, OpError, Sample, Slot, Step,
        TensorType,
    },
    kernels,
    layers::*,
    losses::*,
    metrics::*,
    nn::Scope,
    optimizers::*,
    prelude::*,
    tensor::Accuracy as Error,
    tensor::{Array, Philox, UNIT},
    testing,
};

const EPSILON: f64 = 1e-7;

/// One kernel for both directions: an invocation computes a row of C elements.
const WGSL: &str = "
override C: u32;
override ROWS: u32;
override ROWS_PER_SAMPLE: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = (id.x + id.y * counts.x) * 64u + lane;
    if (row >= ROWS + ROWS_PER_SAMPLE * step.n) { return; }
    var s = 1e-7;
    var product = 0.0;
    for (var i = row * C; i < (row + 1u) * C; i++) {
        s += x[i] * x[i];
        product += x[i] * dy[i];
    }
    let f = sqrt(s) / (1.0 + s);
    let slope = product * (1.0 - s) / (sqrt(s) * (1.0 + s) * (1.0 + s));
    for (var i = row * C; i < (row + 1u) * C; i++) {
        y[i] = f * dy[i] + slope * x[i];
    }
}
";

fn squares(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>() + EPSILON
}

fn kernel(name: &str, io: &Io, source: &str, slots: Vec<Slot>) -> Vec<Candidate> {
    let shape = &io.inputs[0].shape;
    let rows = shape.rows();
    let constants =
        [("C", shape.last() as f64), ("ROWS", rows.fixed as f64), ("ROWS_PER_SAMPLE", rows.per_sample as f64)];
    let dispatch = kernels::dispatch(name, source, &constants, Grid::new(rows, 64), slots, None);
    vec![Candidate::single("rows", dispatch)]
}

/// y = x · |x| / (1 + |x|²) over the last axis.
#[derive(Debug)]
struct Squash;

impl Op for Squash {
    fn name(&self) -> &'static str {
        "squash"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        match inputs {
            [x] if x.dtype == F32 && x.shape.rank() > 0 => Ok(vec![x.clone()]),
            [x] => Err(OpError::new("squash", "an f32 tensor with a last axis", x, "reshape it, or gather it as f32")),
            _ => Err(OpError::new("squash", "1 input", inputs.len(), "pass the capsules")),
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let mut y = inputs[0].clone();
        for row in y.data.chunks_mut(y.shape.last().copied().unwrap_or(1).max(1)) {
            let s = squares(row);
            row.iter_mut().for_each(|x| *x *= s.sqrt() / (1.0 + s));
        }
        vec![y]
    }

    fn vjp(&self, g: &mut Graph, x: &[Value], _y: &[Value], dy: &[Option<Value>]) -> Gradients {
        Ok(vec![match dy[0] {
            Some(dy) => Some(g.apply1(SquashGrad, &[x[0], dy])?),
            None => None,
        }])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        // The first term of the gradient, with x instead of dy.
        let source = WGSL
            .replace("@group(0) @binding(2) var<storage, read> dy: array<f32>;\n", "")
            .replace("@binding(3)", "@binding(2)")
            .replace("    var product = 0.0;\n", "")
            .replace("        product += x[i] * dy[i];\n", "")
            .replace("    let slope = product * (1.0 - s) / (sqrt(s) * (1.0 + s) * (1.0 + s));\n", "")
            .replace("f * dy[i] + slope * x[i]", "f * x[i]");
        kernel("squash", io, &source, vec![Slot::input(0), Slot::output(0)])
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Error> {
        vec![Error::Relative(64.0 * UNIT)]
    }
}

/// The gradient of [`Squash`] to its input.
#[derive(Debug)]
struct SquashGrad;

impl Op for SquashGrad {
    fn name(&self) -> &'static str {
        "squash_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        match inputs {
            [x, dy] if x == dy => Squash.infer(&inputs[..1]),
            _ => Err(OpError::new("squash_grad", "2 equal types", inputs.len(), "pass the capsules and the gradient")),
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (x, mut dx) = (inputs[0], inputs[1].clone());
        let c = x.shape.last().copied().unwrap_or(1).max(1);
        for (x, dy) in x.data.chunks(c).zip(dx.data.chunks_mut(c)) {
            let s = squares(x);
            let product: f64 = x.iter().zip(dy.iter()).map(|(x, dy)| x * dy).sum();
            let slope = product * (1.0 - s) / (s.sqrt() * (1.0 + s).powi(2));
            dy.iter_mut().zip(x).for_each(|(dy, x)| *dy = s.sqrt() / (1.0 + s) * *dy + slope * x);
        }
        vec![dx]
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        kernel("squash_grad", io, WGSL, vec![Slot::input(0), Slot::input(1), Slot::output(0)])
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Error> {
        vec![Error::Absolute(1e-5)]
    }
}

fn capsules(rng: &mut Philox) -> (TensorType, usize) {
    let capacity = rng.pick(&[1, 2, 3, 17, 65]);
    let shape = Shape::batched(1, &[rng.pick(&[1, 3, 7]), rng.pick(&[1, 2, 8, 15, 16, 17, 63])]);
    (TensorType::f32(shape), capacity)
}

/// The operation in the form of the crate's list.
pub static SQUASH: Family = Family {
    name: "squash",
    about: "squash of capsule networks over the last axis (Sabour, Frosst, Hinton 2017)",
    sample: |rng| {
        let (ty, capacity) = capsules(rng);
        Sample::new(Squash, vec![(ty, Fill::Away(0.05, 1.0))], capacity)
    },
    benches: Vec::new,
    bad: &[Bad {
        what: "no axes",
        build: |g| {
            let x = g.input("x", Shape::scalar(), F32);
            g.apply1(Squash, &[x])
        },
    }],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient in the form of the crate's list.
pub static SQUASH_GRAD: Family = Family {
    name: "squash_grad",
    about: "gradient of squash",
    sample: |rng| {
        let (ty, capacity) = capsules(rng);
        Sample::new(SquashGrad, vec![(ty.clone(), Fill::Away(0.05, 1.0)), (ty, Fill::Uniform(-1.0, 1.0))], capacity)
    },
    benches: Vec::new,
    bad: &[Bad {
        what: "a gradient of another shape",
        build: |g| {
            let (x, dy) = (g.input("x", [Batch, 4], F32), g.input("dy", [Batch, 5], F32));
            g.apply1(SquashGrad, &[x, dy])
        },
    }],
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};

/// The layer for models.
#[derive(Debug)]
struct SquashLayer;

impl Layer for SquashLayer {
    fn kind(&self) -> &'static str {
        "Squash"
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        scope.graph.apply(Squash, inputs)
    }
}

#[allow(dead_code, reason = "the tests include this file for its operations")]
fn main() -> Result<()> {
    env_logger::init();
    let engine = Engine::new()?;
    println!("{}", engine.info());
    for family in [&SQUASH, &SQUASH_GRAD] {
        testing::check_family(&engine, family)?;
        println!("{}: kernels, faults, bad cases and gradients as they must be", family.name);
    }
    let mnist = data::mnist("examples/data/mnist")?;
    let model = Sequential::new([28, 28, 1])
        .add(Flatten::new())
        .add(Dense::new(64))
        .add(SquashLayer)
        .add(Dense::new(10).activation(Softmax))
        .build()?;
    println!("{}", model.summary());
    let config = Compile::new(Adam::new(3e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let mut trainer = model.compile(&engine, config)?;
    let history = trainer.fit(&mnist.train.take(10_000), Fit::epochs(2).batch(64).validation(&mnist.test))?;
    println!("accuracy on the test images: {:.1}%", 100.0 * history.last("val_accuracy").unwrap_or_default());
    Ok(())
}
