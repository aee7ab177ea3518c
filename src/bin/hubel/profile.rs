use crate::{
    Found,
    model::{Loaded, StepOptions, random_samples},
};
use anyhow::{Context, Result};
use hubel::{data::plots, io::image, runtime::LayerTime, tensor::Batch};
use indicatif::ProgressBar;
use serde_json::json;
use std::{fs, path::PathBuf, time::Duration};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    step: StepOptions,
    /// Profile training steps, with Adam, instead of predictions
    #[arg(long)]
    train: bool,
    /// Steps to time after one that is not timed; the one of median time is shown
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Write the step as a trace that ui.perfetto.dev and Chrome's about:tracing open
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Draw the time of each layer, forward and backward side by side
    #[arg(long, value_name = "FILE.png")]
    plot: Option<PathBuf>,
}

/// Times the launches of a network's step.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let (Loaded { model, name, .. }, engine, batch) = arguments.step.load()?;
    let bar = ProgressBar::new_spinner().with_message("building kernels, timing");
    bar.enable_steady_tick(Duration::from_millis(200));
    let limits = engine.limits()?;
    let profile = if arguments.train {
        let (mut trainer, data) = crate::model::training(&model, &engine, batch)?;
        trainer.profile(&data, arguments.steps)?
    } else {
        let samples = random_samples(&model, batch, 0)?;
        model.inference(&engine, Batch::up_to(batch))?.profile(&samples, arguments.steps)?
    };
    let profile = profile.with_limits(limits);
    bar.finish_and_clear();
    let what = if arguments.train { "training" } else { "prediction" };
    if let Some(path) = &arguments.trace {
        fs::write(path, profile.trace()).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    if let Some(path) = &arguments.plot {
        let times = |l: LayerTime| (l.layer, [l.forward_ms, l.backward_ms, l.step_ms]);
        let layers: Vec<_> = profile.layers().into_iter().map(times).collect();
        let adapter = &engine.info().name;
        let title = format!("{name}, {what} of {batch}: {:.1} ms on {adapter}", profile.device_ms());
        image::save(&plots::layer_times(&title, &layers)?, path)?;
    }
    let json = json!({
        "model": name, "what": what, "batch": batch, "adapter": engine.info().name, "driver": engine.info().driver,
        "device_ms": profile.device_ms(), "layers": profile.layers(), "profile": profile,
    });
    Ok(Found::new(json, format!("{name}, {what} of {batch}: {profile}").trim_end()))
}
