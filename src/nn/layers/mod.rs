//! The layers, one file for each or for each family; fields are the configuration, defaults are Keras's.

mod sizes;

pub(crate) use sizes::image;
pub use sizes::{DataFormat, Pair, Strides};

use super::{Layer, layer::layer};
use std::sync::Arc;

type Build = fn(serde_json::Value) -> serde_json::Result<Arc<dyn Layer>>;

/// Declares the files of the layers and lists their classes for files.
macro_rules! layers {
    ($($file:ident::{$($Layer:ident),*},)*) => {
        $(mod $file; pub use $file::{$($Layer),*};)*

        /// Every layer's Keras class with what makes it from its options.
        pub(super) const REGISTRY: &[(&str, Build)] =
            &[$($(($Layer::KIND, |options| Ok(Arc::new(serde_json::from_value::<$Layer>(options)?)))),*),*];
    };
}

layers! {
    activation::{ActivationLayer},
    batch_normalization::{BatchNormalization},
    conv2d::{Conv2D},
    dense::{Dense},
    dropout::{Dropout},
    flatten::{Flatten},
    merge::{Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract},
    pooling2d::{AveragePooling2D, MaxPooling2D},
}

pub use activation::Activation;
pub use merge::{add, average, concatenate, maximum, minimum, multiply, subtract};

/// Keras's other name of [`MaxPooling2D`].
pub type MaxPool2D = MaxPooling2D;
/// Keras's other name of [`AveragePooling2D`].
pub type AvgPool2D = AveragePooling2D;
