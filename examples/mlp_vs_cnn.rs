//! The effect of shifted digits on a dense network and a convolutional one.

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
use std::path::PathBuf;

/// Trains a dense net and a CNN on centred digits and tests both on shifted ones.
#[derive(Parser)]
struct Options {
    /// Epochs
    #[arg(long, default_value_t = 2)]
    epochs: usize,
    /// Train on the first LIMIT images only
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    /// Test on the first TEST images
    #[arg(long, default_value_t = 2_000)]
    test: usize,
    /// Largest shift in pixels
    #[arg(long, default_value_t = 6)]
    shift: usize,
    /// Seed of weights and order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the four MNIST files
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist"))]
    data: PathBuf,
    /// Folder for the image
    #[arg(long, default_value = "out/mlp_vs_cnn")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Returns the images moved to the right, black where they came from.
fn shifted(data: &Dataset, by: usize) -> Result<Dataset> {
    let &[h, w, c] = data.sample_shape() else { anyhow::bail!("the samples are no images") };
    let pixels = data.images.bytes();
    let move_row = |row: &[u8]| [vec![0; by * c], row[..(w - by) * c].to_vec()].concat();
    let moved: Vec<u8> = pixels.chunks(w * c).flat_map(move_row).collect();
    Ok(Dataset { images: HostTensor::u8([data.len(), h, w, c], moved)?, ..data.clone() })
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("shift.png"))?;
    let (engine, notice) = options.device.engine()?;
    if let Some(notice) = notice {
        eprintln!("{notice}");
    }
    let mnist = data::mnist(&options.data)?;
    let (train, test) = (mnist.train.take(options.limit), mnist.test.take(options.test));
    let dense = Sequential::new([28, 28, 1])
        .add(Flatten::new())
        .add(Dense::new(128).activation(Relu))
        .add(Dense::new(128).activation(Relu))
        .add(Dense::new(10).activation(Softmax))
        .build()?;
    let cnn = Sequential::new([28, 28, 1])
        .add(Conv2D::new(16, 3).padding(Same).activation(Relu))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(32, 3).padding(Same).activation(Relu))
        .add(GlobalMaxPooling2D::new())
        .add(Dense::new(10).activation(Softmax))
        .build()?;
    let mut curves = Vec::new();
    for (name, model) in [("dense", dense), ("convolutional", cnn)] {
        eprintln!("{name}: {} weights", model.count_params());
        let config =
            Compile::new(Adam::new(2e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy).seed(options.seed);
        let mut trainer = model.compile(&engine, config)?;
        let fit = Fit::epochs(options.epochs).batch(64).seed(options.seed).callback(ProgressBar::new());
        trainer.fit(&train, fit)?;
        let score = |by: usize| anyhow::Ok(trainer.evaluate(&shifted(&test, by)?)?.get("accuracy").unwrap_or(0.0));
        curves.push((name, (0..=options.shift.min(27)).map(score).collect::<Result<Vec<f64>>>()?));
    }
    println!("{:>6} {:>8} {:>14}", "shift", "dense", "convolutional");
    for (by, (dense, cnn)) in curves[0].1.iter().zip(&curves[1].1).enumerate() {
        println!("{by:>6} {:>7.1}% {:>13.1}%", 100.0 * dense, 100.0 * cnn);
    }
    let series: Vec<(&str, &[f64])> = curves.iter().map(|(name, v)| (*name, v.as_slice())).collect();
    plots::lines("accuracy on shifted digits", "pixels to the right", &series)?.save(options.out.join("shift.png"))?;
    println!("image in {}", options.out.display());
    Ok(())
}
