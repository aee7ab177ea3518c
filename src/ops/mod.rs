//! The operations: one file per family, one line each in [`FAMILIES`].

mod accumulate;
mod accuracy;
mod avg_pool2d;
mod batch_norm;
mod conv2d;
mod conv2d_grad;
mod conv2d_transpose;
mod dropout;
mod elementwise;
mod gather;
mod matmul;
mod max_pool2d;
mod optimizer;
mod pad2d;
mod pool2d;
mod reduce;
mod reshape;
mod softmax;
mod softmax_cross_entropy;
mod transpose;
mod window;

pub use accumulate::Accumulate;
pub use accuracy::CategoricalAccuracy;
pub use avg_pool2d::{AvgPool2d, AvgPool2dGrad};
pub use batch_norm::{BatchNorm, BatchNormGrad};
pub use conv2d::{Conv2d, Conv2dOptions, Geometry};
pub use conv2d_grad::{Conv2dGradInput, Conv2dGradWeight};
pub use dropout::Dropout;
pub use elementwise::{Elementwise, TABLE, elementary};
pub use gather::{Gather, GatherGrad};
pub use matmul::{Matmul, MatmulOptions};
pub use max_pool2d::{MaxPool2d, MaxPool2dGrad};
pub use optimizer::Optimizer;
pub use pad2d::Pad2d;
pub use pool2d::Pool2dOptions;
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
    &avg_pool2d::FAMILY,
    &avg_pool2d::FAMILY_GRAD,
    &batch_norm::FAMILY,
    &batch_norm::FAMILY_GRAD,
    &conv2d::FAMILY,
    &conv2d_grad::INPUT_FAMILY,
    &conv2d_grad::WEIGHT_FAMILY,
    &conv2d_transpose::FAMILY,
    &dropout::FAMILY,
    &elementwise::FAMILY,
    &gather::FAMILY,
    &matmul::FAMILY,
    &max_pool2d::FAMILY,
    &max_pool2d::FAMILY_GRAD,
    &optimizer::ADAM,
    &optimizer::SGD,
    &pad2d::FAMILY,
    &reduce::FAMILY,
    &reshape::FAMILY,
    &softmax::FAMILY,
    &softmax_cross_entropy::FAMILY,
    &transpose::FAMILY,
];
