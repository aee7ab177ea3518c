//! First values of weights, as in Keras.

use crate::{graph::Initialize, tensor::Philox};

/// Zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zeros;

/// Ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ones;

/// Uniform in ±√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010; Keras `glorot_uniform`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlorotUniform;

/// Normal of deviation √(2 / fan_in), cut at two deviations (He et al. 2015; Keras `he_normal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeNormal;

impl Initialize for Zeros {
    fn fill(&self, shape: &[usize], _rng: &mut Philox) -> Vec<f32> {
        vec![0.0; shape.iter().product()]
    }
}

impl Initialize for Ones {
    fn fill(&self, shape: &[usize], _rng: &mut Philox) -> Vec<f32> {
        vec![1.0; shape.iter().product()]
    }
}

impl Initialize for GlorotUniform {
    fn fill(&self, shape: &[usize], rng: &mut Philox) -> Vec<f32> {
        let (fan_in, fan_out) = fans(shape);
        let limit = (6.0 / (fan_in + fan_out)).sqrt();
        (0..shape.iter().product()).map(|_| rng.uniform(-limit, limit) as f32).collect()
    }
}

impl Initialize for HeNormal {
    fn fill(&self, shape: &[usize], rng: &mut Philox) -> Vec<f32> {
        // A normal cut at two deviations has .8796 of the deviation that it was cut from.
        let deviation = (2.0 / fans(shape).0).sqrt() / 0.879_625_661_034_239_8;
        let mut draw = || {
            loop {
                let x = rng.normal();
                if x.abs() <= 2.0 {
                    return (x * deviation) as f32;
                }
            }
        };
        (0..shape.iter().product()).map(|_| draw()).collect()
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
