//! Models as Keras's JSON, read by [`Model::from_json`] and written by [`Model::to_json`].

use super::model::as_model;
use super::{Input, Layer, LayerError, Model, Tensor, functional::call_counted, layers::REGISTRY};
use crate::{
    graph::TensorType,
    io::{Budget, FormatError},
    tensor::DType,
};
use serde_json::{Value as Json, json};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

/// Keras options that have no effect here.
const WITHOUT_EFFECT: [&str; 13] = [
    "dtype",
    "seed",
    "batch_shape",
    "batch_input_shape",
    "autocast",
    "ragged",
    "sparse",
    "unroll",
    "synchronized",
    "renorm_momentum",
    "implementation",
    "quantization_config",
    "zero_output_for_mask",
];

/// Keras options that are not supported; they are accepted only when switched off.
const OFF: [&str; 6] = ["stateful", "rms_scaling", "renorm", "recurrent_dropout", "mask_zero", "antialias"];

fn without_effect(key: &str, value: &Json) -> bool {
    let off = *value == false || value.as_f64() == Some(0.0);
    (value.is_null() && key != "axis") || WITHOUT_EFFECT.contains(&key) || (off && OFF.contains(&key))
}

/// Returns a layer's JSON as Keras writes it, or an error for a layer that has no configuration.
pub(super) fn layer_to_json(layer: &dyn Layer, name: &str, trainable: bool) -> Result<Json, LayerError> {
    if let Some(model) = as_model(layer) {
        let mut object = model.config_object()?;
        object["config"]["name"] = name.into();
        set_trainable(&mut object["config"], trainable);
        return Ok(object);
    }
    let mut config = layer.config();
    if !config.is_object() {
        let advice = "implement `Layer::config`, or save only the weights";
        return Err(error(name, layer.kind(), "a layer with a configuration", "none", advice));
    }
    tidy(&mut config);
    config["name"] = name.into();
    set_trainable(&mut config, trainable);
    Ok(json!({ "module": "keras.layers", "class_name": layer.kind(), "config": config, "registered_name": null }))
}

/// Writes `trainable` only for frozen layers: some of Keras's layers have no such option.
fn set_trainable(config: &mut Json, trainable: bool) {
    if let Json::Object(map) = config {
        match trainable {
            true => drop(map.remove("trainable")),
            false => drop(map.insert("trainable".into(), false.into())),
        }
    }
}

/// Keras classes of models.
const MODELS: [&str; 3] = ["Functional", "Model", "Sequential"];

/// Returns the layer that an object of Keras describes.
///
/// Without a budget, the enclosing layer's budget has already counted it.
pub(super) fn layer_from_json(mut object: Json, budget: Option<&Budget>) -> Result<Arc<dyn Layer>, LayerError> {
    let mut config = object.get_mut("config").map(Json::take).unwrap_or_default();
    let class = text(&object, "class_name")?;
    let name = config["name"].as_str().unwrap_or(class).to_owned();
    if MODELS.contains(&class) {
        let frozen = config["trainable"] == false;
        let mut model = model_from(class, config, budget)?;
        if frozen {
            model.set_all_trainable(false)?;
        }
        return Ok(Arc::new(model));
    }
    let Some((_, build)) = REGISTRY.iter().find(|(kind, _)| *kind == class) else {
        let known: Vec<&str> = REGISTRY.iter().map(|(kind, _)| *kind).collect();
        let advice = "replace it by layers from this list";
        return Err(error(&name, class, &format!("one of {}", known.join(", ")), class, advice));
    };
    let Json::Object(map) = &mut config else {
        return Err(error(&name, class, "a `config` object", &config.to_string(), "give the layer's options by name"));
    };
    map.retain(|key, value| !without_effect(key, value));
    // Keras 2 writes a list of one axis.
    if let Some([one]) = map.get("axis").and_then(Json::as_array).map(Vec::as_slice) {
        let one = one.clone();
        map.insert("axis".into(), one);
    }
    build(config).map_err(|e| {
        error(&name, class, "options of this layer", &e.to_string(), "correct the option, or leave it out")
    })
}

fn error(layer: &str, kind: &str, wanted: &str, got: &str, advice: &str) -> LayerError {
    let [layer, kind, wanted, got, advice] = [layer, kind, wanted, got, advice].map(str::to_owned);
    LayerError { layer, kind, wanted, got, advice }
}

fn broken(wanted: &str, got: impl ToString) -> LayerError {
    error("model", "JSON", wanted, &got.to_string(), "use the output of Keras's `to_json` or of `Model::to_json`")
}

fn text<'j>(object: &'j Json, key: &str) -> Result<&'j str, LayerError> {
    object[key].as_str().ok_or_else(|| broken(&format!("a string `{key}`"), &object[key]))
}

fn take_list(object: &mut Json, key: &str) -> Result<Vec<Json>, LayerError> {
    match object.get_mut(key) {
        Some(Json::Array(items)) => Ok(std::mem::take(items)),
        other => Err(broken(&format!("a list `{key}`"), other.map_or(Json::Null, Json::take))),
    }
}

/// Takes from the budget what a model in a file will need, counting each use of a model inside it, before any of it is
/// built. Returns the bytes of one use of the object's layer; `path` is the length of its path's prefix.
fn draw(object: &Json, path: usize, budget: &Budget) -> Result<u64, FormatError> {
    let (what, config) = ("the model", &object["config"]);
    let path = path + 1 + config["name"].as_str().map_or(0, str::len);
    let node = node_bytes(path);
    let mut bytes = node;
    for layer in config["layers"].as_array().into_iter().flatten() {
        let use_bytes = draw(layer, path, budget)?;
        let uses = layer["inbound_nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        for inbound in uses {
            bytes = bytes.saturating_add(use_bytes).saturating_add(node.saturating_mul(references(inbound)));
        }
        bytes = bytes.saturating_add(if uses.is_empty() { use_bytes } else { 0 });
    }
    for inner in ["layer", "backward_layer"].iter().filter_map(|key| config.get(*key)) {
        // The other direction is a copy of the first.
        bytes = bytes.saturating_add(draw(inner, path, budget)?.saturating_mul(4));
    }
    budget.work(what, bytes.saturating_mul(2))?;
    Ok(bytes)
}

/// Returns the maximum bytes of a graph node or weight whose path has this length.
fn node_bytes(path: usize) -> u64 {
    512 + 2 * path as u64
}

/// Calls a layer of a file and takes from the budget what it adds beyond the two nodes that [`draw`] counts.
fn call(layer: &Arc<dyn Layer>, inputs: &[Tensor], budget: Option<&Budget>) -> Result<Vec<Tensor>, LayerError> {
    let (results, count) = call_counted(layer, inputs)?;
    if let (Some(budget), None) = (budget, as_model(&**layer)) {
        let path = layer.given_name().map_or(0, str::len);
        budget.take("the model", count.saturating_sub(2) as u64 * node_bytes(path)).map_err(exceeded)?;
    }
    Ok(results)
}

/// Returns how many tensors a use of a layer names, in the form of Keras 3 or Keras 2.
fn references(inbound: &Json) -> u64 {
    let (mut count, mut stack) = (0, vec![inbound]);
    while let Some(value) = stack.pop() {
        match value {
            Json::Array(items) if matches!(items.first(), Some(Json::String(_))) => count += 1,
            Json::Array(items) => stack.extend(items),
            Json::Object(map) => stack.extend(map.values()),
            _ => {}
        }
    }
    count
}

fn exceeded(e: FormatError) -> LayerError {
    error("model", "JSON", &e.wanted, &format!("{} of {}", e.got, e.what), &e.advice)
}

/// Writes 32-bit floats with their shortest digits, not those of the 64-bit float they convert to.
fn tidy(value: &mut Json) {
    match value {
        Json::Object(map) => map.values_mut().for_each(tidy),
        Json::Array(items) => items.iter_mut().for_each(tidy),
        Json::Number(n) if n.is_f64() => {
            let x = n.as_f64().unwrap_or_default();
            if let (true, Ok(short)) = (f64::from(x as f32) == x, (x as f32).to_string().parse::<f64>()) {
                *value = Json::from(short);
            }
        }
        _ => {}
    }
}

/// Returns a tensor's shape, with `null` for the batch, and the name of its type.
fn type_to_json(ty: &TensorType) -> (Json, &'static str) {
    let row = ty.shape.dims().iter().skip(1).map(|&d| d.into());
    let dtype = match ty.dtype {
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::I32 => "int32",
        DType::U32 => "uint32",
        DType::U8 => "uint8",
    };
    (std::iter::once(Json::Null).chain(row).collect(), dtype)
}

fn input_to_json(name: &str, ty: &TensorType) -> Json {
    let (shape, dtype) = type_to_json(ty);
    let config = json!({ "batch_shape": shape, "dtype": dtype, "sparse": false, "name": name });
    json!({ "module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": null })
}

fn input_from_json(config: &Json) -> Result<Tensor, LayerError> {
    let shape = ["batch_shape", "batch_input_shape"].iter().find_map(|key| config[*key].as_array());
    let extent = |d: &Json| d.as_u64().filter(|d| (1..=1 << 24).contains(d)).map(|d| d as usize);
    let dims = shape.and_then(|s| s.get(1..)?.iter().map(extent).collect::<Option<Vec<_>>>());
    let dims = dims.ok_or_else(|| {
        let got = config["batch_shape"].to_string();
        error(
            config["name"].as_str().unwrap_or("input"),
            "InputLayer",
            "a shape of known extents",
            &got,
            "fix the extents, as in `Input((224, 224, 3))`",
        )
    })?;
    let dtype = match config["dtype"].as_str() {
        Some("int32" | "int64") => DType::I32,
        Some("uint32") => DType::U32,
        Some("uint8") => DType::U8,
        _ => DType::F32,
    };
    Ok(Input::of(config["name"].as_str().map(str::to_owned), &dims, dtype))
}

impl Model {
    /// Returns the model's configuration in the format of Keras's `to_json` for functional models.
    ///
    /// The error names a layer that has no configuration.
    pub fn to_json(&self) -> Result<String, LayerError> {
        Ok(format!("{:#}", self.config_object()?))
    }

    fn config_object(&self) -> Result<Json, LayerError> {
        let mut layers = Vec::new();
        for (name, ty) in self.inputs() {
            let mut object = input_to_json(name, ty);
            object["name"] = name.as_str().into();
            object["inbound_nodes"] = json!([]);
            layers.push(object);
        }
        for (name, layer, trainable, uses) in self.uses() {
            let mut object = layer_to_json(layer.as_ref(), name, trainable)?;
            let nodes: Vec<Json> = (uses.iter())
                .map(|inputs| {
                    let tensors: Vec<Json> = inputs
                        .iter()
                        .map(|(history, ty)| {
                            let (shape, dtype) = type_to_json(ty);
                            let config = json!({ "shape": shape, "dtype": dtype, "keras_history": history });
                            json!({ "class_name": "__keras_tensor__", "config": config })
                        })
                        .collect();
                    let args = if tensors.len() == 1 { json!(tensors) } else { json!([tensors]) };
                    json!({ "args": args, "kwargs": {} })
                })
                .collect();
            object["name"] = name.into();
            object["inbound_nodes"] = nodes.into();
            layers.push(object);
        }
        let inputs: Vec<Json> = self.inputs().iter().map(|(name, _)| json!([name, 0, 0])).collect();
        let config = json!({
            "name": self.name(), "trainable": true, "layers": layers,
            "input_layers": inputs, "output_layers": self.output_sources(),
        });
        let module = "keras.src.models.functional";
        Ok(json!({ "module": module, "class_name": "Functional", "config": config, "registered_name": "Functional" }))
    }

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
        Self::from_json_within(json, &Budget::new(json.len() as u64))
    }

    /// [`Model::from_json`] within a file's budget.
    pub(super) fn from_json_within(json: &str, budget: &Budget) -> Result<Model, LayerError> {
        budget.take_json("the model", json.as_bytes()).map_err(exceeded)?;
        let mut object: Json = serde_json::from_str(json).map_err(|e| broken("JSON", e))?;
        draw(&object, 0, budget).and_then(|bytes| budget.take("the model", bytes)).map_err(exceeded)?;
        let config = object.get_mut("config").map(Json::take).unwrap_or_default();
        model_from(text(&object, "class_name")?, config, Some(budget))
    }
}

fn model_from(class: &str, config: Json, budget: Option<&Budget>) -> Result<Model, LayerError> {
    let name = config["name"].as_str().unwrap_or("model").to_owned();
    match class {
        "Sequential" => sequential_from(&name, config, budget),
        _ => functional_from(&name, config, budget),
    }
}

fn sequential_from(name: &str, mut config: Json, budget: Option<&Budget>) -> Result<Model, LayerError> {
    let layers = take_list(&mut config, "layers")?;
    let first = layers.first().ok_or_else(|| broken("layers", "none"))?;
    let mut x = input_from_json(&first["config"])?;
    let input = x.clone();
    for object in layers.into_iter().filter(|l| l["class_name"] != "InputLayer") {
        x = call(&layer_from_json(object, budget)?, &[x], budget)?.swap_remove(0);
    }
    Model::named(name, &[input], &[x])
}

/// A tensor by the layer's name, its use and its output.
type History = (String, usize, usize);

/// Returns the tensors of a use of a layer: Keras 3's `args`, or Keras 2's list.
fn histories(layer: &str, node: &Json) -> Result<Vec<History>, LayerError> {
    let mut found = Vec::new();
    let mut stack = vec![node.get("args").unwrap_or(node)];
    while let Some(value) = stack.pop() {
        if value["class_name"] == "__keras_tensor__" {
            found.push(history(&value["config"]["keras_history"])?);
        } else if let Some(items) = value.as_array() {
            match history(value) {
                Ok(history) => found.push(history),
                Err(_) => stack.extend(items.iter().rev()),
            }
        }
    }
    // Keras records whether a model was built in training mode; its `fit` and `predict` override that.
    let harmless = |(key, value): (&String, &Json)| value.is_null() || key == "training";
    let states = node["kwargs"].get("initial_state").map(|states| histories(layer, states)).transpose()?;
    found.extend(states.into_iter().flatten());
    if let Some(kwargs) = node["kwargs"].as_object()
        && !kwargs.iter().filter(|(key, _)| *key != "initial_state").all(harmless)
    {
        let advice = "call the layer without keywords; freeze it if it must stay in inference mode";
        return Err(error(layer, "layer", "a call without keywords", &node["kwargs"].to_string(), advice));
    }
    Ok(found)
}

fn history(value: &Json) -> Result<History, LayerError> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    match items {
        [Json::String(name), Json::Number(node), Json::Number(output), ..] => {
            let [node, output] = [node, output].map(|n| n.as_u64().unwrap_or(u64::MAX) as usize);
            Ok((name.clone(), node, output))
        }
        _ => Err(broken("[layer, use, output]", value)),
    }
}

/// A use of a layer in a file: its inputs and its outputs.
struct Use {
    name: String,
    layer: Option<Arc<dyn Layer>>,
    from: Vec<History>,
    results: Vec<Tensor>,
}

fn functional_from(name: &str, mut config: Json, budget: Option<&Budget>) -> Result<Model, LayerError> {
    let mut uses: Vec<Use> = Vec::new();
    let mut indices: HashMap<(String, usize), usize> = HashMap::new();
    for mut object in take_list(&mut config, "layers")? {
        let name = object["name"].as_str().map_or_else(|| text(&object["config"], "name"), Ok)?.to_owned();
        let is_input = object["class_name"] == "InputLayer";
        let nodes = if is_input { Vec::new() } else { take_list(&mut object, "inbound_nodes")? };
        let input = if is_input { Some(input_from_json(&object["config"])?) } else { None };
        let layer = if is_input { None } else { Some(layer_from_json(object, budget)?) };
        if indices.contains_key(&(name.clone(), 0)) {
            let kind = layer.map_or("InputLayer", |l| l.kind());
            return Err(error(&name, kind, "a unique name", "one that another layer has", "rename it"));
        }
        if let Some(input) = input {
            indices.insert((name.clone(), 0), uses.len());
            uses.push(Use { name: name.clone(), layer: None, from: Vec::new(), results: vec![input] });
        }
        for (at, node) in nodes.iter().enumerate() {
            indices.insert((name.clone(), at), uses.len());
            let from = histories(&name, node)?;
            uses.push(Use { name: name.clone(), layer: layer.clone(), from, results: Vec::new() });
        }
    }
    // Each use is built once its inputs are; those that are ready, in the file's order.
    let index = |(layer, node, _): &History| indices.get(&(layer.clone(), *node)).copied();
    let mut open = vec![0usize; uses.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); uses.len()];
    for (i, of) in uses.iter().enumerate() {
        for history in &of.from {
            open[i] += 1;
            if let Some(before) = index(history) {
                users[before].push(i);
            }
        }
    }
    let find = |uses: &[Use], history: &History| uses[index(history)?].results.get(history.2).cloned();
    let mut ready: BinaryHeap<Reverse<usize>> = (0..uses.len()).filter(|&i| open[i] == 0).map(Reverse).collect();
    while let Some(Reverse(i)) = ready.pop() {
        if let Some(layer) = &uses[i].layer {
            let inputs = uses[i].from.iter().map(|h| find(&uses, h)).collect::<Option<Vec<_>>>();
            let Some(inputs) = inputs else { continue };
            uses[i].results = call(layer, &inputs, budget)?;
        }
        for &user in &users[i] {
            open[user] -= 1;
            if open[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    if let Some(of) = uses.iter().find(|of| of.results.is_empty()) {
        let advice = "use a configuration that has all its layers";
        let kind = of.layer.as_ref().map_or("InputLayer", |l| l.kind());
        return Err(error(&of.name, kind, "inputs computed by earlier layers", &format!("{:?}", of.from), advice));
    }
    let ends = |config: &mut Json, key: &str| -> Result<Vec<Tensor>, LayerError> {
        let histories = match history(&config[key]) {
            Ok(one) => vec![one],
            Err(_) => take_list(config, key)?.iter().map(history).collect::<Result<_, _>>()?,
        };
        let tensor =
            |h: &History| find(&uses, h).ok_or_else(|| broken("the name of a layer", format!("{} in `{key}`", h.0)));
        histories.iter().map(tensor).collect()
    };
    let inputs = ends(&mut config, "input_layers")?;
    Model::named(name, &inputs, &ends(&mut config, "output_layers")?)
}
