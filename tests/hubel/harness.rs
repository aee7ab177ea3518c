//! The test kit on the engines that tests share.

use hubel::{
    graph::{DeviceClass, DeviceProfile, Family, Graph, Sample, Step, Value},
    ops::FAMILIES,
    passes::Plan,
    runtime::Engine,
    tensor::{Array, HostTensor, Philox},
    testing,
};
use std::{
    process::Command,
    sync::{Mutex, OnceLock},
    thread,
};

pub use hubel::testing::{Failure, Run, sample_inputs, step_of};

/// Returns an engine of its own device; no adapter is a failure. With `HUBEL_GPU_KERNELS` its kernels are those of a GPU of so many
/// multiprocessors, whatever the device is.
pub fn opened() -> Engine {
    let engine = Engine::new().expect("the tests need an adapter: run tests/run, which installs a software one");
    match std::env::var("HUBEL_GPU_KERNELS").ok() {
        None => engine,
        Some(n) => with_gpu_kernels(&engine, n.parse().expect("HUBEL_GPU_KERNELS is a number of multiprocessors")),
    }
}

/// Returns an engine on the same device with the kernels of a GPU of so many multiprocessors.
pub fn with_gpu_kernels(engine: &Engine, multiprocessors: u32) -> Engine {
    engine.with_profile(DeviceProfile {
        class: DeviceClass::Gpu,
        multiprocessors,
        u64_loads: false,
        ..engine.profile().clone()
    })
}

/// One of the engines that tests share, for as long as a thread runs.
struct Lease(usize);

/// Number of threads that use each engine.
static LEASES: Mutex<[usize; MOST]> = Mutex::new([0; MOST]);

/// Most engines and threads that tests use at once.
const MOST: usize = 4;

fn processors() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get().min(MOST))
}

impl Lease {
    fn new() -> Self {
        let mut leases = LEASES.lock().expect("no thread panics here");
        let least = (0..processors()).min_by_key(|&engine| leases[engine]).unwrap_or(0);
        leases[least] += 1;
        Lease(least)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Ok(mut leases) = LEASES.lock() {
            leases[self.0] -= 1;
        }
    }
}

/// Returns the engine of this thread, one of as many as there are processors: a software device compiles its kernels on one thread.
pub fn engine() -> &'static Engine {
    static ENGINES: [OnceLock<Engine>; MOST] = [const { OnceLock::new() }; MOST];
    thread_local!(static LEASE: Lease = Lease::new());
    LEASE.with(|lease| ENGINES[lease.0].get_or_init(opened))
}

/// Counts wgpu's live objects of an engine's device.
pub fn objects(engine: &Engine) -> [isize; 4] {
    let hal = engine.wgpu().expect("a device").0.get_internal_counters().hal;
    let counts =
        [&hal.buffers, &hal.bind_groups, &hal.compute_pipelines, &hal.memory_allocations].map(|counter| counter.read());
    assert!(counts[0] > 0, "wgpu counts nothing");
    counts
}

/// Calls `check` for every family, on as many threads as there are processors.
pub fn each_family(check: impl Fn(&Engine, &'static Family) -> Result<(), Failure> + Sync) {
    let (rest, failed) = (Mutex::new(families()), Mutex::new(Vec::new()));
    let next = || rest.lock().expect("no thread panics here").next();
    thread::scope(|scope| {
        for _ in 0..processors() {
            scope.spawn(|| {
                while let Some(family) = next() {
                    if let Err(Failure(text)) = check(engine(), family) {
                        failed.lock().expect("no thread panics here").push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics here");
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// Returns the families under test: all, or those that `HUBEL_OPERATIONS` names.
pub fn families() -> impl Iterator<Item = &'static Family> + Send {
    let named = std::env::var("HUBEL_OPERATIONS").unwrap_or_default();
    let unknown = named.split_whitespace().find(|n| FAMILIES.iter().all(|f| f.name != *n));
    assert!(unknown.is_none(), "HUBEL_OPERATIONS: no operation `{}`", unknown.unwrap_or_default());
    FAMILIES.iter().copied().filter(move |f| named.is_empty() || named.split_whitespace().any(|n| n == f.name))
}

pub fn plan_for(graph: &Graph, capacity: usize, run: &Run) -> Plan {
    testing::plan_for(engine(), graph, capacity, run).expect("the graph has a plan")
}

pub fn run_graph(
    graph: &Graph,
    feeds: &[(String, HostTensor)],
    step: &Step,
    capacity: usize,
    run: &Run,
) -> Result<Vec<HostTensor>, Failure> {
    testing::run_graph(engine(), graph, feeds, step, capacity, run)
}

pub fn sample_graph(sample: &Sample) -> (Graph, Vec<Value>, Vec<Value>) {
    testing::sample_graph(sample).expect("samples are valid")
}

pub fn check_sample(sample: &Sample, rng: &mut Philox, run: &Run) -> Result<(), Failure> {
    testing::check_sample(engine(), sample, rng, run)
}

pub fn reference(graph: &Graph, feeds: &[(String, Array)], step: &Step) -> Vec<Array> {
    testing::reference(graph, feeds, step).expect("every input has a value")
}

/// Returns what another test prints as `bits …`, run in a separate process with this number of driver threads.
pub fn bits_printed_by(test: &str, threads: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test has a file"));
    command.args(["--exact", test, "--nocapture"]);
    if let Some(threads) = threads {
        command.env("LP_NUM_THREADS", threads);
    }
    let out = command.output().expect("the test runs itself");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let at = text.find("bits ").unwrap_or_else(|| panic!("no bits in {text}"));
    text[at..at + 21].to_owned()
}
