//! Constraints that weights meet after each step, as in Keras.

use super::{
    Bounds, Number,
    keras_object::{from_object, object},
};
use crate::graph::{Graph, OpError, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A constraint that weights are projected onto after each update.
///
/// ```
/// use hubel::{nn::Constraint, layers::*};
/// let layer = Dense::new(4).kernel_constraint(Constraint::max_norm(2.0)).bias_constraint(Constraint::NonNeg);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "class_name", content = "config")]
#[non_exhaustive]
pub enum Constraint {
    /// Norm along `axis` at most `max_value`: w · clip(|w|, 0, max) / (ε + |w|).
    MaxNorm {
        /// The largest norm.
        max_value: f32,
        /// The axes of one vector.
        axis: Axes,
    },
    /// No negative weights.
    NonNeg,
    /// Norm along `axis` 1: w / (ε + |w|).
    UnitNorm {
        /// The axes of one vector.
        axis: Axes,
    },
    /// Norm along `axis` moved towards [min_value, max_value] by the share `rate`.
    MinMaxNorm {
        /// The smallest norm.
        min_value: f32,
        /// The largest norm.
        max_value: f32,
        /// The share of the distance that one step covers.
        rate: f32,
        /// The axes of one vector.
        axis: Axes,
    },
}

/// One axis, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Axes {
    /// One.
    One(usize),
    /// Several.
    Many(Vec<usize>),
}

const EPSILON: f32 = 1e-7;

impl Constraint {
    /// Limits norms along axis 0 to `max_value`.
    pub const fn max_norm(max_value: f32) -> Self {
        Constraint::MaxNorm { max_value, axis: Axes::One(0) }
    }

    /// Makes norms along axis 0 equal to 1.
    pub const fn unit_norm() -> Self {
        Constraint::UnitNorm { axis: Axes::One(0) }
    }

    /// Keeps norms along axis 0 within [min, max].
    pub const fn min_max_norm(min_value: f32, max_value: f32) -> Self {
        Constraint::MinMaxNorm { min_value, max_value, rate: 1.0, axis: Axes::One(0) }
    }

    /// Returns the axes of one vector, none for [`Constraint::NonNeg`].
    pub(super) fn axes(&self) -> &[usize] {
        match self {
            Constraint::NonNeg => &[],
            Constraint::MaxNorm { axis, .. } | Constraint::UnitNorm { axis } | Constraint::MinMaxNorm { axis, .. } => {
                match axis {
                    Axes::One(axis) => std::slice::from_ref(axis),
                    Axes::Many(axes) => axes,
                }
            }
        }
    }

    /// Returns the numbers among the options with their bounds.
    pub fn numbers(&self) -> Vec<Number> {
        let norm = |option, value: f32| Number::new("constraint", option, value, Bounds::AtLeastZero);
        match *self {
            Constraint::NonNeg | Constraint::UnitNorm { .. } => Vec::new(),
            Constraint::MaxNorm { max_value, .. } => vec![norm("max_value", max_value)],
            Constraint::MinMaxNorm { min_value, max_value, rate, .. } => vec![
                norm("min_value", min_value),
                norm("max_value", max_value),
                Number::new("constraint", "rate", rate, Bounds::Share),
            ],
        }
    }

    /// Returns the factor for `w`, or `None` for [`Constraint::NonNeg`], which is not a factor.
    fn factor(&self, g: &mut Graph, w: Value) -> Result<Option<Value>, OpError> {
        if *self == Constraint::NonNeg {
            return Ok(None);
        }
        let squares = g.sum_squares(w, self.axes(), true)?;
        let norm = g.unary("sqrt", squares)?;
        let wanted = match *self {
            Constraint::MaxNorm { max_value, .. } => g.clip(norm, 0.0, max_value)?,
            Constraint::MinMaxNorm { min_value, max_value, rate, .. } => {
                let clipped = g.clip(norm, min_value, max_value)?;
                let (near, far) = (g.scale(clipped, rate)?, g.scale(norm, 1.0 - rate)?);
                g.add(near, far)?
            }
            _ => g.constant(1.0)?,
        };
        let epsilon = g.constant(EPSILON)?;
        let divisor = g.add(norm, epsilon)?;
        Ok(Some(g.binary("div", wanted, divisor)?))
    }

    /// Returns the constrained weights, overwriting `w` in place.
    pub fn build(&self, g: &mut Graph, w: Value) -> Result<Value, OpError> {
        use crate::ops::Elementwise;
        let (function, inputs) = match self.factor(g, w)? {
            Some(factor) => ("mul", vec![w, factor]),
            None => ("relu", vec![w]),
        };
        let shape = Some(g.shape(w).clone());
        g.apply1(Elementwise { shape, in_place: true, ..Elementwise::named(function)? }, &inputs)
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        object("keras.constraints", Constraint::serialize(self, serde_json::value::Serializer)).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let defaults = [
            ("MaxNorm", r#"{"max_value":2,"axis":0}"#),
            ("UnitNorm", r#"{"axis":0}"#),
            ("MinMaxNorm", r#"{"min_value":0,"max_value":1,"rate":1,"axis":0}"#),
        ];
        from_object(d, &defaults, Constraint::deserialize)
    }
}
