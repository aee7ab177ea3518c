use crate::{Found, engine, model::ModelOptions, utf8};
use anyhow::{Context, Result, bail};
use hubel::{cli::DeviceOptions, io::npy, prelude::*};
use serde_json::json;
use std::{collections::HashMap, path::PathBuf};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    /// Samples (n, …) as a .npy file, for the input NAME if the network has several
    #[arg(long, value_name = "[NAME=]FILE.npy", required = true)]
    input: Vec<String>,
    /// The folder for the outputs, one .npy file each
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Layers whose outputs are written too
    #[arg(long, value_name = "LAYER", value_delimiter = ',')]
    layers: Vec<String>,
    /// Maximum number of samples that are run together
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Runs a network on arrays, writes its outputs and returns the files.
pub fn find(arguments: &Arguments) -> Result<Found> {
    utf8(&arguments.output)?;
    let model = arguments.model.load()?.model;
    let names: Vec<&str> = model.inputs().iter().map(|(name, _)| name.as_str()).collect();
    let mut samples: Vec<Option<HostTensor>> = vec![None; names.len()];
    for input in &arguments.input {
        let (at, file) = match input.split_once('=') {
            Some((name, file)) => {
                let at = names.iter().position(|n| *n == name);
                (at.with_context(|| format!("no input is called `{name}`; the inputs are {}", names.join(", ")))?, file)
            }
            None if names.len() == 1 => (0, input.as_str()),
            None => bail!("the network has several inputs; choose one with NAME=FILE.npy: {}", names.join(", ")),
        };
        if samples[at].replace(npy::open(file)?).is_some() {
            bail!("the input `{}` is given twice", names[at]);
        }
    }
    let missing = || samples.iter().zip(&names).find(|(s, _)| s.is_none()).map_or("", |(_, name)| name);
    let samples: Vec<HostTensor> = (samples.iter().cloned().collect::<Option<_>>())
        .with_context(|| format!("the input `{}` is missing; give --input {0}=FILE.npy", missing()))?;

    let engine = engine(&arguments.device)?;
    let n = samples.first().and_then(|s| s.shape().first()).copied().unwrap_or(1);
    let layers: Vec<&str> = arguments.layers.iter().map(String::as_str).collect();
    let batch = Batch::up_to(n.clamp(1, arguments.batch as usize));
    let results = model.inference_with(&engine, batch, &layers)?.predict_many(&samples)?;
    // A layer's name may come from a file, so it must not choose a folder.
    let plain = |name: &str| -> String {
        let name: String =
            name.chars().map(|c| if c.is_alphanumeric() || "-_".contains(c) { c } else { '.' }).collect();
        format!("{}.npy", name.trim_start_matches('.'))
    };
    let mut taken: HashMap<String, &str> = HashMap::new();
    for (name, _) in &results {
        // Some file systems ignore case.
        if let Some(other) = taken.insert(plain(name).to_lowercase(), name) {
            bail!("`{other}` and `{name}` would both be written to {}; write them in two runs", plain(name));
        }
    }
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("the folder {} cannot be created", arguments.output.display()))?;
    let mut written = Vec::new();
    for (name, tensor) in results {
        let path = arguments.output.join(plain(&name));
        hubel::io::save::save(&path, &npy::write(&tensor), false)?;
        written.push((name, tensor.shape().to_vec(), utf8(&path)?.to_owned()));
    }
    let text: Vec<String> = written.iter().map(|(name, shape, path)| format!("{name} {shape:?}: {path}")).collect();
    let json = written.iter().map(|(name, shape, path)| json!({ "name": name, "shape": shape, "file": path }));
    Ok(Found::new(json!({ "outputs": json.collect::<Vec<_>>() }), text.join("\n")))
}
