//! Timestamps of launches, recorded between them or around them.

use super::Session;
use crate::runtime::{
    Result,
    gpu::{DeviceBuffer, Gpu},
    profile::Clock,
};
use std::ops::Range;

/// Queries for the timestamps of the launches of a step, which one submit after the other uses.
pub(super) struct Queries {
    pub clock: Clock,
    pub set: wgpu::QuerySet,
    pub resolved: DeviceBuffer,
    /// The launches of each submit of a step that is not timed.
    pub ranges: Vec<Range<usize>>,
    /// The launches of each submit, and where in the buffer its timestamps are.
    pub submits: Vec<(Range<usize>, u64)>,
}

impl Queries {
    /// Returns the queries of so many launches of a submit.
    pub fn n(clock: Clock, launches: usize) -> u32 {
        if clock == Clock::Launches { launches as u32 + 1 } else { 2 * launches as u32 }
    }

    /// Returns queries for submits of these launches.
    pub fn new(gpu: &Gpu, clock: Clock, ranges: &[Range<usize>]) -> Result<Self> {
        const MAX_LAUNCHES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2 - 1;
        let mut submits = Vec::new();
        let (mut end, mut count) = (0, 2);
        for range in ranges {
            // A step without launches is a submit too.
            for start in (range.start..range.end.max(range.start + 1)).step_by(MAX_LAUNCHES) {
                let part = start..(start + MAX_LAUNCHES).min(range.end);
                let n = Self::n(clock, part.len());
                submits.push((part, end));
                end += (u64::from(n) * 8).next_multiple_of(wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT);
                count = count.max(n);
            }
        }
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = gpu.buffer("timestamps", end, usage, false)?;
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count };
        let set = gpu.scoped("timestamps", 0, || gpu.device.create_query_set(&descriptor))?;
        Ok(Queries { clock, set, resolved, ranges: ranges.to_vec(), submits })
    }

    /// Returns when each launch of a submit began and ended, in ticks.
    pub fn times(&self, ticks: &[u64]) -> Vec<[u64; 2]> {
        match self.clock {
            Clock::Launches => ticks.windows(2).map(|t| [t[0], t[1]]).collect(),
            _ => ticks.chunks_exact(2).map(|t| [t[0], t[1]]).collect(),
        }
    }
}

impl Session {
    /// Records launches of a submit, whose timestamps go to the queries from 0 on.
    pub(super) fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        n: usize,
        range: Range<usize>,
        queries: &Queries,
        offset: u64,
    ) {
        let set = &queries.set;
        match queries.clock {
            Clock::Launches => {
                let descriptor = wgpu::ComputePassDescriptor { label: Some("hubel"), timestamp_writes: None };
                let mut pass = encoder.begin_compute_pass(&descriptor);
                pass.write_timestamp(set, 0);
                self.encode_launches(&mut pass, n, range.clone(), None, |pass, i| {
                    pass.write_timestamp(set, (i - range.start) as u32 + 1);
                });
            }
            _ => range.clone().for_each(|i| {
                let first = 2 * (i - range.start) as u32;
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(&self.plan.dispatches[i].node),
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: set,
                        beginning_of_pass_write_index: Some(first),
                        end_of_pass_write_index: Some(first + 1),
                    }),
                });
                self.encode_launches(&mut pass, n, i..i + 1, None, |_, _| {});
            }),
        }
        let count = Queries::n(queries.clock, range.len());
        if count > 0 {
            encoder.resolve_query_set(set, 0..count, &queries.resolved.raw, offset);
        }
    }
}
