use crate::{
    Found,
    model::{Loaded, StepOptions},
};
use anyhow::Result;
use hubel::tensor::Batch;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    step: StepOptions,
    /// Plan a training step, with Adam, instead of a prediction
    #[arg(long)]
    train: bool,
}

/// Returns the plan of a step.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let (Loaded { model, .. }, engine, batch) = arguments.step.load()?;
    let plan = match arguments.train {
        true => {
            let (trainer, data) = crate::model::training(&model, &engine, 1)?;
            trainer.plan_for(&data, batch)?
        }
        false => model.inference(&engine, Batch::up_to(batch))?.plan()?,
    };
    let json = json!({
        "batch": batch,
        "dispatches": plan.dispatches.len(), "pipelines": plan.n_pipelines(),
        "peak_bytes": plan.peak_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "activation_bytes": plan.arenas.iter().sum::<u64>(),
        "hash": format!("{:016x}", plan.hash),
        "kernels": plan.dispatches.iter().map(|d| json!({"node": d.node, "kernel": d.kernel, "variant": d.variant})).collect::<Vec<_>>(),
    });
    Ok(Found::new(json, format!("{plan}hash {:016x}", plan.hash)))
}
