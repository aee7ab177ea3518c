//! The layers, one file for each or for each family. Fields are the configuration; defaults are Keras's.
//!
//! Each file declares its layer with `layer!`, which makes the setters and the configuration for files, and adds `new` and `call`.
//! `layers!` below lists the classes that files can name. Layers compose methods of [`Graph`](crate::graph::Graph) and have no kernels.

mod sizes;
mod stepped;
pub(super) mod training_only;

pub(crate) use merge::axis;
pub use sizes::{Axis, DataFormat, Pair, Single, SingleStrides, Strides, Triple, TripleStrides};
pub(crate) use sizes::{groups, image};
#[cfg(feature = "onnx")]
pub(super) use volumes::{Depth, convolution, convolution_transposed, planes_of_tap};

use super::{
    Initializer, Layer, Regularizer,
    args::{Finite, finite},
    layer::layer,
};
use crate::ops::{FillMode, Interpolation, Padding};
use std::sync::Arc;

type Build = fn(serde_json::Value) -> serde_json::Result<Arc<dyn Layer>>;

/// Returns the Keras class of every layer that can be read from a file, in the order of the layers' files.
///
/// ```
/// assert!(hubel::nn::layer_classes().any(|class| class == "Conv2D"));
/// ```
pub fn layer_classes() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|(class, _)| *class)
}

/// Returns the Keras classes of random changes that files may have and predictions pass over, but training refuses, each
/// with the reason.
pub fn inference_only_classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    training_only::CLASSES.into_iter()
}

/// Declares the files of the layers and lists their classes for files.
macro_rules! layers {
    ($($file:ident::{$($Layer:ident),*},)*) => {
        $(mod $file; pub use $file::{$($Layer),*};)*

        /// Every layer's Keras class, with the function that builds it from its options.
        pub(super) const REGISTRY: &[(&str, Build)] =
            &[$($(($Layer::KIND, |options| Ok(Arc::new(serde_json::from_value::<$Layer>(options)?)))),*),*];
    };
}

layers! {
    activation::{ActivationLayer},
    adaptive::{
        AdaptiveAveragePooling1D, AdaptiveAveragePooling2D, AdaptiveAveragePooling3D, AdaptiveMaxPooling1D, AdaptiveMaxPooling2D,
        AdaptiveMaxPooling3D
    },
    attention::{AdditiveAttention, Attention, Dot, EinsumDense, MultiHeadAttention},
    augmentation::{
        CenterCrop, RandomBrightness, RandomContrast, RandomCrop, RandomFlip, RandomRotation, RandomTranslation, RandomZoom
    },
    batch_normalization::{BatchNormalization},
    categories::{CategoryEncoding, Discretization, IntegerLookup},
    colors::{
        RandomColorDegeneration, RandomColorJitter, RandomGrayscale, RandomHue, RandomInvert, RandomPosterization, RandomSaturation,
        Solarization
    },
    conv1d::{Conv1D},
    conv2d::{Conv2D},
    conv2d_transpose::{Conv2DTranspose},
    conv_lstm::{ConvLSTM1D, ConvLSTM2D, ConvLSTM3D},
    convnext::{LayerScale, StochasticDepth},
    dense::{Dense},
    depthwise_conv2d::{DepthwiseConv2D},
    dropout::{
        ActivityRegularization, AlphaDropout, Dropout, GaussianDropout, Identity, SpatialDropout1D, SpatialDropout2D, SpatialDropout3D
    },
    embedding::{Embedding},
    equalization::{Equalization},
    flatten::{Flatten},
    gaussian_noise::{GaussianNoise},
    global_pooling::{
        GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalAveragePooling3D, GlobalMaxPooling1D, GlobalMaxPooling2D,
        GlobalMaxPooling3D
    },
    group_normalization::{GroupNormalization},
    layer_normalization::{LayerNormalization},
    local_response_normalization::{LocalResponseNormalization},
    masking::{Masking},
    mel_spectrogram::{MelSpectrogram},
    merge::{Add, Average, Concatenate, CustomScaleLayer, Maximum, Minimum, Multiply, Subtract},
    normalize::{RMSNormalization, UnitNormalization},
    padding::{Cropping1D, Cropping2D, Cropping3D, ZeroPadding1D, ZeroPadding2D, ZeroPadding3D},
    pooling1d::{AveragePooling1D, MaxPooling1D},
    pooling2d::{AveragePooling2D, LpPooling2D, MaxPooling2D},
    preprocessing::{AutoContrast, Normalization, Rescaling},
    random_changes::{RandAugment, RandomErasing, RandomGaussianBlur, RandomSharpness, RandomShear},
    recurrent::{GRU, LSTM, SimpleRNN},
    relu::{ELU, LeakyReLU, PReLU, ReLU},
    reshape::{Permute, RepeatVector, Reshape, SoftmaxLayer},
    resizing::{Resizing, UpSampling1D, UpSampling2D},
    separable_conv1d::{Conv1DTranspose, DepthwiseConv1D, SeparableConv1D},
    separable_conv2d::{SeparableConv2D},
    spectrogram::{STFTSpectrogram},
    volumes::{AveragePooling3D, Conv3D, Conv3DTranspose, MaxPooling3D, UpSampling3D},
    wrappers::{Bidirectional, RNN, SpectralNormalization, TimeDistributed},
}

// Initialisers and regularisers are checked where they are used.
finite!(
    Activation,
    Axis,
    EncodingMode,
    ScoreMode,
    String,
    DataFormat,
    Ends,
    Faces,
    FillMode,
    FlipMode,
    Initializer,
    Interpolation,
    Padding,
    Pair,
    Regularizer,
    Sides,
    Single,
    SingleStrides,
    SpectrumMode,
    Strides,
    Triple,
    TripleStrides,
    wrappers::Inner,
    wrappers::MergeMode,
    wrappers::OfCell
);

impl Finite for Fill {
    fn not_finite(&self) -> Option<f32> {
        match self {
            Fill::One(x) => x.not_finite(),
            Fill::Each(all) => all.not_finite(),
        }
    }
}

impl Finite for Factor {
    fn not_finite(&self) -> Option<f32> {
        match self {
            Factor::Within(x) => x.not_finite(),
            Factor::Range(range) => range.not_finite(),
        }
    }
}

impl Finite for Numbers {
    fn not_finite(&self) -> Option<f32> {
        match self {
            Numbers::One(x) => x.not_finite(),
            Numbers::Each(all) => all.not_finite(),
            Numbers::Nested(parts) => parts.not_finite(),
        }
    }
}

pub use activation::Activation;
pub use attention::ScoreMode;
pub use augmentation::{Factor, FlipMode};
pub use categories::EncodingMode;
pub use merge::{add, average, concatenate, maximum, minimum, multiply, subtract};
pub use padding::{Ends, Faces, Sides};
pub use preprocessing::Numbers;
pub use random_changes::Fill;
pub use spectrogram::SpectrumMode;
pub(in crate::nn) use wrappers::stacked_cells;
pub use wrappers::{Inner, MergeMode, OfCell};

/// Keras's alias of [`MaxPooling2D`].
pub type MaxPool2D = MaxPooling2D;
/// Keras's alias of [`AveragePooling2D`].
pub type AvgPool2D = AveragePooling2D;
/// Keras's alias of [`GlobalAveragePooling2D`].
pub type GlobalAvgPool2D = GlobalAveragePooling2D;
/// Keras's alias of [`GlobalMaxPooling2D`].
pub type GlobalMaxPool2D = GlobalMaxPooling2D;
