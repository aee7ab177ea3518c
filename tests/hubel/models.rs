//! Models as CNN courses build them.

use crate::harness::{Run, engine, run_graph};
use hubel::{
    graph::{Graph, Step, TensorType},
    layers::*,
    nn::Mode,
    ops::Conv2dOptions,
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
};
use std::sync::atomic::{AtomicUsize, Ordering};

fn uniform(name: &str, shape: &[usize]) -> HostTensor {
    let mut rng = Philox::new(1, Purpose::Test, stream_id(name));
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).expect("as many numbers as the shape has")
}

#[test]
fn a_full_hd_image_goes_through_sixteen_filters() {
    let one = Sequential::new([1920, 1080, 3]).add(Conv2D::new(1, 5).use_bias(false)).build().expect("a model");
    assert_eq!((one.count_params(), one.weights()[0].shape.as_slice()), (75, &[5, 5, 3, 1][..]));
    assert_eq!(one.output_shape().elements().at(1), 2_061_616);
    let model = Sequential::new([1920, 1080, 3])
        .add(Conv2D::new(16, 5).use_bias(false).name("conv"))
        .add(MaxPooling2D::new(2).name("pool"))
        .build()
        .expect("a model");
    assert_eq!((model.count_params(), model.weights()[0].shape.as_slice()), (1200, &[5, 5, 3, 16][..]));
    assert_eq!(model.summary().rows[0].output.elements().at(1), 32_985_856);
    assert_eq!(model.output_shape().to_string(), "(N, 958, 538, 16)");
    let x = uniform("full HD", &[1, 1920, 1080, 3]);
    let y = model.inference(engine(), Batch::up_to(1)).expect("it fits").predict(&x).expect("it runs").to_f32();
    let (x, w) = (x.to_f32(), model.initial_value(&model.weights()[0], 0).to_f32());
    let conv = |p: usize, q: usize, k: usize| -> f32 {
        let mut sum = 0.0f64;
        for r in 0..5 {
            for s in 0..5 {
                for c in 0..3 {
                    let pixel = f64::from(x[((p + r) * 1080 + q + s) * 3 + c]);
                    sum += pixel * f64::from(w[((r * 5 + s) * 3 + c) * 16 + k]);
                }
            }
        }
        sum as f32
    };
    for (p, q, k) in [(0, 0, 0), (957, 537, 15), (500, 250, 7), (3, 536, 9), (957, 1, 4)] {
        let window = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| conv(2 * p + i, 2 * q + j, k));
        let wanted = window.into_iter().fold(f32::MIN, f32::max);
        assert!((y[(p * 538 + q) * 16 + k] - wanted).abs() < 1e-4, "{p} {q} {k}");
    }
}

#[test]
fn two_convolutions_of_3_see_what_one_of_5_sees_with_fewer_weights() {
    let chain = |sizes: &[usize]| {
        let net =
            sizes.iter().fold(Sequential::new([32, 32, 16]), |net, &k| net.add(Conv2D::new(16, k).use_bias(false)));
        let model = net.build().expect("a model");
        let field = model.summary().rows.last().expect("a row").receptive_field;
        (field, model.count_params())
    };
    assert_eq!(chain(&[3, 3]), (Some([5, 5]), 18 * 16 * 16));
    assert_eq!(chain(&[5]), (Some([5, 5]), 25 * 16 * 16));
    let net = Sequential::new([32, 32, 3])
        .add(Conv2D::new(8, 3).padding(Same))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(8, 3).padding(Same).dilation_rate(2))
        .add(Flatten::new())
        .build()
        .expect("a model");
    let fields: Vec<_> = net.summary().rows.iter().map(|r| r.receptive_field).collect();
    assert_eq!(fields, [Some([3, 3]), Some([4, 4]), Some([12, 12]), None]);
    assert_eq!(net.summary().rows[0].macs, 32 * 32 * 27 * 8);
}

#[test]
fn sizes_follow_the_formula_and_heads_their_task() {
    let size = |strides: usize| {
        let model = Sequential::new([5, 5, 1]).add(Conv2D::new(1, 3).strides(strides)).build().expect("a model");
        model.output_shape().to_string()
    };
    assert_eq!((size(1), size(2)), ("(N, 3, 3, 1)".into(), "(N, 2, 2, 1)".into()));
    for (units, activation) in [(1, Linear), (1, Sigmoid), (7, Softmax)] {
        let head = Dense::new(units).activation(activation);
        let model = Sequential::new([16]).add(head).build().expect("a model");
        let y = model.inference(engine(), Batch::up_to(4)).expect("a net").predict(&uniform("head", &[4, 16]));
        let y = y.expect("a prediction").to_f32();
        assert_eq!(y.len(), 4 * units);
        match activation {
            Sigmoid => assert!(y.iter().all(|p| (0.0..=1.0).contains(p))),
            Softmax => y.chunks(7).for_each(|row| assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5)),
            _ => {}
        }
    }
}

/// Returns the full convolution of rows: zeros around, the kernel mirrored by hand, since a layer does not mirror it.
fn full(x: &[f32], kernel: &[f32]) -> Vec<f32> {
    let mut g = Graph::new();
    let (n, k) = (x.len(), kernel.len());
    let input = g.input("x", [1, n, 1], F32);
    let weights = g.input("w", [k, 1, 1], F32);
    let options = Conv2dOptions::explicit([[0, 0], [k - 1, k - 1]]);
    let y = g.conv1d(input, weights, options).expect("a convolution");
    g.output("y", y);
    let mirrored: Vec<f32> = kernel.iter().rev().copied().collect();
    let feeds = [
        ("x".to_owned(), HostTensor::f32([1, n, 1], x.to_vec()).expect("a row")),
        ("w".to_owned(), HostTensor::f32([k, 1, 1], mirrored).expect("a kernel")),
    ];
    run_graph(&g, &feeds, &Step::of(1), 1, &Run::default()).expect("it runs")[0].to_f32()
}

#[test]
fn full_convolution_of_rows_is_that_of_the_books_and_associative() {
    assert_eq!(full(&[2.0, 3.0], &[1.0, 1.0]), [2.0, 5.0, 3.0]);
    let (x, a, b) = ([1.0, -2.0, 3.0, 0.5], [2.0, 1.0, -1.0], [0.5, 4.0]);
    assert_eq!(full(&full(&x, &a), &b), full(&x, &full(&a, &b)));
}

/// Returns the graph of a model with its weights as inputs.
fn graph_of(model: &Model, mode: Mode) -> Graph {
    let mut g = Graph::new();
    let inputs: Vec<_> = model.inputs().iter().map(|(name, ty)| g.input(name, ty.shape.clone(), ty.dtype)).collect();
    let built = model.assemble(&mut g, &inputs, mode).expect("the model assembles");
    g.output("y", built.outputs[0]);
    g.rebuild(|out, _, node| match node.kind {
        hubel::graph::Kind::State { .. } => {
            let ty = node.outputs[0].clone();
            vec![out.input(&node.name, ty.shape, ty.dtype)]
        }
        _ => out.push_node(node),
    })
}

#[test]
fn normalisation_before_and_after_the_activation_gives_equal_numbers_fused_and_unfused() {
    for before in [true, false] {
        let x = Input::new([7, 6, 3]);
        let y = x.apply(Conv2D::new(5, 3)).expect("a layer");
        let layers = [BatchNormalization::new().into_layer(), Relu.into_layer()];
        let order = if before { [0, 1] } else { [1, 0] };
        let y = order.iter().fold(y, |y, &i| y.apply(&layers[i]).expect("a layer"));
        let model = Model::new(&[x], &[y]).expect("a model");
        for mode in [Mode::Inference, Mode::Training] {
            let run = |optimize: bool| {
                let graph = graph_of(&model, mode);
                let feeds: Vec<(String, HostTensor)> = (graph.nodes().iter())
                    .filter(|n| matches!(n.kind, hubel::graph::Kind::Input))
                    .map(|n| {
                        let positive = n.name.contains("variance");
                        let t = uniform(&n.name, &n.outputs[0].shape.at(2));
                        let data = t.to_f32().into_iter().map(|v| if positive { v.abs() + 0.5 } else { v }).collect();
                        (n.name.clone(), HostTensor::f32(t.shape(), data).expect("a tensor"))
                    })
                    .collect();
                let step = Step::of(2);
                run_graph(&graph, &feeds, &step, 2, &Run { optimize, ..Run::default() }).expect("it runs")[0].to_f32()
            };
            let (fused, unfused) = (run(true), run(false));
            let largest = unfused.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let worst = fused.iter().zip(&unfused).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 1e-5 * largest, "before: {before}, {mode:?}: off by {worst} of {largest}");
        }
    }
}

#[test]
fn inputs_have_types() {
    let x = Input::named("words", [5], DType::I32);
    let y = x.apply(Embedding::new(10, 3)).expect("whole numbers");
    let model = Model::new(&[x], &[y]).expect("a model");
    assert_eq!(model.inputs()[0].1, TensorType::new([Batch, 5], DType::I32));
    let words = HostTensor::f32([2, 5], vec![0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 8.0, 7.0, 6.0, 5.0]).expect("words");
    let y = model.inference(engine(), Batch::up_to(2)).expect("a net").predict(&words).expect("rows").to_f32();
    let table = model.initial_value(&model.weights()[0], 0).to_f32();
    assert_eq!((&y[3..6], &y[15..18]), (&table[3..6], &table[27..30]));
}

#[test]
fn verification_names_the_first_wrong_node() {
    let model = Sequential::new([12, 12, 3])
        .add(Conv2D::new(8, 3).activation(Relu).name("conv"))
        .add(MaxPooling2D::new(2).name("pool"))
        .add(Flatten::new())
        .add(Dense::new(5).activation(Softmax).name("dense"))
        .build()
        .expect("a model");
    let samples: Vec<f32> = (0..2 * 12 * 12 * 3).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let samples = [HostTensor::f32([2, 12, 12, 3], samples).expect("a tensor")];
    let net = model.inference(engine(), Batch::up_to(4)).expect("it fits");
    let calls = AtomicUsize::new(0);
    let count = |done: usize, of: usize| {
        assert!(1 <= done && done <= of);
        calls.fetch_add(1, Ordering::Relaxed);
    };
    let right = net.verify(&samples, count).expect("it runs");
    assert_eq!(calls.into_inner(), right.nodes.len());
    assert!(right.nodes.len() >= 4 && right.first_wrong().is_none(), "{right}");
    // Either of the kernels that max pooling has.
    let change = |source: &str| {
        source.replace("best = max(", "best = 0.5 * max(").replace("a0_0 = max(", "a0_0 = 0.5 * max(").into()
    };
    let wrong = net.verify_changed(&samples, change).expect("it runs");
    let first = wrong.first_wrong().unwrap_or_else(|| panic!("{wrong}"));
    assert!(first.node.contains("pool") && first.op == "max_pool2d", "{wrong}");
    let later = wrong.nodes.iter().filter(|n| n.mismatch.is_some()).count();
    assert_eq!(later, 1, "what follows computes rightly from what it was given: {wrong}");
    assert!(
        Model::from_json(&model.to_json().expect("text"))
            .expect("a model")
            .inference(&Engine::reference(), Batch::up_to(4))
            .expect("it fits")
            .verify(&samples, |_, _| {})
            .is_err()
    );
}
