use crate::{
    graph::{Graph, Initialize, OpError, TensorType, Value},
    tensor::Shape,
};
use std::{fmt, sync::Arc};

/// A layer cannot be built on what comes before it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("layer `{layer}` ({kind}): wanted {wanted}, got {got}; {advice}")]
pub struct LayerError {
    /// The layer's name.
    pub layer: String,
    /// The layer's type.
    pub kind: String,
    /// What it needs.
    pub wanted: String,
    /// What it was given.
    pub got: String,
    /// What to do.
    pub advice: String,
}

/// Whether a graph is built for training or for use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout drops, batch normalisation uses the batch's statistics.
    Training,
    /// Dropout passes, batch normalisation uses the moving statistics.
    Inference,
}

/// A building block with Keras's name, options and defaults.
pub trait Layer: fmt::Debug + Send + Sync {
    /// Returns the Keras class name.
    fn kind(&self) -> &'static str;

    /// Returns the name that the user gave, if any.
    fn given_name(&self) -> Option<&str>;

    /// Returns the layer's result on these inputs, appended to the scope's graph.
    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Value, OpError>;
}

/// Where a layer builds itself: the graph, the layer's name, and the model's weights so far.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The graph under construction.
    pub graph: &'a mut Graph,
    /// Training or inference.
    pub mode: Mode,
    pub(super) layer: String,
    pub(super) weights: &'a mut Vec<Weight>,
    pub(super) logits: Option<(Value, Value)>,
}

/// A named tensor of a model.
#[derive(Debug, Clone)]
pub struct Weight {
    /// `layer/weight`, as Keras names it.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its first value.
    pub initial: Arc<dyn Initialize>,
    /// Whether an optimiser changes it.
    pub trainable: bool,
    /// Where it stands in the graph.
    pub value: Value,
}

impl Scope<'_> {
    /// Returns the name of the layer under construction.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// Returns a trainable weight of this layer.
    pub fn weight(&mut self, name: &str, shape: &[usize], initial: Arc<dyn Initialize>) -> Value {
        self.add(name, shape, initial, true)
    }

    /// Returns a weight of this layer that no optimiser changes.
    pub fn state(&mut self, name: &str, shape: &[usize], initial: Arc<dyn Initialize>) -> Value {
        self.add(name, shape, initial, false)
    }

    fn add(&mut self, name: &str, shape: &[usize], initial: Arc<dyn Initialize>, trainable: bool) -> Value {
        let name = format!("{}/{name}", self.layer);
        let value = self.graph.state(&name, TensorType::f32(Shape::fixed(shape)), Some(initial.clone()));
        self.weights.push(Weight { name, shape: shape.to_vec(), initial, trainable, value });
        value
    }

    /// Says that `probabilities` is the softmax of `logits`, so that a loss can use the stable form.
    pub fn softmax_of(&mut self, probabilities: Value, logits: Value) {
        self.logits = Some((probabilities, logits));
    }
}

/// Gives a layer type its `name` method and the parts of [`Layer`] that only read fields.
macro_rules! layer_common {
    () => {
        /// Returns the layer under this name instead of one made from its type.
        pub fn name(mut self, name: impl Into<String>) -> Self {
            self.name = Some(name.into());
            self
        }
    };
}
pub(crate) use layer_common;

/// Implements the two name methods of [`Layer`].
macro_rules! layer_names {
    ($kind:literal) => {
        fn kind(&self) -> &'static str {
            $kind
        }

        fn given_name(&self) -> Option<&str> {
            self.name.as_deref()
        }
    };
}
pub(crate) use layer_names;
