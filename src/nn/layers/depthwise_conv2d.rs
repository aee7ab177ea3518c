use super::{DataFormat, Pair, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Constraint, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Convolution of each channel alone (Keras `DepthwiseConv2D`): kernel (kh, kw, in, multiplier).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 4]).add(DepthwiseConv2D::new(3).depth_multiplier(2)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 26, 26, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct DepthwiseConv2D as "DepthwiseConv2D" {
        new kernel_size: Pair = Pair([1, 1]),
        /// Returns the layer with these steps between outputs.
        into strides: Pair = Pair([1, 1]),
        /// Returns the layer with this padding.
        set padding: Padding = Padding::Valid,
        /// Returns the layer with so many results for each channel.
        set depth_multiplier: usize = 1,
        /// Returns the layer for this order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Returns the layer with taps this far apart.
        into dilation_rate: Pair = Pair([1, 1]),
        /// Returns the layer with this activation after the bias.
        set activation: Activation = Activation::Linear,
        /// Returns the layer with or without a bias.
        set use_bias: bool = true,
        /// Returns the layer with these first kernel values.
        set depthwise_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with a penalty for large kernel values.
        into depthwise_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the kernel values.
        into depthwise_constraint: Option<Constraint> = None,
        /// Returns the layer with these first biases.
        set bias_initializer: Initializer = Initializer::Zeros,
        /// Returns the layer with a penalty for large biases.
        into bias_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the biases.
        into bias_constraint: Option<Constraint> = None,
        /// Returns the layer with a penalty for large outputs.
        into activity_regularizer: Option<Regularizer> = None,
    }
}

impl DepthwiseConv2D {
    /// Returns a layer of kernels of `kernel_size` × `kernel_size` taps, or of (height, width) taps.
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
        let options = (&self.depthwise_initializer, &self.depthwise_regularizer, &self.depthwise_constraint);
        let kernel = scope.weight("kernel", &kernel_shape(self.kernel_size, channels, self.depth_multiplier), options)?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: self.strides.0,
            dilation: self.dilation_rate.0,
            groups: channels,
        };
        let y = depthwise(scope, x, kernel, options)?;
        let y = match self.use_bias {
            true => {
                let options = (&self.bias_initializer, &self.bias_regularizer, &self.bias_constraint);
                let bias = scope.weight("bias", &[channels.saturating_mul(self.depth_multiplier)], options)?;
                scope.graph.add(y, bias)?
            }
            false => y,
        };
        self.activation.apply(scope, y)
    }
}

pub(super) fn kernel_shape(size: Pair, channels: usize, multiplier: usize) -> [usize; 4] {
    [size.0[0], size.0[1], channels, multiplier]
}

/// Returns the convolution with a kernel (kh, kw, in, multiplier): grouped, its two last axes as one.
pub(super) fn depthwise(scope: &mut Scope, x: Value, kernel: Value, options: Conv2dOptions) -> Result<Value, OpError> {
    let &[kh, kw, channels, multiplier] = scope.graph.shape(kernel).dims() else {
        let got = scope.graph.shape(kernel).clone();
        return Err(OpError::new("depthwise_conv2d", "a kernel of four axes", got, "give it (kh, kw, in, multiplier)"));
    };
    let kernel = scope.graph.reshape(kernel, [kh, kw, 1, channels.saturating_mul(multiplier)])?;
    scope.graph.conv2d(x, kernel, options)
}
