use anyhow::{Context, Result, bail};
use hubel::{
    cli::DeviceOptions,
    data::DATASET_CAP_BYTES,
    io::{checked_bytes, fetch, weights},
    losses::*,
    nn::{
        KerasOptions, OnnxOptions,
        models::{self, Application},
    },
    optimizers::*,
    passes::GpuSpec,
    prelude::*,
    tensor::{Philox, Purpose},
};
use std::path::{Path, PathBuf};

/// LeNet-5 trained on MNIST, which needs no file.
pub const LENET5: &[u8] = include_bytes!("../../../examples/data/lenet5.safetensors");

/// The network and its weights.
#[derive(Debug, clap::Args)]
pub struct ModelOptions {
    /// Name of a known network, or a .keras, .h5, .onnx or model.json file that describes one
    #[arg(value_name = "MODEL")]
    name: String,
    /// Weights: .safetensors, .h5, .weights.h5, .keras, .pth, .npz or model.json; by default random ones, or for LeNet5
    /// those of MNIST
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Height, width and channels of the images, instead of the network's own; extents of a sample that a file leaves
    /// open
    #[arg(long, value_name = "H,W,C", value_parser = shape)]
    input_shape: Option<Shape>,
    /// Number of classes, instead of the network's own
    #[arg(long)]
    classes: Option<usize>,
    /// Without the classifier
    #[arg(long)]
    no_top: bool,
    /// An extent that an .onnx file leaves open, as height=640; `images.2` is axis 2 of the input `images`
    #[arg(long, value_name = "NAME=EXTENT", value_parser = dim)]
    dim: Vec<(String, usize)>,
    /// Read weights of an .onnx file from other files in its folder
    #[arg(long)]
    external_data: bool,
}

fn dim(text: &str) -> Result<(String, usize), String> {
    let pair = text.split_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok().filter(|n| *n > 0)?)));
    pair.ok_or_else(|| "wanted a name and an extent, as in height=640".into())
}

/// The extents of a sample.
#[derive(Debug, Clone)]
struct Shape(Vec<usize>);

fn shape(text: &str) -> Result<Shape, String> {
    let dims: Option<Vec<usize>> = text.split(',').map(|d| d.trim().parse().ok().filter(|d| *d > 0)).collect();
    dims.map(Shape).ok_or_else(|| "wanted height, width and channels, as in 224,224,3".into())
}

/// The network, the batch and the device.
#[derive(Debug, clap::Args)]
pub struct StepOptions {
    #[command(flatten)]
    model: ModelOptions,
    /// Maximum number of samples in a step
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    #[command(flatten)]
    device: DeviceOptions,
}

impl StepOptions {
    /// Returns the network, the engine and the batch.
    pub fn load(&self) -> Result<(Loaded, Engine, usize)> {
        self.load_for(None)
    }

    /// Returns the network, an engine on this GPU that is not here, or else on the device, and the batch.
    pub fn load_for(&self, gpu: Option<GpuSpec>) -> Result<(Loaded, Engine, usize)> {
        let engine = || crate::engine(&self.device);
        let engine = gpu.map_or_else(engine, |gpu| Ok(Engine::without_device(gpu.profile())))?;
        Ok((self.model.load()?, engine, self.batch as usize))
    }
}

/// A network and its origin.
pub struct Loaded {
    pub model: Model,
    pub name: String,
    pub application: Option<&'static Application>,
    /// Whether its weights come from a file.
    pub trained: bool,
    /// Whether it is in torchvision's form.
    pub torchvision: bool,
}

impl ModelOptions {
    /// Returns the network with its weights.
    pub fn load(&self) -> Result<Loaded> {
        let Some(application) = models::find(&self.name) else { return self.described() };
        let contents = self.weights.as_deref().map(weights::open).transpose()?;
        // PyTorch's weights need torchvision's form.
        let torch = |c: &weights::Contents| c.tensors.iter().any(|(name, _)| name.ends_with(".running_mean"));
        let torchvision = application.two_forms() && contents.as_ref().is_some_and(torch);
        let mut options = models::Options::default().include_top(!self.no_top);
        if let Some(Shape(dims)) = &self.input_shape {
            let dims: [usize; 3] = dims[..].try_into().context("--input-shape: wanted height, width and channels")?;
            options = options.input_shape(dims);
        }
        options = self.classes.into_iter().fold(options, models::Options::classes);
        options = options.torchvision(torchvision);
        let plain = !self.no_top && self.classes.is_none() && self.input_shape.is_none();
        let digits = contents.is_none() && application.name == "LeNet5" && plain;
        let fetched = contents.is_none() && self.fetched(application.name);
        if fetched {
            options = options.weights(models::Weights::ImageNet);
        }
        let mut model = (application.build)(&options)?;
        let trained = contents.is_some() || digits || fetched;
        match contents {
            Some(contents) => model.set_weights_from(contents.tensors)?,
            None if digits => model.load_weights_from_bytes(LENET5)?,
            None => {}
        }
        Ok(Loaded { model, name: application.name.into(), application: Some(application), trained, torchvision })
    }

    /// Returns whether a network's published weights are in the cache and fit.
    fn fetched(&self, name: &str) -> bool {
        let Some((url, _)) = fetch::imagenet(name, !self.no_top) else { return false };
        let path = fetch::cache_folder().join(url.rsplit('/').next().unwrap_or_default());
        let there = (self.classes.is_none() || self.no_top) && path.exists();
        if there {
            eprintln!("weights of ImageNet: {}", path.display());
        }
        there
    }

    /// Returns the network that a file describes, with its weights.
    fn described(&self) -> Result<Loaded> {
        let path = Path::new(&self.name);
        if !path.exists() {
            let known: Vec<&str> = models::all().iter().map(|a| a.name).collect();
            bail!("no network and no file is called `{}`; known networks: {}", self.name, known.join(", "));
        }
        if self.classes.is_some() || self.no_top {
            bail!("{}: --classes and --no-top are only for known networks, not for files", self.name);
        }
        let mut model = match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
            true => {
                let options = OnnxOptions::new().external_data(self.external_data);
                let options = self.dim.iter().fold(options, |o, (name, extent)| o.dim(name, *extent));
                Model::from_onnx_with(path, &options)?
            }
            false => {
                let dims = self.input_shape.iter();
                let options = dims.fold(KerasOptions::new(), |o, Shape(dims)| o.input_shape(dims.clone()));
                Model::from_keras_with(path, &options)?
            }
        };
        if let Some(file) = &self.weights {
            model.load_weights(file)?;
        }
        let name = path.file_stem().map_or_else(|| self.name.clone(), |s| s.to_string_lossy().into_owned());
        Ok(Loaded { model, name, application: None, trained: true, torchvision: false })
    }
}

/// Returns random samples for all inputs of a model: floats from −1 to 1, integers 0.
pub fn random_samples(model: &Model, n: usize, seed: u64) -> Result<Vec<HostTensor>> {
    let mut samples = Vec::new();
    for (i, (_, ty)) in model.inputs().iter().enumerate() {
        let shape = ty.shape.at(n);
        let mut rng = Philox::new(seed, Purpose::Test, i as u32);
        let extents: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
        let bytes = checked_bytes("the samples of --batch", &extents, ty.dtype.bytes() as u64, DATASET_CAP_BYTES)?;
        samples.push(match ty.dtype {
            DType::F32 => HostTensor::f32(shape, (0..bytes / 4).map(|_| rng.uniform(-1.0, 1.0) as f32).collect())?,
            _ => HostTensor::from_bytes(shape, ty.dtype, &vec![0; bytes])?,
        });
    }
    Ok(samples)
}

/// Returns a trainer with Adam for a model of one input and one output, and `n` random samples for it.
pub fn training(model: &Model, engine: &Engine, n: usize) -> Result<(Trainer, Dataset)> {
    let samples = random_samples(model, n, 0)?;
    let output = model.output_shape();
    let images = samples.into_iter().next().context("the model has no input")?;
    let rate = Adam::new(1e-3);
    let (trainer, labels) = match output.dims() {
        [_, classes] if *classes > 1 => {
            let labels = HostTensor::u32([n], (0..n as u32).map(|i| i % *classes as u32).collect())?;
            (model.compile(engine, Compile::new(rate, SparseCategoricalCrossentropy::new()))?, labels)
        }
        _ => {
            let shape = output.at(n);
            let labels = HostTensor::f32(shape.clone(), vec![0.5; shape.iter().product()])?;
            (model.compile(engine, Compile::new(rate, MeanSquaredError))?, labels)
        }
    };
    Ok((trainer, Dataset::new(images, labels)?))
}
