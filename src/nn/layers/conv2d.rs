use super::{DataFormat, Pair, groups, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Constraint, Initializer, Regularizer, Scope},
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
        /// Returns the layer with these steps between outputs.
        into strides: Pair = Pair([1, 1]),
        /// Returns the layer with this padding.
        set padding: Padding = Padding::Valid,
        /// Returns the layer for this order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Returns the layer with taps this far apart.
        into dilation_rate: Pair = Pair([1, 1]),
        /// Returns the layer with channels in so many groups, each convolved alone.
        set groups: usize = 1,
        /// Returns the layer with this activation after the bias.
        set activation: Activation = Activation::Linear,
        /// Returns the layer with or without a bias.
        set use_bias: bool = true,
        /// Returns the layer with these first kernel values.
        set kernel_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with these first bias values.
        set bias_initializer: Initializer = Initializer::Zeros,
        /// Returns the layer with a penalty for large kernel values.
        into kernel_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large biases.
        into bias_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a penalty for large outputs.
        into activity_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the kernel.
        into kernel_constraint: Option<Constraint> = None,
        /// Returns the layer with a constraint of the bias.
        into bias_constraint: Option<Constraint> = None,
    }
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
        let kernel = scope.weight(
            "kernel",
            &[kh, kw, shape.last() / self.groups, self.filters],
            (&self.kernel_initializer, &self.kernel_regularizer, &self.kernel_constraint),
        )?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: self.strides.0,
            dilation: self.dilation_rate.0,
            groups: self.groups,
        };
        let y = scope.graph.conv2d(x, kernel, options)?;
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
