//! The operation: a rule's definition with its rounding errors, and the kernel for groups of tensors.

use super::rule::Rule;
use crate::{
    graph::{
        ALIGN_BYTES, Candidate, Cost, DeviceProfile, Dispatch, Epilogue, Gradients, Graph, Grid, Io, Op, OpError, Slot,
        Step, TensorType, Value,
    },
    kernels::{Buffer, Core, Expr, Kernel, Layout, Schedule, Type, scalar},
    tensor::{Accuracy, Array, Count, DType, UNIT, maximum},
};

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
impl From<Rule> for Optimizer {
    fn from(rule: Rule) -> Self {
        Optimizer { rule, weight_decay: 0.0, factor: 1.0 }
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
            Rule::MovingAverage { momentum } => [mean((momentum, x[0], g)), NONE, NONE, NONE],
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

    /// Returns the launch over `count` elements of weights, gradients and moments, which are groups of tensors with gaps between
    /// them: four elements an invocation.
    fn launch(&self, count: u64, slots: Vec<Slot>, profile: &DeviceProfile) -> Dispatch {
        let mut k = Kernel::new(self.name(), 64);
        let layout = Layout::Vectors { width: 4, words: profile.u64_loads };
        let bind = |(n, slot): (usize, Slot)| match (n, &slot) {
            (1, _) => k.bind("g", layout, slot),
            (0, _) => k.bind_result("w", layout, slot),
            _ => k.bind_result(format!("m{}", n - 2), layout, slot),
        };
        let buffers: Vec<Buffer> = slots.into_iter().enumerate().map(bind).collect();
        let end = Expr::extent("elements", count);
        let decay = k.constant("DECAY", Type::F32, self.weight_decay.into());
        let factor = k.constant("FACTOR", Type::F32, self.factor.into());
        let i = k.let_("i", k.workgroup_index() * 64u32 + k.lane());
        k.return_if((&i * 4u32).at_least(&end));
        let lanes = Type::U32.vector(4);
        let elements = lanes.splat(&i * 4u32) + Expr::vector((0..4u32).map(Expr::from).collect());
        let inside = k.let_("inside", elements.less(lanes.splat(end)));
        let rate = k.let_("rate", scalar(0) * &factor);
        let (gradient, before) = (k.let_("gradient", buffers[1].at(&i)), k.let_("before", buffers[0].at(&i)));
        let decayed = if self.weight_decay == 0.0 { before.clone() } else { &before - &before * (decay * &rate) };
        let weight = k.let_("weight", decayed);
        let moments = buffers[2..].iter().enumerate().map(|(m, old)| k.let_(format!("old{m}"), old.at(&i)));
        let moments: Vec<Expr> = moments.collect();
        let new = self.rule.write(&mut k, [&rate, &factor], &weight, &gradient, &moments);
        let old = [before].into_iter().chain(moments);
        for (buffer, (old, new)) in buffers[..1].iter().chain(&buffers[2..]).zip(old.zip(new)) {
            k.store(buffer, &i, inside.select(new, old));
        }
        k.launch(Grid::new(Count { fixed: count.div_ceil(4), per_sample: 0 }, 64))
    }
}

/// Returns where a member of these bytes ends, as the next one's start.
fn padded(ty: &TensorType) -> u64 {
    ty.bytes(0).next_multiple_of(ALIGN_BYTES)
}

impl Op for Optimizer {
    fn name(&self) -> &'static str {
        match self.rule {
            Rule::Sgd { .. } => "sgd",
            Rule::Adam { .. } => "adam",
            Rule::Nadam { .. } => "nadam",
            Rule::Rmsprop { .. } => "rmsprop",
            Rule::Adagrad { .. } => "adagrad",
            Rule::MovingAverage { .. } => "moving_average",
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
            Rule::MovingAverage { momentum } => (0.0..=1.0).contains(&momentum) && self.weight_decay == 0.0,
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

    fn vjp(&self, _g: &mut Graph, inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None; inputs.len()])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let k = self.n_weights(io.inputs.len());
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
            let group = |i: usize| first + i * k..last + i * k;
            let mut slots = vec![Slot::InOut { inputs: group(0), outputs: group(0) }, Slot::In(group(1))];
            slots.extend(
                (0..self.rule.n_moments()).map(|m| Slot::InOut { inputs: group(2 + m), outputs: group(1 + m) }),
            );
            dispatches.push(self.launch(count, slots, profile));
            first = last;
        }
        vec![Candidate::new(Schedule::of_width(Core::Elements, 4), dispatches, Vec::new())]
    }

    fn cost(&self, io: &Io) -> Cost {
        let weights: u64 = io.inputs[..self.n_weights(io.inputs.len())].iter().map(|t| t.shape.elements().fixed).sum();
        let flops = [2, 5, 13, 16][self.rule.n_moments()];
        let fixed = |fixed| Count { fixed, per_sample: 0 };
        Cost { flops: fixed(weights * flops), bytes: fixed(weights * 4 * (3 + 2 * self.rule.n_moments() as u64)) }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        let divides = !matches!(self.rule, Rule::Sgd { .. } | Rule::MovingAverage { .. });
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
