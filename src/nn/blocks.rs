//! Building blocks of deep networks, as functions on tensors.

use super::{
    Activation::{Relu, Sigmoid},
    Conv2D, Dense, GlobalAveragePooling2D, LayerError, Multiply, Reshape, Tensor, add, call,
};
use crate::{nn::BatchNormalization, ops::Padding::Same};

/// Returns the tensor with each channel scaled by squeeze and excitation (Hu et al. 2018): global average pooling,
/// dense c / `ratio` relu, dense c sigmoid, multiply.
///
/// ```
/// use hubel::{nn::blocks::squeeze_excite, prelude::*};
/// let x = Input::new([8, 8, 32]);
/// let model = Model::new(&[x.clone()], &[squeeze_excite(&x, 16, "se")?])?;
/// assert_eq!(model.count_params(), 32 * 2 + 2 + 2 * 32 + 32);
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn squeeze_excite(x: &Tensor, ratio: usize, name: &str) -> Result<Tensor, LayerError> {
    let c = x.shape().last();
    let squeezed = x
        .apply(GlobalAveragePooling2D::new().name(format!("{name}_squeeze")))?
        .apply(Dense::new((c / ratio.max(1)).max(1)).activation(Relu).name(format!("{name}_reduce")))?
        .apply(Dense::new(c).activation(Sigmoid).name(format!("{name}_expand")))?
        .apply(Reshape::new([1, 1, c as isize]).name(format!("{name}_reshape")))?;
    call(Multiply::new().name(format!("{name}_excite")), &[x.clone(), squeezed])
}

/// Returns a residual block of two 3×3 convolutions with batch normalisation (He et al. 2016, figure 5, left).
///
/// The shortcut is the tensor itself if channels and sizes stay the same, else a 1×1 convolution with the block's
/// strides.
///
/// ```
/// use hubel::{nn::blocks::residual, prelude::*};
/// let x = Input::new([32, 32, 16]);
/// assert_eq!(residual(&x, 32, 2, "block1")?.shape().to_string(), "(N, 16, 16, 32)");
/// # Ok::<(), hubel::Error>(())
/// ```
pub fn residual(x: &Tensor, filters: usize, strides: usize, name: &str) -> Result<Tensor, LayerError> {
    let y = convolution(x, filters, 3, strides, &format!("{name}_1"))?.apply(Relu.name(&format!("{name}_1_relu")))?;
    let y = convolution(&y, filters, 3, 1, &format!("{name}_2"))?;
    join(x, y, filters, strides, name)
}

/// Returns a residual block of 1×1, 3×3 and 1×1 convolutions, the last of 4 · `filters` (He et al. 2016, figure 5,
/// right), the strides in the 3×3 convolution.
pub fn bottleneck(x: &Tensor, filters: usize, strides: usize, name: &str) -> Result<Tensor, LayerError> {
    let y = convolution(x, filters, 1, 1, &format!("{name}_1"))?.apply(Relu.name(&format!("{name}_1_relu")))?;
    let y = convolution(&y, filters, 3, strides, &format!("{name}_2"))?.apply(Relu.name(&format!("{name}_2_relu")))?;
    let y = convolution(&y, 4 * filters, 1, 1, &format!("{name}_3"))?;
    join(x, y, 4 * filters, strides, name)
}

fn convolution(x: &Tensor, filters: usize, size: usize, strides: usize, name: &str) -> Result<Tensor, LayerError> {
    let conv = Conv2D::new(filters, size).strides(strides).padding(Same).use_bias(false).name(format!("{name}_conv"));
    x.apply(conv)?.apply(BatchNormalization::new().name(format!("{name}_bn")))
}

fn join(x: &Tensor, y: Tensor, filters: usize, strides: usize, name: &str) -> Result<Tensor, LayerError> {
    let shortcut = match x.shape().last() == filters && strides == 1 {
        true => x.clone(),
        false => convolution(x, filters, 1, strides, &format!("{name}_0"))?,
    };
    add(&[shortcut, y])?.apply(Relu.name(&format!("{name}_out")))
}
