//! The layout of a model's weights in device memory.

use crate::{
    Error,
    graph::{Graph, TensorType},
    nn::Model,
    passes::{Entry, Layout, split_rows},
    runtime::{Engine, Store},
};
use std::sync::Arc;

/// Returns the layout of a model's weights: the trainable ones first, so that they are contiguous.
pub(super) fn params_layout(model: &Model, limit: u64) -> Layout {
    let of = |trainable: bool| {
        let weights = model.weights().iter().filter(move |w| w.trainable == trainable);
        weights.map(|w| (w.name.clone(), TensorType::f32(w.shape.clone())))
    };
    Layout::new(of(true).chain(of(false)), limit)
}

/// Returns the graph with each matrix larger than one binding of this adapter split by rows, and the model's weights for
/// it.
pub(super) fn with_weights(model: &Model, engine: &Engine, graph: &Graph) -> Result<(Graph, Store), Error> {
    let limit = engine.profile().max_binding_bytes;
    let (graph, split) = split_rows(graph, limit);
    let mut tensors = Vec::new();
    for Entry { name, ty, .. } in params_layout(model, limit).entries {
        match split.get(&name) {
            None => tensors.push((name, ty)),
            Some(parts) => tensors.extend(
                parts.iter().map(|(part, rows)| (part.clone(), TensorType::f32([rows.len(), ty.shape.last()]))),
            ),
        }
    }
    let params = engine.store(Arc::new(Layout::new(tensors, limit)))?;
    for weight in model.weights() {
        let value = model.initial_value(weight, 0);
        match split.get(&weight.name) {
            None => params.write(&weight.name, &value)?,
            Some(parts) => {
                for (name, rows) in parts {
                    value.rows(rows.start, rows.len()).map_or(Ok(()), |part| params.write(name, &part))?;
                }
            }
        }
    }
    Ok((graph, params))
}
