//! Every layer with every option against Keras's results; tests/golden/layers.py writes the files.

use crate::{
    harness::{Run, engine, reference, run_graph},
    repository::is_generated,
};
use hubel::{
    graph::{Graph, Kind, Step, TensorType, Value, evaluate},
    layers::*,
    nn::{Initializer, Mode, Weight},
    passes::{Layout, PlanOptions, plan},
    prelude::*,
    tensor::Array,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    sync::Arc,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Layers of which there is no golden case: the class, and the test in tests/hubel that holds its numbers.
const NAMED_TESTS: [(&str, &str); 4] = [
    ("Discretization", "bins_count_the_boundaries_that_a_number_reaches"),
    ("IntegerLookup", "whole_numbers_become_their_places_in_a_vocabulary"),
    ("LpPooling2D", "l2_pooling_is_the_root_of_the_sum_of_squares_and_its_gradient_x_over_y"),
    ("RandomFlip", "flips_are_mirror_images_and_as_likely_as_not"),
];

struct Cases {
    cases: Vec<Json>,
    tensors: BTreeMap<String, HostTensor>,
}

fn cases() -> Cases {
    let file = |name: &str| fs::read(format!("{ROOT}/tests/golden/{name}")).expect("the vectors are there");
    let bytes = file("layers.safetensors");
    let all = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = |name: &str| {
        let view = all.tensor(name).expect("a listed tensor");
        let dtype = if view.dtype() == Dtype::I32 { DType::I32 } else { DType::F32 };
        HostTensor::from_bytes(view.shape(), dtype, view.data()).expect("a tensor")
    };
    let tensors = all.names().into_iter().map(|name| (name.to_owned(), tensor(name))).collect();
    Cases { cases: serde_json::from_slice(&file("layers.json")).expect("JSON"), tensors }
}

/// A case's tensors of one kind: `in`, `w`, `out`, ….
fn of<'c>(cases: &'c Cases, case: &str, kind: &str) -> Vec<(&'c str, &'c HostTensor)> {
    let prefix = format!("{case}/{kind}/");
    let all = cases.tensors.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
    all.map(|(name, tensor)| (&name[prefix.len()..], tensor)).collect()
}

/// Whether two paths name one weight: Keras puts a sequential model's name in front, and a submodel's not.
fn same(ours: &str, keras: &str) -> bool {
    ours == keras || ours.ends_with(&format!("/{keras}")) || keras.ends_with(&format!("/{ours}"))
}

/// A model's graph with all that a case may ask of it.
struct Built {
    graph: Graph,
    results: Vec<(String, Value)>,
    weights: Vec<Weight>,
}

/// Returns the model with losses, gradients, constraints and moving statistics as results.
fn build(cases: &Cases, name: &str, case: &Json) -> Result<Built, String> {
    let model = Model::from_json(&case["model"].to_string()).map_err(|e| e.to_string())?;
    let again = model.to_json().map_err(|e| e.to_string())?;
    let twice = Model::from_json(&again).and_then(|m| m.to_json()).map_err(|e| format!("{e} in {again}"))?;
    if again != twice {
        return Err("the configuration changes when it is written and read".into());
    }
    let mut g = Graph::new();
    let inputs: Vec<(String, Value)> = (model.inputs().iter())
        .map(|(name, ty)| (name.clone(), g.input(&format!("in/{name}"), ty.shape.clone(), ty.dtype)))
        .collect();
    let mode = if case["training"] == true { Mode::Training } else { Mode::Inference };
    let values: Vec<Value> = inputs.iter().map(|i| i.1).collect();
    let built = model.assemble(&mut g, &values, mode).map_err(|e| e.to_string())?;
    let text = |e: hubel::graph::OpError| e.to_string();
    let mut results = Vec::new();
    let mut loss = g.constant(0.0).map_err(text)?;
    for &penalty in &built.penalties {
        loss = g.add(loss, penalty).map_err(text)?;
    }
    results.push(("losses".to_owned(), loss));
    for (k, &y) in built.outputs.iter().enumerate() {
        results.push((format!("out/{k}"), y));
        let dy = g.input(&format!("dy/{k}"), g.shape(y).clone(), F32);
        let product = g.mul(y, dy).map_err(text)?;
        let axes: Vec<usize> = (0..g.shape(product).rank()).collect();
        let sum = g.sum(product, &axes, false).map_err(text)?;
        loss = g.add(loss, sum).map_err(text)?;
    }
    let float = inputs.iter().filter(|(_, v)| g.ty(*v).dtype == F32);
    let mut wrt: Vec<(String, Value)> = float.map(|(name, v)| (format!("din/{name}"), *v)).collect();
    let keras = |ours: &str| {
        let paths = of(cases, name, "w").into_iter().map(|w| w.0);
        paths.filter(|k| same(ours, k)).map(str::to_owned).next().unwrap_or_else(|| ours.to_owned())
    };
    let trained = built.weights.iter().filter(|w| w.trainable);
    wrt.extend(trained.map(|w| (format!("dw/{}", keras(&w.name)), w.value)));
    // Whole numbers that go through an embedding have no gradient; Keras gives none either.
    wrt.retain(|(name, _)| {
        cases.tensors.contains_key(&format!("{}/{name}", case["name"].as_str().unwrap_or_default()))
    });
    let values: Vec<Value> = wrt.iter().map(|w| w.1).collect();
    let gradients = g.gradients(loss, &values).map_err(text)?;
    results.extend(wrt.into_iter().map(|w| w.0).zip(gradients));
    for weight in &built.weights {
        if let Some(constraint) = &weight.constraint {
            results.push((
                format!("constrained/{}", keras(&weight.name)),
                constraint.build(&mut g, weight.value).map_err(text)?,
            ));
        }
    }
    for &(state, value) in g.updates() {
        results.push((format!("after/{}", keras(&g.node(state).name)), value));
    }
    let wanted: Vec<&str> = of(cases, name, "w").into_iter().map(|w| w.0).collect();
    let lost = wanted.iter().find(|k| built.weights.iter().filter(|w| same(&w.name, k)).count() != 1);
    if wanted.len() != built.weights.len() || lost.is_some() {
        return Err(format!("weights {:?}, wanted {wanted:?}", model.weight_names()));
    }
    Ok(Built { graph: g, results, weights: built.weights })
}

/// Where a case is computed.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Definition,
    Device,
}

fn check(cases: &Cases, case: &Json, by: By) -> Result<(), String> {
    let name = case["name"].as_str().ok_or("a case without a name")?;
    let Built { mut graph, results, weights } = build(cases, name, case)?;
    results.iter().for_each(|(name, value)| graph.output(name, *value));
    let mut feeds: Vec<(Value, HostTensor)> = Vec::new();
    let mut n = 1;
    for kind in ["in", "dy"] {
        for (input, tensor) in of(cases, name, kind) {
            let value = graph.find(&format!("{kind}/{input}")).ok_or(format!("no input {kind}/{input}"))?;
            n = tensor.shape()[0];
            feeds.push((value, tensor.clone()));
        }
    }
    for (path, tensor) in of(cases, name, "w") {
        let weight = weights.iter().find(|w| same(&w.name, path)).ok_or(format!("no weight {path}"))?;
        feeds.push((weight.value, tensor.clone()));
    }
    let step = Step::of(n);
    let found: Vec<Array> = match by {
        By::Definition => {
            let feeds = feeds.into_iter().map(|(value, t)| (value, t.to_array())).collect();
            let found = evaluate(&graph, feeds, &step, false);
            let result = |(name, value): &(String, Value)| found.get(*value).cloned().ok_or(format!("no {name}"));
            results.iter().map(result).collect::<Result<_, _>>()?
        }
        By::Device => {
            let states = feeds.iter().filter(|(v, _)| matches!(graph.node(*v).kind, Kind::State { .. }));
            let states: Vec<(&str, &HostTensor)> = states.map(|(v, t)| (graph.node(*v).name.as_str(), t)).collect();
            let profile = engine().profile().clone();
            let types = states.iter().map(|(name, t)| (name.to_string(), TensorType::f32(t.shape())));
            let layout = Arc::new(Layout::new(types, profile.max_binding_bytes));
            let store = engine().store(layout.clone()).map_err(|e| e.to_string())?;
            for (state, tensor) in &states {
                store.write(state, tensor).map_err(|e| e.to_string())?;
            }
            let options = PlanOptions { layouts: vec![&layout], ..PlanOptions::new(n, profile) };
            let plan = Arc::new(plan(&graph, &options).map_err(|e| e.to_string())?);
            let mut session = engine().session(plan.clone(), &[store], None).map_err(|e| e.to_string())?;
            let inputs: Vec<(&str, &[u8])> = (feeds.iter())
                .map(|(v, t)| (graph.node(*v).name.as_str(), t.bytes()))
                .filter(|(name, _)| plan.inputs.iter().any(|p| p.name == *name))
                .collect();
            session.run(&step, &inputs).map_err(|e| e.to_string())?;
            let read = |(name, _): &(String, Value)| session.read(name, n).map_err(|e| e.to_string());
            let found = results.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            found.iter().map(HostTensor::to_array).collect()
        }
    };
    let mut wrong = Vec::new();
    for ((result, _), got) in results.iter().zip(&found) {
        let Some(wanted) = cases.tensors.get(&format!("{name}/{result}")) else {
            let spoken = ["losses", "after", "constrained"].iter().any(|s| result.starts_with(s));
            if !spoken {
                wrong.push(format!("{result} is not in the file"));
            }
            continue;
        };
        if let Err(e) = close(got, &wanted.to_array()) {
            wrong.push(format!("{result}: {e}"));
        }
    }
    let kinds = ["out", "din", "dw", "constrained", "after"];
    for kind in kinds {
        for (path, _) in of(cases, name, kind) {
            if !results.iter().any(|(r, _)| *r == format!("{kind}/{path}")) {
                wrong.push(format!("{kind}/{path} is not computed"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn close(got: &Array, wanted: &Array) -> Result<(), String> {
    if got.shape != wanted.shape && !(got.shape.is_empty() && wanted.data.len() == 1) {
        return Err(format!("shape {:?}, wanted {:?}", got.shape, wanted.shape));
    }
    let allowed = 1e-6 + 1e-4 * wanted.data.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    match got.data.iter().zip(&wanted.data).position(|(g, w)| !((g - w).abs() <= allowed)) {
        None => Ok(()),
        Some(i) => Err(format!("element {i} is {}, wanted {} within {allowed:e}", got.data[i], wanted.data[i])),
    }
}

fn all(by: By) {
    let cases = cases();
    let failed: Vec<String> = (cases.cases.iter())
        .filter_map(|case| check(&cases, case, by).err().map(|e| format!("{}: {e}", case["name"])))
        .collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.cases.len(), failed.join("\n"));
}

#[test]
fn every_layer_with_every_option_is_keras() {
    all(By::Definition);
}

#[test]
fn every_layer_with_every_option_is_keras_on_the_device() {
    all(By::Device);
}

/// Returns which layers are not written as ONNX, with the reason.
fn unwritten(cases: &Cases) -> String {
    let mut reasons: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for case in &cases.cases {
        let model = Model::from_json(&case["model"].to_string()).expect("a model");
        if let Err(e) = model.to_onnx_bytes(&hubel::nn::OnnxExport::new()) {
            let text = e.to_string();
            let (_, why) = text.split_once(": ").unwrap_or(("", &text));
            let why = why.split("; ").next().unwrap_or_default().to_owned();
            reasons.entry(why).or_default().insert(case["layer"].as_str().unwrap_or_default());
        }
    }
    let line = |(why, layers): (String, BTreeSet<&str>)| {
        format!("- {why}: {}\n", layers.into_iter().collect::<Vec<_>>().join(", "))
    };
    reasons.into_iter().map(line).collect()
}

#[test]
fn what_is_written_as_onnx_is_read_with_the_same_numbers() {
    let cases = cases();
    let (mut failed, mut refused) = (Vec::new(), Vec::new());
    let options = hubel::nn::OnnxOptions::new().data_format(hubel::layers::ChannelsFirst);
    for case in &cases.cases {
        let name = case["name"].as_str().unwrap_or_default();
        let model = Model::from_json(&case["model"].to_string()).expect("a model");
        let Ok(bytes) = model.to_onnx_bytes(&hubel::nn::OnnxExport::new()) else { continue };
        let inputs: BTreeMap<&str, &HostTensor> = of(&cases, name, "in").into_iter().collect();
        let samples: Vec<HostTensor> = model.inputs().iter().map(|(input, _)| inputs[&**input].clone()).collect();
        let run = |model: &Model| -> Result<Vec<(String, HostTensor)>, hubel::Error> {
            let n = samples[0].shape()[0];
            model.inference(&Engine::reference(), Batch::up_to(n))?.predict_many(&samples)
        };
        let again = Model::from_onnx_bytes(&bytes, &options).and_then(|model| run(&model));
        let differ = |(got, wanted): (&(String, HostTensor), &(String, HostTensor))| {
            close(&got.1.to_array(), &wanted.1.to_array()).err()
        };
        match again {
            Ok(again) => failed.extend(
                again.iter().zip(&run(&model).expect("a prediction")).find_map(differ).map(|e| format!("{name}: {e}")),
            ),
            Err(_) => refused.push(name),
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.cases.len(), failed.join("\n"));
    // The largest value of a batch.
    refused.retain(|name| !name.starts_with("MelSpectrogram/"));
    // A product of stacks of which one has a batch.
    assert_eq!(refused, ["LSTM/zero_output_for_mask"]);
}

/// Returns LAYERS.md, made from the cases.
fn table(cases: &Cases, augmentation: &[Json]) -> String {
    let mut layers: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for case in &cases.cases {
        let entry = layers.entry(case["layer"].as_str().unwrap_or_default()).or_default();
        entry.0 += 1;
        entry.1.extend(case["options"].as_array().into_iter().flatten().filter_map(Json::as_str));
    }
    for case in augmentation {
        let entry = layers.entry(case["class"].as_str().unwrap_or_default()).or_default();
        entry.0 += 1;
        entry.1.extend(case["config"].as_object().into_iter().flatten().map(|(option, _)| option.as_str()));
    }
    let mut text = String::from(
        "# Layers\n\nGenerated from the vectors that Keras 3.15 made; `tests/generate` writes it \
         anew. Outputs, gradients to inputs and weights, losses of regularisers, constrained weights and moving statistics \
         equal Keras's within 10⁻⁴ of the largest value, and each configuration is read from Keras's JSON and written \
         again. Random changes of images are compared on fixed factors.\n\n| layer | options covered | cases |\n|---|---|---|\n",
    );
    for (layer, (count, options)) in layers {
        let options: Vec<String> = options.into_iter().map(|o| format!("`{o}`")).collect();
        let _ = writeln!(text, "| {layer} | {} | {count} |", options.join(", "));
    }
    text.push_str("\n## Held by a test without Keras\n\n| layer | test |\n|---|---|\n");
    for (layer, test) in NAMED_TESTS {
        let _ = writeln!(text, "| {layer} | `{test}` |");
    }
    let only: Vec<(&str, &str)> = hubel::nn::inference_only_classes().collect();
    let has =
        |class: &str| hubel::nn::layer_classes().any(|own| own == class) || only.iter().any(|(own, _)| *own == class);
    let known = fs::read(format!("{ROOT}/tests/golden/keras_layers.json")).expect("a file");
    let known: Vec<String> = serde_json::from_slice(&known).expect("a list");
    let missing: Vec<&str> = known.iter().map(String::as_str).filter(|class| !has(class)).collect();
    let _ = write!(
        text,
        "\n## Read for predictions alone\n\nTraining refuses these random changes of images:\n\n{}\n## Layers of Keras 3.15 \
         that are not there\n\n{}.\n",
        only.iter().map(|(class, reason)| format!("- {class}: {reason}\n")).collect::<String>(),
        missing.join(", "),
    );
    let _ = write!(text, "\n## Cases that ONNX cannot say\n\n{}", unwritten(cases));
    text
}

#[test]
fn layers_table_is_up_to_date() {
    let augmentation = fs::read(format!("{ROOT}/tests/golden/augmentation.json")).expect("a file");
    let augmentation: Vec<Json> = serde_json::from_slice(&augmentation).expect("cases");
    is_generated("LAYERS.md", &table(&cases(), &augmentation));
}

#[test]
fn every_layer_that_files_may_name_has_a_golden_case_or_a_named_test() {
    let augmentation = fs::read(format!("{ROOT}/tests/golden/augmentation.json")).expect("a file");
    let augmentation: Vec<Json> = serde_json::from_slice(&augmentation).expect("cases");
    let golden = cases().cases;
    let of_augmentation = augmentation.iter().filter_map(|case| case["class"].as_str());
    let covered: BTreeSet<&str> =
        golden.iter().filter_map(|case| case["layer"].as_str()).chain(of_augmentation).collect();
    let tests = fs::read_dir(format!("{ROOT}/tests/hubel")).expect("the tests");
    let tests: String = (tests.filter_map(|entry| fs::read_to_string(entry.expect("a file").path()).ok())).collect();
    let named = |class: &str| {
        NAMED_TESTS.iter().any(|(c, test)| *c == class && tests.contains(&format!("#[test]\nfn {test}()")))
    };
    let missing: Vec<&str> =
        hubel::nn::layer_classes().filter(|class| !covered.contains(class) && !named(class)).collect();
    assert!(missing.is_empty(), "no case in tests/golden/layers.py and no line in NAMED_TESTS: {missing:?}");
    let idle = NAMED_TESTS.iter().find(|(class, _)| covered.contains(class));
    assert!(idle.is_none(), "{idle:?} has golden cases");
}

#[test]
fn l2_pooling_is_the_root_of_the_sum_of_squares_and_its_gradient_x_over_y() {
    // Rows 3 4 0 0 0, 0 12 0 0 -5: windows of 2 × 2 side by side hold 3, 4, 0, 12, then zeros, and by Same padding -5
    // alone.
    let pixels = vec![3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 12.0, 0.0, 0.0, -5.0];
    let model = Sequential::new([2, 5, 1]).add(LpPooling2D::new(2).padding(Same)).build().expect("a model");
    assert_eq!(model.output_shape().to_string(), "(N, 1, 3, 1)");
    let x = HostTensor::f32([1, 2, 5, 1], pixels).expect("an image");
    for engine in [engine(), &Engine::reference()] {
        let mut net = model.inference(engine, Batch::up_to(1)).expect("inference");
        assert_eq!(net.predict(&x).expect("a prediction").to_f32(), [13.0, 0.0, 5.0]);
    }
    let mut g = Graph::new();
    let value = g.input("x", model.input_shape(), F32);
    let y = model.assemble(&mut g, &[value], Mode::Inference).expect("a graph").outputs[0];
    let sum = g.sum(y, &[1, 2, 3], false).expect("a sum");
    let loss = g.sum(sum, &[0], false).expect("a sum");
    let dx = g.gradients(loss, &[value]).expect("a gradient")[0];
    g.output("dx", dx);
    let wanted = [3.0 / 13.0, 4.0 / 13.0, 0.0, 0.0, 0.0, 0.0, 12.0 / 13.0, 0.0, 0.0, -1.0];
    let got = run_graph(&g, &[("x".into(), x.clone())], &Step::of(1), 1, &Run::default()).expect("the graph runs");
    let exact = reference(&g, &[("x".into(), x.to_array())], &Step::of(1));
    for (k, wanted) in wanted.into_iter().enumerate() {
        assert!((f64::from(got[0].to_f32()[k]) - wanted).abs() < 1e-6, "{k}: {:?}", got[0]);
        assert!((exact[0].data[k] - wanted).abs() < 1e-12, "{k}: {:?}", exact[0]);
    }
    let text = model.to_json().expect("JSON");
    assert_eq!(Model::from_json(&text).and_then(|m| m.to_json()).expect("the same model"), text);
}

#[test]
fn activations_and_pooling_of_nan_are_nan_on_the_device_and_in_the_reference() {
    let numbers = [f32::NAN, 1.0, -2.0, 3.0];
    let x = HostTensor::f32([1, 2, 2, 1], numbers.to_vec()).expect("an image");
    // A gated unit needs two channels.
    let single = Activation::ALL.into_iter().filter(|a| *a != Activation::Glu);
    let layers = single.map(|a| (format!("{a:?}"), Activation::into_layer(a)));
    let pools = [
        ("max", MaxPooling2D::new(2).into_layer()),
        ("average", AveragePooling2D::new(2).into_layer()),
        ("L2", LpPooling2D::new(2).into_layer()),
    ];
    for (name, layer) in layers.chain(pools.map(|(name, layer)| (name.to_owned(), layer))) {
        let model = Sequential::new([2, 2, 1]).add(&layer).build().expect("a model");
        for engine in [engine(), &Engine::reference()] {
            let mut net = model.inference(engine, Batch::up_to(1)).expect("inference");
            let y = net.predict(&x).expect("a prediction").to_f32();
            assert!(y[0].is_nan() && y[1..].iter().all(|y| y.is_finite()), "{name}: {y:?}");
        }
    }
}

#[test]
fn bins_count_the_boundaries_that_a_number_reaches() {
    let model = Sequential::new([4]).add(Discretization::new([-1.0, 0.0, 2.5])).build().expect("a model");
    let x = HostTensor::f32([1, 4], vec![-2.0, -1.0, 1.0, 3.0]).expect("a row");
    for engine in [engine(), &Engine::reference()] {
        let mut net = model.inference(engine, Batch::up_to(1)).expect("inference");
        assert_eq!(net.predict(&x).expect("a prediction").to_f32(), [0.0, 1.0, 2.0, 3.0]);
    }
}

#[test]
fn adaptive_windows_of_sizes_at_which_keras_on_jax_rounds_are_those_of_torch() {
    // Of 0, 1, …: the means and the largest numbers of the windows.
    let cases: [(usize, &[f32], &[f32]); 4] = [
        (11, &[0.5, 2.0, 3.5, 5.0, 6.5, 8.0, 9.5], &[1.0, 3.0, 4.0, 6.0, 7.0, 9.0, 10.0]),
        (12, &[0.5, 2.0, 4.0, 5.5, 7.0, 9.0, 10.5], &[1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 11.0]),
        (13, &[0.5, 2.0, 4.0, 6.0, 8.0, 10.0, 11.5], &[1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 12.0]),
        (10, &[1.0, 3.0, 6.0, 8.0], &[2.0, 4.0, 7.0, 9.0]),
    ];
    for (n, means, largest) in cases {
        let x = HostTensor::f32([1, n, 1], (0..n).map(|i| i as f32).collect()).expect("a row");
        let of = |layer: Arc<dyn Layer>| {
            let model = Sequential::new([n, 1]).add(&layer).build().expect("a model");
            let mut net = model.inference(&Engine::reference(), Batch::up_to(1)).expect("inference");
            net.predict(&x).expect("a prediction").to_f32()
        };
        assert_eq!(of(AdaptiveAveragePooling1D::new(means.len()).into_layer()), means);
        assert_eq!(of(AdaptiveMaxPooling1D::new(means.len()).into_layer()), largest);
    }
}

/// Returns a training graph's result in f64, with the weights that initialisers draw with a seed.
fn in_training(model: &Model, inputs: &[HostTensor], seed: u64) -> Vec<f64> {
    let mut g = Graph::new();
    let given = model.inputs().to_vec();
    let values: Vec<Value> = given.iter().map(|(name, ty)| g.input(name, ty.shape.clone(), F32)).collect();
    let built = model.assemble(&mut g, &values, Mode::Training).expect("a graph");
    g.output("y", built.outputs[0]);
    let weights = built.weights.iter().map(|w| (w.value, model.initial_value(w, 3).to_array()));
    let feeds = values.iter().copied().zip(inputs.iter().map(HostTensor::to_array)).chain(weights).collect();
    let step = Step { seed, ..Step::of(inputs[0].shape()[0]) };
    evaluate(&g, feeds, &step, false).get(built.outputs[0]).expect("a result").data.clone()
}

fn waves(shape: &[usize]) -> HostTensor {
    let n = shape.iter().product::<usize>();
    HostTensor::f32(shape.to_vec(), (0..n).map(|i| (i as f32 * 0.7).sin()).collect()).expect("a tensor")
}

#[test]
fn cells_whose_state_is_dropped_compute_what_they_do_without_where_nothing_is_dropped() {
    let layers = |rate: f32| -> Vec<Arc<dyn Layer>> {
        let reset = |after| GRU::new(4).reset_after(after).recurrent_dropout(rate).return_sequences(true);
        vec![
            SimpleRNN::new(4).recurrent_dropout(rate).return_sequences(true).into_layer(),
            LSTM::new(4).recurrent_dropout(rate).return_sequences(true).into_layer(),
            reset(true).bias_initializer(Initializer::RandomNormal { mean: 0.1, stddev: 0.3 }).into_layer(),
            reset(false).into_layer(),
        ]
    };
    for (dropped, whole) in layers(1e-7).iter().zip(layers(0.0)) {
        let of = |layer: &Arc<dyn Layer>| Sequential::new([5, 3]).add(layer).build().expect("a model");
        let x = waves(&[2, 5, 3]);
        let (got, wanted) = (in_training(&of(dropped), std::slice::from_ref(&x), 1), in_training(&of(&whole), &[x], 1));
        let off = got.iter().zip(&wanted).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(off < 1e-6 && wanted.iter().any(|y| y.abs() > 0.1), "{}: {off}", whole.kind());
    }
    let stack = |rate: f32| {
        let layer = ConvLSTM2D::new(3, 2).dropout(rate).recurrent_dropout(rate).return_sequences(true);
        Sequential::new([4, 5, 4, 2]).add(layer).build().expect("a model")
    };
    let x = waves(&[2, 4, 5, 4, 2]);
    let (got, wanted) =
        (in_training(&stack(1e-7), std::slice::from_ref(&x), 1), in_training(&stack(0.0), std::slice::from_ref(&x), 1));
    let off = got.iter().zip(&wanted).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(off < 1e-6 && wanted.iter().any(|y| y.abs() > 0.05), "{off}");
    assert_ne!(in_training(&stack(0.4), std::slice::from_ref(&x), 1), in_training(&stack(0.4), &[x], 2));
}

#[test]
fn features_of_the_state_are_dropped_at_all_timesteps_or_at_none() {
    let layer = SimpleRNN::new(8)
        .activation(Linear)
        .kernel_initializer(Initializer::Ones)
        .recurrent_initializer(Initializer::Identity { gain: 1.0 })
        .recurrent_dropout(0.5);
    let model = Sequential::new([4, 1]).add(layer).build().expect("a model");
    let ones = HostTensor::f32([16, 4, 1], vec![1.0; 64]).expect("a tensor");
    let y = in_training(&model, &[ones], 5);
    // What is kept is doubled before each step: 1 + 2 + 4 + 8.
    let count = |wanted: f64| y.iter().filter(|y| (**y - wanted).abs() < 1e-9).count();
    assert!(count(1.0) + count(15.0) == 128 && count(1.0) > 32 && count(15.0) > 32, "{y:?}");
}

#[test]
fn stochastic_depth_keeps_whole_samples_or_none() {
    let model = Sequential::new([3]).add(StochasticDepth::new(0.75)).build().expect("a model");
    let x = HostTensor::f32([64, 3], [1.0, 2.0, 3.0].repeat(64)).expect("a tensor");
    let y = in_training(&model, &[x], 7);
    let kept = y.chunks(3).filter(|row| *row == [4.0, 8.0, 12.0]).count();
    let dropped = y.chunks(3).filter(|row| *row == [0.0; 3]).count();
    assert!(kept + dropped == 64 && (6..27).contains(&kept), "{kept} kept, {dropped} dropped");
}

#[test]
fn whole_numbers_become_their_places_in_a_vocabulary() {
    let x = HostTensor::f32([1, 5], vec![7.0, 3.0, 0.0, 5.0, 9.0]).expect("a row");
    let layer = || IntegerLookup::new([5, 7]);
    let cases: [(IntegerLookup, &[f32]); 4] = [
        (layer(), &[2.0, 0.0, 0.0, 1.0, 0.0]),
        (layer().mask_token(0), &[3.0, 1.0, 0.0, 2.0, 1.0]),
        (layer().num_oov_indices(0), &[1.0, -1.0, -1.0, 0.0, -1.0]),
        (layer().output_mode(EncodingMode::Count), &[3.0, 1.0, 1.0]),
    ];
    for (layer, wanted) in cases {
        let model = Sequential::new([5]).add(layer).build().expect("a model");
        for engine in [engine(), &Engine::reference()] {
            let mut net = model.inference(engine, Batch::up_to(1)).expect("inference");
            assert_eq!(net.predict(&x).expect("a prediction").to_f32(), wanted);
        }
    }
    let told = Sequential::new([5]).add(layer().num_oov_indices(2)).build().expect_err("hashed places").to_string();
    assert!(told.contains("integer_lookup") && told.contains("at most one place"), "{told}");
}
