//! A step: its inputs are staged, and its launches submitted.

use super::{EXTERNAL_IN_RUN, STEP_BYTES, Session, check_bytes, external::is_external};
use crate::{
    graph::Step,
    runtime::{Result, RuntimeError},
};
use std::{ops::Range, time::Instant};

impl Session {
    /// Checks a step's feeds and writes them into a staging buffer; returns (input, bytes) of each feed.
    pub(super) fn stage(&mut self, step: &Step, feeds: &[(&str, Vec<&[u8]>)]) -> Result<Vec<(usize, u64)>> {
        self.gpu.failure.check()?;
        self.check_n(step.n)?;
        let words = step.words();
        let mut pieces: Vec<(u64, &[u8])> = vec![(0, bytemuck::cast_slice(&words))];
        let mut fed = Vec::with_capacity(feeds.len());
        for (name, parts) in feeds {
            let (i, port) = Self::port(&self.plan.inputs, "input", name)?;
            if is_external(port) {
                return Err(EXTERNAL_IN_RUN);
            }
            let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
            check_bytes(port, step.n, bytes)?;
            let mut offset = self.staging_offsets[i];
            for part in parts {
                pieces.push((offset, part));
                offset += part.len() as u64;
            }
            fed.push((i, bytes.next_multiple_of(4)));
        }
        self.check_fed(|i| fed.iter().any(|f| f.0 == i))?;
        self.ring.write(&self.gpu, self.timeout, &pieces)?;
        self.changes_stores();
        Ok(fed)
    }

    pub(super) fn check_fed(&self, fed: impl Fn(usize) -> bool) -> Result<()> {
        let inputs = self.plan.inputs.iter().enumerate();
        match inputs.filter(|(_, p)| !is_external(p)).find(|&(i, _)| !fed(i) && !self.held[i]) {
            Some((_, port)) => Err(RuntimeError::MissingInput { name: port.name.clone(), wanted: port.ty.to_string() }),
            None => Ok(()),
        }
    }

    /// Copies the step record and the feeds from the staging buffer to their buffers.
    pub(super) fn copy_feeds(&self, encoder: &mut wgpu::CommandEncoder, fed: &[(usize, u64)]) {
        let staging = self.ring.buffer();
        encoder.copy_buffer_to_buffer(staging, 0, &self.step.raw, 0, STEP_BYTES);
        for &(i, bytes) in fed {
            if let Some((buffer, offset)) = self.resolve(&self.plan.inputs[i].range, &[]).filter(|_| bytes > 0) {
                encoder.copy_buffer_to_buffer(staging, self.staging_offsets[i], buffer, offset, bytes);
            }
        }
    }

    /// Keeps the last submission, and has the staging buffer mapped again after the first of a step.
    pub(super) fn submitted(&mut self, range: &Range<usize>, index: wgpu::SubmissionIndex) -> Result<()> {
        self.last = Some(index.clone());
        if range.start == 0 { self.ring.recycle(&self.gpu, index) } else { Ok(()) }
    }

    /// Submits one step for `step.n` samples; waits only while three earlier steps are still in flight, and in the first steps, see
    /// [`Session::set_dispatches_per_submit`].
    ///
    /// `feeds` gives each input that is not the caller's buffer its row-major elements for `n` samples.
    pub fn run(&mut self, step: &Step, feeds: &[(&str, &[u8])]) -> Result<()> {
        self.run_parts(step, &feeds.iter().map(|&(name, bytes)| (name, vec![bytes])).collect::<Vec<_>>())
    }

    /// Submits one step as [`Session::run`] does, with each input in parts, which are staged one behind the other.
    pub(crate) fn run_parts(&mut self, step: &Step, feeds: &[(&str, Vec<&[u8]>)]) -> Result<()> {
        if self.n_externals() > 0 {
            return Err(EXTERNAL_IN_RUN);
        }
        let fed = self.stage(step, feeds)?;
        let measures = self.submits.measures();
        for i in 0..self.submits.ranges().len() {
            let range = self.submits.ranges()[i].clone();
            let start = Instant::now();
            let index = self.gpu.submit("a step", |encoder| {
                if range.start == 0 {
                    self.copy_feeds(encoder, &fed);
                }
                self.encode(encoder, step.n, range.clone(), None);
            })?;
            self.submitted(&range, index)?;
            if measures {
                self.wait()?;
                self.submits.correct(range, start.elapsed(), self.plan.capacity as f64 / step.n as f64);
            }
        }
        self.submits.end_step();
        self.held.fill(false);
        Ok(())
    }
}
