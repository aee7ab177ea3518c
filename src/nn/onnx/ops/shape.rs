//! Operators that move elements.

use super::reduce::without;
use crate::{
    graph::{OpError, Value},
    nn::onnx::{
        call::{Build, Call, T},
        constant::BOOL,
    },
    ops::{PadMode, Part},
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("Concat", concat),
    ("DepthToSpace", depth_to_space),
    ("Expand", expand),
    ("Flatten", flatten),
    ("Identity", identity),
    ("Pad", pad),
    ("Reshape", reshape),
    ("Slice", slice),
    ("SpaceToDepth", space_to_depth),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Tile", tile),
    ("Transpose", transpose),
    ("Trilu", triangle),
    ("Unsqueeze", unsqueeze),
];

fn identity(c: &mut Call) -> Result<Vec<T>, OpError> {
    Ok(vec![c.t(0)?])
}

/// Returns the numbers of input `i`, or of the attribute that it was before.
fn listed(c: &Call, i: usize, name: &str) -> Result<Option<Vec<i64>>, OpError> {
    match c.has(i) {
        true => Ok(Some(c.ints(i, name)?)),
        false => Ok(c.node.ints(name).map(<[i64]>::to_vec)),
    }
}

/// Returns extents of a tensor of so many elements, of which one may be −1.
fn inferred(c: &Call, mut dims: Vec<i64>, count: usize) -> Result<Vec<usize>, OpError> {
    let known = dims.iter().filter(|&&d| d >= 0).try_fold(1i64, |n, &d| n.checked_mul(d)).unwrap_or(0);
    let wanted = dims.clone();
    if let Some(open) = dims.iter().position(|&d| d == -1)
        && known > 0
    {
        dims[open] = count as i64 / known;
    }
    let extents: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let product = |e: &Vec<usize>| e.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    extents.filter(|e| product(e) == Some(count)).ok_or_else(|| {
        c.wrong(format!("extents of {count} elements"), format!("{wanted:?}"), "bind the sizes that it depends on")
    })
}

fn reshape(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let old = c.dims_of(&x);
    let mut dims = listed(c, 1, "shape")?.unwrap_or_default();
    if c.node.int("allowzero", 0) == 0 {
        for (i, d) in dims.iter_mut().enumerate() {
            if *d == 0 {
                *d = old.get(i).map_or(0, |&n| n as i64);
            }
        }
    }
    let dims = inferred(c, dims, old.iter().product())?;
    match flattened(c, &x, &old, &dims)? {
        Some(flat) => Ok(vec![flat]),
        None => Ok(vec![c.reshape(x, &dims)?]),
    }
}

/// Returns maps as rows without moving elements, if they are stored with channels last and each becomes one row.
fn flattened(c: &mut Call, x: &T, old: &[usize], new: &[usize]) -> Result<Option<T>, OpError> {
    let last = crate::nn::onnx::call::channels_last(x.rank());
    let spatial = old.iter().skip(2).filter(|&&d| d > 1).count();
    let rows = matches!((old, new), ([n, _, ..], [m, _]) if n == m);
    if !rows || old.len() < 3 || x.axes != last || spatial == 0 || old[1] == 1 {
        return Ok(None);
    }
    let shape = c.g().shape(x.value).with_row(&new[1..]);
    let value = c.g().reshape(x.value, shape)?;
    Ok(Some(T { value, axes: vec![0, 1], elem: x.elem, flat: Some(old[1..].to_vec()) }))
}

fn flatten(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let old = c.dims_of(&x);
    let axis = c.node.int("axis", 1);
    let axis = if axis == old.len() as i64 { old.len() } else { c.axis(axis, old.len())? };
    let new = [old[..axis].iter().product(), old[axis..].iter().product()];
    match flattened(c, &x, &old, &new)? {
        Some(flat) => Ok(vec![flat]),
        None => Ok(vec![c.reshape(x, &new)?]),
    }
}

fn transpose(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let rank = x.rank();
    let order = match c.node.ints("perm") {
        Some(order) => c.axes(order, rank)?,
        None => (0..rank).rev().collect(),
    };
    let is_permutation = order.len() == rank && (0..rank).all(|axis| order.contains(&axis));
    if !is_permutation {
        return Err(c.wrong(format!("a permutation of {rank} axes"), format!("{order:?}"), "export the model again"));
    }
    // Nothing moves: only the names of the stored axes change.
    let new = |old: &usize| order.iter().position(|a| a == old).unwrap_or(*old);
    let axes = x.axes.iter().map(new).collect();
    Ok(vec![T { axes, ..x }])
}

fn squeeze(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let dims = c.dims_of(&x);
    let batched = c.g().shape(x.value).is_batched();
    let axes = match listed(c, 1, "axes")? {
        Some(axes) => c.axes(&axes, dims.len())?,
        None => (0..dims.len()).filter(|&a| dims[a] == 1 && !(batched && x.place(a) == 0)).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&a| dims[a] != 1) {
        return Err(c.wrong("axes of extent 1", format!("axis {axis} of {dims:?}"), "export the model again"));
    }
    Ok(vec![without(c, x, &axes)?])
}

fn unsqueeze(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let axes = listed(c, 1, "axes")?.unwrap_or_default();
    let rank = x.rank() + axes.len();
    let mut new = c.axes(&axes, rank)?;
    new.sort_unstable();
    let mut stored: Vec<usize> = x.axes.clone();
    let shape = c.g().shape(x.value).clone();
    let mut dims = shape.dims().to_vec();
    let natural = x.is_natural();
    for &axis in &new {
        stored.iter_mut().filter(|a| **a >= axis).for_each(|a| *a += 1);
        // In order where it was, unless the batch is in front; else behind.
        let at = if natural && !(axis == 0 && shape.is_batched()) { axis.min(dims.len()) } else { dims.len() };
        stored.insert(at, axis);
        dims.insert(at, 1);
    }
    let new = if shape.is_batched() { shape.with_row(&dims[1..]) } else { Shape::fixed(dims) };
    let value = c.g().reshape(x.value, new)?;
    Ok(vec![T { value, axes: stored, elem: x.elem, flat: None }])
}

fn expand(c: &mut Call) -> Result<Vec<T>, OpError> {
    let target = c.ints(1, "a shape")?;
    let x = c.natural(0)?;
    let own = c.g().shape(x.value).clone();
    let target: Option<Vec<usize>> = target.iter().map(|&d| usize::try_from(d).ok()).collect();
    let whole = target.as_ref().and_then(|t| Shape::fixed(own.dims()).broadcast(&Shape::fixed(t.clone())));
    let Some(whole) = whole else {
        return Err(c.wrong(format!("a shape that {own} is repeated to"), format!("{target:?}"), "export again"));
    };
    let dims = whole.dims().to_vec();
    if own.is_batched() && (dims.len() != own.rank() || dims[0] != own.dims()[0]) {
        return Err(c.batch("samples that are repeated"));
    }
    let shape = if own.is_batched() { own.with_row(&dims[1..]) } else { Shape::fixed(dims.clone()) };
    let value = c.g().expand(x.value, &shape)?;
    Ok(vec![T::natural(value, dims.len(), x.elem)])
}

fn tile(c: &mut Call) -> Result<Vec<T>, OpError> {
    let times = c.ints(1, "repeats")?;
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    if times.len() != x.rank() || times.iter().any(|t| !(1..1 << 12).contains(t)) {
        let wanted = format!("{} numbers of repeats from 1 up", x.rank());
        return Err(c.wrong(wanted, format!("{times:?}"), "export the model again"));
    }
    for (axis, &n) in times.iter().enumerate().filter(|(_, n)| **n > 1) {
        let at = x.place(axis);
        let copies = vec![x.value; n as usize];
        x.value = c.g().concat(&copies, at)?;
    }
    Ok(vec![x])
}

fn concat(c: &mut Call) -> Result<Vec<T>, OpError> {
    let axis = c.axis(c.node.int("axis", 1), c.rank(0))?;
    // Empty tensors add nothing.
    let mut parts = Vec::new();
    let mut axes: Option<Vec<usize>> = None;
    for i in 0..c.slots.len() {
        let is_empty = c.constant(i).is_some_and(|k| k.count() == 0);
        if is_empty {
            continue;
        }
        let t = c.t(i)?;
        if axes.is_none() && c.constant(i).is_none() {
            axes = Some(t.axes.clone());
        }
        parts.push(t);
    }
    let axes = axes.unwrap_or_else(|| (0..c.rank(0)).collect());
    let parts = parts.into_iter().map(|t| c.arranged(t, &axes)).collect::<Result<Vec<T>, _>>()?;
    let Some(first) = parts.first().cloned() else {
        return Err(c.wrong("tensors with elements", "none", "export the model again"));
    };
    let batch = parts.iter().map(|t| c.g().shape(t.value).clone()).find(Shape::is_batched);
    let at = first.place(axis);
    let mut values = Vec::new();
    for t in &parts {
        let shape = c.g().shape(t.value).clone();
        // What is the same for each sample joins each.
        values.push(match &batch {
            Some(batch) if !shape.is_batched() => c.g().expand(t.value, &batch.with_row(&shape.dims()[1..]))?,
            _ => t.value,
        });
    }
    let value = if values.len() == 1 { values[0] } else { c.g().concat(&values, at)? };
    Ok(vec![first.with(value)])
}

fn split(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let axis = c.axis(c.node.int("axis", 0), x.rank())?;
    let (at, n) = (x.place(axis), c.dims_of(&x)[axis]);
    let count = c.node.int("num_outputs", c.node.outputs.len() as i64).max(1) as usize;
    let sizes: Vec<usize> = match listed(c, 1, "split")? {
        Some(sizes) => sizes.iter().map(|&s| s.max(0) as usize).collect(),
        None => {
            let each = n.div_ceil(count);
            (0..count).map(|i| each.min(n.saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != n || sizes.contains(&0) {
        return Err(c.wrong(format!("parts from 1 up that make {n}"), format!("{sizes:?}"), "export the model again"));
    }
    let mut start = 0;
    let mut parts = Vec::new();
    for size in sizes {
        let value = if size == n { x.value } else { c.g().slice_axis(x.value, at, Part::new(start, size))? };
        parts.push(x.with(value));
        start += size;
    }
    Ok(parts)
}

/// Returns the part of an axis of `n` that Python's slice names.
fn part(n: usize, start: i64, end: i64, step: i64) -> Option<Part> {
    let n = n as i64;
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let held = |v: i64| if v < 0 { v.saturating_add(n).clamp(low, high) } else { v.clamp(low, high) };
    let (start, end) = (held(start), held(end));
    let size = usize::try_from((end - start).checked_div(step)? + i64::from((end - start) % step != 0)).ok()?;
    Some(Part { start: usize::try_from(start).ok()?, size, step: isize::try_from(step).ok()? }).filter(|_| size > 0)
}

fn slice(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let starts = listed(c, 1, "starts")?.unwrap_or_default();
    let ends = listed(c, 2, "ends")?.unwrap_or_default();
    let axes = listed(c, 3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = if c.has(4) { c.ints(4, "steps")? } else { vec![1; starts.len()] };
    let axes = c.axes(&axes, x.rank())?;
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(c.wrong("as many starts, ends, axes and steps", starts.len(), "export the model again"));
    }
    let dims = c.dims_of(&x);
    for (i, &axis) in axes.iter().enumerate() {
        let Some(part) = part(dims[axis], starts[i], ends[i], steps[i]) else {
            let got = format!("{}..{} by {} of {}", starts[i], ends[i], steps[i], dims[axis]);
            return Err(c.wrong("a part with elements", got, "empty tensors are not supported"));
        };
        if part != Part::all(dims[axis]) {
            let at = x.place(axis);
            x.value = c.g().slice_axis(x.value, at, part)?;
        }
    }
    Ok(vec![x])
}

fn pad(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut x = c.t(0)?;
    if x.flat.is_some() {
        x = c.natural_of(x)?;
    }
    let rank = x.rank();
    let pads = listed(c, 1, "pads")?.unwrap_or_default();
    let axes = match c.has(3) {
        true => {
            let axes = c.ints(3, "axes")?;
            c.axes(&axes, rank)?
        }
        false => (0..rank).collect(),
    };
    let value = match c.has(2) {
        true => c.numbers(2, "a value")?.first().map_or(0.0, |&v| v as f32),
        false => c.node.float("value", 0.0),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|p| p.abs() >= 1 << 24) {
        return Err(c.wrong(format!("{} paddings", 2 * axes.len()), format!("{pads:?}"), "export the model again"));
    }
    let mode = c.node.text("mode", "constant");
    for (i, &axis) in axes.iter().enumerate() {
        let (before, after) = (pads[i] as isize, pads[i + axes.len()] as isize);
        if before != 0 || after != 0 {
            x.value = padded(c, &x, axis, [before, after], (&mode, value))?;
        }
    }
    Ok(vec![x])
}

/// Returns a tensor with elements around one axis: of images where it is theirs, else of rows made of them.
fn padded(c: &mut Call, x: &T, axis: usize, pads: [isize; 2], (mode, value): (&str, f32)) -> Result<Value, OpError> {
    let at = x.place(axis);
    let shape = c.g().shape(x.value).clone();
    if at == 0 && shape.is_batched() {
        return Err(c.batch("more samples"));
    }
    let dims = shape.dims().to_vec();
    if mode == "wrap" {
        return wrapped(c, x.value, at, pads);
    }
    let mode = match mode {
        "constant" => PadMode::Constant(value),
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Replicate,
        other => return Err(c.wrong("constant, reflect, edge or wrap", other, "choose one of those")),
    };
    let (outer, inner) = (dims[..at].iter().product::<usize>(), dims[at + 1..].iter().product::<usize>());
    let first = if shape.is_batched() {
        Shape::batched(outer, &[dims[at], inner])
    } else {
        Shape::fixed([outer, dims[at], inner])
    };
    let x = c.g().reshape(x.value, first)?;
    let y = c.g().pad1d(x, pads, mode)?;
    let mut new = dims;
    new[at] = c.g().shape(y).dims()[1];
    let shape = if shape.is_batched() { shape.with_row(&new[1..]) } else { Shape::fixed(new) };
    c.g().reshape(y, shape)
}

fn wrapped(c: &mut Call, x: Value, at: usize, [before, after]: [isize; 2]) -> Result<Value, OpError> {
    let n = c.g().shape(x).dims()[at];
    if before < 0 || after < 0 || before as usize > n || after as usize > n {
        return Err(c.wrong("paddings up to the extent", format!("{before}, {after} of {n}"), "pad twice"));
    }
    let mut parts = vec![x];
    if before > 0 {
        parts.insert(0, c.g().slice_axis(x, at, Part::new(n - before as usize, before as usize))?);
    }
    if after > 0 {
        parts.push(c.g().slice_axis(x, at, Part::new(0, after as usize))?);
    }
    c.g().concat(&parts, at)
}

fn depth_to_space(c: &mut Call) -> Result<Vec<T>, OpError> {
    let b = c.node.int("blocksize", 1).max(1) as usize;
    let columns_first = c.node.text("mode", "DCR") == "CRD";
    let t = c.t(0)?;
    let x = c.arranged(t, &crate::nn::onnx::call::channels_last(4))?;
    let shape = c.g().shape(x.value).clone();
    let &[_, h, w, channels] = shape.dims() else { return Err(c.wrong("maps (N, C, H, W)", &shape, "reshape them")) };
    if !channels.is_multiple_of(b * b) {
        return Err(c.wrong(format!("channels that {} divides", b * b), channels, "choose another block"));
    }
    let d = channels / (b * b);
    let (split, order) = match columns_first {
        true => ([h, w, d, b, b], [0, 1, 4, 2, 5, 3]),
        false => ([h, w, b, b, d], [0, 1, 3, 2, 4, 5]),
    };
    let g = c.g();
    let y = g.reshape(x.value, shape.with_row(&split))?;
    let y = g.transpose(y, &order)?;
    let y = g.reshape(y, shape.with_row(&[h * b, w * b, d]))?;
    Ok(vec![x.with(y)])
}

fn space_to_depth(c: &mut Call) -> Result<Vec<T>, OpError> {
    let b = c.node.int("blocksize", 1).max(1) as usize;
    let t = c.t(0)?;
    let x = c.arranged(t, &crate::nn::onnx::call::channels_last(4))?;
    let shape = c.g().shape(x.value).clone();
    let &[_, h, w, d] = shape.dims() else { return Err(c.wrong("maps (N, C, H, W)", &shape, "reshape them")) };
    if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        return Err(c.wrong(format!("sides that {b} divides"), &shape, "pad the maps"));
    }
    let g = c.g();
    let y = g.reshape(x.value, shape.with_row(&[h / b, b, w / b, b, d]))?;
    let y = g.transpose(y, &[0, 1, 3, 2, 4, 5])?;
    let y = g.reshape(y, shape.with_row(&[h / b, w / b, b * b * d]))?;
    Ok(vec![x.with(y)])
}

/// Returns the upper or lower triangle of matrices.
fn triangle(c: &mut Call) -> Result<Vec<T>, OpError> {
    let k = if c.has(1) { c.ints(1, "a diagonal")?.first().copied().unwrap_or(0) } else { 0 };
    let upper = c.node.int("upper", 1) == 1;
    let x = c.natural(0)?;
    let dims = c.dims_of(&x);
    let &[.., n, m] = &dims[..] else { return Err(c.wrong("matrices", format!("{dims:?}"), "reshape them")) };
    let kept = move |i: usize| {
        let across = (i % m) as i64 - (i / m) as i64;
        f32::from(u8::from(if upper { across >= k } else { across <= k }))
    };
    let mask = super::reduce::matrix(c, "triangle", [n, m], &kept)?;
    let g = c.g();
    let zero = g.constant(0.0)?;
    let y = g.where_(mask, x.value, zero)?;
    let elem = if x.elem == BOOL { BOOL } else { x.elem };
    Ok(vec![T { elem, ..x.with(y) }])
}
