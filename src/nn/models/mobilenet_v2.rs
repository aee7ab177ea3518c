use super::{Options, divisible, pad_for_strides};
use crate::{
    nn::{
        Add, BatchNormalization, Conv2D, DepthwiseConv2D, GlobalAveragePooling2D, LayerError, Model, ReLU, Tensor,
        ZeroPadding2D, call,
    },
    ops::Padding::{Same, Valid},
};

/// Expansion, filters, number of blocks and strides of the first (table 2 of the paper).
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// Keras's form or torchvision's, which differ in epsilon and in the padding of images.
#[derive(Clone, Copy)]
struct Form {
    torchvision: bool,
}

impl Form {
    fn norm(self, name: String) -> BatchNormalization {
        let epsilon = if self.torchvision { 1e-5 } else { 1e-3 };
        BatchNormalization::new().momentum(0.999).epsilon(epsilon).name(name)
    }

    /// Returns the tensor padded for 3×3 taps at strides of 2.
    fn pad(self, x: &Tensor, name: String) -> Result<Tensor, LayerError> {
        if self.torchvision { x.apply(ZeroPadding2D::new(1).name(name)) } else { pad_for_strides(x, 3, name) }
    }
}

fn relu6(name: String) -> ReLU {
    ReLU::new().max_value(6.0).name(name)
}

/// An inverted residual: 1×1 up, depthwise 3×3, 1×1 down without an activation (figure 4d).
fn inverted(
    form: Form,
    x: &Tensor,
    expansion: usize,
    filters: usize,
    strides: usize,
    name: &str,
) -> Result<Tensor, LayerError> {
    let channels = x.shape().last();
    let mut y = x.clone();
    if expansion > 1 {
        y = y
            .apply(Conv2D::new(expansion * channels, 1).padding(Same).use_bias(false).name(format!("{name}expand")))?
            .apply(form.norm(format!("{name}expand_BN")))?
            .apply(relu6(format!("{name}expand_relu")))?;
    }
    if strides == 2 {
        y = form.pad(&y, format!("{name}pad"))?;
    }
    let padding = if strides == 1 { Same } else { Valid };
    let depthwise = DepthwiseConv2D::new(3).strides(strides).padding(padding).use_bias(false);
    y = y
        .apply(depthwise.name(format!("{name}depthwise")))?
        .apply(form.norm(format!("{name}depthwise_BN")))?
        .apply(relu6(format!("{name}depthwise_relu")))?
        .apply(Conv2D::new(filters, 1).padding(Same).use_bias(false).name(format!("{name}project")))?
        .apply(form.norm(format!("{name}project_BN")))?;
    match channels == filters && strides == 1 {
        true => call(Add::new().name(format!("{name}add")), &[x.clone(), y]),
        false => Ok(y),
    }
}

/// Returns MobileNetV2 (Sandler et al. 2018): 3,538,984 parameters; `alpha` scales the filters.
pub fn mobilenet_v2(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("MobileNetV2")?;
    let first = divisible(32.0 * net.alpha);
    let form = Form { torchvision: net.torchvision };
    let stem = Conv2D::new(first, 3).strides(2).use_bias(false).name("Conv1");
    let x = match form.torchvision {
        true => form.pad(&net.input, "Conv1_pad".into())?.apply(stem)?,
        false => net.input.apply(stem.padding(Same))?,
    };
    let mut x = x.apply(form.norm("bn_Conv1".into()))?.apply(relu6("Conv1_relu".into()))?;
    let mut block = 0;
    for (expansion, filters, repeats, strides) in STAGES {
        for i in 0..repeats {
            let name = if block == 0 { "expanded_conv_".into() } else { format!("block_{block}_") };
            let filters = divisible((filters as f32 * net.alpha).floor());
            x = inverted(form, &x, expansion, filters, if i == 0 { strides } else { 1 }, &name)?;
            block += 1;
        }
    }
    let last = if net.alpha > 1.0 { divisible(1280.0 * net.alpha) } else { 1280 };
    x = x
        .apply(Conv2D::new(last, 1).use_bias(false).name("Conv_1"))?
        .apply(form.norm("Conv_1_bn".into()))?
        .apply(relu6("out_relu".into()))?;
    match net.include_top {
        true => net.predict(x.apply(GlobalAveragePooling2D::new())?),
        false => net.pool(x, None),
    }
}
