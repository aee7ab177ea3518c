//! Layers, initialisers, regularisers, constraints, losses, metrics, optimisers and models with Keras's names and defaults.

pub mod blocks;
mod config;
mod constraints;
mod functional;
mod initializers;
mod layer;
pub(crate) mod layers;
mod losses;
mod metrics;
mod model;
pub mod models;
mod numbers;
mod optimizers;
mod rates;
mod regularizers;
mod summary;
mod weights;

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
pub use model::{Assembled, Model, Sequential};
pub use numbers::{Bounds, Number, NumberError};
pub use optimizers::{Adagrad, Adam, AdamW, Nadam, Optimizer, RmsProp, Sgd};
pub use rates::{
    CosineDecay, CosineDecayRestarts, ExponentialDecay, InverseTimeDecay, LearningRate, OneCycle,
    PiecewiseConstantDecay, PolynomialDecay,
};
pub use regularizers::{L1, L1L2, L2, Regularizer};
pub use summary::{Row, Summary};
pub(crate) use {
    layer::setter,
    numbers::check_numbers,
    weights::{CHECKPOINT_SUMS, below},
};
