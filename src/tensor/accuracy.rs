use super::Array;

/// Half the distance from 1 to the next 32-bit float: the maximum relative error of one rounding.
pub const UNIT: f64 = 1.0 / 16_777_216.0;
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// The maximum error of a kernel's 32-bit result against its 64-bit definition, one variant per row of the table of
/// promises.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Accuracy {
    /// Movement and selection: the same number.
    Exact,
    /// Units in the last place of the exact result.
    Ulp(f64),
    /// Absolute error.
    Absolute(f64),
    /// Error relative to the exact result.
    Relative(f64),
    /// Exponential of the first input: 3 + 2·|x| units in the last place.
    Exp,
    /// Natural logarithm: 2⁻²¹ absolute on [0.5, 2], else 3 units in the last place.
    Log,
    /// Logistic function of the first input: the exponential's bound and 4 units more.
    Sigmoid,
    /// Made from the exponential of the first input: `exps` times its bound and `ulps` more units.
    Exps {
        /// Factor on the exponential's bound.
        exps: f64,
        /// Units in the last place of all other roundings.
        ulps: f64,
    },
    /// Error relative to the first input.
    PerInput(f64),
    /// Power through logarithm and exponential.
    Pow,
    /// A sum of `terms` products: max(8, 2·√terms)·2⁻²⁴ times the sum of the products' magnitudes.
    Products {
        /// The number of terms.
        terms: u64,
    },
    /// Softmax over `terms` values: the exponential's bound and the sum's.
    Softmax {
        /// The number of values in a row.
        terms: u64,
    },
    /// Normalisation over `terms` values: a relative bound in units of the output's scale.
    Normalization {
        /// The number of values that are averaged.
        terms: u64,
    },
}

/// Returns the distance between neighbouring 32-bit floats at `x`.
pub fn ulp(x: f64) -> f64 {
    let x = x.abs().max(TINY);
    2f64.powi(x.log2().floor() as i32 - 23)
}

/// Returns the larger of two numbers, NaN if one of them is.
pub fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Returns an integer for each float, in their order: both zeros have the same, NaN has the largest.
pub fn rank(x: f64) -> i64 {
    let size = (x.to_bits() << 1 >> 1) as i64;
    if x.is_nan() {
        i64::MAX
    } else if x < 0.0 {
        -size
    } else {
        size
    }
}

fn exp_ulps(x: f64) -> f64 {
    3.0 + 2.0 * x.abs()
}

impl Accuracy {
    /// Returns the largest absolute error allowed at one element.
    ///
    /// `inputs` are the operands at that element, `exact` is the 64-bit result, `magnitude` the
    /// result of the same operation on the operands' magnitudes.
    pub fn bound(self, inputs: &[f64], exact: f64, magnitude: f64) -> f64 {
        let x = inputs.first().copied().unwrap_or(0.0);
        TINY + match self {
            Accuracy::Exact => 0.0,
            Accuracy::Ulp(n) => n * ulp(exact),
            Accuracy::Absolute(a) => a,
            Accuracy::Relative(r) => r * exact.abs(),
            Accuracy::Exp => exp_ulps(x) * ulp(exact),
            Accuracy::Log if (0.5..=2.0).contains(&x) => 2f64.powi(-21),
            Accuracy::Log => 3.0 * ulp(exact),
            Accuracy::Sigmoid => (exp_ulps(x) + 4.0) * ulp(exact),
            Accuracy::Exps { exps, ulps } => (exps * exp_ulps(x) + ulps) * ulp(exact),
            Accuracy::PerInput(a) => a * x.abs(),
            Accuracy::Pow => {
                let y = inputs.get(1).copied().unwrap_or(1.0);
                let log_error =
                    if (0.5..=2.0).contains(&x) { 2f64.powi(-21) } else { 3.0 * ulp(x.abs().max(TINY).log2()) };
                exact.abs() * y.abs() * log_error + (exp_ulps(exact.abs().max(TINY).ln()) + 1.0) * ulp(exact)
            }
            Accuracy::Products { terms } => (2.0 * (terms as f64).sqrt()).max(8.0) * UNIT * magnitude.abs(),
            Accuracy::Softmax { terms } => {
                (exp_ulps(magnitude) + 4.0 + 2.0 * (terms as f64).sqrt().max(4.0)) * ulp(exact).max(UNIT * UNIT)
            }
            Accuracy::Normalization { terms } => {
                (2.0 * (terms as f64).sqrt()).max(16.0) * UNIT * magnitude.abs().max(exact.abs())
            }
        }
    }
}

/// The element of a result that is farthest outside its bound.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("element {index} of output {output}: got {got}, exact {exact}, allowed error {bound:e}")]
#[non_exhaustive]
pub struct Mismatch {
    /// The output's index.
    pub output: usize,
    /// Row-major index of the element.
    pub index: usize,
    /// The kernel's result.
    pub got: f64,
    /// The definition's result.
    pub exact: f64,
    /// The allowed error.
    pub bound: f64,
}

/// Returns the worst element as an error unless every element is within its bound.
///
/// A NaN agrees only with a NaN, an infinity only with the same infinity.
pub fn compare(output: usize, got: &[f32], exact: &Array, bound: &Array) -> Result<(), Mismatch> {
    let mut worst: Option<(f64, Mismatch)> = None;
    for (index, (&g, (&e, &b))) in got.iter().zip(exact.data.iter().zip(&bound.data)).enumerate() {
        let g = f64::from(g);
        let same = g == e || (g.is_nan() && e.is_nan());
        let excess = if same { 0.0 } else { (g - e).abs() / b };
        if !(excess <= 1.0) && worst.as_ref().is_none_or(|(w, _)| !(excess <= *w)) {
            worst = Some((excess, Mismatch { output, index, got: g, exact: e, bound: b }));
        }
    }
    match worst {
        None => Ok(()),
        Some((_, mismatch)) => Err(mismatch),
    }
}
