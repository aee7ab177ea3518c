//! Files that Keras 2 and 3 and TensorFlow.js wrote, with what those computed: `tests/golden/saved.py`.

use super::golden;
use hubel::{
    io::safetensors,
    nn::{KerasOptions, Model},
    prelude::*,
};
use std::fs;

/// Returns the model of a file or folder in `tests/golden/files/keras`, and its recorded inputs and outputs.
fn recorded(file: &str, tensors: &[(String, HostTensor)]) -> (Result<Model, hubel::Error>, [Vec<HostTensor>; 2]) {
    let name = file.split('.').next().expect("a name");
    let of = |kind: char| -> Vec<HostTensor> {
        let find = |key: String| tensors.iter().find(|t| t.0 == key).map(|t| t.1.clone());
        (0..).map_while(|i| find(format!("{name}/{kind}{i}"))).collect()
    };
    let (inputs, outputs) = (of('x'), of('y'));
    assert!(!inputs.is_empty() && !outputs.is_empty(), "{name}: run tests/golden/saved.py");
    let options = KerasOptions::new().input_shape(&inputs[0].shape()[1..]);
    (Model::from_keras_with(golden("keras").join(file), &options), [inputs, outputs])
}

/// Returns the largest deviation of a model's outputs from the recorded ones.
fn deviation(model: &Model, [inputs, outputs]: &[Vec<HostTensor>; 2]) -> Result<f32, hubel::Error> {
    let n = inputs[0].shape()[0];
    let results = model.inference(&Engine::reference(), Batch::up_to(n))?.predict_many(inputs)?;
    assert_eq!(results.len(), outputs.len());
    let mut largest = 0f32;
    for ((_, got), wanted) in results.iter().zip(outputs) {
        assert_eq!(got.shape(), wanted.shape());
        for (a, b) in got.to_f32().iter().zip(wanted.to_f32()) {
            let off = (a - b).abs() / b.abs().max(1.0);
            largest = if off.is_nan() { f32::INFINITY } else { largest.max(off) };
        }
    }
    Ok(largest)
}

#[test]
fn saved_models_compute_what_the_framework_that_wrote_them_did() {
    let tensors = safetensors::open(golden("keras.safetensors")).expect("run tests/golden/saved.py");
    let files = fs::read_dir(golden("keras")).expect("the files are in the repository");
    let mut names: Vec<String> = files.map(|f| f.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let mut wrong = Vec::new();
    for name in &names {
        let (model, io) = recorded(name, &tensors);
        match model.and_then(|model| deviation(&model, &io)) {
            Ok(off) if off < 1e-5 => {}
            Ok(off) => wrong.push(format!("{name}: off by {off}")),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    assert!(wrong.is_empty() && names.len() >= 31, "{} of {}:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}
