//! Recurrent cells whose state is dropped in training: one timestep after another.

use crate::{
    graph::{Graph, OpError, Value},
    nn::Scope,
    ops::{Cell, CellActivation, CellKind, Part},
    tensor::Shape,
};

/// Each timestep is some operations of its own.
const MAX_STEPS: usize = 1 << 10;

/// Returns an error for more timesteps than are built one after another.
pub(super) fn few_steps(op: &str, steps: usize) -> Result<(), OpError> {
    match steps {
        0..=MAX_STEPS => Ok(()),
        _ => Err(OpError::new(op, format!("at most {MAX_STEPS} timesteps"), steps, "cut the sequences")),
    }
}

/// Returns factors of `shape` for each gate, which drop a share `rate` and keep the mean.
pub(super) fn kept(
    scope: &mut Scope,
    shape: &Shape,
    rate: f32,
    gates: usize,
    what: &str,
) -> Result<Vec<Value>, OpError> {
    let one = scope.graph.constant(1.0)?;
    let ones = scope.graph.expand(one, shape)?;
    (0..gates)
        .map(|gate| {
            let name = format!("{}/{what}/{gate}", scope.layer());
            scope.graph.dropout(ones, rate, &name)
        })
        .collect()
}

/// Returns part `index` of `n` equal ones of the last axis.
pub(super) fn part(g: &mut Graph, x: Value, index: usize, n: usize) -> Result<Value, OpError> {
    let shape = g.shape(x);
    let (axis, size) = (shape.rank() - 1, shape.last() / n);
    g.slice_axis(x, axis, Part::new(index * size, size))
}

/// Returns the function of a gate or a state.
fn applied(g: &mut Graph, function: CellActivation, x: Value) -> Result<Value, OpError> {
    match function.name() {
        None => Ok(x),
        Some(name) => g.unary(name, x),
    }
}

/// Returns what [`Recurrent`](crate::ops::Recurrent) does on its operands but the initial states, where a share of the
/// state's features is dropped before each product, the same at all timesteps.
pub(super) fn stepped(
    scope: &mut Scope,
    cell: Cell,
    operands: &[Value],
    initial: Option<Value>,
    rate: f32,
) -> Result<Vec<Value>, OpError> {
    let shape = scope.graph.shape(operands[0]).clone();
    let (gates, steps) = (cell.gates(), shape.dims()[1]);
    few_steps("recurrent_dropout", steps)?;
    let row = shape.with_row(&[shape.last() / gates]);
    let factors = kept(scope, &row, rate, gates, "recurrent")?;
    let g = &mut *scope.graph;
    let kernels = (0..gates).map(|k| part(g, operands[1], k, gates)).collect::<Result<Vec<_>, _>>()?;
    let biases =
        operands.get(2).map(|&bias| (0..gates).map(|k| part(g, bias, k, gates)).collect::<Result<Vec<_>, _>>());
    let biases = biases.transpose()?;
    let mut states = Vec::new();
    for state in 0..cell.states() {
        states.push(match initial {
            Some(all) => part(g, all, state, cell.states())?,
            None => {
                let zero = g.constant(0.0)?;
                g.expand(zero, &row)?
            }
        });
    }
    let mut all = vec![Vec::new(); states.len()];
    for step in 0..steps {
        let g = &mut *scope.graph;
        let x = g.slice_axis(operands[0], 1, Part::new(step, 1))?;
        let x = g.reshape(x, shape.with_row(&[shape.last()]))?;
        let xs = (0..gates).map(|k| part(g, x, k, gates)).collect::<Result<Vec<_>, _>>()?;
        let product = |g: &mut Graph, state: Value, k: usize| {
            let kept = g.mul(state, factors[k])?;
            let product = g.matmul(kept, kernels[k])?;
            biases.as_ref().map_or(Ok(product), |biases| g.add(product, biases[k]))
        };
        let sum = |g: &mut Graph, state: Value, k: usize| {
            let product = product(g, state, k)?;
            g.add(xs[k], product)
        };
        let h = states[0];
        states = match cell.kind {
            CellKind::Simple => {
                let sum = sum(g, h, 0)?;
                vec![applied(g, cell.activation, sum)?]
            }
            CellKind::Lstm => {
                let sums = [sum(g, h, 0)?, sum(g, h, 1)?, sum(g, h, 2)?, sum(g, h, 3)?];
                let gate = |scope: &mut Scope, x: Value| applied(scope.graph, cell.gate, x);
                let state = |scope: &mut Scope, x: Value| applied(scope.graph, cell.activation, x);
                long_short(scope, [&gate, &state], sums, states[1])?.to_vec()
            }
            CellKind::GruAfter | CellKind::GruBefore => {
                let (z, r) = (sum(g, h, 0)?, sum(g, h, 1)?);
                let (z, r) = (applied(g, cell.gate, z)?, applied(g, cell.gate, r)?);
                let inner = if cell.kind == CellKind::GruAfter {
                    let product = product(g, h, 2)?;
                    g.mul(r, product)?
                } else {
                    let reset = g.mul(r, h)?;
                    product(g, reset, 2)?
                };
                let new = g.add(xs[2], inner)?;
                let new = applied(g, cell.activation, new)?;
                let distance = g.sub(h, new)?;
                let moved = g.mul(z, distance)?;
                vec![g.add(new, moved)?]
            }
        };
        for (all, &state) in all.iter_mut().zip(&states) {
            all.push(scope.graph.reshape(state, shape.with_row(&[1, row.last()]))?);
        }
    }
    all.into_iter().map(|states| scope.graph.concat(&states, 1)).collect()
}

/// Returns the next states h and c of long short-term memory, from what its gates i, f, c, o are applied to.
pub(super) fn long_short(
    scope: &mut Scope,
    [gate, activation]: [&dyn Fn(&mut Scope, Value) -> Result<Value, OpError>; 2],
    [i, f, c, o]: [Value; 4],
    before: Value,
) -> Result<[Value; 2], OpError> {
    let [i, f, o] = [gate(scope, i)?, gate(scope, f)?, gate(scope, o)?];
    let new = activation(scope, c)?;
    let (kept, added) = (scope.graph.mul(f, before)?, scope.graph.mul(i, new)?);
    let c = scope.graph.add(kept, added)?;
    let shown = activation(scope, c)?;
    Ok([scope.graph.mul(o, shown)?, c])
}
