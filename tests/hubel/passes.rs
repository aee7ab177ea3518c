//! Passes change how a graph runs, never its results.

use crate::harness::{Run, engine, plan_for, reference, run_graph, sample_graph, sample_inputs, step_of};
use hubel::{
    graph::{DeviceClass, DeviceProfile, Fill, Graph, Node, Step, TensorType, Value},
    kernels::Access,
    ops::{
        Conv2dGradWeight, Conv2dOptions, Elementwise, FAMILIES, Geometry, MatmulOptions, Pad2d, PadMode, Padding,
        Pool2dOptions,
    },
    passes::{
        Binding, BufferRef, Content, Layout, Plan, PlanOptions, PlannedDispatch, Trace, Violation, optimize, plan,
        traced_plan, verify, verify_graph,
    },
    prelude::*,
    tensor::{Array, Philox, Purpose, stream_id},
};
use std::collections::HashMap;

/// A random small network of every kind of operation, its inputs, and whether to differentiate it.
fn random_graph(rng: &mut Philox, capacity: usize, n: usize, train: bool) -> (Graph, Vec<(String, HostTensor)>) {
    let mut g = Graph::new();
    let mut feeds: Vec<(String, HostTensor)> = Vec::new();
    let mut input = |g: &mut Graph, rng: &mut Philox, shape: Vec<usize>| -> Value {
        let name = format!("in{}", feeds.len());
        let v = g.input(&name, shape.clone(), F32);
        let at: Vec<usize> = shape.iter().map(|&d| if d == Batch { n } else { d }).collect();
        let data = (0..at.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
        feeds.push((name, HostTensor::f32(at, data).expect("data fits")));
        v
    };
    let _ = capacity;
    let (h, c) = (5 + rng.below(6), 1 + rng.below(5));
    let first = input(&mut g, rng, vec![Batch, h, h, c]);
    let mut weights = Vec::new();
    let mut images = vec![first];
    for _ in 0..2 + rng.below(5) {
        let x = rng.pick(&images);
        let dims = g.shape(x).dims().to_vec();
        let y = match rng.below(8) {
            0 | 1 if dims[1] >= 3 => {
                let filters = rng.pick(&[1, 3, 4, 8]);
                let w = input(&mut g, rng, vec![3, 3, dims[3], filters]);
                let b = input(&mut g, rng, vec![filters]);
                weights.extend([w, b]);
                let padding = rng.pick(&[Padding::Same, Padding::Valid]);
                let stride = 1 + rng.below(2);
                let y = g.conv2d(x, w, Conv2dOptions { padding, ..Conv2dOptions::valid().strides([stride; 2]) });
                let y = y.and_then(|y| g.add(y, b));
                if rng.below(2) == 0 { y.and_then(|y| g.relu(y)) } else { y }
            }
            2 if dims[1] >= 2 => {
                g.max_pool2d(x, Pool2dOptions { pool: [2, 2], strides: [2, 2], padding: Padding::Same })
            }
            3 => {
                let (gamma, beta) = (input(&mut g, rng, vec![dims[3]]), input(&mut g, rng, vec![dims[3]]));
                weights.extend([gamma, beta]);
                g.batch_norm(x, gamma, beta, 1e-3).map(|y| y[0])
            }
            4 => {
                let other = images.iter().copied().find(|&v| g.shape(v) == g.shape(x));
                g.add(x, other.unwrap_or(x))
            }
            5 => g.tanh(x),
            6 => g.sigmoid(x).and_then(|y| g.mul(x, y)),
            _ => g.scale(x, 0.5).and_then(|y| g.relu(y)),
        };
        images.push(y.expect("random graphs are valid"));
    }
    let last = images[images.len() - 1];
    let flat = g.flatten(last).expect("an image flattens");
    let features = g.shape(flat).last();
    let w = input(&mut g, rng, vec![features, 7]);
    weights.push(w);
    let logits = g.matmul(flat, w).expect("shapes agree");
    g.output("logits", logits);
    if train {
        let p = g.log_softmax(logits).expect("a softmax");
        let square = g.mul(p, p).expect("a square");
        let loss = g.mean(square).expect("a mean");
        g.output("loss", loss);
        for (i, d) in g.gradients(loss, &weights).expect("gradients").into_iter().enumerate() {
            g.output(&format!("d{i}"), d);
        }
    }
    (g, feeds)
}

#[test]
fn a_hundred_random_graphs_compute_the_same_with_passes_on_and_off() {
    for seed in 0..100 {
        let mut rng = Philox::new(seed, Purpose::Test, 11);
        let capacity = 1 + rng.below(4);
        let n = 1 + rng.below(capacity);
        let train = seed % 2 == 1;
        let (g, feeds) = random_graph(&mut rng, capacity, n, train);
        let run = |optimize: bool| {
            let run = Run { optimize, ..Run::default() };
            run_graph(&g, &feeds, &Step::of(n), capacity, &run).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{g}"))
        };
        let (plain, passed) = (run(false), run(true));
        // Fusion of bias gradients changes the order of sums; everything else keeps the bits where
        // the compiler contracts nothing.
        let exact = !train && engine().profile().class == DeviceClass::Cpu;
        let arrays: Vec<(String, Array)> = feeds.iter().map(|(name, t)| (name.clone(), t.to_array())).collect();
        let definition = reference(&g, &arrays, &Step::of(n));
        for ((a, b), exact_values) in plain.iter().zip(&passed).zip(&definition) {
            let (a, b) = (a.to_f32(), b.to_f32());
            // A bias before a normalisation has gradient 0: what is left is rounding of its terms.
            let zero = exact_values.data.iter().all(|x| x.abs() < 1e-12);
            let floor = if zero { 1e-2 } else { 1e-3 };
            let scale = a.iter().fold(floor, |m: f32, x| m.max(x.abs()));
            for (i, (x, y)) in a.iter().zip(&b).enumerate() {
                let same = x.to_bits() == y.to_bits() || (!exact && (x - y).abs() <= 1e-4 * scale);
                assert!(same, "seed {seed}, element {i}: {x} unfused, {y} fused\n{g}");
            }
        }
    }
}

/// Returns the bytes of a binding that hold values: a uniform buffer of some samples may end behind the last one.
fn live(d: &PlannedDispatch, b: &Binding, capacity: usize) -> u64 {
    let (samples, bytes) = (d.samples.clone(), b.range.bytes);
    if b.access != Access::Uniform || samples.end <= capacity || samples.end == usize::MAX || bytes % 256 != 0 {
        return bytes;
    }
    bytes / samples.len() as u64 * (capacity - samples.start) as u64
}

/// Returns the byte ranges that a plan's launches read and write.
fn ranges(plan: &Plan) -> Vec<(Vec<(BufferRef, u64, u64)>, Vec<(BufferRef, u64, u64)>)> {
    (plan.dispatches.iter())
        .map(|d| {
            let side = |read: bool| {
                let of = d.bindings.iter().filter(move |b| (b.access != Access::ReadWrite) == read);
                let of = of.filter(|b| b.range.buffer != BufferRef::Extents);
                of.map(|b| (b.range.buffer, b.range.offset, b.range.offset + live(d, b, plan.capacity))).collect()
            };
            (side(true), side(false))
        })
        .collect()
}

#[test]
fn every_operation_that_takes_an_epilogue_gives_the_same_with_one() {
    let mut fused = 0;
    for family in FAMILIES {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 12);
        for _ in 0..4 {
            let sample = (family.sample)(&mut rng);
            if !sample.op.epilogue() {
                continue;
            }
            let (mut g, _, outputs) = sample_graph(&sample);
            let shape = g.shape(outputs[0]).clone();
            let row =
                Shape::fixed(shape.dims().get(1..).unwrap_or_default().last().copied().into_iter().collect::<Vec<_>>());
            let (scale, other) =
                (g.input("scale", row.clone(), DType::F32), g.input("other", shape.clone(), DType::F32));
            let scaled = g.mul(outputs[0], scale).expect("a row broadcasts");
            let sum = g.add(other, scaled).expect("shapes agree");
            let y = g.tanh(sum).expect("a function of one operand");
            g.set_outputs(vec![("y".into(), y)]);
            let step = step_of(&sample, &mut rng);
            let uniform = |shape: &Shape, rng: &mut Philox| Fill::Uniform(-1.0, 1.0).array(&shape.at(sample.n), rng);
            let arrays = sample_inputs(&sample, &mut rng);
            let types = sample.inputs.iter().map(|(ty, _)| ty.dtype);
            let mut feeds: Vec<(String, HostTensor)> =
                arrays.iter().zip(types).enumerate().map(|(i, (a, ty))| (format!("in{i}"), a.to_host(ty))).collect();
            feeds.push(("scale".into(), uniform(&row, &mut rng).to_host(DType::F32)));
            feeds.push(("other".into(), uniform(&shape, &mut rng).to_host(DType::F32)));
            let [(plain, apart), (with, together)] = [false, true].map(|optimize| {
                let run = Run { optimize, guarded: true, ..Run::default() };
                let launches = plan_for(&g, sample.capacity, &run).dispatches.len();
                let results = run_graph(&g, &feeds, &step, sample.capacity, &run);
                (results.unwrap_or_else(|e| panic!("{}: {e}\n{g}", family.name)), launches)
            });
            // Scale, sum and tanh are three launches, or none.
            fused += usize::from(together + 3 <= apart);
            for (a, b) in plain[0].to_f32().iter().zip(with[0].to_f32()) {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{}: {a} unfused, {b} fused\n{g}", family.name);
            }
        }
    }
    assert!(fused >= 75, "only {fused} samples were fused");
}

#[test]
fn no_launch_binds_one_buffer_for_reading_and_for_writing() {
    for seed in 0..100 {
        let mut rng = Philox::new(seed, Purpose::Test, 11);
        let (g, _) = random_graph(&mut rng, 4, 4, true);
        for optimize in [false, true] {
            let plan = plan_for(&g, 4, &Run { optimize, ..Run::default() });
            for (i, (reads, writes)) in ranges(&plan).iter().enumerate() {
                let both = reads.iter().any(|r| writes.iter().any(|w| w.0 == r.0));
                assert!(!both, "seed {seed}, launch {i}\n{plan}");
            }
        }
    }
}

/// Each read must see what the launch that made the value wrote: nothing may have written there since.
#[test]
fn no_two_live_tensors_overlap() {
    for seed in 0..100 {
        let mut rng = Philox::new(seed, Purpose::Test, 11);
        let (g, _) = random_graph(&mut rng, 4, 4, true);
        let plan = plan_for(&g, 4, &Run { optimize: true, ..Run::default() });
        let launches = ranges(&plan);
        // The last writer of each 16-byte piece, and the start of the range that it wrote.
        let mut owner: HashMap<(BufferRef, u64), u64> = HashMap::new();
        for port in &plan.inputs {
            for at in (port.range.offset..port.range.offset + port.range.bytes).step_by(16) {
                owner.insert((port.range.buffer, at), port.range.offset);
            }
        }
        for (i, (reads, writes)) in launches.iter().enumerate() {
            for &(buffer, from, to) in reads {
                for at in (from..to).step_by(16) {
                    let found = owner.get(&(buffer, at));
                    assert!(
                        found == Some(&from),
                        "seed {seed}, launch {i} reads {at} of {found:?}, not {from}\n{plan}"
                    );
                }
            }
            for &(buffer, from, to) in writes {
                for at in (from..to).step_by(16) {
                    owner.insert((buffer, at), from);
                }
            }
        }
        for port in &plan.outputs {
            let own = owner.get(&(port.range.buffer, port.range.offset));
            assert!(own == Some(&port.range.offset), "seed {seed}: output {} was overwritten\n{plan}", port.name);
        }
    }
}

#[test]
fn bias_and_activation_are_part_of_the_convolution_and_the_dense_layer() {
    let model = crate::worked_examples::lenet5();
    let net = model.inference(engine(), Batch::up_to(64)).expect("an inference session");
    let plan = net.plan().expect("a plan");
    let nodes: std::collections::BTreeSet<&str> = plan.dispatches.iter().map(|d| d.node.as_str()).collect();
    // Two convolutions, two poolings, three dense layers, softmax: no node of their own for bias and relu.
    assert_eq!(nodes.len(), 8, "{plan}");
    assert!(plan.dispatches.iter().all(|d| d.kernel != "elementwise"), "{plan}");
}

#[test]
fn gradients_of_grouped_and_depthwise_convolution_are_one_launch_and_at_most_one_reduction() {
    let mut rng = Philox::new(21, Purpose::Test, 0);
    let mut seen = [0; 2];
    for _ in 0..60 {
        let (c, multiplier) = (rng.pick(&[2, 3, 8, 32]), rng.pick(&[1, 1, 2]));
        let groups = if rng.below(2) == 0 { c } else { 1 + rng.below(c) };
        if c % groups > 0 || groups == 1 {
            continue;
        }
        let mut g = Graph::new();
        let x = g.input("x", [Batch, 13, 11, c], F32);
        let w = g.input("w", [3, 3, c / groups, c * multiplier], F32);
        let options = Conv2dOptions::same().groups(groups);
        let options = options.strides([1 + rng.below(2), 1 + rng.below(2)]).dilation([1 + rng.below(2), 1]);
        let y = g.conv2d(x, w, options).expect("the groups divide the channels");
        let dy = g.input("dy", g.shape(y).clone(), F32);
        let product = g.mul(y, dy).expect("equal shapes");
        let loss = g.sum(product, &[0, 1, 2, 3], false).expect("a sum");
        for (k, d) in g.gradients(loss, &[x, w]).expect("gradients").into_iter().enumerate() {
            g.set_outputs(Vec::new());
            g.output("d", d);
            let plan = plan_for(&g, 8, &Run { optimize: true, ..Run::default() });
            let kernels: Vec<&str> = plan.dispatches.iter().map(|d| d.kernel.as_str()).collect();
            assert!(!kernels.is_empty() && kernels.len() <= 2, "{kernels:?}\n{plan}");
            assert!(kernels[1..].iter().all(|k| k.contains("sum")), "{kernels:?}\n{plan}");
            seen[k] += 1;
        }
    }
    assert!(seen[0] > 20 && seen[1] > 20, "{seen:?}");
}

#[test]
fn zeros_around_images_become_part_of_what_reads_them() {
    let mut g = Graph::new();
    let x = g.input("x", [Batch, 9, 7, 3], DType::F32);
    let w = g.input("w", [3, 3, 3, 4], DType::F32);
    let zeros = |n: isize| Pad2d { pads: [[n, 0], [1, n]], mode: PadMode::Constant(0.0) };
    let padded = g.apply1(zeros(2), &[x]).expect("images");
    let y = g
        .conv2d(padded, w, Conv2dOptions { strides: [2, 2], ..Conv2dOptions::new(Padding::Valid) })
        .expect("a convolution");
    let y = g.relu(y).expect("numbers");
    let padded = g.apply1(zeros(1), &[y]).expect("images");
    let pooled = g.max_pool2d(padded, Pool2dOptions { pool: [3, 2], ..Pool2dOptions::new(2) }).expect("windows");
    // Below 0 a zero would win where the image's own pixel does.
    let negative = g.unary("neg", pooled).expect("numbers");
    let kept = g.apply1(zeros(1), &[negative]).expect("images");
    let last = g.max_pool2d(kept, Pool2dOptions::new(2)).expect("windows");
    g.output("y", last);
    let names = |graph: &Graph| graph.nodes().iter().filter(|n| n.op().is_some_and(|op| op.name() == "pad2d")).count();
    assert_eq!((names(&g), names(&optimize(&g, engine().profile()))), (3, 1));
    let mut rng = Philox::new(3, Purpose::Test, 0);
    let mut feed = |name: &str, shape: &[usize]| {
        let count = shape.iter().product();
        let data = (0..count).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
        (name.to_owned(), HostTensor::f32(shape, data).expect("a tensor"))
    };
    let feeds = [feed("x", &[2, 9, 7, 3]), feed("w", &[3, 3, 3, 4])];
    let run = |optimize| run_graph(&g, &feeds, &Step::of(2), 2, &Run { optimize, ..Run::default() }).expect("it runs");
    let (plain, folded) = (run(false)[0].to_f32(), run(true)[0].to_f32());
    assert!(plain.iter().zip(&folded).all(|(a, b)| (a - b).abs() <= 1e-6), "{plain:?} {folded:?}");
}

#[test]
fn zeros_around_what_is_pooled_become_padding_of_the_gradient_too() {
    let mut g = Graph::new();
    let x = g.input("x", [Batch, 9, 7, 4], DType::F32);
    let factor = g.input("factor", [Batch, 5, 4, 4], DType::F32);
    let y = g.relu(x).expect("numbers");
    let pads = Pad2d { pads: [[1, 1], [1, 1]], mode: PadMode::Constant(0.0) };
    let padded = g.apply1(pads, &[y]).expect("images");
    let pooled = g.max_pool2d(padded, Pool2dOptions::new(3).strides(2)).expect("windows");
    let product = g.mul(pooled, factor).expect("equal shapes");
    let loss = g.sum(product, &[0, 1, 2, 3], false).expect("a sum");
    let dx = g.gradients(loss, &[x]).expect("gradients")[0];
    g.output("dx", dx);
    let pads = |graph: &Graph| graph.nodes().iter().filter(|n| n.op().is_some_and(|op| op.name() == "pad2d")).count();
    assert_eq!((pads(&g), pads(&optimize(&g, engine().profile()))), (2, 0));
    let mut rng = Philox::new(8, Purpose::Test, 0);
    // Few numbers: many windows have several largest pixels, among them zeros.
    let mut feed = |name: &str, shape: [usize; 4]| {
        let data = (0..shape.iter().product()).map(|_| rng.below(4) as f32 - 2.0).collect();
        (name.to_owned(), HostTensor::f32(shape, data).expect("a tensor"))
    };
    let feeds = [feed("x", [3, 9, 7, 4]), feed("factor", [3, 5, 4, 4])];
    let run = |optimize| run_graph(&g, &feeds, &Step::of(3), 3, &Run { optimize, ..Run::default() }).expect("it runs");
    assert_eq!(run(false)[0].to_f32(), run(true)[0].to_f32());

    // Where the gradient to the pooled images themselves is asked for, it goes where it went.
    let dy = g.gradients(loss, &[y]).expect("gradients")[0];
    g.set_outputs(Vec::new());
    g.output("dy", dy);
    assert_eq!(pads(&optimize(&g, engine().profile())), 2);
}

#[test]
fn kernels_for_gpus_are_those_of_the_capacity_that_options_have_when_the_plan_is_made() {
    let mut g = Graph::new();
    let [x, dy] = ["x", "dy"].map(|name| g.input(name, [Batch, 28, 28, 4], F32));
    let geometry = Geometry::new([28; 2], [3; 2], Conv2dOptions::same()).expect("the kernel fits");
    let dw = g.apply1(Conv2dGradWeight { geometry, column_sums: false }, &[x, dy]).expect("a gradient");
    g.output("dw", dw);
    let kernels = |capacity: usize, made_for: usize| -> Vec<String> {
        let made = PlanOptions::new(made_for, DeviceProfile::portable(DeviceClass::Gpu));
        let plan = plan(&g, &PlanOptions { capacity, ..made }).expect("a plan");
        plan.dispatches.iter().map(|d| d.source.to_string()).collect()
    };
    assert_eq!(kernels(8000, 1), kernels(8000, 8000));
    // Pixels of so many images are too many to tell rows and columns from fractions.
    let by_fractions = |kernels: Vec<String>| kernels.iter().any(|source| source.contains("_fraction"));
    assert!(by_fractions(kernels(1, 8000)) && !by_fractions(kernels(8000, 1)));
}

/// Returns the plan of four products with a state, each followed by a softmax, with its trace.
fn traced() -> (Plan, Trace) {
    let mut g = Graph::new();
    let x = g.input("x", [Batch, 300], F32);
    let w = g.state("w", TensorType::f32([300, 300]), None);
    let mut y = x;
    for _ in 0..4 {
        y = g.matmul(y, w).expect("a product");
        y = g.softmax(y).expect("rows");
    }
    g.output("y", y);
    let layout = Layout::new([("w".to_owned(), TensorType::f32([300, 300]))], 1 << 30);
    let profile = DeviceProfile::portable(DeviceClass::Cpu);
    let options = PlanOptions { layouts: vec![&layout], ..PlanOptions::new(8, profile) };
    traced_plan(&g, &options).expect("a plan")
}

/// Returns the result of `verify` on the plan after `change`.
fn broken(change: impl FnOnce(&mut Plan, &mut Trace)) -> Result<(), Violation> {
    let (mut plan, mut trace) = traced();
    assert_eq!(verify(&plan, &trace), Ok(()), "{plan}");
    change(&mut plan, &mut trace);
    verify(&plan, &trace)
}

/// Returns the binding of a launch that it writes.
fn written(dispatch: &mut PlannedDispatch) -> &mut Binding {
    dispatch.bindings.iter_mut().find(|b| b.access == Access::ReadWrite).expect("a launch writes")
}

#[test]
fn a_plan_that_reads_a_value_before_it_is_computed_is_refused() {
    let found = broken(|plan, trace| {
        plan.dispatches.swap(0, 1);
        trace.launches.swap(0, 1);
    });
    assert!(matches!(found, Err(Violation::Undefined { launch: 0, .. })), "{found:?}");
    let found = broken(|plan, trace| {
        plan.dispatches.pop();
        trace.launches.pop();
    });
    assert!(matches!(&found, Err(Violation::Undefined { node, .. }) if node == "y"), "{found:?}");
}

#[test]
fn a_plan_that_reads_memory_that_was_overwritten_is_refused() {
    // Another value at the offset of the third launch's result, which the fourth reads, as reuse would put it.
    let found = broken(|plan, trace| {
        let (overwriting, its) = (plan.dispatches[2].clone(), trace.launches[2].clone());
        let other = Content::Value(Value { node: 999, output: 0 });
        let its = its.into_iter().map(|mut t| {
            t.writes.iter_mut().for_each(|held| held.content = other);
            t
        });
        plan.dispatches.insert(3, overwriting);
        trace.launches.insert(3, its.collect());
    });
    assert!(matches!(found, Err(Violation::Overwritten { launch: 4, .. })), "{found:?}");
}

#[test]
fn a_launch_that_reads_and_writes_one_buffer_is_refused() {
    let found = broken(|plan, _| {
        let end = plan.arenas.iter().max().copied().unwrap_or(0);
        plan.arenas.iter_mut().for_each(|bytes| *bytes = end + (1 << 20));
        let read = plan.dispatches[1].bindings.iter().find(|b| b.access == Access::Read).expect("it reads").range;
        let written = written(&mut plan.dispatches[1]);
        (written.range.buffer, written.range.offset) = (read.buffer, end);
    });
    assert!(matches!(found, Err(Violation::ReadAndWritten { launch: 1, .. })), "{found:?}");
}

#[test]
fn a_range_outside_its_buffer_or_off_its_alignment_is_refused() {
    let found = broken(|plan, _| plan.arenas.iter_mut().for_each(|bytes| *bytes = 256));
    assert!(matches!(found, Err(Violation::OutOfBounds { end: 256, .. })), "{found:?}");
    let found = broken(|_, trace| trace.stores[0][0] -= 256);
    assert!(matches!(found, Err(Violation::OutOfBounds { .. })), "{found:?}");
    let found = broken(|plan, _| written(&mut plan.dispatches[0]).range.bytes -= 16);
    assert!(matches!(found, Err(Violation::OutOfBounds { launch: 0, .. })), "{found:?}");
    let found = broken(|plan, _| {
        let range = &mut written(&mut plan.dispatches[0]).range;
        (range.offset, range.bytes) = (range.offset + 16, range.bytes - 16);
    });
    assert!(matches!(found, Err(Violation::Misaligned { launch: 0, .. })), "{found:?}");
}

#[test]
fn a_launch_without_a_binding_that_its_kernel_declares_is_refused() {
    let found = broken(|plan, _| {
        plan.dispatches[1].bindings.pop();
    });
    let Err(Violation::Unbound { launch: 1, wanted, got, .. }) = found else { panic!("{found:?}") };
    assert_eq!(wanted, got + 1);
}

#[test]
fn a_graph_whose_nodes_are_out_of_order_or_of_wrong_types_is_refused() {
    let mut g = Graph::new();
    let x = g.input("x", [Batch, 3], F32);
    let y = g.softmax(x).expect("rows");
    g.output("y", y);
    assert_eq!(verify_graph(&g), Ok(()));
    let softmax = g.node(y).clone();
    let mut late = g.clone();
    late.push_node(Node { name: "early".into(), inputs: vec![Value { node: 3, output: 0 }], ..softmax.clone() });
    assert_eq!(verify_graph(&late), Err(Violation::Order { node: "early".into() }));
    let mut wrong = g.clone();
    wrong.push_node(Node { name: "wide".into(), outputs: vec![TensorType::f32([Batch, 4])], ..softmax });
    assert_eq!(verify_graph(&wrong), Err(Violation::Types { node: "wide".into(), op: "softmax".into() }));
    g.output("z", Value { node: 9, output: 0 });
    assert_eq!(verify_graph(&g), Err(Violation::Order { node: "z".into() }));
}

#[test]
fn the_hash_of_a_plan_depends_on_what_it_does_and_not_on_names() {
    let profile = DeviceProfile::portable(DeviceClass::Cpu);
    let of = |scope: &str, columns: usize, capacity: usize, function: &str| {
        let mut g = Graph::new();
        let x = g.input("x", [Batch, columns], F32);
        let y = g.scoped(scope, |g| g.unary(function, x)).expect("a function");
        g.output("y", y);
        let plan = plan(&g, &PlanOptions::new(capacity, profile.clone())).expect("a plan");
        (plan.hash, plan.to_string())
    };
    let (first, renamed) = (of("a", 8, 4, "tanh"), of("b", 8, 4, "tanh"));
    assert_eq!(first.0, renamed.0);
    assert_ne!(first.1, renamed.1);
    for (columns, capacity, function) in [(12, 4, "tanh"), (8, 5, "tanh"), (8, 4, "exp")] {
        assert_ne!(first.0, of("a", columns, capacity, function).0, "{columns} {capacity} {function}");
    }
}

/// A product that gave the column sums too would need its own second result first.
#[test]
fn a_product_of_what_its_column_sums_have_made_does_not_give_them() {
    let mut g = Graph::new();
    let dy = g.input("dy", [Batch, 5], F32);
    let sums = g.sum(dy, &[0], false).expect("a sum");
    let x = g.add(dy, sums).expect("a row broadcasts");
    let y = g.matmul_with(x, dy, MatmulOptions { transpose_a: true, transpose_b: false }).expect("a product");
    g.output("y", y);
    let optimized = optimize(&g, engine().profile());
    assert_eq!(verify_graph(&optimized), Ok(()));
    let feeds =
        [("dy".to_owned(), HostTensor::f32([2, 5], (0..10).map(|i| i as f32 / 7.0).collect()).expect("a tensor"))];
    let run = |optimize| run_graph(&g, &feeds, &Step::of(2), 2, &Run { optimize, ..Run::default() }).expect("it runs");
    let (plain, optimized) = (run(false)[0].to_f32(), run(true)[0].to_f32());
    assert!(plain.iter().zip(&optimized).all(|(a, b)| (a - b).abs() <= 1e-5), "{plain:?} {optimized:?}");
}

#[test]
fn a_program_keeps_zero_only_where_no_number_and_no_infinity_changes_that() {
    let program = |name: &str| Elementwise::named(name).expect("a function").program;
    let keeps = |name: &str, zeros: &[usize]| program(name).keeps_zero(&|input| zeros.contains(&input));
    for (name, zeros) in
        [("where_positive", &[0][..]), ("add", &[0, 1]), ("relu", &[0]), ("neg", &[0]), ("mul", &[0, 1])]
    {
        assert!(keeps(name, zeros), "{name} of zeros {zeros:?}");
    }
    for (name, zeros) in [("add", &[0][..]), ("mul", &[0]), ("div", &[0]), ("exp", &[0]), ("max", &[0])] {
        assert!(!keeps(name, zeros), "{name} of zeros {zeros:?}");
    }
    // The gradient of an activation of a sum, whose terms follow what was activated.
    let sum = program("where_positive").compose(0, &program("add"));
    assert!(sum.keeps_zero(&|input| input > 0) && !sum.keeps_zero(&|input| input == 1), "{sum}");
}
