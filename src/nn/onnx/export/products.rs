//! Products, reductions, softmax, normalisations of rows and recurrent cells.

use super::writer::{Attr, Writer, natural, place};
use crate::{
    graph::{Node, Op, OpError, Value},
    ops::{CellActivation, CellKind, GroupNorm, Matmul, Recurrent, Reduce, ReduceKind, Softmax},
};

pub fn write(w: &mut Writer, node: &Node, value: Value) -> Option<Result<(), OpError>> {
    let op: &dyn Op = node.op()?.as_ref();
    let x = node.inputs.first().copied()?;
    Some(if let Some(op) = op.downcast::<Matmul>() {
        matmul(w, &node.inputs, value, op)
    } else if let Some(op) = op.downcast::<Reduce>() {
        reduce(w, x, value, op)
    } else if let Some(op) = op.downcast::<Softmax>() {
        softmax(w, x, value, op.log)
    } else if let Some(op) = op.downcast::<GroupNorm>() {
        group_norm(w, &node.inputs, value, op)
    } else if let Some(op) = op.downcast::<Recurrent>() {
        recurrent(w, &node.inputs, value, op)
    } else {
        return None;
    })
}

fn matmul(w: &mut Writer, inputs: &[Value], value: Value, op: &Matmul) -> Result<(), OpError> {
    let mut names = Vec::new();
    for (&v, turned) in inputs.iter().zip([op.options.transpose_a, op.options.transpose_b]) {
        let rank = w.rank(v);
        let mut order = natural(rank);
        if turned {
            order.swap(rank - 2, rank - 1);
        }
        names.push(w.get(v, &order)?);
    }
    let y = w.node_of(value, "MatMul", &[&names[0], &names[1]], &[]);
    w.set(value, y, natural(w.rank(value)));
    Ok(())
}

fn reduce(w: &mut Writer, x: Value, value: Value, op: &Reduce) -> Result<(), OpError> {
    let order = if op.keep_dims { w.order(x) } else { natural(w.rank(x)) };
    // What is summed may stand in any order, so long as the rest keeps its own.
    let own = w.order(x);
    let kept: Vec<usize> = own.iter().copied().filter(|a| !op.axes.contains(a)).collect();
    let order = if kept.is_sorted() { own } else { order };
    let name = w.get(x, &order)?;
    let axes: Vec<i64> = op.axes.iter().map(|&axis| place(&order, axis) as i64).collect();
    let keep = ("keepdims", Attr::Int(i64::from(op.keep_dims)));
    let kind = match op.kind {
        ReduceKind::Sum => "ReduceSum",
        ReduceKind::Mean => "ReduceMean",
        ReduceKind::Max => "ReduceMax",
        ReduceKind::SumSquares => "ReduceSumSquare",
        ReduceKind::Product => "ReduceProd",
    };
    let y = match kind == "ReduceSum" || w.opset >= 18 {
        true => {
            let axes = w.whole(&axes);
            w.node_of(value, kind, &[&name, &axes], &[keep])
        }
        false => w.node_of(value, kind, &[&name], &[("axes", Attr::Ints(axes)), keep]),
    };
    let order = if op.keep_dims { order } else { natural(w.rank(value)) };
    w.set(value, y, order);
    Ok(())
}

fn softmax(w: &mut Writer, x: Value, value: Value, log: bool) -> Result<(), OpError> {
    let order = w.order(x);
    let name = w.get(x, &order)?;
    let axis = place(&order, order.len() - 1) as i64;
    let op = if log { "LogSoftmax" } else { "Softmax" };
    let y = w.node_of(value, op, &[&name], &[("axis", Attr::Int(axis))]);
    w.set(value, y, order);
    Ok(())
}

/// Writes a normalisation of groups of channels: of one group of rows as LayerNormalization, else as InstanceNormalization of the
/// groups, and gamma and beta behind it.
fn group_norm(w: &mut Writer, inputs: &[Value], value: Value, op: &GroupNorm) -> Result<(), OpError> {
    let (x, rank) = (inputs[0], w.rank(inputs[0]));
    let epsilon = ("epsilon", Attr::Float(op.epsilon));
    let (gamma, beta) = (w.plain(inputs[1])?, w.plain(inputs[2])?);
    if op.groups == 1 && rank == 2 {
        let name = w.plain(x)?;
        let y = w.node_of(value, "LayerNormalization", &[&name, &gamma, &beta], &[("axis", Attr::Int(-1)), epsilon]);
        w.set(value, y, natural(2));
        return Ok(());
    }
    let shape = w.shape(x).clone();
    let channels = shape.last();
    let order: Vec<usize> = if rank < 3 { natural(rank) } else { super::writer::channels_first(rank) };
    let name = w.get(x, &order)?;
    let whole: Vec<usize> = order.iter().map(|&a| shape.dims()[a]).collect();
    let inner: usize = shape.dims().iter().skip(1).product::<usize>() / op.groups.max(1);
    let rows = w.reshaped(&name, &[shape.dims()[0], op.groups, inner], shape.is_batched());
    let (ones, zeros) = (w.floats(&[op.groups], vec![1.0; op.groups]), w.floats(&[op.groups], vec![0.0; op.groups]));
    let normal = w.node("InstanceNormalization", &[&rows, &ones, &zeros], &[epsilon]);
    let back = w.reshaped(&normal, &whole, shape.is_batched());
    let mut column = vec![channels];
    column.extend(vec![1; rank.saturating_sub(2)]);
    let (gamma, beta) = (w.reshaped(&gamma, &column, false), w.reshaped(&beta, &column, false));
    let scaled = w.node("Mul", &[&back, &gamma], &[]);
    let y = w.node_of(value, "Add", &[&scaled, &beta], &[]);
    w.set(value, y, order);
    Ok(())
}

/// Writes a cell over a projected input: ONNX's operator with a unit matrix for the projection.
/// Returns ONNX's name of a cell's function.
fn function(of: CellActivation) -> Result<&'static str, OpError> {
    match of {
        CellActivation::Tanh => Ok("Tanh"),
        CellActivation::Sigmoid => Ok("Sigmoid"),
        CellActivation::Relu => Ok("Relu"),
        _ => Err(OpError::new("RNN", "tanh, sigmoid or relu in a cell", format!("{of:?}"), "use those")),
    }
}

fn recurrent(w: &mut Writer, inputs: &[Value], value: Value, op: &Recurrent) -> Result<(), OpError> {
    let (x, kernel) = (inputs[0], inputs[1]);
    let units = w.shape(kernel).dims()[0];
    let gates = op.cell.gates();
    let (name, order): (&str, &[usize]) = match op.cell.kind {
        CellKind::Simple => ("RNN", &[0]),
        CellKind::Lstm => ("LSTM", &[0, 3, 1, 2]),
        CellKind::GruBefore | CellKind::GruAfter => ("GRU", &[0, 1, 2]),
    };
    // Sequences are (steps, batch, width).
    let sequence = w.get(x, &[1, 0, 2])?;
    let rows = gates * units;
    let mut unit = vec![0.0; rows * rows];
    for (k, &gate) in order.iter().enumerate() {
        for i in 0..units {
            unit[(k * units + i) * rows + gate * units + i] = 1.0;
        }
    }
    let projection = w.floats(&[1, rows, rows], unit.clone());
    // Rows of the transposed kernel in ONNX's order of gates.
    let turned = w.get(kernel, &[1, 0])?;
    let choice = w.floats(&[rows, rows], unit);
    let arranged = w.node("MatMul", &[&choice, &turned], &[]);
    let recurrence = w.reshaped(&arranged, &[1, rows, units], false);
    let after = op.cell.kind == CellKind::GruAfter;
    let mut operands = vec![sequence, projection, recurrence, String::new(), String::new()];
    if after {
        let bias = w.plain(inputs[2])?;
        let zeros = w.floats(&[rows], vec![0.0; rows]);
        let both = w.node("Concat", &[&zeros, &bias], &[("axis", Attr::Int(0))]);
        operands[3] = w.reshaped(&both, &[1, 2 * rows], false);
    }
    let states = op.cell.states();
    if let Some(&initial) = inputs.get(2 + usize::from(after)) {
        let plain = w.plain(initial)?;
        for k in 0..states {
            let lists = [[(k * units) as i64], [((k + 1) * units) as i64], [1]].map(|l| w.whole(&l));
            let own = w.node("Slice", &[&plain, &lists[0], &lists[1], &lists[2]], &[]);
            let axes = w.whole(&[0]);
            operands.push(w.node("Unsqueeze", &[&own, &axes], &[]));
        }
    }
    let mut attributes = vec![("hidden_size", Attr::Int(units as i64))];
    let (gate, inner) = (|| function(op.cell.gate), function(op.cell.activation)?);
    attributes.push((
        "activations",
        Attr::Texts(match op.cell.kind {
            CellKind::Simple => vec![inner],
            CellKind::Lstm => vec![gate()?, inner, inner],
            _ => vec![gate()?, inner],
        }),
    ));
    if after {
        attributes.push(("linear_before_reset", Attr::Int(1)));
    }
    let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
    let count = operands.iter().rposition(|o| !o.is_empty()).map_or(0, |last| last + 1);
    let whole = w.result_name(value);
    let mut outputs = vec![whole.clone()];
    let memory = Value { output: 1, ..value };
    if w.graph.nodes().iter().any(|n| n.inputs.contains(&memory)) {
        let name = format!("{whole}.memory");
        outputs.extend([String::new(), name.clone()]);
        // (1, batch, units): the last step alone.
        w.set(memory, name, vec![1, 0, 2]);
        w.lasts.insert(memory);
    }
    w.nodes(name, &operands[..count], &outputs, &attributes);
    let axes = w.whole(&[1]);
    let y = w.node("Squeeze", &[&whole, &axes], &[]);
    w.set(value, y, vec![1, 0, 2]);
    Ok(())
}
