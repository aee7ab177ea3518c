//! Every operation on its benchmark samples: `cargo bench -- FILTER` runs the cases whose `operation/case` contains
//! FILTER, `--json` prints JSON lines instead of a table. `--fit` and `--assert-picks` measure all candidates, see
//! `operations/fit.rs`.
//!
//! - `HUBEL_SHAPES=FILE` adds cases of your own, one per line: `conv2d 8x56x56x64 3x3x64x128 stride=2 pad=1 groups=1`,
//!   also `conv2d_grad_input` and `conv2d_grad_weight`; `matmul 512x256 256x128`; `max_pool2d 8x112x112x64 pool=3
//!   stride=2`; `softmax 1024x1000`; a function of the elementwise table with its operands' shapes. The first extent is
//!   the batch.
//! - `HUBEL_VARIANT=op:name` uses that variant of an operation.
//! - `HUBEL_DUMP=DIR` writes each case's plan and WGSL.
//! - `HUBEL_SHADERS=DIR` runs the WGSL of `HUBEL_DUMP` from there, after comparing its results with the reference.
//!
//! Times: `gpu` by timestamps, the best of all runs, with one pass for each launch; `wall` with the upload of the
//! inputs. `roofline` is the share of what the adapter's multiply-add peak and copy bandwidth, measured first, allow.

use anyhow::{Context, Result, bail, ensure};
use hubel::{
    graph::{Candidate, DeviceProfile, Fill, Io, Sample, Step, TensorType},
    kernels,
    ops::{
        Conv2d, Conv2dGradInput, Conv2dGradWeight, Elementwise, FAMILIES, Geometry, Matmul, Pool2d, Pool2dOptions,
        Pooling,
    },
    passes::{Plan, PlanOptions, plan},
    prelude::*,
    runtime::AdapterInfo,
    tensor::{Array, Philox, Purpose, compare},
};
use std::{fs, path::PathBuf, sync::Arc, time::Instant};

#[path = "operations/fit.rs"]
mod fit;

const FORMATS: &str = "`op SHAPE… key=value…`, as the bench's first lines show";

/// The times of one case, in milliseconds.
struct Measured {
    gpu: Option<f64>,
    wall: f64,
    plan: Arc<Plan>,
    flops: f64,
    bytes: f64,
}

struct Bench {
    engine: Engine,
    variant: Option<(String, String)>,
    dump: Option<PathBuf>,
    shaders: Option<PathBuf>,
    budget_s: f64,
}

/// Returns the graph of a sample alone, and what its node gets and gives.
fn graph_of(sample: &Sample) -> Result<(Graph, Io)> {
    let mut g = Graph::new();
    let inputs: Vec<Value> = (sample.inputs.iter().enumerate())
        .map(|(i, (ty, _))| g.input(&format!("in{i}"), ty.shape.clone(), ty.dtype))
        .collect();
    let outputs = g.apply_arc(sample.op.clone(), &inputs)?;
    let io = g.io(g.node(outputs[0]));
    outputs.iter().enumerate().for_each(|(k, &v)| g.output(&format!("out{k}"), v));
    Ok((g, io))
}

/// Returns the candidates of a sample.
fn candidates(sample: &Sample, profile: &DeviceProfile) -> Result<Vec<Candidate>> {
    Ok(sample.op.lower(&graph_of(sample)?.1, profile, None))
}

impl Bench {
    fn measure(&self, name: &str, sample: &Sample) -> Result<Measured> {
        let (g, io) = graph_of(sample)?;
        let cost = sample.op.cost(&io);
        let mut options = PlanOptions::new(sample.capacity, self.engine.profile().clone());
        if let Some((op, variant)) = self.variant.as_ref().filter(|(op, _)| op == sample.op.name()) {
            let candidates = candidates(sample, self.engine.profile())?;
            let names: Vec<&str> = candidates.iter().map(|c| c.variant.as_str()).collect();
            ensure!(
                names.contains(&variant.as_str()),
                "{op} has no variant `{variant}` here, but {}",
                names.join(", ")
            );
            options.force = self.variant.clone();
        }
        let mut plan = plan(&g, &options)?;
        let file = |k: usize| format!("{}.{k}.wgsl", name.replace('/', "."));
        if let Some(folder) = &self.dump {
            fs::create_dir_all(folder)?;
            fs::write(folder.join(format!("{}.txt", name.replace('/', "."))), plan.to_string())?;
            for (k, dispatch) in plan.dispatches.iter().enumerate() {
                fs::write(folder.join(file(k)), &*dispatch.source)?;
            }
        }
        let mut replaced = false;
        for (k, dispatch) in plan.dispatches.iter_mut().enumerate() {
            let Some(path) = self.shaders.as_ref().map(|f| f.join(file(k))).filter(|p| p.exists()) else { continue };
            dispatch.source = fs::read_to_string(path)?.into();
            replaced = true;
        }
        let plan = Arc::new(plan);
        let mut session = self.engine.session(plan.clone(), &[], None)?;
        let mut step = Step::of(sample.n);
        step.scalars = [0.01; Step::N_SCALARS];
        let arrays = sample.arrays(&mut Philox::new(1, Purpose::Test, 0));
        let feeds: Vec<(String, HostTensor)> = (arrays.iter().zip(&sample.inputs).enumerate())
            .map(|(i, (a, (ty, _)))| (format!("in{i}"), a.to_host(ty.dtype)))
            .collect();
        let needed = |name: &str| plan.inputs.iter().any(|p| p.name == name);
        let feeds: Vec<(&str, &[u8])> =
            feeds.iter().filter(|(n, _)| needed(n)).map(|(n, t)| (n.as_str(), t.bytes())).collect();
        if replaced {
            let operands: Vec<&Array> = arrays.iter().collect();
            let exact = sample.op.reference(&operands, &step);
            let bounds = sample.op.bounds(&io, &operands, &exact, &step);
            session.run(&step, &feeds)?;
            for (k, (exact, bound)) in exact.iter().zip(&bounds).enumerate() {
                let got = session.read(&format!("out{k}"), sample.n)?.to_f32();
                compare(k, &got, exact, bound).with_context(|| format!("{name}: the WGSL from disk is rejected"))?;
            }
        }
        let (mut gpu, mut wall) = (None, f64::INFINITY);
        let start = Instant::now();
        for run in 0.. {
            if run > 3 && start.elapsed().as_secs_f64() > self.budget_s {
                break;
            }
            let began = Instant::now();
            session.run(&step, &feeds)?;
            session.wait()?;
            wall = f64::min(wall, began.elapsed().as_secs_f64() * 1e3);
            if let Ok(times) = session.profile(&step, &feeds) {
                let ms = times.device_ms();
                gpu = Some(gpu.map_or(ms, |best: f64| best.min(ms)));
            }
        }
        let (flops, bytes) = (cost.flops.at(sample.n) as f64, cost.bytes.at(sample.n) as f64);
        Ok(Measured { gpu, wall, plan, flops, bytes })
    }
}

fn extents(text: &str) -> Result<Vec<usize>> {
    text.split('x').map(|n| n.parse().with_context(|| format!("`{text}` is no shape"))).collect()
}

/// Returns the case of one line of `HUBEL_SHAPES`.
fn shape_case(line: &str) -> Result<(String, Sample)> {
    let mut words = line.split_whitespace();
    let op = words.next().context("an empty line")?;
    let (keys, shapes): (Vec<&str>, Vec<&str>) = words.partition(|w| w.contains('='));
    let shapes: Vec<Vec<usize>> = shapes.into_iter().map(extents).collect::<Result<_>>()?;
    let key = |name: &str, other: usize| -> Result<usize> {
        let found = keys.iter().find_map(|k| k.strip_prefix(name)?.strip_prefix('='));
        found.map_or(Ok(other), |v| v.parse().with_context(|| format!("{name}={v}")))
    };
    let known = ["stride", "pad", "dilation", "groups", "pool"];
    if let Some(odd) = keys.iter().find(|k| !known.iter().any(|n| k.starts_with(&format!("{n}=")))) {
        bail!("`{odd}`: known are {}", known.join(", "));
    }
    let n = *shapes.first().and_then(|s| s.first()).with_context(|| format!("`{line}`: wanted {FORMATS}"))?;
    let any = Fill::Uniform(-1.0, 1.0);
    let batched = |s: &[usize]| (TensorType::f32(Shape::batched(1, &s[1..])), any);
    let fixed = |s: &[usize]| (TensorType::f32(Shape::fixed(s)), any);
    let (stride, pad, dilation) = (key("stride", 1)?, key("pad", 0)?, key("dilation", 1)?);
    let options = Conv2dOptions::explicit([[pad, pad]; 2]).strides([stride; 2]).dilation([dilation; 2]);
    let options = options.groups(key("groups", 1)?);
    let sample = match (op, &shapes[..]) {
        ("conv2d", [x, w]) if x.len() == 4 && w.len() == 4 => {
            Sample::new(Conv2d { options }, vec![batched(x), fixed(w)], n)
        }
        ("conv2d_grad_input" | "conv2d_grad_weight", [x, w]) if x.len() == 4 && w.len() == 4 => {
            let geometry = Geometry::new([x[1], x[2]], [w[0], w[1]], options).context("the kernel does not fit")?;
            let dy = batched(&[n, geometry.output[0], geometry.output[1], w[3]]);
            match op {
                "conv2d_grad_input" => Sample::new(Conv2dGradInput { geometry }, vec![dy, fixed(w)], n),
                _ => Sample::new(Conv2dGradWeight { geometry, column_sums: false }, vec![batched(x), dy], n),
            }
        }
        ("matmul", [a, b]) => {
            let op = Matmul { options: Default::default(), column_sums: false };
            Sample::new(op, vec![batched(a), fixed(b)], n)
        }
        ("max_pool2d", [x]) => {
            let pool = key("pool", 2)?;
            let options = Pool2dOptions::new(pool).strides(key("stride", pool)?);
            Sample::new(Pool2d { pooling: Pooling::Max, options }, vec![batched(x)], n)
        }
        ("softmax", [x]) => Sample::new(hubel::ops::Softmax { log: false }, vec![batched(x)], n),
        (function, operands) => {
            let op = Elementwise::named(function).with_context(|| format!("wanted {FORMATS}"))?;
            Sample::new(op, operands.iter().map(|s| batched(s)).collect(), n)
        }
    };
    Ok((format!("{op}/{}", line.split_whitespace().skip(1).collect::<Vec<_>>().join("_")), sample))
}

/// Returns the cases of all operations and of `HUBEL_SHAPES` whose names have each of the filters.
fn cases(filters: &[String]) -> Result<Vec<(String, Sample)>> {
    let mut cases: Vec<(String, Sample)> = Vec::new();
    for family in FAMILIES {
        cases.extend((family.benches)().into_iter().map(|(name, s)| (format!("{}/{name}", family.name), s)));
    }
    if let Some(path) = std::env::var_os("HUBEL_SHAPES") {
        let text = fs::read_to_string(&path).with_context(|| format!("HUBEL_SHAPES={}", path.display()))?;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            cases.push(shape_case(line).with_context(|| line.to_owned())?);
        }
    }
    cases.retain(|(name, _)| filters.iter().all(|f| name.contains(f.as_str())));
    Ok(cases)
}

fn print_device(info: &AdapterInfo, [peak, copy]: [f64; 2], json: bool) {
    if json {
        let line = serde_json::json!({
            "adapter": info.name, "backend": info.backend, "driver": info.driver, "subgroup": info.subgroup_lanes,
            "f16": info.f16, "cooperative_matrix": info.cooperative_matrix, "peak_gflops": peak, "copy_gb_per_s": copy,
        });
        println!("{line}");
    } else {
        let yes = |b: bool| if b { "yes" } else { "no" };
        let [min, max] = info.subgroup_lanes;
        println!("adapter   {} ({})\nbackend   {}\ndriver    {}", info.name, info.kind, info.backend, info.driver);
        println!(
            "subgroup  {min} to {max} lanes, f16 {}, cooperative matrices {}",
            yes(info.f16),
            yes(info.cooperative_matrix)
        );
        println!("measured  {peak:.1} GFLOP/s multiply-add, {copy:.1} GB/s copy\n");
        println!(
            "{:48} {:>10} {:>10} {:>9} {:>8} {:>8}  variant",
            "case", "gpu ms", "wall ms", "GFLOP/s", "GB/s", "roofline"
        );
    }
}

fn print_case(name: &str, m: &Measured, [peak, copy]: [f64; 2], json: bool) {
    let ms = m.gpu.unwrap_or(m.wall);
    let (gflops, gbs) = (m.flops / ms / 1e6, m.bytes / ms / 1e6);
    let roofline = (m.flops / peak / 1e6).max(m.bytes / copy / 1e6) / ms;
    let mut variants: Vec<&str> = m.plan.dispatches.iter().map(|d| d.variant.as_str()).collect();
    variants.dedup();
    let passes = m.plan.dispatches.len();
    if json {
        let line = serde_json::json!({
            "case": name, "gpu_ms": m.gpu, "passes": passes, "wall_ms": m.wall, "gflops": gflops,
            "gb_per_s": gbs, "roofline": roofline, "variant": variants.join("+"),
        });
        println!("{line}");
    } else {
        let gpu = m.gpu.map_or("-".into(), |ms| format!("{ms:.3}{}", if passes > 1 { "*" } else { " " }));
        println!(
            "{name:48} {gpu:>10} {:>10.3} {gflops:>9.2} {gbs:>8.2} {:>7.0}%  {}",
            m.wall,
            100.0 * roofline,
            variants.join("+")
        );
    }
}

fn main() -> Result<()> {
    env_logger::init();
    let (flags, filters): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let json = flags.iter().any(|f| f == "--json");
    let cases = cases(&filters)?;
    // `cargo test --benches` runs nothing here; a filter may be for another target.
    if !flags.iter().any(|f| f == "--bench") && filters.is_empty() {
        return Ok(());
    }
    if cases.is_empty() {
        eprintln!("no operation's case contains {}; HUBEL_SHAPES adds cases", filters.join(" and "));
        return Ok(());
    }
    let variable = |name: &str| std::env::var(name).ok();
    let variant = match variable("HUBEL_VARIANT") {
        None => None,
        Some(text) => {
            let (op, name) = text.split_once(':').context("HUBEL_VARIANT: wanted op:name")?;
            // Words may come in any order.
            let name = name.parse().map_or(name.to_owned(), |schedule: kernels::Schedule| schedule.to_string());
            Some((op.to_owned(), name))
        }
    };
    let budget_s = variable("BUDGET_S").and_then(|s| s.parse().ok()).unwrap_or(0.5);
    let mut bench = Bench { engine: Engine::new()?, variant, dump: None, shaders: None, budget_s };
    let fit_to = |f: &String| f.strip_prefix("--fit").map(|rest| rest.strip_prefix('=').map(str::to_owned));
    if let Some(file) = flags.iter().find_map(fit_to) {
        return fit::run_fit(&mut bench, &cases, file.as_deref());
    }
    if flags.iter().any(|f| f == "--assert-picks") {
        return fit::assert_picks(&mut bench, &cases);
    }
    let limits = bench.engine.limits()?;
    let [peak, copy] = [limits.gflops, limits.gb_per_s];
    print_device(bench.engine.info(), [peak, copy], json);
    bench.dump = variable("HUBEL_DUMP").map(PathBuf::from);
    bench.shaders = variable("HUBEL_SHADERS").map(PathBuf::from);
    let mut failed = 0;
    for (name, sample) in &cases {
        let m = match bench.measure(name, sample) {
            Ok(m) => m,
            Err(e) => {
                eprintln!("{name}: {e:#}");
                failed += 1;
                continue;
            }
        };
        print_case(name, &m, [peak, copy], json);
    }
    if !json && cases.len() > failed {
        println!("\n* one pass for each of several launches");
    }
    ensure!(failed == 0, "{failed} cases could not be measured");
    Ok(())
}
