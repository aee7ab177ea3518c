//! ONNX both ways: cases of tests/golden/onnx_cases.py, layouts on the plan, cutting and training, errors.

use crate::harness::engine;
use hubel::{
    layers::*,
    losses::SparseCategoricalCrossentropy,
    nn::{OnnxExport, OnnxOptions},
    optimizers::Sgd,
    prelude::*,
};
use safetensors::SafeTensors;
use std::collections::BTreeSet;

fn close(what: &str, got: &HostTensor, wanted: &HostTensor, tolerance: f32) {
    assert_eq!(got.shape(), wanted.shape(), "{what}");
    for (i, (a, b)) in got.to_f32().iter().zip(wanted.to_f32()).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}: element {i} is {a}, not {b}");
    }
}

fn noise(shape: &[usize]) -> HostTensor {
    let mut rng = hubel::tensor::Philox::new(3, hubel::tensor::Purpose::Test, 0);
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).unwrap()
}

fn predict(model: &Model, x: &HostTensor) -> HostTensor {
    model.inference(engine(), Batch::up_to(x.shape()[0])).unwrap().predict(x).unwrap()
}

#[test]
fn nodes_of_every_kind_give_what_onnx_defines() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/onnx_cases.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let names: BTreeSet<&str> = all.names().iter().filter_map(|n| n.split('/').next()).collect();
    assert!(names.len() >= 120, "{}", names.len());
    let options = OnnxOptions::new().data_format(ChannelsFirst);
    for name in names {
        let tensor = |part: &str| {
            let view = all.tensor(&format!("{name}/{part}")).ok()?;
            Some(HostTensor::from_bytes(view.shape(), F32, view.data()).unwrap())
        };
        let of = |kind: &str| (0..).map_while(|i| tensor(&format!("{kind}{i}"))).collect::<Vec<_>>();
        let file = all.tensor(&format!("{name}/model")).unwrap();
        let model = Model::from_onnx_bytes(file.data(), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut net = model.inference(engine(), Batch::up_to(2)).unwrap();
        let mut samples = of("x");
        if samples.is_empty() {
            samples = vec![HostTensor::f32([1, 1], vec![3.0]).unwrap()];
        }
        let results = net.predict_many(&samples).unwrap_or_else(|e| panic!("{name}: {e}"));
        for ((_, got), wanted) in results.iter().zip(of("y")) {
            close(name, got, &wanted, 2e-5);
        }
    }
}

/// A small classifier with a residual block and, flattened, a dense head.
fn classifier() -> Model {
    let x = Input::new([16, 16, 3]);
    let y = x.apply(Conv2D::new(8, 3).padding(Same).use_bias(false).name("stem")).unwrap();
    let y = y.apply(BatchNormalization::new().name("norm")).unwrap().apply(Relu).unwrap();
    let z = y.apply(DepthwiseConv2D::new(3).padding(Same)).unwrap();
    let y = add(&[y, z]).unwrap();
    let y = y.apply(MaxPooling2D::new(2)).unwrap();
    let y = y.apply(Flatten::new()).unwrap().apply(Dense::new(4).activation(Softmax).name("head")).unwrap();
    Model::new(&[x], &[y]).unwrap()
}

#[test]
fn a_plain_network_has_no_transposition_after_its_import() {
    let model = classifier();
    let x = noise(&[3, 16, 16, 3]);
    let wanted = predict(&model, &x);
    for format in [ChannelsLast, ChannelsFirst] {
        let bytes = model.to_onnx_bytes(&OnnxExport::new().data_format(format)).unwrap();
        let again = Model::from_onnx_bytes(&bytes, &OnnxOptions::new()).unwrap();
        assert_eq!(again.input_shape().to_string(), "(N, 16, 16, 3)");
        close("read again", &predict(&again, &x), &wanted, 1e-5);
        let plan = again.inference(engine(), Batch::up_to(2)).unwrap().plan().unwrap();
        let kernels: Vec<&str> = plan.dispatches.iter().map(|d| d.kernel.as_ref()).collect();
        assert!(!kernels.iter().any(|k| k.contains("transpose")), "{format:?}: {kernels:?}");
    }
}

#[test]
fn a_cut_network_is_trained_with_a_new_head_and_its_frozen_weights_stay() {
    let bytes = classifier().to_onnx_bytes(&OnnxExport::new().data_format(ChannelsFirst)).unwrap();
    let whole = Model::from_onnx_bytes(&bytes, &OnnxOptions::new()).unwrap();
    let pooled = whole.layer_names().iter().find(|n| n.contains("max_pool")).unwrap().to_string();
    let mut base = whole.cut_at(&pooled).unwrap();
    base.set_all_trainable(false).unwrap();
    let x = Input::new([16, 16, 3]);
    let y = x.apply(base).unwrap().apply(Flatten::new()).unwrap();
    let y = y.apply(Dense::new(3).name("new_head")).unwrap().apply(Softmax).unwrap();
    let model = Model::new(&[x], &[y]).unwrap();
    let before: Vec<(String, HostTensor)> =
        model.weights().iter().map(|w| (w.name.clone(), model.initial_value(w, 0))).collect();
    let data = Dataset::new(noise(&[12, 16, 16, 3]), HostTensor::u8([12], (0..12).map(|i| i % 3).collect()).unwrap());
    let mut trainer =
        model.compile(engine(), Compile::new(Sgd::new(0.002), SparseCategoricalCrossentropy::new())).unwrap();
    let history = trainer.fit(&data.unwrap(), Fit::epochs(6).batch(6)).unwrap();
    let losses = history.get("loss").unwrap();
    assert!(losses[5] < losses[0], "{losses:?}");
    let trained = trainer.trained().unwrap();
    for (name, old) in before {
        let weight = trained.weights().iter().find(|w| w.name == name).unwrap();
        let same = trained.initial_value(weight, 0) == old;
        assert_eq!(same, !name.starts_with("new_head"), "{name}");
    }
    let out = trained.to_onnx_bytes(&OnnxExport::new()).unwrap();
    let again = Model::from_onnx_bytes(&out, &OnnxOptions::new()).unwrap();
    let x = noise(&[2, 16, 16, 3]);
    close("exported", &predict(&again, &x), &predict(&trained, &x), 1e-5);
}

#[test]
fn batch_normalisation_of_an_imported_network_learns_its_statistics() {
    let bytes = classifier().to_onnx_bytes(&OnnxExport::new()).unwrap();
    let model = Model::from_onnx_bytes(&bytes, &OnnxOptions::new()).unwrap();
    let state = model.weights().iter().find(|w| w.name.ends_with("moving_mean")).unwrap().name.clone();
    let data = Dataset::new(noise(&[8, 16, 16, 3]), HostTensor::u8([8], (0..8).map(|i| i % 4).collect()).unwrap());
    let mut trainer =
        model.compile(engine(), Compile::new(Sgd::new(0.01), SparseCategoricalCrossentropy::new())).unwrap();
    trainer.fit(&data.unwrap(), Fit::epochs(1).batch(8)).unwrap();
    let trained = trainer.trained().unwrap();
    let value = |m: &Model| m.initial_value(m.weights().iter().find(|w| w.name == state).unwrap(), 0);
    assert_ne!(value(&trained), value(&model));
}

#[test]
fn a_keras_model_is_cut_at_any_layer() {
    let whole = classifier();
    let x = noise(&[2, 16, 16, 3]);
    let cut = whole.cut_at("norm").unwrap();
    assert_eq!(cut.output_shape().to_string(), "(N, 16, 16, 8)");
    assert_eq!(
        cut.weight_names(),
        ["stem/kernel", "norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"]
    );
    let layers = whole.inference_with(engine(), Batch::up_to(2), &["norm"]).unwrap().predict_all(&x).unwrap();
    close("cut", &predict(&cut, &x), &layers[1].1, 1e-6);
    assert!(whole.cut_at("nothing").unwrap_err().to_string().contains("one of stem, norm"));
}

#[test]
fn all_operators_that_are_missing_are_named_at_once() {
    let mut bytes = classifier().to_onnx_bytes(&OnnxExport::new()).unwrap();
    // Names of the same length, so that no length changes.
    for (from, to) in [("MaxPool", "MinPool"), ("Softmax", "Hardest")] {
        let at = (0..bytes.len()).rev().find(|&i| bytes[i..].starts_with(from.as_bytes())).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let error = Model::from_onnx_bytes(&bytes, &OnnxOptions::new()).unwrap_err().to_string();
    assert!(error.contains("Hardest × 1") && error.contains("MinPool × 1"), "{error}");
}

#[test]
fn quantised_layers_are_said_to_be_computed_in_floats() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/onnx_cases.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let model = classifier_again(all.tensor("quantize/model").unwrap().data());
    assert!(model.summary().to_string().contains("Quantised layers, computed in f32: 2"), "{}", model.summary());
    assert!(!classifier().summary().to_string().contains("Quantised"));
}

#[test]
fn open_dimensions_are_named_and_bound() {
    let bytes = classifier().to_onnx_bytes(&OnnxExport::new()).unwrap();
    // The batch, bound: the model then has no batch of its own.
    let model = Model::from_onnx_bytes(&bytes, &OnnxOptions::new().dim("N", 3)).unwrap();
    assert_eq!(model.input_shape().to_string(), "(3, 16, 16, 3)");
    let x = noise(&[3, 16, 16, 3]);
    close("bound", &predict(&model, &x), &predict(&classifier_again(&bytes), &x), 1e-6);
}

fn classifier_again(bytes: &[u8]) -> Model {
    Model::from_onnx_bytes(bytes, &OnnxOptions::new()).unwrap()
}

#[test]
fn recurrent_layers_and_several_outputs_are_written_and_read() {
    let x = Input::new([6, 4]);
    let y = x.apply(LSTM::new(5).return_sequences(true)).unwrap();
    let z = y.apply(GRU::new(3)).unwrap();
    let model = Model::new(&[x], &[y, z]).unwrap();
    let again = classifier_again(&model.to_onnx_bytes(&OnnxExport::new()).unwrap());
    let x = noise(&[2, 6, 4]);
    let run =
        |m: &Model| m.inference(engine(), Batch::up_to(2)).unwrap().predict_many(std::slice::from_ref(&x)).unwrap();
    for ((name, got), (_, wanted)) in run(&again).iter().zip(run(&model)) {
        close(name, got, &wanted, 1e-5);
    }
}
