use super::{ELU, ReLU, layer};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{IntoLayer, Layer, Scope},
    ops::Part,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// An activation function: elementwise or softmax, as a layer or as an option of one.
///
/// ```
/// use hubel::{layers::*, prelude::*};
/// let model = Sequential::new([4]).add(Dense::new(8)).add(Relu).add(Dense::new(3).activation(Softmax)).build()?;
/// assert_eq!(model.output_shape().to_string(), "(N, 3)");
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "snake_case")]
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
    /// min(max(0.2·x + 0.5, 0), 1): what files of Keras 2 and TensorFlow.js call `hard_sigmoid`.
    #[serde(rename = "hard_sigmoid_keras2")]
    HardSigmoidKeras2,
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
    /// ln(sigmoid(x)).
    LogSigmoid,
    /// min(max(x, −1), 1).
    HardTanh,
    /// x − tanh(x).
    TanhShrink,
    /// x − 0.5 above 0.5, x + 0.5 below −0.5, else 0.
    SoftShrink,
    /// x above 0.5 and below −0.5, else 0.
    HardShrink,
    /// 0 below −1, x above 1, else (x + 1)² / 4.
    SparsePlus,
    /// min(max((x + 1) / 2, 0), 1).
    SparseSigmoid,
    /// (x + √(x² + 4)) / 2.
    Squareplus,
    /// max(x, 0) + min(eˣ − 1, 0).
    Celu,
    /// The first half of the last axis times the sigmoid of the second (Dauphin et al. 2017).
    Glu,
    /// Numbers less a threshold, at least 0 (Martins and Astudillo 2016), with the threshold of Keras 3.15, which is not
    /// the paper's.
    Sparsemax,
    /// The layer [`ReLU`](super::ReLU), as the option of another layer.
    #[serde(skip)]
    ReluLayer {
        /// The largest output.
        max_value: Option<f32>,
        /// The slope below the threshold.
        negative_slope: f32,
        /// The threshold.
        threshold: f32,
    },
    /// The layer [`ELU`](super::ELU), as the option of another layer.
    #[serde(skip)]
    EluLayer {
        /// Outputs are above −`alpha`.
        alpha: f32,
    },
}

impl Activation {
    /// Every activation without options.
    pub const ALL: [Activation; 30] = [
        Activation::Linear,
        Activation::Relu,
        Activation::Relu6,
        Activation::LeakyRelu,
        Activation::Elu,
        Activation::Selu,
        Activation::Sigmoid,
        Activation::HardSigmoid,
        Activation::HardSigmoidKeras2,
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
        Activation::LogSigmoid,
        Activation::HardTanh,
        Activation::TanhShrink,
        Activation::SoftShrink,
        Activation::HardShrink,
        Activation::SparsePlus,
        Activation::SparseSigmoid,
        Activation::Squareplus,
        Activation::Celu,
        Activation::Glu,
        Activation::Sparsemax,
    ];

    /// Applies the activation to `x` in the scope's graph.
    pub fn apply(self, scope: &mut Scope, x: Value) -> Result<Value, OpError> {
        let name = match self {
            Activation::Linear => return Ok(x),
            Activation::Softmax => {
                let y = scope.graph.softmax(x)?;
                scope.softmax_of(y, x);
                return Ok(y);
            }
            Activation::LogSoftmax => return scope.graph.log_softmax(x),
            Activation::ReluLayer { max_value, negative_slope, threshold } => {
                let layer = ReLU::new().negative_slope(negative_slope).threshold(threshold).max_value(max_value);
                return Ok(layer.build(scope, &[x])?.swap_remove(0));
            }
            Activation::EluLayer { alpha } => return Ok(ELU::new(alpha).build(scope, &[x])?.swap_remove(0)),
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
            _ => return self.composed(scope.graph, x),
        };
        scope.graph.unary(name, x)
    }

    /// Applies an activation that is made of several functions.
    fn composed(self, g: &mut Graph, x: Value) -> Result<Value, OpError> {
        match self {
            Activation::LeakyRelu => g.leaky_relu(x, 0.2),
            Activation::Elu | Activation::Celu => g.elu(x, 1.0),
            Activation::HardTanh => g.clip(x, -1.0, 1.0),
            Activation::HardSigmoidKeras2 => held(g, x, 0.2),
            Activation::SparseSigmoid => held(g, x, 0.5),
            Activation::LogSigmoid => {
                let opposite = g.neg(x)?;
                let y = g.softplus(opposite)?;
                g.neg(y)
            }
            Activation::TanhShrink => {
                let y = g.tanh(x)?;
                g.sub(x, y)
            }
            Activation::SoftShrink => {
                let inner = g.clip(x, -0.5, 0.5)?;
                g.sub(x, inner)
            }
            Activation::HardShrink => {
                let (size, border, zero) = (g.abs(x)?, g.constant(0.5)?, g.constant(0.0)?);
                let beyond = g.sub(size, border)?;
                g.where_(beyond, x, zero)
            }
            Activation::SparsePlus => {
                let inner = g.clip(x, -1.0, 1.0)?;
                let (rest, one) = (g.sub(x, inner)?, g.constant(1.0)?);
                let above = g.relu(rest)?;
                let sum = g.add(inner, one)?;
                let square = g.unary("square", sum)?;
                let curve = g.scale(square, 0.25)?;
                g.add(curve, above)
            }
            Activation::Squareplus => {
                let (square, four) = (g.unary("square", x)?, g.constant(4.0)?);
                let sum = g.add(square, four)?;
                let root = g.sqrt(sum)?;
                let y = g.add(x, root)?;
                g.scale(y, 0.5)
            }
            Activation::Glu => {
                let shape = g.shape(x).clone();
                let (axis, half) = (shape.rank() - 1, shape.last() / 2);
                if !shape.last().is_multiple_of(2) {
                    return Err(OpError::new("glu", "an even last axis", shape, "choose an even number of units"));
                }
                let first = g.slice_axis(x, axis, Part::new(0, half))?;
                let second = g.slice_axis(x, axis, Part::new(half, half))?;
                let gate = g.sigmoid(second)?;
                g.mul(first, gate)
            }
            Activation::Sparsemax => sparsemax(g, x),
            _ => Ok(x),
        }
    }

    /// Returns the activation as a layer with this name.
    pub fn name(self, name: &str) -> ActivationLayer {
        ActivationLayer::new(self).name(name)
    }
}

/// Returns max(x − τ, 0) as Keras computes it: of the numbers zᵢ for which 1 + kᵢ·zᵢ is above Sᵢ, the sum of the kᵢ
/// largest down to it, τ is the sum of their Sᵢ less 1, over their count. (The paper takes the last Sᵢ alone.)
fn sparsemax(g: &mut Graph, x: Value) -> Result<Value, OpError> {
    let shape = g.shape(x).clone();
    let (axis, n) = (shape.rank() - 1, shape.last());
    if axis == 0 || n > 1 << 10 {
        return Err(OpError::new("sparsemax", "rows of at most 1024 numbers", shape, "choose softmax"));
    }
    let wide = |last: [usize; 2]| shape.with_row(&[&shape.dims()[1..axis], &last].concat());
    let (each, all) = (g.reshape(x, wide([n, 1]))?, g.reshape(x, wide([1, n]))?);
    // Of equal numbers the first is the larger.
    let earlier = (0..n * n).map(|i| f32::from(u8::from(i % n <= i / n))).collect::<Vec<_>>();
    let (earlier, same) = (g.literal([n, n], earlier)?, g.binary("equal", all, each)?);
    let (ties, larger) = (g.mul(same, earlier)?, g.binary("greater", all, each)?);
    let above = g.add(ties, larger)?;
    let (count, parts) = (g.sum(above, &[axis + 1], false)?, g.mul(above, all)?);
    let (sum, product, one) = (g.sum(parts, &[axis + 1], false)?, g.mul(count, x)?, g.constant(1.0)?);
    let product = g.add(product, one)?;
    let kept = g.binary("greater", product, sum)?;
    let (count, sums) = (g.sum(kept, &[axis], true)?, g.mul(kept, sum)?);
    let sum = g.sum(sums, &[axis], true)?;
    let excess = g.sub(sum, one)?;
    let threshold = g.div(excess, count)?;
    let rest = g.sub(x, threshold)?;
    g.relu(rest)
}

/// Returns `slope · x + 0.5`, held between 0 and 1.
fn held(g: &mut Graph, x: Value, slope: f32) -> Result<Value, OpError> {
    let (scaled, half) = (g.scale(x, slope)?, g.constant(0.5)?);
    let y = g.add(scaled, half)?;
    g.clip(y, 0.0, 1.0)
}

impl Serialize for Activation {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let layer: Arc<dyn Layer> = match *self {
            Activation::ReluLayer { max_value, negative_slope, threshold } => {
                Arc::new(ReLU::new().negative_slope(negative_slope).threshold(threshold).max_value(max_value))
            }
            Activation::EluLayer { alpha } => Arc::new(ELU::new(alpha)),
            _ => return Activation::serialize(self, s),
        };
        json!({ "module": "keras.layers", "class_name": layer.kind(), "config": layer.config(), "registered_name": null })
            .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Activation {
    /// Reads a function's name, or the object that Keras writes for a function or for a layer.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut value = Json::deserialize(d)?;
        let Some(class) = value["class_name"].as_str().map(str::to_owned) else {
            return Activation::deserialize(value).map_err(D::Error::custom);
        };
        let config = value["config"].take();
        let number = |key: &str, default: f32| config[key].as_f64().map_or(default, |x| x as f32);
        match class.as_str() {
            "function" => Activation::deserialize(config).map_err(D::Error::custom),
            "Activation" => serde_json::from_value(config["activation"].clone()).map_err(D::Error::custom),
            "Softmax" if number("axis", -1.0) == -1.0 => Ok(Activation::Softmax),
            "ReLU" => Ok(Activation::ReluLayer {
                max_value: config["max_value"].as_f64().map(|x| x as f32),
                negative_slope: number("negative_slope", 0.0),
                threshold: number("threshold", 0.0),
            }),
            "LeakyReLU" => {
                let negative_slope = number("negative_slope", 0.3);
                Ok(Activation::ReluLayer { max_value: None, negative_slope, threshold: 0.0 })
            }
            "ELU" => Ok(Activation::EluLayer { alpha: number("alpha", 1.0) }),
            other => {
                Err(D::Error::custom(format!("the layer `{other}` as an activation; put it after this layer instead")))
            }
        }
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
