//! The files of the repository.

use std::{collections::HashSet, fs, path::Path};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the files with this extension below a folder of the repository: their paths from its root, in order, and their
/// texts.
pub fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, extension: &str, out: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("a folder of the repository").map(|e| e.expect("an entry").path()) {
            let name = entry.strip_prefix(ROOT).expect("inside the repository").to_string_lossy().replace('\\', "/");
            if entry.is_dir() && !["target", "out", ".git"].contains(&name.as_str()) {
                walk(&entry, extension, out);
            } else if entry.extension().is_some_and(|e| e == extension) {
                out.push((name, fs::read_to_string(&entry).expect("a text")));
            }
        }
    }
    let mut out = Vec::new();
    walk(&Path::new(ROOT).join(folder), extension, &mut out);
    out.sort();
    out
}

/// Fails where a generated file is not this text, which `tests/generate` writes first.
pub fn is_generated(file: &str, text: &str) {
    let path = Path::new(ROOT).join(file);
    if std::env::var_os("HUBEL_WRITE_DOCS").is_some() {
        fs::write(&path, text).expect("the file can be written");
    }
    let known = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    let lines: HashSet<&str> = known.lines().collect();
    let changed: Vec<&str> = text.lines().filter(|line| !lines.contains(line)).collect();
    assert!(known == text, "{file} is stale; tests/generate writes it. Lines that differ:\n{}", changed.join("\n"));
}
