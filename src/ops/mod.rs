//! The operations: one file per family, one line each in [`FAMILIES`].

mod elementwise;
mod reduce;
mod reshape;

pub use elementwise::{Elementwise, TABLE, elementary};
pub use reduce::{Reduce, ReduceKind};
pub use reshape::Reshape;

use crate::graph::Family;

/// Every operation family of the crate.
pub static FAMILIES: &[&Family] = &[&elementwise::FAMILY, &reduce::FAMILY, &reshape::FAMILY];
