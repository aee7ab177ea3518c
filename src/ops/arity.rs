//! How many inputs an operation has.

use crate::graph::{OpError, TensorType};

/// Returns the inputs as an array, or the error that says how many are wanted and `advice`.
pub(super) fn arity<'t, const N: usize>(
    op: &str,
    inputs: &'t [TensorType],
    advice: &str,
) -> Result<&'t [TensorType; N], OpError> {
    let wanted = if N == 1 { "1 input".to_owned() } else { format!("{N} inputs") };
    inputs.try_into().map_err(|_| OpError::new(op, wanted, inputs.len(), advice))
}
