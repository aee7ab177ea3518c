use super::Options;
use crate::{
    nn::{
        Activation::Relu, AveragePooling2D, BatchNormalization, Concatenate, Conv2D, GlobalAveragePooling2D,
        LayerError, MaxPooling2D, Model, Tensor, call, concatenate,
    },
    ops::Padding::{Same, Valid},
};

/// A convolution of the network: filters and taps; `.halve()` strides by 2 and pads nothing.
#[derive(Clone, Copy)]
struct C(usize, [usize; 2]);

/// Convolution, batch normalisation without a scale, relu.
fn conv(x: &Tensor, C(filters, taps): C, strides: usize, padding: crate::ops::Padding) -> Result<Tensor, LayerError> {
    x.apply(Conv2D::new(filters, taps).strides(strides).padding(padding).use_bias(false))?
        .apply(BatchNormalization::new().scale(false))?
        .apply(Relu)
}

/// One convolution after the other, all with stride 1.
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
    let mut x = conv(&net.input, C(32, three), 2, Valid)?;
    x = conv(&x, C(32, three), 1, Valid)?;
    x = conv(&x, C(64, three), 1, Same)?.apply(MaxPooling2D::new(3).strides(2))?;
    x = conv(&x, C(80, one), 1, Valid)?;
    x = conv(&x, C(192, three), 1, Valid)?.apply(MaxPooling2D::new(3).strides(2))?;
    for (i, pool) in [32, 64, 64].into_iter().enumerate() {
        let branches = [
            chain(&x, &[C(64, one)])?,
            chain(&x, &[C(48, one), C(64, five)])?,
            chain(&x, &[C(64, one), C(96, three), C(96, three)])?,
            pooled(&x, pool)?,
        ];
        x = mixed(&format!("mixed{i}"), &branches)?;
    }
    let branches = [
        halve(&x, &[C(384, three)])?,
        halve(&x, &[C(64, one), C(96, three), C(96, three)])?,
        x.apply(MaxPooling2D::new(3).strides(2))?,
    ];
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
        x.apply(MaxPooling2D::new(3).strides(2))?,
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
