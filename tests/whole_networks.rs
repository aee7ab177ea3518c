//! Whole networks against Keras, each trained for a step, and one whose weights are larger than a binding: what
//! `tests/zoo` runs, in minutes for each.

#[path = "hubel/harness.rs"]
#[allow(dead_code, unused_imports, reason = "the harness is shared, and this test needs a part of it")]
mod harness;
#[path = "hubel/networks.rs"]
mod networks;

use harness::engine;
use hubel::{
    io::safetensors,
    layers::*,
    nn::models::{Options, all, find},
    prelude::*,
    wgpu,
};
use networks::{build, learns, uniform};
use std::{fmt::Write as _, fs, path::Path, time::Instant};

/// The networks for `tests/zoo`: those in `HUBEL_ZOO_MODELS`, or all.
fn asked(name: &str) -> bool {
    let named = std::env::var("HUBEL_ZOO_MODELS").unwrap_or_default();
    named.is_empty() || named.split_whitespace().any(|n| n == name)
}

#[test]
fn every_network_learns() {
    all().iter().filter(|a| asked(a.name)).for_each(learns);
}

/// Returns a tensor's error from f32 itself, from its fixture: Keras's f32, and exact layers rounded to f32.
fn of_f32(folder: &Path, key: &str) -> String {
    let meta = fs::read_to_string(folder.join("meta.json")).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let off = |of: &str| meta[of][key].as_f64().map_or("not known".into(), |off| format!("{off:.1e}"));
    format!("Keras's f32 {}, exact layers rounded {}", off("float32_deviation"), off("rounding_spread"))
}

/// Compares a network with its fixture and returns the largest deviation of each tensor, as a share of its largest
/// value.
fn deviations(folder: &Path) -> Vec<(String, f64)> {
    let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
    let (network, torchvision) = name.split_once('-').map_or((name.as_str(), false), |(n, _)| (n, true));
    let open = |file: &str| safetensors::open(folder.join(file)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let tensors = open("io.safetensors");
    let weights = open("weights.safetensors");
    let tensor = |key: &str| &tensors.iter().find(|t| t.0 == key).unwrap_or_else(|| panic!("{name}: no {key}")).1;
    let x = tensor("input");
    let &[n, h, w, c] = x.shape() else { panic!("{name}: images") };
    let mut options = Options::default().input_shape([h, w, c]);
    if torchvision {
        options = options.stride_in_1x1(false);
    }
    let application = find(network).unwrap_or_else(|| panic!("no {network}"));
    let load = |options: &Options| {
        let mut model = build(application, options);
        model.set_weights(weights.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
        model
    };
    let deviation = |got: &HostTensor, key: &str| {
        let wanted = tensor(key);
        assert_eq!(got.shape(), wanted.shape(), "{name} {key}");
        let (got, wanted) = (got.to_f32(), wanted.to_f32());
        let largest = wanted.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        assert!(got.iter().all(|v| v.is_finite()), "{name} {key}");
        f64::from(got.iter().zip(&wanted).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest)
    };
    let run = |model: &Model, taps: &[&str]| {
        let mut net = model.inference_with(engine(), Batch::up_to(n), taps).unwrap_or_else(|e| panic!("{name}: {e}"));
        net.predict_all(x).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let mut found = vec![("output".to_owned(), deviation(&run(&load(&options), &[])[0].1, "output"))];
    let taps: Vec<&str> = tensors.iter().filter_map(|t| t.0.strip_prefix("act/")).collect();
    for (result, got) in run(&load(&options.classifier_activation(Linear)), &taps) {
        let key = if result == "output" { "logits".to_owned() } else { format!("act/{result}") };
        let off = deviation(&got, &key);
        found.push((key, off));
    }
    found
}

#[test]
fn networks_compute_what_keras_computes() {
    let root = std::env::var("HUBEL_ZOO").expect("HUBEL_ZOO names the folder of the fixtures: run tests/zoo");
    let entries = fs::read_dir(&root).unwrap_or_else(|e| panic!("no fixtures in {root} ({e}): run tests/zoo"));
    let mut folders: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    folders.retain(|f| asked(&f.file_name().unwrap_or_default().to_string_lossy()));
    folders.sort();
    assert!(!folders.is_empty(), "no fixtures in {root}: run tests/zoo");
    let mut wrong = String::new();
    for folder in folders {
        let (start, found) = (Instant::now(), deviations(&folder));
        let worst = found.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("an output");
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {} tensors, worst {} {:.1e}, {seconds:.0} s", found.len(), worst.0, worst.1);
        for (key, off) in found.iter().filter(|f| !(f.1 <= 1e-4)) {
            let _ = writeln!(wrong, "{name} {key}: off by {off:.2e} of the largest value ({})", of_f32(&folder, key));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn vgg16_runs_on_bindings_of_128_mib() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    let limits = wgpu::Limits::default();
    assert_eq!(limits.max_storage_buffer_binding_size, 128 << 20);
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let small = Engine::from_wgpu(&adapter, &device, &queue).expect("an engine");
    assert_eq!(small.profile().max_binding_bytes, 128 << 20);
    let model = build(find("VGG16").expect("a network"), &Options::default());
    let x = uniform("an image", &[1, 224, 224, 3]);
    let run = |engine: &Engine| {
        model.inference(engine, Batch::up_to(1)).expect("it fits").predict(&x).expect("it runs").to_f32()
    };
    let (got, wanted) = (run(&small), run(engine()));
    assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-6), "other numbers");
}
