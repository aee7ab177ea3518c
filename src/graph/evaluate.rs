use super::{Graph, Kind, Step, Value};
use crate::tensor::Array;
use std::collections::HashMap;

/// The values of one step of reference evaluation.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    values: HashMap<Value, Array>,
}

impl Evaluation {
    /// Returns a computed value.
    pub fn get(&self, value: Value) -> Option<&Array> {
        self.values.get(&value)
    }

    /// Removes and returns a computed value.
    pub fn take(&mut self, value: Value) -> Option<Array> {
        self.values.remove(&value)
    }
}

/// Returns the graph's outputs and updates, computed by each operation's 64-bit reference.
///
/// `feeds` holds inputs and states; `keep` says whether all values are kept or only outputs and updates. A value whose
/// feed is missing is skipped, with everything that depends on it.
pub fn evaluate(graph: &Graph, mut feeds: HashMap<Value, Array>, step: &Step, keep: bool) -> Evaluation {
    let live = graph.live();
    let mut last_use = vec![0usize; graph.nodes().len()];
    for (i, node) in graph.nodes().iter().enumerate() {
        for input in &node.inputs {
            last_use[input.node as usize] = i;
        }
    }
    for value in graph.outputs().iter().map(|o| o.1).chain(graph.updates().iter().map(|u| u.1)) {
        last_use[value.node as usize] = usize::MAX;
    }
    for (i, node) in graph.nodes().iter().enumerate() {
        let Kind::Op(op) = &node.kind else { continue };
        if !live[i] && !keep {
            continue;
        }
        let inputs: Option<Vec<&Array>> = node.inputs.iter().map(|v| feeds.get(v)).collect();
        let Some(inputs) = inputs else { continue };
        for (k, array) in op.reference(&inputs, step).into_iter().enumerate() {
            feeds.insert(Value { node: i as u32, output: k as u32 }, array);
        }
        if !keep {
            for input in &node.inputs {
                if last_use[input.node as usize] == i {
                    feeds.remove(input);
                }
            }
        }
    }
    Evaluation { values: feeds }
}
