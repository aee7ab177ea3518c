//! What remains of a training run whose process is killed, whose device is lost, or whose memory is full.

use hubel::{
    Error,
    cli::Interrupt,
    layers::*,
    losses::*,
    metrics::*,
    optimizers::*,
    prelude::*,
    runtime::{External, RuntimeError},
    tensor::{Philox, Purpose},
    testing::refuse_buffer,
    wgpu,
};
use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

const FILE: &str = "HUBEL_TEST_CHECKPOINT";
const KILLS: usize = 200;

fn trainer() -> Trainer {
    let model = Sequential::new([6])
        .add(Dense::new(16).activation(Relu))
        .add(Dropout::new(0.2))
        .add(Dense::new(3).activation(Softmax))
        .build()
        .expect("a model");
    let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).seed(1);
    model.compile(&Engine::reference(), config).expect("a trainer")
}

fn data() -> Dataset {
    let x = (0..180).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
    let labels = HostTensor::u8([30], (0..30).map(|i| i % 3).collect()).expect("labels");
    Dataset::new(HostTensor::f32([30, 6], x).expect("samples"), labels).expect("a data set")
}

fn step(trainer: &mut Trainer, data: &Dataset, steps: u64) {
    // Eight steps an epoch, so that most checkpoints are made amid one.
    trainer.fit(data, Fit::epochs(usize::MAX).batch(4).seed(5).max_steps(steps)).expect("training");
}

/// Trains and saves for ever, from where the last process was killed, and prints which steps are saved.
fn save_for_ever(path: &Path) -> ! {
    let (mut trainer, data) = (trainer(), data());
    if path.exists() {
        trainer.load_checkpoint(path).expect("what a killed process left can be loaded");
    }
    loop {
        step(&mut trainer, &data, 1);
        trainer.save_checkpoint(path).expect("a checkpoint");
        println!("\nsaved {}", trainer.steps());
        std::io::stdout().flush().expect("an answer");
    }
}

/// Runs the test of this thread in a process of its own, which finds the path in its environment; returns what it
/// prints.
fn this_test_again(path: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let name = std::thread::current().name().expect("the test's name").to_owned();
    let mut child = Command::new(env::current_exe().expect("this program"))
        .args([&name, "--exact", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(child.stdout.take().expect("its answers")).lines();
    (child, lines)
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_checkpoint_with_every_step_it_called_safe() {
    if let Some(path) = env::var_os(FILE) {
        save_for_ever(Path::new(&path));
    }
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let mut rng = Philox::new(6, Purpose::Test, 6);
    let mut reached = 0;
    for kill in 0..KILLS {
        let (mut child, mut lines) = this_test_again(&path);
        let safe = |line: &str| line.strip_prefix("saved ").and_then(|n| n.parse::<u64>().ok());
        let first = lines.by_ref().find_map(|line| safe(&line.ok()?));
        assert!(first > Some(reached), "kill {kill}: it began at {first:?} behind {reached}");
        std::thread::sleep(Duration::from_micros(rng.below(15_000) as u64));
        child.kill().expect("a kill");
        child.wait().expect("an end");
        let last = lines.map_while(Result::ok).filter_map(|line| safe(&line)).last().or(first);
        let mut trainer = trainer();
        trainer.load_checkpoint(&path).unwrap_or_else(|e| panic!("kill {kill}: {e}"));
        assert!(Some(trainer.steps()) >= last, "kill {kill}: step {} is left of {last:?}", trainer.steps());
        reached = trainer.steps();
    }
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("a file").path()).collect();
    left.sort();
    assert_eq!(left, [path.clone(), hubel::io::save::previous(&path)], "temporary files are left");
    let (mut resumed, mut straight) = (trainer(), trainer());
    resumed.load_checkpoint(&path).expect("a checkpoint");
    step(&mut straight, &data(), reached);
    assert_eq!(straight.weights().expect("weights"), resumed.weights().expect("weights"), "{reached} steps");
}

/// Returns a small convolutional network on an engine, and thirty samples: eight steps of four an epoch.
fn on(engine: &Engine) -> Trainer {
    compiled(engine).expect("a trainer")
}

fn compiled(engine: &Engine) -> Result<Trainer, Error> {
    let model = Sequential::new([6, 6, 1])
        .add(Conv2D::new(4, 3).activation(Relu))
        .add(MaxPooling2D::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.2))
        .add(Dense::new(3).activation(Softmax))
        .build()
        .expect("a model");
    let config = Compile::new(Adam::new(1e-2), SparseCategoricalCrossentropy::new()).seed(1).metric(Accuracy);
    model.compile(engine, config)
}

fn images() -> Dataset {
    let x = (0..30 * 36).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
    let labels = HostTensor::u8([30], (0..30).map(|i| i % 3).collect()).expect("labels");
    Dataset::new(HostTensor::f32([30, 6, 6, 1], x).expect("samples"), labels).expect("a data set")
}

fn lose(engine: &Engine) {
    engine.wgpu().expect("a device").0.destroy();
}

/// Loses the device after a number of steps of a fit.
struct LoseAfter<'e>(u64, &'e Engine);

impl Callback for LoseAfter<'_> {
    fn step_end(&mut self, _: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        self.0 -= 1;
        if self.0 == 0 {
            lose(self.1);
        }
        Ok(Control::Continue)
    }
}

fn some(steps: u64) -> Fit<'static> {
    Fit::epochs(1000).batch(4).seed(5).max_steps(steps)
}

fn is_lost<T>(what: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Runtime(RuntimeError::DeviceLost { .. })) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what} went well"),
    }
}

#[test]
fn training_whose_device_is_lost_at_any_step_goes_on_from_its_checkpoint_to_the_same_bits() {
    const STEPS: u64 = 20;
    let data = images();
    let end = |mut trainer: Trainer| {
        trainer.fit(&data, some(STEPS - trainer.steps())).expect("training");
        (trainer.weights().expect("weights"), trainer.evaluate(&data).expect("scores"))
    };
    let undisturbed = end(on(&Engine::new().expect("an adapter")));
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("state.safetensors");
    // Steps up to the checkpoint, and from there to the loss: 0 is before the first step; the ninth begins an epoch.
    for (saved, more) in [(0, 0), (0, 1), (1, 1), (3, 2), (5, 3), (8, 1), (6, 12)] {
        let engine = Engine::new().expect("an adapter");
        let mut trainer = on(&engine);
        if saved > 0 {
            trainer.fit(&data, some(saved)).expect("training");
        }
        trainer.save_checkpoint(&path).expect("a checkpoint");
        let start = Instant::now();
        if more == 0 {
            lose(&engine);
            is_lost("fit", trainer.fit(&data, some(9)));
        } else {
            is_lost("fit", trainer.fit(&data, some(more + 9).callback(LoseAfter(more, &engine))));
            is_lost("weights", trainer.weights());
            is_lost("save_checkpoint", trainer.save_checkpoint(folder.path().join("none")));
        }
        is_lost("predict", trainer.predict(&data.images));
        is_lost("evaluate", trainer.evaluate(&data));
        is_lost("train_on_batch", trainer.train_on_batch(&data));
        assert!(start.elapsed() < Duration::from_secs(5), "step {saved} + {more}: {:.1?}", start.elapsed());
        let mut again = on(&Engine::new().expect("an adapter"));
        again.load_checkpoint(&path).expect("a checkpoint");
        assert_eq!(again.steps(), saved);
        assert!(end(again) == undisturbed, "lost at step {saved} + {more}: other bits");
    }
}

#[test]
fn the_first_call_after_a_loss_says_so_whatever_it_is() {
    let data = images();
    type Call<'d> = (&'static str, Box<dyn Fn(&mut Trainer) -> Result<(), Error> + 'd>);
    let call = |name, f: fn(&mut Trainer, &Dataset) -> Result<(), Error>| -> Call {
        let data = &data;
        (name, Box::new(move |trainer| f(trainer, data)))
    };
    let calls = [
        call("fit", |t, d| t.fit(d, some(3)).map(drop)),
        call("train_on_batch", |t, d| t.train_on_batch(d).map(drop)),
        call("evaluate", |t, d| t.evaluate(d).map(drop)),
        call("predict", |t, d| t.predict(&d.images).map(drop)),
        call("confusion_matrix", |t, d| t.confusion_matrix(d).map(drop)),
        call("weights", |t, _| t.weights().map(drop)),
        call("trained", |t, _| t.trained().map(drop)),
        call("set_weights", |t, _| t.set_weights(&[("dense/bias".into(), HostTensor::f32([3], vec![0.0; 3])?)])),
        call("save_weights", |t, _| t.save_weights(env::temp_dir().join("hubel lost weights"))),
        call("save_checkpoint", |t, _| t.save_checkpoint(env::temp_dir().join("hubel lost checkpoint"))),
        call("prepare", |t, _| t.inference(Batch::up_to(4), &[])?.prepare()),
    ];
    for (name, call) in &calls {
        for steps in [0, 2] {
            let engine = Engine::new().expect("an adapter");
            let mut trainer = on(&engine);
            for _ in 0..steps {
                trainer.train_on_batch(&data).expect("a step");
            }
            lose(&engine);
            is_lost(name, call(&mut trainer));
        }
    }
}

#[test]
fn weights_read_after_the_last_step_are_saved_after_the_loss() {
    let (data, folder) = (images(), temp_dir::TempDir::new().expect("a folder"));
    let path = |name: &str| folder.path().join(name);
    let engine = Engine::new().expect("an adapter");
    let mut trainer = on(&engine);
    trainer.fit(&data, some(5)).expect("training");
    trainer.save_checkpoint(path("before")).expect("a checkpoint");
    let weights = trainer.weights().expect("weights");
    lose(&engine);
    trainer.save_checkpoint(path("after")).expect("what was read is there");
    assert!(trainer.weights().expect("what was read is there") == weights);
    let bytes = |name: &str| std::fs::read(path(name)).expect("a file");
    assert!(bytes("before") == bytes("after"));

    // Of two steps, the moments of the second were not read.
    let engine = Engine::new().expect("an adapter");
    let mut trainer = on(&engine);
    trainer.fit(&data, some(4)).expect("training");
    trainer.save_checkpoint(path("before")).expect("a checkpoint");
    trainer.fit(&data, some(1)).expect("training");
    let weights = trainer.weights().expect("weights");
    lose(&engine);
    trainer.save_weights(path("weights")).expect("what was read is there");
    let saved = hubel::io::safetensors::open(path("weights")).expect("weights");
    assert!(saved.iter().all(|tensor| weights.contains(tensor)));
    is_lost("save_checkpoint", trainer.save_checkpoint(path("none")));
    assert!(!path("none").exists());
}

/// Loses the device on another thread while `call` is made again and again, and returns what came of the last.
fn lose_amid<T>(engine: &Engine, mut call: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let loser = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            lose(engine);
        });
        let start = Instant::now();
        loop {
            let over = loser.is_finished();
            let result = call();
            if over || result.is_err() {
                assert!(start.elapsed() < Duration::from_secs(5), "{:.1?}", start.elapsed());
                return result;
            }
        }
    })
}

#[test]
fn a_device_lost_in_a_readback_or_in_a_save_is_noticed_and_leaves_a_checkpoint_that_loads() {
    let (data, folder) = (images(), temp_dir::TempDir::new().expect("a folder"));
    let path = folder.path().join("state.safetensors");
    for round in 0..5 {
        let engine = Engine::new().expect("an adapter");
        let mut net = on(&engine).inference(Batch::up_to(8), &[]).expect("a network");
        is_lost("predict", lose_amid(&engine, || net.predict(&data.images)));

        let engine = Engine::new().expect("an adapter");
        let mut trainer = on(&engine);
        trainer.save_checkpoint(&path).expect("a checkpoint");
        let mut safe = 0;
        let result = lose_amid(&engine, || {
            trainer.fit(&data, some(1))?;
            trainer.save_checkpoint(&path)?;
            safe = trainer.steps();
            Ok(())
        });
        is_lost("save_checkpoint", result);
        let mut again = on(&Engine::new().expect("an adapter"));
        again.load_checkpoint(&path).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert!(again.steps() >= safe, "round {round}: step {} is left of {safe}", again.steps());
    }
}

#[test]
fn a_buffer_refused_at_any_place_is_a_typed_error_after_which_the_engine_is_as_before() {
    let (data, folder) = (images(), temp_dir::TempDir::new().expect("a folder"));
    let engine = Engine::new().expect("an adapter");
    let run = || -> Result<_, Error> {
        let mut trainer = compiled(&engine)?;
        trainer.fit(&data, some(10).validation(&data))?;
        trainer.train_on_batch(&data)?;
        trainer.save_checkpoint(folder.path().join("state.safetensors"))?;
        let scores = trainer.evaluate(&data)?;
        let said = trainer.predict(&data.images)?;
        let mut net = trainer.inference(Batch::up_to(4), &["dense"])?;
        net.prepare()?;
        let (device, queue) = engine.wgpu().expect("a device");
        let usage = wgpu::BufferUsages::STORAGE;
        let buffer = |n: u64| {
            let size = 4 * 4 * n;
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let (x, y, tap) = (buffer(36), buffer(3), buffer(3));
        let mut encoder = device.create_command_encoder(&Default::default());
        net.record(&mut encoder, &[External::from(&x)], &[External::from(&y), External::from(&tap)])?;
        queue.submit([encoder.finish()]);
        Ok((trainer.weights()?, scores, said))
    };
    let wanted = run().expect("there is memory");
    assert_eq!(engine.allocated_bytes(), 0);
    for n in 0.. {
        refuse_buffer(&engine, Some(n));
        let result = run();
        if refuse_buffer(&engine, None) {
            assert!(n > 30, "only {n} buffers were made");
            assert!(result.expect("no buffer was refused") == wanted);
            return;
        }
        match result {
            Err(Error::Runtime(RuntimeError::OutOfMemory { what, bytes, limit: 0 })) => {
                assert!(!what.is_empty() && bytes > 0, "buffer {n}");
            }
            other => panic!("buffer {n}: {:?}", other.map(drop)),
        }
        assert_eq!(engine.allocated_bytes(), 0, "buffer {n}");
        assert!(engine.check().is_ok(), "buffer {n}");
        assert!(run().expect("there is memory again") == wanted, "buffer {n}");
    }
}

/// Trains until Ctrl-C is pressed, then writes a checkpoint and ends as an interrupted program does.
fn train_until_interrupted(path: &Path) -> ! {
    struct Tell;
    impl Callback for Tell {
        fn step_end(&mut self, _: &Progress, trainer: &mut Trainer) -> Result<Control, hubel::Error> {
            println!("\nstep {}", trainer.steps());
            std::io::stdout().flush().expect("an answer");
            Ok(Control::Continue)
        }
    }
    let interrupt = Interrupt::catch().expect("a handler");
    let mut trainer = trainer();
    let fit = Fit::epochs(usize::MAX).batch(4).seed(5).callback(Tell).callback(interrupt.clone());
    trainer.fit(&data(), fit).expect("training");
    assert!(interrupt.pressed());
    trainer.save_checkpoint(path).expect("a checkpoint");
    std::process::exit(Interrupt::STATUS);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_a_checkpoint_from_which_it_goes_on_to_the_same_bits() {
    if let Some(path) = env::var_os(FILE) {
        train_until_interrupted(Path::new(&path));
    }
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let mut rng = Philox::new(7, Purpose::Test, 7);
    for _ in 0..5 {
        let (mut child, mut lines) = this_test_again(&path);
        // Amid an epoch, as often as not.
        let wanted = format!("step {}", 2 + rng.below(30));
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line == wanted), "it took {wanted}");
        let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("`kill`");
        assert!(signal.success());
        let last = lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("step ")?.parse::<u64>().ok()).last();
        assert_eq!(child.wait().expect("an end").code(), Some(130));
        let (mut resumed, mut straight) = (trainer(), trainer());
        resumed.load_checkpoint(&path).expect("a checkpoint");
        let taken = resumed.steps();
        assert!(last.is_none_or(|last| last == taken), "{last:?} and {taken}");
        step(&mut resumed, &data(), 20);
        step(&mut straight, &data(), taken + 20);
        assert_eq!(straight.weights().expect("weights"), resumed.weights().expect("weights"), "{taken} steps");
    }
}
