//! How many passes the loops of a kernel take, derived from its WGSL.
//!
//! llvmpipe silently ends all loops of an invocation after 65,535 passes together, so a plan must know how many a launch takes.
//! Nobody states them: the kernel's statements are walked once with what is known before the launch (constants, the batch, the
//! grid, the workgroup's size), everything else being an unknown of a range. Integers are linear forms over unknowns, so that
//! `min(start + size, end) - start` is at most `size` whatever `start` is.
//!
//! Counted is what llvmpipe counts: each pass of a loop, the one that finds its end too; of a branch that other lanes take,
//! one pass of each loop. Both branches of a condition are added up, since lanes may differ. A counter that grows or falls
//! is taken not to wrap round before the loop ends.
//!
//! | file | what it is |
//! |---|---|
//! | `bound.rs` | linear forms over unknowns, and the largest value of one |
//! | `value.rs` | arithmetic of integers and conditions |
//! | `expressions.rs` | expressions of a function, what a launch knows |
//! | `slice.rs` | the part of a text that its loops depend on |
//! | `walk.rs` | statements, and the passes of loops |

mod bound;
mod expressions;
mod slice;
mod value;
mod walk;

use crate::graph::Dispatch;
use expressions::Kernel;
use naga::{Binding, EntryPoint, Module, Span};
use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{LazyLock, Mutex, PoisonError},
};
use value::Value;

/// A kernel with a loop that may have any number of iterations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "kernel {kernel}, line {line}: nothing bounds the iterations of this loop; compare its counter with a known number"
)]
pub struct UnboundedLoop {
    /// The kernel's name.
    pub kernel: String,
    /// The loop's line in the kernel's text, from 1.
    pub line: u32,
}

/// Returns the maximum iterations of all loops of one invocation for a batch of `n`, as llvmpipe counts them, where grids have at
/// most `max_groups` workgroups along an axis. A text that naga refuses has none: the device refuses it too.
pub fn max_iterations(dispatch: &Dispatch, n: usize, max_groups: u32) -> Result<u64, UnboundedLoop> {
    let text: &str = &dispatch.source;
    if !super::language::identifiers(text).any(|word| ["for", "while", "loop"].contains(&word)) {
        return Ok(0);
    }
    let groups = dispatch.grid.at(n, max_groups);
    let key = [0, 1].map(|seed| {
        let mut hasher = DefaultHasher::new();
        (seed, &dispatch.kernel, text, &dispatch.extents, n, groups).hash(&mut hasher);
        dispatch.constants.iter().for_each(|(name, value)| (name, value.to_bits()).hash(&mut hasher));
        hasher.finish()
    });
    let known = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known().get(&key) {
        return found.clone();
    }
    let found = find(dispatch, n, groups);
    known().insert(key, found.clone());
    found
}

/// Returns the invocations of a workgroup; 1 of a text that naga refuses.
pub fn workgroup_size(dispatch: &Dispatch) -> u32 {
    let entry = naga::front::wgsl::parse_str(&slice::entry(&dispatch.source));
    let Ok(module) = entry.or_else(|_| naga::front::wgsl::parse_str(&dispatch.source)) else { return 1 };
    let mut kernel = Kernel { module: &module, dispatch, n: 1, groups: [1; 2], arithmetic: Default::default() };
    let size = module.entry_points.first().map_or([1; 3], |entry| entry_size(&mut kernel, entry));
    size.iter().product::<i128>().clamp(1, i128::from(u32::MAX)) as u32
}

/// What was found, by two hashes of a launch: a plan has many equal ones.
static FOUND: LazyLock<Mutex<HashMap<[u64; 2], Result<u64, UnboundedLoop>>>> = LazyLock::new(Default::default);

/// Returns the module of what the loops of a text depend on, or of all of it, and the text that was parsed.
fn parsed(text: &str) -> Option<(Module, Cow<'_, str>)> {
    [Cow::Owned(slice::slice(text)), Cow::Borrowed(text)]
        .into_iter()
        .find_map(|text: Cow<str>| Some((naga::front::wgsl::parse_str(&text).ok()?, text)))
}

fn find(dispatch: &Dispatch, n: usize, groups: [u32; 2]) -> Result<u64, UnboundedLoop> {
    let Some((module, read)) = parsed(&dispatch.source) else { return Ok(0) };
    let mut kernel = Kernel { module: &module, dispatch, n, groups, arithmetic: Default::default() };
    count(&mut kernel, &module).map_err(|span| {
        let line = span.location(&read).line_number;
        UnboundedLoop { kernel: dispatch.kernel.clone(), line }
    })
}

fn count<'m>(kernel: &mut Kernel<'m>, module: &'m Module) -> Result<u64, Span> {
    let Some(entry) = module.entry_points.iter().find(|entry| entry.name == "main") else { return Ok(0) };
    let size = entry_size(kernel, entry);
    let arguments = entry.function.arguments.iter().map(|argument| match argument.binding {
        Some(Binding::BuiltIn(built_in)) => kernel.built_in(built_in, size),
        _ => Value::Unknown,
    });
    let arguments = arguments.collect();
    // Of the last loop it does not matter whether it finds its end.
    Ok(kernel.call(&entry.function, arguments)?.0.saturating_sub(1))
}

/// Returns the size of a workgroup along each axis.
fn entry_size<'m>(kernel: &mut Kernel<'m>, entry: &'m EntryPoint) -> [i128; 3] {
    let mut size = entry.workgroup_size.map(i128::from);
    let overrides = entry.workgroup_size_overrides.unwrap_or_default();
    for (size, constant) in size.iter_mut().zip(overrides) {
        if let Some(Value::Int(form, _)) = constant.map(|constant| kernel.global(constant)) {
            *size = form.known().unwrap_or(i128::from(u32::MAX));
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::Grid, tensor::Count};

    /// Returns the iterations of a body with `C` = 6 and `SIZE` = 100, for a batch of 10 and 4 workgroups of 8.
    fn of(body: &str) -> Result<u64, u32> {
        let text = format!(
            "struct Step {{ n: u32 }}
            @group(0) @binding(0) var<uniform> step: Step;
            @group(0) @binding(1) var<storage, read_write> y: array<u32>;
            override C: u32;
            override SIZE: u32 = 100u;
            fn parts(n: u32) -> u32 {{ if (n > 50u) {{ return 2u; }} return n; }}
            fn inner(n: u32) {{ for (var k = 0u; k < n; k++) {{ y[k] = n; }} }}
            @compute @workgroup_size(8)
            fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
            let item = (id.x + id.y * counts.x) * 8u + lane;
            let data = y[item];
            {body}
            }}"
        );
        let items = Count { fixed: 2, per_sample: 3 };
        let (grid, constants, slots) = (Grid::new(items, 8), vec![("C", 6.0)], Vec::new());
        let (kernel, source, extents) = ("test".into(), text.into(), Vec::new());
        let dispatch = Dispatch { kernel, source, constants, extents, grid, slots };
        max_iterations(&dispatch, 10, 65_535).map_err(|e| e.line)
    }

    #[test]
    fn loops_are_bounded_by_constants_the_batch_and_differences() {
        let cases = [
            ("for (var i = 0u; i < C; i++) { y[i] = 1u; }", 6),
            ("for (var i = lane; i < step.n * 5u; i += 8u) { y[i] = 1u; }", 7),
            ("let start = item * SIZE; for (var i = start; i < min(start + SIZE, data); i++) { y[i] = 1u; }", 100),
            ("for (var i = i32(SIZE); i > 0; i -= 3) { y[i] = 1u; }", 34),
            ("for (var half = 64u; half > 0u; half /= 2u) { y[half] = 1u; }", 7),
            ("var i = 0u; while (i < SIZE) { y[i] = 1u; i += 2u; }", 50),
            ("var i = 0u; while (i < SIZE && y[i] > 0u) { i += 2u; }", 50),
            ("for (var i = 0u; i < parts(data); i++) { y[i] = 1u; }", 50),
            ("for (var i = item / 4u; i <= (item + 8u) / 4u; i++) { y[i] = 1u; }", 3),
            ("for (var i = 0u; i < select(C, data, data < 9u); i++) { y[i] = 1u; }", 8),
            ("if (data > SIZE) { return; } for (var i = 0u; i < SIZE - data; i++) { y[i] = 1u; }", 100),
            ("var n = C; if (data > 3u) { n = 20u; } for (var i = 0u; i < n; i++) { y[i] = 1u; }", 20),
            ("var i = 0u; loop { y[i] = 1u; i++; continuing { break if i >= C; } }", 6),
        ];
        for (body, iterations) in cases {
            assert_eq!(of(body), Ok(iterations), "{body}");
        }
    }

    #[test]
    fn each_end_of_an_inner_loop_counts_and_both_branches_do() {
        let nest = "for (var i = 0u; i < 5u; i++) { for (var j = 0u; j < 3u; j++) { y[j] = i; } }";
        assert_eq!(of(nest), Ok(5 * (1 + 3 + 1) + 1));
        assert_eq!(of("for (var i = 0u; i < 5u; i++) { inner(3u); }"), Ok(5 * (1 + 3 + 1) + 1));
        let branch = "if (data > 3u) { inner(10u); } else { inner(20u); }";
        assert_eq!(of(branch), Ok(11 + 20));
        assert_eq!(of("if (SIZE > 3u) { inner(10u); } else { inner(20u); }"), Ok(10 + 1));
    }

    #[test]
    fn loops_that_nothing_bounds_are_named_by_their_line() {
        let bodies = [
            "for (var i = 0u; i < data; i++) { y[i] = 1u; }",
            "var i = 0u; while (y[i] > 0u) { i++; }",
            "var j = item; while (j < SIZE) { j = y[j]; }",
            // Where data is larger, the difference wraps round.
            "for (var i = 0u; i < SIZE - data; i++) { y[i] = 1u; }",
            "let rest = SIZE - data; if (data < SIZE) { inner(rest); } inner(rest);",
            "for (var i = 9u; i >= 0u; i--) { y[i] = 1u; }",
            "for (var i = 0u; i < SIZE; i++) { if (data > i) { i -= 1u; } }",
        ];
        for body in bodies {
            assert!(of(body).is_err(), "{body}: {:?}", of(body));
        }
        assert_eq!(of(bodies[0]), Err(12));
        assert_eq!(of("no WGSL: for"), Ok(0));
    }

    #[test]
    fn a_slice_has_what_loops_depend_on() {
        let text = "fn f() {\n    let a = 3u;\n    let b = a + 1u;\n    var s = 0.0;\n    for (var i = 0u; i < b; i++) {\n        s += x[i];\n    }\n}";
        let kept = text.replace("    var s = 0.0;", "").replace("        s += x[i];", "");
        assert_eq!(slice::slice(text), kept);
    }
}
