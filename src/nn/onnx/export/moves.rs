//! Operations that move elements, and those that choose some.

use super::writer::{Attr, Writer, natural, place};
use crate::{
    graph::{Node, Op, OpError, Value},
    ops::{Argmax, Concat, Dropout, Gather, Literal, Pad2d, PadMode, Reshape, Slice, TopK, Transpose},
};

pub fn write(w: &mut Writer, node: &Node, value: Value) -> Option<Result<(), OpError>> {
    let op: &dyn Op = node.op()?.as_ref();
    let x = node.inputs.first().copied();
    if let Some(op) = op.downcast::<Literal>() {
        let name = w.floats(&op.shape, op.values.clone());
        w.set(value, name, natural(op.shape.len()));
        return Some(Ok(()));
    }
    let x = x?;
    Some(if op.downcast::<Reshape>().is_some() {
        reshape(w, x, value)
    } else if let Some(op) = op.downcast::<Transpose>() {
        transpose(w, x, value, &op.permutation)
    } else if let Some(op) = op.downcast::<Concat>() {
        concat(w, &node.inputs, value, op.axis)
    } else if let Some(op) = op.downcast::<Slice>() {
        slice(w, x, value, op)
    } else if let Some(op) = op.downcast::<Pad2d>() {
        pad(w, x, value, op)
    } else if op.downcast::<Dropout>().is_some() {
        same(w, x, value)
    } else if op.downcast::<Gather>().is_some() {
        gather(w, &node.inputs, value)
    } else if let Some(op) = op.downcast::<Argmax>() {
        argmax(w, x, value, op.axis)
    } else if let Some(op) = op.downcast::<TopK>() {
        top(w, x, value, op.k)
    } else {
        return None;
    })
}

fn same(w: &mut Writer, x: Value, value: Value) -> Result<(), OpError> {
    let order = w.order(x);
    let name = w.get(x, &order)?;
    w.set(value, name, order);
    Ok(())
}

fn reshape(w: &mut Writer, x: Value, value: Value) -> Result<(), OpError> {
    let shape = w.shape(value).clone();
    if w.shape(x) == &shape {
        return same(w, x, value);
    }
    if w.reshaped_weight(x, value) {
        return Ok(());
    }
    let name = w.plain(x)?;
    let y = w.reshaped(&name, shape.dims(), shape.is_batched());
    w.set(value, y, natural(shape.rank()));
    Ok(())
}

/// Renames the axes of what is written.
fn transpose(w: &mut Writer, x: Value, value: Value, permutation: &[usize]) -> Result<(), OpError> {
    let order = w.order(x);
    let name = w.get(x, &order)?;
    let new = order.iter().map(|axis| permutation.iter().position(|p| p == axis).unwrap_or(*axis)).collect();
    w.set(value, name, new);
    Ok(())
}

fn concat(w: &mut Writer, inputs: &[Value], value: Value, axis: usize) -> Result<(), OpError> {
    let order = w.order(inputs[0]);
    let mut names = Vec::new();
    for &v in inputs {
        names.push(w.get(v, &order)?);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let y = w.node_of(value, "Concat", &names, &[("axis", Attr::Int(place(&order, axis) as i64))]);
    w.set(value, y, order);
    Ok(())
}

fn slice(w: &mut Writer, x: Value, value: Value, op: &Slice) -> Result<(), OpError> {
    if w.lasts.contains(&x) {
        let (steps, last) = (w.shape(x).dims()[1], w.shape(value).dims()[1] == 1);
        let ends = op.parts.iter().rev().nth(1).is_some_and(|part| part.start + 1 == steps);
        return match last && ends && w.shape(value).last() == w.shape(x).last() {
            true => same(w, x, value),
            false => Err(OpError::new("LSTM", "the last memory", "that of other steps", "return the last state alone")),
        };
    }
    let order = w.order(x);
    let name = w.get(x, &order)?;
    let skip = w.rank(x) - op.parts.len();
    let dims = w.shape(x).dims().to_vec();
    let [mut starts, mut ends, mut axes, mut steps] = [const { Vec::new() }; 4];
    for (i, part) in op.parts.iter().enumerate() {
        if *part == crate::ops::Part::all(dims[skip + i]) {
            continue;
        }
        let end = part.start as i64 + part.size as i64 * part.step as i64;
        starts.push(part.start as i64);
        // Before the first element is none from the end.
        ends.push(if end < 0 { i64::MIN + 1 } else { end });
        axes.push(place(&order, skip + i) as i64);
        steps.push(part.step as i64);
    }
    let lists = [&starts, &ends, &axes, &steps].map(|list| w.whole(list));
    let y = w.node_of(value, "Slice", &[&name, &lists[0], &lists[1], &lists[2], &lists[3]], &[]);
    w.set(value, y, order);
    Ok(())
}

fn pad(w: &mut Writer, x: Value, value: Value, op: &Pad2d) -> Result<(), OpError> {
    let order = w.order(x);
    let name = w.get(x, &order)?;
    let rank = order.len();
    let mut pads = vec![0i64; 2 * rank];
    for (axis, [before, after]) in op.pads.into_iter().enumerate() {
        let at = place(&order, axis + 1);
        (pads[at], pads[at + rank]) = (before as i64, after as i64);
    }
    let pads = w.whole(&pads);
    let (mode, number) = match op.mode {
        PadMode::Constant(number) => ("constant", number),
        PadMode::Reflect => ("reflect", 0.0),
        PadMode::Replicate => ("edge", 0.0),
    };
    let number = w.floats(&[], vec![number]);
    let y = w.node_of(value, "Pad", &[&name, &pads, &number], &[("mode", Attr::Text(mode))]);
    w.set(value, y, order);
    Ok(())
}

fn gather(w: &mut Writer, inputs: &[Value], value: Value) -> Result<(), OpError> {
    let (table, indices) = (w.plain(inputs[0])?, w.plain(inputs[1])?);
    let whole = w.node("Cast", &[&indices], &[("to", Attr::Int(7))]);
    let y = w.node_of(value, "Gather", &[&table, &whole], &[("axis", Attr::Int(0))]);
    w.set(value, y, natural(w.rank(value)));
    Ok(())
}

fn argmax(w: &mut Writer, x: Value, value: Value, axis: usize) -> Result<(), OpError> {
    let name = w.plain(x)?;
    let attributes = [("axis", Attr::Int(axis as i64)), ("keepdims", Attr::Int(0))];
    let y = w.node("ArgMax", &[&name], &attributes);
    let y = w.node_of(value, "Cast", &[&y], &[("to", Attr::Int(1))]);
    w.set(value, y, natural(w.rank(value)));
    Ok(())
}

fn top(w: &mut Writer, x: Value, value: Value, k: usize) -> Result<(), OpError> {
    let name = w.plain(x)?;
    let count = w.whole(&[k as i64]);
    let places = Value { output: 1, ..value };
    let outputs = [w.result_name(value), w.result_name(places)];
    w.nodes("TopK", &[&name, &count], &outputs, &[("axis", Attr::Int(-1))]);
    let [values, numbers] = outputs;
    let numbers = w.node("Cast", &[&numbers], &[("to", Attr::Int(1))]);
    w.set(value, values, natural(w.rank(value)));
    w.set(places, numbers, natural(w.rank(places)));
    Ok(())
}
