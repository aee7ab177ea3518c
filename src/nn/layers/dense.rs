use crate::{
    graph::{Initialize, OpError, Value},
    nn::{Activation, GlorotUniform, Layer, Scope, Zeros, layer_common, layer_names},
};
use std::sync::Arc;

/// Fully connected layer (Keras `Dense`): x · kernel + bias, kernel (in, out).
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([784]).add(Dense::new(128).activation(Relu)).build()?;
/// assert_eq!(model.count_params(), 100_480);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dense {
    units: usize,
    activation: Activation,
    use_bias: bool,
    kernel_initializer: Arc<dyn Initialize>,
    bias_initializer: Arc<dyn Initialize>,
    name: Option<String>,
}

impl Dense {
    /// Returns a layer of `units` outputs.
    pub fn new(units: usize) -> Self {
        Dense {
            units,
            activation: Activation::Linear,
            use_bias: true,
            kernel_initializer: Arc::new(GlorotUniform),
            bias_initializer: Arc::new(Zeros),
            name: None,
        }
    }

    layer_common!();

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
}

impl Layer for Dense {
    layer_names!("Dense");

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        if shape.rank() != 2 {
            return Err(OpError::new("dense", "an input of shape (N, features)", shape, "put a Flatten before it"));
        }
        let kernel = scope.weight("kernel", &[shape.last(), self.units], self.kernel_initializer.clone());
        let mut y = scope.graph.matmul(inputs[0], kernel)?;
        if self.use_bias {
            let bias = scope.weight("bias", &[self.units], self.bias_initializer.clone());
            y = scope.graph.add(y, bias)?;
        }
        self.activation.apply(scope, y)
    }
}
