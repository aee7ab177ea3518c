//! Launches that run as one, on plans for GPUs that any adapter runs.

use crate::harness::{Run, engine, with_gpu_kernels};
use hubel::{
    graph::{Fault, Fill, Graph, Step, Value},
    ops::Conv2dOptions,
    passes::PlannedDispatch,
    prelude::*,
    tensor::{Philox, Purpose},
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
    assert!(joined >= 60 && noticed == 18, "{joined} launches are several, {noticed} faults are noticed");
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
        assert_eq!((all, d.constants.len()), (d.bindings.len(), 0), "{}", d.kernel);
        let groups = |d: &PlannedDispatch, n: usize| d.grid.at(n, u32::MAX)[0];
        for n in 1..=8 {
            let own: u32 = d.launches().iter().map(|member| groups(member, n)).sum();
            assert!(groups(d, n) >= own, "{}", d.kernel);
        }
    }
}
