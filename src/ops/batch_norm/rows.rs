//! Sums over rows, and what all operations of batch normalisation demand of their inputs.

use crate::{
    graph::{OpError, TensorType},
    tensor::Shape,
};

/// Returns an error if the inputs are not those named, or `epsilon` is none.
pub(super) fn check(op: &str, epsilon: f32, inputs: &[TensorType], names: &str, full: &[usize]) -> Result<(), OpError> {
    let n = names.split(' ').count();
    if inputs.len() != n {
        return Err(OpError::new(op, format!("{n} inputs ({names})"), inputs.len(), "pass them in this order"));
    }
    let x = &inputs[0];
    if x.shape.rank() < 2 || x.shape.last() == 0 {
        return Err(OpError::new(op, "a tensor of rank 2 or more, channels last", x, "reshape it to (rows, channels)"));
    }
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(OpError::new(op, "a positive epsilon", epsilon, "Keras uses 1e-3"));
    }
    for (i, (input, name)) in inputs.iter().zip(names.split(' ')).enumerate() {
        let wanted = TensorType::f32(if full.contains(&i) { x.shape.clone() } else { Shape::fixed([x.shape.last()]) });
        if *input != wanted {
            return Err(OpError::new(op, format!("{name} of {wanted}"), input, "one value per channel of x, in f32"));
        }
    }
    Ok(())
}

/// Returns for each channel the sum of `f` over all rows, `f` being given row-major indices.
pub(super) fn channel_sums(shape: &[usize], f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let c = shape.last().copied().unwrap_or(1).max(1);
    let mut sums = vec![0.0; c];
    for i in 0..shape.iter().product() {
        sums[i % c] += f(i, i % c);
    }
    sums
}

pub(super) fn n_rows(shape: &[usize]) -> f64 {
    shape.iter().rev().skip(1).product::<usize>().max(1) as f64
}
