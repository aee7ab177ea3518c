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
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, UNIT, maximum},
};
use std::fmt::Write as _;

/// How weights follow their gradients. Host number 0 is the learning rate η; [`Rule::scalars`] gives all of them.
///
/// Inputs are groups of equally many tensors: weights, gradients, then each kind of moment; outputs are the new
/// weights, then the new moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizer {
    /// The rule.
    pub rule: Rule,
    /// The part of each weight, times η, that is taken away before the rule acts (Keras `weight_decay`, AdamW).
    pub weight_decay: f32,
    /// What η is multiplied with for these weights.
    pub factor: f32,
}

/// A rule by which weights w follow their gradients g, as in Keras 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// `v = μ·v − η·g; w = w + v`, with Nesterov's rule `w = w + μ·v − η·g` (Keras SGD). No moment where μ is 0.
    Sgd {
        /// The part μ of the last move that is kept.
        momentum: f32,
        /// Whether the move looks ahead.
        nesterov: bool,
    },
    /// `m = β₁·m + (1 − β₁)·g; v = β₂·v + (1 − β₂)·g²; w = w − α·m / (√v + ε)` with host number 1
    /// `α = η·√(1 − β₂ᵗ) / (1 − β₁ᵗ)` (Kingma and Ba 2015 in the form of Keras Adam). `amsgrad` keeps the largest v so
    /// far too and divides by its root (Reddi et al. 2018).
    Adam {
        /// The part of the mean gradient that is kept.
        beta_1: f32,
        /// The part of the mean square that is kept.
        beta_2: f32,
        /// What keeps the divisor from zero.
        epsilon: f32,
        /// Whether the largest mean square so far divides.
        amsgrad: bool,
    },
    /// Adam's moments; `w = w − (a·m + b·g) / (√(c·v) + ε)` with host numbers 2 to 4 `a = η·uₜ₊₁ / (1 − Uₜ₊₁)`,
    /// `b = η·(1 − uₜ) / (1 − Uₜ)`, `c = 1 / (1 − β₂ᵗ)`, where `uₜ = β₁·(1 − 0.96ᵗ/2)` and U is the product of all u
    /// up to there (Dozat 2016 in the form of Keras Nadam).
    Nadam {
        /// The part of the mean gradient that is kept.
        beta_1: f32,
        /// The part of the mean square that is kept.
        beta_2: f32,
        /// What keeps the divisor from zero.
        epsilon: f32,
    },
    /// `v = ρ·v + (1 − ρ)·g²; m = μ·m + η·g / √(v + ε); w = w − m` (Keras RMSprop); `centered` keeps
    /// `a = ρ·a + (1 − ρ)·g` too and takes `v − a²` for v under the root. Moments are v, m where μ is not 0, a.
    Rmsprop {
        /// The part of the mean square that is kept.
        rho: f32,
        /// The part μ of the last move that is kept.
        momentum: f32,
        /// What keeps the divisor from zero.
        epsilon: f32,
        /// Whether the square of the mean gradient is taken off.
        centered: bool,
    },
    /// `v = v + g²; w = w − η·g / √(v + ε)` (Duchi et al. 2011, Keras Adagrad, which starts v at 0.1).
    Adagrad {
        /// What keeps the divisor from zero.
        epsilon: f32,
    },
}

impl From<Rule> for Optimizer {
    fn from(rule: Rule) -> Self {
        Optimizer { rule, weight_decay: 0.0, factor: 1.0 }
    }
}

impl Rule {
    /// Returns how many tensors each weight has beside itself and its gradient.
    pub fn n_moments(&self) -> usize {
        match self {
            Rule::Sgd { momentum, .. } => usize::from(*momentum != 0.0),
            Rule::Adam { amsgrad, .. } => 2 + usize::from(*amsgrad),
            Rule::Nadam { .. } => 2,
            Rule::Rmsprop { momentum, centered, .. } => 1 + usize::from(*momentum != 0.0) + usize::from(*centered),
            Rule::Adagrad { .. } => 1,
        }
    }

    /// Returns the host numbers of step `step`, counted from 0, at the learning rate `rate`.
    pub fn scalars(&self, rate: f64, step: u64) -> [f32; Step::N_SCALARS] {
        let t = step as f64 + 1.0;
        let mut scalars = [0.0; Step::N_SCALARS];
        scalars[0] = rate as f32;
        match *self {
            Rule::Adam { beta_1, beta_2, .. } => {
                let [one, two] = [beta_1, beta_2].map(|beta| 1.0 - f64::from(beta).powf(t));
                scalars[1] = (rate * two.sqrt() / one) as f32;
            }
            Rule::Nadam { beta_1, beta_2, .. } => {
                let u = |t: f64| f64::from(beta_1) * (1.0 - 0.5 * 0.96f64.powf(t));
                let mut product = u(1.0);
                // What has become this small takes nothing from 1 any more.
                for i in 2..=step + 1 {
                    if product < 1e-20 {
                        break;
                    }
                    product *= u(i as f64);
                }
                let next = u(t + 1.0);
                scalars[2] = (rate * next / (1.0 - product * next)) as f32;
                scalars[3] = (rate * (1.0 - u(t)) / (1.0 - product)) as f32;
                scalars[4] = (1.0 / (1.0 - f64::from(beta_2).powf(t))) as f32;
            }
            _ => {}
        }
        scalars
    }

    /// Returns the rule in WGSL: `after` and `new0`, … from `weight`, `gradient`, `old0`, …, and its constants.
    fn wgsl(&self) -> (String, Vec<(&'static str, f64)>) {
        const MOMENTS: &str = "let new0 = BETA1 * old0 + (1.0 - BETA1) * gradient;
    let new1 = BETA2 * old1 + (1.0 - BETA2) * gradient * gradient;";
        let betas = |beta_1: f32, beta_2: f32, epsilon: f32| {
            vec![("BETA1", beta_1.into()), ("BETA2", beta_2.into()), ("EPSILON", epsilon.into())]
        };
        match *self {
            Rule::Sgd { momentum: 0.0, .. } => ("let after = weight - rate * gradient;".into(), Vec::new()),
            Rule::Sgd { momentum, nesterov } => {
                let ahead = if nesterov { "MOMENTUM * new0 - drive" } else { "new0" };
                let text = format!(
                    "let drive = rate * gradient;
    let new0 = MOMENTUM * old0 - drive;
    let after = weight + ({ahead});"
                );
                (text, vec![("MOMENTUM", momentum.into())])
            }
            Rule::Adam { beta_1, beta_2, epsilon, amsgrad } => {
                let (largest, by) = if amsgrad { ("let new2 = larger(old2, new1);\n    ", 2) } else { ("", 1) };
                let alpha = "(step.scalars[0][1] * FACTOR)";
                let after = format!("{largest}let after = weight - {alpha} * new0 / (sqrt(new{by}) + EPSILON);");
                (format!("{MOMENTS}\n    {after}"), betas(beta_1, beta_2, epsilon))
            }
            Rule::Nadam { beta_1, beta_2, epsilon } => {
                let text = format!(
                    "{MOMENTS}
    let drive = (step.scalars[0][2] * FACTOR) * new0 + (step.scalars[0][3] * FACTOR) * gradient;
    let after = weight - drive / (sqrt(step.scalars[1][0] * new1) + EPSILON);"
                );
                (text, betas(beta_1, beta_2, epsilon))
            }
            Rule::Rmsprop { rho, momentum, epsilon, centered } => {
                let mut text = "let new0 = RHO * old0 + (1.0 - RHO) * gradient * gradient;".to_owned();
                let mut constants = vec![("RHO", rho.into()), ("EPSILON", epsilon.into())];
                let mean = self.n_moments() - 1;
                let mut spread = "new0".to_owned();
                if centered {
                    let _ = write!(text, "\n    let new{mean} = RHO * old{mean} + (1.0 - RHO) * gradient;");
                    spread = format!("larger(new0 - new{mean} * new{mean}, V(0.0))");
                }
                let _ = write!(text, "\n    let drive = rate * gradient / sqrt({spread} + EPSILON);");
                if momentum != 0.0 {
                    constants.push(("MOMENTUM", momentum.into()));
                    text.push_str("\n    let new1 = MOMENTUM * old1 + drive;\n    let after = weight - new1;");
                } else {
                    text.push_str("\n    let after = weight - drive;");
                }
                (text, constants)
            }
            Rule::Adagrad { epsilon } => {
                let text = "let new0 = old0 + gradient * gradient;
    let after = weight - rate * gradient / sqrt(new0 + EPSILON);";
                (text.into(), vec![("EPSILON", epsilon.into())])
            }
        }
    }
}

/// A number and its largest 32-bit error.
type Bounded = (f64, f64);

/// Returns `β·old + (1 − β)·new`.
fn mean((beta, old, new): (f32, f64, f64)) -> Bounded {
    let (kept, added) = (f64::from(beta) * old, (1.0 - f64::from(beta)) * new);
    (kept + added, 4.0 * UNIT * (kept.abs() + added.abs()))
}

impl Optimizer {
    fn n_weights(&self, n_inputs: usize) -> usize {
        n_inputs / (2 + self.rule.n_moments())
    }

    /// Returns the new weight and moments from weight, gradient and moments of one element.
    fn element(&self, x: &[f64], step: &Step) -> [Bounded; 4] {
        // As the kernel has them.
        let scalar = |i: usize| f64::from(step.scalars[i] * self.factor);
        let (g, rate) = (x[1], scalar(0));
        let decay = if self.weight_decay == 0.0 { 0.0 } else { x[0] * f64::from(self.weight_decay) * rate };
        let w = x[0] - decay;
        let decayed = if decay == 0.0 { 0.0 } else { UNIT * (3.0 * decay.abs() + w.abs()) };
        // A move away from the weight, with its error.
        let moved = |(by, error): Bounded| (w - by, decayed + error + 2.0 * UNIT * (w - by).abs());
        // Square root 5 ulp (10 units), its operand, sum 1, quotient 2.5 ulp (5), products.
        let over = |(by, error): Bounded, (divisor, inside): Bounded| {
            (by / divisor, error / divisor + (19.0 * UNIT + inside) * (by / divisor).abs())
        };
        const NONE: Bounded = (0.0, 0.0);
        match self.rule {
            Rule::Sgd { momentum, nesterov } => {
                let (mu, by) = (f64::from(momentum), rate * g);
                let old = if momentum == 0.0 { 0.0 } else { x[2] };
                let v = mu * old - by;
                let v_error = 3.0 * UNIT * ((mu * old).abs() + by.abs());
                let ahead = if nesterov {
                    (by - mu * v, mu * v_error + 3.0 * UNIT * ((mu * v).abs() + by.abs()))
                } else {
                    (-v, v_error)
                };
                [moved(ahead), (v, v_error), NONE, NONE]
            }
            Rule::Adam { beta_1, beta_2, epsilon, amsgrad } => {
                let (m, v) = (mean((beta_1, x[2], g)), mean((beta_2, x[3], g * g)));
                let alpha = scalar(1);
                let largest = if amsgrad { (maximum(x[4], v.0), v.1) } else { v };
                let by = over((alpha * m.0, alpha.abs() * m.1), (largest.0.sqrt() + f64::from(epsilon), 0.0));
                [moved(by), m, v, if amsgrad { largest } else { NONE }]
            }
            Rule::Nadam { beta_1, beta_2, epsilon } => {
                let (m, v) = (mean((beta_1, x[2], g)), mean((beta_2, x[3], g * g)));
                let (a, b, c) = (scalar(2), scalar(3), f64::from(step.scalars[4]));
                let drive = (a * m.0 + b * g, a * m.1 + 3.0 * UNIT * ((a * m.0).abs() + (b * g).abs()));
                let by = over(drive, ((c * v.0).sqrt() + f64::from(epsilon), 0.0));
                [moved(by), m, v, NONE]
            }
            Rule::Rmsprop { rho, momentum, epsilon, centered } => {
                let v = mean((rho, x[2], g * g));
                let (mut spread, mut average) = (v, NONE);
                if centered {
                    average = mean((rho, x[1 + self.rule.n_moments()], g));
                    let (a, error) = average;
                    spread = (maximum(v.0 - a * a, 0.0), v.1 + 2.0 * a.abs() * error + UNIT * (v.0 + 2.0 * a * a));
                }
                let under = spread.0 + f64::from(epsilon);
                let drive = over((rate * g, 0.0), (under.sqrt(), spread.1 / under));
                if momentum == 0.0 {
                    return [moved(drive), v, average, NONE];
                }
                let kept = f64::from(momentum) * x[3];
                let m = (kept + drive.0, drive.1 + 2.0 * UNIT * (kept.abs() + drive.0.abs()));
                [moved(m), v, m, average]
            }
            Rule::Adagrad { epsilon } => {
                let v = x[2] + g * g;
                let by = over((rate * g, 0.0), ((v + f64::from(epsilon)).sqrt(), 0.0));
                [moved(by), (v, 2.0 * UNIT * v), NONE, NONE]
            }
        }
    }

    fn elements(&self, inputs: &[&Array], step: &Step, part: fn(Bounded) -> f64) -> Vec<Array> {
        let k = self.n_weights(inputs.len());
        let groups = 2 + self.rule.n_moments();
        let mut outputs: Vec<Array> =
            (0..k * (groups - 1)).map(|i| Array::zeros(inputs[i % k].shape.clone())).collect();
        for weight in 0..k {
            for i in 0..inputs[weight].data.len() {
                let mut x = [0.0; 5];
                (0..groups).for_each(|group| x[group] = inputs[group * k + weight].data[i]);
                for (group, &new) in self.element(&x, step)[..groups - 1].iter().enumerate() {
                    outputs[group * k + weight].data[i] = part(new);
                }
            }
        }
        outputs
    }

    /// Returns the kernel: four elements an invocation, over all members of a group and the gaps between them.
    fn wgsl(&self, body: &str, constants: &[(&str, f64)]) -> String {
        let mut text = "alias V = vec4<f32>;
alias S = vec4<f32>;
const WIDTH = 4u;
fn unpack(s: S) -> V { return s; }
fn pack(v: V) -> S { return v; }
override COUNT: u32 = 4u;
override DECAY: f32 = 0.0;
override FACTOR: f32 = 1.0;
@group(0) @binding(1) var<storage, read_write> w: array<S>;
@group(0) @binding(2) var<storage, read> g: array<S>;
"
        .to_owned();
        let (mut loads, mut stores) = (String::new(), String::new());
        let weight = if self.weight_decay == 0.0 { "before" } else { "before - before * (DECAY * rate)" };
        for (name, _) in constants {
            let _ = writeln!(text, "override {name}: f32 = 0.5;");
        }
        for m in 0..self.rule.n_moments() {
            let _ = writeln!(text, "@group(0) @binding({}) var<storage, read_write> m{m}: array<S>;", m + 3);
            let _ = writeln!(loads, "    let old{m} = unpack(m{m}[i]);");
            let _ = writeln!(stores, "    m{m}[i] = pack(select(old{m}, new{m}, inside));");
        }
        let _ = write!(
            text,
            "@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let i = (id.x + id.y * counts.x) * 64u + lane;
    if (i * 4u >= COUNT) {{ return; }}
    let inside = vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COUNT);
    let rate = step.scalars[0][0] * FACTOR;
    let gradient = unpack(g[i]);
    let before = unpack(w[i]);
    let weight = {weight};
{loads}    {body}
{stores}    w[i] = pack(select(before, after, inside));
}}
"
        );
        text
    }
}

/// Returns where a member of these bytes ends, as the next one's start.
fn padded(ty: &TensorType) -> u64 {
    ty.bytes(0).next_multiple_of(256)
}

impl Op for Optimizer {
    fn name(&self) -> &'static str {
        match self.rule {
            Rule::Sgd { .. } => "sgd",
            Rule::Adam { .. } => "adam",
            Rule::Nadam { .. } => "nadam",
            Rule::Rmsprop { .. } => "rmsprop",
            Rule::Adagrad { .. } => "adagrad",
        }
    }

    fn key(&self) -> String {
        format!("{:?} weight_decay={:?} factor={:?}", self.rule, self.weight_decay, self.factor)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let groups = 2 + self.rule.n_moments();
        let k = self.n_weights(inputs.len());
        if k == 0 || inputs.len() != k * groups {
            let advice = "pass weights, gradients and moments, equally many of each";
            return Err(OpError::new(self.name(), format!("a multiple of {groups} inputs"), inputs.len(), advice));
        }
        let (part, positive) = (|x: f32| (0.0..1.0).contains(&x), |x: f32| x > 0.0 && x.is_finite());
        let ok = match self.rule {
            Rule::Sgd { momentum, .. } => (0.0..=1.0).contains(&momentum),
            Rule::Adam { beta_1, beta_2, epsilon, .. } | Rule::Nadam { beta_1, beta_2, epsilon } => {
                part(beta_1) && part(beta_2) && positive(epsilon)
            }
            Rule::Rmsprop { rho, momentum, epsilon, .. } => {
                part(rho) && (0.0..=1.0).contains(&momentum) && positive(epsilon)
            }
            Rule::Adagrad { epsilon } => positive(epsilon),
        };
        let sizes = [self.weight_decay, self.factor].iter().all(|x| *x >= 0.0 && x.is_finite());
        if !(ok && sizes) {
            let wanted =
                "momentum in 0..=1, betas and rho in 0..1, epsilon above 0, weight decay and factor not below 0";
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
        let (body, mut constants) = self.rule.wgsl();
        let source = kernels::wide_words(&self.wgsl(&body, &constants), profile);
        constants.splice(0..0, [("COUNT", 0.0), ("DECAY", self.weight_decay.into()), ("FACTOR", self.factor.into())]);
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
            slots.extend(
                (0..self.rule.n_moments()).map(|m| Slot::InOut { inputs: group(2 + m), outputs: group(1 + m) }),
            );
            let grid = Grid::new(Count { fixed: count.div_ceil(4), per_sample: 0 }, 64);
            dispatches.push(kernels::dispatch(self.name(), &source, &constants, grid, slots, None));
            first = last;
        }
        vec![Candidate { variant: "width4".into(), dispatches, scratch_bytes: Vec::new() }]
    }

    fn cost(&self, io: &Io) -> Cost {
        let weights: u64 = io.inputs[..self.n_weights(io.inputs.len())].iter().map(|t| t.shape.elements().fixed).sum();
        let flops = [2, 5, 13, 16][self.rule.n_moments()];
        let fixed = |fixed| Count { fixed, per_sample: 0 };
        Cost { flops: fixed(weights * flops), bytes: fixed(weights * 4 * (3 + 2 * self.rule.n_moments() as u64)) }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        let divides = !matches!(self.rule, Rule::Sgd { .. });
        vec![Accuracy::Relative(if divides { 24.0 * UNIT } else { 8.0 * UNIT }); io.outputs.len()]
    }

    /// Roundings followed through the rule, relative to the magnitudes of what is added.
    fn bounds(&self, _io: &Io, inputs: &[&Array], _exact: &[Array], step: &Step) -> Vec<Array> {
        self.elements(inputs, step, |new| new.1 + f64::from(f32::MIN_POSITIVE))
    }

    fn in_place(&self, n_inputs: usize) -> Vec<(usize, usize)> {
        let k = self.n_weights(n_inputs);
        (0..k * (1 + self.rule.n_moments())).map(|o| (o, if o < k { o } else { o + k })).collect()
    }
}

impl Graph {
    /// Returns new weights, then each kind of new moments.
    ///
    /// `moments` holds for each kind one tensor per weight. All are changed in place: pass each result to
    /// [`Graph::update`] with its state.
    pub fn optimize(
        &mut self,
        optimizer: impl Into<Optimizer>,
        weights: &[Value],
        gradients: &[Value],
        moments: &[&[Value]],
    ) -> Result<Vec<Value>, OpError> {
        self.apply(optimizer.into(), &[&[weights, gradients], moments].concat().concat())
    }

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
        self.optimize(Rule::Sgd { momentum, nesterov }, weights, gradients, &[velocities])
    }

    /// Returns new weights, then new means `m`, then new mean squares `v`, of Adam at the rate α in host number 1.
    ///
    /// All are changed in place: pass each result to [`Graph::update`] with its state.
    #[allow(clippy::too_many_arguments, reason = "the groups of operands that Adam has")]
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
        let amsgrad = false;
        self.optimize(Rule::Adam { beta_1, beta_2, epsilon, amsgrad }, weights, gradients, &[m, v])
    }

    /// Returns a gradient scaled down to the norm `limit` where its own is larger (Keras `clipnorm`).
    pub fn clip_by_norm(&mut self, gradient: Value, limit: f32) -> Result<Value, OpError> {
        Ok(self.clip_by_global_norm(&[gradient], limit)?[0])
    }

    /// Returns gradients scaled down by one factor to the norm `limit` of all of them together, where that is
    /// larger (Keras `global_clipnorm`).
    pub fn clip_by_global_norm(&mut self, gradients: &[Value], limit: f32) -> Result<Vec<Value>, OpError> {
        if !(limit > 0.0 && limit.is_finite()) {
            return Err(OpError::new("clip_by_norm", "a limit above 0", limit, "start from 1"));
        }
        let mut total = self.constant(0.0)?;
        for &gradient in gradients {
            let axes: Vec<usize> = (0..self.shape(gradient).rank()).collect();
            let squares = self.sum_squares(gradient, &axes, false)?;
            total = self.add(total, squares)?;
        }
        let (norm, least) = (self.sqrt(total)?, self.constant(1e-30)?);
        let norm = self.max(norm, least)?;
        let (limit, one) = (self.constant(limit)?, self.constant(1.0)?);
        let factor = self.div(limit, norm)?;
        let factor = self.min(factor, one)?;
        gradients.iter().map(|&gradient| self.mul(gradient, factor)).collect()
    }
}

fn inputs(op: Optimizer, weights: &[Vec<usize>]) -> Vec<(TensorType, Fill)> {
    let any = Fill::Uniform(-1.0, 1.0);
    let fills = match op.rule {
        Rule::Sgd { .. } => vec![any; 3],
        Rule::Adam { .. } | Rule::Nadam { .. } => {
            let square = Fill::Uniform(0.0, 1.0);
            vec![Fill::Uniform(-0.2, 0.2), any, any, square, square]
        }
        // A mean square is at least the square of the mean.
        Rule::Rmsprop { .. } => {
            let mean = Fill::Uniform(-0.5, 0.5);
            vec![Fill::Uniform(-0.2, 0.2), any, Fill::Uniform(0.5, 1.5), mean, mean]
        }
        Rule::Adagrad { .. } => vec![Fill::Uniform(-0.2, 0.2), any, Fill::Uniform(0.1, 1.0)],
    };
    (0..2 + op.rule.n_moments())
        .flat_map(|group| {
            let fill = fills[group];
            weights.iter().map(move |w| (TensorType::f32(w.as_slice()), fill))
        })
        .collect()
}

fn weights(rng: &mut Philox) -> Vec<Vec<usize>> {
    let sizes = [1, 3, 7, 15, 16, 17, 63, 64, 65];
    (0..1 + rng.below(5)).map(|_| (0..1 + rng.below(3)).map(|_| rng.pick(&sizes[..])).collect()).collect()
}

fn sample(rng: &mut Philox, rule: Rule) -> Sample {
    let op = Optimizer { rule, weight_decay: rng.pick(&[0.0, 0.004, 2.0]), factor: rng.pick(&[1.0, 0.1]) };
    let capacity = rng.pick(&[1, 5]);
    Sample::new(op, inputs(op, &weights(rng)), capacity)
}

fn sample_sgd(rng: &mut Philox) -> Sample {
    let rule = Rule::Sgd { momentum: rng.pick(&[0.0, 0.5, 0.9]), nesterov: rng.below(2) == 0 };
    sample(rng, rule)
}

const EPSILONS: [f32; 3] = [1e-7, 1e-3, 0.1];

fn sample_adam(rng: &mut Philox) -> Sample {
    let (beta_1, beta_2) = (rng.pick(&[0.9, 0.5]), rng.pick(&[0.999, 0.9]));
    let rule = Rule::Adam { beta_1, beta_2, epsilon: rng.pick(&EPSILONS), amsgrad: rng.below(3) == 0 };
    sample(rng, rule)
}

fn sample_nadam(rng: &mut Philox) -> Sample {
    let (beta_1, beta_2) = (rng.pick(&[0.9, 0.5]), rng.pick(&[0.999, 0.9]));
    let rule = Rule::Nadam { beta_1, beta_2, epsilon: rng.pick(&EPSILONS) };
    sample(rng, rule)
}

fn sample_rmsprop(rng: &mut Philox) -> Sample {
    let (rho, momentum) = (rng.pick(&[0.9, 0.5]), rng.pick(&[0.0, 0.9]));
    let rule = Rule::Rmsprop { rho, momentum, epsilon: rng.pick(&EPSILONS), centered: rng.below(2) == 0 };
    sample(rng, rule)
}

fn sample_adagrad(rng: &mut Philox) -> Sample {
    let rule = Rule::Adagrad { epsilon: rng.pick(&EPSILONS) };
    sample(rng, rule)
}

/// The weights of LeNet-5 (61,706 numbers).
fn lenet() -> Vec<Vec<usize>> {
    let shapes: [&[usize]; 10] =
        [&[5, 5, 1, 6], &[6], &[5, 5, 6, 16], &[16], &[400, 120], &[120], &[120, 84], &[84], &[84, 10], &[10]];
    shapes.iter().map(|s| s.to_vec()).collect()
}

fn bench(name: &'static str, rule: Rule, weights: &[Vec<usize>]) -> (&'static str, Sample) {
    let op = rule.into();
    (name, Sample::new(op, inputs(op, weights), 1))
}

const ADAM_RULE: Rule = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, amsgrad: false };
const NADAM_RULE: Rule = Rule::Nadam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 };
const RMSPROP_RULE: Rule = Rule::Rmsprop { rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false };

const SKIP: Fault =
    Fault { what: "skips the last vector", from: "if (i * 4u >= COUNT)", to: "if (i * 4u + 4u >= COUNT)" };

/// Gradient descent as a family.
pub static SGD: Family = Family {
    name: "sgd",
    about: "gradient descent with momentum and Nesterov's rule, all weights in one launch, in place (Keras SGD)",
    sample: sample_sgd,
    benches: || vec![bench("momentum_lenet5", Rule::Sgd { momentum: 0.9, nesterov: false }, &lenet())],
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
        Fault { what: "goes uphill", from: "MOMENTUM * old0 - drive", to: "MOMENTUM * old0 + drive" },
        Fault { what: "drops the momentum", from: "MOMENTUM * old0 -", to: "old0 -" },
        Fault { what: "does not look ahead", from: "MOMENTUM * new0 - drive", to: "new0" },
        Fault { what: "decays without the rate", from: "(DECAY * rate)", to: "DECAY" },
        Fault { what: "has one rate for all", from: "step.scalars[0][0] * FACTOR", to: "step.scalars[0][0]" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};

/// Adam as a family.
pub static ADAM: Family = Family {
    name: "adam",
    about: "Adam, with weight decay AdamW, all weights in one launch, in place (Keras Adam, AdamW; Kingma and Ba 2015, Loshchilov and Hutter 2019)",
    sample: sample_adam,
    benches: || vec![bench("lenet5", ADAM_RULE, &lenet()), bench("4m", ADAM_RULE, &[vec![2048, 2048]])],
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
        Fault { what: "forgets epsilon", from: "(sqrt(new1) + EPSILON)", to: "max(sqrt(new1), V(1e-9))" },
        Fault { what: "forgets the new gradient", from: "(1.0 - BETA1) * gradient", to: "(1.0 - BETA2) * gradient" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};

/// Nadam as a family.
pub static NADAM: Family = Family {
    name: "nadam",
    about: "Adam with Nesterov's momentum, all weights in one launch, in place (Keras Nadam; Dozat 2016)",
    sample: sample_nadam,
    benches: || vec![bench("lenet5", NADAM_RULE, &lenet())],
    bad: &[Bad {
        what: "a moment missing",
        build: |g| {
            let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
            Ok(g.optimize(NADAM_RULE, &[w], &[d], &[&[d]])?[0])
        },
    }],
    faults: &[
        SKIP,
        Fault { what: "forgets to look ahead", from: "(step.scalars[0][3] * FACTOR) * gradient", to: "0.0 * gradient" },
        Fault { what: "forgets the mean square's correction", from: "step.scalars[1][0] * new1", to: "new1" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};

/// RMSprop as a family.
pub static RMSPROP: Family = Family {
    name: "rmsprop",
    about: "RMSprop, plain or centered, with or without momentum, all weights in one launch, in place (Keras RMSprop)",
    sample: sample_rmsprop,
    benches: || vec![bench("lenet5", RMSPROP_RULE, &lenet())],
    bad: &[
        Bad {
            what: "a rho of one",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                let rule = Rule::Rmsprop { rho: 1.0, momentum: 0.0, epsilon: 1e-7, centered: false };
                Ok(g.optimize(rule, &[w], &[d], &[&[d]])?[0])
            },
        },
        Bad {
            what: "a negative weight decay",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                let optimizer = Optimizer { rule: RMSPROP_RULE, weight_decay: -1.0, factor: 1.0 };
                Ok(g.optimize(optimizer, &[w], &[d], &[&[d]])?[0])
            },
        },
    ],
    faults: &[
        SKIP,
        Fault { what: "adds epsilon outside the root", from: "sqrt(new0 + EPSILON)", to: "(sqrt(new0) + EPSILON)" },
        Fault { what: "does not centre", from: "larger(new0 - new2 * new2, V(0.0))", to: "new0" },
        Fault { what: "drops the momentum", from: "MOMENTUM * old1", to: "old1" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};

/// Adagrad as a family.
pub static ADAGRAD: Family = Family {
    name: "adagrad",
    about: "Adagrad, all weights in one launch, in place (Keras Adagrad; Duchi et al. 2011)",
    sample: sample_adagrad,
    benches: || vec![bench("lenet5", Rule::Adagrad { epsilon: 1e-7 }, &lenet())],
    bad: &[
        Bad {
            what: "an epsilon of zero",
            build: |g| {
                let (w, d) = (g.input("w", [4], DType::F32), g.input("d", [4], DType::F32));
                Ok(g.optimize(Rule::Adagrad { epsilon: 0.0 }, &[w], &[d], &[&[d]])?[0])
            },
        },
        Bad {
            what: "a norm limited to zero",
            build: |g| {
                let d = g.input("d", [4], DType::F32);
                g.clip_by_norm(d, 0.0)
            },
        },
    ],
    faults: &[SKIP, Fault { what: "forgets the squares before", from: "old0 + gradient", to: "gradient" }],
    differentiable: false,
    gradcheck: 1e-6,
};
