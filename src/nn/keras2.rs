//! What Keras 2 and TensorFlow.js write otherwise than Keras 3, rewritten before a configuration is read.

use serde_json::{Map, Value as Json, json};

/// Returns whether a configuration is one of Keras 2 or TensorFlow.js, by the version that the file states; without one,
/// Keras 3's is known by the `module` of each object.
pub(super) fn is_old(object: &Json, version: Option<&str>) -> bool {
    match version.or(object["keras_version"].as_str()) {
        Some(version) => !version.starts_with(|c: char| c.is_ascii_digit() && c > '2'),
        None => object["config"].is_array() || first_layer(object).is_some_and(|l| l.get("module").is_none()),
    }
}

fn first_layer(object: &Json) -> Option<&Json> {
    object["config"]["layers"].as_array()?.first()
}

/// Rewrites a layer of Keras 2, and those inside it, as Keras 3 would write them.
pub(super) fn modernize(object: &mut Json) {
    let Some(map) = object.as_object_mut() else { return };
    // Early versions write the layers of a Sequential alone.
    if let Some(layers @ Json::Array(_)) = map.get_mut("config") {
        let layers = layers.take();
        map.insert("config".into(), json!({ "name": "sequential", "layers": layers }));
    }
    let class = map.get("class_name").and_then(Json::as_str).unwrap_or_default().to_owned();
    let Some(config) = map.get_mut("config").and_then(Json::as_object_mut) else { return };
    for key in ["layer", "backward_layer", "cell", "activation"] {
        config.get_mut(key).into_iter().for_each(modernize);
    }
    for key in ["layers", "cells"] {
        let inner = config.get_mut(key).and_then(Json::as_array_mut);
        inner.into_iter().flatten().for_each(modernize);
    }
    options(&class, config);
    let class = match class.as_str() {
        "ThresholdedReLU" => "ReLU",
        "BatchNormalizationV1" | "BatchNormalizationV2" | "SyncBatchNormalization" => "BatchNormalization",
        "Convolution1D" => "Conv1D",
        "Convolution2D" => "Conv2D",
        _ => return,
    };
    map.insert("class_name".into(), class.into());
}

/// The options of recurrent cells.
const OF_CELLS: [&str; 19] = [
    "units",
    "activation",
    "recurrent_activation",
    "use_bias",
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
    "implementation",
    "reset_after",
    "unit_forget_bias",
];

fn options(class: &str, config: &mut Map<String, Json>) {
    let off = |value: &mut Json| *value == false || *value == 1 || value.is_null();
    let mut without_effect: Vec<&str> = Vec::new();
    match class {
        "LeakyReLU" => {
            if let Some(alpha) = config.remove("alpha") {
                config.insert("negative_slope".into(), alpha);
            }
        }
        "ThresholdedReLU" => {
            let theta = config.remove("theta").and_then(|theta| theta.as_f64()).unwrap_or(1.0) as f32;
            // Keras 2 passes what is above `theta`, Keras 3's ReLU what is not below its threshold.
            config.insert("threshold".into(), f64::from(theta.next_up()).into());
        }
        "Embedding" => without_effect.push("input_length"),
        "MultiHeadAttention" => without_effect.extend(["query_shape", "key_shape", "value_shape"]),
        // TensorFlow.js adds the cell's options.
        "RNN" if config.contains_key("cell") => config.retain(|key, _| !OF_CELLS.contains(&key.as_str())),
        "Bidirectional" => {
            let name = config.get_mut("layer").and_then(|layer| layer["config"].get_mut("name"));
            if let Some(name) = name
                && let Some(plain) = name.as_str().filter(|name| !name.starts_with("forward_"))
            {
                *name = format!("forward_{plain}").into();
            }
        }
        // Where the option does not exist, the reset gate acts before the product.
        "GRU" => drop(config.entry("reset_after").or_insert(false.into())),
        "DepthwiseConv2D" | "DepthwiseConv1D" | "Conv2DTranspose" | "Conv1DTranspose" | "Conv3DTranspose"
        | "SeparableConv2D" | "SeparableConv1D"
            if config.get_mut("groups").is_none_or(off) =>
        {
            without_effect.push("groups")
        }
        _ => {}
    }
    if class.starts_with("Depthwise") || class.starts_with("Separable") {
        without_effect.extend(["kernel_initializer", "kernel_regularizer", "kernel_constraint"]);
    }
    if config.get_mut("time_major").is_none_or(off) {
        without_effect.push("time_major");
    }
    without_effect.extend(
        ["adjustment", "virtual_batch_size", "input_spec"]
            .iter()
            .filter(|key| config.get(**key).is_some_and(Json::is_null)),
    );
    for key in without_effect {
        config.remove(key);
    }
    for key in ["activation", "recurrent_activation"] {
        config.get_mut(key).into_iter().for_each(|function| {
            let name = if function.is_object() { &mut function["config"] } else { function };
            if *name == "hard_sigmoid" {
                *name = "hard_sigmoid_keras2".into();
            }
        });
    }
    for (key, value) in config.iter_mut() {
        // What Keras 2 calls normal is truncated.
        if key.ends_with("_initializer") && value["config"]["distribution"] == "normal" {
            value["config"]["distribution"] = "truncated_normal".into();
        }
    }
}
