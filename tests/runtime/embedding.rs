//! Sessions on the device of an application, and engines that threads share.

use super::*;

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
