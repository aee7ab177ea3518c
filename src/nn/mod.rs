//! Layers, initialisers, regularisers, constraints, losses, metrics, optimisers and models, with Keras's names and defaults.
//!
//! **In**: a [`Sequential`] list, or [`Input`]s and the [`Tensor`]s made from them. **Out**: a [`Model`], which replays its layers into any graph
//! (`Model::assemble`), for training or for inference.
//!
//! - [`Layer`] is what a layer implements, [`Scope`] the context that it is built in: start there for a layer of your
//!   own.
//! - [`Loss`], [`Metric`] and [`Optimizer`] build nodes as layers do; [`LearningRate`] schedules are numbers of the step.
//! - [`models`] has the known networks, [`blocks`] their building blocks.
//!
//! Invariants: a layer is its options and holds neither weights nor shapes. Names of weights are Keras's, `layer/weight`. Shapes are
//! checked when a layer is applied.

mod about;
mod args;
pub mod blocks;
pub(crate) mod compiled;
mod config;
mod constraints;
mod functional;
mod graph_config;
mod initializers;
mod keras2;
mod keras_object;
mod keras_save;
mod layer;
pub(crate) mod layers;
mod losses;
mod masks;
mod metrics;
mod model;
pub mod models;
mod names;
#[cfg(feature = "onnx")]
mod onnx;
mod operation;
mod optimizers;
mod regularizers;
mod schedules;
mod sequential;
mod spectral;
mod summary;
mod torch;
mod torch_order;
mod weights;

pub use args::{Bounds, Number, NumberError};
pub use config::KerasOptions;
pub use constraints::{Axes, Constraint};
pub use functional::{Input, Tensor, call, call_all};
pub use initializers::{Distribution, FanMode, Initializer};
pub use layer::{IntoLayer, Layer, LayerError, Mode, Scope, Weight, WeightOptions};
pub use layers::*;
pub use losses::{
    BinaryCrossentropy, CategoricalCrossentropy, CategoricalHinge, CosineSimilarity, Hinge, Huber, KLDivergence,
    LogCosh, Loss, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError, MeanSquaredLogarithmicError,
    Poisson, SparseCategoricalCrossentropy, SquaredHinge,
};
pub use metrics::{
    Accuracy, Auc, BinaryAccuracy, Curve, Metric, Precision, Recall, RootMeanSquaredError, TopKAccuracy,
};
pub use model::{Assembled, Model};
#[cfg(feature = "onnx")]
pub use onnx::{OnnxExport, OnnxOptions, onnx_operators};
pub use optimizers::{Adagrad, Adam, AdamW, Nadam, Optimizer, RmsProp, Sgd};
pub use regularizers::{L1, L1L2, L2, Regularizer};
pub use schedules::{
    CosineDecay, CosineDecayRestarts, ExponentialDecay, InverseTimeDecay, LearningRate, OneCycle,
    PiecewiseConstantDecay, PolynomialDecay,
};
pub use sequential::Sequential;
pub use summary::{Row, Summary};
pub(crate) use {
    about::Training,
    args::check_numbers,
    layer::setter,
    weights::{CHECKPOINT_SUMS, below},
};
