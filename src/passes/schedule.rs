//! The order of nodes: after their operands, and overwriting nodes after all other readers.

use super::{PlanError, fuse::order};
use crate::graph::{Graph, Value};
use std::collections::HashMap;

/// Returns the indices of the live nodes in the order in which they run.
pub(super) fn schedule(graph: &Graph) -> Result<Vec<usize>, PlanError> {
    let live = graph.live();
    let mut needs: Vec<Vec<usize>> =
        graph.nodes().iter().map(|node| node.inputs.iter().map(|v| v.node as usize).collect()).collect();
    let roots = homes(graph, false);
    let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
    for (k, node) in graph.nodes().iter().enumerate().filter(|(k, _)| live[*k]) {
        for v in &node.inputs {
            let readers = readers.entry(roots[v]).or_default();
            if readers.last() != Some(&k) {
                readers.push(k);
            }
        }
    }
    for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]) {
        let Some(op) = node.op() else { continue };
        for (_, input) in op.in_place(node.inputs.len()) {
            needs[i].extend(readers[&roots[&node.inputs[input]]].iter().filter(|&&k| k != i));
        }
    }
    let result = order(&needs, |i| live[i]);
    match live.iter().filter(|&&l| l).count() == result.len() {
        true => Ok(result),
        false => Err(PlanError::Overwritten),
    }
}

/// Returns for each value the one whose memory it shares through views and, where `in_place`, through overwriting nodes.
pub(super) fn homes(graph: &Graph, in_place: bool) -> HashMap<Value, Value> {
    let mut homes = HashMap::new();
    for (i, node) in graph.nodes().iter().enumerate() {
        let pairs: HashMap<usize, usize> = match node.op() {
            Some(op) if op.view() => HashMap::from([(0, 0)]),
            Some(op) if in_place => op.in_place(node.inputs.len()).into_iter().collect(),
            _ => HashMap::new(),
        };
        for output in 0..node.outputs.len() {
            let value = Value { node: i as u32, output: output as u32 };
            let home = pairs.get(&output).map_or(value, |&input| homes[&node.inputs[input]]);
            homes.insert(value, home);
        }
    }
    homes
}
