//! The text of a kernel: the common header, the epilogue, vectors of neighbouring elements, and the launch made of them.

use super::index::neighbours;
use crate::{
    graph::{DeviceProfile, Dispatch, Epilogue, Grid, Slot},
    tensor::Count,
};
use std::{borrow::Cow, fmt::Write as _, sync::Arc};

/// Returns the text of a file of `shaders/`: the copy in the binary or, with feature `live-shaders`, the file itself.
#[cfg(not(feature = "live-shaders"))]
macro_rules! shader {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file))
    };
}
#[cfg(feature = "live-shaders")]
macro_rules! shader {
    ($file:literal) => {{
        static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file);
            std::fs::read_to_string(path).unwrap_or_else(|error| format!("cannot read {path}: {error}"))
        });
        TEXT.as_str()
    }};
}
pub(crate) use shader;

/// Returns the WGSL at the head of every kernel: the step record and the functions that kernels share.
pub fn common() -> &'static str {
    shader!("common.wgsl")
}

/// The epilogue of a kernel that has none: it stores what was computed.
pub const NO_EPILOGUE: &str = "
fn epilogue(v: f32, i: u32) -> f32 { return v; }
fn epilogue2(v: vec2<f32>, i: u32) -> vec2<f32> { return v; }
fn epilogue4(v: vec4<f32>, i: u32) -> vec4<f32> { return v; }
";

/// Returns how many of `c` neighbouring channels a lane takes at once: 1, 2 or 4.
pub fn width(c: usize, profile: &DeviceProfile) -> usize {
    match c % 4 {
        0 => 4,
        2 if profile.u64_loads => 2,
        _ => 1,
    }
}

/// Returns a kernel written over `alias V = f32;` with V as vectors of `width`, 1, 2 or 4.
///
/// The text says `const WIDTH = 1u;` and stores through `epilogue(value, i * WIDTH)`; where it declares `largest`
/// and `total` of a V, these become the maximum and the sum of the vector. Buffers are arrays of `alias S = f32;`,
/// which `unpack` and `pack` turn into V and back: S is 64-bit words where the device has them.
pub fn widen(source: &str, width: usize, profile: &DeviceProfile) -> String {
    let (largest, total) = match width {
        2 => ("max_f32(v.x, v.y)", "v.x + v.y"),
        4 => ("max_f32(max_f32(v.x, v.y), max_f32(v.z, v.w))", "(v.x + v.y) + (v.z + v.w)"),
        _ => return source.to_owned(),
    };
    let source = source
        .replace("alias V = f32;", &format!("alias V = vec{width}<f32>;"))
        .replace("alias S = f32;", &format!("alias S = vec{width}<f32>;"))
        .replace("const WIDTH = 1u;", &format!("const WIDTH = {width}u;"))
        .replace("epilogue(", &format!("epilogue{width}("))
        .replace("largest(v: V) -> f32 { return v; }", &format!("largest(v: V) -> f32 {{ return {largest}; }}"))
        .replace("total(v: V) -> f32 { return v; }", &format!("total(v: V) -> f32 {{ return {total}; }}"));
    u64_loads(&source, profile)
}

/// Returns a kernel with its storage type S as 64-bit words, where the device has them.
pub fn u64_loads(source: &str, profile: &DeviceProfile) -> String {
    let (width, word, unpacked, packed) = if source.contains("alias S = vec2<f32>;") {
        (2, "u64", "u32(s), u32(s >> 32u)", "u64(b.x) | (u64(b.y) << 32u)")
    } else {
        (
            4,
            "vec2<u64>",
            "u32(s.x), u32(s.x >> 32u), u32(s.y), u32(s.y >> 32u)",
            "vec2<u64>(u64(b.x) | (u64(b.y) << 32u), u64(b.z) | (u64(b.w) << 32u))",
        )
    };
    if !profile.u64_loads {
        return source.to_owned();
    }
    source
        .replace(&format!("alias S = vec{width}<f32>;"), &format!("alias S = {word};"))
        .replace(
            "fn unpack(s: S) -> V { return s; }",
            &format!("fn unpack(s: S) -> V {{ return bitcast<V>(vec{width}<u32>({unpacked})); }}"),
        )
        .replace(
            "fn pack(v: V) -> S { return v; }",
            &format!("fn pack(v: V) -> S {{ let b = bitcast<vec{width}<u32>>(v); return {packed}; }}"),
        )
}

/// Returns a launch of a kernel from its file or generator.
///
/// `body` is WGSL that declares bindings 1, 2, … in the order of `slots`. It may call
/// `epilogue(value, flat_index)` or `epilogue4` on what it stores in output 0; the epilogue's own inputs
/// are bound behind `slots`. A body that declares `var<private> input0: V;` sets it to its input 0 at the flat index
/// before it calls the epilogue, which then need not read that input again; likewise the others.
pub fn dispatch(
    kernel: impl Into<String>,
    body: &str,
    constants: &[(&'static str, f64)],
    grid: Grid,
    mut slots: Vec<Slot>,
    epilogue: Option<&Epilogue>,
) -> Dispatch {
    let mut source = String::with_capacity(common().len() + body.len() + 512);
    source.push_str(&header(body));
    match epilogue {
        None => source.push_str(NO_EPILOGUE),
        Some(epilogue) => {
            let bound: Vec<usize> =
                (0..epilogue.extras.len()).filter(|&k| at_hand(epilogue, k, body).is_none()).collect();
            source.push_str(&epilogue_wgsl(epilogue, &bound, slots.len() + 1, body));
            slots.extend(bound.into_iter().map(|k| Slot::input(epilogue.first_input + k)));
        }
    }
    source.push_str(body);
    let iterations = (Count::default(), 1);
    Dispatch {
        kernel: kernel.into(),
        source: Arc::from(source),
        constants: constants.to_vec(),
        grid,
        slots,
        iterations,
    }
}

/// Returns of how many numbers the vectors of a kernel are.
fn vector(body: &str) -> usize {
    [4, 2].into_iter().find(|n| body.contains(&format!("const WIDTH = {n}u;"))).unwrap_or(1)
}

/// Returns the header with the functions over `F` for the vectors of a kernel.
fn header(body: &str) -> Cow<'static, str> {
    match vector(body) {
        1 => common().into(),
        n => (["F = f32", "U = u32", "I = i32"].into_iter())
            .fold(common().to_owned(), |text, alias| {
                let (name, of) = alias.split_at(4);
                text.replace(&format!("alias {alias};"), &format!("alias {name}vec{n}<{of}>;"))
            })
            .into(),
    }
}

/// Returns the variable in which a kernel keeps extra `k` of its epilogue.
fn at_hand(epilogue: &Epilogue, k: usize, body: &str) -> Option<String> {
    let name = format!("input{}", epilogue.repeats.get(k).copied().flatten()?);
    body.contains(&format!("var<private> {name}: V;")).then_some(name)
}

fn epilogue_wgsl(epilogue: &Epilogue, bound: &[usize], first_binding: usize, body: &str) -> String {
    let mut text = String::new();
    let width = if body.contains("fn unpack(") { vector(body) } else { 1 };
    let (mut parameters, mut vectors) = (String::new(), String::new());
    let mut calls = vec![String::new(); width];
    let mut inputs = vec!["v".to_owned()];
    for (k, extra) in epilogue.extras.iter().enumerate() {
        let (name, local) = (format!("extra{k}"), format!("e{k}"));
        let read = neighbours(&name, &local, extra, &epilogue.shape, width, ["i", "i / WIDTH"]);
        let kept = at_hand(epilogue, k, body);
        if let Some(at) = bound.iter().position(|&b| b == k) {
            let (binding, element) = (first_binding + at, read.storage);
            let _ = writeln!(text, "@group(0) @binding({binding}) var<storage, read> {name}: array<{element}>;");
        }
        if kept.is_none() {
            vectors.push_str(&read.head);
        }
        for (lane, (call, value)) in calls.iter_mut().zip(read.values).enumerate() {
            let component = if width > 1 { format!("[{lane}]") } else { String::new() };
            let _ = write!(call, ", {}", kept.as_ref().map_or(value, |name| format!("{name}{component}")));
        }
        let _ = write!(parameters, ", a{k}: f32");
        inputs.push(format!("a{k}"));
    }
    let (program, result) = epilogue.program.wgsl(&inputs);
    let _ = write!(text, "fn epilogue_of(v: f32{parameters}) -> f32 {{\n{program}    return {result};\n}}\n");
    if width == 1 {
        let _ = write!(
            text,
            "fn epilogue(v: f32, i: u32) -> f32 {{\n    return epilogue_of(v{});\n}}\n\
             fn epilogue4(v: vec4<f32>, i: u32) -> vec4<f32> {{\n    return vec4<f32>(\
             epilogue(v.x, i), epilogue(v.y, i + 1u), epilogue(v.z, i + 2u), epilogue(v.w, i + 3u));\n}}\n",
            calls[0]
        );
    } else {
        let calls: Vec<String> =
            calls.iter().zip(["x", "y", "z", "w"]).map(|(c, lane)| format!("epilogue_of(v.{lane}{c})")).collect();
        let _ = write!(
            text,
            "fn epilogue{width}(v: V, i: u32) -> V {{\n{vectors}    return V({});\n}}\n",
            calls.join(", ")
        );
    }
    text
}
