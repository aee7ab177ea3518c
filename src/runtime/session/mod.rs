//! A plan bound to memory and pipelines. `run.rs` stages inputs and submits a step, cut by `submits.rs`; `record.rs` records one into
//! the caller's encoder with the buffers of `external.rs`; `inspect.rs` times launches and reads memory for tests and tuners.

mod arena;
mod extents;
mod external;
mod inspect;
mod queries;
mod record;
mod run;
mod submits;

pub use arena::Arena;
pub use external::External;

use external::{ExternalSet, is_external, n_externals, touches_external};
use queries::Queries;
use submits::Submits;

use super::{
    Engine, Result, RuntimeError, Store,
    gpu::{DeviceBuffer, Gpu, signal},
    pipeline::{Pipeline, check_bindings},
    readback::{self, Pending, Readback},
    ring::Ring,
};
use crate::{
    graph::{ALIGN_BYTES, DeviceClass},
    kernels::Access,
    passes::{Binding, BufferRange, BufferRef, Plan, PlannedDispatch, Port},
    tensor::HostTensor,
};
use std::{
    collections::HashMap,
    mem,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

const STEP_BYTES: u64 = 96;

/// A plan with its memory, pipelines and bind groups: runs steps.
///
/// Everything on the device is created with the session; a step creates nothing.
pub struct Session {
    engine: Engine,
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    stores: Vec<Store>,
    /// The stores that a step writes.
    changed: Vec<usize>,
    arenas: Vec<Arc<DeviceBuffer>>,
    pipelines: Vec<Arc<Pipeline>>,
    /// One per dispatch, `None` if it binds a buffer of the caller.
    groups: Vec<Option<wgpu::BindGroup>>,
    external_sets: Vec<ExternalSet>,
    step: DeviceBuffer,
    /// The extents of launches.
    extents: DeviceBuffer,
    records: Option<DeviceBuffer>,
    ring: Ring,
    staging_offsets: Vec<u64>,
    held: Vec<bool>,
    readback: Readback,
    progress: HashMap<usize, Progress>,
    queries: Option<Queries>,
    last: Option<wgpu::SubmissionIndex>,
    timeout: Duration,
    submits: Submits,
}

#[derive(Default)]
struct Progress {
    readback: Readback,
    pending: Option<(Pending, usize)>,
}

impl Engine {
    /// Returns a session that runs a plan, with its pipelines built and its memory allocated.
    ///
    /// `stores` are the plan's stores, by number. Sessions that share an arena overwrite each other's activations: read
    /// the outputs of one before the other runs.
    pub fn session(&self, plan: Arc<Plan>, stores: &[Store], arena: Option<&Arena>) -> Result<Session> {
        self.session_with_progress(plan, stores, arena, &|_, _| {})
    }

    /// Returns a session as [`Engine::session`] does, and calls `on_pipeline(done, total)` as its pipelines are
    /// built, from the threads that build them.
    pub fn session_with_progress(
        &self,
        plan: Arc<Plan>,
        stores: &[Store],
        arena: Option<&Arena>,
        on_pipeline: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Session> {
        Session::new(self, plan, stores, arena, on_pipeline)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} dispatches on {:?})", self.plan.dispatches.len(), self.engine)
    }
}

/// Returns the offset of each input in the staging buffer, after the step record, and the buffer's size.
fn staging_layout(plan: &Plan) -> (Vec<u64>, u64) {
    let mut bytes = ALIGN_BYTES;
    let offset = |port: &Port| {
        let at = bytes;
        if !is_external(port) {
            bytes += port.ty.bytes(plan.capacity).next_multiple_of(ALIGN_BYTES);
        }
        at
    };
    let offsets = plan.inputs.iter().map(offset).collect();
    (offsets, bytes)
}

/// Returns the stores that a step writes, each once.
fn written_stores(plan: &Plan) -> Vec<usize> {
    let written = plan.dispatches.iter().flat_map(|d| &d.bindings).filter(|b| b.access == Access::ReadWrite);
    let store = |b: &Binding| if let BufferRef::Store { store, .. } = b.range.buffer { Some(store) } else { None };
    let mut stores: Vec<usize> = written.filter_map(store).collect();
    stores.sort_unstable();
    stores.dedup();
    stores
}

impl Session {
    pub(super) fn new(
        engine: &Engine,
        plan: Arc<Plan>,
        stores: &[Store],
        arena: Option<&Arena>,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self> {
        let start = Instant::now();
        let gpu = engine.gpu().cloned().ok_or(RuntimeError::Unsupported {
            what: "a session on the reference engine",
            advice: "evaluate the graph, or create an engine on an adapter",
        })?;
        gpu.failure.check()?;
        check_plan(engine, &gpu, &plan, stores)?;

        let (staging_offsets, staging_bytes) = staging_layout(&plan);
        let names = |ports: &[Port]| ports.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
        gpu.check_size(|| format!("a step's inputs ({})", names(&plan.inputs)), staging_bytes)?;
        let arenas = arena.cloned().unwrap_or_default().take(&gpu, &plan.arenas, &plan.dispatches)?;
        let ring = Ring::new(&gpu, staging_bytes)?;
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let step = gpu.buffer("the step record", ALIGN_BYTES, uniform, false)?;
        let extents = extents::upload(&gpu, &plan)?;
        let mut readback = Readback::default();
        let output = plan.outputs.iter().filter(|p| !is_external(p)).map(|p| p.ty.bytes(plan.capacity)).max();
        readback.reserve(&gpu, output.unwrap_or(0))?;

        let launch = engine.profile().class == DeviceClass::Cpu;
        let pipelines = engine.pipelines().get(&gpu, &plan, launch, progress)?;
        for (dispatch, pipeline) in plan.dispatches.iter().zip(&pipelines) {
            check_bindings(dispatch, pipeline)?;
        }
        let n_inputs = plan.inputs.len();
        let submits = Submits::new(plan.estimate_on(engine.profile()));
        let mut session = Session {
            changed: written_stores(&plan),
            engine: engine.clone(),
            timeout: gpu.timeout,
            gpu,
            plan,
            stores: stores.to_vec(),
            arenas,
            pipelines,
            groups: Vec::new(),
            external_sets: Vec::new(),
            step,
            extents,
            records: None,
            ring,
            staging_offsets,
            held: vec![false; n_inputs],
            readback,
            progress: HashMap::new(),
            queries: None,
            last: None,
            submits,
        };
        session.groups = session.bind(&[], false)?;
        session.check_ports()?;
        if session.n_externals() > 0 {
            session.make_records()?;
        } else {
            session.try_encode()?;
        }
        session.gpu.failure.check()?;
        log::debug!(
            "session of {} dispatches, capacity {}, arenas {:?} bytes, ready in {:.1?}",
            session.plan.dispatches.len(),
            session.plan.capacity,
            session.plan.arenas,
            start.elapsed()
        );
        Ok(session)
    }

    /// Records the plan once and drops the recording, so that anything the device would refuse is refused here.
    fn try_encode(&self) -> Result<()> {
        self.gpu.scoped("the plan", 0, || {
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            self.encode(&mut encoder, self.plan.capacity, 0..self.plan.dispatches.len(), None);
            encoder.finish();
        })
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Waits at most this long for the device; see [`super::EngineBuilder::timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Cuts a step into submits of at most this many launches.
    ///
    /// Without it a step is cut where its launches are estimated to take 100 ms together, as systems reset a device that works on one
    /// submit too long, Windows after 2 s. The first two steps of a session whose step is not short wait for each of their submits and
    /// correct the estimates by the times that these took.
    pub fn set_dispatches_per_submit(&mut self, n: usize) {
        self.submits.set_max_launches(n);
    }

    fn n_externals(&self) -> usize {
        n_externals(&self.plan)
    }

    /// Drops the host's copies of tensors in the stores that a step is about to write.
    fn changes_stores(&self) {
        self.changed.iter().for_each(|&i| self.stores[i].changes());
    }

    fn resolve<'a>(
        &'a self,
        range: &BufferRange,
        externals: &'a [(wgpu::Buffer, u64)],
    ) -> Option<(&'a wgpu::Buffer, u64)> {
        match range.buffer {
            BufferRef::Arena(i) => self.arenas.get(i).map(|b| (&b.raw, range.offset)),
            BufferRef::Store { store, chunk } => self.stores.get(store)?.chunk(chunk).map(|b| (b, range.offset)),
            BufferRef::External(i) => externals.get(i).map(|(b, offset)| (b, offset + range.offset)),
            BufferRef::Extents => Some((&self.extents.raw, range.offset)),
        }
    }

    /// Creates the bind groups of the dispatches that bind buffers of the caller, or of those that do not.
    fn bind(&self, externals: &[(wgpu::Buffer, u64)], touching: bool) -> Result<Vec<Option<wgpu::BindGroup>>> {
        let mut groups = Vec::with_capacity(self.plan.dispatches.len());
        for (dispatch, pipeline) in self.plan.dispatches.iter().zip(&self.pipelines) {
            if touches_external(dispatch) != touching {
                groups.push(None);
                continue;
            }
            let error = |message: String| plan_error(dispatch, message);
            let mut bound: Vec<(&wgpu::Buffer, Access, std::ops::Range<u64>)> = Vec::new();
            let step =
                wgpu::BufferBinding { buffer: &self.step.raw, offset: 0, size: wgpu::BufferSize::new(STEP_BYTES) };
            let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(step) }];
            for (i, binding) in dispatch.bindings.iter().enumerate() {
                let (buffer, offset) = (self.resolve(&binding.range, externals))
                    .ok_or_else(|| error(format!("binding {} is not in a buffer of the session", i + 1)))?;
                let (end, size) = (offset.saturating_add(binding.range.bytes), buffer.size());
                if end > size {
                    return Err(error(format!("binding {} ends at byte {end} of a buffer of {size}", i + 1)));
                }
                let clashes = |(b, access, range): &(&wgpu::Buffer, Access, std::ops::Range<u64>)| {
                    let overlap = range.start < end && offset < range.end;
                    let writes = [*access, binding.access].map(|a| a == Access::ReadWrite);
                    *b == buffer && (writes[0] != writes[1] || (writes[0] && overlap))
                };
                if bound.iter().any(clashes) {
                    return Err(error(format!("binding {} writes a buffer that another binding binds too", i + 1)));
                }
                bound.push((buffer, binding.access, offset..end));
                let size = wgpu::BufferSize::new(binding.range.bytes);
                let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size });
                entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
            }
            let descriptor =
                wgpu::BindGroupDescriptor { label: Some(&dispatch.node), layout: &pipeline.layout, entries: &entries };
            let what = format!("the bindings of `{}`", dispatch.node);
            groups.push(Some(self.gpu.scoped(&what, 0, || self.gpu.device.create_bind_group(&descriptor))?));
        }
        Ok(groups)
    }

    /// Checks that inputs and outputs are inside their buffers.
    fn check_ports(&self) -> Result<()> {
        for port in self.plan.inputs.iter().chain(&self.plan.outputs).filter(|p| !is_external(p)) {
            let bytes = port.ty.bytes(self.plan.capacity).max(port.range.bytes);
            let size = self.resolve(&port.range, &[]).map(|(buffer, _)| buffer.size());
            let end = port.range.offset.saturating_add(bytes);
            if size.is_none_or(|size| end > size) || port.range.offset % 4 != 0 {
                return Err(RuntimeError::Plan {
                    node: port.name.clone(),
                    kernel: "an input or output".into(),
                    message: format!(
                        "it needs bytes {}..{end} of a buffer of {}",
                        port.range.offset,
                        size.unwrap_or(0)
                    ),
                });
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        n: usize,
        range: Range<usize>,
        externals: Option<&ExternalSet>,
    ) {
        if range.is_empty() {
            return;
        }
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("hubel"), timestamp_writes: None });
        self.encode_launches(&mut pass, n, range, externals, |_, _| {});
    }

    /// Records launches into a pass, with `after` behind each.
    fn encode_launches<'p>(
        &self,
        pass: &mut wgpu::ComputePass<'p>,
        n: usize,
        range: Range<usize>,
        externals: Option<&ExternalSet>,
        mut after: impl FnMut(&mut wgpu::ComputePass<'p>, usize),
    ) {
        let mut current: Option<&Arc<Pipeline>> = None;
        for i in range {
            if current.is_none_or(|p| !Arc::ptr_eq(p, &self.pipelines[i])) {
                pass.set_pipeline(&self.pipelines[i].raw);
                current = Some(&self.pipelines[i]);
            }
            self.dispatch(pass, n, i, externals);
            after(pass, i);
        }
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, n: usize, i: usize, externals: Option<&ExternalSet>) {
        let group = self.groups[i].as_ref().or_else(|| externals.and_then(|e| e.groups[i].as_ref()));
        pass.set_bind_group(0, group, &[]);
        let Range { start, end } = self.plan.dispatches[i].samples;
        let n = n.min(end).saturating_sub(start);
        if n == 0 {
            return;
        }
        let [x, y] = self.plan.dispatches[i].grid.at(n, self.gpu.limits.max_compute_workgroups_per_dimension);
        pass.dispatch_workgroups(x, y, 1);
    }

    fn check_n(&self, n: usize) -> Result<()> {
        let capacity = self.plan.capacity;
        if n == 0 || n > capacity { Err(RuntimeError::Capacity { n, capacity }) } else { Ok(()) }
    }

    fn port<'a>(ports: &'a [Port], kind: &'static str, name: &str) -> Result<(usize, &'a Port)> {
        ports.iter().enumerate().find(|(_, p)| p.name == name).ok_or_else(|| RuntimeError::UnknownName {
            kind,
            name: name.into(),
            known: ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Uploads an input's bytes for the next run, which then need not feed it.
    pub fn write_input(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (i, port) = Self::port(&self.plan.inputs, "input", name)?;
        let max = readback::exact_bytes(&port.ty, self.plan.capacity);
        if bytes.len() as u64 > max {
            let wanted = format!("at most {max} bytes, {} for {} samples", port.ty, self.plan.capacity);
            return Err(RuntimeError::Mismatch { name: name.into(), wanted, got: format!("{} bytes", bytes.len()) });
        }
        let (buffer, offset) = self.resolve(&port.range, &[]).ok_or(EXTERNAL_IN_RUN)?;
        self.gpu.upload(buffer, offset, bytes)?;
        self.held[i] = true;
        Ok(())
    }

    /// Returns the range of an output, with its bytes for `n` samples.
    fn output(&self, name: &str, n: usize) -> Result<(usize, wgpu::Buffer, (u64, u64))> {
        self.gpu.failure.check()?;
        self.check_n(n)?;
        let (i, port) = Self::port(&self.plan.outputs, "output", name)?;
        let (buffer, offset) = self.resolve(&port.range, &[]).ok_or(RuntimeError::Unsupported {
            what: "reading an output in the caller's buffer",
            advice: "read the buffer that was given to record",
        })?;
        Ok((i, buffer.clone(), (offset, readback::exact_bytes(&port.ty, n))))
    }

    /// Returns an output for `n` samples, blocking until all submitted steps are done.
    pub fn read(&mut self, output: &str, n: usize) -> Result<HostTensor> {
        let (i, buffer, range) = self.output(output, n)?;
        let bytes = self.readback.read(&self.gpu, &buffer, range, output, self.timeout)?;
        readback::tensor(output, &self.plan.outputs[i].ty, n, &bytes)
    }

    /// Async form of [`Session::read`].
    pub async fn read_async(&mut self, output: &str, n: usize) -> Result<HostTensor> {
        let (i, buffer, range) = self.output(output, n)?;
        // Taken out, so that a future dropped halfway leaves no buffer that is being mapped.
        let mut own = mem::take(&mut self.readback);
        let bytes = own.read_async(&self.gpu, &buffer, range, output, self.timeout).await?;
        self.readback = own;
        readback::tensor(output, &self.plan.outputs[i].ty, n, &bytes)
    }

    /// Starts reading a small output (at most 16 MiB) without waiting; false while [`Session::try_read`] has not
    /// returned the previous read of it.
    pub fn begin_read(&mut self, output: &str, n: usize) -> Result<bool> {
        let (i, buffer, (offset, bytes)) = self.output(output, n)?;
        if bytes > readback::PIECE_BYTES {
            let what = format!("the output `{output}`");
            return Err(RuntimeError::TooLarge { what, bytes, limit: readback::PIECE_BYTES, which: "progress read" });
        }
        let max = readback::exact_bytes(&self.plan.outputs[i].ty, self.plan.capacity).min(readback::PIECE_BYTES);
        let progress = self.progress.entry(i).or_default();
        if progress.pending.is_some() {
            return Ok(false);
        }
        progress.readback.reserve(&self.gpu, max)?;
        let pending = progress.readback.begin(&self.gpu, &buffer, offset, bytes, None)?;
        progress.pending = Some((pending, n));
        Ok(true)
    }

    /// Returns the output that [`Session::begin_read`] started to read, or `None` while that is in progress or if
    /// nothing was started.
    pub fn try_read(&mut self, output: &str) -> Result<Option<HostTensor>> {
        let (i, port) = Self::port(&self.plan.outputs, "output", output)?;
        let Some(progress) = self.progress.get_mut(&i) else { return Ok(None) };
        let Some((pending, n)) = &progress.pending else { return Ok(None) };
        let Some(result) = pending.poll(&self.gpu) else { return Ok(None) };
        let n = *n;
        progress.pending = None;
        let mut out = Vec::new();
        progress.readback.finish(&self.gpu, result, readback::exact_bytes(&port.ty, n), &mut out)?;
        readback::tensor(output, &port.ty, n, &out).map(Some)
    }

    /// Waits until all submitted steps are done.
    pub fn wait(&mut self) -> Result<()> {
        let Some(index) = self.last.clone() else { return self.gpu.check_alive() };
        self.gpu.wait_done("the submitted steps", self.timeout, &index)
    }

    /// Async form of [`Session::wait`].
    pub async fn wait_async(&mut self) -> Result<()> {
        let Some(index) = self.last.clone() else { return self.gpu.check_alive() };
        let (sender, receiver) = signal();
        let done = sender.clone();
        self.gpu.queue.on_submitted_work_done(move || {
            let _ = done.send(None);
        });
        self.gpu.wait_aside("the submitted steps", index, self.timeout, sender);
        receiver.receive().await.flatten().map_or_else(|| self.gpu.check_alive(), Err)
    }
}

const EXTERNAL_IN_RUN: RuntimeError = RuntimeError::Unsupported {
    what: "this call on a plan with inputs or outputs in the caller's buffers",
    advice: "use Session::record",
};

fn plan_error(dispatch: &PlannedDispatch, message: String) -> RuntimeError {
    RuntimeError::Plan { node: dispatch.node.clone(), kernel: dispatch.kernel.clone(), message }
}

fn check_bytes(port: &Port, n: usize, bytes: u64) -> Result<()> {
    let wanted = readback::exact_bytes(&port.ty, n);
    if bytes == wanted {
        return Ok(());
    }
    let wanted = format!("{wanted} bytes, {} for {n} samples", port.ty);
    Err(RuntimeError::Mismatch { name: port.name.clone(), wanted, got: format!("{bytes} bytes") })
}

/// Checks everything about a plan that needs no pipeline, before anything is created.
fn check_plan(engine: &Engine, gpu: &Gpu, plan: &Plan, stores: &[Store]) -> Result<()> {
    let at = |i: usize| format!("the plan's store {i}");
    if let Some((i, _)) = stores.iter().enumerate().find(|(_, s)| !s.engine().is_same(engine)) {
        return Err(RuntimeError::Mismatch {
            name: at(i),
            wanted: format!("a store of {engine:?}"),
            got: format!("one of another engine, {:?}", stores[i].engine()),
        });
    }
    let limits = &gpu.limits;
    let storage = (limits.max_storage_buffer_binding_size, u64::from(limits.min_storage_buffer_offset_alignment));
    let uniform = (limits.max_uniform_buffer_binding_size, u64::from(limits.min_uniform_buffer_offset_alignment));
    for dispatch in &plan.dispatches {
        let max = gpu.limits.max_storage_buffers_per_shader_stage as usize;
        let n_storage = dispatch.bindings.iter().filter(|b| b.access != Access::Uniform).count();
        if n_storage > max {
            let message = format!("{n_storage} storage buffers, but the adapter binds at most {max}");
            return Err(plan_error(dispatch, message));
        }
        for (i, binding) in dispatch.bindings.iter().enumerate() {
            let BufferRange { buffer, offset, bytes } = binding.range;
            let (limit, align) = if binding.access == Access::Uniform { uniform } else { storage };
            if bytes > limit {
                let what = format!("binding {} of `{}` ({})", i + 1, dispatch.node, dispatch.kernel);
                return Err(RuntimeError::TooLarge { what, bytes, limit, which: "largest binding" });
            }
            if offset % align != 0 || bytes % 4 != 0 || bytes == 0 {
                let message = format!("binding {} has offset {offset} and {bytes} bytes", i + 1);
                return Err(plan_error(dispatch, message));
            }
            if let BufferRef::Store { store, chunk } = buffer
                && stores.get(store).and_then(|s| s.chunk(chunk)).is_none()
            {
                return Err(plan_error(dispatch, format!("{} has no chunk {chunk}", at(store))));
            }
        }
    }
    Ok(())
}
