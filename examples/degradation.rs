//! Plain networks get harder to train with depth, residual ones do not (He et al. 2016, figures 1 and 6).

use anyhow::Result;
use clap::Parser;
use hubel::{
    cli::DeviceOptions,
    data::{self, plots},
    io::save,
    layers::*,
    losses::*,
    nn::LayerError,
    optimizers::*,
    prelude::*,
};
use std::{cell::RefCell, path::PathBuf, rc::Rc};

/// Trains plain and residual nets of several depths on small images and draws their losses.
#[derive(Parser)]
struct Options {
    /// Layers with weights: 6n + 2
    #[arg(long, value_delimiter = ',', default_value = "20,56")]
    depths: Vec<usize>,
    /// Filters of the first stage; the others have twice and four times as many
    #[arg(long, default_value_t = 8)]
    filters: usize,
    /// Steps of 32 images
    #[arg(long, default_value_t = 200)]
    steps: u64,
    /// Seed of weights and order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the four MNIST files
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist"))]
    data: PathBuf,
    /// Folder for the image
    #[arg(long, default_value = "out/degradation")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Returns every second pixel of every second row.
fn smaller(data: &Dataset) -> Result<Dataset> {
    let pixels = data.images.bytes();
    let half: Vec<u8> = pixels.chunks(56).flat_map(|rows| rows[..28].iter().step_by(2).copied()).collect();
    Ok(Dataset { images: HostTensor::u8([data.len(), 14, 14, 1], half)?, ..data.clone() })
}

/// Returns the network of the paper's section 4.2: three stages of n pairs of 3×3 convolutions.
fn network(depth: usize, filters: usize, residual: bool) -> Result<Model, LayerError> {
    let conv = |f: usize, strides: usize| {
        Conv2D::new(f, 3).strides(strides).padding(Same).use_bias(false).kernel_initializer(HeNormal)
    };
    let x = Input::new([14, 14, 1]);
    let mut y = x.apply(conv(filters, 1))?.apply(BatchNormalization::new())?.apply(Relu)?;
    for stage in 0..3 {
        let f = filters << stage;
        for block in 0..(depth.max(8) - 2) / 6 {
            let strides = if stage > 0 && block == 0 { 2 } else { 1 };
            let before = y.clone();
            y = y.apply(conv(f, strides))?.apply(BatchNormalization::new())?.apply(Relu)?;
            y = y.apply(conv(f, 1))?.apply(BatchNormalization::new())?;
            if residual {
                let shortcut = match strides {
                    1 => before,
                    _ => before.apply(Conv2D::new(f, 1).strides(strides).use_bias(false))?,
                };
                y = add(&[y, shortcut])?;
            }
            y = y.apply(Relu)?;
        }
    }
    let y = y.apply(GlobalAveragePooling2D::new())?.apply(Dense::new(10).activation(Softmax))?;
    Model::new(&[x], &[y])
}

/// Keeps the loss of each step.
#[derive(Clone, Default)]
struct Losses(Rc<RefCell<Vec<f64>>>);

impl Callback for Losses {
    fn step_end(&mut self, at: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        self.0.borrow_mut().extend(at.recent_loss);
        Ok(Control::Continue)
    }
}

fn main() -> Result<()> {
    env_logger::init();
    let options = Options::parse();
    save::prepare(options.out.join("degradation.png"))?;
    let (engine, notice) = options.device.engine()?;
    if let Some(notice) = notice {
        eprintln!("{notice}");
    }
    let train = smaller(&data::mnist(&options.data)?.train)?;
    let mut curves = Vec::new();
    for residual in [false, true] {
        for &depth in &options.depths {
            let name = format!("{} {depth}", if residual { "residual" } else { "plain" });
            let model = network(depth, options.filters, residual)?;
            eprintln!("{name}: {} weights", model.count_params());
            let config =
                Compile::new(Sgd::new(0.05).momentum(0.9), SparseCategoricalCrossentropy::new()).seed(options.seed);
            let mut trainer = model.compile(&engine, config)?;
            let losses = Losses::default();
            let fit = Fit::epochs(1).batch(32).seed(options.seed).max_steps(options.steps).read_every_step();
            trainer.fit(&train, fit.callback(losses.clone()).callback(ProgressBar::new()))?;
            let each = losses.0.borrow();
            // Means of ten steps are easier to read.
            let smooth: Vec<f64> =
                each.windows(10.min(each.len()).max(1)).map(|w| w.iter().sum::<f64>() / w.len() as f64).collect();
            println!("{name}: loss of the last steps {:.3}", smooth.last().copied().unwrap_or(f64::NAN));
            curves.push((name, smooth));
        }
    }
    let series: Vec<(&str, &[f64])> = curves.iter().map(|(name, v)| (name.as_str(), v.as_slice())).collect();
    plots::lines("training loss", "step", &series)?.save(options.out.join("degradation.png"))?;
    println!("image in {}", options.out.display());
    Ok(())
}
