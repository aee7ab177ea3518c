//! The small CNN of Keras's introduction on MNIST: three convolutions, 93,322 weights.

use anyhow::Result;
use clap::Parser;
use hubel::{
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

/// Trains a small CNN on MNIST and draws its curves.
#[derive(Parser)]
struct Options {
    /// Epochs
    #[arg(long, default_value_t = 4)]
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
    /// Folder of the four MNIST files
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist"))]
    data: PathBuf,
    /// Folder for images, history and weights
    #[arg(long, default_value = "out/mnist_cnn")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

const MAX_RATE: f64 = 3e-3;

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("mnist_cnn.safetensors"))?;
    let (engine, notice) = options.device.engine()?;
    if let Some(notice) = notice {
        eprintln!("{notice}");
    }
    let mnist = data::mnist(&options.data)?;
    let train = mnist.train.take(options.limit);
    let model = Sequential::new([28, 28, 1])
        .add(Conv2D::new(32, 3).activation(Relu))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(64, 3).activation(Relu))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(64, 3).activation(Relu))
        .add(Flatten::new())
        .add(Dense::new(64).activation(Relu))
        .add(Dropout::new(0.2))
        .add(Dense::new(10).activation(Softmax))
        .build()?;
    eprintln!("{}\n{}", engine.info(), model.summary());
    let steps = (options.epochs * train.len().div_ceil(options.batch)) as u64;
    let config = Compile::new(Adam::new(OneCycle::new(MAX_RATE, steps)), SparseCategoricalCrossentropy::new())
        .metric(Accuracy)
        .seed(options.seed);
    let mut trainer = model.compile(&engine, config)?;
    let fit = Fit::epochs(options.epochs).batch(options.batch).seed(options.seed).validation(&mnist.test);
    let history = trainer.fit(&train, fit.callback(ProgressBar::new()))?;
    let out = &options.out;
    trainer.save_weights(out.join("mnist_cnn.safetensors"))?;
    fs::write(out.join("history.csv"), history.to_csv())?;
    plots::curves(&history.series)?.save(out.join("curves.png"))?;
    let accuracy = history.last("val_accuracy").unwrap_or(0.0);
    println!("test accuracy {:.2}%, curves and weights in {}", 100.0 * accuracy, out.display());
    Ok(())
}
