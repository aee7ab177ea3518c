//! Sessions on hand-made plans.

use anyhow::{Result, ensure};
use hubel::{
    graph::{Grid, Io, Op, Slot, Step, TensorType},
    kernels::{Access, common},
    layers::Dense,
    ops::Elementwise,
    passes::{Binding, BufferRef, Layout, Place, Plan, PlannedDispatch, Port},
    prelude::Sequential,
    runtime::{Backend, Engine, External, RuntimeError, Session, Store},
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

fn place(buffer: BufferRef, ty: &TensorType) -> Place {
    Place { buffer, offset: 0, bytes: ty.bytes(CAPACITY) }
}

/// Plans `function` of tensors that each have a place; the last is the result.
fn planned(engine: &Engine, function: &str, tensors: &[(&TensorType, Place)]) -> PlannedDispatch {
    let op = Elementwise::named(function).expect("a function of the table");
    let (result, inputs) = tensors.split_last().expect("a result");
    let io = Io { inputs: inputs.iter().map(|t| t.0.clone()).collect(), outputs: vec![result.0.clone()] };
    let candidate = op.lower(&io, engine.profile(), None).remove(0);
    let dispatch = candidate.dispatches[0].clone();
    let binding = |slot: &Slot| match slot {
        Slot::In(range) => Binding { place: inputs[range.start].1, access: Access::Read },
        _ => Binding { place: result.1, access: Access::ReadWrite },
    };
    PlannedDispatch {
        node: format!("node/{function}"),
        op: function.into(),
        kernel: dispatch.kernel,
        variant: candidate.variant,
        source: dispatch.source,
        constants: dispatch.constants,
        grid: dispatch.grid,
        samples: 0..usize::MAX,
        bindings: dispatch.slots.iter().map(binding).collect(),
    }
}

fn plan(arenas: Vec<u64>, dispatches: Vec<PlannedDispatch>, inputs: Vec<Port>, outputs: Vec<Port>) -> Arc<Plan> {
    Arc::new(Plan {
        capacity: CAPACITY,
        arenas,
        dispatches,
        inputs,
        outputs,
        peak_bytes: 0,
        lower_bound_bytes: 0,
        hash: 1,
    })
}

fn port(name: &str, ty: &TensorType, place: Place) -> Port {
    Port { name: name.into(), ty: ty.clone(), place }
}

/// Plans `y = tanh(x · w)`, where `w` is in a store; `x` and `y` lie in arenas or are the caller's.
fn scaled(engine: &Engine, external: bool) -> Arc<Plan> {
    let x = TensorType::f32([Batch, ROW]);
    let w = TensorType::f32([ROW]);
    let at = |i: usize| if external { BufferRef::External(i) } else { BufferRef::Arena(i) };
    let arenas = vec![1024, 1024, 1024];
    let (px, py) = (place(at(0), &x), place(at(1), &x));
    let pw = Place { buffer: BufferRef::Store { store: 0, chunk: 0 }, offset: 256, bytes: w.bytes(1) };
    let pt = place(BufferRef::Arena(2), &x);
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

#[test]
fn a_session_runs_any_batch_up_to_its_capacity() -> Result<()> {
    let engine = engine();
    let store = weights(&engine)?;
    let mut session = engine.session(scaled(&engine, false), &[store], None)?;
    for n in [1, CAPACITY, 3, 7] {
        run_once(&mut session, n, n)?;
    }
    session.write_input("x", bytemuck::cast_slice(&input(2, 9)))?;
    session.run(&Step::of(2), &[])?;
    check(&input(2, 9), &session.read("y", 2)?.to_f32())?;
    session.set_dispatches_per_submit(1);
    run_once(&mut session, 5, 1)?;
    session.wait()?;
    pollster::block_on(session.wait_async())?;
    Ok(())
}

#[test]
fn nothing_is_made_over_steps_2_to_50() -> Result<()> {
    let engine = Engine::new()?;
    let store = weights(&engine)?;
    let mut session = engine.session(scaled(&engine, false), std::slice::from_ref(&store), None)?;
    let counts = || objects(&engine);
    let step = |session: &mut Session, i: usize| -> Result<()> {
        let n = 1 + i % CAPACITY;
        session.run(&Step::of(n), &[("x", bytemuck::cast_slice(&input(n, i)))])?;
        if i % 10 == 1 {
            check(&input(n, i), &session.read("y", n)?.to_f32())?;
            store.read("w")?;
            ensure!(session.begin_read("y", n)?);
        }
        session.try_read("y")?;
        Ok(())
    };
    step(&mut session, 1)?;
    session.wait()?;
    let first = counts();
    ensure!(first[0] > 0 && first[1] > 0 && first[2] > 0, "wgpu counts nothing: {first:?}");
    for i in 2..=50 {
        step(&mut session, i)?;
        ensure!(counts() == first, "step {i}: {:?} after {first:?}", counts());
    }
    Ok(())
}

#[test]
fn pipelines_are_shared_by_the_sessions_of_an_engine() -> Result<()> {
    let engine = Engine::new()?;
    let built = AtomicUsize::new(0);
    let on_pipeline = |done: usize, total: usize| {
        assert!(done <= total);
        built.fetch_add(1, Ordering::Relaxed);
    };
    let arena = engine.arena();
    let store = weights(&engine)?;
    let plan = scaled(&engine, false);
    let mut a = engine.session_with_progress(plan.clone(), std::slice::from_ref(&store), Some(&arena), &on_pipeline)?;
    ensure!(built.load(Ordering::Relaxed) == 2);
    let bytes = engine.allocated_bytes();
    let mut b = engine.session_with_progress(plan, &[store], Some(&arena), &on_pipeline)?;
    ensure!(built.load(Ordering::Relaxed) == 2);
    // Staging, step record and readback are a session's own; the arena is shared.
    ensure!(arena.bytes() == [1024, 1024, 1024]);
    ensure!(engine.allocated_bytes() - bytes <= 3 * 1024 + 512, "{}", engine.allocated_bytes() - bytes);
    run_once(&mut a, 3, 1)?;
    run_once(&mut b, 8, 2)?;
    drop((a, b, arena));
    ensure!(engine.allocated_bytes() < bytes);
    Ok(())
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
    let [x, y] = [from, to].map(|offset| Place { offset, ..place(BufferRef::Arena(0), &ty) });
    let mut dispatch = planned(engine, "neg", &[(&ty, x), (&ty, y)]);
    dispatch.source = [common(), &kernel].concat().into();
    dispatch.grid = Grid::fixed(1);
    dispatch.bindings.iter_mut().for_each(|binding| binding.access = Access::ReadWrite);
    plan(vec![512], vec![dispatch], vec![port("x", &ty, x)], vec![port("y", &ty, y)])
}

#[test]
fn neighbours_in_a_buffer_are_no_clash() -> Result<()> {
    let engine = engine();
    for halves_of in [[0, 256], [256, 0]] {
        let mut session = engine.session(halves(&engine, "0.5", halves_of), &[], None)?;
        session.run(&Step::of(CAPACITY), &[("x", bytemuck::cast_slice(&[1.0f32; 64]))])?;
        ensure!(session.read("y", CAPACITY)?.to_f32() == [1.5; 64]);
    }
    ensure!(engine.session(halves(&engine, "0.5", [0, 0]), &[], None).is_err(), "both are the same");
    Ok(())
}

#[test]
fn pipelines_of_sessions_that_are_gone_are_few() -> Result<()> {
    let engine = Engine::new()?;
    let kept = engine.session(halves(&engine, "0.5", [0, 256]), &[], None)?;
    for i in 0..300 {
        engine.session(halves(&engine, &format!("{i}.25"), [0, 256]), &[], None)?;
    }
    let made = objects(&engine)[2];
    ensure!((1..=257).contains(&made), "{made} pipelines");
    engine.session(kept.plan().clone(), &[], None)?;
    ensure!(objects(&engine)[2] == made, "the pipeline of a session is kept");
    Ok(())
}

#[test]
fn stores_keep_tensors_of_all_types() -> Result<()> {
    for engine in [engine(), Engine::reference()] {
        let ty = |shape: &[usize], dtype| TensorType::new(shape.to_vec(), dtype);
        let tensors = [
            ("f", ty(&[3, 5], DType::F32)),
            ("u8", ty(&[7], DType::U8)),
            ("i", ty(&[], DType::I32)),
            ("large", ty(&[5, 1 << 20], DType::F32)),
        ];
        let layout = Layout::new(tensors.map(|(n, t)| (n.to_owned(), t)), 1024);
        let store = engine.store(Arc::new(layout))?;
        ensure!(store.read("f")?.to_f32() == [0.0; 15]);
        let large: Vec<f32> = (0..5 << 20).map(|i| i as f32).collect();
        let values = [
            ("f", HostTensor::f32([3, 5], (0..15).map(|i| i as f32).collect())?),
            ("u8", HostTensor::u8([7], vec![1, 2, 3, 4, 5, 6, 255])?),
            ("i", HostTensor::i32([], vec![-7])?),
            ("large", HostTensor::f32([5, 1 << 20], large)?),
        ];
        for (name, value) in &values {
            store.write(name, value)?;
        }
        for (name, value) in &values {
            ensure!(store.read(name)? == *value);
            ensure!(pollster::block_on(store.read_async(name))? == *value);
        }
        ensure!(store.read_all()?.len() == 4 && pollster::block_on(store.read_all_async())?[2].1 == values[2].1);

        let wrong = store.write("f", &HostTensor::f32([5, 3], vec![0.0; 15])?).unwrap_err().to_string();
        ensure!(wrong == "`f`: wanted f32(3, 5), got f32[5, 3]", "{wrong}");
        ensure!(matches!(store.write("i", &values[1].1), Err(RuntimeError::Mismatch { .. })));
        let unknown = store.read("g").unwrap_err().to_string();
        ensure!(unknown == "there is no tensor `g`; there are: f, u8, i, large", "{unknown}");
        store.reset()?;
        ensure!(store.read("u8")? == HostTensor::u8([7], vec![0; 7])?);
    }
    Ok(())
}

#[test]
fn reads_need_not_block() -> Result<()> {
    let engine = engine();
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    let x = input(4, 1);
    session.run(&Step::of(4), &[("x", bytemuck::cast_slice(&x))])?;
    ensure!(session.try_read("y")?.is_none());
    ensure!(session.begin_read("y", 4)? && !session.begin_read("y", 4)?);
    let start = Instant::now();
    let y = loop {
        if let Some(y) = session.try_read("y")? {
            break y;
        }
        ensure!(start.elapsed() < Duration::from_secs(10));
    };
    check(&x, &y.to_f32())?;
    check(&x, &pollster::block_on(session.read_async("y", 4))?.to_f32())?;
    drop(session.read_async("y", 4));
    for _ in 0..300 {
        pollster::block_on(session.read_async("y", 1))?;
        pollster::block_on(session.wait_async())?;
    }
    check(&x, &session.read("y", 4)?.to_f32())
}

#[test]
fn threads_share_an_engine() -> Result<()> {
    let engine = engine();
    let store = weights(&engine)?;
    let mut serial = engine.session(scaled(&engine, false), std::slice::from_ref(&store), None)?;
    let expected: Vec<Vec<f32>> = (0..20).map(|i| run_once(&mut serial, 1 + i % CAPACITY, i)).collect::<Result<_>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut session = engine.session(scaled(&engine, false), std::slice::from_ref(&store), None)?;
                    for i in 0..200 {
                        let k = i % 20;
                        ensure!(run_once(&mut session, 1 + k % CAPACITY, k)? == expected[k]);
                    }
                    // Dropped with a step under way.
                    session.run(&Step::of(1), &[("x", bytemuck::cast_slice(&input(1, 1)))])?;
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|t| t.join().expect("a thread panicked"))
    })
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

#[test]
fn a_plan_is_recorded_into_the_callers_encoder_with_its_buffers() -> Result<()> {
    let (adapter, device, queue) = borrowed()?;
    let fired = Arc::new(AtomicUsize::new(0));
    let count = fired.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let engine = Engine::from_wgpu(&adapter, &device, &queue)?;
    let mut session = engine.session(scaled(&engine, true), &[weights(&engine)?], None)?;
    let bytes = (CAPACITY * ROW * 4) as u64;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = |size, usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let (x, y, host) = (
        buffer(bytes, usage),
        buffer(bytes + 256, usage),
        buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
    );
    let mut made = None;
    for (i, n) in [3, 8, 1, 5].into_iter().enumerate() {
        let values = input(n, i);
        queue.write_buffer(&x, 0, bytemuck::cast_slice(&values));
        let mut encoder = device.create_command_encoder(&Default::default());
        let shifted = External { buffer: &y, offset: 256 };
        session.record(&mut encoder, n, &[(&x).into(), shifted])?;
        encoder.copy_buffer_to_buffer(&y, 256, &host, 0, bytes);
        let hal = device.get_internal_counters().hal;
        let counts = [hal.buffers.read(), hal.bind_groups.read(), hal.compute_pipelines.read()];
        ensure!(*made.get_or_insert(counts) == counts || i < 2, "{made:?} then {counts:?}");
        if i == 1 {
            made = Some(counts);
        }
        queue.submit([encoder.finish()]);
        host.map_async(wgpu::MapMode::Read, .., |r| r.expect("mapped"));
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let out: Vec<f32> = bytemuck::pod_collect_to_vec(&host.get_mapped_range(..)?);
        host.unmap();
        check(&values, &out[..n * ROW])?;
    }

    let mut encoder = device.create_command_encoder(&Default::default());
    let small = buffer(bytes - 4, usage);
    let plain = buffer(bytes, wgpu::BufferUsages::COPY_DST);
    let mut text =
        |pair: [&wgpu::Buffer; 2]| session.record(&mut encoder, 1, &pair.map(Into::into)).unwrap_err().to_string();
    ensure!(text([&small, &y]) == "`x`: wanted 160 bytes from offset 0 for 8 samples, got a buffer of 156 bytes");
    ensure!(text([&x, &plain]).starts_with("`y`: wanted a buffer with usage STORAGE"));
    ensure!(matches!(session.record(&mut encoder, 9, &[(&x).into(), (&y).into()]), Err(RuntimeError::Capacity { .. })));
    ensure!(matches!(session.run(&Step::of(1), &[]), Err(RuntimeError::Unsupported { .. })));
    ensure!(fired.load(Ordering::Relaxed) == 0, "Hubel raised errors in the application's handler");

    drop(buffer(256, wgpu::BufferUsages::empty()));
    ensure!(fired.load(Ordering::Relaxed) == 1, "the application's own handler is gone");
    engine.notify_lost();
    ensure!(matches!(session.record(&mut encoder, 1, &[]), Err(RuntimeError::DeviceLost { .. })));
    Ok(())
}

#[test]
fn buffers_and_encoders_that_are_not_the_engines_are_refused() -> Result<()> {
    let (adapter, device, queue) = borrowed()?;
    let engine = Engine::from_wgpu(&adapter, &device, &queue)?;
    let mut session = engine.session(scaled(&engine, true), &[weights(&engine)?], None)?;
    let buffer = |device: &wgpu::Device| {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 160, usage, mapped_at_creation: false })
    };
    let text = |result: std::result::Result<(), RuntimeError>| match result {
        Err(RuntimeError::Mismatch { name, wanted, got }) => Ok(format!("`{name}`: {wanted}, {got}")),
        other => Err(anyhow::anyhow!("{other:?}")),
    };
    let (x, y) = (buffer(&device), buffer(&device));
    let mut encoder = device.create_command_encoder(&Default::default());

    // Destroyed before the engine has seen it, and after.
    let gone = buffer(&device);
    gone.destroy();
    ensure!(
        text(session.record(&mut encoder, 1, &[(&x).into(), (&gone).into()]))?
            == "`y`: a buffer, one that was destroyed"
    );
    session.record(&mut encoder, 1, &[(&x).into(), (&y).into()])?;
    y.destroy();
    ensure!(text(session.record(&mut encoder, 1, &[(&x).into(), (&y).into()]))?.starts_with("`y`"));
    drop(encoder);

    // Of another device, and of another instance of wgpu.
    let (_, other, _other_queue) = borrowed()?;
    let (second, _second_queue) = pollster::block_on(adapter.request_device(&Default::default()))?;
    for stranger in [&second, &other] {
        let y = buffer(&device);
        (1..64).for_each(|_| drop(buffer(stranger)));
        let foreign = buffer(stranger);
        let mut encoder = device.create_command_encoder(&Default::default());
        let refused = text(session.record(&mut encoder, 1, &[(&x).into(), (&foreign).into()]))?;
        ensure!(refused.starts_with("`externals`: an encoder and buffers of the engine's own device"), "{refused}");
        drop(encoder);
        let scope = stranger.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut encoder = stranger.create_command_encoder(&Default::default());
        match session.record(&mut encoder, 1, &[(&x).into(), (&y).into()]) {
            // wgpu finds out when the encoder is finished.
            Ok(()) => {
                encoder.finish();
                ensure!(pollster::block_on(scope.pop()).is_some());
            }
            refused => drop(text(refused)?),
        }
    }

    // The engine is as it was.
    let y = buffer(&device);
    let mut encoder = device.create_command_encoder(&Default::default());
    session.record(&mut encoder, 1, &[(&x).into(), (&y).into()])?;
    queue.submit([encoder.finish()]);
    ensure!(engine.check().is_ok());

    // A buffer that went with its device is not what is wrong.
    let mut encoder = device.create_command_encoder(&Default::default());
    y.destroy();
    device.destroy();
    let lost = session.record(&mut encoder, 1, &[(&x).into(), (&y).into()]);
    ensure!(matches!(lost, Err(RuntimeError::DeviceLost { .. })), "{lost:?}");
    Ok(())
}

#[test]
fn an_engine_on_the_applications_device_keeps_a_budget_and_a_timeout() -> Result<()> {
    let (adapter, device, queue) = borrowed()?;
    let small = Engine::builder().memory_budget(1000).timeout(Duration::ZERO).build_on(&adapter, &device, &queue)?;
    let layout = |n: usize| Arc::new(Layout::new([("w".to_owned(), TensorType::new([n], DType::F32))], 1 << 20));
    ensure!(matches!(small.store(layout(1000)), Err(RuntimeError::OutOfMemory { limit: 1000, .. })));
    let store = small.store(layout(100))?;
    ensure!(matches!(store.read("w"), Err(RuntimeError::Timeout { .. })));
    ensure!(small.allocated_bytes() > 0);
    // Without one, a software adapter has that of the system's memory, as an engine on a device of its own has.
    let engine = Engine::from_wgpu(&adapter, &device, &queue)?;
    let refused = engine.store(Arc::new(Layout::new(
        (0..64).map(|i| (i.to_string(), TensorType::new([1 << 28], DType::F32))),
        1 << 30,
    )));
    ensure!(
        !engine.info().software || matches!(refused, Err(RuntimeError::OutOfMemory { limit: 1.., .. })),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn whatever_is_called_first_after_a_loss_says_so() -> Result<()> {
    type Call = (&'static str, fn(&mut Session, &Store) -> std::result::Result<(), RuntimeError>);
    const X: [f32; ROW] = [0.5; ROW];
    fn bytes() -> &'static [u8] {
        bytemuck::cast_slice(&X)
    }
    let calls: [Call; 16] = [
        ("read", |s, _| s.read("y", 1).map(drop)),
        ("read_async", |s, _| pollster::block_on(s.read_async("y", 1)).map(drop)),
        ("begin_read", |s, _| s.begin_read("y", 1).and_then(|_| s.try_read("y")).map(drop)),
        ("run", |s, _| s.run(&Step::of(1), &[("x", bytes())])),
        ("write_input", |s, _| s.write_input("x", bytes())),
        ("wait", |s, _| s.wait()),
        ("wait_async", |s, _| pollster::block_on(s.wait_async())),
        ("profile", |s, _| s.profile(&Step::of(1), &[("x", bytes())]).map(drop)),
        ("arena_words", |s, _| s.arena_words(0).map(drop)),
        ("fill_arenas", |s, _| s.fill_arenas(1)),
        ("prepare", |s, _| s.prepare()),
        ("Store::read", |_, w| w.read("w").map(drop)),
        ("Store::write", |_, w| w.write("w", &HostTensor::f32([ROW], X.to_vec()).expect("numbers"))),
        ("Store::reset", |_, w| w.reset()),
        ("store", |_, w| w.engine().store(w.layout().clone()).map(drop)),
        ("session", |s, w| w.engine().session(s.plan().clone(), std::slice::from_ref(w), None).map(drop)),
    ];
    for steps in [0, 5] {
        for (name, call) in calls {
            for borrow in [false, true] {
                let engine = if borrow {
                    let (adapter, device, queue) = borrowed()?;
                    Engine::from_wgpu(&adapter, &device, &queue)?
                } else {
                    Engine::new()?
                };
                let store = weights(&engine)?;
                let mut session = engine.session(scaled(&engine, false), std::slice::from_ref(&store), None)?;
                for i in 0..steps {
                    session.run(&Step::of(2), &[("x", bytemuck::cast_slice(&input(2, i)))])?;
                }
                engine.wgpu().expect("a device").0.destroy();
                let (start, result) = (Instant::now(), call(&mut session, &store));
                let lost = matches!(result, Err(RuntimeError::DeviceLost { .. }));
                ensure!(lost, "{name} after {steps} steps, borrowed {borrow}: {result:?}");
                ensure!(start.elapsed() < Duration::from_secs(5), "{name}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_was_read_of_a_store_outlives_the_device_until_it_changes() -> Result<()> {
    let lost = |r: std::result::Result<HostTensor, RuntimeError>| matches!(r, Err(RuntimeError::DeviceLost { .. }));
    for change in [false, true] {
        let engine = Engine::new()?;
        let store = weights(&engine)?;
        let read = store.read("w")?;
        if change {
            store.write("w", &HostTensor::f32([ROW], vec![7.0; ROW])?)?;
        }
        engine.wgpu().expect("a device").0.destroy();
        ensure!(lost(store.read("pad")), "it was never read");
        ensure!(if change { lost(store.read("w")) } else { store.read("w")? == read });
        ensure!(pollster::block_on(store.read_async("w")).is_ok() != change);
    }
    Ok(())
}

#[test]
fn a_lost_device_is_a_typed_error() -> Result<()> {
    for steps in [0, 1, 5] {
        for borrow in [false, true] {
            let engine = if borrow {
                let (adapter, device, queue) = borrowed()?;
                Engine::from_wgpu(&adapter, &device, &queue)?
            } else {
                Engine::new()?
            };
            let store = weights(&engine)?;
            let mut session = engine.session(scaled(&engine, false), std::slice::from_ref(&store), None)?;
            for i in 0..steps {
                session.run(&Step::of(2), &[("x", bytemuck::cast_slice(&input(2, i)))])?;
            }
            if let Some((device, _)) = engine.wgpu() {
                device.destroy();
            }
            let start = Instant::now();
            let lost = |r: std::result::Result<(), RuntimeError>| matches!(r, Err(RuntimeError::DeviceLost { .. }));
            ensure!(lost(session.read("y", 1).map(|_| ())));
            ensure!(lost(session.run(&Step::of(1), &[("x", bytemuck::cast_slice(&input(1, 1)))])));
            ensure!(lost(pollster::block_on(session.read_async("y", 1)).map(|_| ())));
            ensure!(lost(store.read("w").map(|_| ())));
            ensure!(lost(store.write("w", &HostTensor::f32([ROW], vec![0.0; ROW])?)));
            ensure!(lost(session.wait()));
            ensure!(lost(engine.session(scaled(&engine, false), &[store], None).map(|_| ())));
            ensure!(start.elapsed() < Duration::from_secs(5));
        }
    }
    let again = Engine::new()?;
    let mut session = again.session(scaled(&again, false), &[weights(&again)?], None)?;
    run_once(&mut session, 2, 2).map(|_| ())
}

#[test]
fn what_does_not_fit_is_refused_with_its_name() -> Result<()> {
    let engine = Engine::builder().memory_budget(100_000).build()?;
    let tensor = |name: &str, n: usize| (name.to_owned(), TensorType::new([n], DType::F32));
    let layout = Layout::new([tensor("a", 10), tensor("fc1/kernel", 30_000)], 1 << 20);
    let text = engine.store(Arc::new(layout)).unwrap_err().to_string();
    ensure!(text.starts_with("out of device memory: `fc1/kernel` f32(30000) (117.2 KiB)"), "{text}");
    ensure!(engine.allocated_bytes() == 0);

    let large = Layout::new([tensor("huge", 1 << 40)], 1 << 20);
    let Err(RuntimeError::TooLarge { what, which, .. }) = engine.store(Arc::new(large)) else {
        anyhow::bail!("a buffer of 4 TiB was not refused");
    };
    ensure!(what.contains("huge") && which == "largest buffer");

    let mut plan = (*scaled(&engine, false)).clone();
    plan.arenas[2] = 99_000;
    let error = engine.session(Arc::new(plan.clone()), &[weights(&engine)?], None).unwrap_err().to_string();
    ensure!(error.contains("activations (largest: `node/mul` 160 B, `node/tanh` 160 B)"), "{error}");
    plan.arenas[2] = 1 << 60;
    let error = engine.session(Arc::new(plan.clone()), &[weights(&engine)?], None).unwrap_err().to_string();
    ensure!(error.starts_with("arena 2 (largest: `node/mul` 160 B) takes"), "{error}");
    plan.arenas[2] = 1024;
    plan.dispatches[0].bindings[0].place.bytes = 1 << 41;
    let error = engine.session(Arc::new(plan.clone()), &[weights(&engine)?], None).unwrap_err().to_string();
    ensure!(error.starts_with("binding 1 of `node/mul` (elementwise) takes 2048.0 GiB"), "{error}");
    plan.dispatches[0].bindings[0].place.bytes = 2048;
    let error = engine.session(Arc::new(plan), &[weights(&engine)?], None).unwrap_err().to_string();
    ensure!(error.contains("binding 1 ends at byte 2048 of a buffer of 1024"), "{error}");
    Ok(())
}

#[test]
fn wrong_plans_are_refused() -> Result<()> {
    let engine = engine();
    let store = weights(&engine)?;
    let good = scaled(&engine, false);
    let refuse = |change: &dyn Fn(&mut Plan)| {
        let mut plan = (*good).clone();
        change(&mut plan);
        engine.session(Arc::new(plan), std::slice::from_ref(&store), None).map(|_| ()).unwrap_err()
    };
    let plan_error = |e: RuntimeError| matches!(e, RuntimeError::Plan { .. });
    ensure!(plan_error(refuse(&|p| p.dispatches[0].bindings[2].place = p.dispatches[0].bindings[0].place)));
    ensure!(plan_error(refuse(&|p| p.dispatches[1].bindings[1].access = Access::Read)));
    ensure!(plan_error(refuse(&|p| p.dispatches[1].bindings.truncate(1))));
    ensure!(plan_error(refuse(&|p| p.outputs[0].place.offset = 1024)));
    ensure!(plan_error(refuse(&|p| p.dispatches[1].bindings[0].place.offset = 4)));
    ensure!(plan_error(
        refuse(&|p| p.dispatches[0].bindings[1].place.buffer = BufferRef::Store { store: 1, chunk: 0 })
    ));
    let broken = |p: &mut Plan| p.dispatches[0].source = "fn main( {".into();
    ensure!(matches!(refuse(&broken), RuntimeError::Kernel(_)));
    // Parses, but a binding of 4 bytes does not hold one vec4.
    let wide = TensorType::f32([Batch, 4]);
    let small = |i| Place { bytes: 4, ..place(BufferRef::Arena(i), &wide) };
    let short = |p: &mut Plan| p.dispatches[1] = planned(&engine, "tanh", &[(&wide, small(2)), (&wide, small(1))]);
    ensure!(matches!(refuse(&short), RuntimeError::Validation { .. }));

    let mut session = engine.session(good.clone(), std::slice::from_ref(&store), None)?;
    let x = input(2, 1);
    let bytes: &[u8] = bytemuck::cast_slice(&x);
    ensure!(matches!(session.run(&Step::of(2), &[]), Err(RuntimeError::MissingInput { .. })));
    ensure!(matches!(session.run(&Step::of(3), &[("x", bytes)]), Err(RuntimeError::Mismatch { .. })));
    ensure!(matches!(session.run(&Step::of(0), &[("x", bytes)]), Err(RuntimeError::Capacity { .. })));
    ensure!(matches!(session.run(&Step::of(2), &[("z", bytes)]), Err(RuntimeError::UnknownName { .. })));
    ensure!(matches!(session.read("z", 1), Err(RuntimeError::UnknownName { .. })));
    ensure!(engine.check().is_ok());
    run_once(&mut session, 2, 1)?;
    let other = Engine::new()?;
    ensure!(matches!(other.session(good, &[store], None), Err(RuntimeError::Mismatch { .. })));
    Ok(())
}

#[test]
fn launches_are_timed_and_arenas_can_be_filled_with_guards() -> Result<()> {
    let engine = engine();
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    let x = input(3, 1);
    if engine.wgpu().is_some_and(|(d, _)| d.features().contains(wgpu::Features::TIMESTAMP_QUERY)) {
        for _ in 0..2 {
            let times = session.profile(&Step::of(3), &[("x", bytemuck::cast_slice(&x))])?;
            ensure!(times.len() == 2 && times[1].node == "node/tanh" && times.iter().all(|t| t.ms >= 0.0));
        }
        check(&x, &session.read("y", 3)?.to_f32())?;
        // A profiled step uses up what was put in place for it, like any other.
        session.write_input("x", bytemuck::cast_slice(&x))?;
        session.profile(&Step::of(3), &[])?;
        let again = session.run(&Step::of(3), &[]);
        ensure!(matches!(again, Err(RuntimeError::MissingInput { .. })), "{again:?}");
    }
    session.fill_arenas(0x7fc0_1234)?;
    session.run(&Step::of(3), &[("x", bytemuck::cast_slice(&x))])?;
    for (i, last) in [(0, 15), (1, 15), (2, 15)] {
        let words = session.arena_words(i)?;
        ensure!(words.len() == 256 && words[last..].iter().all(|&w| w == 0x7fc0_1234), "arena {i}");
        ensure!(words[..last].iter().all(|&w| w != 0x7fc0_1234), "arena {i}");
    }
    Ok(())
}

/// Returns how many objects of each kind there are on a device.
fn objects(engine: &Engine) -> [isize; 5] {
    let hal = engine.wgpu().map(|(device, _)| device.get_internal_counters().hal).unwrap_or_default();
    [&hal.buffers, &hal.bind_groups, &hal.compute_pipelines, &hal.memory_allocations, &hal.shader_modules]
        .map(|counter| counter.read())
}

#[test]
fn profiles_and_reads_that_do_not_block_make_nothing_after_the_first() -> Result<()> {
    let engine = Engine::new()?;
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    let x = input(3, 1);
    let mut first = None;
    for _ in 0..3 {
        if engine.wgpu().is_some_and(|(d, _)| d.features().contains(wgpu::Features::TIMESTAMP_QUERY)) {
            session.profile(&Step::of(3), &[("x", bytemuck::cast_slice(&x))])?;
        }
        session.run(&Step::of(3), &[("x", bytemuck::cast_slice(&x))])?;
        let made = objects(&engine);
        pollster::block_on(session.read_async("y", 3))?;
        session.wait()?;
        ensure!(objects(&engine) == made, "a read: {:?} after {made:?}", objects(&engine));
        ensure!(*first.get_or_insert(made) == made, "{made:?} after {first:?}");
    }
    Ok(())
}

#[test]
fn steps_wait_for_a_staging_buffer_that_is_free() -> Result<()> {
    let engine = Engine::new()?;
    let mut session = engine.session(slow(&engine, 1 << 8), &[weights(&engine)?], None)?;
    for _ in 0..8 {
        session.run(&Step::of(CAPACITY), &[("x", bytemuck::cast_slice(&input(CAPACITY, 1)))])?;
    }
    ensure!(session.read("y", CAPACITY)?.to_f32().iter().all(|v| (v - 1.0).abs() < 0.01));
    Ok(())
}

#[test]
fn a_read_that_does_not_block_brings_at_most_16_mib() -> Result<()> {
    let engine = engine();
    for (row, fits) in [(1 << 19, true), ((1 << 19) + 1, false)] {
        let x = TensorType::f32([Batch, row]);
        let bytes = x.bytes(CAPACITY).next_multiple_of(256);
        let (from, to) = (place(BufferRef::Arena(0), &x), place(BufferRef::Arena(1), &x));
        let dispatches = vec![planned(&engine, "neg", &[(&x, from), (&x, to)])];
        let plan = plan(vec![bytes, bytes], dispatches, vec![port("x", &x, from)], vec![port("y", &x, to)]);
        let mut session = engine.session(plan, &[], None)?;
        session.run(&Step::of(CAPACITY), &[("x", bytemuck::cast_slice(&vec![1.0f32; row * CAPACITY]))])?;
        match session.begin_read("y", CAPACITY) {
            Ok(begun) => ensure!(fits && begun, "{row}"),
            Err(error) => ensure!(!fits && matches!(error, RuntimeError::TooLarge { .. }), "{row}: {error}"),
        }
        session.wait()?;
    }
    Ok(())
}

#[test]
fn room_that_was_reserved_is_taken_by_sessions() -> Result<()> {
    let engine = engine();
    let arena = engine.arena();
    arena.reserve(&engine, &[4096, 2048, 1024])?;
    ensure!(arena.bytes() == [4096, 2048, 1024]);
    let bytes = engine.allocated_bytes();
    arena.reserve(&engine, &[1024, 1024, 1024])?;
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], Some(&arena))?;
    run_once(&mut session, 2, 1)?;
    ensure!(arena.bytes() == [4096, 2048, 1024] && engine.allocated_bytes() > bytes);
    Ok(())
}

#[test]
fn an_error_outside_of_any_call_is_one_of_the_next_call() -> Result<()> {
    let engine = Engine::new()?;
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    run_once(&mut session, 2, 1)?;
    let (device, _) = engine.wgpu().expect("a device");
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::MAX / 2,
        usage,
        mapped_at_creation: false,
    });
    let error = session.run(&Step::of(2), &[("x", bytemuck::cast_slice(&input(2, 1)))]).unwrap_err();
    ensure!(matches!(error, RuntimeError::Validation { .. } | RuntimeError::OutOfMemory { .. }), "{error}");
    Ok(())
}

#[test]
fn a_device_that_is_too_slow_is_a_timeout() -> Result<()> {
    let engine = Engine::new()?;
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    let x = input(CAPACITY, 1);
    session.run(&Step::of(CAPACITY), &[("x", bytemuck::cast_slice(&x))])?;
    session.set_timeout(Duration::ZERO);
    let error = session.read("y", CAPACITY).map(|_| ()).unwrap_err();
    ensure!(matches!(&error, RuntimeError::Timeout { label, .. } if label == "y"), "{error}");
    session.set_timeout(Duration::from_secs(60));
    check(&x, &session.read("y", CAPACITY)?.to_f32())
}

/// Plans a step whose second kernel takes `groups` workgroups through a long loop.
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
    plan.dispatches[1].source = [common(), kernel].concat().into();
    plan.dispatches[1].grid = Grid::fixed(groups);
    Arc::new(plan)
}

#[test]
fn a_kernel_that_takes_longer_than_the_timeout_is_named_and_the_engine_goes_on() -> Result<()> {
    let engine = Engine::new()?;
    let x = input(CAPACITY, 1);
    let timeout = Duration::from_millis(5);
    // As many workgroups as it takes on this device.
    for groups in (6..24).step_by(2).map(|power| 1 << power) {
        let mut session = engine.session(slow(&engine, groups), &[weights(&engine)?], None)?;
        session.prepare()?;
        session.set_timeout(timeout);
        session.run(&Step::of(CAPACITY), &[("x", bytemuck::cast_slice(&x))])?;
        let Err(error) = session.wait() else { continue };
        ensure!(matches!(&error, RuntimeError::Timeout { label, .. } if label == "the steps submitted"), "{error}");
        session.set_timeout(Duration::from_secs(60));
        ensure!(session.read("y", CAPACITY)?.to_f32().iter().all(|v| (v - 1.0).abs() < 0.01));
        let mut other = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
        run_once(&mut other, 2, 2)?;
        return Ok(());
    }
    anyhow::bail!("no kernel took longer than {timeout:?}")
}

#[test]
fn a_prepared_session_makes_nothing_but_bind_groups_at_its_first_record() -> Result<()> {
    let engine = Engine::new()?;
    let (device, queue) = engine.wgpu().expect("a device");
    let usage = wgpu::BufferUsages::STORAGE;
    let buffer =
        |size| device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
    let counts = || {
        let hal = device.get_internal_counters().hal;
        [&hal.compute_pipelines, &hal.shader_modules, &hal.buffers, &hal.memory_allocations].map(|c| c.read())
    };
    let record = |net: &mut dyn FnMut(&mut wgpu::CommandEncoder, [External<'_>; 2]) -> Result<()>| -> Result<()> {
        let (x, y) = (buffer(160), buffer(160));
        for _ in 0..2 {
            let before = counts();
            let mut encoder = device.create_command_encoder(&Default::default());
            net(&mut encoder, [(&x).into(), (&y).into()])?;
            ensure!(counts() == before, "{:?} after {before:?}", counts());
            queue.submit([encoder.finish()]);
            device.poll(wgpu::PollType::wait_indefinitely())?;
        }
        Ok(())
    };
    let mut session = engine.session(scaled(&engine, true), &[weights(&engine)?], None)?;
    session.prepare()?;
    let bytes = engine.allocated_bytes();
    record(&mut |encoder, [x, y]| Ok(session.record(encoder, 3, &[x, y])?))?;
    ensure!(engine.allocated_bytes() == bytes);

    let model = Sequential::new([ROW]).add(Dense::new(ROW)).build()?;
    let mut net = model.inference(&engine, Batch::up_to(CAPACITY))?;
    net.prepare()?;
    record(&mut |encoder, [x, y]| Ok(net.record(encoder, &[x], &[y])?))?;

    // A session on buffers of its own can be prepared too, and computes what it did.
    let mut own = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    own.prepare()?;
    run_once(&mut own, 2, 2).map(|_| ())
}

#[test]
fn adapters_are_chosen_by_name_or_index() -> Result<()> {
    let all = Engine::adapters();
    let first = all.first().expect("an adapter");
    let by_index = Engine::builder().adapter(first.index.to_string()).build()?;
    ensure!(by_index.info() == first);
    let part: String = first.name.chars().take(4).collect::<String>().to_uppercase();
    ensure!(Engine::builder().adapter(part).build()?.info().name == first.name);
    let error = Engine::builder().adapter("no such adapter").build().map(|_| ()).unwrap_err().to_string();
    ensure!(error.contains("`no such adapter`") && error.contains(&first.name), "{error}");
    let other = if cfg!(target_vendor = "apple") { Backend::Vulkan } else { Backend::Metal };
    let error = Engine::builder().backend(other).build().map(|_| ()).unwrap_err().to_string();
    ensure!(error.contains(&format!("backend {other:?}")) && error.contains(&first.name), "{error}");
    ensure!("DX12".parse() == Ok(Backend::Dx12) && "gl".parse::<Backend>().is_err());
    ensure!(Engine::reference().is_reference() && Engine::reference().wgpu().is_none());
    ensure!(matches!(
        Engine::reference().session(scaled(&engine(), false), &[], None),
        Err(RuntimeError::Unsupported { .. })
    ));
    fn shared<T: Send + Sync + Clone>() {}
    fn moved<T: Send>() {}
    shared::<Engine>();
    shared::<Store>();
    moved::<Session>();
    Ok(())
}
