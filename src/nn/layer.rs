use super::{Constraint, Initializer, Regularizer, check_numbers};
use crate::{
    graph::{Graph, OpError, TensorType, Value},
    tensor::Shape,
};
use std::any::Any;
use std::{collections::HashMap, fmt, sync::Arc};

/// A layer cannot be built on what comes before it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("layer `{layer}` ({kind}): wanted {wanted}, got {got}; {advice}")]
#[non_exhaustive]
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
    fn given_name(&self) -> Option<&str> {
        None
    }

    /// Returns whether an optimiser may change the layer's weights.
    fn trainable(&self) -> bool {
        true
    }

    /// Returns the shape of a sample where the layer is the first of a [`Sequential`](crate::nn::Sequential).
    fn input_shape(&self) -> Option<&[usize]> {
        None
    }

    /// Returns the options as Keras's `get_config` has them, or `Null` for a layer that no file can describe.
    fn config(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Returns the layer where it is a [`Model`](super::Model), else `None`.
    fn nested(&self) -> Option<&dyn Any> {
        None
    }

    /// Returns the layer's results on these inputs, appended to the scope's graph.
    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError>;
}

/// What can be put into a model as a layer: a layer, an activation, or a shared layer by `&Arc<dyn Layer>`, whose
/// weights all its places have in common.
pub trait IntoLayer {
    /// Returns the layer.
    fn into_layer(self) -> Arc<dyn Layer>;
}

impl<L: Layer + 'static> IntoLayer for L {
    fn into_layer(self) -> Arc<dyn Layer> {
        Arc::new(self)
    }
}

impl IntoLayer for &Arc<dyn Layer> {
    fn into_layer(self) -> Arc<dyn Layer> {
        self.clone()
    }
}

impl IntoLayer for Arc<dyn Layer> {
    fn into_layer(self) -> Arc<dyn Layer> {
        self
    }
}

/// A named tensor of a model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Weight {
    /// `layer/weight`, as Keras names it.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its first value.
    pub initial: Initializer,
    /// Whether an optimiser changes it.
    pub trainable: bool,
    /// What it is made to be after each change.
    pub constraint: Option<Constraint>,
    /// Where it stands in the graph.
    pub value: Value,
}

/// What layers have made so far, all together.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub weights: Vec<Weight>,
    /// Places of the weights by name.
    places: HashMap<String, usize>,
    pub penalties: Vec<Value>,
    pub layers: Vec<(String, Value)>,
    logits: HashMap<Value, Value>,
}

impl Built {
    pub fn logits(&self, probabilities: Value) -> Option<Value> {
        self.logits.get(&probabilities).copied()
    }
}

/// Where a layer builds itself: the graph, the layer's name, and the model's weights so far.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The graph under construction.
    pub graph: &'a mut Graph,
    /// Training or inference.
    pub mode: Mode,
    path: String,
    depth: usize,
    trainable: bool,
    built: &'a mut Built,
}

/// How deep layers may lie in layers, models among them: files nest three times as deep, and stacks end.
const MAX_DEPTH: usize = 32;

/// How a weight begins, what it costs, and what it may be: an initialiser alone, or all three.
#[derive(Debug, Clone, Copy)]
pub struct WeightOptions<'o>(&'o Initializer, Option<&'o Regularizer>, Option<&'o Constraint>);

impl<'o> From<&'o Initializer> for WeightOptions<'o> {
    fn from(initializer: &'o Initializer) -> Self {
        WeightOptions(initializer, None, None)
    }
}

impl<'o> From<(&'o Initializer, &'o Option<Regularizer>, &'o Option<Constraint>)> for WeightOptions<'o> {
    fn from((i, r, c): (&'o Initializer, &'o Option<Regularizer>, &'o Option<Constraint>)) -> Self {
        WeightOptions(i, r.as_ref(), c.as_ref())
    }
}

impl<'a> Scope<'a> {
    pub(super) fn new(graph: &'a mut Graph, mode: Mode, built: &'a mut Built) -> Self {
        Scope { graph, mode, path: String::new(), depth: 0, trainable: true, built }
    }

    /// Returns the name of the layer under construction, with those of the models around it in front.
    pub fn layer(&self) -> &str {
        &self.path
    }

    /// Returns whether an optimiser may change the weights of the layer under construction.
    pub fn trainable(&self) -> bool {
        self.trainable
    }

    /// Returns what a layer inside this one makes of these inputs, under the name `name`.
    pub fn child(&mut self, name: &str, layer: &dyn Layer, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        self.place(name, layer, layer.trainable(), inputs)
    }

    pub(super) fn place(
        &mut self,
        name: &str,
        layer: &dyn Layer,
        trainable: bool,
        inputs: &[Value],
    ) -> Result<Vec<Value>, OpError> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        let (mode, depth, trainable) = (self.mode, self.depth + 1, self.trainable && trainable);
        if depth > MAX_DEPTH {
            let wanted = format!("layers at most {MAX_DEPTH} deep in each other");
            return Err(OpError::new(layer.kind(), wanted, "more", "put layers behind each other"));
        }
        let built = &mut *self.built;
        let outputs = self.graph.scoped(name, |graph| {
            let known = built.weights.len();
            let mut scope = Scope { graph, mode, path: path.clone(), depth, trainable, built };
            let outputs = layer.build(&mut scope, inputs)?;
            check_numbers(scope.built.weights[known..].iter().flat_map(|w| w.initial.numbers()))?;
            Ok::<_, OpError>(outputs)
        });
        let outputs = outputs.map_err(|e| match e.node.is_empty() {
            true => OpError { node: format!("{path}/{}", e.op), ..e },
            false => e,
        })?;
        if let Some(empty) = outputs.iter().map(|&v| self.graph.shape(v)).find(|s| s.dims().contains(&0)) {
            let advice = "let the layer's sizes be at least 1";
            return Err(OpError::new(layer.kind(), "a result of extents from 1 up", empty, advice));
        }
        if let Some(&first) = outputs.first() {
            self.built.layers.push((path, first));
        }
        Ok(outputs)
    }

    /// Returns a trainable weight of this layer.
    pub fn weight<'o>(
        &mut self,
        name: &str,
        shape: &[usize],
        options: impl Into<WeightOptions<'o>>,
    ) -> Result<Value, OpError> {
        let WeightOptions(initializer, regularizer, constraint) = options.into();
        let whole = Shape::fixed(shape);
        if shape.contains(&0) || !whole.is_countable() {
            let wanted = format!("`{name}` of extents from 1 up and at most 2³² − 1 elements");
            return Err(OpError::new("weight", wanted, whole, "choose other sizes of the layer"));
        }
        if let Some(axis) = constraint.and_then(|c| c.axes().iter().find(|&&axis| axis >= shape.len())) {
            let wanted = format!("a constraint along axes from 0 to {} of `{name}` {whole}", shape.len().max(1) - 1);
            return Err(OpError::new("weight", wanted, axis, "choose an axis that the weight has"));
        }
        let numbers = regularizer.into_iter().flat_map(Regularizer::numbers);
        check_numbers(numbers.chain(constraint.into_iter().flat_map(Constraint::numbers)))?;
        let known = self.built.weights.len();
        let value = self.add(name, shape, initializer, self.trainable, constraint);
        if let Some(regularizer) = regularizer.filter(|_| self.trainable && self.built.weights.len() > known) {
            let penalty = regularizer.build(self.graph, value)?;
            self.built.penalties.push(penalty);
        }
        Ok(value)
    }

    /// Returns a weight of this layer that no optimiser changes.
    pub fn state(&mut self, name: &str, shape: &[usize], initializer: &Initializer) -> Value {
        self.add(name, shape, initializer, false, None)
    }

    /// Returns a tensor of one number, for a weight that an option leaves out.
    pub fn filled(&mut self, shape: &[usize], value: f32) -> Result<Value, OpError> {
        let number = self.graph.constant(value)?;
        self.graph.expand(number, &Shape::fixed(shape))
    }

    /// A layer that is used a second time finds the weights of the first.
    fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        initial: &Initializer,
        trainable: bool,
        constraint: Option<&Constraint>,
    ) -> Value {
        let name = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        if let Some(&place) = self.built.places.get(&name) {
            return self.built.weights[place].value;
        }
        let ty = TensorType::f32(Shape::fixed(shape));
        let value = self.graph.state(&name, ty, Some(Arc::new(initial.clone())));
        let (shape, initial, constraint) = (shape.to_vec(), initial.clone(), constraint.cloned());
        self.built.places.insert(name.clone(), self.built.weights.len());
        self.built.weights.push(Weight { name, shape, initial, trainable, constraint, value });
        value
    }

    /// Adds what a regulariser of the layer's output asks to the loss: the mean over the batch.
    pub fn activity(&mut self, regularizer: &Option<Regularizer>, output: Value) -> Result<(), OpError> {
        if let Some(regularizer) = regularizer {
            check_numbers(regularizer.numbers())?;
            let (penalty, share) = (regularizer.build(self.graph, output)?, self.graph.inv_batch()?);
            self.built.penalties.push(self.graph.mul(penalty, share)?);
        }
        Ok(())
    }

    /// Says that `probabilities` is the softmax of `logits`, so that a loss can use the stable form.
    pub fn softmax_of(&mut self, probabilities: Value, logits: Value) {
        self.built.logits.insert(probabilities, logits);
    }
}

/// Declares a layer: its options with their Keras names and defaults, methods that set them, and its description for
/// files. The layer's file adds `new` and `call`, which builds it.
///
/// An option is `set` (a method takes its type), `into` (a method takes what converts into it) or `new` (it has no
/// method: the constructor takes it).
macro_rules! layer {
    ($(#[$meta:meta])* pub struct $Layer:ident as $kind:literal {
        $($(#[$doc:meta])* $mode:ident $field:ident: $ty:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $Layer {
            $($field: $ty,)*
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<String>,
            trainable: bool,
            #[serde(skip)]
            input_shape: Option<Vec<usize>>,
        }

        impl Default for $Layer {
            fn default() -> Self {
                $Layer { $($field: $default,)* name: None, trainable: true, input_shape: None }
            }
        }

        impl $Layer {
            /// The Keras class name.
            pub const KIND: &'static str = $kind;

            $($crate::nn::layer::setter!($mode $(#[$doc])* $field: $ty);)*

            /// Returns the layer under this name instead of one made from its type.
            pub fn name(mut self, name: impl Into<String>) -> Self {
                self.name = Some(name.into());
                self
            }

            /// Returns the layer with weights that an optimiser may change, or frozen.
            pub fn trainable(mut self, trainable: bool) -> Self {
                self.trainable = trainable;
                self
            }

            /// Returns the layer with this shape of a sample, for the first layer of a `Sequential`.
            pub fn input_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
                self.input_shape = Some(shape.into());
                self
            }
        }

        impl $crate::nn::Layer for $Layer {
            fn kind(&self) -> &'static str {
                Self::KIND
            }

            fn given_name(&self) -> Option<&str> {
                self.name.as_deref()
            }

            fn trainable(&self) -> bool {
                self.trainable
            }

            fn input_shape(&self) -> Option<&[usize]> {
                self.input_shape.as_deref()
            }

            fn config(&self) -> serde_json::Value {
                serde_json::to_value(self).unwrap_or_default()
            }

            fn build(
                &self,
                scope: &mut $crate::nn::Scope,
                inputs: &[$crate::graph::Value],
            ) -> Result<Vec<$crate::graph::Value>, $crate::graph::OpError> {
                use $crate::nn::args;
                args::check_finite(Self::KIND, &[$((stringify!($field), args::Finite::not_finite(&self.$field)),)*])?;
                self.call(scope, inputs)
            }
        }
    };
}
pub(crate) use layer;

/// Declares the method that sets an option.
macro_rules! setter {
    (new $(#[$doc:meta])* $field:ident: $ty:ty) => {};
    (set $(#[$doc:meta])* $field:ident: $ty:ty) => {
        $(#[$doc])*
        pub fn $field(mut self, $field: $ty) -> Self {
            self.$field = $field;
            self
        }
    };
    (into $(#[$doc:meta])* $field:ident: $ty:ty) => {
        $(#[$doc])*
        pub fn $field(mut self, $field: impl Into<$ty>) -> Self {
            self.$field = $field.into();
            self
        }
    };
}
pub(crate) use setter;
