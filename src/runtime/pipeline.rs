use super::{
    Result, RuntimeError,
    gpu::{DeviceBuffer, Gpu},
};
use crate::{
    graph::{ALIGN_BYTES, UNIFORM_BYTES},
    kernels::{Access, reflect},
    passes::PlannedDispatch,
};
use rayon::prelude::*;
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// A compiled kernel.
pub(super) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub accesses: Vec<Access>,
}

type Key = (Arc<str>, Vec<(&'static str, u64)>);

/// The number of kernels kept while no session uses them.
const KEPT: usize = 256;

/// The compiled kernels of an engine, one per source and constants.
#[derive(Default)]
pub(super) struct Pipelines(Mutex<HashMap<Key, Arc<Pipeline>>>);

impl Pipelines {
    /// Returns the pipeline of each dispatch; new ones are built on several threads.
    ///
    /// With `launch` each is launched once, with no workgroups: a driver that compiles kernels at their first launch compiles one
    /// while the next is built.
    pub fn get(
        &self,
        gpu: &Gpu,
        dispatches: &[PlannedDispatch],
        launch: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<Arc<Pipeline>>> {
        let start = Instant::now();
        let (mut known, mut missing) = (HashMap::new(), HashMap::new());
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for dispatch in dispatches {
            let key = dispatch.pipeline_key();
            match all.get(&key) {
                Some(pipeline) => drop(known.insert(key, pipeline.clone())),
                None => drop(missing.insert(key, dispatch)),
            }
        }
        drop(all);
        let (total, done) = (missing.len(), AtomicUsize::new(0));
        let stand_ins = if launch && total > 0 { Some(StandIns::new(gpu)?) } else { None };
        let built: Vec<(Key, Arc<Pipeline>, Option<wgpu::SubmissionIndex>)> = missing
            .into_par_iter()
            .map(|(key, dispatch)| {
                let pipeline = build(gpu, dispatch)?;
                let launched =
                    stand_ins.as_ref().map(|buffers| buffers.launch(gpu, dispatch, &pipeline)).transpose()?;
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                Ok((key, Arc::new(pipeline), launched))
            })
            .collect::<Result<_>>()?;
        let launches = built.iter().filter_map(|(_, _, launched)| launched.as_ref());
        launches
            .into_iter()
            .try_for_each(|index| gpu.wait_done("the first launches of kernels", gpu.timeout, index))?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() + built.len() > KEPT {
            all.retain(|_, pipeline| Arc::strong_count(pipeline) > 1);
        }
        for (key, pipeline, _) in built {
            known.insert(key.clone(), all.entry(key).or_insert(pipeline).clone());
        }
        drop(all);
        log::debug!("{total} pipelines built for {} dispatches in {:.1?}", dispatches.len(), start.elapsed());
        Ok(dispatches.iter().map(|d| known[&d.pipeline_key()].clone()).collect())
    }
}

fn build(gpu: &Gpu, dispatch: &PlannedDispatch) -> Result<Pipeline> {
    let start = Instant::now();
    let (bindings, module) = reflect(&dispatch.kernel, &dispatch.source)?;
    let accesses: Vec<Access> = bindings.iter().map(|b| b.access).collect();
    let label = Some(dispatch.kernel.as_str());
    let entries: Vec<wgpu::BindGroupLayoutEntry> = bindings
        .iter()
        .map(|b| wgpu::BindGroupLayoutEntry {
            binding: b.binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match b.access {
                    Access::Uniform => wgpu::BufferBindingType::Uniform,
                    Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let what = format!("kernel {} of `{}`", dispatch.kernel, dispatch.node);
    let pipeline = gpu.scoped(&what, 0, || {
        let device = &gpu.device;
        let source = wgpu::ShaderSource::Naga(Cow::Owned(module));
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &dispatch.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Pipeline { raw, layout, accesses }
    })?;
    gpu.failure.check()?;
    log::debug!("pipeline {} {} in {:.1?}", dispatch.kernel, dispatch.variant, start.elapsed());
    Ok(pipeline)
}

/// Buffers for the launch of a kernel that has no workgroups.
struct StandIns {
    uniform: DeviceBuffer,
    read: DeviceBuffer,
    written: DeviceBuffer,
}

impl StandIns {
    fn new(gpu: &Gpu) -> Result<Self> {
        let storage = u64::from(gpu.limits.max_storage_buffers_per_shader_stage) * ALIGN_BYTES;
        let buffer = |bytes, usage| gpu.buffer("a stand-in for a tensor", bytes, usage, false);
        Ok(StandIns {
            uniform: buffer(UNIFORM_BYTES, wgpu::BufferUsages::UNIFORM)?,
            read: buffer(storage, wgpu::BufferUsages::STORAGE)?,
            written: buffer(storage, wgpu::BufferUsages::STORAGE)?,
        })
    }

    /// Launches the kernel, without waiting for it.
    fn launch(&self, gpu: &Gpu, dispatch: &PlannedDispatch, pipeline: &Pipeline) -> Result<wgpu::SubmissionIndex> {
        let mut storage = 0;
        let mut entry = |(binding, access): (usize, &Access)| {
            let (buffer, offset, bytes) = match access {
                Access::Uniform => (&self.uniform, 0, UNIFORM_BYTES),
                access => {
                    storage += 1;
                    let buffer = if *access == Access::Read { &self.read } else { &self.written };
                    (buffer, (storage - 1) * ALIGN_BYTES, ALIGN_BYTES)
                }
            };
            let range = wgpu::BufferBinding { buffer: &buffer.raw, offset, size: wgpu::BufferSize::new(bytes) };
            wgpu::BindGroupEntry { binding: binding as u32, resource: wgpu::BindingResource::Buffer(range) }
        };
        let entries: Vec<_> = pipeline.accesses.iter().enumerate().map(&mut entry).collect();
        let what = format!("the first launch of kernel {} of `{}`", dispatch.kernel, dispatch.node);
        let descriptor = wgpu::BindGroupDescriptor { label: Some(&what), layout: &pipeline.layout, entries: &entries };
        let group = gpu.scoped(&what, 0, || gpu.device.create_bind_group(&descriptor))?;
        gpu.submit(&what, |encoder| {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline.raw);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(0, 0, 0);
        })
    }
}

/// Returns an error if a dispatch does not bind what its kernel declares.
pub(super) fn check_bindings(dispatch: &PlannedDispatch, pipeline: &Pipeline) -> Result<()> {
    let error =
        |message: String| RuntimeError::Plan { node: dispatch.node.clone(), kernel: dispatch.kernel.clone(), message };
    let (declared, bound) = (pipeline.accesses.len(), dispatch.bindings.len() + 1);
    if declared != bound {
        return Err(error(format!("the kernel declares {declared} bindings and the plan binds {bound}")));
    }
    if pipeline.accesses.first() != Some(&Access::Uniform) {
        return Err(error("binding 0 is not the step record".into()));
    }
    for (i, (binding, &access)) in dispatch.bindings.iter().zip(&pipeline.accesses[1..]).enumerate() {
        if binding.access != access {
            let wanted = binding.access;
            return Err(error(format!("binding {} is {access:?} in the kernel and {wanted:?} in the plan", i + 1)));
        }
    }
    Ok(())
}
