//! One case at a time, in a process of its own, with the numbers that other engines get.
//!
//! `cargo bench --bench peer_cases -- CASE` prints one JSON line; `list` names the cases. Inputs and weights
//! come from a hash of (seed, index) that runs over NCHW images, OIHW kernels and (out, in) matrices.
//!
//! `check` is Σ|y|, backward Σ|gradients| for an output gradient of ones; `check2` is Σ y·fill(seed 9), backward
//! Σ|gradients| for the output gradient fill(seed 10). Of training they are the losses of the fourth and the second
//! step.

use anyhow::{Context, Result};
use hubel::{
    cli::cpu_ms,
    graph::Step,
    layers::*,
    ops::Pool2dOptions,
    passes::{Layout, PlanOptions, plan},
    prelude::*,
    runtime::{External, Session},
    wgpu,
};
use std::{sync::Arc, time::Instant};

/// n, channels, side, filters, kernel, stride, padding, groups.
const CONVOLUTIONS: [(&str, [usize; 8]); 5] = [
    ("conv3x3_n8_c64_56", [8, 64, 56, 64, 3, 1, 1, 1]),
    ("conv7x7s2_n8_c3_224", [8, 3, 224, 64, 7, 2, 3, 1]),
    ("conv3x3_n8_c256_14", [8, 256, 14, 256, 3, 1, 1, 1]),
    ("conv1x1_n8_c256_k64_56", [8, 256, 56, 64, 1, 1, 0, 1]),
    ("dwconv3x3_n8_c32_112", [8, 32, 112, 32, 3, 1, 1, 32]),
];
const MATRICES: [(&str, usize); 3] = [("matmul_256", 256), ("matmul_512", 512), ("matmul_1024", 1024)];
const OTHERS: [&str; 9] = [
    "maxpool2_n8_c64_112_fwd",
    "maxpool2_n8_c64_112_fwdbwd",
    "bn_train_n8_c64_56_fwdbwd",
    "softmax_1024x1000",
    "lenet5_b64_infer",
    "lenet5_b64_train",
    "resnet18c_b32_infer",
    "resnet18c_b32_train",
    "resnet50_b1_infer",
];

/// Values in [-scale, scale).
fn fill(seed: u32, len: usize, scale: f32) -> Vec<f32> {
    let base = seed.wrapping_mul(0x9E37_79B9);
    let value = |i: u32| {
        let mut h = i.wrapping_add(base);
        h ^= h >> 16;
        h = h.wrapping_mul(0x7feb_352d);
        h ^= h >> 15;
        h = h.wrapping_mul(0x846c_a68b);
        h ^= h >> 16;
        ((h >> 8) as f32 / 8_388_608.0 - 1.0) * scale
    };
    (0..len as u32).map(value).collect()
}

fn he(fan_in: usize) -> f32 {
    (6.0 / fan_in as f32).sqrt()
}

/// A kernel hashed as (out, in, kh, kw), stored as (kh, kw, in, out).
fn kernel(seed: u32, k: usize, ic: usize, oc: usize) -> Result<HostTensor> {
    let hashed = fill(seed, k * k * ic * oc, he(k * k * ic));
    let mut data = vec![0.0; hashed.len()];
    for (i, v) in hashed.into_iter().enumerate() {
        let (o, rest) = (i / (ic * k * k), i % (ic * k * k));
        let (c, tap) = (rest / (k * k), rest % (k * k));
        data[(tap * ic + c) * oc + o] = v;
    }
    Ok(HostTensor::f32([k, k, ic, oc], data)?)
}

/// A matrix hashed as (out, in); its input is an image flattened as (c, pixels) where `channels` says so.
fn dense(seed: u32, input: usize, output: usize, channels: usize) -> Result<HostTensor> {
    let hashed = fill(seed, input * output, he(input));
    let pixels = input / channels;
    let mut data = vec![0.0; hashed.len()];
    for (i, v) in hashed.into_iter().enumerate() {
        let (o, from) = (i / input, i % input);
        let to = (from % pixels) * channels + from / pixels;
        data[to * output + o] = v;
    }
    Ok(HostTensor::f32([input, output], data)?)
}

fn proc_field(path: &str, find: impl Fn(&str) -> Option<f64>) -> f64 {
    std::fs::read_to_string(path).ok().and_then(|text| find(&text)).unwrap_or(f64::NAN)
}

fn peak_rss_mib() -> f64 {
    proc_field("/proc/self/status", |text| {
        let line = text.lines().find(|l| l.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    })
}

/// The timed step.
struct Case {
    graph: Graph,
    n: usize,
    /// Inputs in device memory.
    inputs: Vec<(String, HostTensor)>,
    /// Weights in device memory.
    weights: Vec<(String, HostTensor)>,
    flops: f64,
    images: usize,
    /// Whether `dy` is the output gradient.
    backward: bool,
}

impl Case {
    fn new(n: usize) -> Self {
        let graph = Graph::new();
        Case { graph, n, inputs: Vec::new(), weights: Vec::new(), flops: 0.0, images: 0, backward: false }
    }

    /// An input of (n, sample…).
    fn input(&mut self, name: &str, tensor: HostTensor) -> Value {
        let value = self.graph.input(name, Shape::batched(1, &tensor.shape()[1..]), tensor.dtype());
        self.inputs.push((name.into(), tensor));
        value
    }

    fn weight(&mut self, name: &str, tensor: HostTensor) -> Value {
        let value = self.graph.parameter(name, tensor.shape(), Zeros);
        self.weights.push((name.into(), tensor));
        value
    }

    /// Makes `y` the result, or the gradients of Σ y·dy to `wrt`.
    fn result(mut self, y: Value, backward: Option<&[Value]>) -> Result<Self> {
        self.graph.output("y", y);
        if let Some(wrt) = backward {
            self.backward = true;
            self.flops *= 3.0;
            let shape = self.graph.shape(y).at(self.n);
            let ones = HostTensor::f32(shape.clone(), vec![1.0; shape.iter().product()])?;
            let dy = self.input("dy", ones);
            let product = self.graph.mul(y, dy)?;
            let axes: Vec<usize> = (0..shape.len()).collect();
            let loss = self.graph.sum(product, &axes, false)?;
            for (i, d) in self.graph.gradients(loss, wrt)?.into_iter().enumerate() {
                self.graph.output(&format!("d{i}"), d);
            }
        }
        Ok(self)
    }

    fn session(&self, engine: &Engine, external: bool) -> Result<Session> {
        let tensors = self.weights.iter().map(|(name, t)| (name.clone(), hubel::graph::TensorType::f32(t.shape())));
        let layout = Arc::new(Layout::new(tensors, engine.profile().max_binding_bytes));
        let store = engine.store(layout.clone())?;
        for (name, tensor) in &self.weights {
            store.write(name, tensor)?;
        }
        let mut options = PlanOptions::new(self.n, engine.profile().clone());
        options.layouts = vec![&layout];
        if external {
            options.external_inputs = self.inputs.iter().map(|(name, _)| name.clone()).collect();
            options.external_outputs = self.graph.outputs().iter().map(|(name, _)| name.clone()).collect();
        }
        let plan = plan(&self.graph, &options)?;
        log::debug!("{plan}");
        Ok(engine.session(Arc::new(plan), &[store], None)?)
    }
}

/// Returns NHWC data in the order of NCHW.
fn to_nchw(data: &[f32], shape: &[usize]) -> Vec<f32> {
    let &[n, h, w, c] = shape else { return data.to_vec() };
    let mut out = Vec::with_capacity(data.len());
    for (i, k, p) in (0..n).flat_map(|i| (0..c).flat_map(move |k| (0..h * w).map(move |p| (i, k, p)))) {
        out.push(data[(i * h * w + p) * c + k]);
    }
    out
}

/// An image hashed as NCHW, stored as NHWC.
fn image(seed: u32, [n, h, w, c]: [usize; 4]) -> Result<HostTensor> {
    let hashed = fill(seed, n * h * w * c, 1.0);
    let mut data = Vec::with_capacity(hashed.len());
    for (i, p, k) in (0..n).flat_map(|i| (0..h * w).flat_map(move |p| (0..c).map(move |k| (i, p, k)))) {
        data.push(hashed[(i * c + k) * h * w + p]);
    }
    Ok(HostTensor::f32([n, h, w, c], data)?)
}

fn operation(name: &str) -> Result<Option<Case>> {
    let backward = name.ends_with("_fwdbwd");
    let stem = name.trim_end_matches("_fwdbwd").trim_end_matches("_fwd");
    if let Some(&(_, [n, c, side, k, r, s, p, g])) = CONVOLUTIONS.iter().find(|(known, _)| *known == stem) {
        let mut case = Case::new(n);
        let out = (side + 2 * p - r) / s + 1;
        case.flops = 2.0 * (n * k * out * out * (c / g) * r * r) as f64;
        let x = case.input("x", image(1, [n, side, side, c])?);
        let w = case.weight("w", kernel(2, r, c / g, k)?);
        let options = Conv2dOptions::explicit([[p, p]; 2]).strides([s, s]).groups(g);
        let y = case.graph.conv2d(x, w, options)?;
        return Ok(Some(case.result(y, backward.then_some(&[x, w]))?));
    }
    if let Some(&(_, m)) = MATRICES.iter().find(|(known, _)| *known == name) {
        // Matrices of fixed sizes: no axis is a batch.
        let mut case = Case::new(1);
        case.flops = 2.0 * (m as f64).powi(3);
        let a = case.weight("a", HostTensor::f32([m, m], fill(1, m * m, 1.0))?);
        let b = case.weight("b", HostTensor::f32([m, m], fill(2, m * m, 1.0))?);
        let y = case.graph.matmul(a, b)?;
        return Ok(Some(case.result(y, None)?));
    }
    Ok(Some(match stem {
        "softmax_1024x1000" => {
            let mut case = Case::new(1024);
            let x = case.input("x", HostTensor::f32([1024, 1000], fill(1, 1_024_000, 4.0))?);
            let y = case.graph.softmax(x)?;
            case.result(y, None)?
        }
        "maxpool2_n8_c64_112" => {
            let mut case = Case::new(8);
            let x = case.input("x", image(1, [8, 112, 112, 64])?);
            let y = case.graph.max_pool2d(x, Pool2dOptions::new(2))?;
            case.result(y, backward.then_some(&[x]))?
        }
        "bn_train_n8_c64_56" => {
            let mut case = Case::new(8);
            let x = case.input("x", image(1, [8, 56, 56, 64])?);
            let factor = case.input("factor", image(2, [8, 56, 56, 64])?);
            let channel = |v: f32| HostTensor::f32([64], vec![v; 64]);
            let (gamma, beta) = (case.weight("gamma", channel(1.0)?), case.weight("beta", channel(0.0)?));
            let [y, ..] = case.graph.batch_norm(x, gamma, beta, 1e-5)?;
            let y = case.graph.mul(y, factor)?;
            case.result(y, Some(&[x]))?
        }
        _ => return Ok(None),
    }))
}

/// A network built layer by layer; parameters take their seeds in the order of construction.
struct Net {
    case: Case,
    seed: u32,
    training: bool,
    trained: Vec<Value>,
}

impl Net {
    fn weight(&mut self, tensor: HostTensor) -> Value {
        let value = self.case.weight(&format!("w{}", self.case.weights.len()), tensor);
        self.trained.push(value);
        value
    }

    fn constant(&mut self, channels: usize, value: f32) -> Result<Value> {
        Ok(self.weight(HostTensor::f32([channels], vec![value; channels])?))
    }

    fn conv(&mut self, x: Value, k: usize, filters: usize, stride: usize, pad: usize) -> Result<Value> {
        self.seed += 1;
        let c = self.case.graph.shape(x).last();
        let w = self.weight(kernel(self.seed, k, c, filters)?);
        let y = self.case.graph.conv2d(x, w, Conv2dOptions::explicit([[pad, pad]; 2]).strides([stride, stride]))?;
        let positions: usize = self.case.graph.shape(y).dims()[1..3].iter().product();
        self.case.flops += 2.0 * (self.case.n * positions * filters * c * k * k) as f64;
        Ok(y)
    }

    fn norm(&mut self, x: Value) -> Result<Value> {
        let c = self.case.graph.shape(x).last();
        let (gamma, beta) = (self.constant(c, 1.0)?, self.constant(c, 0.0)?);
        if self.training {
            return Ok(self.case.graph.batch_norm(x, gamma, beta, 1e-5)?[0]);
        }
        let (mean, variance) = (self.constant(c, 0.0)?, self.constant(c, 1.0)?);
        Ok(self.case.graph.batch_norm_inference(x, [gamma, beta, mean, variance], 1e-5)?)
    }

    fn relu(&mut self, x: Value) -> Result<Value> {
        Ok(self.case.graph.relu(x)?)
    }

    /// `channels` says that the input is an image flattened as (h, w, channels).
    fn dense(&mut self, x: Value, units: usize, channels: usize) -> Result<Value> {
        self.seed += 1;
        let inputs = self.case.graph.shape(x).last();
        let w = self.weight(dense(self.seed, inputs, units, channels)?);
        let b = self.constant(units, 0.0)?;
        self.case.flops += 2.0 * (self.case.n * inputs * units) as f64;
        let y = self.case.graph.matmul(x, w)?;
        Ok(self.case.graph.add(y, b)?)
    }

    fn lenet5(&mut self, x: Value) -> Result<Value> {
        let mut y = x;
        for filters in [6, 16] {
            y = self.conv(y, 5, filters, 1, 0)?;
            let bias = self.constant(filters, 0.0)?;
            y = self.case.graph.add(y, bias)?;
            y = self.relu(y)?;
            y = self.case.graph.max_pool2d(y, Pool2dOptions::new(2))?;
        }
        y = self.case.graph.reshape(y, [Batch, 400])?;
        for (units, channels) in [(120, 16), (84, 1)] {
            y = self.dense(y, units, channels)?;
            y = self.relu(y)?;
        }
        self.dense(y, 10, 1)
    }

    /// Two 3×3 convolutions, or a bottleneck.
    fn block(&mut self, x: Value, c: usize, stride: usize, bottleneck: bool) -> Result<Value> {
        let out = if bottleneck { 4 * c } else { c };
        let steps = match bottleneck {
            true => vec![(1, c, 1, 0), (3, c, stride, 1), (1, out, 1, 0)],
            false => vec![(3, c, stride, 1), (3, c, 1, 1)],
        };
        let mut y = x;
        for (i, (k, filters, stride, pad)) in steps.into_iter().enumerate() {
            y = if i > 0 { self.relu(y)? } else { y };
            y = self.conv(y, k, filters, stride, pad)?;
            y = self.norm(y)?;
        }
        let mut skip = x;
        if stride > 1 || self.case.graph.shape(x).last() != out {
            skip = self.conv(x, 1, out, stride, 0)?;
            skip = self.norm(skip)?;
        }
        let sum = self.case.graph.add(y, skip)?;
        self.relu(sum)
    }

    fn resnet(&mut self, x: Value, blocks: [usize; 4], bottleneck: bool) -> Result<Value> {
        let mut y = match bottleneck {
            true => self.conv(x, 7, 64, 2, 3)?,
            false => self.conv(x, 3, 64, 1, 1)?,
        };
        y = self.norm(y)?;
        y = self.relu(y)?;
        if bottleneck {
            let options = Pool2dOptions::new(3).strides(2).padding(Padding::Explicit([[1, 1]; 2]));
            y = self.case.graph.max_pool2d(y, options)?;
        }
        for (stage, n) in blocks.into_iter().enumerate() {
            for i in 0..n {
                y = self.block(y, 64 << stage, if i == 0 && stage > 0 { 2 } else { 1 }, bottleneck)?;
            }
        }
        let features = self.case.graph.mean_axes(y, &[1, 2], false)?;
        self.dense(features, if bottleneck { 1000 } else { 10 }, 1)
    }
}

fn network(name: &str) -> Result<Option<Case>> {
    let training = name.ends_with("_train");
    let (n, [side, channels]) = match name {
        "lenet5_b64_infer" | "lenet5_b64_train" => (64, [32, 1]),
        "resnet18c_b32_infer" | "resnet18c_b32_train" => (32, [32, 3]),
        "resnet50_b1_infer" => (1, [224, 3]),
        _ => return Ok(None),
    };
    let mut net = Net { case: Case::new(n), seed: 100, training, trained: Vec::new() };
    net.case.images = n;
    let x = net.case.input("x", image(1, [n, side, side, channels])?);
    let logits = match name.split('_').next() {
        Some("lenet5") => net.lenet5(x)?,
        Some("resnet18c") => net.resnet(x, [2, 2, 2, 2], false)?,
        _ => net.resnet(x, [3, 4, 6, 3], true)?,
    };
    let mut case = net.case;
    if !training {
        return Ok(Some(case.result(logits, None)?));
    }
    case.flops *= 3.0;
    let labels = case.input("labels", HostTensor::u32([n], (0..n as u32).map(|i| i % 10).collect())?);
    let g = &mut case.graph;
    let losses = g.softmax_cross_entropy(logits, labels)?;
    let loss = g.mean(losses)?;
    g.output("loss", loss);
    let gradients = g.gradients(loss, &net.trained)?;
    let new = g.sgd(&net.trained, &gradients, &[], 0.0, false)?;
    for (&state, new) in net.trained.iter().zip(new) {
        g.update(state, new);
    }
    Ok(Some(case))
}

/// Times `iterate`, which gets the number of the run; there are three warm-up runs.
fn measure(
    name: &str,
    start: Instant,
    case: &Case,
    mut iterate: impl FnMut(usize) -> Result<()>,
) -> Result<serde_json::Value> {
    let budget: f64 = std::env::var("BUDGET_S").ok().and_then(|v| v.parse().ok()).unwrap_or(3.0);
    iterate(0)?;
    let cold_ms = start.elapsed().as_secs_f64() * 1e3;
    iterate(1)?;
    iterate(2)?;
    let mut times = Vec::new();
    let (run, cpu) = (Instant::now(), cpu_ms().unwrap_or(0.0));
    while times.len() < 3 || (run.elapsed().as_secs_f64() < budget && times.len() < 200) {
        let t = Instant::now();
        iterate(3 + times.len())?;
        times.push(t.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = (cpu_ms().unwrap_or(0.0) - cpu) / times.len() as f64;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    Ok(serde_json::json!({
        "bench": name, "peer": "hubel", "ms_median": median, "ms_min": times[0], "n": times.len(), "cpu_ms": cpu,
        "gflops": case.flops / median / 1e6, "gflop_per_cpu_s": case.flops / cpu / 1e6,
        "imgs_per_s": case.images as f64 / median * 1e3, "cold_ms": cold_ms, "peak_rss_mib": peak_rss_mib(),
    }))
}

fn train(name: &str, start: Instant, engine: &Engine, case: &Case) -> Result<serde_json::Value> {
    let mut session = case.session(engine, false)?;
    let feeds: Vec<(&str, &[u8])> = case.inputs.iter().map(|(name, t)| (name.as_str(), t.bytes())).collect();
    let mut step = Step::of(case.n);
    step.scalars[0] = 0.01;
    let mut losses = Vec::new();
    let mut line = measure(name, start, case, |i| {
        session.run(&step, &feeds)?;
        if i < 4 {
            losses.push(session.read("loss", 1)?.to_f32()[0]);
        }
        Ok(session.wait()?)
    })?;
    line["check"] = losses[3].into();
    line["check2"] = losses[1].into();
    Ok(line)
}

fn run(name: &str, start: Instant, engine: &Engine, case: &Case) -> Result<serde_json::Value> {
    let mut session = case.session(engine, true)?;
    let (device, queue) = engine.wgpu().context("a device")?;
    let buffer = |bytes: u64| {
        use wgpu::BufferUsages as Usage;
        let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
        let size = bytes.next_multiple_of(4);
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let (inputs, outputs) = (session.plan().inputs.clone(), session.plan().outputs.clone());
    let buffers: Vec<wgpu::Buffer> = inputs.iter().chain(&outputs).map(|port| buffer(port.range.bytes)).collect();
    for (port, buffer) in inputs.iter().zip(&buffers) {
        let (_, tensor) = case.inputs.iter().find(|(name, _)| *name == port.name).context("an input")?;
        queue.write_buffer(buffer, 0, tensor.bytes());
    }
    let mut iterate = |_| {
        let mut encoder = device.create_command_encoder(&Default::default());
        let externals: Vec<External> = buffers.iter().map(External::from).collect();
        session.record(&mut encoder, case.n, &externals)?;
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(())
    };
    let mut line = measure(name, start, case, &mut iterate)?;
    let read = |i: usize| -> Result<Vec<f32>> {
        let from = &buffers[inputs.len() + i];
        let to = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: from.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, 0, &to, 0, from.size());
        queue.submit([encoder.finish()]);
        to.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(bytemuck::cast_slice(&to.slice(..).get_mapped_range()?).to_vec())
    };
    let gradients: Vec<usize> = (0..outputs.len()).filter(|&i| (outputs[i].name == "y") != case.backward).collect();
    let sum = || -> Result<f64> {
        gradients.iter().map(|&i| Ok(read(i)?.iter().map(|v| f64::from(v.abs())).sum::<f64>())).sum()
    };
    line["check"] = sum()?.into();
    if case.backward {
        let i = inputs.iter().position(|p| p.name == "dy").context("an output gradient")?;
        let shape: [usize; 4] = inputs[i].ty.shape.at(case.n).try_into().ok().context("an image")?;
        queue.write_buffer(&buffers[i], 0, image(10, shape)?.bytes());
        iterate(0)?;
        line["check2"] = sum()?.into();
    } else {
        let y = to_nchw(&read(0)?, &outputs[0].ty.shape.at(case.n));
        let weights = fill(9, y.len(), 1.0);
        line["check2"] = y.iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum::<f64>().into();
    }
    Ok(line)
}

fn main() -> Result<()> {
    let start = Instant::now();
    env_logger::init();
    // `cargo bench` and `cargo test --benches` without a case run nothing here.
    let Some(name) = std::env::args().skip(1).find(|a| !a.starts_with('-')) else { return Ok(()) };
    if name == "list" {
        CONVOLUTIONS.iter().for_each(|(case, _)| println!("{case}_fwd\n{case}_fwdbwd"));
        MATRICES.iter().map(|m| m.0).chain(OTHERS).for_each(|case| println!("{case}"));
        return Ok(());
    }
    let case = match operation(&name)? {
        Some(case) => case,
        None => match network(&name)? {
            Some(case) => case,
            // A filter for another target.
            None => return Ok(()),
        },
    };
    let engine = Engine::new()?;
    let line = if name.ends_with("_train") {
        train(&name, start, &engine, &case)?
    } else {
        run(&name, start, &engine, &case)?
    };
    println!("{line}");
    Ok(())
}
