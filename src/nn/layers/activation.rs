use crate::{
    graph::{OpError, Value},
    nn::{Layer, Scope},
};

/// An elementwise non-linearity or softmax, as a layer or as an option of one.
///
/// ```
/// use hubel::prelude::*;
/// let model = Sequential::new([4]).add(Dense::new(8)).add(Relu).add(Dense::new(3).activation(Softmax)).build()?;
/// assert_eq!(model.output_shape().to_string(), "(N, 3)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// x.
    #[default]
    Linear,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// eˣ over its sum along the last axis.
    Softmax,
}

impl Activation {
    /// Returns the activation of `x` in the scope's graph.
    pub fn apply(self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        match self {
            Activation::Linear => Ok(x),
            Activation::Relu => scope.graph.relu(x),
            Activation::Sigmoid => scope.graph.sigmoid(x),
            Activation::Tanh => scope.graph.tanh(x),
            Activation::Softmax => {
                let y = scope.graph.softmax(x)?;
                scope.softmax_of(y, x);
                Ok(y)
            }
        }
    }
}

impl Layer for Activation {
    fn kind(&self) -> &'static str {
        "Activation"
    }

    fn given_name(&self) -> Option<&str> {
        None
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError> {
        self.apply(scope, inputs[0])
    }
}
