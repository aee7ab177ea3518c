use crate::{
    Found,
    model::{Loaded, StepOptions},
};
use anyhow::Result;
use hubel::{cli::cpu_ms, tensor::Batch};
use indicatif::ProgressBar;
use serde_json::json;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    step: StepOptions,
    /// Time training steps, with Adam, instead of predictions
    #[arg(long)]
    train: bool,
    /// Seconds to measure for, once the kernels are built; at least three steps are run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// Measures the time of a network's step.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let (Loaded { model, name, .. }, engine, batch) = arguments.step.load()?;
    let started = Instant::now();
    let (plan, mut step): (_, Box<dyn FnMut() -> Result<()>>) = if arguments.train {
        let (mut trainer, data) = crate::model::training(&model, &engine, batch)?;
        (trainer.plan_for(&data, batch)?, Box::new(move || Ok(trainer.train_on_batch(&data).map(|_| ())?)))
    } else {
        let samples = crate::model::random_samples(&model, batch, 0)?;
        let mut net = model.inference(&engine, Batch::up_to(batch))?;
        (net.plan()?, Box::new(move || Ok(net.predict_many(&samples).map(|_| ())?)))
    };
    let bar = ProgressBar::new_spinner().with_message("building kernels");
    bar.enable_steady_tick(Duration::from_millis(200));
    step()?;
    let cold_ms = started.elapsed().as_secs_f64() * 1e3;
    bar.set_message("timing");
    step()?;
    let (start, cpu) = (Instant::now(), cpu_ms());
    let mut times = Vec::new();
    while times.len() < 3 || start.elapsed().as_secs_f64() < arguments.seconds {
        let start = Instant::now();
        step()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let cpu_ms = cpu_ms().zip(cpu).map(|(after, before)| (after - before) / times.len() as f64);
    bar.finish_and_clear();
    times.sort_by(f64::total_cmp);
    let ms_median = times[times.len() / 2];
    let images_per_s = batch as f64 / ms_median * 1e3;
    let what = if arguments.train { "training" } else { "prediction" };
    let json = json!({
        "model": name, "what": what, "batch": batch, "adapter": engine.info().name, "driver": engine.info().driver,
        "ms_median": ms_median, "ms_min": times[0], "n": times.len(), "cpu_ms": cpu_ms, "cold_ms": cold_ms,
        "images_per_s": images_per_s, "peak_bytes": plan.peak_bytes, "dispatches": plan.dispatches.len(),
        "pipelines": plan.n_pipelines(),
    });
    let cpu = cpu_ms.map(|ms| format!(", {ms:.1} ms of processor time")).unwrap_or_default();
    let text = format!(
        "{name}, {what} of {batch}: {ms_median:.2} ms (median of {}, minimum {:.2}){cpu}\n{images_per_s:.1} images/s, \
         {} launches of {} pipelines, {:.1} MiB on the device, first result after {:.0} ms",
        times.len(),
        times[0],
        plan.dispatches.len(),
        plan.n_pipelines(),
        plan.peak_bytes as f64 / 1048576.0,
        cold_ms,
    );
    Ok(Found::new(json, text))
}
