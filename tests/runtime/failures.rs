//! Lost devices, wrong plans, limits and timeouts.

use super::*;

/// Returns an engine, on its own device or a borrowed one, with a session after `steps` steps.
fn after(steps: usize, borrow: bool) -> Result<(Engine, Store, Session)> {
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
    Ok((engine, store, session))
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
                let (engine, store, mut session) = after(steps, borrow)?;
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
            let (engine, store, mut session) = after(steps, borrow)?;
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
    ensure!(error.starts_with("arena 2 (largest: `node/mul` 160 B) needs"), "{error}");
    plan.arenas[2] = 1024;
    plan.dispatches[0].bindings[0].range.bytes = 1 << 41;
    let error = engine.session(Arc::new(plan.clone()), &[weights(&engine)?], None).unwrap_err().to_string();
    ensure!(error.starts_with("binding 1 of `node/mul` (elementwise) needs 2048.0 GiB"), "{error}");
    plan.dispatches[0].bindings[0].range.bytes = 2048;
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
    ensure!(plan_error(refuse(&|p| p.dispatches[0].bindings[2].range = p.dispatches[0].bindings[0].range)));
    ensure!(plan_error(refuse(&|p| p.dispatches[1].bindings[1].access = Access::Read)));
    ensure!(plan_error(refuse(&|p| p.dispatches[1].bindings.truncate(1))));
    ensure!(plan_error(refuse(&|p| p.outputs[0].range.offset = 1024)));
    ensure!(plan_error(refuse(&|p| p.dispatches[1].bindings[0].range.offset = 4)));
    ensure!(plan_error(
        refuse(&|p| p.dispatches[0].bindings[1].range.buffer = BufferRef::Store { store: 1, chunk: 0 })
    ));
    for offset in [256 << 20, u64::MAX - 255] {
        let extents = |p: &mut Plan| p.dispatches[1].bindings.last_mut().expect("extents").range.offset = offset;
        ensure!(plan_error(refuse(&extents)));
    }
    ensure!(plan_error(refuse(&|p| p.dispatches[1].extents.resize(5, ("more".into(), 0)))));
    let broken = |p: &mut Plan| p.dispatches[0].source = "fn main( {".into();
    ensure!(matches!(refuse(&broken), RuntimeError::Kernel(_)));
    // Parses, but a binding of 4 bytes does not hold one vec4.
    let wide = TensorType::f32([Batch, 4]);
    let small = |i| BufferRange { bytes: 4, ..range(BufferRef::Arena(i), &wide) };
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

#[test]
fn a_kernel_that_takes_longer_than_the_timeout_is_named_and_the_engine_goes_on() -> Result<()> {
    let engine = Engine::new()?;
    let x = input(CAPACITY, 1);
    let timeout = Duration::from_millis(5);
    // The number of workgroups that this device needs.
    for groups in (6..24).step_by(2).map(|power| 1 << power) {
        let mut session = engine.session(slow(&engine, groups), &[weights(&engine)?], None)?;
        session.prepare()?;
        session.set_timeout(timeout);
        session.run(&Step::of(CAPACITY), &[("x", bytemuck::cast_slice(&x))])?;
        let Err(error) = session.wait() else { continue };
        ensure!(matches!(&error, RuntimeError::Timeout { label, .. } if label == "the submitted steps"), "{error}");
        session.set_timeout(Duration::from_secs(60));
        ensure!(session.read("y", CAPACITY)?.to_f32().iter().all(|v| (v - 1.0).abs() < 0.01));
        let mut other = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
        run_once(&mut other, 2, 2)?;
        return Ok(());
    }
    anyhow::bail!("no kernel took longer than {timeout:?}")
}
