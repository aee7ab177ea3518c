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
use naga::{Binding, Module, Span};
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
    let text = &dispatch.source;
    if !super::language::identifiers(text).any(|word| ["for", "while", "loop"].contains(&word)) {
        return Ok(0);
    }
    let parsed = naga::front::wgsl::parse_str(&slice::slice(text));
    let Ok(module) = parsed.or_else(|_| naga::front::wgsl::parse_str(text)) else { return Ok(0) };
    let groups = dispatch.grid.at(n, max_groups);
    let mut kernel = Kernel { module: &module, dispatch, n, groups, arithmetic: Default::default() };
    count(&mut kernel, &module).map_err(|span| {
        let line = span.location(text).line_number;
        UnboundedLoop { kernel: dispatch.kernel.clone(), line }
    })
}

fn count<'m>(kernel: &mut Kernel<'m>, module: &'m Module) -> Result<u64, Span> {
    let Some(entry) = module.entry_points.iter().find(|entry| entry.name == "main") else { return Ok(0) };
    let mut size = entry.workgroup_size.map(i128::from);
    let overrides = entry.workgroup_size_overrides.unwrap_or_default();
    for (size, constant) in size.iter_mut().zip(overrides) {
        if let Some(Value::Int(form, _)) = constant.map(|constant| kernel.global(constant)) {
            *size = form.known().unwrap_or(i128::from(u32::MAX));
        }
    }
    let arguments = entry.function.arguments.iter().map(|argument| match argument.binding {
        Some(Binding::BuiltIn(built_in)) => kernel.built_in(built_in, size),
        _ => Value::Unknown,
    });
    let arguments = arguments.collect();
    // Of the last loop it does not matter whether it finds its end.
    Ok(kernel.call(&entry.function, arguments)?.0.saturating_sub(1))
}
