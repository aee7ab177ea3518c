//! Steps, reads, stores, pipelines and arenas.

use super::*;

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
        ensure!(unknown == "no tensor is called `g`; known: f, u8, i, large", "{unknown}");
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
fn launches_are_timed_and_arenas_can_be_filled_with_guards() -> Result<()> {
    let engine = engine();
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    let x = input(3, 1);
    let has = |feature| engine.wgpu().is_some_and(|(d, _)| d.features().contains(feature));
    for (clock, feature) in [
        (Clock::Launches, wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
        (Clock::Passes, wgpu::Features::TIMESTAMP_QUERY),
        (Clock::Host, wgpu::Features::empty()),
    ] {
        for per_submit in [usize::MAX, 1] {
            session.set_dispatches_per_submit(per_submit);
            let profile = session.profile_by(clock, &Step::of(3), &[("x", bytemuck::cast_slice(&x))]);
            if !has(feature) {
                ensure!(matches!(profile, Err(RuntimeError::Unsupported { .. })), "{profile:?}");
                continue;
            }
            let Profile { launches, host, wall_ms, .. } = profile?;
            ensure!(launches.len() == 2 && launches[1].node == "node/tanh", "{launches:?}");
            ensure!(launches[0].start_ms == 0.0 || clock == Clock::Host, "{launches:?}");
            ensure!(launches.iter().all(|t| t.ms >= 0.0) && launches[1].start_ms >= launches[0].ms, "{launches:?}");
            ensure!(wall_ms > 0.0 && host.windows(2).all(|s| s[1].start_ms >= s[0].start_ms + s[0].ms), "{host:?}");
            check(&x, &session.read("y", 3)?.to_f32())?;
        }
    }
    let best = session.profile(&Step::of(3), &[("x", bytemuck::cast_slice(&x))])?.clock;
    ensure!((best == Clock::Launches) == has(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES), "{best:?}");
    // A profiled step consumes the uploaded input, like any other step.
    session.write_input("x", bytemuck::cast_slice(&x))?;
    session.profile(&Step::of(3), &[])?;
    let again = session.run(&Step::of(3), &[]);
    ensure!(matches!(again, Err(RuntimeError::MissingInput { .. })), "{again:?}");
    session.fill_arenas(0x7fc0_1234)?;
    session.run(&Step::of(3), &[("x", bytemuck::cast_slice(&x))])?;
    for (i, last) in [(0, 15), (1, 15), (2, 15)] {
        let words = session.arena_words(i)?;
        ensure!(words.len() == 256 && words[last..].iter().all(|&w| w == 0x7fc0_1234), "arena {i}");
        ensure!(words[..last].iter().all(|&w| w != 0x7fc0_1234), "arena {i}");
    }
    Ok(())
}

#[test]
fn profiles_and_reads_that_do_not_block_make_nothing_after_the_first() -> Result<()> {
    let engine = Engine::new()?;
    let mut session = engine.session(scaled(&engine, false), &[weights(&engine)?], None)?;
    let x = input(3, 1);
    let mut first = None;
    for _ in 0..3 {
        session.profile(&Step::of(3), &[("x", bytemuck::cast_slice(&x))])?;
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
        let (from, to) = (range(BufferRef::Arena(0), &x), range(BufferRef::Arena(1), &x));
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
