//! Paints one image in the style of another (Gatys et al. 2016).
//!
//! `cargo run --release --example style -- --content photo.jpg --style painting.jpg --model VGG19 --weights vgg19.h5`
//!
//! Without weights it uses a small network with random ones: its features say little about the content of an image, but
//! its Gram matrices capture a texture well enough to transfer it (Ustyuzhaninov et al. 2017).

use anyhow::{Result, bail};
use clap::Parser;
use hubel::{
    cli::DeviceOptions,
    data::{
        plots,
        preprocess::{self, Filter},
    },
    io::{image, save},
    layers::*,
    nn::{
        LayerError,
        models::{Options as ModelOptions, Preprocessing, Weights, find},
    },
    prelude::*,
    train::Style,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/landscape.jpg");

/// Paints one image in the style of another.
#[derive(Parser)]
struct Options {
    /// The image with the content [default: a landscape from the examples]
    #[arg(long, value_name = "FILE")]
    content: Option<PathBuf>,
    /// The image with the style [default: coloured waves]
    #[arg(long, value_name = "FILE")]
    style: Option<PathBuf>,
    /// VGG16 or VGG19, with weights
    #[arg(long, default_value = "VGG19")]
    model: String,
    /// The network's weights: .safetensors, .h5, .keras and others [default: a small network with random weights]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Height and width of the result [default: 64; 256 with weights]
    #[arg(long)]
    size: Option<usize>,
    /// Steps
    #[arg(long, default_value_t = 200)]
    steps: u64,
    /// Weight of the content [default: 0.2; 1 with weights]
    #[arg(long)]
    content_weight: Option<f32>,
    /// Weight of the style
    #[arg(long, default_value_t = 100.0)]
    style_weight: f32,
    /// Weight of smoothness
    #[arg(long, default_value_t = 30.0)]
    variation_weight: f32,
    /// Folder for the images
    #[arg(long, default_value = "out/style")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Returns three blocks like VGG's with random weights: few filters, one convolution each, average instead of max
/// pooling.
fn small(size: usize) -> Result<Model, LayerError> {
    let mut model = Sequential::new([size, size, 3]);
    for block in 1..=3 {
        let conv = Conv2D::new(16, 3).padding(Same).activation(Relu).kernel_initializer(HeNormal);
        model = model.add(conv.name(format!("block{block}_conv1")));
        model = model.add(AveragePooling2D::new(2).name(format!("block{block}_pool")));
    }
    model.build()
}

/// Returns waves of two colours, u8 (size, size, 3).
fn waves(size: usize) -> Result<HostTensor> {
    let pixel = |i: usize| {
        let (y, x) = ((i / size) as f32 / 2.5, (i % size) as f32 / 2.5);
        let level = 0.5 + 0.5 * (x + 2.0 * (y * 0.7).sin()).sin();
        let mix = |a: f32, b: f32| (a + (b - a) * level) as u8;
        [mix(20.0, 250.0), mix(40.0, 190.0), mix(120.0, 30.0)]
    };
    Ok(HostTensor::u8([size, size, 3], (0..size * size).flat_map(pixel).collect())?)
}

fn save(image: &HostTensor, path: &Path) -> Result<()> {
    let levels = image.to_f32().into_iter().map(|x| x / 255.0).collect();
    Ok(image::save(&image::to_rgb(&HostTensor::f32(image.shape(), levels)?)?, path)?)
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("stylised.png"))?;
    if let Some(adapters) = options.device.adapters() {
        println!("{adapters}");
        return Ok(());
    }
    let size = options.size.unwrap_or(if options.weights.is_some() { 256 } else { 64 });
    let (model, layers, preprocessing) = match &options.weights {
        None => {
            eprintln!(
                "no --weights: a small network with random ones transfers texture, and keeps little of the content"
            );
            (small(size)?, vec!["block1_conv1", "block2_conv1", "block3_conv1"], Preprocessing::Torch)
        }
        Some(file) => {
            let application = find(&options.model).filter(|a| ["VGG16", "VGG19"].contains(&a.name));
            let Some(application) = application else { bail!("{}: wanted VGG16 or VGG19", options.model) };
            let config = ModelOptions::no_top().input_shape([size, size, 3]).weights(Weights::File(file.clone()));
            let layers = ["block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1"];
            ((application.build)(&config)?, layers.to_vec(), application.preprocessing)
        }
    };
    let (content_layer, content_weight) =
        if options.weights.is_some() { ("block4_conv2", 1.0) } else { ("block3_conv1", 0.2) };
    let open = |path: &Path| anyhow::Ok(preprocess::crop(&image::open(path)?, [size, size, 3], Filter::Bilinear)?);
    let content = open(options.content.as_deref().unwrap_or(PHOTO.as_ref()))?;
    let style = match &options.style {
        Some(path) => open(path)?,
        None => waves(size)?.reshape([1, size, size, 3])?,
    };
    let out = &options.out;
    save(&content, &out.join("content.png"))?;
    save(&style, &out.join("style.png"))?;

    let (engine, notice) = options.device.engine()?;
    notice.iter().for_each(|line| eprintln!("{line}"));
    let template = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}")?.progress_chars("━╸ ");
    let bar = ProgressBar::new(options.steps).with_style(template);
    let transfer = Style::new(&model, preprocessing)
        .content(content_layer, options.content_weight.unwrap_or(content_weight))
        .style(&layers, options.style_weight)
        .variation(options.variation_weight)
        .steps(options.steps)
        .on_step(|at| {
            bar.set_position(at.step + 1);
            bar.set_message(format!("loss {:.4}  content {:.4}  style {:.4}", at.total, at.content, at.style));
            Control::Continue
        });
    let result = transfer.run(&engine, &content, &style)?;
    bar.abandon();
    save(&result.image, &out.join("stylised.png"))?;
    let curve =
        |of: fn(&hubel::train::StyleStep) -> f32| result.history.iter().map(|at| f64::from(of(at))).collect::<Vec<_>>();
    let (total, style) = (curve(|at| at.total.log10()), curve(|at| at.style.log10()));
    plots::lines("log10 of the loss", "step", &[("total", &total), ("style", &style)])?.save(out.join("losses.png"))?;
    if let (Some(first), Some(last)) = (result.history.first(), result.history.last()) {
        println!(
            "loss {:.3} to {:.3}, style {:.3} to {:.3}: {}",
            first.total,
            last.total,
            first.style,
            last.style,
            out.display()
        );
    }
    Ok(())
}
