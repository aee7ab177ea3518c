use crate::nn::{
    Activation::{Relu, Softmax},
    Conv2D, Dense, Flatten, LayerError, MaxPooling2D, Model, Sequential,
};

/// Returns LeNet-5 (LeCun et al. 1998) for 32×32 pictures of one channel and ten classes, with max pooling
/// and relu: 61,706 parameters.
///
/// ```
/// assert_eq!(hubel::nn::models::lenet5()?.count_params(), 61_706);
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn lenet5() -> Result<Model, LayerError> {
    Sequential::new([32, 32, 1])
        .add(Conv2D::new(6, 5).activation(Relu).name("conv1"))
        .add(MaxPooling2D::new(2).name("pool1"))
        .add(Conv2D::new(16, 5).activation(Relu).name("conv2"))
        .add(MaxPooling2D::new(2).name("pool2"))
        .add(Flatten::new())
        .add(Dense::new(120).activation(Relu).name("fc1"))
        .add(Dense::new(84).activation(Relu).name("fc2"))
        .add(Dense::new(10).activation(Softmax).name("predictions"))
        .build()
}
