use super::Options;
use crate::{
    nn::{
        ActivationLayer, BatchNormalization, Conv2D, DepthwiseConv2D, Dropout, GlobalAveragePooling2D, LayerError,
        Model, ReLU, Reshape, ZeroPadding2D,
    },
    ops::Padding::Same,
};

/// Filters and strides of the thirteen separable blocks (table 1 of the paper).
const BLOCKS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// Returns MobileNet (Howard et al. 2017): 4,253,864 parameters; `alpha` scales the filters.
pub fn mobilenet(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("MobileNet")?;
    let wide = |filters: usize| ((filters as f32 * net.alpha) as usize).max(1);
    let relu6 = |name: String| ReLU::new().max_value(6.0).name(name);
    let mut x = (net.input)
        .apply(Conv2D::new(wide(32), 3).strides(2).padding(Same).use_bias(false).name("conv1"))?
        .apply(BatchNormalization::new().name("conv1_bn"))?
        .apply(relu6("conv1_relu".into()))?;
    for (i, (filters, strides)) in (1..).zip(BLOCKS) {
        let mut depthwise = DepthwiseConv2D::new(3).strides(strides).use_bias(false).name(format!("conv_dw_{i}"));
        match strides {
            1 => depthwise = depthwise.padding(Same),
            _ => x = x.apply(ZeroPadding2D::new([[0, 1], [0, 1]]).name(format!("conv_pad_{i}")))?,
        }
        x = x
            .apply(depthwise)?
            .apply(BatchNormalization::new().name(format!("conv_dw_{i}_bn")))?
            .apply(relu6(format!("conv_dw_{i}_relu")))?
            .apply(Conv2D::new(wide(filters), 1).padding(Same).use_bias(false).name(format!("conv_pw_{i}")))?
            .apply(BatchNormalization::new().name(format!("conv_pw_{i}_bn")))?
            .apply(relu6(format!("conv_pw_{i}_relu")))?;
    }
    if !net.include_top {
        return net.pool(x, None);
    }
    let y = x
        .apply(GlobalAveragePooling2D::new().keepdims(true))?
        .apply(Dropout::new(1e-3).name("dropout"))?
        .apply(Conv2D::new(net.classes, 1).padding(Same).name("conv_preds"))?
        .apply(Reshape::new([net.classes as isize]).name("reshape_2"))?
        .apply(ActivationLayer::new(net.activation).name("predictions"))?;
    net.finish(y)
}
