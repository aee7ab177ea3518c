//! Models as CNN courses build them, how they fuse, and what they say about mistakes.

use crate::harness::{Run, engine, plan_for, run_graph};
use hubel::{
    graph::{Graph, Step, TensorType},
    nn::{
        Mode,
        blocks::{bottleneck, residual, squeeze_excite},
    },
    ops::Conv2dOptions,
    passes::Plan,
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
};
use std::fmt::Write as _;

fn uniform(name: &str, shape: &[usize]) -> HostTensor {
    let mut rng = Philox::new(1, Purpose::Test, stream_id(name));
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).expect("as many numbers as the shape has")
}

#[test]
fn a_full_hd_picture_goes_through_sixteen_filters() {
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

/// Returns the plan of a model in inference, or of its training step to the gradients of all weights.
fn planned(model: &Model, mode: Mode, optimize: bool) -> (Graph, Plan) {
    let mut g = Graph::new();
    let inputs: Vec<_> = model.inputs().iter().map(|(name, ty)| g.input(name, ty.shape.clone(), ty.dtype)).collect();
    let built = model.assemble(&mut g, &inputs, mode).expect("the model assembles");
    // Plans of tests have no stores: weights become inputs.
    g.output("y", built.outputs[0]);
    let inputs = g.rebuild(|out, _, node| match node.kind {
        hubel::graph::Kind::State { .. } => {
            let ty = node.outputs[0].clone();
            vec![out.input(&node.name, ty.shape, ty.dtype)]
        }
        _ => out.push_node(node),
    });
    let plan = plan_for(&inputs, 2, &Run { optimize, ..Run::default() });
    (inputs, plan)
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
                let (graph, _) = planned(&model, mode, optimize);
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
fn what_follows_a_kernel_fuses_into_it() {
    let launches = |model: &Model, mode: Mode| planned(model, mode, true).1.dispatches.len();
    let x = Input::new([8, 8, 8]);
    let conv = |x: &hubel::nn::Tensor| x.apply(Conv2D::new(8, 3).padding(Same)).expect("a layer");
    let y = conv(&x).apply(BatchNormalization::new()).expect("a layer").apply(Relu).expect("a layer");
    let model = Model::new(&[x.clone()], &[y]).expect("a model");
    assert_eq!(launches(&model, Mode::Inference), 1, "convolution, normalisation and relu are one launch");
    let alone = x.apply(BatchNormalization::new()).expect("a layer");
    let with = alone.apply(Relu).expect("a layer");
    let of = |y: hubel::nn::Tensor| launches(&Model::new(&[x.clone()], &[y]).expect("a model"), Mode::Training);
    assert_eq!(of(alone), of(with), "in training relu is part of the normalisation's launch");
    let sum = add(&[conv(&x), x.clone()]).expect("equal shapes").apply(Relu).expect("a layer");
    assert_eq!(launches(&Model::new(&[x.clone()], &[sum]).expect("a model"), Mode::Inference), 1, "residual add");
    let block = residual(&x, 8, 1, "b").expect("a block");
    assert_eq!(launches(&Model::new(&[x.clone()], &[block]).expect("a model"), Mode::Inference), 2);
    let block = bottleneck(&x, 2, 1, "b").expect("a block");
    assert_eq!(launches(&Model::new(&[x.clone()], &[block]).expect("a model"), Mode::Inference), 3);
    // Squeeze, two dense layers, and the product with the shortcut's sum and relu.
    let scaled = squeeze_excite(&x, 4, "se").expect("a block");
    let out = add(&[scaled, x.clone()]).expect("equal shapes").apply(Relu).expect("a layer");
    let model = Model::new(&[x], &[out]).expect("a model");
    let most = launches(&model, Mode::Inference);
    assert!(most <= 4, "{most} launches:\n{}", planned(&model, Mode::Inference, true).1);
}

#[test]
fn a_recurrent_layer_is_one_product_and_one_launch_for_all_timesteps() {
    for layer in [LSTM::new(8).return_sequences(true).into_layer(), GRU::new(8).return_sequences(true).into_layer()] {
        let model = Sequential::new([30, 4]).add(&layer).build().expect("a model");
        let (_, plan) = planned(&model, Mode::Inference, true);
        let kernels: Vec<&str> = plan.dispatches.iter().map(|d| d.kernel.as_str()).collect();
        assert_eq!(kernels.iter().filter(|k| **k == "matmul").count(), 1, "{plan}");
        assert!(kernels.len() <= 4, "{plan}");
    }
}

fn conv_model() -> Model {
    Sequential::new([8, 8, 3]).add(Conv2D::new(4, 3).name("conv")).build().expect("a model")
}

fn json_with(from: &str, to: &str) -> Result<Model, LayerError> {
    let json = conv_model().to_json().expect("a configuration");
    assert!(json.contains(from), "{json}");
    Model::from_json(&json.replace(from, to))
}

/// What a user can do wrong, and what comes of it.
fn mistakes() -> Vec<(&'static str, Result<Model, LayerError>)> {
    fn one(shape: &[usize], layer: impl IntoLayer) -> Result<Model, LayerError> {
        Sequential::new(shape).add(layer).build()
    }
    let picture: &[usize] = &[8, 8, 3];
    let (x, y) = (Input::new([8, 8, 3]), Input::new([8, 8, 4]));
    let model = |t: Result<hubel::nn::Tensor, LayerError>| t.and_then(|t| Model::new(&[x.clone(), y.clone()], &[t]));
    vec![
        ("a convolution on a vector", one(&[10], Conv2D::new(4, 3))),
        (
            "a second convolution that does not fit",
            Sequential::new(picture).add(Conv2D::new(4, 3)).add(Conv2D::new(4, 7)).build(),
        ),
        ("a kernel larger than the picture", one(picture, Conv2D::new(4, 9).name("big"))),
        ("groups that do not divide the channels", one(picture, Conv2D::new(4, 3).groups(2))),
        ("groups that do not divide the filters", one(picture, Conv2D::new(4, 3).groups(3))),
        ("no groups", one(picture, Conv2D::new(4, 3).groups(0))),
        ("no filters", one(picture, Conv2D::new(0, 3))),
        ("no taps", one(picture, Conv2D::new(4, 0))),
        ("no step", one(picture, Conv2D::new(4, 3).strides(0))),
        ("no dilation", one(picture, Conv2D::new(4, 3).dilation_rate(0))),
        ("more filters than there are numbers", one(picture, Conv2D::new(1 << 62, 3))),
        ("no units", one(&[10], Dense::new(0))),
        ("a pool larger than the picture", one(picture, MaxPooling2D::new(9))),
        ("a pool on a vector", one(&[10], MaxPooling2D::new(2))),
        (
            "a global pool after flattening",
            Sequential::new(picture).add(Flatten::new()).add(GlobalAveragePooling2D::new()).build(),
        ),
        ("more cropped than there is", one(picture, Cropping2D::new(4))),
        ("a shape of another size", one(&[12], Reshape::new([5, 2]))),
        ("two open extents", one(&[12], Reshape::new([-1, -1]))),
        ("axes that are not there", one(&[4, 3], Permute::new([1, 3]))),
        ("channels in an axis that is not there", one(picture, BatchNormalization::new().axis(4))),
        ("channels in the batch", one(picture, BatchNormalization::new().axis(0))),
        ("groups of channels that do not divide", one(picture, GroupNormalization::new())),
        ("a rate above 1", Sequential::new(picture).add(Dropout::new(1.5)).build()),
        ("an LSTM on a picture", one(picture, LSTM::new(4))),
        ("an LSTM of a function that it has not", one(&[5, 3], LSTM::new(4).activation(Gelu))),
        ("a size of 0", one(picture, Resizing::new(0, 4))),
        (
            "no padding for a transposed convolution",
            one(picture, Conv2DTranspose::new(4, 3).strides(2).output_padding(2)),
        ),
        ("a mean for each of two channels", one(picture, Rescaling::new([0.5, 0.5]))),
        ("branches of other shapes", model(add(&[x.clone(), y.clone()]))),
        ("one branch", model(add(&[x.clone()]))),
        ("pictures of other sizes", model(hubel::nn::call(Concatenate::new().axis(1), &[x.clone(), y.clone()]))),
        ("an axis that cannot be joined", model(hubel::nn::call(Concatenate::new().axis(0), &[x.clone(), y.clone()]))),
        ("an input that is not listed", x.apply(Relu).and_then(|t| Model::new(&[y.clone()], &[t]))),
        ("no output", Model::new(&[x.clone()], &[])),
        ("two layers of one name", Sequential::new(picture).add(Relu.name("a")).add(Relu.name("a")).build()),
        ("no shape of a sample", Sequential::default().add(Dense::new(3)).build()),
        ("a layer that is not there", conv_model().set_trainable("conv9", false).map(|()| conv_model())),
        ("weights of another shape", {
            let mut model = conv_model();
            let kernel = HostTensor::f32([1, 1, 3, 4], vec![0.0; 12]).expect("a tensor");
            model.set_weights(vec![("conv/kernel".into(), kernel)]).map(|()| model)
        }),
        ("no JSON", Model::from_json("{")),
        ("JSON of something else", Model::from_json("[1, 2]")),
        ("a class that is not there", json_with("\"Conv2D\"", "\"Conv7D\"")),
        ("an option that is not there", json_with("\"filters\"", "\"philters\"")),
        ("an activation that is not there", json_with("\"linear\"", "\"bent\"")),
        ("a padding that is not there", json_with("\"valid\"", "\"sane\"")),
        ("a layer that waits for itself", {
            let mut json: serde_json::Value =
                serde_json::from_str(&conv_model().to_json().expect("a configuration")).expect("JSON");
            json["config"]["layers"][1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = "conv".into();
            Model::from_json(&json.to_string())
        }),
        ("a layer named as its input", json_with("\"input_layer\",\n", "\"conv\",\n")),
        ("a recurrent layer of more units than there are numbers", one(&[5, 3], LSTM::new(1 << 62))),
        (
            "a depthwise convolution of more results than numbers",
            one(picture, DepthwiseConv2D::new(3).depth_multiplier(1 << 62)),
        ),
        ("a picture without a size", json_with("8,\n", "null,\n")),
        ("a picture of no size", json_with("8,\n", "0,\n")),
    ]
}

#[test]
fn every_mistake_names_the_layer_what_was_wanted_and_what_to_do() {
    let mut text = String::new();
    for (what, result) in mistakes() {
        match result {
            Ok(_) => writeln!(text, "{what}: ACCEPTED"),
            Err(e) => writeln!(text, "{what}:\n    {e}"),
        }
        .expect("text grows");
    }
    let path = format!("{}/tests/hubel/mistakes.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("HUBEL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("the snapshot can be written");
    }
    assert!(!text.contains("ACCEPTED"), "{text}");
    let found = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(found == text, "mistakes.txt is stale: HUBEL_WRITE_DOCS=1 cargo test --release every_mistake\n{text}");
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
fn a_model_is_drawn_as_svg_and_png() {
    let folder = tempfile::tempdir().expect("a folder");
    let x = Input::new([8, 8, 8]);
    let y = residual(&x, 16, 2, "block").expect("a block");
    let model = Model::new(&[x], &[y]).expect("a model");
    let [svg, png, other] = ["model.svg", "model.png", "model.gif"].map(|name| folder.path().join(name));
    model.plot(&svg).expect("an SVG");
    model.plot(&png).expect("a PNG");
    let text = std::fs::read_to_string(&svg).expect("SVG is text");
    assert!(model.layer_names().iter().all(|name| text.contains(name)), "{text}");
    assert_eq!(text.matches("<path").count() / 2, model.summary().rows.iter().map(|r| r.inputs.len()).sum::<usize>());
    let picture = std::fs::read(&png).expect("the PNG is there");
    assert!(picture.len() > 2000 && picture.starts_with(b"\x89PNG"));
    assert!(model.plot(&other).expect_err("no such format").to_string().contains("png"));
}
