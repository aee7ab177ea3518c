//! The order of nodes: after their operands, and overwriting nodes after all other readers.

use super::{alias::roots, error::PlanError};
use crate::graph::{Graph, Value};
use std::collections::{BinaryHeap, HashMap};

/// Returns the indices of the live nodes in the order in which they run.
pub(super) fn schedule(graph: &Graph) -> Result<Vec<usize>, PlanError> {
    let (live, needs) = (graph.live(), needs(graph));
    let result = topological(&needs, |i| live[i]);
    match live.iter().filter(|&&l| l).count() == result.len() {
        true => Ok(result),
        false => Err(PlanError::Overwritten),
    }
}

/// Returns for each node those that run before it.
pub(super) fn needs(graph: &Graph) -> Vec<Vec<usize>> {
    let live = graph.live();
    let mut needs: Vec<Vec<usize>> =
        graph.nodes().iter().map(|node| node.inputs.iter().map(|v| v.node as usize).collect()).collect();
    let roots = roots(graph, false);
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
    needs
}

/// Returns a topological order of the nodes, smallest index first; nodes in a cycle are left out.
pub(super) fn topological(needs: &[Vec<usize>], exists: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut open: Vec<usize> = vec![0; needs.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (i, list) in needs.iter().enumerate() {
        for &k in list {
            users[k].push(i);
            open[i] += 1;
        }
    }
    let mut ready: BinaryHeap<std::cmp::Reverse<usize>> =
        (0..needs.len()).filter(|&i| open[i] == 0 && exists(i)).map(std::cmp::Reverse).collect();
    let mut result = Vec::new();
    while let Some(std::cmp::Reverse(i)) = ready.pop() {
        result.push(i);
        for &user in &users[i] {
            open[user] -= 1;
            if open[user] == 0 && exists(user) {
                ready.push(std::cmp::Reverse(user));
            }
        }
    }
    result
}
