//! For tests and tuners: the time of each launch, and the contents of memory.

use super::{EXTERNAL_IN_RUN, Session, queries::Queries};
use crate::{
    graph::Step,
    runtime::{Result, RuntimeError},
};

/// The time of one launch on the device.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Timing {
    /// The node.
    pub node: String,
    /// Its kernel.
    pub kernel: String,
    /// Milliseconds.
    pub ms: f64,
}

impl Session {
    /// Runs one step with each launch in a separate pass and returns their times on the device, blocking.
    pub fn profile(&mut self, step: &Step, feeds: &[(&str, &[u8])]) -> Result<Vec<Timing>> {
        if !self.gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(RuntimeError::Unsupported {
                what: "timing of single launches",
                advice: "the adapter has no timestamps; time whole steps with wait",
            });
        }
        if self.n_externals() > 0 {
            return Err(EXTERNAL_IN_RUN);
        }
        let total = self.plan.dispatches.len();
        let per_set = (wgpu::QUERY_SET_MAX_QUERIES / 2) as usize;
        if self.queries.is_none() {
            let count = 2 * total.clamp(1, per_set) as u32;
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = self.gpu.buffer("timestamps", u64::from(count) * 8, usage, false)?;
            let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count };
            let set = self.gpu.scoped("timestamps", 0, || self.gpu.device.create_query_set(&descriptor))?;
            self.queries = Some(Queries { set, resolved });
        }
        let fed = self.stage(step, feeds)?;
        let period = f64::from(self.gpu.queue.get_timestamp_period());
        let mut ticks: Vec<u64> = Vec::with_capacity(2 * total);
        for from in (0..total.max(1)).step_by(per_set) {
            let to = (from + per_set).min(total);
            let Some(queries) = &self.queries else { break };
            let index = self.gpu.submit("a profiled step", |encoder| {
                if from == 0 {
                    self.copy_feeds(encoder, &fed);
                }
                for i in from..to {
                    let first = 2 * (i - from) as u32;
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: Some(&self.plan.dispatches[i].node),
                        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                            query_set: &queries.set,
                            beginning_of_pass_write_index: Some(first),
                            end_of_pass_write_index: Some(first + 1),
                        }),
                    });
                    pass.set_pipeline(&self.pipelines[i].raw);
                    self.dispatch(&mut pass, step.n, i, None);
                }
                if to > from {
                    encoder.resolve_query_set(&queries.set, 0..2 * (to - from) as u32, &queries.resolved.raw, 0);
                }
            })?;
            self.last = Some(index.clone());
            if from == 0 {
                self.ring.recycle(&self.gpu, index)?;
            }
            let range = (0, 16 * (to - from) as u64);
            let bytes = self.readback.read(&self.gpu, &queries.resolved.raw, range, "timestamps", self.timeout)?;
            ticks.extend(bytemuck::pod_collect_to_vec::<u8, u64>(&bytes));
        }
        self.held.fill(false);
        let times = ticks.chunks_exact(2).map(|t| t[1].saturating_sub(t[0]) as f64 * period / 1e6);
        Ok((self.plan.dispatches.iter().zip(times))
            .map(|(d, ms)| Timing { node: d.node.clone(), kernel: d.kernel.clone(), ms })
            .collect())
    }

    /// Fills all arenas with a 32-bit word, with which tests set guards around tensors.
    pub fn fill_arenas(&mut self, word: u32) -> Result<()> {
        for arena in &self.arenas {
            let words = vec![word; arena.raw.size() as usize / 4];
            self.gpu.upload(&arena.raw, 0, bytemuck::cast_slice(&words))?;
        }
        Ok(())
    }

    /// Returns the words of an arena of the plan, blocking.
    pub fn arena_words(&mut self, i: usize) -> Result<Vec<u32>> {
        self.gpu.failure.check()?;
        let (Some(arena), Some(&bytes)) = (self.arenas.get(i), self.plan.arenas.get(i)) else {
            let known = format!("{} arenas", self.arenas.len());
            return Err(RuntimeError::UnknownName { kind: "arena", name: i.to_string(), known });
        };
        let bytes = self.readback.read(&self.gpu, &arena.raw, (0, bytes), "an arena", self.timeout)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}
