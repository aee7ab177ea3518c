//! Transfer learning: a network trained on ImageNet, applied to your own images.
//!
//! First `examples/fetch stamps` and `examples/fetch mobilenet`, then `cargo run --release --example transfer`; or
//! `cargo run --release --example transfer -- --images DIR --model NAME --weights FILE` with a folder for each class.

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use hubel::{
    cli::DeviceOptions,
    data::plots,
    io::save,
    layers::*,
    losses::*,
    metrics::*,
    nn::models::{Options as ModelOptions, Pooling, Preprocessing, Weights, find},
    optimizers::*,
    prelude::*,
};
use indicatif::ProgressBar as Bar;
use std::{path::PathBuf, time::Instant};

/// Trains a head on a frozen base, then the top of the base too.
#[derive(Parser)]
struct Options {
    /// Folder with a folder of images for each class
    #[arg(long, default_value = "data/stamps")]
    images: PathBuf,
    /// A known network: VGG16, ResNet50, MobileNetV2 and others
    #[arg(long, default_value = "MobileNetV2")]
    model: String,
    /// Its weights; `random` for none
    #[arg(long, default_value = "data/mobilenet_v2-b0353104.pth")]
    weights: PathBuf,
    /// The weights are Keras's, not torchvision's
    #[arg(long)]
    keras: bool,
    /// Height and width of the images
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Epochs of the head alone
    #[arg(long, default_value_t = 60)]
    epochs: usize,
    /// Epochs of the second phase; 0 skips it
    #[arg(long, default_value_t = 3)]
    fine_epochs: usize,
    /// Learning rate of the second phase
    #[arg(long, default_value_t = 1e-5)]
    fine_rate: f64,
    /// The layers that stay frozen in the second phase
    #[arg(long, value_enum, default_value = "many")]
    freeze: Freeze,
    /// Images in a step
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Number of folds for testing the head (cross-validation)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..))]
    folds: u64,
    /// Seed of order and weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the image and the weights
    #[arg(long, default_value = "out/transfer")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Which layers of the base are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Freeze {
    /// The whole base: only the head is trained
    All,
    /// All but the last fifth
    Many,
    /// The first fifth
    Few,
    /// Nothing
    None,
}

/// Freezes layers of the base, and all its batch normalisation: a few images have no statistics worth learning.
fn freeze(model: &mut Model, base: &Model, how: Freeze) -> Result<()> {
    let names = base.layer_names();
    let frozen = match how {
        Freeze::All => names.len(),
        Freeze::Many => names.len() * 4 / 5,
        Freeze::Few => names.len() / 5,
        Freeze::None => 0,
    };
    for (i, name) in names.iter().enumerate() {
        if i < frozen || base.layer(name)?.kind() == "BatchNormalization" {
            model.set_trainable(&format!("{}/{name}", base.name()), false)?;
        }
    }
    Ok(())
}

/// Returns the layers that are trained on the base's features.
fn head(features: usize, classes: usize) -> Result<Model> {
    Ok(Sequential::new([features]).add(Dense::new(classes).activation(Softmax).name("head")).build()?)
}

/// Returns the pretrained network, without its classifier, and its preprocessing.
fn pretrained(options: &Options) -> Result<(Model, Preprocessing)> {
    let application = find(&options.model).with_context(|| format!("no network is called {}", options.model))?;
    let weights = match options.weights.as_os_str() == "random" {
        true => Weights::Random,
        false => Weights::File(options.weights.clone()),
    };
    let torchvision = !options.keras && weights != Weights::Random;
    let config = ModelOptions::no_top().pooling(Pooling::Avg).input_shape([options.size, options.size, 3]);
    let base = (application.build)(&config.weights(weights).torchvision(torchvision))
        .context("`examples/fetch mobilenet` fetches weights for MobileNetV2; or give some with --weights")?;
    let preprocessing = if torchvision { Preprocessing::Torch } else { application.preprocessing };
    Ok((base, preprocessing))
}

/// Returns the images of the folder with their classes.
fn images(options: &Options) -> Result<Dataset> {
    let bar = Bar::new(0).with_message("images");
    let images = ImageFolder::new(&options.images)
        .image_size([options.size; 2])
        .pad_to_aspect_ratio(255)
        .seed(options.seed)
        .progress(|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })
        .load()
        .context("`examples/fetch stamps` fetches some images; or give a folder of your own with --images")?;
    bar.finish_and_clear();
    images.skipped.iter().for_each(|e| eprintln!("left out: {e}"));
    let data = images.train;
    eprintln!("{} images of {}; {} left out", data.len(), data.classes.join(", "), images.skipped.len());
    Ok(data)
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("transfer.safetensors"))?;
    let (engine, notice) = options.device.engine()?;
    notice.iter().for_each(|line| eprintln!("{line}"));

    let data = images(&options)?;
    let classes = data.classes.len();

    let (base, preprocessing) = pretrained(&options)?;
    let input = || Sequential::new([options.size, options.size, 3]).add(preprocessing).add(base.clone());

    // Compute the base's features once; then the head trains on them in seconds.
    let began = Instant::now();
    let bar = Bar::new(data.len() as u64).with_message("features");
    let mut net = input().build()?.inference(&engine, Batch::up_to(options.batch))?;
    let features = net.features(&data, |done, _| bar.set_position(done as u64))?;
    drop(net);
    bar.finish_and_clear();
    println!("features of {} images: {:.1} s", data.len(), began.elapsed().as_secs_f64());
    let width = base.output_shape().last();
    let rows: Vec<u32> = (0..data.len() as u32).collect();
    let folds = options.folds as usize;
    let part = |k: usize| k * data.len() / folds..(k + 1) * data.len() / folds;
    let (mut right, mut last) = (0.0, None);
    let began = Instant::now();
    for k in 0..folds {
        let test = part(k);
        let (held, rest): (Vec<u32>, Vec<u32>) = rows.iter().partition(|&&i| test.contains(&(i as usize)));
        let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy);
        let mut trainer = head(width, classes)?.compile(&engine, config.seed(options.seed))?;
        let held = features.select(&held)?;
        let fit = Fit::epochs(options.epochs).batch(32).seed(options.seed).validation(&held);
        let history = trainer.fit(&features.select(&rest)?, fit)?;
        let accuracy = history.last("val_accuracy").unwrap_or(0.0);
        right += accuracy * held.len() as f64;
        last = Some((accuracy, trainer.weights()?, history));
    }
    let mean = right / data.len() as f64;
    println!(
        "phase one, the head alone: held-out accuracy {:.1}% over {} parts, {:.1} s",
        100.0 * mean,
        folds,
        began.elapsed().as_secs_f64()
    );

    let Some((before, learned, mut history)) = last else { return Ok(()) };
    if options.fine_epochs > 0 {
        let mut model = input().add(Dense::new(classes).activation(Softmax).name("head")).build()?;
        freeze(&mut model, &base, options.freeze)?;
        let test = part(folds - 1);
        let (train, held) = (data.take(test.start), data.split(test.len() as f64 / data.len() as f64)?.1);
        let config = Compile::new(Adam::new(options.fine_rate), SparseCategoricalCrossentropy::new()).metric(Accuracy);
        let mut trainer = model.compile(&engine, config.seed(options.seed))?;
        trainer.set_weights(&learned)?;
        let began = Instant::now();
        let fit = Fit::epochs(options.fine_epochs).batch(options.batch).seed(options.seed).validation(&held);
        history = trainer.fit(&train, fit.callback(ProgressBar::new()))?;
        let after = history.last("val_accuracy").unwrap_or(0.0);
        println!(
            "phase two, {:?} frozen: held-out accuracy {:.1}% before, {:.1}% after {} epochs at {:e}, {:.0} s",
            options.freeze,
            100.0 * before,
            100.0 * after,
            options.fine_epochs,
            options.fine_rate,
            began.elapsed().as_secs_f64()
        );
        trainer.save_weights(options.out.join("transfer.safetensors"))?;
    }
    plots::curves(&history.series)?.save(options.out.join("curves.png"))?;
    println!("curves and weights in {}", options.out.display());
    Ok(())
}
