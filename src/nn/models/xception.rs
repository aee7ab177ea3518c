use super::Options;
use crate::{
    nn::{
        Activation::Relu, BatchNormalization, Conv2D, GlobalAveragePooling2D, LayerError, MaxPooling2D, Model,
        SeparableConv2D, Tensor, add,
    },
    ops::Padding::Same,
};

/// Separable convolutions `first..` with these numbers of filters, each after a relu and with batch normalisation.
fn separable(mut x: Tensor, block: usize, filters: &[usize], relu_first: bool) -> Result<Tensor, LayerError> {
    for (i, &filters) in (1..).zip(filters) {
        let name = format!("block{block}_sepconv{i}");
        if i > 1 || relu_first {
            x = x.apply(Relu.name(&format!("{name}_act")))?;
        }
        x = x
            .apply(SeparableConv2D::new(filters, 3).padding(Same).use_bias(false).name(&name))?
            .apply(BatchNormalization::new().name(format!("{name}_bn")))?;
    }
    Ok(x)
}

/// A block that halves the map, with a 1×1 convolution as shortcut.
fn halving(x: Tensor, block: usize, filters: [usize; 2]) -> Result<Tensor, LayerError> {
    let residual = x
        .apply(Conv2D::new(filters[1], 1).strides(2).padding(Same).use_bias(false))?
        .apply(BatchNormalization::new())?;
    let y = separable(x, block, &filters, block > 2)?;
    let pool = MaxPooling2D::new(3).strides(2).padding(Same).name(format!("block{block}_pool"));
    add(&[y.apply(pool)?, residual])
}

/// Returns Xception (Chollet 2017, figure 5): 22,910,480 parameters.
pub fn xception(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("Xception")?;
    let mut x = net.input.clone();
    for (i, filters, strides) in [(1, 32, 2), (2, 64, 1)] {
        x = x
            .apply(Conv2D::new(filters, 3).strides(strides).use_bias(false).name(format!("block1_conv{i}")))?
            .apply(BatchNormalization::new().name(format!("block1_conv{i}_bn")))?
            .apply(Relu.name(&format!("block1_conv{i}_act")))?;
    }
    for (block, filters) in [(2, 128), (3, 256), (4, 728)] {
        x = halving(x, block, [filters; 2])?;
    }
    for block in 5..13 {
        x = add(&[separable(x.clone(), block, &[728; 3], true)?, x])?;
    }
    x = halving(x, 13, [728, 1024])?;
    for (i, filters) in [(1, 1536), (2, 2048)] {
        let name = format!("block14_sepconv{i}");
        x = x
            .apply(SeparableConv2D::new(filters, 3).padding(Same).use_bias(false).name(&name))?
            .apply(BatchNormalization::new().name(format!("{name}_bn")))?
            .apply(Relu.name(&format!("{name}_act")))?;
    }
    match net.include_top {
        true => net.predict(x.apply(GlobalAveragePooling2D::new().name("avg_pool"))?),
        false => net.pool(x, None),
    }
}
