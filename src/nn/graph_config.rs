//! Models of Keras's JSON: the calls of a Sequential and of a functional model.

use super::config::{
    KerasOptions, MODELS, Reading, broken, call, draw, exceeded, fill_extents, input_from_json, is_model, references,
    take_list, text, without_effect,
};
use super::keras2;
use super::layers::{REGISTRY, training_only::TrainingOnly};
use super::operation::{self, INPUT, Operation, is_operation};
use super::{Layer, LayerError, Model, Tensor, names::refused as error};
use crate::io::Budget;
use serde_json::{Map, Value as Json, json};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

impl Model {
    /// Returns the model described by the output of Keras's `to_json` or of [`Model::to_json`], or an error that names
    /// an unknown layer.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([8, 8, 3]).add(Conv2D::new(4, 3)).add(Relu).build()?;
    /// let again = Model::from_json(&model.to_json()?)?;
    /// assert_eq!(again.to_json()?, model.to_json()?);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn from_json(json: &str) -> Result<Model, LayerError> {
        Self::from_json_within(json, None, &Budget::new(json.len() as u64), &KerasOptions::default())
    }

    /// [`Model::from_json`] within a file's budget, with the version of Keras that the file states and options.
    pub(super) fn from_json_within(
        json: &str,
        version: Option<&str>,
        budget: &Budget,
        options: &KerasOptions,
    ) -> Result<Model, LayerError> {
        budget.take_json("the model", json.as_bytes()).map_err(exceeded)?;
        let mut object: Json = serde_json::from_str(json).map_err(|e| broken("JSON", e))?;
        if keras2::is_old(&object, version) {
            keras2::modernize(&mut object);
        }
        if let Some(shape) = &options.input_shape {
            let inputs = references(&object["config"]["input_layers"]).len().max(1);
            fill_extents(&mut object, &vec![shape.clone(); inputs]);
        }
        draw(&object, 0, budget).and_then(|bytes| budget.take("the model", bytes)).map_err(exceeded)?;
        let config = object.get_mut("config").map(Json::take).unwrap_or_default();
        let reading = Reading { budget: Some(budget), options: Some(options) };
        model_from(text(&object, "class_name")?, config, reading)
    }
}

/// Returns the layer that an object of Keras describes.
pub(super) fn layer_from_json(mut object: Json, reading: Reading) -> Result<Arc<dyn Layer>, LayerError> {
    let mut config = object.get_mut("config").map(Json::take).unwrap_or_default();
    let class = text(&object, "class_name")?;
    let name = config["name"].as_str().unwrap_or(class).replace('/', "_");
    if MODELS.contains(&class) {
        let frozen = config["trainable"] == false;
        let mut model = model_from(class, config, reading)?;
        if frozen {
            model.set_all_trainable(false)?;
        }
        return Ok(Arc::new(model));
    }
    let own = reading.options.and_then(|o| o.layers.iter().find(|(known, _)| known == class));
    if let Some((_, build)) = own {
        let advice = "correct the function that builds it";
        return build(&config).map_err(|got| error(&name, class, "the options of this layer", got, advice));
    }
    if let Some(layer) = TrainingOnly::new(class, config.as_object().cloned().unwrap_or_default()) {
        return Ok(Arc::new(layer));
    }
    let Some((_, build)) = REGISTRY.iter().find(|(kind, _)| *kind == class) else {
        return Err(unknown(&name, class));
    };
    let Json::Object(map) = &mut config else {
        let advice = "give the layer's options by name";
        return Err(error(&name, class, "a `config` object", config.to_string(), advice));
    };
    map.retain(|key, value| !without_effect(key, value));
    if let Some(name) = map.get_mut("name") {
        *name = name.as_str().unwrap_or_default().replace('/', "_").into();
    }
    // Keras 2 writes a list of one axis.
    if let Some([one]) = map.get("axis").and_then(Json::as_array).map(Vec::as_slice) {
        let one = one.clone();
        map.insert("axis".into(), one);
    }
    build(config).map_err(|e| {
        let advice = "change the option in Keras and save the model again";
        error(&name, class, "options that are supported", e.to_string(), advice)
    })
}

fn unknown(name: &str, class: &str) -> LayerError {
    let advice = match class {
        "Lambda" => "replace the function by layers: a file holds Python's code of it, which is not executed",
        "StringLookup" | "TextVectorization" | "Hashing" | "HashedCrossing" => {
            "look texts up before the model, and cut this layer off in Keras: models here take numbers"
        }
        _ => "build the model from the layers of LAYERS.md, or give your own by `KerasOptions::layer`",
    };
    error(name, class, "a layer of Keras that Hubel has", format!("`{class}`"), advice)
}

pub(super) fn model_from(class: &str, config: Json, reading: Reading) -> Result<Model, LayerError> {
    let name = config["name"].as_str().unwrap_or("model").replace('/', "_");
    match class {
        "Sequential" => sequential_from(&name, config, reading),
        "Functional" | "Model" => functional_from(&name, config, reading),
        _ => {
            let advice = "its code is not in the file: build a functional model in Keras and save that";
            Err(error(&name, class, "a Sequential or a functional model", format!("the class `{class}`"), advice))
        }
    }
}

/// Returns the shapes of samples.
fn samples(tensors: &[Tensor]) -> Vec<Vec<usize>> {
    tensors.iter().map(|t| t.shape().dims()[1..].to_vec()).collect()
}

/// Returns the input of a Sequential that begins with this layer.
fn first_input(layer: &Json, built_for: &Json) -> Result<Tensor, LayerError> {
    let config = &layer["config"];
    if layer["class_name"] == "InputLayer" {
        return input_from_json(config, config["name"].as_str());
    }
    let own = ["batch_shape", "batch_input_shape"].iter().any(|key| config[*key].is_array());
    if !own && is_model(layer) {
        let layers = config["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        return layers.first().map_or_else(|| Err(broken("layers", "none")), |inner| first_input(inner, built_for));
    }
    // As Keras names it.
    let name = format!("{}_input", config["name"].as_str().unwrap_or("layer").replace('/', "_"));
    let shape = json!({ "batch_shape": built_for, "name": name });
    input_from_json(if own { config } else { &shape }, Some(&name))
}

fn sequential_from(name: &str, mut config: Json, reading: Reading) -> Result<Model, LayerError> {
    let layers = take_list(&mut config, "layers")?;
    let first = layers.first().ok_or_else(|| broken("layers", "none"))?;
    let mut x = first_input(first, &config["build_input_shape"])?;
    let input = x.clone();
    for mut object in layers.into_iter().filter(|l| l["class_name"] != "InputLayer") {
        fill_extents(&mut object, &samples(std::slice::from_ref(&x)));
        x = call(&layer_from_json(object, reading)?, &[x], reading.budget)?.swap_remove(0);
    }
    Ok(Model::named(name, &[input], &[x])?.sequential())
}

/// A tensor by the layer's name, its use and its output.
type History = (String, usize, usize);

fn history(value: &Json) -> Result<History, LayerError> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    match items {
        [Json::String(name), Json::Number(node), Json::Number(output), ..] => {
            let [node, output] = [node, output].map(|n| n.as_u64().unwrap_or(u64::MAX) as usize);
            Ok((name.replace('/', "_"), node, output))
        }
        _ => Err(broken("[layer, use, output]", value)),
    }
}

/// A use of a layer as the file states it.
#[derive(Default)]
struct Inbound {
    /// The tensors among its arguments, in order.
    from: Vec<History>,
    /// The arguments, with numbers of tensors in place of them.
    args: Vec<Json>,
    kwargs: Map<String, Json>,
}

impl Inbound {
    /// Reads a use: Keras 3's arguments, or Keras 2's list of tensors, the first of which has the named arguments.
    fn new(node: &Json) -> Self {
        let mut inbound = Inbound::default();
        if node.is_object() {
            let args = node["args"].as_array().map(Vec::as_slice).unwrap_or_default();
            inbound.args = args.iter().map(|value| inbound.replaced(value)).collect();
            inbound.kwargs = inbound.named(&node["kwargs"]);
            return inbound;
        }
        let first = inbound.replaced(node);
        let mut of_first = node;
        while let Some(inner @ Json::Array(_)) = of_first.get(0) {
            of_first = inner;
        }
        inbound.kwargs = inbound.named(&of_first[3]);
        inbound.args = vec![first];
        inbound
    }

    fn named(&mut self, kwargs: &Json) -> Map<String, Json> {
        let kwargs = kwargs.as_object().cloned().unwrap_or_default();
        kwargs.into_iter().map(|(key, value)| (key, self.replaced(&value))).collect()
    }

    /// Returns an argument with tensors replaced by their numbers.
    fn replaced(&mut self, value: &Json) -> Json {
        let is_tensor = value["class_name"] == "__keras_tensor__";
        let found = if is_tensor { history(&value["config"]["keras_history"]) } else { history(value) };
        match (found, value) {
            // A constant of Keras 2.
            (_, Json::Array(items)) if items.first().is_some_and(|tag| tag == "_CONSTANT_VALUE") => {
                items.get(2).cloned().unwrap_or_default()
            }
            (Ok(history), _) => {
                self.from.push(history);
                json!({ INPUT: self.from.len() - 1 })
            }
            (_, Json::Array(items)) => items.iter().map(|item| self.replaced(item)).collect(),
            (_, Json::Object(map)) => map.iter().map(|(key, value)| (key.clone(), self.replaced(value))).collect(),
            (_, other) => other.clone(),
        }
    }

    /// Returns an error if a layer is called with arguments that are not tensors.
    fn only_tensors(&self, layer: &str) -> Result<(), LayerError> {
        // Keras records whether a model was built in training mode; its `fit` and `predict` override that.
        let harmless = |(key, value): &(&String, &Json)| {
            let tensors = ["initial_state", "query", "value", "key"].contains(&key.as_str());
            value.is_null() || *key == "training" || tensors || **value == false
        };
        match self.kwargs.iter().find(|argument| !harmless(argument)) {
            None => Ok(()),
            Some((key, value)) => {
                let advice = "call the layer without it; freeze it if it must stay in inference mode";
                Err(error(layer, "layer", "a call without keywords", format!("{key}={value}"), advice))
            }
        }
    }
}

/// A layer of a functional model that is not built yet, since its model's extents may follow from its inputs.
struct Described {
    name: String,
    kind: String,
    object: Json,
    layer: Option<Arc<dyn Layer>>,
}

/// A use of a layer: its inputs and its outputs.
struct Use {
    layer: usize,
    inbound: Inbound,
    results: Vec<Tensor>,
}

impl Use {
    /// Builds the layer on its inputs.
    fn build(&mut self, at: usize, of: &mut Described, inputs: &[Tensor], reading: Reading) -> Result<(), LayerError> {
        let class = of.object["class_name"].as_str().unwrap_or_default();
        let layer: Arc<dyn Layer> = if class == "TFOpLambda" || class == "SlicingOpLambda" {
            let (object, kwargs) = operation::translated(&of.name, &of.object, &self.inbound.kwargs)?;
            Arc::new(Operation::new(&use_name(&of.name, at), &object, &self.inbound.args, &kwargs)?)
        } else if is_operation(&of.object) {
            let name = use_name(&of.name, at);
            Arc::new(Operation::new(&name, &of.object, &self.inbound.args, &self.inbound.kwargs)?)
        } else {
            self.inbound.only_tensors(&of.name)?;
            if of.layer.is_none() {
                fill_extents(&mut of.object, &samples(inputs));
                of.layer = Some(layer_from_json(of.object.take(), reading)?);
            }
            match &of.layer {
                Some(layer) => layer.clone(),
                None => return Ok(()),
            }
        };
        self.results = call(&layer, inputs, reading.budget)?;
        Ok(())
    }
}

/// Each call of an operation is a layer of its own, with its own arguments.
fn use_name(name: &str, at: usize) -> String {
    if at == 0 { name.to_owned() } else { format!("{name}_use_{at}") }
}

/// The layers and uses of a functional model.
#[derive(Default)]
struct Calls {
    layers: Vec<Described>,
    uses: Vec<Use>,
    /// Indices of the uses by the layer's name and their number.
    indices: HashMap<(String, usize), usize>,
    /// How many uses of a layer the file counts before the first: a model of Keras 2 has one when it is made.
    shifts: HashMap<String, usize>,
    keras2: bool,
}

impl Calls {
    fn index(&self, history: &History, shift: usize) -> Option<usize> {
        let found = |node: usize| self.indices.get(&(history.0.clone(), node)).copied();
        history.1.checked_sub(shift).and_then(found).or_else(|| found(history.1))
    }

    /// Returns the use that makes an input of another.
    fn inner(&self, history: &History) -> Option<usize> {
        let shift = if self.keras2 { self.shifts.get(&history.0).copied().unwrap_or(0) } else { 0 };
        self.index(history, shift)
    }

    /// Returns which input of a use is the mask that Keras itself made, of an embedding or of `Masking`.
    fn own_mask(&self, i: usize) -> Option<usize> {
        let inbound = &self.uses[i].inbound;
        let at = inbound.kwargs.get("mask")?[INPUT].as_u64()? as usize;
        let source = &self.layers[self.uses[self.inner(inbound.from.get(at)?)?].layer];
        ["NotEqual", "Any"].contains(&source.kind.as_str()).then_some(at)
    }

    /// Returns the tensor of the model's inputs or outputs. Here Keras 3 counts uses of functional models from 1 too.
    fn end(&self, history: &History) -> Option<Tensor> {
        let shift = self.shifts.get(&history.0).copied().unwrap_or(0);
        self.uses[self.index(history, shift)?].results.get(history.2).cloned()
    }

    fn add(&mut self, mut object: Json) -> Result<(), LayerError> {
        let name = object["name"].as_str().map_or_else(|| text(&object["config"], "name"), Ok)?.replace('/', "_");
        let kind = text(&object, "class_name")?.to_owned();
        if self.indices.contains_key(&(name.clone(), 0)) {
            return Err(error(&name, &kind, "a unique name", "one that another layer has", "rename it"));
        }
        let layer = self.layers.len();
        if kind == "InputLayer" {
            self.indices.insert((name.clone(), 0), self.uses.len());
            let results = vec![input_from_json(&object["config"], Some(&name))?];
            self.uses.push(Use { layer, inbound: Inbound::default(), results });
        } else {
            let nodes = take_list(&mut object, "inbound_nodes")?;
            self.keras2 |= nodes.first().is_some_and(Json::is_array);
            for (at, node) in nodes.iter().enumerate() {
                self.indices.insert((name.clone(), at), self.uses.len());
                self.uses.push(Use { layer, inbound: Inbound::new(node), results: Vec::new() });
            }
            if is_model(&object) {
                let first = &object["config"]["layers"][0];
                let sized = first["class_name"] == "InputLayer" || first["config"]["batch_input_shape"].is_array();
                let built = kind != "Sequential" || (self.keras2 && (sized || is_model(first)));
                self.shifts.insert(name.clone(), usize::from(built));
            }
        }
        self.layers.push(Described { name, kind, object, layer: None });
        Ok(())
    }

    /// Builds each use once its inputs are; those that are ready, in the file's order.
    fn build(&mut self, reading: Reading) -> Result<(), LayerError> {
        let mut open = vec![0usize; self.uses.len()];
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.uses.len()];
        for (i, of) in self.uses.iter().enumerate() {
            for history in &of.inbound.from {
                open[i] += 1;
                if let Some(before) = self.inner(history) {
                    users[before].push(i);
                }
            }
        }
        let mut at = vec![0usize; self.layers.len()];
        let numbers: Vec<usize> = (self.uses.iter())
            .map(|of| {
                at[of.layer] += 1;
                at[of.layer] - 1
            })
            .collect();
        let mut ready: BinaryHeap<Reverse<usize>> =
            (0..self.uses.len()).filter(|&i| open[i] == 0).map(Reverse).collect();
        while let Some(Reverse(i)) = ready.pop() {
            if self.uses[i].results.is_empty() {
                let find = |h: &History| self.uses[self.inner(h)?].results.get(h.2).cloned();
                let inputs = self.uses[i].inbound.from.iter().map(find).collect::<Option<Vec<_>>>();
                let Some(mut inputs) = inputs else { continue };
                if let Some(at) = self.own_mask(i) {
                    // Hubel's layers pass masks on themselves.
                    inputs.remove(at);
                    self.uses[i].inbound.kwargs.remove("mask");
                }
                let of = &mut self.uses[i];
                of.build(numbers[i], &mut self.layers[of.layer], &inputs, reading)?;
            }
            for &user in &users[i] {
                open[user] -= 1;
                if open[user] == 0 {
                    ready.push(Reverse(user));
                }
            }
        }
        match self.uses.iter().find(|of| of.results.is_empty()) {
            None => Ok(()),
            Some(of) => {
                let (advice, got) = ("use a configuration that has all its layers", format!("{:?}", of.inbound.from));
                let Described { name, kind, .. } = &self.layers[of.layer];
                Err(error(name, kind, "inputs computed by earlier layers", got, advice))
            }
        }
    }

    /// Returns the tensors that a structure names: one, a list, or an object, whose entries Keras orders by name.
    fn ends(&self, value: &Json, key: &str) -> Result<Vec<Tensor>, LayerError> {
        let parts: Vec<&Json> = match value {
            Json::Array(items) if !matches!(items.first(), Some(Json::String(_))) => items.iter().collect(),
            Json::Object(map) => map.values().collect(),
            _ => {
                let history = history(value)?;
                let missing = || broken("the name of a layer", format!("{} in `{key}`", history.0));
                return Ok(vec![self.end(&history).ok_or_else(missing)?]);
            }
        };
        Ok(parts.into_iter().map(|part| self.ends(part, key)).collect::<Result<Vec<_>, _>>()?.concat())
    }
}

fn functional_from(name: &str, mut config: Json, reading: Reading) -> Result<Model, LayerError> {
    let mut calls = Calls::default();
    for object in take_list(&mut config, "layers")? {
        calls.add(object)?;
    }
    calls.build(reading)?;
    let inputs = calls.ends(&config["input_layers"], "input_layers")?;
    Model::named(name, &inputs, &calls.ends(&config["output_layers"], "output_layers")?)
}
