//! The sums over rows that batch normalisation needs, alone: what is left of it is elementwise.

use super::{
    layout::Layout,
    rows::{channel_sums, check, n_rows},
};
use crate::{
    graph::{
        Candidate, ColumnParts, ColumnSums, Cost, DeviceClass, DeviceProfile, Dispatch, Epilogue, Graph, Io, Op,
        OpError, Slot, Step, SumKind, TensorType, Value,
    },
    kernels::shader,
    ops::Concat,
    tensor::{Accuracy, Array, UNIT},
};

/// Batch statistics: inputs x (…, c), gamma (c), beta (c); outputs the mean (c) and the biased variance (c) over all axes but the last,
/// scale = gamma / √(variance + epsilon) and shift = beta − mean · scale: x · scale + shift is x normalised. Two more inputs are mean and
/// variance of channels in front of those of x, for which gamma, beta and the outputs have values too.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNormStatistics {
    /// Added to the variance.
    pub epsilon: f32,
}

/// The sums of the gradient of batch normalisation: inputs x (…, c), scale, mean, variance (c), dy like x; outputs dgamma, dbeta,
/// slope = scale · r · dgamma / rows and offset = scale · dbeta / rows − mean · slope (c), where r = 1 / √(variance + epsilon) and
/// scale = gamma · r. Then dx = scale · dy − (x · slope + offset).
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNormSums {
    /// Added to the variance.
    pub epsilon: f32,
}

/// Returns what bounds the errors of mean and variance.
pub(super) fn moment_bounds(x: &Array, mean: &Array, var: &Array, accuracy: Accuracy) -> [Array; 2] {
    let c = mean.data.len();
    let largest = |f: &dyn Fn(usize, usize) -> f64| {
        let mut most = vec![0.0f64; c];
        (0..x.data.len()).for_each(|i| most[i % c] = most[i % c].max(f(i, i % c)));
        most
    };
    let size = largest(&|i, _| x.data[i].abs());
    let spread = largest(&|i, k| (x.data[i] - mean.data[k]).powi(2));
    let of_mean = Array::from_fn([c], |k| accuracy.bound(&[], mean.data[k], size[k]));
    // Deviations are taken from a mean that is rounded at the size of x.
    let of_variance = Array::from_fn([c], |k| {
        let rounded = 8.0 * UNIT * size[k];
        accuracy.bound(&[], var.data[k], spread[k]) + rounded * (spread[k].sqrt() + rounded)
    });
    [of_mean, of_variance]
}

/// Returns what bounds the errors of dgamma and dbeta; r carries inverseSqrt's 2 units in the last place, each product one rounding.
pub(super) fn sum_bounds(
    [x, mean, var, dy]: [&Array; 4],
    [dgamma, dbeta]: [&Array; 2],
    epsilon: f32,
    products: Accuracy,
) -> [Array; 2] {
    let c = mean.data.len();
    let r = |k: usize| 1.0 / (var.data[k] + f64::from(epsilon)).sqrt();
    let normal = |i: usize, k: usize| ((x.data[i] - mean.data[k]) * r(k)).abs();
    let gammas = channel_sums(&x.shape, |i, k| dy.data[i].abs() * normal(i, k));
    let betas = channel_sums(&x.shape, |i, _| dy.data[i].abs());
    let gamma =
        Array::from_fn([c], |k| products.bound(&[], dgamma.data[k], gammas[k]) + 8.0 * UNIT * dgamma.data[k].abs());
    [gamma, Array::from_fn([c], |k| products.bound(&[], dbeta.data[k], betas[k]))]
}

/// Returns the launches of an operation alone: parts, and what makes the results of them.
fn alone(op: &dyn ColumnSums, io: &Io, (kernel, source): (&str, &str), from: Vec<Slot>, l: &Layout) -> Vec<Candidate> {
    let first = l.rows(kernel, source, from, None);
    let merge = op.merge(io, None, l.profile(), &|slot| slot);
    vec![l.candidate([op.kind().n_values(), 0], vec![first, merge])]
}

/// Returns mean and variance of a value's channels, where the graph has them.
fn known(g: &Graph, v: Value) -> Option<[Value; 2]> {
    let (before, own) = halves(g, v).map_or((None, v), |[before, own]| (Some(known(g, before)), own));
    g.nodes().iter().enumerate().find_map(|(i, node)| {
        node.op()?.downcast::<BatchNormStatistics>()?;
        let [mean, variance] = [0, 1].map(|output| Value { node: i as u32, output });
        let of_all = node.inputs[0] == v && node.inputs.len() == 3;
        let of_own = node.inputs[0] == own && before.flatten().is_some_and(|known| node.inputs[3..] == known);
        (of_all || of_own).then_some([mean, variance])
    })
}

/// Returns the two values whose channels, one after the other, are those of a value.
fn halves(g: &Graph, v: Value) -> Option<[Value; 2]> {
    let node = g.node(v);
    let axis = node.op()?.downcast::<Concat>()?.axis;
    node.inputs[..].try_into().ok().filter(|_| axis + 1 == g.shape(v).rank())
}

impl BatchNormStatistics {
    /// Adds the statistics of x to a graph: of channels of which it has them already only scale and shift.
    pub(super) fn build(self, g: &mut Graph, [x, gamma, beta]: [Value; 3]) -> Result<Vec<Value>, OpError> {
        let known = halves(g, x).and_then(|[before, own]| Some((own, known(g, before)?)));
        match known {
            Some((own, [mean, variance])) => g.apply(self, &[own, gamma, beta, mean, variance]),
            None => g.apply(self, &[x, gamma, beta]),
        }
    }

    /// Returns the scale that a graph has beside this mean and variance.
    pub(super) fn scale(&self, g: &Graph, gamma: Value, [mean, variance]: [Value; 2]) -> Option<Value> {
        let node = g.node(mean);
        let same = node.op()?.downcast::<Self>() == Some(self) && node.inputs[1] == gamma;
        let [of_mean, of_variance, scale] = [0, 1, 2].map(|output| Value { node: mean.node, output });
        (same && [mean, variance] == [of_mean, of_variance]).then_some(scale)
    }
}

impl Op for BatchNormStatistics {
    fn name(&self) -> &'static str {
        "batch_norm_statistics"
    }

    fn key(&self) -> String {
        format!("epsilon={:?}", self.epsilon)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, gamma, beta, before @ ..] = inputs else {
            return Err(OpError::new(self.name(), "3 or 5 inputs", inputs.len(), "pass x, gamma and beta first"));
        };
        let all = x.shape.last() + before.first().map_or(0, |mean| mean.shape.last());
        let of_x = |t: &TensorType| if t.shape.last() == all { TensorType::f32([x.shape.last()]) } else { t.clone() };
        check(self.name(), self.epsilon, &[x.clone(), of_x(gamma), of_x(beta)], "x gamma beta", &[0])?;
        let wanted = |t: &TensorType| *t == TensorType::f32([all - x.shape.last()]) && t.shape.last() > 0;
        match before.iter().all(wanted) && [0, 2].contains(&before.len()) {
            true => Ok(vec![TensorType::f32([all]); 4]),
            false => {
                let got: Vec<String> = before.iter().map(ToString::to_string).collect();
                let advice = "pass one value of each for every channel in front of x";
                Err(OpError::new(self.name(), "mean and variance of equal size", got.join(" and "), advice))
            }
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [x, gamma, beta, before @ ..] = inputs else { return Vec::new() };
        let rows = n_rows(&x.shape);
        let mean: Vec<f64> = channel_sums(&x.shape, |i, _| x.data[i]).iter().map(|s| s / rows).collect();
        let var = channel_sums(&x.shape, |i, k| (x.data[i] - mean[k]).powi(2));
        let var: Vec<f64> = var.iter().map(|s| s / rows).collect();
        let mean = mean.iter().zip(&var).map(|(m, v)| if v.is_nan() { *v } else { *m });
        let known = |i: usize| before.get(i).map_or(&[][..], |a| &a.data).iter().copied();
        let mean: Vec<f64> = known(0).chain(mean).collect();
        let var: Vec<f64> = known(1).chain(var.iter().copied()).collect();
        let scale: Vec<f64> =
            var.iter().zip(&gamma.data).map(|(v, gamma)| gamma / (v + f64::from(self.epsilon)).sqrt()).collect();
        let shift = (0..scale.len()).map(|k| beta.data[k] - mean[k] * scale[k]).collect();
        [mean, var, scale, shift].map(|data| Array { shape: vec![gamma.data.len()], data }).into()
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let layout = Layout::new(&io.inputs[0].shape, self.epsilon, DeviceClass::Gpu, profile);
        let first = ("batch_norm_statistics", shader!("batch_norm_statistics.wgsl"));
        alone(self, io, first, vec![Slot::input(0), Slot::Scratch(0)], &layout)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements().times(4), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Normalization { terms: io.inputs[0].shape.rows().at(n) }; 4]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let ([x, _, beta, before @ ..], [mean, var, scale, _]) = (inputs, exact) else { return Vec::new() };
        let known = before.first().map_or(0, |mean| mean.data.len());
        let own = |a: &Array| Array { shape: vec![a.data.len() - known], data: a.data[known..].to_vec() };
        let of_own = moment_bounds(x, &own(mean), &own(var), self.accuracy(io, step.n)[0]);
        let [of_mean, of_variance] =
            of_own.map(|a| Array::from_fn([known + a.data.len()], |k| if k < known { 0.0 } else { a.data[k - known] }));
        let of_scale = Array::from_fn(scale.shape.clone(), |k| {
            let relative = of_variance.data[k] / (var.data[k] + f64::from(self.epsilon)) + 8.0 * UNIT;
            scale.data[k].abs() * relative
        });
        // A product and a difference, each rounded, of a mean and a scale that have errors.
        let of_shift = Array::from_fn(scale.shape.clone(), |k| {
            let [mean, factor] = [mean.data[k].abs(), scale.data[k].abs()];
            factor * of_mean.data[k]
                + mean * of_scale.data[k]
                + 4.0 * UNIT * (beta.data[k].abs() + mean * factor)
                + f64::from(f32::MIN_POSITIVE)
        });
        vec![of_mean, of_variance, of_scale, of_shift]
    }

    fn column_sums(&self) -> Option<&dyn ColumnSums> {
        Some(self)
    }
}

impl ColumnSums for BatchNormStatistics {
    fn summed(&self) -> usize {
        0
    }

    fn kind(&self) -> SumKind {
        SumKind::Moments
    }

    fn merge(
        &self,
        io: &Io,
        parts: Option<&ColumnParts>,
        profile: &DeviceProfile,
        slots: &dyn Fn(Slot) -> Slot,
    ) -> Dispatch {
        let layout = Layout::new(&io.inputs[0].shape, self.epsilon, DeviceClass::Gpu, profile).of_parts(parts);
        let inputs = (1..io.inputs.len()).map(Slot::input);
        // Scale and shift are one binding: every adapter has eight.
        let outputs = [0..1, 1..2, 2..4].map(Slot::Out);
        let slots = [Slot::Scratch(0)].into_iter().chain(inputs).chain(outputs).map(slots).collect();
        match io.inputs.get(3) {
            None => layout.merge("batch_norm_statistics_merge", shader!("batch_norm_statistics_merge.wgsl"), slots),
            Some(known) => {
                let source = shader!("batch_norm_statistics_join.wgsl");
                layout.behind(known.shape.last()).merge("batch_norm_statistics_join", source, slots)
            }
        }
    }
}

impl Op for BatchNormSums {
    fn name(&self) -> &'static str {
        "batch_norm_sums"
    }

    fn key(&self) -> String {
        format!("epsilon={:?}", self.epsilon)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check(self.name(), self.epsilon, inputs, "x scale mean variance dy", &[0, 4])?;
        Ok(vec![inputs[1].clone(); 4])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [x, scale, mean, var, dy] = inputs else { return Vec::new() };
        let (c, rows) = (scale.data.len(), n_rows(&x.shape));
        let r: Vec<f64> = var.data.iter().map(|v| 1.0 / (v + f64::from(self.epsilon)).sqrt()).collect();
        let dgamma = channel_sums(&x.shape, |i, k| dy.data[i] * (x.data[i] - mean.data[k]) * r[k]);
        let dbeta = channel_sums(&x.shape, |i, _| dy.data[i]);
        let slope: Vec<f64> = (0..c).map(|k| scale.data[k] * r[k] * dgamma[k] / rows).collect();
        let offset = (0..c).map(|k| scale.data[k] * dbeta[k] / rows - mean.data[k] * slope[k]).collect();
        [dgamma, dbeta, slope, offset].map(|data| Array { shape: vec![c], data }).into()
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let layout = Layout::new(&io.inputs[0].shape, self.epsilon, DeviceClass::Gpu, profile);
        let first = ("batch_norm_grad_sums", shader!("batch_norm_grad_sums.wgsl"));
        let from = vec![Slot::input(0), Slot::input(2), Slot::input(4), Slot::Scratch(0)];
        alone(self, io, first, from, &layout)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements().times(4), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Products { terms: io.inputs[0].shape.rows().at(n) }; 4]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let ([x, scale, mean, var, dy], [dgamma, dbeta, slope, offset]) = (inputs, exact) else {
            return Vec::new();
        };
        let products = self.accuracy(io, step.n)[0];
        let [of_gamma, of_beta] = sum_bounds([x, mean, var, dy], [dgamma, dbeta], self.epsilon, products);
        let rows = n_rows(&x.shape);
        let r = |k: usize| 1.0 / (var.data[k] + f64::from(self.epsilon)).sqrt();
        let rounded = |a: &Array, k: usize| 16.0 * UNIT * a.data[k].abs() + f64::from(f32::MIN_POSITIVE);
        let of = |f: &dyn Fn(usize) -> f64| Array::from_fn(scale.shape.clone(), f);
        let of_slope = of(&|k| scale.data[k].abs() * r(k) * of_gamma.data[k] / rows + rounded(slope, k));
        // An average times scale, and a mean times slope, taken away.
        let of_offset = of(&|k| {
            let average = scale.data[k].abs() * (of_beta.data[k] + 8.0 * UNIT * dbeta.data[k].abs()) / rows;
            let along = mean.data[k].abs() * (of_slope.data[k] + 2.0 * UNIT * slope.data[k].abs());
            average + along + 2.0 * UNIT * offset.data[k].abs() + f64::from(f32::MIN_POSITIVE)
        });
        vec![of_gamma, of_beta, of_slope, of_offset]
    }

    fn column_sums(&self) -> Option<&dyn ColumnSums> {
        Some(self)
    }
}

impl ColumnSums for BatchNormSums {
    fn summed(&self) -> usize {
        4
    }

    fn kind(&self) -> SumKind {
        SumKind::Products { x: 0, mean: 2 }
    }

    fn merge(
        &self,
        io: &Io,
        parts: Option<&ColumnParts>,
        profile: &DeviceProfile,
        slots: &dyn Fn(Slot) -> Slot,
    ) -> Dispatch {
        let layout = Layout::new(&io.inputs[0].shape, self.epsilon, DeviceClass::Gpu, profile).of_parts(parts);
        let from = [Slot::Scratch(0), Slot::input(1), Slot::input(2), Slot::input(3)].into_iter();
        let from = from.chain((0..4).map(Slot::output));
        layout.merge("batch_norm_sums_merge", shader!("batch_norm_sums_merge.wgsl"), from.map(slots).collect())
    }
}
