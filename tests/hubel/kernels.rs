//! Every kernel that a sample reaches is valid WGSL under portable limits and translates to every backend.

use crate::{harness::engine, repository::files};
use hubel::{
    graph::Dispatch,
    kernels::{Access, Core, Schedule, max_iterations, reflect},
    layers::*,
    losses::*,
    metrics::*,
    ops::{FAMILIES, TABLE, sample_of},
    optimizers::*,
    passes::Plan,
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
    testing::{decided_by_uniforms, profiles},
};
use naga::{
    back::{hlsl, msl, pipeline_constants::process_overrides, spv},
    valid::{Capabilities, ValidationFlags, Validator},
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

/// Returns every kernel that samples and benches reach, under portable limits, for both device classes and with
/// 64-bit words.
fn reached() -> &'static [(String, Dispatch)] {
    static REACHED: LazyLock<Vec<(String, Dispatch)>> = LazyLock::new(lowered);
    &REACHED
}

fn lowered() -> Vec<(String, Dispatch)> {
    let mut seen = HashSet::new();
    let mut kernels = Vec::new();
    for family in FAMILIES {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 0);
        let mut samples: Vec<_> = (0..64).map(|_| (family.sample)(&mut rng)).collect();
        samples.extend((family.benches)().into_iter().map(|(_, s)| s));
        if family.name == "elementwise" {
            samples.extend(TABLE.iter().map(|f| sample_of(f, &mut rng)));
        }
        for sample in samples {
            let (graph, _, outputs) = crate::harness::sample_graph(&sample);
            let io = graph.io(graph.node(outputs[0]));
            for profile in profiles() {
                for candidate in sample.op.lower(&io, &profile, None) {
                    for dispatch in candidate.dispatches {
                        if seen.insert((dispatch.source.text().clone(), format!("{:?}", dispatch.constants))) {
                            kernels.push((format!("{} {}", family.name, candidate.variant), dispatch));
                        }
                    }
                }
            }
        }
    }
    kernels
}

#[test]
fn every_variant_is_a_schedule_and_the_text_of_a_schedule_is_that_schedule() {
    let mut cores = HashSet::new();
    for family in FAMILIES {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 1);
        let samples = (0..16).map(|_| (family.sample)(&mut rng)).collect::<Vec<_>>().into_iter();
        for sample in samples.chain((family.benches)().into_iter().map(|(_, s)| s)) {
            let (graph, _, outputs) = crate::harness::sample_graph(&sample);
            let io = graph.io(graph.node(outputs[0]));
            for profile in profiles() {
                let variants: Vec<String> =
                    sample.op.lower(&io, &profile, None).into_iter().map(|c| c.variant).collect();
                for variant in &variants {
                    let schedule: Schedule = variant.parse().unwrap_or_else(|e| panic!("{}: {e}", family.name));
                    assert_eq!(schedule.to_string(), *variant, "{}", family.name);
                    for other in ['·', '-'] {
                        assert_eq!(variant.replace('.', &other.to_string()).parse(), Ok(schedule));
                    }
                    cores.insert(schedule.core);
                }
                let different: HashSet<&String> = variants.iter().collect();
                assert_eq!(different.len(), variants.len(), "{}: {variants:?}", family.name);
            }
        }
    }
    assert_eq!(cores.len(), 14, "{cores:?}");
}

#[test]
fn what_is_no_schedule_is_refused_with_the_word_that_is_wrong() {
    let schedule = Schedule { k: 4, ..Schedule::new(Core::Registers, [64, 8]) };
    assert_eq!("registers.k4.m64n8".parse(), Ok(schedule), "words may stand in any order");
    for (text, word) in [
        ("", ""),
        ("lanes_columns_64x8", "lanes_columns_64x8"),
        ("Registers.k4", "Registers"),
        ("registers.m64", "m64"),
        ("registers.m64n0", "m64n0"),
        ("registers.k", "k"),
        ("registers.k4k", "k4k"),
        ("registers.lanesX", "lanesX"),
        ("registers..k4", ""),
        ("registers.pairsBA", "pairsBA"),
        ("registers.split99999999999999999999", "split99999999999999999999"),
    ] {
        let error = text.parse::<Schedule>().expect_err(text);
        assert_eq!((&*error.text, &*error.word), (text, word));
    }
}

fn translate(dispatch: &Dispatch) -> Result<(), String> {
    let (bindings, module) = reflect(&dispatch.kernel, &dispatch.source).map_err(|e| e.to_string())?;
    let storage = bindings.iter().filter(|b| b.access != Access::Uniform).count();
    if bindings.len() != dispatch.slots.len() + 1 || storage > 8 || bindings.len() - storage > 12 {
        return Err(format!("{} bindings, {storage} of storage, for {} slots", bindings.len(), dispatch.slots.len()));
    }
    // Subgroup operations and 64-bit words are used only where the adapter has them.
    let subgroups = dispatch.source.contains("subgroup");
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SUBGROUP, subgroups);
    capabilities.set(Capabilities::SHADER_INT64, dispatch.source.contains("u64"));
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module).map_err(|e| format!("{e:?}"))?;
    let constants = dispatch.constants.iter().map(|(k, v)| (k.to_string(), *v)).collect();
    let (module, info) = process_overrides(&module, &info, None, &constants).map_err(|e| e.to_string())?;
    let entry = module.entry_points.iter().find(|e| e.name == "main").ok_or("no entry point main")?;
    if entry.workgroup_size.iter().product::<u32>() > 256 {
        return Err(format!("a workgroup of {:?}", entry.workgroup_size));
    }
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    let shared: u32 = shared.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx())).sum();
    if shared > 16_384 {
        return Err(format!("{shared} bytes of workgroup memory"));
    }
    let atomic_floats = module
        .types
        .iter()
        .any(|(_, t)| matches!(t.inner, naga::TypeInner::Atomic(s) if s.kind == naga::ScalarKind::Float));
    if atomic_floats {
        return Err("atomic floats".into());
    }
    let options = spv::Options { lang_version: if subgroups { (1, 3) } else { (1, 0) }, ..Default::default() };
    spv::write_vec(&module, &info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    let options = msl::Options { fake_missing_bindings: true, lang_version: (2, 4), ..Default::default() };
    msl::write_string(&module, &info, &options, &Default::default()).map_err(|e| format!("MSL: {e}"))?;
    let shader_model = hlsl::ShaderModel::V6_0;
    let options = hlsl::Options { fake_missing_bindings: true, shader_model, ..Default::default() };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None).map_err(|e| format!("HLSL: {e}"))?;
    Ok(())
}

#[test]
fn every_reached_kernel_is_portable_and_translates_to_spirv_msl_and_hlsl() {
    let failed: Vec<String> = reached()
        .iter()
        .filter_map(|(name, d)| translate(d).err().map(|e| format!("{name}: {e}\n{:?}", d.constants)))
        .collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn every_shader_file_and_every_shared_declaration_is_reached() {
    let kernels = reached();
    let mut unreached = Vec::new();
    let is_in_a_kernel = |text: &str| kernels.iter().any(|(_, d)| d.source.contains(text));
    for (name, text) in files("shaders", "wgsl") {
        let declares = |line: &&str| !line.starts_with(['/', ' ', '}']) && !line.is_empty();
        let parts = if name.contains("/shared/") { text.lines().filter(declares).collect() } else { vec![text.trim()] };
        unreached.extend(parts.into_iter().filter(|part| !is_in_a_kernel(part)).map(|part| format!("{name}: {part}")));
    }
    assert!(unreached.is_empty(), "no sample reaches {unreached:#?}");
}

#[test]
fn the_iterations_of_every_reached_kernel_are_derived() {
    let mut unbounded = BTreeMap::new();
    for (name, dispatch) in reached() {
        unbounded.extend(max_iterations(dispatch, 128, 65_535).err().map(|e| (e.to_string(), name)));
    }
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}

#[test]
fn no_branch_or_loop_is_decided_by_uniform_buffers_alone() {
    let mut failed = BTreeMap::new();
    let mut seen = HashSet::new();
    for (name, dispatch) in reached().iter().filter(|(_, dispatch)| seen.insert(dispatch.source.text())) {
        let places = decided_by_uniforms(&dispatch.source).unwrap_or_else(|e| panic!("{name}: {e}"));
        for place in places {
            failed.entry(place).or_insert_with(Vec::new).push(format!("{name} ({})", dispatch.kernel));
        }
    }
    assert!(failed.is_empty(), "Mesa 22 compiles such kernels again for each launch: {failed:#?}");
}

#[test]
fn no_name_of_a_model_enters_wgsl() {
    let plans = |names: [&str; 4]| {
        let [conv, dense, drop, tap] = names;
        let model = Sequential::new([6, 6, 1])
            .add(Conv2D::new(4, 3).activation(Relu).name(conv))
            .add(BatchNormalization::new().name(tap))
            .add(Flatten::new())
            .add(Dropout::new(0.5).name(drop))
            .add(Dense::new(3).activation(Softmax).name(dense))
            .build()
            .expect("a model");
        let data = Dataset::new(
            HostTensor::f32([4, 6, 6, 1], vec![0.5; 144]).expect("samples"),
            HostTensor::u8([4], vec![0, 1, 2, 0]).expect("labels"),
        )
        .expect("data");
        let config = Compile::new(Adam::new(0.1), SparseCategoricalCrossentropy::new()).norms(true).metric(Accuracy);
        let trainer = model.compile(engine(), config).expect("a trainer");
        let used = model.inference_with(engine(), Batch::up_to(4), &[tap]).expect("a network");
        [trainer.plan_for(&data, 4).expect("a plan"), used.plan().expect("a plan")]
    };
    let hostile = [
        "}; @compute @workgroup_size(1) fn evil() {}",
        "*/ @group(0) @binding(9) var<storage, read_write> evil: array<u32>; /*",
        "evil\n}\nfn main() {",
        "evil\u{2028}\u{0}\"); \\",
    ];
    for (hostile, plain) in plans(hostile).iter().zip(&plans(["a", "b", "c", "d"])) {
        let sources = |plan: &Plan| plan.dispatches.iter().map(|d| d.source.clone()).collect::<HashSet<_>>();
        assert!(sources(hostile) == sources(plain));
        assert!(hostile.dispatches.iter().any(|d| d.node.contains("evil")), "nodes are not named by layers");
        assert!(sources(hostile).iter().all(|source| !source.contains("evil")));
    }
}
