//! From a graph to its [`Plan`]: the passes in order.

use super::{
    alias::roots,
    arenas::arrange,
    emit::emit,
    error::PlanError,
    fixed::fixed_ranges,
    fuse::fuse,
    liveness::blocks,
    options::PlanOptions,
    plan_types::Plan,
    rewrite::rewrite,
    schedule::schedule,
    scheduled::Scheduled,
    select::select,
    simplify::simplify,
    steps::steps,
    verify::{Trace, verify, verify_graph},
};
use crate::{
    graph::{DeviceClass, DeviceProfile, Graph, Program, Value},
    ops::Elementwise,
};

/// Returns the graph as it is planned: rewritten and simplified, then fused for an adapter.
pub fn optimize(graph: &Graph, profile: &DeviceProfile) -> Graph {
    let checked = |graph: Graph, pass: &str| {
        debug_assert_eq!(verify_graph(&graph), Ok(()), "after {pass}: {graph}");
        graph
    };
    // What the first round removes exposes more to the second.
    let once = |graph: &Graph| checked(simplify(&checked(rewrite(graph), "rewrite")), "simplify");
    let graph = checked(rewrite(&once(&once(graph))), "rewrite");
    let graph = match profile.class {
        DeviceClass::Cpu => graph,
        // Not simplified: a term that forward and backward share is cheaper to compute again than to keep.
        DeviceClass::Gpu => checked(decompose(&graph), "decompose"),
    };
    checked(fuse(&graph, profile), "fuse")
}

/// Returns the graph with operations in place of those that offer smaller ones.
fn decompose(graph: &Graph) -> Graph {
    graph.rebuild(|out, _, node| {
        let smaller = node
            .op()
            .cloned()
            .and_then(|op| out.scoped(&node.name, |g| op.decompose(g, &node.inputs)).and_then(Result::ok));
        smaller.unwrap_or_else(|| out.push_node(node))
    })
}

/// Returns the plan of a graph: optimised, scheduled, with a range of memory for each value.
///
/// Builds with debug assertions check it by [`verify`].
pub fn plan(graph: &Graph, options: &PlanOptions) -> Result<Plan, PlanError> {
    let (plan, trace) = traced_plan(graph, options)?;
    debug_assert_eq!(verify(&plan, &trace), Ok(()), "{plan}");
    Ok(plan)
}

/// Returns the plan of a graph, and what [`verify`] needs to check it.
pub fn traced_plan(graph: &Graph, options: &PlanOptions) -> Result<(Plan, Trace), PlanError> {
    let options = options.of_capacity();
    let scheduled = scheduled(graph, &options)?;
    let selected = select(&scheduled)?;
    let fixed = fixed_ranges(&scheduled)?;
    let steps = steps(&scheduled, &selected, &fixed);
    let blocks = blocks(&scheduled, &selected, &fixed, &steps)?;
    let memory = arrange(&scheduled, &selected, &steps, blocks, fixed);
    emit(&scheduled, &selected, &steps, &memory)
}

/// Returns a graph as it is planned, with the order of its nodes.
pub(super) fn scheduled<'a>(graph: &Graph, options: &'a PlanOptions<'a>) -> Result<Scheduled<'a>, PlanError> {
    let graph = if options.optimize {
        optimize(graph, &options.profile)
    } else {
        graph.rebuild(|out, _, node| out.push_node(node))
    };
    let graph = copy_for_callers(&graph, options);
    let scheduled = Scheduled { order: schedule(&graph)?, roots: roots(&graph, true), graph, options };
    scheduled.check_sizes()?;
    Ok(scheduled)
}

/// An output bound by the caller must be a node's own result: views, inputs and states are copied.
fn copy_for_callers(graph: &Graph, options: &PlanOptions) -> Graph {
    let mut copy = graph.clone();
    let mut taken: Vec<Value> = Vec::new();
    let outputs = graph.outputs().to_vec();
    let roots = roots(graph, false);
    let mut renamed = Vec::new();
    for (name, value) in outputs {
        let source = roots[&value];
        let node = graph.node(source);
        let own = node.op().is_some_and(|op| op.in_place(node.inputs.len()).is_empty());
        if options.external_outputs.contains(&name) && (source != value || !own || taken.contains(&value)) {
            let op = Elementwise::from(Program::identity());
            renamed.push((name, copy.apply1(op, &[value]).unwrap_or(value)));
        } else {
            taken.push(value);
            renamed.push((name, value));
        }
    }
    copy.set_outputs(renamed);
    copy
}
