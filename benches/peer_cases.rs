//! One case at a time, in a process of its own, with the numbers that other engines get.
//!
//! `cargo bench --bench peer_cases -- CASE` prints one JSON line; `list` names the cases. Inputs and weights
//! come from a hash of (seed, index) that runs over NCHW pictures, OIHW kernels and (out, in) matrices.

use anyhow::{Context, Result};
use hubel::{prelude::*, runtime::External, wgpu};
use std::time::Instant;

const CASES: [&str; 2] = ["lenet5_b64_infer", "lenet5_b64_train"];
const BATCH: usize = 64;
const MACS: f64 = 416_520.0;

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

/// A matrix hashed as (out, in); its input is a picture flattened as (c, pixels) where `channels` says so.
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

fn lenet5() -> Result<Model> {
    let mut model = Sequential::new([32, 32, 1])
        .add(Conv2D::new(6, 5).activation(Relu).name("conv1"))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(16, 5).activation(Relu).name("conv2"))
        .add(MaxPooling2D::new(2))
        .add(Flatten::new())
        .add(Dense::new(120).activation(Relu).name("fc1"))
        .add(Dense::new(84).activation(Relu).name("fc2"))
        .add(Dense::new(10).name("fc3"))
        .build()?;
    let kernels = [kernel(101, 5, 1, 6)?, kernel(102, 5, 6, 16)?];
    let matrices = [dense(103, 400, 120, 16)?, dense(104, 120, 84, 1)?, dense(105, 84, 10, 1)?];
    let mut tensors = Vec::new();
    for (name, tensor) in ["conv1", "conv2", "fc1", "fc2", "fc3"].into_iter().zip(kernels.into_iter().chain(matrices)) {
        let out = *tensor.shape().last().context("a weight has axes")?;
        tensors.push((format!("{name}/kernel"), tensor));
        tensors.push((format!("{name}/bias"), HostTensor::f32([out], vec![0.0; out])?));
    }
    model.set_weights(tensors)?;
    Ok(model)
}

fn proc_field(path: &str, find: impl Fn(&str) -> Option<f64>) -> f64 {
    std::fs::read_to_string(path).ok().and_then(|text| find(&text)).unwrap_or(f64::NAN)
}

/// User and system milliseconds of this process.
fn cpu_ms() -> f64 {
    proc_field("/proc/self/stat", |text| {
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) * 10.0)
    })
}

fn peak_rss_mib() -> f64 {
    proc_field("/proc/self/status", |text| {
        let line = text.lines().find(|l| l.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    })
}

/// Times `iterate`, whose result after three warm-up runs is the check value.
fn measure(case: &str, start: Instant, flops: f64, mut iterate: impl FnMut() -> Result<f64>) -> Result<()> {
    let budget: f64 = std::env::var("BUDGET_S").ok().and_then(|v| v.parse().ok()).unwrap_or(3.0);
    iterate()?;
    let cold_ms = start.elapsed().as_secs_f64() * 1e3;
    iterate()?;
    iterate()?;
    let (mut times, mut check) = (Vec::new(), None);
    let (run, cpu) = (Instant::now(), cpu_ms());
    while times.len() < 3 || (run.elapsed().as_secs_f64() < budget && times.len() < 200) {
        let t = Instant::now();
        let value = iterate()?;
        check.get_or_insert(value);
        times.push(t.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = (cpu_ms() - cpu) / times.len() as f64;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "{}",
        serde_json::json!({
            "bench": case, "peer": "hubel", "ms_median": median, "ms_min": times[0], "n": times.len(), "cpu_ms": cpu,
            "gflops": flops / median / 1e6, "imgs_per_s": BATCH as f64 / median * 1e3, "cold_ms": cold_ms,
            "peak_rss_mib": peak_rss_mib(), "check": check,
        })
    );
    Ok(())
}

fn infer(start: Instant) -> Result<()> {
    let engine = Engine::new()?;
    let (device, queue) = engine.wgpu().context("a device")?;
    let mut net = lenet5()?.inference(&engine, Batch::up_to(BATCH))?;
    let buffer = |bytes: usize, usage| {
        let size = bytes as u64;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let storage = wgpu::BufferUsages::STORAGE;
    let input = buffer(BATCH * 4096, storage | wgpu::BufferUsages::COPY_DST);
    let output = buffer(BATCH * 40, storage | wgpu::BufferUsages::COPY_SRC);
    let readback = buffer(BATCH * 40, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    queue.write_buffer(&input, 0, bytemuck::cast_slice(&fill(1, BATCH * 1024, 1.0)));
    measure("lenet5_b64_infer", start, 2.0 * MACS * BATCH as f64, || {
        let mut encoder = device.create_command_encoder(&Default::default());
        net.record(&mut encoder, &[External::from(&input)], &[External::from(&output)])?;
        encoder.copy_buffer_to_buffer(&output, 0, &readback, 0, readback.size());
        queue.submit([encoder.finish()]);
        readback.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let view = readback.slice(..).get_mapped_range()?;
        let sum = bytemuck::cast_slice::<u8, f32>(&view).iter().map(|v| f64::from(v.abs())).sum();
        drop(view);
        readback.unmap();
        Ok(sum)
    })
}

fn train(start: Instant) -> Result<()> {
    let engine = Engine::new()?;
    let how = Compile::new(Sgd::new(0.01), SparseCategoricalCrossentropy::new().from_logits(true));
    let mut trainer = lenet5()?.compile(&engine, how)?;
    let images = HostTensor::f32([BATCH, 32, 32, 1], fill(1, BATCH * 1024, 1.0))?;
    let labels = HostTensor::u32([BATCH], (0..BATCH as u32).map(|i| i % 10).collect())?;
    let data = Dataset::new(images, labels)?;
    measure("lenet5_b64_train", start, 6.0 * MACS * BATCH as f64, || Ok(trainer.train_on_batch(&data)?))
}

fn main() -> Result<()> {
    let start = Instant::now();
    env_logger::init();
    let case = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    match case.as_deref() {
        Some("lenet5_b64_infer") => infer(start),
        Some("lenet5_b64_train") => train(start),
        Some("list") => {
            CASES.iter().for_each(|c| println!("{c}"));
            Ok(())
        }
        // `cargo bench` and `cargo test --benches` without a case run nothing here.
        _ => Ok(()),
    }
}
