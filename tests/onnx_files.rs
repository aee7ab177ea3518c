//! Conformance with ONNX's own test data and with ONNX Runtime on real files. `tests/onnx` fetches the data and runs it.
//!
//! `HUBEL_ONNX` is the folder of cases, `HUBEL_ONNX_ONLY` a part of their names, `HUBEL_ONNX_DEVICE=1` runs them on the device
//! instead of the 64-bit reference, `HUBEL_ONNX_TABLE` is the file that the table is written to.

use hubel::{
    nn::{OnnxOptions, onnx_operators},
    prelude::*,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What became of a case.
enum Outcome {
    Passed,
    Refused(String),
    Wrong(String),
}

/// A case: a model, and folders of inputs and outputs.
struct Case {
    group: String,
    name: String,
    folder: PathBuf,
}

fn cases(root: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for group in ["node", "simple", "pytorch-operator", "pytorch-converted", "light"] {
        let Ok(entries) = fs::read_dir(root.join(group)) else { continue };
        for entry in entries.flatten() {
            let (folder, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if group == "light" {
                if let Some(stem) = name.strip_suffix(".onnx") {
                    cases.push(Case { group: group.into(), name: stem.into(), folder });
                }
            } else if folder.join("model.onnx").exists() {
                cases.push(Case { group: group.into(), name, folder });
            }
        }
    }
    cases.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
    cases
}

fn tensors(folder: &Path, prefix: &str) -> Result<Vec<(String, HostTensor)>, String> {
    let mut all = Vec::new();
    for i in 0.. {
        let path = folder.join(format!("{prefix}_{i}.pb"));
        let Ok(bytes) = fs::read(&path) else { break };
        all.push(hubel::io::onnx::tensor(&bytes).map_err(|e| format!("{prefix} {i}: {e}"))?);
    }
    Ok(all)
}

/// Cases whose results differ, and why: parts of their names.
const DIFFERENT: [(&str, &str); 3] = [
    ("BFLOAT16", "numbers stay 32-bit floats and are not rounded to bfloat16"),
    (
        "qlinearmatmul_2D_int8",
        "results are held in the range of int8, as ONNX Runtime does; the case wraps them around",
    ),
    (
        "qlinearmatmul_3D_int8",
        "results are held in the range of int8, as ONNX Runtime does; the case wraps them around",
    ),
];

/// Returns whether `got` is what ONNX's own runner accepts.
fn close(got: &[f32], wanted: &[f32], relative: f32, absolute: f32) -> Option<String> {
    let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= absolute + relative * b.abs();
    let wrong: Vec<usize> = (0..wanted.len()).filter(|&i| !same(got[i], wanted[i])).collect();
    let first = wrong.first()?;
    Some(format!("{} of {} wrong, first {} instead of {}", wrong.len(), wanted.len(), got[*first], wanted[*first]))
}

/// Returns what ONNX's runner feeds to known networks.
fn rising(shape: &[usize]) -> HostTensor {
    let n: usize = shape.iter().product();
    HostTensor::f32(shape, (0..n).map(|i| (i as f64 / n as f64) as f32).collect()).unwrap()
}

fn different(name: &str) -> Option<&'static str> {
    DIFFERENT.iter().find(|(part, _)| name.contains(part)).map(|(_, why)| *why)
}

fn run(case: &Case, engine: &Engine) -> Outcome {
    let path = if case.group == "light" { case.folder.clone() } else { case.folder.join("model.onnx") };
    let data = case.folder.join("test_data_set_0");
    let refused = |e: &dyn std::fmt::Display| Outcome::Refused(e.to_string());
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) => return refused(&e),
    };
    let names = graph_inputs(&bytes);
    let (inputs, wanted) = match (tensors(&data, "input"), tensors(&data, "output")) {
        (Ok(inputs), Ok(wanted)) => (inputs, wanted),
        (Err(e), _) | (_, Err(e)) => return refused(&e),
    };
    let mut options = OnnxOptions::new().data_format(hubel::layers::ChannelsFirst);
    let mut samples = Vec::new();
    for ((_, tensor), name) in inputs.iter().zip(&names) {
        // Shapes and axes are constants in real files.
        if tensor.is_empty() || is_option(&bytes, name) {
            options = options.value(name, tensor.clone());
            continue;
        }
        for (axis, &extent) in tensor.shape().iter().enumerate().skip(1) {
            options = options.dim(&format!("{name}.{axis}"), extent);
        }
        samples.push(tensor.clone());
    }
    let model = match Model::from_onnx_bytes(&bytes, &options) {
        Ok(model) => model,
        Err(e) => return refused(&e),
    };
    let wanted = match case.group.as_str() {
        // Known networks with equal weights, which the reference is too slow for.
        "light" if engine.is_reference() => return Outcome::Passed,
        "light" => {
            samples = model.inputs().iter().map(|(_, ty)| rising(&ty.shape.at(1))).collect();
            let file = fs::read(path.with_file_name(format!("{}_output_0.pb", case.name))).unwrap_or_default();
            vec![hubel::io::onnx::tensor(&file).unwrap()]
        }
        _ => wanted,
    };
    let n = samples.first().and_then(|t| t.shape().first().copied()).unwrap_or(1);
    let results = model.inference(engine, Batch::up_to(n)).and_then(|mut net| net.predict_many(&samples));
    let results = match results {
        Ok(results) => results,
        Err(e) => return refused(&e),
    };
    for ((_, got), (name, wanted)) in results.iter().zip(&wanted) {
        if got.shape() != wanted.shape() {
            return Outcome::Wrong(format!("{name}: shape {:?} instead of {:?}", got.shape(), wanted.shape()));
        }
        if let Some(what) = close(&got.to_f32(), &wanted.to_f32(), 1e-3, 1e-7) {
            return Outcome::Wrong(format!("{name}: {what}"));
        }
    }
    Outcome::Passed
}

/// The parts of protobuf that name a graph's inputs: field 7 of the model, field 11 of the graph, field 1 of each.
fn graph_inputs(bytes: &[u8]) -> Vec<String> {
    let graph = fields(bytes).into_iter().find(|f| f.0 == 7).map(|f| f.1).unwrap_or_default();
    let known: BTreeSet<String> = fields(graph).into_iter().filter(|f| f.0 == 5).filter_map(|f| text(f.1, 8)).collect();
    let inputs = fields(graph).into_iter().filter(|f| f.0 == 11).filter_map(|f| text(f.1, 1));
    inputs.filter(|name| !known.contains(name)).collect()
}

fn text(message: &[u8], field: u64) -> Option<String> {
    fields(message).into_iter().find(|f| f.0 == field).map(|f| String::from_utf8_lossy(f.1).into_owned())
}

/// Returns the operators of a model's graph.
fn operators(bytes: &[u8]) -> Vec<String> {
    let graph = fields(bytes).into_iter().find(|f| f.0 == 7).map(|f| f.1).unwrap_or_default();
    fields(graph).into_iter().filter(|f| f.0 == 1).filter_map(|f| text(f.1, 4)).collect()
}

/// The operands that are options of their nodes: shapes, axes, ratios.
const OPTIONS: [(&str, &[usize]); 30] = [
    ("CenterCropPad", &[1]),
    ("ConstantOfShape", &[0]),
    ("CumSum", &[1]),
    ("Dropout", &[1, 2]),
    ("Expand", &[1]),
    ("EyeLike", &[0]),
    ("GatherElements", &[1]),
    ("GatherND", &[1]),
    ("GRU", &[4]),
    ("If", &[0]),
    ("Loop", &[0, 1]),
    ("LSTM", &[4]),
    ("NonZero", &[0]),
    ("OneHot", &[1, 2]),
    ("Pad", &[1, 2, 3]),
    ("Range", &[0, 1, 2]),
    ("ReduceMax", &[1]),
    ("ReduceMin", &[1]),
    ("Reshape", &[1]),
    ("Resize", &[1, 2, 3]),
    ("RNN", &[4]),
    ("ScatterElements", &[1]),
    ("ScatterND", &[1]),
    ("Slice", &[1, 2, 3, 4]),
    ("Split", &[1]),
    ("Squeeze", &[1]),
    ("Tile", &[1]),
    ("TopK", &[1]),
    ("Trilu", &[1]),
    ("Unsqueeze", &[1]),
];

/// Returns whether an input is an option of its node: a scale, a ratio, a value to pad with.
fn is_option(bytes: &[u8], name: &str) -> bool {
    let graph = fields(bytes).into_iter().find(|f| f.0 == 7).map(|f| f.1).unwrap_or_default();
    fields(graph).into_iter().filter(|f| f.0 == 1).any(|node| {
        let op = text(node.1, 4).unwrap_or_default();
        let inputs = fields(node.1).into_iter().filter(|f| f.0 == 1).map(|f| String::from_utf8_lossy(f.1).into_owned());
        let listed = |i: usize| match OPTIONS.iter().find(|(known, _)| *known == op) {
            Some((_, places)) => places.contains(&i),
            None => (op.starts_with("Reduce") && i == 1) || (op == "Upsample" && i == 1) || (op == "Scatter" && i == 1),
        };
        inputs.enumerate().any(|(i, input)| input == name && listed(i))
    })
}

fn fields(bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let (mut at, mut all) = (0, Vec::new());
    let varint = |at: &mut usize| {
        let (mut value, mut shift) = (0u64, 0);
        while let Some(&b) = bytes.get(*at) {
            *at += 1;
            value |= u64::from(b & 0x7f) << shift;
            shift += 7;
            if b < 0x80 || shift > 63 {
                break;
            }
        }
        value
    };
    while at < bytes.len() {
        let key = varint(&mut at);
        match key & 7 {
            0 => drop(varint(&mut at)),
            1 => at += 8,
            5 => at += 4,
            _ => {
                let n = varint(&mut at) as usize;
                let end = (at + n).min(bytes.len());
                all.push((key >> 3, &bytes[at..end]));
                at = end;
            }
        }
    }
    all
}

#[test]
fn onnx_test_data_give_their_outputs() {
    let Some(root) = std::env::var_os("HUBEL_ONNX") else {
        panic!("HUBEL_ONNX is not set: run tests/onnx");
    };
    let only = std::env::var("HUBEL_ONNX_ONLY").unwrap_or_default();
    let engine =
        if std::env::var_os("HUBEL_ONNX_DEVICE").is_some() { Engine::new().unwrap() } else { Engine::reference() };
    let known = onnx_operators();
    let mut counts: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut by_operator: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let (mut lines, mut wrong) = (Vec::new(), 0);
    let all: Vec<Case> = cases(Path::new(&root)).into_iter().filter(|c| c.name.contains(&only)).collect();
    for case in &all {
        let path = if case.group == "light" { case.folder.clone() } else { case.folder.join("model.onnx") };
        let used = operators(&fs::read(path).unwrap_or_default());
        if case.group == "node" && !used.iter().any(|op| known.contains(&op.as_str())) {
            continue;
        }
        let outcome = run(case, &engine);
        let (at, line) = match outcome {
            Outcome::Passed => (0, None),
            Outcome::Refused(why) => (1, Some(format!("refused {}/{}: {why}", case.group, case.name))),
            Outcome::Wrong(_) if different(&case.name).is_some() => {
                (1, different(&case.name).map(|why| format!("refused {}/{}: {why}", case.group, case.name)))
            }
            Outcome::Wrong(why) => (2, Some(format!("WRONG   {}/{}: {why}", case.group, case.name))),
        };
        wrong += usize::from(at == 2);
        counts.entry(case.group.clone()).or_default()[at] += 1;
        if case.group == "node" {
            for op in used.iter().collect::<BTreeSet<_>>() {
                by_operator.entry(op.clone()).or_default()[at] += 1;
            }
        }
        if let Some(line) = line {
            println!("{line}");
            lines.push(line);
        }
    }
    for (group, [passed, refused, wrong]) in &counts {
        println!("{group}: {passed} passed, {refused} refused, {wrong} wrong");
    }
    if let Some(path) = std::env::var_os("HUBEL_ONNX_TABLE").filter(|_| only.is_empty()) {
        let text = table(&engine.info().name, &counts, &by_operator, (&lines, &known));
        fs::write(path, text).unwrap();
    }
    assert_eq!(wrong, 0, "cases with wrong outputs");
}

/// Returns ONNX.md.
fn table(
    engine: &str,
    counts: &BTreeMap<String, [usize; 3]>,
    operators: &BTreeMap<String, [usize; 3]>,
    (lines, known): (&[String], &[&str]),
) -> String {
    let mut text = format!(
        "# ONNX\n\nGenerated by `tests/onnx` from the test data of onnx 1.19.1, computed by the {engine} and compared within ONNX's own \
         tolerance (relative 10⁻³, absolute 10⁻⁷).\n\n| test data | passed | refused | wrong |\n|---|---|---|---|\n",
    );
    for (group, [passed, refused, wrong]) in counts {
        text += &format!("| {group} | {passed} | {refused} | {wrong} |\n");
    }
    text += "\n## Operators\n\n| operator | cases passed | refused | wrong |\n|---|---|---|---|\n";
    for op in known {
        let [passed, refused, wrong] = operators.get(*op).copied().unwrap_or_default();
        text += &format!("| {op} | {passed} | {refused} | {wrong} |\n");
    }
    text += "\n## Cases that are refused or wrong, and why\n\n";
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let (case, why) = line.split_once(": ").unwrap_or((line, ""));
        let case = case.rsplit('/').next().unwrap_or(case).trim_start_matches("test_");
        // The names of layers and values differ from case to case.
        let mut parts = why.split('`');
        let mut plain = parts.next().unwrap_or_default().to_owned();
        while let (Some(_), Some(rest)) = (parts.next(), parts.next()) {
            plain += "…";
            plain += rest;
        }
        reasons.entry(plain.replace('|', "\\|")).or_default().push(case.to_owned());
    }
    for (why, cases) in reasons {
        text += &format!("- {why}: {}\n", cases.join(", "));
    }
    text
}

fn folder(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run tests/onnx")))
}

fn noise(shape: &[usize], seed: u64) -> HostTensor {
    let mut rng = hubel::tensor::Philox::new(seed, hubel::tensor::Purpose::Test, 0);
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).unwrap()
}

/// The models that are exported, each with a batch of 2.
fn exported() -> Vec<(&'static str, Model)> {
    use hubel::layers::*;
    let small = || models::Options::default().input_shape([64, 64, 3]).classes(10);
    let zoo = |name: &str| (models::find(name).unwrap().build)(&small()).unwrap();
    let inception = models::Options::default().input_shape([96, 96, 3]).classes(10);
    let lstm = Sequential::new([12, 5]).add(LSTM::new(7).return_sequences(true)).add(LSTM::new(6)).add(Dense::new(3));
    let gru =
        Sequential::new([12, 5]).add(GRU::new(7).return_sequences(true)).add(SimpleRNN::new(6)).add(Dense::new(3));
    let (a, b) = (Input::new([8, 8, 3]), Input::new([4]));
    let x = a.apply(Conv2D::new(4, 3).padding(Same).activation(Relu)).unwrap();
    let x = x.apply(BatchNormalization::new()).unwrap();
    let flat = x.apply(Flatten::new()).unwrap();
    let both = concatenate(&[flat, b.clone()]).unwrap();
    let first = both.apply(Dense::new(3).activation(Softmax)).unwrap();
    let second = x.apply(UpSampling2D::new(2)).unwrap();
    let two = Model::new(&[a, b], &[first, second]).unwrap();
    let mut digits = (models::find("LeNet5").unwrap().build)(&models::Options::default()).unwrap();
    digits.load_weights(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/lenet5.safetensors")).unwrap();
    vec![
        ("lenet5", digits),
        ("resnet50", zoo("ResNet50")),
        ("mobilenet_v2", zoo("MobileNetV2")),
        ("efficientnet_b0", zoo("EfficientNetB0")),
        ("densenet121", zoo("DenseNet121")),
        ("inception_v3", (models::find("InceptionV3").unwrap().build)(&inception).unwrap()),
        ("lstm", lstm.build().unwrap()),
        ("gru_rnn", gru.build().unwrap()),
        ("two_in_two_out", two),
        ("unet", zoo("UNet")),
    ]
}

#[test]
fn models_are_exported() {
    let folder = folder("HUBEL_ONNX_EXPORTS");
    let engine = Engine::new().unwrap();
    let only = std::env::var("HUBEL_ONNX_ONLY").unwrap_or_default();
    let chosen = |name: &str| only.is_empty() || only.split(',').any(|part| name == part);
    for (name, model) in exported().into_iter().filter(|(name, _)| chosen(name)) {
        let samples: Vec<HostTensor> =
            model.inputs().iter().enumerate().map(|(i, (_, ty))| noise(&ty.shape.at(2), i as u64)).collect();
        let path = folder.join(format!("{name}.onnx"));
        model.to_onnx(&path).unwrap();
        let wanted = model.inference(&engine, Batch::up_to(2)).unwrap().predict_many(&samples).unwrap();
        for (i, sample) in samples.iter().enumerate() {
            fs::write(folder.join(format!("{name}.input_{i}.npy")), hubel::io::npy::write(sample)).unwrap();
        }
        for (i, (_, tensor)) in wanted.iter().enumerate() {
            fs::write(folder.join(format!("{name}.output_{i}.npy")), hubel::io::npy::write(tensor)).unwrap();
        }
        let again = Model::from_onnx(&path).unwrap();
        let got = again.inference(&engine, Batch::up_to(2)).unwrap().predict_many(&samples).unwrap();
        for ((_, got), (_, wanted)) in got.iter().zip(&wanted) {
            let scale = wanted.to_f32().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            let error = got.to_f32().iter().zip(wanted.to_f32()).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
            println!("{name}: read again, largest difference {error:.1e} of the largest value");
            assert!(got.shape() == wanted.shape() && error <= 1e-4, "{name}: {error}");
        }
    }
}

#[test]
fn real_files_agree_with_onnx_runtime() {
    let folder = folder("HUBEL_ONNX_ORACLE");
    let engine = Engine::new().unwrap();
    let list = fs::read_to_string(folder.join("list.tsv")).unwrap();
    let mut wrong = 0;
    for line in list.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let [stem, path, inputs, outputs, dims] = parts[..] else { panic!("{line}") };
        let mut options = OnnxOptions::new().data_format(hubel::layers::ChannelsFirst);
        for (name, extent) in dims.split(',').filter_map(|d| d.split_once('=')) {
            options = options.dim(name, extent.parse().unwrap());
        }
        let array = |kind: &str, i: usize| hubel::io::npy::open(folder.join(format!("{stem}.{kind}_{i}.npy"))).unwrap();
        let samples: Vec<HostTensor> = (0..inputs.parse().unwrap()).map(|i| array("input", i)).collect();
        let start = std::time::Instant::now();
        let model = match Model::from_onnx_with(path, &options) {
            Ok(model) => model,
            Err(e) => {
                println!("{stem}: refused: {e}");
                wrong += 1;
                continue;
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        let n = samples[0].shape()[0];
        let got = model.inference(&engine, Batch::up_to(n)).and_then(|mut net| net.predict_many(&samples));
        let got = match got {
            Ok(got) => got,
            Err(e) => {
                println!("{stem}: refused: {e}");
                wrong += 1;
                continue;
            }
        };
        for (i, (_, got)) in got.iter().enumerate().take(outputs.parse().unwrap()) {
            let wanted = array("output", i);
            let scale = wanted.to_f32().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            let error = got.to_f32().iter().zip(wanted.to_f32()).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
            println!("{stem} output {i}: {:?}, difference {error:.1e}, read in {seconds:.2} s", got.shape());
            wrong += usize::from(got.shape() != wanted.shape() || !(error <= 1e-3));
        }
    }
    assert_eq!(wrong, 0, "outputs that differ");
}
