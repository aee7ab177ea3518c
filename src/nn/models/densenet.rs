use super::Options;
use crate::{
    nn::{
        Activation::Relu, AveragePooling2D, BatchNormalization, Concatenate, Conv2D, LayerError, MaxPooling2D, Model,
        Tensor, ZeroPadding2D, call,
    },
    ops::Padding::Same,
};

/// Channels that each layer adds.
const GROWTH: usize = 32;

fn norm_relu(x: &Tensor, name: &str) -> Result<Tensor, LayerError> {
    x.apply(BatchNormalization::new().epsilon(1.001e-5).name(format!("{name}bn")))?
        .apply(Relu.name(&format!("{name}relu")))
}

/// One layer of a dense block; its outputs are concatenated to its inputs.
fn dense(x: Tensor, name: &str) -> Result<Tensor, LayerError> {
    let y = norm_relu(&x, &format!("{name}_0_"))?
        .apply(Conv2D::new(4 * GROWTH, 1).use_bias(false).name(format!("{name}_1_conv")))?;
    let y = norm_relu(&y, &format!("{name}_1_"))?
        .apply(Conv2D::new(GROWTH, 3).padding(Same).use_bias(false).name(format!("{name}_2_conv")))?;
    call(Concatenate::new().name(format!("{name}_concat")), &[x, y])
}

/// Returns a DenseNet with these numbers of layers in its four blocks (Huang et al. 2017, table 1).
fn densenet(name: &str, options: &Options, depths: [usize; 4]) -> Result<Model, LayerError> {
    let net = options.begin(name)?;
    let x = (net.input)
        .apply(ZeroPadding2D::new(3))?
        .apply(Conv2D::new(64, 7).strides(2).use_bias(false).name("conv1_conv"))?;
    let mut x =
        norm_relu(&x, "conv1_")?.apply(ZeroPadding2D::new(1))?.apply(MaxPooling2D::new(3).strides(2).name("pool1"))?;
    for (block, depth) in (2..).zip(depths) {
        if block > 2 {
            let name = format!("pool{}", block - 1);
            let half = x.shape().last() / 2;
            x = norm_relu(&x, &format!("{name}_"))?
                .apply(Conv2D::new(half, 1).use_bias(false).name(format!("{name}_conv")))?
                .apply(AveragePooling2D::new(2).name(format!("{name}_pool")))?;
        }
        for i in 1..=depth {
            x = dense(x, &format!("conv{block}_block{i}"))?;
        }
    }
    net.classify(norm_relu(&x, "")?)
}

/// Returns DenseNet-121: 8,062,504 parameters.
pub fn densenet121(options: &Options) -> Result<Model, LayerError> {
    densenet("DenseNet121", options, [6, 12, 24, 16])
}

/// Returns DenseNet-169: 14,307,880 parameters.
pub fn densenet169(options: &Options) -> Result<Model, LayerError> {
    densenet("DenseNet169", options, [6, 12, 32, 32])
}

/// Returns DenseNet-201: 20,242,984 parameters.
pub fn densenet201(options: &Options) -> Result<Model, LayerError> {
    densenet("DenseNet201", options, [6, 12, 48, 32])
}
