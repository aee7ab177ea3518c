//! Regularisers: penalties on large weights or outputs, as in Keras.

use super::{
    Bounds, Number,
    keras_object::{from_object, object},
};
use crate::{
    graph::{Graph, OpError, Value},
    ops::MatmulOptions,
};
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
    /// Factor of the mean |cosine| between rows of a matrix (Keras `OrthogonalRegularizer`).
    #[serde(skip)]
    pub orthogonal_rows: f32,
    /// Factor of the mean |cosine| between columns.
    #[serde(skip)]
    pub orthogonal_columns: f32,
}

/// Returns l1·Σ|w|.
#[expect(non_snake_case, reason = "Keras's name")]
pub const fn L1(l1: f32) -> Regularizer {
    L1L2(l1, 0.0)
}

/// Returns l2·Σw².
#[expect(non_snake_case, reason = "Keras's name")]
pub const fn L2(l2: f32) -> Regularizer {
    L1L2(0.0, l2)
}

/// Returns l1·Σ|w| + l2·Σw².
#[expect(non_snake_case, reason = "Keras's name")]
pub const fn L1L2(l1: f32, l2: f32) -> Regularizer {
    Regularizer { l1, l2, orthogonal_rows: 0.0, orthogonal_columns: 0.0 }
}

impl Default for Regularizer {
    fn default() -> Self {
        L1L2(0.0, 0.0)
    }
}

impl Regularizer {
    /// Returns the factors with their bounds.
    pub fn numbers(&self) -> [Number; 4] {
        let number = |option, value: f32| Number::new("regularizer", option, value, Bounds::AtLeastZero);
        [
            number("l1", self.l1),
            number("l2", self.l2),
            number("orthogonal_rows", self.orthogonal_rows),
            number("orthogonal_columns", self.orthogonal_columns),
        ]
    }

    /// Returns half the sum of |cosine| over all pairs of rows or columns of a matrix, each twice, by their number.
    fn cosines(g: &mut Graph, x: Value, rows: bool) -> Result<Value, OpError> {
        let shape = g.shape(x).clone();
        if shape.rank() != 2 {
            let advice = "use another regulariser for this weight";
            return Err(OpError::new("orthogonal_regularizer", "a matrix", shape, advice));
        }
        let (along, n) = if rows { (1, shape.dims()[0]) } else { (0, shape.dims()[1]) };
        let squares = g.sum_squares(x, &[along], true)?;
        let least = g.constant(1e-12)?;
        let held = g.max(squares, least)?;
        let length = g.unary("rsqrt", held)?;
        let unit = g.mul(x, length)?;
        let product = g.matmul_with(unit, unit, MatmulOptions { transpose_a: !rows, transpose_b: rows })?;
        let others = (0..n * n).map(|i| f32::from(u8::from(i / n != i % n))).collect::<Vec<_>>();
        let others = g.literal([n, n], others)?;
        let cosines = g.mul(product, others)?;
        let sizes = g.abs(cosines)?;
        let sum = g.sum(sizes, &[0, 1], false)?;
        g.scale(sum, 1.0 / (n as f32 * (n as f32 - 1.0)).max(1.0))
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
        for (factor, rows) in [(self.orthogonal_rows, true), (self.orthogonal_columns, false)] {
            if factor != 0.0 {
                terms.push((Self::cosines(g, x, rows)?, factor));
            }
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
        for (factor, mode) in [(self.orthogonal_rows, "rows"), (self.orthogonal_columns, "columns")] {
            if factor != 0.0 {
                let config = serde_json::json!({ "factor": factor, "mode": mode });
                let named = serde_json::json!({ "class_name": "OrthogonalRegularizer", "config": config });
                return object::<()>("keras.regularizers", Ok(named)).serialize(s);
            }
        }
        let config = Regularizer::serialize(self, serde_json::value::Serializer);
        let named = config.map(|config| serde_json::json!({ "class_name": "L1L2", "config": config }));
        object("keras.regularizers", named).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Regularizer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let defaults = [("L1", r#"{"l1":0.01}"#), ("L2", r#"{"l2":0.01}"#), ("L1L2", r#"{"l1":0,"l2":0}"#)];
        from_object(d, &defaults, |mut v| match v["class_name"].as_str() {
            Some("OrthogonalRegularizer") => {
                let factor = v["config"]["factor"].as_f64().unwrap_or(0.01) as f32;
                let columns = v["config"]["mode"] == "columns";
                let [orthogonal_rows, orthogonal_columns] = if columns { [0.0, factor] } else { [factor, 0.0] };
                Ok(Regularizer { orthogonal_rows, orthogonal_columns, ..Regularizer::default() })
            }
            Some("L1" | "L2" | "L1L2") => Regularizer::deserialize(v["config"].take()),
            other => {
                let other = other.unwrap_or_default();
                Err(serde::de::Error::custom(format!(
                    "unknown regularizer `{other}`, expected one of `L1`, `L2`, `L1L2`, `OrthogonalRegularizer`"
                )))
            }
        })
    }
}
