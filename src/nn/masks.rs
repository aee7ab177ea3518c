//! Masks: which timesteps of a sequence count, (N, T) of ones and zeros, as Keras's layers pass them on.

use crate::graph::{Graph, OpError, Value};
use std::collections::HashMap;

/// The masks of tensors.
#[derive(Debug, Default)]
pub(super) struct Masks(pub HashMap<Value, Value>);

/// Keras's layers whose result has the mask of their input.
const PASSING: [&str; 34] = [
    "Activation",
    "ActivityRegularization",
    "Add",
    "AlphaDropout",
    "Average",
    "BatchNormalization",
    "Bidirectional",
    "Dense",
    "Dropout",
    "ELU",
    "GRU",
    "GaussianDropout",
    "GaussianNoise",
    "GroupNormalization",
    "Identity",
    "LSTM",
    "LayerNormalization",
    "LeakyReLU",
    "Maximum",
    "Minimum",
    "Multiply",
    "Normalization",
    "PReLU",
    "RMSNormalization",
    "ReLU",
    "Rescaling",
    "SimpleRNN",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "Subtract",
    "TimeDistributed",
    "UnitNormalization",
];

impl Masks {
    /// Sets the mask of a layer's result to what those of its inputs make, unless the layer has set its own. A mask ends
    /// where the result has no timesteps.
    pub(super) fn pass(&mut self, g: &mut Graph, kind: &str, from: &[Value], to: Value) -> Result<(), OpError> {
        if self.0.is_empty() || self.0.contains_key(&to) {
            return Ok(());
        }
        let masks: Vec<Value> = from.iter().filter_map(|x| self.0.get(x).copied()).collect();
        let whole = masks.len() == from.len();
        let mask = match &masks[..] {
            [] => return Ok(()),
            [first, rest @ ..] if PASSING.contains(&kind) => {
                rest.iter().try_fold(*first, |all, &mask| g.mul(all, mask))?
            }
            // Of joined features, those of one tensor suffice.
            [first, rest @ ..] if kind == "Concatenate" && whole => {
                rest.iter().try_fold(*first, |any, &mask| g.max(any, mask))?
            }
            _ => return Ok(()),
        };
        let (steps, shape) = (g.shape(mask).dims()[1], g.shape(to));
        if shape.rank() > 2 && shape.dims()[1] == steps {
            self.0.insert(to, mask);
        }
        Ok(())
    }
}

/// A mask is a matrix of all pairs of timesteps.
const MAX_STEPS: usize = 1 << 11;

/// How a masked sequence is run through: what counts is moved to the front, and each step then reads the last result
/// that counts.
pub(super) struct Kept {
    to_front: Value,
    back: Value,
    /// Ones (N, 1) where nothing counts.
    none: Value,
}

impl Kept {
    /// Returns the moves of a mask (N, T).
    pub fn new(g: &mut Graph, mask: Value) -> Result<Self, OpError> {
        let shape = g.shape(mask).clone();
        let steps = shape.last();
        if steps > MAX_STEPS {
            let wanted = format!("at most {MAX_STEPS} timesteps with a mask");
            return Err(OpError::new("mask", wanted, steps, "cut the sequences, or leave the mask out"));
        }
        let upper = (0..steps * steps).map(|i| f32::from(u8::from(i / steps <= i % steps))).collect::<Vec<_>>();
        let (upper, numbers) = (g.literal([steps, steps], upper)?, (1..=steps).map(|n| n as f32).collect::<Vec<_>>());
        let numbers = g.literal([1, steps], numbers)?;
        let counts = g.project(mask, upper, None)?;
        let columns = shape.with_row(&[steps, 1]);
        let (counts, counted) = (g.reshape(counts, columns.clone())?, g.reshape(mask, columns)?);
        let back = g.binary("equal", counts, numbers)?;
        let moved = g.mul(back, counted)?;
        let last = g.slice_axis(counts, 1, crate::ops::Part::new(steps - 1, 1))?;
        let (last, zero) = (g.reshape(last, shape.with_row(&[1]))?, g.constant(0.0)?);
        Ok(Kept { to_front: g.transpose(moved, &[0, 2, 1])?, back, none: g.binary("equal", last, zero)? })
    }

    /// Returns a sequence with the steps that count in front, and zeros behind them.
    pub fn to_front(&self, g: &mut Graph, x: Value) -> Result<Value, OpError> {
        g.matmul(self.to_front, x)
    }

    /// Returns for each step the result of the last one that counts, zeros before the first.
    pub fn back(&self, g: &mut Graph, results: Value) -> Result<Value, OpError> {
        g.matmul(self.back, results)
    }

    /// Returns a last state, or the first where nothing counts.
    pub fn or_first(&self, g: &mut Graph, last: Value, first: Option<Value>) -> Result<Value, OpError> {
        match first {
            None => Ok(last),
            Some(first) => g.where_(self.none, first, last),
        }
    }
}
