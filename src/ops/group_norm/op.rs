//! The normalisation and its gradient.

use crate::kernels::shader;
use crate::ops::conv2d::images;
use crate::{
    graph::{
        Candidate, Cost, DeviceClass, DeviceProfile, Dispatch, Epilogue, Gradients, Graph, Grid, Io, Op, OpError, Slot,
        Step, TensorType, UNIFORM_BYTES, Value,
    },
    kernels::{self, Core, Schedule, gemm::LONG_BATCH},
    tensor::{Accuracy, Array, Count, Shape, UNIT},
};

/// Group normalisation (Wu and He 2018; Keras `GroupNormalization`, ONNX GroupNormalization).
///
/// Inputs x (N, …, c), gamma (c), beta (c); outputs y = (x − mean) / √(variance + epsilon) · gamma + beta, the mean
/// (N, groups) and the biased variance (N, groups) of each sample and group of neighbouring channels.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupNorm {
    /// How many groups the channels are cut into.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Gradient of [`GroupNorm`]: inputs x, gamma, mean, variance, dy; outputs dx, dgamma (c), dbeta (c).
#[derive(Debug, Clone, PartialEq)]
pub struct GroupNormGrad {
    /// The normalisation.
    pub norm: GroupNorm,
}

/// A kernel that gives each group to some lanes.
struct Kernel<'a> {
    name: &'static str,
    source: &'a str,
    slots: Vec<Slot>,
    /// Slots of one number for each channel.
    by_channel: &'a [usize],
}

/// A tensor as (samples, pixels, groups, channels of a group).
struct Sizes {
    samples: Count,
    pixels: usize,
    groups: usize,
    channels: usize,
}

impl Sizes {
    /// Returns the group of a sample, counted over all samples, that element `i` belongs to.
    fn group(&self, i: usize) -> usize {
        let row = self.groups * self.channels;
        i / (row * self.pixels) * self.groups + i % row / self.channels
    }

    fn of_group(&self) -> usize {
        self.pixels * self.channels
    }
}

impl GroupNorm {
    fn sizes(&self, x: &Shape) -> Sizes {
        let (c, groups) = (x.last(), self.groups.max(1));
        Sizes { samples: images(x), pixels: x.row() / c.max(1), groups, channels: c / groups }
    }

    pub(super) fn statistics(&self, x: &Shape) -> TensorType {
        TensorType::f32(x.with_row(&[self.groups]))
    }

    fn check(&self, op: &str, inputs: &[TensorType], names: [&str; 5]) -> Result<(), OpError> {
        let names: Vec<&str> = names.into_iter().filter(|n| !n.is_empty()).collect();
        if inputs.len() != names.len() {
            let wanted = format!("{} inputs ({})", names.len(), names.join(" "));
            return Err(OpError::new(op, wanted, inputs.len(), "pass them in this order"));
        }
        let x = &inputs[0];
        if x.shape.rank() < 2 || x.shape.dims().contains(&0) {
            return Err(OpError::new(op, "a tensor of rank 2 or more, channels last", x, "reshape it"));
        }
        if self.groups == 0 || !x.shape.last().is_multiple_of(self.groups) {
            let wanted = format!("a divisor of the {} channels as number of groups", x.shape.last());
            return Err(OpError::new(op, wanted, self.groups, "choose another number of groups"));
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(OpError::new(op, "a positive epsilon", self.epsilon, "Keras uses 1e-3"));
        }
        for (input, name) in inputs.iter().zip(names) {
            let wanted = match name {
                "x" | "dy" => TensorType::f32(x.shape.clone()),
                "mean" | "variance" => self.statistics(&x.shape),
                _ => TensorType::f32([x.shape.last()]),
            };
            if *input != wanted {
                let advice = "gamma and beta have a value per channel, mean and variance one per sample and group";
                return Err(OpError::new(op, format!("{name} of {wanted}"), input, advice));
            }
        }
        Ok(())
    }

    /// Returns the launch of a kernel that gives each group to some lanes. Gamma and the like are small and read by
    /// every group: processors read them as uniform buffers, where a load costs a tenth.
    fn dispatch(&self, kernel: Kernel, x: &Shape, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Dispatch {
        let Kernel { name, source, mut slots, by_channel } = kernel;
        let sizes = self.sizes(x);
        let width = kernels::width(sizes.channels, profile);
        let (pixels, c) = (sizes.pixels, sizes.channels / width);
        let groups = sizes.samples.times(sizes.groups as u64);
        let cpu = profile.class == DeviceClass::Cpu;
        let shared = |t: &usize| 3 * (pixels * (c + 1)).div_ceil(*t) + *t;
        let share = match profile.class {
            DeviceClass::Cpu if groups.at(8) >= 64 => 1,
            DeviceClass::Cpu => 8,
            DeviceClass::Gpu => [64, 16, 4].into_iter().find(|t| pixels * c >= *t).unwrap_or(1),
        };
        let fits = |t: &usize| *t >= share && shared(t) as u64 <= profile.max_iterations;
        let t = [1, 4, 8, 16, 64, 256].into_iter().find(fits).unwrap_or(256);
        let lanes = if cpu { t.max(8) } else { t.max(64) };
        let (pixel_step, channel_step) = if pixels >= t { (t, 1) } else { (1, t) };
        let constants = [
            ("LANES", lanes as f64),
            ("T", t as f64),
            ("GROUPS", groups.fixed as f64),
            ("GROUPS_PER_SAMPLE", groups.per_sample as f64),
            ("P", pixels as f64),
            ("G", sizes.groups as f64),
            ("C", c as f64),
            ("PSTEP", pixel_step as f64),
            ("CSTEP", channel_step as f64),
            ("COUNT", sizes.of_group() as f64),
            ("EPSILON", f64::from(self.epsilon)),
        ];
        let uniform = cpu && 4 * x.last() as u64 <= UNIFORM_BYTES;
        let channels = match width {
            _ if !uniform => shader!("shared/channels_stored.wgsl"),
            4 => shader!("shared/channels_uniform4.wgsl"),
            2 => shader!("shared/channels_uniform2.wgsl"),
            _ => shader!("shared/channels_uniform1.wgsl"),
        };
        if uniform {
            by_channel.iter().for_each(|&slot| slots[slot] = Slot::Uniform { input: slot, samples: None });
        }
        let source = kernels::Source::over_vectors(source, width, profile)
            .with(shader!("shared/group_norm.wgsl"))
            .with(channels)
            .constant("VECTORS", x.last().div_ceil(4));
        let grid = Grid::new(groups, (lanes / t) as u32);
        kernels::dispatch(name, source, &constants, grid, slots, epilogue)
    }
}

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn key(&self) -> String {
        format!("groups={} epsilon={:?}", self.groups, self.epsilon)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        self.check(self.name(), inputs, ["x", "gamma", "beta", "", ""])?;
        let statistics = self.statistics(&inputs[0].shape);
        Ok(vec![inputs[0].clone(), statistics.clone(), statistics])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [x, gamma, beta] = inputs else { return Vec::new() };
        let sizes = self.sizes(&Shape::fixed(x.shape.clone()));
        let shape = vec![x.shape[0], self.groups];
        let average = |f: &dyn Fn(usize, usize) -> f64| {
            let mut sums = Array::zeros(shape.clone());
            (0..x.data.len()).for_each(|i| sums.data[sizes.group(i)] += f(i, sizes.group(i)));
            sums.map(|sum| sum / sizes.of_group() as f64)
        };
        let mean = average(&|i, _| x.data[i]);
        let variance = average(&|i, k| (x.data[i] - mean.data[k]).powi(2));
        let lost = |k: usize| variance.data[k].is_nan();
        let mean = Array::from_fn(mean.shape, |k| if lost(k) { f64::NAN } else { mean.data[k] });
        let y = Array::from_fn(x.shape.clone(), |i| {
            let (k, c) = (sizes.group(i), i % gamma.data.len());
            let r = 1.0 / (variance.data[k] + f64::from(self.epsilon)).sqrt();
            (x.data[i] - mean.data[k]) * r * gamma.data[c] + beta.data[c]
        });
        vec![y, mean, variance]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let [x, gamma, _] = *inputs else { return Ok(vec![None; inputs.len()]) };
        let (mean, variance) = (outputs[1], outputs[2]);
        let mut grads = match dy[0] {
            None => vec![None; 3],
            Some(dy) => {
                let op = GroupNormGrad { norm: self.clone() };
                g.apply(op, &[x, gamma, mean, variance, dy])?.into_iter().map(Some).collect()
            }
        };
        // Through the statistics as outputs: dmean / count + 2 (x − mean) dvariance / count.
        let shape = g.shape(x).clone();
        let sizes = self.sizes(&shape);
        let (split, one) = ([sizes.pixels, sizes.groups, sizes.channels], [1, sizes.groups, 1]);
        let share = 1.0 / sizes.of_group() as f32;
        for (d, slope) in [(dy[1], false), (dy[2], true)] {
            let Some(d) = d else { continue };
            let d = g.reshape(d, shape.with_row(&one))?;
            let mut term = g.scale(d, if slope { 2.0 * share } else { share })?;
            if slope {
                let (x, mean) = (g.reshape(x, shape.with_row(&split))?, g.reshape(mean, shape.with_row(&one))?);
                let offset = g.sub(x, mean)?;
                term = g.mul(offset, term)?;
            } else {
                term = g.expand(term, &shape.with_row(&split))?;
            }
            let term = g.reshape(term, shape.clone())?;
            grads[0] = Some(match grads[0] {
                None => term,
                Some(other) => g.add(other, term)?,
            });
        }
        Ok(grads)
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let mut slots: Vec<Slot> = (0..3).map(Slot::input).collect();
        slots.extend((0..3).map(Slot::output));
        let source = shader!("group_norm.wgsl");
        let kernel = Kernel { name: "group_norm", source, slots, by_channel: &[1, 2] };
        let dispatch = self.dispatch(kernel, &io.inputs[0].shape, profile, epilogue);
        let width = kernels::width(io.inputs[0].shape.last() / self.groups, profile);
        vec![Candidate::single(Schedule::of_width(Core::Group, width), dispatch)]
    }

    fn cost(&self, io: &Io) -> Cost {
        let x = io.inputs[0].shape.elements();
        Cost { flops: x.times(7), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Normalization { terms: self.sizes(&io.inputs[0].shape).of_group() as u64 }; 3]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let ([x, gamma, beta], [y, mean, variance]) = (inputs, exact) else { return Vec::new() };
        let sizes = self.sizes(&Shape::fixed(x.shape.clone()));
        let accuracy = self.accuracy(io, step.n)[0];
        let largest = |f: &dyn Fn(usize, usize) -> f64| {
            let mut most = vec![0.0f64; mean.data.len()];
            (0..x.data.len()).for_each(|i| most[sizes.group(i)] = most[sizes.group(i)].max(f(i, sizes.group(i))));
            most
        };
        let size = largest(&|i, _| x.data[i].abs());
        let spread = largest(&|i, k| (x.data[i] - mean.data[k]).powi(2));
        let mean_bound = Array::from_fn(mean.shape.clone(), |k| accuracy.bound(&[], mean.data[k], size[k]));
        // Deviations are taken from a mean that is rounded at the size of x.
        let variance_bound = Array::from_fn(mean.shape.clone(), |k| {
            let rounded = 8.0 * UNIT * size[k];
            accuracy.bound(&[], variance.data[k], spread[k]) + rounded * (spread[k].sqrt() + rounded)
        });
        let y_bound = Array::from_fn(y.shape.clone(), |i| {
            let (k, c) = (sizes.group(i), i % gamma.data.len());
            let v = variance.data[k] + f64::from(self.epsilon);
            let relative = variance_bound.data[k] / v + 8.0 * UNIT;
            let scaled = (gamma.data[c] / v.sqrt()).abs();
            scaled * (mean_bound.data[k] + (x.data[i] - mean.data[k]).abs() * relative)
                + 2.0 * UNIT * (beta.data[c].abs() + y.data[i].abs())
                + f64::from(f32::MIN_POSITIVE)
        });
        vec![y_bound, mean_bound, variance_bound]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl GroupNormGrad {
    /// Returns (x − mean) / √(variance + epsilon) and the second factor.
    fn normal(&self, sizes: &Sizes, [x, mean, variance]: [&Array; 3], i: usize) -> (f64, f64) {
        let k = sizes.group(i);
        let r = 1.0 / (variance.data[k] + f64::from(self.norm.epsilon)).sqrt();
        ((x.data[i] - mean.data[k]) * r, r)
    }

    /// Returns the sums over a group of gamma · dy and of gamma · dy · x̂, or of the terms' magnitudes.
    fn sums(&self, sizes: &Sizes, [x, gamma, mean, variance, dy]: [&Array; 5], absolute: bool) -> [Vec<f64>; 2] {
        let mut sums = [vec![0.0; mean.data.len()], vec![0.0; mean.data.len()]];
        for i in 0..x.data.len() {
            let d = dy.data[i] * gamma.data[i % gamma.data.len()];
            let terms = [d, d * self.normal(sizes, [x, mean, variance], i).0];
            for (sums, term) in sums.iter_mut().zip(terms) {
                sums[sizes.group(i)] += if absolute { term.abs() } else { term };
            }
        }
        sums
    }
}

impl Op for GroupNormGrad {
    fn name(&self) -> &'static str {
        "group_norm_grad"
    }

    fn key(&self) -> String {
        self.norm.key()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        self.norm.check(self.name(), inputs, ["x", "gamma", "mean", "variance", "dy"])?;
        Ok(vec![inputs[0].clone(), inputs[1].clone(), inputs[1].clone()])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let &[x, gamma, mean, variance, dy] = inputs else { return Vec::new() };
        let sizes = self.norm.sizes(&Shape::fixed(x.shape.clone()));
        let c = gamma.data.len();
        let count = sizes.of_group() as f64;
        let (mut dgamma, mut dbeta) = (Array::zeros([c]), Array::zeros([c]));
        for (i, d) in dy.data.iter().enumerate() {
            dgamma.data[i % c] += d * self.normal(&sizes, [x, mean, variance], i).0;
            dbeta.data[i % c] += d;
        }
        let [plain, product] = self.sums(&sizes, [x, gamma, mean, variance, dy], false);
        let dx = Array::from_fn(x.shape.clone(), |i| {
            let (k, (normal, r)) = (sizes.group(i), self.normal(&sizes, [x, mean, variance], i));
            r * (dy.data[i] * gamma.data[i % c] - plain[k] / count - normal * product[k] / count)
        });
        vec![dx, dgamma, dbeta]
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let x = &io.inputs[0].shape;
        let mut slots: Vec<Slot> = (0..5).map(Slot::input).collect();
        slots.push(Slot::output(0));
        let source = shader!("group_norm_grad.wgsl");
        let kernel = Kernel { name: "group_norm_grad", source, slots, by_channel: &[1] };
        let to_x = self.norm.dispatch(kernel, x, profile, epilogue);
        let sizes = self.norm.sizes(x);
        let width = kernels::width(sizes.channels, profile);
        let c = sizes.channels / width;
        let channels = sizes.groups * c;
        let cpu = profile.class == DeviceClass::Cpu;
        let (lanes, wanted): (usize, usize) = if cpu { (8, 256) } else { (64, 16_384) };
        let wanted = wanted.div_ceil(channels).min(1024);
        let samples = sizes.samples.at(8) as usize;
        let over_pixels = wanted.div_ceil(samples).min(sizes.pixels);
        let long = sizes.samples.times((sizes.pixels.div_ceil(over_pixels) + 1) as u64);
        let parts = long.at(LONG_BATCH).div_ceil(profile.max_iterations / 2) as usize;
        let over_samples = wanted.div_ceil(over_pixels).min(samples).max(parts);
        let parts = over_samples * over_pixels;
        let constants = [
            ("LANES", lanes as f64),
            ("SAMPLES", sizes.samples.fixed as f64),
            ("SAMPLES_PER_SAMPLE", sizes.samples.per_sample as f64),
            ("P", sizes.pixels as f64),
            ("G", sizes.groups as f64),
            ("C", c as f64),
            ("PN", over_samples as f64),
            ("PP", over_pixels as f64),
            ("EPSILON", f64::from(self.norm.epsilon)),
        ];
        let slots = [0, 2, 3, 4].into_iter().map(Slot::input).chain([Slot::Scratch(0)]).collect();
        let source = kernels::Source::over_vectors(shader!("group_norm_grad_sums.wgsl"), width, profile)
            .with(shader!("shared/group_norm.wgsl"));
        let grid = Grid::new(Count { fixed: (parts * channels) as u64, per_sample: 0 }, lanes as u32);
        let sums = kernels::dispatch("group_norm_grad_sums", source, &constants, grid, slots, None);
        let constants = [("LANES", lanes as f64), ("CHANNELS", channels as f64), ("PARTS", parts as f64)];
        let slots = vec![Slot::Scratch(0), Slot::output(1), Slot::output(2)];
        let source = kernels::Source::over_vectors(shader!("group_norm_grad_merge.wgsl"), width, profile);
        let grid = Grid::new(Count { fixed: 2 * channels as u64, per_sample: 0 }, lanes as u32);
        let merge = kernels::dispatch("group_norm_grad_merge", source, &constants, grid, slots, None);
        let schedule = Schedule { split: parts, ..Schedule::of_width(Core::Group, width) };
        let scratch = Count { fixed: (parts * 2 * channels * width * 4) as u64, per_sample: 0 };
        vec![Candidate::new(schedule, vec![to_x, sums, merge], vec![scratch])]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements().times(12), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        let sizes = self.norm.sizes(&io.inputs[0].shape);
        let terms = sizes.samples.at(n) * sizes.pixels as u64;
        let group = Accuracy::Normalization { terms: sizes.of_group() as u64 };
        vec![group, Accuracy::Products { terms }, Accuracy::Products { terms }]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let (&[x, gamma, mean, variance, dy], [dx, dgamma, dbeta]) = (inputs, exact) else { return Vec::new() };
        let sizes = self.norm.sizes(&Shape::fixed(x.shape.clone()));
        let (c, count) = (gamma.data.len(), sizes.of_group() as f64);
        let statistics = [x, mean, variance];
        let products = self.accuracy(io, step.n)[1];
        let (mut gammas, mut betas) = (vec![0.0; c], vec![0.0; c]);
        for (i, d) in dy.data.iter().enumerate() {
            gammas[i % c] += (d * self.normal(&sizes, statistics, i).0).abs();
            betas[i % c] += d.abs();
        }
        // x̂ carries inverseSqrt's 2 units in the last place and a rounding for each of its two operations.
        let gamma_bound =
            Array::from_fn([c], |k| products.bound(&[], dgamma.data[k], gammas[k]) + 8.0 * UNIT * gammas[k]);
        let beta_bound = Array::from_fn([c], |k| products.bound(&[], dbeta.data[k], betas[k]));
        let sums = self.sums(&sizes, [x, gamma, mean, variance, dy], true);
        let of_group = Accuracy::Products { terms: sizes.of_group() as u64 };
        let dx_bound = Array::from_fn(dx.shape.clone(), |i| {
            let (k, (normal, r)) = (sizes.group(i), self.normal(&sizes, statistics, i));
            let carried = |sum: f64| (of_group.bound(&[], sum, sum) + 16.0 * UNIT * sum) / count;
            let own = 8.0 * UNIT * (dy.data[i] * gamma.data[i % c]).abs();
            r * (own + carried(sums[0][k]) + normal.abs() * carried(sums[1][k])) + f64::from(f32::MIN_POSITIVE)
        });
        vec![dx_bound, gamma_bound, beta_bound]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns `x` (N, …, c) with each sample and group of neighbouring channels normalised by its own statistics, times
    /// `gamma` (c) plus `beta` (c).
    ///
    /// ```
    /// use hubel::prelude::*;
    /// # use hubel::graph::TensorType;
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 8, 8, 32], F32);
    /// let gamma = g.state("gamma", TensorType::f32([32]), None);
    /// let beta = g.state("beta", TensorType::f32([32]), None);
    /// let y = g.group_norm(x, gamma, beta, 4, 1e-3)?;
    /// assert_eq!(g.shape(y), g.shape(x));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn group_norm(
        &mut self,
        x: Value,
        gamma: Value,
        beta: Value,
        groups: usize,
        epsilon: f32,
    ) -> Result<Value, OpError> {
        Ok(self.apply(GroupNorm { groups, epsilon }, &[x, gamma, beta])?[0])
    }

    /// Returns `x` normalised over its last axes, those of `gamma` and `beta`, times `gamma` plus `beta` (Ba et al. 2016;
    /// Keras `LayerNormalization`, ONNX LayerNormalization).
    ///
    /// ```
    /// use hubel::prelude::*;
    /// # use hubel::graph::TensorType;
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 8, 8, 32], F32);
    /// let gamma = g.state("gamma", TensorType::f32([32]), None);
    /// let beta = g.state("beta", TensorType::f32([32]), None);
    /// let y = g.layer_norm(x, gamma, beta, 1e-3)?;
    /// assert_eq!(g.shape(y), g.shape(x));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn layer_norm(&mut self, x: Value, gamma: Value, beta: Value, epsilon: f32) -> Result<Value, OpError> {
        let (shape, last) = (self.shape(x).clone(), self.shape(gamma).clone());
        let kept = shape.rank().saturating_sub(last.rank());
        if kept == 0 || last.rank() == 0 || last.is_batched() || shape.dims()[kept..] != *last.dims() {
            let advice = "the first axis is never normalised; gamma has the shape of those that are";
            return Err(OpError::new("layer_norm", format!("gamma of the last axes of {shape}"), &last, advice));
        }
        let of_row: usize = last.dims().iter().product();
        let rows = shape.dims()[..kept].iter().product();
        let flat = if shape.is_batched() { Shape::batched(rows, &[of_row]) } else { Shape::fixed([rows, of_row]) };
        let gamma = self.reshape(gamma, Shape::fixed([of_row]))?;
        if *self.shape(beta) != last {
            return Err(OpError::new(
                "layer_norm",
                format!("beta of {last}"),
                self.shape(beta),
                "give it gamma's shape",
            ));
        }
        let (x, beta) = (self.reshape(x, flat)?, self.reshape(beta, Shape::fixed([of_row]))?);
        let y = self.group_norm(x, gamma, beta, 1, epsilon)?;
        self.reshape(y, shape)
    }
}
