//! Weights in the files of Keras, PyTorch, NumPy and TensorFlow.js, and hostile ones.

use super::{Corpus, fuzz, golden, held, hostile};
use hubel::{
    io::{Budget, Flaw, FormatError, archive::Archive, hdf5, npy, pickle, safetensors, tfjs, weights},
    layers::*,
    prelude::*,
};
use std::fs;

/// Returns input and output of a fixture.
fn io(name: &str) -> [HostTensor; 2] {
    let tensors = safetensors::open(golden(name)).expect("a fixture");
    ["input", "output"].map(|n| tensors.iter().find(|t| t.0 == n).expect("both are there").1.clone())
}

fn computes(model: &Model, [input, output]: &[HostTensor; 2]) {
    let got = model.inference(&Engine::reference(), Batch::up_to(2)).unwrap().predict(input).unwrap();
    assert_eq!(got.shape(), output.shape());
    for (a, b) in got.to_f32().iter().zip(output.to_f32()) {
        assert!((a - b).abs() < 2e-6, "{a} and {b}");
    }
}

/// Returns the values that a model was given, by name.
fn values(model: &Model) -> Vec<(String, HostTensor)> {
    model.weights().iter().map(|w| (w.name.clone(), model.initial_value(w, 0))).collect()
}

#[test]
fn kerass_files_make_the_model_that_wrote_them() {
    for name in ["convolutional", "recurrent", "branching"] {
        let io = io(&format!("{name}.safetensors"));
        let whole = Model::from_keras(golden(&format!("{name}.keras"))).unwrap();
        computes(&whole, &io);
        let legacy = Model::from_keras(golden(&format!("{name}.h5"))).unwrap();
        computes(&legacy, &io);
        for file in [format!("{name}.weights.h5"), format!("{name}.h5"), format!("{name}.keras"), format!("{name}.npz")]
        {
            let mut model = Model::from_json(&whole.to_json().unwrap()).unwrap();
            let blank = values(&model);
            model.load_weights(golden(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert_eq!(values(&model), values(&whole), "{file}");
            assert_ne!(values(&model), blank, "{file}");
        }
    }
    let error = Model::from_keras(golden("recurrent.weights.h5")).unwrap_err().to_string();
    assert!(error.contains("configuration") && error.contains("model.save"), "{error}");
    let mut other = Model::from_keras(golden("recurrent.keras")).unwrap();
    let error = other.load_weights(golden("convolutional.weights.h5")).unwrap_err().to_string();
    assert!(error.contains("wanted") && error.contains("got"), "{error}");
}

fn torch_twin() -> Model {
    Sequential::new([8, 8, 3])
        .add(Conv2D::new(4, 3).padding(Same))
        .add(BatchNormalization::new().epsilon(1e-5))
        .add(Relu)
        .add(DepthwiseConv2D::new(3).depth_multiplier(2))
        .add(Flatten::new())
        .add(Dense::new(5).activation(Softmax))
        .build()
        .unwrap()
}

#[test]
fn pytorchs_files_fit_the_same_network() {
    let io = io("torch.safetensors");
    for file in ["torch.pth", "torch_legacy.pth"] {
        let mut model = torch_twin();
        model.load_weights(golden(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        computes(&model, &io);
    }
    // A module's name that ends too early is some other module's.
    let mut one = Sequential::new([2]).add(Dense::new(1).use_bias(false)).build().unwrap();
    let kernel = HostTensor::f32([1, 2], vec![1.0, 2.0]).unwrap();
    one.set_weights_from(vec![("layer1.0..weight".into(), kernel)]).unwrap();
    let mut short = Sequential::new([8, 8, 3]).add(Conv2D::new(4, 3)).build().unwrap();
    let error = short.load_weights(golden("torch.pth")).unwrap_err().to_string();
    assert!(error.contains("4 modules") && error.contains("1 layers"), "{error}");
    let mut wide = Sequential::new([8, 8, 3])
        .add(Conv2D::new(5, 3))
        .add(BatchNormalization::new())
        .add(DepthwiseConv2D::new(3))
        .add(Flatten::new())
        .add(Dense::new(5))
        .build()
        .unwrap();
    let error = wide.load_weights(golden("torch.pth")).unwrap_err().to_string();
    assert!(error.contains("`0.weight`") && error.contains("[3, 3, 3, 5]"), "{error}");
}

/// Returns what a model of one convolution and one dense layer makes of a map, and what PyTorch makes of it, which
/// flattens channels first: the convolution passes the map on, and the dense layer has a number for each element.
fn flattened(map: &[usize], after: impl FnOnce(Sequential) -> Sequential) -> Result<[f32; 2], hubel::nn::LayerError> {
    let (&channels, positions) = map.split_last().expect("axes");
    let (n, positions): (usize, usize) = (map.iter().product(), positions.iter().product());
    let unit: Vec<f32> = (0..channels * channels).map(|i| f32::from(u8::from(i % (channels + 1) == 0))).collect();
    let taps = vec![1; map.len() - 1];
    let first = match map.len() {
        3 => Conv2D::new(channels, 1).use_bias(false).into_layer(),
        _ => Conv1D::new(channels, 1).use_bias(false).into_layer(),
    };
    let model = after(Sequential::new(map.to_vec()).add(first));
    let mut model = model.add(Dense::new(1).use_bias(false)).build()?;
    let values: Vec<f32> = (0..n).map(|i| ((i * 7) % 11) as f32).collect();
    let mut file = vec![
        ("0.weight".to_owned(), HostTensor::f32([&[channels; 2], &taps[..]].concat(), unit).unwrap()),
        ("9.weight".to_owned(), HostTensor::f32([1, n], values.clone()).unwrap()),
    ];
    if model.weights().len() > 2 {
        let vector = |name: &str, values: Vec<f32>| (format!("5.{name}"), HostTensor::f32([n], values).unwrap());
        // The values themselves as a factor.
        file.splice(
            1..1,
            [
                vector("weight", values.clone()),
                vector("bias", vec![0.0; n]),
                vector("running_mean", vec![0.0; n]),
                vector("running_var", vec![1.0; n]),
            ],
        );
    }
    let squared = file.len() > 2;
    model.set_weights_from(file)?;
    let x: Vec<f32> = (0..n).map(|i| ((i * 5) % 13) as f32).collect();
    let input = HostTensor::f32([&[1], map].concat(), x.clone()).unwrap();
    let mut net = model.inference(&Engine::reference(), Batch::up_to(1)).unwrap();
    let of_torch = |i: usize| values[i % channels * positions + i / channels].powi(if squared { 2 } else { 1 });
    Ok([net.predict(&input).unwrap().to_f32()[0], (0..n).map(|i| x[i] * of_torch(i)).sum()])
}

#[test]
fn dense_layers_of_pytorch_follow_the_map_that_was_flattened() {
    let equal =
        |what: &str, [got, wanted]: [f32; 2]| assert!((got / wanted - 1.0).abs() < 1e-4, "{what}: {got}, {wanted}");
    equal("a map", flattened(&[2, 3, 4], |m| m.add(Flatten::new())).unwrap());
    equal("dropout", flattened(&[2, 3, 4], |m| m.add(Flatten::new()).add(Dropout::new(0.5)).add(Relu)).unwrap());
    equal("a reshaped map", flattened(&[2, 3, 4], |m| m.add(Reshape::new([24]))).unwrap());
    equal("in two steps", flattened(&[2, 3, 4], |m| m.add(Reshape::new([6, 4])).add(Flatten::new())).unwrap());
    equal("as in PyTorch", flattened(&[2, 3, 4], |m| m.add(Permute::new([3, 1, 2])).add(Flatten::new())).unwrap());
    equal("otherwise", flattened(&[2, 3, 4], |m| m.add(Permute::new([2, 3, 1])).add(Flatten::new())).unwrap());
    equal("a sequence", flattened(&[5, 4], |m| m.add(Flatten::new())).unwrap());
    let normalized = |m: Sequential| m.add(Flatten::new()).add(BatchNormalization::new().epsilon(1e-9));
    equal("normalised", flattened(&[2, 3, 4], normalized).unwrap());
    let joined = |m: Sequential| {
        let inner = Input::new([2, 3, 4]);
        let (flat, rest) = (inner.apply(Flatten::new()).unwrap(), inner.apply(Lost).unwrap());
        let sum = hubel::nn::add(&[flat, rest]).unwrap();
        m.add(Model::new(&[inner], &[sum]).unwrap())
    };
    let error = flattened(&[2, 3, 4], joined).unwrap_err().to_string();
    assert!(error.contains("order of features") && error.contains("path through"), "{error}");
}

/// A layer whose order of elements nobody knows.
#[derive(Debug)]
struct Lost;

impl hubel::nn::Layer for Lost {
    fn kind(&self) -> &'static str {
        "Lost"
    }

    fn build(
        &self,
        scope: &mut hubel::nn::Scope,
        inputs: &[hubel::graph::Value],
    ) -> Result<Vec<hubel::graph::Value>, hubel::graph::OpError> {
        Ok(vec![scope.graph.flatten(inputs[0])?])
    }
}

/// Returns a model.json with one weight in each of two shards, the second quantised, and a name for the second shard.
fn tfjs_json(second: &str) -> String {
    let manifest = serde_json::json!([
        {"paths": ["a.bin"], "weights": [{"name": "dense/kernel", "shape": [2, 2], "dtype": "float32"}]},
        {"paths": [second], "weights": [{"name": "dense/bias", "shape": [2], "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}}]},
    ]);
    let model = Sequential::new([2]).add(Dense::new(2).name("dense")).build().unwrap().to_json().unwrap();
    let topology: serde_json::Value = serde_json::from_str(&model).unwrap();
    serde_json::json!({"modelTopology": {"model_config": topology}, "weightsManifest": manifest}).to_string()
}

#[test]
fn tensorflow_js_models_are_read_with_their_shards() {
    let folder = temp_dir::TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("model.json", tfjs_json("b.bin").as_bytes());
    write("a.bin", bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0]));
    write("b.bin", &[4, 0]);
    let model = Model::from_keras(folder.path()).unwrap();
    computes(
        &model,
        &[HostTensor::f32([1, 2], vec![1.0, 1.0]).unwrap(), HostTensor::f32([1, 2], vec![5.0, 5.0]).unwrap()],
    );
    for (second, flaw) in [
        ("../b.bin", Flaw::Syntax),
        ("/etc/passwd", Flaw::Syntax),
        ("c:b.bin", Flaw::Syntax),
        ("x\\b.bin", Flaw::Syntax),
        ("", Flaw::Syntax),
        ("missing.bin", Flaw::Missing),
        ("a.bin", Flaw::Duplicate),
    ] {
        write("model.json", tfjs_json(second).as_bytes());
        assert_eq!(weights::open(folder.path()).unwrap_err().flaw, flaw, "{second}");
    }
    write("b.bin", &[4]);
    write("model.json", tfjs_json("b.bin").as_bytes());
    assert_eq!(weights::open(folder.path()).unwrap_err().flaw, Flaw::Truncated);
}

fn npy_of(header: &str, data: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn arrays_of_numpy_are_exchanged_exactly_and_hostile_ones_refused() {
    let header =
        |descr: &str, shape: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    for (descr, data, wanted) in [
        ("<f8", 1.5f64.to_le_bytes().to_vec(), HostTensor::f32([1], vec![1.5]).unwrap()),
        ("<i8", (-7i64).to_le_bytes().to_vec(), HostTensor::i32([1], vec![-7]).unwrap()),
        ("|b1", vec![1], HostTensor::u8([1], vec![1]).unwrap()),
        ("|i1", vec![7], HostTensor::u8([1], vec![7]).unwrap()),
        ("<u4", 9u32.to_le_bytes().to_vec(), HostTensor::u32([1], vec![9]).unwrap()),
    ] {
        assert_eq!(npy::read(&npy_of(&header(descr, "(1,)"), &data)).unwrap(), wanted, "{descr}");
    }
    let scalar = HostTensor::f32(Vec::new(), vec![3.0]).unwrap();
    assert_eq!(npy::read(&npy::write(&scalar)).unwrap(), scalar);
    let cases: [(Vec<u8>, Flaw); 16] = [
        (b"PK".to_vec(), Flaw::Magic),
        (b"\x93NUMPY\x09\x00".to_vec(), Flaw::Type),
        (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), Flaw::Truncated),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), Flaw::TooLarge),
        (npy_of("\u{0}", &[]), Flaw::Syntax),
        (npy_of(&header("|O", "(1,)"), &[0; 8]), Flaw::Type),
        (npy_of("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", &[0; 4]), Flaw::Type),
        (npy_of(&header(">f4", "(1,)"), &[0; 4]), Flaw::Type),
        (npy_of("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", &[0; 16]), Flaw::Type),
        (npy_of(&header("<f4", "(2,)"), &[0; 4]), Flaw::Truncated),
        (npy_of(&header("<f4", "(1,)"), &[0; 8]), Flaw::Trailing),
        (npy_of(&header("<f4", "(4294967296, 4294967296, 4294967296)"), &[0; 4]), Flaw::Overflow),
        (npy_of(&header("<f4", "(18446744073709551616,)"), &[0; 4]), Flaw::Syntax),
        (npy_of(&header("<f4", &format!("({})", "1, ".repeat(40))), &[0; 4]), Flaw::Rank),
        (npy_of(&header("<i8", "(1,)"), &i64::MAX.to_le_bytes()), Flaw::Type),
        (npy_of(&header("|i1", "(1,)"), &[200]), Flaw::Type),
    ];
    for (bytes, flaw) in cases {
        let (result, peak) = held(|| npy::read(&bytes));
        assert_eq!(result.unwrap_err().flaw, flaw, "{:?}", String::from_utf8_lossy(&bytes));
        assert!(peak < 1 << 20);
    }
}

#[test]
fn pickles_execute_nothing() {
    let flaw = |bytes: &[u8]| {
        let budget = Budget::new(bytes.len() as u64);
        let (result, peak) = held(|| pickle::read(bytes, &budget));
        assert!(peak <= 200 * bytes.len() + (1 << 20), "{peak} bytes for {}", bytes.len());
        let e: FormatError = result.unwrap_err();
        e
    };
    let system = flaw(b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.");
    assert!(system.flaw == Flaw::Type && system.got.contains("os.system"), "{system}");
    assert_eq!(flaw(b"\x80\x02c__builtin__\neval\n.").flaw, Flaw::Type);
    assert_eq!(flaw(b"\x80\x04\x8c\x02os\x8c\x06system\x93.").flaw, Flaw::Type);
    assert_eq!(flaw(b"\x80\x02}.").flaw, Flaw::Type);
    assert_eq!(flaw(b"\x80\x02.").flaw, Flaw::Syntax);
    assert_eq!(flaw(b"\x80\x02t.").flaw, Flaw::Syntax);
    assert_eq!(flaw(b"\x80\x02h\x07.").flaw, Flaw::Syntax);
    assert_eq!(flaw(b"\x80\x09}.").flaw, Flaw::Type);
    assert_eq!(flaw(b"\x80\x02\x81.").flaw, Flaw::Type);
    assert_eq!(flaw(b"\x80\x02X\xff\xff\xff\xff").flaw, Flaw::Truncated);
    assert_eq!(flaw(b"").flaw, Flaw::Truncated);
    // Many tuples in each other, a list in itself, a list of itself twice and so on.
    let deep = [&b"\x80\x02)"[..], &b"\x85".repeat(1 << 18), b"."].concat();
    assert_eq!(flaw(&deep).flaw, Flaw::Type);
    assert_eq!(flaw(b"\x80\x02]q\x00h\x00a.").flaw, Flaw::Type);
    let bomb = [&b"\x80\x02]q\x00"[..], &b"(h\x00h\x00h\x00h\x00l".repeat(10), b"."].concat();
    assert!(matches!(flaw(&bomb).flaw, Flaw::Type | Flaw::Syntax));
    assert_eq!(flaw(&[&b"\x80\x02"[..], &b"N".repeat(pickle::MAX_OPCODES + 1)].concat()).flaw, Flaw::TooLarge);
}

#[test]
fn hostile_hdf5_files_are_refused() {
    let good = fs::read(golden("recurrent.weights.h5")).unwrap();
    let budget = Budget::new(good.len() as u64);
    let flaw = |bytes: &[u8]| hdf5::File::new(bytes, &budget).err().map(|e| e.flaw);
    assert_eq!(flaw(b"\x89HDF"), Some(Flaw::Magic));
    assert_eq!(flaw(hdf5::MAGIC), Some(Flaw::Truncated));
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    assert_eq!(flaw(&changed(8, &[9])), Some(Flaw::Type));
    assert_eq!(flaw(&changed(13, &[4])), Some(Flaw::Type));
    // The root's address.
    assert_eq!(flaw(&changed(64, &[0xff; 8])), Some(Flaw::Syntax));
    assert_eq!(flaw(&changed(64, &[0; 8])), Some(Flaw::Type));
    for length in [9, 40, 96, 200, good.len() / 2] {
        let read = hdf5::File::new(&good[..length], &budget).and_then(|f| {
            f.datasets().map(str::to_owned).collect::<Vec<_>>().iter().try_for_each(|d| f.dataset(d).map(|_| ()))
        });
        assert!(read.is_err(), "{length}");
    }
}

#[test]
fn mutated_weights_neither_panic_nor_take_memory() {
    let golden = |name: &str| fs::read(golden(name)).expect("a fixture");
    type Read = fn(&[u8]) -> bool;
    let all: Read = |b| weights::read(b).is_ok();
    let json: Read = |b| {
        tfjs::read(b, &Budget::new(b.len() as u64), |name, _| Ok(vec![0; if name == "a.bin" { 16 } else { 2 }])).is_ok()
    };
    let (torch, npz) = (golden("torch.pth"), golden("recurrent.npz"));
    let budget = Budget::new(torch.len() as u64);
    let mut archive = Archive::new(&torch, &budget).expect("an archive");
    let name = archive.names().into_iter().find(|n| n.ends_with("data.pkl")).expect("a pickle");
    let pickled = archive.read(&name).expect("intact").expect("there");
    let shared = hostile::shared_entry(&npz, (0..40).map(|i| format!("{i}.npy")));
    let config = weights::read(&golden("branching.keras")).expect("intact").config.expect("a configuration");
    let described: Read = |b| std::str::from_utf8(b).is_ok_and(|json| Model::from_json(json).is_ok());
    let of = |name: &str| -> Vec<u8> {
        let config = weights::read(&golden(&format!("keras/{name}"))).expect("intact").config;
        config.expect("a configuration").into_bytes()
    };
    let array = npy::write(&HostTensor::f32([3, 4], vec![0.5; 12]).expect("a tensor"));
    let corpora: [Corpus; 18] = [
        (".npy", array, all, 30_000),
        ("a pickle", pickled, |b| pickle::read(b, &Budget::new(b.len() as u64)).is_ok(), 60_000),
        (".pth", torch, all, 20_000),
        (".pth of old", golden("torch_legacy.pth"), all, 20_000),
        (".weights.h5", golden("recurrent.weights.h5"), all, 30_000),
        (".h5", golden("recurrent.h5"), all, 10_000),
        (".npz", npz, all, 10_000),
        (".npz of one entry", shared, all, 10_000),
        ("model.json", tfjs_json("b.bin").into_bytes(), json, 10_000),
        (".keras", golden("branching.keras"), all, 20_000),
        ("a configuration", config.into_bytes(), described, 20_000),
        ("of operations", of("op_getitem.keras"), described, 10_000),
        ("of a reshape", of("op_reshape.keras"), described, 10_000),
        ("of masks", of("embedding_mask_zero.keras"), described, 10_000),
        ("of models in models", of("timedistributed_submodel.keras"), described, 10_000),
        ("of Keras 2", of("keras2_tfoplambda_add.h5"), described, 10_000),
        ("of Keras 2, nested", of("keras2_nested_functional_index.h5"), described, 10_000),
        ("bfloat16", golden("keras/bfloat16_policy.keras"), all, 10_000),
    ];
    assert!(corpora.iter().all(|(name, good, read, _)| read(good) || *name == ".npz of one entry"));
    fuzz(2, corpora);
}

#[test]
fn mutated_configurations_of_every_layer_neither_panic_nor_take_memory() {
    let cases = |file: &str| -> Vec<serde_json::Value> {
        let path = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", file].iter().collect::<std::path::PathBuf>();
        serde_json::from_slice(&fs::read(path).expect("the cases")).expect("JSON")
    };
    let mut classes = std::collections::BTreeMap::new();
    for case in cases("layers.json") {
        classes.entry(case["layer"].to_string()).or_insert(case["model"].to_string());
    }
    for case in cases("augmentation.json") {
        let input = serde_json::json!({ "class_name": "InputLayer", "config": { "batch_shape": [null, 6, 6, 3], "name": "x" } });
        let layer = serde_json::json!({ "class_name": case["class"], "config": case["config"] });
        let model =
            serde_json::json!({ "class_name": "Sequential", "config": { "name": "m", "layers": [input, layer] } });
        classes.entry(case["class"].to_string()).or_insert(model.to_string());
    }
    fn trained(json: &str) -> Result<(), hubel::nn::LayerError> {
        let model = Model::from_json(json)?;
        let mut g = hubel::graph::Graph::new();
        let inputs: Vec<_> =
            model.inputs().iter().map(|(name, ty)| g.input(name, ty.shape.clone(), ty.dtype)).collect();
        // Not every model trains.
        drop(model.assemble(&mut g, &inputs, hubel::nn::Mode::Training));
        Ok(())
    }
    let described: fn(&[u8]) -> bool = |b| std::str::from_utf8(b).is_ok_and(|json| trained(json).is_ok());
    let corpora: Vec<Corpus> =
        (classes.into_iter()).map(|(class, model)| (&*class.leak(), model.into_bytes(), described, 1500)).collect();
    assert!(corpora.iter().all(|(_, good, read, _)| read(good)) && corpora.len() > 115, "{}", corpora.len());
    fuzz(3, corpora);
}

#[test]
fn archives_are_bounded() {
    use std::io::Write;
    let bomb = |name: &str, n: usize| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("a file");
        zip.write_all(&vec![0; n]).expect("in memory");
        zip.finish().expect("in memory").into_inner()
    };
    let packed = bomb("a.npy", 64 << 20);
    assert!(packed.len() < 1 << 18);
    let (result, peak) = held(|| weights::read(&packed));
    assert!(result.is_err_and(|e| e.flaw == Flaw::TooLarge) && peak <= 1 << 20, "{peak}");
    let raised = Budget::new(packed.len() as u64).at_least(1 << 30);
    assert_eq!(weights::read_within(&packed, &raised).unwrap_err().flaw, Flaw::Magic);
    assert_eq!(weights::read(&bomb("unknown.txt", 8)).unwrap_err().flaw, Flaw::Magic);
    assert_eq!(weights::read(b"PK\x03\x04").unwrap_err().flaw, Flaw::Syntax);
    assert_eq!(weights::read(b"").unwrap_err().flaw, Flaw::Empty);
}
