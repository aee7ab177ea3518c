//! Convolutional networks on any GPU: training, fine-tuning and inference on Vulkan, Metal and DirectX 12 through
//! [`wgpu`], with Keras's layers, defaults and file formats.
//!
//! ```no_run
//! use hubel::{layers::*, losses::*, metrics::*, optimizers::*, prelude::*};
//!
//! let model = Sequential::new([28, 28, 1])
//!     .add(Conv2D::new(32, 3).activation(Relu))
//!     .add(MaxPooling2D::new(2))
//!     .add(Flatten::new())
//!     .add(Dense::new(10).activation(Softmax))
//!     .build()?;
//! let mnist = data::mnist("examples/data/mnist")?;
//! let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy);
//! let mut trainer = model.compile(&Engine::new()?, config)?;
//! trainer.fit(&mnist.train, Fit::epochs(5).validation(&mnist.test))?;
//! # Ok::<(), hubel::Error>(())
//! ```
//!
//! # Where to start
//!
//! - **Train or learn**: [`nn::Sequential`] and [`nn::Input`] build a model, [`nn::Model`]'s `compile` makes a
//!   [`train::Trainer`]. The repository's `docs/learn` is a course, `docs/guide.md` explains the API by task.
//! - **Embed**: [`runtime::Engine::from_wgpu`] takes the application's device, [`train::Inference::record`] records a
//!   network into its command encoder (`docs/embedding.md`, `examples/embed.rs`).
//! - **Go below the layers**: [`graph::Graph`] has operations and gradients, [`passes::plan()`] turns a graph into a plan,
//!   [`runtime::Session`] runs it. An operation of another crate implements [`graph::Op`] (`examples/custom_op.rs`).
//!
//! # Modules
//!
//! | module | what it has |
//! |---|---|
//! | [`prelude`], [`layers`], [`losses`], [`metrics`], [`optimizers`], [`callbacks`] | what programs import |
//! | [`nn`] | layers, models, their files, and the known networks ([`nn::models`]) |
//! | [`train`] | compile, fit, evaluate, predict; inference, explanations, style transfer |
//! | [`data`] | data sets, images, and drawings of results |
//! | [`io`] | readers and writers of files, each within a budget of memory and work |
//! | [`runtime`] | engines, and the stores and sessions that hold tensors and run plans |
//! | [`tensor`] | shapes, element types, tensors on the host, random numbers, accuracies |
//! | [`graph`], [`ops`], [`kernels`], [`passes`] | from an operation's definition to a plan; [unstable](#stability) |
//!
//! # Stability
//!
//! Versions follow [Semantic Versioning](https://semver.org): before 1.0 a minor version may break programs, a patch
//! version may not. The promise covers every module but those whose documentation says *Unstable*, which may change
//! in any version:
//!
//! - [`ops`], [`kernels`] and [`passes`], and in [`graph`] what operations are made of ([`graph::Op`] and what its methods
//!   take and return). Stable there are [`graph::Graph`]'s methods that build a network, with the options and types that
//!   they take, such as [`ops::Conv2dOptions`].
//! - `testing`, the test kit for operations, and `cli`, which the examples share.
//!
//! Structs that programs write, such as [`data::Dataset`] and [`ops::Conv2dOptions`], may get further fields: end them
//! with `..`, as in `..Default::default()`. Types of [`wgpu`] are part of the API: its next major version is a breaking
//! change. Results may differ in their bits between any two versions, within the published bounds.
//!
//! # How it works
//!
//! A training step (forward, loss, gradients, metrics, optimizer) is one graph. It becomes a [`passes::Plan`] once: operations
//! are fused, each gets a kernel, each tensor a range of memory. A step then records one command encoder with one
//! compute pass, or several of at most 100 ms; nothing is created on the device after the first. The same binary, adapter,
//! driver, plan and seed give the same bits.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `images` | PNG and JPEG images to and from tensors | yes |
//! | `weights` | weights in archives: `.keras`, `.npz` and PyTorch's `.pth` | yes |
//! | `onnx` | models from ONNX files, and models as ONNX files | no |
//! | `plots` | curves, confusion matrices and feature maps as PNG, plots of models | no |
//! | `fetch` | published weights over HTTPS | no |
//! | `cli` | the command `hubel`, the progress bar, options that command lines share | no |
//! | `testing` | the test kit for operations of other crates | no |
//! | `live-shaders` | WGSL is read from the source folder at run time; for work on Hubel itself | no |
//!
//! # Limits
//!
//! Numbers are `f32`. `fit`, `evaluate` and `predict` block, so browsers are not supported. Training takes one input. No GPU has been measured yet: all tests run on software Vulkan drivers, and the kernels for GPUs are
//! checked for their results and their validity, not for speed.
//!
//! # Errors and panics
//!
//! Every fallible call returns [`Error`] or one of its parts. Errors name the layer, node, file or option, say what was
//! wanted, what was given, and what to do. A panic is a bug in Hubel.

#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// No input makes the library panic, and only the progress bar prints.
#![cfg_attr(not(test), deny(clippy::dbg_macro, clippy::panic, clippy::print_stdout, clippy::todo))]
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::unimplemented, clippy::unwrap_used))]

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
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    Format(#[from] io::FormatError),
    /// A layer cannot be built.
    #[error(transparent)]
    Layer(#[from] nn::LayerError),
    /// An operation cannot be built on its inputs.
    #[error(transparent)]
    Op(#[from] graph::OpError),
    /// A graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] passes::PlanError),
    /// The device or its driver.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    /// A host tensor's elements do not fit its shape.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// Training, evaluation or prediction failed.
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
    pub use crate::nn::Activation::*;
    pub use crate::nn::DataFormat::{ChannelsFirst, ChannelsLast};
    pub use crate::nn::Initializer::{
        GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal, LecunUniform, Ones, Zeros,
    };
    pub use crate::nn::layers::*;
    pub use crate::nn::{Constraint, L1, L1L2, L2, Regularizer};
    pub use crate::ops::Padding::{Same, Valid};
}

/// Losses of [`train::Compile`].
pub mod losses {
    pub use crate::nn::{
        BinaryCrossentropy, CategoricalCrossentropy, CategoricalHinge, CosineSimilarity, Hinge, Huber, KLDivergence,
        LogCosh, Loss, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError, MeanSquaredLogarithmicError,
        Poisson, SparseCategoricalCrossentropy, SquaredHinge,
    };
}

/// Metrics of [`train::Compile`].
pub mod metrics {
    pub use crate::nn::{Accuracy, Auc, BinaryAccuracy, Metric, Precision, Recall, RootMeanSquaredError, TopKAccuracy};
}

/// Optimizers and learning-rate schedules.
pub mod optimizers {
    pub use crate::nn::{
        Adagrad, Adam, AdamW, CosineDecay, CosineDecayRestarts, ExponentialDecay, InverseTimeDecay, LearningRate,
        Nadam, OneCycle, Optimizer, PiecewiseConstantDecay, PolynomialDecay, RmsProp, Sgd,
    };
}

/// Callbacks of [`train::Fit`].
pub mod callbacks {
    pub use crate::train::{
        Callback, CallbackState, CsvLogger, Direction, EarlyStopping, LearningRateScheduler, ModelCheckpoint,
        ReduceLROnPlateau, TensorBoard, TerminateOnNaN, Watch,
    };
}

/// Documents whose Rust blocks are compiled and run as doctests.
#[cfg(doctest)]
mod documents {
    macro_rules! documents {
        ($($name:ident $path:literal,)*) => {
            $(#[doc = include_str!(concat!("../", $path))] struct $name;)*
        };
    }

    documents! {
        Readme "README.md",
        Embedding "docs/embedding.md",
        Guide "docs/guide.md",
        DevKernels "docs/dev/kernels.md",
        DevLayers "docs/dev/layers.md",
        DevOps "docs/dev/ops.md",
        DevPlan "docs/dev/plan.md",
        Convolution "docs/learn/01_convolution.md",
        LeNet "docs/learn/02_lenet.md",
        Pooling "docs/learn/03_pooling.md",
        BatchNorm "docs/learn/04_batch_norm.md",
        Vgg "docs/learn/05_vgg.md",
        ResNet "docs/learn/06_resnet.md",
        SqueezeExcitation "docs/learn/07_squeeze_excitation.md",
        Overfitting "docs/learn/08_overfitting.md",
        Augmentation "docs/learn/09_augmentation.md",
        Transfer "docs/learn/10_transfer.md",
        LookingInside "docs/learn/11_looking_inside.md",
        Style "docs/learn/12_style.md",
        Recurrent "docs/learn/13_recurrent.md",
    }
}
