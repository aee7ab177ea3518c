//! Functions of single elements with NumPy broadcasting: one table, one generator.
//!
//! A row of [`TABLE`] (`table.rs`) gives a function's WGSL, definition, gradient and accuracy. `op.rs` makes an operation of a
//! [`Program`](crate::graph::Program) of such functions, which is either a kernel of its own or, once chains are fused,
//! another kernel's epilogue; `methods.rs` has the methods of the graph. A new function is a row and, where it is not called
//! by name, a line in `methods.rs`.

mod families;
mod methods;
mod op;
mod table;

pub use families::{FAMILY, sample_of};
pub use op::{Elementwise, elementary};
pub use table::TABLE;
