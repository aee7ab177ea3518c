//! Layers, initialisers, losses, metrics, optimisers and models with Keras's names and defaults.

mod initializers;
mod layer;
mod layers;
mod losses;
mod metrics;
mod model;
pub mod models;
mod optimizers;
mod rates;

pub use initializers::{GlorotUniform, HeNormal, Ones, Zeros};
pub use layer::{Layer, LayerError, Mode, Scope, Weight};
pub(crate) use layer::{layer_common, layer_names};
pub use layers::{Activation, BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D, Pair};
pub use losses::{Loss, SparseCategoricalCrossentropy};
pub use metrics::{Accuracy, Metric};
pub use model::{Assembled, Model, Row, Sequential, Summary};
pub use optimizers::{Adam, Optimizer, Sgd};
pub use rates::{LearningRate, OneCycle};
