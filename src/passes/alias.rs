//! Alias roots: which values share memory.

use crate::graph::{Graph, Value};
use std::collections::HashMap;

/// Returns for each value the one whose memory it shares through views and, if `in_place`, through overwriting nodes.
pub(super) fn roots(graph: &Graph, in_place: bool) -> HashMap<Value, Value> {
    let mut roots = HashMap::new();
    for (i, node) in graph.nodes().iter().enumerate() {
        let pairs: HashMap<usize, usize> = match node.op() {
            Some(op) if op.view() => HashMap::from([(0, 0)]),
            Some(op) if in_place => op.in_place(node.inputs.len()).into_iter().collect(),
            _ => HashMap::new(),
        };
        for output in 0..node.outputs.len() {
            let value = Value { node: i as u32, output: output as u32 };
            let root = pairs.get(&output).map_or(value, |&input| roots[&node.inputs[input]]);
            roots.insert(value, root);
        }
    }
    roots
}
