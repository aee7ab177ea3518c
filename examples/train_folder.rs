//! Your own images in one command: `cargo run --release --example train_folder DIR`, with a folder for each class in DIR.

use anyhow::Result;
use clap::Parser;
use hubel::{
    callbacks::*, cli::DeviceOptions, data::plots, io::save, layers::*, losses::*, metrics::*, nn::FlipMode,
    optimizers::*, prelude::*,
};
use std::{fs, path::PathBuf};

/// Trains a small CNN on augmented images in folders, until it stops improving.
#[derive(Parser)]
struct Options {
    /// Folder with a folder of PNG and JPEG images for each class
    images: PathBuf,
    /// Height and width that images are resized to
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Maximum number of epochs
    #[arg(long, default_value_t = 60)]
    epochs: usize,
    /// Epochs without improvement before it stops
    #[arg(long, default_value_t = 10)]
    patience: usize,
    /// Images in a step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Share of the images that are kept for validation; 0 for none
    #[arg(long, default_value_t = 0.2)]
    validation: f64,
    /// Decode images on demand, for more than fit in memory
    #[arg(long)]
    stream: bool,
    /// Do not augment images
    #[arg(long)]
    plain: bool,
    /// Seed of split, weights, order and chance
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for curves, confusion matrix, logs and weights
    #[arg(long, default_value = "out/train_folder")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Returns a small convolutional network for images of this size, which it augments if `augmented`.
fn network(size: usize, augmented: bool, classes: usize) -> Result<Model> {
    let mut net = Sequential::new([size, size, 3]);
    if augmented {
        net = net
            .add(RandomFlip::new(FlipMode::Horizontal))
            .add(RandomRotation::new(0.05))
            .add(RandomZoom::new(0.15))
            .add(RandomContrast::new([0.2, 0.2]));
    }
    net = net.add(Rescaling::new(1.0 / 127.5).offset(-1.0));
    for filters in [16, 32, 64] {
        net = net
            .add(Conv2D::new(filters, 3).padding(Same).use_bias(false))
            .add(BatchNormalization::new().momentum(0.9))
            .add(Relu)
            .add(MaxPooling2D::new(2));
    }
    Ok(net
        .add(Conv2D::new(64, 3).padding(Same).activation(Relu))
        .add(GlobalAveragePooling2D::new())
        .add(Dropout::new(0.3))
        .add(Dense::new(classes).activation(Softmax))
        .build()?)
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("weights.safetensors"))?;
    let (engine, notice) = options.device.engine()?;
    notice.iter().for_each(|line| eprintln!("{line}"));
    let bar = indicatif::ProgressBar::new(0).with_message("images");
    let images = ImageFolder::new(&options.images)
        .image_size([options.size; 2])
        .crop_to_aspect_ratio(true)
        .validation_split(options.validation)
        .seed(options.seed)
        .stream(options.stream)
        .progress(|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })
        .load()?;
    bar.finish_and_clear();
    images.skipped.iter().for_each(|e| eprintln!("left out: {e}"));
    let (train, validation) = (images.train, images.validation);
    let classes = train.classes.clone();
    println!(
        "{} images to train on, {} to validate, {} left out; classes: {}",
        train.len(),
        validation.len(),
        images.skipped.len(),
        classes.join(", ")
    );

    let model = network(options.size, !options.plain, classes.len())?;
    eprintln!("{}\n{}", engine.info(), model.summary());
    let config =
        Compile::new(Adam::new(2e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy).seed(options.seed);
    let mut trainer = model.compile(&engine, config)?;
    let out = &options.out;
    let mut fit = Fit::epochs(options.epochs).batch(options.batch).seed(options.seed);
    let mut watched = "loss";
    if !validation.is_empty() {
        fit = fit.validation(&validation);
        watched = "val_loss";
    }
    let fit = fit
        .callback(ReduceLROnPlateau::new(watched).factor(0.5).patience(options.patience.div_ceil(2)))
        .callback(EarlyStopping::new(watched).patience(options.patience).restore_best_weights(true))
        .callback(TensorBoard::new(out.join("logs")))
        .callback(TerminateOnNaN::new())
        .callback(ProgressBar::new());
    let history = trainer.fit(&train, fit)?;
    if let Some(found) = trainer.not_finite() {
        anyhow::bail!("training broke: {found}; try a smaller learning rate");
    }

    trainer.save_weights(out.join("weights.safetensors"))?;
    fs::write(out.join("classes.txt"), classes.join("\n") + "\n")?;
    fs::write(out.join("history.csv"), history.to_csv())?;
    plots::curves(&history.series)?.save(out.join("curves.png"))?;
    if validation.is_empty() {
        println!("no images were kept for validation; curves, logs and weights in {}", out.display());
        return Ok(());
    }
    let matrix = trainer.confusion_matrix(&validation)?;
    let right: u64 = (0..classes.len()).map(|k| matrix[k][k]).sum();
    plots::confusion(&matrix, &classes)?.save(out.join("confusion.png"))?;
    println!(
        "validation accuracy {:.1}%; curves, confusion matrix, logs and weights in {}",
        100.0 * right as f64 / validation.len() as f64,
        out.display()
    );
    Ok(())
}
