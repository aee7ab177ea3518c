use crate::{Found, engine, model::ModelOptions, output::Output, utf8};
use anyhow::{Context, Result, bail};
use hubel::{
    cli::DeviceOptions,
    data::{
        prepare,
        preprocess::{self, Filter},
    },
    io::image,
    nn::models::Preprocessing,
    prelude::*,
};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    /// PNG or JPEG images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// How many classes to show
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Class names, one per line, instead of the network's own
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Folder for the pictures of maps, such as masks
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// The preprocessing of images, for a network from a file
    #[arg(long, value_name = "identity|tf|torch|caffe|lite|unit", value_parser = ["identity", "tf", "torch", "caffe", "lite", "unit"])]
    preprocessing: Option<String>,
    /// Resize the whole image, instead of cropping its centre
    #[arg(long)]
    whole: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Returns what a network says of images: classes with their probabilities, pictures of maps, or numbers.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let loaded = arguments.model.load()?;
    if !loaded.trained {
        let name = &loaded.name;
        bail!("{name} has no weights: give --weights FILE, or fetch the published ones with `hubel fetch {name}`");
    }
    let model = loaded.model;
    let shape = model.input_shape();
    let [_, h, w, channels] = shape.dims()[..] else { bail!("the network takes {shape}, not images") };
    let preprocessing = match (arguments.preprocessing.as_deref(), loaded.application) {
        (Some(name), _) => Preprocessing::named(name).with_context(|| format!("no preprocessing `{name}`"))?,
        (None, Some(_)) if loaded.torchvision => Preprocessing::Torch,
        (None, Some(application)) => application.preprocessing,
        (None, None) if model.preprocessing().is_some() => model.preprocessing().unwrap_or(Preprocessing::Identity),
        (None, None) => bail!("{}: give the preprocessing of images, for example --preprocessing tf", loaded.name),
    };
    let names: Vec<String> = match &arguments.labels {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
            text.lines().map(str::to_owned).collect()
        }
        None if !model.class_names().is_empty() => model.class_names().to_vec(),
        None => loaded.application.map(|a| a.classes().iter().map(|c| (*c).to_owned()).collect()).unwrap_or_default(),
    };
    let outputs = model.output_names();
    let classes = model.output_shape().last();
    if arguments.labels.is_some() && names.len() != classes {
        bail!("--labels: {} names for {classes} classes; give one name per line for each", names.len());
    }
    let filter = if preprocessing == Preprocessing::Lite { Filter::Bicubic } else { Filter::Bilinear };
    let engine = engine(&arguments.device)?;
    let mut net = model.inference(&engine, Batch::up_to(1))?;
    let (mut lines, mut objects) = (Vec::new(), Vec::new());
    for path in &arguments.images {
        let (image, shown) = (image::open(path)?, utf8(path)?);
        let sample = match preprocessing {
            // Digits as in MNIST: bright on black, centred, with a border.
            Preprocessing::Mnist => preprocess::pad(&prepare(&image)?, [h, w])?,
            _ if arguments.whole => preprocess::squeeze(&image, [h, w, channels], filter)?,
            _ => preprocess::crop(&image, [h, w, channels], filter)?,
        };
        lines.push(shown.to_owned());
        let results = net.predict_all(&preprocessing.apply(&sample)?)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut object = json!({ "image": shown });
        for (k, ((_, values), name)) in results.iter().zip(&outputs).enumerate() {
            let names = if k == 0 { &names[..] } else { &[] };
            let picture = arguments.output.join(format!("{stem}.{name}.png"));
            let (own, found) = Output { values, names, top: arguments.top, picture: &picture }.show()?;
            if outputs.len() > 1 {
                lines.push(format!(" {name}"));
                object["outputs"][name] = found;
            } else {
                object
                    .as_object_mut()
                    .into_iter()
                    .for_each(|o| o.extend(found.as_object().cloned().unwrap_or_default()));
            }
            lines.extend(own);
        }
        objects.push(object);
    }
    Ok(Found::new(json!({ "model": loaded.name, "images": objects }), lines.join("\n")))
}
