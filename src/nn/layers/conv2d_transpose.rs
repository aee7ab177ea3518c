use super::{DataFormat, Pair, Strides, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Transposed convolution (Keras `Conv2DTranspose`): kernel (kh, kw, **out, in**).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([14, 14, 8]).add(Conv2DTranspose::new(4, 3).strides(2).padding(Same)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 28, 28, 4)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Conv2DTranspose as "Conv2DTranspose" {
        new filters: usize = 1,
        new kernel_size: Pair = Pair([1, 1]),
        /// Sets the strides: the factors by which the output is larger than the input.
        into strides: Pair = Pair([1, 1]),
        /// Sets the padding.
        set padding: Padding = Padding::Valid,
        /// Sets how many pixels are added at the bottom and right, fewer than the strides; `None` adds none.
        into output_padding: Strides = Strides(None),
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
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl Conv2DTranspose {
    /// Returns a layer of `filters` filters of `kernel_size` × `kernel_size` taps, or of (height, width) taps.
    pub fn new(filters: usize, kernel_size: impl Into<Pair>) -> Self {
        Conv2DTranspose { filters, kernel_size: kernel_size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| self.convolve(scope, x))?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }

    fn convolve(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let (channels, [kh, kw]) = (image(scope.graph, "conv2d_transpose", x)?.last(), self.kernel_size.0);
        let kernel = scope.weight("kernel", &[kh, kw, self.filters, channels], self.kernel())?;
        let options =
            Conv2dOptions { padding: self.padding, strides: self.strides.0, dilation: self.dilation_rate.0, groups: 1 };
        let y = scope.graph.conv2d_transpose(x, kernel, options, self.output_padding.0.map(|p| p.0))?;
        let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
        self.activation.apply(scope, y)
    }
}
