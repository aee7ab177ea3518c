//! Quantised operators, computed in 32-bit floats: whole numbers of 8 bits and their products are exact in them.

use super::{
    conv::{groups, kernel, options},
    matmul::product,
    window::{Window, images, maps},
};
use crate::{
    graph::{OpError, Value},
    nn::onnx::{
        call::{Build, Call, T},
        constant::FLOAT,
    },
    tensor::Shape,
};

pub const OPERATORS: &[(&str, Build)] = &[
    ("ConvInteger", conv_integer),
    ("DequantizeLinear", dequantize),
    ("DynamicQuantizeLinear", dynamic),
    ("MatMulInteger", matmul_integer),
    ("QLinearConv", quantized_conv),
    ("QLinearMatMul", quantized_matmul),
    ("QuantizeLinear", quantize),
];

const UINT8: i32 = 2;
const INT32: i32 = 6;

/// Returns the smallest and the largest number of a type.
fn range(elem: i32) -> [f32; 2] {
    match elem {
        3 => [-128.0, 127.0],
        4 => [0.0, 65_535.0],
        5 => [-32_768.0, 32_767.0],
        21 => [0.0, 15.0],
        22 => [-8.0, 7.0],
        _ => [0.0, 255.0],
    }
}

/// Returns a scale or zero point for a tensor stored as `x`: one number, or one for each place along an axis.
fn parameter(c: &mut Call, i: usize, x: &T, axis: usize) -> Result<Value, OpError> {
    let t = c.natural(i)?;
    let dims = c.dims_of(&t);
    match dims[..] {
        [] | [1] => c.g().reshape(t.value, Shape::scalar()),
        [n] => {
            let mut whole = vec![1; x.rank()];
            whole[x.place(axis)] = n;
            c.g().reshape(t.value, Shape::fixed(whole))
        }
        _ => Err(c.wrong("one scale, or one for each place along an axis", format!("{dims:?}"), "quantise by axes")),
    }
}

fn axis(c: &Call, rank: usize) -> Result<usize, OpError> {
    if rank == 0 { Ok(0) } else { c.axis(c.node.int("axis", 1).min(rank as i64 - 1), rank) }
}

/// Returns whole numbers: x / scale + zero, rounded and held in the range of their type.
fn rounded(c: &mut Call, x: Value, scale: Value, zero: Option<Value>, elem: i32) -> Result<Value, OpError> {
    let [low, high] = range(elem);
    let g = c.g();
    let quotient = g.div(x, scale)?;
    let mut whole = g.unary("round", quotient)?;
    if let Some(zero) = zero {
        whole = g.add(whole, zero)?;
    }
    g.clip(whole, low, high)
}

fn quantize(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let axis = axis(c, x.rank())?;
    let scale = parameter(c, 1, &x, axis)?;
    let zero = if c.has(2) { Some(parameter(c, 2, &x, axis)?) } else { None };
    let elem = if c.has(2) { c.elem(2) } else { c.node.int("output_dtype", i64::from(UINT8)) as i32 };
    if !matches!(elem, 2..=5 | 21 | 22) {
        let got = crate::io::onnx::type_name(elem);
        return Err(c.wrong("whole numbers of 4, 8 or 16 bits", got, "quantise to int8 or uint8"));
    }
    let value = rounded(c, x.value, scale, zero, elem)?;
    Ok(vec![T { elem, ..x.with(value) }])
}

fn dequantize(c: &mut Call) -> Result<Vec<T>, OpError> {
    let mut x = c.t(0)?;
    let axis = axis(c, x.rank())?;
    if c.has(2) {
        let zero = parameter(c, 2, &x, axis)?;
        x.value = c.g().sub(x.value, zero)?;
    }
    let scale = parameter(c, 1, &x, axis)?;
    let value = c.g().mul(x.value, scale)?;
    Ok(vec![T { elem: FLOAT, ..x.with(value) }])
}

/// Returns whole numbers with scale and zero point of the tensor's range. Of a batch, whose samples are computed apart, the numbers
/// stay as they are.
fn dynamic(c: &mut Call) -> Result<Vec<T>, OpError> {
    let x = c.t(0)?;
    let g = c.g();
    if g.shape(x.value).is_batched() {
        let (one, zero) = (g.constant(1.0)?, g.constant(0.0)?);
        return Ok(vec![x.clone(), T::natural(one, 0, FLOAT), T::natural(zero, 0, UINT8)]);
    }
    let axes: Vec<usize> = (0..x.rank()).collect();
    let zero = g.constant(0.0)?;
    let (top, bottom) = (g.max_axes(x.value, &axes, false)?, g.min_axes(x.value, &axes, false)?);
    let (top, bottom) = (g.max(top, zero)?, g.binary("min", bottom, zero)?);
    let width = g.sub(top, bottom)?;
    let levels = g.constant(255.0)?;
    let scale = g.div(width, levels)?;
    let start = g.div(bottom, scale)?;
    let start = g.neg(start)?;
    let start = g.unary("round", start)?;
    let start = g.clip(start, 0.0, 255.0)?;
    let value = rounded(c, x.value, scale, Some(start), UINT8)?;
    Ok(vec![T { elem: UINT8, ..x.with(value) }, T::natural(scale, 0, FLOAT), T::natural(start, 0, UINT8)])
}

/// Returns an operand less its zero point, operand `zero`.
fn centred(c: &mut Call, i: usize, zero: usize, axis: usize) -> Result<T, OpError> {
    let x = c.t(i)?;
    if !c.has(zero) {
        return Ok(x);
    }
    let zero = parameter(c, zero, &x, axis)?;
    let value = c.g().sub(x.value, zero)?;
    Ok(x.with(value))
}

fn matmul_integer(c: &mut Call) -> Result<Vec<T>, OpError> {
    let rank = c.rank(0);
    let a = centred(c, 0, 2, rank.saturating_sub(2))?;
    let b = centred(c, 1, 3, c.rank(1).saturating_sub(1))?;
    let y = product(c, a, b)?;
    Ok(vec![T { elem: INT32, ..y }])
}

fn quantized_matmul(c: &mut Call) -> Result<Vec<T>, OpError> {
    let a = centred(c, 0, 2, c.rank(0).saturating_sub(2))?;
    let b = centred(c, 3, 5, c.rank(3).saturating_sub(1))?;
    let (of_a, of_b) =
        (parameter(c, 1, &a, c.rank(0).saturating_sub(2))?, parameter(c, 4, &b, c.rank(3).saturating_sub(1))?);
    let y = product(c, a, b)?;
    let g = c.g();
    let y_value = g.mul(y.value, of_a)?;
    let y_value = g.mul(y_value, of_b)?;
    let (scale, zero) = (parameter(c, 6, &y, 0)?, parameter(c, 7, &y, 0)?);
    let elem = c.elem(7);
    let value = rounded(c, y_value, scale, Some(zero), elem)?;
    Ok(vec![T { elem, ..y.with(value) }])
}

/// Returns a convolution of whole numbers, images less `x_zero` with weights `w` less `w_zero`.
fn convolved(c: &mut Call, w: usize, x_zero: usize, w_zero: usize) -> Result<(T, Value, usize), OpError> {
    let (x, size, rank) = images(c)?;
    let mut image = x.value;
    if c.has(x_zero) {
        let zero = parameter(c, x_zero, &x, 1)?;
        image = c.g().sub(image, zero)?;
    }
    let (mut kernel, taps) = kernel(c, w)?;
    if c.has(w_zero) {
        // One for each filter, which are the kernel's last axis.
        let t = c.natural(w_zero)?;
        let n = c.dims_of(&t).iter().product::<usize>();
        let zero = c.g().reshape(t.value, if n == 1 { Shape::scalar() } else { Shape::fixed([n]) })?;
        kernel = c.g().sub(kernel, zero)?;
    }
    let (window, groups) = (Window::of(c, &size, Some(&taps))?, groups(c)?);
    let y = c.g().conv2d(image, kernel, options(&window, groups))?;
    Ok((x, y, rank))
}

fn conv_integer(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, y, rank) = convolved(c, 1, 2, 3)?;
    let y = maps(c, &x, y, rank)?;
    Ok(vec![T { elem: INT32, ..y }])
}

fn quantized_conv(c: &mut Call) -> Result<Vec<T>, OpError> {
    let (x, mut y, rank) = convolved(c, 3, 2, 5)?;
    let vector = |c: &mut Call, i: usize| -> Result<Value, OpError> {
        let t = c.natural(i)?;
        let n = c.dims_of(&t).iter().product::<usize>();
        c.g().reshape(t.value, if n == 1 { Shape::scalar() } else { Shape::fixed([n]) })
    };
    if c.has(8) {
        let bias = vector(c, 8)?;
        y = c.g().add(y, bias)?;
    }
    let (of_x, of_w) = (vector(c, 1)?, vector(c, 4)?);
    let g = c.g();
    y = g.mul(y, of_x)?;
    y = g.mul(y, of_w)?;
    let (scale, zero, elem) = (vector(c, 6)?, vector(c, 7)?, c.elem(7));
    let value = rounded(c, y, scale, Some(zero), elem)?;
    let y = maps(c, &x, value, rank)?;
    Ok(vec![T { elem, ..y }])
}
