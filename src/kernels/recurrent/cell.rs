//! Recurrent cells and their functions.

use crate::tensor::maximum;

/// Returns 1 where `on` holds, else 0, or NaN where `y` is.
fn step_at(y: f64, on: bool) -> f64 {
    if y.is_nan() { y } else { f64::from(on) }
}

/// A function of a recurrent cell whose slope follows from its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CellActivation {
    /// x.
    Linear,
    /// max(x, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Sigmoid,
    /// min(max(x / 6 + 1/2, 0), 1).
    HardSigmoid,
}

impl CellActivation {
    /// Returns the function's value.
    pub fn at(self, x: f64) -> f64 {
        match self {
            CellActivation::Linear => x,
            CellActivation::Relu => maximum(x, 0.0),
            CellActivation::Tanh => x.tanh(),
            CellActivation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            CellActivation::HardSigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
        }
    }

    /// Returns the slope where the function's value is `y`.
    pub fn slope(self, y: f64) -> f64 {
        match self {
            CellActivation::Linear => 1.0,
            CellActivation::Relu => step_at(y, y > 0.0),
            CellActivation::Tanh => 1.0 - y * y,
            CellActivation::Sigmoid => y * (1.0 - y),
            CellActivation::HardSigmoid => step_at(y, y > 0.0 && y < 1.0) / 6.0,
        }
    }

    /// Returns the function's name in the elementwise table, if it is one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            CellActivation::Linear => None,
            CellActivation::Relu => Some("relu"),
            CellActivation::Tanh => Some("tanh"),
            CellActivation::Sigmoid => Some("sigmoid"),
            CellActivation::HardSigmoid => Some("hard_sigmoid"),
        }
    }

    /// Returns WGSL of the value at `v` and of the slope at the value `v`, both of one number.
    pub(super) fn wgsl(self) -> (&'static str, &'static str) {
        match self {
            CellActivation::Linear => ("v", "1.0"),
            CellActivation::Relu => ("relu_f32(v)", "nan_or_f32(v, select(0.0, 1.0, v > 0.0))"),
            CellActivation::Tanh => ("tanh_f32(v)", "1.0 - v * v"),
            CellActivation::Sigmoid => ("sigmoid_f32(v)", "v * (1.0 - v)"),
            CellActivation::HardSigmoid => (
                "nan_or_f32(v, clamp(v / 6.0 + 0.5, 0.0, 1.0))",
                "nan_or_f32(v, select(0.0, 1.0 / 6.0, v > 0.0 && v < 1.0))",
            ),
        }
    }
}

/// Which recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// h = activation(x + h·U) (Elman 1990).
    Simple,
    /// Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000), gates in the order i, f, c, o.
    Lstm,
    /// Gated recurrent unit with the reset gate on the state (Cho et al. 2014), gates in the order z, r, h.
    GruBefore,
    /// Gated recurrent unit with the reset gate on the state's product, which has a bias of its own.
    GruAfter,
}

/// A recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Which.
    pub kind: CellKind,
    /// Function of the new state (and of an LSTM's cell state on the way out).
    pub activation: CellActivation,
    /// Function of the gates; a simple cell has none.
    pub gate: CellActivation,
}

impl Cell {
    /// Returns how many products of the state a step has.
    pub fn gates(&self) -> usize {
        match self.kind {
            CellKind::Simple => 1,
            CellKind::Lstm => 4,
            CellKind::GruBefore | CellKind::GruAfter => 3,
        }
    }

    /// Returns how many states go from step to step.
    pub fn states(&self) -> usize {
        1 + usize::from(self.kind == CellKind::Lstm)
    }
}
