//! Models as Keras's JSON, read by [`Model::from_json`] and written by [`Model::to_json`].

use super::keras_object::described;
use super::operation::as_operation;
use super::{Input, Layer, LayerError, Model, Tensor, functional::call_counted};
use super::{model::as_model, names::refused as error};
use crate::{
    graph::TensorType,
    io::{Budget, FormatError},
    tensor::DType,
};
use serde_json::{Value as Json, json};
use std::{fmt, sync::Arc};

/// Keras options that have no effect here.
const WITHOUT_EFFECT: [&str; 15] = [
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
    "lora_rank",
    "lora_alpha",
    "vocabulary_size",
];

/// Keras options that are not supported; they are accepted only when switched off.
const OFF: [&str; 7] =
    ["stateful", "rms_scaling", "renorm", "antialias", "use_gate", "flash_attention", "zero_output_for_mask"];

pub(super) fn without_effect(key: &str, value: &Json) -> bool {
    let off = *value == false || value.as_f64() == Some(0.0);
    (value.is_null() && !["axis", "window"].contains(&key))
        || WITHOUT_EFFECT.contains(&key)
        || (off && OFF.contains(&key))
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
    // Keras's layers have no such options.
    if let Some(map) = config.as_object_mut() {
        map.retain(|key, value| match key.as_str() {
            "data_format" => layer.kind() != "Cropping1D" || *value != "channels_last",
            "cell_name" => !value.is_null(),
            // Keras writes a range that it does not read again.
            "x_factor" | "y_factor" => {
                if value[0].as_f64().zip(value[1].as_f64()).is_some_and(|(low, high)| low == -high) {
                    *value = value[1].take();
                }
                true
            }
            "value_range" => layer.kind() != "RandomGrayscale",
            _ => true,
        });
    }
    config["name"] = name.into();
    set_trainable(&mut config, trainable);
    let module = match layer.kind() {
        "LayerScale" | "StochasticDepth" => "keras.src.applications.convnext",
        "CustomScaleLayer" => "keras.src.applications.inception_resnet_v2",
        _ => "keras.layers",
    };
    Ok(described(module, layer.kind(), config))
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
pub(super) const MODELS: [&str; 3] = ["Functional", "Model", "Sequential"];

pub(super) fn is_model(object: &Json) -> bool {
    object["class_name"].as_str().is_some_and(|class| MODELS.contains(&class))
}

/// Builds a layer of the user's own class from its configuration, or says what is wrong with that.
pub(super) type BuildLayer = Arc<dyn Fn(&Json) -> Result<Arc<dyn Layer>, String> + Send + Sync>;

/// What a file of Keras does not say: extents that it leaves open, and layers of the user's own classes.
///
/// ```no_run
/// use hubel::{layers::*, nn::{KerasOptions, Model}, prelude::*};
/// let options = KerasOptions::new()
///     .input_shape([224, 224, 3])
///     .layer("Twice", |_config| Ok(Rescaling::new(2.0).into_layer()));
/// let model = Model::from_keras_with("flowers.keras", &options)?;
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct KerasOptions {
    pub(super) input_shape: Option<Vec<usize>>,
    pub(super) layers: Vec<(String, BuildLayer)>,
}

impl fmt::Debug for KerasOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers: Vec<&str> = self.layers.iter().map(|(class, _)| class.as_str()).collect();
        f.debug_struct("KerasOptions").field("input_shape", &self.input_shape).field("layers", &layers).finish()
    }
}

impl KerasOptions {
    /// Returns options that add nothing to the file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the shape of a sample for inputs of as many axes, whose extents the file leaves open.
    pub fn input_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.input_shape = Some(shape.into());
        self
    }

    /// Sets what builds the layers of a class: a function of the layer's `config` in the file. It must give the layer
    /// the name `config["name"]`.
    pub fn layer(
        mut self,
        class: impl Into<String>,
        build: impl Fn(&Json) -> Result<Arc<dyn Layer>, String> + Send + Sync + 'static,
    ) -> Self {
        self.layers.push((class.into(), Arc::new(build)));
        self
    }
}

/// What a configuration is read with. Without a budget, that of the enclosing layer has already counted it.
#[derive(Clone, Copy, Default)]
pub(super) struct Reading<'a> {
    pub budget: Option<&'a Budget>,
    pub options: Option<&'a KerasOptions>,
}

pub(super) fn broken(wanted: &str, got: impl ToString) -> LayerError {
    error("model", "JSON", wanted, got.to_string(), "use the output of Keras's `to_json` or of `Model::to_json`")
}

pub(super) fn text<'j>(object: &'j Json, key: &str) -> Result<&'j str, LayerError> {
    object[key].as_str().ok_or_else(|| broken(&format!("a string `{key}`"), &object[key]))
}

pub(super) fn take_list(object: &mut Json, key: &str) -> Result<Vec<Json>, LayerError> {
    match object.get_mut(key) {
        Some(Json::Array(items)) => Ok(std::mem::take(items)),
        other => Err(broken(&format!("a list `{key}`"), other.map_or(Json::Null, Json::take))),
    }
}

/// Takes from the budget what a model in a file will need, counting each use of a model inside it, before any of it is
/// built. Returns the bytes of one use of the object's layer; `path` is the length of its path's prefix.
pub(super) fn draw(object: &Json, path: usize, budget: &Budget) -> Result<u64, FormatError> {
    let (what, config) = ("the model", &object["config"]);
    let path = path + 1 + config["name"].as_str().map_or(0, str::len);
    let node = node_bytes(path);
    let mut bytes = node;
    for layer in config["layers"].as_array().into_iter().flatten() {
        let use_bytes = draw(layer, path, budget)?;
        let uses = layer["inbound_nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        for inbound in uses {
            bytes = bytes.saturating_add(use_bytes).saturating_add(node.saturating_mul(count_references(inbound)));
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
pub(super) fn call(
    layer: &Arc<dyn Layer>,
    inputs: &[Tensor],
    budget: Option<&Budget>,
) -> Result<Vec<Tensor>, LayerError> {
    let (results, count) = call_counted(layer, inputs)?;
    if let (Some(budget), None) = (budget, as_model(&**layer)) {
        let path = layer.given_name().map_or(0, str::len);
        budget.take("the model", count.saturating_sub(2) as u64 * node_bytes(path)).map_err(exceeded)?;
    }
    Ok(results)
}

/// Returns how many tensors a use of a layer names, in the form of Keras 3 or Keras 2.
fn count_references(inbound: &Json) -> u64 {
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

/// Returns the names of the layers that a structure of references to tensors names: a list, or an object, whose entries
/// Keras orders by name.
pub(super) fn references(value: &Json) -> Vec<String> {
    match value {
        Json::Array(items) => match items.first() {
            Some(Json::String(name)) => vec![name.clone()],
            _ => items.iter().flat_map(references).collect(),
        },
        Json::Object(map) => map.values().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn exceeded(e: FormatError) -> LayerError {
    error("model", "JSON", &e.wanted, format!("{} of {}", e.got, e.what), &e.advice)
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

/// Returns the extents of a sample that an input's or a first layer's configuration states, `None` where it leaves them
/// open.
fn stated(config: &Json) -> Option<Vec<Option<usize>>> {
    let shape = ["batch_shape", "batch_input_shape"].iter().find_map(|key| config[*key].as_array())?;
    let extent = |d: &Json| d.as_u64().filter(|d| (1..=1 << 24).contains(d)).map(|d| d as usize);
    Some(shape.get(1..)?.iter().map(extent).collect())
}

/// Sets open extents of a model's inputs to those of the samples that it gets.
pub(super) fn fill_extents(object: &mut Json, inputs: &[Vec<usize>]) {
    if !is_model(object) {
        return;
    }
    let names: Vec<String> = references(&object["config"]["input_layers"]);
    let sequential = object["class_name"] == "Sequential";
    let Some(layers) = object["config"]["layers"].as_array_mut() else { return };
    for (i, dims) in inputs.iter().enumerate() {
        let at = match sequential {
            true => layers.first_mut().filter(|_| i == 0),
            false => layers.iter_mut().find(|l| names.get(i).is_some_and(|name| l["config"]["name"] == *name)),
        };
        let Some(layer) = at else { continue };
        if is_model(layer) {
            fill_extents(layer, inputs);
        } else if let Some(open) = stated(&layer["config"]).filter(|s| s.len() == dims.len() && s.contains(&None)) {
            let extents = open.iter().zip(dims).map(|(stated, &given)| Json::from(stated.unwrap_or(given)));
            layer["config"]["batch_shape"] = std::iter::once(Json::Null).chain(extents).collect();
        }
    }
}

pub(super) fn input_from_json(config: &Json, name: Option<&str>) -> Result<Tensor, LayerError> {
    let dims = stated(config).and_then(|dims| dims.into_iter().collect::<Option<Vec<_>>>());
    let dims = dims.ok_or_else(|| {
        let stated = ["batch_shape", "batch_input_shape"].iter().find_map(|key| config.get(*key));
        let got = stated.unwrap_or(&Json::Null).to_string();
        let advice = "give the shape of a sample: `KerasOptions::input_shape`, or --input-shape";
        error(name.unwrap_or("input"), "InputLayer", "a shape of known extents", got, advice)
    })?;
    let dtype = match config["dtype"].as_str() {
        Some("int32" | "int64" | "int16" | "int8") => DType::I32,
        Some("uint32") => DType::U32,
        Some("uint8") => DType::U8,
        _ => DType::F32,
    };
    Ok(Input::of(name.map(str::to_owned), &dims, dtype))
}

impl Model {
    /// Returns the model's configuration in the format of Keras's `to_json` for functional models.
    ///
    /// The error names a layer that has no configuration.
    pub fn to_json(&self) -> Result<String, LayerError> {
        Ok(format!("{:#}", self.config_object()?))
    }

    pub(super) fn config_object(&self) -> Result<Json, LayerError> {
        let mut layers: Vec<Json> = self.inputs().iter().map(|(name, ty)| input_to_json(name, ty)).collect();
        if self.is_sequential() {
            for (name, layer, trainable, _) in self.uses() {
                layers.push(layer_to_json(layer.as_ref(), name, trainable)?);
            }
            let config = json!({ "name": self.name(), "trainable": true, "layers": layers });
            return Ok(
                json!({ "module": "keras", "class_name": "Sequential", "config": config, "registered_name": null }),
            );
        }
        for (input, (name, _)) in layers.iter_mut().zip(self.inputs()) {
            input["name"] = name.as_str().into();
            input["inbound_nodes"] = json!([]);
        }
        for (name, layer, trainable, uses) in self.uses() {
            let tensors = |inputs: &[((String, usize, usize), &TensorType)]| -> Vec<Json> {
                let tensor = |(history, ty): &((String, usize, usize), &TensorType)| {
                    let (shape, dtype) = type_to_json(ty);
                    let config = json!({ "shape": shape, "dtype": dtype, "keras_history": history });
                    json!({ "class_name": "__keras_tensor__", "config": config })
                };
                inputs.iter().map(tensor).collect()
            };
            if let Some(operation) = as_operation(&**layer) {
                layers.extend(uses.first().map(|inputs| operation.to_json(&tensors(inputs))));
                continue;
            }
            let mut object = layer_to_json(layer.as_ref(), name, trainable)?;
            let recurrent = ["LSTM", "GRU", "SimpleRNN", "Bidirectional"].contains(&layer.kind());
            let node = |inputs: &Vec<_>| match &tensors(inputs)[..] {
                [one] => json!({ "args": [one], "kwargs": {} }),
                all if layer.kind() == "MultiHeadAttention" => json!({ "args": all, "kwargs": {} }),
                [x, states @ ..] if recurrent => json!({ "args": [x], "kwargs": { "initial_state": states } }),
                all => json!({ "args": [all], "kwargs": {} }),
            };
            object["inbound_nodes"] = uses.iter().map(node).collect();
            object["name"] = name.into();
            layers.push(object);
        }
        // A list of one would be a list where the model is called.
        let ends = |ends: Vec<(String, usize, usize)>| match &ends[..] {
            [one] => json!(one),
            all => json!(all),
        };
        let inputs = ends(self.inputs().iter().map(|(name, _)| (name.clone(), 0, 0)).collect());
        let config = json!({
            "name": self.name(), "trainable": true, "layers": layers,
            "input_layers": inputs, "output_layers": ends(self.output_sources()),
        });
        let module = "keras.src.models.functional";
        Ok(json!({ "module": module, "class_name": "Functional", "config": config, "registered_name": "Functional" }))
    }
}
