//! Products through workgroup memory, which are meant for GPUs, here on any adapter; and rows of convolutions with a
//! lane for each channel.

use crate::harness::{
    Run, check_sample, engine, plan_for, reference, run_graph, sample_graph, sample_inputs, step_of, with_gpu_kernels,
};
use hubel::{
    graph::{DeviceClass, DeviceProfile, Family, Fault, Fill, Sample, TensorType},
    kernels::Schedule,
    ops::*,
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
    testing::{self, special_values_agree_on},
};
use std::collections::HashSet;

const NAMES: [&str; 4] = ["conv2d", "conv2d_grad_input", "conv2d_grad_weight", "matmul"];
const ANY: Fill = Fill::Uniform(-1.0, 1.0);

fn products() -> impl Iterator<Item = &'static Family> {
    NAMES.iter().map(|name| *FAMILIES.iter().find(|f| f.name == *name).expect("the family is in the list"))
}

/// Returns the variants of a sample with a kind of tiles; a depthwise convolution has none.
fn variants(sample: &Sample, profile: &DeviceProfile, kind: &str) -> Vec<String> {
    let (graph, _, outputs) = sample_graph(sample);
    let candidates = sample.op.lower(&graph.io(graph.node(outputs[0])), profile, None);
    candidates.into_iter().map(|c| c.variant).filter(|v| v.starts_with(kind)).collect()
}

/// Returns a run with a variant, which the plan must have.
fn forced<'a>(sample: &Sample, variant: &str) -> Run<'a> {
    forced_on(engine(), sample, variant)
}

fn forced_on<'a>(engine: &Engine, sample: &Sample, variant: &str) -> Run<'a> {
    let run = Run { guarded: true, variant: Some((sample.op.name().into(), variant.into())), ..Run::default() };
    let (graph, ..) = sample_graph(sample);
    let plan = testing::plan_for(engine, &graph, sample.capacity, &run).expect("the graph has a plan");
    assert!(plan.dispatches.iter().all(|d| d.variant == variant), "{variant} is not taken");
    run
}

/// Returns engines with the kernels of GPUs of several sizes, for which products are cut in other ways.
fn gpu_sizes() -> [Engine; 3] {
    [1, 16, 512].map(|n| with_gpu_kernels(engine(), n))
}

/// Returns products at the edges of tiles and chunks.
fn edges() -> Vec<Sample> {
    let ty = |dims: &[usize]| (TensorType::f32(dims), ANY);
    let mut samples = Vec::new();
    for (m, k, n) in [(1, 1, 1), (7, 15, 17), (63, 16, 65), (64, 17, 64), (65, 300, 63), (129, 8, 127), (33, 700, 130)]
    {
        for (transpose_a, transpose_b) in [(false, false), (true, true)] {
            let pair = |on: bool, a: usize, b: usize| if on { [b, a] } else { [a, b] };
            let options = MatmulOptions { transpose_a, transpose_b };
            let inputs = vec![ty(&pair(transpose_a, m, k)), ty(&pair(transpose_b, k, n))];
            samples.push(Sample::new(Matmul { options, column_sums: false }, inputs, 1));
        }
        let options = MatmulOptions { transpose_a: true, transpose_b: false };
        let inputs = vec![ty(&[Batch, m]), ty(&[Batch, n])];
        samples.push(Sample::new(Matmul { options, column_sums: true }, inputs, k).with_n(k.div_ceil(2)));
    }
    let same = Conv2dOptions::same;
    let cases = [
        (9, 64, 3, 65, same()),
        (17, 15, 7, 33, same().strides([2, 2])),
        (8, 33, 3, 64, same().dilation([2, 2])),
        (12, 34, 5, 66, same().groups(2)),
        (13, 3, 3, 16, Conv2dOptions::valid().strides([3, 2])),
        (5, 17, 1, 63, Conv2dOptions::valid()),
    ];
    samples.extend(cases.into_iter().flat_map(convolution));
    samples
}

/// Returns products with few results and long sums, which are cut into parts.
fn long_sums() -> impl Iterator<Item = Sample> {
    let same = Conv2dOptions::same;
    let cases = [
        (4, 512, 3, 40),
        (3, 640, 3, 24),
        (3, 700, 2, 33),
        (2, 1500, 1, 70),
        (4, 600, 3, 16),
        (5, 900, 2, 20),
        (48, 4, 3, 6),
        (40, 3, 3, 5),
        (64, 8, 1, 7),
    ];
    let both = cases.into_iter().flat_map(|(size, c, kernel, k)| [(size, c, kernel, k), (size, k, kernel, c)]);
    let matmuls = [(20, 6000, 24), (3, 9000, 40), (70, 5000, 17), (33, 8000, 5)].map(|(m, k, n)| {
        let inputs = vec![(TensorType::f32([m, k]), ANY), (TensorType::f32([k, n]), ANY)];
        Sample::new(Matmul { options: MatmulOptions::default(), column_sums: false }, inputs, 1)
    });
    both.flat_map(move |(size, c, kernel, k)| convolution((size, c, kernel, k, same()))).chain(matmuls)
}

/// Returns a convolution and both of its gradients.
fn convolution((size, c, kernel, k, options): (usize, usize, usize, usize, Conv2dOptions)) -> [Sample; 3] {
    let ty = |dims: &[usize]| (TensorType::f32(dims), ANY);
    let geometry = Geometry::new([size; 2], [kernel; 2], options).expect("the kernel fits");
    let [p, q] = geometry.output;
    let x = (TensorType::f32(Shape::from([Batch, size, size, c])), ANY);
    let w = ty(&[kernel, kernel, c / options.groups, k]);
    let dy = (TensorType::f32(Shape::from([Batch, p, q, k])), ANY);
    [
        Sample::new(Conv2d { options }, vec![x.clone(), w.clone()], 4).with_n(3),
        Sample::new(Conv2dGradInput { geometry }, vec![dy.clone(), w], 4).with_n(3),
        Sample::new(Conv2dGradWeight { geometry, column_sums: true }, vec![x, dy], 4).with_n(3),
    ]
}

#[test]
fn products_through_workgroup_memory_compute_what_their_references_say_between_guards() {
    let (mut tried, mut tiles) = (HashSet::new(), HashSet::new());
    let mut failed = Vec::new();
    let mut rng = Philox::new(21, Purpose::Test, 0);
    let random = products().flat_map(|family| {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 21);
        (0..15).map(move |_| (family.sample)(&mut rng))
    });
    let engines = gpu_sizes();
    let any = random.chain(edges()).map(|sample| (sample, "shared."));
    // Each sample uses another tile.
    for (i, (sample, kind)) in any.chain(long_sums().map(|sample| (sample, ".split"))).enumerate() {
        let engine = &engines[(i + i / 3) % 3];
        let mut names = variants(&sample, &engine.profile().clone().for_batch(sample.capacity), "shared.");
        names.retain(|name| name.contains(kind));
        names.sort();
        let schedule = |name: &str| -> Schedule { name.parse().expect("variants are schedules") };
        let tile = |name: &str| [schedule(name).m, schedule(name).n, schedule(name).slices];
        let untried = names.iter().find(|name| !tiles.contains(&tile(name)));
        let Some(variant) = untried.or(names.get(i % names.len().max(1))) else { continue };
        tiles.insert(tile(variant));
        tried.insert((sample.op.name().to_owned(), tile(variant), schedule(variant).split > 1));
        let run = forced_on(engine, &sample, variant);
        if let Err(e) = testing::check_sample(engine, &sample, &mut rng, &run) {
            failed.push(format!("{variant}: {e}"));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    for name in NAMES {
        let of = |split| tried.iter().filter(|(op, _, s)| op == name && *s == split).count();
        assert!(of(false) > 0 && of(true) > 1, "{name}: {} in one launch, {} in two", of(false), of(true));
    }
    assert_eq!(tiles.len(), 17, "only {tiles:?}");
}

#[test]
fn sums_of_50_176_terms_of_one_sign_are_as_exact_as_promised_on_gpus_of_any_size() {
    let mut rng = Philox::new(25, Purpose::Test, 0);
    // Sums of equal numbers are rounded the same way each time.
    for fill in [Fill::Uniform(0.5, 1.0), Fill::Uniform(0.1, 0.1)] {
        let ty = |dims: &[usize]| (TensorType::f32(dims), fill);
        let geometry = Geometry::new([112; 2], [3; 2], Conv2dOptions::same()).expect("the kernel fits");
        let image = |c| (TensorType::f32(Shape::from([Batch, 112, 112, c])), fill);
        let options = MatmulOptions::default();
        let samples = [
            Sample::new(Matmul { options, column_sums: false }, vec![ty(&[8, 50_176]), ty(&[50_176, 12])], 1),
            Sample::new(Conv2dGradWeight { geometry, column_sums: true }, vec![image(4), image(6)], 4),
        ];
        for sample in samples {
            for (n, engine) in [1, 16, 512].into_iter().zip(gpu_sizes()) {
                let run = Run { guarded: true, ..Run::default() };
                let result = testing::check_sample(&engine, &sample, &mut rng, &run);
                assert!(result.is_ok(), "{} on {n} multiprocessors, {fill:?}: {result:?}", sample.op.name());
            }
        }
    }
}

#[test]
fn rows_of_convolutions_compute_what_their_references_say_between_guards() {
    let profile = engine().profile();
    let mut rng = Philox::new(23, Purpose::Test, 0);
    let mut tried = 0;
    let random = products().flat_map(|family| {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 23);
        (0..60).map(move |_| (family.sample)(&mut rng))
    });
    for sample in random.chain(edges()) {
        for variant in variants(&sample, profile, "channels.") {
            tried += 1;
            let result = check_sample(&sample, &mut rng, &forced(&sample, &variant));
            assert!(result.is_ok(), "{variant}: {result:?}");
        }
    }
    let has_rows = profile.class == DeviceClass::Cpu && profile.subgroup_lanes == 8;
    assert!(!has_rows || tried >= 20, "only {tried}");
}

#[test]
fn epilogues_are_applied_to_products_through_workgroup_memory() {
    let mut met = 0;
    let mut rng = Philox::new(22, Purpose::Test, 0);
    for (i, sample) in edges().into_iter().enumerate().filter(|(_, s)| s.op.epilogue()) {
        let names = ["shared.", "channels."].map(|kind| variants(&sample, engine().profile(), kind)).concat();
        let Some(variant) = names.get(i % names.len().max(1)) else { continue };
        let (mut g, _, outputs) = sample_graph(&sample);
        let shape = g.shape(outputs[0]).clone();
        let bias = g.input("bias", [shape.last()], F32);
        let other = g.input("other", shape.clone(), F32);
        let y = g.add(outputs[0], bias).and_then(|y| g.relu(y)).and_then(|y| g.add(y, other)).expect("shapes agree");
        g.set_outputs(Vec::new());
        g.output("y", y);
        let (arrays, step) = (sample_inputs(&sample, &mut rng), step_of(&sample, &mut rng));
        let mut feeds: Vec<_> = arrays.into_iter().enumerate().map(|(i, a)| (format!("in{i}"), a)).collect();
        feeds.push(("bias".into(), ANY.array(&[shape.last()], &mut rng)));
        feeds.push(("other".into(), ANY.array(&shape.at(sample.n), &mut rng)));
        let run = Run {
            optimize: true,
            guarded: true,
            variant: Some((sample.op.name().into(), variant.clone())),
            ..Run::default()
        };
        let plan = plan_for(&g, sample.capacity, &run);
        let own = plan.dispatches.iter().filter(|d| d.variant == *variant).count();
        assert_eq!(own, plan.dispatches.len(), "{variant}: the chain is fused and the variant taken");
        met += 1;
        let exact = reference(&g, &feeds, &step);
        let feeds: Vec<_> = feeds.into_iter().map(|(name, a)| (name, a.to_host(F32))).collect();
        let got = run_graph(&g, &feeds, &step, sample.capacity, &run).expect("the graph runs");
        for (k, (got, exact)) in got[0].to_f32().iter().zip(&exact[0].data).enumerate() {
            let error = (f64::from(*got) - exact).abs();
            assert!(error <= 1e-4, "{} {variant} [{k}]: {got}, wanted {exact}", sample.op.name());
        }
    }
    assert!(met >= 20, "only {met} products have epilogues");
}

#[test]
fn nan_and_infinity_pass_through_tiles_and_rows() {
    let mut rng = Philox::new(24, Purpose::Test, 0);
    let mut tried = 0;
    for (i, sample) in edges().into_iter().enumerate() {
        let names = ["shared.", "channels."].map(|kind| variants(&sample, engine().profile(), kind)).concat();
        // The largest take long in 64 bits.
        let Some(variant) = names.get(i % names.len().max(1)).filter(|_| i % 3 == 0) else { continue };
        tried += 1;
        let result = special_values_agree_on(engine(), &sample, &mut rng, &forced(&sample, variant));
        assert!(result.is_ok(), "{variant}: {result:?}");
    }
    assert!(tried >= 10, "only {tried}");
}

#[test]
fn planted_faults_of_products_through_workgroup_memory_are_noticed() {
    let faults = [
        ("drops the last chunk", "chunks < ", "chunks + 16u < "),
        ("swaps term and index", "_a = lane % 16u * 17u + lane / 16u;", "_a = lane / 16u * 17u + lane % 16u;"),
        ("reads the rows of a neighbour", "let at_a = lane / 16u", "let at_a = (lane / 16u + 1u) % 16u"),
        ("repeats the last term", "_t < ", "_t < 1u + "),
        ("skips the last tile", "<= tile) { return; }", "<= tile + 1u) { return; }"),
        ("cuts parts a chunk short", "start_terms + size_terms", "start_terms + size_terms - 1u"),
        ("writes a row past the end", "if (row0_i < ", "if (row0_i <= "),
        ("leaves a column out", "column0_in_bounds) {", "column1_in_bounds) {"),
        ("loses a part of the column sums", "var k = 0u; k < ", "var k = 1u; k < "),
    ];
    let mut rng = Philox::new(23, Purpose::Test, 0);
    let engines = gpu_sizes();
    let long: Vec<Sample> = long_sums().collect();
    for (what, from, to) in faults {
        let fault = Fault { what, from, to };
        let mut met = 0;
        let noticed = edges().iter().chain(&long).any(|sample| {
            engines.iter().any(|engine| {
                let names = variants(sample, &engine.profile().clone().for_batch(sample.capacity), "shared.");
                let square = names.iter().find(|v| v.starts_with("shared.m64n64."));
                let Some(variant) = square.or(names.iter().find(|v| v.contains(".split"))) else { return false };
                let run = forced_on(engine, sample, variant);
                let plan = testing::plan_for(engine, &sample_graph(sample).0, sample.capacity, &run).expect("a plan");
                if !plan.dispatches.iter().any(|d| d.source.contains(from)) {
                    return false;
                }
                met += 1;
                let run = Run { fault: Some(&fault), ..run };
                let Err(e) = testing::check_sample(engine, sample, &mut rng, &run) else { return false };
                assert!(!e.0.contains("wgsl:"), "`{what}` is no kernel: {e}");
                true
            })
        });
        assert!(noticed, "`{what}` passed {met} samples unnoticed");
    }
}

#[test]
fn graphics_processors_take_large_products_through_workgroup_memory_first() {
    let first = |sample: &Sample, class| {
        let (graph, _, outputs) = sample_graph(sample);
        let io = graph.io(graph.node(outputs[0]));
        sample.op.lower(&io, &DeviceProfile::portable(class), None).swap_remove(0).variant
    };
    let matmul = |m: usize, k: usize, n: usize| {
        let inputs = vec![(TensorType::f32([m, k]), ANY), (TensorType::f32([k, n]), ANY)];
        Sample::new(Matmul { options: MatmulOptions::default(), column_sums: false }, inputs, 1)
    };
    for (sample, tile) in [
        (matmul(4096, 1024, 4096), "shared.m128n128.k8.smemAB"),
        (matmul(512, 4096, 512), "shared.m128n128.k8.split8.smemAB"),
        (matmul(33, 64, 33), "shared.m16n16.k4.slices16.smemAB"),
    ] {
        assert_eq!(first(&sample, DeviceClass::Gpu), tile);
        assert!(!first(&sample, DeviceClass::Cpu).starts_with("shared."));
    }
}
