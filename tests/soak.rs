//! Nothing grows: memory, objects on the device and threads over many steps, predictions, models and engines.
//!
//! `tests/soak` runs it in full, minutes long; `cargo test` runs the same in seconds. One test at a time, since memory is
//! the process's.

use hubel::{layers::*, losses::*, metrics::*, optimizers::*, prelude::*};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The allowed growth of the process's memory after warm-up.
const MORE_BYTES: i64 = 4 << 20;

/// Returns the number of iterations, and the number after which memory is first measured: in full, and in brief.
fn times(in_full: (usize, usize), brief: (usize, usize)) -> (usize, usize) {
    if std::env::var_os("HUBEL_SOAK").is_some() { in_full } else { brief }
}

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let _ = env_logger::builder().is_test(true).try_init();
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the resident bytes of the process and its threads, 0 if the system does not report them.
fn process() -> (i64, usize) {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
    (pages * 4096, std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count))
}

/// Returns the numbers of the device's objects by kind, and the bytes of buffers.
fn objects(engine: &Engine) -> Vec<i64> {
    let hal = engine.wgpu().map(|(device, _)| device.get_internal_counters().hal).unwrap_or_default();
    let counters = [
        &hal.buffers,
        &hal.bind_groups,
        &hal.bind_group_layouts,
        &hal.compute_pipelines,
        &hal.pipeline_layouts,
        &hal.shader_modules,
        &hal.memory_allocations,
        &hal.fences,
        &hal.buffer_memory,
    ];
    let mut counts: Vec<i64> = counters.map(|counter| counter.read() as i64).into();
    assert!(counts[0] > 0, "wgpu counts nothing");
    counts.push(engine.allocated_bytes() as i64);
    counts
}

fn numbers(shape: &[usize]) -> HostTensor {
    let n: usize = shape.iter().product();
    HostTensor::f32(shape.to_vec(), (0..n).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.4).collect()).expect("numbers")
}

const NETS: [&str; 4] = ["convolution", "depthwise", "recurrent", "dense"];

/// Returns a small network, its `Compile` options, and `n` samples for it. `wide` selects another size.
fn net(name: &str, n: usize, wide: usize) -> (Model, Compile, Dataset) {
    let classes = || HostTensor::u8([n], (0..n).map(|i| (i % 4) as u8).collect()).expect("labels");
    let cross_entropy = SparseCategoricalCrossentropy::new;
    let (layers, config, labels) = match name {
        "convolution" => (
            Sequential::new([8, 8, 1])
                .add(Conv2D::new(8 * wide, 3).activation(Relu))
                .add(MaxPooling2D::new(2))
                .add(Flatten::new())
                .add(Dense::new(4).activation(Softmax)),
            Compile::new(Adam::new(1e-3), cross_entropy()).metric(Accuracy),
            classes(),
        ),
        "depthwise" => (
            Sequential::new([6, 6, 4 * wide])
                .add(DepthwiseConv2D::new(3))
                .add(BatchNormalization::new())
                .add(Relu)
                .add(GlobalAveragePooling2D::new())
                .add(Dense::new(4).activation(Softmax)),
            Compile::new(Sgd::new(1e-2).momentum(0.9), cross_entropy()),
            classes(),
        ),
        "recurrent" => (
            Sequential::new([6, 3]).add(LSTM::new(8 * wide)).add(Dense::new(1)),
            Compile::new(RmsProp::new(1e-3), MeanSquaredError),
            numbers(&[n, 1]),
        ),
        _ => (
            Sequential::new([16])
                .add(Dense::new(32 * wide).activation(Relu))
                .add(Dropout::new(0.3))
                .add(Dense::new(4).activation(Softmax)),
            Compile::new(Sgd::new(1e-2), cross_entropy()),
            classes(),
        ),
    };
    let model = layers.build().expect("a model");
    let mut shape = model.input_shape().dims().to_vec();
    shape[0] = n;
    (model, config, Dataset::new(numbers(&shape), labels).expect("data"))
}

/// Measures memory and objects after warm-up and after the last iteration, and times each iteration.
struct Watch {
    name: String,
    iterations: usize,
    warm: usize,
    seen: Vec<(i64, Vec<i64>)>,
    last: Instant,
    times: Vec<f64>,
}

impl Watch {
    fn new(name: impl Into<String>, (iterations, warm): (usize, usize)) -> Self {
        let times = Vec::with_capacity(iterations);
        Watch { name: name.into(), iterations, warm, seen: Vec::new(), last: Instant::now(), times }
    }

    /// Ends one iteration.
    fn iteration(&mut self, objects: impl FnOnce() -> Vec<i64>) {
        self.times.push(self.last.elapsed().as_secs_f64() * 1e3);
        if self.times.len() == self.warm || self.times.len() == self.iterations {
            self.seen.push((process().0, objects()));
        }
        self.last = Instant::now();
    }

    /// Reports, and returns what grew.
    fn end(mut self) -> Option<String> {
        let [(bytes, before), (at_end, after)] = &self.seen[..] else { panic!("{}: too few iterations", self.name) };
        let more = at_end - bytes;
        self.times.sort_by(f64::total_cmp);
        let at = |share: f64| self.times[((self.times.len() - 1) as f64 * share) as usize];
        println!(
            "{}: {} iterations, {:+.2} MiB since iteration {}, median {:.2} ms, p99 {:.2} ms ({:.1} times)",
            self.name,
            self.times.len(),
            more as f64 / f64::from(1 << 20),
            self.warm,
            at(0.5),
            at(0.99),
            at(0.99) / at(0.5)
        );
        if more > MORE_BYTES {
            return Some(format!("{}: {more} bytes more since iteration {}", self.name, self.warm));
        }
        (before != after).then(|| format!("{}: objects {after:?} after {before:?}", self.name))
    }
}

fn nothing(grew: Vec<String>) {
    assert!(grew.is_empty(), "{}", grew.join("\n"));
}

/// Tells a watch of every step.
struct EachStep<'w> {
    watch: &'w mut Watch,
    engine: &'w Engine,
}

impl Callback for EachStep<'_> {
    fn step_end(&mut self, _: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
        self.watch.iteration(|| objects(self.engine));
        Ok(Control::Continue)
    }
}

#[test]
fn steps_of_training_take_no_memory() {
    let _alone = alone();
    let iterations = times((10_000, 1_000), (240, 60));
    let engine = Engine::new().expect("an adapter");
    let mut grew = Vec::new();
    for name in NETS {
        for batch in [3, 4, 8, 64] {
            // The last batch of each epoch is smaller.
            let (model, config, data) = net(name, 10 * batch + 2, 1);
            let mut trainer = model.compile(&engine, config).expect("a trainer");
            let mut watch = Watch::new(format!("{name}, batch {batch}"), iterations);
            let each = EachStep { watch: &mut watch, engine: &engine };
            let fit = Fit::epochs(iterations.0).batch(batch).max_steps(iterations.0 as u64).callback(each);
            trainer.fit(&data, fit).expect("training");
            grew.extend(watch.end());
        }
    }
    nothing(grew);
}

#[test]
fn predictions_take_no_memory() {
    let _alone = alone();
    let iterations = times((25_000, 1_000), (400, 100));
    let engine = Engine::new().expect("an adapter");
    let mut grew = Vec::new();
    for name in NETS {
        let (model, _, data) = net(name, 8, 1);
        let mut inference = model.inference(&engine, Batch::up_to(8)).expect("a network");
        let mut watch = Watch::new(format!("{name}, predictions"), iterations);
        let samples: Vec<HostTensor> = (1..=8).map(|n| data.images.rows(0, n).expect("samples")).collect();
        for i in 0..iterations.0 {
            inference.predict(&samples[i % 8]).expect("a prediction");
            watch.iteration(|| objects(&engine));
        }
        grew.extend(watch.end());
    }
    nothing(grew);
}

#[test]
fn models_leave_nothing_behind() {
    let _alone = alone();
    let iterations = times((1_000, 100), (40, 16));
    let engine = Engine::new().expect("an adapter");
    let mut watch = Watch::new("models", iterations);
    for i in 0..iterations.0 {
        let (model, config, data) = net(NETS[i % 4], 4, 1 + i / 4 % 2);
        let mut trainer = model.compile(&engine, config).expect("a trainer");
        trainer.train_on_batch(&data).expect("a step");
        trainer.predict(&data.images).expect("a prediction");
        drop(trainer);
        assert_eq!(engine.allocated_bytes(), 0, "model {i}");
        watch.iteration(|| objects(&engine));
    }
    nothing(watch.end().into_iter().collect());
}

#[test]
fn engines_leave_nothing_behind() {
    let _alone = alone();
    let (engines, warm) = times((200, 20), (40, 20));
    let mut watch = Watch::new("engines", (engines, warm));
    let mut threads = Vec::new();
    for _ in 0..engines {
        let engine = Engine::new().expect("an adapter");
        let (model, config, data) = net(NETS[0], 4, 1);
        model.compile(&engine, config).expect("a trainer").train_on_batch(&data).expect("a step");
        drop(engine);
        threads.push(process().1);
        watch.iteration(Vec::new);
    }
    let grew = watch.end();
    let (early, late) = (threads[warm - 1], threads[engines - 1]);
    assert!(late <= early, "{late} threads after {early}");
    nothing(grew.into_iter().collect());
}
