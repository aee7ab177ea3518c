//! The operations: one file per family, one line each in [`FAMILIES`].

mod accumulate;
mod accuracy;
mod affine2d;
mod argmax;
mod avg_pool2d;
mod batch_norm;
mod concat;
mod conv2d;
mod conv2d_grad;
mod conv2d_transpose;
mod dropout;
mod elementwise;
mod gather;
mod group_norm;
mod literal;
mod local_response_norm;
mod matmul;
mod max_pool2d;
mod optimizer;
mod pad2d;
mod pool2d;
mod random;
mod recurrent;
mod reduce;
mod reshape;
mod resize2d;
mod slice;
mod softmax;
mod softmax_cross_entropy;
mod top_k;
mod transpose;
mod window;

pub use accumulate::Accumulate;
pub use accuracy::CategoricalAccuracy;
pub use affine2d::{Affine2d, FillMode};
pub use argmax::Argmax;
pub use avg_pool2d::{AvgPool2d, AvgPool2dGrad};
pub use batch_norm::{BatchNorm, BatchNormGrad};
pub use concat::Concat;
pub use conv2d::{Conv2d, Conv2dOptions, Geometry};
pub use conv2d_grad::{Conv2dGradInput, Conv2dGradWeight};
pub use dropout::Dropout;
pub use elementwise::{Elementwise, TABLE, elementary, sample_of};
pub use gather::{Gather, GatherGrad};
pub use group_norm::{GroupNorm, GroupNormGrad};
pub use literal::Literal;
pub use local_response_norm::{LocalResponseNorm, LocalResponseNormGrad};
pub use matmul::{Matmul, MatmulOptions};
pub use max_pool2d::{MaxPool2d, MaxPool2dGrad};
pub use optimizer::{Optimizer, Rule};
pub use pad2d::{Pad2d, Pad2dGrad, PadMode};
pub use pool2d::Pool2dOptions;
pub use random::{Draw, Random};
pub use recurrent::{Cell, CellActivation, CellKind, Recurrent, RecurrentGrad};
pub use reduce::{Reduce, ReduceKind};
pub use reshape::Reshape;
pub use resize2d::{Interpolation, Resize2d, Resize2dGrad};
pub use slice::{Part, Slice, SliceGrad};
pub use softmax::Softmax;
pub use softmax_cross_entropy::SoftmaxCrossEntropy;
pub use top_k::{TopK, TopKGrad};
pub use transpose::Transpose;
pub use window::Padding;

use crate::graph::Family;

/// Every operation family of the crate.
pub static FAMILIES: &[&Family] = &[
    &accumulate::FAMILY,
    &accuracy::FAMILY,
    &affine2d::FAMILY,
    &argmax::FAMILY,
    &avg_pool2d::FAMILY,
    &avg_pool2d::FAMILY_GRAD,
    &batch_norm::FAMILY,
    &batch_norm::FAMILY_GRAD,
    &concat::FAMILY,
    &conv2d::FAMILY,
    &conv2d_grad::INPUT_FAMILY,
    &conv2d_grad::WEIGHT_FAMILY,
    &conv2d_transpose::FAMILY,
    &dropout::FAMILY,
    &elementwise::FAMILY,
    &gather::FAMILY,
    &group_norm::FAMILY,
    &group_norm::FAMILY_GRAD,
    &literal::FAMILY,
    &local_response_norm::FAMILY,
    &local_response_norm::FAMILY_GRAD,
    &matmul::FAMILY,
    &max_pool2d::FAMILY,
    &max_pool2d::FAMILY_GRAD,
    &optimizer::ADAGRAD,
    &optimizer::ADAM,
    &optimizer::NADAM,
    &optimizer::RMSPROP,
    &optimizer::SGD,
    &pad2d::FAMILY,
    &pad2d::FAMILY_GRAD,
    &random::FAMILY,
    &recurrent::GRU,
    &recurrent::GRU_GRAD,
    &recurrent::LSTM,
    &recurrent::LSTM_GRAD,
    &recurrent::SIMPLE,
    &recurrent::SIMPLE_GRAD,
    &reduce::FAMILY,
    &reshape::FAMILY,
    &resize2d::FAMILY,
    &resize2d::FAMILY_GRAD,
    &slice::FAMILY,
    &slice::FAMILY_GRAD,
    &softmax::FAMILY,
    &softmax_cross_entropy::FAMILY,
    &top_k::FAMILY,
    &top_k::FAMILY_GRAD,
    &transpose::FAMILY,
];
