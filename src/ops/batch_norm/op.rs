//! Batch normalisation over all axes but the last: training with batch statistics, its gradient, and inference
//! with given statistics.

use super::{
    layout::{Layout, layouts},
    rows::{channel_sums, check, n_rows},
    statistics::{BatchNormStatistics, BatchNormSums, moment_bounds, sum_bounds},
};
use crate::{
    graph::{
        Candidate, Cost, DeviceProfile, Epilogue, Gradients, Graph, Io, Op, OpError, Slot, Step, TensorType, Value,
    },
    kernels::shader,
    tensor::{Accuracy, Array, Count, UNIT},
};

/// Batch normalisation in training (Ioffe and Szegedy 2015; Keras `BatchNormalization`).
///
/// Inputs x (…, c), gamma (c), beta (c); outputs y = (x − mean) / √(var + epsilon) · gamma + beta, the mean (c)
/// and the biased variance (c) over all axes but the last.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub epsilon: f32,
}

/// Gradient of [`BatchNorm`]: inputs x, gamma, mean, variance, dy; outputs dx, dgamma (c), dbeta (c).
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNormGrad {
    /// Added to the variance.
    pub epsilon: f32,
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn key(&self) -> String {
        format!("epsilon={:?}", self.epsilon)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check(self.name(), self.epsilon, inputs, "x gamma beta", &[0])?;
        let c = inputs[1].clone();
        Ok(vec![inputs[0].clone(), c.clone(), c])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [x, gamma, beta] = inputs else { return Vec::new() };
        let (c, rows) = (gamma.data.len(), n_rows(&x.shape));
        let mean: Vec<f64> = channel_sums(&x.shape, |i, _| x.data[i]).iter().map(|s| s / rows).collect();
        let var: Vec<f64> =
            channel_sums(&x.shape, |i, k| (x.data[i] - mean[k]).powi(2)).iter().map(|s| s / rows).collect();
        let mean: Vec<f64> = mean.iter().zip(&var).map(|(m, v)| if v.is_nan() { *v } else { *m }).collect();
        let y = Array::from_fn(x.shape.clone(), |i| {
            let k = i % c;
            (x.data[i] - mean[k]) / (var[k] + f64::from(self.epsilon)).sqrt() * gamma.data[k] + beta.data[k]
        });
        vec![y, Array { shape: vec![c], data: mean }, Array { shape: vec![c], data: var }]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let [x, gamma, _] = *inputs else { return Ok(vec![None; inputs.len()]) };
        let (mean, variance) = (outputs[1], outputs[2]);
        let mut grads = match dy[0] {
            None => vec![None; 3],
            Some(dy) => {
                let op = BatchNormGrad { epsilon: self.epsilon };
                g.apply(op, &[x, gamma, mean, variance, dy])?.into_iter().map(Some).collect()
            }
        };
        // Through the statistics as outputs: dmean / rows + 2 (x − mean) dvar / rows.
        let mut through = dy[1];
        if let Some(d) = dy[2] {
            let offset = g.sub(x, mean)?;
            let slope = g.mul(offset, d)?;
            let slope = g.scale(slope, 2.0)?;
            through = Some(through.map_or(Ok(slope), |t| g.add(slope, t))?);
        }
        if let Some(d) = through {
            let rows = g.shape(x).rows();
            let mut share = g.scale(d, 1.0 / rows.fixed.max(rows.per_sample).max(1) as f32)?;
            if rows.per_sample > 0 {
                let inv = g.inv_batch()?;
                share = g.mul(share, inv)?;
            }
            let shape = g.shape(x).clone();
            let share = g.expand(share, &shape)?;
            grads[0] = Some(match grads[0] {
                None => share,
                Some(other) => g.add(other, share)?,
            });
        }
        Ok(grads)
    }

    fn decompose(&self, g: &mut Graph, inputs: &[Value]) -> Option<Result<Vec<Value>, OpError>> {
        let [x, gamma, beta] = *inputs else { return None };
        let build = |g: &mut Graph| {
            let statistics = BatchNormStatistics { epsilon: self.epsilon }.build(g, [x, gamma, beta])?;
            let [mean, variance, scale, shift] = [0, 1, 2, 3].map(|i| statistics[i]);
            let scaled = g.mul(x, scale)?;
            Ok(vec![g.add(scaled, shift)?, mean, variance])
        };
        Some(build(g))
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let candidate = |l: &Layout| {
            let statistics = shader!("batch_norm_statistics.wgsl");
            let merge = shader!("batch_norm_merge.wgsl");
            let apply = shader!("batch_norm_apply.wgsl");
            let slots = vec![Slot::Scratch(0), Slot::input(1), Slot::input(2)];
            let slots = [slots, vec![Slot::output(1), Slot::output(2), Slot::Scratch(1)]].concat();
            l.candidate(
                [3, 3],
                vec![
                    l.rows("batch_norm_statistics", statistics, vec![Slot::input(0), Slot::Scratch(0)], None),
                    l.merge("batch_norm_merge", merge, slots),
                    l.rows(
                        "batch_norm_apply",
                        apply,
                        vec![Slot::input(0), Slot::Scratch(1), Slot::output(0)],
                        epilogue,
                    ),
                ],
            )
        };
        layouts(&io.inputs[0].shape, self.epsilon, profile).iter().map(candidate).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        let x = io.inputs[0].shape.elements();
        let bytes = io.bytes();
        let again = x.times(4);
        let bytes = Count { fixed: bytes.fixed + again.fixed, per_sample: bytes.per_sample + again.per_sample };
        Cost { flops: x.times(7), bytes }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Normalization { terms: io.inputs[0].shape.rows().at(n) }; 3]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let ([x, gamma, beta], [y, mean, var]) = (inputs, exact) else { return Vec::new() };
        let c = gamma.data.len();
        let accuracy = self.accuracy(io, step.n)[0];
        let [mean_bound, var_bound] = moment_bounds(x, mean, var, accuracy);
        // y = d · r · gamma + beta with d = x − mean and r = 1/√(var + epsilon): the errors of mean and var carried
        // through, inverseSqrt's 2 units in the last place, and one rounding per operation.
        let y_bound = Array::from_fn(y.shape.clone(), |i| {
            let k = i % c;
            let v = var.data[k] + f64::from(self.epsilon);
            let (d, r) = (x.data[i] - mean.data[k], 1.0 / v.sqrt());
            let relative = var_bound.data[k] / v + 8.0 * UNIT;
            let scaled = (gamma.data[k] * r).abs();
            scaled * (mean_bound.data[k] + d.abs() * relative)
                + 2.0 * UNIT * (beta.data[k].abs() + y.data[i].abs())
                + f64::from(f32::MIN_POSITIVE)
        });
        vec![y_bound, mean_bound, var_bound]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Op for BatchNormGrad {
    fn name(&self) -> &'static str {
        "batch_norm_grad"
    }

    fn key(&self) -> String {
        format!("epsilon={:?}", self.epsilon)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check(self.name(), self.epsilon, inputs, "x gamma mean variance dy", &[0, 4])?;
        let c = inputs[1].clone();
        Ok(vec![inputs[0].clone(), c.clone(), c])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [x, gamma, mean, var, dy] = inputs else { return Vec::new() };
        let (c, rows) = (gamma.data.len(), n_rows(&x.shape));
        let r: Vec<f64> = var.data.iter().map(|v| 1.0 / (v + f64::from(self.epsilon)).sqrt()).collect();
        let normal = |i: usize, k: usize| (x.data[i] - mean.data[k]) * r[k];
        let dgamma = channel_sums(&x.shape, |i, k| dy.data[i] * normal(i, k));
        let dbeta = channel_sums(&x.shape, |i, _| dy.data[i]);
        let dx = Array::from_fn(x.shape.clone(), |i| {
            let k = i % c;
            gamma.data[k] * r[k] * (dy.data[i] - dbeta[k] / rows - normal(i, k) * dgamma[k] / rows)
        });
        vec![dx, Array { shape: vec![c], data: dgamma }, Array { shape: vec![c], data: dbeta }]
    }

    fn decompose(&self, g: &mut Graph, inputs: &[Value]) -> Option<Result<Vec<Value>, OpError>> {
        let [x, gamma, mean, variance, dy] = *inputs else { return None };
        let epsilon = self.epsilon;
        let build = |g: &mut Graph| {
            let known = BatchNormStatistics { epsilon }.scale(g, gamma, [mean, variance]);
            let scale = known.map_or_else(|| scale_of(g, gamma, variance, epsilon), Ok)?;
            let sums = g.apply(BatchNormSums { epsilon }, &[x, scale, mean, variance, dy])?;
            let [dgamma, dbeta, slope, offset] = [0, 1, 2, 3].map(|i| sums[i]);
            let along = g.mul(x, slope)?;
            let along = g.add(along, offset)?;
            let direct = g.mul(scale, dy)?;
            Ok(vec![g.sub(direct, along)?, dgamma, dbeta])
        };
        Some(build(g))
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let candidate = |l: &Layout| {
            let sums = shader!("batch_norm_grad_sums.wgsl");
            let merge = shader!("batch_norm_grad_merge.wgsl");
            let apply = shader!("batch_norm_grad_apply.wgsl");
            let from = vec![Slot::Scratch(0), Slot::input(1), Slot::input(2), Slot::input(3)];
            let inputs = [Slot::input(0), Slot::input(2), Slot::input(4), Slot::Scratch(0)];
            l.candidate(
                [2, 4],
                vec![
                    l.rows("batch_norm_grad_sums", sums, inputs.to_vec(), None),
                    l.merge(
                        "batch_norm_grad_merge",
                        merge,
                        [from, vec![Slot::output(1), Slot::output(2), Slot::Scratch(1)]].concat(),
                    ),
                    l.rows(
                        "batch_norm_grad_apply",
                        apply,
                        vec![Slot::input(0), Slot::input(4), Slot::Scratch(1), Slot::output(0)],
                        epilogue,
                    ),
                ],
            )
        };
        layouts(&io.inputs[0].shape, self.epsilon, profile).iter().map(candidate).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        let x = io.inputs[0].shape.elements();
        let (bytes, again) = (io.bytes(), x.times(8));
        let bytes = Count { fixed: bytes.fixed + again.fixed, per_sample: bytes.per_sample + again.per_sample };
        Cost { flops: x.times(9), bytes }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        let terms = io.inputs[0].shape.rows().at(n);
        vec![Accuracy::Normalization { terms }, Accuracy::Products { terms }, Accuracy::Products { terms }]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let ([x, gamma, mean, var, dy], [dx, dgamma, dbeta]) = (inputs, exact) else { return Vec::new() };
        let (c, rows) = (gamma.data.len(), n_rows(&x.shape));
        let products = self.accuracy(io, step.n)[1];
        let [gamma_bound, beta_bound] = sum_bounds([x, mean, var, dy], [dgamma, dbeta], self.epsilon, products);
        let r: Vec<f64> = var.data.iter().map(|v| 1.0 / (v + f64::from(self.epsilon)).sqrt()).collect();
        let normal = |i: usize, k: usize| ((x.data[i] - mean.data[k]) * r[k]).abs();
        let dx_bound = Array::from_fn(dx.shape.clone(), |i| {
            let k = i % c;
            let size = dy.data[i].abs() + (dbeta.data[k].abs() + normal(i, k) * dgamma.data[k].abs()) / rows;
            let carried = (beta_bound.data[k] + normal(i, k) * gamma_bound.data[k]) / rows;
            (gamma.data[k] * r[k]).abs() * (carried + 16.0 * UNIT * size) + f64::from(f32::MIN_POSITIVE)
        });
        vec![dx_bound, gamma_bound, beta_bound]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

/// Returns gamma / √(variance + epsilon).
fn scale_of(g: &mut Graph, gamma: Value, variance: Value, epsilon: f32) -> Result<Value, OpError> {
    let epsilon = g.constant(epsilon)?;
    let shifted = g.add(variance, epsilon)?;
    let r = g.unary("rsqrt", shifted)?;
    g.mul(gamma, r)
}

impl Graph {
    /// Returns `x` (…, c) normalised over all axes but the last by its own statistics, the mean (c) and the
    /// biased variance (c).
    ///
    /// ```
    /// use hubel::prelude::*;
    /// # use hubel::graph::TensorType;
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 8, 8, 4], F32);
    /// let gamma = g.state("gamma", TensorType::f32([4]), None);
    /// let beta = g.state("beta", TensorType::f32([4]), None);
    /// let [y, mean, _variance] = g.batch_norm(x, gamma, beta, 1e-3)?;
    /// assert_eq!((g.shape(y), g.shape(mean)), (g.shape(x), &Shape::from([4])));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn batch_norm(&mut self, x: Value, gamma: Value, beta: Value, epsilon: f32) -> Result<[Value; 3], OpError> {
        let outputs = self.apply(BatchNorm { epsilon }, &[x, gamma, beta])?;
        Ok([outputs[0], outputs[1], outputs[2]])
    }

    /// Returns `x` (…, c) normalised by a given mean (c) and variance (c):
    /// `(x − mean) · (gamma / √(variance + epsilon)) + beta`.
    ///
    /// It is made of elementwise functions, so that it fuses with its neighbours.
    pub fn batch_norm_inference(
        &mut self,
        x: Value,
        [gamma, beta, mean, variance]: [Value; 4],
        epsilon: f32,
    ) -> Result<Value, OpError> {
        let types = [x, gamma, beta, mean, variance].map(|v| self.ty(v).clone());
        let op = "batch_norm_inference";
        check(op, epsilon, &types, "x gamma beta mean variance", &[0]).map_err(|e| OpError { node: op.into(), ..e })?;
        self.scoped(op, |g| {
            let scale = scale_of(g, gamma, variance, epsilon)?;
            let offset = g.sub(x, mean)?;
            let scaled = g.mul(offset, scale)?;
            g.add(scaled, beta)
        })
    }
}
