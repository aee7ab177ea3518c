//! Plans for GPUs that are not here: launches, serial tails and estimated times.

use crate::networks::build;
use hubel::{
    graph::{DeviceClass, DeviceProfile},
    kernels::max_iterations,
    losses::SparseCategoricalCrossentropy,
    nn::models::{Options, find},
    optimizers::Adam,
    passes::{GpuSpec, Plan, PlannedDispatch},
    prelude::*,
};

fn h100() -> GpuSpec {
    GpuSpec::find("h100").expect("it is known")
}

fn model(name: &str) -> Model {
    build(find(name).expect("a network"), &Options::default())
}

/// Returns a trainer with Adam, and a sample for it.
fn trainer(name: &str, engine: &Engine) -> (Trainer, Dataset) {
    let model = model(name);
    let compile = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new());
    let trainer = model.compile(engine, compile).expect("it compiles");
    let shape = model.input_shape().at(1);
    let image = HostTensor::f32(shape.clone(), vec![0.0; shape.iter().product()]).expect("an image");
    let data = Dataset::new(image, HostTensor::u32([1], vec![0]).expect("a label")).expect("a data set");
    (trainer, data)
}

/// Returns the plan of a training step.
fn training(name: &str, batch: usize) -> Plan {
    training_on(&h100(), name, batch)
}

fn training_on(gpu: &GpuSpec, name: &str, batch: usize) -> Plan {
    let (trainer, data) = trainer(name, &Engine::without_device(gpu.profile()));
    trainer.plan_for(&data, batch).expect("a plan")
}

fn inference(name: &str) -> Plan {
    let engine = Engine::without_device(h100().profile());
    model(name).inference(&engine, hubel::tensor::Batch::up_to(1)).expect("it is valid").plan().expect("a plan")
}

fn milliseconds(plan: &Plan) -> f64 {
    plan.estimate(&h100()).iter().sum::<f64>() / 1e6
}

/// Returns the iterations of the longest invocation of a launch.
fn iterations(d: &PlannedDispatch, capacity: usize) -> u64 {
    max_iterations(&d.dispatch(), capacity, 65_535).expect("loops end")
}

#[test]
fn plans_for_gpus_have_few_launches_and_move_no_more_and_take_no_more_time_than_estimated() {
    let trained = [
        ("LeNet5", 64, 19, 0.015, 0.145),
        ("ResNet50", 32, 270, 16.9, 19.0),
        ("MobileNetV2", 32, 235, 8.3, 5.05),
        ("DenseNet121", 32, 675, 22.4, 20.4),
    ];
    for (name, batch, launches, gigabytes, ms) in trained {
        let plan = training(name, batch);
        let (n, estimated) = (plan.dispatches.len(), milliseconds(&plan));
        let moved = plan.bytes_moved() as f64 / 1e9;
        assert!(
            n <= launches && moved <= gigabytes && estimated <= ms,
            "{name}: {n} launches, {moved:.3} GB, {estimated:.3} ms"
        );
    }
    for (name, launches, ms) in [("ResNet50", 56, 0.75), ("EfficientNetB0", 104, 0.75), ("MobileNetV2", 55, 0.35)] {
        let plan = inference(name);
        let (n, estimated) = (plan.dispatches.len(), milliseconds(&plan));
        assert!(n <= launches && estimated <= ms, "{name}: {n} launches, {estimated:.3} ms");
    }
}

#[test]
fn steps_on_a_gpu_of_little_bandwidth_take_no_more_time_and_move_no_more_than_estimated() {
    let gpu = GpuSpec::find("rtx4060").expect("it is known");
    for (name, gigabytes, ms) in [("ResNet50", 16.1, 97.5), ("MobileNetV2", 8.1, 38.0)] {
        let plan = training_on(&gpu, name, 32);
        let estimated = plan.estimate(&gpu).iter().sum::<f64>() / 1e6;
        let moved = plan.bytes_moved() as f64 / 1e9;
        assert!(moved <= gigabytes && estimated <= ms, "{name}: {moved:.2} GB, {estimated:.2} ms");
    }
}

#[test]
fn convolutions_of_one_sample_give_every_multiprocessor_of_a_large_gpu_work() {
    for name in ["ResNet50", "VGG16"] {
        let plan = inference(name);
        let launches = plan.dispatches.iter().flat_map(PlannedDispatch::launches);
        let convolutions: Vec<&PlannedDispatch> =
            launches.filter(|d| d.kernel == "conv2d" && d.flops > 50_000_000).collect();
        assert!(convolutions.len() > 10, "{name}: {} convolutions", convolutions.len());
        for d in convolutions {
            let groups: u32 = d.grid.at(1, 65_535).iter().product();
            assert!(groups >= h100().profile().multiprocessors, "{name}, {}: {groups} workgroups", d.node);
        }
    }
}

#[test]
fn no_invocation_of_a_training_step_on_a_gpu_goes_on_alone() {
    let mut found = Vec::new();
    for (name, batch) in [("LeNet5", 64), ("ResNet50", 32), ("MobileNetV2", 32)] {
        let plan = training(name, batch);
        for d in plan.dispatches.iter().flat_map(PlannedDispatch::launches) {
            let [groups, _] = d.grid.at(batch, u32::MAX);
            let iterations = iterations(d, batch);
            if groups < 64 && iterations > 64 {
                found.push(format!("{name} {} {}: {iterations} iterations of {groups} workgroups", d.node, d.kernel));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn each_convolution_has_its_candidates_and_their_scores_and_why_the_others_are_not_taken() {
    let cpu = DeviceProfile { subgroup_lanes: 8, u64_loads: true, ..DeviceProfile::portable(DeviceClass::Cpu) };
    for (profile, train) in [(h100().profile(), false), (h100().profile(), true), (cpu, false)] {
        let class = profile.class;
        let engine = Engine::without_device(profile);
        let choices = if train {
            let (trainer, data) = trainer("MobileNetV2", &engine);
            trainer.choices_for(&data, 8)
        } else {
            model("MobileNetV2").inference(&engine, Batch::up_to(8)).expect("it is valid").choices()
        };
        let choices = choices.expect("choices");
        let convolutions = choices.iter().filter(|c| c.op.starts_with("conv2d"));
        assert!(convolutions.count() >= if train { 3 * 52 - 1 } else { 52 }, "{}", choices.len());
        for choice in &choices {
            assert_eq!(choice.considered.iter().filter(|c| c.taken).count(), 1, "{choice}");
            let taken = &choice.considered[0];
            assert!(taken.taken && taken.why == "taken", "{choice}");
            assert!(choice.considered.iter().all(|c| !c.why.is_empty() && !c.variant.is_empty()), "{choice}");
            for other in choice.considered[1..].iter().filter(|c| c.score.is_some()) {
                let slower = other.score >= taken.score;
                assert!(slower == other.why.starts_with("estimated to take"), "{choice}");
            }
        }
        let text: String = choices.iter().map(ToString::to_string).collect();
        let known = match class {
            DeviceClass::Cpu => "the weights do not fit a uniform buffer",
            DeviceClass::Gpu => "it needs subgroups of eight lanes",
        };
        assert!(text.contains(known) && text.contains("each channel has a filter of its own"), "{text}");
        assert_eq!(text.contains("it cannot do what is fused into it"), train, "{class:?}");
    }
}
