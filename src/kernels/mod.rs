//! Kernel sources: the common header, epilogues, index arithmetic and reflection.

pub mod gemm;
mod index;
mod reflect;

pub use index::{broadcast_index, load, storage_type};
pub use reflect::{Access, BindingInfo, ReflectError, reflect};

use crate::graph::{Dispatch, Epilogue, Grid, Slot};
use std::{fmt::Write as _, sync::Arc};

/// The WGSL that stands in front of every kernel.
pub const COMMON: &str = include_str!("../../shaders/common.wgsl");

/// The epilogue of a kernel that has none: it stores what was computed.
pub const NO_EPILOGUE: &str = "
fn epilogue(v: f32, i: u32) -> f32 { return v; }
fn epilogue4(v: vec4<f32>, i: u32) -> vec4<f32> { return v; }
";

/// Returns a kernel written over `alias V = f32;` with V as vectors of 4 where `width` is 4.
///
/// The text says `const WIDTH = 1u;` and stores through `epilogue(value, i * WIDTH)`; where it declares `largest`
/// and `total` of a V, these become the maximum and the sum of the four.
pub fn widen(source: &str, width: usize) -> String {
    if width != 4 {
        return source.to_owned();
    }
    source
        .replace("alias V = f32;", "alias V = vec4<f32>;")
        .replace("const WIDTH = 1u;", "const WIDTH = 4u;")
        .replace("epilogue(", "epilogue4(")
        .replace(
            "largest(v: V) -> f32 { return v; }",
            "largest(v: V) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }",
        )
        .replace("total(v: V) -> f32 { return v; }", "total(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }")
}

/// Returns a launch of a kernel from its file or generator.
///
/// `body` is WGSL that declares bindings 1, 2, … in the order of `slots`. It may call
/// `epilogue(value, flat_index)` or `epilogue4` on what it stores in output 0; the epilogue's own inputs
/// are bound behind `slots`.
pub fn dispatch(
    kernel: impl Into<String>,
    body: &str,
    constants: &[(&'static str, f64)],
    grid: Grid,
    mut slots: Vec<Slot>,
    epilogue: Option<&Epilogue>,
) -> Dispatch {
    let mut source = String::with_capacity(COMMON.len() + body.len() + 512);
    source.push_str(COMMON);
    match epilogue {
        None => source.push_str(NO_EPILOGUE),
        Some(epilogue) => {
            source.push_str(&epilogue_wgsl(epilogue, slots.len() + 1));
            slots.extend((0..epilogue.extras.len()).map(|k| Slot::input(epilogue.first_input + k)));
        }
    }
    source.push_str(body);
    Dispatch { kernel: kernel.into(), source: Arc::from(source), constants: constants.to_vec(), grid, slots }
}

fn epilogue_wgsl(epilogue: &Epilogue, first_binding: usize) -> String {
    let mut text = String::new();
    let mut inputs = vec!["v".to_owned()];
    for (k, extra) in epilogue.extras.iter().enumerate() {
        let element = index::storage_type(extra.dtype);
        let _ =
            writeln!(text, "@group(0) @binding({}) var<storage, read> extra{k}: array<{element}>;", first_binding + k);
        inputs.push(load(&format!("extra{k}"), extra.dtype, &broadcast_index(&epilogue.shape, &extra.shape, "i")));
    }
    let (body, result) = epilogue.program.wgsl(&inputs);
    let _ = write!(
        text,
        "fn epilogue(v: f32, i: u32) -> f32 {{\n{body}    return {result};\n}}\n\
         fn epilogue4(v: vec4<f32>, i: u32) -> vec4<f32> {{\n    \
         return vec4<f32>(epilogue(v.x, i), epilogue(v.y, i + 1u), epilogue(v.z, i + 2u), epilogue(v.w, i + 3u));\n}}\n"
    );
    text
}
