//! Links shared declarations: of `shaders/shared`, a kernel gets those that it names, and what these name.

use std::collections::HashSet;

/// Returns the identifiers of a text, without those of comments.
pub fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter_map(|line| line.split("//").next());
    code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).filter(|word| !word.is_empty())
}

/// Returns the declarations of a WGSL text, each with its name: a declaration starts at the margin and ends with `;` on that line or
/// with a `}` at the margin.
pub(in crate::kernels) fn declarations(text: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    let (mut start, mut at) = (None, 0);
    for line in text.split_inclusive('\n') {
        let code = line.trim_end();
        let end = at + line.len();
        if start.is_none() && !code.is_empty() && !code.starts_with("//") {
            start = Some(at);
        }
        if let Some(first) = start.filter(|&first| code == "}" || (first == at && code.ends_with([';', '}']))) {
            let declaration = &text[first..end];
            all.extend(name(declaration).map(|name| (name, declaration)));
            start = None;
        }
        at = end;
    }
    all
}

/// Returns the names that texts declare.
pub fn declared<'a>(texts: &[&'a str]) -> HashSet<&'a str> {
    texts.iter().flat_map(|text| declarations(text)).map(|d| d.0).collect()
}

/// Returns the name that a declaration declares.
fn name(declaration: &str) -> Option<&str> {
    let mut words = identifiers(declaration);
    words.find(|word| ["fn", "const", "alias", "struct", "override", "var"].contains(word))?;
    words.find(|word| !["uniform", "storage", "private", "workgroup", "read", "read_write"].contains(word))
}

/// Returns a kernel with the declarations of `libraries` that it names in front, in their order. Of declarations of one name the last is
/// taken; the kernel's own is the last of all.
///
/// ```
/// let library = "fn half(x: f32) -> f32 {\n    return 0.5 * x;\n}\nconst PI = 3.14;\n";
/// assert!(hubel::kernels::link("fn f() -> f32 { return half(1.0); }", &[library]).starts_with("fn half"));
/// assert_eq!(hubel::kernels::link("fn f() {}", &[library]), "fn f() {}");
/// ```
pub fn link(kernel: &str, libraries: &[&str]) -> String {
    let own = declared(&[kernel]);
    let mut shared: Vec<(&str, &str)> = Vec::new();
    for (name, text) in libraries.iter().flat_map(|text| declarations(text)) {
        shared.retain(|d| d.0 != name);
        shared.push((name, text));
    }
    shared.retain(|d| !own.contains(d.0));
    // Every kernel binds the step record, whether it reads it or not.
    let mut named: HashSet<&str> = identifiers(kernel).chain(["step"]).collect();
    let mut taken = vec![false; shared.len()];
    while let Some(i) = (0..shared.len()).find(|&i| !taken[i] && named.contains(shared[i].0)) {
        taken[i] = true;
        named.extend(identifiers(shared[i].1));
    }
    let mut text: String = shared.iter().zip(taken).filter(|(_, taken)| *taken).map(|((_, text), _)| *text).collect();
    text.push_str(kernel);
    text
}
