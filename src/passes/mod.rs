//! Graph to graph to plan: gradients, simplification, fusion, order, memory. Pure data, no device.

mod fuse;
mod grad;
mod plan;
mod plan_types;
mod schedule;
mod simplify;
mod split;

pub use fuse::{Fused, fuse};
pub use plan::{PlanError, PlanOptions, plan};
pub use plan_types::{ALIGN_BYTES, Binding, BufferRef, Entry, Layout, Place, Plan, PlannedDispatch, Port};
pub use simplify::simplify;
pub use split::{Parts, split_rows};

use crate::graph::{DeviceProfile, Graph};

/// Returns the graph as it is planned: simplified, then fused for an adapter.
pub fn optimize(graph: &Graph, profile: &DeviceProfile) -> Graph {
    // What the first round takes away lets the second see further.
    fuse(&simplify(&simplify(graph)), profile)
}
