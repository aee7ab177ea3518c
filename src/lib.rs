#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod graph;
pub mod io;
pub mod kernels;
pub mod nn;
pub mod ops;
pub mod passes;
pub mod runtime;
pub mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
pub mod train;

pub use wgpu;

/// Everything that can go wrong, one variant per boundary.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or its contents are not what they should be.
    #[error(transparent)]
    Format(#[from] io::FormatError),
    /// A layer cannot be built.
    #[error(transparent)]
    Layer(#[from] nn::LayerError),
    /// An operation cannot be built on its inputs.
    #[error(transparent)]
    Op(#[from] graph::OpError),
    /// A graph cannot become a plan.
    #[error(transparent)]
    Plan(#[from] passes::PlanError),
    /// The device or its driver.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    /// A host tensor's elements do not fit its shape.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// Training was asked for something that cannot be.
    #[error(transparent)]
    Train(#[from] train::TrainError),
}

/// What every program needs. Layers, losses, metrics, optimizers and callbacks have modules of their own.
pub mod prelude {
    pub use crate::data::{self, Dataset};
    #[cfg(feature = "images")]
    pub use crate::data::{ColorMode, ImageFolder};
    pub use crate::graph::{Graph, Value};
    pub use crate::nn::{
        Activation, DataFormat, Initializer, Input, IntoLayer, Layer, LayerError, LearningRate, Loss, Metric, Model,
        Optimizer, Sequential, Tensor, models,
    };
    pub use crate::ops::{Conv2dOptions, Padding};
    pub use crate::runtime::Engine;
    pub use crate::tensor::{Batch, DType, DType::F32, HostTensor, Shape};
    #[cfg(feature = "cli")]
    pub use crate::train::ProgressBar;
    pub use crate::train::{Callback, Compile, Control, Fit, History, Inference, NotFinite, Progress, Scores, Trainer};
}

/// Layers, and the values that their options take: activations, padding, initializers, regularizers, constraints.
pub mod layers {
    pub use crate::nn::Activation::{
        Elu, Exponential, Gelu, HardSigmoid, HardSwish, LeakyRelu, Linear, LogSoftmax, Mish, Relu, Relu6, Selu,
        Sigmoid, Softmax, Softplus, Softsign, Swish, Tanh,
    };
    pub use crate::nn::DataFormat::{ChannelsFirst, ChannelsLast};
    pub use crate::nn::Initializer::{
        GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal, LecunUniform, Ones, Zeros,
    };
    pub use crate::nn::layers::*;
    pub use crate::nn::{Constraint, L1, L1L2, L2, Regularizer};
    pub use crate::ops::Padding::{Same, Valid};
}

/// Losses of [`train::Compile`](crate::train::Compile).
pub mod losses {
    pub use crate::nn::{
        BinaryCrossentropy, CategoricalCrossentropy, CategoricalHinge, CosineSimilarity, Hinge, Huber, KLDivergence,
        LogCosh, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError, MeanSquaredLogarithmicError,
        Poisson, SparseCategoricalCrossentropy, SquaredHinge,
    };
}

/// Metrics of [`train::Compile`](crate::train::Compile).
pub mod metrics {
    pub use crate::nn::{Accuracy, Auc, BinaryAccuracy, Precision, Recall, RootMeanSquaredError, TopKAccuracy};
}

/// Optimizers and learning-rate schedules.
pub mod optimizers {
    pub use crate::nn::{
        Adagrad, Adam, AdamW, CosineDecay, CosineDecayRestarts, ExponentialDecay, InverseTimeDecay, Nadam, OneCycle,
        PiecewiseConstantDecay, PolynomialDecay, RmsProp, Sgd,
    };
}

/// Callbacks of [`train::Fit`](crate::train::Fit).
pub mod callbacks {
    pub use crate::train::{
        CallbackState, CsvLogger, Direction, EarlyStopping, LearningRateScheduler, ModelCheckpoint, ReduceLROnPlateau,
        TensorBoard, TerminateOnNaN, Watch,
    };
}

#[cfg(doctest)]
#[doc = include_str!("../docs/surface.md")]
struct Surface;
