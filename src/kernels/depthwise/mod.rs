//! Depthwise convolution, pooling and their gradients: a lane slides down strips of images with the rows of sums, or of the
//! result's gradient, that are still open in registers, so that it loads each element of a strip once for all taps.
//!
//! Along an axis, with `back = (taps − 1) · dilation / stride`, step t of a strip reads the rows that later steps no
//! longer need and closes the rows that no later step adds to. Where the stride is 1, positions that are a multiple
//! of the dilation apart form problems of their own (phases) without dilation.

mod filter;
mod plan;
mod slide;

pub use plan::Slide;
pub(super) use plan::{MAX_MADDS, MAX_TAPS, Plan};
pub use slide::slide;
