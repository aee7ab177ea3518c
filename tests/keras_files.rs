//! Models that Keras 3, tf.keras 2 and TensorFlow.js saved in every format, against what those computed: what
//! `tests/keras-files` runs, in minutes.
//!
//! `HUBEL_KERAS_FILES` names the folder, `HUBEL_KERAS_MODELS` some models of it. `HUBEL_KERAS_DEVICE=1` runs them on the
//! device too.

use hubel::{
    io::safetensors,
    nn::{KerasOptions, Model},
    prelude::*,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What is refused, and why: the model's name, or its beginning with `*`, and a part of the message.
const REFUSED: [(&str, &str); 9] = [
    ("lambda.", "Python's code"),
    ("conv3d.", "`Conv3D`"),
    ("conv_lstm2d.", "`ConvLSTM2D`"),
    ("max_pooling3d.", "`MaxPooling3D`"),
    ("spectral_normalization.", "`SpectralNormalization`"),
    ("autocontrast.", "`AutoContrast`"),
    ("rnn_of_stacked_cells.", "StackedRNNCells"),
    ("dense_sparsemax.", "sparsemax"),
    ("op_ops_einsum.", "Einsum"),
];

fn tensors(path: &Path, kind: char) -> Vec<HostTensor> {
    let all = safetensors::open(path).unwrap_or_else(|e| panic!("{e}"));
    let find = |key: String| all.iter().find(|t| t.0 == key).map(|t| t.1.clone());
    (0..).map_while(|i| find(format!("{kind}{i}"))).collect()
}

/// Returns the model of a file; weights alone go into the model of the file beside it.
fn open(path: &Path, options: &KerasOptions) -> Result<Model, hubel::Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(stem) = name.strip_suffix(".weights.h5") else { return Model::from_keras_with(path, options) };
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

/// Returns the largest deviation from the recorded outputs, as a share of the largest value.
fn deviation(path: &Path, io: &Path, engine: &Engine) -> Result<f32, String> {
    let (inputs, outputs) = (tensors(io, 'x'), tensors(io, 'y'));
    let options = KerasOptions::new().input_shape(&inputs[0].shape()[1..]);
    let model = open(path, &options).map_err(|e| e.to_string())?;
    let run = || -> Result<_, hubel::Error> { Ok(model.inference(engine, Batch::up_to(2))?.predict_many(&inputs)?) };
    let results = run().map_err(|e| e.to_string())?;
    if let Some(folder) =
        std::env::var_os("HUBEL_KERAS_WRITTEN").filter(|_| path.extension().is_some_and(|e| e == "keras"))
    {
        write(&model, path, Path::new(&folder), &options).map_err(|e| format!("written: {e}"))?;
    }
    if results.len() != outputs.len() {
        return Err(format!("{} outputs instead of {}", results.len(), outputs.len()));
    }
    let mut largest = 0f32;
    for ((_, got), wanted) in results.iter().zip(&outputs) {
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

#[test]
fn saved_models_are_right_or_refused_with_a_listed_reason() {
    let root = std::env::var("HUBEL_KERAS_FILES").expect("HUBEL_KERAS_FILES names the folder: run tests/keras-files");
    let asked = std::env::var("HUBEL_KERAS_MODELS").unwrap_or_default();
    let engine = match std::env::var_os("HUBEL_KERAS_DEVICE") {
        Some(_) => Engine::new().expect("an adapter"),
        None => Engine::reference(),
    };
    let (mut right, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for (name, (path, io)) in files(Path::new(&root)) {
        if !asked.is_empty() && !asked.split_whitespace().any(|part| name.contains(part)) {
            continue;
        }
        // Keras 2's own f32 is that far from its f64.
        let bound = if name.contains("mobilenet_v2_small") {
            5e-4
        } else if name.contains("policy_mixed_b") {
            3e-2
        } else if name.contains("policy_mixed") {
            5e-3
        } else {
            1e-4
        };
        match deviation(&path, &io, &engine) {
            Ok(off) if off <= bound => right += 1,
            Ok(off) => wrong.push(format!("{name}: WRONG by {off:.1e} of the largest value")),
            Err(e) => {
                let known = REFUSED.iter().any(|(model, reason)| {
                    let model = model.strip_suffix('*').unwrap_or(model);
                    name.split('/').nth(1).is_some_and(|n| n.starts_with(model)) && e.contains(reason)
                });
                if known { refused.push(name) } else { wrong.push(format!("{name}: {e}")) }
            }
        }
    }
    println!("{right} right, {} refused as listed, {} otherwise", refused.len(), wrong.len());
    assert!(wrong.is_empty() && right > 0, "\n{}", wrong.join("\n"));
}
