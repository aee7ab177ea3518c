//! Sums of very many terms are complete: llvmpipe silently ends all loops of an invocation after 65,535 turns.

use crate::harness::{Run, check_sample, engine, sample_graph};
use hubel::{
    graph::{Fill, Op, Sample, TensorType},
    ops::*,
    passes::{PlanError, PlanOptions, plan},
    prelude::*,
    tensor::{Philox, Purpose},
};

const LONG: usize = 200_003;
const NEARLY: usize = 64_525;
const ANY: Fill = Fill::Uniform(-1.0, 1.0);
const BETWEEN: Fill = Fill::Uniform(0.5, 2.0);

fn sample(op: impl Op + 'static, inputs: &[(&[usize], Fill)], n: usize) -> Sample {
    let typed = |&(dims, fill): &(&[usize], Fill)| {
        let dtype = if matches!(fill, Fill::Index(_)) { DType::U32 } else { F32 };
        (TensorType::new(dims, dtype), fill)
    };
    Sample::new(op, inputs.iter().map(typed).collect(), n)
}

#[test]
fn sums_of_very_many_terms_are_complete_or_refused() {
    let geometry = |input, kernel, strides: usize, pad: usize| {
        let options = Conv2dOptions::explicit([[pad, pad]; 2]).strides([strides; 2]);
        Geometry::new([input; 2], [kernel; 2], options).expect("the kernel fits")
    };
    let reduce = |kind, axes: &[usize]| Reduce { kind, axes: axes.to_vec(), keep_dims: false };
    let weight = |geometry, column_sums| Conv2dGradWeight { geometry, column_sums };
    let (matmul_plain, transposed) =
        (MatmulOptions::default(), MatmulOptions { transpose_a: true, transpose_b: false });
    let matmul = |options| Matmul { options, column_sums: false };
    let depthwise = Geometry { groups: 2, ..geometry(320, 3, 1, 1) };
    let grouped = |groups| GroupNorm { groups, epsilon: 1e-3 };
    let picture = |side: usize, c: usize| [Batch, side, side, c];
    let complete = [
        sample(BatchNorm { epsilon: 1e-3 }, &[(&picture(320, 1), ANY), (&[1], ANY), (&[1], ANY)], 3),
        sample(BatchNorm { epsilon: 1e-3 }, &[(&[Batch, 3, 9], ANY), (&[9], ANY), (&[9], ANY)], LONG),
        sample(weight(geometry(320, 3, 1, 1), false), &[(&picture(320, 1), ANY), (&picture(320, 1), ANY)], 2),
        sample(weight(geometry(48, 5, 1, 0), true), &[(&picture(48, 1), ANY), (&picture(44, 6), ANY)], 128),
        sample(weight(geometry(64, 7, 2, 3), false), &[(&picture(64, 3), ANY), (&picture(32, 9), ANY)], 100),
        sample(weight(geometry(600, 3, 2, 1), true), &[(&picture(600, 1), ANY), (&picture(300, 2), ANY)], 3),
        sample(Conv2d { options: Conv2dOptions::valid() }, &[(&picture(270, 1), ANY), (&[270, 270, 1, 1], ANY)], 1),
        sample(weight(depthwise, true), &[(&picture(320, 2), ANY), (&picture(320, 4), ANY)], 128 / 8),
        sample(grouped(2), &[(&picture(320, 4), ANY), (&[4], ANY), (&[4], ANY)], 2),
        sample(grouped(1), &[(&[Batch, 3], ANY), (&[3], ANY), (&[3], ANY)], LONG),
        sample(
            GroupNormGrad { norm: grouped(1) },
            &[
                (&picture(320, 3), ANY),
                (&[3], ANY),
                (&[Batch, 1], ANY),
                (&[Batch, 1], BETWEEN),
                (&picture(320, 3), ANY),
            ],
            2,
        ),
        sample(matmul(matmul_plain), &[(&[3, LONG], ANY), (&[LONG, 2], ANY)], 1),
        // As many turns as a driver runs, but for those that store the sums.
        sample(matmul(matmul_plain), &[(&[32, NEARLY], ANY), (&[NEARLY, 64], ANY)], 1),
        sample(reduce(ReduceKind::Sum, &[0, 1]), &[(&[Batch, 2000, 3], ANY)], 100),
        sample(reduce(ReduceKind::Mean, &[1, 2]), &[(&picture(500, 2), ANY)], 2),
        sample(reduce(ReduceKind::Max, &[1]), &[(&[Batch, LONG], ANY)], 2),
        sample(hubel::ops::Softmax { log: false }, &[(&[Batch, LONG], ANY)], 2),
        sample(SoftmaxCrossEntropy, &[(&[Batch, LONG], ANY), (&[Batch], Fill::Index(LONG))], 2),
    ];
    let refused = [
        sample(Accumulate, &[(&[2], ANY), (&[Batch], ANY)], LONG),
        sample(GatherGrad { rows: 3 }, &[(&[Batch], Fill::Index(3)), (&[Batch, 2], ANY)], LONG),
        sample(matmul(transposed), &[(&[Batch, 9], ANY), (&[Batch, 7], ANY)], LONG),
        sample(MaxPool2d { options: Pool2dOptions::new(300) }, &[(&picture(300, 1), ANY)], 2),
        sample(reduce(ReduceKind::Sum, &[0]), &[(&[Batch, 3], ANY)], LONG),
    ];
    let mut rng = Philox::new(11, Purpose::Test, 0);
    let failed: Vec<String> =
        complete.iter().filter_map(|s| check_sample(s, &mut rng, &Run::default()).err().map(|e| e.0)).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    for sample in refused {
        let (graph, ..) = sample_graph(&sample);
        let options = PlanOptions::new(sample.capacity, engine().profile().clone());
        let limit = options.profile.max_turns;
        match plan(&graph, &options) {
            Ok(_) if limit == u64::MAX => {}
            Err(PlanError::TooLong { turns, .. }) if turns > limit => {}
            other => panic!("{}: {other:?}", sample.op.name()),
        }
    }
}
