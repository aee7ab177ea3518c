//! Sums of very many terms are complete: llvmpipe silently ends all loops of an invocation after 65,535 iterations.

use crate::harness::{Run, check_sample, engine, sample_graph};
use hubel::{
    graph::{
        Candidate, DeviceClass, DeviceProfile, Epilogue, Fill, Gradients, Grid, Io, Op, OpError, Sample, Slot, Step,
        TensorType,
    },
    kernels::{self, max_iterations},
    ops::*,
    passes::{PlanError, PlanOptions, plan},
    prelude::*,
    tensor::{Accuracy, Array, Philox, Purpose, stream_id},
    testing::profiles,
};
use std::collections::BTreeSet;

const LONG: usize = 200_003;
const NEARLY: usize = 64_525;
/// Iterations of the header's loops and of trees over the lanes.
const SHORT: u64 = 24;
const ANY: Fill = Fill::Uniform(-1.0, 1.0);
const BETWEEN: Fill = Fill::Uniform(0.5, 2.0);

fn sample(op: impl Op + 'static, inputs: &[(&[usize], Fill)], n: usize) -> Sample {
    let typed = |&(dims, fill): &(&[usize], Fill)| {
        let dtype = if matches!(fill, Fill::Index(_)) { DType::U32 } else { F32 };
        (TensorType::new(dims, dtype), fill)
    };
    Sample::new(op, inputs.iter().map(typed).collect(), n)
}

/// Returns images with this number of channels.
fn image(side: usize, c: usize) -> [usize; 4] {
    [Batch, side, side, c]
}

fn reduce(kind: ReduceKind, axes: &[usize]) -> Reduce {
    Reduce { kind, axes: axes.to_vec(), keep_dims: false }
}

fn matmul(transpose_a: bool) -> Matmul {
    Matmul { options: MatmulOptions { transpose_a, transpose_b: false }, column_sums: false }
}

/// Returns sums that are cut so that every loop is short enough, or whose loops a driver just runs.
fn complete() -> Vec<Sample> {
    let geometry = |input, kernel, strides: usize, pad: usize| {
        let options = Conv2dOptions::explicit([[pad, pad]; 2]).strides([strides; 2]);
        Geometry::new([input; 2], [kernel; 2], options).expect("the kernel fits")
    };
    let weight = |geometry, column_sums| Conv2dGradWeight { geometry, column_sums };
    let depthwise = Geometry { groups: 2, ..geometry(320, 3, 1, 1) };
    let grouped = |groups| GroupNorm { groups, epsilon: 1e-3 };
    vec![
        sample(BatchNorm { epsilon: 1e-3 }, &[(&image(320, 1), ANY), (&[1], ANY), (&[1], ANY)], 3),
        sample(BatchNorm { epsilon: 1e-3 }, &[(&[Batch, 3, 9], ANY), (&[9], ANY), (&[9], ANY)], LONG),
        sample(weight(geometry(320, 3, 1, 1), false), &[(&image(320, 1), ANY), (&image(320, 1), ANY)], 2),
        sample(weight(geometry(48, 5, 1, 0), true), &[(&image(48, 1), ANY), (&image(44, 6), ANY)], 128),
        sample(weight(geometry(64, 7, 2, 3), false), &[(&image(64, 3), ANY), (&image(32, 9), ANY)], 100),
        sample(weight(geometry(600, 3, 2, 1), true), &[(&image(600, 1), ANY), (&image(300, 2), ANY)], 3),
        sample(Conv2d { options: Conv2dOptions::valid() }, &[(&image(270, 1), ANY), (&[270, 270, 1, 1], ANY)], 1),
        sample(weight(depthwise, true), &[(&image(320, 2), ANY), (&image(320, 4), ANY)], 128 / 8),
        sample(grouped(2), &[(&image(320, 4), ANY), (&[4], ANY), (&[4], ANY)], 2),
        sample(grouped(1), &[(&[Batch, 3], ANY), (&[3], ANY), (&[3], ANY)], LONG),
        sample(
            GroupNormGrad { norm: grouped(1) },
            &[(&image(320, 3), ANY), (&[3], ANY), (&[Batch, 1], ANY), (&[Batch, 1], BETWEEN), (&image(320, 3), ANY)],
            2,
        ),
        sample(matmul(false), &[(&[3, LONG], ANY), (&[LONG, 2], ANY)], 1),
        sample(matmul(true), &[(&[Batch, 9], ANY), (&[Batch, 7], ANY)], LONG),
        // As many iterations as a driver runs, but for those that store the sums.
        sample(matmul(false), &[(&[32, NEARLY], ANY), (&[NEARLY, 64], ANY)], 1),
        sample(reduce(ReduceKind::Sum, &[0, 1]), &[(&[Batch, 2000, 3], ANY)], 100),
        sample(reduce(ReduceKind::Mean, &[1, 2]), &[(&image(500, 2), ANY)], 2),
        sample(reduce(ReduceKind::Max, &[1]), &[(&[Batch, LONG], ANY)], 2),
        sample(hubel::ops::Softmax { log: false }, &[(&[Batch, LONG], ANY)], 2),
        sample(SoftmaxCrossEntropy, &[(&[Batch, LONG], ANY), (&[Batch], Fill::Index(LONG))], 2),
        sample(
            BatchNormGrad { epsilon: 1e-3 },
            &[(&[Batch, 9], ANY), (&[9], ANY), (&[9], ANY), (&[9], BETWEEN), (&[Batch, 9], ANY)],
            LONG,
        ),
        sample(BatchNormStatistics { epsilon: 1e-3 }, &[(&[Batch, 9], ANY), (&[9], ANY), (&[9], ANY)], LONG),
        sample(
            BatchNormSums { epsilon: 1e-3 },
            &[(&[Batch, 9], ANY), (&[9], ANY), (&[9], ANY), (&[9], BETWEEN), (&[Batch, 9], ANY)],
            LONG,
        ),
        sample(
            Conv2dGradInput { geometry: geometry(1, 1, 1, 0) },
            &[(&[Batch, 1, 1, LONG], ANY), (&[1, 1, 2, LONG], ANY)],
            2,
        ),
    ]
}

/// Returns sums that one invocation adds up alone.
fn refused() -> Vec<Sample> {
    let suppression = NonMaxSuppression { max: 100, iou_threshold: 0.5, score_threshold: None, center: false };
    let pool = |pooling, pool, strides| Pool2d {
        pooling,
        options: Pool2dOptions { strides: [strides; 2], ..Pool2dOptions::new(pool) },
    };
    let average = Pooling::Average { count_padding: false };
    let (whole, narrow) = (|pooling| pool(pooling, 300, 300), |pooling| pool(pooling, 300, 1));
    let (large, small) = (image(600, 1), image(301, 1));
    let gradient = |pooling| Pool2dGrad { pool: narrow(pooling), input: [600; 2] };
    let of_x_and_y = |pooling| sample(gradient(pooling), &[(&large, ANY), (&small, ANY), (&small, ANY)], 2);
    let pad = Pad2d { pads: [[300, 300]; 2], mode: PadMode::Replicate };
    let interpolation = Interpolation::Bilinear;
    let affine = Affine2d { size: [1, 1], interpolation, fill_mode: FillMode::Constant, fill_value: 0.0 };
    let mut refused = vec![
        sample(Accumulate, &[(&[2], ANY), (&[Batch], ANY)], LONG),
        sample(GatherGrad { rows: 3 }, &[(&[Batch], Fill::Index(3)), (&[Batch, 2], ANY)], LONG),
        sample(reduce(ReduceKind::Sum, &[0]), &[(&[Batch, 3], ANY)], LONG),
        sample(whole(Pooling::Max), &[(&image(300, 1), ANY)], 2),
        sample(whole(average), &[(&image(300, 1), ANY)], 2),
        sample(whole(Pooling::L2), &[(&image(300, 1), ANY)], 2),
        of_x_and_y(Pooling::Max),
        of_x_and_y(Pooling::L2),
        sample(gradient(average), &[(&small, ANY)], 2),
        sample(Pad2dGrad { pad }, &[(&image(601, 1), ANY)], 1),
        sample(Resize2dGrad { size: [1, 1], interpolation }, &[(&image(300, 1), ANY)], 2),
        sample(affine, &[(&image(1, LONG), ANY), (&[Batch, 6], ANY)], 2),
        sample(Argmax { axis: 1 }, &[(&[Batch, LONG], ANY)], 2),
        sample(suppression, &[(&[Batch, 64_000, 4], ANY), (&[Batch, 1, 64_000], ANY)], 2),
        sample(TopK { k: 2 }, &[(&[Batch, LONG], ANY)], 2),
        sample(TopKGrad { columns: LONG }, &[(&[Batch, LONG], Fill::Index(LONG)), (&[Batch, LONG], ANY)], 2),
        sample(CategoricalAccuracy { sparse: true, k: 1 }, &[(&[Batch, LONG], ANY), (&[Batch], Fill::Index(LONG))], 2),
    ];
    for kind in [CellKind::Simple, CellKind::Lstm, CellKind::GruBefore] {
        let gate = if kind == CellKind::Simple { CellActivation::Linear } else { CellActivation::Sigmoid };
        let cell = Cell { kind, activation: CellActivation::Tanh, gate };
        let (narrow, wide) = ([Batch, LONG, 1], [Batch, LONG, cell.gates()]);
        refused.push(sample(Recurrent { cell }, &[(&wide, ANY), (&[1, cell.gates()], ANY)], 1));
        let (gates, kernel, dy) = ((&wide[..], ANY), (&[cell.gates(), 1][..], ANY), (&narrow[..], ANY));
        let inputs = if kind == CellKind::Simple { vec![dy, kernel, dy] } else { vec![gates, kernel, dy, dy] };
        refused.push(sample(RecurrentGrad { cell }, &inputs, 1));
    }
    refused
}

#[test]
fn sums_of_very_many_terms_are_complete_or_refused() {
    let mut rng = Philox::new(11, Purpose::Test, 0);
    let failed: Vec<String> =
        complete().iter().filter_map(|s| check_sample(s, &mut rng, &Run::default()).err().map(|e| e.0)).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    for sample in refused() {
        let (graph, ..) = sample_graph(&sample);
        let options = PlanOptions::new(sample.capacity, engine().profile().clone());
        let limit = options.profile.max_iterations;
        match plan(&graph, &options) {
            Ok(_) if limit == u64::MAX => {}
            Err(PlanError::TooLong { iterations, .. }) if iterations > limit => {}
            other => panic!("{}: {other:?}", sample.op.name()),
        }
    }
}

#[test]
fn every_operation_whose_kernels_have_loops_is_among_the_long_sums() {
    let samples: Vec<Sample> = complete().into_iter().chain(refused()).collect();
    let long: BTreeSet<&str> = samples.iter().map(|sample| sample.op.name()).collect();
    let has_loops = |sample: &Sample| {
        let (graph, _, outputs) = sample_graph(sample);
        let io = graph.io(graph.node(outputs[0]));
        let candidates = profiles().into_iter().flat_map(|profile| sample.op.lower(&io, &profile, None));
        candidates.flat_map(|c| c.dispatches).any(|d| max_iterations(&d, 64, 65_535).is_ok_and(|i| i > SHORT))
    };
    let missing = FAMILIES.iter().filter(|family| {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 3);
        let samples: Vec<Sample> = (0..16).map(|_| (family.sample)(&mut rng)).collect();
        let benches = (family.benches)().into_iter().map(|(_, sample)| sample);
        let looped: Vec<Sample> = samples.into_iter().chain(benches).filter(has_loops).collect();
        !looped.is_empty() && !looped.iter().any(|sample| long.contains(sample.op.name()))
    });
    let missing: Vec<&str> = missing.map(|family| family.name).collect();
    assert!(missing.is_empty(), "no sample in `complete` or `refused`: {missing:?}");
}

/// A sum of the last axis in a loop, written as an application would.
#[derive(Debug)]
struct Total(&'static str);

impl Op for Total {
    fn name(&self) -> &'static str {
        "total"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        Ok(vec![TensorType::f32([Batch, inputs[0].shape.last().min(1)])])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let sums: Vec<f64> = inputs[0].data.chunks(inputs[0].shape[1]).map(|row| row.iter().sum()).collect();
        vec![Array { shape: vec![sums.len(), 1], data: sums }]
    }

    fn vjp(&self, _g: &mut Graph, _x: &[Value], _y: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let source = format!(
            "override C: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let row = (id.x + id.y * counts.x) * 64u + lane;
    if (row >= step.n) {{ return; }}
    var sum = 0.0;
    {} {{ sum += x[i]; }}
    y[row] = sum;
}}
",
            self.0
        );
        let (constants, rows) = ([("C", io.inputs[0].shape.last() as f64)], io.inputs[0].shape.rows());
        let slots = vec![Slot::input(0), Slot::output(0)];
        let dispatch = kernels::dispatch("total", source, &constants, Grid::new(rows, 64), slots, None);
        vec![Candidate::single("rows", dispatch)]
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Products { terms: io.inputs[0].shape.last() as u64 }]
    }
}

#[test]
fn loops_of_an_operation_from_outside_the_crate_are_counted_though_it_states_nothing() {
    let plan_of = |source, columns: usize| {
        let (graph, ..) = sample_graph(&sample(Total(source), &[(&[Batch, columns], ANY)], 3));
        plan(&graph, &PlanOptions::new(3, DeviceProfile::portable(DeviceClass::Cpu)))
    };
    let sum = "for (var i = row * C; i < (row + 1u) * C; i++)";
    for (columns, is_run) in [(100, true), (65_535, true), (65_536, false), (100_000, false)] {
        match plan_of(sum, columns) {
            Ok(_) if is_run => {}
            Err(PlanError::TooLong { iterations, .. }) if !is_run => assert_eq!(iterations, columns as u64),
            other => panic!("{columns}: {other:?}"),
        }
    }
    let by_data = "for (var i = row * C; i < u32(x[row]); i++)";
    let Err(PlanError::Unbounded { source, .. }) = plan_of(by_data, 9) else { panic!("a plan") };
    assert_eq!(source.kernel, "total");
}

#[test]
fn sums_of_any_length_are_cut_so_that_their_loops_are_short_enough() {
    let mut samples = Vec::new();
    for k in (1..100).map(|i| 2_003 * i) {
        for [m, n] in [[3, 2], [32, 64]] {
            samples.push(sample(matmul(false), &[(&[m, k], ANY), (&[k, n], ANY)], 1));
        }
        samples.push(sample(reduce(ReduceKind::Sum, &[1]), &[(&[Batch, k], ANY)], 2));
    }
    for side in (16..320).step_by(19) {
        for [from, to] in [[1, 1], [3, 9]] {
            let options = Conv2dOptions::explicit([[1, 1]; 2]).strides([1; 2]);
            let geometry = Geometry::new([side; 2], [3; 2], options).expect("the kernel fits");
            let weight = Conv2dGradWeight { geometry, column_sums: false };
            samples.push(sample(weight, &[(&image(side, from), ANY), (&image(side, to), ANY)], 128));
        }
        samples.push(sample(BatchNorm { epsilon: 1e-3 }, &[(&image(side, 2), ANY), (&[2], ANY), (&[2], ANY)], 128));
    }
    for profile in profiles() {
        for sample in &samples {
            let (graph, ..) = sample_graph(sample);
            let options = PlanOptions::new(
                sample.capacity,
                DeviceProfile { max_binding_bytes: 1 << 40, max_buffer_bytes: 1 << 40, ..profile.clone() },
            );
            if let Err(e) = plan(&graph, &options) {
                panic!("{:?}: {e}", sample.inputs);
            }
        }
    }
}
