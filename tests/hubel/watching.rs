//! Reports of training: norms of activations and gradients, the first non-finite value, TensorBoard.

use crate::harness::engine;
use hubel::{
    callbacks::*,
    graph::{OpError, Value},
    layers::*,
    losses::*,
    metrics::*,
    nn::Scope,
    optimizers::*,
    prelude::*,
};

fn samples(shape: &[usize], seed: u32) -> HostTensor {
    let n: usize = shape.iter().product();
    let value = |i: usize| {
        ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 8) as f32 / (1 << 24) as f32 + 0.1
    };
    HostTensor::f32(shape.to_vec(), (0..n).map(value).collect()).expect("a shape")
}

#[test]
fn norms_of_a_step_are_those_of_its_formula() {
    for engine in [engine().clone(), Engine::reference()] {
        let model = Sequential::new([2]).add(Dense::new(1).kernel_initializer(Ones)).build().expect("a model");
        let config = Compile::new(Sgd::new(0.0), MeanSquaredError).norms(true);
        let mut trainer = model.compile(&engine, config).expect("a trainer");
        let x = HostTensor::f32([2, 2], vec![3.0, 4.0, -3.0, -4.0]).expect("samples");
        let data = Dataset::new(x, HostTensor::f32([2, 1], vec![0.0; 2]).expect("labels")).expect("a data set");
        let history = trainer.fit(&data, Fit::epochs(2).batch(1)).expect("training");
        // The output is 7 or −7, its gradient 14 or −14.
        for (name, wanted) in
            [("activation_norm/dense", 7.0), ("gradient_norm/dense/kernel", 70.0), ("gradient_norm/dense/bias", 14.0)]
        {
            let got = history.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", history.series));
            assert!(got.iter().all(|x| (x - wanted).abs() < 1e-4), "{name}: {got:?}");
        }
    }
}

#[test]
fn gradients_that_vanish_can_be_seen() {
    let mut model = Sequential::new([8]);
    for _ in 0..6 {
        model = model.add(Dense::new(8).activation(Sigmoid));
    }
    let model = model.add(Dense::new(3).activation(Softmax)).build().expect("a model");
    let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new()).metric(Accuracy).norms(true);
    let mut trainer = model.compile(engine(), config).expect("a trainer");
    let labels = HostTensor::u8([30], (0..30).map(|i| i % 3).collect()).expect("labels");
    let data = Dataset::new(samples(&[30, 8], 1), labels).expect("a data set");
    let history = trainer.fit(&data, Fit::epochs(1).batch(10).validation(&data)).expect("training");
    let first = history.last("gradient_norm/dense/kernel").expect("a norm");
    let last = history.last("gradient_norm/dense_6/kernel").expect("a norm");
    assert!(first > 0.0 && first * 50.0 < last, "{first} {last}");
    assert!(history.series.iter().all(|(name, _)| !name.starts_with("val_gradient")));
}

/// Passes its input on but for one element, which becomes infinite.
#[derive(Debug)]
struct Poison {
    index: usize,
}

impl Layer for Poison {
    fn kind(&self) -> &'static str {
        "Poison"
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let g = &mut *scope.graph;
        let row = g.shape(inputs[0]).dims()[1..].to_vec();
        let mut values = vec![0.0; row.iter().product()];
        values[self.index] = 3e38;
        let large = g.literal(row, values)?;
        let once = g.add(inputs[0], large)?;
        Ok(vec![g.add(once, large)?])
    }
}

#[test]
fn a_value_that_is_no_number_is_named_wherever_it_comes_up() {
    let layers: [fn(Sequential) -> Sequential; 8] = [
        |m| m.add(Conv2D::new(4, 3).padding(Same)),
        |m| m.add(BatchNormalization::new()),
        |m| m.add(ActivationLayer::new(Relu)),
        |m| m.add(MaxPooling2D::new(2)),
        |m| m.add(DepthwiseConv2D::new(3)),
        |m| m.add(Flatten::new()),
        |m| m.add(Dense::new(5).activation(Sigmoid)),
        |m| m.add(Dense::new(3).activation(Softmax)),
    ];
    let labels = HostTensor::u8([3], vec![0, 1, 2]).expect("labels");
    let data = Dataset::new(samples(&[3, 8, 8, 2], 2), labels).expect("a data set");
    for place in 0..=layers.len() {
        for index in [0, 2] {
            let mut model = Sequential::new([8, 8, 2]);
            for (i, layer) in layers.iter().enumerate() {
                model = layer(if i == place { model.add(Poison { index }) } else { model });
            }
            let model = if place == layers.len() { model.add(Poison { index }) } else { model };
            let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new());
            let trainer = model.build().expect("a model").compile(engine(), config).expect("a trainer");
            let before = trainer.weights().expect("weights");
            let found = trainer.first_not_finite(&data).expect("a search").expect("something is found");
            assert!(found.node.contains("poison") && found.index == index, "{place} {index}: {found}");
            assert!(found.value == f32::INFINITY && trainer.weights().expect("weights") == before);
        }
    }
    let mut model = Sequential::new([8, 8, 2]);
    for layer in layers {
        model = layer(model);
    }
    let config = Compile::new(Adam::new(1e-3), SparseCategoricalCrossentropy::new());
    let mut trainer = model.build().expect("a model").compile(engine(), config).expect("a trainer");
    assert_eq!(trainer.first_not_finite(&data).expect("a search"), None);
    for (name, tensor) in trainer.weights().expect("weights") {
        let mut values = tensor.to_f32();
        let last = values.len() - 1;
        values[last] = f32::NAN;
        let poisoned = HostTensor::f32(tensor.shape().to_vec(), values).expect("a tensor");
        trainer.set_weights(&[(name.clone(), poisoned)]).expect("weights");
        let found = trainer.first_not_finite(&data).expect("a search").expect("something is found");
        assert_eq!((found.node.as_str(), found.op.as_str(), found.index), (name.as_str(), "weight", last));
        trainer.set_weights(&[(name, tensor)]).expect("weights");
    }
}

#[test]
fn training_that_breaks_stops_before_the_step_that_broke_it() {
    let model = || {
        Sequential::new([6])
            .add(Dense::new(16).kernel_initializer(Ones))
            .add(Dense::new(1).kernel_initializer(Ones))
            .build()
            .expect("a model")
    };
    let data = || {
        let labels = HostTensor::f32([40, 1], vec![1.0; 40]).expect("labels");
        Dataset::new(samples(&[40, 6], 3), labels).expect("a data set")
    };
    for (rate, epochs) in [(1e30, 3), (0.3, 200)] {
        let config = Compile::new(Sgd::new(rate), MeanSquaredError);
        let mut trainer = model().compile(engine(), config).expect("a trainer");
        let fit = Fit::epochs(epochs).batch(10).read_every_step().callback(TerminateOnNaN::new());
        trainer.fit(&data(), fit).expect("training");
        let found = trainer.not_finite().unwrap_or_else(|| panic!("{rate}: nothing found")).clone();
        assert_eq!(found.step, trainer.steps(), "{found}");
        assert!(trainer.weights().expect("weights").iter().all(|w| w.1.to_f32().iter().all(|x| x.is_finite())));
        assert!(found.to_string().contains(&found.node) && !found.node.is_empty());
        // The step named is the one that breaks: training on from here breaks in it.
        let mut again = model().compile(engine(), Compile::new(Sgd::new(rate), MeanSquaredError)).expect("one");
        let steps = Fit::epochs(epochs).batch(10).max_steps(found.step);
        if found.step > 0 {
            again.fit(&data(), steps).expect("training");
        }
        assert_eq!(again.weights().expect("weights"), trainer.weights().expect("weights"));
    }
}

#[test]
fn a_pixel_that_is_no_number_ends_a_guarded_run_and_is_named() {
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![0.5f32; 64];
        x[35] = odd;
        let labels = HostTensor::u8([4], vec![0, 1, 0, 1]).expect("labels");
        let data = Dataset::new(HostTensor::f32([4, 4, 4, 1], x).expect("images"), labels).expect("a data set");
        let conv = Conv2D::new(4, 3).kernel_initializer(Ones).activation(Relu);
        let model = Sequential::new([4, 4, 1]).add(conv).add(Flatten::new()).add(Dense::new(2).activation(Softmax));
        let model = model.build().expect("a model");
        // At the end of an epoch, of a call, after a step, from an iterator.
        for way in 0..4 {
            for engine in [engine().clone(), Engine::reference()] {
                let config = Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new());
                let mut trainer = model.compile(&engine, config).expect("a trainer");
                let fit = Fit::epochs(3).batch(1).shuffle(false).callback(TerminateOnNaN::new());
                match way {
                    0 => drop(trainer.fit(&data, fit)),
                    1 => drop(trainer.fit(&data, fit.max_steps(3))),
                    2 => drop(trainer.fit(&data, fit.read_every_step())),
                    _ => {
                        let batches = |_| (0..4).map(|i| data.select(&[i]));
                        let history = trainer.fit_batches(batches, fit).expect("training");
                        assert!(trainer.not_finite().is_some() && history.epochs.len() == 1);
                        continue;
                    }
                }
                let found = trainer.not_finite().unwrap_or_else(|| panic!("{odd}, {way}: nothing found"));
                assert_eq!((found.step, found.node.as_str(), found.op.as_str(), found.index), (2, "x", "input", 3));
                assert!(found.value.to_bits() == odd.to_bits() || odd.is_nan() && found.value.is_nan());
                assert_eq!(trainer.steps(), 2);
                assert!(trainer.weights().expect("weights").iter().all(|w| w.1.to_f32().iter().all(|x| x.is_finite())));
                // Without a guard the run goes on, as in Keras.
                let config = Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new());
                let mut other = model.compile(&engine, config).expect("a trainer");
                other.fit(&data, Fit::epochs(3).batch(1)).expect("training");
                assert_eq!((other.steps(), other.not_finite()), (12, None));
            }
        }
    }
}

#[test]
fn an_update_that_breaks_weights_or_moments_is_found_though_the_loss_is_finite() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let model = Sequential::new([1]).add(Dense::new(1).kernel_initializer(Zeros).name("d")).build().expect("a model");
    let data = |label: f32| {
        let labels = HostTensor::f32([2, 1], vec![label; 2]).expect("labels");
        Dataset::new(HostTensor::f32([2, 1], vec![1.0; 2]).expect("samples"), labels).expect("a data set")
    };
    let by_rate = || Compile::new(Sgd::new(1e39), MeanSquaredError);
    // The square of a gradient of 2e19 is too large.
    let by_moment = || Compile::new(Adagrad::new(1e-3), MeanSquaredError);
    for engine in [engine().clone(), Engine::reference()] {
        for (config, label, node, op) in
            [(by_rate(), 1.0, "d/kernel", "weight"), (by_moment(), 1e19, "accumulator/d/kernel", "moment")]
        {
            for max in [1, 9] {
                let mut trainer = model.compile(&engine, config.clone()).expect("a trainer");
                let path = folder.path().join("last.safetensors");
                let save = ModelCheckpoint::new(&path);
                let fit = Fit::epochs(3).batch(4).max_steps(max).callback(save).callback(TerminateOnNaN::new());
                let history = trainer.fit(&data(label), fit).expect("training");
                assert!(history.last("loss").is_some_and(f64::is_finite), "{history}");
                let found = trainer.not_finite().unwrap_or_else(|| panic!("{node}: nothing found"));
                assert_eq!((found.step, found.node.as_str(), found.op.as_str()), (0, node, op));
                assert!(trainer.steps() == 0 && !path.exists(), "the broken state is not kept");
            }
        }
        let mut trainer = model.compile(&engine, by_moment()).expect("a trainer");
        let odd = HostTensor::f32([1], vec![f32::NAN]).expect("a bias");
        trainer.set_weights(&[("d/bias".into(), odd)]).expect("weights");
        trainer.fit(&data(1.0), Fit::epochs(3).callback(TerminateOnNaN::new())).expect("no step");
        let found = trainer.not_finite().expect("a weight").clone();
        assert_eq!((found.node.as_str(), trainer.steps()), ("d/bias", 0));
    }
}

#[test]
fn tensorboard_gets_scalars_of_training_and_validation_norms_and_histograms() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let model = Sequential::new([4]).add(Dense::new(2).activation(Softmax)).build().expect("a model");
    let config = Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new()).metric(Accuracy).norms(true);
    let mut trainer = model.compile(engine(), config).expect("a trainer");
    let labels = HostTensor::u8([8], vec![0, 1, 0, 1, 0, 1, 0, 1]).expect("labels");
    let data = Dataset::new(samples(&[8, 4], 4), labels).expect("a data set");
    let board = TensorBoard::new(folder.path()).histogram_freq(2).samples(data.clone());
    trainer.fit(&data, Fit::epochs(3).validation(&data).callback(board)).expect("training");
    let count = |part: &str, tag: &str| {
        let files = std::fs::read_dir(folder.path().join(part)).expect("a folder");
        let bytes: Vec<u8> = files.flat_map(|f| std::fs::read(f.expect("a file").path()).expect("bytes")).collect();
        let tag = [&[0x0A, tag.len() as u8], tag.as_bytes()].concat();
        bytes.windows(tag.len()).filter(|w| *w == tag).count()
    };
    for (part, tag, wanted) in [
        ("train", "epoch_loss", 3),
        ("train", "epoch_accuracy", 3),
        ("train", "epoch_learning_rate", 3),
        ("train", "gradient_norm/dense/kernel", 3),
        ("train", "dense/kernel", 2),
        ("train", "gradient/dense/kernel", 2),
        ("train", "activation/dense", 2),
        ("validation", "epoch_loss", 3),
        ("validation", "dense/kernel", 0),
    ] {
        assert_eq!(count(part, tag), wanted, "{part} {tag}");
    }
}
