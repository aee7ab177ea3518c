//! The spectral norm of a kernel by power iteration.

use crate::{
    graph::{Graph, OpError, Value},
    ops::MatmulOptions,
    tensor::Shape,
};

/// Returns a row divided by its length.
fn unit(g: &mut Graph, row: Value) -> Result<Value, OpError> {
    let squares = g.sum_squares(row, &[0, 1], true)?;
    let least = g.constant(1e-12)?;
    let squares = g.max(squares, least)?;
    let length = g.sqrt(squares)?;
    g.div(row, length)
}

/// Returns a row of numbers of at most 1 as a constant: rounding has no gradient.
fn held(g: &mut Graph, row: Value) -> Result<Value, OpError> {
    const FINE: f32 = (1 << 24) as f32;
    let steps = g.scale(row, FINE)?;
    let steps = g.unary("round", steps)?;
    g.scale(steps, 1.0 / FINE)
}

/// Returns a kernel divided by the length of v · kernel, and that direction: u after so many iterations, v the one
/// before; a kernel of zeros stays.
pub(super) fn divided(g: &mut Graph, [kernel, u]: [Value; 2], iterations: usize) -> Result<[Value; 2], OpError> {
    let shape = g.shape(kernel).clone();
    let rows = shape.dims().iter().product::<usize>() / shape.last();
    let matrix = g.reshape(kernel, Shape::fixed([rows, shape.last()]))?;
    let (mut direction, mut norm) = (u, None);
    for _ in 0..iterations {
        let v = g.matmul_with(direction, matrix, MatmulOptions { transpose_a: false, transpose_b: true })?;
        let v = unit(g, v)?;
        let v = held(g, v)?;
        let product = g.matmul(v, matrix)?;
        let squares = g.sum_squares(product, &[0, 1], true)?;
        norm = Some(squares);
        direction = unit(g, product)?;
    }
    let Some(squares) = norm else { return Ok([kernel, u]) };
    let (zero, one) = (g.constant(0.0)?, g.constant(1.0)?);
    let none = g.binary("equal", squares, zero)?;
    let squares = g.where_(none, one, squares)?;
    let norm = g.sqrt(squares)?;
    let norm = g.reshape(norm, Shape::fixed([1]))?;
    Ok([g.div(kernel, norm)?, g.where_(none, u, direction)?])
}
