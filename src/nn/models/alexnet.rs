use super::Options;
use crate::{
    nn::{
        Activation::Relu, Conv2D, Dense, Dropout, Flatten, LayerError, LocalResponseNormalization, MaxPooling2D, Model,
    },
    ops::Padding::{Same, Valid},
};

/// Filters, taps, strides, groups, padding, and whether local response normalisation and pooling follow.
type Stage = (usize, usize, usize, usize, crate::ops::Padding, bool, bool);

/// Section 3.5 of the paper.
const STAGES: [Stage; 5] = [
    (96, 11, 4, 1, Valid, true, true),
    (256, 5, 1, 2, Same, true, true),
    (384, 3, 1, 1, Same, false, false),
    (384, 3, 1, 2, Same, false, false),
    (256, 3, 1, 2, Same, false, true),
];

/// Returns AlexNet (Krizhevsky et al. 2012) with its groups and its local response normalisation (size 5, α 10⁻⁴ for
/// each square, β 0.75, bias 2), for 227×227: 60,965,224 parameters.
pub fn alexnet(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("AlexNet")?;
    let mut x = net.input.clone();
    for (i, (filters, taps, strides, groups, padding, normalize, pool)) in (1..).zip(STAGES) {
        let conv = Conv2D::new(filters, taps).strides(strides).groups(groups).padding(padding);
        x = x.apply(conv.activation(Relu).name(format!("conv{i}")))?;
        if normalize {
            let norm = LocalResponseNormalization::new(5).alpha(5e-4).beta(0.75).bias(2.0);
            x = x.apply(norm.name(format!("norm{i}")))?;
        }
        if pool {
            x = x.apply(MaxPooling2D::new(3).strides(2).name(format!("pool{i}")))?;
        }
    }
    if !net.include_top {
        return net.pool(x, None);
    }
    x = x.apply(Flatten::new().name("flatten"))?;
    for i in 1..=2 {
        x = x
            .apply(Dense::new(4096).activation(Relu).name(format!("fc{i}")))?
            .apply(Dropout::new(0.5).name(format!("dropout{i}")))?;
    }
    net.predict(x)
}
