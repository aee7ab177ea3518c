//! A small CNN on Fashion-MNIST: ten kinds of clothes. `examples/fetch fashion-mnist` first.

use anyhow::{Context, Result};
use clap::Parser;
use hubel::{
    callbacks::*,
    cli::DeviceOptions,
    data::{self, plots},
    io::save,
    layers::*,
    losses::*,
    metrics::*,
    optimizers::*,
    prelude::*,
};
use std::{fs, path::PathBuf};

/// Trains a small CNN on images of clothes.
#[derive(Parser)]
struct Options {
    /// Epochs
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Images in a step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Seed of weights, order and dropout
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Train on the first LIMIT images only
    #[arg(long, default_value_t = usize::MAX)]
    limit: usize,
    /// Folder of the four files
    #[arg(long, default_value = "data/fashion-mnist")]
    data: PathBuf,
    /// Folder for the curves, TensorBoard's logs and the best weights
    #[arg(long, default_value = "out/fashion_mnist")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("best.safetensors"))?;
    let (engine, notice) = options.device.engine()?;
    notice.iter().for_each(|line| eprintln!("{line}"));
    let clothes = data::mnist(&options.data)
        .with_context(|| format!("`examples/fetch fashion-mnist` makes {}", options.data.display()))?;
    let train = clothes.train.take(options.limit);
    let model = Sequential::new([28, 28, 1])
        .add(Conv2D::new(16, 3).padding(Same).use_bias(false))
        .add(BatchNormalization::new())
        .add(Relu)
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(32, 3).padding(Same).use_bias(false))
        .add(BatchNormalization::new())
        .add(Relu)
        .add(MaxPooling2D::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.3))
        .add(Dense::new(128).activation(Relu))
        .add(Dropout::new(0.3))
        .add(Dense::new(10).activation(Softmax))
        .build()?;
    eprintln!("{}\n{}", engine.info(), model.summary());
    let steps = (options.epochs * train.len().div_ceil(options.batch)) as u64;
    let config = Compile::new(Adam::new(OneCycle::new(4e-3, steps)), SparseCategoricalCrossentropy::new())
        .metric(Accuracy)
        .seed(options.seed);
    let mut trainer = model.compile(&engine, config)?;
    let out = &options.out;
    let best = ModelCheckpoint::new(out.join("best.safetensors")).best_only("val_accuracy").weights_only(true);
    let fit = Fit::epochs(options.epochs)
        .batch(options.batch)
        .seed(options.seed)
        .validation(&clothes.test)
        .callback(best)
        .callback(TensorBoard::new(out.join("logs")).histogram_freq(1).samples(train.take(64)))
        .callback(ProgressBar::new());
    let history = trainer.fit(&train, fit)?;
    fs::write(out.join("history.csv"), history.to_csv())?;
    plots::curves(&history.series)?.save(out.join("curves.png"))?;
    let accuracy = history.last("val_accuracy").unwrap_or(0.0);
    println!("test accuracy {:.2}%, curves, logs and weights in {}", 100.0 * accuracy, out.display());
    Ok(())
}
