use super::{DataFormat, Pair, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Convolution of each channel on its own (Keras `DepthwiseConv2D`): kernel (kh, kw, in, multiplier).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 4]).add(DepthwiseConv2D::new(3).depth_multiplier(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 26, 26, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct DepthwiseConv2D as "DepthwiseConv2D" {
        new kernel_size: Pair = Pair([1, 1]),
        /// Sets the strides.
        into strides: Pair = Pair([1, 1]),
        /// Sets the padding.
        set padding: Padding = Padding::Valid,
        /// Sets the number of outputs per channel.
        set depth_multiplier: usize = 1,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's taps.
        into dilation_rate: Pair = Pair([1, 1]),
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { depthwise_kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl DepthwiseConv2D {
    /// Returns a layer with kernels of `kernel_size` × `kernel_size` taps, or of (height, width) taps.
    pub fn new(kernel_size: impl Into<Pair>) -> Self {
        DepthwiseConv2D { kernel_size: kernel_size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| self.convolve(scope, x))?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }

    fn convolve(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let channels = image(scope.graph, "depthwise_conv2d", x)?.last();
        let shape = kernel_shape(self.kernel_size, channels, self.depth_multiplier);
        let kernel = scope.weight("kernel", &shape, self.depthwise_kernel())?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: self.strides.0,
            dilation: self.dilation_rate.0,
            groups: channels,
        };
        let y = depthwise(scope, x, kernel, options)?;
        let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
        self.activation.apply(scope, y)
    }
}

pub(super) fn kernel_shape(size: Pair, channels: usize, multiplier: usize) -> [usize; 4] {
    [size.0[0], size.0[1], channels, multiplier]
}

/// Returns the convolution with a kernel (kh, kw, in, multiplier): a grouped one with the last two axes merged.
pub(super) fn depthwise(scope: &mut Scope, x: Value, kernel: Value, options: Conv2dOptions) -> Result<Value, OpError> {
    let &[kh, kw, channels, multiplier] = scope.graph.shape(kernel).dims() else {
        let got = scope.graph.shape(kernel).clone();
        return Err(OpError::new("depthwise_conv2d", "a kernel of four axes", got, "give it (kh, kw, in, multiplier)"));
    };
    let kernel = scope.graph.reshape(kernel, [kh, kw, 1, channels.saturating_mul(multiplier)])?;
    scope.graph.conv2d(x, kernel, options)
}
