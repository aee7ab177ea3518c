//! WGSL of a kernel: indented, with the names of its source, without values that nothing reads.

use super::{
    expr::{Expr, Type},
    kernel::{Binding, Function, Kernel, Layout, Stmt, extents},
};
use crate::tensor::DType;
use std::{
    collections::HashSet,
    fmt::{self, Write},
};

const ENTRY: &str = "fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, \
     @builtin(local_invocation_index) lane: u32)";

impl Kernel {
    /// Returns the WGSL without the shared declarations.
    pub fn wgsl(&self) -> String {
        let mut text = self.declarations();
        text += &format!("@compute @workgroup_size({})\n{ENTRY} {{\n", self.lanes);
        // Writing to a string cannot fail.
        let _ = body(&mut text, &self.body);
        text + "}\n"
    }

    /// Returns the WGSL of buffers and functions alone.
    pub(in crate::kernels) fn declarations(&self) -> String {
        let mut text = String::new();
        let _ = declare(&mut text, self);
        text
    }
}

fn declare(t: &mut String, k: &Kernel) -> fmt::Result {
    for (name, ty, _) in &k.constants {
        writeln!(t, "override {name}: {ty};")?;
    }
    for (i, binding) in k.bindings.iter().enumerate() {
        self::binding(t, k.first + i, binding)?;
    }
    for (name, ty, elements) in &k.shared {
        writeln!(t, "var<workgroup> {name}: array<{ty}, {elements}>;")?;
    }
    let extents = k.extents();
    if !extents.is_empty() {
        t.push_str("struct Extents {\n");
        extents.iter().try_for_each(|(name, _)| writeln!(t, "  {name}: u32,"))?;
        let number = k.first + k.bindings.len();
        writeln!(t, "}}\n@group(0) @binding({number}) var<uniform> extents: Extents;")?;
    }
    for f in called(k) {
        let parameters: Vec<String> = f.parameters.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
        writeln!(t, "fn {}({}) -> {} {{", f.name, parameters.join(", "), f.result)?;
        body(t, &f.body)?;
        t.push_str("}\n");
    }
    Ok(())
}

/// Returns the functions that are called, of a kernel from a file all.
fn called(k: &Kernel) -> Vec<&Function> {
    let mut names = HashSet::new();
    mark(&k.body, &mut names);
    let mut called: Vec<&Function> = Vec::new();
    for f in k.functions.iter().rev() {
        if k.body.is_empty() || names.contains(&f.name) {
            mark(&f.body, &mut names);
            called.push(f);
        }
    }
    called.reverse();
    called
}

fn binding(t: &mut String, number: usize, Binding { buffer, written, .. }: &Binding) -> fmt::Result {
    let space = if *written { "storage, read_write" } else { "storage, read" };
    let name = buffer.name();
    let declare =
        |t: &mut String, space: &str, ty: &str| writeln!(t, "@group(0) @binding({number}) var<{space}> {name}: {ty};");
    match buffer.layout() {
        Layout::Scalars(dtype) => declare(t, space, &format!("array<{}>", storage_type(dtype))),
        Layout::Vectors { width: 2, words: true } | Layout::Pairs => declare(t, space, "array<u64>"),
        Layout::Vectors { width: 4, words: true } => declare(t, space, "array<vec2<u64>>"),
        Layout::Vectors { width, .. } => declare(t, space, &format!("array<{}>", Type::F32.vector(width))),
        Layout::Uniform(elements) => {
            declare(t, "uniform", &format!("array<vec4<f32>, {}>", elements.div_ceil(4)))?;
            writeln!(t, "fn {name}_at(i: u32) -> f32 {{\n  return {name}[i >> 2u][i & 3u];\n}}")
        }
    }
}

/// Writes the body of a function: first the extents that it reads, by name.
fn body(t: &mut String, body: &[Stmt]) -> fmt::Result {
    let mut all = Vec::new();
    extents(body, &mut all);
    let read = read(body);
    for (name, _) in all.iter().filter(|(name, _)| read.contains(*name)) {
        writeln!(t, "  let {name} = extents.{name};")?;
    }
    block(t, body, 1)
}

fn block(t: &mut String, body: &[Stmt], level: usize) -> fmt::Result {
    let read = read(body);
    let indent = "  ".repeat(level);
    for stmt in body {
        match stmt {
            Stmt::Let(name, _) if !read.contains(name) => {}
            Stmt::Let(name, value) => writeln!(t, "{indent}let {name} = {value};")?,
            Stmt::Var(name, ty, None) => writeln!(t, "{indent}var {name}: {ty};")?,
            Stmt::Var(name, _, Some(value)) => writeln!(t, "{indent}var {name} = {value};")?,
            Stmt::Assign(target, operator, value) => writeln!(t, "{indent}{target} {operator} {value};")?,
            Stmt::Return(None) => writeln!(t, "{indent}return;")?,
            Stmt::Return(Some(value)) => writeln!(t, "{indent}return {value};")?,
            Stmt::Barrier => writeln!(t, "{indent}workgroupBarrier();")?,
            Stmt::If(condition, body) => {
                if let [Stmt::Return(None)] = body[..] {
                    writeln!(t, "{indent}if ({condition}) {{ return; }}")?;
                    continue;
                }
                writeln!(t, "{indent}if ({condition}) {{")?;
                block(t, body, level + 1)?;
                writeln!(t, "{indent}}}")?;
            }
            Stmt::For(variable, [first, end, step], body) => {
                let step = match step.known() {
                    Some(1) => format!("{variable}++"),
                    _ => format!("{variable} += {step}"),
                };
                writeln!(t, "{indent}for (var {variable} = {first}; {variable} < {end}; {step}) {{")?;
                block(t, body, level + 1)?;
                writeln!(t, "{indent}}}")?;
            }
        }
    }
    Ok(())
}

/// Returns the names that a block reads: not those of values that only unread values read.
fn read(body: &[Stmt]) -> HashSet<String> {
    let mut names = HashSet::new();
    mark(body, &mut names);
    names
}

fn mark(body: &[Stmt], names: &mut HashSet<String>) {
    let note = |e: &Expr, names: &mut HashSet<String>| {
        e.names(&mut |name| {
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        });
    };
    for stmt in body.iter().rev() {
        match stmt {
            Stmt::Let(name, value) if names.contains(name) => note(value, names),
            Stmt::Let(..) | Stmt::Barrier | Stmt::Return(None) | Stmt::Var(_, _, None) => {}
            Stmt::Var(_, _, Some(value)) | Stmt::Return(Some(value)) => note(value, names),
            Stmt::Assign(target, _, value) => {
                note(target, names);
                note(value, names);
            }
            Stmt::If(condition, body) => {
                mark(body, names);
                note(condition, names);
            }
            Stmt::For(_, range, body) => {
                mark(body, names);
                range.iter().for_each(|e| note(e, names));
            }
        }
    }
}

/// Returns the WGSL element type under which a tensor is bound.
fn storage_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I32 => "i32",
        DType::U8 | DType::U32 | DType::F16 | DType::BF16 => "u32",
    }
}
