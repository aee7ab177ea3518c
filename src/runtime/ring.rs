use super::{
    Result, RuntimeError,
    gpu::{DeviceBuffer, Gpu},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

const MAPPED: u8 = 0;
const PENDING: u8 = 1;
const FAILED: u8 = 2;

/// Staging buffers for the data of steps, used in rotation so that several steps can be in flight.
pub(super) struct Ring {
    buffers: Vec<Staging>,
    next: usize,
}

struct Staging {
    buffer: DeviceBuffer,
    state: Arc<AtomicU8>,
    submission: Option<wgpu::SubmissionIndex>,
}

impl Ring {
    pub const BUFFERS: usize = 3;

    pub fn new(gpu: &Gpu, bytes: u64) -> Result<Self> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let buffers = (0..Self::BUFFERS)
            .map(|_| {
                let buffer = gpu.buffer("a staging buffer", bytes, usage, true)?;
                Ok(Staging { buffer, state: Arc::new(AtomicU8::new(MAPPED)), submission: None })
            })
            .collect::<Result<_>>()?;
        Ok(Ring { buffers, next: 0 })
    }

    /// Writes `pieces` at their offsets into the next free buffer and unmaps it; blocks only while all are in use.
    pub fn write(&mut self, gpu: &Gpu, timeout: Duration, pieces: &[(u64, &[u8])]) -> Result<()> {
        let staging = &self.buffers[self.next];
        if staging.state.load(Ordering::Acquire) == PENDING {
            let ready = || (staging.state.load(Ordering::Acquire) != PENDING).then_some(());
            gpu.wait("an earlier step", timeout, staging.submission.as_ref(), ready)?;
        }
        if staging.state.load(Ordering::Acquire) == FAILED {
            return Err(gpu.lost("a staging buffer could not be mapped"));
        }
        let refused = |e: wgpu::MapRangeError| gpu.cause(RuntimeError::Validation { message: e.to_string() });
        let mut view = staging.buffer.raw.get_mapped_range_mut(..).map_err(refused)?;
        for &(offset, bytes) in pieces {
            view.slice(offset as usize..offset as usize + bytes.len()).copy_from_slice(bytes);
        }
        drop(view);
        gpu.scoped("a staging buffer", 0, || staging.buffer.raw.unmap())
    }

    /// Returns the buffer last written, from which a submission can copy.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffers[self.next].buffer.raw
    }

    /// Requests that the buffer last written be mapped again once the submission that copies from it is done.
    pub fn recycle(&mut self, gpu: &Gpu, submission: wgpu::SubmissionIndex) -> Result<()> {
        let staging = &mut self.buffers[self.next];
        staging.submission = Some(submission);
        staging.state.store(PENDING, Ordering::Release);
        let state = staging.state.clone();
        let mapped = gpu.scoped("a staging buffer", 0, || {
            staging.buffer.raw.map_async(wgpu::MapMode::Write, .., move |result| {
                state.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
            });
        });
        let failed = staging.state.load(Ordering::Acquire) == FAILED;
        self.next = (self.next + 1) % self.buffers.len();
        mapped.and_then(|()| if failed { Err(gpu.lost("a staging buffer could not be mapped")) } else { Ok(()) })
    }
}
