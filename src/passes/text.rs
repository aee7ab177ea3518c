//! Plans as text: a line for each input, output and launch.

use super::plan_types::{BufferRange, BufferRef, Plan, PlannedDispatch};
use crate::kernels::Access;
use std::{collections::HashSet, fmt};

impl fmt::Display for BufferRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.buffer {
            BufferRef::Arena(i) => write!(f, "arena{i}")?,
            BufferRef::Store { store, chunk } => write!(f, "store{store}.{chunk}")?,
            BufferRef::External(i) => write!(f, "external{i}")?,
            BufferRef::Extents => write!(f, "extents")?,
        }
        write!(f, "[{}..{}]", self.offset, self.offset + self.bytes)
    }
}

/// Writes a launch with its workgroups for the largest batch; ranges that it writes are marked `*`.
fn launch(f: &mut fmt::Formatter<'_>, d: &PlannedDispatch, capacity: usize) -> fmt::Result {
    let [groups, _] = d.grid.at(d.samples.len().min(capacity), u32::MAX);
    write!(f, "{} = {} [{}] {groups} workgroups", d.node, d.op, d.variant)?;
    for b in &d.bindings {
        write!(f, " {}{}", if b.access == Access::ReadWrite { "*" } else { "" }, b.range)?;
    }
    writeln!(f)
}

impl Plan {
    /// Returns the number of distinct pipelines: kernels that differ in their text or constants.
    pub fn n_pipelines(&self) -> usize {
        self.dispatches.iter().map(PlannedDispatch::pipeline_key).collect::<HashSet<_>>().len()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let activations: u64 = self.arenas.iter().sum();
        let (n, peak) = (self.dispatches.len(), self.peak_bytes);
        writeln!(
            f,
            "plan for up to {} samples: {n} dispatches of {} pipelines, {peak} bytes ({activations} activations, {} kept)",
            self.capacity,
            self.n_pipelines(),
            peak.saturating_sub(activations)
        )?;
        for (kind, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for port in ports {
                writeln!(f, "{kind} {}: {} at {}", port.name, port.ty, port.range)?;
            }
        }
        for (i, dispatch) in self.dispatches.iter().enumerate() {
            write!(f, "{i:3} ")?;
            launch(f, dispatch, self.capacity)?;
        }
        Ok(())
    }
}
