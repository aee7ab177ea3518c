//! The order of nodes: after their operands, and overwriting nodes after all other readers.

use super::{PlanError, fuse::order};
use crate::graph::{Graph, Value};

/// Returns the indices of the live nodes in the order in which they run.
pub(super) fn schedule(graph: &Graph) -> Result<Vec<usize>, PlanError> {
    let live = graph.live();
    let mut needs: Vec<Vec<usize>> =
        graph.nodes().iter().map(|node| node.inputs.iter().map(|v| v.node as usize).collect()).collect();
    for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]) {
        let Some(op) = node.op() else { continue };
        for (_, input) in op.in_place(node.inputs.len()) {
            let overwritten = root(graph, node.inputs[input]);
            for (k, other) in graph.nodes().iter().enumerate() {
                if k != i && live[k] && other.inputs.iter().any(|&v| root(graph, v) == overwritten) {
                    needs[i].push(k);
                }
            }
        }
    }
    let result = order(&needs, |i| live[i]);
    match live.iter().filter(|&&l| l).count() == result.len() {
        true => Ok(result),
        false => Err(PlanError::Overwritten),
    }
}

/// Returns the value whose memory a value shares through views.
pub(super) fn root(graph: &Graph, mut v: Value) -> Value {
    while let Some(op) = graph.node(v).op() {
        if !op.view() {
            break;
        }
        v = graph.node(v).inputs[0];
    }
    v
}
