use super::{
    DataFormat, Pair,
    depthwise_conv2d::{depthwise, kernel_shape},
    image, layer,
};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Depthwise convolution, then a 1×1 convolution (Keras `SeparableConv2D`): depthwise kernel (kh, kw, in,
    /// multiplier), pointwise kernel (1, 1, in · multiplier, out), one bias.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 4]).add(SeparableConv2D::new(8, 3)).build()?;
    /// assert_eq!(model.count_params(), 9 * 4 + 4 * 8 + 8);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct SeparableConv2D as "SeparableConv2D" {
        new filters: usize = 1,
        new kernel_size: Pair = Pair([1, 1]),
        /// Sets the strides.
        into strides: Pair = Pair([1, 1]),
        /// Sets the padding.
        set padding: Padding = Padding::Valid,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's taps.
        into dilation_rate: Pair = Pair([1, 1]),
        /// Sets the number of channels that the depthwise convolution computes from each.
        set depth_multiplier: usize = 1,
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights {
        depthwise_kernel = Initializer::GlorotUniform,
        pointwise_kernel = Initializer::GlorotUniform,
        bias = Initializer::Zeros
    }
}

impl SeparableConv2D {
    /// Returns a layer of `filters` filters of `kernel_size` × `kernel_size` taps, or of (height, width) taps.
    pub fn new(filters: usize, kernel_size: impl Into<Pair>) -> Self {
        SeparableConv2D { filters, kernel_size: kernel_size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| self.convolve(scope, x))?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }

    fn convolve(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let channels = image(scope.graph, "separable_conv2d", x)?.last();
        let shape = kernel_shape(self.kernel_size, channels, self.depth_multiplier);
        let first = scope.weight("depthwise_kernel", &shape, self.depthwise_kernel())?;
        let shape = [1, 1, channels.saturating_mul(self.depth_multiplier), self.filters];
        let second = scope.weight("pointwise_kernel", &shape, self.pointwise_kernel())?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: self.strides.0,
            dilation: self.dilation_rate.0,
            groups: channels,
        };
        let y = depthwise(scope, x, first, options)?;
        let y = scope.graph.conv2d(y, second, Conv2dOptions::valid())?;
        let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
        self.activation.apply(scope, y)
    }
}
