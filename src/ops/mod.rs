//! The operations: one file per family, one line each in [`FAMILIES`].

mod conv2d;
mod conv2d_grad;
mod elementwise;
mod matmul;
mod reduce;
mod reshape;
mod window;

pub use conv2d::{Conv2d, Conv2dOptions, Geometry};
pub use conv2d_grad::{Conv2dGradInput, Conv2dGradWeight};
pub use elementwise::{Elementwise, TABLE};
pub use matmul::{Matmul, MatmulOptions};
pub use reshape::Reshape;
pub use window::Padding;

use crate::graph::Family;

/// Every operation family of the crate.
pub static FAMILIES: &[&Family] = &[
    &elementwise::FAMILY,
    &reshape::FAMILY,
    &matmul::FAMILY,
    &conv2d::FAMILY,
    &conv2d_grad::INPUT_FAMILY,
    &conv2d_grad::WEIGHT_FAMILY,
];
