//! Runs one convolution over a photo.
//!
//! `cargo run --release --example filter -- photo.png --kernel vertical`

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hubel::{
    cli::DeviceOptions,
    graph::Initialize,
    io::{image, save},
    layers::*,
    prelude::*,
    tensor::Philox,
};
use std::{path::PathBuf, time::Instant};

const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/landscape.jpg");

/// Runs a filter over each colour channel of a photo and writes the result as PNG.
#[derive(Debug, Parser)]
struct Options {
    /// PNG or JPEG [default: a landscape from the examples]
    photo: Option<PathBuf>,
    /// sharpen, blur, or the edges: vertical, horizontal, diagonal; or a text file with a row of numbers per line
    #[arg(long, default_value = "sharpen")]
    kernel: String,
    /// The PNG file to write
    #[arg(long, default_value = "filtered.png")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// The filter's taps, (height, width) of them, the convolution's initial weights.
#[derive(Debug, Clone)]
struct Taps {
    size: [usize; 2],
    values: Vec<f32>,
}

impl Initialize for Taps {
    fn fill(&self, _shape: &[usize], _rng: &mut Philox) -> Vec<f32> {
        self.values.clone()
    }
}

impl Taps {
    fn new(name: &str) -> Result<Taps> {
        let square = |side: usize, values: Vec<f32>| Ok(Taps { size: [side, side], values });
        match name {
            "sharpen" => square(3, vec![0., -1., 0., -1., 5., -1., 0., -1., 0.]),
            "vertical" => square(3, vec![-1., 0., 1., -2., 0., 2., -1., 0., 1.]),
            "horizontal" => square(3, vec![-1., -2., -1., 0., 0., 0., 1., 2., 1.]),
            "diagonal" => square(3, vec![0., 1., 2., -1., 0., 1., -2., -1., 0.]),
            "blur" => {
                let row = [1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0].map(|x: f32| x / 64.0);
                square(7, row.iter().flat_map(|y| row.map(|x| x * y)).collect())
            }
            file => Taps::read(file),
        }
    }

    fn read(file: &str) -> Result<Taps> {
        let advice = "a kernel is sharpen, blur, vertical, horizontal, diagonal or a text file";
        let text = std::fs::read_to_string(file).with_context(|| format!("{file}: {advice}"))?;
        let number = |word: &str| word.parse::<f32>().with_context(|| format!("{file}: {word:?} is no number"));
        let split = |line: &str| -> Result<Vec<f32>> {
            line.split([' ', '\t', ',']).filter(|word| !word.is_empty()).map(number).collect()
        };
        let rows =
            text.lines().map(split).filter(|row| !matches!(row, Ok(r) if r.is_empty())).collect::<Result<Vec<_>>>()?;
        let width = rows.first().map_or(0, Vec::len);
        ensure!(width > 0 && rows.iter().all(|r| r.len() == width), "{file}: wanted rows of equally many numbers");
        ensure!(rows.len() % 2 == 1 && width % 2 == 1, "{file}: wanted odd sides, got {}×{width}", rows.len());
        ensure!(rows.iter().flatten().all(|x| x.is_finite()), "{file}: wanted finite numbers");
        Ok(Taps { size: [rows.len(), width], values: rows.concat() })
    }

    /// Returns whether the taps cancel out, as those of an edge detector do.
    fn is_edge(&self) -> bool {
        self.values.iter().sum::<f32>().abs() < 1e-6
    }
}

/// Returns the photo's channels as a batch, (c, h + 2·top, w + 2·left, 1) from 0 to 1, with its edge pixels repeated
/// outwards.
fn channels(photo: &HostTensor, [top, left]: [usize; 2]) -> Result<HostTensor> {
    let [h, w, c] = *photo.shape() else { anyhow::bail!("wanted an image (h, w, c)") };
    let (ho, wo) = (h + 2 * top, w + 2 * left);
    let pixels = photo.bytes();
    let mut values = Vec::with_capacity(c * ho * wo);
    for channel in 0..c {
        for y in 0..ho {
            let y = y.saturating_sub(top).min(h - 1);
            values.extend((0..wo).map(|x| {
                let x = x.saturating_sub(left).min(w - 1);
                f32::from(pixels[(y * w + x) * c + channel]) / 255.0
            }));
        }
    }
    Ok(HostTensor::f32([c, ho, wo, 1], values)?)
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(&options.out)?;
    if let Some(list) = options.device.adapters() {
        println!("{list}");
        return Ok(());
    }
    let taps = Taps::new(&options.kernel)?;
    let photo = image::open(options.photo.as_deref().unwrap_or(PHOTO.as_ref()))?;
    let [h, w, c] = *photo.shape() else { anyhow::bail!("wanted an image (h, w, c)") };
    let (engine, notice) = options.device.engine()?;
    eprintln!("{}", engine.info());
    notice.iter().for_each(|line| eprintln!("{line}"));

    let batch = channels(&photo, taps.size.map(|side| side / 2))?;
    let convolution = Conv2D::new(1, taps.size).use_bias(false).kernel_initializer(Initializer::custom(taps.clone()));
    let model = Sequential::new([batch.shape()[1], batch.shape()[2], 1]).add(convolution).build()?;
    let mut net = model.inference(&engine, Batch::up_to(c))?;
    net.predict(&batch)?;
    let start = Instant::now();
    let filtered = net.predict(&batch)?.to_f32();
    let ms = start.elapsed().as_secs_f64() * 1e3;

    let strength = |v: f32| if taps.is_edge() { v.abs() } else { v };
    let pixels = (0..h * w * c).map(|i| strength(filtered[i % c * h * w + i / c])).collect();
    image::save(&image::to_rgb(&HostTensor::f32([h, w, c], pixels)?)?, &options.out)?;
    let [kh, kw] = taps.size;
    eprintln!("{w}×{h} pixels, {c} channels, {kh}×{kw} taps in {ms:.1} ms, copies included: {}", options.out.display());
    Ok(())
}
