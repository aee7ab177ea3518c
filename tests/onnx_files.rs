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
        let counts = tensor.shape().is_empty() && operators(&bytes).iter().any(|op| op == "Loop");
        if tensor.is_empty() || counts || is_option(&bytes, name) {
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
    if samples.is_empty() {
        samples = model.inputs().iter().map(|(_, ty)| rising(&ty.shape.at(1))).collect();
    }
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
        let boxes = operators(&bytes).iter().any(|op| op == "NonMaxSuppression");
        let got = rows_of(got, rows_kept(got, wanted).filter(|_| boxes).as_deref());
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
const OPTIONS: [(&str, &[usize]); 31] = [
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
    ("NonMaxSuppression", &[2, 3, 4]),
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

/// Returns which rows are not −1 throughout, if the result has more rows than wanted: those stand where fewer boxes remain, which
/// ONNX's NonMaxSuppression leaves out.
fn rows_kept(got: &HostTensor, wanted: &HostTensor) -> Option<Vec<bool>> {
    let rows = *got.shape().first()?;
    let width = got.len() / rows.max(1);
    let is_kept = |row: &[f32]| row.iter().any(|&v| v != -1.0);
    (rows > wanted.shape()[0]).then(|| got.to_f32().chunks(width).map(is_kept).collect())
}

fn rows_of(tensor: &HostTensor, kept: Option<&[bool]>) -> HostTensor {
    let Some(kept) = kept else { return tensor.clone() };
    let mut shape = tensor.shape().to_vec();
    let width = tensor.len() / shape[0];
    shape[0] = kept.iter().filter(|k| **k).count();
    let all = tensor.to_f32();
    let rows = all.chunks(width).zip(kept).filter(|(_, k)| **k).flat_map(|(row, _)| row.to_vec());
    HostTensor::f32(shape, rows.collect()).unwrap()
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
        let kept = rows_kept(&got.last().unwrap().1, &array("output", got.len() - 1));
        for (i, (_, got)) in got.iter().enumerate().take(outputs.parse().unwrap()) {
            let (got, wanted) = (rows_of(got, kept.as_deref()), array("output", i));
            let scale = wanted.to_f32().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            let error = got.to_f32().iter().zip(wanted.to_f32()).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
            println!("{stem} output {i}: {:?}, difference {error:.1e}, read in {seconds:.2} s", got.shape());
            wrong += usize::from(got.shape() != wanted.shape() || !(error <= 1e-3));
        }
    }
    assert_eq!(wrong, 0, "outputs that differ");
}

#[test]
fn a_network_of_torch_is_cut_trained_with_a_new_head_and_given_back() {
    use hubel::{layers::*, losses::SparseCategoricalCrossentropy, optimizers::Adam};
    let folder = folder("HUBEL_ONNX_TUNE");
    let engine = Engine::new().unwrap();
    let whole = Model::from_onnx(folder.join("resnet18.onnx")).unwrap();
    let pooled = whole.layer_names().iter().find(|n| n.contains("GlobalAveragePool")).unwrap().to_string();
    let mut base = whole.cut_at(&pooled).unwrap();
    base.set_all_trainable(false).unwrap();
    let images = ImageFolder::new(folder.join("images")).image_size([128, 128]).seed(1).load().unwrap();
    let x = Input::new([128, 128, 3]);
    let y = x.apply(Rescaling::new(1.0 / 127.5).offset(-1.0)).unwrap().apply(base).unwrap();
    let y = y.apply(Flatten::new()).unwrap().apply(Dense::new(3).activation(Softmax).name("new_head")).unwrap();
    let model = Model::new(&[x], &[y]).unwrap();
    let values = |m: &Model| -> BTreeMap<String, HostTensor> {
        m.weights().iter().map(|w| (w.name.clone(), m.initial_value(w, 0))).collect()
    };
    let before = values(&model);
    let config = Compile::new(Adam::new(0.01), SparseCategoricalCrossentropy::new()).metric(hubel::metrics::Accuracy);
    let mut trainer = model.compile(&engine, config).unwrap();
    let history = trainer.fit(&images.train, Fit::epochs(5).batch(6)).unwrap();
    let (losses, right) = (history.get("loss").unwrap(), history.get("accuracy").unwrap());
    println!("losses {losses:?}, accuracy {right:?}");
    assert!(losses[4] < 0.5 * losses[0], "{losses:?}");
    let trained = trainer.trained().unwrap();
    let after = values(&trained);
    let frozen = before.iter().filter(|(name, _)| !name.contains("new_head"));
    let changed: Vec<&String> = frozen.clone().filter(|(name, old)| after[*name] != **old).map(|(n, _)| n).collect();
    println!("{} frozen weights, changed: {changed:?}", frozen.count());
    assert!(changed.is_empty() && before.iter().any(|(name, old)| after[name] != *old));
    trained.to_onnx(folder.join("tuned.onnx")).unwrap();
    let samples = HostTensor::f32(
        [4, 128, 128, 3],
        noise(&[4, 128, 128, 3], 5).to_f32().iter().map(|v| 127.5 + 127.5 * v).collect(),
    );
    let samples = samples.unwrap();
    let wanted = trained.inference(&engine, Batch::up_to(4)).unwrap().predict(&samples).unwrap();
    fs::write(folder.join("tuned.input_0.npy"), hubel::io::npy::write(&samples)).unwrap();
    fs::write(folder.join("tuned.output_0.npy"), hubel::io::npy::write(&wanted)).unwrap();
}

/// Returns this number of bytes of the process: `VmRSS` now, `VmHWM` at most.
fn memory(of: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(of)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_network_is_read_in_half_a_second_and_twice_its_size() {
    let path = folder("HUBEL_ONNX_LARGE").join("resnet50.onnx");
    let size = fs::metadata(&path).unwrap().len();
    // Once for the pages of the file.
    drop(fs::read(&path).unwrap());
    let before = memory("VmRSS");
    let start = std::time::Instant::now();
    let model = Model::from_onnx(&path).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let share = (memory("VmHWM").max(before + size) - before) as f64 / size as f64;
    println!("{} weights, {size} bytes: {seconds:.3} s, {share:.2} times the file", model.count_params());
    assert!(seconds <= 0.5 && share <= 2.2, "{seconds} s, {share}");
}
