//! Normalisations.

use super::pool::{magnitude, root};
use crate::{
    graph::{Graph, OpError, Value},
    nn::onnx::call::{Build, Call, Kind, T, channels_last},
    ops::{LocalResponseNorm, Rule},
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("BatchNormalization", batch),
    ("GroupNormalization", group),
    ("InstanceNormalization", instance),
    ("LRN", local_response),
    ("LayerNormalization", layer),
    ("LpNormalization", lp),
    ("MeanVarianceNormalization", mean_variance),
    ("RMSNormalization", root_mean_square),
];

fn epsilon(c: &Call) -> f32 {
    c.node.float("epsilon", 1e-5)
}

/// Returns operand 0 with channels last.
fn last(c: &mut Call) -> Result<T, OpError> {
    let x = c.t(0)?;
    let axes = channels_last(x.rank());
    c.arranged(x, &axes)
}

fn batch(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = last(c)?;
    let [gamma, beta] = [c.vector(1, "gamma", Kind::Trainable)?, c.vector(2, "beta", Kind::Trainable)?];
    let [mean, variance] = [c.vector(3, "moving_mean", Kind::State)?, c.vector(4, "moving_variance", Kind::State)?];
    let (epsilon, momentum) = (epsilon(c), c.node.float("momentum", 0.9));
    if c.node.int("spatial", 1) != 1 {
        return Err(c.wrong("statistics of channels", "spatial 0", "export the model with opset 9 or newer"));
    }
    let asked = c.node.int("training_mode", 0) == 1;
    let trains = c.place.is_training();
    let g = c.g();
    if !asked && !trains {
        let y = g.batch_norm_inference(x.value, [gamma, beta, mean, variance], epsilon)?;
        return Ok(vec![x.with(y)]);
    }
    let [y, own_mean, own_variance] = g.batch_norm(x.value, gamma, beta, epsilon)?;
    let mut results = vec![x.with(y)];
    for (moving, own) in [(mean, own_mean), (variance, own_variance)] {
        if asked {
            let (kept, new) = (g.scale(moving, momentum)?, g.scale(own, 1.0 - momentum)?);
            results.push(T::natural(g.add(kept, new)?, 1, x.elem));
        } else {
            let new = g.optimize(Rule::MovingAverage { momentum }, &[moving], &[own], &[])?;
            g.update(moving, new[0]);
        }
    }
    results.truncate(c.node.outputs.len());
    Ok(results)
}

fn instance(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = last(c)?;
    let [gamma, beta] = [c.vector(1, "gamma", Kind::Trainable)?, c.vector(2, "beta", Kind::Trainable)?];
    let epsilon = epsilon(c);
    let groups = c.g().shape(x.value).last();
    let y = c.g().group_norm(x.value, gamma, beta, groups, epsilon)?;
    Ok(vec![x.with(y)])
}

fn group(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = last(c)?;
    let (groups, epsilon) = (c.node.int("num_groups", 1).max(1) as usize, epsilon(c));
    let channels = c.g().shape(x.value).last();
    let mut scales = [c.vector(1, "gamma", Kind::Trainable)?, c.vector(2, "beta", Kind::Trainable)?];
    for scale in &mut scales {
        let g = c.g();
        // Up to opset 20 there is one for each group.
        if g.shape(*scale).last() == groups && groups != channels && channels.is_multiple_of(groups) {
            let column = g.reshape(*scale, Shape::fixed([groups, 1]))?;
            let all = g.expand(column, &Shape::fixed([groups, channels / groups]))?;
            *scale = g.reshape(all, Shape::fixed([channels]))?;
        }
    }
    let y = c.g().group_norm(x.value, scales[0], scales[1], groups, epsilon)?;
    Ok(vec![x.with(y)])
}

/// Returns operand 0 as rows of what is normalised, their length, and its extents.
fn rows(c: &mut Call) -> Result<(T, usize, Vec<usize>, usize), OpError> {
    let x = c.natural(0)?;
    let dims = c.dims_of(&x);
    let axis = c.axis(c.node.int("axis", -1), dims.len())?;
    let n: usize = dims[axis..].iter().product();
    let whole: usize = dims[..axis].iter().product();
    if axis == 0 && c.g().shape(x.value).is_batched() {
        return Err(c.batch("a normalisation over the batch"));
    }
    Ok((c.reshape(x, &[whole, n])?, n, dims, axis))
}

fn layer(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, n, dims, axis) = rows(c)?;
    let epsilon = epsilon(c);
    let gamma = c.vector(1, "gamma", Kind::Trainable)?;
    let beta = match c.has(2) {
        true => c.vector(2, "beta", Kind::Trainable)?,
        false => {
            let zero = c.g().constant(0.0)?;
            c.g().expand(zero, &Shape::fixed([n]))?
        }
    };
    let [gamma, beta] = [gamma, beta].map(|v| c.g().expand(v, &Shape::fixed([n])));
    let y = c.g().layer_norm(x.value, gamma?, beta?, epsilon)?;
    let mut results = vec![c.reshape(x.with(y), &dims)?];
    if c.node.outputs.len() > 1 {
        let g = c.g();
        let mean = g.mean_axes(x.value, &[1], true)?;
        let off = g.sub(x.value, mean)?;
        let square = g.unary("square", off)?;
        let variance = g.mean_axes(square, &[1], true)?;
        let small = g.constant(epsilon)?;
        let sum = g.add(variance, small)?;
        let inverse = g.unary("rsqrt", sum)?;
        let mut kept = dims.clone();
        kept[axis..].fill(1);
        results.push(c.reshape(x.with(mean), &kept)?);
        results.push(c.reshape(x.with(inverse), &kept)?);
        results.truncate(c.node.outputs.len());
    }
    Ok(results)
}

fn root_mean_square(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, n, dims, _) = rows(c)?;
    let epsilon = epsilon(c);
    let scale = c.vector(1, "gamma", Kind::Trainable)?;
    let g = c.g();
    let square = g.unary("square", x.value)?;
    let (mean, small) = (g.mean_axes(square, &[1], true)?, g.constant(epsilon)?);
    let sum = g.add(mean, small)?;
    let inverse = g.unary("rsqrt", sum)?;
    let y = g.mul(x.value, inverse)?;
    let scale = g.expand(scale, &Shape::fixed([n]))?;
    let y = g.mul(y, scale)?;
    Ok(vec![c.reshape(x.with(y), &dims)?])
}

fn local_response(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = last(c)?;
    let node = c.node;
    let norm = LocalResponseNorm {
        size: node.int("size", 1).max(0) as usize,
        alpha: node.float("alpha", 1e-4),
        beta: node.float("beta", 0.75),
        bias: node.float("bias", 1.0),
    };
    let y = c.g().local_response_norm(x.value, norm)?;
    Ok(vec![x.with(y)])
}

/// Returns where axes are stored, in order, or an error if the batch is among them.
fn places(c: &mut Call, x: &T, axes: &[usize]) -> Result<Vec<usize>, OpError> {
    let mut places: Vec<usize> = axes.iter().map(|&axis| x.place(axis)).collect();
    places.sort_unstable();
    if places.first() == Some(&0) && c.g().shape(x.value).is_batched() {
        return Err(c.batch("statistics of the batch"));
    }
    Ok(places)
}

fn mean_variance(c: &mut Call) -> Result<Vec<T>, OpError> {
    let axes = c.node.ints("axes").map_or(vec![0, 2, 3], <[i64]>::to_vec);
    let x = c.t(0)?;
    let axes = c.axes(&axes, x.rank())?;
    let places = places(c, &x, &axes)?;
    let g = c.g();
    let mean = g.mean_axes(x.value, &places, true)?;
    let off = g.sub(x.value, mean)?;
    let square = g.unary("square", off)?;
    let variance = g.mean_axes(square, &places, true)?;
    let deviation = g.sqrt(variance)?;
    let small = g.constant(1e-9)?;
    let sum = g.add(deviation, small)?;
    let y = g.div(off, sum)?;
    Ok(vec![x.with(y)])
}

fn lp(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let axis = c.axis(c.node.int("axis", -1), x.rank())?;
    let (places, p) = (places(c, &x, &[axis])?, c.node.int("p", 2));
    let length = norm_of(c.g(), x.value, &places, p)?;
    let y = c.g().div(x.value, length)?;
    Ok(vec![x.with(y)])
}

/// Returns the norm of degree p over axes, which stay with extent 1.
fn norm_of(g: &mut Graph, x: Value, axes: &[usize], p: i64) -> Result<Value, OpError> {
    let powers = magnitude(g, x, p)?;
    let sum = g.sum(powers, axes, true)?;
    root(g, sum, p)
}
