//! Graph to graph to plan: gradients, simplification, fusion, order, memory. Pure data, no device.

mod fuse;
mod grad;
mod plan;
mod plan_types;
mod schedule;
mod simplify;

pub use fuse::{Fused, fuse};
pub use plan::{PlanError, PlanOptions, plan};
pub use plan_types::*;
pub use simplify::simplify;
