use super::Options;
use crate::nn::{Activation::Relu, Conv2D, Dense, Flatten, LayerError, MaxPooling2D, Model};

/// Returns LeNet-5 (LeCun et al. 1998) for 32×32 images of one channel and ten classes, with max pooling
/// and relu: 61,706 parameters.
///
/// ```
/// assert_eq!(hubel::nn::models::lenet5()?.count_params(), 61_706);
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn lenet5() -> Result<Model, LayerError> {
    with(&Options::default())
}

pub(super) fn with(options: &Options) -> Result<Model, LayerError> {
    let net = options.begin("LeNet5")?;
    let mut x = (net.input)
        .apply(Conv2D::new(6, 5).activation(Relu).name("conv1"))?
        .apply(MaxPooling2D::new(2).name("pool1"))?
        .apply(Conv2D::new(16, 5).activation(Relu).name("conv2"))?
        .apply(MaxPooling2D::new(2).name("pool2"))?;
    if !net.include_top {
        return net.pool(x, None);
    }
    x = x.apply(Flatten::new())?;
    for (units, name) in [(120, "fc1"), (84, "fc2")] {
        x = x.apply(Dense::new(units).activation(Relu).name(name))?;
    }
    net.predict(x)
}
