//! Optimisers: one launch changes all weights and their moments in place.
//!
//! The members of each group (weights, gradients, moments) are contiguous, at multiples of 256 bytes, so
//! that one binding covers a group and a flat index finds a weight, its gradient and its moments.

mod families;
mod methods;
mod op;
mod rule;

pub use families::{ADAGRAD, ADAM, MOVING_AVERAGE, NADAM, RMSPROP, SGD};
pub use op::Optimizer;
pub use rule::Rule;
