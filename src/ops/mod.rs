//! The operations: one file per family, one line each in [`FAMILIES`].

mod batch_norm;
mod dropout;
mod elementwise;
mod max_pool2d;
mod reduce;
mod reshape;
mod softmax;
mod softmax_cross_entropy;
mod window;

pub use batch_norm::{BatchNorm, BatchNormGrad};
pub use dropout::Dropout;
pub use elementwise::{Elementwise, TABLE};
pub use max_pool2d::{MaxPool2d, MaxPool2dGrad, Pool2dOptions};
pub use reshape::Reshape;
pub use softmax::Softmax;
pub use softmax_cross_entropy::SoftmaxCrossEntropy;
pub use window::Padding;

use crate::graph::Family;

/// Every operation family of the crate.
pub static FAMILIES: &[&Family] = &[
    &elementwise::FAMILY,
    &reshape::FAMILY,
    &max_pool2d::FAMILY,
    &max_pool2d::FAMILY_GRAD,
    &batch_norm::FAMILY,
    &batch_norm::FAMILY_GRAD,
    &softmax::FAMILY,
    &softmax_cross_entropy::FAMILY,
    &dropout::FAMILY,
];
