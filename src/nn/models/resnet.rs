use super::Options;
use crate::{
    nn::{
        Activation::Relu, Add, BatchNormalization, Conv2D, LayerError, MaxPooling2D, Model, Tensor, ZeroPadding2D,
        blocks::squeeze_excite, call,
    },
    ops::Padding::Same,
};

/// The form of the residual blocks.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 convolutions, the last of four times the filters.
    Bottleneck,
    /// The same with squeeze and excitation of ratio 16.
    Excited,
}

/// Where a ResNet's files come from.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// The strides in the first 1×1 convolution, convolutions with biases, epsilon 1.001e-5.
    Keras,
    /// The strides in the 3×3 convolution, zeros padded on both sides, no biases, epsilon 1e-5.
    Torchvision,
}

/// A convolution of either form, with batch normalisation.
fn conv(x: &Tensor, filters: usize, size: usize, strides: usize, form: Form, name: &str) -> Result<Tensor, LayerError> {
    let (keras, mut x) = (form == Form::Keras, x.clone());
    let mut conv = Conv2D::new(filters, size).strides(strides).use_bias(keras);
    match (size, keras) {
        (3, false) if strides > 1 => x = x.apply(ZeroPadding2D::new(1).name(format!("{name}_pad")))?,
        (3, _) => conv = conv.padding(Same),
        _ => {}
    }
    x.apply(conv.name(format!("{name}_conv")))?.apply(norm(form).name(format!("{name}_bn")))
}

fn norm(form: Form) -> BatchNormalization {
    BatchNormalization::new().epsilon(if form == Form::Keras { 1.001e-5 } else { 1e-5 })
}

/// One residual block (He et al. 2016, figure 5).
fn residual(
    x: &Tensor,
    filters: usize,
    strides: usize,
    (block, form): (Block, Form),
    name: &str,
) -> Result<Tensor, LayerError> {
    let [first, middle] = if form == Form::Keras { [strides, 1] } else { [1, strides] };
    let out = if block == Block::Basic { filters } else { 4 * filters };
    let shortcut = match strides == 1 && x.shape().last() == out {
        true => x.clone(),
        false => conv(x, out, 1, strides, form, &format!("{name}_0"))?,
    };
    let relu = |y: Tensor, i: usize| y.apply(Relu.name(&format!("{name}_{i}_relu")));
    let y = match block {
        Block::Basic => {
            let y = relu(conv(x, filters, 3, strides, form, &format!("{name}_1"))?, 1)?;
            conv(&y, filters, 3, 1, form, &format!("{name}_2"))?
        }
        _ => {
            let y = relu(conv(x, filters, 1, first, form, &format!("{name}_1"))?, 1)?;
            let y = relu(conv(&y, filters, 3, middle, form, &format!("{name}_2"))?, 2)?;
            conv(&y, out, 1, 1, form, &format!("{name}_3"))?
        }
    };
    let y = if block == Block::Excited { squeeze_excite(&y, 16, &format!("{name}_se"))? } else { y };
    call(Add::new().name(format!("{name}_add")), &[shortcut, y])?.apply(Relu.name(&format!("{name}_out")))
}

/// Returns the name here of a module of torchvision's ResNets.
pub(in crate::nn) fn torchvision_name(module: &str) -> Option<String> {
    match module {
        "conv1" => return Some("conv1_conv".into()),
        "bn1" => return Some("conv1_bn".into()),
        "fc" => return Some("predictions".into()),
        _ => {}
    }
    let (stage, rest) = module.strip_prefix("layer")?.split_once('.')?;
    let (block, part) = rest.split_once('.')?;
    let (stage, block): (usize, usize) = (stage.parse().ok()?, block.parse().ok()?);
    let part = match part {
        "downsample.0" => "0_conv".into(),
        "downsample.1" => "0_bn".into(),
        _ => match part.split_at_checked(part.len().checked_sub(1)?)? {
            ("conv", i) => format!("{i}_conv"),
            ("bn", i) => format!("{i}_bn"),
            _ => return None,
        },
    };
    Some(format!("conv{}_block{}_{part}", stage.checked_add(1)?, block.checked_add(1)?))
}

/// Returns a ResNet with these numbers of blocks in its four stages (He et al. 2016, table 1).
fn resnet(name: &str, options: &Options, block: Block, depths: [usize; 4]) -> Result<Model, LayerError> {
    let net = options.begin(name)?;
    let form = if block == Block::Bottleneck && net.stride_in_1x1 { Form::Keras } else { Form::Torchvision };
    let mut x = (net.input)
        .apply(ZeroPadding2D::new(3).name("conv1_pad"))?
        .apply(Conv2D::new(64, 7).strides(2).use_bias(form == Form::Keras).name("conv1_conv"))?
        .apply(norm(form).name("conv1_bn"))?
        .apply(Relu.name("conv1_relu"))?
        .apply(ZeroPadding2D::new(1).name("pool1_pad"))?
        .apply(MaxPooling2D::new(3).strides(2).name("pool1_pool"))?;
    for (stage, depth) in depths.into_iter().enumerate() {
        for i in 0..depth {
            let strides = if stage > 0 && i == 0 { 2 } else { 1 };
            let name = format!("conv{}_block{}", stage + 2, i + 1);
            x = residual(&x, 64 << stage, strides, (block, form), &name)?;
        }
    }
    net.classify(x)
}

/// Returns ResNet-18 in torchvision's form: 11,689,512 trainable parameters.
pub fn resnet18(options: &Options) -> Result<Model, LayerError> {
    resnet("ResNet18", options, Block::Basic, [2, 2, 2, 2])
}

/// Returns ResNet-34 in torchvision's form: 21,797,672 trainable parameters.
pub fn resnet34(options: &Options) -> Result<Model, LayerError> {
    resnet("ResNet34", options, Block::Basic, [3, 4, 6, 3])
}

/// Returns ResNet-50 in Keras's form, or with [`Options::stride_in_1x1`] off in torchvision's.
///
/// ```
/// use hubel::{nn::models::Options, prelude::*};
/// assert_eq!(models::resnet50(&Options::default())?.count_params(), 25_636_712);
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn resnet50(options: &Options) -> Result<Model, LayerError> {
    resnet("ResNet50", options, Block::Bottleneck, [3, 4, 6, 3])
}

/// Returns ResNet-101 in Keras's form, or with [`Options::stride_in_1x1`] off in torchvision's.
pub fn resnet101(options: &Options) -> Result<Model, LayerError> {
    resnet("ResNet101", options, Block::Bottleneck, [3, 4, 23, 3])
}

/// Returns ResNet-152 in Keras's form, or with [`Options::stride_in_1x1`] off in torchvision's.
pub fn resnet152(options: &Options) -> Result<Model, LayerError> {
    resnet("ResNet152", options, Block::Bottleneck, [3, 8, 36, 3])
}

/// Returns SE-ResNet-50 (Hu et al. 2018), the strides in the 3×3 convolutions: 28,088,024 trainable parameters.
pub fn se_resnet50(options: &Options) -> Result<Model, LayerError> {
    resnet("SEResNet50", options, Block::Excited, [3, 4, 6, 3])
}
