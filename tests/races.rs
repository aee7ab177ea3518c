//! Kernels with workgroup memory under a second opinion: `detectRaces` of the npm package wgsl_reflect runs the lanes of a workgroup
//! side by side and reports accesses that no barrier orders, and barriers that not all lanes reach.
//!
//! `tests/races` runs this test.

use hubel::{
    graph::{Candidate, DeviceClass, DeviceProfile, Dispatch, Fill, Io, Sample, Slot, Step, TensorType},
    kernels::{Access, Schedule, reflect},
    ops::*,
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
    testing::sample_graph,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

/// Random samples of each operation, of which a kind of kernel runs the smallest.
const SAMPLES: usize = 12;
const BARRIER: &str = "workgroupBarrier();";

/// Returns small products that take each of their loops more than once.
fn products() -> Vec<Sample> {
    let ty = |dims: &[usize]| (TensorType::f32(dims), Fill::Uniform(-1.0, 1.0));
    let mut samples = Vec::new();
    for (m, k, n) in [(20, 40, 20), (18, 37, 21)] {
        for (transpose_a, transpose_b) in [(false, false), (true, true)] {
            let pair = |on: bool, a: usize, b: usize| if on { [b, a] } else { [a, b] };
            let inputs = vec![ty(&pair(transpose_a, m, k)), ty(&pair(transpose_b, k, n))];
            let options = MatmulOptions { transpose_a, transpose_b };
            samples.push(Sample::new(Matmul { options, column_sums: false }, inputs, 1));
        }
    }
    for (size, c, k) in [(5, 8, 8), (4, 16, 4), (5, 3, 6)] {
        let options = Conv2dOptions::same();
        let geometry = Geometry::new([size; 2], [3; 2], options).expect("the kernel fits");
        let (x, w, dy) = (ty(&[Batch, size, size, c]), ty(&[3, 3, c, k]), ty(&[Batch, size, size, k]));
        samples.push(Sample::new(Conv2d { options }, vec![x.clone(), w.clone()], 2));
        samples.push(Sample::new(Conv2dGradInput { geometry }, vec![dy.clone(), w], 2));
        samples.push(Sample::new(Conv2dGradWeight { geometry, column_sums: true }, vec![x, dy], 2));
    }
    samples
}

/// Returns the bytes that a slot binds.
fn bytes_of(slot: &Slot, io: &Io, candidate: &Candidate, capacity: usize) -> u64 {
    let of = |tensors: &[TensorType]| tensors.iter().map(|ty| ty.bytes(capacity).next_multiple_of(256)).sum();
    match slot {
        Slot::In(range) => of(&io.inputs[range.clone()]),
        Slot::Out(range) => of(&io.outputs[range.clone()]),
        Slot::InOut { outputs, .. } => of(&io.outputs[outputs.clone()]),
        Slot::Uniform { input, .. } => of(&io.inputs[*input..input + 1]),
        Slot::Scratch(k) => candidate.scratch_bytes[*k].at(capacity),
        Slot::Extents => 0,
    }
}

/// Returns a kernel's text as naga writes it: with its constants, without aliases.
fn plain(dispatch: &Dispatch, source: &str) -> String {
    use naga::{back::pipeline_constants::process_overrides, back::wgsl, valid};
    let (_, module) = reflect(&dispatch.kernel, source).expect("kernels are valid");
    let validate = |module: &naga::Module| {
        valid::Validator::new(valid::ValidationFlags::all(), valid::Capabilities::all()).validate(module)
    };
    let info = validate(&module).expect("kernels are valid");
    let constants = dispatch.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let entry = Some((naga::ShaderStage::Compute, "main"));
    let (module, info) = process_overrides(&module, &info, entry, &constants).expect("constants have values");
    wgsl::write_string(&module, &info, wgsl::WriterFlags::empty()).expect("a text")
}

/// Returns what the package runs: a text and what its launch binds.
fn case(name: &str, source: String, (sample, io, candidate): (&Sample, &Io, &Candidate), dispatch: &Dispatch) -> Value {
    let (bindings, _) = reflect(&dispatch.kernel, &dispatch.source).expect("kernels are valid");
    let words = Step::of(sample.n).words().to_vec();
    let extents: Vec<u32> = dispatch.extents_at(0).into_iter().map(|e| e.1).collect();
    let bound = (bindings.iter().enumerate()).map(|(i, b)| {
        let uniform = b.access == Access::Uniform;
        match (i.checked_sub(1).map(|i| &dispatch.slots[i]), uniform) {
            (None, _) => json!({"uniform": true, "words": words}),
            (Some(Slot::Extents), _) => json!({"uniform": true, "words": extents}),
            (Some(slot), uniform) => {
                json!({"uniform": uniform, "bytes": bytes_of(slot, io, candidate, sample.capacity)})
            }
        }
    });
    let groups = dispatch.grid.at(sample.n, 65_535);
    json!({"name": name, "source": source, "groups": groups, "bindings": bound.collect::<Vec<_>>()})
}

/// Returns what is run of each kind of kernel, as it is and without each of its barriers.
fn cases() -> Vec<Value> {
    let mut kinds: BTreeMap<String, (usize, Vec<Value>)> = BTreeMap::new();
    let random = FAMILIES.iter().flat_map(|family| {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 41);
        (0..SAMPLES).map(move |_| (family.sample)(&mut rng))
    });
    let profile = DeviceProfile::portable(DeviceClass::Gpu);
    for sample in products().into_iter().chain(random) {
        let (graph, _, outputs) = sample_graph(&sample).expect("samples are valid");
        let io = graph.io(graph.node(outputs[0]));
        for candidate in sample.op.lower(&io, &profile.clone().for_batch(sample.capacity), None) {
            for dispatch in candidate.dispatches.iter().filter(|d| d.source.contains("var<workgroup>")) {
                let kind = candidate.variant.parse().map(|s: Schedule| Schedule { split: 1, ..s }.to_string());
                let kind = format!("{} {}", dispatch.kernel, kind.unwrap_or_default());
                let [x, y] = dispatch.grid.at(sample.n, 65_535);
                // A product of few chunks is run first; of the others the sample of fewest workgroups.
                let size = (x * y) as usize;
                if kinds.get(&kind).is_some_and(|(known, _)| *known <= size) {
                    continue;
                }
                let of = (&sample, &io, &candidate);
                let barriers = dispatch.source.matches(BARRIER).count();
                let mut all = vec![case(&kind, plain(dispatch, &dispatch.source), of, dispatch)];
                for n in 0..barriers {
                    let (at, _) = dispatch.source.match_indices(BARRIER).nth(n).expect("as many as counted");
                    let without = format!("{}{}", &dispatch.source[..at], &dispatch.source[at + BARRIER.len()..]);
                    all.push(case(&format!("{kind} without barrier {n}"), plain(dispatch, &without), of, dispatch));
                }
                kinds.insert(kind, (size, all));
            }
        }
    }
    kinds.into_values().flat_map(|(_, cases)| cases).collect()
}

#[test]
fn lanes_meet_at_barriers_alone_and_each_missing_barrier_is_found() {
    let folder = env::var("HUBEL_WGSL_REFLECT").expect("tests/races runs this test, with the package's folder");
    let (cases, work) = (cases(), temp_dir::TempDir::new().expect("a folder"));
    let file = work.path().join("kernels.json");
    fs::write(&file, serde_json::to_string(&cases).expect("JSON")).expect("the folder takes files");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/races.mjs");
    let out = Command::new("node").arg(script).arg(folder).arg(&file).output().expect("node runs");
    let text = String::from_utf8_lossy(&out.stdout);
    print!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(out.status.success() && lines.len() == cases.len(), "{}", String::from_utf8_lossy(&out.stderr));
    let wrong = lines.iter().filter(|line| line.contains(" without barrier ") == line.ends_with(": clean"));
    let wrong: Vec<&&str> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
