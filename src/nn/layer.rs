use super::{Constraint, Initializer, Regularizer, check_numbers, masks::Masks};
use crate::{
    graph::{Graph, OpError, TensorType, Value},
    ops::Rule,
    tensor::Shape,
};
use std::any::Any;
use std::{collections::HashMap, fmt, sync::Arc};

/// A layer cannot be built on its inputs.
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

/// Whether a graph is built for training or for inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout is active; batch normalisation uses the batch's statistics.
    Training,
    /// Dropout does nothing; batch normalisation uses the moving statistics.
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

    /// Returns the shape of a sample, for the first layer of a [`Sequential`](crate::nn::Sequential).
    fn input_shape(&self) -> Option<&[usize]> {
        None
    }

    /// Returns the options as Keras's `get_config` does, or `Null` for a layer that cannot be written to a file.
    fn config(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Returns the layer if it is a [`Model`](super::Model) or an operation of a file.
    fn nested(&self) -> Option<&dyn Any> {
        None
    }

    /// Returns name and layer of the one that this layer applies to parts of its input, as `TimeDistributed` does.
    fn wrapped(&self) -> Option<(String, &Arc<dyn Layer>)> {
        None
    }

    /// Returns the layer's results on these inputs, appended to the scope's graph.
    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError>;
}

/// What [`Layer::wrapped`] returns of the crate's layers, but for those that have a method of this name themselves.
pub(super) trait Wraps {
    fn wrapped_layer(&self) -> Option<(String, &Arc<dyn Layer>)> {
        None
    }
}

impl<L: Layer> Wraps for L {}

/// What a model accepts as a layer: a layer, an activation, or a shared layer by `&Arc<dyn Layer>`, all of whose uses
/// share its weights.
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
    /// Its initial value.
    pub initial: Initializer,
    /// Whether an optimiser updates it.
    pub trainable: bool,
    /// The constraint applied after each update.
    pub constraint: Option<Constraint>,
    /// Its value in the graph.
    pub value: Value,
}

/// What all layers built so far have added.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub weights: Vec<Weight>,
    /// Indices of the weights by name.
    by_name: HashMap<String, usize>,
    pub penalties: Vec<Value>,
    pub layers: Vec<(String, Value)>,
    logits: HashMap<Value, Value>,
    masks: Masks,
    /// How often the estimate of the norm of the next kernel is improved, and the path of what keeps it.
    norm: Option<(String, usize)>,
    /// Kernels that a training step has divided by their norms, with the estimate's vectors.
    divided: HashMap<Value, [Value; 2]>,
}

impl Built {
    pub fn logits(&self, probabilities: Value) -> Option<Value> {
        self.logits.get(&probabilities).copied()
    }
}

/// The context that a layer is built in: the graph, the layer's name, and the model's weights so far.
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

/// The state of a spectral normalisation.
pub(super) const VECTOR: &str = "vector_u";

/// The maximum depth of layers in layers, models among them: files nest three times as deep, and the stack is finite.
const MAX_DEPTH: usize = 32;

/// How a weight is initialised, regularised and constrained.
///
/// A reference to an initialiser converts into it.
#[derive(Debug, Clone, Copy)]
pub struct WeightOptions<'o> {
    /// Gives the initial value.
    pub initializer: &'o Initializer,
    /// A penalty on the weight, added to the loss.
    pub regularizer: Option<&'o Regularizer>,
    /// The constraint applied after each update.
    pub constraint: Option<&'o Constraint>,
}

impl<'o> From<&'o Initializer> for WeightOptions<'o> {
    fn from(initializer: &'o Initializer) -> Self {
        WeightOptions { initializer, regularizer: None, constraint: None }
    }
}

impl<'a> Scope<'a> {
    pub(super) fn new(graph: &'a mut Graph, mode: Mode, built: &'a mut Built) -> Self {
        Scope { graph, mode, path: String::new(), depth: 0, trainable: true, built }
    }

    /// Returns the path of the layer under construction: the names of the models around it and its own.
    pub fn layer(&self) -> &str {
        &self.path
    }

    /// Returns whether an optimiser may change the weights of the layer under construction.
    pub fn trainable(&self) -> bool {
        self.trainable
    }

    /// Builds a layer inside this one on these inputs, under the name `name`, and returns its outputs.
    pub fn child(&mut self, name: &str, layer: &dyn Layer, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        self.build_layer(name, layer, layer.trainable(), inputs)
    }

    /// [`Scope::child`] of a layer whose kernel training divides by its spectral norm, or `None` if it has none.
    pub(super) fn child_of_norm(
        &mut self,
        name: &str,
        layer: &dyn Layer,
        inputs: &[Value],
        iterations: usize,
    ) -> Result<Option<Vec<Value>>, OpError> {
        self.built.norm = Some((self.path.clone(), iterations));
        let known = self.built.weights.len();
        let outputs = self.child(name, layer, inputs)?;
        // The vector is needed first, and Keras's files have it last.
        let own = format!("{}/{VECTOR}", self.path);
        if let Some(at) = self.built.weights[known..].iter().position(|w| w.name == own) {
            self.built.weights[known + at..].rotate_left(1);
            let moved = self.built.weights.iter().enumerate().skip(known + at);
            self.built.by_name.extend(moved.map(|(index, w)| (w.name.clone(), index)));
        }
        Ok(self.built.norm.take().is_none().then_some(outputs))
    }

    pub(super) fn build_layer(
        &mut self,
        name: &str,
        layer: &dyn Layer,
        trainable: bool,
        inputs: &[Value],
    ) -> Result<Vec<Value>, OpError> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        let (mode, depth, trainable) = (self.mode, self.depth + 1, self.trainable && trainable);
        if depth > MAX_DEPTH {
            let wanted = format!("layers nested at most {MAX_DEPTH} deep");
            return Err(OpError::new(layer.kind(), wanted, "more", "apply layers one after another instead"));
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
            let advice = "give the layer sizes of at least 1";
            return Err(OpError::new(layer.kind(), "an output with extents of at least 1", empty, advice));
        }
        if let Some(&first) = outputs.first() {
            self.built.masks.pass(self.graph, layer.kind(), inputs, first)?;
            self.built.layers.push((path, first));
        }
        Ok(outputs)
    }

    /// Returns the mask of a tensor (N, T, …), (N, T) of ones and zeros, if it has one.
    pub fn mask(&self, x: Value) -> Option<Value> {
        self.built.masks.0.get(&x).copied()
    }

    /// Sets the mask of a tensor (N, T, …), (N, T) of ones and zeros.
    pub fn set_mask(&mut self, x: Value, mask: Value) {
        self.built.masks.0.insert(x, mask);
    }

    /// Returns a trainable weight of this layer.
    pub fn weight<'o>(
        &mut self,
        name: &str,
        shape: &[usize],
        options: impl Into<WeightOptions<'o>>,
    ) -> Result<Value, OpError> {
        let WeightOptions { initializer, regularizer, constraint } = options.into();
        let whole = Shape::fixed(shape);
        if shape.contains(&0) || !whole.is_countable() {
            let wanted = format!("`{name}` with extents of at least 1 and at most 2³² − 1 elements");
            return Err(OpError::new("weight", wanted, whole, "choose other sizes for the layer"));
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
        if name.ends_with("kernel") || name == "embeddings" {
            return self.divided(value);
        }
        Ok(value)
    }

    /// Returns a kernel divided by its spectral norm, if the layer around this one asks for that.
    fn divided(&mut self, kernel: Value) -> Result<Value, OpError> {
        let Some((path, iterations)) = self.built.norm.take() else { return Ok(kernel) };
        let width = self.graph.shape(kernel).last();
        let path = std::mem::replace(&mut self.path, path);
        let start = Initializer::TruncatedNormal { mean: 0.0, stddev: 0.02 };
        let state = self.state(VECTOR, &[1, width], &start);
        self.path = path;
        if self.mode == Mode::Inference {
            return Ok(kernel);
        }
        // A layer that is used again goes on from where its last use left both.
        let before = self.built.divided.get(&kernel).copied().unwrap_or([kernel, state]);
        let after = super::spectral::divided(self.graph, before, iterations)?;
        let updates = self.graph.updates().iter();
        let last = updates.clone().find(|update| update.0 == state).map_or(state, |update| update.1);
        // States are overwritten in place.
        let new = self.graph.optimize(Rule::MovingAverage { momentum: 0.0 }, &[last], &[after[1]], &[])?;
        self.graph.update(state, new[0]);
        self.built.divided.insert(kernel, after);
        Ok(after[0])
    }

    /// Returns a tensor of this layer that no optimiser updates, such as a moving mean.
    pub fn state(&mut self, name: &str, shape: &[usize], initializer: &Initializer) -> Value {
        self.add(name, shape, initializer, false, None)
    }

    /// Returns `x` plus a trainable `bias` along its last axis, or `x` without options.
    pub fn bias(&mut self, x: Value, options: Option<WeightOptions>) -> Result<Value, OpError> {
        let Some(options) = options else { return Ok(x) };
        let bias = self.weight("bias", &[self.graph.shape(x).last()], options)?;
        self.graph.add(x, bias)
    }

    /// Returns the factor `gamma` and the offset `beta` of a normalisation, constants without options.
    pub(super) fn gamma_beta(
        &mut self,
        shape: &[usize],
        gamma: Option<WeightOptions>,
        beta: Option<WeightOptions>,
    ) -> Result<[Value; 2], OpError> {
        let mut weight = |name, options: Option<WeightOptions>, constant| match options {
            Some(options) => self.weight(name, shape, options),
            None => self.filled(shape, constant),
        };
        Ok([weight("gamma", gamma, 1.0)?, weight("beta", beta, 0.0)?])
    }

    /// Returns a constant tensor, for a weight that an option omits.
    pub fn filled(&mut self, shape: &[usize], value: f32) -> Result<Value, OpError> {
        let number = self.graph.constant(value)?;
        self.graph.expand(number, &Shape::fixed(shape))
    }

    /// A second use of a layer finds the weights of the first.
    fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        initial: &Initializer,
        trainable: bool,
        constraint: Option<&Constraint>,
    ) -> Value {
        let name = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        if let Some(&index) = self.built.by_name.get(&name) {
            return self.built.weights[index].value;
        }
        let ty = TensorType::f32(Shape::fixed(shape));
        let value = self.graph.state(&name, ty, Some(Arc::new(initial.clone())));
        let (shape, initial, constraint) = (shape.to_vec(), initial.clone(), constraint.cloned());
        self.built.by_name.insert(name.clone(), self.built.weights.len());
        self.built.weights.push(Weight { name, shape, initial, trainable, constraint, value });
        value
    }

    /// Adds the penalty of an activity regulariser to the loss, as the mean over the batch.
    pub fn activity(&mut self, regularizer: &Option<Regularizer>, output: Value) -> Result<(), OpError> {
        if let Some(regularizer) = regularizer {
            check_numbers(regularizer.numbers())?;
            let (penalty, share) = (regularizer.build(self.graph, output)?, self.graph.inv_batch()?);
            self.built.penalties.push(self.graph.mul(penalty, share)?);
        }
        Ok(())
    }

    /// Records that `probabilities` is the softmax of `logits`, so that a loss can use the stable form.
    pub fn softmax_of(&mut self, probabilities: Value, logits: Value) {
        self.built.logits.insert(probabilities, logits);
    }
}

/// Declares a layer: its options with their Keras names and defaults, methods that set them, and its description for
/// files. The layer's file adds `new` and `call`, which builds it.
///
/// An option is `set` (a method takes its type), `into` (a method takes what converts into it) or `new` (it has no
/// method: the constructor takes it). Each of the `weights`, listed with its default initialiser, is three options, such
/// as `kernel_initializer`, `kernel_regularizer` and `kernel_constraint`; the method `kernel` returns them together.
macro_rules! layer {
    ($(#[$meta:meta])* pub struct $Layer:ident as $kind:literal { $($options:tt)* }
     $(weights { $($weight:ident = $initial:expr),* })?) => {
        layer! { @ [$(#[$meta])* $Layer $kind $($options)*] [] $($($weight = $initial,)*)? }
    };
    // The names of a weight's options: a macro cannot derive them from the weight's name.
    (@kernel $($t:tt)*) => { layer! { @ (kernel kernel_initializer kernel_regularizer kernel_constraint) $($t)* } };
    (@depthwise_kernel $($t:tt)*) => {
        layer! { @ (depthwise_kernel depthwise_initializer depthwise_regularizer depthwise_constraint) $($t)* }
    };
    (@pointwise_kernel $($t:tt)*) => {
        layer! { @ (pointwise_kernel pointwise_initializer pointwise_regularizer pointwise_constraint) $($t)* }
    };
    (@recurrent_kernel $($t:tt)*) => {
        layer! { @ (recurrent_kernel recurrent_initializer recurrent_regularizer recurrent_constraint) $($t)* }
    };
    (@bias $($t:tt)*) => { layer! { @ (bias bias_initializer bias_regularizer bias_constraint) $($t)* } };
    (@gamma $($t:tt)*) => { layer! { @ (gamma gamma_initializer gamma_regularizer gamma_constraint) $($t)* } };
    (@beta $($t:tt)*) => { layer! { @ (beta beta_initializer beta_regularizer beta_constraint) $($t)* } };
    (@alpha $($t:tt)*) => { layer! { @ (alpha alpha_initializer alpha_regularizer alpha_constraint) $($t)* } };
    (@embeddings $($t:tt)*) => {
        layer! { @ (embeddings embeddings_initializer embeddings_regularizer embeddings_constraint) $($t)* }
    };
    // Completes one weight after another.
    (@ $layer:tt $known:tt $weight:ident = $initial:expr, $($rest:tt)*) => {
        layer! { @$weight [$initial] $layer $known $($rest)* }
    };
    (@ ($($names:ident)*) [$initial:expr] $layer:tt [$($known:tt)*] $($rest:tt)*) => {
        layer! { @ $layer [$($known)* $($names)* = $initial,] $($rest)* }
    };
    (@ [$(#[$meta:meta])* $Layer:ident $kind:literal
        $($(#[$doc:meta])* $mode:ident $field:ident: $ty:ty = $default:expr,)*]
       [$($weight:ident $initializer:ident $regularizer:ident $constraint:ident = $initial:expr,)*]) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $Layer {
            $($field: $ty,)*
            $(
                $initializer: $crate::nn::Initializer,
                $regularizer: Option<$crate::nn::Regularizer>,
                $constraint: Option<$crate::nn::Constraint>,
            )*
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<String>,
            trainable: bool,
            #[serde(skip)]
            input_shape: Option<Vec<usize>>,
        }

        impl Default for $Layer {
            fn default() -> Self {
                $Layer {
                    $($field: $default,)*
                    $($initializer: $initial, $regularizer: None, $constraint: None,)*
                    name: None,
                    trainable: true,
                    input_shape: None,
                }
            }
        }

        impl $Layer {
            /// The Keras class name.
            pub const KIND: &'static str = $kind;

            $($crate::nn::layer::setter!($mode $(#[$doc])* $field: $ty = $default);)*

            $(
                $crate::nn::layer::setter! {
                    set #[doc = concat!("Sets how `", stringify!($weight), "` is initialised.")]
                    $initializer: $crate::nn::Initializer = $initial
                }
                $crate::nn::layer::setter! {
                    into #[doc = concat!("Adds a penalty on `", stringify!($weight), "` to the loss.")]
                    $regularizer: Option<$crate::nn::Regularizer> = None
                }
                $crate::nn::layer::setter! {
                    into #[doc = concat!("Constrains `", stringify!($weight), "` after each update.")]
                    $constraint: Option<$crate::nn::Constraint> = None
                }

                fn $weight(&self) -> $crate::nn::WeightOptions<'_> {
                    let (initializer, regularizer) = (&self.$initializer, self.$regularizer.as_ref());
                    $crate::nn::WeightOptions { initializer, regularizer, constraint: self.$constraint.as_ref() }
                }
            )*

            /// Names the layer; by default its name is made from its type.
            pub fn name(mut self, name: impl Into<String>) -> Self {
                self.name = Some(name.into());
                self
            }

            /// Sets whether optimisers may change the layer's weights.
            ///
            /// Default: `true`.
            pub fn trainable(mut self, trainable: bool) -> Self {
                self.trainable = trainable;
                self
            }

            /// Sets the shape of a sample, for the first layer of a [`Sequential`]($crate::nn::Sequential).
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

            fn wrapped(&self) -> Option<(String, &std::sync::Arc<dyn $crate::nn::Layer>)> {
                #[allow(unused_imports, reason = "a layer's own method goes before the trait's")]
                use $crate::nn::layer::Wraps as _;
                self.wrapped_layer()
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

/// Declares the method that sets an option; the documentation states the default if given.
macro_rules! setter {
    (new $(#[$doc:meta])* $field:ident: $ty:ty $(= $default:expr)?) => {};
    (set $(#[$doc:meta])* $field:ident: $ty:ty $(= $default:expr)?) => {
        $(#[$doc])*
        $(#[doc = concat!("\nDefault: `", stringify!($default), "`.")])?
        pub fn $field(mut self, $field: $ty) -> Self {
            self.$field = $field;
            self
        }
    };
    (into $(#[$doc:meta])* $field:ident: $ty:ty $(= $default:expr)?) => {
        $(#[$doc])*
        $(#[doc = concat!("\nDefault: `", stringify!($default), "`.")])?
        pub fn $field(mut self, $field: impl Into<$ty>) -> Self {
            self.$field = $field.into();
            self
        }
    };
}
pub(crate) use setter;
