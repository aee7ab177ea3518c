//! Reads a handwritten digit from a photo with LeNet-5.
//!
//! `cargo run --release --example predict_digit -- weights.safetensors photo.png`

use anyhow::{Context, Result, bail};
use clap::Parser;
use hubel::{
    cli::DeviceOptions,
    data::{plots, prepare},
    io::{image, save},
    prelude::*,
};
use std::path::PathBuf;

const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/lenet5.safetensors");
const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/seven.png");

/// Reads a digit from a PNG or JPEG and draws the ten probabilities.
#[derive(Parser)]
struct Options {
    /// Weights written by the example lenet5, and an image; either may be left out
    #[arg(value_name = "WEIGHTS|IMAGE", num_args = 0..=2)]
    files: Vec<PathBuf>,
    /// The PNG file to write
    #[arg(long, default_value = "digit.png")]
    out: PathBuf,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(&options.out)?;
    if let Some(adapters) = options.device.adapters() {
        println!("{adapters}");
        return Ok(());
    }
    let (mut weights, mut photo) = (PathBuf::from(WEIGHTS), PathBuf::from(PHOTO));
    for file in options.files {
        match file.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
            Some("safetensors") => weights = file,
            Some("png" | "jpg" | "jpeg") => photo = file,
            _ => bail!("{}: give weights as .safetensors, an image as .png or .jpg", file.display()),
        }
    }
    let (engine, notice) = options.device.engine()?;
    if let Some(notice) = notice {
        eprintln!("{notice}");
    }
    let mut model = models::lenet5()?;
    model.load_weights(&weights)?;

    let digit = prepare(&image::open(&photo)?)?;
    let sample = digit.clone().reshape([1, 28, 28, 1])?;
    let mut data = Dataset::new(sample, HostTensor::u8([1], vec![0])?)?;
    data.scale = 1.0 / 255.0;
    // As the training images were: a border of two pixels, MNIST's mean and deviation.
    let sample = data.pad(2)?.standardize(0.1307, 0.3081).rows(&[0])?;
    let probabilities = model.inference(&engine, Batch::up_to(1))?.predict(&sample)?.to_f32();

    let classes: Vec<String> = (0..10).map(|d| d.to_string()).collect();
    plots::prediction(&digit, &classes, &probabilities)?
        .save(&options.out)
        .with_context(|| format!("{} cannot be written", options.out.display()))?;
    let best = (0..10).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b])).unwrap_or(0);
    if options.json {
        println!("{}", serde_json::json!({"digit": best, "probabilities": probabilities, "image": options.out}));
    } else {
        println!("{best} ({:.1}%), image in {}", 100.0 * probabilities[best], options.out.display());
    }
    Ok(())
}
