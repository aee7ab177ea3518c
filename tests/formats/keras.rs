//! Files that Keras 2 and 3 and TensorFlow.js wrote, with what those computed: `tests/golden/saved.py`.

use super::golden;
use hubel::{
    io::{safetensors, weights},
    layers::*,
    nn::{KerasOptions, Model, models::Preprocessing},
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

#[test]
fn models_are_written_in_each_format_and_read_again() {
    let tensors = safetensors::open(golden("keras.safetensors")).expect("run tests/golden/saved.py");
    let folder = temp_dir::TempDir::new().unwrap();
    let (mut written, mut refused) = (0, 0);
    for entry in fs::read_dir(golden("keras")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let (model, io) = recorded(&name, &tensors);
        let model = model.unwrap();
        for end in ["keras", "h5", "weights.h5", "safetensors"] {
            let path = folder.path().join(format!("model.{end}"));
            if let Err(e) = model.save(&path) {
                assert!(e.to_string().contains("hard sigmoid of Keras 2"), "{name}: {e}");
                refused += 1;
                continue;
            }
            let mut again = if end == "keras" || end == "h5" {
                Model::from_keras(&path).unwrap_or_else(|e| panic!("{name} as {end}: {e}"))
            } else {
                Model::from_json(&model.to_json().unwrap()).unwrap()
            };
            again.load_weights(&path).unwrap_or_else(|e| panic!("{name} as {end}: {e}"));
            assert!(deviation(&again, &io).unwrap() < 1e-5, "{name} as {end}");
            written += 1;
        }
    }
    // Two models of Keras 2 and one of TensorFlow.js, in two formats.
    assert_eq!((written, refused), (31 * 4 - 6, 6));
}

#[test]
fn a_saved_model_keeps_its_class_names_and_preprocessing() {
    let folder = temp_dir::TempDir::new().unwrap();
    let path = folder.path().join("flowers.keras");
    let mut model = Sequential::new([4]).add(Dense::new(2)).build().unwrap();
    assert_eq!(model.preprocessing(), None);
    model.set_class_names(["daisy", "tulip"]);
    model.set_preprocessing(Preprocessing::Tf);
    model.save(&path).unwrap();
    let again = Model::from_keras(&path).unwrap();
    assert_eq!(again.class_names(), ["daisy", "tulip"]);
    assert_eq!(again.preprocessing(), Some(Preprocessing::Tf));
    let error = again.save(folder.path().join("flowers.onnx")).unwrap_err().to_string();
    assert!(error.contains(".keras") && error.contains("flowers.onnx"), "{error}");
}

#[test]
fn files_of_other_programs_are_named_with_the_way_to_convert_them() {
    let zip = |names: &[&str]| hubel::io::archive::write(names.iter().map(|&name| (name, &b"x"[..]))).unwrap();
    let onnx = b"\x08\x07\x12\x07pytorch\x1a\x03onnx";
    let cases: [(&[u8], &str, &str); 6] = [
        (b"\x1c\0\0\0TFL3\0\0", "TensorFlow Lite", "save"),
        (onnx, "ONNX", "from_onnx"),
        (b"\x80\x04\x95\x00", "pickle", "save"),
        (&zip(&["model/saved_model.pb"]), "SavedModel", "save"),
        (&zip(&["net/data.pkl", "net/code/net.py", "net/constants.pkl"]), "TorchScript", "save"),
        (&zip(&["Manifest.json", "Data/model.mlmodel"]), "CoreML", "save"),
    ];
    for (bytes, name, way) in cases {
        let error = weights::read(bytes).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(way), "{error}");
    }
    let folder = temp_dir::TempDir::new().unwrap();
    fs::write(folder.path().join("model.json"), r#"{"format":"graph-model","modelTopology":{"node":[]}}"#).unwrap();
    let error = Model::from_keras(folder.path()).unwrap_err().to_string();
    assert!(error.contains("graph model") && error.contains("tfjs_layers_model"), "{error}");
}

#[test]
fn layers_of_the_users_own_are_built_by_their_function() {
    let object = |class: &str| {
        let input =
            r#"{"class_name":"InputLayer","config":{"batch_shape":[null,2],"name":"x"},"module":"keras.layers"}"#;
        let own = format!(r#"{{"class_name":"{class}","config":{{"name":"twice","factor":2}},"module":"mine"}}"#);
        format!(r#"{{"class_name":"Sequential","config":{{"name":"m","layers":[{input},{own}]}}}}"#)
    };
    let folder = temp_dir::TempDir::new().unwrap();
    let path = folder.path().join("own.keras");
    let entries = [
        ("config.json", object("Times").into_bytes()),
        ("model.weights.h5", {
            let blank = folder.path().join("blank.weights.h5");
            Sequential::new([2]).add(Relu).build().unwrap().save(&blank).unwrap();
            fs::read(blank).unwrap()
        }),
    ];
    let bytes = hubel::io::archive::write(entries.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
    fs::write(&path, bytes.unwrap()).unwrap();
    let error = Model::from_keras(&path).unwrap_err().to_string();
    assert!(error.starts_with("layer `twice` (Times)") && error.contains("KerasOptions::layer"), "{error}");
    let options = KerasOptions::new().layer("Times", |config| {
        let factor = config["factor"].as_f64().ok_or("no factor")?;
        Ok(Rescaling::new(factor as f32).name("twice").into_layer())
    });
    let model = Model::from_keras_with(&path, &options).unwrap();
    let x = HostTensor::f32([1, 2], vec![1.0, 3.0]).unwrap();
    let y = model.inference(&Engine::reference(), Batch::up_to(1)).unwrap().predict(&x).unwrap();
    assert_eq!(y.to_f32(), [2.0, 6.0]);
}
