//! Launches that run as one, on plans for GPUs that any adapter runs.

use crate::harness::{Run, engine, reference, with_gpu_kernels};
use hubel::{
    graph::{Fault, Fill, Graph, Op, Sample, Step, TensorType, Value},
    ops::{Conv2dOptions, Elementwise},
    passes::PlannedDispatch,
    prelude::*,
    tensor::{Array, Philox, Purpose},
    testing::{plan_for, run_graph},
};

/// Returns a graph of two normalised convolutions of the same images, with the gradients to all inputs, and its feeds for `n` images.
fn branches(n: usize, channels: [usize; 3], rng: &mut Philox) -> (Graph, Vec<(String, HostTensor)>) {
    let (mut g, mut feeds) = (Graph::new(), Vec::new());
    let mut input = |g: &mut Graph, name: &str, shape: Shape| {
        feeds.push((name.to_owned(), Fill::Away(0.2, 1.0).array(&shape.at(n), rng).to_host(F32)));
        g.input(name, shape, F32)
    };
    let [from, middle, to] = channels;
    let x = input(&mut g, "x", Shape::from([Batch, 9, 7, from]));
    let mut values = vec![x];
    let mut branch = |g: &mut Graph, name: &str, kernel: usize| -> Value {
        let weights = input(g, &format!("{name}_w"), Shape::fixed([kernel, kernel, from, middle]));
        let [gamma, beta] = ["gamma", "beta"].map(|kind| input(g, &format!("{name}_{kind}"), Shape::fixed([middle])));
        let y = g.conv2d(x, weights, Conv2dOptions::same()).expect("a convolution");
        let y = g.batch_norm(y, gamma, beta, 1e-3).expect("a normalisation")[0];
        values.extend([weights, gamma, beta]);
        g.relu(y).expect("an activation")
    };
    let [a, b] = [("a", 1), ("b", 3)].map(|(name, kernel)| branch(&mut g, name, kernel));
    let sum = g.add(a, b).expect("equal shapes");
    let w = input(&mut g, "w", Shape::fixed([1, 1, middle, to]));
    let y = g.conv2d(sum, w, Conv2dOptions::valid()).expect("a convolution");
    values.push(w);
    let squares = g.mul(y, y).expect("equal shapes");
    let loss = g.mean(squares).expect("a number");
    for (i, d) in g.gradients(loss, &values).expect("gradients").into_iter().enumerate() {
        g.output(&format!("d{i}"), d);
    }
    g.output("y", y);
    (g, feeds)
}

#[test]
fn launches_that_run_as_one_compute_what_they_do_one_after_another() {
    let mut rng = Philox::new(77, Purpose::Test, 0);
    let (mut joined, mut noticed) = (0, 0);
    for (capacity, n, channels) in [(4, 4, [16, 32, 48]), (7, 3, [8, 36, 20]), (5, 5, [3, 7, 5])] {
        let (g, feeds) = branches(n, channels, &mut rng);
        for multiprocessors in [1, 16, 200] {
            let engine = with_gpu_kernels(engine(), multiprocessors);
            for guarded in [false, true] {
                let fault = Fault { what: "a workgroup more", from: "let end0 = ", to: "let end0 = 1u + " };
                let run = Run { optimize: true, guarded, ..Run::default() };
                let plan = plan_for(&engine, &g, capacity, &run).expect("a plan");
                joined += plan.dispatches.iter().filter(|d| d.launches().len() > 1).count();
                let bits = |run: &Run| -> Option<Vec<Vec<u8>>> {
                    let got = run_graph(&engine, &g, &feeds, &Step::of(n), capacity, run);
                    Some(got.ok()?.iter().map(|t| t.bytes().to_vec()).collect())
                };
                let together = bits(&run).expect("the graph runs");
                assert_eq!(bits(&Run { apart: true, ..run.clone() }), Some(together.clone()), "{plan}");
                noticed += usize::from(bits(&Run { fault: Some(&fault), ..run.clone() }) != Some(together));
            }
        }
    }
    assert!(joined >= 40 && noticed == 18, "{joined} launches are several, {noticed} faults are noticed");
}

#[test]
fn launches_that_run_as_one_are_independent_and_bind_no_buffer_twice_but_to_read_it() {
    let mut rng = Philox::new(78, Purpose::Test, 0);
    let (g, _) = branches(8, [16, 32, 64], &mut rng);
    let plan = plan_for(&with_gpu_kernels(engine(), 132), &g, 8, &Run { optimize: true, ..Run::default() });
    let plan = plan.expect("a plan");
    let both = |d: &PlannedDispatch| d.kernel == "batch_norm_statistics_merge" && d.launches().len() == 2;
    assert!(plan.dispatches.iter().any(both), "{plan}");
    for d in plan.dispatches.iter().filter(|d| d.launches().len() > 1) {
        let all = d.launches().iter().flat_map(|member| &member.bindings).count();
        assert_eq!((all + 1, d.constants.len()), (d.bindings.len(), 0), "{}", d.kernel);
        let groups = |d: &PlannedDispatch, n: usize| d.grid.at(n, u32::MAX)[0];
        for n in 1..=8 {
            let own: u32 = d.launches().iter().map(|member| groups(member, n)).sum();
            assert!(groups(d, n) >= own, "{}", d.kernel);
        }
    }
}

/// Returns a block whose layers each read what all before them have left, with the gradients to all inputs, and its feeds.
fn dense_block(n: usize, first: usize, growth: usize, rng: &mut Philox) -> (Graph, Vec<(String, Array)>) {
    let (mut g, mut feeds) = (Graph::new(), Vec::new());
    let mut input = |g: &mut Graph, name: String, shape: Shape| {
        feeds.push((name.clone(), Fill::Uniform(-1.0, 1.0).array(&shape.at(n), rng)));
        g.input(&name, shape, F32)
    };
    let mut x = input(&mut g, "x".into(), Shape::from([Batch, 6, 5, first]));
    let mut values = vec![x];
    let normal = |g: &mut Graph, x: Value, gamma: Value, beta: Value| {
        let y = g.batch_norm(x, gamma, beta, 1e-3).expect("a normalisation")[0];
        g.relu(y).expect("an activation")
    };
    for layer in 0..3 {
        let mut y = x;
        for (half, [from, to, kernel]) in
            [[first + layer * growth, 2 * growth, 1], [2 * growth, growth, 3]].into_iter().enumerate()
        {
            let gamma = input(&mut g, format!("gamma{layer}_{half}"), Shape::fixed([from]));
            let beta = input(&mut g, format!("beta{layer}_{half}"), Shape::fixed([from]));
            let w = input(&mut g, format!("w{layer}_{half}"), Shape::fixed([kernel, kernel, from, to]));
            values.extend([gamma, beta, w]);
            let normalised = normal(&mut g, y, gamma, beta);
            y = g.conv2d(normalised, w, Conv2dOptions::same()).expect("a convolution");
        }
        x = g.concat(&[x, y], 3).expect("equal sizes");
    }
    let shape = g.shape(x).clone();
    let factor = input(&mut g, "factor".into(), shape);
    let product = g.mul(x, factor).expect("equal shapes");
    let loss = g.mean(product).expect("a number");
    for (i, d) in g.gradients(loss, &values).expect("gradients").into_iter().enumerate() {
        g.output(&format!("d{i}"), d);
    }
    (g, feeds)
}

#[test]
fn a_dense_block_copies_no_columns_of_gradients_and_takes_statistics_once() {
    let mut rng = Philox::new(79, Purpose::Test, 0);
    for (n, first, growth) in [(3, 16, 8), (2, 7, 6), (4, 8, 5)] {
        let (g, feeds) = dense_block(n, first, growth, &mut rng);
        let exact = reference(&g, &feeds, &Step::of(n));
        let feeds: Vec<_> = feeds.into_iter().map(|(name, a)| (name, a.to_host(F32))).collect();
        for multiprocessors in [1, 132] {
            let engine = with_gpu_kernels(engine(), multiprocessors);
            let run = Run { optimize: true, guarded: true, ..Run::default() };
            let plan = plan_for(&engine, &g, n + 1, &run).expect("a plan");
            let count = |kernel: &str| {
                plan.dispatches.iter().flat_map(PlannedDispatch::launches).filter(|d| d.kernel == kernel).count()
            };
            // The gradient to the whole concatenation is what the caller gives; its parts are columns of a product.
            assert_eq!([count("slice"), count("batch_norm_statistics_join")], [0, 2], "{plan}");
            let got = run_graph(&engine, &g, &feeds, &Step::of(n), n + 1, &run).expect("the graph runs");
            for (k, (got, exact)) in got.iter().zip(&exact).enumerate() {
                let size = exact.data.iter().fold(0.0f64, |most, x| most.max(x.abs()));
                let error =
                    got.to_f32().iter().zip(&exact.data).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                assert!(error <= 2e-5 * size, "output {k}: off by {error} of {size}\n{plan}");
            }
        }
    }
}

#[test]
fn columns_of_wider_rows_are_read_where_they_are() {
    let mut rng = Philox::new(80, Purpose::Test, 0);
    for case in 0..24 {
        let quads = if case % 2 == 0 { 4 } else { 1 };
        let [n, start, more] = [1 + rng.below(5), rng.below(4), rng.below(4)].map(|n| n * quads);
        let [wide, full] = [Shape::from([Batch, 3, start + n + more]), Shape::from([Batch, 3, n])];
        let operands = [wide.clone(), Shape::fixed([start + n + more]), full.clone()].map(TensorType::f32);
        let inputs = operands.map(|ty| (ty, Fill::Uniform(-1.0, 1.0)));
        let starts = vec![Some(start), Some(start), None];
        let op = Elementwise { shape: Some(full), starts, ..Elementwise::named("where").expect("a function") };
        let sample = Sample::new(op.clone(), inputs.to_vec(), 5).with_n(4);
        for engine in [engine().clone(), with_gpu_kernels(engine(), 8)] {
            let run = Run { guarded: true, asserted: false, ..Run::default() };
            hubel::testing::check_sample(&engine, &sample, &mut rng, &run).expect("what the definition says");
        }
        let arrays = sample.arrays(&mut rng);
        let got = op.reference(&arrays.iter().collect::<Vec<_>>(), &Step::of(4)).swap_remove(0);
        let all = start + n + more;
        for (i, got) in got.data.iter().enumerate() {
            let [a, b] = [arrays[0].data[i / n * all + start + i % n], arrays[1].data[start + i % n]];
            assert_eq!(*got, if a > 0.0 { b } else { arrays[2].data[i] });
        }
        let short = Elementwise { starts: vec![Some(more + start + 1), None, None], ..op };
        let types: Vec<TensorType> = sample.inputs.iter().map(|i| i.0.clone()).collect();
        assert!(short.infer(&types).is_err(), "rows end before the columns do");
    }
}
