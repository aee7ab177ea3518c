use super::{
    Result, RuntimeError,
    gpu::{DeviceBuffer, Gpu},
};
use crate::{
    graph::{ALIGN_BYTES, UNIFORM_BYTES},
    kernels::{Access, reflect},
    passes::{Plan, PlannedDispatch},
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

/// Text, constants, and whether it runs unchecked.
type Key = (Arc<str>, Vec<(&'static str, u64)>, bool);

/// The number of kernels kept while no session uses them.
const KEPT: usize = 256;

/// The compiled kernels of an engine.
#[derive(Default)]
pub(super) struct Pipelines(Mutex<HashMap<Key, Arc<Pipeline>>>);

impl Pipelines {
    /// Returns the pipeline of each launch; new ones are built on several threads.
    ///
    /// With `launch` each is launched once, with no workgroups: a driver that compiles kernels at their first launch compiles one
    /// while the next is built.
    pub fn get(
        &self,
        gpu: &Gpu,
        plan: &Plan,
        launch: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<Arc<Pipeline>>> {
        let start = Instant::now();
        let (mut known, mut missing) = (HashMap::new(), HashMap::new());
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trusted = if gpu.checked { vec![false; plan.dispatches.len()] } else { plan.trusted() };
        let keys: Vec<Key> = (plan.dispatches.iter().zip(trusted))
            .map(|(dispatch, trusted)| {
                let (text, constants) = dispatch.pipeline_key();
                (text, constants, trusted)
            })
            .collect();
        for (key, dispatch) in keys.iter().zip(&plan.dispatches) {
            match all.get(key) {
                Some(pipeline) => drop(known.insert(key.clone(), pipeline.clone())),
                None => drop(missing.insert(key.clone(), dispatch)),
            }
        }
        drop(all);
        let (total, done) = (missing.len(), AtomicUsize::new(0));
        let stand_ins = if launch && total > 0 { Some(StandIns::new(gpu)?) } else { None };
        let built: Vec<(Key, Arc<Pipeline>, Option<wgpu::SubmissionIndex>)> = missing
            .into_par_iter()
            .map(|(key, dispatch)| {
                let pipeline = build(gpu, dispatch, key.2)?;
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
        log::debug!("{total} pipelines built for {} dispatches in {:.1?}", keys.len(), start.elapsed());
        Ok(keys.iter().map(|key| known[key].clone()).collect())
    }
}

fn build(gpu: &Gpu, dispatch: &PlannedDispatch, trusted: bool) -> Result<Pipeline> {
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
        let module = shader_module(device, label, module, trusted);
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

/// Returns a module, whose loops and indices in arrays are checked as it runs unless it is trusted.
fn shader_module(
    device: &wgpu::Device,
    label: Option<&str>,
    mut module: naga::Module,
    trusted: bool,
) -> wgpu::ShaderModule {
    if trusted {
        // Of modules without overrides wgpu-hal 30 checks loops, and sets workgroup memory to zero, on Vulkan in any case.
        let (name, span) = (Some("UNCHECKED".to_owned()), naga::Span::UNDEFINED);
        let inner = naga::TypeInner::Scalar(naga::Scalar::U32);
        let ty = module.types.insert(naga::Type { name: None, inner }, span);
        let init = Some(module.global_expressions.append(naga::Expression::Literal(naga::Literal::U32(0)), span));
        module.overrides.append(naga::Override { name, id: None, ty, init }, span);
    }
    let descriptor = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Naga(Cow::Owned(module)) };
    if !trusted {
        return device.create_shader_module(descriptor);
    }
    let mut checks = wgpu::ShaderRuntimeChecks::checked();
    (checks.bounds_checks, checks.force_loop_bounding) = (false, false);
    // SAFETY: the planner trusts kernels of the crate's own operations alone, as they were planned. Their loops end, since the planner
    // has found a bound for each; their indices in arrays are constants, lanes and counters of such loops, and those in buffers are
    // guarded where they come from data. Tests run them on the host, where an index outside is an error.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
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
