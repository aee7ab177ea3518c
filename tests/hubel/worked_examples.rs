//! Numbers from CNN teaching material, on the GPU.

use crate::harness::{Run, engine, run_graph};
use hubel::{
    graph::{Graph, Step, Value},
    layers::*,
    losses::*,
    metrics::*,
    ops::{Conv2dOptions, Padding, Pool2dOptions},
    optimizers::*,
    prelude::*,
    tensor::{Philox, Purpose},
};

fn grid(text: &str) -> (Vec<usize>, Vec<f32>) {
    let rows: Vec<&str> = text.split('/').collect();
    let data: Vec<f32> = text.replace('/', " ").split_whitespace().map(|n| n.parse().expect("a number")).collect();
    (vec![1, rows.len(), data.len() / rows.len(), 1], data)
}

fn run(x: &str, build: impl FnOnce(&mut Graph, Value) -> Value) -> Vec<f32> {
    let (shape, data) = grid(x);
    let mut g = Graph::new();
    let input = g.input("x", [Batch, shape[1], shape[2], 1], F32);
    let y = build(&mut g, input);
    g.output("y", y);
    let x = HostTensor::f32(shape, data).expect("an image");
    run_graph(&g, &[("x".into(), x)], &Step::of(1), 1, &Run::default()).expect("the graph runs")[0].to_f32()
}

/// Convolution with a constant kernel, given as text.
fn convolve(x: &str, kernel: &str, padding: Padding) -> Vec<f32> {
    let (image, pixels) = grid(x);
    let (shape, taps) = grid(kernel);
    let mut g = Graph::new();
    let input = g.input("x", [Batch, image[1], image[2], 1], F32);
    let w = g.input("w", [shape[1], shape[2], 1, 1], F32);
    let y = g.conv2d(input, w, Conv2dOptions { padding, ..Conv2dOptions::valid() }).expect("a convolution");
    g.output("y", y);
    let x = HostTensor::f32(image, pixels).expect("an image");
    let w = HostTensor::f32([shape[1], shape[2], 1, 1], taps).expect("a kernel");
    run_graph(&g, &[("x".into(), x), ("w".into(), w)], &Step::of(1), 1, &Run::default()).expect("the graph runs")[0]
        .to_f32()
}

#[test]
fn convolution_is_cross_correlation() {
    let x = "8 8 8 7 6 5 / 8 8 7 6 5 5 / 8 8 6 5 5 5 / 8 5 5 5 4 4 / 5 5 5 5 4 4 / 4 4 4 3 3 3";
    let y = convolve(x, "0 0 1 / -1 1 -1 / 1 -1 0", Padding::Valid);
    assert_eq!(y, grid("1 2 1 -1 / 4 -1 -1 1 / -2 0 1 1 / 0 0 1 -1").1);
}

#[test]
fn a_small_convolution() {
    let y = convolve("1 0 1 0 / 1 0 1 0 / 1 1 1 1 / 0 0 1 0", "1 0 / 0 1", Padding::Valid);
    assert_eq!(y, grid("1 1 1 / 2 1 2 / 1 2 1").1);
}

#[test]
fn same_padding_adds_zeros_around() {
    let x = "60 113 56 139 85 / 73 121 54 84 128 / 131 99 70 129 127 / 80 57 115 69 134 / 104 126 123 95 130";
    let y = convolve(x, "0 -1 0 / -1 5 -1 / 0 -1 0", Padding::Same);
    let wanted =
        "114 328 -26 470 158 / 53 266 -61 -30 344 / 403 116 -47 295 244 / 108 -135 256 -128 344 / 314 346 279 153 421";
    assert_eq!(y, grid(wanted).1);
}

#[test]
fn max_pooling_keeps_its_answer_when_the_image_moves() {
    let options = Pool2dOptions { pool: [3, 3], strides: [3, 3], padding: Padding::Valid };
    let pool = |x: &str| run(x, |g, v| g.max_pool2d(v, options).expect("a pooling"));
    assert_eq!(
        pool("1 2 0 7 1 0 / 0 9 2 3 2 3 / 3 0 1 2 1 2 / 2 4 0 1 0 1 / 6 0 1 2 1 2 / 2 4 0 1 8 1"),
        [9.0, 7.0, 6.0, 8.0]
    );
    assert_eq!(
        pool("1 1 2 0 7 1 / 3 0 9 2 3 2 / 3 0 1 1 2 1 / 3 2 4 0 1 0 / 2 6 0 1 2 1 / 1 2 4 0 1 8"),
        [9.0, 7.0, 6.0, 8.0]
    );
}

#[test]
fn three_channels_are_summed() {
    let mut g = Graph::new();
    let x = g.input("x", [Batch, 3, 3, 3], F32);
    let w = g.input("w", [2, 2, 3, 1], F32);
    let y = g.conv2d(x, w, Conv2dOptions::valid()).expect("a convolution");
    g.output("y", y);
    // Red counts 0..9, green is 1 everywhere, blue is 2; the kernel takes the corner of red, all of green, minus blue's
    // corner.
    let pixels: Vec<f32> = (0..9).flat_map(|i| [i as f32, 1.0, 2.0]).collect();
    let taps: Vec<f32> =
        (0..4).flat_map(|i| [if i == 0 { 1.0 } else { 0.0 }, 1.0, if i == 3 { -1.0 } else { 0.0 }]).collect();
    let feeds = [
        ("x".into(), HostTensor::f32([1, 3, 3, 3], pixels).expect("an image")),
        ("w".into(), HostTensor::f32([2, 2, 3, 1], taps).expect("a kernel")),
    ];
    let y = run_graph(&g, &feeds, &Step::of(1), 1, &Run::default()).expect("the graph runs");
    assert_eq!(y[0].to_f32(), [2.0, 3.0, 5.0, 6.0]);
}

#[test]
fn the_gram_matrix_of_a_feature_map_is_its_transpose_times_itself() {
    let mut g = Graph::new();
    let maps = g.input("maps", [Batch, 2, 2, 3], F32);
    let gram = g.gram(maps).expect("a Gram matrix");
    g.output("gram", gram);
    // F, a position a row, a channel a column.
    let f = [1.0, 2.0, 0.0, 0.0, 1.0, -1.0, 3.0, 0.0, 1.0, -2.0, 1.0, 2.0];
    let feeds = [("maps".into(), HostTensor::f32([1, 2, 2, 3], f.to_vec()).expect("a map"))];
    let y = run_graph(&g, &feeds, &Step::of(1), 1, &Run::default()).expect("the graph runs");
    assert_eq!(y[0].to_f32(), [14.0, 0.0, -1.0, 0.0, 6.0, 1.0, -1.0, 1.0, 6.0]);
    // Where something is does not matter: style has no places.
    let turned: Vec<f32> = f.chunks(3).rev().flatten().copied().collect();
    let feeds = [("maps".into(), HostTensor::f32([1, 2, 2, 3], turned).expect("a map"))];
    let again = run_graph(&g, &feeds, &Step::of(1), 1, &Run::default()).expect("the graph runs");
    assert_eq!(again, y);
}

pub fn lenet5() -> Model {
    models::lenet5().expect("LeNet-5 is valid")
}

#[test]
fn lenet5_has_61706_parameters_and_the_shapes_of_its_paper() {
    let model = lenet5();
    let shapes: Vec<String> = model.summary().rows.iter().map(|r| r.output.to_string()).collect();
    let wanted = [
        "(N, 28, 28, 6)",
        "(N, 14, 14, 6)",
        "(N, 10, 10, 16)",
        "(N, 5, 5, 16)",
        "(N, 400)",
        "(N, 120)",
        "(N, 84)",
        "(N, 10)",
    ];
    assert_eq!(shapes, wanted);
    assert_eq!(model.count_params(), 61_706);
    assert!(model.summary().rows.iter().filter(|r| r.kind == "MaxPooling2D").all(|r| r.params == 0));
}

#[test]
fn the_readme_shows_what_the_summary_of_lenet5_prints() {
    let readme = include_str!("../../README.md").replace("\r\n", "\n");
    let summary = lenet5().summary().to_string();
    assert!(readme.contains(&summary), "{summary}");
}

#[test]
fn a_dense_network_of_784_128_128_10_has_118282_parameters() {
    let model = Sequential::new([784])
        .add(Dense::new(128).activation(Relu))
        .add(Dense::new(128).activation(Relu))
        .add(Dense::new(10).activation(Softmax))
        .build()
        .expect("a valid model");
    assert_eq!(model.count_params(), 118_282);
}

#[test]
fn the_small_keras_cnn_has_93322_parameters() {
    let model = Sequential::new([28, 28, 1])
        .add(Conv2D::new(32, 3).activation(Relu))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(64, 3).activation(Relu))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(64, 3).activation(Relu))
        .add(Flatten::new())
        .add(Dense::new(64).activation(Relu))
        .add(Dropout::new(0.2))
        .add(Dense::new(10).activation(Softmax))
        .build()
        .expect("a valid model");
    assert_eq!(model.count_params(), 93_322);
}

fn predict(model: &Model, samples: &HostTensor) -> Vec<f32> {
    let mut net = model.inference(engine(), Batch::up_to(samples.shape()[0])).expect("a net");
    net.predict(samples).expect("a prediction").to_f32()
}

fn noise(seed: u64, shape: &[usize]) -> HostTensor {
    let mut rng = Philox::new(seed, Purpose::Test, 31);
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).expect("as many numbers as the shape has")
}

#[test]
fn squeeze_and_excitation_scales_channels_by_what_their_means_say() {
    let (side, c, ratio) = (6, 8, 4);
    let x = Input::new([side, side, c]);
    let y = hubel::nn::blocks::squeeze_excite(&x, ratio, "se").expect("a block");
    let model = Model::new(&[x], &[y]).expect("a model");
    let image = noise(9, &[2, side, side, c]);
    let (got, pixels) = (predict(&model, &image), image.to_f32());
    let weights: Vec<Vec<f32>> = model.weights().iter().map(|w| model.initial_value(w, 0).to_f32()).collect();
    let area = side * side;
    for n in 0..2 {
        let mean = |k: usize| (0..area).map(|i| pixels[(n * area + i) * c + k]).sum::<f32>() / area as f32;
        let reduced: Vec<f32> = (0..c / ratio)
            .map(|j| (0..c).map(|k| mean(k) * weights[0][k * (c / ratio) + j]).sum::<f32>().max(0.0))
            .collect();
        for k in 0..c {
            let sum: f32 = reduced.iter().enumerate().map(|(j, r)| r * weights[2][j * c + k]).sum();
            let factor = 1.0 / (1.0 + (-sum).exp());
            for i in 0..area {
                let at = (n * area + i) * c + k;
                assert!((got[at] - pixels[at] * factor).abs() < 1e-5, "{at}: {} of {}", got[at], pixels[at]);
            }
        }
    }
}

/// A base of five layers with weights, and a head on it.
fn transferred() -> (Model, Model) {
    let mut base = Sequential::new([12, 12, 3])
        .add(Conv2D::new(8, 3).use_bias(false))
        .add(BatchNormalization::new())
        .add(Relu)
        .add(Conv2D::new(8, 3).activation(Relu))
        .add(Conv2D::new(8, 3).activation(Relu))
        .add(Conv2D::new(8, 3).activation(Relu))
        .build()
        .expect("a base");
    let values = base.weights().iter().map(|w| (w.name.clone(), base.initial_value(w, 4))).collect();
    base.set_weights(values).expect("weights that it keeps inside another model");
    let model = Sequential::new([12, 12, 3])
        .add(base.clone())
        .add(GlobalAveragePooling2D::new())
        .add(Dense::new(2).activation(Softmax).name("head"))
        .build()
        .expect("a model");
    (base, model)
}

#[test]
fn transfer_learning_in_two_phases_with_four_ways_to_freeze() {
    let (base, model) = transferred();
    let labels = HostTensor::u8([24], (0..24).map(|i| i % 2).collect()).expect("labels");
    let mut x = noise(3, &[24, 12, 12, 3]).to_f32();
    x.chunks_mut(864).for_each(|two| two[432..].iter_mut().for_each(|x| *x = *x * 0.3 + 0.7));
    let data = Dataset::new(HostTensor::f32([24, 12, 12, 3], x).expect("images"), labels).expect("a data set");

    // Phase one: the base gives features once, the head learns from them.
    let mut net = base.inference(engine(), Batch::up_to(8)).expect("a net");
    let features = net.features(&data, |_, _| {}).expect("features");
    let row = features.sample_shape().to_vec();
    let head = Sequential::new(row)
        .add(GlobalAveragePooling2D::new())
        .add(Dense::new(2).activation(Softmax).name("head"))
        .build()
        .expect("a head");
    let config = |rate: f64| Compile::new(Adam::new(rate), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let mut one = head.compile(engine(), config(1e-2)).expect("a trainer");
    let learned = one.fit(&features, Fit::epochs(20).batch(8)).expect("training");
    assert!(learned.last("loss") < learned.get("loss").map(|l| l[0]));
    let after_one = one.evaluate(&features).expect("scores").get("loss").expect("a loss");

    // Phase two: the whole network, at a hundredth of the rate, with some of the base's layers frozen.
    let names = base.layer_names();
    let begin: Vec<(String, HostTensor)> =
        model.weights().iter().map(|w| (w.name.clone(), model.initial_value(w, 0))).collect();
    for frozen in [names.len(), names.len() - 1, 2, 0] {
        let mut model = model.clone();
        let base_name = model.layer_names()[0].to_owned();
        for name in &names[..frozen] {
            model.set_trainable(&format!("{base_name}/{name}"), false).expect("a layer");
        }
        let mut two = model.compile(engine(), config(1e-4)).expect("a trainer");
        two.set_weights(&one.weights().expect("weights")).expect("the head's weights");
        let before = two.weights().expect("weights");
        if frozen == names.len() {
            let loss = two.evaluate(&data).expect("scores").get("loss").expect("a loss");
            assert!((loss - after_one).abs() < 1e-5, "the parts are the whole: {loss} {after_one}");
        }
        two.fit(&data, Fit::epochs(2).batch(8)).expect("training");
        let after = two.weights().expect("weights");
        for ((name, old), (_, new)) in before.iter().zip(&after) {
            let still = names[..frozen].iter().any(|layer| name.starts_with(&format!("{base_name}/{layer}/")));
            assert_eq!(still, old == new, "{name} with {frozen} layers frozen");
        }
        let untouched = |n: &str| begin.iter().find(|w| w.0 == n).map(|w| &w.1);
        let first = &after.iter().find(|w| w.0.contains("conv2d/kernel")).expect("the first kernel");
        assert_eq!(untouched(&first.0) == Some(&first.1), frozen > 0);
    }
}

#[test]
fn a_network_without_its_classifier_takes_weights_of_one_with_it() {
    use hubel::nn::models::{Options, Weights, mobilenet_v2};
    let shape = |options: Options| options.input_shape([32, 32, 3]).alpha(0.35);
    let whole = mobilenet_v2(&shape(Options::default().classes(10))).expect("a network");
    let tensors: Vec<(String, HostTensor)> =
        whole.weights().iter().map(|w| (w.name.clone(), whole.initial_value(w, 7))).collect();
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("whole.safetensors");
    let bytes = hubel::io::safetensors::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &Default::default());
    std::fs::write(&path, bytes.expect("a file")).expect("a file");
    let base = mobilenet_v2(&shape(Options::no_top().weights(Weights::File(path.clone())))).expect("a base");
    for weight in base.weights() {
        let own = tensors.iter().find(|t| t.0 == weight.name).map(|t| &t.1);
        assert_eq!(Some(&base.initial_value(weight, 0)), own, "{}", weight.name);
    }
    let other = hubel::nn::models::resnet18(&Options::no_top().weights(Weights::File(path))).expect_err("another");
    assert!(other.to_string().contains("weights"), "{other}");
}
