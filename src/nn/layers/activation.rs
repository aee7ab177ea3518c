use super::layer;
use crate::{
    graph::{OpError, Value},
    nn::{IntoLayer, Layer, Scope},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An activation function: elementwise or softmax, as a layer or as an option of one.
///
/// ```
/// use hubel::{layers::*, prelude::*};
/// let model = Sequential::new([4]).add(Dense::new(8)).add(Relu).add(Dense::new(3).activation(Softmax)).build()?;
/// assert_eq!(model.output_shape().to_string(), "(N, 3)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// x.
    #[default]
    Linear,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x, or 0.2·x below 0.
    LeakyRelu,
    /// x, or eˣ − 1 below 0 (Clevert et al. 2016).
    Elu,
    /// 1.0507 · (x, or 1.67326·(eˣ − 1) below 0) (Klambauer et al. 2017).
    Selu,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// relu6(x + 3) / 6.
    HardSigmoid,
    /// x · relu6(x + 3) / 6 (Howard et al. 2019).
    #[serde(rename = "hard_silu", alias = "hard_swish")]
    HardSwish,
    /// x · sigmoid(x) (Ramachandran et al. 2017).
    #[serde(rename = "silu", alias = "swish")]
    Swish,
    /// x · Φ(x), with the error function (Hendrycks and Gimpel 2016).
    Gelu,
    /// ln(1 + eˣ).
    Softplus,
    /// x / (1 + |x|).
    Softsign,
    /// x · tanh(softplus(x)) (Misra 2019).
    Mish,
    /// eˣ.
    Exponential,
    /// Hyperbolic tangent.
    Tanh,
    /// eˣ over its sum along the last axis.
    Softmax,
    /// Logarithm of softmax.
    LogSoftmax,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 18] = [
        Activation::Linear,
        Activation::Relu,
        Activation::Relu6,
        Activation::LeakyRelu,
        Activation::Elu,
        Activation::Selu,
        Activation::Sigmoid,
        Activation::HardSigmoid,
        Activation::HardSwish,
        Activation::Swish,
        Activation::Gelu,
        Activation::Softplus,
        Activation::Softsign,
        Activation::Mish,
        Activation::Exponential,
        Activation::Tanh,
        Activation::Softmax,
        Activation::LogSoftmax,
    ];

    /// Applies the activation to `x` in the scope's graph.
    pub fn apply(self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let name = match self {
            Activation::Linear => return Ok(x),
            Activation::LeakyRelu => return scope.graph.leaky_relu(x, 0.2),
            Activation::Elu => return scope.graph.elu(x, 1.0),
            Activation::Softmax => {
                let y = scope.graph.softmax(x)?;
                scope.softmax_of(y, x);
                return Ok(y);
            }
            Activation::LogSoftmax => return scope.graph.log_softmax(x),
            Activation::Relu => "relu",
            Activation::Relu6 => "relu6",
            Activation::Selu => "selu",
            Activation::Sigmoid => "sigmoid",
            Activation::HardSigmoid => "hard_sigmoid",
            Activation::HardSwish => "hard_swish",
            Activation::Swish => "silu",
            Activation::Gelu => "gelu",
            Activation::Softplus => "softplus",
            Activation::Softsign => "softsign",
            Activation::Mish => "mish",
            Activation::Exponential => "exp",
            Activation::Tanh => "tanh",
        };
        scope.graph.unary(name, x)
    }

    /// Returns the activation as a layer with this name.
    pub fn name(self, name: &str) -> ActivationLayer {
        ActivationLayer::new(self).name(name)
    }
}

impl IntoLayer for Activation {
    fn into_layer(self) -> Arc<dyn Layer> {
        Arc::new(ActivationLayer::new(self))
    }
}

layer! {
    /// An activation as a layer with options (Keras `Activation`); [`Activation`] itself is a layer, too.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([4]).add(Dense::new(2)).add(Relu.name("out")).build()?;
    /// assert_eq!(model.layer_names(), ["dense", "out"]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub struct ActivationLayer as "Activation" {
        new activation: Activation = Activation::Linear,
    }
}

impl ActivationLayer {
    /// Returns the layer.
    pub fn new(activation: Activation) -> Self {
        ActivationLayer { activation, ..Self::default() }
    }

    fn call(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        Ok(vec![self.activation.apply(scope, inputs[0])?])
    }
}
