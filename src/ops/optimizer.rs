//! Optimisers: one launch changes all weights and their moments in place.
//!
//! The members of each group (weights, gradients, moments) lie one behind the other at multiples of 256 bytes, so
//! that one binding covers a group and a flat index finds a weight, its gradient and its moments.

use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fault, Fill, Graph, Grid, Io, Op, OpError, Sample, Slot,
        Step, TensorType, Value,
    },
    kernels,
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, UNIT},
};

/// A rule by which weights follow their gradients. Host number 0 is the learning rate η, number 1 is Adam's α.
///
/// Inputs are groups of equally many tensors: weights, gradients, then each kind of moment; outputs are the new
/// weights, then the new moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// `v = μ·v − η·g; w = w + v`, with Nesterov's rule `w = w + μ·v − η·g` (Keras SGD). No moment where μ is 0.
    Sgd {
        /// The part μ of the last move that is kept.
        momentum: f32,
        /// Whether the move looks ahead.
        nesterov: bool,
    },
    /// `m = β₁·m + (1 − β₁)·g; v = β₂·v + (1 − β₂)·g²; w = w − α·m / (√v + ε)` with
    /// `α = η·√(1 − β₂ᵗ) / (1 − β₁ᵗ)` from the host (Keras Adam).
    Adam {
        /// The part of the mean gradient that is kept.
        beta_1: f32,
        /// The part of the mean square that is kept.
        beta_2: f32,
        /// What keeps the divisor from zero.
        epsilon: f32,
    },
}

impl Optimizer {
    /// Returns how many tensors each weight has beside itself and its gradient.
    pub fn n_moments(&self) -> usize {
        match self {
            Optimizer::Sgd { momentum: 0.0, .. } => 0,
            Optimizer::Sgd { .. } => 1,
            Optimizer::Adam { .. } => 2,
        }
    }

    fn n_weights(&self, n_inputs: usize) -> usize {
        n_inputs / (2 + self.n_moments())
    }

    /// Returns the new weight and moments from weight, gradient and moments of one element, with the largest
    /// 32-bit error of each.
    fn element(&self, x: &[f64], step: &Step) -> [(f64, f64); 3] {
        let (w, g) = (x[0], x[1]);
        match *self {
            Optimizer::Sgd { momentum, nesterov } => {
                let (mu, by) = (f64::from(momentum), f64::from(step.scalars[0]) * g);
                let old = if momentum == 0.0 { 0.0 } else { x[2] };
                let v = mu * old - by;
                let v_error = 3.0 * UNIT * ((mu * old).abs() + by.abs());
                let (moved, error) = if nesterov {
                    (mu * v - by, mu * v_error + 3.0 * UNIT * ((mu * v).abs() + by.abs()))
                } else {
                    (v, v_error)
                };
                [(w + moved, error + 2.0 * UNIT * (w + moved).abs()), (v, v_error), (0.0, 0.0)]
            }
            Optimizer::Adam { beta_1, beta_2, epsilon } => {
                let (b1, b2, alpha) = (f64::from(beta_1), f64::from(beta_2), f64::from(step.scalars[1]));
                let m = b1 * x[2] + (1.0 - b1) * g;
                let v = b2 * x[3] + (1.0 - b2) * g * g;
                let m_error = 3.0 * UNIT * ((b1 * x[2]).abs() + ((1.0 - b1) * g).abs());
                let divisor = v.sqrt() + f64::from(epsilon);
                let by = alpha * m / divisor;
                // Square root 5 ulp (10 units), its operand 2, sum 1, quotient 2.5 ulp (5), product 1.
                let error = alpha.abs() * m_error / divisor + 19.0 * UNIT * by.abs();
                [(w - by, error + 2.0 * UNIT * (w - by).abs()), (m, m_error), (v, 4.0 * UNIT * v)]
            }
        }
    }

    fn elements(&self, inputs: &[&Array], step: &Step, part: fn((f64, f64)) -> f64) -> Vec<Array> {
        let k = self.n_weights(inputs.len());
        let groups = 2 + self.n_moments();
        let mut outputs: Vec<Array> =
            (0..k * (groups - 1)).map(|i| Array::zeros(inputs[i % k].shape.clone())).collect();
        for weight in 0..k {
            for i in 0..inputs[weight].data.len() {
                let mut x = [0.0; 4];
                (0..groups).for_each(|group| x[group] = inputs[group * k + weight].data[i]);
                for (group, &new) in self.element(&x, step)[..groups - 1].iter().enumerate() {
                    outputs[group * k + weight].data[i] = part(new);
                }
            }
        }
        outputs
    }
}

/// Returns where a member of these bytes ends, as the next one's start.
fn padded(ty: &TensorType) -> u64 {
    ty.bytes(0).next_multiple_of(256)
}

impl Op for Optimizer {
    fn name(&self) -> &'static str {
        match self {
            Optimizer::Sgd { .. } => "sgd",
            Optimizer::Adam { .. } => "adam",
        }
    }

    fn key(&self) -> String {
        match self {
            Optimizer::Sgd { momentum, nesterov } => {
                format!("momentum={momentum:?}{}", if *nesterov { " nesterov" } else { "" })
            }
            Optimizer::Adam { beta_1, beta_2, epsilon } => {
                format!("beta_1={beta_1:?} beta_2={beta_2:?} epsilon={epsilon:?}")
            }
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let groups = 2 + self.n_moments();
        let k = self.n_weights(inputs.len());
        if k == 0 || inputs.len() != k * groups {
            let advice = "pass weights, gradients and moments, equally many of each";
            return Err(OpError::new(self.name(), format!("a multiple of {groups} inputs"), inputs.len(), advice));
        }
        let ok = match self {
            Optimizer::Sgd { momentum, .. } => (0.0..=1.0).contains(momentum),
            Optimizer::Adam { beta_1, beta_2, epsilon } => {
                (0.0..1.0).contains(beta_1) && (0.0..1.0).contains(beta_2) && *epsilon > 0.0
            }
        };
        if !ok {
            let wanted = "momentum in 0..=1, betas in 0..1, epsilon above 0";
            return Err(OpError::new(self.name(), wanted, self.key(), "start from Keras's defaults"));
        }
        for (i, ty) in inputs.iter().enumerate() {
            let weight = &inputs[i % k];
            if ty != weight || ty.dtype != DType::F32 || ty.shape.is_batched() || ty.shape.dims().contains(&0) {
                let wanted = format!("f32 like weight {} ({}), without a batch axis", i % k, weight.shape);
                let advice = "pass for each weight a gradient and moments of its shape";
                return Err(OpError::new(self.name(), wanted, format!("{ty} as input {i}"), advice));
            }
        }
        Ok((0..k * (groups - 1)).map(|i| inputs[i % k].clone()).collect())
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        self.elements(inputs, step, |new| new.0)
    }

    fn vjp(
        &self,
        _g: &mut Graph,
        inputs: &[Value],
        _outputs: &[Value],
        _dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        Ok(vec![None; inputs.len()])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let k = self.n_weights(io.inputs.len());
        let (kernel, source, mut constants) = match *self {
            Optimizer::Sgd { momentum: 0.0, .. } => ("sgd", include_str!("../../shaders/sgd.wgsl"), Vec::new()),
            Optimizer::Sgd { momentum, nesterov } => (
                "sgd_momentum",
                include_str!("../../shaders/sgd_momentum.wgsl"),
                vec![("MOMENTUM", f64::from(momentum)), ("NESTEROV", f64::from(u8::from(nesterov)))],
            ),
            Optimizer::Adam { beta_1, beta_2, epsilon } => (
                "adam",
                include_str!("../../shaders/adam.wgsl"),
                vec![("BETA1", beta_1.into()), ("BETA2", beta_2.into()), ("EPSILON", epsilon.into())],
            ),
        };
        let source = kernels::wide_words(source, profile);
        constants.insert(0, ("COUNT", 0.0));
        let mut dispatches = Vec::new();
        let mut first = 0;
        while first < k {
            let mut last = first + 1;
            let mut before = 0;
            // One launch does as many weights as one binding can hold.
            while last < k
                && before + padded(&io.inputs[last - 1]) + padded(&io.inputs[last]) <= profile.max_binding_bytes
            {
                before += padded(&io.inputs[last - 1]);
                last += 1;
            }
            let count = before / 4 + io.inputs[last - 1].shape.elements().fixed;
            constants[0].1 = count as f64;
            let group = |i: usize| first + i * k..last + i * k;
            let mut slots = vec![Slot::InOut { inputs: group(0), outputs: group(0) }, Slot::In(group(1))];
            slots.extend((0..self.n_moments()).map(|m| Slot::InOut { inputs: group(2 + m), outputs: group(1 + m) }));
            let grid = Grid::new(Count { fixed: count.div_ceil(4), per_sample: 0 }, 64);
            dispatches.push(kernels::dispatch(kernel, &source, &constants, grid, slots, None));
            first = last;
        }
        vec![Candidate { variant: "width4".into(), dispatches, scratch_bytes: Vec::new() }]
    }

    fn cost(&self, io: &Io) -> Cost {
        let weights: u64 = io.inputs[..self.n_weights(io.inputs.len())].iter().map(|t| t.shape.elements().fixed).sum();
        let flops = [2, 5, 13][self.n_moments()];
        let fixed = |fixed| Count { fixed, per_sample: 0 };
        Cost { flops: fixed(weights * flops), bytes: fixed(weights * 4 * (3 + 2 * self.n_moments() as u64)) }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Relative(if self.n_moments() == 2 { 24.0 * UNIT } else { 8.0 * UNIT }); io.outputs.len()]
    }

    /// Roundings followed through the rule, relative to the magnitudes of what is added.
    fn bounds(&self, _io: &Io, inputs: &[&Array], _exact: &[Array], step: &Step) -> Vec<Array> {
        self.elements(inputs, step, |new| new.1 + f64::from(f32::MIN_POSITIVE))
    }

    fn in_place(&self, n_inputs: usize) -> Vec<(usize, usize)> {
        let k = self.n_weights(n_inputs);
        (0..k * (1 + self.n_moments())).map(|o| (o, if o < k { o } else { o + k })).collect()
    }
}

impl Graph {
    /// Returns new weights, then new velocities, of gradient descent at the learning rate in host number 0.
    ///
    /// `velocities` is empty where `momentum` is 0. All are changed in place: pass each result to
    /// [`Graph::update`] with its state.
    pub fn sgd(
        &mut self,
        weights: &[Value],
        gradients: &[Value],
        velocities: &[Value],
        momentum: f32,
        nesterov: bool,
    ) -> Result<Vec<Value>, OpError> {
        self.apply(Optimizer::Sgd { momentum, nesterov }, &[weights, gradients, velocities].concat())
    }

    /// Returns new weights, then new means `m`, then new mean squares `v`, of Adam at the rate α in host number 1.
    ///
    /// All are changed in place: pass each result to [`Graph::update`] with its state.
    #[allow(clippy::too_many_arguments)]
    pub fn adam(
        &mut self,
        weights: &[Value],
        gradients: &[Value],
        m: &[Value],
        v: &[Value],
        beta_1: f32,
        beta_2: f32,
        epsilon: f32,
    ) -> Result<Vec<Value>, OpError> {
        self.apply(Optimizer::Adam { beta_1, beta_2, epsilon }, &[weights, gradients, m, v].concat())
    }
}

fn inputs(op: Optimizer, weights: &[Vec<usize>]) -> Vec<(TensorType, Fill)> {
    let fills = match op {
        Optimizer::Sgd { .. } => [Fill::Uniform(-1.0, 1.0); 4],
        Optimizer::Adam { .. } => {
            [Fill::Uniform(-0.2, 0.2), Fill::Uniform(-1.0, 1.0), Fill::Uniform(-1.0, 1.0), Fill::Uniform(0.0, 1.0)]
        }
    };
    (0..2 + op.n_moments())
        .flat_map(|group| weights.iter().map(move |w| (TensorType::f32(w.as_slice()), fills[group])))
        .collect()
}

fn weights(rng: &mut Philox) -> Vec<Vec<usize>> {
    let sizes = [1, 3, 7, 15, 16, 17, 63, 64, 65];
    (0..1 + rng.below(5)).map(|_| (0..1 + rng.below(3)).map(|_| rng.pick(&sizes[..])).collect()).collect()
}

fn sample_sgd(rng: &mut Philox) -> Sample {
    let op = Optimizer::Sgd { momentum: rng.pick(&[0.0, 0.5, 0.9]), nesterov: rng.below(2) == 0 };
    let capacity = rng.pick(&[1, 5]);
    Sample::new(op, inputs(op, &weights(rng)), capacity)
}

fn sample_adam(rng: &mut Philox) -> Sample {
    let op = Optimizer::Adam {
        beta_1: rng.pick(&[0.9, 0.5]),
        beta_2: rng.pick(&[0.999, 0.9]),
        epsilon: rng.pick(&[1e-7, 1e-3, 0.1]),
    };
    let capacity = rng.pick(&[1, 5]);
    Sample::new(op, inputs(op, &weights(rng)), capacity)
}

/// The weights of LeNet-5 (61,706 numbers).
fn lenet() -> Vec<Vec<usize>> {
    let shapes: [&[usize]; 10] =
        [&[5, 5, 1, 6], &[6], &[5, 5, 6, 16], &[16], &[400, 120], &[120], &[120, 84], &[84], &[84, 10], &[10]];
    shapes.iter().map(|s| s.to_vec()).collect()
}

fn benches_sgd() -> Vec<(&'static str, Sample)> {
    let op = Optimizer::Sgd { momentum: 0.9, nesterov: false };
    vec![("momentum_lenet5", Sample::new(op, inputs(op, &lenet()), 1))]
}

fn benches_adam() -> Vec<(&'static str, Sample)> {
    let op = Optimizer::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 };
    vec![
        ("lenet5", Sample::new(op, inputs(op, &lenet()), 1)),
        ("4m", Sample::new(op, inputs(op, &[vec![2048, 2048]]), 1)),
    ]
}

const SKIP: Fault =
    Fault { what: "skips the last vector", from: "if (i * 4u >= COUNT)", to: "if (i * 4u + 4u >= COUNT)" };

/// Gradient descent as a family.
pub static SGD: Family = Family {
    name: "sgd",
    about: "gradient descent with momentum and Nesterov's rule, all weights in one launch, in place (Keras SGD)",
    sample: sample_sgd,
    benches: benches_sgd,
    bad: &[
        Bad {
            what: "a weight without a gradient",
            build: |g| {
                let w = g.input("w", [3, 4], DType::F32);
                Ok(g.sgd(&[w], &[], &[], 0.0, false)?[0])
            },
        },
        Bad {
            what: "a gradient of another shape",
            build: |g| {
                let (w, d) = (g.input("w", [3, 4], DType::F32), g.input("d", [4, 3], DType::F32));
                Ok(g.sgd(&[w], &[d], &[], 0.0, false)?[0])
            },
        },
        Bad {
            what: "a weight with a batch axis",
            build: |g| {
                let (w, d) = (g.input("w", [Batch, 4], DType::F32), g.input("d", [Batch, 4], DType::F32));
                Ok(g.sgd(&[w], &[d], &[], 0.0, false)?[0])
            },
        },
        Bad {
            what: "a negative momentum",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.sgd(&[w], &[d], &[d], -0.9, false)?[0])
            },
        },
    ],
    faults: &[
        SKIP,
        Fault { what: "goes uphill", from: "MOMENTUM * before - drive", to: "MOMENTUM * before + drive" },
        Fault { what: "drops the momentum", from: "MOMENTUM * before -", to: "before -" },
        Fault { what: "does not look ahead", from: "if (NESTEROV)", to: "if (false)" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};

/// Adam as a family.
pub static ADAM: Family = Family {
    name: "adam",
    about: "Adam, all weights in one launch, in place (Keras Adam; Kingma and Ba 2015)",
    sample: sample_adam,
    benches: benches_adam,
    bad: &[
        Bad {
            what: "a moment missing",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.adam(&[w], &[d], &[d], &[], 0.9, 0.999, 1e-7)?[0])
            },
        },
        Bad {
            what: "an epsilon of zero",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.adam(&[w], &[d], &[d], &[d], 0.9, 0.999, 0.0)?[0])
            },
        },
    ],
    faults: &[
        SKIP,
        Fault { what: "does not square the gradient", from: "gradient * gradient", to: "gradient" },
        Fault { what: "forgets epsilon", from: "(sqrt(square) + EPSILON)", to: "max(sqrt(square), vec4<f32>(1e-9))" },
        Fault { what: "forgets the new gradient", from: "(1.0 - BETA1) * gradient", to: "(1.0 - BETA2) * gradient" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};
