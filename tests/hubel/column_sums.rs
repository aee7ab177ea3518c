//! Kernels of GPUs that leave column sums of what they compute, and compute what they load, here on any adapter: convolutions under
//! batch normalisation, forward and back.

use crate::harness::{Run, engine, reference, with_gpu_kernels};
use hubel::{
    graph::{Candidate, ColumnSums, DeviceProfile, Epilogue, Fill, Graph, Io, Op, OpError, Step, TensorType},
    ops::{BatchNormStatistics, Conv2dOptions, Padding, Pool2dOptions},
    passes::PlannedDispatch,
    prelude::*,
    tensor::{Accuracy, Array, Philox, Purpose},
    testing::{plan_for, run_graph},
};

/// A convolution of images under batch normalisation, behind another one: their sizes.
struct Case {
    capacity: usize,
    n: usize,
    size: [usize; 2],
    channels: [usize; 3],
    kernel: usize,
    strides: [usize; 2],
    groups: usize,
    /// Whether the first convolution has 3×3 taps and overlapping windows are pooled behind it, as where a network begins: its images need
    /// no gradient.
    stem: bool,
    /// Whether what goes into a convolution is added to its result, and that sum to the result of a third convolution.
    residual: bool,
    /// Whether a convolution of one pixel stands beside the second one, with the same strides.
    shortcut: bool,
}

/// Returns a graph of both, with the gradients to all inputs, and its feeds.
fn training(case: &Case, rng: &mut Philox) -> (Graph, Vec<(String, Array)>) {
    let (mut g, mut feeds) = (Graph::new(), Vec::new());
    let [c0, c1, c2] = case.channels;
    let mut input = |g: &mut Graph, name: &str, shape: Shape, fill: Fill| {
        feeds.push((name.to_owned(), fill.array(&shape.at(case.n), rng)));
        g.input(name, shape, F32)
    };
    let [h, w] = case.size;
    let any = Fill::Uniform(-1.0, 1.0);
    let mut values = vec![input(&mut g, "x", Shape::from([Batch, h, w, c0]), any)];
    let mut y = values[0];
    let first = if case.stem { 3 } else { 1 };
    let mut layers = vec![(c0, c1, first, 1), (c1, c2, case.kernel, case.groups)];
    layers.extend(case.residual.then_some((c2, c1, 1, 1)));
    layers.extend(case.shortcut.then_some((c1, c2, 1, 1)));
    let mut beside = None;
    for (layer, (from, to, kernel, groups)) in layers.into_iter().enumerate() {
        let weights = input(&mut g, &format!("w{layer}"), Shape::fixed([kernel, kernel, from / groups, to]), any);
        let gamma = input(&mut g, &format!("gamma{layer}"), Shape::fixed([to]), Fill::Away(0.5, 1.5));
        let beta = input(&mut g, &format!("beta{layer}"), Shape::fixed([to]), any);
        let before = y;
        let strides = if layer == 0 { [1, 1] } else { case.strides };
        let options =
            Conv2dOptions { padding: Padding::Same, ..Conv2dOptions::valid().strides(strides).groups(groups) };
        let read = beside.map_or(y, |(read, _)| read);
        let result = g.conv2d(read, weights, options).expect("a convolution");
        y = g.batch_norm(result, gamma, beta, 1e-3).expect("a normalisation")[0];
        values.extend([weights, gamma, beta]);
        if let Some((_, other)) = beside {
            y = g.add(other, y).expect("equal shapes");
        } else if case.shortcut && layer == 1 {
            beside = Some((read, y));
            continue;
        }
        if case.residual && layer > 0 {
            y = g.add(y, before).expect("equal shapes");
        }
        y = g.relu(y).expect("an activation");
        if case.stem && layer == 0 {
            let windows = Pool2dOptions::new(3).strides(2).padding(Padding::Same);
            y = g.max_pool2d(y, windows).expect("a pooling");
        }
    }
    let shape = g.shape(y).clone();
    let factor = input(&mut g, "factor", shape, any);
    let product = g.mul(y, factor).expect("equal shapes");
    let loss = g.mean(product).expect("a number");
    let gradients = g.gradients(loss, &values[usize::from(case.stem)..]).expect("gradients");
    for (i, &value) in [y].iter().chain(&gradients).enumerate() {
        g.output(&format!("y{i}"), value);
    }
    (g, feeds)
}

/// Returns the convolutions that are tried.
fn cases() -> Vec<Case> {
    let case = |capacity, n, size, channels, kernel, strides| Case {
        capacity,
        n,
        size,
        channels,
        kernel,
        strides,
        groups: 1,
        stem: false,
        residual: false,
        shortcut: false,
    };
    let depthwise = |n, size, [from, channels]: [usize; 2], kernel, strides| Case {
        groups: channels,
        ..case(n + 1, n, size, [from, channels, channels], kernel, strides)
    };
    vec![
        case(4, 4, [9, 11], [8, 32, 64], 3, [1, 1]),
        case(5, 3, [7, 7], [16, 64, 36], 3, [2, 2]),
        case(16, 16, [6, 5], [33, 35, 37], 1, [1, 1]),
        case(9, 9, [12, 12], [32, 128, 128], 3, [1, 1]),
        case(2, 2, [10, 9], [3, 16, 20], 2, [2, 1]),
        depthwise(4, [9, 11], [8, 32], 3, [1, 1]),
        depthwise(3, [15, 8], [4, 24], 3, [2, 2]),
        depthwise(3, [13, 9], [5, 36], 5, [1, 1]),
        depthwise(2, [7, 7], [8, 20], 7, [2, 1]),
        depthwise(5, [6, 9], [3, 6], 3, [1, 2]),
        depthwise(2, [12, 5], [4, 7], 5, [1, 1]),
        Case { residual: true, ..case(5, 4, [9, 7], [6, 64, 64], 3, [1, 1]) },
        Case { residual: true, ..case(3, 3, [10, 11], [8, 36, 36], 3, [1, 1]) },
        Case { residual: true, ..case(2, 2, [7, 6], [4, 33, 33], 2, [1, 1]) },
        Case { shortcut: true, ..case(4, 3, [9, 8], [8, 64, 36], 1, [2, 2]) },
        Case { shortcut: true, ..case(2, 2, [7, 10], [4, 128, 128], 1, [2, 3]) },
        Case { shortcut: true, ..case(3, 3, [10, 5], [5, 33, 34], 1, [1, 2]) },
        Case { shortcut: true, ..case(5, 4, [9, 8], [8, 64, 36], 3, [2, 2]) },
        Case { shortcut: true, ..case(2, 2, [8, 11], [3, 18, 20], 3, [3, 2]) },
        Case { stem: true, ..case(3, 2, [15, 12], [6, 32, 40], 1, [1, 1]) },
        Case { stem: true, ..case(4, 4, [8, 21], [3, 10, 7], 3, [1, 1]) },
    ]
}

#[test]
fn batch_normalisation_of_what_kernels_leave_column_sums_of_is_that_of_the_reference() {
    let mut rng = Philox::new(31, Purpose::Test, 0);
    let (mut left, mut loaded, mut of_stems, mut kept, mut zeros) = ([0; 2], 0, [0; 3], [0; 2], 0);
    for (i, case) in cases().iter().enumerate() {
        let (g, feeds) = training(case, &mut rng);
        let step = Step::of(case.n);
        let exact = reference(&g, &feeds, &step);
        let feeds: Vec<_> = feeds.into_iter().map(|(name, a)| (name, a.to_host(F32))).collect();
        for multiprocessors in [1, 200] {
            let engine = with_gpu_kernels(engine(), multiprocessors);
            let run = Run { optimize: true, guarded: true, ..Run::default() };
            let plan = plan_for(&engine, &g, case.capacity, &run).expect("a plan");
            let all: Vec<&PlannedDispatch> = plan.dispatches.iter().flat_map(PlannedDispatch::launches).collect();
            let launches = |kernel: &str| all.iter().filter(|d| d.kernel == kernel).count();
            let loads = |d: &&PlannedDispatch| d.source.contains("fn prologue");
            zeros += all.iter().filter(|d| d.source.contains("zeros0_0")).count();
            loaded += all.iter().copied().filter(loads).count();
            for (n, side) in kept.iter_mut().zip(["prologue0_kept", "prologue1_kept"]) {
                *n += all.iter().filter(|d| d.source.contains(side)).count();
            }
            let kernels = ["max_pool2d", "max_pool2d_grad", "conv2d_grad_weight"];
            for (n, kernel) in of_stems.iter_mut().zip(kernels).filter(|_| case.stem) {
                *n += all.iter().copied().filter(|d| d.kernel == kernel && loads(d)).count();
            }
            left[0] += launches("batch_norm_statistics_merge") - launches("batch_norm_statistics");
            left[1] += launches("batch_norm_sums_merge") - launches("batch_norm_grad_sums");
            let got = run_graph(&engine, &g, &feeds, &step, case.capacity, &run).expect("the graph runs");
            assert_near(&got, &exact, &format!("case {i}\n{plan}"));
        }
    }
    assert!(left[0] >= 24 && left[1] >= 10, "only {left:?} column sums are left by other kernels");
    // The gradient of a pooling with all that it computes binds 13 buffers.
    let of_pools = if engine().profile().max_storage_buffers < 13 { 0 } else { 4 };
    assert_eq!(
        of_stems,
        [of_pools, of_pools, 8],
        "poolings and gradients of the first convolution compute what they load"
    );
    assert!(kept[0] >= 6 && kept[1] >= 8, "only {kept:?} kernels keep what they compute of what they load");
    assert_eq!(zeros, 6, "of two gradients of convolutions of one pixel with strides, one stores zeros");
    assert!(loaded >= 20, "only {loaded} kernels compute what they load");
}

/// Panics where a result differs by more than rounding does.
fn assert_near(got: &[HostTensor], exact: &[Array], what: &str) {
    for (k, (got, exact)) in got.iter().zip(exact).enumerate() {
        let size = exact.data.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        for (j, (got, exact)) in got.to_f32().iter().zip(&exact.data).enumerate() {
            let error = (f64::from(*got) - exact).abs();
            assert!(error <= 1e-5 * size, "output {k} [{j}]: {got}, wanted {exact}; {what}");
        }
    }
}

#[test]
fn what_a_convolution_loads_is_scaled_by_the_gates_of_its_sample() {
    let mut rng = Philox::new(32, Purpose::Test, 0);
    let mut of_samples = 0;
    for (capacity, n, [h, w], [from, to]) in
        [(3, 3, [9, 7], [32, 36]), (5, 4, [4, 4], [260, 8]), (2, 2, [12, 13], [33, 16]), (16, 16, [1, 2], [64, 64])]
    {
        let (mut g, mut feeds) = (Graph::new(), Vec::new());
        let mut input = |g: &mut Graph, name: &str, shape: Shape| {
            feeds.push((name.to_owned(), Fill::Uniform(-1.0, 1.0).array(&shape.at(n), &mut rng)));
            g.input(name, shape, F32)
        };
        let x = input(&mut g, "x", Shape::from([Batch, h, w, from]));
        let gate = input(&mut g, "gate", Shape::from([Batch, 1, 1, from]));
        let weights = input(&mut g, "w", Shape::fixed([1, 1, from, to]));
        let factor = input(&mut g, "factor", Shape::from([Batch, h, w, to]));
        let scaled = g.mul(x, gate).expect("shapes that broadcast");
        let y = g.conv2d(scaled, weights, Conv2dOptions::valid()).expect("a convolution");
        let product = g.mul(y, factor).expect("equal shapes");
        let loss = g.mean(product).expect("a number");
        let gradients = g.gradients(loss, &[x, gate, weights]).expect("gradients");
        for (i, &value) in [y].iter().chain(&gradients).enumerate() {
            g.output(&format!("y{i}"), value);
        }
        let step = Step::of(n);
        let exact = reference(&g, &feeds, &step);
        let feeds: Vec<_> = feeds.into_iter().map(|(name, a)| (name, a.to_host(F32))).collect();
        for multiprocessors in [1, 200] {
            let engine = with_gpu_kernels(engine(), multiprocessors);
            let run = Run { optimize: true, guarded: true, ..Run::default() };
            let plan = plan_for(&engine, &g, capacity, &run).expect("a plan");
            let all = plan.dispatches.iter().flat_map(PlannedDispatch::launches);
            of_samples += all.filter(|d| d.source.contains("_sample")).count();
            let got = run_graph(&engine, &g, &feeds, &step, capacity, &run).expect("the graph runs");
            assert_near(&got, &exact, &format!("{n} images of {h}×{w}\n{plan}"));
        }
    }
    assert!(of_samples >= 8, "only {of_samples} kernels find the gates of a sample");
}

/// Column sums as an application would write them.
#[derive(Debug)]
struct Foreign(BatchNormStatistics);

impl Op for Foreign {
    fn name(&self) -> &'static str {
        "foreign"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        self.0.infer(inputs)
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        self.0.reference(inputs, step)
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        self.0.lower(io, profile, epilogue)
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        self.0.accuracy(io, n)
    }

    fn column_sums(&self) -> Option<&dyn ColumnSums> {
        self.0.column_sums()
    }
}

#[test]
fn a_kernel_that_leaves_column_sums_to_another_crates_operation_is_checked() {
    let trusted = |foreign: bool| {
        let mut g = Graph::new();
        let x = g.input("x", [Batch, 16, 16, 32], F32);
        let w = g.input("w", [1, 1, 32, 64], F32);
        let [gamma, beta] = ["gamma", "beta"].map(|name| g.input(name, [64], F32));
        let y = g.conv2d(x, w, Conv2dOptions::valid()).expect("a convolution");
        let statistics = BatchNormStatistics { epsilon: 1e-3 };
        let inputs = [y, gamma, beta];
        let sums = if foreign { g.apply(Foreign(statistics), &inputs) } else { g.apply(statistics, &inputs) };
        g.output("y", y);
        g.output("mean", sums.expect("statistics")[0]);
        let run = Run { optimize: true, ..Run::default() };
        let plan = plan_for(&with_gpu_kernels(engine(), 4), &g, 8, &run).expect("a plan");
        let kernels: Vec<&str> = plan.dispatches.iter().map(|d| d.kernel.as_str()).collect();
        assert_eq!(kernels, ["conv2d", "batch_norm_statistics_merge"]);
        plan.trusted()
    };
    assert_eq!([trusted(false), trusted(true)], [[true; 2], [false; 2]]);
}
