use crate::Found;
use anyhow::{Result, bail};
use hubel::{
    io::{npy, safetensors, save, weights},
    tensor::DType,
};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file to read: .safetensors, .npz, .npy, .keras, .h5, .pth or model.json
    input: PathBuf,
    /// The file to write: .safetensors, or .npy for a single array
    output: PathBuf,
    /// Convert floats to this type; f16 halves the file, keeps 3 digits and numbers up to 65504
    #[arg(long, value_name = "f32|f16|bf16", value_parser = ["f32", "f16", "bf16"])]
    dtype: Option<String>,
}

/// Writes a file's tensors as safetensors and returns sizes and changes.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let tensors = weights::open(&arguments.input)?.tensors;
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
        _ => bail!("{}: name the file .safetensors, or .npy for one array", arguments.output.display()),
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
