//! TensorFlow.js's layers format: `model.json` with the model and a list of weights, and shards of their bytes.

use super::{Budget, Flaw, FormatError, Reader, checked_bytes, read_file};
use crate::tensor::{DType, HostTensor};
use serde::Deserialize;
use std::{
    collections::HashSet,
    path::{Component, Path},
};

/// The largest model.json, in bytes.
pub const JSON_CAP_BYTES: u64 = 64 << 20;
/// The maximum bytes of all shards together.
pub const SHARDS_CAP_BYTES: u64 = 8 << 30;

#[derive(Deserialize)]
struct Model {
    format: Option<String>,
    #[serde(rename = "modelTopology")]
    topology: Option<serde_json::Value>,
    #[serde(rename = "weightsManifest", default)]
    manifest: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    paths: Vec<String>,
    weights: Vec<Weight>,
}

#[derive(Deserialize)]
struct Weight {
    name: String,
    shape: Vec<u64>,
    dtype: String,
    quantization: Option<Quantization>,
}

#[derive(Deserialize)]
struct Quantization {
    dtype: String,
    scale: Option<f32>,
    min: Option<f32>,
}

/// The contents of a model.json and its shards.
#[non_exhaustive]
pub struct Contents {
    /// The model as Keras's JSON.
    pub config: Option<String>,
    /// The version of Keras, or of TensorFlow.js, that the model is of.
    pub keras_version: Option<String>,
    /// Weights under Keras's names, in the order of the file.
    pub tensors: Vec<(String, HostTensor)>,
}

fn element_bytes(what: &str, dtype: &str) -> Result<u64, FormatError> {
    Ok(match dtype {
        "float32" | "int32" => 4,
        "float16" | "uint16" => 2,
        "uint8" | "bool" => 1,
        _ => return Err(FormatError::new(Flaw::Type, what, "float32, float16, int32, uint16, uint8 or bool", dtype)),
    })
}

fn tensor(weight: &Weight, bytes: &mut Reader, budget: &Budget) -> Result<HostTensor, FormatError> {
    let what = format!("`{}`", weight.name);
    let stored = weight.quantization.as_ref().map_or(&weight.dtype, |q| &q.dtype);
    let width = element_bytes(&what, stored)?;
    let size = checked_bytes(&what, &weight.shape, width, SHARDS_CAP_BYTES)?;
    let raw = bytes.take(size as u64, &what)?;
    let whole_numbers = !["float32", "float16", "int32"].contains(&stored.as_str());
    budget.take(&what, if whole_numbers { size as u64 / width * 4 } else { size as u64 })?;
    let shape: Vec<usize> = weight.shape.iter().map(|&d| d as usize).collect();
    let fits = |t: Result<HostTensor, crate::tensor::TensorError>| {
        t.map_err(|e| FormatError::new(Flaw::ByteCount, &what, "elements that fit the shape", e))
    };
    let dtype = match stored.as_str() {
        "float32" => DType::F32,
        "float16" => DType::F16,
        "int32" => DType::I32,
        _ => {
            // Quantised to integers: x = scale · q + min.
            let q = weight.quantization.as_ref();
            let (scale, min) = (q.and_then(|q| q.scale).unwrap_or(1.0), q.and_then(|q| q.min).unwrap_or(0.0));
            let value =
                |chunk: &[u8]| scale * chunk.iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b)) as f32 + min;
            return fits(HostTensor::f32(shape, raw.chunks_exact(width as usize).map(value).collect()));
        }
    };
    fits(HostTensor::from_bytes(shape, dtype, raw))
}

/// Returns the contents of a model.json, whose shards `shard` returns by name, each once.
///
/// The budget is the model.json's; shards add theirs to it.
pub fn read(
    json: &[u8],
    budget: &Budget,
    mut shard: impl FnMut(&str, u64) -> Result<Vec<u8>, FormatError>,
) -> Result<Contents, FormatError> {
    budget.take_json("model.json", json)?;
    let model: Model = serde_json::from_slice(json)
        .map_err(|e| FormatError::new(Flaw::Syntax, "model.json", "a model in TensorFlow.js's layers format", e))?;
    if model.format.as_deref() == Some("graph-model")
        || model.topology.as_ref().is_some_and(|t| t.get("node").is_some())
    {
        let wanted = "a model in TensorFlow.js's layers format";
        let error =
            FormatError::new(Flaw::Type, "model.json", wanted, "a graph model, which has operations of TensorFlow");
        return Err(error.advise("convert the Keras model again with --output_format=tfjs_layers_model"));
    }
    let mut tensors: Vec<(String, HostTensor)> = Vec::new();
    let mut left = SHARDS_CAP_BYTES;
    let mut read: HashSet<&Path> = HashSet::new();
    for group in &model.manifest {
        let mut bytes = Vec::new();
        for path in &group.paths {
            // TensorFlow.js's downloads are called `./weights.bin`.
            let path = path.strip_prefix("./").unwrap_or(path);
            let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
            if !plain || path.is_empty() || path.contains(['\\', ':']) {
                let got = format!("`{path}`");
                return Err(FormatError::new(Flaw::Syntax, "a shard's name", "a file beside model.json", got));
            }
            if !read.insert(Path::new(path)) {
                let got = format!("`{path}` twice");
                return Err(FormatError::new(Flaw::Duplicate, "the shards", "each shard once", got));
            }
            let shard = shard(path, left)?;
            let size = shard.len() as u64;
            left = left.saturating_sub(size);
            budget.add_file(size);
            budget.take("the shards", size)?;
            budget.reserve("the shards", &mut bytes, shard.len())?;
            bytes.extend(shard);
            budget.give(size);
        }
        let mut reader = Reader::new(&bytes);
        for weight in &group.weights {
            let tensor = tensor(weight, &mut reader, budget)?;
            let name = weight.name.trim_end_matches(":0");
            if tensors.len() >= super::safetensors::MAX_TENSORS {
                let wanted = format!("at most {} weights", super::safetensors::MAX_TENSORS);
                return Err(FormatError::new(Flaw::TooLarge, "model.json", wanted, "more"));
            }
            tensors.push((name.to_owned(), tensor));
        }
        reader.finish("the shards")?;
        budget.give(bytes.capacity() as u64);
    }
    // Files of converters have Keras's JSON under `model_config`.
    budget.take("model.json", 2 * json.len() as u64)?;
    // Without a version it is one of TensorFlow.js, whose layers are those of Keras 2.
    let version = model.topology.as_ref().and_then(|t| t["keras_version"].as_str()).unwrap_or("tfjs");
    let keras_version = Some(version.to_owned());
    let config = model.topology.map(|t| t.get("model_config").unwrap_or(&t).to_string());
    Ok(Contents { config, keras_version, tensors })
}

/// Returns the contents of the model.json at `path` and the shards beside it.
pub fn open(path: &Path, budget: &Budget) -> Result<Contents, FormatError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let json = read_file(path, JSON_CAP_BYTES)?;
    let shard = |name: &str, left: u64| {
        let path = folder.join(name);
        // A link could lead anywhere.
        match path.symlink_metadata() {
            Ok(data) if !data.is_file() => {
                Err(FormatError::new(Flaw::Io, "a shard", "a regular file", "something else").of(&path))
            }
            _ => read_file(&path, left),
        }
    };
    read(&json, budget, shard).map_err(|e| if e.file.is_none() { e.of(path) } else { e })
}
