//! Timestamps of launches, recorded between them or around them.

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
