//! Command-line options that the examples share.

use clap::{Args, ValueEnum};

/// What kind of processor runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The best adapter, or the reference evaluator where there is none.
    Auto,
    /// An adapter, or an error where there is none.
    Gpu,
    /// The reference evaluator, on processor threads.
    Cpu,
}

/// Where a model runs; flatten it into an example's options.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Device")]
pub struct DeviceOptions {
    /// Where to run: on the best adapter there is, on an adapter only, or without one
    #[arg(long, value_enum, default_value = "auto")]
    pub device: Device,
    /// Take adapters of this interface only (WGPU_BACKEND does the same)
    #[arg(long, value_parser = ["vulkan", "metal", "dx12"])]
    pub backend: Option<String>,
    /// Take the adapter of this number, or whose name contains this (WGPU_ADAPTER_NAME does the same)
    #[arg(long, value_name = "NAME|INDEX")]
    pub adapter: Option<String>,
    /// List the adapters of this system and end
    #[arg(long)]
    pub list_adapters: bool,
}
