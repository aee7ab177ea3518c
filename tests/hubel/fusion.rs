//! The number of launches of layers, checked on plans, which need no device.

use hubel::{
    graph::{DeviceClass, DeviceProfile, Graph, Value},
    layers::*,
    nn::{
        Mode,
        blocks::{bottleneck, residual, squeeze_excite},
    },
    passes::{Layout, Plan, PlanOptions, PlannedDispatch, plan},
    prelude::*,
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

/// Returns the kernels of a plan's launches, without the second ones of long sums, which a GPU may split.
fn kernels(plan: &Plan) -> Vec<&str> {
    plan.dispatches.iter().map(|d| d.kernel.as_str()).filter(|k| *k != "split_sum").collect()
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
    let narrow = model([16, 16, 32], |x| bottleneck(x, 8, 1, "block"));
    for profile in profiles() {
        for (model, launches) in [(&identity, 2), (&projection, 3), (&narrow, 3)] {
            let plan = plan_of(model, Mode::Inference, &profile);
            assert_eq!(kernels(&plan), vec!["conv2d"; launches], "{plan}");
            let plan = plan_of(model, Mode::Training, &profile);
            let forward = plan.dispatches.iter().filter(|d| !d.node.starts_with("grad") && d.kernel == "elementwise");
            // On a GPU, normalisation is elementwise; it takes additions and activations along.
            let of_one = |d: &&PlannedDispatch| profile.class == DeviceClass::Cpu || !d.op.contains("t1=");
            assert_eq!(forward.filter(of_one).count(), 0, "{plan}");
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
fn what_a_product_makes_of_fewer_elements_is_computed_where_it_is_stored() {
    let model = model([16, 16, 32], |x| {
        let gate = x
            .apply(GlobalAveragePooling2D::new().keepdims(true))?
            .apply(Conv2D::new(32, 1).activation(Sigmoid).name("gate"))?;
        multiply(&[x.clone(), gate])?.apply(Conv2D::new(8, 1))
    });
    for profile in profiles() {
        let plan = plan_of(&model, Mode::Inference, &profile);
        let with: Vec<&str> = (plan.dispatches.iter())
            .filter(|d| d.source.contains("sigmoid_f32("))
            .map(|d| d.node.split('/').next().unwrap_or_default())
            .collect();
        assert_eq!(with, ["gate"], "{plan}");
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
            let others = plan
                .dispatches
                .iter()
                .filter(|d| !["slice", "matmul", "split_sum"].iter().any(|k| d.kernel.starts_with(k)));
            assert_eq!((products, others.count()), (1, 1), "{name}\n{plan}");
            for mode in [Mode::Inference, Mode::Training] {
                let (few, many) = (launches(20, mode), launches(40, mode));
                assert_eq!(kernels(&few), kernels(&many), "launches of {name} grow with the timesteps");
                assert!(few.dispatches.len() <= 20, "{name}: less than one launch for each timestep\n{few}");
            }
        }
    }
}
