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

/// What most programs need.
pub mod prelude {
    pub use crate::data::{self, Dataset};
    #[cfg(feature = "images")]
    pub use crate::data::{ColorMode, ImageFolder};
    pub use crate::graph::{Graph, Value};
    pub use crate::nn::Activation::{
        self, Elu, Exponential, Gelu, HardSigmoid, HardSwish, LeakyRelu, Linear, LogSoftmax, Mish, Relu, Relu6, Selu,
        Sigmoid, Softmax, Softplus, Softsign, Swish, Tanh,
    };
    pub use crate::nn::DataFormat::{self, ChannelsFirst, ChannelsLast};
    pub use crate::nn::Initializer::{
        self, GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal, LecunUniform, Ones, Zeros,
    };
    pub use crate::nn::{
        Accuracy, Adagrad, Adam, AdamW, Auc, BinaryAccuracy, BinaryCrossentropy, CategoricalCrossentropy,
        CategoricalHinge, Constraint, CosineDecay, CosineDecayRestarts, CosineSimilarity, ExponentialDecay, Hinge,
        Huber, Input, IntoLayer, InverseTimeDecay, KLDivergence, L1, L1L2, L2, Layer, LayerError, LearningRate,
        LogCosh, Loss, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError, MeanSquaredLogarithmicError,
        Metric, Model, Nadam, OneCycle, Optimizer, PiecewiseConstantDecay, Poisson, PolynomialDecay, Precision, Recall,
        Regularizer, RmsProp, RootMeanSquaredError, Sequential, Sgd, SparseCategoricalCrossentropy, SquaredHinge,
        Tensor, TopKAccuracy, models,
    };
    pub use crate::nn::{
        ActivationLayer, Add, Average, AveragePooling1D, AveragePooling2D, AvgPool2D, BatchNormalization,
        Bidirectional, CenterCrop, Concatenate, Conv1D, Conv2D, Conv2DTranspose, Cropping1D, Cropping2D,
        CustomScaleLayer, Dense, DepthwiseConv2D, Dropout, ELU, Embedding, Flatten, GRU, GaussianNoise,
        GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalMaxPooling1D, GlobalMaxPooling2D, GroupNormalization,
        LSTM, LayerNormalization, LeakyReLU, LocalResponseNormalization, LpPooling2D, MaxPool2D, MaxPooling1D,
        MaxPooling2D, Maximum, Minimum, Multiply, Normalization, PReLU, Permute, RandomBrightness, RandomContrast,
        RandomCrop, RandomFlip, RandomRotation, RandomTranslation, RandomZoom, ReLU, RepeatVector, Rescaling, Reshape,
        Resizing, SeparableConv2D, SimpleRNN, SoftmaxLayer, SpatialDropout2D, Subtract, TimeDistributed, UpSampling1D,
        UpSampling2D, ZeroPadding1D, ZeroPadding2D, add, average, concatenate, maximum, minimum, multiply, subtract,
    };
    pub use crate::ops::{
        Conv2dOptions,
        Padding::{self, Same, Valid},
    };
    pub use crate::runtime::Engine;
    pub use crate::tensor::{Batch, DType, DType::F32, HostTensor, Shape};
    #[cfg(feature = "cli")]
    pub use crate::train::ProgressBar;
    pub use crate::train::{
        Callback, Compile, Control, CsvLogger, Direction, EarlyStopping, Fit, History, Inference,
        LearningRateScheduler, ModelCheckpoint, NotFinite, Progress, ReduceLROnPlateau, Scores, TensorBoard,
        TerminateOnNaN, Trainer, Watch,
    };
}

#[cfg(doctest)]
#[doc = include_str!("../docs/surface.md")]
struct Surface;
