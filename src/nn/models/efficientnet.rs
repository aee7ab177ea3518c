use super::{Net, Options, divisible, pad_for_strides};
use crate::{
    nn::{
        Activation::{self, Relu6, Sigmoid, Swish},
        Add, BatchNormalization, Conv2D, Dense, DepthwiseConv2D, Distribution, Dropout, FanMode,
        GlobalAveragePooling2D, Initializer, LayerError, Model, Multiply, Normalization, Numbers, Rescaling, Reshape,
        Tensor, call,
    },
    ops::Padding::{Same, Valid},
};

/// Taps, number of blocks, filters, expansion, strides of the first (table 1 of the paper).
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
];

const CONV: Initializer =
    Initializer::VarianceScaling { scale: 2.0, mode: FanMode::FanOut, distribution: Distribution::TruncatedNormal };
const DENSE: Initializer =
    Initializer::VarianceScaling { scale: 1.0 / 3.0, mode: FanMode::FanOut, distribution: Distribution::Uniform };

/// Factors of width and depth, the share of features dropped in front of the classifier, and whether it is a Lite.
struct Scale {
    width: f64,
    depth: f64,
    dropout: f32,
    lite: bool,
}

impl Scale {
    fn activation(&self) -> Activation {
        if self.lite { Relu6 } else { Swish }
    }

    fn filters(&self, filters: usize) -> usize {
        divisible((filters as f64 * self.width) as f32)
    }
}

fn pointwise(filters: usize, name: String) -> Conv2D {
    Conv2D::new(filters, 1).padding(Same).use_bias(false).kernel_initializer(CONV).name(name)
}

fn norm(x: Tensor, name: String) -> Result<Tensor, LayerError> {
    x.apply(BatchNormalization::new().name(name))
}

/// Squeeze and excitation by two 1×1 convolutions.
fn excite(x: Tensor, filters: usize, name: &str) -> Result<Tensor, LayerError> {
    let c = x.shape().last();
    let conv = |filters: usize, activation: Activation, end: &str| {
        let conv = Conv2D::new(filters, 1).padding(Same).activation(activation).kernel_initializer(CONV);
        conv.name(format!("{name}{end}"))
    };
    let scale = x
        .apply(GlobalAveragePooling2D::new().name(format!("{name}se_squeeze")))?
        .apply(Reshape::new([1, 1, c as isize]).name(format!("{name}se_reshape")))?
        .apply(conv(filters, Swish, "se_reduce"))?
        .apply(conv(c, Sigmoid, "se_expand"))?;
    call(Multiply::new().name(format!("{name}se_excite")), &[x, scale])
}

/// One inverted residual of the table's row, with this share of samples dropped.
fn block(
    x: &Tensor,
    scale: &Scale,
    (taps, filters, expansion, strides): (usize, usize, usize, usize),
    drop: f32,
    name: &str,
) -> Result<Tensor, LayerError> {
    let channels = x.shape().last();
    let mut y = x.clone();
    if expansion > 1 {
        y = y.apply(pointwise(channels * expansion, format!("{name}expand_conv")))?;
        y = norm(y, format!("{name}expand_bn"))?.apply(scale.activation().name(&format!("{name}expand_activation")))?;
    }
    if strides == 2 {
        y = pad_for_strides(&y, taps, format!("{name}dwconv_pad"))?;
    }
    let padding = if strides == 2 { Valid } else { Same };
    let depthwise = DepthwiseConv2D::new(taps).strides(strides).padding(padding).use_bias(false);
    y = y.apply(depthwise.depthwise_initializer(CONV).name(format!("{name}dwconv")))?;
    y = norm(y, format!("{name}bn"))?.apply(scale.activation().name(&format!("{name}activation")))?;
    if !scale.lite {
        y = excite(y, (channels / 4).max(1), name)?;
    }
    y = norm(y.apply(pointwise(filters, format!("{name}project_conv")))?, format!("{name}project_bn"))?;
    if strides > 1 || channels != filters {
        return Ok(y);
    }
    if drop > 0.0 {
        let whole = vec![None, Some(1), Some(1), Some(1)];
        y = y.apply(Dropout::new(drop).noise_shape(whole).name(format!("{name}drop")))?;
    }
    call(Add::new().name(format!("{name}add")), &[y, x.clone()])
}

fn network(net: &Net, scale: &Scale) -> Result<Model, LayerError> {
    let mut x = net.input.clone();
    if !scale.lite {
        x = x.apply(Rescaling::new(1.0 / 255.0))?.apply(Normalization::new())?;
    }
    if !scale.lite && net.published() {
        // These weights were trained on images divided by the variance; the file's normalisation divides by its root.
        x =
            x.apply(Rescaling::new(Numbers::Each([0.229f64, 0.224, 0.225].map(|d| d.sqrt().recip() as f32).to_vec())))?;
    }
    // A Lite keeps the width of stem and head, and the depth of the first and last stage.
    let wide = |filters: usize| if scale.lite { filters } else { scale.filters(filters) };
    let deep = |i: usize, n: usize| match scale.lite && (i == 0 || i == STAGES.len() - 1) {
        true => n,
        false => (n as f64 * scale.depth).ceil() as usize,
    };
    let stem = Conv2D::new(wide(32), 3).strides(2).use_bias(false).kernel_initializer(CONV).name("stem_conv");
    x = pad_for_strides(&x, 3, "stem_conv_pad".into())?.apply(stem)?;
    x = norm(x, "stem_bn".into())?.apply(scale.activation().name("stem_activation"))?;
    let blocks: usize = STAGES.iter().enumerate().map(|(i, s)| deep(i, s.1)).sum();
    let mut before = 0;
    for (i, (taps, repeats, filters, expansion, strides)) in STAGES.into_iter().enumerate() {
        for (j, letter) in (0..deep(i, repeats)).zip('a'..) {
            let row = (taps, scale.filters(filters), expansion, if j == 0 { strides } else { 1 });
            let drop = 0.2 * before as f32 / blocks as f32;
            x = block(&x, scale, row, drop, &format!("block{}{letter}_", i + 1))?;
            before += 1;
        }
    }
    x = norm(x.apply(pointwise(wide(1280), "top_conv".into()))?, "top_bn".into())?
        .apply(scale.activation().name("top_activation"))?;
    if !net.include_top {
        return net.pool(x, Some(["avg_pool", "max_pool"]));
    }
    let y = x
        .apply(GlobalAveragePooling2D::new().name("avg_pool"))?
        .apply(Dropout::new(scale.dropout).name("top_dropout"))?
        .apply(Dense::new(net.classes).activation(net.activation).kernel_initializer(DENSE).name("predictions"))?;
    net.finish(y)
}

/// Returns the network of this name, scaled by width and depth.
fn efficientnet(
    variant: &str,
    options: &Options,
    (width, depth, dropout): (f64, f64, f32),
) -> Result<Model, LayerError> {
    network(&options.begin(variant)?, &Scale { width, depth, dropout, lite: variant.contains("Lite") })
}

/// Returns EfficientNet-B0 (Tan and Le 2019): 5,330,571 parameters with those of its normalisation.
pub fn efficientnet_b0(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB0", options, (1.0, 1.0, 0.2))
}

/// Returns EfficientNet-B1 (Tan and Le 2019): 7,856,239 parameters with those of its normalisation.
pub fn efficientnet_b1(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB1", options, (1.0, 1.1, 0.2))
}

/// Returns EfficientNet-B2 (Tan and Le 2019): 9,177,569 parameters with those of its normalisation.
pub fn efficientnet_b2(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB2", options, (1.1, 1.2, 0.3))
}

/// Returns EfficientNet-B3 (Tan and Le 2019): 12,320,535 parameters with those of its normalisation.
pub fn efficientnet_b3(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB3", options, (1.2, 1.4, 0.3))
}

/// Returns EfficientNet-B4 (Tan and Le 2019): 19,466,823 parameters with those of its normalisation.
pub fn efficientnet_b4(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB4", options, (1.4, 1.8, 0.4))
}

/// Returns EfficientNet-B5 (Tan and Le 2019): 30,562,527 parameters with those of its normalisation.
pub fn efficientnet_b5(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB5", options, (1.6, 2.2, 0.4))
}

/// Returns EfficientNet-B6 (Tan and Le 2019): 43,265,143 parameters with those of its normalisation.
pub fn efficientnet_b6(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB6", options, (1.8, 2.6, 0.5))
}

/// Returns EfficientNet-B7 (Tan and Le 2019): 66,658,687 parameters with those of its normalisation.
pub fn efficientnet_b7(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetB7", options, (2.0, 3.1, 0.5))
}

/// Returns EfficientNet-Lite0: no squeeze and excitation, relu6, stem and head of fixed width.
pub fn efficientnet_lite0(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetLite0", options, (1.0, 1.0, 0.2))
}

/// Returns EfficientNet-Lite1: no squeeze and excitation, relu6, stem and head of fixed width.
pub fn efficientnet_lite1(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetLite1", options, (1.0, 1.1, 0.2))
}

/// Returns EfficientNet-Lite2: no squeeze and excitation, relu6, stem and head of fixed width.
pub fn efficientnet_lite2(options: &Options) -> Result<Model, LayerError> {
    efficientnet("EfficientNetLite2", options, (1.1, 1.2, 0.3))
}
