use crate::{Found, model::ModelOptions};
use anyhow::Result;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
}

/// Returns a network's layers, counts and costs.
pub fn find(arguments: &Arguments) -> Result<Found> {
    let summary = arguments.model.load()?.model.summary();
    let rows: Vec<_> = summary
        .rows
        .iter()
        .map(|r| {
            json!({
                "name": r.name, "kind": r.kind, "output": r.output.to_string(), "params": r.params, "macs": r.macs,
                "activation_bytes": r.activation_bytes, "receptive_field": r.receptive_field, "inputs": r.inputs,
            })
        })
        .collect();
    let found = json!({
        "name": summary.name,
        "params_total": summary.trainable + summary.non_trainable,
        "params_trainable": summary.trainable,
        "params_non_trainable": summary.non_trainable,
        "macs": summary.macs(),
        "layers": rows.len() + usize::from(summary.rows.iter().all(|r| r.kind != "InputLayer")),
        "rows": rows,
    });
    Ok(Found::new(found, summary.to_string()))
}
