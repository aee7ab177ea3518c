//! The `hubel` command: its help, its output, its errors, and downloads from a local server.

use serde_json::Value as Json;
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DIGIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/seven.png");

fn hubel(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubel"));
    command.args(arguments).env("HUBEL_CACHE", "/nonexistent").env("COLUMNS", "100").output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Returns the JSON object that a command prints.
fn json(arguments: &[&str]) -> Json {
    let out = hubel(&[arguments, &["--json"]].concat());
    assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one JSON object")
}

/// Returns the message of a failing command, with its exit status.
fn refusal(arguments: &[&str]) -> (i32, String) {
    let out = hubel(arguments);
    let last = text(&out.stderr).lines().rfind(|l| l.starts_with("hubel: ")).unwrap_or_default().to_owned();
    (out.status.code().unwrap_or(-1), last)
}

#[test]
fn help_is_what_the_snapshot_says() {
    let commands =
        ["", "devices", "summary", "run", "predict", "verify", "plan", "bench", "profile", "convert", "fetch"];
    let mut all = String::new();
    for command in commands {
        let out = hubel(&[&[command][usize::from(command.is_empty())..], &["--help"]].concat());
        let lines: Vec<String> = text(&out.stdout).lines().map(|l| l.trim_end().to_owned()).collect();
        all += &format!("$ hubel {command} --help\n{}\n\n", lines.join("\n"));
    }
    let path = Path::new(ROOT).join("tests/golden/cli.txt");
    if std::env::var_os("HUBEL_WRITE_DOCS").is_some() {
        fs::write(&path, &all).expect("the snapshot can be written");
    }
    let known = fs::read_to_string(path).expect("a snapshot");
    assert!(known == all, "help has changed; HUBEL_WRITE_DOCS=1 rewrites it:\n{all}");
}

#[test]
fn summaries_and_plans_have_their_figures() {
    let summary = json(&["summary", "MobileNetV2"]);
    for (key, value) in [
        ("params_total", 3_538_984u64),
        ("params_trainable", 3_504_872),
        ("params_non_trainable", 34_112),
        ("macs", 300_774_272),
    ] {
        assert_eq!(summary[key], value, "{key}");
    }
    assert_eq!(summary["layers"], 156);
    let plan = json(&["plan", "lenet5", "--batch", "64", "--device", "cpu"]);
    let numbers = ["dispatches", "peak_bytes", "lower_bound_bytes"].map(|k| plan[k].as_u64().expect("a number"));
    assert!(numbers[0] >= 7 && numbers[1] >= numbers[2] && numbers[2] > 200_000, "{plan}");
    assert_eq!(plan["hash"].as_str().map(str::len), Some(16));
    let train = json(&["plan", "lenet5", "--batch", "64", "--train", "--device", "cpu"]);
    assert!(train["dispatches"].as_u64() > plan["dispatches"].as_u64() && train["hash"] != plan["hash"]);
}

#[test]
fn lenet5_reads_a_digit_without_any_file_and_every_node_is_verified() {
    let found = json(&["predict", "lenet5", DIGIT, "--top", "2"]);
    assert_eq!(found["images"][0]["top"][0]["class"], 7);
    assert_eq!(found["images"][0]["top"].as_array().map(Vec::len), Some(2));
    let shown = hubel(&["predict", "lenet5", DIGIT]);
    assert!(text(&shown.stdout).contains("7 100.0% ████"), "{}", text(&shown.stdout));
    let verified = json(&["verify", "lenet5", "--batch", "2"]);
    assert!(verified["nodes"].as_u64() >= Some(7) && verified["wrong"] == serde_json::json!([]), "{verified}");
    let bench = json(&["bench", "lenet5", "--batch", "8", "--seconds", "0.1"]);
    for key in ["ms_median", "cold_ms", "images_per_s", "peak_bytes"] {
        assert!(bench[key].as_f64() > Some(0.0), "{key}: {bench}");
    }
    assert!(bench.get("cpu_ms").is_some());
    assert!(json(&["devices"])["adapters"].as_array().is_some_and(|a| !a.is_empty()));
}

#[test]
fn a_profile_sums_to_the_step_and_its_trace_is_in_the_trace_event_format() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let [trace, plot] = ["trace.json", "plot.png"].map(|name| folder.path().join(name).to_string_lossy().into_owned());
    // Other programs may interrupt the host between the launches' end and its look at the clock.
    let gap = |found: &Json| {
        let [device, wall] = [&found["device_ms"], &found["profile"]["wall_ms"]].map(|v| v.as_f64().expect("a number"));
        (wall - device) / wall
    };
    let arguments = ["profile", "lenet5", "--train", "--batch", "256", "--trace", &trace, "--plot", &plot];
    let found =
        (0..5).map(|_| json(&arguments)).find(|found| (0.0..0.1).contains(&gap(found))).expect("a quiet moment");
    let launches = found["profile"]["launches"].as_array().expect("launches");
    let sum = |rows: &Json, keys: &[&str]| -> f64 {
        let rows = rows.as_array().expect("rows");
        rows.iter().flat_map(|row| keys.iter().map(|key| row[key].as_f64().expect("a number"))).sum()
    };
    let device_ms = found["device_ms"].as_f64().expect("a number");
    assert!((sum(&found["profile"]["launches"], &["ms"]) - device_ms).abs() < 1e-6 * device_ms);
    assert!((sum(&found["layers"], &["forward_ms", "backward_ms", "step_ms"]) - device_ms).abs() < 1e-6 * device_ms);
    let layers: Vec<&str> =
        found["layers"].as_array().expect("layers").iter().filter_map(|l| l["layer"].as_str()).collect();
    assert!(["conv1", "pool1", "fc1", "adam"].iter().all(|name| layers.contains(name)), "{layers:?}");

    // The fields that the format's description demands of each kind of event.
    let written = fs::read_to_string(&trace).expect("a trace");
    let trace: Json = serde_json::from_str(&written).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let mut rows = std::collections::BTreeMap::<u64, Vec<[f64; 2]>>::new();
    for event in events {
        assert!(event["name"].is_string() && event["pid"].is_u64(), "{event}");
        let row = event["tid"].as_u64().expect("a thread");
        match event["ph"].as_str() {
            Some("M") => assert!(event["args"]["name"].is_string(), "{event}"),
            Some("X") => {
                assert!(event["cat"].is_string() && event["args"].is_object(), "{event}");
                let [from, ms] = ["ts", "dur"].map(|key| event[key].as_f64().filter(|t| *t >= 0.0).expect("a time"));
                rows.entry(row).or_default().push([from, from + ms]);
            }
            other => panic!("{other:?} is no event of ours: {event}"),
        }
    }
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [1, 2], "host and device");
    assert_eq!(rows[&2].len(), launches.len());
    assert!(rows.values().all(|row| row.windows(2).all(|e| e[0][1] <= e[1][0] + 1e-3)), "events of a row overlap");
    assert!(rows[&2].last().expect("launches")[1] <= rows[&1].last().expect("spans")[1] + 1e-3);
    assert!(hubel::io::image::open(&plot).expect("an image").shape()[0] > 200);
    let shown = text(&hubel(&["profile", "lenet5", "--steps", "1"]).stdout);
    assert!(shown.contains("GFLOP/s") && shown.contains("█") && shown.contains("conv1/conv2d"), "{shown}");
}

#[test]
fn predictions_are_told_as_what_they_are() {
    use hubel::{layers::*, nn::models::Preprocessing, prelude::*};
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let save = |name: &str, outputs: &dyn Fn(&hubel::nn::Tensor) -> Vec<hubel::nn::Tensor>, classes: &[&str]| {
        let x = Input::new([8, 8, 1]);
        let mut model = Model::new(std::slice::from_ref(&x), &outputs(&x)).expect("a model");
        model.set_preprocessing(Preprocessing::Unit);
        model.set_class_names(classes.iter().copied());
        model.save(path(name)).expect("a file");
    };
    let of = |name: &str, more: &[&str]| {
        let found = json(&[&["predict", &path(name), DIGIT, "--device", "cpu", "--output", &path("")], more].concat());
        found["images"][0].clone()
    };
    let mask = |x: &hubel::nn::Tensor| x.apply(Conv2D::new(1, 1).activation(Sigmoid).name("mask")).expect("a layer");
    let dense = |x: &hubel::nn::Tensor, n, name: &str| {
        x.apply(Flatten::new()).and_then(|x| x.apply(Dense::new(n).name(name))).expect("a layer")
    };
    save("mask.keras", &|x| vec![mask(x)], &[]);
    let found = of("mask.keras", &[]);
    assert_eq!(found["shape"], serde_json::json!([8, 8, 1]));
    assert!(hubel::io::image::open(path("seven.mask.png")).expect("a picture").shape()[..2] == [8, 8]);

    let pixels = |x: &hubel::nn::Tensor| x.apply(Conv2D::new(3, 1).activation(Softmax).name("kinds")).expect("a layer");
    save("kinds.keras", &|x| vec![pixels(x)], &["sky", "sea", "land"]);
    let found = of("kinds.keras", &[]);
    let shares: f64 = found["classes"].as_array().expect("classes").iter().filter_map(|c| c["share"].as_f64()).sum();
    assert!(
        (shares - 1.0).abs() < 1e-6 && ["sky", "sea", "land"].contains(&found["classes"][0]["name"].as_str().unwrap())
    );

    save("size.keras", &|x| vec![dense(x, 4, "size")], &[]);
    assert_eq!(of("size.keras", &[])["numbers"].as_array().map(Vec::len), Some(4));
    save("named.keras", &|x| vec![dense(x, 2, "scores")], &["cat", "dog"]);
    assert!(of("named.keras", &[])["top"][0]["value"].is_number());

    let head = |x: &hubel::nn::Tensor, n| dense(x, n, "logits").apply(Softmax).expect("a layer");
    save("photo.keras", &|x| vec![head(x, 1000)], &[]);
    let name = of("photo.keras", &[])["top"][0]["name"].as_str().map(str::to_owned).expect("a name");
    assert!(hubel::nn::models::imagenet_classes().contains(&&*name), "{name}");
    save("two.keras", &|x| vec![head(x, 2), mask(x)], &["cat", "dog"]);
    let found = of("two.keras", &[]);
    assert!(
        found["outputs"]["activation"]["top"][0]["name"].is_string() && found["outputs"]["mask"]["picture"].is_string()
    );

    fs::write(path("labels.txt"), "one\ntwo\n").expect("a file");
    assert_eq!(of("named.keras", &["--labels", &path("labels.txt")])["top"].as_array().map(Vec::len), Some(2));
    let (status, message) = refusal(&["predict", &path("size.keras"), DIGIT, "--labels", &path("labels.txt")]);
    assert!(status != 0 && message.contains("2 names for 4 classes"), "{message}");
}

#[test]
fn arrays_go_through_a_network_and_weights_change_their_type() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let samples = hubel::tensor::HostTensor::f32([3, 32, 32, 1], vec![0.5; 3 * 1024]).expect("a tensor");
    fs::write(path("x.npy"), hubel::io::npy::write(&samples)).expect("a file");
    let out = path("out");
    let found =
        json(&["run", "lenet5", "--input", &path("x.npy"), "--output", &out, "--layers", "conv1", "--device", "cpu"]);
    assert_eq!(found["outputs"].as_array().map(Vec::len), Some(2));
    let probabilities = hubel::io::npy::open(Path::new(&out).join("output.npy")).expect("an array");
    assert_eq!(probabilities.shape(), [3, 10]);
    assert!((probabilities.to_f32()[..10].iter().sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!(hubel::io::npy::open(Path::new(&out).join("conv1.npy")).expect("a tap").shape(), [3, 28, 28, 6]);

    let weights = Path::new(ROOT).join("examples/data/lenet5.safetensors").to_string_lossy().into_owned();
    let half = json(&["convert", &weights, &path("half.safetensors"), "--dtype", "f16"]);
    assert_eq!((&half["tensors"], &half["changed"], &half["became_infinite"]), (&10.into(), &10.into(), &0.into()));
    assert!(half["bytes"].as_u64() < half["bytes_before"].as_u64().map(|b| b * 6 / 10), "{half}");
    let found = json(&["predict", "lenet5", DIGIT, "--weights", &path("half.safetensors"), "--device", "cpu"]);
    assert_eq!(found["images"][0]["top"][0]["class"], 7);
}

#[test]
fn every_command_takes_an_onnx_file() {
    use hubel::{layers::*, nn::models::Preprocessing, prelude::*};
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let layers = Sequential::new([8, 8, 1]).add(Conv2D::new(3, 3).name("stem")).add(Flatten::new());
    let mut model = layers.add(Dense::new(2).activation(Softmax)).build().expect("a model");
    model.set_preprocessing(Preprocessing::Unit);
    model.set_class_names(["cat", "dog"]);
    model.save(path("small.keras")).expect("a file");
    let file = path("small.onnx");
    let written = json(&["convert", &path("small.keras"), &file]);
    assert_eq!((&written["parameters"], &written["tensors"]), (&248.into(), &4.into()));
    assert_eq!(json(&["summary", &file])["params_total"], 248);
    assert!(json(&["plan", &file, "--device", "cpu"])["dispatches"].as_u64() >= Some(2));
    let found = json(&["predict", &file, DIGIT, "--preprocessing", "tf", "--device", "cpu"]);
    assert!(["cat", "dog"].map(Json::from).contains(&found["images"][0]["top"][0]["name"]), "{found}");
    let verified = json(&["verify", &file, "--batch", "2"]);
    assert!(verified["nodes"].as_u64() >= Some(2) && verified["wrong"] == serde_json::json!([]), "{verified}");
    let bench = json(&["bench", &file, "--batch", "2", "--seconds", "0.05"]);
    assert!(bench["ms_median"].as_f64() > Some(0.0), "{bench}");
    let samples = HostTensor::f32([3, 8, 8, 1], (0..192).map(|i| (i % 7) as f32).collect()).expect("a tensor");
    fs::write(path("x.npy"), hubel::io::npy::write(&samples)).expect("a file");
    let run = |model: &str, out: &str| {
        json(&["run", model, "--input", &path("x.npy"), "--output", &path(out), "--device", "cpu"]);
        let entry = fs::read_dir(path(out)).expect("a folder").next().expect("a file").expect("a name");
        hubel::io::npy::open(entry.path()).expect("an array").to_f32()
    };
    json(&["convert", &file, &path("again.onnx")]);
    let wanted = run(&path("small.keras"), "keras");
    for (name, out) in [("small.onnx", "first"), ("again.onnx", "second")] {
        assert!(run(&path(name), out).iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
    }
}

#[test]
fn an_extent_that_a_file_leaves_open_is_asked_for_and_given() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let field = |number: u8, body: &[u8]| [&[number << 3 | 2, body.len() as u8], body].concat();
    let dims = [field(1, &field(2, b"N")), field(1, &field(2, b"height")), field(1, &[8, 3])].concat();
    let x = [field(1, b"x"), field(2, &field(1, &[&[8, 1][..], &field(2, &dims)].concat()))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(3, b"relu"), field(4, b"Relu")].concat();
    let graph = [field(1, &node), field(2, b"open"), field(11, &x), field(12, &field(1, b"y"))].concat();
    let file = [&[8, 8][..], &field(7, &graph), &field(8, &[16, 17])].concat();
    fs::write(path("open.onnx"), file).expect("a file");
    let (status, message) = refusal(&["summary", &path("open.onnx")]);
    assert!(status != 0 && message.contains("`height`") && message.contains("--dim"), "{message}");
    let samples = hubel::tensor::HostTensor::f32([2, 4, 3], vec![-1.0; 24]).expect("a tensor");
    fs::write(path("x.npy"), hubel::io::npy::write(&samples)).expect("a file");
    let (model, input, out) = (path("open.onnx"), path("x.npy"), path("out"));
    let shown = json(&["run", &model, "--dim", "height=4", "--input", &input, "--output", &out, "--device", "cpu"]);
    assert_eq!(shown["outputs"].as_array().map(Vec::len), Some(1));
    let entry = fs::read_dir(&out).expect("a folder").next().expect("a file").expect("a name");
    let y = hubel::io::npy::open(entry.path()).expect("an array");
    assert_eq!((y.shape(), y.to_f32()), (&[2, 4, 3][..], vec![0.0; 24]));
}

#[test]
fn outputs_that_would_share_a_file_are_refused() {
    use hubel::{layers::*, prelude::*};
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let relu = |name: &str| ReLU::new().name(name);
    let model = Sequential::new([2]).add(relu("a b")).add(relu("a.b")).add(relu("c")).build().expect("a model");
    let config: Json = serde_json::from_str(&model.to_json().expect("a description")).expect("JSON");
    let json = serde_json::json!({ "modelTopology": { "model_config": config }, "weightsManifest": [] });
    fs::write(path("model.json"), json.to_string()).expect("a file");
    let x = HostTensor::f32([1, 2], vec![-1.0, 2.0]).expect("a tensor");
    fs::write(path("x.npy"), hubel::io::npy::write(&x)).expect("a file");
    let (model, input, out) = (path("model.json"), path("x.npy"), path("out"));
    let run = |layers: &str, out: &str| {
        refusal(&["run", &model, "--input", &input, "--output", out, "--layers", layers, "--device", "cpu"])
    };
    let (status, last) = run("a b,a.b", &out);
    assert!(status == 2 && last.contains("`a b` and `a.b`") && !Path::new(&out).exists(), "{status}: {last}");
    assert_eq!(run("a b", &out).0, 0);
    assert!(Path::new(&out).join("a.b.npy").exists());
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_utf_8_is_refused_before_anything_is_written() {
    use std::os::unix::ffi::OsStrExt;
    let folder = temp_dir::TempDir::new().expect("a folder");
    let out = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    let run = Command::new(env!("CARGO_BIN_EXE_hubel"))
        .args(["run", "lenet5", "--input", "x.npy", "--output"])
        .arg(&out)
        .output()
        .expect("the command runs");
    assert!(run.status.code() == Some(2) && text(&run.stderr).contains("not UTF-8"), "{}", text(&run.stderr));
    assert!(!out.exists());
}

/// Returns an example as a command.
fn example_of(name: &str) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_hubel")).with_file_name("examples");
    Command::new(folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// Runs an example and returns its output.
fn example(command: &mut Command) -> String {
    let run = command.output();
    let run = run.unwrap_or_else(|e| panic!("{command:?}: {e}; `cargo build --examples` makes it"));
    let said = text(&run.stderr);
    assert!(run.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn a_folder_of_images_is_trained_on_without_validation() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let (images, out) = (folder.path().join("images"), folder.path().join("out"));
    for class in ["dark", "light"] {
        fs::create_dir_all(images.join(class)).expect("a folder");
        for name in ["1.png", "2.png"] {
            fs::copy(DIGIT, images.join(class).join(name)).expect("an image");
        }
    }
    let options = ["--validation", "0", "--epochs", "2", "--size", "16", "--device", "cpu"];
    let said = example(example_of("train_folder").arg(&images).args(options).arg("--out").arg(&out));
    assert!(out.join("weights.safetensors").exists(), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_driver_lenet5_trains_draws_its_images_and_says_what_a_driver_gives() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let (digits, out) = (folder.path().join("digits"), folder.path().join("out"));
    fs::create_dir(&digits).expect("a folder");
    let mnist = hubel::data::mnist(Path::new(ROOT).join("examples/data/mnist")).expect("MNIST");
    for (name, data, n) in [("train", &mnist.train, 320u32), ("t10k", &mnist.test, 250)] {
        let size = n.to_be_bytes();
        let images = [&[0, 0, 8, 3][..], &size, &[0, 0, 0, 28, 0, 0, 0, 28], &data.images.bytes()[..n as usize * 784]];
        fs::write(digits.join(format!("{name}-images-idx3-ubyte")), images.concat()).expect("a file");
        let labels = [&[0, 0, 8, 1][..], &size, &data.labels.bytes()[..n as usize]];
        fs::write(digits.join(format!("{name}-labels-idx1-ubyte")), labels.concat()).expect("a file");
    }
    let none = [("VK_DRIVER_FILES", "/nonexistent"), ("VK_ICD_FILENAMES", "/nonexistent")];
    let said = example(example_of("lenet5").arg("--data").arg(&digits).arg("--out").arg(&out).envs(none));
    for part in ["reference evaluator", "nstall", "times as fast", "expected duration", "test accuracy"] {
        assert!(said.contains(part), "no `{part}`: {said}");
    }
    for name in ["curves.png", "confusion.png", "mistakes.png", "feature_maps.png", "filters.png"] {
        let image = hubel::io::image::open(out.join(name)).unwrap_or_else(|e| panic!("{e}: {said}"));
        assert!(image.shape()[..2].iter().all(|&side| side > 50), "{name}: {:?}", image.shape());
    }
    for name in ["lenet5.safetensors", "history.csv"] {
        assert!(out.join(name).exists(), "{name}: {said}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (arguments, said) in [
        (&["summary", "resnet51"][..], "known networks: LeNet5"),
        (&["predict", "vgg16", DIGIT], "hubel fetch VGG16"),
        (&["predict", "lenet5", "nothing.png"], "nothing.png"),
        (&["run", "lenet5", "--input", "nothing.npy", "--output", "out"], "nothing.npy"),
        (&["summary", "vgg16", "--input-shape", "8,8,3"], "at least 32×32"),
        (&["fetch", "lenet5"], "choose one of VGG16"),
        (&["convert", DIGIT, "x.safetensors"], "safetensors, .npz"),
        (&["plan", "lenet5", "--weights", DIGIT], "wanted safetensors"),
    ] {
        let (status, last) = refusal(arguments);
        assert!(status == 2 && last.contains(said), "{arguments:?} gave {status}: {last}");
    }
    assert_eq!(hubel(&["bench", "lenet5", "--batch", "0"]).status.code(), Some(2));
    let completions = hubel(&["completions", "bash"]);
    assert!(text(&completions.stdout).contains("predict"));
}

/// Serves the bytes to `connections` connections and returns the address; `stated` is the length that the answer claims.
fn serve(bytes: &'static [u8], stated: usize, connections: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/weights.h5", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {stated}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(bytes);
        }
    });
    address
}

#[test]
fn downloads_are_checked_and_kept() {
    use hubel::io::{
        Flaw,
        fetch::{Published, fetch},
    };
    const MD5: &str = "5d41402abc4b2a76b9719d911017c592";
    let folder = temp_dir::TempDir::new().expect("a folder");
    let url = serve(b"hello", 5, 1);
    let mut seen = Vec::new();
    let path = fetch(Published { url: &url, md5: MD5 }, folder.path(), |n, of| seen.push((n, of))).expect("a download");
    assert_eq!((fs::read(&path).expect("a file"), seen.last()), (b"hello".to_vec(), Some(&(5, Some(5)))));
    // The server answers once only.
    assert_eq!(fetch(Published { url: &url, md5: MD5 }, folder.path(), |_, _| {}).as_ref(), Ok(&path));

    let empty = temp_dir::TempDir::new().expect("a folder");
    let refused = |url: &str, flaw: Flaw| {
        let error = fetch(Published { url, md5: MD5 }, empty.path(), |_, _| {}).expect_err("refused");
        assert_eq!(error.flaw, flaw, "{error}");
        assert_eq!(fs::read_dir(empty.path()).expect("a folder").count(), 0, "{error}");
        error.to_string()
    };
    assert!(refused(&serve(b"hellO", 5, 1), Flaw::Checksum).contains("put it at"));
    refused(&serve(b"hel", 5, 1), Flaw::Io);
    refused(&serve(b"hello", 3 << 30, 1), Flaw::TooLarge);
    let offline = refused("http://127.0.0.1:9/weights.h5", Flaw::Io);
    assert!(offline.contains("weights.h5") && offline.contains("download"), "{offline}");
    refused("http://example.com/weights.h5", Flaw::Syntax);
    refused("https://example.com/", Flaw::Syntax);
}
