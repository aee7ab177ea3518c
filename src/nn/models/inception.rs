use super::Options;
use crate::{
    nn::{
        Activation::Relu, AveragePooling2D, BatchNormalization, Concatenate, Conv2D, CustomScaleLayer,
        GlobalAveragePooling2D, LayerError, MaxPooling2D, Model, Tensor, call, concatenate,
    },
    ops::Padding::{self, Same, Valid},
};

/// A convolution of these networks: filters and taps.
#[derive(Clone, Copy)]
struct C(usize, [usize; 2]);

/// Convolution without a bias, batch normalisation without a scale, relu.
fn conv(x: &Tensor, C(filters, taps): C, strides: usize, padding: Padding) -> Result<Tensor, LayerError> {
    x.apply(Conv2D::new(filters, taps).strides(strides).padding(padding).use_bias(false))?
        .apply(BatchNormalization::new().scale(false))?
        .apply(Relu)
}

/// Convolutions in sequence, all with stride 1.
fn chain(x: &Tensor, convs: &[C]) -> Result<Tensor, LayerError> {
    convs.iter().try_fold(x.clone(), |x, &c| conv(&x, c, 1, Same))
}

/// The same, the last with strides 2.
fn halve(x: &Tensor, convs: &[C]) -> Result<Tensor, LayerError> {
    match convs {
        [before @ .., last] => conv(&chain(x, before)?, *last, 2, Valid),
        [] => Ok(x.clone()),
    }
}

fn pool() -> MaxPooling2D {
    MaxPooling2D::new(3).strides(2)
}

/// The stem of both networks: 299×299 becomes 35×35×192.
fn stem(x: &Tensor) -> Result<Tensor, LayerError> {
    let x = conv(x, C(32, [3, 3]), 2, Valid)?;
    let x = conv(&x, C(32, [3, 3]), 1, Valid)?;
    let x = conv(&x, C(64, [3, 3]), 1, Same)?.apply(pool())?;
    let x = conv(&x, C(80, [1, 1]), 1, Valid)?;
    conv(&x, C(192, [3, 3]), 1, Valid)?.apply(pool())
}

fn pooled(x: &Tensor, filters: usize) -> Result<Tensor, LayerError> {
    chain(&x.apply(AveragePooling2D::new(3).strides(1).padding(Same))?, &[C(filters, [1, 1])])
}

fn mixed(name: &str, branches: &[Tensor]) -> Result<Tensor, LayerError> {
    call(Concatenate::new().name(name), branches)
}

/// Returns Inception-v3 (Szegedy et al. 2016, table 1): 23,851,784 parameters.
pub fn inception_v3(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("InceptionV3")?;
    let [one, three, five] = [1, 3, 5].map(|k| [k, k]);
    let mut x = stem(&net.input)?;
    for (i, pool) in [32, 64, 64].into_iter().enumerate() {
        let branches = [
            chain(&x, &[C(64, one)])?,
            chain(&x, &[C(48, one), C(64, five)])?,
            chain(&x, &[C(64, one), C(96, three), C(96, three)])?,
            pooled(&x, pool)?,
        ];
        x = mixed(&format!("mixed{i}"), &branches)?;
    }
    let branches =
        [halve(&x, &[C(384, three)])?, halve(&x, &[C(64, one), C(96, three), C(96, three)])?, x.apply(pool())?];
    x = mixed("mixed3", &branches)?;
    for (i, c) in (4..).zip([128, 160, 160, 192]) {
        let branches = [
            chain(&x, &[C(192, one)])?,
            chain(&x, &[C(c, one), C(c, [1, 7]), C(192, [7, 1])])?,
            chain(&x, &[C(c, one), C(c, [7, 1]), C(c, [1, 7]), C(c, [7, 1]), C(192, [1, 7])])?,
            pooled(&x, 192)?,
        ];
        x = mixed(&format!("mixed{i}"), &branches)?;
    }
    let branches = [
        halve(&x, &[C(192, one), C(320, three)])?,
        halve(&x, &[C(192, one), C(192, [1, 7]), C(192, [7, 1]), C(192, three)])?,
        x.apply(pool())?,
    ];
    x = mixed("mixed8", &branches)?;
    for i in 0..2 {
        let b1 = chain(&x, &[C(320, one)])?;
        let b3 = chain(&x, &[C(384, one)])?;
        let b3 = mixed(&format!("mixed9_{i}"), &[chain(&b3, &[C(384, [1, 3])])?, chain(&b3, &[C(384, [3, 1])])?])?;
        let double = chain(&x, &[C(448, one), C(384, three)])?;
        let double = concatenate(&[chain(&double, &[C(384, [1, 3])])?, chain(&double, &[C(384, [3, 1])])?])?;
        x = mixed(&format!("mixed{}", 9 + i), &[b1, b3, double, pooled(&x, 192)?])?;
    }
    match net.include_top {
        true => net.predict(x.apply(GlobalAveragePooling2D::new().name("avg_pool"))?),
        false => net.pool(x, None),
    }
}

/// x plus `scale` times a 1×1 convolution of the branches (figures 16 to 19 of the paper).
fn residual(x: Tensor, branches: &[&[C]], scale: f32, name: &str, relu: bool) -> Result<Tensor, LayerError> {
    let branches = branches.iter().map(|convs| chain(&x, convs)).collect::<Result<Vec<_>, _>>()?;
    let up = mixed(&format!("{name}_mixed"), &branches)?
        .apply(Conv2D::new(x.shape().last(), 1).padding(Same).name(format!("{name}_conv")))?;
    let y = call(CustomScaleLayer::new(scale), &[x, up])?;
    if relu { y.apply(Relu.name(&format!("{name}_ac"))) } else { Ok(y) }
}

/// Returns Inception-ResNet-v2 (Szegedy et al. 2017): 55,873,736 parameters.
pub fn inception_resnet_v2(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("InceptionResNetV2")?;
    let [one, three, five] = [1, 3, 5].map(|k| [k, k]);
    let mut x = stem(&net.input)?;
    let branches = [
        chain(&x, &[C(96, one)])?,
        chain(&x, &[C(48, one), C(64, five)])?,
        chain(&x, &[C(64, one), C(96, three), C(96, three)])?,
        pooled(&x, 64)?,
    ];
    x = mixed("mixed_5b", &branches)?;
    for i in 1..=10 {
        let branches: [&[C]; 3] =
            [&[C(32, one)], &[C(32, one), C(32, three)], &[C(32, one), C(48, three), C(64, three)]];
        x = residual(x, &branches, 0.17, &format!("block35_{i}"), true)?;
    }
    let branches =
        [halve(&x, &[C(384, three)])?, halve(&x, &[C(256, one), C(256, three), C(384, three)])?, x.apply(pool())?];
    x = mixed("mixed_6a", &branches)?;
    for i in 1..=20 {
        let branches: [&[C]; 2] = [&[C(192, one)], &[C(128, one), C(160, [1, 7]), C(192, [7, 1])]];
        x = residual(x, &branches, 0.1, &format!("block17_{i}"), true)?;
    }
    let branches = [
        halve(&x, &[C(256, one), C(384, three)])?,
        halve(&x, &[C(256, one), C(288, three)])?,
        halve(&x, &[C(256, one), C(288, three), C(320, three)])?,
        x.apply(pool())?,
    ];
    x = mixed("mixed_7a", &branches)?;
    for i in 1..=10 {
        let branches: [&[C]; 2] = [&[C(192, one)], &[C(192, one), C(224, [1, 3]), C(256, [3, 1])]];
        x = residual(x, &branches, if i < 10 { 0.2 } else { 1.0 }, &format!("block8_{i}"), i < 10)?;
    }
    x = x
        .apply(Conv2D::new(1536, 1).padding(Same).use_bias(false).name("conv_7b"))?
        .apply(BatchNormalization::new().scale(false).name("conv_7b_bn"))?
        .apply(Relu.name("conv_7b_ac"))?;
    match net.include_top {
        true => net.predict(x.apply(GlobalAveragePooling2D::new().name("avg_pool"))?),
        false => net.pool(x, None),
    }
}
