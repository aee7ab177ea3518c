//! Numbers from CNN teaching material, on the GPU.

use crate::harness::{Run, engine, run_graph};
use hubel::{
    graph::{Graph, Step, Value},
    ops::{Conv2dOptions, Padding, Pool2dOptions},
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
    let x = HostTensor::f32(shape, data).expect("a picture");
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
    let x = HostTensor::f32(image, pixels).expect("a picture");
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
fn max_pooling_keeps_its_answer_when_the_picture_moves() {
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
    // Red counts 0..9, green is 1 everywhere, blue is 2; the kernel takes the corner of red, all of green, minus blue's corner.
    let pixels: Vec<f32> = (0..9).flat_map(|i| [i as f32, 1.0, 2.0]).collect();
    let taps: Vec<f32> =
        (0..4).flat_map(|i| [if i == 0 { 1.0 } else { 0.0 }, 1.0, if i == 3 { -1.0 } else { 0.0 }]).collect();
    let feeds = [
        ("x".into(), HostTensor::f32([1, 3, 3, 3], pixels).expect("a picture")),
        ("w".into(), HostTensor::f32([2, 2, 3, 1], taps).expect("a kernel")),
    ];
    let y = run_graph(&g, &feeds, &Step::of(1), 1, &Run::default()).expect("the graph runs");
    assert_eq!(y[0].to_f32(), [2.0, 3.0, 5.0, 6.0]);
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

/// Returns the model with these weights, in the order of its own.
fn with_weights(mut model: Model, values: &[&[f32]]) -> Model {
    let named = model.weights().iter().zip(values).map(|(weight, values)| {
        (weight.name.clone(), HostTensor::f32(weight.shape.clone(), values.to_vec()).expect("as many as the shape has"))
    });
    let named = named.collect();
    model.set_weights(named).expect("the model's own weights");
    model
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
fn a_full_hd_picture_is_convolved_and_pooled() {
    let [h, w] = [1920, 1080];
    let picture = noise(7, &[1, h, w, 3]);
    let pixels = picture.to_f32();
    for filters in [1, 16] {
        let model = Sequential::new([h, w, 3])
            .add(Conv2D::new(filters, 5).use_bias(false).name("conv"))
            .add(MaxPooling2D::new(2).name("pool"))
            .build()
            .expect("a model");
        assert_eq!(model.weights()[0].shape, [5, 5, 3, filters]);
        assert_eq!(model.count_params(), 75 * filters);
        let rows = model.summary().rows;
        assert_eq!(rows[0].output.at(1), [1, 1916, 1076, filters]);
        assert_eq!(rows[0].output.elements().at(1), 2_061_616 * filters as u64);
        assert_eq!(rows[1].output.at(1), [1, 958, 538, filters]);
        let mut net = model.inference_with(engine(), Batch::up_to(1), &["conv"]).expect("the picture fits");
        let results = net.predict_all(&picture).expect("a prediction");
        let [pooled, convolved] = [0, 1].map(|i| results[i].1.to_f32());
        assert_eq!(convolved.len(), 2_061_616 * filters);
        let kernel = model.initial_value(&model.weights()[0], 0).to_f32();
        let exact = |y: usize, x: usize, f: usize| -> f64 {
            let taps = (0..75).map(|t| (t / 15, t / 3 % 5, t % 3));
            let term = |(i, j, c): (usize, usize, usize)| {
                let pixel = f64::from(pixels[((y + i) * w + x + j) * 3 + c]);
                pixel * f64::from(kernel[((i * 5 + j) * 3 + c) * filters + f])
            };
            taps.map(term).sum()
        };
        let corners = [(0, 0), (0, 1075), (1915, 0), (1915, 1075), (957, 538), (1, 1074), (1234, 567)];
        for ((y, x), f) in corners.into_iter().flat_map(|at| [(at, 0), (at, filters - 1)]) {
            let got = f64::from(convolved[(y * 1076 + x) * filters + f]);
            assert!((got - exact(y, x, f)).abs() < 1e-4, "filter {f} at {y}, {x}: {got}, wanted {}", exact(y, x, f));
            let four = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| exact(y / 2 * 2 + i, x / 2 * 2 + j, f));
            let (got, most) =
                (f64::from(pooled[(y / 2 * 538 + x / 2) * filters + f]), four.into_iter().fold(f64::MIN, f64::max));
            assert!((got - most).abs() < 1e-4, "filter {f} around {y}, {x}: {got}, wanted {most}");
        }
    }
}

#[test]
fn two_convolutions_of_3_see_what_one_of_5_sees_with_fewer_weights() {
    let c = 16;
    let conv = |size: usize| Conv2D::new(c, size).use_bias(false);
    let two = Sequential::new([32, 32, c]).add(conv(3)).add(conv(3)).build().expect("a model");
    let one = Sequential::new([32, 32, c]).add(conv(5)).build().expect("a model");
    let sees = |model: &Model| model.summary().rows.last().and_then(|r| r.receptive_field);
    assert_eq!(sees(&two), Some([5, 5]));
    assert_eq!(sees(&one), Some([5, 5]));
    assert_eq!(two.output_shape(), one.output_shape());
    assert_eq!((two.count_params(), one.count_params()), (18 * c * c, 25 * c * c));
}

#[test]
fn heads_for_a_number_for_two_classes_and_for_many() {
    let samples = noise(8, &[6, 12]);
    let head = |layer: Dense| {
        let model = Sequential::new([12]).add(Dense::new(8).activation(Relu)).add(layer).build().expect("a model");
        predict(&model, &samples)
    };
    let number = head(Dense::new(1));
    assert!(number.len() == 6 && number.iter().any(|y| *y < 0.0 || *y > 1.0), "any number: {number:?}");
    let two = head(Dense::new(1).activation(Sigmoid));
    assert!(two.len() == 6 && two.iter().all(|p| (0.0..1.0).contains(p)), "a probability: {two:?}");
    let many = head(Dense::new(5).activation(Softmax));
    assert!(many.len() == 30 && many.chunks(5).all(|p| (p.iter().sum::<f32>() - 1.0).abs() < 1e-6), "{many:?}");
}

#[test]
fn squeeze_and_excitation_scales_channels_by_what_their_means_say() {
    let (side, c, ratio) = (6, 8, 4);
    let x = Input::new([side, side, c]);
    let y = hubel::nn::blocks::squeeze_excite(&x, ratio, "se").expect("a block");
    let model = Model::new(&[x], &[y]).expect("a model");
    let picture = noise(9, &[2, side, side, c]);
    let (got, pixels) = (predict(&model, &picture), picture.to_f32());
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

/// Returns x ∗ k with all places where they overlap: zeros at both ends, and the kernel turned around.
fn convolve_fully(x: &[f32], k: &[f32]) -> Vec<f32> {
    let model = Sequential::new([x.len(), 1])
        .add(ZeroPadding1D::new(k.len() - 1))
        .add(Conv1D::new(1, k.len()).use_bias(false))
        .build()
        .expect("a model");
    let turned: Vec<f32> = k.iter().rev().copied().collect();
    predict(&with_weights(model, &[&turned]), &HostTensor::f32([1, x.len(), 1], x.to_vec()).expect("a row"))
}

#[test]
fn full_convolution_in_one_dimension_is_associative() {
    assert_eq!(convolve_fully(&[2.0, 3.0], &[1.0, 1.0]), [2.0, 5.0, 3.0]);
    let (x, a, b) = ([1.0, -2.0, 3.0, 5.0, 4.0], [2.0, 1.0, -1.0], [1.0, 3.0]);
    let (left, right) = (convolve_fully(&convolve_fully(&x, &a), &b), convolve_fully(&x, &convolve_fully(&a, &b)));
    assert_eq!(left, right);
    assert_eq!(left.len(), 8);
}

#[test]
fn sizes_of_results_follow_from_size_kernel_and_stride() {
    for (size, kernel, stride, wanted) in [(5, 3, 1, 3), (5, 3, 2, 2), (32, 5, 1, 28)] {
        let conv = Conv2D::new(1, kernel).strides(stride);
        let model = Sequential::new([size, size, 1]).add(conv).build().expect("a model");
        assert_eq!(model.output_shape().at(1), [1, wanted, wanted, 1]);
    }
}
