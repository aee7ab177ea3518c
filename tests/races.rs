//! Kernels with workgroup memory under a second opinion: `detectRaces` of the npm package wgsl_reflect runs the lanes of a workgroup
//! side by side and reports accesses that no barrier orders, and barriers that not all lanes reach.
//!
//! `tests/races` runs this test.

use hubel::{
    graph::{Candidate, DeviceClass, DeviceProfile, Dispatch, Fill, Io, Op, Program, Sample, Slot, Step, TensorType},
    kernels::{Access, Core, Schedule, reflect},
    ops::*,
    passes::Fused,
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
    testing::sample_graph,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

/// Random samples of each operation, and how many of them, the largest, each kind of kernel runs.
const SAMPLES: usize = 24;
const SAMPLES_RUN: usize = 2;
/// The most elements of a sample's inputs: lanes are interpreted.
const MAX_ELEMENTS: u64 = 3000;
const BARRIER: &str = "workgroupBarrier();";

/// Returns small products that take each of their loops more than once: the one of chunks that are all full takes up to six of them.
fn products() -> Vec<Sample> {
    let ty = |dims: &[usize]| (TensorType::f32(dims), Fill::Uniform(-1.0, 1.0));
    let mut samples = Vec::new();
    for (m, k, n) in
        [(17, 410, 18), (20, 400, 20), (18, 37, 21), (140, 40, 20), (20, 40, 140), (140, 24, 140), (70, 100, 70)]
    {
        for (transpose_a, transpose_b) in [(false, false), (true, true)] {
            let pair = |on: bool, a: usize, b: usize| if on { [b, a] } else { [a, b] };
            let inputs = vec![ty(&pair(transpose_a, m, k)), ty(&pair(transpose_b, k, n))];
            let options = MatmulOptions { transpose_a, transpose_b };
            samples.push(Sample::new(Matmul { options, column_sums: false }, inputs, 1));
        }
    }
    // Forward and to the input, terms are channels under taps; to the weights, pixels.
    let windows =
        [[(4, 64, 64), (17, 16, 16)], [(7, 32, 32), (9, 16, 16)], [(4, 16, 4), (9, 16, 4)], [(5, 6, 6), (5, 3, 6)]];
    for (of_channels, (size, c, k)) in windows.into_iter().flat_map(|[a, b]| [(true, a), (false, b)]) {
        let options = Conv2dOptions::same();
        let geometry = Geometry::new([size; 2], [3; 2], options).expect("the kernel fits");
        let (x, w, dy) = (ty(&[Batch, size, size, c]), ty(&[3, 3, c, k]), ty(&[Batch, size, size, k]));
        if !of_channels {
            samples.push(Sample::new(Conv2dGradWeight { geometry, column_sums: true }, vec![x, dy], 2));
            continue;
        }
        samples.push(Sample::new(Conv2d { options }, vec![x, w.clone()], 2));
        samples.push(Sample::new(Conv2dGradInput { geometry }, vec![dy, w], 2));
    }
    samples
}

/// Returns convolutions of one pixel, and their gradients, with column sums of their results, or that keep what they compute of what they load.
fn fused() -> Vec<Sample> {
    let ty = |dims: &[usize]| (TensorType::f32(dims), Fill::Uniform(-1.0, 1.0));
    let options = Conv2dOptions::valid();
    // Two tiles, and terms enough that each loop is taken more than once.
    let (rows, columns, terms) = (20, 16, 400);
    let [x, w] = [ty(&[1, rows, 1, terms]), ty(&[1, 1, terms, columns])];
    let geometry = |n: usize| Geometry::new([n, 1], [1; 2], options).expect("the kernel fits");
    let relu = Elementwise::named("relu").expect("a function").program;
    let keeps = |anchor: Arc<dyn Op>, input: usize| Fused {
        prologues: vec![(input, relu.clone())],
        kept: Some(input),
        ..Fused::new(anchor, 2, Program::identity())
    };
    let sums = |anchor: Arc<dyn Op>, sums: Arc<dyn Op>| Fused {
        sums: Some(sums),
        ..Fused::new(anchor, 2, Program::identity())
    };
    let statistics = BatchNormStatistics { epsilon: 1e-3 };
    let of_gradient = BatchNormSums { epsilon: 1e-3 };
    let to_input = Arc::new(Conv2dGradInput { geometry: geometry(rows) });
    let to_weights = Arc::new(Conv2dGradWeight { geometry: geometry(terms), column_sums: false });
    let mut gradient = vec![x.clone(), ty(&[1, 1, columns, terms]), ty(&[1, rows, 1, columns])];
    gradient.extend([(); 3].map(|()| ty(&[columns])));
    vec![
        Sample::new(keeps(Arc::new(Conv2d { options }), 0), vec![x.clone(), w.clone()], 1),
        Sample::new(keeps(to_weights, 1), vec![ty(&[1, terms, 1, rows]), ty(&[1, terms, 1, columns])], 1),
        Sample::new(
            sums(Arc::new(Conv2d { options }), Arc::new(statistics)),
            vec![x, w, ty(&[columns]), ty(&[columns])],
            1,
        ),
        Sample::new(sums(to_input, Arc::new(of_gradient)), gradient, 1),
    ]
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

/// Returns the text that naga has written, in which no chunk of an iteration is a block of its own: the package does not order barriers in a
/// condition inside a loop. Where a chunk is not there, the loop ends, and nothing of its body that follows does anything.
fn flat(mut source: String) -> String {
    const CHUNKS: [&str; 2] = ["if (chunk1_", "if (chunk2_"];
    while let Some(start) = CHUNKS.iter().filter_map(|chunk| source.find(chunk)).min() {
        let open = start + source[start..].find('{').expect("a block");
        let mut depth = 0;
        let close = source[open..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let close = open + close.expect("the block ends");
        let condition = source[start..open].trim_start_matches("if").trim();
        let (body, behind) = (&source[open + 1..close], &source[close + 1..]);
        source = format!("{}if !{condition} {{ break; }}{body}{behind}", &source[..start]);
    }
    source
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
    flat(wgsl::write_string(&module, &info, wgsl::WriterFlags::empty()).expect("a text"))
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
    json!({"name": name, "source": source, "bindings": bound.collect::<Vec<_>>()})
}

/// Returns what two kernels have in common of which one is run; `None` where a lane does all, and no barrier is reached.
fn kind(dispatch: &Dispatch, variant: &str) -> Option<String> {
    let schedule: Schedule = variant.parse().ok()?;
    let schedule = match schedule.core {
        Core::Lane => return None,
        // Cells of one name differ in their barriers.
        Core::Recurrent => {
            let barriers = dispatch.source.matches(BARRIER).count();
            let schedule = Schedule { width: schedule.width, ..Schedule::new(Core::Recurrent, [1; 2]) };
            return Some(format!("{} {schedule} of {barriers} barriers", dispatch.kernel));
        }
        _ => Schedule { split: 1, ..schedule },
    };
    let more = [("_kept", " that keeps what it loads"), ("> parts", " with column sums")];
    let more: String =
        more.iter().filter(|(name, _)| dispatch.source.contains(name)).map(|(_, words)| *words).collect();
    Some(format!("{} {schedule}{more}", dispatch.kernel))
}

/// Returns what is run of each kind of kernel on some samples, as it is and without each of its barriers.
fn cases() -> Vec<Value> {
    let mut kinds: BTreeMap<String, Vec<Vec<Value>>> = BTreeMap::new();
    // Those that HUBEL_OPERATIONS names, or all.
    let named = env::var("HUBEL_OPERATIONS").unwrap_or_default();
    let asked = |name: &str| named.is_empty() || named.split_whitespace().any(|n| n == name);
    let elements = |s: &Sample| s.inputs.iter().map(|(ty, _)| ty.shape.elements().at(s.n)).sum::<u64>();
    let random = FAMILIES.iter().filter(|family| asked(family.name)).flat_map(|family| {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 41);
        let mut samples: Vec<Sample> = (0..SAMPLES).map(|_| (family.sample)(&mut rng)).collect();
        samples.retain(|sample| elements(sample) <= MAX_ELEMENTS);
        samples.sort_by_key(|sample| std::cmp::Reverse(elements(sample)));
        samples
    });
    let profile = DeviceProfile::portable(DeviceClass::Gpu);
    let products = products().into_iter().map(|sample| (sample, true, usize::MAX));
    let products = products.chain(fused().into_iter().map(|sample| (sample, true, 1)));
    let products = products.filter(|(sample, ..)| asked(sample.op.name()));
    for (sample, is_product, candidates) in products.chain(random.map(|sample| (sample, false, usize::MAX))) {
        let (graph, _, outputs) = sample_graph(&sample).expect("samples are valid");
        let io = graph.io(graph.node(outputs[0]));
        let all = sample.op.lower(&io, &profile.clone().for_batch(sample.capacity), None);
        for candidate in all.into_iter().take(candidates) {
            for dispatch in candidate.dispatches.iter().filter(|d| d.source.contains("var<workgroup>")) {
                let Some(kind) = kind(dispatch, &candidate.variant) else { continue };
                // A random product may have one chunk alone.
                let most = match (kind.contains(" shared."), is_product) {
                    (true, false) => 0,
                    (true, true) => 1,
                    _ => SAMPLES_RUN,
                };
                let known = kinds.entry(kind.clone()).or_default();
                if known.len() >= most {
                    continue;
                }
                let of = (&sample, &io, &candidate);
                let mut all = vec![case(&kind, plain(dispatch, &dispatch.source), of, dispatch)];
                for (n, (at, barrier)) in dispatch.source.match_indices(BARRIER).enumerate() {
                    let (before, behind) = dispatch.source.split_at(at);
                    let without = format!("{before}{}", &behind[barrier.len()..]);
                    all.push(case(&format!("{kind} without barrier {n}"), plain(dispatch, &without), of, dispatch));
                }
                known.push(all);
            }
        }
    }
    kinds.into_values().flatten().flatten().collect()
}

#[test]
fn lanes_meet_at_barriers_alone_and_each_missing_barrier_is_found() {
    let folder = env::var("HUBEL_WGSL_REFLECT").expect("tests/races runs this test, with the package's folder");
    let (cases, work) = (cases(), temp_dir::TempDir::new().expect("a folder"));
    let file = work.path().join("kernels.json");
    fs::write(&file, serde_json::to_string(&cases).expect("JSON")).expect("the folder takes files");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/races.mjs");
    let node = Command::new("node").arg(script).arg(folder).arg(&file).stderr(Stdio::inherit()).output();
    let out = node.expect("node runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert!(out.status.success() && lines.len() == cases.len(), "{} of {} kernels were run", lines.len(), cases.len());
    println!(
        "{} kernels, {} of them without a barrier",
        lines.len(),
        lines.iter().filter(|l| l.contains(" without ")).count()
    );
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, what) in lines.iter().filter_map(|line| line.split_once(": ")) {
        found.entry(name).or_default().push(what);
    }
    // A sample may be too small for a barrier: that it is missing must be found on one of them.
    found.retain(|name, what| match name.contains(" without barrier ") {
        true => what.contains(&"clean") && what.iter().all(|what| *what == "clean" || what.starts_with("not run")),
        false => what.iter().any(|what| *what != "clean"),
    });
    assert!(found.is_empty(), "{found:#?}");
}
