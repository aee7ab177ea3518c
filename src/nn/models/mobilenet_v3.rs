use super::{Options, divisible, pad_for_strides};
use crate::{
    nn::{
        Activation::{self, HardSigmoid, HardSwish, Relu},
        ActivationLayer, Add, BatchNormalization, Conv2D, DepthwiseConv2D, Dropout, Flatten, GlobalAveragePooling2D,
        IntoLayer, LayerError, Model, Multiply, ReLU, Rescaling, Tensor, call,
    },
    ops::Padding::{Same, Valid},
};

/// Expansion, filters, taps, strides, whether squeeze and excitation is used, activation.
type Block = (f32, usize, usize, usize, bool, Activation);

/// Table 1 of the paper.
const LARGE: [Block; 15] = [
    (1.0, 16, 3, 1, false, Relu),
    (4.0, 24, 3, 2, false, Relu),
    (3.0, 24, 3, 1, false, Relu),
    (3.0, 40, 5, 2, true, Relu),
    (3.0, 40, 5, 1, true, Relu),
    (3.0, 40, 5, 1, true, Relu),
    (6.0, 80, 3, 2, false, HardSwish),
    (2.5, 80, 3, 1, false, HardSwish),
    (2.3, 80, 3, 1, false, HardSwish),
    (2.3, 80, 3, 1, false, HardSwish),
    (6.0, 112, 3, 1, true, HardSwish),
    (6.0, 112, 3, 1, true, HardSwish),
    (6.0, 160, 5, 2, true, HardSwish),
    (6.0, 160, 5, 1, true, HardSwish),
    (6.0, 160, 5, 1, true, HardSwish),
];

/// Table 2 of the paper.
const SMALL: [Block; 11] = [
    (1.0, 16, 3, 2, true, Relu),
    (72.0 / 16.0, 24, 3, 2, false, Relu),
    (88.0 / 24.0, 24, 3, 1, false, Relu),
    (4.0, 40, 5, 2, true, HardSwish),
    (6.0, 40, 5, 1, true, HardSwish),
    (6.0, 40, 5, 1, true, HardSwish),
    (3.0, 48, 5, 1, true, HardSwish),
    (3.0, 48, 5, 1, true, HardSwish),
    (6.0, 96, 5, 2, true, HardSwish),
    (6.0, 96, 5, 1, true, HardSwish),
    (6.0, 96, 5, 1, true, HardSwish),
];

fn norm(name: String) -> BatchNormalization {
    BatchNormalization::new().momentum(0.999).name(name)
}

fn activate(x: Tensor, activation: Activation) -> Result<Tensor, LayerError> {
    x.apply(if activation == Relu { ReLU::new().into_layer() } else { activation.into_layer() })
}

fn excite(x: Tensor, name: &str) -> Result<Tensor, LayerError> {
    let c = x.shape().last();
    let conv = |filters: usize, end: &str| Conv2D::new(filters, 1).padding(Same).name(format!("{name}{end}"));
    let scale = x
        .apply(GlobalAveragePooling2D::new().keepdims(true).name(format!("{name}squeeze_excite_avg_pool")))?
        .apply(conv(divisible(c as f32 * 0.25), "squeeze_excite_conv"))?
        .apply(ReLU::new().name(format!("{name}squeeze_excite_relu")))?
        .apply(conv(c, "squeeze_excite_conv_1"))?
        .apply(HardSigmoid)?;
    call(Multiply::new().name(format!("{name}squeeze_excite_mul")), &[x, scale])
}

fn block(x: &Tensor, i: usize, block: Block, alpha: f32) -> Result<Tensor, LayerError> {
    let (expansion, filters, taps, strides, excited, activation) = block;
    let (channels, filters) = (x.shape().last(), divisible(filters as f32 * alpha));
    let name = if i == 0 { "expanded_conv_".into() } else { format!("expanded_conv_{i}_") };
    let mut y = x.clone();
    if i > 0 {
        let wide = divisible(channels as f32 * expansion);
        y = y
            .apply(Conv2D::new(wide, 1).padding(Same).use_bias(false).name(format!("{name}expand")))?
            .apply(norm(format!("{name}expand_bn")))?;
        y = activate(y, activation)?;
    }
    if strides == 2 {
        y = pad_for_strides(&y, taps, format!("{name}depthwise_pad"))?;
    }
    let padding = if strides == 1 { Same } else { Valid };
    let depthwise = DepthwiseConv2D::new(taps).strides(strides).padding(padding).use_bias(false);
    y = y.apply(depthwise.name(format!("{name}depthwise")))?.apply(norm(format!("{name}depthwise_bn")))?;
    y = activate(y, activation)?;
    if excited {
        y = excite(y, &name)?;
    }
    y = y
        .apply(Conv2D::new(filters, 1).padding(Same).use_bias(false).name(format!("{name}project")))?
        .apply(norm(format!("{name}project_bn")))?;
    match strides == 1 && channels == filters {
        true => call(Add::new().name(format!("{name}add")), &[x.clone(), y]),
        false => Ok(y),
    }
}

fn mobilenet_v3(name: &str, options: &Options, blocks: &[Block], last: usize) -> Result<Model, LayerError> {
    let net = options.begin(name)?;
    let mut x = (net.input)
        .apply(Rescaling::new(1.0 / 127.5).offset(-1.0))?
        .apply(Conv2D::new(16, 3).strides(2).padding(Same).use_bias(false).name("conv"))?
        .apply(norm("conv_bn".into()))?
        .apply(HardSwish)?;
    for (i, &row) in blocks.iter().enumerate() {
        x = block(&x, i, row, net.alpha)?;
    }
    let wide = divisible(x.shape().last() as f32 * 6.0);
    x = x
        .apply(Conv2D::new(wide, 1).padding(Same).use_bias(false).name("conv_1"))?
        .apply(norm("conv_1_bn".into()))?
        .apply(HardSwish)?;
    if !net.include_top {
        return net.pool(x, Some(["avg_pool", "max_pool"]));
    }
    let last = if net.alpha > 1.0 { divisible(last as f32 * net.alpha) } else { last };
    let y = x
        .apply(GlobalAveragePooling2D::new().keepdims(true))?
        .apply(Conv2D::new(last, 1).padding(Same).name("conv_2"))?
        .apply(HardSwish)?
        .apply(Dropout::new(0.2))?
        .apply(Conv2D::new(net.classes, 1).padding(Same).name("logits"))?
        .apply(Flatten::new())?
        .apply(ActivationLayer::new(net.activation).name("predictions"))?;
    net.finish(y)
}

/// Returns MobileNetV3-Small (Howard et al. 2019): 2,554,968 parameters; `alpha` scales the filters.
pub fn mobilenet_v3_small(options: &Options) -> Result<Model, LayerError> {
    mobilenet_v3("MobileNetV3Small", options, &SMALL, 1024)
}

/// Returns MobileNetV3-Large (Howard et al. 2019): 5,507,432 parameters; `alpha` scales the filters.
pub fn mobilenet_v3_large(options: &Options) -> Result<Model, LayerError> {
    mobilenet_v3("MobileNetV3Large", options, &LARGE, 1280)
}
