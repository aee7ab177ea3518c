//! The operations: one file per family, one line each in [`FAMILIES`].

mod accumulate;
mod accuracy;
mod batch_norm;
mod dropout;
mod elementwise;
mod gather;
mod max_pool2d;
mod optimizer;
mod reduce;
mod reshape;
mod softmax;
mod softmax_cross_entropy;
mod transpose;
mod window;

pub use accumulate::Accumulate;
pub use accuracy::CategoricalAccuracy;
pub use batch_norm::{BatchNorm, BatchNormGrad};
pub use dropout::Dropout;
pub use elementwise::{Elementwise, TABLE};
pub use gather::{Gather, GatherGrad};
pub use max_pool2d::{MaxPool2d, MaxPool2dGrad, Pool2dOptions};
pub use optimizer::Optimizer;
pub use reduce::{Reduce, ReduceKind};
pub use reshape::Reshape;
pub use softmax::Softmax;
pub use softmax_cross_entropy::SoftmaxCrossEntropy;
pub use transpose::Transpose;
pub use window::Padding;

use crate::graph::Family;

/// Every operation family of the crate.
pub static FAMILIES: &[&Family] = &[
    &accumulate::FAMILY,
    &accuracy::FAMILY,
    &batch_norm::FAMILY,
    &batch_norm::FAMILY_GRAD,
    &dropout::FAMILY,
    &elementwise::FAMILY,
    &gather::FAMILY,
    &max_pool2d::FAMILY,
    &max_pool2d::FAMILY_GRAD,
    &optimizer::ADAM,
    &optimizer::SGD,
    &reduce::FAMILY,
    &reshape::FAMILY,
    &softmax::FAMILY,
    &softmax_cross_entropy::FAMILY,
    &transpose::FAMILY,
];
