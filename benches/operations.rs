//! Every operation on its benchmark samples, and LeNet-5's inference and training step.

use criterion::{Criterion, Throughput};
use hubel::{
    graph::{Graph, Step},
    ops::FAMILIES,
    passes::{PlanOptions, plan},
    prelude::*,
    tensor::{Philox, Purpose},
};
use std::sync::Arc;

fn operations(c: &mut Criterion, engine: &Engine) {
    for family in FAMILIES {
        let mut group = c.benchmark_group(family.name);
        for (name, sample) in (family.benches)() {
            let mut g = Graph::new();
            let inputs: Vec<_> = (sample.inputs.iter().enumerate())
                .map(|(i, (ty, _))| g.input(&format!("in{i}"), ty.shape.clone(), ty.dtype))
                .collect();
            let outputs = g.apply_arc(sample.op.clone(), &inputs).expect("samples are valid");
            let cost = sample.op.cost(&g.io(g.node(outputs[0])));
            for (k, &v) in outputs.iter().enumerate() {
                g.output(&format!("out{k}"), v);
            }
            let options = PlanOptions::new(sample.capacity, engine.profile().clone());
            let plan = plan(&g, &options).expect("a plan");
            let mut session = engine.session(Arc::new(plan), &[], None).expect("a session");
            let arrays = sample.arrays(&mut Philox::new(1, Purpose::Test, 0));
            let feeds: Vec<(String, HostTensor)> = (arrays.iter().zip(&sample.inputs).enumerate())
                .map(|(i, (a, (ty, _)))| (format!("in{i}"), a.to_host(ty.dtype)))
                .collect();
            let feeds: Vec<(&str, &[u8])> = feeds.iter().map(|(n, t)| (n.as_str(), t.bytes())).collect();
            let step = Step::of(sample.n);
            group.throughput(match cost.flops.at(sample.n) {
                0 => Throughput::Bytes(cost.bytes.at(sample.n)),
                flops => Throughput::Elements(flops),
            });
            group.bench_function(name, |b| {
                b.iter(|| {
                    session.run(&step, &feeds).expect("a step");
                    session.wait().expect("the device answers");
                });
            });
        }
    }
}

fn lenet5(c: &mut Criterion, engine: &Engine) {
    let pixels: Vec<u8> = (0..64 * 1024).map(|i| (i * 7919 % 251) as u8).collect();
    let images = HostTensor::u8([64, 32, 32, 1], pixels).expect("pictures");
    let labels = HostTensor::u8([64], (0..64).map(|i| i % 10).collect()).expect("labels");
    let data = Dataset::new(images, labels).expect("a data set");
    let model = models::lenet5().expect("LeNet-5");
    let how = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new());
    let mut trainer = model.compile(engine, how).expect("a trainer");
    let samples = data.rows(&(0..64).collect::<Vec<_>>()).expect("rows");
    let mut net = model.inference(engine, Batch::up_to(64)).expect("an inference");
    let mut group = c.benchmark_group("lenet5");
    group.throughput(Throughput::Elements(64));
    group.bench_function("inference_b64", |b| b.iter(|| net.predict(&samples).expect("a prediction")));
    group.bench_function("training_b64", |b| b.iter(|| trainer.train_on_batch(&data).expect("a step")));
}

fn main() {
    env_logger::init();
    let engine = Engine::new().expect("benches need an adapter");
    println!("{}", engine.info());
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    operations(&mut criterion, &engine);
    lenet5(&mut criterion, &engine);
    criterion.final_summary();
}
