//! Recurrent layers.

use super::steps;
use crate::{
    graph::{OpError, Value},
    nn::onnx::{
        call::{Build, Call, Kind, Make, T},
        constant::FLOAT,
    },
    ops::{Cell, CellActivation, CellKind, Part, Recurrent},
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[("GRU", recurrent), ("LSTM", recurrent), ("RNN", recurrent)];

/// What a node's attributes say.
struct Options {
    units: usize,
    gates: usize,
    directions: usize,
    backwards: bool,
    batch_first: bool,
    /// GRU: whether the reset gate acts after the product.
    after: bool,
}

fn options(c: &Call) -> Result<Options, OpError> {
    let node = c.node;
    let gates = match node.op {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    let direction = node.text("direction", "forward");
    if !["forward", "reverse", "bidirectional"].contains(&direction.as_str()) {
        return Err(c.wrong("forward, reverse or bidirectional", direction, "export the model again"));
    }
    let units = node.int("hidden_size", 0);
    if !(1..1 << 16).contains(&units) {
        return Err(c.wrong("hidden_size from 1 up", units, "export the model again"));
    }
    Ok(Options {
        units: units as usize,
        gates,
        directions: if direction == "bidirectional" { 2 } else { 1 },
        backwards: direction == "reverse",
        batch_first: node.int("layout", 0) == 1,
        after: node.op == "GRU" && node.int("linear_before_reset", 0) == 1,
    })
}

/// Returns the cell of a direction.
fn cell(c: &Call, o: &Options, direction: usize) -> Result<Cell, OpError> {
    let count = if c.node.op == "LSTM" { 3 } else { o.gates.min(2) };
    let given = c.node.texts("activations");
    let own: Vec<String> = given.get(direction * count..(direction + 1) * count).map_or(Vec::new(), <[String]>::to_vec);
    let function = |i: usize, default: CellActivation| match own.get(i).map(String::as_str) {
        None => Ok(default),
        Some("Tanh") => Ok(CellActivation::Tanh),
        Some("Sigmoid") => Ok(CellActivation::Sigmoid),
        Some("Relu") => Ok(CellActivation::Relu),
        Some("Affine") if !c.node.has("activation_alpha") => Ok(CellActivation::Linear),
        Some(other) => Err(c.wrong("Tanh, Sigmoid or Relu", other, "export the model with those")),
    };
    let (kind, gate, activation) = match c.node.op {
        "LSTM" => {
            let (inner, outer) = (function(1, CellActivation::Tanh)?, function(2, CellActivation::Tanh)?);
            if inner != outer {
                return Err(c.wrong("one function for candidate and state", format!("{own:?}"), "use Tanh for both"));
            }
            (CellKind::Lstm, function(0, CellActivation::Sigmoid)?, inner)
        }
        "GRU" => {
            let kind = if o.after { CellKind::GruAfter } else { CellKind::GruBefore };
            (kind, function(0, CellActivation::Sigmoid)?, function(1, CellActivation::Tanh)?)
        }
        _ => (CellKind::Simple, CellActivation::Sigmoid, function(0, CellActivation::Tanh)?),
    };
    Ok(Cell { kind, activation, gate })
}

/// The order of Hubel's gates in ONNX's: an LSTM's are i, o, f, c there.
fn gate_order(op: &str) -> &'static [usize] {
    match op {
        "LSTM" => &[0, 2, 3, 1],
        "GRU" => &[0, 1, 2],
        _ => &[0],
    }
}

/// Returns a direction's matrix (width, gates · units) of an operand (directions, gates · units, width).
fn weights(c: &mut Call, i: usize, name: &str, direction: usize, o: &Options) -> Result<Value, OpError> {
    let dims = c.dims(i)?;
    let rows = o.gates * o.units;
    let &[directions, r, width] = &dims[..] else {
        return Err(c.wrong("weights of three axes", format!("{dims:?}"), ""));
    };
    if directions != o.directions || r != rows {
        let wanted = format!("weights ({}, {rows}, width)", o.directions);
        return Err(c.wrong(wanted, format!("{dims:?}"), "export the model again"));
    }
    let order = gate_order(c.node.op);
    let name = if o.directions == 2 { format!("{name}_{direction}") } else { name.to_owned() };
    match c.constant(i).cloned() {
        Some(constant) => {
            let (units, gates) = (o.units, o.gates);
            let elements = || {
                let all = constant.floats()?;
                let own = &all[direction * rows * width..(direction + 1) * rows * width];
                let from = |at: usize| {
                    let (column, row) = (at / rows, at % rows);
                    own[(order[row / units % gates] * units + row % units) * width + column]
                };
                Ok((0..rows * width).map(from).collect())
            };
            c.place.weight(&name, &[width, rows], Kind::Trainable, &Make::Elements(&elements))
        }
        None => {
            let t = c.natural(i)?;
            let g = c.g();
            let own = g.slice_axis(t.value, 0, Part::new(direction, 1))?;
            let own = g.reshape(own, Shape::fixed([rows, width]))?;
            let part = |g: &mut crate::graph::Graph, k: usize| g.slice_axis(own, 0, Part::new(k * o.units, o.units));
            let parts = order.iter().map(|&k| part(g, k)).collect::<Result<Vec<_>, _>>()?;
            let joined = if parts.len() == 1 { parts[0] } else { g.concat(&parts, 0)? };
            g.transpose(joined, &[1, 0])
        }
    }
}

/// Returns a direction's biases: what is added to the projected input, and what a GRU adds to the state's product.
fn biases(c: &mut Call, direction: usize, o: &Options) -> Result<[Option<Value>; 2], OpError> {
    if !c.has(3) {
        return Ok([None, None]);
    }
    let rows = o.gates * o.units;
    if c.dims(3)? != [o.directions, 2 * rows] {
        let got = format!("{:?}", c.dims(3)?);
        return Err(c.wrong(format!("biases ({}, {})", o.directions, 2 * rows), got, "export the model again"));
    }
    let order = gate_order(c.node.op);
    let suffix = if o.directions == 2 { format!("_{direction}") } else { String::new() };
    let (units, after) = (o.units, o.after);
    if let Some(constant) = c.constant(3).cloned() {
        let own = || Ok::<_, OpError>(constant.floats()?[direction * 2 * rows..(direction + 1) * 2 * rows].to_vec());
        let at = |i: usize| order[i / units] * units + i % units;
        let sum = || {
            let own = own()?;
            let both = |i: usize| if after { own[at(i)] } else { own[at(i)] + own[rows + at(i)] };
            Ok((0..rows).map(both).collect())
        };
        let bias = c.place.weight(&format!("bias{suffix}"), &[rows], Kind::Trainable, &Make::Elements(&sum))?;
        let second = || {
            let own = own()?;
            Ok((0..rows).map(|i| own[rows + at(i)]).collect())
        };
        let recurrent = match after {
            true => {
                let name = format!("recurrent_bias{suffix}");
                Some(c.place.weight(&name, &[rows], Kind::Trainable, &Make::Elements(&second))?)
            }
            false => None,
        };
        return Ok([Some(bias), recurrent]);
    }
    let t = c.natural(3)?;
    let g = c.g();
    let own = g.slice_axis(t.value, 0, Part::new(direction, 1))?;
    let own = g.reshape(own, Shape::fixed([2 * rows]))?;
    let mut halves = Vec::new();
    for half in 0..2 {
        let part =
            |g: &mut crate::graph::Graph, k: usize| g.slice_axis(own, 0, Part::new(half * rows + k * units, units));
        let parts = order.iter().map(|&k| part(g, k)).collect::<Result<Vec<_>, _>>()?;
        halves.push(if parts.len() == 1 { parts[0] } else { g.concat(&parts, 0)? });
    }
    match after {
        true => Ok([Some(halves[0]), Some(halves[1])]),
        false => Ok([Some(g.add(halves[0], halves[1])?), None]),
    }
}

/// Returns a direction's first state (N, units), or none where it is zeros.
fn initial(c: &mut Call, i: usize, direction: usize, o: &Options, x: Value) -> Result<Option<Value>, OpError> {
    if !c.has(i) {
        return Ok(None);
    }
    if let Some(constant) = c.constant(i)
        && constant.values()?.iter().all(|&v| v == 0.0)
    {
        return Ok(None);
    }
    let t = c.t(i)?;
    let t = c.arranged(t, if o.batch_first { &[0, 1, 2] } else { &[1, 0, 2] })?;
    let g = c.g();
    let own = if o.directions == 2 { g.slice_axis(t.value, 1, Part::new(direction, 1))? } else { t.value };
    let own_shape = g.shape(own).clone();
    let flat = match own_shape.is_batched() {
        true => own_shape.with_row(&[o.units]),
        false => Shape::fixed([own_shape.dims()[0], o.units]),
    };
    let own = g.reshape(own, flat)?;
    let whole = g.shape(x).with_row(&[o.units]);
    Ok(Some(g.expand(own, &whole)?))
}

/// Returns operands with the first states of all directions.
fn run(c: &mut Call, x: Value, direction: usize, o: &Options) -> Result<Vec<Value>, OpError> {
    let cell = cell(c, o, direction)?;
    let kernel = weights(c, 1, "kernel", direction, o)?;
    let recurrent = weights(c, 2, "recurrent_kernel", direction, o)?;
    let [bias, second] = biases(c, direction, o)?;
    let (first, memory) = (initial(c, 5, direction, o, x)?, initial(c, 6, direction, o, x)?);
    let states = cell.states();
    let g = c.g();
    let projected = g.project(x, kernel, bias)?;
    let mut operands = vec![projected, recurrent];
    if o.after {
        operands.push(match second {
            Some(second) => second,
            None => {
                let zero = g.constant(0.0)?;
                g.expand(zero, &Shape::fixed([o.gates * o.units]))?
            }
        });
    }
    if first.is_some() || memory.is_some() {
        let shape = g.shape(x).with_row(&[o.units]);
        let mut all = Vec::new();
        for state in [first, memory].into_iter().take(states) {
            all.push(match state {
                Some(state) => state,
                None => {
                    let zero = g.constant(0.0)?;
                    g.expand(zero, &shape)?
                }
            });
        }
        operands.push(if all.len() == 1 { all[0] } else { g.concat(&all, 1)? });
    }
    g.apply(Recurrent { cell }, &operands)
}

/// Returns the steps of each sample (N, 1), if they are not all.
fn lengths(c: &mut Call, x: Value) -> Result<Option<Value>, OpError> {
    let shape = c.g().shape(x).clone();
    let steps = shape.dims()[1];
    if c.constant(4).is_none() {
        return match c.has(4) {
            true => {
                let t = c.natural(4)?;
                Ok(Some(c.g().reshape(t.value, shape.with_row(&[1]))?))
            }
            false => Ok(None),
        };
    }
    let all: Vec<f32> = c.ints(4, "lengths")?.iter().map(|&n| n as f32).collect();
    match all.iter().all(|&n| n == steps as f32) {
        true => Ok(None),
        false if shape.is_batched() => Err(c.batch("a length of its own for each sample")),
        false => Ok(Some(c.g().literal([all.len(), 1], all)?)),
    }
}

/// Returns the names of a direction's functions: gates, candidate, an LSTM's state.
fn functions(c: &Call, direction: usize) -> Result<[&'static str; 3], OpError> {
    let count = match c.node.op {
        "LSTM" => 3,
        "GRU" => 2,
        _ => 1,
    };
    let given = c.node.texts("activations");
    let mut names = ["sigmoid", "tanh", "tanh"];
    for i in 0..count {
        let at = if count == 1 { 1 } else { i };
        names[at] = match given.get(direction * count + i).map(String::as_str) {
            None => names[at],
            Some("Tanh") => "tanh",
            Some("Sigmoid") => "sigmoid",
            Some("Relu") => "relu",
            Some("Softplus") => "softplus",
            Some("Softsign") => "softsign",
            Some(other) => {
                let wanted = "Tanh, Sigmoid, Relu, Softplus or Softsign";
                return Err(c.wrong(wanted, other, "export the model with those"));
            }
        };
    }
    Ok(names)
}

/// Returns a direction's states (N, steps, 1, units), and the last ones, built step by step.
fn run_steps(
    c: &mut Call,
    x: Value,
    direction: usize,
    o: &Options,
    lengths: Option<Value>,
) -> Result<(Value, Vec<Value>), OpError> {
    let shape = c.g().shape(x).clone();
    if shape.dims()[1] > steps::MAX_STEPS {
        let wanted = format!("at most {} steps for a cell with clip, peepholes or lengths", steps::MAX_STEPS);
        return Err(c.wrong(wanted, shape.dims()[1], "export the model without them"));
    }
    let kernel = weights(c, 1, "kernel", direction, o)?;
    let recurrent = weights(c, 2, "recurrent_kernel", direction, o)?;
    let [bias, second] = biases(c, direction, o)?;
    let mut peepholes = None;
    if c.node.op == "LSTM" && c.has(7) {
        let whole = c.vector(7, "peepholes", Kind::Trainable)?;
        let g = c.g();
        let mut parts = [whole; 3];
        for (gate, part) in parts.iter_mut().enumerate() {
            let own = g.slice_axis(whole, 0, Part::new((3 * direction + gate) * o.units, o.units))?;
            *part = g.reshape(own, Shape::fixed([1, o.units]))?;
        }
        peepholes = Some(parts);
    }
    let mut states = Vec::new();
    for i in 0..if c.node.op == "LSTM" { 2 } else { 1 } {
        let given = initial(c, 5 + i, direction, o, x)?;
        let g = c.g();
        let zero = g.constant(0.0)?;
        states.push(given.map_or_else(|| g.expand(zero, &shape.with_row(&[o.units])), Ok)?);
    }
    let clip = c.node.has("clip").then(|| c.node.float("clip", 0.0));
    let options = steps::Options {
        units: o.units,
        gates: o.gates,
        backwards: o.backwards || direction == 1,
        after: o.after,
        coupled: c.node.int("input_forget", 0) == 1,
        clip,
        functions: functions(c, direction)?,
        lengths,
    };
    let projected = c.g().project(x, kernel, bias)?;
    options.run(c.g(), &steps::Weights { projected, recurrent, second, peepholes }, states)
}

fn recurrent(c: &mut Call) -> Result<Vec<T>, OpError> {
    let o = options(c)?;
    let x = c.t(0)?;
    if x.rank() != 3 {
        return Err(c.wrong("sequences of three axes", format!("{} axes", x.rank()), "reshape them"));
    }
    let x = c.arranged(x, if o.batch_first { &[0, 1, 2] } else { &[1, 0, 2] })?;
    let steps = c.g().shape(x.value).dims()[1];
    let lengths = lengths(c, x.value)?;
    let own = (0..o.directions).all(|direction| cell(c, &o, direction).is_ok());
    let by_steps = !own || lengths.is_some() || c.has(7) || c.node.has("clip") || c.node.int("input_forget", 0) == 1;
    let flip = Part { start: steps - 1, size: steps, step: -1 };
    let states = if c.node.op == "LSTM" { 2 } else { 1 };
    let (mut sequences, mut lasts) = (Vec::new(), vec![Vec::new(); states]);
    for direction in 0..o.directions {
        let backwards = o.backwards || direction == 1;
        if by_steps {
            let (states, ends) = run_steps(c, x.value, direction, &o, lengths)?;
            sequences.push(states);
            for (last, end) in lasts.iter_mut().zip(ends) {
                let row = c.g().shape(end).with_row(&[1, o.units]);
                last.push(c.g().reshape(end, row)?);
            }
            continue;
        }
        let turned = if backwards { c.g().slice_axis(x.value, 1, flip)? } else { x.value };
        let results = run(c, turned, direction, &o)?;
        let g = c.g();
        let row = g.shape(results[0]).with_row(&[steps, 1, o.units]);
        let own = if backwards { g.slice_axis(results[0], 1, flip)? } else { results[0] };
        sequences.push(g.reshape(own, row)?);
        for (last, &result) in lasts.iter_mut().zip(&results) {
            last.push(g.slice_axis(result, 1, Part::new(steps - 1, 1))?);
        }
    }
    let g = c.g();
    let join = |g: &mut crate::graph::Graph, parts: &[Value], axis: usize| match parts {
        [one] => Ok(*one),
        _ => g.concat(parts, axis),
    };
    let whole = join(g, &sequences, 2)?;
    let axes = if o.batch_first { vec![0, 1, 2, 3] } else { vec![2, 0, 1, 3] };
    let mut results = vec![T { value: whole, axes, elem: FLOAT, flat: None }];
    for last in &lasts {
        let value = join(g, last, 1)?;
        let axes = if o.batch_first { vec![0, 1, 2] } else { vec![1, 0, 2] };
        results.push(T { value, axes, elem: FLOAT, flat: None });
    }
    results.truncate(c.node.outputs.len());
    Ok(results)
}
