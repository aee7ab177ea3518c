use crate::Found;
use anyhow::{Result, bail};
use hubel::{
    io::{npy, safetensors, save, weights},
    nn::Model,
    tensor::DType,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file to read: .safetensors, .npz, .npy, .keras, .h5, .onnx, .pth or model.json
    input: PathBuf,
    /// The file to write: .safetensors, .npy for a single array, or .onnx for a file that describes a network
    output: PathBuf,
    /// Convert floats to this type; f16 halves the file, keeps 3 digits and numbers up to 65504
    #[arg(long, value_name = "f32|f16|bf16", value_parser = ["f32", "f16", "bf16"])]
    dtype: Option<String>,
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// Returns the network that a file describes.
fn described(path: &Path) -> Result<Model> {
    Ok(if is_onnx(path) { Model::from_onnx(path)? } else { Model::from_keras(path)? })
}

/// Writes a network as ONNX.
fn network(arguments: &Arguments) -> Result<Found> {
    if arguments.dtype.is_some() {
        bail!("--dtype: .onnx is written with 32-bit floats; leave it out");
    }
    let model = described(&arguments.input)?;
    model.to_onnx(&arguments.output)?;
    let (weights, bytes) = (model.count_params(), std::fs::metadata(&arguments.output)?.len());
    let json = json!({ "tensors": model.weights().len(), "parameters": weights, "bytes": bytes });
    Ok(Found::new(json, format!("{weights} parameters, {bytes} bytes")))
}

/// Writes a file's tensors as safetensors and returns sizes and changes.
pub fn find(arguments: &Arguments) -> Result<Found> {
    if is_onnx(&arguments.output) {
        return network(arguments);
    }
    let tensors = match is_onnx(&arguments.input) {
        true => {
            let model = described(&arguments.input)?;
            model.weights().iter().map(|w| (w.name.clone(), model.initial_value(w, 0))).collect()
        }
        false => weights::open(&arguments.input)?.tensors,
    };
    let wanted = match arguments.dtype.as_deref() {
        Some("f16") => Some(DType::F16),
        Some("bf16") => Some(DType::BF16),
        Some(_) => Some(DType::F32),
        None => None,
    };
    let float = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
    let (mut changed, mut worst, mut infinite) = (0usize, 0.0f64, 0usize);
    let mut out = Vec::new();
    for (name, tensor) in tensors {
        let dtype = wanted.filter(|_| float(tensor.dtype())).unwrap_or(tensor.dtype());
        if dtype == tensor.dtype() {
            out.push((name, tensor));
            continue;
        }
        let before = tensor.to_array();
        let tensor = before.to_host(dtype);
        for (a, b) in before.data.iter().zip(tensor.to_array().data) {
            infinite += usize::from(a.is_finite() && !b.is_finite());
            worst = worst.max(if b.is_finite() { (a - b).abs() } else { 0.0 });
        }
        changed += 1;
        out.push((name, tensor));
    }
    let bytes = match arguments.output.extension().and_then(|e| e.to_str()) {
        Some("npy") => match &out[..] {
            [(_, tensor)] => npy::write(tensor),
            _ => bail!(
                "{}: .npy holds one array, but there are {}; write .safetensors",
                arguments.output.display(),
                out.len()
            ),
        },
        Some("safetensors") => safetensors::write(out.iter().map(|(n, t)| (n.as_str(), t)), &BTreeMap::new())?,
        _ => bail!(
            "{}: name the file .safetensors, .npy for one array, or .onnx for a network",
            arguments.output.display()
        ),
    };
    save::save(&arguments.output, &bytes, false)?;
    let before = match std::fs::metadata(&arguments.input) {
        Ok(data) if data.is_file() => data.len(),
        _ => 0,
    };
    let json = json!({
        "tensors": out.len(), "bytes_before": before, "bytes": bytes.len(), "changed": changed,
        "largest_change": worst, "became_infinite": infinite,
    });
    let mut text = format!("{} tensors, {before} bytes to {} bytes", out.len(), bytes.len());
    if changed > 0 {
        text += &format!("; {changed} changed type, no number by more than {worst:.3e}");
    }
    if infinite > 0 {
        text += &format!("; {infinite} numbers were too large and became infinite: use bf16 or f32");
    }
    Ok(Found { json, text, right: infinite == 0 })
}
