//! The cells over all timesteps, forward and back through time.

use crate::ops::{
    conv2d::images,
    matmul::MatmulOptions,
    slice::{Part, SliceGrad},
};
use crate::{
    graph::{Candidate, Cost, DeviceProfile, Epilogue, Gradients, Graph, Io, Op, OpError, Step, TensorType, Value},
    kernels::recurrent::{self, Cell, CellActivation, CellKind, Extents, MAX_UNITS},
    tensor::{Accuracy, Array, DType, Shape},
};

/// A cell over all timesteps (Keras `SimpleRNN`, `LSTM`, `GRU`).
///
/// Inputs: the projected x (N, T, gates·u) with the bias added, the recurrent kernel (u, gates·u), for a GRU that resets
/// after the product the recurrent bias (gates·u), and, if not zeros, the initial states (N, states·u), an LSTM's h in
/// front of c. Outputs: h (N, T, u), and an LSTM's c (N, T, u).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recurrent {
    /// The cell.
    pub cell: Cell,
}

/// Gradient of [`Recurrent`] to what a cell's functions are applied to; `kernel` is transposed (gates·u, u), `before` is
/// the state before each step (an LSTM's c) (N, T, u), `gates` what its functions were applied to (N, T, gates·u).
///
/// Inputs: simple: y, kernel, dy; LSTM: gates, kernel, before, dy and, if there is one, the gradient to c; GRU: gates,
/// kernel, before, dy, and where it resets after the product: x, the state's product with its bias, kernel, before, dy.
/// Outputs: gradient to x (N, T, gates·u), for the latter to the state's product too, and to the initial states
/// (N, states·u).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecurrentGrad {
    /// The cell.
    pub cell: Cell,
}

/// What a result may be off by, as part of the largest operand or result, or of 1.
const ERROR: f64 = 1e-5;

fn key(cell: &Cell) -> String {
    format!("{:?} {:?} {:?}", cell.kind, cell.activation, cell.gate)
}

fn name(cell: &Cell, names: [&'static str; 3]) -> &'static str {
    match cell.kind {
        CellKind::Simple => names[0],
        CellKind::Lstm => names[1],
        CellKind::GruBefore | CellKind::GruAfter => names[2],
    }
}

fn bounds(inputs: &[&Array], exact: &[Array]) -> Vec<Array> {
    let largest = |start: f64, a: &Array| a.data.iter().fold(start, |m, x| m.max(x.abs()));
    let operands = inputs.iter().fold(1.0, |m, a| largest(m, a));
    exact
        .iter()
        .map(|e| Array::full(e.shape.clone(), ERROR * largest(operands, e) + f64::from(f32::MIN_POSITIVE)))
        .collect()
}

/// Returns an error unless the inputs are those wanted.
fn check(op: &str, inputs: &[TensorType], wanted: &[(&str, TensorType)]) -> Result<(), OpError> {
    for (input, (name, wanted)) in inputs.iter().zip(wanted) {
        if input != wanted {
            let advice = "the kernel (units, gates · units) says how many units; sequences are (batch, steps, width)";
            return Err(OpError::new(op, format!("{name} of {wanted}"), input, advice));
        }
    }
    Ok(())
}

/// Returns the extents of sequences (N, T, …) beside `units`, or an error.
fn extents(op: &str, sequence: &TensorType, units: usize) -> Result<Extents, OpError> {
    if sequence.dtype != DType::F32 || sequence.shape.rank() != 3 || sequence.shape.dims().contains(&0) {
        return Err(OpError::new(op, "an f32 sequence (batch, steps, width)", sequence, "reshape or convert it"));
    }
    if !(1..=MAX_UNITS).contains(&units) {
        return Err(OpError::new(op, format!("1 to {MAX_UNITS} units"), units, "use several layers of fewer units"));
    }
    Ok(Extents { samples: images(&sequence.shape), steps: sequence.shape.dims()[1], units })
}

fn count_error(op: &str, wanted: &str, got: usize) -> OpError {
    OpError::new(op, wanted, format!("{got} inputs"), "pass them in this order")
}

impl Recurrent {
    fn extents(&self, inputs: &[TensorType]) -> Result<Extents, OpError> {
        let cell = &self.cell;
        let biased = usize::from(cell.kind == CellKind::GruAfter);
        if !(2 + biased..=3 + biased).contains(&inputs.len()) {
            let wanted =
                if biased == 1 { "x, kernel, bias, initial states or not" } else { "x, kernel, initial states or not" };
            return Err(count_error(self.name(), wanted, inputs.len()));
        }
        let units = inputs[1].shape.dims().first().copied().unwrap_or_default();
        let extents = extents(self.name(), &inputs[0], units)?;
        let (row, x) = (cell.gates() * units, &inputs[0].shape);
        let mut wanted = vec![
            ("x", TensorType::f32(x.with_row(&[extents.steps, row]))),
            ("kernel", TensorType::f32(Shape::fixed([units, row]))),
        ];
        if biased == 1 {
            wanted.push(("recurrent bias", TensorType::f32(Shape::fixed([row]))));
        }
        wanted.push(("initial states", TensorType::f32(x.with_row(&[cell.states() * units]))));
        check(self.name(), inputs, &wanted)?;
        Ok(extents)
    }

    /// Returns whether the last input is the initial states.
    fn with_states(&self, n_inputs: usize) -> bool {
        n_inputs == 3 + usize::from(self.cell.kind == CellKind::GruAfter)
    }
}

impl Op for Recurrent {
    fn name(&self) -> &'static str {
        name(&self.cell, ["simple_rnn", "lstm", "gru"])
    }

    fn key(&self) -> String {
        key(&self.cell)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let extents = self.extents(inputs)?;
        let y = TensorType::f32(inputs[0].shape.with_row(&[extents.steps, extents.units]));
        Ok(vec![y; self.cell.states()])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (x, kernel) = (inputs[0], inputs[1]);
        let (u, row) = (kernel.shape[0], kernel.shape[1]);
        let (samples, steps) = (x.shape[0], x.shape[1]);
        let Cell { kind, activation, gate } = self.cell;
        let states = self.cell.states();
        let initial = inputs.last().filter(|_| self.with_states(inputs.len()));
        let mut outputs = vec![Array::zeros([samples, steps, u]); states];
        for n in 0..samples {
            let start = |s: usize| -> Vec<f64> {
                initial.map_or(vec![0.0; u], |i| i.data[(n * states + s) * u..][..u].to_vec())
            };
            let (mut h, mut c) = (start(0), if states == 2 { start(1) } else { Vec::new() });
            for t in 0..steps {
                let x = &x.data[(n * steps + t) * row..][..row];
                let product = |state: &[f64], i: usize| -> f64 {
                    state.iter().enumerate().map(|(k, h)| h * kernel.data[k * row + i]).sum()
                };
                let next: Vec<f64> = match kind {
                    CellKind::Simple => (0..u).map(|j| activation.at(x[j] + product(&h, j))).collect(),
                    CellKind::Lstm => {
                        let at = |g: usize, j: usize| x[g * u + j] + product(&h, g * u + j);
                        for (j, c) in c.iter_mut().enumerate() {
                            *c = gate.at(at(1, j)) * *c + gate.at(at(0, j)) * activation.at(at(2, j));
                        }
                        (0..u).map(|j| gate.at(at(3, j)) * activation.at(c[j])).collect()
                    }
                    CellKind::GruAfter => {
                        let m = |g: usize, j: usize| inputs[2].data[g * u + j] + product(&h, g * u + j);
                        let value = |j: usize| {
                            let [z, r] = [0, 1].map(|g| gate.at(x[g * u + j] + m(g, j)));
                            z * h[j] + (1.0 - z) * activation.at(x[2 * u + j] + r * m(2, j))
                        };
                        (0..u).map(value).collect()
                    }
                    CellKind::GruBefore => {
                        let at = |g: usize, j: usize| gate.at(x[g * u + j] + product(&h, g * u + j));
                        let reset: Vec<f64> = (0..u).map(|j| at(1, j) * h[j]).collect();
                        let value = |j: usize| {
                            let z = at(0, j);
                            z * h[j] + (1.0 - z) * activation.at(x[2 * u + j] + product(&reset, 2 * u + j))
                        };
                        (0..u).map(value).collect()
                    }
                };
                h = next;
                for (output, state) in outputs.iter_mut().zip([&h, &c]) {
                    output.data[(n * steps + t) * u..][..u].copy_from_slice(state);
                }
            }
        }
        outputs
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let (x, kernel) = (inputs[0], inputs[1]);
        let initial = inputs.last().copied().filter(|_| self.with_states(inputs.len()));
        let sequence = g.shape(outputs[0]).clone();
        let (steps, u) = (sequence.dims()[1], sequence.last());
        let row = self.cell.gates() * u;
        let transposed = g.transpose(kernel, &[1, 0])?;
        let dy_h = match dy[0] {
            Some(dy) => dy,
            None => zeros(g, &sequence)?,
        };
        let op = RecurrentGrad { cell: self.cell };
        let mut states = Vec::new();
        for (s, &output) in outputs.iter().enumerate() {
            let initial = initial.map(|i| g.slice_axis(i, 1, Part::new(s * u, u))).transpose()?;
            states.push(before(g, output, initial)?);
        }
        let h = states[0];
        // What the state before each step gives: all timesteps are rows of one product.
        let product = |g: &mut Graph, state: Value, kernel: Value| {
            let rows = flat(g, state)?;
            let product = g.matmul(rows, kernel)?;
            let shape = sequence.with_row(&[steps, g.shape(kernel).last()]);
            g.reshape(product, shape)
        };
        let mut grads = match self.cell.kind {
            CellKind::Simple => {
                let [da, start] = two(g.apply(op, &[outputs[0], transposed, dy_h])?);
                vec![da, outer(g, h, da)?, start]
            }
            CellKind::Lstm => {
                let product = product(g, h, kernel)?;
                let gates = g.add(x, product)?;
                let operands: Vec<Value> = [gates, transposed, states[1], dy_h].into_iter().chain(dy[1]).collect();
                let [da, start] = two(g.apply(op, &operands)?);
                vec![da, outer(g, h, da)?, start]
            }
            CellKind::GruAfter => {
                let product = product(g, h, kernel)?;
                let product = g.add(product, inputs[2])?;
                let results = g.apply(op, &[x, product, transposed, h, dy_h])?;
                let [da, dm, start] = [results[0], results[1], results[2]];
                let rows = flat(g, dm)?;
                vec![da, outer(g, h, dm)?, g.sum(rows, &[0], false)?, start]
            }
            CellKind::GruBefore => {
                let parts = [Part::new(0, 2 * u), Part::new(2 * u, u)];
                let of = |g: &mut Graph, v: Value, axis: usize| -> Result<[Value; 2], OpError> {
                    Ok([g.slice_axis(v, axis, parts[0])?, g.slice_axis(v, axis, parts[1])?])
                };
                let ([x_gates, x_new], [to_gates, to_new]) = (of(g, x, 2)?, of(g, kernel, 1)?);
                let product_gates = product(g, h, to_gates)?;
                let gates = g.add(x_gates, product_gates)?;
                let mut reset = g.slice_axis(gates, 2, Part::new(u, u))?;
                if let Some(function) = self.cell.gate.name() {
                    reset = g.unary(function, reset)?;
                }
                let reset = g.mul(reset, h)?;
                let product_new = product(g, reset, to_new)?;
                let new = g.add(x_new, product_new)?;
                let gates = g.concat(&[gates, new], 2)?;
                let [da, start] = two(g.apply(op, &[gates, transposed, h, dy_h])?);
                let [d_gates, d_new] = of(g, da, 2)?;
                let (to_gates, to_new) = (outer(g, h, d_gates)?, outer(g, reset, d_new)?);
                vec![da, g.concat(&[to_gates, to_new], 1)?, start]
            }
        };
        debug_assert!(g.shape(grads[1]).dims() == [u, row]);
        grads.truncate(inputs.len());
        Ok(grads.into_iter().map(Some).collect())
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Ok(extents) = self.extents(&io.inputs) else { return Vec::new() };
        let ways = recurrent::forward(&self.cell, &extents, self.with_states(io.inputs.len()), profile);
        ways.into_iter().map(|(variant, dispatch)| Candidate::single(variant, dispatch)).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        let (y, row) = (&io.outputs[0].shape, io.inputs[1].shape.last() as u64);
        Cost { flops: y.elements().times(2 * row), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Relative(ERROR); self.cell.states()]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], exact: &[Array], _step: &Step) -> Vec<Array> {
        bounds(inputs, exact)
    }
}

/// Returns sequences (N, T, k) as rows (N · T, k).
fn flat(g: &mut Graph, v: Value) -> Result<Value, OpError> {
    let shape = g.shape(v);
    let (rows, last) = (shape.dims()[0] * shape.dims()[1], shape.last());
    let shape = if shape.is_batched() { Shape::batched(rows, &[last]) } else { Shape::fixed([rows, last]) };
    g.reshape(v, shape)
}

/// Returns the gradient to a kernel: the states times the gradient to their product, summed over all timesteps.
fn outer(g: &mut Graph, state: Value, d: Value) -> Result<Value, OpError> {
    let (state, d) = (flat(g, state)?, flat(g, d)?);
    g.matmul_with(state, d, MatmulOptions { transpose_a: true, transpose_b: false })
}

pub(super) fn two(values: Vec<Value>) -> [Value; 2] {
    [values[0], values[1]]
}

fn zeros(g: &mut Graph, shape: &Shape) -> Result<Value, OpError> {
    let zero = g.constant(0.0)?;
    g.expand(zero, shape)
}

/// Returns the states before each step: `initial` (N, u), or zeros, and `states` (N, T, u) but the last.
fn before(g: &mut Graph, states: Value, initial: Option<Value>) -> Result<Value, OpError> {
    let shape = g.shape(states).clone();
    let (steps, u) = (shape.dims()[1], shape.last());
    let initial = initial.map(|i| g.reshape(i, shape.with_row(&[1, u]))).transpose()?;
    match (steps, initial) {
        (1, Some(initial)) => Ok(initial),
        (1, None) => zeros(g, &shape),
        _ => {
            let early = g.slice_axis(states, 1, Part::new(0, steps - 1))?;
            match initial {
                Some(initial) => g.concat(&[initial, early], 1),
                None => g.apply1(SliceGrad { shape, parts: vec![Part::new(1, steps - 1), Part::all(u)] }, &[early]),
            }
        }
    }
}

impl RecurrentGrad {
    /// Returns the places of the kernel and of dy among the inputs.
    fn places(&self) -> [usize; 2] {
        match self.cell.kind {
            CellKind::Simple => [1, 2],
            CellKind::Lstm | CellKind::GruBefore => [1, 3],
            CellKind::GruAfter => [2, 4],
        }
    }

    fn extents(&self, inputs: &[TensorType]) -> Result<Extents, OpError> {
        let ([kernel, dy], cell) = (self.places(), &self.cell);
        let lstm = usize::from(cell.kind == CellKind::Lstm);
        if !(dy + 1..=dy + 1 + lstm).contains(&inputs.len()) {
            let wanted = match cell.kind {
                CellKind::Simple => "y, kernel, dy",
                CellKind::Lstm => "gates, kernel, cells before, dy, gradient to the cells or not",
                CellKind::GruBefore => "gates, kernel, states before, dy",
                CellKind::GruAfter => "x, product, kernel, states before, dy",
            };
            return Err(count_error(self.name(), wanted, inputs.len()));
        }
        let units = inputs[kernel].shape.last();
        let extents = extents(self.name(), &inputs[dy], units)?;
        let (row, shape) = (cell.gates() * units, &inputs[dy].shape);
        let narrow = TensorType::f32(shape.with_row(&[extents.steps, units]));
        let wide = TensorType::f32(shape.with_row(&[extents.steps, row]));
        let matrix = ("kernel, transposed,", TensorType::f32(Shape::fixed([row, units])));
        let (before, dy) = (("states before", narrow.clone()), ("dy", narrow.clone()));
        let mut wanted = match cell.kind {
            CellKind::Simple => vec![("y", narrow.clone()), matrix, dy],
            CellKind::Lstm | CellKind::GruBefore => vec![("gates", wide), matrix, before, dy],
            CellKind::GruAfter => vec![("x", wide.clone()), ("product", wide), matrix, before, dy],
        };
        wanted.push(("gradient to the cells", narrow));
        check(self.name(), inputs, &wanted)?;
        Ok(extents)
    }
}

impl Op for RecurrentGrad {
    fn name(&self) -> &'static str {
        name(&self.cell, ["simple_rnn_grad", "lstm_grad", "gru_grad"])
    }

    fn key(&self) -> String {
        key(&self.cell)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let Extents { steps, units, .. } = self.extents(inputs)?;
        let shape = &inputs[self.places()[1]].shape;
        let gates = TensorType::f32(shape.with_row(&[steps, self.cell.gates() * units]));
        let mut outputs = vec![gates; 1 + usize::from(self.cell.kind == CellKind::GruAfter)];
        outputs.push(TensorType::f32(shape.with_row(&[self.cell.states() * units])));
        Ok(outputs)
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [kernel, dy] = self.places();
        let (kernel, before) = (inputs[kernel], inputs[dy - 1]);
        let (u, row) = (kernel.shape[1], kernel.shape[0]);
        let (samples, steps) = (inputs[dy].shape[0], inputs[dy].shape[1]);
        let Cell { kind, activation, gate } = self.cell;
        let states = self.cell.states();
        let mut gates = Array::zeros([samples, steps, row]);
        let mut products = gates.clone();
        let mut initial = Array::zeros([samples, states * u]);
        for n in 0..samples {
            let (mut h, mut c) = (vec![0.0; u], vec![0.0; u]);
            for t in (0..steps).rev() {
                let at = |i: usize, width: usize, j: usize| inputs[i].data[(n * steps + t) * width + j];
                let back = |d: &[f64], first: usize, j: usize| -> f64 {
                    d.iter().enumerate().map(|(k, d)| d * kernel.data[(first + k) * u + j]).sum()
                };
                let dh: Vec<f64> = (0..u).map(|j| at(dy, u, j) + h[j]).collect();
                let p = |j: usize| before.data[(n * steps + t) * u + j];
                let (mut da, mut dm) = (vec![0.0; row], vec![0.0; row]);
                match kind {
                    CellKind::Simple => {
                        (0..u).for_each(|j| da[j] = dh[j] * activation.slope(at(0, u, j)));
                        h = (0..u).map(|j| back(&da, 0, j)).collect();
                    }
                    CellKind::Lstm => {
                        for j in 0..u {
                            let [i, f, o] = [0, 1, 3].map(|k| gate.at(at(0, row, k * u + j)));
                            let new = activation.at(at(0, row, 2 * u + j));
                            let out = activation.at(f * p(j) + i * new);
                            let given = if inputs.len() > dy + 1 { at(dy + 1, u, j) } else { 0.0 };
                            let dc = c[j] + given + dh[j] * o * activation.slope(out);
                            da[j] = dc * new * gate.slope(i);
                            da[u + j] = dc * p(j) * gate.slope(f);
                            da[2 * u + j] = dc * i * activation.slope(new);
                            da[3 * u + j] = dh[j] * out * gate.slope(o);
                            c[j] = dc * f;
                        }
                        h = (0..u).map(|j| back(&da, 0, j)).collect();
                    }
                    CellKind::GruAfter => {
                        for j in 0..u {
                            let product = |k: usize| at(1, row, k * u + j);
                            let [z, r] = [0, 1].map(|k| gate.at(at(0, row, k * u + j) + product(k)));
                            let new = activation.at(at(0, row, 2 * u + j) + r * product(2));
                            h[j] = dh[j] * z;
                            da[j] = dh[j] * (p(j) - new) * gate.slope(z);
                            da[2 * u + j] = dh[j] * (1.0 - z) * activation.slope(new);
                            da[u + j] = da[2 * u + j] * product(2) * gate.slope(r);
                            dm[2 * u + j] = da[2 * u + j] * r;
                        }
                        dm[..2 * u].copy_from_slice(&da[..2 * u]);
                        h = (0..u).map(|j| h[j] + back(&dm, 0, j)).collect();
                    }
                    CellKind::GruBefore => {
                        let value = |k: usize, j: usize| at(0, row, k * u + j);
                        for j in 0..u {
                            let (z, new) = (gate.at(value(0, j)), activation.at(value(2, j)));
                            h[j] = dh[j] * z;
                            da[j] = dh[j] * (p(j) - new) * gate.slope(z);
                            da[2 * u + j] = dh[j] * (1.0 - z) * activation.slope(new);
                        }
                        for j in 0..u {
                            let (dr, r) = (back(&da[2 * u..], 2 * u, j), gate.at(value(1, j)));
                            da[u + j] = dr * p(j) * gate.slope(r);
                            h[j] += dr * r;
                        }
                        h = (0..u).map(|j| h[j] + back(&da[..2 * u], 0, j)).collect();
                    }
                }
                gates.data[(n * steps + t) * row..][..row].copy_from_slice(&da);
                products.data[(n * steps + t) * row..][..row].copy_from_slice(&dm);
            }
            for (s, state) in [h, c].iter().enumerate().take(states) {
                initial.data[(n * states + s) * u..][..u].copy_from_slice(state);
            }
        }
        if kind == CellKind::GruAfter { vec![gates, products, initial] } else { vec![gates, initial] }
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Ok(extents) = self.extents(&io.inputs) else { return Vec::new() };
        let of_cells = io.inputs.len() > self.places()[1] + 1;
        let ways = recurrent::backward(&self.cell, &extents, of_cells, profile);
        ways.into_iter().map(|(variant, dispatch)| Candidate::single(variant, dispatch)).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        let units = io.inputs[self.places()[0]].shape.last() as u64;
        Cost { flops: io.outputs[0].shape.elements().times(2 * units), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Relative(ERROR); io.outputs.len()]
    }

    fn bounds(&self, _io: &Io, inputs: &[&Array], exact: &[Array], _step: &Step) -> Vec<Array> {
        bounds(inputs, exact)
    }
}
/// Returns a cell with the functions that Keras gives it.
pub(super) fn keras(kind: CellKind) -> Cell {
    let gate = if kind == CellKind::Simple { CellActivation::Linear } else { CellActivation::Sigmoid };
    Cell { kind, activation: CellActivation::Tanh, gate }
}
