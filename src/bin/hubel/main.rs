//! The `hubel` command: inspects, runs, checks and times known networks and files of weights.

mod bench;
mod convert;
mod devices;
mod fetch;
mod model;
mod output;
mod plan;
mod predict;
mod profile;
mod run;
mod summary;
mod verify;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use hubel::cli::DeviceOptions;
use std::{io::Write, path::Path, process::ExitCode};

/// Convolutional networks on any GPU: inspect, run, verify and time them.
#[derive(Debug, Parser)]
#[command(name = "hubel", version, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// One JSON object on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the adapters of this system
    Devices,
    /// Show a network's layers, shapes, parameters and costs
    Summary(summary::Arguments),
    /// Run a network on arrays (.npy) and write its outputs as arrays
    Run(run::Arguments),
    /// Say what a network sees in images: classes, masks as pictures, or numbers
    Predict(predict::Arguments),
    /// Compare each kernel of a network with its definition on this device
    Verify(verify::Arguments),
    /// Show the launches of a network's step and the memory of its tensors
    Plan(plan::Arguments),
    /// Time a network on this device
    Bench(bench::Arguments),
    /// Time each launch and each layer of a network's step on this device
    Profile(profile::Arguments),
    /// Convert a file of weights to safetensors
    Convert(convert::Arguments),
    /// Download a network's published weights
    Fetch(fetch::Arguments),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The result of a command: a JSON object, and the same as text.
pub struct Found {
    json: serde_json::Value,
    text: String,
    /// Whether the checked results are right.
    right: bool,
}

impl Found {
    fn new(json: serde_json::Value, text: impl Into<String>) -> Self {
        Found { json, text: text.into(), right: true }
    }
}

/// Returns the engine that the options choose, and names it on standard error.
fn engine(options: &DeviceOptions) -> Result<hubel::runtime::Engine> {
    let (engine, notice) = options.engine()?;
    match notice {
        Some(notice) => eprintln!("{notice}"),
        None => eprintln!("{}", engine.info()),
    }
    Ok(engine)
}

/// Returns a path as text, or an error if that would change it.
fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {path:?} is not UTF-8, as the output must be; rename it"))
}

fn find(options: Options) -> Result<Found> {
    match options.command {
        Command::Devices => Ok(devices::find()),
        Command::Summary(a) => summary::find(&a),
        Command::Run(a) => run::find(&a),
        Command::Predict(a) => predict::find(&a),
        Command::Verify(a) => verify::find(&a),
        Command::Plan(a) => plan::find(&a),
        Command::Bench(a) => bench::find(&a),
        Command::Profile(a) => profile::find(&a),
        Command::Convert(a) => convert::find(&a),
        Command::Fetch(a) => fetch::find(&a),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Options::command(), "hubel", &mut text);
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            Ok(Found::new(serde_json::json!({ "completions": text }), text))
        }
    }
}

fn main() -> ExitCode {
    env_logger::init();
    let options = Options::parse();
    let json = options.json;
    let found = find(options).and_then(|found| {
        let text = if json { found.json.to_string() } else { found.text };
        writeln!(std::io::stdout(), "{text}")?;
        Ok(found.right)
    });
    match found {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A closed pipe is not an error.
            let pipe =
                error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
            if pipe {
                return ExitCode::SUCCESS;
            }
            eprintln!("hubel: {error:#}");
            ExitCode::from(2)
        }
    }
}
