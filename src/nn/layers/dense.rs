use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{Activation, Constraint, Initializer, Regularizer, Scope},
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
        let options = (&self.kernel_initializer, &self.kernel_regularizer, &self.kernel_constraint);
        let kernel = scope.weight("kernel", &[shape.last(), self.units], options)?;
        let bias = match self.use_bias {
            true => {
                let options = (&self.bias_initializer, &self.bias_regularizer, &self.bias_constraint);
                Some(scope.weight("bias", &[self.units], options)?)
            }
            false => None,
        };
        let y = scope.graph.project(inputs[0], kernel, bias)?;
        let y = self.activation.apply(scope, y)?;
        scope.activity(&self.activity_regularizer, y)?;
        Ok(vec![y])
    }
}
