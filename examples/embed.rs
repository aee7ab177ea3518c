//! LeNet-5 inside an application: the application's device, its encoder, its buffers, no copy over the host.

use anyhow::{Context, Result};
use hubel::{data, prelude::*, runtime::External, wgpu};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");
const BATCH: usize = 16;

fn main() -> Result<()> {
    env_logger::init();
    // The application's own: an adapter, a device, a queue.
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let need = Engine::required(&adapter);
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: need.features,
        required_limits: need.limits,
        ..Default::default()
    }))?;

    // What Hubel adds: an engine on that device and a network with weights from bytes.
    let engine = Engine::from_wgpu(&adapter, &device, &queue)?;
    let mut model = models::lenet5()?;
    model.load_weights_from_bytes(&std::fs::read(format!("{ROOT}/lenet5.safetensors"))?)?;
    let mut net = model.inference(&engine, Batch::up_to(BATCH))?;

    let buffer = |floats: usize, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * floats as u64,
            usage,
            mapped_at_creation: false,
        })
    };
    let input = buffer(BATCH * 1024, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST);
    let output = buffer(BATCH * 10, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    let shown = buffer(BATCH * 10, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);

    // In an application the images come from its own passes; here from the test set.
    let test = data::mnist(format!("{ROOT}/mnist"))?.test.pad(2)?.standardize(0.1307, 0.3081);
    let rows: Vec<u32> = (0..BATCH as u32).collect();
    queue.write_buffer(&input, 0, test.rows(&rows)?.bytes());

    // One encoder for all: the application's passes before, the network, the passes after.
    let mut encoder = device.create_command_encoder(&Default::default());
    net.record(&mut encoder, &[External::from(&input)], &[External::from(&output)])?;
    encoder.copy_buffer_to_buffer(&output, 0, &shown, 0, shown.size());
    queue.submit([encoder.finish()]);

    shown.slice(..).map_async(wgpu::MapMode::Read, |_| ());
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let view = shown.slice(..).get_mapped_range()?;
    let labels = test.labels_of(&rows)?.to_f32();
    for (p, label) in bytemuck::cast_slice::<u8, f32>(&view).chunks(10).zip(labels) {
        let best = (0..10).max_by(|&a, &b| p[a].total_cmp(&p[b])).context("ten classes")?;
        println!("label {label}, read as {best} ({:.1}%)", 100.0 * p[best]);
    }
    Ok(())
}
