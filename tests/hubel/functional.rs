//! Functional models at work: several inputs and outputs, frozen layers, regularised and constrained weights.

use crate::harness::engine;
use hubel::{
    graph::{DeviceClass, DeviceProfile, Value},
    layers::*,
    losses::*,
    nn::{
        Mode, Tensor,
        blocks::{residual, squeeze_excite},
        call,
    },
    optimizers::*,
    passes::{Layout, Plan, PlanOptions, plan},
    prelude::*,
    tensor::{DType, Philox, Purpose, stream_id},
};

fn uniform(name: &str, shape: &[usize]) -> HostTensor {
    let mut rng = Philox::new(1, Purpose::Test, stream_id(name));
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).expect("as many numbers as the shape has")
}

#[test]
fn a_model_of_two_inputs_and_two_outputs_computes_what_its_layers_say() {
    let (a, b) = (Input::new([3]), Input::new([3]));
    let shared = Dense::new(2).name("shared").into_layer();
    let (x, y) = (a.apply(&shared).expect("a fits"), b.apply(&shared).expect("b fits"));
    let sum = call(Add::new(), &[x.clone(), y]).expect("equal shapes");
    let model = Model::new(&[a, b], &[sum, x]).expect("a model");
    assert_eq!(model.count_params(), 8, "two uses of a layer have one set of weights");
    let samples = [uniform("a", &[5, 3]), uniform("b", &[5, 3])];
    let mut net = model.inference(engine(), Batch::up_to(2)).expect("a net");
    let got = net.predict_many(&samples).expect("a prediction in three batches");
    let names: Vec<&str> = got.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["output_0", "output_1"]);
    let kernel = model.initial_value(&model.weights()[0], 0).to_f32();
    let product = |t: &HostTensor, row: usize, column: usize| -> f32 {
        (0..3).map(|k| t.to_f32()[row * 3 + k] * kernel[k * 2 + column]).sum()
    };
    for row in 0..5 {
        for column in 0..2 {
            let (x, y) = (product(&samples[0], row, column), product(&samples[1], row, column));
            assert!((got[0].1.to_f32()[row * 2 + column] - (x + y)).abs() < 1e-5);
            assert!((got[1].1.to_f32()[row * 2 + column] - x).abs() < 1e-5);
        }
    }
    let error = net.predict_many(&samples[..1]).expect_err("one input is missing");
    assert!(error.to_string().contains("2 inputs, but 1"), "{error}");
}

#[test]
fn an_input_that_no_output_needs_is_given_and_has_no_effect() {
    let (a, b) = (Input::new([4]), Input::new([3]));
    let model = Model::new(&[a.clone(), b], &[a.apply(Dense::new(2)).expect("a fits")]).expect("a model");
    let predict = |engine: &Engine, b: &str| {
        let mut net = model.inference(engine, Batch::up_to(2)).expect("a net");
        net.predict_many(&[uniform("a", &[3, 4]), uniform(b, &[3, 3])]).expect("a prediction")[0].1.to_f32()
    };
    assert_eq!(predict(engine(), "b"), predict(engine(), "other"));
    let (got, wanted) = (predict(engine(), "b"), predict(&Engine::reference(), "b"));
    assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {wanted:?}");
}

#[test]
fn batch_statistics_of_each_use_and_of_each_timestep_follow_one_another() {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let moving = |model: &Model, samples: &HostTensor, labels: &HostTensor| {
        let config = Compile::new(Sgd::new(0.0), MeanSquaredError);
        let mut trainer = model.compile(engine(), config).expect("a trainer");
        let data = Dataset::new(samples.clone(), labels.clone()).expect("a data set");
        trainer.train_on_batch(&data).expect("a step");
        let weights = trainer.weights().expect("weights");
        weights.iter().find(|w| w.0.ends_with("moving_mean")).expect("an average").1.to_f32()[0]
    };
    // The average of 0 and of the means of two batches, one after the other.
    let follow = |first: f32, second: f32| 0.75 * (0.25 * first) + 0.25 * second;
    let samples = uniform("samples", &[6, 2, 1]);
    let rows = samples.to_f32();
    let step = |t: usize| -> Vec<f32> { rows.iter().skip(t).step_by(2).copied().collect() };

    let norm = BatchNormalization::new().momentum(0.75);
    let model = Sequential::new([2, 1]).add(TimeDistributed::new(norm.clone())).build().expect("a model");
    let got = moving(&model, &samples, &samples);
    let wanted = follow(mean(&step(0)), mean(&step(1)));
    assert!((got - wanted).abs() < 1e-6, "{got} {wanted}");

    let (x, shared) = (Input::new([2, 1]), norm.into_layer());
    let first = x.apply(&shared).expect("it fits");
    let shifted = x.apply(Rescaling::new(2.0).offset(1.0)).expect("it fits").apply(&shared).expect("it fits");
    let sum = add(&[first, shifted]).expect("equal shapes");
    let got = moving(&Model::new(&[x], &[sum]).expect("a model"), &samples, &samples);
    let wanted = follow(mean(&rows), 2.0 * mean(&rows) + 1.0);
    assert!((got - wanted).abs() < 1e-6, "{got} {wanted}");
}

fn data() -> Dataset {
    let images = uniform("images", &[32, 4, 4, 1]);
    let labels = HostTensor::u8([32], (0..32).map(|i| i % 3).collect()).expect("labels");
    Dataset::new(images, labels).expect("a data set")
}

fn weights(trainer: &Trainer) -> Vec<(String, Vec<f32>)> {
    let weights = trainer.weights().expect("weights can be read");
    weights.into_iter().map(|(name, t)| (name, t.to_f32())).collect()
}

#[test]
fn frozen_weights_keep_their_bits_and_constrained_ones_their_constraint() {
    let mut model = Sequential::new([4, 4, 1])
        .add(Conv2D::new(4, 3).activation(Relu).name("base"))
        .add(BatchNormalization::new().name("norm"))
        .add(Flatten::new())
        .add(
            Dense::new(8).kernel_constraint(Constraint::max_norm(0.5)).bias_constraint(Constraint::NonNeg).name("head"),
        )
        .add(Dense::new(3).kernel_regularizer(L2(0.1)).activation(Softmax).name("out"))
        .build()
        .expect("a model");
    model.set_trainable("base", false).expect("a layer of the model");
    model.set_trainable("norm", false).expect("a layer of the model");
    let config = Compile::new(Adam::new(0.05), SparseCategoricalCrossentropy::new());
    let mut trainer = model.compile(engine(), config).expect("a trainer");
    let before = weights(&trainer);
    trainer.fit(&data(), Fit::epochs(3).batch(8)).expect("training");
    let after = weights(&trainer);
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        let frozen = name.starts_with("base") || name.starts_with("norm");
        assert_eq!(before == after, frozen, "{name}: frozen weights and moving statistics stay, others move");
    }
    let of = |wanted: &str| after.iter().find(|(name, _)| name == wanted).expect("a weight").1.clone();
    assert!(of("head/bias").iter().all(|&b| b >= 0.0));
    let kernel = of("head/kernel");
    for column in 0..8 {
        let norm = kernel.iter().skip(column).step_by(8).map(|w| w * w).sum::<f32>().sqrt();
        assert!(norm <= 0.5 + 1e-4, "column {column} has norm {norm}");
    }
}

#[test]
fn the_loss_that_is_shown_includes_what_regularisers_ask() {
    let loss = |l2: f32| {
        let model = Sequential::new([4, 4, 1])
            .add(Flatten::new())
            .add(Dense::new(3).kernel_regularizer(L2(l2)).activation(Softmax).name("out"))
            .build()
            .expect("a model");
        let config = Compile::new(Sgd::new(0.0), SparseCategoricalCrossentropy::new());
        let mut trainer = model.compile(engine(), config).expect("a trainer");
        let squares: f32 = weights(&trainer)[0].1.iter().map(|w| w * w).sum();
        (trainer.evaluate(&data()).expect("an evaluation").get("loss").expect("a loss"), f64::from(squares))
    };
    let ((plain, _), (regularised, squares)) = (loss(0.0), loss(0.5));
    assert!((regularised - plain - 0.5 * squares).abs() < 1e-4, "{plain} {regularised} {squares}");
}

#[test]
fn a_model_is_drawn_as_svg_and_as_png() {
    let x = Input::named("image", [32, 32, 3], F32);
    let stem = x.apply(Conv2D::new(16, 3).padding(Same).name("stem")).expect("a layer");
    let y = residual(&stem, 16, 1, "block_1").and_then(|y| residual(&y, 32, 2, "block_2")).expect("two blocks");
    let y = squeeze_excite(&y, 4, "se").expect("a block");
    let y = y.apply(GlobalAveragePooling2D::new()).and_then(|y| y.apply(Dense::new(10).name("head"))).expect("a head");
    let model = Model::new(&[x], &[y]).expect("a model");
    let folder = temp_dir::TempDir::new().expect("a folder");
    let folder = std::env::var_os("HUBEL_IMAGES").map_or(folder.path().to_owned(), Into::into);
    let (svg, png) = (folder.join("model.svg"), folder.join("model.PNG"));
    model.plot(&svg).expect("an SVG");
    model.plot(&png).expect("a PNG");
    let text = std::fs::read_to_string(svg).expect("text");
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    for name in model.layer_names().into_iter().chain(["image", "(N, 16, 16, 32)", "448 weights"]) {
        assert!(text.contains(&format!(">{name}</text>")), "{name} is missing");
    }
    // An arrow into each box for each of its inputs.
    let inputs: usize = model.summary().rows.iter().map(|r| r.inputs.len()).sum();
    assert_eq!(text.matches("marker-end").count(), inputs);
    let image = hubel::io::image::open(png).expect("a PNG");
    assert!(image.shape()[0] > image.shape()[1], "{:?}", image.shape());
    let error = model.plot(folder.join("model.pdf")).expect_err("neither SVG nor PNG").to_string();
    assert!(error.contains("wanted the extension .svg or .png, got `pdf`"), "{error}");
}

#[test]
fn a_model_of_two_outputs_is_not_trained_by_one_loss_nor_one_of_two_inputs() {
    let x = Input::new([4, 4, 1]);
    let (a, b) = (x.apply(Relu).expect("a layer"), x.apply(Tanh).expect("a layer"));
    let model = Model::new(std::slice::from_ref(&x), &[a, b]).expect("a model");
    let config = || Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new());
    let error = model.compile(engine(), config()).map(drop).expect_err("two outputs are refused");
    assert!(error.to_string().contains("2 outputs, but 1 with a loss"), "{error}");
    let y = Input::new([4, 4, 1]);
    let model = Model::new(&[x.clone(), y.clone()], &[add(&[x, y]).expect("a sum")]).expect("a model");
    let error = model.compile(engine(), config()).err().expect("two inputs are refused");
    assert!(error.to_string().contains("one input, this one has 2"), "{error}");
}

/// Returns a layer's output on ones in training, on the reference.
fn trained(layer: impl IntoLayer, shape: &[usize]) -> Vec<f64> {
    let model = Sequential::new(&shape[1..]).add(layer).build().expect("a model");
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let y = model.assemble(&mut g, &[x], hubel::nn::Mode::Training).expect("a graph").outputs[0];
    g.output("y", y);
    let ones = hubel::tensor::Array::full(shape.to_vec(), 1.0);
    let found = hubel::graph::evaluate(&g, [(x, ones)].into(), &hubel::graph::Step::of(shape[0]), false);
    found.get(y).expect("a result").data.clone()
}

#[test]
fn noise_falls_on_what_its_shape_says() {
    let channels = trained(SpatialDropout2D::new(0.5), &[8, 4, 4, 16]);
    for sample in channels.chunks(256) {
        for channel in 0..16 {
            let mut values = sample.iter().skip(channel).step_by(16);
            let first = *values.next().expect("a value");
            assert!((first == 0.0 || first == 2.0) && values.all(|v| *v == first));
        }
    }
    let kept = channels.iter().filter(|v| **v > 0.0).count() as f64 / channels.len() as f64;
    assert!((0.3..0.7).contains(&kept), "{kept} kept");
    let rows = trained(Dropout::new(0.5).noise_shape(vec![None, Some(1), None]), &[4, 6, 8]);
    for sample in rows.chunks(48) {
        assert!((0..8).all(|c| (1..6).all(|t| sample[t * 8 + c] == sample[c])));
    }
    let noisy = trained(GaussianNoise::new(0.5), &[64, 32]);
    let mean = noisy.iter().sum::<f64>() / 2048.0;
    let deviation = (noisy.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2048.0).sqrt();
    assert!((mean - 1.0).abs() < 0.05 && (deviation - 0.5).abs() < 0.03, "{mean} {deviation}");
}

#[test]
fn normalisation_adapts_to_samples() {
    let samples = HostTensor::f32([4, 2], vec![1.0, 10.0, 3.0, 30.0, 5.0, 50.0, 7.0, 70.0]).expect("samples");
    let model = Sequential::new([2]).add(Normalization::new().adapt(&samples).expect("it adapts")).build();
    let y = model.expect("a model").inference(engine(), Batch::up_to(4)).expect("a net").predict(&samples);
    let y = y.expect("a prediction").to_f32();
    for (got, wanted) in y.chunks(2).zip([-1.341_640_8, -0.447_213_6, 0.447_213_6, 1.341_640_8f32]) {
        assert!(got.iter().all(|v| (v - wanted).abs() < 1e-5), "{y:?}");
    }
}

#[test]
fn a_chain_of_100_000_layers_is_built_planned_written_and_dropped() {
    let x = Input::new([1]);
    let mut y = x.clone();
    for _ in 0..100_000 {
        y = y.apply(Relu).unwrap();
    }
    assert_eq!(format!("{y:?}"), "f32(N, 1) of Activation");
    let model = Model::new(&[x], &[y]).unwrap();
    assert_eq!(model.layer_names().len(), 100_000);
    let mut graph = Graph::new();
    let input = graph.input("x", model.input_shape(), DType::F32);
    let outputs = model.assemble(&mut graph, &[input], Mode::Inference).unwrap().outputs;
    graph.output("y", outputs[0]);
    let options = PlanOptions::new(1, DeviceProfile::portable(DeviceClass::Cpu));
    assert!(!plan(&graph, &options).unwrap().dispatches.is_empty());
    let again = Model::from_json(&model.to_json().unwrap()).unwrap();
    assert_eq!(again.layer_names(), model.layer_names());
    let sum = add(&vec![Input::new([1]); 100_000]).unwrap();
    drop((model, again, sum));
}

/// Returns a model of `blocks` residual blocks, three layers each.
fn residual_chain(blocks: usize) -> Model {
    let x = Input::new([4]);
    let block = |y: Tensor, _| add(&[y.apply(Dense::new(4)).unwrap(), y]).unwrap().apply(Relu).unwrap();
    let y = (0..blocks).fold(x.clone(), block);
    Model::new(&[x], &[y]).unwrap()
}

/// Returns the plan of a step that gives the gradients of a model's weights.
fn gradient_plan(model: &Model) -> Plan {
    let mut graph = Graph::new();
    let input = graph.input("x", model.input_shape(), DType::F32);
    let assembled = model.assemble(&mut graph, &[input], Mode::Training).unwrap();
    let loss = graph.mean(assembled.outputs[0]).unwrap();
    let weights: Vec<Value> = assembled.weights.iter().map(|w| w.value).collect();
    for (i, gradient) in graph.gradients(loss, &weights).unwrap().into_iter().enumerate() {
        graph.output(&i.to_string(), gradient);
    }
    let states = assembled.weights.iter().map(|w| (w.name.clone(), graph.ty(w.value).clone()));
    let layout = Layout::new(states, 1 << 24);
    let options = PlanOptions::new(1, DeviceProfile::portable(DeviceClass::Cpu));
    plan(&graph, &PlanOptions { layouts: vec![&layout], ..options }).unwrap()
}

#[test]
fn the_work_for_a_model_grows_as_its_layers_do() {
    assert!(gradient_plan(&residual_chain(2000)).dispatches.len() >= 2 * 2000);
    let mut model = (0..20_000).fold(Sequential::new([1]), |model, _| model.add(Dense::new(1))).build().unwrap();
    assert_eq!(model.summary().rows.len(), 20_000);
    let zeros = HostTensor::f32([1], vec![0.0]).unwrap();
    let torch = (0..20_000).flat_map(|i| {
        let kernel = zeros.clone().reshape([1, 1]).unwrap();
        [(format!("{i}.weight"), kernel), (format!("{i}.bias"), zeros.clone())]
    });
    model.set_weights_from(torch.collect()).unwrap();
    let class = |i: usize| if i == 0 { "dense".to_owned() } else { format!("dense_{i}") };
    let numbered = (0..20_000).flat_map(|i| {
        let kernel = zeros.clone().reshape([1, 1]).unwrap();
        [(0, kernel), (1, zeros.clone())].map(|(k, t)| (format!("layers/{}/vars/{k}", class(i)), t))
    });
    model.set_weights_from(numbered.collect()).unwrap();
}

#[test]
fn models_lie_in_each_other_as_deep_as_files_hold_them() {
    let around = |inner: Model| Sequential::new([1]).add(inner).build();
    let mut model = Sequential::new([1]).add(Relu).build().unwrap();
    let error = loop {
        match around(model.clone()) {
            Ok(deeper) => model = deeper,
            Err(e) => break e,
        }
    };
    assert!(error.to_string().contains("at most 32 deep"), "{error}");
    let json = model.to_json().unwrap();
    assert_eq!(Model::from_json(&json).unwrap().to_json().unwrap(), json);
}

#[test]
fn json_says_the_type_of_every_tensor_as_keras_wants_it() {
    let x = Input::named("x", [8, 8, 3], F32);
    let y = x.apply(Conv2D::new(4, 3).name("c")).expect("a layer");
    let z = add(&[y.clone(), y.apply(Relu).expect("a layer")]).expect("a sum");
    let z = z.apply(Flatten::new()).and_then(|z| z.apply(Dense::new(2))).expect("a head");
    let model = Model::new(&[x], &[z]).expect("a model");
    let json: serde_json::Value = serde_json::from_str(&model.to_json().expect("JSON")).expect("JSON");
    let mut met = Vec::new();
    for layer in json["config"]["layers"].as_array().expect("layers") {
        for node in layer["inbound_nodes"].as_array().expect("nodes") {
            let args = &node["args"];
            let tensors = if args[0].is_array() { &args[0] } else { args };
            for tensor in tensors.as_array().expect("tensors") {
                assert_eq!(
                    (&tensor["class_name"], &tensor["config"]["dtype"]),
                    (&"__keras_tensor__".into(), &"float32".into())
                );
                met.push((tensor["config"]["keras_history"][0].clone(), tensor["config"]["shape"].clone()));
            }
        }
    }
    let of =
        |name: &str| met.iter().find(|m| m.0 == name).unwrap_or_else(|| panic!("no {name} in {met:?}")).1.to_string();
    assert_eq!(
        (of("x"), of("c"), of("add"), of("flatten")),
        ("[null,8,8,3]".into(), "[null,6,6,4]".into(), "[null,6,6,4]".into(), "[null,144]".into())
    );
    assert_eq!(met.len(), 6);
}
