//! Four remedies against learning a thousand images by heart: early stopping, L2, dropout, augmentation.

use anyhow::Result;
use clap::Parser;
use hubel::{
    callbacks::*,
    cli::DeviceOptions,
    data::{self, plots},
    graph::{OpError, Value},
    io::save,
    layers::*,
    losses::*,
    metrics::*,
    optimizers::*,
    prelude::*,
};
use std::path::PathBuf;

/// Trains the same small CNN five times on few digits and compares its results on new ones.
#[derive(Parser)]
struct Options {
    /// Epochs
    #[arg(long, default_value_t = 40)]
    epochs: usize,
    /// Number of digits to train on
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Number of digits to test on
    #[arg(long, default_value_t = 2000)]
    test: usize,
    /// Seed of weights, order and chance
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the four files: MNIST's, or Fashion-MNIST's
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist"))]
    data: PathBuf,
    /// Folder for the image
    #[arg(long, default_value = "out/overfit")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// The loss without penalties, which only some of the networks have.
#[derive(Debug)]
struct CrossEntropy;

impl Metric for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn build(&self, g: &mut Graph, output: Value, labels: Value) -> Result<Value, OpError> {
        SparseCategoricalCrossentropy::new().build(g, output, None, labels)
    }
}

/// Returns the network with dropout of this share, this L2 penalty, and its images changed at random or not.
fn network(dropout: f32, l2: f32, augment: bool) -> Result<Model> {
    let mut net = Sequential::new([28, 28, 1]);
    if augment {
        net = net.add(RandomRotation::new(0.03)).add(RandomTranslation::new(0.08, 0.08)).add(RandomZoom::new(0.1));
    }
    Ok(net
        .add(Conv2D::new(16, 3).activation(Relu).kernel_regularizer(L2(l2)))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(32, 3).activation(Relu).kernel_regularizer(L2(l2)))
        .add(MaxPooling2D::new(2))
        .add(Flatten::new())
        .add(Dropout::new(dropout))
        .add(Dense::new(128).activation(Relu).kernel_regularizer(L2(l2)))
        .add(Dropout::new(dropout))
        .add(Dense::new(10).activation(Softmax))
        .build()?)
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("overfit.png"))?;
    let (engine, notice) = options.device.engine()?;
    notice.iter().for_each(|line| eprintln!("{line}"));
    let digits = data::mnist(&options.data)?;
    let (train, test) = (digits.train.take(options.limit), digits.test.take(options.test));
    let remedies = [
        ("none", network(0.0, 0.0, false)?),
        ("early stopping", network(0.0, 0.0, false)?),
        ("L2", network(0.0, 2e-3, false)?),
        ("dropout", network(0.5, 0.0, false)?),
        ("augmentation", network(0.0, 0.0, true)?),
    ];
    println!(
        "{:<15} {:>7} {:>11} {:>10} {:>6} {:>14} {:>13} {:>7}",
        "remedy", "epochs", "train loss", "test loss", "gap", "train accuracy", "test accuracy", "gap"
    );
    let mut curves = Vec::new();
    for (remedy, model) in remedies {
        let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new())
            .metric(Accuracy)
            .metric(CrossEntropy)
            .seed(options.seed);
        let mut trainer = model.compile(&engine, config)?;
        let mut fit = Fit::epochs(options.epochs).batch(32).seed(options.seed).validation(&test);
        fit = fit.callback(ProgressBar::new());
        if remedy == "early stopping" {
            fit = fit.callback(EarlyStopping::new("val_loss").patience(2).restore_best_weights(true));
        }
        let history = trainer.fit(&train, fit)?;
        let (on_train, on_test) = (trainer.evaluate(&train)?, trainer.evaluate(&test)?);
        let of = |scores: &Scores, name: &str| scores.get(name).unwrap_or(f64::NAN);
        let [loss, accuracy] = ["cross_entropy", "accuracy"].map(|name| [of(&on_train, name), of(&on_test, name)]);
        println!(
            "{remedy:<15} {:>7} {:>11.4} {:>10.4} {:>6.3} {:>13.1}% {:>12.1}% {:>6.1}%",
            history.epochs.len(),
            loss[0],
            loss[1],
            loss[1] - loss[0],
            100.0 * accuracy[0],
            100.0 * accuracy[1],
            100.0 * (accuracy[0] - accuracy[1])
        );
        curves.push((remedy, history.get("val_cross_entropy").unwrap_or_default().to_vec()));
    }
    let series: Vec<(&str, &[f64])> = curves.iter().map(|(name, v)| (*name, v.as_slice())).collect();
    plots::lines("loss on new digits", "epoch", &series)?.save(options.out.join("overfit.png"))?;
    println!("image in {}", options.out.display());
    Ok(())
}
