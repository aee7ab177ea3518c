//! The rules by which weights follow their gradients: host numbers and kernels.

use crate::{
    graph::Step,
    kernels::{Expr, Kernel, Type, scalar},
};

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
    /// `w = μ·w + (1 − μ)·g`: no optimiser, but what follows statistics of batches as slowly (Keras BatchNormalization's moving
    /// mean and variance).
    MovingAverage {
        /// The part μ of the average that is kept.
        momentum: f32,
    },
    /// `v = v + g²; w = w − η·g / √(v + ε)` (Duchi et al. 2011, Keras Adagrad, which starts v at 0.1).
    Adagrad {
        /// What keeps the divisor from zero.
        epsilon: f32,
    },
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
            Rule::MovingAverage { .. } => 0,
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

    /// Writes the rule: returns the new weight, then the new moments, from weight, gradient and moments, at `rate` times `factor`.
    pub(super) fn write(&self, k: &mut Kernel, rates: [&Expr; 2], weight: &Expr, g: &Expr, old: &[Expr]) -> Vec<Expr> {
        let [rate, factor] = rates;
        let float = |k: &mut Kernel, name, value: f32| k.constant(name, Type::F32, value.into());
        let root = |x: Expr| Expr::call("sqrt", x.ty(), [x]);
        let larger = |a: &Expr, b: &Expr| Expr::call("larger", a.ty(), [a.clone(), b.clone()]);
        // Of a power of the gradient.
        let mean = |beta: &Expr, old: &Expr, power: usize| {
            beta * old + (0..power).fold(Expr::from(1.0) - beta, |product, _| product * g)
        };
        match *self {
            Rule::MovingAverage { momentum } => {
                let mu = float(k, "MOMENTUM", momentum);
                vec![mean(&mu, weight, 1)]
            }
            Rule::Sgd { momentum: 0.0, .. } => vec![weight - rate * g],
            Rule::Sgd { momentum, nesterov } => {
                let mu = float(k, "MOMENTUM", momentum);
                let drive = k.let_("drive", rate * g);
                let v = k.let_("new0", &mu * &old[0] - &drive);
                vec![weight + if nesterov { mu * &v - drive } else { v.clone() }, v]
            }
            Rule::Adam { beta_1, beta_2, epsilon, .. } | Rule::Nadam { beta_1, beta_2, epsilon } => {
                let betas = [float(k, "BETA1", beta_1), float(k, "BETA2", beta_2)];
                let epsilon = float(k, "EPSILON", epsilon);
                let m = k.let_("new0", mean(&betas[0], &old[0], 1));
                let v = k.let_("new1", mean(&betas[1], &old[1], 2));
                let rate = |i: usize| scalar(i) * factor;
                if let Rule::Nadam { .. } = self {
                    let drive = k.let_("drive", rate(2) * &m + rate(3) * g);
                    return vec![weight - drive / (root(scalar(4) * &v) + epsilon), m, v];
                }
                let largest: Vec<Expr> = old[2..].iter().map(|old| k.let_("new2", larger(old, &v))).collect();
                let after = weight - rate(1) * &m / (root(largest.first().unwrap_or(&v).clone()) + epsilon);
                [vec![after, m, v], largest].concat()
            }
            Rule::Rmsprop { rho, momentum, epsilon, centered } => {
                let (rho, epsilon) = (float(k, "RHO", rho), float(k, "EPSILON", epsilon));
                let v = k.let_("new0", mean(&rho, &old[0], 2));
                let average = old.last().filter(|_| centered).map(|old| k.let_("average", mean(&rho, old, 1)));
                let spread = average.as_ref().map_or(v.clone(), |a| larger(&(&v - a * a), &a.ty().splat(0.0)));
                let mut drive = k.let_("drive", rate * g / root(spread + epsilon));
                if momentum != 0.0 {
                    let mu = float(k, "MOMENTUM", momentum);
                    drive = k.let_("new1", mu * &old[1] + drive);
                }
                let moved = (momentum != 0.0).then(|| drive.clone());
                [weight - drive, v].into_iter().chain(moved).chain(average).collect()
            }
            Rule::Adagrad { epsilon } => {
                let epsilon = float(k, "EPSILON", epsilon);
                let v = k.let_("new0", &old[0] + g * g);
                vec![weight - rate * g / root(&v + epsilon), v]
            }
        }
    }
}
