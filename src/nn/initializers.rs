//! Initial values of weights, as in Keras.

use super::{
    Bounds, Number,
    keras_object::{from_object, object},
};
use crate::{graph::Initialize, tensor::Philox};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// How a weight is initialised, with Keras's names and defaults.
///
/// ```
/// use hubel::{nn::Initializer, layers::*, prelude::*};
/// let layer = Dense::new(4).kernel_initializer(HeNormal).bias_initializer(Initializer::Constant { value: 0.1 });
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "class_name", content = "config")]
#[non_exhaustive]
pub enum Initializer {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// A constant.
    Constant {
        /// The number.
        value: f32,
    },
    /// Uniform in [minval, maxval).
    RandomUniform {
        /// Lower end.
        minval: f32,
        /// Upper end.
        maxval: f32,
    },
    /// Normal.
    RandomNormal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        stddev: f32,
    },
    /// Normal; values beyond two standard deviations are drawn again.
    TruncatedNormal {
        /// Mean.
        mean: f32,
        /// Standard deviation before truncation.
        stddev: f32,
    },
    /// Uniform in ±√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
    GlorotUniform,
    /// Normal with standard deviation √(2 / (fan_in + fan_out)), truncated at two deviations (Glorot and Bengio 2010).
    GlorotNormal,
    /// Uniform in ±√(6 / fan_in) (He et al. 2015).
    HeUniform,
    /// Normal with standard deviation √(2 / fan_in), truncated at two deviations (He et al. 2015).
    HeNormal,
    /// Uniform in ±√(3 / fan_in) (LeCun et al. 1998, *Efficient BackProp*).
    LecunUniform,
    /// Normal with standard deviation √(1 / fan_in), truncated at two deviations (LeCun et al. 1998).
    LecunNormal,
    /// Variance `scale` / n, with n from the fans.
    VarianceScaling {
        /// The factor.
        scale: f32,
        /// The fan that is n.
        mode: FanMode,
        /// The distribution.
        distribution: Distribution,
    },
    /// Orthonormal rows or columns times `gain` (Saxe et al. 2014), of the tensor as (all but last, last).
    Orthogonal {
        /// The factor.
        gain: f32,
    },
    /// A matrix with `gain` on its diagonal and zeros elsewhere.
    Identity {
        /// The factor.
        gain: f32,
    },
    /// Your own; it cannot be written to a file.
    #[serde(skip)]
    Custom(Arc<dyn Initialize>),
}

/// Which fan divides the variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FanMode {
    /// The number of values that one output sums.
    FanIn,
    /// The number of values that one input reaches.
    FanOut,
    /// Their mean.
    FanAvg,
}

/// The distribution of variance scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Distribution {
    /// Normal, truncated at two deviations, with the wanted variance after truncation.
    TruncatedNormal,
    /// Normal.
    UntruncatedNormal,
    /// Uniform.
    Uniform,
}

impl Serialize for Initializer {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        object("keras.initializers", Initializer::serialize(self, serde_json::value::Serializer)).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Initializer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let defaults = [
            ("Constant", r#"{"value":0}"#),
            ("RandomUniform", r#"{"minval":-0.05,"maxval":0.05}"#),
            ("RandomNormal", r#"{"mean":0,"stddev":0.05}"#),
            ("TruncatedNormal", r#"{"mean":0,"stddev":0.05}"#),
            ("VarianceScaling", r#"{"scale":1,"mode":"fan_in","distribution":"truncated_normal"}"#),
            ("Orthogonal", r#"{"gain":1}"#),
            ("Identity", r#"{"gain":1}"#),
        ];
        from_object(d, &defaults, Initializer::deserialize)
    }
}

impl Initializer {
    /// Returns an initialiser of your own.
    pub fn custom(initializer: impl Initialize + 'static) -> Self {
        Initializer::Custom(Arc::new(initializer))
    }

    /// Returns the numbers among the options with their bounds.
    pub fn numbers(&self) -> Vec<Number> {
        let number = |option, value: f32, bounds| Number::new("initializer", option, value, bounds);
        match *self {
            Initializer::Constant { value } => vec![number("value", value, Bounds::Finite)],
            Initializer::RandomUniform { minval, maxval } => {
                vec![number("minval", minval, Bounds::Finite), number("maxval", maxval, Bounds::Finite)]
            }
            Initializer::RandomNormal { mean, stddev } | Initializer::TruncatedNormal { mean, stddev } => {
                vec![number("mean", mean, Bounds::Finite), number("stddev", stddev, Bounds::AtLeastZero)]
            }
            Initializer::VarianceScaling { scale, .. } => vec![number("scale", scale, Bounds::Positive)],
            Initializer::Orthogonal { gain } | Initializer::Identity { gain } => {
                vec![number("gain", gain, Bounds::Finite)]
            }
            _ => Vec::new(),
        }
    }

    /// Returns the variance scaling that the initialiser is an alias of.
    fn scaling(&self) -> Option<(f32, FanMode, Distribution)> {
        use Distribution::{TruncatedNormal, Uniform};
        Some(match *self {
            Initializer::GlorotUniform => (1.0, FanMode::FanAvg, Uniform),
            Initializer::GlorotNormal => (1.0, FanMode::FanAvg, TruncatedNormal),
            Initializer::HeUniform => (2.0, FanMode::FanIn, Uniform),
            Initializer::HeNormal => (2.0, FanMode::FanIn, TruncatedNormal),
            Initializer::LecunUniform => (1.0, FanMode::FanIn, Uniform),
            Initializer::LecunNormal => (1.0, FanMode::FanIn, TruncatedNormal),
            Initializer::VarianceScaling { scale, mode, distribution } => (scale, mode, distribution),
            _ => return None,
        })
    }
}

impl Initialize for Initializer {
    fn fill(&self, shape: &[usize], rng: &mut Philox) -> Vec<f32> {
        let n: usize = shape.iter().product();
        let uniform = |rng: &mut Philox, low: f64, high: f64| (0..n).map(|_| rng.uniform(low, high) as f32).collect();
        match *self {
            Initializer::Custom(ref own) => own.fill(shape, rng),
            Initializer::Zeros => vec![0.0; n],
            Initializer::Ones => vec![1.0; n],
            Initializer::Constant { value } => vec![value; n],
            Initializer::Identity { gain } => {
                let columns = shape.last().copied().unwrap_or(1).max(1);
                (0..n).map(|i| if i / columns == i % columns { gain } else { 0.0 }).collect()
            }
            Initializer::RandomUniform { minval, maxval } => uniform(rng, minval.into(), maxval.into()),
            Initializer::RandomNormal { mean, stddev } => (0..n).map(|_| rng.normal() as f32 * stddev + mean).collect(),
            Initializer::TruncatedNormal { mean, stddev } => {
                (0..n).map(|_| truncated(rng) as f32 * stddev + mean).collect()
            }
            Initializer::Orthogonal { gain } => orthogonal(shape, gain, rng),
            _ => {
                let Some((scale, mode, distribution)) = self.scaling() else { return vec![0.0; n] };
                let (fan_in, fan_out) = fans(shape);
                let fan = match mode {
                    FanMode::FanIn => fan_in,
                    FanMode::FanOut => fan_out,
                    FanMode::FanAvg => (fan_in + fan_out) / 2.0,
                };
                let variance = f64::from(scale) / fan.max(1.0);
                match distribution {
                    Distribution::Uniform => uniform(rng, -(3.0 * variance).sqrt(), (3.0 * variance).sqrt()),
                    Distribution::UntruncatedNormal => {
                        (0..n).map(|_| (rng.normal() * variance.sqrt()) as f32).collect()
                    }
                    Distribution::TruncatedNormal => {
                        // Truncation at two deviations reduces the standard deviation to .8796.
                        let deviation = variance.sqrt() / 0.879_625_661_034_239_8;
                        (0..n).map(|_| (truncated(rng) * deviation) as f32).collect()
                    }
                }
            }
        }
    }
}

fn truncated(rng: &mut Philox) -> f64 {
    loop {
        let x = rng.normal();
        if x.abs() <= 2.0 {
            return x;
        }
    }
}

/// Returns the values that one output sums, and that one input reaches (Keras `compute_fans`).
fn fans(shape: &[usize]) -> (f64, f64) {
    match *shape {
        [] => (1.0, 1.0),
        [n] => (n as f64, n as f64),
        [ref field @ .., inner, outer] => {
            let field: usize = field.iter().product();
            ((field * inner) as f64, (field * outer) as f64)
        }
    }
}

/// Gram-Schmidt on the shorter side's vectors, twice for orthogonality to rounding.
fn orthogonal(shape: &[usize], gain: f32, rng: &mut Philox) -> Vec<f32> {
    let columns = shape.last().copied().unwrap_or(1);
    let rows = shape.iter().product::<usize>() / columns.max(1);
    let (count, len) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    while basis.len() < count {
        let mut v: Vec<f64> = (0..len).map(|_| rng.normal()).collect();
        for _ in 0..2 {
            for b in &basis {
                let along = dot(&v, b);
                v.iter_mut().zip(b).for_each(|(x, y)| *x -= along * y);
            }
        }
        let norm = dot(&v, &v).sqrt();
        if norm > 1e-6 {
            v.iter_mut().for_each(|x| *x /= norm);
            basis.push(v);
        }
    }
    let at = |row: usize, column: usize| if rows < columns { basis[row][column] } else { basis[column][row] };
    (0..rows * columns).map(|i| at(i / columns, i % columns) as f32 * gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Purpose;

    #[test]
    fn draws_have_the_variance_and_bounds_of_their_definition() {
        let shape = [3, 3, 64, 32];
        let (fan_in, fan_out) = (576.0, 288.0);
        let cases = [
            (Initializer::GlorotUniform, 2.0 / (fan_in + fan_out), (6.0f64 / (fan_in + fan_out)).sqrt()),
            (Initializer::GlorotNormal, 2.0 / (fan_in + fan_out), 2.3 * (2.0f64 / (fan_in + fan_out)).sqrt()),
            (Initializer::HeUniform, 2.0 / fan_in, (6.0f64 / fan_in).sqrt()),
            (Initializer::HeNormal, 2.0 / fan_in, 2.3 * (2.0f64 / fan_in).sqrt()),
            (Initializer::LecunUniform, 1.0 / fan_in, (3.0f64 / fan_in).sqrt()),
            (Initializer::LecunNormal, 1.0 / fan_in, 2.3 * (1.0f64 / fan_in).sqrt()),
            (Initializer::RandomUniform { minval: -0.1, maxval: 0.1 }, 0.01 / 3.0, 0.1),
            (Initializer::RandomNormal { mean: 0.0, stddev: 0.1 }, 0.01, 1.0),
            (Initializer::TruncatedNormal { mean: 0.0, stddev: 0.1 }, 0.01 * 0.7737, 0.2),
        ];
        for (initializer, variance, bound) in cases {
            let values = initializer.fill(&shape, &mut Philox::new(1, Purpose::Initialize, 7));
            let n = values.len() as f64;
            let got = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / n;
            assert!((got / variance - 1.0).abs() < 0.03, "{initializer:?}: variance {got}, wanted {variance}");
            assert!(values.iter().all(|v| f64::from(v.abs()) <= bound), "{initializer:?} beyond {bound}");
        }
    }

    #[test]
    fn orthogonal_matrices_are_orthonormal_along_their_shorter_side() {
        for shape in [[7, 5], [5, 7], [6, 6]] {
            let w = Initializer::Orthogonal { gain: 2.0 }.fill(&shape, &mut Philox::new(1, Purpose::Initialize, 3));
            let [rows, columns] = shape;
            let count = rows.min(columns);
            for i in 0..count {
                for j in 0..count {
                    let dot: f32 = (0..rows.max(columns))
                        .map(|k| match rows < columns {
                            true => w[i * columns + k] * w[j * columns + k],
                            false => w[k * columns + i] * w[k * columns + j],
                        })
                        .sum();
                    assert!((dot - if i == j { 4.0 } else { 0.0 }).abs() < 1e-5, "{shape:?} {i} {j}: {dot}");
                }
            }
        }
    }
}
