use super::{
    Failure, Run,
    case::{Case, rng},
    check_sample, decided_by_uniforms,
    mutate::Noticed,
    of, profiles, reference, run_graph, sample_graph, sample_inputs, special_values_agree, step_of,
};
use crate::{
    graph::{Family, Graph, Sample, Value},
    passes::optimize,
    runtime::Engine,
    tensor::{Array, Fnv, HostTensor, Philox, Purpose, compare},
};
use std::collections::{HashMap, HashSet};

/// The number of distinct samples on which an operation's kernels are tested.
const SHAPES: usize = 64;
/// The number of samples on which indices are compared with the lengths of arrays.
const ASSERTED: usize = 6;
/// The number of samples whose gradients are checked.
const GRADIENTS: usize = 12;

/// Runs the tests of the crate's own operations on an operation, and returns the first failure.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = hubel::runtime::Engine::new()?;
/// for family in hubel::ops::FAMILIES {
///     hubel::testing::check_family(&engine, family)?;
/// }
/// # Ok(())
/// # }
/// ```
pub fn check_family(engine: &Engine, family: &Family) -> Result<(), Failure> {
    let on_engine = [kernels_agree, indices_are_inside, special_values_agree];
    let alone = [
        faults_are_noticed,
        bad_cases_are_refused,
        keys_are_equal_where_operations_are,
        branches_are_not_decided_by_uniforms,
    ];
    on_engine.iter().try_for_each(|check| check(engine, family))?;
    alone.iter().try_for_each(|check| check(family))?;
    if family.differentiable {
        gradients_agree(family)?;
        gpu_gradients_agree(engine, family)?;
    }
    Ok(())
}

/// Compares the kernels with the reference on 64 samples, between guards of NaN.
pub fn kernels_agree(engine: &Engine, family: &Family) -> Result<(), Failure> {
    let run = Run { guarded: true, ..Run::default() };
    let mut rng = rng(family, 0);
    let mut distinct = HashSet::new();
    for i in 0..SHAPES * 20 {
        let sample = (family.sample)(&mut rng);
        let key = format!("{}{:?}{}", sample.op.key(), sample.inputs, sample.n);
        if !distinct.insert(key) {
            continue;
        }
        check_sample(engine, &sample, &mut rng, &run).map_err(|e| of(family, Failure(format!("sample {i}: {e}"))))?;
        if distinct.len() == SHAPES {
            return Ok(());
        }
    }
    Err(of(family, Failure(format!("only {} distinct samples", distinct.len()))))
}

/// Checks on some samples that no index of a kernel is outside its array: beyond its end, or before its start, where it
/// wraps around.
pub fn indices_are_inside(engine: &Engine, family: &Family) -> Result<(), Failure> {
    let run = Run { asserted: true, ..Run::default() };
    let mut rng = rng(family, 4);
    for i in 0..ASSERTED {
        let sample = (family.sample)(&mut rng);
        check_sample(engine, &sample, &mut rng, &run).map_err(|e| of(family, Failure(format!("sample {i}: {e}"))))?;
    }
    Ok(())
}

/// Checks that no branch or loop of a kernel is decided by uniform buffers alone; see [`super::decided_by_uniforms`].
pub fn branches_are_not_decided_by_uniforms(family: &Family) -> Result<(), Failure> {
    for profile in profiles() {
        let mut rng = rng(family, 5);
        for _ in 0..SHAPES {
            let sample = (family.sample)(&mut rng);
            let (graph, _, outputs) = sample_graph(&sample)?;
            let io = graph.io(graph.node(outputs[0]));
            for candidate in sample.op.lower(&io, &profile, None) {
                for dispatch in candidate.dispatches {
                    if let Some(condition) = decided_by_uniforms(&dispatch.source)?.first() {
                        let text = format!("{} [{}] branches by `{condition}`", dispatch.kernel, candidate.variant);
                        return Err(of(family, Failure(text)));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Checks that the family's samples notice every fault derived from its kernels, on the host twin, but for those that it
/// says are equivalent, and that these are not noticed.
pub fn faults_are_noticed(family: &Family) -> Result<(), Failure> {
    let unnoticed = Noticed::of(family, &profiles())?.unnoticed();
    let known = |fault: &str| family.equivalent.iter().any(|(name, _)| *name == fault);
    let new = unnoticed.iter().filter(|u| !known(&u.fault)).map(|u| u.to_string());
    let stale = family.equivalent.iter().filter(|(name, _)| unnoticed.iter().all(|u| u.fault != *name));
    let stale = stale.map(|(name, _)| format!("`{name}` is noticed or in no kernel: it is not equivalent"));
    let failed: Vec<String> = new.chain(stale).collect();
    if failed.is_empty() { Ok(()) } else { Err(of(family, Failure(failed.join("\n  ")))) }
}

/// Checks that each bad case is refused with an error that has no empty part.
pub fn bad_cases_are_refused(family: &Family) -> Result<(), Failure> {
    for bad in family.bad {
        match (bad.build)(&mut Graph::new()) {
            Ok(_) => return Err(of(family, Failure(format!("{} is accepted", bad.what)))),
            Err(e) if e.op.is_empty() || e.wanted.is_empty() || e.got.is_empty() || e.advice.is_empty() => {
                return Err(of(family, Failure(format!("{}: an empty part in {e:?}", bad.what))));
            }
            Err(_) => {}
        }
    }
    if family.bad.is_empty() { Err(of(family, Failure("no bad case".into()))) } else { Ok(()) }
}

/// Checks that operations have equal keys if and only if they are equal.
pub fn keys_are_equal_where_operations_are(family: &Family) -> Result<(), Failure> {
    let mut rng = rng(family, 2);
    for _ in 0..SHAPES {
        let (a, b) = ((family.sample)(&mut rng), (family.sample)(&mut rng));
        let same_key = (a.op.name(), a.op.key()) == (b.op.name(), b.op.key());
        if same_key != (format!("{:?}", a.op) == format!("{:?}", b.op)) {
            let text = format!("{:?} and {:?} have keys `{}` and `{}`", a.op, b.op, a.op.key(), b.op.key());
            return Err(of(family, Failure(text)));
        }
    }
    Ok(())
}

fn each_case(family: &Family, check: impl Fn(&Case) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut rng = rng(family, 7);
    let mut checked = 0;
    for _ in 0..GRADIENTS * 4 {
        let sample = (family.sample)(&mut rng);
        if let Some(case) = Case::new(&sample, &mut rng)? {
            checked += 1;
            check(&case).map_err(|e| of(family, Failure(format!("{sample:?}: {e}"))))?;
        }
        if checked == GRADIENTS {
            return Ok(());
        }
    }
    if checked == 0 { Err(of(family, Failure("no sample has a gradient".into()))) } else { Ok(()) }
}

/// Compares the gradients with central differences of the reference, in 64 bits.
pub fn gradients_agree(family: &Family) -> Result<(), Failure> {
    each_case(family, |case| differences(case, family.gradcheck))
}

/// Compares the gradients on the device with the reference's, with passes off and on.
pub fn gpu_gradients_agree(engine: &Engine, family: &Family) -> Result<(), Failure> {
    each_case(family, |case| on_device(engine, case))
}

/// Returns a hash of the outputs and gradients on the device.
pub fn bits(engine: &Engine, family: &Family) -> Result<u64, Failure> {
    let mut rng = rng(family, 12);
    let mut hash = Fnv::default();
    for _ in 0..GRADIENTS / 3 {
        let sample = (family.sample)(&mut rng);
        let (graph, ..) = sample_graph(&sample)?;
        let arrays = sample_inputs(&sample, &mut rng);
        let named = arrays.into_iter().enumerate().map(|(i, a)| (format!("in{i}"), a)).collect();
        let forward =
            Case { graph, feeds: named, step: step_of(&sample, &mut rng), wrt: vec![], capacity: sample.capacity };
        let backward = if family.differentiable { Case::new(&sample, &mut rng)? } else { None };
        for case in [Some(forward), backward].into_iter().flatten() {
            let run = Run { optimize: true, ..Run::default() };
            for output in run_graph(engine, &case.graph, &case.device_feeds(), &case.step, case.capacity, &run)? {
                hash.bytes(output.bytes());
            }
        }
    }
    Ok(hash.0)
}

/// Checks one sample's gradients in both ways, if it has any.
pub fn check_case(engine: &Engine, sample: &Sample, rng: &mut Philox, gradcheck: f64) -> Result<(), Failure> {
    let Some(case) = Case::new(sample, rng)? else { return Ok(()) };
    differences(&case, gradcheck)?;
    on_device(engine, &case)
}

fn differences(case: &Case, gradcheck: f64) -> Result<(), Failure> {
    let exact = reference(&case.graph, &case.feeds, &case.step)?;
    let mut rng = Philox::new(3, Purpose::Test, 8);
    let h = 1e-5;
    for direction in 0..4 {
        let mut along = 0.0;
        let mut moved = [case.feeds.clone(), case.feeds.clone()];
        for (&i, d) in case.wrt.iter().zip(&exact[1..]) {
            for (k, g) in d.data.iter().enumerate() {
                let u = rng.uniform(-1.0, 1.0);
                along += u * g;
                moved[0][i].1.data[k] += h * u;
                moved[1][i].1.data[k] -= h * u;
            }
        }
        let loss = |feeds: &Vec<(String, Array)>| -> Result<f64, Failure> {
            Ok(reference(&case.graph, feeds, &case.step)?[0].data[0])
        };
        let difference = (loss(&moved[0])? - loss(&moved[1])?) / (2.0 * h);
        let scale: f64 = exact[1..].iter().flat_map(|d| &d.data).map(|g| g * g).sum::<f64>().sqrt();
        let error = (difference - along).abs() / scale.max(difference.abs()).max(1e-3);
        if !(error <= gradcheck) {
            let text = format!("direction {direction}: {along} but differences give {difference} ({error:e})");
            return Err(Failure(text));
        }
    }
    Ok(())
}

fn on_device(engine: &Engine, case: &Case) -> Result<(), Failure> {
    let exact = reference(&case.graph, &case.feeds, &case.step)?;
    let feeds = case.device_feeds();
    for optimize in [false, true] {
        nodes_on_device(engine, case, optimize)?;
        let run = Run { optimize, guarded: !optimize, ..Run::default() };
        let got = run_graph(engine, &case.graph, &feeds, &case.step, case.capacity, &run)?;
        for (k, (got, exact)) in got.iter().zip(&exact).enumerate().skip(1) {
            let scale = exact.data.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
            let worst = got.to_f32().iter().zip(&exact.data).fold(0f64, |m, (&g, e)| {
                let d = (f64::from(g) - e).abs();
                if d <= m { m } else { d }
            });
            if !(worst <= 1e-4 * scale) {
                return Err(Failure(format!("gradient {k} (optimize {optimize}) is off by {worst:e} of {scale:e}")));
            }
        }
    }
    Ok(())
}

/// The factor on a node's bound for its error inside a graph.
const AMID_OTHERS: f64 = 4.0;

/// Checks that each element of each node of a gradient's graph is within its bound of the node's definition, evaluated
/// on the device's values of the node's inputs.
fn nodes_on_device(engine: &Engine, case: &Case, optimized: bool) -> Result<(), Failure> {
    let mut graph = if optimized { optimize(&case.graph, engine.profile()) } else { case.graph.clone() };
    let (live, mut kept) = (graph.live(), Vec::new());
    for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]) {
        // Overwritten values cannot be inspected.
        if node.op().is_some_and(|op| !op.in_place(node.inputs.len()).is_empty()) {
            return Ok(());
        }
        let outputs = (0..node.outputs.len() as u32).map(|output| Value { node: i as u32, output });
        kept.extend(outputs.filter(|_| node.op().is_some()).map(|v| (format!("{}.{}", node.name, v.output), v)));
    }
    graph.set_outputs(kept.clone());
    let feeds = case.device_feeds();
    let got = run_graph(engine, &graph, &feeds, &case.step, case.capacity, &Run::default())?;
    let fed = feeds.iter().filter_map(|(name, tensor)| Some((graph.find(name)?, tensor)));
    let values: HashMap<Value, &HostTensor> = fed.chain(kept.iter().map(|k| k.1).zip(&got)).collect();
    for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]) {
        let Some(op) = node.op() else { continue };
        let value = |v: &Value| values.get(v).map(|t| t.to_array()).ok_or_else(|| Failure(format!("no {}", node.name)));
        let inputs = node.inputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<&Array> = inputs.iter().collect();
        let exact = op.reference(&inputs, &case.step);
        let bounds = op.bounds(&graph.io(node), &inputs, &exact, &case.step);
        for (k, (exact, bound)) in exact.iter().zip(&bounds).enumerate() {
            let got = values.get(&Value { node: i as u32, output: k as u32 }).map(|t| t.to_f32()).unwrap_or_default();
            compare(k, &got, exact, &bound.map(|b| AMID_OTHERS * b))
                .map_err(|e| Failure(format!("`{}` ({}, optimized {optimized}): {e}", node.name, op.name())))?;
        }
    }
    Ok(())
}
