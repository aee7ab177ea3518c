//! Models that Keras 3, tf.keras 2 and TensorFlow.js saved in every format, against what those computed: what
//! `tests/keras-files` runs, in minutes.
//!
//! `HUBEL_KERAS_FILES` names the folder, `HUBEL_KERAS_MODELS` some models of it. `HUBEL_KERAS_DEVICE=1` runs them on the
//! device instead of the evaluator. `HUBEL_KERAS_RESUMED` names the folder of `tests/golden/keras_resume.py`.

use hubel::{
    io::safetensors,
    losses::MeanSquaredError,
    nn::{KerasOptions, Model},
    optimizers::Sgd,
    prelude::*,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What is refused, and why: the model's name, or its beginning with `*`, and a part of the message.
const REFUSED: [(&str, &str); 1] = [("lambda.", "Python's code")];

fn tensors(path: &Path, kind: char) -> Vec<HostTensor> {
    let all = safetensors::open(path).unwrap_or_else(|e| panic!("{e}"));
    let find = |key: String| all.iter().find(|t| t.0 == key).map(|t| t.1.clone());
    (0..).map_while(|i| find(format!("{kind}{i}"))).collect()
}

/// Returns the model of a file; weights alone go into the model of the file beside it.
fn open(path: &Path, options: &KerasOptions) -> Result<Model, hubel::Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let weights = [".weights.h5", ".pth"].iter().find_map(|end| name.strip_suffix(end));
    let Some(stem) = weights else { return Model::from_keras_with(path, options) };
    let beside = ["keras", "h5"].map(|end| path.with_file_name(format!("{stem}.{end}")));
    let whole = Model::from_keras_with(beside.iter().find(|p| p.exists()).unwrap_or(&beside[0]), options)?;
    let mut blank = Model::from_json(&whole.to_json()?)?;
    blank.load_weights(path)?;
    Ok(blank)
}

/// Writes a model in each format, and reads it again.
fn write(model: &Model, path: &Path, folder: &Path, options: &KerasOptions) -> Result<(), hubel::Error> {
    let framework = path.parent().and_then(Path::file_name).unwrap_or_default();
    let folder = folder.join(framework);
    fs::create_dir_all(&folder).expect("a folder");
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for end in ["keras", "h5", "weights.h5"] {
        let to = folder.join(format!("{stem}.{end}"));
        match model.save(&to) {
            Err(e) if e.to_string().contains("Keras 3 can read") => return Ok(()),
            saved => saved?,
        }
        let again = open(&to, options)?;
        for (a, b) in model.weights().iter().zip(again.weights()) {
            assert_eq!(model.initial_value(a, 0), again.initial_value(b, 0), "{} of {}", a.name, to.display());
        }
    }
    Ok(())
}

/// Returns the largest deviation from the recorded outputs, as a share of the largest value and of what may be.
fn deviation(path: &Path, io: &Path, engine: &Engine) -> Result<f32, String> {
    let inputs = tensors(io, 'x');
    let options = KerasOptions::new().input_shape(&inputs[0].shape()[1..]);
    let model = open(path, &options).map_err(|e| e.to_string())?;
    let run = || -> Result<_, hubel::Error> { Ok(model.inference(engine, Batch::up_to(2))?.predict_many(&inputs)?) };
    let results = run().map_err(|e| e.to_string())?;
    if let Some(folder) =
        std::env::var_os("HUBEL_KERAS_WRITTEN").filter(|_| path.extension().is_some_and(|e| e == "keras"))
    {
        write(&model, path, Path::new(&folder), &options).map_err(|e| format!("written: {e}"))?;
    }
    let stem = io.file_stem().unwrap_or_default().to_string_lossy();
    // Keras's own arithmetic in 16 bits: of bfloat16, eight times as coarse.
    let bound = match stem.strip_prefix("policy_mixed_") {
        Some("float16") => 1e-3,
        Some(_) => 8e-3,
        None => 1e-4,
    };
    let of_32_bits = tensors(io, 'z');
    let off = largest(&results, &tensors(io, 'y'))? / bound;
    Ok(if of_32_bits.is_empty() { off } else { off.max(largest(&results, &of_32_bits)? / 1e-4) })
}

/// Returns the largest deviation of results from outputs, as a share of the largest value.
fn largest(results: &[(String, HostTensor)], outputs: &[HostTensor]) -> Result<f32, String> {
    if results.len() != outputs.len() {
        return Err(format!("{} outputs instead of {}", results.len(), outputs.len()));
    }
    let mut largest = 0f32;
    for ((_, got), wanted) in results.iter().zip(outputs) {
        if got.shape() != wanted.shape() {
            return Err(format!("WRONG shape {:?} instead of {:?}", got.shape(), wanted.shape()));
        }
        let scale = wanted.to_f32().iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        for (a, b) in got.to_f32().iter().zip(wanted.to_f32()) {
            let off = (a - b).abs() / scale;
            largest = if off.is_nan() { f32::INFINITY } else { largest.max(off) };
        }
    }
    Ok(largest)
}

/// Returns the files and folders of models with the file of their inputs and outputs, by name.
fn files(root: &Path) -> BTreeMap<String, (PathBuf, PathBuf)> {
    let mut found = BTreeMap::new();
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let read = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        read.map(|entry| entry.expect("an entry").path()).collect()
    };
    for framework in entries(root).into_iter().filter(|p| p.is_dir()) {
        for path in entries(&framework) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stem = name.split('.').next().unwrap_or_default();
            let io = framework.join(format!("{stem}.safetensors"));
            if path != io && io.exists() {
                let framework = framework.file_name().unwrap_or_default().to_string_lossy();
                found.insert(format!("{framework}/{name}"), (path.clone(), io));
            }
        }
    }
    found
}

/// Returns the files and folders of the models that are asked for.
fn asked() -> BTreeMap<String, (PathBuf, PathBuf)> {
    let root = std::env::var("HUBEL_KERAS_FILES").expect("HUBEL_KERAS_FILES names the folder: run tests/keras-files");
    let asked = std::env::var("HUBEL_KERAS_MODELS").unwrap_or_default();
    let mut all = files(Path::new(&root));
    all.retain(|name, _| asked.is_empty() || asked.split_whitespace().any(|part| name.contains(part)));
    all
}

fn engine() -> Engine {
    match std::env::var_os("HUBEL_KERAS_DEVICE") {
        Some(_) => Engine::new().expect("an adapter"),
        None => Engine::reference(),
    }
}

/// Returns whether a model's refusal is listed.
fn is_listed(name: &str, error: &str) -> bool {
    REFUSED.iter().any(|(model, reason)| {
        let model = model.strip_suffix('*').unwrap_or(model);
        name.split('/').nth(1).is_some_and(|n| n.starts_with(model)) && error.contains(reason)
    })
}

#[test]
fn saved_models_are_right_or_refused_with_a_listed_reason() {
    let engine = engine();
    let (mut right, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for (name, (path, io)) in asked() {
        match deviation(&path, &io, &engine) {
            Ok(off) if off <= 1. => right += 1,
            Ok(off) => wrong.push(format!("{name}: WRONG by {off:.1e} of what may be")),
            Err(e) if is_listed(&name, &e) => refused.push(name),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    println!("{right} right, {} refused as listed, {} otherwise", refused.len(), wrong.len());
    assert!(wrong.is_empty() && right > 0, "\n{}", wrong.join("\n"));
}

/// Returns by how much a step of SGD changes a weight otherwise than Keras's did, as a share of the change, and the weight
/// of which that is the most.
fn step_deviation(path: &Path, io: &Path, stepped: &Path, engine: &Engine) -> Result<(f32, String), String> {
    let text = |e: hubel::Error| e.to_string();
    let (inputs, targets) = (tensors(io, 'x'), tensors(io, 't'));
    let options = KerasOptions::new().input_shape(&inputs[0].shape()[1..]);
    let [before, after] = [path, stepped].map(|path| open(path, &options));
    let (before, after) = (before.map_err(text)?, after.map_err(text)?);
    let data = || -> Result<Dataset, hubel::Error> {
        let samples = HostTensor::f32(inputs[0].shape().to_vec(), inputs[0].to_f32())?;
        let first = Dataset::new(samples, targets[0].clone())?;
        Ok(targets[1..].iter().try_fold(first, |data, labels| data.and_labels(labels.clone()))?)
    };
    let config = Compile::new(Sgd::new(0.05), MeanSquaredError);
    let config = targets[1..].iter().fold(config, |config, _| config.output(MeanSquaredError));
    let run = || -> Result<Model, hubel::Error> {
        let mut trainer = before.compile(engine, config)?;
        trainer.train_on_batch(&data()?)?;
        trainer.trained()
    };
    let trained = run().map_err(text)?;
    let values = |model: &Model| -> Vec<Vec<f32>> {
        model.weights().iter().map(|w| model.initial_value(w, 0).to_f32()).collect()
    };
    let all: Vec<_> = (values(&before).into_iter()).zip(values(&after)).zip(values(&trained)).collect();
    let largest = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    let change = all.iter().map(|((before, after), _)| largest(before, after)).fold(0f32, f32::max);
    let mut worst = (0f32, String::new());
    for (weight, ((before, after), mine)) in trained.weights().iter().zip(&all) {
        // TensorFlow's kernel keeps the variance of a sample, Keras that of the batch itself.
        if weight.name.ends_with("moving_variance") && path.parent().is_some_and(|p| p.ends_with("keras2")) {
            continue;
        }
        let size = before.iter().fold(0f32, |m, w| m.max(w.abs()));
        // Sums that cancel are as exact as their terms, and weights as 32 bits.
        let off = largest(after, mine) / largest(before, after).max(0.01 * change).max(1e-3 * size).max(1e-9);
        if off.is_nan() || off > worst.0 {
            worst = (if off.is_nan() { f32::INFINITY } else { off }, weight.name.clone());
        }
    }
    Ok(worst)
}

#[test]
fn a_step_of_training_changes_weights_as_in_keras() {
    let engine = engine();
    let (mut right, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for (name, (path, io)) in asked() {
        let folder = path.parent().unwrap_or(Path::new(""));
        let stepped = folder.join("steps").join(path.file_name().unwrap_or_default());
        // Keras 2 takes the statistics of all timesteps at once, and moves their averages twice.
        if !stepped.exists() || name.starts_with("keras2/video") {
            continue;
        }
        match step_deviation(&path, &io, &stepped, &engine) {
            Ok((off, _)) if off <= 1e-3 => right += 1,
            Ok((off, weight)) => wrong.push(format!("{name}: WRONG by {off:.1e} of the change of `{weight}`")),
            Err(e) if is_listed(&name, &e) => refused.push(name),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    println!("{right} steps of training right, {} refused as listed, {} otherwise", refused.len(), wrong.len());
    assert!(wrong.is_empty() && right > 0, "\n{}", wrong.join("\n"));
}

#[test]
fn trainings_that_keras_began_go_on_and_their_losses_are_kept_for_the_reverse() {
    let root =
        std::env::var("HUBEL_KERAS_RESUMED").expect("HUBEL_KERAS_RESUMED names the folder: run tests/keras-files");
    let (engine, mut right, mut wrong) = (engine(), 0, Vec::new());
    for entry in fs::read_dir(root).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((stem, end)) = name.split_once(".begun.") else { continue };
        let beside = |end: &str| path.with_file_name(format!("{stem}.{end}"));
        let goes_on = || -> Result<f32, hubel::Error> {
            let io = safetensors::open(beside("safetensors"))?;
            let find = |key: &str| io.iter().find(|t| t.0 == key).expect("what the script writes").1.clone();
            let (data, wanted) = (Dataset::new(find("x"), find("y"))?, find("losses").to_f32());
            let mut trainer = Trainer::load(&path, &engine)?;
            let n = wanted.len();
            let steps = |trainer: &mut Trainer| -> Result<Vec<f32>, hubel::Error> {
                (0..n).map(|_| Ok(trainer.train_on_batch(&data)? as f32)).collect()
            };
            let got = steps(&mut trainer)?;
            trainer.save(beside(&format!("mine.{end}")))?;
            let mine = HostTensor::f32([n], steps(&mut trainer)?)?;
            let bytes = safetensors::write([("losses", &mine)].into_iter(), &BTreeMap::new())?;
            fs::write(beside(&format!("mine.{end}.safetensors")), bytes).expect("a file");
            Ok(got.iter().zip(&wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs())))
        };
        match goes_on() {
            Ok(off) if off <= 1e-3 => right += 1,
            Ok(off) => wrong.push(format!("{name}: losses are off by {off:.1e}")),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    println!("{right} trainings of Keras go on, {} do not", wrong.len());
    assert!(wrong.is_empty() && right > 0, "\n{}", wrong.join("\n"));
}
