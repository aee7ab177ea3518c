//! Activations, softmax and dropout.

use super::elementwise::mapped;
use crate::{
    graph::{Graph, OpError, Value},
    nn::onnx::{
        call::{Build, Call, T},
        constant::BOOL,
    },
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("Celu", parametric),
    ("Clip", clip),
    ("Dropout", dropout),
    ("Elu", parametric),
    ("Gelu", gelu),
    ("HardSigmoid", parametric),
    ("HardSwish", plain),
    ("Hardmax", softmax),
    ("LeakyRelu", parametric),
    ("LogSoftmax", softmax),
    ("Mish", plain),
    ("PRelu", prelu),
    ("Relu", plain),
    ("Selu", parametric),
    ("Shrink", parametric),
    ("Sigmoid", plain),
    ("Softmax", softmax),
    ("Softplus", plain),
    ("Softsign", plain),
    ("Swish", parametric),
    ("Tanh", plain),
    ("ThresholdedRelu", parametric),
];

fn plain(c: &mut Call) -> Result<Vec<T>, OpError> {
    let name = crate::nn::names::snake_case(c.node.op);
    mapped(c, |g, x| g.unary(&name, x))
}

fn parametric(c: &mut Call) -> Result<Vec<T>, OpError> {
    let node = c.node;
    let [alpha, beta] = match node.op {
        "Elu" | "Celu" => [node.float("alpha", 1.0), 0.0],
        "HardSigmoid" => [node.float("alpha", 0.2), node.float("beta", 0.5)],
        "LeakyRelu" => [node.float("alpha", 0.01), 0.0],
        "Selu" => [node.float("alpha", 1.673_263_2), node.float("gamma", 1.050_701)],
        "Shrink" => [node.float("lambd", 0.5), node.float("bias", 0.0)],
        _ => [node.float("alpha", 1.0), 0.0],
    };
    mapped(c, |g, x| match node.op {
        "Elu" => g.elu(x, alpha),
        "LeakyRelu" => g.leaky_relu(x, alpha),
        "Celu" => {
            let x = g.scale(x, 1.0 / alpha)?;
            let y = g.elu(x, 1.0)?;
            g.scale(y, alpha)
        }
        "Selu" => {
            let y = g.elu(x, alpha)?;
            g.scale(y, beta)
        }
        "HardSigmoid" => {
            let (product, offset) = (g.scale(x, alpha)?, g.constant(beta)?);
            let sum = g.add(product, offset)?;
            g.clip(sum, 0.0, 1.0)
        }
        "Swish" if alpha == 1.0 => g.unary("silu", x),
        "Swish" => {
            let scaled = g.scale(x, alpha)?;
            let gate = g.unary("sigmoid", scaled)?;
            g.mul(x, gate)
        }
        "Shrink" => shrink(g, x, alpha, beta),
        _ => {
            let (bound, zero) = (g.constant(alpha)?, g.constant(0.0)?);
            let passes = g.binary("greater", x, bound)?;
            g.where_(passes, x, zero)
        }
    })
}

fn shrink(g: &mut Graph, x: Value, lambda: f32, bias: f32) -> Result<Value, OpError> {
    let [low, high, bias, zero] = [-lambda, lambda, bias, 0.0].map(|v| g.constant(v));
    let (low, high, bias, zero) = (low?, high?, bias?, zero?);
    let (up, down) = (g.add(x, bias)?, g.sub(x, bias)?);
    let (is_low, is_high) = (g.binary("less", x, low)?, g.binary("greater", x, high)?);
    let y = g.where_(is_high, down, zero)?;
    g.where_(is_low, up, y)
}

fn gelu(c: &mut Call) -> Result<Vec<T>, OpError> {
    let name = if c.node.text("approximate", "none") == "tanh" { "gelu_tanh" } else { "gelu" };
    mapped(c, |g, x| g.unary(name, x))
}

fn clip(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut y = c.t(0)?;
    if c.slots.len() == 1 {
        let (low, high) = (c.node.float("min", f32::MIN), c.node.float("max", f32::MAX));
        let value = c.g().clip(y.value, low, high)?;
        return Ok(vec![y.with(value)]);
    }
    for (i, name) in [(1, "max"), (2, "min")] {
        if c.has(i) {
            let bound = c.t(i)?;
            let bound = c.reshape(bound, &[])?;
            y.value = c.g().binary(name, y.value, bound.value)?;
        }
    }
    Ok(vec![y])
}

fn prelu(c: &mut Call) -> Result<Vec<T>, OpError> {
    // A slope for each channel, as early exports have it.
    let rank = c.rank(0);
    if rank > 2 && c.rank(1) == 1 && c.dims(0)?[1] == c.dims(1)?[0] && c.dims(0)?[rank - 1] != c.dims(1)?[0] {
        let t = c.t(0)?;
        let x = c.arranged(t, &crate::nn::onnx::call::channels_last(rank))?;
        let slope = c.vector(1, "slope", crate::nn::onnx::call::Kind::Trainable)?;
        let y = c.g().prelu(x.value, slope)?;
        return Ok(vec![x.with(y)]);
    }
    let (values, like) = c.aligned(&[0, 1])?;
    let y = c.g().prelu(values[0], values[1])?;
    Ok(vec![like.with(y)])
}

/// Returns a function of rows: along one axis from opset 13 on, over all axes from one on before.
fn softmax(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (op, rank, joins) = (c.node.op, c.rank(0), c.node.opset < 13);
    let axis = c.axis(c.node.int("axis", if joins { 1 } else { -1 }), rank)?;
    let x = c.t(0)?;
    if rank == 0 {
        return Err(c.wrong("a tensor with axes", "a number", "reshape it"));
    }
    let shared = |g: &mut Graph, x: Value| match op {
        "Softmax" => g.softmax(x),
        "LogSoftmax" => g.log_softmax(x),
        _ => {
            let (rank, n) = (g.shape(x).rank(), g.shape(x).last());
            let first = g.argmax(x, rank - 1)?;
            let shape = g.shape(x).clone();
            let mut column = shape.dims().to_vec();
            column[rank - 1] = 1;
            let column = if shape.is_batched() { shape.with_row(&column[1..]) } else { Shape::fixed(column) };
            let first = g.scale(first, 1.0)?;
            let first = g.reshape(first, column)?;
            let places = g.literal([n], (0..n).map(|i| i as f32).collect::<Vec<_>>())?;
            g.binary("equal", places, first)
        }
    };
    let dims = c.dims_of(&x);
    if joins && dims[axis + 1..].iter().any(|&d| d != 1) {
        let rows: usize = dims[..axis].iter().product();
        let flat = c.reshape(x, &[rows, dims[axis..].iter().product()])?;
        let y = shared(c.g(), flat.value)?;
        let y = c.reshape(flat.with(y), &dims)?;
        return Ok(vec![y]);
    }
    let mut axes: Vec<usize> = x.axes.iter().copied().filter(|&a| a != axis).collect();
    axes.push(axis);
    let x = c.arranged(x, &axes)?;
    let y = shared(c.g(), x.value)?;
    Ok(vec![x.with(y)])
}

fn dropout(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let ratio = match c.has(1) {
        true => c.numbers(1, "a ratio")?.first().map_or(0.5, |&v| v as f32),
        false => c.node.float("ratio", 0.5),
    };
    let asked = c.has(2) && c.ints(2, "a mode")?.first() == Some(&1);
    if asked && ratio > 0.0 && !c.place.is_training() {
        let advice = "export the model for inference";
        return Err(c.wrong("dropout that does nothing outside training", "training_mode", advice));
    }
    let y = match c.place.is_training() && ratio > 0.0 {
        true => {
            let name = format!("{}/mask", c.node.name);
            c.g().dropout(x.value, ratio, &name)?
        }
        false => x.value,
    };
    let mut results = vec![x.with(y)];
    if c.node.outputs.len() > 1 {
        let (one, shape) = (c.g().constant(1.0)?, c.g().shape(x.value).clone());
        let mask = c.g().expand(one, &shape)?;
        results.push(T { elem: BOOL, ..x.with(mask) });
    }
    Ok(results)
}
