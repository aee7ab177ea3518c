//! Weights larger than one binding: split by rows, if every operation that reads them supports it.

use super::rewrite::apply;
use crate::graph::{Graph, Kind, Readers, RewriteCx, TensorType, Value};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

/// The name and the rows of each state that a weight is split into.
pub type Parts = Vec<(String, Range<usize>)>;

/// Returns the graph with each matrix that is a state of more than `limit` bytes split into several states of fewer
/// rows, and these states by the name of the whole.
///
/// A matrix stays whole if it is an output, if a step changes it, or if an operation that reads it has no
/// [`Op::rewrite`](crate::graph::Op::rewrite) for its rows.
pub fn split_rows(graph: &Graph, limit: u64) -> (Graph, HashMap<String, Parts>) {
    let whole: HashSet<Value> =
        graph.outputs().iter().map(|o| o.1).chain(graph.updates().iter().flat_map(|u| [u.0, u.1])).collect();
    let mut split: HashMap<String, Parts> = HashMap::new();
    let mut shards: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    let graph = graph.rebuild(|out, i, node| {
        let (ty, name) = (node.outputs[0].clone(), node.name.clone());
        let is_state = matches!(node.kind, Kind::State { .. });
        let v = out.push_node(node);
        if is_state
            && ty.bytes(1) > limit
            && ty.shape.rank() == 2
            && !whole.contains(&Value { node: i as u32, output: 0 })
        {
            let dims = ty.shape.dims();
            for rows in rows(dims[0], 4 * dims[1] as u64, limit) {
                let shard = format!("{name}[{}..{}]", rows.start, rows.end);
                let value = out.state(&shard, TensorType::f32([rows.len(), dims[1]]), None);
                split.entry(name.clone()).or_default().push((shard, rows));
                shards.entry(v[0]).or_default().push(value);
            }
        }
        v
    });
    let readers = Readers::of(&graph);
    let mut patches = Vec::new();
    for (&v, values) in &shards {
        let offered = readers.of_value(v).iter().map(|&i| {
            let op = graph.nodes().get(i)?.op()?;
            let patch = op.rewrite(&RewriteCx::new(&graph, &readers, i).with_shards(v, values))?;
            (!patch.reads(v)).then_some((i, patch))
        });
        match offered.collect::<Option<Vec<_>>>() {
            Some(offered) => patches.extend(offered),
            None => drop(split.remove(&graph.node(v).name)),
        }
    }
    patches.sort_by_key(|(i, _)| *i);
    (apply(&graph, patches), split)
}

/// Returns about equal ranges of rows that fit the limit, in multiples of 16 rows if possible.
fn rows(n: usize, row_bytes: u64, limit: u64) -> Vec<Range<usize>> {
    let max = usize::try_from(limit / row_bytes.max(1)).unwrap_or(usize::MAX).clamp(1, n.max(1));
    let even = n.div_ceil(n.div_ceil(max).max(1));
    let each = [even.next_multiple_of(16), even].into_iter().find(|each| *each <= max).unwrap_or(max);
    (0..n).step_by(each).map(|start| start..(start + each).min(n)).collect()
}
