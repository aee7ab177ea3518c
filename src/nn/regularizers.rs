//! Regularisers: penalties on large weights or outputs, as in Keras.

use super::{
    Bounds, Number,
    keras_object::{from_object, object},
};
use crate::graph::{Graph, OpError, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// l1·Σ|w| + l2·Σw² (Keras `L1L2`; no ½).
///
/// ```
/// use hubel::layers::*;
/// let layer = Dense::new(4).kernel_regularizer(L2(1e-4)).activity_regularizer(L1(1e-5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Regularizer {
    /// Factor of the absolute values.
    pub l1: f32,
    /// Factor of the squares.
    pub l2: f32,
}

/// Returns l1·Σ|w|.
#[expect(non_snake_case, reason = "Keras's name")]
pub const fn L1(l1: f32) -> Regularizer {
    Regularizer { l1, l2: 0.0 }
}

/// Returns l2·Σw².
#[expect(non_snake_case, reason = "Keras's name")]
pub const fn L2(l2: f32) -> Regularizer {
    Regularizer { l1: 0.0, l2 }
}

/// Returns l1·Σ|w| + l2·Σw².
#[expect(non_snake_case, reason = "Keras's name")]
pub const fn L1L2(l1: f32, l2: f32) -> Regularizer {
    Regularizer { l1, l2 }
}

impl Default for Regularizer {
    fn default() -> Self {
        L1L2(0.0, 0.0)
    }
}

impl Regularizer {
    /// Returns the factors with their bounds.
    pub fn numbers(&self) -> [Number; 2] {
        let number = |option, value: f32| Number::new("regularizer", option, value, Bounds::AtLeastZero);
        [number("l1", self.l1), number("l2", self.l2)]
    }

    /// Returns the penalty of a tensor, a scalar.
    pub fn build(&self, g: &mut Graph, x: Value) -> Result<Value, OpError> {
        let axes: Vec<usize> = (0..g.shape(x).rank()).collect();
        let mut terms = Vec::new();
        if self.l1 != 0.0 {
            let magnitudes = g.unary("abs", x)?;
            terms.push((g.sum(magnitudes, &axes, false)?, self.l1));
        }
        if self.l2 != 0.0 {
            terms.push((g.sum_squares(x, &axes, false)?, self.l2));
        }
        let mut total = g.constant(0.0)?;
        for (sum, factor) in terms {
            let term = g.scale(sum, factor)?;
            total = g.add(total, term)?;
        }
        Ok(total)
    }
}

impl Serialize for Regularizer {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let config = Regularizer::serialize(self, serde_json::value::Serializer);
        let named = config.map(|config| serde_json::json!({ "class_name": "L1L2", "config": config }));
        object("keras.regularizers", named).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Regularizer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let defaults = [("L1", r#"{"l1":0.01}"#), ("L2", r#"{"l2":0.01}"#), ("L1L2", r#"{"l1":0,"l2":0}"#)];
        from_object(d, &defaults, |mut v| match v["class_name"].as_str() {
            Some("L1" | "L2" | "L1L2") => Regularizer::deserialize(v["config"].take()),
            other => {
                let other = other.unwrap_or_default();
                Err(serde::de::Error::custom(format!(
                    "unknown regularizer `{other}`, expected one of `L1`, `L2`, `L1L2`"
                )))
            }
        })
    }
}
