//! Sessions on hand-made plans.

mod embedding;
mod failures;
mod sessions;

use anyhow::{Result, ensure};
use hubel::{
    graph::{ALIGN_BYTES, Grid, Io, Op, Slot, Step, TensorType},
    kernels::{Access, common, link},
    layers::Dense,
    ops::Elementwise,
    passes::{Binding, BufferRange, BufferRef, Layout, Plan, PlannedDispatch, Port, Trust},
    prelude::Sequential,
    runtime::{Backend, Clock, Engine, External, Profile, RuntimeError, Session, Store},
    tensor::{Batch, DType, HostTensor},
    wgpu,
};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const CAPACITY: usize = 8;

const ROW: usize = 5;

fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let _ = env_logger::builder().is_test(true).try_init();
    ENGINE.get_or_init(|| Engine::new().expect("tests need an adapter; mesa-vulkan-drivers has one")).clone()
}

fn range(buffer: BufferRef, ty: &TensorType) -> BufferRange {
    BufferRange { buffer, offset: 0, bytes: ty.bytes(CAPACITY) }
}

/// Plans `function` of tensors that each have a range; the last is the result.
fn planned(engine: &Engine, function: &str, tensors: &[(&TensorType, BufferRange)]) -> PlannedDispatch {
    let op = Elementwise::named(function).expect("a function of the table");
    let (result, inputs) = tensors.split_last().expect("a result");
    let io = Io { inputs: inputs.iter().map(|t| t.0.clone()).collect(), outputs: vec![result.0.clone()] };
    let candidate = op.lower(&io, engine.profile(), None).remove(0);
    let dispatch = candidate.dispatches[0].clone();
    let binding = |slot: &Slot| match slot {
        Slot::In(range) => Binding { range: inputs[range.start].1, access: Access::Read },
        Slot::Extents => {
            let range = BufferRange { buffer: BufferRef::Extents, offset: 0, bytes: 16 };
            Binding { range, access: Access::Uniform }
        }
        _ => Binding { range: result.1, access: Access::ReadWrite },
    };
    PlannedDispatch {
        node: format!("node/{function}"),
        op: function.into(),
        kernel: dispatch.kernel,
        variant: candidate.variant,
        source: dispatch.source.text().clone(),
        constants: dispatch.constants,
        extents: dispatch.extents,
        grid: dispatch.grid,
        samples: 0..usize::MAX,
        bindings: dispatch.slots.iter().map(binding).collect(),
        bytes_moved: 0,
        flops: 0,
        cycles: None,
        members: Vec::new(),
    }
}

fn plan(arenas: Vec<u64>, mut dispatches: Vec<PlannedDispatch>, inputs: Vec<Port>, outputs: Vec<Port>) -> Arc<Plan> {
    for (dispatch, i) in dispatches.iter_mut().zip(0..) {
        let extents = dispatch.bindings.iter_mut().filter(|b| b.range.buffer == BufferRef::Extents);
        extents.for_each(|b| b.range.offset = i * ALIGN_BYTES);
    }
    Arc::new(Plan {
        capacity: CAPACITY,
        arenas,
        dispatches,
        inputs,
        outputs,
        peak_bytes: 0,
        lower_bound_bytes: 0,
        hash: 1,
        trust: Trust::default(),
    })
}

fn port(name: &str, ty: &TensorType, range: BufferRange) -> Port {
    Port { name: name.into(), ty: ty.clone(), range }
}

/// Plans `y = tanh(x · w)`, where `w` is in a store; `x` and `y` are in arenas or the caller's.
fn scaled(engine: &Engine, external: bool) -> Arc<Plan> {
    let x = TensorType::f32([Batch, ROW]);
    let w = TensorType::f32([ROW]);
    let at = |i: usize| if external { BufferRef::External(i) } else { BufferRef::Arena(i) };
    let arenas = vec![1024, 1024, 1024];
    let (px, py) = (range(at(0), &x), range(at(1), &x));
    let pw = BufferRange { buffer: BufferRef::Store { store: 0, chunk: 0 }, offset: 256, bytes: w.bytes(1) };
    let pt = range(BufferRef::Arena(2), &x);
    let dispatches =
        vec![planned(engine, "mul", &[(&x, px), (&w, pw), (&x, pt)]), planned(engine, "tanh", &[(&x, pt), (&x, py)])];
    plan(arenas, dispatches, vec![port("x", &x, px)], vec![port("y", &x, py)])
}

fn weights(engine: &Engine) -> Result<Store> {
    let tensors = [("pad", vec![3]), ("w", vec![ROW])];
    let layout = Layout::new(tensors.map(|(n, s)| (n.to_owned(), TensorType::new(s, DType::F32))), 1 << 20);
    let store = engine.store(Arc::new(layout))?;
    store.write("w", &HostTensor::f32([ROW], vec![1.0, -1.0, 0.5, 0.0, 2.0])?)?;
    Ok(store)
}

fn input(n: usize, seed: usize) -> Vec<f32> {
    (0..n * ROW).map(|i| ((i * 7 + seed * 3) % 11) as f32 / 5.0 - 1.0).collect()
}

fn check(x: &[f32], y: &[f32]) -> Result<()> {
    let w = [1.0f32, -1.0, 0.5, 0.0, 2.0];
    ensure!(x.len() == y.len());
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let exact = (x * w[i % ROW]).tanh();
        ensure!((exact - y).abs() <= 1e-5 * exact.abs(), "{i}: {y} for {exact}");
    }
    Ok(())
}

fn run_once(session: &mut Session, n: usize, seed: usize) -> Result<Vec<f32>> {
    let x = input(n, seed);
    session.run(&Step::of(n), &[("x", bytemuck::cast_slice(&x))])?;
    let y = session.read("y", n)?;
    ensure!(y.shape() == [n, ROW]);
    check(&x, &y.to_f32())?;
    Ok(y.to_f32())
}

/// Plans a step of one kernel, which writes x of one half of an arena, added to `plus`, to the other half.
fn halves(engine: &Engine, plus: &str, [from, to]: [u64; 2]) -> Arc<Plan> {
    let kernel = format!(
        "@group(0) @binding(1) var<storage, read_write> x: array<f32>;
        @group(0) @binding(2) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64)
        fn main(@builtin(local_invocation_index) lane: u32) {{ y[lane] = x[lane] + {plus}; }}"
    );
    let ty = TensorType::f32([Batch, 64 / CAPACITY]);
    let [x, y] = [from, to].map(|offset| BufferRange { offset, ..range(BufferRef::Arena(0), &ty) });
    let mut dispatch = planned(engine, "neg", &[(&ty, x), (&ty, y)]);
    rewrite(&mut dispatch, &kernel);
    dispatch.grid = Grid::fixed(1);
    dispatch.bindings.iter_mut().for_each(|binding| binding.access = Access::ReadWrite);
    plan(vec![512], vec![dispatch], vec![port("x", &ty, x)], vec![port("y", &ty, y)])
}

/// Returns a device that the test owns, as an application would.
fn borrowed() -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let need = Engine::required(&adapter);
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: need.features,
        required_limits: need.limits,
        ..Default::default()
    }))?;
    Ok((adapter, device, queue))
}

/// Returns how many objects of each kind there are on a device.
fn objects(engine: &Engine) -> [isize; 5] {
    let hal = engine.wgpu().map(|(device, _)| device.get_internal_counters().hal).unwrap_or_default();
    [&hal.buffers, &hal.bind_groups, &hal.compute_pipelines, &hal.memory_allocations, &hal.shader_modules]
        .map(|counter| counter.read())
}

/// Makes a launch one of another kernel, which has no extents.
fn rewrite(dispatch: &mut PlannedDispatch, kernel: &str) {
    dispatch.source = link(kernel, &[common()]).into();
    dispatch.bindings.retain(|b| b.range.buffer != BufferRef::Extents);
    dispatch.extents.clear();
}

/// Plans a step whose second kernel runs a long loop in `groups` workgroups.
fn slow(engine: &Engine, groups: u64) -> Arc<Plan> {
    let mut plan = (*scaled(engine, false)).clone();
    let kernel = "
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var v = x[lane % 5u];
    for (var i = 0u; i < 60000u; i++) { v = v * 0.9999 + 0.0001; }
    if (id.x == 0u && id.y == 0u && lane < 40u) { y[lane] = v; }
}";
    rewrite(&mut plan.dispatches[1], kernel);
    plan.dispatches[1].grid = Grid::fixed(groups);
    Arc::new(plan)
}
