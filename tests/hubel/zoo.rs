//! The networks of `models`: parameters, layers, products, shapes and weights as Keras, torchvision and the papers have
//! them, and that they learn. tests/golden/zoo.py wrote zoo.json; tests/whole_networks.rs compares and trains each.

use crate::{
    harness::engine,
    networks::{build, learns, uniform},
};
use hubel::{
    graph::{DeviceClass, DeviceProfile, Step, evaluate},
    nn::models::{Application, Options, Pooling, Weights, all, find},
    passes::{Layout, PlanOptions, plan, split_rows},
    prelude::*,
};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, fs};

fn golden(file: &str) -> Json {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("JSON")
}

/// The weights' names and shapes, as zoo.py hashes them.
fn hash(model: &Model) -> String {
    let mut lines = String::new();
    for weight in model.weights() {
        let extents: String = weight.shape.iter().map(|d| format!(" {d}")).collect();
        let _ = writeln!(lines, "{}{extents}", weight.name);
    }
    Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keras() -> impl Iterator<Item = &'static Application> {
    all().iter().filter(|a| a.keras)
}

#[test]
fn weights_have_the_names_shapes_and_order_of_keras() {
    let wanted = golden("zoo.json");
    assert_eq!(keras().count(), wanted.as_object().map_or(0, |m| m.len()));
    let mut wrong = String::new();
    for application in keras() {
        for (key, options) in [("top", Options::default()), ("no_top", Options::no_top().pooling(Pooling::Avg))] {
            let (model, wanted) = (build(application, &options), &wanted[application.name][key]);
            let summary = model.summary();
            let ours = (model.count_params(), summary.trainable, format!("{:?}", &model.output_shape().dims()[1..]));
            let number = |name: &str| wanted[name].as_u64().expect("a number") as usize;
            let output: Vec<u64> = serde_json::from_value(wanted["output"].clone()).expect("extents");
            let theirs = (number("params_total"), number("params_trainable"), format!("{output:?}"));
            if ours != theirs || wanted["weights"] != hash(&model) {
                let same = if wanted["weights"] == hash(&model) { "equal" } else { "other" };
                let _ = writeln!(wrong, "{} {key}: {ours:?}, wanted {theirs:?}; {same} weights", application.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn counts_are_those_of_keras() {
    let table = golden("keras_applications.json");
    let table = table.as_object().expect("a table");
    let mut wrong = String::new();
    for (name, wanted) in table {
        let application = find(name).unwrap_or_else(|| panic!("no {name}"));
        let (model, bare) =
            (build(application, &Options::default()), build(application, &Options::no_top().pooling(Pooling::Avg)));
        let (summary, without) = (model.summary(), bare.summary());
        let map = build(application, &Options::no_top()).output_shape();
        let short = &wanted["include_top_false_avg"];
        let shape = |shape: &Shape| Json::from(shape.dims()[1..].to_vec());
        for (what, got, wanted) in [
            ("input", shape(&model.input_shape()), &wanted["input_shape"]),
            ("classes", shape(&model.output_shape()), &Json::from(vec![wanted["classes"].clone()])),
            ("total", model.count_params().into(), &wanted["params_total"]),
            ("trainable", summary.trainable.into(), &wanted["params_trainable"]),
            ("not trainable", summary.non_trainable.into(), &wanted["params_non_trainable"]),
            ("layers", (model.layer_names().len() + 1).into(), &wanted["layers"]),
            ("tensors", model.weights().len().into(), &wanted["weight_tensors"]),
            ("MACs", summary.macs().into(), &wanted["macs"]),
            ("bare total", bare.count_params().into(), &short["params_total"]),
            ("bare trainable", without.trainable.into(), &short["params_trainable"]),
            ("bare not trainable", without.non_trainable.into(), &short["params_non_trainable"]),
            ("bare layers", (bare.layer_names().len() + 1).into(), &short["layers"]),
            ("features", bare.output_shape().dims()[1].into(), &short["output_features"]),
            ("last map", shape(&map), &short["last_conv_map"]),
        ] {
            if got != *wanted {
                let _ = writeln!(wrong, "{name} {what}: {got}, wanted {wanted}");
            }
        }
        for (kind, count) in wanted["layer_kinds"].as_object().expect("a table") {
            let own =
                model.layer_names().into_iter().filter(|n| model.layer(n).is_ok_and(|l| l.kind() == kind)).count();
            if kind != "InputLayer" && *count != own {
                let _ = writeln!(wrong, "{name} {kind}: {own}, wanted {count}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Trainable parameters and MACs as the papers and torchvision give them.
#[test]
fn counts_of_the_others_are_those_of_their_papers() {
    let torchvision = Options::default().stride_in_1x1(false);
    let plain = Options::default();
    let mut wrong = String::new();
    for (name, options, trainable, macs) in [
        ("LeNet5", &plain, 61_706, 416_520),
        ("AlexNet", &plain, 60_965_224, 724_406_816),
        ("VGG11", &plain, 132_863_336, 7_609_090_048),
        ("VGG13", &plain, 133_047_848, 11_308_466_176),
        ("VGG16C", &plain, 133_638_952, 11_770_888_192),
        ("VGG19", &plain, 143_667_240, 19_632_062_464),
        ("ResNet18", &plain, 11_689_512, 1_814_073_344),
        ("ResNet34", &plain, 21_797_672, 3_663_761_408),
        ("ResNet50", &torchvision, 25_557_032, 4_089_184_256),
        ("ResNet101", &torchvision, 44_549_160, 7_801_405_440),
        ("ResNet152", &torchvision, 60_192_808, 11_513_626_624),
        ("SEResNet50", &plain, 28_088_024, 4_091_699_200),
        ("EfficientNetLite0", &plain, 4_652_008, 385_187_552),
        ("EfficientNetLite1", &plain, 5_416_680, 600_185_232),
        ("EfficientNetLite2", &plain, 6_092_072, 859_736_272),
        ("UNet", &plain, 1_942_594, 758_382_592),
    ] {
        let summary = build(find(name).expect("a network"), options).summary();
        if (summary.trainable, summary.macs()) != (trainable, macs) {
            let _ = writeln!(wrong, "{name}: {} {}, wanted {trainable} {macs}", summary.trainable, summary.macs());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_a_network_cannot_have_is_refused() {
    let refused = |name: &str, options: Options| {
        let error = (find(name).expect("a network").build)(&options).expect_err("refused");
        error.to_string()
    };
    begin_with(
        &[
            refused("VGG16", Options::default().input_shape([31, 224, 3])),
            refused("Xception", Options::no_top().input_shape([64, 64, 3])),
            refused("ResNet50", Options::default().classes(0)),
            refused("ResNet50", Options::default().alpha(0.5)),
            refused("MobileNet", Options::default().alpha(-1.0)),
            refused("VGG19", Options::default().stride_in_1x1(true)),
            refused("UNet", Options::default().input_shape([100, 100, 3])),
            refused("VGG16", Options::default().classes(10).weights(Weights::ImageNet)),
            refused("MobileNet", Options::default().weights(Weights::ImageNet)),
            refused("LeNet5", Options::default().weights(Weights::File("no such file".into()))),
        ],
        &[
            "layer `vgg16` (VGG16): wanted images of at least 32×32, got [31, 224, 3];",
            "layer `xception` (Xception): wanted images of at least 71×71, got [64, 64, 3];",
            "layer `resnet50` (ResNet50): wanted at least one class, got 0;",
            "layer `resnet50` (ResNet50): wanted no alpha, got 0.5;",
            "layer `mobilenet` (MobileNet): wanted an alpha above 0, at most 64, got -1;",
            "layer `vgg19` (VGG19): wanted no stride_in_1x1, got Some(true);",
            "layer `up3_concat` (Concatenate): wanted",
            "layer `vgg16` (VGG16): wanted 1000 classes, got Some(10);",
            "layer `mobilenet` (MobileNet): wanted a network whose weights are published with a sum: VGG16, VGG19,",
            "layer `lenet5` (weights): wanted a readable file, got no such file:",
        ],
    );
}

#[test]
fn a_network_begins_with_the_weights_of_a_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/lenet5.safetensors");
    let lenet5 = find("LeNet5").expect("a network");
    let mut later = build(lenet5, &Options::default());
    later.load_weights(path).expect("a file");
    let model = build(lenet5, &Options::default().weights(Weights::File(path.into())));
    for weight in model.weights() {
        assert_eq!(model.initial_value(weight, 0), later.initial_value(weight, 1), "{}", weight.name);
    }
}

fn begin_with(got: &[String], wanted: &[&str]) {
    for (got, wanted) in got.iter().zip(wanted) {
        assert!(got.starts_with(wanted), "{got}\nwanted {wanted}");
    }
}

#[test]
fn preprocessing_is_that_of_keras() {
    use hubel::nn::models::Preprocessing::{self, Caffe, Identity, Lite, Mnist, Tf, Torch, Unit};
    let apply = |preprocessing: Preprocessing, pixel: &[u8]| {
        let pixel = HostTensor::u8([1, 1, 1, pixel.len()], pixel.to_vec()).expect("a pixel");
        preprocessing.apply(&pixel).map(|t| t.to_f32()).map_err(|e| e.to_string())
    };
    for (preprocessing, wanted) in [
        (Identity, [255.0, 0.0, 51.0]),
        (Tf, [1.0, -1.0, -0.6]),
        (Torch, [2.248_908_3, -2.035_714_4, -0.915_555_5]),
        (Caffe, [51.0 - 103.939, -116.779, 255.0 - 123.68]),
        (Lite, [1.0, -0.992_187_5, -0.593_75]),
        (Unit, [1.0, 0.0, 0.2]),
    ] {
        let got = apply(preprocessing, &[255, 0, 51]).expect("three channels");
        assert!(
            got.iter().zip(wanted).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5),
            "{preprocessing:?} {got:?} {wanted:?}"
        );
    }
    assert!((apply(Mnist, &[255]).expect("one channel")[0] - 2.821_486_7).abs() < 1e-5);
    assert!(apply(Caffe, &[1]).expect_err("one channel").contains("wanted 3 channels"));
    let classes = hubel::nn::models::imagenet_classes();
    assert_eq!(
        (classes.len(), classes[0], classes[134], classes[517], classes[999]),
        (1000, "tench", "crane", "crane", "toilet tissue")
    );
}

/// Inference plans that the performance promises name.
#[test]
fn resnet50_takes_57_launches_in_12_mib() {
    let model = build(find("ResNet50").expect("a network"), &Options::default());
    let plan = model.inference(engine(), Batch::up_to(1)).expect("it fits").plan().expect("a plan");
    let bytes: u64 = plan.arenas.iter().sum();
    assert!(plan.dispatches.len() <= 57, "{} launches", plan.dispatches.len());
    assert!(bytes <= 12 << 20, "{bytes} bytes");
}

#[test]
fn weights_larger_than_a_binding_are_cut() {
    let model = build(find("VGG16").expect("a network"), &Options::default());
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let y = model.assemble(&mut g, &[x], hubel::nn::Mode::Inference).expect("a graph").outputs[0];
    g.output("y", y);
    for class in [DeviceClass::Cpu, DeviceClass::Gpu] {
        let profile = DeviceProfile::portable(class);
        let limit = profile.max_binding_bytes;
        let (graph, split) = split_rows(&g, limit);
        assert_eq!(split["fc1/kernel"].len(), 4);
        let states = graph.nodes().iter().filter(|n| matches!(n.kind, hubel::graph::Kind::State { .. }));
        let layout = Layout::new(states.map(|n| (n.name.clone(), n.outputs[0].clone())), limit);
        assert!(layout.chunks.iter().all(|bytes| *bytes <= limit));
        plan(&graph, &PlanOptions { layouts: vec![&layout], ..PlanOptions::new(1, profile) }).expect("a plan");
    }

    let mut g = Graph::new();
    let x = g.input("x", [hubel::tensor::Batch, 100], F32);
    let w = g.state("w", hubel::graph::TensorType::f32([100, 7]), None);
    let y = g.matmul(x, w).expect("a product");
    g.output("y", y);
    let (cut, split) = split_rows(&g, 1000);
    let parts = &split["w"];
    assert!(parts.len() > 2 && parts.iter().all(|(_, rows)| rows.len() * 28 <= 1000), "{parts:?}");
    let (x, w) = (uniform("x", &[3, 100]), uniform("w", &[100, 7]));
    let value = |graph: &Graph, tensors: &[(&str, HostTensor)]| {
        let feeds = tensors.iter().map(|(name, t)| (graph.find(name).expect("a leaf"), t.to_array())).collect();
        evaluate(graph, feeds, &Step::of(3), false).get(graph.outputs()[0].1).expect("a result").data.clone()
    };
    let whole = value(&g, &[("x", x.clone()), ("w", w.clone())]);
    let mut tensors = vec![("x", x)];
    tensors.extend(parts.iter().map(|(name, rows)| (name.as_str(), w.rows(rows.start, rows.len()).expect("rows"))));
    let sum = value(&cut, &tensors);
    assert!(whole.iter().zip(&sum).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn small_networks_learn() {
    ["LeNet5", "UNet"].iter().for_each(|name| learns(find(name).expect("a network")));
}
