//! The documents: links, paths and lengths; that their code is compiled; that the engine from scratch runs.

use crate::repository::{ROOT, files};
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

/// Returns every document of the repository: its path from the root, and its text.
fn documents() -> Vec<(String, String)> {
    let out = files("", "md");
    assert!(out.len() > 20, "{} documents", out.len());
    out
}

/// Returns what is outside of a document's fenced blocks.
fn outside(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Returns the anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let outside = outside(text);
    let headings = outside.lines().filter_map(|l| l.strip_prefix('#').map(|l| l.trim_start_matches('#').trim()));
    let keep = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    headings
        .map(|h| h.to_lowercase().chars().filter(|&c| keep(c)).map(|c| if c == ' ' { '-' } else { c }).collect())
        .collect()
}

/// Returns a path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut all, part| {
        match part {
            Component::ParentDir => drop(all.pop()),
            Component::CurDir => {}
            other => all.push(other),
        }
        all
    })
}

#[test]
fn every_link_of_every_document_resolves() {
    let mut wrong = Vec::new();
    let mut links = 0;
    for (name, text) in documents() {
        let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
        let without_code = outside(&text).split('`').step_by(2).collect::<Vec<_>>().join("``");
        for target in without_code.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let path = if file.is_empty() { PathBuf::from(&name) } else { plain(&folder.join(file)) };
            let found = Path::new(ROOT).join(&path);
            let anchored = |anchor| fs::read_to_string(&found).is_ok_and(|text| anchors(&text).contains(anchor));
            if !found.exists() || anchor.is_some_and(|anchor| !anchored(anchor)) {
                wrong.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(links > 100 && wrong.is_empty(), "{links} links, of which lead nowhere: {wrong:#?}");
}

#[test]
fn every_path_that_a_document_names_exists() {
    let folders = ["src/", "shaders/", "tests/", "docs/", "examples/", "benches/", ".ci/", ".github/"];
    let is_path = |word: &str| {
        folders.iter().any(|f| word.starts_with(f)) && !word.contains([' ', '*', '<', '…']) && !has_placeholder(word)
    };
    let mut wrong = Vec::new();
    for (name, text) in documents() {
        let outside = outside(&text);
        let quoted: Vec<&str> = outside.split('`').skip(1).step_by(2).filter(|word| is_path(word)).collect();
        for path in quoted.into_iter().filter(|path| !Path::new(ROOT).join(path).exists()) {
            wrong.push(format!("{name}: {path}"));
        }
    }
    assert!(wrong.is_empty(), "no such paths: {wrong:#?}");
}

#[test]
fn the_page_on_shaders_names_every_file() {
    let page = fs::read_to_string(Path::new(ROOT).join("shaders/README.md")).expect("shaders/README.md");
    let is_named = |name: &str| page.contains(&format!("`{}`", name.rsplit('/').next().unwrap_or(name)));
    let missed: Vec<String> = files("shaders", "wgsl").into_iter().map(|f| f.0).filter(|f| !is_named(f)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// Returns whether a path has a part in capitals, for something to be filled in, as `src/ops/NAME.rs`.
fn has_placeholder(path: &str) -> bool {
    let parts = path.split(['/', '.']).filter(|p| p.len() > 1);
    parts.into_iter().any(|p| p != "README" && p.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

#[test]
fn the_readme_is_one_page() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines, 150 are allowed");
}

#[test]
fn the_rust_of_every_document_is_compiled() {
    let library = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).expect("src/lib.rs");
    // This page is one program, which a test of its own runs.
    let runs = |name: &str| library.contains(&format!("\"{name}\",")) || name == "docs/from_scratch.md";
    let is_shown = |name: &str| !name.starts_with("tests/") && !name.starts_with("benches/");
    let missed: Vec<String> = (documents().into_iter())
        .filter(|(name, text)| is_shown(name) && text.contains("\n```rust") && !runs(name))
        .map(|(name, _)| name)
        .collect();
    assert!(missed.is_empty(), "list them in `documents!` in src/lib.rs: {missed:?}");
}

#[test]
fn the_engine_from_scratch_compiles_and_learns() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/from_scratch.md")).expect("the page");
    let block = |rest: &str| rest.split("\n```").next().map(str::to_owned);
    let program: Vec<String> = page.split("\n```rust\n").skip(1).filter_map(block).collect();
    let folder = temp_dir::TempDir::new().expect("a folder");
    let (source, binary) = (folder.path().join("engine.rs"), folder.path().join("engine"));
    fs::write(&source, program.join("\n")).expect("the program can be written");
    let compiler = Path::new(env!("CARGO")).with_file_name("rustc");
    let compiled = Command::new(compiler)
        .args(["--edition", "2024", "-o"])
        .arg(&binary)
        .arg(&source)
        .output()
        .expect("the compiler runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&binary).output().expect("the program runs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(page.contains(said.trim()), "the page says otherwise than the program: {said}");
}
