//! Runs graphs on the GPU with guarded memory, and operations against their references.

use hubel::{
    graph::{Family, Fault, Graph, Sample, Step, Value, evaluate},
    ops::FAMILIES,
    passes::{Plan, PlanOptions, plan},
    runtime::Engine,
    tensor::{Array, HostTensor, Philox, compare},
};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

/// A quiet NaN that no kernel computes: what memory around tensors holds.
const GUARD_WORD: u32 = 0x7fc0_dead;
const GUARD_BYTES: u64 = 512;

/// Returns the engine that all tests share; no adapter is a failure.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE
        .get_or_init(|| Engine::new().expect("the tests need an adapter: run tests/run, which installs a software one"))
}

/// Returns the families under test: all, or those that `HUBEL_OPERATIONS` names.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let named = std::env::var("HUBEL_OPERATIONS").unwrap_or_default();
    let unknown = named.split_whitespace().find(|n| FAMILIES.iter().all(|f| f.name != *n));
    assert!(unknown.is_none(), "HUBEL_OPERATIONS: no operation `{}`", unknown.unwrap_or_default());
    FAMILIES.iter().copied().filter(move |f| named.is_empty() || named.split_whitespace().any(|n| n == f.name))
}

/// How a graph is run.
#[derive(Default, Clone)]
pub struct Run<'a> {
    pub optimize: bool,
    pub guarded: bool,
    pub fault: Option<&'a Fault>,
    pub variant: Option<(String, String)>,
}

pub fn plan_for(graph: &Graph, capacity: usize, run: &Run) -> Plan {
    let mut options = PlanOptions::new(capacity, engine().profile().clone());
    options.optimize = run.optimize;
    options.guard_bytes = if run.guarded { GUARD_BYTES } else { 0 };
    options.force = run.variant.clone();
    plan(graph, &options).expect("the graph has a plan")
}

/// Returns the graph's outputs on the GPU; feeds are inputs by name.
pub fn run_graph(
    graph: &Graph,
    feeds: &[(String, HostTensor)],
    step: &Step,
    capacity: usize,
    run: &Run,
) -> Result<Vec<HostTensor>, String> {
    let mut plan = plan_for(graph, capacity, run);
    if let Some(fault) = run.fault {
        for dispatch in &mut plan.dispatches {
            dispatch.source = Arc::from(dispatch.source.replace(fault.from, fault.to));
        }
    }
    let plan = Arc::new(plan);
    let mut session = engine().session(plan.clone(), &[], None).map_err(|e| e.to_string())?;
    if run.guarded {
        session.fill_arenas(GUARD_WORD).map_err(|e| e.to_string())?;
    }
    // Inputs that no output needs are not part of a plan.
    let needed = |name: &str| plan.inputs.iter().any(|p| p.name == name);
    let inputs: Vec<(&str, &[u8])> =
        feeds.iter().filter(|(n, _)| needed(n)).map(|(n, t)| (n.as_str(), t.bytes())).collect();
    session.run(step, &inputs).map_err(|e| e.to_string())?;
    let outputs = (graph.outputs().iter())
        .map(|(name, _)| session.read(name, step.n).map_err(|e| e.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    if run.guarded {
        check_guards(&plan, |i| session.arena_words(i).expect("arenas can be read"))?;
    }
    Ok(outputs)
}

/// Every word outside the tensors must be what it was.
fn check_guards(plan: &Plan, mut words: impl FnMut(usize) -> Vec<u32>) -> Result<(), String> {
    use hubel::passes::BufferRef;
    let mut covered: Vec<Vec<(u64, u64)>> = vec![Vec::new(); plan.arenas.len()];
    let mut ports: Vec<(usize, u64)> = Vec::new();
    for port in plan.inputs.iter().chain(&plan.outputs) {
        if let BufferRef::Arena(i) = port.place.buffer {
            covered[i].push((port.place.offset, port.place.offset + port.place.bytes));
            ports.push((i, port.place.offset));
        }
    }
    let written = |b: &&hubel::passes::Binding| b.access == hubel::kernels::Access::ReadWrite;
    for binding in plan.dispatches.iter().flat_map(|d| &d.bindings).filter(written) {
        let BufferRef::Arena(i) = binding.place.buffer else { continue };
        let (from, end) = (binding.place.offset, binding.place.offset + binding.place.bytes - GUARD_BYTES);
        // Scratch is no port; between the members of a group a kernel may write.
        let group = ports.iter().any(|&(k, at)| k == i && from < at && at < end);
        if group || !ports.contains(&(i, from)) {
            covered[i].push((from, end));
        }
    }
    for (i, covered) in covered.iter().enumerate() {
        for (k, word) in words(i).into_iter().enumerate() {
            let at = 4 * k as u64;
            if word != GUARD_WORD && !covered.iter().any(|&(from, to)| (from..to).contains(&at)) {
                return Err(format!("a kernel wrote outside its tensors: arena {i}, byte {at}"));
            }
        }
    }
    Ok(())
}

/// Returns the graph of one operation with inputs `in0`, `in1`, … and outputs `out0`, `out1`, …
pub fn sample_graph(sample: &Sample) -> (Graph, Vec<Value>, Vec<Value>) {
    let mut g = Graph::new();
    let inputs: Vec<Value> = (sample.inputs.iter().enumerate())
        .map(|(i, (ty, _))| g.input(&format!("in{i}"), ty.shape.clone(), ty.dtype))
        .collect();
    let outputs = g.apply_arc(sample.op.clone(), &inputs).expect("samples are valid");
    for (k, &v) in outputs.iter().enumerate() {
        g.output(&format!("out{k}"), v);
    }
    (g, inputs, outputs)
}

/// Returns random inputs of a sample, rounded to their types.
pub fn sample_inputs(sample: &Sample, rng: &mut Philox) -> Vec<Array> {
    let arrays = sample.arrays(rng);
    arrays.iter().zip(&sample.inputs).map(|(a, (ty, _))| a.to_host(ty.dtype).to_array()).collect()
}

pub fn step_of(sample: &Sample, rng: &mut Philox) -> Step {
    let mut step = Step::of(sample.n);
    step.step = rng.below(1000) as u32;
    step.seed = u64::from(rng.next_u32());
    step.scalars = std::array::from_fn(|_| rng.uniform(0.001, 0.1) as f32);
    step
}

/// Returns nothing where the GPU's results lie within the operation's bounds.
pub fn check_sample(sample: &Sample, rng: &mut Philox, run: &Run) -> Result<(), String> {
    let (graph, _, outputs) = sample_graph(sample);
    let arrays = sample_inputs(sample, rng);
    let step = step_of(sample, rng);
    let feeds: Vec<(String, HostTensor)> = (arrays.iter().zip(&sample.inputs).enumerate())
        .map(|(i, (a, (ty, _)))| (format!("in{i}"), a.to_host(ty.dtype)))
        .collect();
    let inputs: Vec<&Array> = arrays.iter().collect();
    let exact = sample.op.reference(&inputs, &step);
    let io = graph.io(graph.node(outputs[0]));
    let bounds = sample.op.bounds(&io, &inputs, &exact, &step);
    let context = |e: String| format!("{} [{}] on {:?} n={}: {e}", sample.op.name(), sample.op.key(), io, sample.n);
    for (k, (e, ty)) in exact.iter().zip(&io.outputs).enumerate() {
        if e.shape != ty.shape.at(sample.n) {
            return Err(context(format!("reference output {k} has shape {:?}", e.shape)));
        }
    }
    let got = run_graph(&graph, &feeds, &step, sample.capacity, run).map_err(context)?;
    for (k, ((got, exact), bound)) in got.iter().zip(&exact).zip(&bounds).enumerate() {
        compare(k, &got.to_f32(), exact, bound).map_err(|e| context(e.to_string()))?;
    }
    Ok(())
}

/// Returns the graph's outputs by reference evaluation.
pub fn reference(graph: &Graph, feeds: &[(String, Array)], step: &Step) -> Vec<Array> {
    let feeds: HashMap<Value, Array> =
        feeds.iter().filter_map(|(name, a)| Some((graph.find(name)?, a.clone()))).collect();
    let mut result = evaluate(graph, feeds, step, true);
    graph.outputs().iter().map(|(name, v)| result.take(*v).unwrap_or_else(|| panic!("{name} was computed"))).collect()
}
