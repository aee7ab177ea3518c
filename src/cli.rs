//! Command-line options shared by the examples.
//!
//! Unstable: what the command lines of the examples share.

use crate::{
    Error,
    runtime::{Backend, Engine, EngineBuilder, RuntimeError},
    train::{Callback, Control, Progress, Trainer},
};
use clap::{Args, ValueEnum};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Returns the milliseconds of processor time that this process has used, if the system reports it.
pub fn cpu_ms() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    // The unit is a hundredth of a second.
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) * 10.0)
}

/// A callback that ends training after the step in which Ctrl-C is pressed, so that a checkpoint can be written.
///
/// ```no_run
/// use hubel::{cli::Interrupt, layers::*, losses::*, optimizers::*, prelude::*};
/// # let data = Dataset::new(HostTensor::f32([1, 1], vec![1.0])?, HostTensor::f32([1, 1], vec![2.0])?)?;
/// # let model = Sequential::new([1]).add(Dense::new(1)).build()?;
/// # let mut trainer = model.compile(&Engine::reference(), Compile::new(Sgd::new(0.1), MeanSquaredError))?;
/// let interrupt = Interrupt::catch()?;
/// trainer.fit(&data, Fit::until_epoch(100).callback(interrupt.clone()))?;
/// if interrupt.pressed() {
///     trainer.save_checkpoint("checkpoint.safetensors")?;
///     std::process::exit(Interrupt::STATUS);
/// }
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// The exit status of an interrupted program: 128 + SIGINT.
    pub const STATUS: i32 = 130;

    /// Installs the handler of Ctrl-C and returns the callback, or an error if there is one already.
    pub fn catch() -> Result<Self, Error> {
        let interrupt = Interrupt(Arc::default());
        let pressed = interrupt.0.clone();
        let advice = "catch it once in a program, and clone the callback";
        let taken = RuntimeError::Unsupported { what: "Ctrl-C", advice };
        ctrlc::set_handler(move || pressed.store(true, Ordering::Relaxed)).map_err(|_| taken)?;
        Ok(interrupt)
    }

    /// Returns whether Ctrl-C was pressed.
    pub fn pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Callback for Interrupt {
    fn step_end(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        Ok(if self.pressed() { Control::Stop } else { Control::Continue })
    }
}

/// The kind of device that runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The best adapter, or the reference evaluator if there is none.
    Auto,
    /// An adapter, or an error if there is none.
    Gpu,
    /// The reference evaluator, on processor threads.
    Cpu,
}

/// Options for the device; flatten them into an example's options.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Device")]
pub struct DeviceOptions {
    /// Device to run on
    #[arg(long, value_enum, default_value = "auto")]
    pub device: Device,
    /// Use only adapters of this backend (or set WGPU_BACKEND)
    #[arg(long, value_name = "vulkan|metal|dx12")]
    pub backend: Option<Backend>,
    /// Use the adapter with this index, or whose name contains this (or set WGPU_ADAPTER_NAME)
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<String>,
    /// List the adapters of this system and exit
    #[arg(long)]
    pub list_adapters: bool,
}

impl DeviceOptions {
    fn builder(&self) -> EngineBuilder {
        let builder = self.backend.iter().fold(Engine::builder(), |b, &backend| b.backend(backend));
        self.adapter.iter().fold(builder, |b, adapter| b.adapter(adapter))
    }

    /// Returns the chosen engine and, if it is not a GPU, a line that says so.
    ///
    /// [`Device::Auto`] without any adapter gives the reference evaluator; a requested adapter or backend that does not
    /// exist is an error.
    pub fn engine(&self) -> Result<(Engine, Option<String>), RuntimeError> {
        if self.device == Device::Cpu {
            return Ok((Engine::reference(), None));
        }
        let chosen = self.device == Device::Gpu || self.backend.is_some() || self.adapter.is_some();
        match self.builder().build() {
            Ok(engine) if engine.info().software => {
                let name = &engine.info().name;
                let notice =
                    format!("{name} is a software adapter: the processor runs the shaders, slower than a GPU would");
                Ok((engine, Some(notice)))
            }
            Ok(engine) => Ok((engine, None)),
            Err(error @ RuntimeError::NoAdapter { .. }) if !chosen => Ok((
                Engine::reference(),
                Some(format!(
                    "running on the reference evaluator, without a device: {error}. A software adapter on the same \
                     processor trains LeNet-5 several times as fast"
                )),
            )),
            Err(error) => Err(error),
        }
    }

    /// Returns the adapters, one per line, if `--list-adapters` was given.
    pub fn adapters(&self) -> Option<String> {
        let list = || self.builder().adapters().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        self.list_adapters.then(list).map(|l| if l.is_empty() { "no adapter found".into() } else { l })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        device: DeviceOptions,
    }

    fn parse(arguments: &[&str]) -> Result<DeviceOptions, clap::Error> {
        Program::try_parse_from([&["program"], arguments].concat()).map(|p| p.device)
    }

    #[test]
    fn options_choose_an_engine() {
        let cpu = parse(&["--device", "cpu"]).unwrap();
        assert!(cpu.engine().unwrap().0.is_reference() && cpu.adapters().is_none());
        let named = parse(&["--backend", "vulkan", "--adapter", "no such adapter"]).unwrap();
        assert_eq!(named.backend, Some(Backend::Vulkan));
        assert!(matches!(named.engine(), Err(RuntimeError::AdapterNotFound { .. } | RuntimeError::NoAdapter { .. })));
        assert!(!parse(&["--list-adapters"]).unwrap().adapters().unwrap().is_empty());
        assert!(parse(&["--backend", "glide"]).is_err() && parse(&["--device", "npu"]).is_err());
    }
}
