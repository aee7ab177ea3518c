//! A number for what a plan does, over its data alone: names of nodes, operations, kernels and variants do not count.

use super::plan_types::{BufferRange, BufferRef, Plan};

/// Returns the plan's hash: FNV-1a of sizes, ports, kernels, constants, grids and bindings.
pub(super) fn hash(plan: &Plan) -> u64 {
    let mut h = Fnv(0xcbf2_9ce4_8422_2325);
    h.number(plan.capacity as u64);
    h.number(plan.arenas.len() as u64);
    plan.arenas.iter().for_each(|&bytes| h.number(bytes));
    for ports in [&plan.inputs, &plan.outputs] {
        h.number(ports.len() as u64);
        for port in ports {
            h.text(&port.name);
            h.text(&port.ty.to_string());
            h.place(&port.place);
        }
    }
    for d in &plan.dispatches {
        h.text(&d.source);
        h.number(d.constants.len() as u64);
        for (name, value) in &d.constants {
            h.text(name);
            h.number(value.to_bits());
        }
        h.number(d.grid.items.fixed);
        h.number(d.grid.items.per_sample);
        h.number(u64::from(d.grid.per_group));
        // Without an end there is one launch for any batch.
        [d.samples.start, d.samples.end].iter().for_each(|&n| h.number(u64::try_from(n).unwrap_or(u64::MAX)));
        h.number(d.bindings.len() as u64);
        for b in &d.bindings {
            h.number(b.access as u64);
            h.place(&b.place);
        }
    }
    h.0
}

struct Fnv(u64);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    }

    fn number(&mut self, n: u64) {
        self.bytes(&n.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    fn place(&mut self, place: &BufferRange) {
        let buffer = match place.buffer {
            BufferRef::Arena(i) => [0, i, 0],
            BufferRef::Store { store, chunk } => [1, store, chunk],
            BufferRef::External(i) => [2, i, 0],
            BufferRef::ChunkIndices => [3, 0, 0],
        };
        buffer.iter().for_each(|&n| self.number(n as u64));
        self.number(place.offset);
        self.number(place.bytes);
    }
}
