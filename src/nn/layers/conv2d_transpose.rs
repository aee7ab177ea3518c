use super::{DataFormat, Pair, Strides, image, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Constraint, Initializer, Regularizer, Scope},
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
        /// Returns the layer with outputs so many times as dense.
        into strides: Pair = Pair([1, 1]),
        /// Returns the layer with this padding.
        set padding: Padding = Padding::Valid,
        /// Returns the layer with so many pixels more behind, below the strides.
        into output_padding: Strides = Strides(None),
        /// Returns the layer for this order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Returns the layer with taps this far apart.
        into dilation_rate: Pair = Pair([1, 1]),
        /// Returns the layer with this activation after the bias.
        set activation: Activation = Activation::Linear,
        /// Returns the layer with or without a bias.
        set use_bias: bool = true,
        /// Returns the layer with these first kernel values.
        set kernel_initializer: Initializer = Initializer::GlorotUniform,
        /// Returns the layer with a penalty for large kernel values.
        into kernel_regularizer: Option<Regularizer> = None,
        /// Returns the layer with a constraint of the kernel values.
        into kernel_constraint: Option<Constraint> = None,
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
        let options = (&self.kernel_initializer, &self.kernel_regularizer, &self.kernel_constraint);
        let kernel = scope.weight("kernel", &[kh, kw, self.filters, channels], options)?;
        let options =
            Conv2dOptions { padding: self.padding, strides: self.strides.0, dilation: self.dilation_rate.0, groups: 1 };
        let y = scope.graph.conv2d_transpose(x, kernel, options, self.output_padding.0.map(|p| p.0))?;
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
