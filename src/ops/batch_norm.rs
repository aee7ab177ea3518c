//! Batch normalisation over all axes but the last: training with batch statistics, its gradient, and inference
//! with given statistics.

use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceClass, DeviceProfile, Dispatch, Epilogue, Family, Fill, Gradients, Graph, Grid, Io,
        Op, OpError, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape, UNIT},
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

fn check(op: &str, epsilon: f32, inputs: &[TensorType], names: &str, full: &[usize]) -> Result<(), OpError> {
    let n = names.split(' ').count();
    if inputs.len() != n {
        return Err(OpError::new(op, format!("{n} inputs ({names})"), inputs.len(), "pass them in this order"));
    }
    let x = &inputs[0];
    if x.shape.rank() < 2 || x.shape.last() == 0 {
        return Err(OpError::new(op, "a tensor of rank 2 or more, channels last", x, "reshape it to (rows, channels)"));
    }
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(OpError::new(op, "a positive epsilon", epsilon, "Keras uses 1e-3"));
    }
    for (i, (input, name)) in inputs.iter().zip(names.split(' ')).enumerate() {
        let wanted = TensorType::f32(if full.contains(&i) { x.shape.clone() } else { Shape::fixed([x.shape.last()]) });
        if *input != wanted {
            return Err(OpError::new(op, format!("{name} of {wanted}"), input, "one value per channel of x, in f32"));
        }
    }
    Ok(())
}

/// How the launches share the work.
#[derive(Clone, Copy)]
struct Layout<'a> {
    width: usize,
    lanes: usize,
    c: usize,
    span: usize,
    t: usize,
    tiles: usize,
    groups: usize,
    gather: bool,
    merge_span: usize,
    merge_lanes: usize,
    n_rows: Count,
    epsilon: f32,
    profile: &'a DeviceProfile,
}

impl<'a> Layout<'a> {
    fn new(x: &Shape, epsilon: f32, class: DeviceClass, profile: &'a DeviceProfile) -> Self {
        let width = kernels::width(x.last(), profile);
        let c = x.last() / width;
        let (lanes, gather) = match class {
            DeviceClass::Cpu => (64, false),
            DeviceClass::Gpu => (256, true),
        };
        let (span, rows) = (c.min(lanes), x.rows());
        // Two workgroups for each multiprocessor, unless lanes would have fewer than four rows.
        let full = (2 * profile.multiprocessors as usize).div_ceil(c.div_ceil(span));
        let groups = if gather { full.min(rows.at(profile.batch) as usize / (4 * (lanes / span))).max(1) } else { 32 };
        let groups = if rows.per_sample == 0 { groups.min(rows.fixed as usize).max(1) } else { groups };
        let (merge_span, merge_lanes) = if gather { (4, 256) } else { (8, 8) };
        Layout {
            width,
            lanes,
            c,
            span,
            t: lanes / span,
            tiles: c.div_ceil(span),
            groups,
            gather,
            merge_span,
            merge_lanes,
            n_rows: rows,
            epsilon,
            profile,
        }
    }

    fn partials(&self) -> usize {
        if self.gather { self.groups } else { self.groups * self.t }
    }

    /// A launch over all rows, in chunks.
    fn rows(&self, kernel: &str, source: &str, slots: Vec<Slot>, epilogue: Option<&Epilogue>) -> Dispatch {
        let grid = Grid::fixed((self.groups * self.tiles) as u64);
        self.dispatch(kernel, source, grid, slots, epilogue)
    }

    fn merge(&self, kernel: &str, source: &str, slots: Vec<Slot>) -> Dispatch {
        let grid = Grid::fixed(self.c.div_ceil(self.merge_span) as u64);
        let merged = Layout { lanes: self.merge_lanes, span: self.merge_span, ..*self };
        merged.dispatch(kernel, source, grid, slots, None)
    }

    fn dispatch(
        &self,
        kernel: &str,
        source: &str,
        grid: Grid,
        slots: Vec<Slot>,
        epilogue: Option<&Epilogue>,
    ) -> Dispatch {
        let constants = [
            ("LANES", self.lanes as f64),
            ("SPAN", self.span as f64),
            ("SHARERS", (self.lanes / self.span) as f64),
            ("LEVELS", f64::from((self.lanes / self.span).next_power_of_two().ilog2())),
            ("T", self.t as f64),
            ("GATHER", f64::from(u8::from(self.gather))),
            ("EPSILON", f64::from(self.epsilon)),
        ];
        let extents = [
            ("rows", self.n_rows.fixed),
            ("rows_per_sample", self.n_rows.per_sample),
            ("channels", self.c as u64),
            ("tiles", self.tiles as u64),
            ("chunks", self.groups as u64),
            ("partials", self.partials() as u64),
        ];
        let source = kernels::Source::over_vectors(source, self.width, self.profile);
        let source = source.with(shader!("shared/batch_norm.wgsl")).extents(&extents);
        kernels::dispatch(kernel, source, &constants, grid, slots, epilogue)
    }

    fn candidate(&self, n_coefficients: usize, dispatches: Vec<Dispatch>) -> Candidate {
        let floats = |n: usize| Count { fixed: (n * self.c * self.width * 4) as u64, per_sample: 0 };
        let core = if self.gather { Core::Group } else { Core::Lane };
        let variant = Schedule::of_width(core, self.width);
        Candidate::new(variant, dispatches, vec![floats(2 * self.partials()), floats(n_coefficients)])
    }
}

/// The layout for the device and, second, the other one: what is best on one may be close on the other.
fn layouts<'a>(x: &Shape, epsilon: f32, profile: &'a DeviceProfile) -> [Layout<'a>; 2] {
    let (first, second) = match profile.class {
        DeviceClass::Cpu => (DeviceClass::Cpu, DeviceClass::Gpu),
        DeviceClass::Gpu => (DeviceClass::Gpu, DeviceClass::Cpu),
    };
    [first, second].map(|class| Layout::new(x, epsilon, class, profile))
}

/// Returns for each channel the sum of `f` over all rows, `f` being given row-major indices.
fn channel_sums(shape: &[usize], f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let c = shape.last().copied().unwrap_or(1).max(1);
    let mut sums = vec![0.0; c];
    for i in 0..shape.iter().product() {
        sums[i % c] += f(i, i % c);
    }
    sums
}

fn n_rows(shape: &[usize]) -> f64 {
    shape.iter().rev().skip(1).product::<usize>().max(1) as f64
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

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let candidate = |l: &Layout| {
            let statistics = shader!("batch_norm_statistics.wgsl");
            let merge = shader!("batch_norm_merge.wgsl");
            let apply = shader!("batch_norm_apply.wgsl");
            let slots = vec![Slot::Scratch(0), Slot::input(1), Slot::input(2)];
            let slots = [slots, vec![Slot::output(1), Slot::output(2), Slot::Scratch(1)]].concat();
            l.candidate(
                3,
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
        let largest = |f: &dyn Fn(usize, usize) -> f64| {
            let mut most = vec![0.0f64; c];
            (0..x.data.len()).for_each(|i| most[i % c] = most[i % c].max(f(i, i % c)));
            most
        };
        let size = largest(&|i, _| x.data[i].abs());
        let spread = largest(&|i, k| (x.data[i] - mean.data[k]).powi(2));
        let mean_bound = Array::from_fn([c], |k| accuracy.bound(&[], mean.data[k], size[k]));
        // Deviations are taken from a mean that is rounded at the size of x.
        let var_bound = Array::from_fn([c], |k| {
            let rounded = 8.0 * UNIT * size[k];
            accuracy.bound(&[], var.data[k], spread[k]) + rounded * (spread[k].sqrt() + rounded)
        });
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

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let candidate = |l: &Layout| {
            let sums = shader!("batch_norm_grad_sums.wgsl");
            let merge = shader!("batch_norm_grad_merge.wgsl");
            let apply = shader!("batch_norm_grad_apply.wgsl");
            let from = vec![Slot::Scratch(0), Slot::input(1), Slot::input(2), Slot::input(3)];
            let inputs = [Slot::input(0), Slot::input(2), Slot::input(4), Slot::Scratch(0)];
            l.candidate(
                4,
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
        let r: Vec<f64> = var.data.iter().map(|v| 1.0 / (v + f64::from(self.epsilon)).sqrt()).collect();
        let normal = |i: usize, k: usize| ((x.data[i] - mean.data[k]) * r[k]).abs();
        let gammas = channel_sums(&x.shape, |i, k| dy.data[i].abs() * normal(i, k));
        let betas = channel_sums(&x.shape, |i, _| dy.data[i].abs());
        // r carries inverseSqrt's 2 units in the last place; each product one rounding.
        let gamma_bound =
            Array::from_fn([c], |k| products.bound(&[], dgamma.data[k], gammas[k]) + 8.0 * UNIT * dgamma.data[k].abs());
        let beta_bound = Array::from_fn([c], |k| products.bound(&[], dbeta.data[k], betas[k]));
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
            let epsilon = g.constant(epsilon)?;
            let shifted = g.add(variance, epsilon)?;
            let r = g.unary("rsqrt", shifted)?;
            let scale = g.mul(gamma, r)?;
            let offset = g.sub(x, mean)?;
            let scaled = g.mul(offset, scale)?;
            g.add(scaled, beta)
        })
    }
}

fn any_shape(rng: &mut Philox) -> (Shape, usize, usize, f32) {
    let c = rng.pick(&[1, 3, 4, 6, 7, 8, 15, 16, 17, 63, 64, 65, 256, 260]);
    let side = if c > 20 { rng.pick(&[1, 2, 3, 7]) } else { rng.pick(&[1, 2, 5, 7, 15, 16, 17]) };
    let other = if c < 20 && rng.below(4) == 0 { 63 } else { rng.pick(&[1, 3, side]) };
    let capacity = rng.pick(&[1, 2, 3, 5, 8]);
    let shape = match rng.below(4) {
        0 => Shape::from([Batch, c]),
        1 if c < 20 => Shape::fixed([rng.pick(&[9, 700, 2500]) + capacity, c]),
        1 => Shape::fixed([capacity + 1, side, c]),
        _ => Shape::from([Batch, side, other, c]),
    };
    // A few rows may be nearly equal: a small epsilon would then make the finite difference meaningless.
    let n = 1 + rng.below(capacity);
    let epsilon = if shape.rows().at(n) < 8 { 0.1 } else { 1e-3 };
    (shape, capacity, n, epsilon)
}

fn training(x: Shape, capacity: usize, epsilon: f32) -> Sample {
    let c = TensorType::f32([x.last()]);
    let inputs = vec![
        (TensorType::f32(x), Fill::Uniform(-1.0, 3.0)),
        (c.clone(), Fill::Away(0.5, 1.5)),
        (c, Fill::Uniform(-1.0, 1.0)),
    ];
    Sample::new(BatchNorm { epsilon }, inputs, capacity)
}

fn gradient(x: Shape, capacity: usize, epsilon: f32) -> Sample {
    let c = TensorType::f32([x.last()]);
    let x = TensorType::f32(x);
    let inputs = vec![
        (x.clone(), Fill::Uniform(-1.0, 3.0)),
        (c.clone(), Fill::Away(0.5, 1.5)),
        (c.clone(), Fill::Uniform(0.5, 1.5)),
        (c, Fill::Uniform(0.5, 2.0)),
        (x, Fill::Uniform(-1.0, 1.0)),
    ];
    Sample::new(BatchNormGrad { epsilon }, inputs, capacity)
}

/// Batch normalisation in training as a family.
pub static FAMILY: Family = Family {
    name: "batch_norm",
    about: "normalisation by the batch's mean and biased variance over all axes but the last (Keras BatchNormalization)",
    sample: |rng| {
        let (x, capacity, n, epsilon) = any_shape(rng);
        training(x, capacity, epsilon).with_n(n)
    },
    benches: || vec![("bn_train_n8_c64_56", training(Shape::from([Batch, 56, 56, 64]), 8, 1e-3))],
    bad: &[
        Bad {
            what: "a gamma of another number of channels",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 3], DType::F32);
                let c = g.input("c", [4], DType::F32);
                Ok(g.batch_norm(x, c, c, 1e-3)?[0])
            },
        },
        Bad {
            what: "an epsilon of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4], DType::F32);
                let c = g.input("c", [4], DType::F32);
                Ok(g.batch_norm(x, c, c, 0.0)?[0])
            },
        },
        Bad {
            what: "a vector",
            build: |g| {
                let x = g.input("x", [4], DType::F32);
                Ok(g.batch_norm(x, x, x, 1e-3)?[0])
            },
        },
        Bad {
            what: "inference with a variance of bytes",
            build: |g| {
                let x = g.input("x", [Batch, 4], DType::F32);
                let c = g.input("c", [4], DType::F32);
                let v = g.input("v", [4], DType::U8);
                g.batch_norm_inference(x, [c, c, c, v], 1e-3)
            },
        },
    ],
    equivalent: &[
        ("moves a boundary at g", "lanes behind the last chunk find no row"),
        ("takes for false at g", "lanes without a row of their own write what others write"),
        ("takes the other sign at chunk", "chunks may have any size that covers all rows"),
        ("adds 1 to a constant at variance", "a single row has no deviation"),
        ("moves a boundary at select", "an empty chunk has no rows either way"),
    ],
    differentiable: true,
    gradcheck: 1e-5,
};

/// The gradient of batch normalisation as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "batch_norm_grad",
    about: "gradient of batch_norm to its input, gamma and beta",
    sample: |rng| {
        let (x, capacity, n, epsilon) = any_shape(rng);
        gradient(x, capacity, epsilon).with_n(n)
    },
    benches: || vec![("bn_grad_n8_c64_56", gradient(Shape::from([Batch, 56, 56, 64]), 8, 1e-3))],
    bad: &[Bad {
        what: "a gradient of another shape than x",
        build: |g| {
            let x = g.input("x", [Batch, 4], DType::F32);
            let c = g.input("c", [4], DType::F32);
            g.apply1(BatchNormGrad { epsilon: 1e-3 }, &[x, c, c, c, c])
        },
    }],
    equivalent: &[
        ("moves a boundary at g", "lanes behind the last chunk find no row"),
        ("takes for false at g", "lanes without a row of their own write what others write"),
        ("takes the other sign at chunk", "chunks may have any size that covers all rows"),
    ],
    differentiable: false,
    gradcheck: 1e-5,
};
