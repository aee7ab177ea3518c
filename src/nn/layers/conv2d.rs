use crate::{
    graph::{Initialize, OpError, Value},
    nn::{Activation, GlorotUniform, Layer, Scope, Zeros, layer_common, layer_names},
    ops::{Conv2dOptions, Padding},
};
use std::sync::Arc;

/// Two-dimensional convolution (Keras `Conv2D`): kernel (kh, kw, in, out), stride 1, `Valid`, with bias.
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([28, 28, 1]).add(Conv2D::new(32, 3).padding(Same).activation(Relu)).build()?;
/// assert_eq!(model.output_shape().to_string(), "(N, 28, 28, 32)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Conv2D {
    filters: usize,
    kernel: [usize; 2],
    strides: [usize; 2],
    padding: Padding,
    activation: Activation,
    use_bias: bool,
    kernel_initializer: Arc<dyn Initialize>,
    bias_initializer: Arc<dyn Initialize>,
    name: Option<String>,
}

impl Conv2D {
    /// Returns a layer of `filters` filters of `kernel` × `kernel` taps, or of (height, width) taps.
    pub fn new(filters: usize, kernel: impl Into<super::Pair>) -> Self {
        Conv2D {
            filters,
            kernel: kernel.into().0,
            strides: [1, 1],
            padding: Padding::Valid,
            activation: Activation::Linear,
            use_bias: true,
            kernel_initializer: Arc::new(GlorotUniform),
            bias_initializer: Arc::new(Zeros),
            name: None,
        }
    }

    layer_common!();

    /// Returns the layer with these steps between outputs.
    pub fn strides(mut self, strides: impl Into<super::Pair>) -> Self {
        self.strides = strides.into().0;
        self
    }

    /// Returns the layer with this padding.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Returns the layer with this activation after the bias.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Returns the layer with or without a bias.
    pub fn use_bias(mut self, use_bias: bool) -> Self {
        self.use_bias = use_bias;
        self
    }

    /// Returns the layer with these first kernel values.
    pub fn kernel_initializer(mut self, initializer: impl Initialize + 'static) -> Self {
        self.kernel_initializer = Arc::new(initializer);
        self
    }

    /// Returns the layer with these first bias values.
    pub fn bias_initializer(mut self, initializer: impl Initialize + 'static) -> Self {
        self.bias_initializer = Arc::new(initializer);
        self
    }
}

impl Layer for Conv2D {
    layer_names!("Conv2D");

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        if shape.rank() != 4 {
            let advice = "put the layer before Flatten, or give the input its channel axis";
            return Err(OpError::new("conv2d", "an input of shape (N, height, width, channels)", shape, advice));
        }
        let [kh, kw] = self.kernel;
        let kernel = scope.weight("kernel", &[kh, kw, shape.last(), self.filters], self.kernel_initializer.clone());
        let options = Conv2dOptions { padding: self.padding, ..Conv2dOptions::valid().strides(self.strides) };
        let mut y = scope.graph.conv2d(inputs[0], kernel, options)?;
        if self.use_bias {
            let bias = scope.weight("bias", &[self.filters], self.bias_initializer.clone());
            y = scope.graph.add(y, bias)?;
        }
        self.activation.apply(scope, y)
    }
}
