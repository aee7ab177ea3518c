use crate::{
    Found,
    model::{Loaded, StepOptions},
};
use anyhow::Result;
use hubel::{
    passes::{Choice, GpuSpec, Plan},
    tensor::Batch,
};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    step: StepOptions,
    /// Plan a training step, with Adam, instead of a prediction
    #[arg(long)]
    train: bool,
    /// Show instead, for each convolution and product, the kernels that were considered, their scores, and why others declined
    #[arg(long)]
    why: bool,
    /// Plan for this GPU, which need not be here, and estimate the time of each launch: h100, rtx4060 or rx7900
    #[arg(long, value_name = "GPU", value_parser = gpu)]
    estimate: Option<GpuSpec>,
}

fn gpu(name: &str) -> Result<GpuSpec, String> {
    let known = || GpuSpec::names().collect::<Vec<_>>().join(", ");
    GpuSpec::find(name).ok_or_else(|| format!("no figures of a GPU `{name}`; there are those of {}", known()))
}

/// Returns the plan of a step.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let (Loaded { model, .. }, engine, batch) = arguments.step.load_for(arguments.estimate)?;
    let (plan, choices) = if arguments.train {
        let (trainer, data) = crate::model::training(&model, &engine, 1)?;
        let choices = if arguments.why { trainer.choices_for(&data, batch)? } else { Vec::new() };
        (trainer.plan_for(&data, batch)?, choices)
    } else {
        let net = model.inference(&engine, Batch::up_to(batch))?;
        let choices = if arguments.why { net.choices()? } else { Vec::new() };
        (net.plan()?, choices)
    };
    let mut json = json!({
        "batch": batch,
        "dispatches": plan.dispatches.len(), "pipelines": plan.n_pipelines(),
        "bytes_moved": plan.bytes_moved(),
        "peak_bytes": plan.peak_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "activation_bytes": plan.arenas.iter().sum::<u64>(),
        "hash": format!("{:016x}", plan.hash),
    });
    let mut kernels: Vec<Value> =
        plan.dispatches.iter().map(|d| json!({"node": d.node, "kernel": d.kernel, "variant": d.variant})).collect();
    let mut text = format!("{plan}hash {:016x}", plan.hash);
    if let Some(gpu) = arguments.estimate {
        let (times, total) = estimates(&plan, &gpu);
        text = times.iter().map(|(line, _)| format!("{line}\n")).collect::<String>() + &total.0;
        json["estimated_ms"] = total.1.into();
        for (kernel, (_, ms)) in kernels.iter_mut().zip(times) {
            kernel["estimated_ms"] = ms.into();
        }
    }
    json["kernels"] = kernels.into();
    if arguments.why {
        text = choices.iter().map(ToString::to_string).collect();
        json["choices"] = choices.iter().map(choice).collect();
    }
    Ok(Found::new(json, text.trim_end()))
}

/// Returns what was considered for a node.
fn choice(choice: &Choice) -> Value {
    let considered = choice.considered.iter();
    let considered: Vec<Value> =
        considered.map(|c| json!({ "variant": c.variant, "score": c.score, "taken": c.taken, "why": c.why })).collect();
    json!({ "node": choice.node, "op": choice.op, "unit": choice.unit, "considered": considered })
}

/// Returns a line for each launch of a plan with its estimated milliseconds, and the same of all together.
fn estimates(plan: &Plan, gpu: &GpuSpec) -> (Vec<(String, f64)>, (String, f64)) {
    let line = |(d, ns): (&hubel::passes::PlannedDispatch, f64)| {
        let [groups, _] = d.grid.at(d.samples.len().min(plan.capacity), u32::MAX);
        let megabytes = d.bytes_moved as f64 / 1e6;
        let ms = ns / 1e6;
        let text =
            format!("{ms:8.4} ms {megabytes:9.3} MB {groups:7} workgroups  {} {} [{}]", d.node, d.kernel, d.variant);
        (text, ms)
    };
    let times: Vec<(String, f64)> = plan.dispatches.iter().zip(plan.estimate(gpu)).map(line).collect();
    let total: f64 = times.iter().map(|(_, ms)| ms).sum();
    let text = format!(
        "estimate for {}: {total:.3} ms in {} dispatches that move {:.3} GB; no such GPU has been asked",
        gpu.name,
        plan.dispatches.len(),
        plan.bytes_moved() as f64 / 1e9
    );
    (times, (text, total))
}
