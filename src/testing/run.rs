//! Runs graphs with guarded memory, and samples against their references.

use super::{Failure, indices::Asserted};
use crate::{
    graph::{Fault, Graph, Sample, Step, Value, evaluate},
    kernels::Access,
    ops::Accumulate,
    passes::{BufferRef, Plan, PlanOptions, PlannedDispatch, optimize, traced_plan, verify, verify_graph},
    runtime::{Engine, Session},
    tensor::{Array, HostTensor, Philox, compare},
};
use std::{collections::HashMap, sync::Arc};

/// A quiet NaN that no kernel computes, which fills the memory around tensors.
const GUARD_WORD: u32 = 0x7fc0_dead;
const GUARD_BYTES: u64 = 512;

/// The options of a run.
#[derive(Debug, Default, Clone)]
pub struct Run<'a> {
    /// Whether nodes are simplified and fused.
    pub optimize: bool,
    /// Whether every tensor is surrounded by NaN, which must be unchanged afterwards.
    pub guarded: bool,
    /// Whether an index outside its array is an error, instead of guards, which would make arrays longer.
    pub asserted: bool,
    /// Whether launches that are one in the plan run one after another.
    pub apart: bool,
    /// A change to make to all kernels.
    pub fault: Option<&'a Fault>,
    /// Operation and variant to run instead of the first.
    pub variant: Option<(String, String)>,
}

/// Returns the plan of a graph for an engine, with its invariants checked.
pub fn plan_for(engine: &Engine, graph: &Graph, capacity: usize, run: &Run) -> Result<Plan, Failure> {
    let mut options = PlanOptions::new(capacity, engine.profile().clone());
    options.optimize = run.optimize;
    options.guard_bytes = if run.guarded { GUARD_BYTES } else { 0 };
    options.force = run.variant.clone();
    if run.optimize {
        let graph = optimize(graph, engine.profile());
        verify_graph(&graph).map_err(|e| Failure(format!("{e}\n{graph}")))?;
    }
    let (plan, trace) = traced_plan(graph, &options)?;
    verify(&plan, &trace).map_err(|e| Failure(format!("{e}\n{plan}")))?;
    Ok(plan)
}

/// Returns the graph's outputs on the GPU; feeds are inputs by name.
pub fn run_graph(
    engine: &Engine,
    graph: &Graph,
    feeds: &[(String, HostTensor)],
    step: &Step,
    capacity: usize,
    run: &Run,
) -> Result<Vec<HostTensor>, Failure> {
    Prepared::new(engine, graph, capacity, run)?.run(feeds, step)
}

/// A graph that runs many times.
pub(super) struct Prepared {
    plan: Arc<Plan>,
    session: Session,
    outputs: Vec<String>,
    guarded: bool,
    asserted: Option<Asserted>,
}

impl Prepared {
    pub(super) fn new(engine: &Engine, graph: &Graph, capacity: usize, run: &Run) -> Result<Self, Failure> {
        let mut plan = plan_for(engine, graph, capacity, run)?;
        if run.apart {
            plan.dispatches = plan.dispatches.iter().flat_map(PlannedDispatch::launches).cloned().collect();
        }
        if let Some(fault) = run.fault {
            for dispatch in &mut plan.dispatches {
                dispatch.source = Arc::from(dispatch.source.replace(fault.from, fault.to));
            }
        }
        let asserted = if run.asserted { Some(Asserted::of(&mut plan)?) } else { None };
        let plan = Arc::new(plan);
        let session = engine.session(plan.clone(), &[], None)?;
        let outputs = graph.outputs().iter().map(|(name, _)| name.clone()).collect();
        Ok(Prepared { plan, session, outputs, guarded: run.guarded, asserted })
    }

    /// Returns the outputs; feeds are inputs by name.
    pub(super) fn run(&mut self, feeds: &[(String, HostTensor)], step: &Step) -> Result<Vec<HostTensor>, Failure> {
        if self.guarded {
            self.session.fill_arenas(GUARD_WORD)?;
        }
        // Inputs that no output needs are not part of a plan.
        let needed = |name: &str| self.plan.inputs.iter().any(|p| p.name == name);
        let inputs: Vec<(&str, &[u8])> =
            feeds.iter().filter(|(n, _)| needed(n)).map(|(n, t)| (n.as_str(), t.bytes())).collect();
        self.session.run(step, &inputs)?;
        let outputs = self.outputs.iter().map(|name| self.session.read(name, step.n)).collect::<Result<Vec<_>, _>>()?;
        if self.guarded {
            check_guards(&self.plan, |i| Ok(self.session.arena_words(i)?))?;
        }
        if let Some(asserted) = &self.asserted {
            asserted.check(|i| Ok(self.session.arena_words(i)?))?;
        }
        Ok(outputs)
    }
}

/// Every word outside the tensors must be unchanged.
fn check_guards(plan: &Plan, mut words: impl FnMut(usize) -> Result<Vec<u32>, Failure>) -> Result<(), Failure> {
    let mut covered: Vec<Vec<(u64, u64)>> = vec![Vec::new(); plan.arenas.len()];
    let mut ports: Vec<(usize, u64)> = Vec::new();
    for port in plan.inputs.iter().chain(&plan.outputs) {
        if let BufferRef::Arena(i) = port.range.buffer {
            covered[i].push((port.range.offset, port.range.offset + port.range.bytes));
            ports.push((i, port.range.offset));
        }
    }
    let written = |b: &&crate::passes::Binding| b.access == Access::ReadWrite;
    for binding in plan.dispatches.iter().flat_map(|d| &d.bindings).filter(written) {
        let BufferRef::Arena(i) = binding.range.buffer else { continue };
        let (from, end) = (binding.range.offset, binding.range.offset + binding.range.bytes - GUARD_BYTES);
        // Scratch is not a port; a kernel may write between the members of a group.
        let group = ports.iter().any(|&(k, at)| k == i && from < at && at < end);
        if group || !ports.contains(&(i, from)) {
            covered[i].push((from, end));
        }
    }
    for (i, covered) in covered.iter().enumerate() {
        for (k, word) in words(i)?.into_iter().enumerate() {
            let at = 4 * k as u64;
            if word != GUARD_WORD && !covered.iter().any(|&(from, to)| (from..to).contains(&at)) {
                return Err(Failure(format!("a kernel wrote outside its tensors: arena {i}, byte {at}")));
            }
        }
    }
    Ok(())
}

/// Returns the graph of one operation with inputs `in0`, `in1`, … and outputs `out0`, `out1`, …
pub fn sample_graph(sample: &Sample) -> Result<(Graph, Vec<Value>, Vec<Value>), Failure> {
    let mut g = Graph::new();
    let inputs: Vec<Value> = (sample.inputs.iter().enumerate())
        .map(|(i, (ty, _))| g.input(&format!("in{i}"), ty.shape.clone(), ty.dtype))
        .collect();
    let outputs = g.apply_arc(sample.op.clone(), &inputs)?;
    for (k, &v) in outputs.iter().enumerate() {
        g.output(&format!("out{k}"), v);
    }
    Ok((g, inputs, outputs))
}

/// Returns random inputs of a sample, rounded to their types.
pub fn sample_inputs(sample: &Sample, rng: &mut Philox) -> Vec<Array> {
    let arrays = sample.arrays(rng);
    arrays.iter().zip(&sample.inputs).map(|(a, (ty, _))| a.to_host(ty.dtype).to_array()).collect()
}

/// Returns a random step of a sample's batch.
pub fn step_of(sample: &Sample, rng: &mut Philox) -> Step {
    let mut step = Step::of(sample.n);
    step.step = rng.below(1000) as u32;
    step.seed = u64::from(rng.next_u32());
    step.scalars = std::array::from_fn(|_| rng.uniform(0.001, 0.1) as f32);
    // Now and then sums begin.
    if step.step.is_multiple_of(4) {
        step.scalars[Accumulate::KEEP] = 0.0;
    }
    step
}

/// Checks that the GPU's results are within the operation's bounds.
pub fn check_sample(engine: &Engine, sample: &Sample, rng: &mut Philox, run: &Run) -> Result<(), Failure> {
    let (graph, _, outputs) = sample_graph(sample)?;
    let arrays = sample_inputs(sample, rng);
    let step = step_of(sample, rng);
    let feeds: Vec<(String, HostTensor)> = (arrays.iter().zip(&sample.inputs).enumerate())
        .map(|(i, (a, (ty, _)))| (format!("in{i}"), a.to_host(ty.dtype)))
        .collect();
    let inputs: Vec<&Array> = arrays.iter().collect();
    let exact = sample.op.reference(&inputs, &step);
    let io = graph.io(graph.node(outputs[0]));
    let bounds = sample.op.bounds(&io, &inputs, &exact, &step);
    let context =
        |e: String| Failure(format!("{} [{}] on {:?} n={}: {e}", sample.op.name(), sample.op.key(), io, sample.n));
    for (k, (e, ty)) in exact.iter().zip(&io.outputs).enumerate() {
        if e.shape != ty.shape.at(sample.n) {
            return Err(context(format!("reference output {k} has shape {:?}", e.shape)));
        }
    }
    let got = run_graph(engine, &graph, &feeds, &step, sample.capacity, run).map_err(|e| context(e.0))?;
    for (k, ((got, exact), bound)) in got.iter().zip(&exact).zip(&bounds).enumerate() {
        compare(k, &got.to_f32(), exact, bound).map_err(|e| context(e.to_string()))?;
    }
    Ok(())
}

/// Returns the graph's outputs by reference evaluation.
pub fn reference(graph: &Graph, feeds: &[(String, Array)], step: &Step) -> Result<Vec<Array>, Failure> {
    let feeds: HashMap<Value, Array> =
        feeds.iter().filter_map(|(name, a)| Some((graph.find(name)?, a.clone()))).collect();
    let result = evaluate(graph, feeds, step, true);
    let missing = |name: &str| Failure(format!("`{name}` was not computed: an input has no value"));
    graph.outputs().iter().map(|(name, v)| result.get(*v).cloned().ok_or_else(|| missing(name))).collect()
}
