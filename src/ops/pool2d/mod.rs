//! Pooling over the two image axes: one operation whose reduction is a parameter (JAX `reduce_window`).
//!
//! [`Pooling`] in `op.rs` says for each reduction what it is, what its gradient is and which kernels compute both; `window.rs`
//! has the windows, `methods.rs` the methods of the graph, `families.rs` the samples, mistakes. A new reduction is
//! a variant of [`Pooling`], a shader for windows of many pixels, and two families; windows of few pixels slide
//! ([`kernels::reduce_window`](crate::kernels::reduce_window)) once a [`Reduction`](crate::kernels::Reduction) says what they add up.

mod families;
mod methods;
mod op;
mod window;

pub use families::{AVERAGE, AVERAGE_GRAD, L2, L2_GRAD, MAX, MAX_GRAD};
pub use op::{Pool2d, Pool2dGrad, Pooling};
pub use window::Pool2dOptions;
