//! The implicit-GEMM generator: operand loaders × tile core × epilogue.
//!
//! `y[row, column] = Σ a(row, k) · b(column, k)`, where loaders say what `a` and `b` are. The tile cores for processors
//! (`tile`; `row`, `strip` and `spread` for windows, `filter` for gradients of weights) keep sums in registers and need
//! neither barriers nor workgroup memory. The one for graphics processors (`shared`) stages both sides in workgroup
//! memory.

mod filter;
mod product;
mod row;
mod select;
mod shared;
mod spread;
mod strip;
mod tile;
mod window;

pub use filter::Filter;
pub(super) use product::{Finish, LOAD, MADD, STORE, split_sum};
pub use product::{LONG_BATCH, Loop, Operand, Place, Product, count_product, declare, loop_end, read, wgsl_count};
pub use select::{lower, lower_with, window};
pub use window::Window;
