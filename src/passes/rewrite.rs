//! Local rewrites: each operation may return a patch of the graph around it
//! ([`Op::rewrite`](crate::graph::Op::rewrite)).

use super::schedule::topological;
use crate::graph::{Graph, Node, Patch, Readers, RewriteCx, Value};
use std::collections::{HashMap, HashSet};

/// Returns the live part of a graph with the patches of its operations applied.
pub(super) fn rewrite(graph: &Graph) -> Graph {
    let (live, readers) = (graph.live(), Readers::of(graph));
    let offered = graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]).filter_map(|(i, node)| {
        let patch = node.op()?.rewrite(&RewriteCx::new(graph, &readers, i))?;
        Some((i, patch))
    });
    apply(graph, offered.collect())
}

/// Returns the live part of a graph with patches, each identified by its node.
///
/// A patch is skipped if an earlier one replaces one of its values, if it would change a type, or if it would make a
/// cycle.
pub(super) fn apply(graph: &Graph, offered: Vec<(usize, Patch)>) -> Graph {
    let mut replaced: HashSet<Value> = HashSet::new();
    let mut patches: Vec<(usize, Patch)> = Vec::new();
    for (i, patch) in offered {
        let fits = |&(old, new): &(Value, Value)| !replaced.contains(&old) && graph.ty(old) == patch.graph.ty(new);
        if patch.replaced().iter().all(fits) {
            replaced.extend(patch.replaced().iter().map(|r| r.0));
            patches.push((i, patch));
        }
    }
    patched(graph, &patches).unwrap_or_else(|| {
        let mut kept = Vec::new();
        let mut best = None;
        for patch in patches {
            kept.push(patch);
            match patched(graph, &kept) {
                Some(graph) => best = Some(graph),
                None => drop(kept.pop()),
            }
        }
        best.unwrap_or_else(|| graph.rebuild(|out, _, node| out.push_node(node)))
    })
}

/// Returns the live part of a graph with all patches, or `None` if that has a cycle.
fn patched(graph: &Graph, patches: &[(usize, Patch)]) -> Option<Graph> {
    let draft = Draft::new(graph, patches);
    let results: Vec<(&String, Value)> =
        graph.outputs().iter().map(|(name, v)| Some((name, draft.resolve(*v)?))).collect::<Option<_>>()?;
    let updates: Vec<[Value; 2]> =
        graph.updates().iter().map(|&(s, v)| Some([draft.resolve(s)?, draft.resolve(v)?])).collect::<Option<_>>()?;
    let mut live = vec![false; draft.nodes.len()];
    let mut needs: Vec<Vec<usize>> = vec![Vec::new(); draft.nodes.len()];
    let mut open: Vec<usize> = results.iter().map(|r| r.1).chain(updates.iter().map(|u| u[1])).map(index).collect();
    while let Some(i) = open.pop() {
        if !std::mem::replace(&mut live[i], true) {
            needs[i] = draft.inputs(i)?.into_iter().map(index).collect();
            open.extend(&needs[i]);
        }
    }
    let order = topological(&needs, |i| live[i]);
    if order.len() != live.iter().filter(|&&live| live).count() {
        return None;
    }
    let mut out = Graph::new();
    let mut made: HashMap<usize, Vec<Value>> = HashMap::new();
    let value = |made: &HashMap<usize, Vec<Value>>, v: Value| made.get(&index(v))?.get(v.output as usize).copied();
    for i in order {
        let inputs = draft.inputs(i)?.into_iter().map(|v| value(&made, v)).collect::<Option<_>>()?;
        made.insert(i, out.push_node(Node { inputs, ..draft.nodes[i].clone() }));
    }
    results.iter().try_for_each(|&(name, v)| value(&made, v).map(|v| out.output(name, v)))?;
    for [state, v] in updates {
        out.update(value(&made, state)?, value(&made, v)?);
    }
    Some(out)
}

fn index(v: Value) -> usize {
    v.node as usize
}

/// The nodes of a graph, each after those of its patch, so that patches do not reorder other nodes.
struct Draft {
    nodes: Vec<Node>,
    /// The index in `nodes` of each node of the graph.
    indices: Vec<u32>,
    /// The replacements of values, both by index in `nodes`.
    forward: HashMap<Value, Value>,
}

impl Draft {
    fn new(graph: &Graph, patches: &[(usize, Patch)]) -> Self {
        let (mut nodes, mut indices, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = patches.iter().peekable();
        for (i, node) in graph.nodes().iter().enumerate() {
            while let Some((_, patch)) = open.next_if(|(root, _)| *root == i) {
                let start = nodes.len() as u32;
                starts.push(start);
                let result = Value { node: i as u32, output: 0 };
                let named = patch.replaced().iter().find(|(old, _)| *old == result).map(|(_, new)| index(*new));
                nodes.extend(patch.graph.nodes().iter().enumerate().map(|(k, own)| {
                    let inputs = own.inputs.iter().map(|&v| Value { node: start + v.node, ..v }).collect();
                    let name = if named == Some(k) { node.name.clone() } else { format!("{}/{}", node.name, own.name) };
                    Node { name, inputs, ..own.clone() }
                }));
            }
            indices.push(nodes.len() as u32);
            let inputs = node.inputs.iter().map(|&v| Value { node: indices[index(v)], ..v }).collect();
            nodes.push(Node { inputs, ..node.clone() });
        }
        let at = |v: Value| Value { node: indices[index(v)], ..v };
        let mut forward = HashMap::new();
        for ((_, patch), start) in patches.iter().zip(starts) {
            let own = |v: Value| Value { node: start + v.node, ..v };
            forward.extend(patch.taps().map(|(tap, source)| (own(tap), at(source))));
            forward.extend(patch.replaced().iter().map(|&(old, new)| (at(old), own(new))));
        }
        Draft { nodes, indices, forward }
    }

    /// Returns the final replacement of a value of the graph; `None` if replacements form a cycle.
    fn resolve(&self, v: Value) -> Option<Value> {
        self.follow(Value { node: self.indices[index(v)], ..v })
    }

    fn follow(&self, mut v: Value) -> Option<Value> {
        for _ in 0..=self.forward.len() {
            match self.forward.get(&v) {
                Some(&next) => v = next,
                None => return Some(v),
            }
        }
        None
    }

    fn inputs(&self, i: usize) -> Option<Vec<Value>> {
        self.nodes[i].inputs.iter().map(|&v| self.follow(v)).collect()
    }
}
