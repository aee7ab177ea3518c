//! The implicit-GEMM generator: operand loaders × tile core × epilogue.
//!
//! `y[row, column] = Σ a(row, k) · b(column, k)`, where loaders say what `a` and `b` are. The tile cores for processors
//! (`registers`; `direct_rows`, `direct_channels` and `dgrad_strided` for windows, `wgrad` for gradients of weights) keep
//! sums in registers and need neither barriers nor workgroup memory. The one for graphics processors (`shared_memory`)
//! stages both sides in workgroup memory.

mod dgrad_strided;
mod direct_channels;
mod direct_rows;
mod gpu;
mod layout;
mod matrix;
mod part_sums;
mod periodic;
mod product;
mod registers;
mod select;
mod shared_memory;
mod side;
mod tiles;
mod wgrad;
mod window;

pub use matrix::Matrices;
pub use periodic::Periodic;
pub(super) use product::split_sum;
pub use product::{Apart, Cursor, LONG_BATCH, Loop, Operand, Position, Product, count_product, run};
pub use select::{lower, lower_with, window, window_declines};
pub use wgrad::Filter;
pub use window::Window;
