//! The hash of a plan, over its data only: names of nodes, operations, kernels and variants do not count.

use super::plan_types::{BufferRange, BufferRef, Plan};
use crate::tensor::Fnv;

/// Returns the plan's hash: FNV-1a of sizes, ports, kernels, constants, grids and bindings.
pub(super) fn hash(plan: &Plan) -> u64 {
    let mut h = Fnv::default();
    h.number(plan.capacity as u64);
    h.number(plan.arenas.len() as u64);
    plan.arenas.iter().for_each(|&bytes| h.number(bytes));
    for ports in [&plan.inputs, &plan.outputs] {
        h.number(ports.len() as u64);
        for port in ports {
            h.text(&port.name);
            h.text(&port.ty.to_string());
            add_range(&mut h, &port.range);
        }
    }
    for d in &plan.dispatches {
        h.text(&d.source);
        h.number(d.constants.len() as u64);
        for (name, value) in &d.constants {
            h.text(name);
            h.number(value.to_bits());
        }
        h.number(d.extents.len() as u64);
        d.extents.iter().for_each(|&(_, value)| h.number(u64::from(value)));
        h.number(d.grid.items.fixed);
        h.number(d.grid.items.per_sample);
        h.number(u64::from(d.grid.per_group));
        // An unbounded end means one launch for any batch.
        [d.samples.start, d.samples.end].iter().for_each(|&n| h.number(u64::try_from(n).unwrap_or(u64::MAX)));
        h.number(d.bindings.len() as u64);
        for b in &d.bindings {
            h.number(b.access as u64);
            add_range(&mut h, &b.range);
        }
    }
    h.0
}

fn add_range(h: &mut Fnv, range: &BufferRange) {
    let buffer = match range.buffer {
        BufferRef::Arena(i) => [0, i, 0],
        BufferRef::Store { store, chunk } => [1, store, chunk],
        BufferRef::External(i) => [2, i, 0],
        BufferRef::Extents => [3, 0, 0],
    };
    buffer.iter().for_each(|&n| h.number(n as u64));
    h.number(range.offset);
    h.number(range.bytes);
}

impl Plan {
    /// Returns for each launch whether its kernel needs no checks.
    pub fn trusted(&self) -> Vec<bool> {
        match hash(self) == self.trust.hash {
            true => self.trust.own.clone(),
            false => vec![false; self.dispatches.len()],
        }
    }
}
