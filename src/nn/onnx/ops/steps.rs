//! Recurrent layers step by step, for what the operation lacks: peepholes, clip, coupled gates, sequences of different lengths.

use crate::{
    graph::{Graph, OpError, Value},
    ops::Part,
};

/// The most steps that are built one after the other.
pub const MAX_STEPS: usize = 512;

/// Weights of a direction, gates in Hubel's order: i, f, c, o of an LSTM, z, r, h of a GRU.
pub struct Weights {
    /// Projected input (N, steps, gates · units).
    pub projected: Value,
    pub recurrent: Value,
    /// GRU: what is added to the state's product, if the reset gate acts after it.
    pub second: Option<Value>,
    /// LSTM: the state's part in the gates i, o and f, (1, units) each.
    pub peepholes: Option<[Value; 3]>,
}

/// What a cell does beyond an operation's.
pub struct Options {
    pub units: usize,
    pub gates: usize,
    pub backwards: bool,
    /// GRU: whether the reset gate acts after the product.
    pub after: bool,
    /// LSTM: whether the forget gate is what the input gate leaves.
    pub coupled: bool,
    pub clip: Option<f32>,
    /// The functions' names: gates, candidate, and an LSTM's state.
    pub functions: [&'static str; 3],
    /// The steps of each sample (N, 1).
    pub lengths: Option<Value>,
}

impl Options {
    fn gate(&self, g: &mut Graph, x: Value, function: usize) -> Result<Value, OpError> {
        let held = match self.clip {
            Some(clip) => g.clip(x, -clip, clip)?,
            None => x,
        };
        g.unary(self.functions[function], held)
    }

    fn part(&self, g: &mut Graph, x: Value, gate: usize) -> Result<Value, OpError> {
        match self.gates {
            1 => Ok(x),
            _ => g.slice_axis(x, 1, Part::new(gate * self.units, self.units)),
        }
    }

    fn lstm(&self, g: &mut Graph, w: &Weights, x: Value, states: &[Value]) -> Result<Vec<Value>, OpError> {
        let (h, c) = (states[0], states[1]);
        let product = g.matmul(h, w.recurrent)?;
        let all = g.add(x, product)?;
        let mut parts = [all; 4];
        for (gate, part) in parts.iter_mut().enumerate() {
            *part = self.part(g, all, gate)?;
        }
        let [mut i, mut f, new, mut o] = parts;
        if let Some([of_i, _, of_f]) = w.peepholes {
            let (seen_i, seen_f) = (g.mul(c, of_i)?, g.mul(c, of_f)?);
            (i, f) = (g.add(i, seen_i)?, g.add(f, seen_f)?);
        }
        let i = self.gate(g, i, 0)?;
        let f = match self.coupled {
            true => {
                let one = g.constant(1.0)?;
                g.sub(one, i)?
            }
            false => self.gate(g, f, 0)?,
        };
        let new = self.gate(g, new, 1)?;
        let (old, new) = (g.mul(f, c)?, g.mul(i, new)?);
        let c = g.add(old, new)?;
        if let Some([_, of_o, _]) = w.peepholes {
            let seen = g.mul(c, of_o)?;
            o = g.add(o, seen)?;
        }
        let o = self.gate(g, o, 0)?;
        let shown = g.unary(self.functions[2], c)?;
        Ok(vec![g.mul(o, shown)?, c])
    }

    fn gru(&self, g: &mut Graph, w: &Weights, x: Value, h: Value) -> Result<Vec<Value>, OpError> {
        let mut product = g.matmul(h, w.recurrent)?;
        if let Some(second) = w.second {
            product = g.add(product, second)?;
        }
        let mut gates = [x; 2];
        for (gate, value) in gates.iter_mut().enumerate() {
            let (own, of_state) = (self.part(g, x, gate)?, self.part(g, product, gate)?);
            let sum = g.add(own, of_state)?;
            *value = self.gate(g, sum, 0)?;
        }
        let [z, r] = gates;
        let of_state = match self.after {
            true => {
                let own = self.part(g, product, 2)?;
                g.mul(r, own)?
            }
            false => {
                let (reset, kernel) = (g.mul(r, h)?, self.part(g, w.recurrent, 2)?);
                g.matmul(reset, kernel)?
            }
        };
        let own = self.part(g, x, 2)?;
        let sum = g.add(own, of_state)?;
        let new = self.gate(g, sum, 1)?;
        // z · h + (1 − z) · new
        let change = g.sub(h, new)?;
        let kept = g.mul(z, change)?;
        Ok(vec![g.add(new, kept)?])
    }

    /// Returns the states of all steps (N, steps, units) and the last ones, from first states (N, units).
    pub fn run(&self, g: &mut Graph, w: &Weights, mut states: Vec<Value>) -> Result<(Value, Vec<Value>), OpError> {
        let shape = g.shape(w.projected).clone();
        let steps = shape.dims()[1];
        let mut shown = vec![states[0]; steps];
        for k in 0..steps {
            let t = if self.backwards { steps - 1 - k } else { k };
            let x = g.slice_axis(w.projected, 1, Part::new(t, 1))?;
            let x = g.reshape(x, shape.with_row(&[self.gates * self.units]))?;
            let mut new = match self.gates {
                4 => self.lstm(g, w, x, &states)?,
                3 => self.gru(g, w, x, states[0])?,
                _ => {
                    let product = g.matmul(states[0], w.recurrent)?;
                    let sum = g.add(x, product)?;
                    vec![self.gate(g, sum, 1)?]
                }
            };
            let mut result = new[0];
            if let Some(lengths) = self.lengths {
                let (at, zero) = (g.constant(t as f32)?, g.constant(0.0)?);
                let lasts = g.binary("less", at, lengths)?;
                for (new, old) in new.iter_mut().zip(&states) {
                    *new = g.where_(lasts, *new, *old)?;
                }
                result = g.where_(lasts, result, zero)?;
            }
            states = new;
            shown[t] = g.reshape(result, shape.with_row(&[1, self.units]))?;
        }
        let whole = if steps == 1 { shown[0] } else { g.concat(&shown, 1)? };
        Ok((g.reshape(whole, shape.with_row(&[steps, 1, self.units]))?, states))
    }
}
