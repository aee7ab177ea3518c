//! Operators that choose elements by numbers: gathers, scatters, one-hot rows.

use super::reduce::matrix;
use crate::{
    graph::{OpError, Value},
    nn::onnx::{
        call::{Arrangement, Build, Call, Kind, MAX_LITERAL, Make, T},
        constant::FLOAT,
    },
    ops::Part,
    tensor::{Shape, strides},
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("OneHot", one_hot),
    ("Scatter", scatter_elements),
    ("ScatterElements", scatter_elements),
    ("ScatterND", scatter_nd),
];

/// The largest matrix that chooses elements of samples.
const MAX_CHOICES: usize = 1 << 22;
/// The most parts that are cut out and joined instead.
const MAX_PARTS: usize = 64;

/// Returns a number from −n up as one from 0 up, or an error if it is outside.
fn place(c: &Call, number: i64, n: usize) -> Result<usize, OpError> {
    let at = if number < 0 { number + n as i64 } else { number };
    let found = usize::try_from(at).ok().filter(|&at| at < n);
    found.ok_or_else(|| c.wrong(format!("a place from −{n} to {}", n.max(1) - 1), number, "export the model again"))
}

fn gather(c: &mut Call) -> Result<Vec<T>, OpError> {
    let axis = c.axis(c.node.int("axis", 0), c.rank(0))?;
    let of_indices = c.dims(1)?;
    if c.constant(1).is_none() {
        return by_computed(c, axis);
    }
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let dims = c.dims_of(&x);
    let (at, n) = (x.place(axis), dims[axis]);
    let numbers = c.ints(1, "indices")?;
    let places = numbers.iter().map(|&i| place(c, i, n)).collect::<Result<Vec<_>, _>>()?;
    let shape = c.g().shape(x.value).clone();
    if at == 0 && shape.is_batched() {
        match places[..] {
            // The whole batch, as of the one sample that the file counts.
            [0] if n == 1 && of_indices.len() == 1 => return Ok(vec![x]),
            _ => return Err(c.batch("chosen samples")),
        }
    }
    x.value = along(c, x.value, at, &places)?;
    match of_indices.len() {
        0 => Ok(vec![super::reduce::without(c, x, &[axis])?]),
        1 => Ok(vec![x]),
        _ => {
            let new: Vec<usize> = [&dims[..axis], &of_indices, &dims[axis + 1..]].concat();
            Ok(vec![c.reshape(x, &new)?])
        }
    }
}

/// Returns places along a stored axis: one part, several joined, or a product with a matrix that chooses.
fn along(c: &mut Call, x: Value, at: usize, places: &[usize]) -> Result<Value, OpError> {
    let n = c.g().shape(x).dims()[at];
    let mut parts: Vec<Part> = Vec::new();
    for &place in places {
        match parts.last_mut() {
            Some(part) if part.size == 1 && part.start != place => {
                *part = Part { start: part.start, size: 2, step: place as isize - part.start as isize };
            }
            Some(part) if part.size > 1 && part.start as isize + part.step * part.size as isize == place as isize => {
                part.size += 1;
            }
            _ => parts.push(Part::new(place, 1)),
        }
    }
    if parts.is_empty() {
        return Err(c.wrong("at least one index", "none", "empty tensors are not supported"));
    }
    if parts.len() <= MAX_PARTS {
        let cut = |c: &mut Call, part: &Part| match *part == Part::all(n) {
            true => Ok(x),
            false => c.g().slice_axis(x, at, *part),
        };
        let values = parts.iter().map(|part| cut(c, part)).collect::<Result<Vec<_>, _>>()?;
        return if values.len() == 1 { Ok(values[0]) } else { c.g().concat(&values, at) };
    }
    if n * places.len() > MAX_CHOICES {
        return Err(c.wrong("fewer indices without order", places.len(), "gather in two steps"));
    }
    let rank = c.g().shape(x).rank();
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(at, rank - 1);
    let choice =
        matrix(c, "choice", [n, places.len()], &|i| f32::from(u8::from(places[i % places.len()] == i / places.len())))?;
    let g = c.g();
    let x = g.transpose(x, &order)?;
    let y = g.project(x, choice, None)?;
    g.transpose(y, &order)
}

/// Returns rows of a table that does not depend on the batch, by numbers that are computed.
fn by_computed(c: &mut Call, axis: usize) -> Result<Vec<T>, OpError> {
    let dims = c.dims(0)?;
    let n = dims[axis];
    let order: Vec<usize> = std::iter::once(axis).chain((0..dims.len()).filter(|&a| a != axis)).collect();
    let row: usize = dims.iter().product::<usize>() / n.max(1);
    let table = match c.constant(0).is_some() {
        true => {
            let arrangement = Arrangement { dims: vec![n, row], ..Arrangement::order(&dims, &order) };
            c.weight(0, "embeddings", Kind::Trainable, &arrangement)?
        }
        false => {
            let t = c.t(0)?;
            let t = c.arranged(t, &order)?;
            c.g().reshape(t.value, Shape::fixed([n, row]))?
        }
    };
    let indices = c.natural(1)?;
    let of_indices = c.dims_of(&indices);
    let shape = c.g().shape(indices.value).clone();
    let g = c.g();
    let (zero, count) = (g.constant(0.0)?, g.constant(n as f32)?);
    let (below, wrapped) = (g.binary("less", indices.value, zero)?, g.add(indices.value, count)?);
    let indices = g.where_(below, wrapped, indices.value)?;
    let flat = of_indices.iter().product();
    let flat = if shape.is_batched() { Shape::batched(flat, &[]) } else { Shape::fixed([flat]) };
    let indices = g.reshape(indices, flat)?;
    let y = g.gather(table, indices)?;
    let inner: Vec<usize> = order[1..].iter().map(|&a| dims[a]).collect();
    let stored: Vec<usize> = of_indices.iter().copied().chain(inner).collect();
    let new = match (shape.is_batched(), &stored[..]) {
        (true, [first, rest @ ..]) => Shape::batched(*first, rest),
        _ => Shape::fixed(stored),
    };
    let value = g.reshape(y, new)?;
    // Stored are the indices' axes, then those in front of the axis, then those behind it.
    let k = of_indices.len();
    let axes: Vec<usize> = (axis..axis + k).chain(0..axis).chain(axis + k..dims.len() - 1 + k).collect();
    Ok(vec![T { value, axes, elem: c.elem(0), flat: None }])
}

/// Returns elements of a tensor by their numbers in a sample, as a tensor of these extents.
fn picked(c: &mut Call, x: T, from: &[usize], dims: &[usize]) -> Result<T, OpError> {
    let x = c.natural_of(x)?;
    let shape = c.g().shape(x.value).clone();
    let count: usize = shape.dims().iter().product();
    if from.is_empty() {
        return Err(c.wrong("at least one index", "none", "empty tensors are not supported"));
    }
    if shape.is_batched() {
        if count * from.len() > MAX_CHOICES {
            return Err(c.batch(format!("{} chosen elements of {count}", from.len())));
        }
        let rows = c.g().reshape(x.value, Shape::batched(1, &[count]))?;
        let choice =
            matrix(c, "choice", [count, from.len()], &|i| f32::from(u8::from(from[i % from.len()] == i / from.len())))?;
        let y = c.g().matmul(rows, choice)?;
        let (first, rest) = dims.split_first().map_or((1, dims), |(f, r)| (*f, r));
        let value = c.g().reshape(y, Shape::batched(first, rest))?;
        return Ok(T::natural(value, dims.len().max(1), x.elem));
    }
    let numbers = numbers(c, from)?;
    let table = c.g().reshape(x.value, Shape::fixed([count, 1]))?;
    let y = c.g().gather(table, numbers)?;
    let value = c.g().reshape(y, Shape::fixed(dims))?;
    Ok(T::natural(value, dims.len(), x.elem))
}

/// Returns places as a vector: a literal, or a state where it is long.
fn numbers(c: &mut Call, from: &[usize]) -> Result<Value, OpError> {
    let elements = || Ok(from.iter().map(|&i| i as f32).collect::<Vec<f32>>());
    match from.len() <= MAX_LITERAL {
        true => c.g().literal([from.len()], elements()?),
        false => c.place.weight("indices", &[from.len()], Kind::State, &Make::Elements(&elements)),
    }
}

/// Returns the coordinates of element `i` of a tensor.
fn coordinates(i: usize, dims: &[usize]) -> Vec<usize> {
    strides(dims).iter().zip(dims).map(|(stride, n)| i / stride % n).collect()
}

/// Returns for each index of `GatherElements` and `ScatterElements` which element of the data it names.
fn elements_named(c: &Call, data: &[usize], indices: &[usize], axis: usize) -> Result<Vec<usize>, OpError> {
    let steps = strides(data);
    let all = c.ints(1, "indices")?;
    let named = |(i, &number): (usize, &i64)| -> Result<usize, OpError> {
        let mut at = coordinates(i, indices);
        at[axis] = place(c, number, data[axis])?;
        Ok(at.iter().zip(&steps).map(|(a, s)| a * s).sum())
    };
    all.iter().enumerate().map(named).collect()
}

fn gather_elements(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (data, indices) = (c.dims(0)?, c.dims(1)?);
    let axis = c.axis(c.node.int("axis", 0), data.len())?;
    let from = elements_named(c, &data, &indices, axis)?;
    let x = c.t(0)?;
    Ok(vec![picked(c, x, &from, &indices)?])
}

/// Returns for each row of indices which elements of the data it names: the first ones of parts of equal length.
fn rows_named(c: &Call, data: &[usize], indices: &[usize], batch: usize) -> Result<(Vec<usize>, usize), OpError> {
    let all = c.ints(1, "indices")?;
    let depth = indices.last().copied().unwrap_or(1);
    if depth + batch > data.len() || depth == 0 {
        return Err(c.wrong(format!("at most {} numbers for each part", data.len()), depth, "export the model again"));
    }
    let steps = strides(data);
    let part: usize = data[batch + depth..].iter().product();
    let per_batch: usize = indices[batch..].iter().product::<usize>() / depth;
    let first = |(row, numbers): (usize, &[i64])| -> Result<usize, OpError> {
        let outer = coordinates(row / per_batch.max(1), &data[..batch]);
        let mut at: usize = outer.iter().zip(&steps).map(|(a, s)| a * s).sum();
        for (k, &number) in numbers.iter().enumerate() {
            at += place(c, number, data[batch + k])? * steps[batch + k];
        }
        Ok(at)
    };
    Ok((all.chunks(depth).enumerate().map(first).collect::<Result<_, _>>()?, part))
}

fn gather_nd(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (data, indices) = (c.dims(0)?, c.dims(1)?);
    let batch = c.node.int("batch_dims", 0).max(0) as usize;
    let (rows, part) = rows_named(c, &data, &indices, batch)?;
    let depth = indices.last().copied().unwrap_or(1);
    let from: Vec<usize> = rows.iter().flat_map(|&first| first..first + part).collect();
    let dims = [&indices[..indices.len() - 1], &data[batch + depth..]].concat();
    let x = c.t(0)?;
    Ok(vec![picked(c, x, &from, &dims)?])
}

fn scatter_elements(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (data, indices) = (c.dims(0)?, c.dims(1)?);
    let axis = c.axis(c.node.int("axis", 0), data.len())?;
    let to = elements_named(c, &data, &indices, axis)?;
    scattered(c, &data, &to)
}

fn scatter_nd(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (data, indices) = (c.dims(0)?, c.dims(1)?);
    let (rows, part) = rows_named(c, &data, &indices, 0)?;
    let to: Vec<usize> = rows.iter().flat_map(|&first| first..first + part).collect();
    scattered(c, &data, &to)
}

/// Returns the data with update `i` at element `to[i]`: in as many rounds as one element has updates.
fn scattered(c: &mut Call, data: &[usize], to: &[usize]) -> Result<Vec<T>, OpError> {
    let reduction = c.node.text("reduction", "none");
    let function = match reduction.as_str() {
        "none" => None,
        "add" => Some("add"),
        "mul" => Some("mul"),
        "max" => Some("max"),
        "min" => Some("min"),
        other => return Err(c.wrong("none, add, mul, max or min", other, "choose one of those")),
    };
    let count: usize = data.iter().product();
    // For each element the updates of one round.
    let mut rounds: Vec<Vec<Option<usize>>> = Vec::new();
    for (update, &element) in to.iter().enumerate() {
        let free = rounds.iter().position(|r| r[element].is_none());
        let round = match (free, function) {
            (None, None) if !rounds.is_empty() => 0,
            (Some(round), _) => round,
            (None, _) => {
                rounds.push(vec![None; count]);
                rounds.len() - 1
            }
        };
        rounds[round][element] = Some(update);
        if rounds.len() > 64 {
            return Err(c.wrong("at most 64 updates of one element", "more", "sum them before"));
        }
    }
    let (mut x, updates) = (c.natural(0)?, c.natural(2)?);
    for round in &rounds {
        let from: Vec<usize> = round.iter().map(|u| u.unwrap_or(0)).collect();
        let moved = picked(c, updates.clone(), &from, data)?;
        let mask: Vec<f32> = round.iter().map(|u| f32::from(u8::from(u.is_some()))).collect();
        let mask = match count <= MAX_LITERAL {
            true => c.g().literal(data, mask)?,
            false => c.place.weight("mask", data, Kind::State, &Make::Elements(&|| Ok(mask.clone())))?,
        };
        let g = c.g();
        let new = match function {
            None => moved.value,
            Some(function) => g.binary(function, x.value, moved.value)?,
        };
        x.value = g.where_(mask, new, x.value)?;
    }
    Ok(vec![x])
}

fn one_hot(c: &mut Call) -> Result<Vec<T>, OpError> {
    let depth = c.ints(1, "a depth")?.first().copied().unwrap_or(0);
    let values = c.numbers(2, "values")?;
    let elem = c.elem(2);
    let indices = c.natural(0)?;
    let rank = indices.rank() + 1;
    let axis = c.axis(c.node.int("axis", -1), rank)?;
    let (&[off, on], true) = (&values[..], (1..=MAX_LITERAL as i64).contains(&depth)) else {
        return Err(c.wrong(format!("1 to {MAX_LITERAL} classes and two values"), depth, "use fewer classes"));
    };
    let n = depth as usize;
    let shape = c.g().shape(indices.value).clone();
    let mut dims = shape.dims().to_vec();
    dims.push(1);
    let column = if shape.is_batched() { shape.with_row(&dims[1..]) } else { Shape::fixed(dims) };
    let g = c.g();
    let indices = g.reshape(indices.value, column)?;
    let (zero, count) = (g.constant(0.0)?, g.constant(n as f32)?);
    let (below, wrapped) = (g.binary("less", indices, zero)?, g.add(indices, count)?);
    let indices = g.where_(below, wrapped, indices)?;
    let classes = g.literal([n], (0..n).map(|i| i as f32).collect::<Vec<_>>())?;
    let hits = g.binary("equal", indices, classes)?;
    let (on, off) = (g.constant(on as f32)?, g.constant(off as f32)?);
    let value = g.where_(hits, on, off)?;
    let mut axes: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
    axes.push(axis);
    Ok(vec![T { value, axes, elem: if elem == 0 { FLOAT } else { elem }, flat: None }])
}
