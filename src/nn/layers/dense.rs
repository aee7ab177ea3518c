use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Initializer, Regularizer, Scope},
};

layer! {
    /// Fully connected layer (Keras `Dense`) along the last axis: x · kernel + bias, kernel (in, out).
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([784]).add(Dense::new(128).activation(Relu)).build()?;
    /// assert_eq!(model.count_params(), 100_480);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct Dense as "Dense" {
        new units: usize = 1,
        /// Sets the activation, applied after the bias.
        set activation: Activation = Activation::Linear,
        /// Sets whether a bias is added.
        set use_bias: bool = true,
        /// Adds a penalty on the outputs to the loss.
        into activity_regularizer: Option<Regularizer> = None,
    } weights { kernel = Initializer::GlorotUniform, bias = Initializer::Zeros }
}

impl Dense {
    /// Returns a layer of `units` outputs.
    pub fn new(units: usize) -> Self {
        Dense { units, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let shape = scope.graph.shape(inputs[0]).clone();
        if shape.rank() < 2 {
            return Err(OpError::new("dense", "an input of shape (N, …, features)", shape, "give samples an axis"));
        }
        let kernel = scope.weight("kernel", &[shape.last(), self.units], self.kernel())?;
        let bias = self.use_bias.then(|| scope.weight("bias", &[self.units], self.bias())).transpose()?;
        let y = scope.graph.project(inputs[0], kernel, bias)?;
        let y = self.activation.apply(scope, y)?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }
}
