//! Softmax and its logarithm over the last axis.

use super::arity::arity;
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceClass, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op,
        OpError, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape, UNIT, maximum, ulp},
};

/// Softmax over the last axis, exp(x) / Σ exp(x), or its logarithm (Keras, ONNX Softmax and LogSoftmax).
#[derive(Debug, Clone, PartialEq)]
pub struct Softmax {
    /// Whether the logarithm is given.
    pub log: bool,
}

/// Refuses what has no fixed last axis of f32.
pub(super) fn check_rows(op: &str, x: &TensorType) -> Result<(), OpError> {
    let fixed_last = x.shape.rank() > usize::from(x.shape.is_batched());
    if x.dtype == DType::F32 && fixed_last && x.shape.last() > 0 {
        return Ok(());
    }
    Err(OpError::new(op, "f32 with a last axis that is not the batch", x, "pass one row of scores per sample, (N, c)"))
}

/// Returns the largest value (NaN where one is) and, relative to it, the sum of exponentials of a row.
pub(super) fn row_sum(row: &[f64]) -> (f64, f64) {
    let m = row.iter().copied().fold(f64::NEG_INFINITY, maximum);
    (m, row.iter().map(|x| (x - m).exp()).sum())
}

/// Returns how far a kernel's logarithm of a sum `s` ≥ 1 of `terms` exponentials may lie off.
pub(super) fn log_sum_bound(s: f64, terms: u64) -> f64 {
    // The sum's relative error is the same absolute error of its logarithm.
    let sum = (3.0 + 4.0 + (terms as f64).sqrt().max(4.0)) * 2.0 * UNIT;
    sum + Accuracy::Log.bound(&[s], s.ln(), 0.0)
}

/// Returns the constants and the grid by which rows are shared out: a lane each, or a workgroup each.
pub(super) fn row_layouts(
    shape: &Shape,
    width: usize,
    profile: &DeviceProfile,
) -> Vec<(Core, Vec<(&'static str, f64)>, Grid)> {
    let rows = shape.rows();
    let c = shape.last() / width;
    let layout = |group: bool, lanes: u32| {
        let constants = vec![
            ("LANES", f64::from(lanes)),
            ("ROWS", rows.fixed as f64),
            ("ROWS_PER_SAMPLE", rows.per_sample as f64),
            ("C", c as f64),
            ("GROUP", f64::from(u8::from(group))),
        ];
        let grid = Grid::new(rows, if group { 1 } else { lanes });
        (if group { Core::Group } else { Core::Lane }, constants, grid)
    };
    let group = layout(true, if c > 256 { 256 } else { 64 });
    match profile.class {
        DeviceClass::Cpu => vec![layout(false, 8), group],
        DeviceClass::Gpu if c <= 32 => vec![layout(false, 64), group],
        DeviceClass::Gpu => vec![group, layout(false, 64)],
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity(self.name(), inputs, "pass the tensor of scores")?;
        check_rows(self.name(), x)?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let mut y = inputs[0].clone();
        for row in y.data.chunks_mut(y.shape.last().copied().unwrap_or(1).max(1)) {
            let (m, s) = row_sum(row);
            row.iter_mut().for_each(|x| *x = if self.log { *x - m - s.ln() } else { (*x - m).exp() / s });
        }
        vec![y]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(dy) = dy[0] else { return Ok(vec![None]) };
        let last = g.shape(inputs[0]).rank() - 1;
        let dx = if self.log {
            // dx = dy − softmax · Σ dy
            let sum = g.sum(dy, &[last], true)?;
            let p = g.exp(outputs[0])?;
            let part = g.mul(p, sum)?;
            g.sub(dy, part)?
        } else {
            // dx = y · (dy − Σ y · dy)
            let product = g.mul(outputs[0], dy)?;
            let sum = g.sum(product, &[last], true)?;
            let rest = g.sub(dy, sum)?;
            g.mul(outputs[0], rest)?
        };
        Ok(vec![Some(dx)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let shape = &io.inputs[0].shape;
        let width = kernels::width(shape.last(), profile);
        let source = kernels::Source::over_vectors(shader!("softmax.wgsl"), width, profile);
        let candidate = |(core, mut constants, grid): (Core, Vec<(&'static str, f64)>, Grid)| {
            constants.push(("LOG", f64::from(u8::from(self.log))));
            let slots = vec![Slot::input(0), Slot::output(0)];
            let dispatch = kernels::dispatch("softmax", source.clone(), &constants, grid, slots, epilogue);
            Candidate::single(Schedule::of_width(core, width), dispatch)
        };
        row_layouts(shape, width, profile).into_iter().map(candidate).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements().times(6), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Softmax { terms: io.inputs[0].shape.last() as u64 }]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let (x, y) = (inputs[0], &exact[0]);
        let c = x.shape.last().copied().unwrap_or(1).max(1);
        let accuracy = self.accuracy(io, step.n)[0];
        let rows: Vec<(f64, f64)> = x.data.chunks(c).map(row_sum).collect();
        vec![Array::from_fn(x.shape.clone(), |i| {
            let (m, s) = rows[i / c];
            let d = x.data[i] - m;
            if self.log {
                log_sum_bound(s, c as u64) + UNIT * d.abs() + ulp(y.data[i])
            } else {
                accuracy.bound(&[], y.data[i], d)
            }
        })]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns `exp(x) / Σ exp(x)` over the last axis, in the shape of `x`.
    pub fn softmax(&mut self, x: Value) -> Result<Value, OpError> {
        self.apply1(Softmax { log: false }, &[x])
    }

    /// Returns the logarithm of [`Graph::softmax`], exact also where that is nearly 0.
    pub fn log_softmax(&mut self, x: Value) -> Result<Value, OpError> {
        self.apply1(Softmax { log: true }, &[x])
    }
}

/// Returns a random shape of scores (…, c), a capacity and a batch.
pub(super) fn any_scores(rng: &mut Philox) -> (Shape, usize, usize) {
    let c = rng.pick(&[1, 2, 3, 7, 10, 15, 16, 17, 63, 64, 65, 130, 1000]);
    let capacity = rng.pick(&[1, 2, 5, 17, 70]);
    let shape = match rng.below(4) {
        0 => Shape::from([Batch, rng.pick(&[1, 3, 7]), c]),
        1 => Shape::fixed([rng.pick(&[1, 3, 9]), c]),
        _ => Shape::from([Batch, c]),
    };
    (shape, capacity, 1 + rng.below(capacity))
}

fn sample(rng: &mut Philox) -> Sample {
    let (shape, capacity, n) = any_scores(rng);
    let op = Softmax { log: rng.below(2) == 0 };
    Sample::new(op, vec![(TensorType::f32(shape), Fill::Uniform(-4.0, 4.0))], capacity).with_n(n)
}

/// Softmax and its logarithm as a family.
pub static FAMILY: Family = Family {
    name: "softmax",
    about: "softmax and log_softmax over the last axis, shifted by the row's maximum (Keras, ONNX)",
    sample,
    benches: || {
        let x = (TensorType::f32([Batch, 1000]), Fill::Uniform(-4.0, 4.0));
        vec![("softmax_1024x1000", Sample::new(Softmax { log: false }, vec![x], 1024))]
    },
    bad: &[
        Bad {
            what: "a batch of single numbers",
            build: |g| {
                let x = g.input("x", [Batch], DType::F32);
                g.softmax(x)
            },
        },
        Bad {
            what: "integers",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::I32);
                g.log_softmax(x)
            },
        },
        Bad {
            what: "one number",
            build: |g| {
                let x = g.constant(1.0)?;
                g.softmax(x)
            },
        },
    ],
    equivalent: &[
        ("does not write at bits", "finds NaN, which other tests have"),
        ("ends a loop early at half", "any large number does for the largest in the samples"),
        ("leaves a term out at shared_values", "any large number does for the largest in the samples"),
        ("swaps operands at half", "any large number does for the largest in the samples"),
        ("takes for false at lane", "any large number does for the largest in the samples"),
        ("takes the other axis at half", "any large number does for the largest in the samples"),
    ],
    differentiable: true,
    gradcheck: 1e-5,
};
