//! How many launches layers take: held on plans, which need no device.

use crate::harness::{Run, plan_for, run_graph};
use hubel::{
    graph::{DeviceClass, DeviceProfile, Graph, Step, Value},
    nn::{
        Mode,
        blocks::{residual, squeeze_excite},
    },
    passes::{Layout, Plan, PlanOptions, plan},
    prelude::*,
    tensor::{Philox, Purpose},
};

/// Returns the plan of a model; in training with the gradients of the mean square of its output to all weights.
fn plan_of(model: &Model, mode: Mode, profile: &DeviceProfile) -> Plan {
    let mut g = Graph::new();
    let inputs: Vec<Value> =
        model.inputs().iter().map(|(name, ty)| g.input(name, ty.shape.clone(), ty.dtype)).collect();
    let built = model.assemble(&mut g, &inputs, mode).expect("the model is valid");
    let y = built.outputs[0];
    if mode == Mode::Inference {
        g.output("y", y);
    } else {
        let square = g.mul(y, y).expect("equal shapes");
        let loss = g.mean(square).expect("a mean");
        let weights: Vec<Value> = built.weights.iter().filter(|w| w.trainable).map(|w| w.value).collect();
        for (i, d) in g.gradients(loss, &weights).expect("gradients").into_iter().enumerate() {
            g.output(&format!("d{i}"), d);
        }
    }
    let types = built.weights.iter().map(|w| (w.name.clone(), g.ty(w.value).clone()));
    let layout = Layout::new(types, 64 << 20);
    plan(&g, &PlanOptions { layouts: vec![&layout], ..PlanOptions::new(8, profile.clone()) }).expect("a plan")
}

fn profiles() -> [DeviceProfile; 2] {
    [DeviceClass::Gpu, DeviceClass::Cpu].map(DeviceProfile::portable)
}

/// Returns the model of one input that `build` makes.
fn model(shape: impl Into<Vec<usize>>, build: impl FnOnce(&Tensor) -> Result<Tensor, LayerError>) -> Model {
    let x = Input::new(shape);
    let y = build(&x).expect("the layers fit");
    Model::new(&[x], &[y]).expect("a model")
}

/// Returns the kernels of a plan's launches.
fn kernels(plan: &Plan) -> Vec<&str> {
    plan.dispatches.iter().map(|d| d.kernel.as_str()).collect()
}

fn conv(filters: usize) -> Conv2D {
    Conv2D::new(filters, 3).padding(Same)
}

#[test]
fn convolution_normalisation_and_activation_are_one_launch_in_inference() {
    let before = model([16, 16, 32], |x| x.apply(conv(32))?.apply(BatchNormalization::new())?.apply(Relu));
    let after = model([16, 16, 32], |x| x.apply(conv(32).activation(Relu))?.apply(BatchNormalization::new()));
    for profile in profiles() {
        for model in [&before, &after] {
            let plan = plan_of(model, Mode::Inference, &profile);
            assert_eq!(kernels(&plan), ["conv2d"], "{plan}");
        }
    }
}

#[test]
fn an_activation_behind_a_normalisation_costs_no_launch_in_training() {
    for profile in profiles() {
        let launches = |activation: Activation| {
            let model = model([16, 16, 32], |x| {
                x.apply(conv(32))?
                    .apply(BatchNormalization::new())?
                    .apply(activation)?
                    .apply(GlobalAveragePooling2D::new())
            });
            plan_of(&model, Mode::Training, &profile)
        };
        let (alone, with) = (launches(Linear), launches(Relu));
        assert!(with.dispatches.len() <= alone.dispatches.len(), "{alone}\n{with}");
    }
}

#[test]
fn residual_additions_are_part_of_their_convolutions() {
    let identity = model([16, 16, 32], |x| residual(x, 32, 1, "block"));
    let projection = model([16, 16, 32], |x| residual(x, 64, 2, "block"));
    for profile in profiles() {
        for (model, launches) in [(&identity, 2), (&projection, 3)] {
            let plan = plan_of(model, Mode::Inference, &profile);
            let mut kernels = kernels(&plan);
            // A GPU may take long sums in parts.
            kernels.retain(|k| *k != "split_sum");
            assert_eq!(kernels, vec!["conv2d"; launches], "{plan}");
            let plan = plan_of(model, Mode::Training, &profile);
            let forward = plan.dispatches.iter().filter(|d| !d.node.starts_with("grad") && d.kernel == "elementwise");
            // What is left are the moving statistics.
            assert!(forward.clone().all(|d| d.node.contains("_bn/")), "{plan}");
        }
    }
}

#[test]
fn excitation_residual_addition_and_activation_are_one_launch() {
    let model = model([16, 16, 32], |x| {
        let y = squeeze_excite(&x.apply(conv(32).name("conv"))?, 4, "se")?;
        add(&[x.clone(), y])?.apply(Relu)
    });
    for profile in profiles() {
        let plan = plan_of(&model, Mode::Inference, &profile);
        let elementwise: Vec<&str> =
            plan.dispatches.iter().filter(|d| d.kernel == "elementwise").map(|d| d.node.as_str()).collect();
        assert!(elementwise.len() <= 1, "{plan}");
        let multiplied =
            plan.dispatches.iter().filter(|d| ["multiply", "add", "relu"].iter().any(|n| d.node.contains(n)));
        assert!(multiplied.count() <= 1, "{plan}");
    }
}

#[test]
fn a_recurrent_layer_is_one_product_and_one_launch_for_all_timesteps() {
    let layers: [(&str, std::sync::Arc<dyn Layer>); 3] = [
        ("simple_rnn", SimpleRNN::new(16).return_sequences(true).into_layer()),
        ("lstm", LSTM::new(16).return_sequences(true).into_layer()),
        ("gru", GRU::new(16).return_sequences(true).into_layer()),
    ];
    for (name, layer) in &layers {
        for profile in profiles() {
            let launches = |timesteps: usize, mode: Mode| {
                let model = model([timesteps, 8], |x| x.apply(layer));
                plan_of(&model, mode, &profile)
            };
            let plan = launches(20, Mode::Inference);
            let products = plan.dispatches.iter().filter(|d| d.kernel.starts_with("matmul")).count();
            let others =
                plan.dispatches.iter().filter(|d| !["slice", "matmul"].iter().any(|k| d.kernel.starts_with(k)));
            assert_eq!((products, others.count()), (1, 1), "{name}\n{plan}");
            for mode in [Mode::Inference, Mode::Training] {
                let (few, many) = (launches(20, mode), launches(40, mode));
                assert_eq!(kernels(&few), kernels(&many), "launches of {name} grow with the timesteps");
                assert!(few.dispatches.len() <= 20, "{name}: less than one launch for each timestep\n{few}");
            }
        }
    }
}

#[test]
fn normalisation_before_and_after_the_activation_computes_the_same_fused_and_unfused() {
    let mut rng = Philox::new(1, Purpose::Test, 41);
    let mut noise = |shape: &[usize], low: f64, high: f64| {
        let data = (0..shape.iter().product()).map(|_| rng.uniform(low, high) as f32).collect();
        HostTensor::f32(shape, data).expect("as many numbers as the shape has")
    };
    let channel = [6];
    let feeds: Vec<(String, HostTensor)> = vec![
        ("x".into(), noise(&[3, 9, 9, 4], -1.0, 1.0)),
        ("w".into(), noise(&[3, 3, 4, 6], -0.5, 0.5)),
        ("b".into(), noise(&channel, -0.5, 0.5)),
        ("gamma".into(), noise(&channel, 0.5, 1.5)),
        ("beta".into(), noise(&channel, -0.5, 0.5)),
        ("mean".into(), noise(&channel, -0.5, 0.5)),
        ("variance".into(), noise(&channel, 0.5, 1.5)),
    ];
    for (first, training) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut g = Graph::new();
        let values: Vec<Value> = (feeds.iter())
            .map(|(name, t)| match name.as_str() {
                "x" => g.input(name, [Batch, 9, 9, 4], F32),
                _ => g.input(name, t.shape().to_vec(), F32),
            })
            .collect();
        let [x, w, b, gamma, beta, mean, variance] = values[..] else { panic!("seven values") };
        let normalize = |g: &mut Graph, x: Value| match training {
            true => g.batch_norm(x, gamma, beta, 1e-3).map(|y| y[0]),
            false => g.batch_norm_inference(x, [gamma, beta, mean, variance], 1e-3),
        };
        let y = g.conv2d(x, w, hubel::ops::Conv2dOptions::same()).and_then(|y| g.add(y, b)).expect("a convolution");
        let y = match first {
            true => normalize(&mut g, y).and_then(|y| g.relu(y)),
            false => g.relu(y).and_then(|y| normalize(&mut g, y)),
        };
        g.output("y", y.expect("a normalisation"));
        let [plain, fused] = [false, true].map(|optimize| {
            let run = Run { optimize, guarded: true, ..Run::default() };
            let launches = plan_for(&g, 4, &run).dispatches.len();
            (launches, run_graph(&g, &feeds, &Step::of(3), 4, &run).expect("the graph runs")[0].to_f32())
        });
        assert!(fused.0 < plain.0 && (training || fused.0 == 1), "{} launches of {}", fused.0, plain.0);
        for (a, b) in plain.1.iter().zip(&fused.1) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} unfused, {b} fused");
        }
    }
}
