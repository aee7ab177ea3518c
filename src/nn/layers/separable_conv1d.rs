use super::{DataFormat, Single, depthwise_conv2d::depthwise, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Filters each channel of a sequence on its own (Keras `DepthwiseConv1D`): kernel (length, in, multiplier).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 4]).add(DepthwiseConv1D::new(3).depth_multiplier(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 18, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct DepthwiseConv1D as "DepthwiseConv1D" {
        new kernel_size: Single = Single(1),
        /// Sets the stride.
        into strides: Single = Single(1),
        /// Sets how the sequence is padded.
        set padding: Padding = Padding::Valid,
        /// Sets the number of filters for each channel.
        set depth_multiplier: usize = 1,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's elements.
        into dilation_rate: Single = Single(1),
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { depthwise_kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl DepthwiseConv1D {
    /// Returns a layer with kernels of this length.
    pub fn new(kernel_size: usize) -> Self {
        DepthwiseConv1D { kernel_size: Single(kernel_size), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| {
            let channels = scope.graph.shape(x).last();
            let shape = [self.kernel_size.0, channels, self.depth_multiplier];
            let kernel = scope.weight("kernel", &shape, self.depthwise_kernel())?;
            let options = options(self.padding, self.strides, self.dilation_rate, channels);
            let y = along(scope, x, kernel, options)?;
            let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
            self.activation.apply(scope, y)
        })?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }
}

layer! {
    /// A depthwise convolution of a sequence, then one of length 1 (Keras `SeparableConv1D`).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([20, 4]).add(SeparableConv1D::new(8, 3)).build()?;
    /// assert_eq!(model.count_params(), 3 * 4 + 4 * 8 + 8);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct SeparableConv1D as "SeparableConv1D" {
        new filters: usize = 1,
        new kernel_size: Single = Single(1),
        /// Sets the stride.
        into strides: Single = Single(1),
        /// Sets how the sequence is padded.
        set padding: Padding = Padding::Valid,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's elements.
        into dilation_rate: Single = Single(1),
        /// Sets the number of depthwise filters for each channel.
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

impl SeparableConv1D {
    /// Returns a layer of `filters` outputs with depthwise kernels of this length.
    pub fn new(filters: usize, kernel_size: usize) -> Self {
        SeparableConv1D { filters, kernel_size: Single(kernel_size), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| {
            let channels = scope.graph.shape(x).last();
            let shape = [self.kernel_size.0, channels, self.depth_multiplier];
            let first = scope.weight("depthwise_kernel", &shape, self.depthwise_kernel())?;
            let shape = [1, channels.saturating_mul(self.depth_multiplier), self.filters];
            let second = scope.weight("pointwise_kernel", &shape, self.pointwise_kernel())?;
            let options = options(self.padding, self.strides, self.dilation_rate, channels);
            let y = along(scope, x, first, options)?;
            let y = scope.graph.conv1d(y, second, Conv2dOptions::valid())?;
            let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
            self.activation.apply(scope, y)
        })?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }
}

fn options(padding: Padding, strides: Single, dilation: Single, groups: usize) -> Conv2dOptions {
    Conv2dOptions { padding, strides: [1, strides.0], dilation: [1, dilation.0], groups }
}

/// Returns a depthwise convolution of a sequence, as of an image of one row.
fn along(scope: &mut Scope, x: Value, kernel: Value, options: Conv2dOptions) -> Result<Value, OpError> {
    let (shape, taps) = (scope.graph.shape(x).clone(), scope.graph.shape(kernel).dims().to_vec());
    let &[_, length, channels] = shape.dims() else {
        let advice = "give samples a time axis and a channel axis";
        return Err(OpError::new("depthwise_conv1d", "an input of shape (N, length, channels)", shape, advice));
    };
    let x = scope.graph.reshape(x, shape.with_row(&[1, length, channels]))?;
    let kernel = scope.graph.reshape(kernel, [&[1], &taps[..]].concat())?;
    let y = depthwise(scope, x, kernel, options)?;
    let row = scope.graph.shape(y).dims()[2..].to_vec();
    scope.graph.reshape(y, shape.with_row(&row))
}

layer! {
    /// Transposed convolution of sequences (Keras `Conv1DTranspose`): kernel (length, out, in).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([10, 4]).add(Conv1DTranspose::new(8, 3).strides(2).padding(Same)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 20, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Conv1DTranspose as "Conv1DTranspose" {
        new filters: usize = 1,
        new kernel_size: Single = Single(1),
        /// Sets the stride, by which the sequence grows.
        into strides: Single = Single(1),
        /// Sets how much of the border the result has.
        set padding: Padding = Padding::Valid,
        /// Sets how many elements are added at the end.
        into output_padding: Option<Single> = None,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's elements.
        into dilation_rate: Single = Single(1),
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl Conv1DTranspose {
    /// Returns a layer of `filters` outputs with kernels of this length.
    pub fn new(filters: usize, kernel_size: usize) -> Self {
        Conv1DTranspose { filters, kernel_size: Single(kernel_size), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| {
            let shape = [self.kernel_size.0, self.filters, scope.graph.shape(x).last()];
            let kernel = scope.weight("kernel", &shape, self.kernel())?;
            let options = options(self.padding, self.strides, self.dilation_rate, 1);
            let y = scope.graph.conv1d_transpose(x, kernel, options, self.output_padding.map(|p| p.0))?;
            let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
            self.activation.apply(scope, y)
        })?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }
}
