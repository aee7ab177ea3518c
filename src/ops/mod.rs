//! The operations: one file per family, one line each in [`FAMILIES`].

mod accumulate;
mod accuracy;
mod elementwise;
mod gather;
mod optimizer;
mod reduce;
mod reshape;
mod transpose;

pub use accumulate::Accumulate;
pub use accuracy::CategoricalAccuracy;
pub use elementwise::{Elementwise, TABLE};
pub use gather::{Gather, GatherGrad};
pub use optimizer::Optimizer;
pub use reduce::{Reduce, ReduceKind};
pub use reshape::Reshape;
pub use transpose::Transpose;

use crate::graph::Family;

/// Every operation family of the crate.
pub static FAMILIES: &[&Family] = &[
    &accumulate::FAMILY,
    &accuracy::FAMILY,
    &elementwise::FAMILY,
    &gather::FAMILY,
    &optimizer::ADAM,
    &optimizer::SGD,
    &reduce::FAMILY,
    &reshape::FAMILY,
    &transpose::FAMILY,
];
