//! Which parts of an image a class's score depends on: Grad-CAM and saliency.
//!
//! `cargo run --release --example gradcam` asks LeNet-5 about a digit; with a network of photos
//! `cargo run --release --example gradcam -- --model ResNet50 --weights resnet50.h5 cat.jpg`.
//!
//! Grad-CAM weighs whole channels, as networks that end in a global mean do. LeNet-5 has separate weights for each
//! position, so its heat map is rough; saliency follows the strokes.

use anyhow::{Context, Result, bail};
use clap::Parser;
use hubel::{
    cli::DeviceOptions,
    data::{
        plots, prepare,
        preprocess::{self, Filter},
    },
    io::{image, save},
    nn::models::{Options as ModelOptions, Preprocessing, Weights, find},
    prelude::*,
};
use std::path::PathBuf;

const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/lenet5.safetensors");
const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/seven.png");

/// Draws the parts of an image that a class's score depends on.
#[derive(Parser)]
struct Options {
    /// PNG or JPEG [default: a handwritten digit]
    photo: Option<PathBuf>,
    /// A known network: VGG16, ResNet50, MobileNetV2 and others
    #[arg(long, default_value = "LeNet5")]
    model: String,
    /// Its weights: .safetensors, .h5, .keras, .pth and others [default for LeNet5: those of the examples]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The weights are torchvision's
    #[arg(long)]
    torchvision: bool,
    /// The layer whose maps Grad-CAM weighs [default: the last one with maps that does not pool]
    #[arg(long)]
    layer: Option<String>,
    /// The class to explain, from 0 [default: the most probable]
    #[arg(long)]
    class: Option<usize>,
    /// The number of noisy copies that SmoothGrad averages; 0 omits it
    #[arg(long, default_value_t = 16)]
    smooth: usize,
    /// The PNG file to write
    #[arg(long, default_value = "gradcam.png")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Returns the name of the last layer with maps of more than one pixel that does not pool.
fn last_map(model: &Model) -> Result<String> {
    let rows = model.summary().rows;
    let is_map = |shape: &Shape| shape.rank() == 4 && shape.dims()[1] * shape.dims()[2] > 1;
    let map = rows.iter().rev().find(|r| is_map(&r.output) && !r.kind.contains("Pooling"));
    Ok(map.with_context(|| format!("{} has no layer that gives maps", model.name()))?.name.clone())
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(&options.out)?;
    if let Some(adapters) = options.device.adapters() {
        println!("{adapters}");
        return Ok(());
    }
    let application = find(&options.model).with_context(|| format!("no network is called {}", options.model))?;
    let weights = match (options.weights, application.name) {
        (Some(file), _) => file,
        (None, "LeNet5") => WEIGHTS.into(),
        (None, name) => bail!("{name} needs weights: --weights FILE; `hubel fetch {name}` downloads published ones"),
    };
    let config = ModelOptions::default().weights(Weights::File(weights)).torchvision(options.torchvision);
    let model = (application.build)(&config)?;
    let preprocessing = if options.torchvision { Preprocessing::Torch } else { application.preprocessing };

    let photo = image::open(options.photo.as_deref().unwrap_or(PHOTO.as_ref()))?;
    let [_, h, w, c] = model.input_shape().dims()[..] else { bail!("the network takes no images") };
    let seen = match preprocessing {
        Preprocessing::Mnist => preprocess::pad(&prepare(&photo)?, [h, w])?,
        _ => preprocess::crop(&photo, [h, w, c], Filter::Bilinear)?,
    };
    let sample = preprocessing.apply(&seen)?;
    let layer = options.layer.map_or_else(|| last_map(&model), Ok)?;

    let (engine, notice) = options.device.engine()?;
    notice.iter().for_each(|line| eprintln!("{line}"));
    let mut explainer = model.explain(&engine, Batch::up_to(1))?;
    let class = options.class.map(|class| vec![class]);
    let heat = explainer.grad_cam(&layer, &sample, class.as_deref())?;
    let saliency = explainer.saliency(&sample, Some(&heat.classes))?;
    let mut maps = vec![(format!("Grad-CAM, {layer}"), heat.maps), ("saliency".into(), saliency.maps)];
    if options.smooth > 0 {
        let smooth = explainer.smooth_grad(&sample, Some(&heat.classes), 0.15, options.smooth, 0)?;
        maps.push((format!("SmoothGrad, {} copies", options.smooth), smooth.maps));
    }
    plots::heats(&seen, &maps)?
        .save(&options.out)
        .with_context(|| format!("{} cannot be written", options.out.display()))?;
    let class = heat.classes[0];
    let name = application.classes().get(class).map_or_else(|| format!("class {class}"), |name| (*name).to_owned());
    println!("what speaks for {name}: {}", options.out.display());
    Ok(())
}
