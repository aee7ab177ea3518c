//! Weights larger than one binding: cut by rows, their products summed, or side by side.

use crate::{
    graph::{Graph, Kind, OpError, TensorType, Value},
    ops::{MatmulOptions, Part},
};
use std::{collections::HashMap, ops::Range};

/// The key of x · Wᵀ, which gradients take.
const TRANSPOSED: &str = "tb";

/// A weight in parts: for each its name and its rows.
pub type Parts = Vec<(String, Range<usize>)>;

/// Returns the graph with each matrix that is a state of more than `limit` bytes, and only the second operand of
/// products, as several states of fewer rows, and these states by the name of the whole.
///
/// x · W = Σ x\[columns of part i\] · W\[rows of part i\], in order, and x · Wᵀ has x · W\[rows of part i\]ᵀ as its
/// columns. Everything else stays as it is.
pub fn split_rows(graph: &Graph, limit: u64) -> (Graph, HashMap<String, Parts>) {
    let product = |op: &dyn crate::graph::Op| op.name() == "matmul" && matches!(op.key().as_str(), "" | TRANSPOSED);
    let splits = |v: Value| {
        let (node, ty) = (graph.node(v), graph.ty(v));
        let whole = || graph.outputs().iter().all(|o| o.1 != v) && graph.updates().iter().all(|u| u.0 != v && u.1 != v);
        let mut users = graph.nodes().iter().filter(|n| n.inputs.contains(&v));
        matches!(node.kind, Kind::State { .. })
            && ty.bytes(1) > limit
            && ty.shape.rank() == 2
            && whole()
            && users.all(|n| {
                n.op().is_some_and(|op| product(op.as_ref()))
                    && n.inputs[0] != v
                    && graph.shape(n.inputs[0]).rank() == 2
            })
    };
    let mut split: HashMap<String, Parts> = HashMap::new();
    let mut states: HashMap<Value, Vec<(Value, Range<usize>)>> = HashMap::new();
    let graph = graph.rebuild(|out, i, node| {
        if matches!(node.kind, Kind::State { .. }) && splits(Value { node: i as u32, output: 0 }) {
            let dims = node.outputs[0].shape.dims();
            let mut parts = Vec::new();
            for rows in rows(dims[0], 4 * dims[1] as u64, limit) {
                let name = format!("{}[{}..{}]", node.name, rows.start, rows.end);
                let value = out.state(&name, TensorType::f32([rows.len(), dims[1]]), None);
                split.entry(node.name.clone()).or_default().push((name, rows.clone()));
                parts.push((value, rows));
            }
            let first = parts[0].0;
            states.insert(first, parts);
            return vec![first];
        }
        match node.inputs.get(1).and_then(|w| states.get(w)) {
            Some(parts) => {
                let product = if node.op().is_some_and(|op| op.key() == TRANSPOSED) { beside } else { sum };
                product(out, node.inputs[0], parts).map_or_else(|_| out.push_node(node), |y| vec![y])
            }
            None => out.push_node(node),
        }
    });
    (graph, split)
}

/// Returns about equal ranges of rows of so many bytes each that fit the limit, in multiples of 16 rows where possible.
fn rows(n: usize, row_bytes: u64, limit: u64) -> Vec<Range<usize>> {
    let most = usize::try_from(limit / row_bytes.max(1)).unwrap_or(usize::MAX).clamp(1, n.max(1));
    let even = n.div_ceil(n.div_ceil(most).max(1));
    let each = [even.next_multiple_of(16), even].into_iter().find(|each| *each <= most).unwrap_or(most);
    (0..n).step_by(each).map(|start| start..(start + each).min(n)).collect()
}

fn sum(g: &mut Graph, x: Value, parts: &[(Value, Range<usize>)]) -> Result<Value, OpError> {
    let mut sum = None;
    for (w, rows) in parts {
        let x = g.slice_axis(x, 1, Part::new(rows.start, rows.len()))?;
        let y = g.matmul(x, *w)?;
        sum = Some(match sum {
            None => y,
            Some(before) => g.add(before, y)?,
        });
    }
    sum.ok_or_else(|| OpError::new("matmul", "at least one part", "none", "give the weight rows"))
}

fn beside(g: &mut Graph, x: Value, parts: &[(Value, Range<usize>)]) -> Result<Value, OpError> {
    let options = MatmulOptions { transpose_a: false, transpose_b: true };
    let columns = parts.iter().map(|(w, _)| g.matmul_with(x, *w, options)).collect::<Result<Vec<_>, _>>()?;
    g.concat(&columns, 1)
}
