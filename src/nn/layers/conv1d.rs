use super::{DataFormat, Single, groups, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Constraint, Initializer, Regularizer, Scope},
    ops::{Conv2dOptions, Padding},
};

layer! {
    /// Convolution along sequences (N, length, channels) (Keras `Conv1D`): kernel (k, in / groups, out).
    ///
    /// ```
    /// use hubel::{ops::Padding::Causal, layers::*, prelude::*};
    /// let model = Sequential::new([100, 3]).add(Conv1D::new(8, 5).padding(Causal).activation(Relu)).build()?;
    /// assert_eq!(model.output_shape().to_string(), "(N, 100, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Conv1D as "Conv1D" {
        new filters: usize = 1,
        new kernel_size: Single = Single(1),
        /// Returns the layer with this step between outputs.
        into strides: Single = Single(1),
        /// Returns the layer with this padding.
        set padding: Padding = Padding::Valid,
        /// Returns the layer for this order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Returns the layer with taps this far apart.
        into dilation_rate: Single = Single(1),
        /// Returns the layer with channels in so many groups, each convolved alone.
        set groups: usize = 1,
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

impl Conv1D {
    /// Returns a layer of `filters` filters of `kernel_size` taps.
    pub fn new(filters: usize, kernel_size: usize) -> Self {
        Conv1D { filters, kernel_size: Single(kernel_size), ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let y = self.data_format.last(scope, inputs[0], |scope, x| self.convolve(scope, x))?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }

    fn convolve(&self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let channels = scope.graph.shape(x).last();
        groups("conv1d", self.groups, channels, self.filters)?;
        let kernel = scope.weight(
            "kernel",
            &[self.kernel_size.0, channels / self.groups, self.filters],
            (&self.kernel_initializer, &self.kernel_regularizer, &self.kernel_constraint),
        )?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: [1, self.strides.0],
            dilation: [1, self.dilation_rate.0],
            groups: self.groups,
        };
        let y = scope.graph.conv1d(x, kernel, options)?;
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
