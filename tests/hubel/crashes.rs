//! What is left of a training run whose process is killed.

use hubel::{
    cli::Interrupt,
    prelude::*,
    tensor::{Philox, Purpose},
};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
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
    let how = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).seed(1);
    model.compile(&Engine::reference(), how).expect("a trainer")
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

/// Trains and saves for ever, from where the last one was killed, and says which steps are safe.
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

#[test]
fn a_process_killed_at_any_moment_leaves_a_checkpoint_with_every_step_it_called_safe() {
    if let Some(path) = env::var_os(FILE) {
        save_for_ever(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let name = std::thread::current().name().expect("the test's name").to_owned();
    let mut rng = Philox::new(6, Purpose::Test, 6);
    let mut reached = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args([&name, "--exact", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("its answers")).lines();
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
    let (mut resumed, mut straight) = (trainer(), trainer());
    resumed.load_checkpoint(&path).expect("a checkpoint");
    step(&mut straight, &data(), reached);
    assert_eq!(straight.weights().expect("weights"), resumed.weights().expect("weights"), "{reached} steps");
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
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let name = std::thread::current().name().expect("the test's name").to_owned();
    let mut rng = Philox::new(7, Purpose::Test, 7);
    for _ in 0..5 {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args([&name, "--exact", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("its answers")).lines();
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
