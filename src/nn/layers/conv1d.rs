use super::{DataFormat, Single, groups, layer};
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
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
        /// Sets the stride.
        into strides: Single = Single(1),
        /// Sets the padding.
        set padding: Padding = Padding::Valid,
        /// Sets the order of axes.
        into data_format: DataFormat = DataFormat::ChannelsLast,
        /// Sets the distance between the kernel's taps.
        into dilation_rate: Single = Single(1),
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
        let kernel =
            scope.weight("kernel", &[self.kernel_size.0, channels / self.groups, self.filters], self.kernel())?;
        let options = Conv2dOptions {
            padding: self.padding,
            strides: [1, self.strides.0],
            dilation: [1, self.dilation_rate.0],
            groups: self.groups,
        };
        let y = scope.graph.conv1d(x, kernel, options)?;
        let y = scope.bias(y, self.use_bias.then(|| self.bias()))?;
        self.activation.apply(scope, y)
    }
}
