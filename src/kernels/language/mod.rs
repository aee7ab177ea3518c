//! The language in which kernels are written: typed expressions and statements, printed as WGSL.
//!
//! What comes in: extents, schedules and the epilogue, as numbers and data. What goes out: a [`Kernel`] as data, and the
//! [`Dispatch`](crate::graph::Dispatch) that launches it, with slots and bindings from its declarations.
//!
//! | file | what it is |
//! |---|---|
//! | `expr.rs` | typed expressions, folded where they are known |
//! | `kernel.rs` | buffers, functions, statements |
//! | `divisor.rs` | division by an extent |
//! | `print.rs` | WGSL |
//! | `link.rs` | shared declarations, linked by name |
//! | `broadcast.rs` | index arithmetic of broadcasting |
//! | `epilogue.rs` | the elementwise program that is applied on store |
//!
//! Invariants:
//! - Rust loops unroll, [`Kernel::for_`] does not.
//! - A name is declared once in its block; values that nothing reads are not printed.
//! - Only `print.rs` and `expr.rs` write WGSL.
//!
//! Start with [`Kernel`] and its example, then `gemm/registers.rs`.

mod broadcast;
mod divisor;
mod epilogue;
mod expr;
mod kernel;
mod link;
mod print;

pub use broadcast::Neighbours;
pub use divisor::Divisor;
pub use epilogue::{Finish, Loaded, Stored, apply};
pub use expr::{Expr, Scalar, Type};
pub use kernel::{Buffer, Extent, Kernel, Layout, count, loop_end, never_constant, scalar};
pub(super) use link::declarations;
pub use link::{declared, identifiers, link};
