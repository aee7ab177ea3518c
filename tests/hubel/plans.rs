//! Plans and kernels as they were: tests/plans.txt has a line for each sample of an operation and for each network, for
//! each kind of device, with hashes of what the plan does, of its WGSL and of the names in both.
//!
//! tests/generate rewrites the file, and `git diff` then shows what changed. tests/plans shows the changes themselves.

use crate::{harness::sample_graph, networks::build, repository::is_generated};
use hubel::{
    graph::{DeviceProfile, Graph, Kind, Node},
    kernels::Access,
    nn::{
        Mode,
        models::{Application, Options, all},
    },
    ops::FAMILIES,
    passes::{BufferRange, BufferRef, Layout, Plan, PlanOptions, plan, split_rows},
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
    testing::profiles,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

const CLASSES: [&str; 3] = ["cpu", "gpu", "cpu8"];
/// Samples of a training step.
const BATCH: usize = 4;
/// Samples of each operation.
const SAMPLES: usize = 4;
/// The networks of which there is a plan of a training step too.
const TRAINED: [&str; 8] =
    ["LeNet5", "VGG16", "ResNet50", "InceptionV3", "DenseNet121", "MobileNetV2", "EfficientNetB0", "UNet"];

/// Returns the words of WGSL without comments.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let line = line.split("//").next().unwrap_or_default();
        let mut rest = line.trim_start();
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
            let len = if in_word(first) { rest.find(|c| !in_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            let word;
            (word, rest) = rest.split_at(len);
            rest = rest.trim_start();
            Some(word)
        })
    })
}

/// Returns WGSL with a number for each name that it declares, and these names in order.
fn without_names(text: &str) -> (String, String) {
    let all: Vec<&str> = words(text).flat_map(|word| word.split_inclusive('.')).collect();
    let declares = |i: usize| {
        let before = |n: usize| i.checked_sub(n).map(|j| all[j]);
        let keyword = ["fn", "let", "var", "const", "override", "alias", "struct"];
        let in_space = before(1) == Some(">") && (4..7).any(|n| before(n) == Some("var"));
        in_space || before(1).is_some_and(|w| keyword.contains(&w)) || all.get(i + 1) == Some(&":")
    };
    let is_name = |w: &str| w.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let declared: HashSet<&str> = (0..all.len()).filter(|&i| is_name(all[i]) && declares(i)).map(|i| all[i]).collect();
    let (mut numbers, mut names, mut out) = (HashMap::new(), String::new(), String::new());
    for word in all {
        let (name, dot) = word.strip_suffix('.').map_or((word, ""), |name| (name, "."));
        if declared.contains(name) {
            let next = numbers.len();
            let number = *numbers.entry(name).or_insert_with(|| {
                let _ = write!(names, "{name} ");
                next
            });
            let _ = write!(out, "${number}{dot} ");
        } else {
            let _ = write!(out, "{word} ");
        }
    }
    (out, names)
}

/// Returns what a plan does, without names, and the names.
fn structure(plan: &Plan) -> (String, String) {
    let (mut out, mut names) = (format!("{} {:?} {}\n", plan.capacity, plan.arenas, plan.peak_bytes), String::new());
    let range = |p: &BufferRange| {
        let buffer = match p.buffer {
            BufferRef::Arena(i) => [0, i, 0],
            BufferRef::Store { store, chunk } => [1, store, chunk],
            BufferRef::External(i) => [2, i, 0],
            BufferRef::Extents => [3, 0, 0],
        };
        format!("{buffer:?}+{}:{}", p.offset, p.bytes)
    };
    for dispatch in &plan.dispatches {
        let extents = dispatch.extents.iter().map(|e| f64::from(e.1));
        let numbers: Vec<f64> = dispatch.constants.iter().map(|c| c.1).chain(extents).collect();
        let grid = (dispatch.grid.items.fixed, dispatch.grid.items.per_sample, dispatch.grid.per_group);
        let bound = |b: &hubel::passes::Binding| format!("{}{}", range(&b.range), u8::from(b.access == Access::Read));
        let bound: Vec<String> = dispatch.bindings.iter().map(bound).collect();
        let _ = writeln!(out, "{grid:?} {:?} {numbers:?} {bound:?}", dispatch.samples);
        let keys: Vec<&str> = dispatch.constants.iter().map(|c| c.0).collect();
        let _ = writeln!(names, "{} {} {} {keys:?}", dispatch.node, dispatch.kernel, dispatch.variant);
    }
    for port in plan.inputs.iter().chain(&plan.outputs) {
        let _ = writeln!(out, "{} {}", port.ty, range(&port.range));
        let _ = writeln!(names, "{}", port.name);
    }
    (out, names)
}

fn short(text: impl AsRef<[u8]>) -> String {
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the line of some plans, after writing them and their kernels to a folder if one is given.
fn line(what: &str, class: &str, plans: &[Plan], folder: Option<&Path>) -> String {
    let [mut structures, mut kernels, mut names, mut text] = [const { String::new() }; 4];
    let mut known: HashMap<&str, (String, String)> = HashMap::new();
    for plan in plans {
        let (does, called) = structure(plan);
        structures += &does;
        names += &called;
        let _ = writeln!(text, "{plan}");
        for dispatch in &plan.dispatches {
            let own = &*dispatch.source;
            if !known.contains_key(own) {
                let _ = writeln!(text, "// {} {}\n{own}", dispatch.kernel, dispatch.variant);
            }
            let (wgsl, called) = known.entry(own).or_insert_with(|| without_names(own));
            kernels += &short(&*wgsl);
            names += called;
        }
    }
    if let Some(folder) = folder {
        fs::write(folder.join(format!("{what}.{class}")), text).expect("the folder takes files");
    }
    let launches: usize = plans.iter().map(|p| p.dispatches.len()).sum();
    format!("{what} {class} {launches} {} {} {}", short(structures), short(kernels), short(names))
}

/// Returns the plan of a network, of a training step or of inference on one.
fn network(application: &Application, training: bool, profile: &DeviceProfile) -> Plan {
    let model = build(application, &Options::default());
    // Room for the gradient of VGG's largest matrix.
    let profile = &DeviceProfile { max_binding_bytes: if training { 1 << 30 } else { 128 << 20 }, ..profile.clone() };
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let mode = if training { Mode::Training } else { Mode::Inference };
    let built = model.assemble(&mut g, &[x], mode).expect("a graph");
    if training {
        let loss = g.mean(built.logits[0].unwrap_or(built.outputs[0])).expect("a number");
        let weights: Vec<_> = built.weights.iter().filter(|w| w.trainable).map(|w| w.value).collect();
        let gradients = g.gradients(loss, &weights).expect("gradients");
        let new = g.sgd(&weights, &gradients, &[], 0.0, false).expect("new weights");
        weights.iter().zip(new).for_each(|(&weight, new)| g.update(weight, new));
        g.output("loss", loss);
    } else {
        g.output("y", built.outputs[0]);
    }
    let (graph, _) = split_rows(&g, profile.max_binding_bytes);
    let is_state = |n: &&Node| matches!(n.kind, Kind::State { .. });
    let rank = |n: &&Node| built.weights.iter().position(|w| w.trainable && w.name == n.name).unwrap_or(usize::MAX);
    let mut states: Vec<&Node> = graph.nodes().iter().filter(is_state).collect();
    // An optimiser's weights are to be neighbours.
    states.sort_by_key(rank);
    let states = states.into_iter().map(|n| (n.name.clone(), n.outputs[0].clone()));
    let layout = Layout::new(states, profile.max_binding_bytes);
    let capacity = if training { BATCH } else { 1 };
    let options = PlanOptions { layouts: vec![&layout], ..PlanOptions::new(capacity, profile.clone()) };
    plan(&graph, &options).unwrap_or_else(|e| panic!("{}: {e}", application.name))
}

/// Returns the line that `work` returns for each of its numbers, computed on one thread per processor.
fn lines(n: usize, work: impl Fn(usize) -> Vec<String> + Sync) -> Vec<String> {
    let (next, made) = (Mutex::new(0..n), Mutex::new(vec![Vec::new(); n]));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some(i) = { next.lock().expect("no panic").next() } {
                    let lines = work(i);
                    made.lock().expect("no panic")[i] = lines;
                }
            });
        }
    });
    made.into_inner().expect("no panic").concat()
}

#[test]
fn plans_and_kernels_are_those_of_the_file() {
    let folder = std::env::var_os("HUBEL_PLANS").map(PathBuf::from);
    let folder = folder.as_deref();
    folder.map_or(Ok(()), fs::create_dir_all).expect("a folder");
    let mut all_lines = lines(FAMILIES.len(), |i| {
        let family = FAMILIES[i];
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 7);
        let samples: Vec<_> = (0..SAMPLES).map(|_| (family.sample)(&mut rng)).collect();
        let benches = (family.benches)().into_iter().map(|(_, sample)| sample);
        let samples: Vec<_> = samples.into_iter().chain(benches).collect();
        let of = |(class, profile): (&str, DeviceProfile)| {
            let plans: Vec<Plan> = (samples.iter())
                .map(|sample| {
                    let (graph, ..) = sample_graph(sample);
                    plan(&graph, &PlanOptions::new(sample.capacity, profile.clone())).expect("samples have plans")
                })
                .collect();
            line(family.name, class, &plans, folder)
        };
        CLASSES.into_iter().zip(profiles()).map(of).collect()
    });
    all_lines.extend(lines(all().len(), |i| {
        let application = &all()[i];
        let of = |(class, profile): (&str, DeviceProfile)| {
            let mut lines = vec![line(application.name, class, &[network(application, false, &profile)], folder)];
            if TRAINED.contains(&application.name) {
                let what = format!("{}_training", application.name);
                lines.push(line(&what, class, &[network(application, true, &profile)], folder));
            }
            lines
        };
        CLASSES[..2].iter().copied().zip(profiles()).flat_map(of).collect()
    }));
    let text = format!("# what device launches plan wgsl names: see tests/hubel/plans.rs\n{}\n", all_lines.join("\n"));
    if let Some(folder) = folder {
        fs::write(folder.join("plans.txt"), &text).expect("the folder takes files");
    }
    is_generated("tests/plans.txt", &text);
}

#[test]
fn names_and_comments_of_wgsl_are_told_from_what_it_does() {
    let text = "const N = 4u; fn f(a: f32) -> f32 { let b = max(a, 1.0); return b.x * N; } // a";
    let other = "const M = 4u;\nfn g(c: f32) -> f32 {\n  let d = max(c, 1.0);\n  return d.x * M;\n}";
    let (one, two) = (without_names(text), without_names(other));
    assert_eq!(one.0, two.0);
    assert_eq!((&*one.1, &*two.1), ("N f a b ", "M g c d "));
    for changed in [text.replace("max", "min"), text.replace("4u", "5u"), text.replace("return b", "return a")] {
        assert_ne!(without_names(&changed).0, one.0, "{changed}");
    }
}
