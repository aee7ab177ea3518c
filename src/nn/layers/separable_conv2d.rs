use super::{
    DataFormat, Pair,
    depthwise_conv2d::{depthwise, kernel_shape},
    image, layer,
};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Constraint, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Convolution of each channel alone, then a 1×1 convolution (Keras `SeparableConv2D`): depthwise kernel
    /// (kh, kw, in, multiplier), pointwise kernel (1, 1, in · multiplier, out), one bias.
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
        /// Returns the layer with these steps between outputs.
        into strides: Pair = Pair([1, 1]),
        /// Returns the layer with this padding.
        set padding: Padding = Padding::Valid,
        /// Returns the layer for this order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Returns the layer with taps this far apart.
        into dilation_rate: Pair = Pair([1, 1]),
        /// Returns the layer with so many results for each channel between the two convolutions.
        set depth_multiplier: usize = 1,
        /// Returns the layer with this activation after the bias.
        set activation: Activation = Activation::Linear,
        /// Returns the layer with or without a bias.
        set use_bias: bool = true,
        /// Returns the layer with these first depthwise kernel values.
        set depthwise_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with a penalty for large depthwise kernel values.
        into depthwise_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the depthwise kernel values.
        into depthwise_constraint: Option<Constraint> = None,
        /// Returns the layer with these first pointwise kernel values.
        set pointwise_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with a penalty for large pointwise kernel values.
        into pointwise_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the pointwise kernel values.
        into pointwise_constraint: Option<Constraint> = None,
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
        let options = (&self.depthwise_initializer, &self.depthwise_regularizer, &self.depthwise_constraint);
        let shape = kernel_shape(self.kernel_size, channels, self.depth_multiplier);
        let first = scope.weight("depthwise_kernel", &shape, options)?;
        let options = (&self.pointwise_initializer, &self.pointwise_regularizer, &self.pointwise_constraint);
        let shape = [1, 1, channels.saturating_mul(self.depth_multiplier), self.filters];
        let second = scope.weight("pointwise_kernel", &shape, options)?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: self.strides.0,
            dilation: self.dilation_rate.0,
            groups: channels,
        };
        let y = depthwise(scope, x, first, options)?;
        let y = scope.graph.conv2d(y, second, Conv2dOptions::valid())?;
        let y = match self.use_bias {
            true => {
                let options = (&self.bias_initializer, &self.bias_regularizer, &self.bias_constraint);
                let bias = scope.weight("bias", &[self.filters], options)?;
                scope.graph.add(y, bias)?
            }
            false => y,
        };
        self.activation.apply(scope, y)
    }
}
