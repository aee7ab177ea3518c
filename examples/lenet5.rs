//! Trains LeNet-5 on MNIST and draws what it learned.

use anyhow::{Context, Result};
use clap::Parser;
use hubel::{
    cli::{DeviceOptions, Interrupt},
    data::{self, plots},
    io::save,
    losses::*,
    metrics::*,
    optimizers::*,
    prelude::*,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Trains LeNet-5 on MNIST and draws curves, mistakes, filters and feature maps.
#[derive(Parser)]
struct Options {
    /// Epochs [default: 5; 1 without a device]
    #[arg(long)]
    epochs: Option<usize>,
    /// Images in a step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Seed of weights and order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Train on the first LIMIT images only [default: all; 5000 without a device]
    #[arg(long)]
    limit: Option<usize>,
    /// Folder of the four MNIST files
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist"))]
    data: PathBuf,
    /// Continue from the checkpoint that Ctrl-C left in the folder
    #[arg(long)]
    resume: bool,
    /// Folder for images, history and weights
    #[arg(long, default_value = "out/lenet5")]
    out: PathBuf,
    /// One JSON object per line on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Mean and deviation of MNIST's training pixels in 0..1.
const MEAN: f32 = 0.1307;
const DEVIATION: f32 = 0.3081;
const MAX_RATE: f64 = 4e-3;
/// The time limit for classifying test digits without a device.
const DRAWING_LIMIT: Duration = Duration::from_secs(10);

/// Returns the time of `evaluations` evaluations of a digit.
fn duration(trainer: &mut Trainer, test: &Dataset, evaluations: usize) -> Result<Duration> {
    let (few, began) = (test.clone().take(100), Instant::now());
    trainer.evaluate(&few)?;
    Ok(began.elapsed().mul_f64(evaluations as f64 / few.len() as f64))
}

fn main() -> Result<()> {
    let started = Instant::now();
    env_logger::init();
    let options = Options::parse();
    if let Some(adapters) = options.device.adapters() {
        println!("{adapters}");
        return Ok(());
    }
    save::prepare(options.out.join("lenet5.safetensors"))?;
    let (engine, notice) = options.device.engine()?;
    if let Some(notice) = notice {
        eprintln!("{notice}");
    }
    let reference = engine.is_reference();
    let mnist = data::mnist(&options.data)?;
    let prepare = |d: Dataset| anyhow::Ok(d.pad(2)?.standardize(MEAN, DEVIATION));
    let limit = options.limit.unwrap_or(if reference { 5_000 } else { usize::MAX });
    let (train, test) = (prepare(mnist.train.take(limit))?, prepare(mnist.test)?);
    let epochs = options.epochs.unwrap_or(if reference { 1 } else { 5 });

    let model = models::lenet5()?;
    eprintln!("{}", engine.info());
    eprintln!("{}", model.summary());
    let steps = (epochs * train.len().div_ceil(options.batch)) as u64;
    let config = Compile::new(Adam::new(OneCycle::new(MAX_RATE, steps)), SparseCategoricalCrossentropy::new())
        .metric(Accuracy)
        .seed(options.seed);
    let mut trainer = model.compile(&engine, config)?;
    if reference {
        // Training on a digit costs about three evaluations of it.
        let expected = duration(&mut trainer, &test, epochs * (3 * train.len() + test.len()))?;
        eprintln!("expected duration: about {:.0} s", expected.as_secs_f64());
    }

    let out = &options.out;
    let checkpoint = out.join("checkpoint.safetensors");
    if options.resume {
        trainer.load_checkpoint(&checkpoint)?;
    }
    let interrupt = Interrupt::catch()?;
    let mut watch = Watch { json: options.json, started, cold_ms: None, rate: 0.0 };
    let mut fit = Fit::until_epoch(epochs).batch(options.batch).seed(options.seed).validation(&test);
    fit = fit.callback(&mut watch).callback(interrupt.clone());
    if !options.json {
        fit = fit.callback(ProgressBar::new());
    }
    let history = trainer.fit(&train, fit)?;

    trainer.save_weights(out.join("lenet5.safetensors"))?;
    fs::write(out.join("history.csv"), history.to_csv())?;
    if interrupt.pressed() {
        trainer.save_checkpoint(&checkpoint)?;
        eprintln!("stopped: a checkpoint, weights and history are in {}; --resume goes on", out.display());
        std::process::exit(Interrupt::STATUS);
    }
    let accuracy = history.last("val_accuracy").unwrap_or(0.0);
    let drawn = draw(&trainer, &history, &test, out, reference.then_some(DRAWING_LIMIT))?;
    eprintln!("test accuracy {:.2}%, images and weights in {}", 100.0 * accuracy, out.display());
    if drawn < test.len() {
        eprintln!("confusion matrix and mistakes are those of the first {drawn} test digits");
    }
    if options.json {
        let plan = trainer.plan();
        println!(
            "{}",
            serde_json::json!({
                "params": model.count_params(),
                "test_accuracy": accuracy,
                "images_per_s": watch.rate,
                "adapter": engine.info().name,
                "dispatches_per_step": plan.map_or(0, |p| p.dispatches.len()),
                "peak_bytes": plan.map_or(0, |p| p.peak_bytes),
                "cold_ms": watch.cold_ms,
            })
        );
    }
    Ok(())
}

/// Measures, and writes an epoch's values.
struct Watch {
    json: bool,
    started: Instant,
    cold_ms: Option<f64>,
    rate: f64,
}

impl Callback for &mut Watch {
    fn step_end(&mut self, _at: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        self.cold_ms.get_or_insert_with(|| self.started.elapsed().as_secs_f64() * 1e3);
        Ok(Control::Continue)
    }

    fn epoch_end(&mut self, at: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        self.rate = at.samples_per_s;
        if self.json {
            let values: serde_json::Map<_, _> = at.values.iter().map(|(n, v)| (n.clone(), (*v).into())).collect();
            println!("{}", serde_json::json!({"epoch": at.epoch, "images_per_s": at.samples_per_s, "values": values}));
        }
        Ok(Control::Continue)
    }
}

/// Returns the probabilities of the ten classes for test digits in their order: for all, or for as many as `limit`
/// allows.
fn classify(trainer: &Trainer, test: &Dataset, limit: Option<Duration>) -> Result<Vec<f32>> {
    let began = Instant::now();
    let all: Vec<u32> = (0..test.len() as u32).collect();
    let mut probabilities = Vec::new();
    for rows in all.chunks(limit.map_or(all.len(), |_| 100)) {
        probabilities.extend(trainer.predict(&test.rows(rows)?)?.to_f32());
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
    }
    Ok(probabilities)
}

/// Draws curves, the confusion matrix, the worst mistakes, the filters, and one digit's feature maps; returns the
/// number of test digits used.
fn draw(trainer: &Trainer, history: &History, test: &Dataset, out: &Path, limit: Option<Duration>) -> Result<usize> {
    plots::curves(&history.series)?.save(out.join("curves.png"))?;
    let probabilities = classify(trainer, test, limit)?;
    let rows: Vec<u32> = (0..probabilities.len() as u32 / 10).collect();
    let labels = test.labels_of(&rows)?.to_f32();
    let mut confusion = vec![vec![0u64; 10]; 10];
    let mut wrong = Vec::new();
    for (i, p) in probabilities.chunks(10).enumerate() {
        let best = (0..10).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap_or(0);
        let label = labels[i] as usize;
        confusion[label][best] += 1;
        if best != label {
            wrong.push((i as u32, best, label, p[best]));
        }
    }
    plots::confusion(&confusion, &test.classes)?.save(out.join("confusion.png"))?;
    wrong.sort_by(|a, b| b.3.total_cmp(&a.3));
    let mistakes = wrong
        .iter()
        .take(25)
        .map(|&(i, best, label, p)| Ok((test.images.rows(i as usize, 1).context("a test image")?, best, label, p)))
        .collect::<Result<Vec<_>>>()?;
    plots::mistakes(&mistakes, &test.classes)?.save(out.join("mistakes.png"))?;
    let digit = test.rows(&[0])?;
    let maps = trainer.inference(Batch::up_to(1), &["conv1", "conv2"])?.predict_all(&digit)?;
    plots::feature_maps(&digit, &maps[1..])?.save(out.join("feature_maps.png"))?;
    let weights = trainer.weights()?;
    let kernels: Vec<_> = weights.into_iter().filter(|(_, t)| t.shape().len() == 4).collect();
    plots::filters(&kernels)?.save(out.join("filters.png"))?;
    Ok(rows.len())
}
