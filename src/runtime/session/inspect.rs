//! For tests and tuners: the time of each launch, and the contents of memory.

use super::{EXTERNAL_IN_RUN, Session, queries::Queries};
use crate::{
    graph::Step,
    runtime::{
        Result, RuntimeError,
        profile::{Clock, HostSpan, Profile, Timing},
    },
};
use std::{ops::Range, time::Instant};

/// What the host did since a step began.
struct Host {
    start: Instant,
    spans: Vec<HostSpan>,
}

impl Host {
    fn new() -> Self {
        Host { start: Instant::now(), spans: Vec::new() }
    }

    fn ms(&self) -> f64 {
        self.start.elapsed().as_secs_f64() * 1e3
    }

    /// Adds what the host has done since `start_ms`.
    fn did(&mut self, name: &'static str, start_ms: f64) {
        self.spans.push(HostSpan { name, start_ms, ms: self.ms() - start_ms });
    }
}

impl Session {
    /// Runs one step and returns the time of each launch on the device, blocking.
    ///
    /// The launches are timed by timestamps inside one pass where the device has them, else with a pass or a submit for each launch, as
    /// [`Profile::clock`] says. Steps that are not profiled pay nothing.
    pub fn profile(&mut self, step: &Step, feeds: &[(&str, &[u8])]) -> Result<Profile> {
        self.profile_parts(None, step, &feeds.iter().map(|&(name, bytes)| (name, vec![bytes])).collect::<Vec<_>>())
    }

    /// Runs one step and returns the time of each launch by this clock, which is an error where the device does not have it.
    pub fn profile_by(&mut self, clock: Clock, step: &Step, feeds: &[(&str, &[u8])]) -> Result<Profile> {
        self.profile_parts(
            Some(clock),
            step,
            &feeds.iter().map(|&(name, bytes)| (name, vec![bytes])).collect::<Vec<_>>(),
        )
    }

    /// Returns the best clock that the device has.
    fn clock(&self) -> Clock {
        let features = self.gpu.device.features();
        match features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            true if features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) => Clock::Launches,
            true => Clock::Passes,
            false => Clock::Host,
        }
    }

    /// Profiles as [`Session::profile_by`] does, with each input in parts, by the best clock if none is given.
    pub(crate) fn profile_parts(
        &mut self,
        clock: Option<Clock>,
        step: &Step,
        feeds: &[(&str, Vec<&[u8]>)],
    ) -> Result<Profile> {
        let clock = clock.unwrap_or_else(|| self.clock());
        let needed = match clock {
            Clock::Launches => wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES,
            Clock::Passes => wgpu::Features::TIMESTAMP_QUERY,
            Clock::Host => wgpu::Features::empty(),
        };
        if !self.gpu.device.features().contains(needed) {
            return Err(RuntimeError::Unsupported {
                what: "timing launches by this clock",
                advice: "the device was made without these timestamps; use Session::profile, which takes the best clock that it has",
            });
        }
        if self.n_externals() > 0 {
            return Err(EXTERNAL_IN_RUN);
        }
        let mut host = Host::new();
        let fed = self.stage(step, feeds)?;
        host.did("write inputs", 0.0);
        let begun = host.ms();
        let times = match clock {
            Clock::Host => self.times_by_host(step, &fed, &mut host)?,
            _ => self.times_by_timestamps(clock, step, &fed, &mut host)?,
        };
        let wall_ms = host.spans.last().map_or(0.0, |span| span.start_ms + span.ms) - begun;
        self.held.fill(false);
        let share = |samples: &Range<usize>| {
            let of = |n: usize| n.min(samples.end).saturating_sub(samples.start) as f64;
            of(step.n) / of(self.plan.capacity).max(1.0)
        };
        let launches = (self.plan.dispatches.iter().zip(times))
            .map(|(d, [start_ms, ms])| Timing {
                node: d.node.clone(),
                kernel: d.kernel.clone(),
                variant: d.variant.clone(),
                start_ms,
                ms,
                flops: d.flops as f64 * share(&d.samples),
                bytes: d.bytes_moved as f64 * share(&d.samples),
            })
            .collect();
        Ok(Profile { clock, launches, host: host.spans, wall_ms, limits: None })
    }

    /// Returns start and duration of each launch of a step, in milliseconds, by the device's timestamps.
    fn times_by_timestamps(
        &mut self,
        clock: Clock,
        step: &Step,
        fed: &[(usize, u64)],
        host: &mut Host,
    ) -> Result<Vec<[f64; 2]>> {
        let same = |q: &Queries| q.clock == clock && q.ranges == self.submits.ranges();
        let queries = match self.queries.take().filter(same) {
            Some(queries) => queries,
            None => Queries::new(&self.gpu, clock, self.submits.ranges())?,
        };
        for (range, offset) in &queries.submits {
            let start = host.ms();
            let index = self.gpu.submit("a profiled step", |encoder| {
                if range.start == 0 {
                    self.copy_feeds(encoder, fed);
                }
                self.encode_timed(encoder, step.n, range.clone(), &queries, *offset);
            })?;
            self.submitted(range, index)?;
            host.did("submit", start);
        }
        let start = host.ms();
        self.wait()?;
        host.did("wait", start);
        let bytes = (0, queries.resolved.raw.size());
        let bytes = self.readback.read(&self.gpu, &queries.resolved.raw, bytes, "timestamps", self.timeout)?;
        let all = bytemuck::pod_collect_to_vec::<u8, u64>(&bytes);
        let period = f64::from(self.gpu.queue.get_timestamp_period());
        let mut times: Vec<[u64; 2]> = Vec::with_capacity(self.plan.dispatches.len());
        for (range, offset) in &queries.submits {
            let from = (*offset / 8) as usize;
            times.extend(queries.times(&all[from..from + Queries::n(clock, range.len()) as usize]));
        }
        self.queries = Some(queries);
        let first = times.first().map_or(0, |t| t[0]);
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 * period / 1e6;
        Ok(times.iter().map(|&[start, end]| [ms(first, start), ms(start, end)]).collect())
    }

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

    /// Returns start and duration of each launch of a step, in milliseconds, each submitted and waited for alone.
    fn times_by_host(&mut self, step: &Step, fed: &[(usize, u64)], host: &mut Host) -> Result<Vec<[f64; 2]>> {
        let index = self.gpu.submit("a profiled step", |encoder| self.copy_feeds(encoder, fed))?;
        self.submitted(&(0..0), index)?;
        self.wait()?;
        let (mut times, first) = (Vec::with_capacity(self.plan.dispatches.len()), host.ms());
        for i in 0..self.plan.dispatches.len() {
            let start = host.ms();
            let index = self.gpu.submit("a profiled launch", |encoder| self.encode(encoder, step.n, i..i + 1, None))?;
            self.last = Some(index);
            self.wait()?;
            times.push([start - first, host.ms() - start]);
        }
        host.did("launch and wait", first);
        Ok(times)
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
