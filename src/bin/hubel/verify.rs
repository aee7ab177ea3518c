use crate::{
    Found,
    model::{Loaded, StepOptions},
};
use anyhow::Result;
use hubel::tensor::Batch;
use indicatif::ProgressBar;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    step: StepOptions,
    /// Seed of the random samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Compares each node of a network with its definition.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let (Loaded { model, .. }, engine, batch) = arguments.step.load()?;
    let samples = crate::model::random_samples(&model, batch, arguments.seed)?;
    let net = model.inference(&engine, Batch::up_to(batch))?;
    let bar = ProgressBar::new(0);
    let found = net.verify(&samples, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let wrong = found.nodes.iter().filter_map(|n| {
        let m = n.mismatch.as_ref()?;
        let kernels = &n.kernels;
        Some(json!({ "node": n.node, "op": n.op, "kernels": kernels, "output": m.output, "index": m.index,
            "got": m.got, "exact": m.exact, "bound": m.bound }))
    });
    let json = json!({ "adapter": engine.info().name, "nodes": found.nodes.len(), "wrong": wrong.collect::<Vec<_>>() });
    Ok(Found { json, text: found.to_string(), right: found.first_wrong().is_none() })
}
