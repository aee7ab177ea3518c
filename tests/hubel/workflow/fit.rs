//! Consecutive calls of fit, on data sets and iterators, and the state that a trainer keeps between calls.

use super::{AtEnd, Golden, near, ones, plain, points, says, text};
use crate::harness::{engine, objects};
use hubel::{Error, callbacks::*, layers::*, losses::*, metrics::*, optimizers::*, prelude::*};
use std::{cell::RefCell, rc::Rc};

#[test]
fn three_epochs_of_a_small_network_are_those_of_keras() {
    let golden = Golden::open();
    let model = Sequential::new([8, 8, 1])
        .add(Conv2D::new(4, 3).activation(Relu).name("c"))
        .add(BatchNormalization::new().name("b"))
        .add(MaxPooling2D::new(2).name("p"))
        .add(Flatten::new().name("f"))
        .add(Dense::new(4).activation(Softmax).name("d"))
        .build()
        .expect("a model");
    for case in golden.cases("runs") {
        let name = text(case, "name");
        let all = |part: &str| -> Vec<(String, HostTensor)> {
            let prefix = format!("{name}/{part}/");
            golden.tensors.iter().filter_map(|t| Some((t.0.strip_prefix(&prefix)?.to_owned(), t.1.clone()))).collect()
        };
        let y: Vec<u8> = golden.tensor(case, "y").to_f32().into_iter().map(|y| y as u8).collect();
        let labels = HostTensor::u8([y.len()], y).expect("labels");
        let data = Dataset::new(golden.tensor(case, "x"), labels).expect("data");
        let (mut train, validation) = data.split(0.25).expect("a share");
        if let Some((_, weights)) = golden.tensors.iter().find(|t| t.0 == format!("{name}/weights")) {
            train = train.sample_weights(weights.to_f32()).expect("weights");
        }
        if let Some(of_class) = case["class_weight"].as_object() {
            let weights: Vec<f32> = of_class.values().map(|w| w.as_f64().expect("a weight") as f32).collect();
            train = train.class_weights(&weights).expect("weights");
        }
        let loss = SparseCategoricalCrossentropy::new();
        let config = match name {
            "sgd" => Compile::new(Sgd::new(0.05).momentum(0.9), loss),
            "classes" => Compile::new(RmsProp::new(0.003), loss),
            _ => Compile::new(Adam::new(0.01), loss),
        };
        let mut model = model.clone();
        model.set_weights(all("before")).expect("the same weights");
        let mut trainer = model.compile(engine(), config.metric(Accuracy)).expect("a trainer");
        for epoch in 0..3 {
            let fit = Fit::until_epoch(epoch + 1).batch(16).shuffle(false).validation(&validation);
            trainer.fit(&train, fit).expect("training");
            let weights = trainer.weights().expect("weights");
            for (path, wanted) in all(&format!("epoch{epoch}")) {
                let got = &weights.iter().find(|w| w.0 == path).unwrap_or_else(|| panic!("no {path}")).1;
                near(&format!("{name}, epoch {epoch}: {path}"), &got.to_f32(), &wanted.to_f32());
            }
        }
        for (key, wanted) in case["history"].as_object().expect("a history") {
            let wanted: Vec<f64> = serde_json::from_value(wanted.clone()).expect("numbers");
            let got = trainer.history().get(key).unwrap_or_else(|| panic!("no {key}"));
            for (a, b) in got.iter().zip(&wanted) {
                assert!((a - b).abs() <= 1e-3 * b.abs().max(1e-2), "{name} {key}: {got:?}, wanted {wanted:?}");
            }
        }
        let weights = trainer.weights().expect("weights");
        for (path, wanted) in all("after") {
            let got = &weights.iter().find(|w| w.0 == path).unwrap_or_else(|| panic!("no {path}")).1;
            let off = got.to_f32().iter().zip(wanted.to_f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 2e-3, "{name} {path}: off by {off}");
        }
    }
}

#[test]
fn a_second_fit_trains_as_many_epochs_more() {
    let mut trainer = plain(0.01);
    let seen = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..2 {
        let told = seen.clone();
        let callback = AtEnd(move |at: &Progress, _: &mut Trainer| told.borrow_mut().push((at.epoch, at.epochs)));
        trainer.fit(&ones(4), Fit::epochs(3).callback(callback)).expect("training");
    }
    assert_eq!((trainer.steps(), &trainer.history().epochs[..]), (6, &[0, 1, 2, 3, 4, 5][..]));
    assert_eq!(*seen.borrow(), [(0, 3), (1, 3), (2, 3), (3, 6), (4, 6), (5, 6)]);
    trainer.fit(&ones(4), Fit::until_epoch(6)).expect("nothing is left to do");
    assert_eq!(trainer.steps(), 6);
    trainer.fit(&ones(4), Fit::until_epoch(8)).expect("training");
    assert_eq!(trainer.steps(), 8);
    // The rest of an epoch counts as one.
    trainer.fit(&ones(4), Fit::epochs(1).batch(1).max_steps(3)).expect("training");
    trainer.fit(&ones(4), Fit::epochs(1).batch(1)).expect("training");
    assert_eq!((trainer.steps(), trainer.history().epochs.len()), (12, 9));
    trainer.fit(&ones(4), Fit::epochs(9).max_steps(0)).expect("no step");
    assert_eq!((trainer.steps(), trainer.history().epochs.len()), (12, 9));
}

#[test]
fn an_epoch_that_was_begun_on_other_data_begins_anew() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let path = folder.path().join("c.safetensors");
    let mut first = plain(0.01);
    first.fit(&ones(100), Fit::epochs(1).batch(10).max_steps(5)).expect("training");
    first.save_checkpoint(&path).expect("a checkpoint");
    let other = Dataset { labels: HostTensor::f32([100, 1], vec![2.0; 100]).expect("labels"), ..ones(100) };
    for (data, steps) in [(ones(20), 2), (ones(50), 5), (other, 10), (ones(100), 5), (ones(1000), 100)] {
        for resumed in [false, true] {
            let mut trainer = plain(0.01);
            match resumed {
                true => trainer.load_checkpoint(&path).expect("a checkpoint"),
                false => drop(trainer.fit(&ones(100), Fit::epochs(1).batch(10).max_steps(5)).expect("training")),
            }
            let rates = Rc::new(RefCell::new(Vec::new()));
            let told = rates.clone();
            let callback =
                AtEnd(move |at: &Progress, _: &mut Trainer| told.borrow_mut().push((at.seen, at.samples_per_s)));
            trainer.fit(&data, Fit::epochs(1).batch(10).callback(callback)).expect("training");
            assert_eq!(trainer.steps(), 5 + steps, "{} samples", data.len());
            let rates = rates.borrow();
            assert!(rates.len() == 1 && rates[0].0 == data.len() && rates[0].1 < 1e9, "{rates:?}");
        }
    }
}

#[test]
fn predictions_and_evaluations_keep_their_sessions() {
    let engine = Engine::new().expect("an adapter");
    let config = Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax).name("d")).build().expect("a model");
    let mut trainer = model.compile(&engine, config).expect("a trainer");
    let data = points();
    let rows = |n: u32| data.rows(&(0..n).collect::<Vec<_>>()).expect("samples");
    let flipped = Dataset { labels: HostTensor::u8([40], vec![0; 40]).expect("labels"), ..data.clone() };
    let first = (trainer.predict(&rows(40)).expect("predictions"), trainer.evaluate(&data).expect("scores"));
    trainer.evaluate(&flipped).expect("scores");
    let before = objects(&engine);
    for n in [1, 40, 3, 64 - 24, 7] {
        assert_eq!(trainer.predict(&rows(n)).expect("predictions").to_f32(), first.0.to_f32()[..2 * n as usize]);
        let other = trainer.evaluate(&flipped).expect("scores");
        assert_eq!(trainer.evaluate(&data).expect("scores"), first.1);
        assert_ne!(other, first.1, "other labels of the same kind are seen");
        assert_eq!(objects(&engine), before, "{n} samples made something new");
    }
    // Weights that change are seen.
    trainer.train_on_batch(&data.take(3)).expect("a step");
    trainer.train_on_batch(&data).expect("a step of more samples");
    let (after, scores) = (trainer.predict(&rows(40)).expect("predictions"), trainer.evaluate(&data).expect("scores"));
    assert!(after != first.0 && scores != first.1);
    let fresh = trainer.trained().expect("a model").inference(&engine, Batch::up_to(40)).expect("an inference");
    assert_eq!({ fresh }.predict(&rows(40)).expect("predictions"), after);
    // What they keep does not grow.
    let most = objects(&engine);
    for n in 1..=40 {
        trainer.predict(&rows(n)).expect("predictions");
        trainer.evaluate(&data.take(n as usize)).expect("scores");
    }
    trainer.evaluate(&data).expect("scores");
    assert_eq!(objects(&engine), most);
    says(trainer.predict(&HostTensor::f32([1], vec![0.5]).expect("a sample without a batch")), &["[1, 1]", "reshape"]);
    says(trainer.predict(&HostTensor::f32([2, 3], vec![0.5; 6]).expect("others")), &["[2, 1]", "[2, 3]"]);
}

#[test]
fn batches_of_an_iterator_train_as_those_of_a_data_set() {
    let data = points();
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax).name("d")).build().expect("a model");
    let config =
        || Compile::new(Adam::new(0.1), SparseCategoricalCrossentropy::new()).metric(Accuracy).norms(true).seed(1);
    for engine in [engine(), &Engine::reference()] {
        let trainer = || model.compile(engine, config()).expect("a trainer");
        // 40 samples in batches of 16: the last has 8.
        let rows: Vec<Vec<u32>> = (0..40u32).collect::<Vec<_>>().chunks(16).map(<[u32]>::to_vec).collect();
        let batches = |_epoch: usize| rows.iter().map(|rows| data.select(rows));
        let (mut one, mut two) = (trainer(), trainer());
        let wanted = one.fit(&data, Fit::epochs(3).batch(16).shuffle(false).validation(&data)).expect("training");
        let got = two.fit_batches(batches, Fit::epochs(3).validation(&data)).expect("training");
        assert_eq!((two.steps(), &got.epochs), (9, &wanted.epochs));
        for ((name, a), (_, b)) in got.series.iter().zip(&wanted.series) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{name}: {a:?} {b:?}");
        }
        for ((name, a), (_, b)) in two.weights().expect("weights").iter().zip(&one.weights().expect("weights")) {
            near(name, &a.to_f32(), &b.to_f32());
        }
        // Steps that end amid an epoch leave it; callbacks stop as ever.
        two.fit_batches(batches, Fit::epochs(2).max_steps(1)).expect("training");
        assert_eq!((two.steps(), two.history().epochs.len()), (10, 3));
        two.fit_batches(batches, Fit::epochs(9).callback(EarlyStopping::new(Watch::new("loss").min_delta(1e9))))
            .expect("training");
        assert_eq!((two.steps(), two.history().epochs.len()), (16, 5));
        says(
            two.fit_batches(|_| data.select(&[0]).ok().into_iter().map(Ok::<_, Error>).skip(1), Fit::epochs(1)),
            &["empty"],
        );
        says(two.fit_batches(|_| [data.select(&[99])], Fit::epochs(1)), &["99"]);
        let wide = HostTensor::f32([1, 2], vec![0.5; 2]).expect("a sample");
        let wide = Dataset::new(wide, HostTensor::u8([1], vec![0]).expect("a label")).expect("a data set");
        let refused = two.train_on_batch(&wide).expect_err("two numbers").to_string();
        says(two.fit_batches(|_| [wide.select(&[0])], Fit::epochs(1)), &[&refused]);
        let odd = HostTensor::f32([1, 1], vec![f32::NAN]).expect("a sample");
        let odd = Dataset::new(odd, HostTensor::u8([1], vec![0]).expect("a label")).expect("a data set");
        let lost = |_| [odd.select(&[0])];
        two.fit_batches(lost, Fit::epochs(5).callback(TerminateOnNaN::new())).expect("training");
        assert!(two.not_finite().is_some());
    }
}

#[test]
fn layers_are_frozen_and_freed_between_calls_of_fit() {
    let folder = temp_dir::TempDir::new().expect("a folder");
    let data = points();
    let model = Sequential::new([1])
        .add(Dense::new(4).activation(Tanh).name("base"))
        .add(Dense::new(2).activation(Softmax).name("head"))
        .build()
        .expect("a model");
    for engine in [engine(), &Engine::reference()] {
        let config = || Compile::new(Adam::new(0.1), SparseCategoricalCrossentropy::new()).seed(5);
        let mut trainer = model.compile(engine, config()).expect("a trainer");
        let mut straight = model.compile(engine, config()).expect("a trainer");
        let fit = |trainer: &mut Trainer| trainer.fit(&data, Fit::epochs(2).batch(10)).map(drop).expect("training");
        fit(&mut trainer);
        fit(&mut straight);
        // Frozen and freed at once: nothing is lost, moments neither.
        trainer.set_trainable("base", false).expect("a layer");
        trainer.set_trainable("head", false).expect("a layer");
        trainer.set_trainable("head", true).expect("a layer");
        let before = trainer.weights().expect("weights");
        assert_eq!(before, straight.weights().expect("weights"));
        fit(&mut trainer);
        let after = trainer.weights().expect("weights");
        assert!(before[..2] == after[..2] && before[2] != after[2] && before[3] != after[3]);
        assert!(trainer.predict(&data.images).is_ok() && !trainer.model().weights()[0].trainable);
        trainer.save_checkpoint(folder.path().join("c")).expect("a checkpoint");
        trainer.set_trainable("base", true).expect("a layer");
        fit(&mut trainer);
        assert_ne!(trainer.weights().expect("weights")[0], after[0]);
        let mut frozen = model.compile(engine, config()).expect("a trainer");
        frozen.set_trainable("base", false).expect("a layer");
        frozen.load_checkpoint(folder.path().join("c")).expect("the same moments");
        // The head's moments are those of before: a step like the whole network's.
        let mut whole = model.compile(engine, config()).expect("a trainer");
        fit(&mut whole);
        let mut part = model.compile(engine, config()).expect("a trainer");
        fit(&mut part);
        part.set_trainable("base", false).expect("a layer");
        whole.train_on_batch(&data).expect("a step");
        part.train_on_batch(&data).expect("a step");
        let [whole, part] = [whole, part].map(|t| t.weights().expect("weights"));
        near("head", &part[2].1.to_f32(), &whole[2].1.to_f32());
        assert_ne!(part[0], whole[0]);
        // Evaluations go by the weights of now.
        trainer.evaluate(&data).expect("scores");
        trainer.set_trainable("base", false).expect("a layer");
        trainer.train_on_batch(&data).expect("a step");
        let mut fresh = trainer.trained().expect("a model").compile(engine, config()).expect("a trainer");
        assert_eq!(trainer.evaluate(&data).expect("scores"), fresh.evaluate(&data).expect("scores"));
        says(trainer.set_trainable("haed", false), &["haed"]);
        let inside = AtEnd(|_: &Progress, trainer: &mut Trainer| {
            says(trainer.set_trainable("base", false), &["while `fit` runs"]);
        });
        trainer.fit(&data, Fit::epochs(1).callback(inside)).expect("training");
    }
}
