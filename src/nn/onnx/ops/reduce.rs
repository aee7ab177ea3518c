//! Reductions along axes, places of extremes, running sums.

use super::pool::{magnitude, root};
use crate::{
    graph::{Graph, OpError, Value},
    nn::onnx::{
        call::{Arrangement, Build, Call, Kind, MAX_LITERAL, Make, T},
        constant::INT64,
    },
    ops::Part,
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("ArgMax", place),
    ("ArgMin", place),
    ("CumSum", running_sum),
    ("ReduceL1", reduce),
    ("ReduceL2", reduce),
    ("ReduceLogSum", reduce),
    ("ReduceLogSumExp", reduce),
    ("ReduceMax", reduce),
    ("ReduceMean", reduce),
    ("ReduceMin", reduce),
    ("ReduceProd", reduce),
    ("ReduceSum", reduce),
    ("ReduceSumSquare", reduce),
    ("TopK", top),
];

fn reduce(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (op, keep) = (c.node.op, c.node.int("keepdims", 1) == 1);
    let listed = match c.has(1) {
        true => Some(c.ints(1, "axes")?),
        false => c.node.ints("axes").map(<[i64]>::to_vec),
    };
    let mut t = c.t(0)?;
    if t.flat.is_some() {
        t = c.natural_of(t)?;
    }
    let rank = t.rank();
    let mut axes = match listed {
        Some(axes) if !axes.is_empty() => c.axes(&axes, rank)?,
        _ if c.node.int("noop_with_empty_axes", 0) == 1 => Vec::new(),
        _ => (0..rank).collect(),
    };
    axes.sort_unstable();
    axes.dedup();
    let mut places: Vec<usize> = axes.iter().map(|&axis| t.place(axis)).collect();
    places.sort_unstable();
    if places.first() == Some(&0) && c.g().shape(t.value).is_batched() {
        return Err(c.batch("a reduction over the batch"));
    }
    let value = reduced(c.g(), t.value, op, &places)?;
    let y = t.with(value);
    if keep {
        return Ok(vec![y]);
    }
    Ok(vec![without(c, y, &axes)?])
}

/// Returns a tensor without axes of extent 1.
pub fn without(c: &mut Call, t: T, gone: &[usize]) -> Result<T, OpError> {
    let shape = c.g().shape(t.value).clone();
    let kept: Vec<usize> = (0..t.rank()).filter(|p| !gone.contains(&t.axes[*p])).collect();
    let dims: Vec<usize> = kept.iter().map(|&p| shape.dims()[p]).collect();
    if shape.is_batched() && kept.first() != Some(&0) {
        return Err(c.batch("the batch's axis taken away"));
    }
    let new = if shape.is_batched() { shape.with_row(&dims[1..]) } else { Shape::fixed(dims) };
    let value = c.g().reshape(t.value, new)?;
    let lower = |axis: usize| axis - gone.iter().filter(|&&g| g < axis).count();
    Ok(T { value, axes: kept.iter().map(|&p| lower(t.axes[p])).collect(), elem: t.elem, flat: None })
}

fn reduced(g: &mut Graph, x: Value, op: &str, axes: &[usize]) -> Result<Value, OpError> {
    if axes.is_empty() && matches!(op, "ReduceMax" | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum") {
        return Ok(x);
    }
    Ok(match op {
        "ReduceMax" => g.max_axes(x, axes, true)?,
        "ReduceMean" => g.mean_axes(x, axes, true)?,
        "ReduceMin" => g.min_axes(x, axes, true)?,
        "ReduceProd" => g.prod(x, axes, true)?,
        "ReduceSum" => g.sum(x, axes, true)?,
        "ReduceSumSquare" => g.sum_squares(x, axes, true)?,
        "ReduceL1" | "ReduceL2" => {
            let p = if op == "ReduceL1" { 1 } else { 2 };
            let powers = magnitude(g, x, p)?;
            let sum = if axes.is_empty() { powers } else { g.sum(powers, axes, true)? };
            root(g, sum, p)?
        }
        "ReduceLogSum" => {
            let sum = if axes.is_empty() { x } else { g.sum(x, axes, true)? };
            g.log(sum)?
        }
        _ => {
            let top = if axes.is_empty() { x } else { g.max_axes(x, axes, true)? };
            let below = g.sub(x, top)?;
            let powers = g.exp(below)?;
            let sum = if axes.is_empty() { powers } else { g.sum(powers, axes, true)? };
            let log = g.log(sum)?;
            g.add(log, top)?
        }
    })
}

fn place(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (node, keep) = (c.node, c.node.int("keepdims", 1) == 1);
    let last = node.int("select_last_index", 0) == 1;
    let mut t = c.t(0)?;
    if t.flat.is_some() {
        t = c.natural_of(t)?;
    }
    let axis = c.axis(node.int("axis", 0), t.rank())?;
    let at = t.place(axis);
    let shape = c.g().shape(t.value).clone();
    if at == 0 && shape.is_batched() {
        return Err(c.batch("a place in the batch"));
    }
    let n = shape.dims()[at];
    let g = c.g();
    let mut x = if node.op == "ArgMin" { g.neg(t.value)? } else { t.value };
    if last {
        x = g.slice_axis(x, at, Part { start: n - 1, size: n, step: -1 })?;
    }
    let y = g.argmax(x, at)?;
    let mut y = g.scale(y, 1.0)?;
    if last {
        let end = g.constant((n - 1) as f32)?;
        y = g.sub(end, y)?;
    }
    let mut dims = shape.dims().to_vec();
    dims[at] = 1;
    let kept = if shape.is_batched() { shape.with_row(&dims[1..]) } else { Shape::fixed(dims) };
    let value = g.reshape(y, kept)?;
    let y = T { elem: INT64, ..t.with(value) };
    Ok(vec![if keep { y } else { without(c, y, &[axis])? }])
}

fn top(c: &mut Call) -> Result<Vec<T>, OpError> {
    let k = match c.has(1) {
        true => c.ints(1, "k")?.first().copied().unwrap_or(0),
        false => c.node.int("k", 0),
    };
    let t = c.t(0)?;
    let axis = c.axis(c.node.int("axis", -1), t.rank())?;
    let largest = c.node.int("largest", 1) == 1;
    let mut axes: Vec<usize> = t.axes.iter().copied().filter(|&a| a != axis).collect();
    axes.push(axis);
    let t = c.arranged(t, &axes)?;
    let g = c.g();
    let x = if largest { t.value } else { g.neg(t.value)? };
    let [values, places] = g.top_k(x, k.max(0) as usize)?;
    let values = if largest { values } else { g.neg(values)? };
    let places = g.scale(places, 1.0)?;
    Ok(vec![t.with(values), T { elem: INT64, ..t.with(places) }])
}

/// Returns running sums as products with a triangle of ones.
fn running_sum(c: &mut Call) -> Result<Vec<T>, OpError> {
    let t = c.t(0)?;
    let numbers = c.ints(1, "an axis")?;
    let axis = c.axis(numbers.first().copied().unwrap_or(0), t.rank())?;
    let (exclusive, reverse) = (c.node.int("exclusive", 0) == 1, c.node.int("reverse", 0) == 1);
    let mut axes: Vec<usize> = t.axes.iter().copied().filter(|&a| a != axis).collect();
    axes.push(axis);
    let t = c.arranged(t, &axes)?;
    let n = c.g().shape(t.value).last();
    if n > 1 << 11 {
        return Err(c.wrong("an axis of at most 2048", n, "sum in two steps"));
    }
    let counts = move |from: usize, to: usize| {
        let (from, to) = if reverse { (to, from) } else { (from, to) };
        f32::from(u8::from(if exclusive { from < to } else { from <= to }))
    };
    let triangle = matrix(c, "triangle", [n, n], &|i| counts(i / n, i % n))?;
    let y = c.g().project(t.value, triangle, None)?;
    Ok(vec![t.with(y)])
}

/// Returns a known matrix: a literal, or a state where it is large.
pub fn matrix(c: &mut Call, name: &str, dims: [usize; 2], at: &dyn Fn(usize) -> f32) -> Result<Value, OpError> {
    let count = dims[0] * dims[1];
    let elements = || Ok((0..count).map(at).collect::<Vec<f32>>());
    if count <= MAX_LITERAL {
        return c.g().literal(dims, elements()?);
    }
    let Arrangement { dims, .. } = Arrangement::plain(&dims);
    c.place.weight(name, &dims, Kind::State, &Make::Elements(&elements))
}
