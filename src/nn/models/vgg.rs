use super::Options;
use crate::{
    nn::{Activation::Relu, Conv2D, Dense, Flatten, LayerError, MaxPooling2D, Model},
    ops::Padding::Same,
};

/// Filters of the five blocks.
const FILTERS: [usize; 5] = [64, 128, 256, 512, 512];

/// Returns a VGG with these numbers of 3×3 convolutions in its blocks, followed by a 1×1 convolution in the `pointwise`
/// blocks.
fn vgg(name: &str, options: &Options, depths: [usize; 5], pointwise: [bool; 5]) -> Result<Model, LayerError> {
    let net = options.begin(name)?;
    let mut x = net.input.clone();
    for (b, filters) in FILTERS.into_iter().enumerate() {
        let sizes = std::iter::repeat_n(3, depths[b]).chain(pointwise[b].then_some(1));
        for (i, size) in (1..).zip(sizes) {
            let conv = Conv2D::new(filters, size).padding(Same).activation(Relu);
            x = x.apply(conv.name(format!("block{}_conv{i}", b + 1)))?;
        }
        x = x.apply(MaxPooling2D::new(2).name(format!("block{}_pool", b + 1)))?;
    }
    if !net.include_top {
        return net.pool(x, None);
    }
    x = x.apply(Flatten::new().name("flatten"))?;
    for fc in ["fc1", "fc2"] {
        x = x.apply(Dense::new(4096).activation(Relu).name(fc))?;
    }
    net.predict(x)
}

/// Returns VGG-11, configuration A of Simonyan and Zisserman 2015: 132,863,336 parameters.
pub fn vgg11(options: &Options) -> Result<Model, LayerError> {
    vgg("VGG11", options, [1, 1, 2, 2, 2], [false; 5])
}

/// Returns VGG-13, configuration B of Simonyan and Zisserman 2015: 133,047,848 parameters.
pub fn vgg13(options: &Options) -> Result<Model, LayerError> {
    vgg("VGG13", options, [2; 5], [false; 5])
}

/// Returns configuration C of Simonyan and Zisserman 2015, 16 layers of which three are 1×1 convolutions: 133,638,952
/// parameters.
pub fn vgg16c(options: &Options) -> Result<Model, LayerError> {
    vgg("VGG16C", options, [2; 5], [false, false, true, true, true])
}

/// Returns VGG-16, configuration D of Simonyan and Zisserman 2015: 138,357,544 parameters.
pub fn vgg16(options: &Options) -> Result<Model, LayerError> {
    vgg("VGG16", options, [2, 2, 3, 3, 3], [false; 5])
}

/// Returns VGG-19, configuration E of Simonyan and Zisserman 2015: 143,667,240 parameters.
pub fn vgg19(options: &Options) -> Result<Model, LayerError> {
    vgg("VGG19", options, [2, 2, 4, 4, 4], [false; 5])
}
