use super::Options;
use crate::{
    nn::{
        Activation::Relu, ActivationLayer, BatchNormalization, Concatenate, Conv2D, Conv2DTranspose, LayerError,
        MaxPooling2D, Model, Tensor, call,
    },
    ops::Padding::Same,
};

/// Filters of the four levels and of the bottleneck.
const FILTERS: [usize; 5] = [16, 32, 64, 128, 256];

/// Two 3×3 convolutions with batch normalisation and relu.
fn double(mut x: Tensor, filters: usize, name: &str) -> Result<Tensor, LayerError> {
    for i in 1..=2 {
        x = x
            .apply(Conv2D::new(filters, 3).padding(Same).use_bias(false).name(format!("{name}_conv{i}")))?
            .apply(BatchNormalization::new().name(format!("{name}_bn{i}")))?
            .apply(Relu.name(&format!("{name}_relu{i}")))?;
    }
    Ok(x)
}

/// Returns a small U-Net (Ronneberger et al. 2015) for segmentation: four levels from 16 filters on, `Same` padding,
/// batch normalisation; `alpha` scales the filters. Height and width must be multiples of 16.
pub fn unet(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("UNet")?;
    let wide = |filters: usize| ((filters as f32 * net.alpha) as usize).max(1);
    let (bottom, levels) = (wide(FILTERS[4]), &FILTERS[..4]);
    let mut x = net.input.clone();
    let mut skipped = Vec::new();
    for (i, &filters) in (1..).zip(levels) {
        x = double(x, wide(filters), &format!("down{i}"))?;
        skipped.push(x.clone());
        x = x.apply(MaxPooling2D::new(2).name(format!("down{i}_pool")))?;
    }
    x = double(x, bottom, "bottom")?;
    for (i, (skip, &filters)) in (1..).zip(skipped.into_iter().zip(levels)).collect::<Vec<_>>().into_iter().rev() {
        let up = x.apply(Conv2DTranspose::new(wide(filters), 2).strides(2).name(format!("up{i}")))?;
        x = call(Concatenate::new().name(format!("up{i}_concat")), &[skip, up])?;
        x = double(x, wide(filters), &format!("up{i}"))?;
    }
    if !net.include_top {
        return net.pool(x, Some(["avg_pool", "max_pool"]));
    }
    let y = x
        .apply(Conv2D::new(net.classes, 1).name("logits"))?
        .apply(ActivationLayer::new(net.activation).name("predictions"))?;
    net.finish(y)
}
