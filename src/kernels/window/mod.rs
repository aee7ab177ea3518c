//! Windows over each channel alone: depthwise convolution, pooling, their gradients.
//!
//! A lane slides down a strip of an image with the rows of sums, or of the result's gradient, that are under way in registers, so
//! that it loads each element of a strip once for all taps.
//!
//! Along an axis a result needs what `halo = (taps − 1) · dilation / stride` steps before it read. A step of a strip reads the rows
//! that no step before it has read and completes the rows that no later step adds to. Where the stride is 1, positions that are a
//! multiple of the dilation apart form problems of their own (phases) without dilation.

mod axis;
mod max_grad;
mod plan;
mod reduce;
mod strip_sums;
mod wgrad;

pub use max_grad::max_pool_grad;
pub(super) use plan::MAX_TAPS;
pub use reduce::{Reduction, reduce_window};
