//! The structure of the crate: imports, sizes, and the generated documents.

use crate::repository::{ROOT, files, is_generated};
use hubel::ops::FAMILIES;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
};

const LAYERS: [&str; 9] = ["tensor", "graph", "kernels", "ops", "passes", "runtime", "nn", "io", "data"];

fn code(text: &str) -> impl Iterator<Item = &str> {
    let before_tests = text.split("#[cfg(test)]").next().unwrap_or(text);
    before_tests.lines().filter(|l| !l.trim_start().starts_with("//"))
}

#[test]
fn imports_go_downward_only() {
    let allowed = |layer: &str| -> &'static [&'static str] {
        match layer {
            "tensor" => &[],
            "graph" => &["tensor"],
            "kernels" => &["tensor", "graph"],
            "ops" => &["tensor", "graph", "kernels"],
            "passes" => &["tensor", "graph", "kernels", "ops"],
            "runtime" => &["tensor", "graph", "kernels", "ops", "passes"],
            "io" => &["tensor"],
            "data" => &["tensor", "io"],
            "nn" => &["tensor", "graph", "ops", "io"],
            _ => &LAYERS,
        }
    };
    let files = files("src", "rs");
    let mut wrong = Vec::new();
    for (name, text) in &files {
        let Some(layer) = name.strip_prefix("src/").and_then(|n| n.split('/').next()).filter(|l| !l.ends_with(".rs"))
        else {
            continue;
        };
        let body: String = code(text).collect::<Vec<_>>().join("\n");
        for other in LAYERS.iter().filter(|o| **o != layer && !allowed(layer).contains(o)) {
            let direct = body.contains(&format!("crate::{other}"));
            let grouped = body.split("use crate::{").skip(1).any(|rest| {
                let rest = rest.split(";\n").next().unwrap_or(rest);
                rest.split([',', '{', '\n']).any(|part| part.trim().starts_with(&format!("{other}::")))
            });
            if direct || grouped {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn passes_ask_no_operation_for_its_name_but_to_print_it_or_to_find_what_the_user_forces() {
    let files = files("src/passes", "rs");
    let compares = |l: &str| {
        let named = l.contains(".name() ==") || l.contains(".name() !=") || l.contains("match op.name()");
        named || l.contains(".key() ==") || l.contains("key().as_str()") || l.contains("matches!(op.name()")
    };
    let wrong: Vec<String> = (files.iter())
        .flat_map(|(name, text)| code(text).filter(|l| compares(l)).map(move |l| format!("{name}: {}", l.trim())))
        .filter(|l| !l.contains("force"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_runtime_names_wgpu_and_only_it_may_be_unsafe() {
    let files = files("src", "rs");
    // An application records into its own encoder, so the type is in the signature.
    let signatures = ["src/train/inference.rs", "src/lib.rs"];
    let wrong: Vec<&str> = (files.iter())
        .filter(|(name, text)| {
            let inside = name.starts_with("src/runtime/");
            let names_wgpu = code(text).any(|l| l.contains("wgpu::") && !l.contains("hubel::wgpu"));
            (names_wgpu && !inside && !signatures.contains(&name.as_str()))
                || (!inside && code(text).any(|l| l.contains("unsafe ")))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_library_neither_prints_nor_panics_on_purpose() {
    let files = files("src", "rs");
    let marks = ["println!", "print!(", "dbg!", "todo!", "unimplemented!", ".unwrap()", ".expect(\"", "panic!("];
    let exempt = ["progress_bar", "src/bin", "/tests.rs"];
    let wrong: Vec<String> = (files.iter().filter(|(name, _)| !exempt.iter().any(|part| name.contains(part))))
        .flat_map(|(name, text)| {
            let lines = code(text).filter(|l| marks.iter().any(|m| l.contains(m))).map(str::trim);
            lines.map(|l| format!("{name}: {l}")).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns the crates that cargo lists for these arguments, each in this format.
fn crates(format: &str, args: &[&str]) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "--format", format])
        .args(args)
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn an_embedding_application_pays_for_at_most_25_crates_beside_wgpu_and_naga() {
    let of = |args: &[&str]| -> BTreeSet<String> {
        let all = crates("{p}", &[&["-e", "normal"], args].concat());
        all.iter().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
    };
    let mut theirs = of(&["-p", "wgpu"]);
    theirs.extend(of(&["-p", "naga"]));
    let ours = of(&["--no-default-features", "-p", "hubel"]);
    let extra: Vec<&String> = ours.difference(&theirs).filter(|c| *c != "hubel").collect();
    assert!(extra.len() <= 25, "{} crates: {extra:?}", extra.len());
}

#[test]
fn the_command_is_built_of_the_same_builds_of_its_dependencies_as_tests_and_examples() {
    let command = crates("{p} {f}", &["-e", "normal,no-proc-macro", "--features", "cli"]);
    let tests = crates("{p} {f}", &["-e", "normal,dev,no-proc-macro"]);
    let built_twice: Vec<&String> = command.difference(&tests).filter(|c| !c.starts_with("hubel ")).collect();
    assert!(command.len() > 100 && built_twice.is_empty(), "tests ask for other features of these: {built_twice:#?}");
}

/// Returns OPS.md, made from the list of operations.
fn operations_table() -> String {
    let mut out = String::from(
        "# Operations\n\nGenerated from the list of operations; `tests/generate` rewrites it. \
         The kernels' speed is measured on software adapters alone: on GPUs it is unproven.\n\n\
         | operation | what it is | gradient | accuracy on the GPU | kernels |\n|---|---|---|---|---|\n",
    );
    for family in FAMILIES {
        let mut rng = hubel::tensor::Philox::new(1, hubel::tensor::Purpose::Test, 0);
        let sample = (family.sample)(&mut rng);
        let (graph, _, outputs) = crate::harness::sample_graph(&sample);
        let io = graph.io(graph.node(outputs[0]));
        let accuracy: Vec<String> = sample
            .op
            .accuracy(&io, sample.n)
            .iter()
            .map(|a| {
                let text = format!("{a:?}");
                text.split([' ', '(']).next().unwrap_or(&text).to_owned()
            })
            .collect();
        let profile = hubel::graph::DeviceProfile::portable(hubel::graph::DeviceClass::Gpu);
        let kernels: Vec<String> = sample
            .op
            .lower(&io, &profile, None)
            .first()
            .map(|c| c.dispatches.iter().map(|d| d.kernel.clone()).collect())
            .unwrap_or_default();
        let kernels = if kernels.is_empty() { "none".into() } else { kernels.join(", ") };
        let gradient = if family.differentiable { "yes" } else { "no" };
        let accuracy = if family.name == "elementwise" { "by function".into() } else { accuracy.join(", ") };
        let _ = writeln!(out, "| `{}` | {} | {gradient} | {accuracy} | {kernels} |", family.name, family.about);
    }
    out.push_str("\n## Elementwise functions\n\n| function | operands | accuracy |\n|---|---|---|\n");
    for f in hubel::ops::TABLE {
        let _ = writeln!(out, "| `{}` | {} | {:?} |", f.name, f.arity, f.accuracy);
    }
    out.push_str("\nAccuracy is the largest error against 64-bit evaluation that the tests allow: `Exact` the same number, `Ulp(k)` k units \
        in the last place, `Products` max(8, 2·√K)·2⁻²⁴ times the sum of the K products' magnitudes; the others are defined in `hubel::tensor::Accuracy`.\n");
    out
}

#[test]
fn operations_table_is_up_to_date() {
    is_generated("OPS.md", &operations_table());
}

/// Returns the rows of docs/reliability.md: their names and the tests that hold them.
fn reliability() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/reliability.md")).expect("the page is there");
    let rows = text.lines().map(|l| l.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells.len() == 5 && cells[1].len() < 4 && cells[1].ends_with(|c: char| c.is_ascii_digit()))
        .map(|cells| (cells[1].to_owned(), cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect()))
        .collect()
}

#[test]
fn every_demand_of_reliability_is_held_by_tests_that_exist() {
    let files: Vec<_> = ["src", "tests"].iter().flat_map(|folder| files(folder, "rs")).collect();
    let tests: BTreeSet<&str> = (files.iter())
        .flat_map(|(_, text)| text.split("#[test]").skip(1))
        .filter_map(|after| after.split_once("fn ")?.1.split('(').next())
        .collect();
    let held = reliability();
    let unknown: Vec<_> = held
        .iter()
        .flat_map(|(row, names)| names.iter().map(move |n| (row, n)))
        .filter(|(_, name)| !tests.contains(name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "no such tests: {unknown:?}");
    let wanted = [('N', 11), ('F', 13), ('S', 7)];
    let wanted = wanted.iter().flat_map(|&(kind, n)| (1..=n).map(move |k| format!("{kind}{k}")));
    let missing: Vec<String> = wanted.filter(|row| held.get(row).is_none_or(Vec::is_empty)).collect();
    assert!(missing.is_empty(), "held by no test: {missing:?}");
}

#[test]
fn every_promise_of_the_readme_is_held_by_rows_of_reliability() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("README.md");
    let promises = readme.split("## Promises").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let held = reliability();
    let promises: Vec<&str> = promises.lines().filter(|l| l.starts_with("- ")).collect();
    let wrong: Vec<&&str> = (promises.iter())
        .filter(|promise| {
            let rows = promise.rsplit_once('(').map_or("", |(_, end)| end.trim_end_matches(')'));
            rows.is_empty() || !rows.split(", ").all(|row| held.contains_key(row))
        })
        .collect();
    assert!(promises.len() > 5 && wrong.is_empty(), "without rows of docs/reliability.md: {wrong:#?}");
}
