use super::{DataFormat, Pair, groups, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Two-dimensional convolution (Keras `Conv2D`): kernel (kh, kw, in / groups, out), stride 1, `Valid`, with bias.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 1]).add(Conv2D::new(32, 3).padding(Same).activation(Relu)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 28, 28, 32)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Conv2D as "Conv2D" {
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
        /// Sets the number of groups of channels, each convolved on its own.
        set groups: usize = 1,
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl Conv2D {
    /// Returns a layer of `filters` filters of `kernel_size` × `kernel_size` taps, or of (height, width) taps.
    pub fn new(filters: usize, kernel_size: impl Into<Pair>) -> Self {
        Conv2D { filters, kernel_size: kernel_size.into(), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(&mut *scope, inputs[0], |scope, x| self.convolve(scope, x))?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }

    fn convolve(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let (shape, [kh, kw]) = (image(scope.graph, "conv2d", x)?, self.kernel_size.0);
        groups("conv2d", self.groups, shape.last(), self.filters)?;
        let kernel = scope.weight("kernel", &[kh, kw, shape.last() / self.groups, self.filters], self.kernel())?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: self.strides.0,
            dilation: self.dilation_rate.0,
            groups: self.groups,
        };
        let y = scope.graph.conv2d(x, kernel, options)?;
        let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
        self.activation.apply(scope, y)
    }
}
