//! Cross-entropy of the softmax of logits, with its gradient, in one launch.

use super::{
    arity::arity,
    softmax::{any_scores, check_rows, log_sum_bound, row_layouts, row_sum},
};
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Io, Op, OpError, Sample, Slot,
        Step, TensorType, Value,
    },
    kernels::{self, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape, UNIT, ulp},
};

/// Cross-entropy from logits (Keras `SparseCategoricalCrossentropy` and `CategoricalCrossentropy`,
/// `from_logits=True`).
///
/// Inputs logits (…, c) and labels: class indices (…) as u8, u32 or i32, or f32 probabilities (…, c).
/// Output 0 is the gradient of the losses to the logits (…, c), output 1 the losses (…). A class index of c or more,
/// like a row of zeros, gives loss 0 and gradient 0. A row of logits with NaN, or without a finite largest one, gives
/// NaN throughout. Labels get no gradient.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SoftmaxCrossEntropy;

/// Returns the shape without its last axis.
fn without_last(shape: &Shape) -> Shape {
    match shape.dims() {
        [first, rest @ .., _] if shape.is_batched() => Shape::batched(*first, rest),
        [dims @ .., _] => Shape::fixed(dims),
        [] => Shape::scalar(),
    }
}

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, labels] = arity(self.name(), inputs, "pass logits and labels")?;
        check_rows(self.name(), x)?;
        let losses = without_last(&x.shape);
        let agrees = match labels.dtype {
            DType::F32 => labels.shape == x.shape,
            DType::U8 | DType::U32 | DType::I32 => labels.shape == losses,
            DType::F16 | DType::BF16 => false,
        };
        if !agrees {
            let wanted = format!("labels of f32{} or class indices of u8, u32 or i32 {losses}", x.shape);
            let advice = "pass one-hot labels, or one class index per row of the logits";
            return Err(OpError::new(self.name(), wanted, labels, advice));
        }
        Ok(vec![x.clone(), TensorType::f32(losses)])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [x, labels] = inputs else { return Vec::new() };
        let c = x.shape.last().copied().unwrap_or(1).max(1);
        let dense = labels.shape.len() == x.shape.len();
        let mut dlogits = Array::zeros(x.shape.clone());
        let mut losses = Array::zeros(&x.shape[..x.shape.len() - 1]);
        for (r, row) in x.data.chunks(c).enumerate() {
            let (m, s) = row_sum(row);
            let label = |k: usize| match dense {
                true => labels.data[r * c + k],
                false => f64::from(u8::from(labels.data[r] == k as f64)),
            };
            let total: f64 = (0..c).map(label).sum();
            let finite = if m.is_finite() { 0.0 } else { f64::NAN };
            // A class that a class number does not name is no term.
            let terms = (0..c).filter(|&k| dense || label(k) > 0.0);
            losses.data[r] = total * s.ln() - terms.map(|k| label(k) * (row[k] - m)).sum::<f64>() + finite;
            for (k, x) in row.iter().enumerate() {
                dlogits.data[r * c + k] = (x - m).exp() / s * total - label(k) + finite;
            }
        }
        vec![dlogits, losses]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let shape = g.shape(inputs[0]).clone();
        let mut dims = shape.dims().to_vec();
        let last = dims.len() - 1;
        dims[last] = 1;
        let column = if shape.is_batched() { Shape::batched(dims[0], &dims[1..]) } else { Shape::fixed(dims) };
        let mut dx = match dy[1] {
            None => None,
            Some(d) => {
                let d = g.reshape(d, column)?;
                Some(g.mul(outputs[0], d)?)
            }
        };
        if let Some(d) = dy[0] {
            // dlogits = p · total − labels: total · p · (d − Σ p · d).
            let p = g.softmax(inputs[0])?;
            let product = g.mul(p, d)?;
            let sum = g.sum(product, &[last], true)?;
            let rest = g.sub(d, sum)?;
            let mut second = g.mul(p, rest)?;
            let total = match g.ty(inputs[1]).dtype {
                DType::F32 => g.sum(inputs[1], &[last], true)?,
                // Where dlogits are all 0 the index is no class, or p is 1 and the second derivative 0.
                _ => {
                    let square = g.unary("square", outputs[0])?;
                    let size = g.sum(square, &[last], true)?;
                    let zero = g.constant(0.0)?;
                    g.binary("greater", size, zero)?
                }
            };
            second = g.mul(second, total)?;
            dx = Some(dx.map_or(Ok(second), |dx| g.add(dx, second))?);
        }
        Ok(vec![dx, None])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let labels = match io.inputs[1].dtype {
            DType::F32 => 2.0,
            DType::U8 => 1.0,
            _ => 0.0,
        };
        row_layouts(&io.inputs[0].shape, 1, profile)
            .into_iter()
            .map(|(core, mut constants, grid)| {
                constants.push(("LABELS", labels));
                let source = shader!("softmax_cross_entropy.wgsl");
                let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0), Slot::output(1)];
                let dispatch = kernels::dispatch(self.name(), source, &constants, grid, slots, epilogue);
                Candidate::single(Schedule::of_width(core, 1), dispatch)
            })
            .collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements().times(8), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Softmax { terms: io.inputs[0].shape.last() as u64 }; 2]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let ([x, labels], [dlogits, losses]) = (inputs, exact) else { return Vec::new() };
        let c = x.shape.last().copied().unwrap_or(1).max(1);
        let dense = labels.shape.len() == x.shape.len();
        let softmax = self.accuracy(io, step.n)[0];
        let rows: Vec<(f64, f64)> = x.data.chunks(c).map(row_sum).collect();
        // Sum over dense labels; a class index is a sum of one label.
        let sum = if dense { (2.0 * (c as f64).sqrt()).max(8.0) * UNIT } else { 0.0 };
        let label = |r: usize, k: usize| match dense {
            true => labels.data[r * c + k].abs(),
            false => f64::from(u8::from(labels.data[r] == k as f64)),
        };
        let totals: Vec<f64> = (0..rows.len()).map(|r| (0..c).map(|k| label(r, k)).sum()).collect();
        let gradient = Array::from_fn(x.shape.clone(), |i| {
            let (r, (m, s)) = (i / c, rows[i / c]);
            let d = x.data[i] - m;
            let p = d.exp() / s;
            totals[r] * (softmax.bound(&[], p, d) + p * (sum + 2.0 * UNIT)) + ulp(dlogits.data[i])
        });
        let loss = Array::from_fn(losses.shape.clone(), |r| {
            let (m, s) = rows[r];
            let parts: f64 = (0..c).map(|k| label(r, k) * (x.data[r * c + k] - m).abs()).sum();
            totals[r] * (log_sum_bound(s, c as u64) + s.ln() * (sum + 2.0 * UNIT))
                + parts * (sum + 2.0 * UNIT)
                + ulp(losses.data[r])
        });
        vec![gradient, loss]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns the cross-entropy (…) of each row of softmax(`logits`) (…, c) with its label: a class index (…) as
    /// u8, u32 or i32, or f32 probabilities (…, c).
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let mut g = Graph::new();
    /// let logits = g.input("logits", [Batch, 10], F32);
    /// let labels = g.input("labels", [Batch], DType::U8);
    /// let losses = g.softmax_cross_entropy(logits, labels)?;
    /// assert_eq!(g.shape(losses).to_string(), "(N)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn softmax_cross_entropy(&mut self, logits: Value, labels: Value) -> Result<Value, OpError> {
        Ok(self.apply(SoftmaxCrossEntropy, &[logits, labels])?[1])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let (shape, capacity, n) = any_scores(rng);
    let c = shape.last();
    let labels = match rng.below(4) {
        0 => (TensorType::f32(shape.clone()), Fill::OneHot),
        1 => (TensorType::f32(shape.clone()), Fill::Uniform(0.0, 1.0)),
        // Now and then a label that is no class.
        _ => {
            let classes = c + c / 10;
            let dtype = rng.pick(&[DType::U32, DType::I32, if classes <= 256 { DType::U8 } else { DType::U32 }]);
            (TensorType::new(without_last(&shape), dtype), Fill::Index(classes))
        }
    };
    let logits = (TensorType::f32(shape), Fill::Uniform(-4.0, 4.0));
    Sample::new(SoftmaxCrossEntropy, vec![logits, labels], capacity).with_n(n)
}

/// Softmax with cross-entropy as a family.
pub static FAMILY: Family = Family {
    name: "softmax_cross_entropy",
    about: "cross-entropy of softmax from logits and its gradient at once; class indices or dense labels (Keras)",
    sample,
    benches: || {
        let op = |c: usize, n: usize| {
            let logits = (TensorType::f32([Batch, c]), Fill::Uniform(-4.0, 4.0));
            Sample::new(SoftmaxCrossEntropy, vec![logits, (TensorType::new([Batch], DType::U32), Fill::Index(c))], n)
        };
        vec![("cross_entropy_64x10", op(10, 64)), ("cross_entropy_1024x1000", op(1000, 1024))]
    },
    bad: &[
        Bad {
            what: "as many labels as classes instead of rows",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                let labels = g.input("labels", [3], DType::U32);
                g.softmax_cross_entropy(x, labels)
            },
        },
        Bad {
            what: "class indices as floats",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                let labels = g.input("labels", [Batch], DType::F32);
                g.softmax_cross_entropy(x, labels)
            },
        },
        Bad {
            what: "logits of bytes",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::U8);
                let labels = g.input("labels", [Batch], DType::U32);
                g.softmax_cross_entropy(x, labels)
            },
        },
    ],
    equivalent: &[
        ("ends a loop early at half", "any large number does for the largest in the samples"),
        ("leaves a term out at shared_values", "any large number does for the largest in the samples"),
        ("swaps operands at half", "any large number does for the largest in the samples"),
        ("takes the other axis at half", "any large number does for the largest in the samples"),
    ],
    differentiable: true,
    gradcheck: 1e-5,
};
