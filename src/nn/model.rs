mod cut;

use super::names::{Names, refused};
use super::{
    Layer, LayerError, Mode, Scope, Tensor, Weight,
    about::About,
    functional,
    layer::Built,
    models::Preprocessing,
    summary::{Row, Summary, rows},
};
use crate::{
    graph::{Graph, Initialize, OpError, TensorType, Value},
    tensor::{DType, HostTensor, Philox, Purpose, Shape, stream_id},
};
use std::{
    any::Any,
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

/// A layer of a model under its name there.
#[derive(Debug, Clone)]
struct NamedLayer {
    layer: Arc<dyn Layer>,
    name: String,
    trainable: bool,
}

/// One use of a layer. Values are numbered: the model's inputs, then the results of the calls in order.
#[derive(Debug, Clone)]
struct Call {
    layer: usize,
    /// The index among the layer's uses.
    at: usize,
    inputs: Vec<usize>,
    outputs: usize,
}

/// A checked network: layers, shapes, names of weights. It holds no device memory, and is itself a layer.
///
/// ```
/// use hubel::{layers::*, prelude::*};
/// let model = Sequential::new([4]).add(Dense::new(2).name("head")).build()?;
/// assert_eq!(model.weight_names(), ["head/kernel", "head/bias"]);
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Model {
    name: String,
    inputs: Vec<(String, TensorType)>,
    layers: Vec<NamedLayer>,
    /// Indices of the layers by name.
    by_name: HashMap<String, usize>,
    calls: Vec<Call>,
    outputs: Vec<usize>,
    output_types: Vec<TensorType>,
    /// Types of all values.
    types: Vec<TensorType>,
    rows: Vec<Row>,
    weights: Vec<Weight>,
    values: HashMap<String, HostTensor>,
    sequential: bool,
    about: About,
}

/// A model in a graph.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Assembled {
    /// The first output of each layer, by name, in order; of layers inside others by path.
    pub layers: Vec<(String, Value)>,
    /// The model's outputs.
    pub outputs: Vec<Value>,
    /// The logits of each output that is known to be a softmax.
    pub logits: Vec<Option<Value>>,
    /// The penalties of regularisers, scalars.
    pub penalties: Vec<Value>,
    /// The model's weights.
    pub weights: Vec<Weight>,
}

/// Returns the calls of layers that the outputs need, in the order in which they were made.
fn needed<'t>(inputs: &'t [Tensor], outputs: &'t [Tensor]) -> Result<Vec<&'t Arc<functional::Node>>, LayerError> {
    let mut given: HashSet<(u64, usize)> = HashSet::new();
    if let Some(twice) = inputs.iter().find(|t| !given.insert((t.node.id, t.output))) {
        let input = twice.node.name.as_deref().unwrap_or("input");
        return Err(refused(input, "InputLayer", "each input once", "one that is listed twice", "list it once"));
    }
    let (mut seen, mut nodes) = (HashSet::new(), Vec::new());
    let mut stack: Vec<&Tensor> = outputs.iter().collect();
    while let Some(Tensor { node, output }) = stack.pop() {
        if given.contains(&(node.id, *output)) || !seen.insert(node.id) {
            continue;
        }
        if node.layer.is_none() {
            let input = node.name.as_deref().unwrap_or("input");
            let advice = "list every `Input` that the outputs need";
            return Err(refused(input, "InputLayer", "an input of the model", "one that is not listed", advice));
        }
        nodes.push(node);
        stack.extend(&node.inputs);
    }
    nodes.sort_by_key(|n| n.id);
    Ok(nodes)
}

/// Returns the model that a layer is, if it is one.
pub(super) fn as_model(layer: &dyn Layer) -> Option<&Model> {
    layer.nested()?.downcast_ref()
}

impl Model {
    /// Returns the model between these inputs and outputs (Keras `Model`), or an error that names the layer.
    ///
    /// Layers without a name are named by type and number, in the order in which they were applied.
    pub fn new(inputs: &[Tensor], outputs: &[Tensor]) -> Result<Self, LayerError> {
        Self::named("functional", inputs, outputs)
    }

    /// Returns the model under a name; see [`Model::new`].
    pub fn named(name: &str, inputs: &[Tensor], outputs: &[Tensor]) -> Result<Self, LayerError> {
        if inputs.is_empty() || outputs.is_empty() {
            return Err(refused(name, "Model", "inputs and outputs", "none", "give at least one of each"));
        }
        let nodes = needed(inputs, outputs)?;
        let mut names = Names::default();
        let mut values: HashMap<(u64, usize), usize> = HashMap::new();
        let mut model_inputs = Vec::new();
        for (i, input) in inputs.iter().enumerate() {
            let name = match (&input.node.layer, input.node.name.as_deref()) {
                (None, given) => names.of(given, "InputLayer")?,
                // The input is an inner tensor: the model begins there.
                (Some(_), _) => names.of(None, "InputLayer")?,
            };
            values.insert((input.node.id, input.output), i);
            model_inputs.push((name, input.ty().clone()));
        }
        let mut layers: Vec<NamedLayer> = Vec::new();
        let mut known: HashMap<*const (), usize> = HashMap::new();
        let mut uses: Vec<usize> = Vec::new();
        let mut calls = Vec::new();
        let mut next = inputs.len();
        for node in nodes {
            let Some(layer) = &node.layer else { continue };
            let at = match known.entry(Arc::as_ptr(layer).cast()) {
                Entry::Occupied(index) => *index.get(),
                Entry::Vacant(index) => {
                    let name = names.of(layer.given_name(), layer.kind())?;
                    layers.push(NamedLayer { layer: layer.clone(), name, trainable: layer.trainable() });
                    uses.push(0);
                    *index.insert(layers.len() - 1)
                }
            };
            let find = |t: &Tensor| values.get(&(t.node.id, t.output)).copied();
            let Some(from) = node.inputs.iter().map(find).collect::<Option<Vec<_>>>() else {
                let advice = "list every input that the outputs need";
                return Err(refused(&layers[at].name, layer.kind(), "inputs of the model", "another tensor", advice));
            };
            calls.push(Call { layer: at, at: uses[at], inputs: from, outputs: next });
            uses[at] += 1;
            for output in 0..node.outputs.len() {
                values.insert((node.id, output), next + output);
            }
            next += node.outputs.len();
        }
        let outputs: Vec<usize> = outputs.iter().filter_map(|t| values.get(&(t.node.id, t.output)).copied()).collect();
        let mut model = Model {
            name: name.to_owned(),
            inputs: model_inputs,
            by_name: layers.iter().enumerate().map(|(at, p)| (p.name.clone(), at)).collect(),
            layers,
            calls,
            outputs,
            output_types: Vec::new(),
            types: Vec::new(),
            rows: Vec::new(),
            weights: Vec::new(),
            values: HashMap::new(),
            sequential: false,
            about: About::default(),
        };
        for NamedLayer { layer, name, .. } in &model.layers {
            let inner = as_model(&**layer).into_iter().flat_map(|m| &m.values);
            model.values.extend(inner.map(|(weight, value)| (format!("{name}/{weight}"), value.clone())));
        }
        model.refresh()?;
        Ok(model)
    }

    /// Sets the names of the classes that the first output's elements stand for; [`Model::save`] writes them.
    pub fn set_class_names<S: Into<String>>(&mut self, names: impl IntoIterator<Item = S>) {
        self.about.class_names = names.into_iter().map(Into::into).collect();
    }

    /// Sets how images are preprocessed for the model; [`Model::save`] writes it.
    pub fn set_preprocessing(&mut self, preprocessing: Preprocessing) {
        self.about.preprocessing = Some(preprocessing);
    }

    /// Returns the names of the classes, none unless they were set or the file has them.
    pub fn class_names(&self) -> &[String] {
        &self.about.class_names
    }

    /// Returns how images are preprocessed, if that was set or the file says so.
    pub fn preprocessing(&self) -> Option<Preprocessing> {
        self.about.preprocessing
    }

    /// Gives weights their elements, which are known to fit.
    #[cfg(feature = "onnx")]
    pub(super) fn set_values(&mut self, values: Vec<(String, HostTensor)>) {
        self.values.extend(values);
    }

    pub(super) fn set_about(&mut self, about: About) {
        self.about = about;
    }

    /// Marks the model as a list of layers, which Keras numbers apart from functional models in files of weights.
    pub(super) fn sequential(mut self) -> Self {
        self.sequential = self.layers.len() == self.calls.len();
        self
    }

    /// Returns whether the model is a list of layers.
    pub(super) fn is_sequential(&self) -> bool {
        self.sequential
    }

    /// Computes shapes, weights and rows of the summary from the layers.
    fn refresh(&mut self) -> Result<(), LayerError> {
        let mut graph = Graph::new();
        let inputs: Vec<Value> =
            self.inputs.iter().map(|(name, ty)| graph.input(name, ty.shape.clone(), ty.dtype)).collect();
        let mut ends = Vec::new();
        let assembled = self.assemble_with(&mut graph, &inputs, Mode::Inference, |graph, call, values| {
            ends.push((call, graph.nodes().len(), values.to_vec()));
        })?;
        let names = |call: usize| -> Vec<String> {
            let call: &Call = &self.calls[call];
            call.inputs.iter().map(|&v| self.name_of_value(v)).collect()
        };
        let described = (ends.iter()).map(|(call, end, values)| {
            let NamedLayer { layer, name, .. } = &self.layers[self.calls[*call].layer];
            (name.as_str(), layer.kind(), names(*call), *end, values.as_slice())
        });
        self.rows = rows(&graph, &inputs, &self.inputs, described.collect(), &assembled.weights);
        let values = inputs.iter().chain(ends.iter().flat_map(|end| &end.2));
        self.types = values.map(|&v| graph.ty(v).clone()).collect();
        self.output_types = assembled.outputs.iter().map(|&v| graph.ty(v).clone()).collect();
        let (ranks, mut weights) = (self.ranks(), assembled.weights);
        weights.sort_by_cached_key(|w| w.name.split('/').next().and_then(|layer| ranks.get(layer)).copied());
        self.weights = weights;
        Ok(())
    }

    /// Returns the position of each layer in Keras's order: those farthest from the outputs first, equally far ones in
    /// the order of a walk from the outputs (`keras.src.ops.function.map_graph`).
    pub(super) fn ranks(&self) -> HashMap<&str, usize> {
        let maker = |value: &usize| self.maker(*value);
        let mut met: HashMap<usize, usize> = HashMap::new();
        let mut walked = vec![false; self.calls.len()];
        let mut stack: Vec<usize> = self.outputs.iter().rev().copied().collect();
        while let Some(value) = stack.pop() {
            let Some(call) = maker(&value) else { continue };
            if !std::mem::replace(&mut walked[call], true) {
                let next = met.len();
                met.entry(self.calls[call].layer).or_insert(next);
                stack.extend(self.calls[call].inputs.iter().rev());
            }
        }
        let mut far = vec![0usize; self.layers.len()];
        let mut depths = vec![0usize; self.calls.len()];
        for (i, call) in self.calls.iter().enumerate().rev() {
            far[call.layer] = far[call.layer].max(depths[i]);
            for before in call.inputs.iter().filter_map(maker) {
                depths[before] = depths[before].max(far[call.layer] + 1);
            }
        }
        let mut order: Vec<usize> = (0..self.layers.len()).collect();
        order.sort_by_key(|layer| (std::cmp::Reverse(far[*layer]), met.get(layer).copied()));
        order.into_iter().enumerate().map(|(rank, layer)| (self.layers[layer].name.as_str(), rank)).collect()
    }

    /// Returns the call that produces a value, or `None` for an input.
    fn maker(&self, value: usize) -> Option<usize> {
        self.calls.partition_point(|c| c.outputs <= value).checked_sub(1)
    }

    fn name_of_value(&self, value: usize) -> String {
        let name = |call: usize| self.layers[self.calls[call].layer].name.clone();
        self.maker(value).map_or_else(|| self.inputs[value].0.clone(), name)
    }

    /// Appends the model to a graph, from its inputs on.
    pub fn assemble(&self, graph: &mut Graph, inputs: &[Value], mode: Mode) -> Result<Assembled, LayerError> {
        self.assemble_with(graph, inputs, mode, |_, _, _| {})
    }

    fn assemble_with(
        &self,
        graph: &mut Graph,
        inputs: &[Value],
        mode: Mode,
        mut after: impl FnMut(&Graph, usize, &[Value]),
    ) -> Result<Assembled, LayerError> {
        let mut built = Built::default();
        let mut scope = Scope::new(graph, mode, &mut built);
        let outputs = self.walk(&mut scope, inputs, &mut after)?;
        let logits = outputs.iter().map(|&v| built.logits(v)).collect();
        let Built { weights, penalties, layers, .. } = built;
        Ok(Assembled { layers, outputs, logits, penalties, weights })
    }

    fn walk(
        &self,
        scope: &mut Scope,
        inputs: &[Value],
        after: &mut dyn FnMut(&Graph, usize, &[Value]),
    ) -> Result<Vec<Value>, LayerError> {
        if inputs.len() != self.inputs.len() {
            let (wanted, got) = (format!("{} inputs", self.inputs.len()), inputs.len().to_string());
            return Err(refused(&self.name, "Model", &wanted, got, "give one for each input of the model"));
        }
        for ((name, ty), &value) in self.inputs.iter().zip(inputs) {
            // A wrapper may make several samples of one.
            let given = scope.graph.ty(value);
            // Training feeds integers as floats.
            let fits = given.dtype == ty.dtype || (given.dtype, ty.dtype) == (DType::F32, DType::I32);
            if !fits || given.shape.dims().get(1..) != ty.shape.dims().get(1..) {
                let got = scope.graph.ty(value).to_string();
                let advice = "reshape the samples, or build the model for this shape";
                return Err(refused(name, "InputLayer", &ty.to_string(), got, advice));
            }
        }
        let mut values = inputs.to_vec();
        for (i, call) in self.calls.iter().enumerate() {
            let NamedLayer { layer, name, trainable } = &self.layers[call.layer];
            let from: Vec<Value> = call.inputs.iter().map(|&v| values[v]).collect();
            let outputs = scope
                .build_layer(name, layer.as_ref(), *trainable, &from)
                .map_err(|e| functional::error(name, layer.as_ref(), e))?;
            after(scope.graph, i, &outputs);
            values.extend(outputs);
        }
        Ok(self.outputs.iter().map(|&v| values[v]).collect())
    }

    /// Returns the model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names and types of the model's inputs.
    pub fn inputs(&self) -> &[(String, TensorType)] {
        &self.inputs
    }

    /// Returns the types of the model's outputs.
    pub fn outputs(&self) -> &[TensorType] {
        &self.output_types
    }

    /// Returns the shape of the model's first input.
    pub fn input_shape(&self) -> Shape {
        self.inputs[0].1.shape.clone()
    }

    /// Returns the shape of the model's first output.
    pub fn output_shape(&self) -> Shape {
        self.output_types[0].shape.clone()
    }

    /// Returns the number of weights, trainable or not.
    pub fn count_params(&self) -> usize {
        self.weights.iter().map(Weight::count).sum()
    }

    /// Returns the names of all weights in Keras's order of the layers.
    pub fn weight_names(&self) -> Vec<&str> {
        self.weights.iter().map(|w| w.name.as_str()).collect()
    }

    /// Returns all weights in Keras's order of the layers: those farthest from the outputs first.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Returns the names of the layers.
    pub fn layer_names(&self) -> Vec<&str> {
        self.layers.iter().map(|p| p.name.as_str()).collect()
    }

    /// Returns the layer of this name. The path `model/layer` names a layer of a model inside this one.
    pub fn layer(&self, path: &str) -> Result<&Arc<dyn Layer>, LayerError> {
        let (name, rest) = path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let found = self.by_name.get(name).map(|&at| &self.layers[at]).ok_or_else(|| self.unknown(name))?;
        match (rest, as_model(&*found.layer)) {
            (None, _) => Ok(&found.layer),
            (Some(rest), Some(model)) => model.layer(rest),
            (Some(_), None) => Err(self.unknown(path)),
        }
    }

    fn unknown(&self, name: &str) -> LayerError {
        let wanted = format!("one of {}", self.layer_names().join(", "));
        refused(name, "Model", &wanted, format!("`{name}`"), "use the name that `summary` shows")
    }

    /// Sets whether an optimiser may update a layer. The path `model/layer` names a layer of a model inside this one.
    pub fn set_trainable(&mut self, path: &str, trainable: bool) -> Result<(), LayerError> {
        let (name, rest) = path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let at = *self.by_name.get(name).ok_or_else(|| self.unknown(path))?;
        match rest {
            None => self.layers[at].trainable = trainable,
            Some(rest) => {
                let mut inner = as_model(&*self.layers[at].layer).ok_or_else(|| self.unknown(path))?.clone();
                inner.set_trainable(rest, trainable)?;
                self.layers[at].layer = Arc::new(inner);
            }
        }
        self.refresh()
    }

    /// Sets whether an optimiser may update the layers, all of them.
    pub fn set_all_trainable(&mut self, trainable: bool) -> Result<(), LayerError> {
        self.layers.iter_mut().for_each(|p| p.trainable = trainable);
        self.refresh()
    }

    /// Returns the initial value of a weight: the one that was set, else the one that its initialiser draws with this
    /// seed.
    pub fn initial_value(&self, weight: &Weight, seed: u64) -> HostTensor {
        if let Some(value) = self.values.get(&weight.name) {
            return value.clone();
        }
        let mut rng = Philox::new(seed, Purpose::Initialize, stream_id(&weight.name));
        let data = weight.initial.fill(&weight.shape, &mut rng);
        HostTensor::f32(weight.shape.clone(), data)
            .unwrap_or_else(|_| crate::tensor::Array::zeros(weight.shape.clone()).to_host(DType::F32))
    }

    /// Sets weights by name; every weight of the model must be present, with its shape.
    ///
    /// Other names are refused too, so that a wrong file is noticed.
    pub fn set_weights(&mut self, tensors: Vec<(String, HostTensor)>) -> Result<(), LayerError> {
        let mut values: HashMap<String, HostTensor> = HashMap::new();
        let error = |name: &str, wanted: String, got: String, advice: &str| {
            refused(name.split('/').next().unwrap_or(name), "weights", &wanted, got, advice)
        };
        let known: HashMap<&str, &Weight> = self.weights.iter().map(|w| (w.name.as_str(), w)).collect();
        for (name, tensor) in tensors {
            let Some(weight) = known.get(name.as_str()) else {
                let wanted = format!("one of {}", self.weight_names().join(", "));
                return Err(error(&name, wanted, format!("`{name}`"), "use this model's own weights"));
            };
            if weight.shape != tensor.shape() {
                let (wanted, got) = (format!("`{name}` of shape {:?}", weight.shape), format!("{:?}", tensor.shape()));
                return Err(error(&name, wanted, got, "use weights from a model with the same sizes"));
            }
            let tensor = match tensor.dtype() {
                DType::F32 => tensor,
                _ => tensor.to_array().to_host(DType::F32),
            };
            values.insert(name, tensor);
        }
        if let Some(weight) = self.weights.iter().find(|w| !values.contains_key(&w.name)) {
            let wanted = format!("`{}` of shape {:?}", weight.name, weight.shape);
            return Err(error(&weight.name, wanted, "no such tensor".into(), "use this model's own weights"));
        }
        self.values = values;
        Ok(())
    }

    /// Sets those of the tensors that the model has by name and shape, and returns their names.
    pub(super) fn set_some(&mut self, tensors: Vec<(String, HostTensor)>) -> Vec<String> {
        let known: HashMap<&str, &Weight> = self.weights.iter().map(|w| (w.name.as_str(), w)).collect();
        let fits = |(name, t): &(String, HostTensor)| known.get(name.as_str()).is_some_and(|w| w.shape == t.shape());
        let fitting: Vec<(String, HostTensor)> = tensors.into_iter().filter(fits).collect();
        let names = fitting.iter().map(|(name, _)| name.clone()).collect();
        self.values.extend(fitting.into_iter().map(|(name, t)| (name, t.to_array().to_host(DType::F32))));
        names
    }

    /// Returns the content of Keras's `summary`, with costs, as text through `Display` and as rows.
    pub fn summary(&self) -> Summary {
        let trainable = self.weights.iter().filter(|w| w.trainable).map(Weight::count).sum();
        let (rows, name) = (self.rows.clone(), self.name.clone());
        Summary { name, rows, trainable, non_trainable: self.count_params() - trainable }
    }

    /// Returns the inputs and the uses of layers in order: name, type, shape of the first result, number of weights,
    /// indices of its inputs.
    #[cfg(feature = "plots")]
    pub(crate) fn diagram(&self) -> Result<Vec<(String, &'static str, Shape, usize, Vec<usize>)>, LayerError> {
        let inputs = self.inputs.iter().map(|(n, ty)| (n.clone(), "InputLayer", ty.shape.clone(), 0, Vec::new()));
        let mut blocks: Vec<_> = inputs.collect();
        let params: HashMap<&str, usize> = self.rows.iter().map(|r| (r.name.as_str(), r.params)).collect();
        let mut graph = Graph::new();
        let values: Vec<Value> =
            self.inputs.iter().map(|(name, ty)| graph.input(name, ty.shape.clone(), ty.dtype)).collect();
        self.assemble_with(&mut graph, &values, Mode::Inference, |graph, at, results| {
            let Call { layer, inputs, .. } = &self.calls[at];
            let NamedLayer { layer, name, .. } = &self.layers[*layer];
            let maker = |&v: &usize| self.maker(v).map_or(v, |call| self.inputs.len() + call);
            let weights = params.get(name.as_str()).copied().unwrap_or(0);
            let shape = results.first().map_or_else(Shape::scalar, |&v| graph.shape(v).clone());
            blocks.push((name.clone(), layer.kind(), shape, weights, inputs.iter().map(maker).collect()));
        })?;
        Ok(blocks)
    }

    /// Returns for each layer the inputs of each use, as (layer, use, output) and type.
    pub(super) fn uses(&self) -> Vec<(&str, &Arc<dyn Layer>, bool, Vec<Vec<((String, usize, usize), &TensorType)>>)> {
        let mut uses = vec![Vec::new(); self.layers.len()];
        for call in &self.calls {
            uses[call.layer].push(call.inputs.iter().map(|&v| (self.source(v), &self.types[v])).collect());
        }
        let layers = self.layers.iter().zip(uses);
        layers.map(|(p, inputs)| (p.name.as_str(), &p.layer, p.trainable, inputs)).collect()
    }

    /// Returns the calls in order: name, layer, the numbers of its inputs, and the number of its first output. The
    /// model's inputs come first, then the outputs of each call.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&str, &Arc<dyn Layer>, &[usize], usize)> {
        self.calls.iter().map(|call| {
            let NamedLayer { layer, name, .. } = &self.layers[call.layer];
            (name.as_str(), layer, call.inputs.as_slice(), call.outputs)
        })
    }

    /// Returns the types of the inputs and of all results of calls, by their numbers.
    pub(super) fn types(&self) -> &[TensorType] {
        &self.types
    }

    /// Returns the numbers of the outputs.
    pub(super) fn output_numbers(&self) -> &[usize] {
        &self.outputs
    }

    /// Returns the layer, use and output that produce a value.
    fn source(&self, value: usize) -> (String, usize, usize) {
        match self.maker(value).map(|at| &self.calls[at]) {
            None => (self.inputs[value].0.clone(), 0, 0),
            Some(call) => (self.layers[call.layer].name.clone(), call.at, value - call.outputs),
        }
    }

    /// Returns the names of the layers that compute the outputs.
    pub fn output_names(&self) -> Vec<String> {
        self.outputs.iter().map(|&v| self.name_of_value(v)).collect()
    }

    /// Returns the layer, use and output of the model's outputs. Here Keras counts uses of functional models from 1.
    pub(super) fn output_sources(&self) -> Vec<(String, usize, usize)> {
        let functional = |name: &str| {
            self.by_name.get(name).and_then(|&at| as_model(&*self.layers[at].layer)).is_some_and(|m| !m.sequential)
        };
        let counted = |(name, node, output): (String, usize, usize)| {
            let first = usize::from(functional(&name));
            (name, node + first, output)
        };
        self.outputs.iter().map(|&v| counted(self.source(v))).collect()
    }
}

impl Layer for Model {
    fn kind(&self) -> &'static str {
        if self.sequential { "Sequential" } else { "Functional" }
    }

    fn given_name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn nested(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let path = scope.layer().to_owned();
        self.walk(scope, inputs, &mut |_, _, _| {}).map_err(|e| OpError {
            node: format!("{path}/{}/{}", e.layer, e.kind),
            ..OpError::new(&e.kind, e.wanted, e.got, e.advice)
        })
    }
}

impl Weight {
    /// Returns the number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}
