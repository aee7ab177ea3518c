use super::{
    Result, RuntimeError,
    gpu::{DeviceBuffer, Gpu, Signal, now, signal},
};
use crate::{graph::TensorType, tensor::HostTensor};
use std::{sync::Arc, time::Duration};

/// Larger reads go through a buffer of this many bytes piece by piece.
pub(super) const PIECE_BYTES: u64 = 16 << 20;

/// A staging buffer for reads, kept from one read to the next.
#[derive(Default)]
pub(super) struct Readback {
    buffer: Option<DeviceBuffer>,
}

/// A copy to a [`Readback`] in progress.
pub(super) struct Pending {
    receiver: Signal,
    index: wgpu::SubmissionIndex,
}

impl Readback {
    /// Allocates room for reads of this many bytes.
    pub fn reserve(&mut self, gpu: &Gpu, bytes: u64) -> Result<()> {
        let bytes = bytes.next_multiple_of(4).clamp(256, PIECE_BYTES);
        if self.buffer.as_ref().is_none_or(|b| b.raw.size() < bytes) {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            self.buffer = Some(gpu.buffer("a readback buffer", bytes, usage, false)?);
        }
        Ok(())
    }

    fn buffer(&self) -> Result<&wgpu::Buffer> {
        let missing = || RuntimeError::Validation { message: "a readback buffer is missing".into() };
        self.buffer.as_ref().map(|b| &b.raw).ok_or_else(missing)
    }

    /// Starts a copy of at most [`PIECE_BYTES`]. With `aside`, a thread waits for it, for at most that long.
    pub fn begin(
        &mut self,
        gpu: &Arc<Gpu>,
        source: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
        aside: Option<(&str, Duration)>,
    ) -> Result<Pending> {
        let bytes = bytes.next_multiple_of(4);
        self.reserve(gpu, bytes)?;
        let buffer = self.buffer()?;
        let index =
            gpu.submit("a readback", |encoder| encoder.copy_buffer_to_buffer(source, offset, buffer, 0, bytes))?;
        let (sender, receiver) = signal();
        let done = sender.clone();
        let lost = || RuntimeError::DeviceLost { reason: "a buffer could not be mapped for reading".into() };
        gpu.scoped("a readback", 0, || {
            buffer.map_async(wgpu::MapMode::Read, .., move |result| {
                let _ = done.send(result.err().map(|_| lost()));
            });
        })?;
        if let Some((label, timeout)) = aside {
            gpu.wait_aside(label, index.clone(), timeout, sender);
        }
        Ok(Pending { receiver, index })
    }

    /// Appends the bytes of a finished copy.
    pub fn finish(&mut self, gpu: &Gpu, result: Option<RuntimeError>, bytes: u64, out: &mut Vec<u8>) -> Result<()> {
        let failed = |readback: &mut Self, error: RuntimeError| {
            // Its mapping may still be pending, so the next read creates a new buffer.
            readback.buffer = None;
            Err(match error {
                RuntimeError::DeviceLost { reason } => gpu.lost(&reason),
                error => gpu.cause(error),
            })
        };
        if let Some(error) = result {
            return failed(self, error);
        }
        let buffer = self.buffer()?;
        match buffer.get_mapped_range(..bytes.next_multiple_of(4)) {
            Ok(view) => out.extend_from_slice(&view[..bytes as usize]),
            Err(error) => return failed(self, RuntimeError::Validation { message: error.to_string() }),
        }
        gpu.scoped("a readback", 0, || buffer.unmap())
    }

    /// Returns bytes of a buffer, blocking.
    pub fn read(
        &mut self,
        gpu: &Arc<Gpu>,
        source: &wgpu::Buffer,
        range: (u64, u64),
        label: &str,
        timeout: Duration,
    ) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(range.1 as usize);
        for (offset, bytes) in pieces(range) {
            let pending = self.begin(gpu, source, offset, bytes, None)?;
            let result = match pending.wait(gpu, label, timeout) {
                Ok(result) => result,
                Err(error) => Some(error),
            };
            self.finish(gpu, result, bytes, &mut out)?;
        }
        Ok(out)
    }

    /// Async form of [`Readback::read`].
    pub async fn read_async(
        &mut self,
        gpu: &Arc<Gpu>,
        source: &wgpu::Buffer,
        range: (u64, u64),
        label: &str,
        timeout: Duration,
    ) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(range.1 as usize);
        for (offset, bytes) in pieces(range) {
            let pending = self.begin(gpu, source, offset, bytes, Some((label, timeout)))?;
            let result = pending.receiver.receive().await.flatten();
            self.finish(gpu, result, bytes, &mut out)?;
        }
        Ok(out)
    }
}

impl Pending {
    /// Returns the outcome of the copy if it is done, without blocking.
    pub fn poll(&self, gpu: &Gpu) -> Option<Option<RuntimeError>> {
        if let Err(error) = gpu.poll_once() {
            return Some(Some(error));
        }
        now(self.receiver.receive()).flatten()
    }

    /// Returns the outcome of the copy, blocking.
    pub fn wait(&self, gpu: &Gpu, label: &str, timeout: Duration) -> Result<Option<RuntimeError>> {
        gpu.wait(label, timeout, Some(&self.index), || now(self.receiver.receive()).flatten())
    }
}

fn pieces((offset, bytes): (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
    (0..bytes.div_ceil(PIECE_BYTES))
        .map(move |i| (offset + i * PIECE_BYTES, (bytes - i * PIECE_BYTES).min(PIECE_BYTES)))
}

/// Returns the bytes of a batch of `n`, not rounded up.
pub(super) fn exact_bytes(ty: &TensorType, n: usize) -> u64 {
    ty.shape.elements().at(n) * ty.dtype.bytes() as u64
}

/// Returns a host tensor from its type and bytes.
pub(super) fn tensor(name: &str, ty: &TensorType, n: usize, bytes: &[u8]) -> Result<HostTensor> {
    HostTensor::from_bytes(ty.shape.at(n), ty.dtype, bytes).map_err(|e| RuntimeError::Mismatch {
        name: name.into(),
        wanted: ty.to_string(),
        got: e.to_string(),
    })
}
