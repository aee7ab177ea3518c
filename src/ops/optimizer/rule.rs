//! The rules by which weights follow their gradients: host numbers and WGSL.

use crate::graph::Step;
use std::fmt::Write as _;

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
    pub(super) fn wgsl(&self) -> (String, Vec<(&'static str, f64)>) {
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
