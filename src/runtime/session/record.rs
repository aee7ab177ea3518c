//! Steps inside the caller's command encoder, on the caller's buffers.

use super::{
    STEP_BYTES, Session,
    external::{External, ExternalSet},
};
use crate::{
    graph::Step,
    passes::BufferRef,
    runtime::{Result, RuntimeError, gpu::DeviceBuffer},
};
use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The number of sets of the caller's buffers whose bind groups are kept.
const EXTERNAL_SETS: usize = 8;

impl Session {
    pub(super) fn make_records(&mut self) -> Result<()> {
        if self.records.is_none() {
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let records: Vec<u32> = (1..=self.plan.capacity).flat_map(|n| Step::of(n).words()).collect();
            let bytes: &[u8] = bytemuck::cast_slice(&records);
            let buffer = self.gpu.buffer("the step records", bytes.len() as u64, usage, true)?;
            let refused = |e: wgpu::MapRangeError| self.gpu.cause(RuntimeError::Validation { message: e.to_string() });
            buffer.raw.get_mapped_range_mut(..).map_err(refused)?.copy_from_slice(bytes);
            self.gpu.scoped("the step records", 0, || buffer.raw.unmap())?;
            self.records = Some(buffer);
        }
        Ok(())
    }

    /// Does in advance what would delay the first [`Session::record`] or [`Session::run`], and waits for it: drivers
    /// that compile kernels at their first launch, as lavapipe does, compile them here.
    ///
    /// Every kernel is launched with zero workgroups, so no tensor changes. Bind groups for the caller's buffers are
    /// created when these are first passed to `record`.
    pub fn prepare(&mut self) -> Result<()> {
        if self.n_externals() > 0 {
            self.make_records()?;
        }
        let mut sizes = vec![4; self.n_externals()];
        for port in self.plan.inputs.iter().chain(&self.plan.outputs) {
            if let BufferRef::External(i) = port.range.buffer {
                sizes[i] = port.range.offset + port.range.bytes;
            }
        }
        let usage = wgpu::BufferUsages::STORAGE;
        let stand_ins: Vec<DeviceBuffer> = (sizes.iter())
            .map(|&bytes| self.gpu.buffer("a stand-in for the caller's buffer", bytes, usage, false))
            .collect::<Result<_>>()?;
        let buffers: Vec<_> = stand_ins.iter().map(|b| (b.raw.clone(), 0)).collect();
        let touching = self.bind(&buffers, true)?;
        let index = self.gpu.submit("the first launch of each kernel", |encoder| {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for ((pipeline, own), of_caller) in self.pipelines.iter().zip(&self.groups).zip(&touching) {
                pass.set_pipeline(&pipeline.raw);
                pass.set_bind_group(0, own.as_ref().or(of_caller.as_ref()), &[]);
                pass.dispatch_workgroups(0, 0, 0);
            }
        })?;
        self.gpu.wait_done("the first launch of each kernel", self.timeout, &index)
    }

    /// Records the plan for `n` samples into the caller's encoder.
    ///
    /// `externals` are the caller's buffers, the plan's external inputs first, then its external outputs; each needs
    /// usage `STORAGE` and room for the plan's capacity. Nothing crosses the host, and nothing is created on the device
    /// for buffers passed before (the last 8 sets are kept).
    ///
    /// An error names a buffer that was destroyed or belongs to another device. wgpu does not tell which device an
    /// encoder belongs to: an encoder of another device ends in wgpu's own error when it is finished.
    pub fn record(&mut self, encoder: &mut wgpu::CommandEncoder, n: usize, externals: &[External<'_>]) -> Result<()> {
        self.record_range(encoder, n, externals, 0..self.plan.dispatches.len())
    }

    /// Records a range of the plan's launches, so that an application can spread a step over frames.
    pub fn record_range(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        n: usize,
        externals: &[External<'_>],
        range: Range<usize>,
    ) -> Result<()> {
        self.gpu.failure.check()?;
        self.check_n(n)?;
        let total = self.plan.dispatches.len();
        if range.end > total || range.start > range.end {
            return Err(RuntimeError::Mismatch {
                name: "range".into(),
                wanted: format!("a range within 0..{total}"),
                got: format!("{range:?}"),
            });
        }
        self.check_fed(|_| false)?;
        self.make_records()?;
        // wgpu panics on an object of another instance, because it finds none, or the wrong one, with that id.
        catch_unwind(AssertUnwindSafe(|| {
            let set = self.external_set(externals)?;
            if let Some(records) = &self.records {
                let from = (n as u64 - 1) * STEP_BYTES;
                encoder.copy_buffer_to_buffer(&records.raw, from, &self.step.raw, 0, STEP_BYTES);
            }
            self.encode(encoder, n, range, set.map(|i| &self.external_sets[i]));
            self.changes_stores();
            Ok(())
        }))
        .unwrap_or_else(|_| Err(foreign("an encoder or a buffer of another instance of wgpu".into())))
    }

    /// Returns the kept bind groups of these buffers.
    fn external_set(&mut self, externals: &[External<'_>]) -> Result<Option<usize>> {
        let wanted = self.n_externals();
        if externals.len() != wanted {
            let wanted = format!("{wanted} buffers");
            let got = format!("{} buffers", externals.len());
            return Err(RuntimeError::Mismatch { name: "externals".into(), wanted, got });
        }
        if wanted == 0 {
            return Ok(None);
        }
        for port in self.plan.inputs.iter().chain(&self.plan.outputs) {
            let BufferRef::External(i) = port.range.buffer else { continue };
            if is_destroyed(externals[i].buffer) {
                self.gpu.check_alive()?;
                let (wanted, got) = ("a buffer".into(), "one that was destroyed".into());
                return Err(RuntimeError::Mismatch { name: port.name.clone(), wanted, got });
            }
        }
        let same = |set: &ExternalSet| {
            set.buffers.iter().zip(externals).all(|((buffer, offset), e)| buffer == e.buffer && *offset == e.offset)
        };
        if let Some(i) = self.external_sets.iter().position(same) {
            return Ok(Some(i));
        }
        let align = u64::from(self.gpu.limits.min_storage_buffer_offset_alignment);
        for port in self.plan.inputs.iter().chain(&self.plan.outputs) {
            let BufferRef::External(i) = port.range.buffer else { continue };
            let (e, bytes) = (&externals[i], port.range.offset + port.range.bytes);
            let (size, usage) = (e.buffer.size(), e.buffer.usage());
            let mismatch =
                |wanted: String, got: String| RuntimeError::Mismatch { name: port.name.clone(), wanted, got };
            if !usage.contains(wgpu::BufferUsages::STORAGE) {
                return Err(mismatch("a buffer with usage STORAGE".into(), format!("{usage:?}")));
            }
            if e.offset % align != 0 {
                return Err(mismatch(format!("an offset that is a multiple of {align}"), e.offset.to_string()));
            }
            if e.offset.checked_add(bytes).is_none_or(|end| end > size) {
                let wanted = format!("{bytes} bytes from offset {} for {} samples", e.offset, self.plan.capacity);
                return Err(mismatch(wanted, format!("a buffer of {size} bytes")));
            }
        }
        let buffers: Vec<_> = externals.iter().map(|e| (e.buffer.clone(), e.offset)).collect();
        let groups = self.bind(&buffers, true).map_err(|error| match error {
            RuntimeError::Validation { message } => foreign(message),
            error => error,
        })?;
        if self.external_sets.len() == EXTERNAL_SETS {
            self.external_sets.remove(0);
        }
        self.external_sets.push(ExternalSet { buffers, groups });
        Ok(Some(self.external_sets.len() - 1))
    }
}

fn foreign(got: String) -> RuntimeError {
    let wanted = "an encoder and buffers of the engine's own device".into();
    RuntimeError::Mismatch { name: "externals".into(), wanted, got }
}

/// Returns whether an unmapped buffer was destroyed, which only the text of an error shows.
fn is_destroyed(buffer: &wgpu::Buffer) -> bool {
    buffer.get_mapped_range(..).is_err_and(|error| error.to_string().contains("destroyed"))
}
