//! An LSTM learns to continue a wave from its last values.

use anyhow::Result;
use clap::Parser;
use hubel::{cli::DeviceOptions, data::plots, io::save, layers::*, losses::*, optimizers::*, prelude::*};
use std::path::PathBuf;

/// Trains an LSTM to predict the next value of a sum of two sines, then lets it continue on its own.
#[derive(Parser)]
struct Options {
    /// Epochs
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Values that the network sees
    #[arg(long, default_value_t = 24)]
    window: usize,
    /// Units of the LSTM
    #[arg(long, default_value_t = 32)]
    units: usize,
    /// Seed of weights and order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the image
    #[arg(long, default_value = "out/sine_lstm")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// The wave, with values in −1 ‥ 1.
fn wave(t: usize) -> f32 {
    let t = t as f32;
    0.6 * (t * 0.2).sin() + 0.4 * (t * 0.53).sin()
}

const SAMPLES: usize = 2000;
/// Where the unseen part begins, and how much of it is predicted.
const UNSEEN: usize = 3000;
const AHEAD: usize = 120;

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("wave.png"))?;
    let (engine, notice) = options.device.engine()?;
    if let Some(notice) = notice {
        eprintln!("{notice}");
    }
    let window = options.window.max(2);
    let sequences: Vec<f32> = (0..SAMPLES).flat_map(|i| (i..i + window).map(wave)).collect();
    let next: Vec<f32> = (0..SAMPLES).map(|i| wave(i + window)).collect();
    let data = Dataset::new(HostTensor::f32([SAMPLES, window, 1], sequences)?, HostTensor::f32([SAMPLES, 1], next)?)?;

    let model = Sequential::new([window, 1]).add(LSTM::new(options.units)).add(Dense::new(1)).build()?;
    eprintln!("{}\n{}", engine.info(), model.summary());
    let steps = (options.epochs * SAMPLES.div_ceil(32)) as u64;
    let config = Compile::new(Adam::new(OneCycle::new(1e-2, steps)), MeanSquaredError)
        .metric(MeanAbsoluteError)
        .seed(options.seed);
    let mut trainer = model.compile(&engine, config)?;
    let fit = Fit::epochs(options.epochs).seed(options.seed).callback(ProgressBar::new());
    let history = trainer.fit(&data, fit)?;

    // From here on the network sees its own predictions.
    let mut seen: Vec<f32> = (UNSEEN..UNSEEN + window).map(wave).collect();
    let mut net = trainer.inference(Batch::up_to(1), &[])?;
    for _ in 0..AHEAD {
        let last = HostTensor::f32([1, window, 1], seen[seen.len() - window..].to_vec())?;
        seen.push(net.predict(&last)?.to_f32()[0]);
    }
    let truth: Vec<f64> = (UNSEEN..UNSEEN + window + AHEAD).map(|t| f64::from(wave(t))).collect();
    let said: Vec<f64> = seen.iter().map(|&x| f64::from(x)).collect();
    let errors = truth.iter().zip(&said).skip(window).map(|(t, s)| (t - s).abs());
    let mean = errors.sum::<f64>() / AHEAD as f64;
    plots::lines("a wave and its continuation", "time", &[("wave", &truth), ("LSTM", &said)])?
        .save(options.out.join("wave.png"))?;
    println!(
        "loss {:.6}; {AHEAD} values ahead, each from its own ones before: mean error {mean:.4}; image in {}",
        history.last("loss").unwrap_or(f64::NAN),
        options.out.display()
    );
    Ok(())
}
