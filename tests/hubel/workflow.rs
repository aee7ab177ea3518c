//! Losses, metrics, schedules and callbacks against what Keras makes of them: tests/golden/training.py.

use crate::harness::{Run, engine, run_graph};
use hubel::{
    Error,
    callbacks::*,
    graph::Step,
    io::safetensors,
    layers::*,
    losses::*,
    metrics::*,
    nn::Curve,
    optimizers::*,
    prelude::*,
    train::{CallbackState, Style, TrainError},
};
use serde_json::Value as Json;
use std::{cell::RefCell, fs, rc::Rc};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");

struct Golden {
    table: Json,
    tensors: Vec<(String, HostTensor)>,
}

impl Golden {
    fn open() -> Self {
        let table = fs::read(format!("{GOLDEN}training.json")).expect("the file is there");
        let tensors = safetensors::open(format!("{GOLDEN}training.safetensors")).expect("the file is there");
        Golden { table: serde_json::from_slice(&table).expect("JSON"), tensors }
    }

    fn cases(&self, kind: &str) -> &[Json] {
        self.table[kind].as_array().expect("a list")
    }

    fn tensor(&self, case: &Json, part: &str) -> HostTensor {
        let name = format!("{}/{part}", text(case, "name"));
        self.tensors.iter().find(|t| t.0 == name).unwrap_or_else(|| panic!("no {name}")).1.clone()
    }
}

fn text<'j>(case: &'j Json, key: &str) -> &'j str {
    case[key].as_str().expect("a text")
}

fn numbers(case: &Json, key: &str) -> Vec<f64> {
    serde_json::from_value(case[key].clone()).expect("numbers")
}

/// An option of a case as a number, where it is there.
fn option(case: &Json, key: &str) -> Option<f64> {
    let value = &case["options"][key];
    value.as_f64().or_else(|| value.as_bool().map(f64::from))
}

fn near(what: &str, got: &[f32], wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let bound = 1e-4 * wanted.iter().fold(1e-2f32, |m, x| m.max(x.abs()));
    let worst = got.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound && got.iter().all(|x| x.is_finite()), "{what}: off by {worst}, {got:?} {wanted:?}");
}

fn loss(case: &Json) -> Box<dyn Loss> {
    let logits = option(case, "from_logits") == Some(1.0);
    let smoothing = option(case, "label_smoothing").unwrap_or(0.0) as f32;
    match text(case, "kind") {
        "SparseCategoricalCrossentropy" => Box::new(SparseCategoricalCrossentropy::new().from_logits(logits)),
        "CategoricalCrossentropy" => {
            Box::new(CategoricalCrossentropy::new().from_logits(logits).label_smoothing(smoothing))
        }
        "BinaryCrossentropy" => Box::new(BinaryCrossentropy::new().from_logits(logits).label_smoothing(smoothing)),
        "MeanSquaredError" => Box::new(MeanSquaredError),
        "MeanAbsoluteError" => Box::new(MeanAbsoluteError),
        "MeanAbsolutePercentageError" => Box::new(MeanAbsolutePercentageError),
        "MeanSquaredLogarithmicError" => Box::new(MeanSquaredLogarithmicError),
        "Huber" => Box::new(Huber::new().delta(option(case, "delta").expect("a number") as f32)),
        "LogCosh" => Box::new(LogCosh),
        "Hinge" => Box::new(Hinge),
        "SquaredHinge" => Box::new(SquaredHinge),
        "CategoricalHinge" => Box::new(CategoricalHinge),
        "KLDivergence" => Box::new(KLDivergence),
        "Poisson" => Box::new(Poisson),
        "CosineSimilarity" => Box::new(CosineSimilarity),
        other => panic!("no loss {other}"),
    }
}

/// A graph with two inputs `p` and `t` like these tensors, and their feeds.
fn inputs(p: &HostTensor, t: &HostTensor, classes: bool) -> (Graph, [Value; 2], Vec<(String, HostTensor)>) {
    let mut g = Graph::new();
    let batched = |x: &HostTensor| [Batch].into_iter().chain(x.shape()[1..].iter().copied()).collect::<Vec<_>>();
    let t = match classes {
        true => HostTensor::u32(t.shape(), t.to_f32().into_iter().map(|x| x as u32).collect()).expect("labels"),
        false => t.clone(),
    };
    let values = [g.input("p", batched(p), F32), g.input("t", batched(&t), t.dtype())];
    (g, values, vec![("p".into(), p.clone()), ("t".into(), t)])
}

#[test]
fn losses_and_their_gradients_are_those_of_keras() {
    let golden = Golden::open();
    for case in golden.cases("losses") {
        let (name, loss) = (text(case, "name"), loss(case));
        let [p, t] = ["p", "t"].map(|part| golden.tensor(case, part));
        let (mut g, [x, y], feeds) = inputs(&p, &t, loss.takes_classes());
        let each = loss.build(&mut g, x, None, y).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mean = g.mean(each).expect("a mean");
        let dx = g.gradients(mean, &[x]).expect("a gradient")[0];
        g.output("each", each);
        g.output("dp", dx);
        let n = p.shape()[0];
        let got = run_graph(&g, &feeds, &Step::of(n), n, &Run::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        near(name, &got[0].to_f32(), &golden.tensor(case, "each").to_f32());
        near(&format!("gradient of {name}"), &got[1].to_f32(), &golden.tensor(case, "dp").to_f32());
    }
}

fn metric(case: &Json) -> Box<dyn Metric> {
    let threshold = || option(case, "thresholds").or(option(case, "threshold")).unwrap_or(0.5) as f32;
    let k = || option(case, "k").unwrap_or(1.0) as usize;
    let class = option(case, "class_id").map(|c| c as usize);
    match text(case, "kind") {
        "SparseCategoricalAccuracy" | "CategoricalAccuracy" => Box::new(Accuracy),
        "SparseTopKCategoricalAccuracy" | "TopKCategoricalAccuracy" => Box::new(TopKAccuracy::new(k())),
        "BinaryAccuracy" => Box::new(BinaryAccuracy::new().threshold(threshold())),
        "Precision" => {
            let metric = Precision::new().threshold(threshold());
            Box::new(class.into_iter().fold(metric, Precision::class_id))
        }
        "Recall" => {
            let metric = Recall::new().threshold(threshold());
            Box::new(class.into_iter().fold(metric, Recall::class_id))
        }
        "AUC" => {
            let curve = if case["options"]["curve"] == "PR" { Curve::PrecisionRecall } else { Curve::Roc };
            let n = option(case, "num_thresholds").map_or(200, |n| n as usize);
            Box::new(Auc::new().curve(curve).thresholds(n))
        }
        "MeanSquaredError" => Box::new(MeanSquaredError),
        "MeanAbsoluteError" => Box::new(MeanAbsoluteError),
        "RootMeanSquaredError" => Box::new(RootMeanSquaredError),
        other => panic!("no metric {other}"),
    }
}

#[test]
fn metrics_are_those_of_keras_batch_after_batch() {
    let golden = Golden::open();
    for case in golden.cases("metrics") {
        let (name, metric) = (text(case, "name"), metric(case));
        let (mut sums, mut samples) = (Vec::new(), 0.0);
        for (batch, wanted) in numbers(case, "results").into_iter().enumerate() {
            let [p, t] = ["p", "t"].map(|part| golden.tensor(case, &format!("{part}{batch}")));
            let (mut g, [x, y], feeds) = inputs(&p, &t, t.shape().len() < p.shape().len());
            let each = metric.build(&mut g, x, y).unwrap_or_else(|e| panic!("{name}: {e}"));
            g.output("each", each);
            let n = p.shape()[0];
            let got = run_graph(&g, &feeds, &Step::of(n), n, &Run::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let each = got[0].to_f32();
            let k = each.len() / n;
            sums.resize(k, 0.0);
            each.iter().enumerate().for_each(|(i, x)| sums[i % k] += f64::from(*x));
            samples += n as f64;
            let got = metric.result(&sums, samples);
            assert!((got - wanted).abs() <= 1e-5, "{name}: {got}, wanted {wanted}");
        }
    }
}

#[test]
fn schedules_are_those_of_keras() {
    let golden = Golden::open();
    for case in golden.cases("schedules") {
        let number = |key: &str| option(case, key);
        let or = |key: &str, default: f64| number(key).unwrap_or(default);
        let steps = or("decay_steps", or("first_decay_steps", 1.0)) as u64;
        let (alpha, staircase) = (or("alpha", 0.0), number("staircase") == Some(1.0));
        let schedule: Box<dyn LearningRate> = match text(case, "kind") {
            "ExponentialDecay" => {
                Box::new(ExponentialDecay::new(0.2, steps, or("decay_rate", 1.0)).staircase(staircase))
            }
            "InverseTimeDecay" => {
                Box::new(InverseTimeDecay::new(0.2, steps, or("decay_rate", 1.0)).staircase(staircase))
            }
            "CosineDecay" => {
                let schedule = CosineDecay::new(0.2, steps).alpha(alpha);
                let warmup = number("warmup_target").map(|target| (target, or("warmup_steps", 0.0) as u64));
                Box::new(warmup.into_iter().fold(schedule, |s, (target, steps)| s.warmup(target, steps)))
            }
            "CosineDecayRestarts" => {
                let schedule = CosineDecayRestarts::new(0.2, steps).alpha(alpha);
                Box::new(schedule.growth(or("t_mul", 2.0), or("m_mul", 1.0)))
            }
            "PolynomialDecay" => {
                let schedule = PolynomialDecay::new(0.2, steps, or("end_learning_rate", 0.0)).power(or("power", 1.0));
                Box::new(schedule.cycle(number("cycle") == Some(1.0)))
            }
            "PiecewiseConstantDecay" => Box::new(PiecewiseConstantDecay::new(0.2, [(5, 0.1), (12, 0.05), (20, 0.01)])),
            other => panic!("no schedule {other}"),
        };
        for (step, wanted) in numbers(case, "rates").into_iter().enumerate() {
            let got = schedule.at(step as u64);
            assert!((got - wanted).abs() <= 1e-6, "{case}: {got} at step {step}, wanted {wanted}");
        }
    }
}

/// Calls a callback with a series of values of epochs whose weights are their numbers, and returns the number of epochs,
/// the weights at the end, and the learning rates.
fn drive(callback: &mut dyn Callback, case: &Json) -> (usize, f32, Vec<f64>) {
    let model = Sequential::new([1]).add(Dense::new(1).use_bias(false).name("d")).build().expect("a model");
    let how = Compile::new(Sgd::new(0.5), MeanSquaredError);
    let mut trainer = model.compile(&Engine::reference(), how).expect("a trainer");
    let names = vec!["loss".to_owned(), text(case, "value").to_owned()];
    callback.begin(&Progress { names, ..Progress::default() }, &mut trainer).expect("it begins");
    let (mut epochs, mut rates) = (0, Vec::new());
    for (epoch, value) in numbers(case, "series").into_iter().enumerate() {
        callback.epoch_begin(epoch, &mut trainer).expect("it goes on");
        let weight = HostTensor::f32([1, 1], vec![epoch as f32]).expect("a weight");
        trainer.set_weights(&[("d/kernel".into(), weight)]).expect("weights");
        let values = vec![("loss".to_owned(), 1.0), (text(case, "value").to_owned(), value)];
        let at = Progress { epoch, values, ..Progress::default() };
        let control = callback.epoch_end(&at, &mut trainer).expect("it goes on");
        rates.push(trainer.learning_rate());
        epochs = epoch + 1;
        if control == Control::Stop {
            break;
        }
    }
    callback.end(&mut trainer).expect("it ends");
    (epochs, trainer.weights().expect("weights")[0].1.to_f32()[0], rates)
}

fn direction(case: &Json) -> Direction {
    match case["options"]["mode"].as_str() {
        Some("max") => Direction::Max,
        Some("min") => Direction::Min,
        _ => Direction::Auto,
    }
}

#[test]
fn early_stopping_stops_and_restores_where_keras_does() {
    let golden = Golden::open();
    for case in golden.cases("early") {
        let or = |key: &str| option(case, key).unwrap_or(0.0);
        let watch = Watch::new(text(case, "value")).min_delta(or("min_delta")).direction(direction(case));
        let mut stop = EarlyStopping::new(watch)
            .patience(or("patience") as usize)
            .start_from_epoch(or("start_from_epoch") as usize)
            .restore_best_weights(or("restore_best_weights") == 1.0);
        stop = option(case, "baseline").into_iter().fold(stop, EarlyStopping::baseline);
        let (epochs, weights, _) = drive(&mut stop, case);
        assert_eq!(
            (case["epochs"].as_u64(), case["weights"].as_f64()),
            (Some(epochs as u64), Some(weights.into())),
            "{case}"
        );
    }
}

#[test]
fn the_rate_falls_on_a_plateau_as_keras_lowers_it() {
    let golden = Golden::open();
    for case in golden.cases("plateau") {
        let or = |key: &str, default: f64| option(case, key).unwrap_or(default);
        let watch = Watch::new(text(case, "value")).direction(direction(case));
        let mut lower = ReduceLROnPlateau::new(option(case, "min_delta").into_iter().fold(watch, Watch::min_delta))
            .factor(or("factor", 0.1))
            .patience(or("patience", 10.0) as usize)
            .cooldown(or("cooldown", 0.0) as usize)
            .min_lr(or("min_lr", 0.0));
        let (_, _, rates) = drive(&mut lower, case);
        let wanted = numbers(case, "rates");
        let same = rates.len() == wanted.len() && rates.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(same, "{case}: {rates:?}");
    }
}

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
        let how = match name {
            "sgd" => Compile::new(Sgd::new(0.05).momentum(0.9), loss),
            "classes" => Compile::new(RmsProp::new(0.003), loss),
            _ => Compile::new(Adam::new(0.01), loss),
        };
        let mut model = model.clone();
        model.set_weights(all("before")).expect("the same weights");
        let mut trainer = model.compile(engine(), how.metric(Accuracy)).expect("a trainer");
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

/// Points of two classes on a line, 40 of them.
fn points() -> Dataset {
    let x: Vec<f32> = (0..40).map(|i| i as f32 / 20.0 - 1.0).collect();
    let labels = x.iter().enumerate().map(|(i, x)| u8::from(*x > 0.1) ^ u8::from(i % 9 == 4)).collect();
    Dataset::new(HostTensor::f32([40, 1], x).expect("x"), HostTensor::u8([40], labels).expect("y")).expect("data")
}

fn binary(data: &Dataset) -> Dataset {
    let labels = HostTensor::f32([data.len(), 1], data.labels.to_f32()).expect("labels");
    Dataset::new(data.images.clone(), labels).expect("data")
}

#[test]
fn sums_of_many_metrics_are_kept_over_an_epoch() {
    let model = Sequential::new([1]).add(Dense::new(1).activation(Sigmoid).name("d")).build().expect("a model");
    let data = binary(&points());
    let values = |engine: &Engine| {
        let how = Compile::new(Sgd::new(0.1), BinaryCrossentropy::new())
            .metric(Accuracy)
            .metric(Precision::new())
            .metric(Recall::new())
            .metric(Auc::new())
            .metric(RootMeanSquaredError)
            .seed(4);
        let mut trainer = model.compile(engine, how).expect("a trainer");
        let before = trainer.evaluate(&data).expect("scores");
        let history = trainer.fit(&data, Fit::epochs(3).batch(16).validation(&data)).expect("training");
        let after = trainer.evaluate(&data).expect("scores");
        let last = |name: &str| history.last(&format!("val_{name}")).expect("a value");
        for (name, value) in &after.values {
            assert!((last(name) - value).abs() < 1e-6, "{name}: {} and {value}", last(name));
        }
        [before, after]
    };
    for (got, wanted) in values(engine()).iter().zip(&values(&Engine::reference())) {
        assert_eq!(wanted.values.len(), 6);
        for ((name, a), (_, b)) in got.values.iter().zip(&wanted.values) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}");
        }
    }
}

#[test]
fn a_weighted_sample_counts_as_often_as_it_weighs() {
    let data = points();
    // Each sample of class 1 twice, against a weight of 2 in batches of half as many.
    let twice: Vec<u32> =
        (0..40).flat_map(|i| vec![i; if data.labels.to_f32()[i as usize] == 1.0 { 2 } else { 1 }]).collect();
    let labels = data.labels_of(&twice).expect("labels");
    let repeated = Dataset::new(data.rows(&twice).expect("samples"), labels).expect("data");
    let weighted = data.clone().class_weights(&[1.0, 2.0]).expect("weights");
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax).name("d")).build().expect("a model");
    let learn = |data: &Dataset, rate: f64| {
        let how = Compile::new(Sgd::new(rate), SparseCategoricalCrossentropy::new()).seed(1);
        let mut trainer = model.compile(engine(), how).expect("a trainer");
        let fit = Fit::epochs(5).batch(data.len()).shuffle(false);
        let loss = trainer.fit(data, fit).expect("training").last("loss").expect("a loss");
        (loss * data.len() as f64, trainer.weights().expect("weights")[0].1.to_f32())
    };
    // The mean is over samples: the rate makes up for their number.
    let (a, b) = (learn(&weighted, 0.5), learn(&repeated, 0.5 * twice.len() as f64 / 40.0));
    assert!((a.0 - b.0).abs() < 1e-3 && a.1.iter().zip(&b.1).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    assert!(data.clone().class_weights(&[1.0]).is_err());

    // One step with weights, then one without, on as many samples; weights of another number are refused.
    let mut trainer =
        model.compile(engine(), Compile::new(Sgd::new(0.0), SparseCategoricalCrossentropy::new())).expect("");
    let double = data.clone().sample_weights(vec![2.0; 40]).expect("weights");
    let losses = [&double, &data, &double].map(|data| trainer.train_on_batch(data).expect("a step"));
    assert!((losses[0] - 2.0 * losses[1]).abs() < 1e-6 && losses[0] == losses[2], "{losses:?}");
    let short = Dataset { weights: Some(HostTensor::f32([3], vec![1.0; 3]).expect("weights")), ..data.clone() };
    assert!(trainer.train_on_batch(&short).err().expect("refused").to_string().contains("40 finite numbers"));
}

#[test]
fn layers_learn_at_rates_of_their_own_and_callbacks_change_them() {
    let data = points();
    let model = Sequential::new([1])
        .add(Dense::new(4).activation(Tanh).name("base"))
        .add(Dense::new(2).activation(Softmax).name("head"))
        .build()
        .expect("a model");
    let moved = |factor: f32, rate: f64| {
        let how = Compile::new(Sgd::new(rate), SparseCategoricalCrossentropy::new()).seed(2);
        let mut trainer = model.compile(engine(), how.rate_factor("base", factor)).expect("a trainer");
        let before = trainer.weights().expect("weights");
        trainer.train_on_batch(&data).expect("a step");
        let after = trainer.weights().expect("weights");
        let way = |i: usize| -> Vec<f32> {
            before[i].1.to_f32().iter().zip(after[i].1.to_f32()).map(|(a, b)| b - a).collect()
        };
        [way(0), way(2)]
    };
    let [full, tenth] = [moved(1.0, 1.0), moved(0.1, 1.0)];
    assert!(full[0].iter().any(|d| d.abs() > 1e-3) && full[1] == tenth[1], "{full:?} {tenth:?}");
    assert!(full[0].iter().zip(&tenth[0]).all(|(a, b)| (a * 0.1 - b).abs() < 1e-6), "{full:?} {tenth:?}");
    let none = moved(0.0, 1.0);
    assert!(none[0].iter().all(|d| *d == 0.0));

    let how = || Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new());
    assert!(
        model.compile(engine(), how().rate_factor("bas", 0.1)).err().expect("refused").to_string().contains("base")
    );
    let mut trainer = model.compile(engine(), how()).expect("a trainer");
    let scheduler = LearningRateScheduler::new(|epoch, rate| if epoch == 0 { rate } else { rate / 2.0 });
    trainer.fit(&data, Fit::epochs(3).callback(scheduler)).expect("training");
    assert_eq!(trainer.learning_rate(), 0.125);
    let folder = tempfile::tempdir().expect("a folder");
    trainer.save_checkpoint(folder.path().join("c")).expect("a checkpoint");
    let mut resumed = model.compile(engine(), how()).expect("a trainer");
    assert_eq!(resumed.learning_rate(), 0.5);
    resumed.load_checkpoint(folder.path().join("c")).expect("a checkpoint");
    assert_eq!(resumed.learning_rate(), 0.125);
    // An epoch that is gone on with does not begin again.
    for steps in [1, 1, 2] {
        let halve = LearningRateScheduler::new(|_, rate| rate / 2.0);
        resumed.fit(&data, Fit::until_epoch(4).batch(20).max_steps(steps).callback(halve)).expect("training");
    }
    assert_eq!((resumed.learning_rate(), resumed.steps()), (0.0625, trainer.steps() + 2));
    let missing = trainer.fit(&data, Fit::epochs(4).callback(EarlyStopping::new("val_loss"))).err().expect("refused");
    assert!(missing.to_string().contains("validation data"), "{missing}");
}

#[test]
fn every_optimizer_learns_with_every_kind_of_clipping_and_starts_its_slots_as_keras_does() {
    let data = points();
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax)).build().expect("a model");
    let learns = |how: Compile| {
        let mut trainer = model.compile(engine(), how.seed(3)).expect("a trainer");
        let history = trainer.fit(&data, Fit::epochs(8).batch(10)).expect("training");
        let losses = history.get("loss").expect("losses").to_vec();
        assert!(losses[7] < losses[0] && losses.iter().all(|l| l.is_finite()), "{losses:?}");
    };
    let loss = SparseCategoricalCrossentropy::new;
    learns(Compile::new(Sgd::new(0.1).momentum(0.9).clipnorm(0.5), loss()));
    learns(Compile::new(Adam::new(0.02).amsgrad(true).global_clipnorm(0.5), loss()));
    learns(Compile::new(AdamW::new(CosineDecay::new(0.02, 32)), loss()));
    learns(Compile::new(Nadam::new(0.02).clipvalue(0.1), loss()));
    learns(Compile::new(RmsProp::new(0.01).momentum(0.5).centered(true), loss()));
    learns(Compile::new(Adagrad::new(0.1).initial_accumulator_value(0.2).weight_decay(0.01), loss()));
}

#[test]
fn checkpoints_of_the_best_epochs_and_rows_of_all_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let data = points();
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax)).build().expect("a model");
    let how = || Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let mut trainer = model.compile(engine(), how()).expect("a trainer");
    let fit = Fit::epochs(3)
        .callback(ModelCheckpoint::new(path("epoch{epoch}.safetensors")))
        .callback(ModelCheckpoint::new(path("best.safetensors")).best_only("loss").weights_only(true))
        .callback(TerminateOnNaN::new())
        .callback(CsvLogger::new(path("log.csv")));
    let history = trainer.fit(&data, fit).expect("training");
    let names = |file: &str| {
        let tensors = hubel::io::safetensors::open(path(file)).expect("a file");
        tensors.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!((names("best.safetensors").len(), trainer.not_finite()), (2, None));
    assert!(names("epoch3.safetensors").len() > 2);
    let mut resumed = model.compile(engine(), how()).expect("a trainer");
    resumed.load_checkpoint(path("epoch2.safetensors")).expect("a checkpoint");
    assert_eq!((resumed.steps(), trainer.steps()), (4, 6));
    resumed.fit(&data, Fit::until_epoch(3).callback(CsvLogger::new(path("log.csv")).append(true))).expect("training");
    assert_eq!(resumed.weights().expect("weights"), trainer.weights().expect("weights"));
    let mut best = model.clone();
    best.load_weights(path("best.safetensors")).expect("weights");
    let text = fs::read_to_string(path("log.csv")).expect("a log");
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!((rows[0], rows.len()), ("epoch,accuracy,loss", 5));
    let last = format!("2,{},{}", history.last("accuracy").expect("a value"), history.last("loss").expect("a value"));
    assert_eq!([rows[3], rows[4]], [&last[..], &last[..]]);
}

#[test]
fn a_checkpoint_with_more_or_fewer_tensors_than_the_run_is_refused() {
    use hubel::io::safetensors;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.safetensors");
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax)).build().expect("a model");
    let how = Compile::new(Adam::new(0.5), SparseCategoricalCrossentropy::new());
    let mut trainer = model.compile(engine(), how).expect("a trainer");
    trainer.save_checkpoint(&path).expect("a checkpoint");
    let bytes = fs::read(&path).expect("a file");
    let metadata = safetensors::metadata(&bytes).expect("metadata");
    let all = safetensors::read(&bytes).expect("tensors");
    let more = [&all[..], &[("other".to_owned(), HostTensor::f32([1], vec![0.0]).expect("a tensor"))]].concat();
    for tensors in [&more[..], &all[1..]] {
        let changed = safetensors::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &metadata).expect("a file");
        fs::write(&path, changed).expect("a file");
        let error = trainer.load_checkpoint(&path).expect_err("another run's").to_string();
        assert!(error.contains("does not fit this run"), "{error}");
    }
}

#[test]
fn several_outputs_are_trained_by_the_sum_of_their_weighted_losses() {
    let x = Input::new([6]);
    let hidden = x.clone().apply(Dense::new(8).activation(Tanh).name("hidden")).expect("a layer");
    let class = hidden.clone().apply(Dense::new(3).activation(Softmax).name("class")).expect("a layer");
    let size = hidden.apply(Dense::new(2).name("size")).expect("a layer");
    let model = Model::new(&[x.clone()], &[class.clone(), size.clone()]).expect("a model");
    let value = |i: usize| (i * 37 % 101) as f32 / 101.0 - 0.5;
    let samples = HostTensor::f32([12, 6], (0..72).map(value).collect()).expect("samples");
    let classes = HostTensor::u8([12], (0..12).map(|i| i % 3).collect()).expect("labels");
    let sizes = HostTensor::f32([12, 2], (0..24).map(|i| value(i * 5)).collect()).expect("labels");
    let one = Dataset::new(samples.clone(), classes).expect("a data set");
    let two = one.clone().and_labels(sizes.clone()).expect("labels of both");
    let how = |weight: f32| {
        Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new())
            .metric(Accuracy)
            .output(MeanSquaredError)
            .loss_weight(weight)
            .metric(RootMeanSquaredError)
    };
    let mut trainer = model.compile(engine(), how(0.25)).expect("a trainer");
    let history = trainer.fit(&two, Fit::epochs(30).batch(5).validation(&two)).expect("training");
    let last = |name: &str| history.last(name).unwrap_or_else(|| panic!("no {name} in {:?}", history.series));
    assert!((last("loss") - last("output_0_loss") - 0.25 * last("output_1_loss")).abs() < 1e-5);
    let rmse = last("val_output_1_root_mean_squared_error");
    assert!((rmse * rmse - last("val_output_1_loss")).abs() < 1e-5 && last("output_0_accuracy") <= 1.0);
    assert!(last("output_0_loss") < 1.0 && last("loss") < history.get("loss").expect("losses")[0]);

    // Without weight the second output changes nothing; the first is then trained as if alone.
    let mut both = model.compile(engine(), how(0.0)).expect("a trainer");
    both.fit(&two, Fit::epochs(3).batch(5)).expect("training");
    let alone = Model::new(&[x], &[class]).expect("a model");
    let mut single =
        alone.compile(engine(), Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new())).expect("a trainer");
    single.fit(&one, Fit::epochs(3).batch(5)).expect("training");
    let of_both = both.weights().expect("weights");
    for (name, weight) in single.weights().expect("weights") {
        let other = &of_both.iter().find(|w| w.0 == name).expect("the same weight").1;
        near(&name, &other.to_f32(), &weight.to_f32());
    }
    let untrained = model.initial_value(model.weights().iter().find(|w| w.name == "size/kernel").expect("one"), 0);
    assert_eq!(of_both.iter().find(|w| w.0 == "size/kernel").map(|w| &w.1), Some(&untrained));

    // A reference engine and samples from the host do the same; what does not fit is told.
    let mut reference = model.compile(&Engine::reference(), how(0.25)).expect("a trainer");
    let again = reference.fit(&two, Fit::epochs(2).batch(5)).expect("training");
    assert!((again.get("loss").expect("losses")[1] - history.get("loss").expect("losses")[1]).abs() < 1e-4);
    let error = trainer.fit(&one, Fit::epochs(31)).expect_err("labels are missing").to_string();
    assert!(error.contains("2 outputs and 1"), "{error}");
    let error = trainer.fit(&one.clone().and_labels(samples).expect("labels"), Fit::epochs(31)).expect_err("of 6");
    assert!(error.to_string().contains("[2] for each sample"), "{error}");
    assert!(model.compile(engine(), Compile::new(Sgd::new(0.5), MeanSquaredError)).is_err());
    assert!(one.and_labels(HostTensor::f32([11, 2], vec![0.0; 22]).expect("labels")).is_err());
}

#[test]
fn mixtures_are_lines_between_neighbours_in_training_alone() {
    let value = |i: usize| (i * 37 % 101) as f32 / 101.0 - 0.5;
    let x = HostTensor::f32([8, 5], (0..40).map(value).collect()).expect("samples");
    let labels = HostTensor::u8([8], vec![0, 1, 2, 0, 1, 2, 0, 1]).expect("labels");
    let classes = Dataset::new(x.clone(), labels).expect("a data set");
    let data = classes.clone().to_categorical().expect("numbers");
    let model = Sequential::new([5]).add(Dense::new(3).activation(Softmax)).build().expect("a model");
    let how = || Compile::new(Sgd::new(0.5), CategoricalCrossentropy::new());
    let first = model.compile(engine(), how()).expect("a trainer").weights().expect("weights");
    let after = |how: Compile, data: &Dataset, seed: u64, host: bool| {
        let mut trainer = model.compile(engine(), how).expect("a trainer");
        let fit = Fit::epochs(1).batch(8).shuffle(false).seed(seed);
        match host {
            true => drop(trainer.train_on_batch(data).expect("a step")),
            false => drop(trainer.fit(data, fit).expect("a step")),
        }
        let before = trainer.evaluate(data).expect("scores");
        assert_eq!(before, trainer.evaluate(data).expect("scores"), "nothing is mixed in evaluation");
        trainer.weights().expect("weights")
    };
    let (mixed, plain) = (after(how().mix_up(1.0), &data, 3, false), after(how(), &data, 3, false));
    assert!(mixed != plain && mixed != first);
    assert_eq!(mixed, after(how().mix_up(1.0), &data, 3, false));
    assert_ne!(mixed, after(how().mix_up(1.0), &data, 4, false));
    // From the host, with the seed that a trainer begins with.
    let (host, device) = (after(how().mix_up(1.0), &data, 0, true), after(how().mix_up(1.0), &data, 0, false));
    host.iter().zip(&device).for_each(|(a, b)| near("host", &a.1.to_f32(), &b.1.to_f32()));
    // The gradient is linear in labels, and of a softmax's bias Σ(p − y): a neighbour's share moves it between the two.
    let same = Dataset::new(HostTensor::f32([8, 5], x.to_f32()[..5].repeat(8)).expect("samples"), data.labels.clone());
    let same = same.expect("a data set");
    let sum = |w: &[(String, HostTensor)]| w[1].1.to_f32().iter().sum::<f32>();
    assert!((sum(&after(how().mix_up(0.2), &same, 1, false)) - sum(&after(how(), &same, 1, false))).abs() < 1e-5);

    let sparse = Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new()).mix_up(0.2);
    let error = model.compile(engine(), sparse).expect("a trainer").fit(&classes, Fit::epochs(1)).expect_err("classes");
    assert!(error.to_string().contains("to_categorical"), "{error}");
    assert!(model.compile(engine(), how().mix_up(0.0)).is_err());
}

/// One weight without a bias, 0 at first.
fn one() -> Model {
    Sequential::new([1]).add(Dense::new(1).kernel_initializer(Zeros).name("d")).build().expect("a model")
}

fn ones(n: usize) -> Dataset {
    let all = || HostTensor::f32([n, 1], vec![1.0; n]).expect("ones");
    Dataset::new(all(), all()).expect("a data set")
}

fn plain(rate: impl LearningRate + 'static) -> Trainer {
    one().compile(engine(), Compile::new(Sgd::new(rate), MeanSquaredError)).expect("a trainer")
}

/// Holds that an answer is an error that says each of these.
fn says<T>(answer: Result<T, Error>, words: &[&str]) {
    let text = answer.err().expect("it is refused").to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} in: {text}");
}

/// Calls a closure at the end of each epoch.
struct AtEnd<F>(F);

impl<F: FnMut(&Progress, &mut Trainer)> Callback for AtEnd<F> {
    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        (self.0)(at, trainer);
        Ok(Control::Continue)
    }
}

/// Calls a closure after each step.
struct AtStep<F>(F);

impl<F: FnMut(&Progress, &mut Trainer) -> Control> Callback for AtStep<F> {
    fn step_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        Ok((self.0)(at, trainer))
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
    let folder = tempfile::tempdir().expect("a folder");
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

/// Takes this weight in each epoch.
struct Weights(&'static [f32]);

impl Callback for Weights {
    fn epoch_begin(&mut self, epoch: usize, trainer: &mut Trainer) -> Result<(), Error> {
        let kernel = HostTensor::f32([1, 1], vec![self.0[epoch]])?;
        trainer.set_weights(&[("d/kernel".into(), kernel), ("d/bias".into(), HostTensor::f32([1], vec![0.0])?)])
    }
}

fn kernel(tensors: &[(String, HostTensor)]) -> f32 {
    tensors.iter().find(|t| t.0 == "d/kernel").expect("a kernel").1.to_f32()[0]
}

#[test]
fn no_number_is_never_the_best() {
    let folder = tempfile::tempdir().expect("a folder");
    let best = folder.path().join("best.safetensors");
    const NAN: f32 = f32::NAN;
    for (weights, wanted, epochs) in [
        (&[NAN, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9][..], 0.9, 5),
        (&[NAN, NAN, 0.5, NAN, 0.7, NAN, NAN, NAN, NAN], 0.7, 8),
        (&[0.5, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN], 0.5, 4),
    ] {
        let mut trainer = plain(0.0);
        let fit = Fit::epochs(9)
            .callback(Weights(weights))
            .callback(EarlyStopping::new("loss").patience(3).restore_best_weights(true))
            .callback(ModelCheckpoint::new(&best).best_only("loss").weights_only(true));
        let history = trainer.fit(&ones(4), fit).expect("training");
        assert_eq!(
            (kernel(&trainer.weights().expect("weights")), history.epochs.len()),
            (wanted, epochs),
            "{weights:?}"
        );
        assert_eq!(kernel(&safetensors::open(&best).expect("weights")), wanted);
        // The rate falls once for each two epochs without a better value.
        let mut trainer = plain(1.0);
        let fit = Fit::epochs(9).callback(Weights(weights));
        let rates = Rc::new(RefCell::new(Vec::new()));
        let told = rates.clone();
        let lower = ReduceLROnPlateau::new("loss").factor(0.5).patience(2);
        let tell = AtEnd(move |_: &Progress, trainer: &mut Trainer| told.borrow_mut().push(trainer.learning_rate()));
        trainer.fit(&ones(4), fit.callback(lower).callback(tell)).expect("training");
        assert!(rates.borrow()[8] < 1.0, "{rates:?}");
    }
    // Above a threshold there is nothing to keep.
    let never = folder.path().join("never.safetensors");
    let callback = ModelCheckpoint::new(&never).best_only("loss").initial_value_threshold(1e-3);
    plain(0.0)
        .fit(&ones(4), Fit::epochs(2).callback(Weights(&[0.5, 0.6])).callback(callback.clone()))
        .expect("training");
    assert!(!never.exists());
    plain(0.0).fit(&ones(4), Fit::epochs(2).callback(Weights(&[0.5, 0.99])).callback(callback)).expect("training");
    assert_eq!(kernel(&safetensors::open(&never).expect("weights")), 0.99);
}

#[test]
fn a_resumed_run_goes_on_with_what_its_callbacks_remember() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    // Better, worse, worse, …: a run that is resumed after any epoch ends where the whole one does.
    const SERIES: &[f32] = &[0.2, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0];
    let fit = |name: &str, epochs: usize| {
        Fit::until_epoch(epochs)
            .validation(Box::leak(Box::new(ones(4))))
            .callback(Weights(SERIES))
            .callback(ModelCheckpoint::new(path("last.safetensors")))
            .callback(ModelCheckpoint::new(path(name)).best_only("val_loss").weights_only(true))
            .callback(ReduceLROnPlateau::new("val_loss").factor(0.5).patience(2).cooldown(1))
            .callback(EarlyStopping::new("val_loss").patience(4).restore_best_weights(true))
    };
    let mut whole = plain(0.01);
    let wanted = whole.fit(&ones(4), fit("whole.safetensors", 9)).expect("training");
    assert_eq!(wanted.epochs.len(), 6);
    for after in 1..6 {
        let name = format!("best{after}.safetensors");
        plain(0.01).fit(&ones(4), fit(&name, after)).expect("training");
        let mut resumed = plain(0.01);
        resumed.load_checkpoint(path("last.safetensors")).expect("a checkpoint");
        let history = resumed.fit(&ones(4), fit(&name, 9)).expect("training");
        assert_eq!(after + history.epochs.len(), 6, "resumed after {after}");
        assert_eq!(resumed.weights().expect("weights"), whole.weights().expect("weights"), "resumed after {after}");
        assert_eq!(resumed.learning_rate(), whole.learning_rate(), "resumed after {after}");
        let best = kernel(&safetensors::open(path(&name)).expect("weights"));
        assert_eq!(
            best,
            kernel(&safetensors::open(path("whole.safetensors")).expect("weights")),
            "resumed after {after}"
        );
    }
    // A callback of one's own, twice.
    #[derive(Default)]
    struct Counter(f64);
    impl Callback for Counter {
        fn epoch_end(&mut self, _: &Progress, _: &mut Trainer) -> Result<Control, Error> {
            self.0 += 1.0;
            Ok(Control::Continue)
        }
        fn state(&self) -> CallbackState {
            CallbackState { name: "counter".into(), numbers: vec![("n".into(), self.0)], weights: None }
        }
        fn set_state(&mut self, state: &CallbackState) {
            self.0 = state.get("n").expect("its number");
        }
        fn end(&mut self, _: &mut Trainer) -> Result<(), Error> {
            assert!(self.0 == 5.0 || self.0 == 105.0 || self.0 < 4.0 || self.0 == 103.0, "{}", self.0);
            Ok(())
        }
    }
    let counters = |n: usize| Fit::until_epoch(n).callback(Counter(0.0)).callback(Counter(100.0));
    let mut trainer = plain(0.01);
    trainer.fit(&ones(4), counters(3)).expect("training");
    trainer.save_checkpoint(path("counters.safetensors")).expect("a checkpoint");
    let mut resumed = plain(0.01);
    resumed.load_checkpoint(path("counters.safetensors")).expect("a checkpoint");
    resumed.fit(&ones(4), counters(5)).expect("training");
    // A call that follows by itself begins anew, as in Keras.
    resumed.fit(&ones(4), Fit::epochs(3).callback(Counter(0.0))).expect("training");
    let amid = path("amid.safetensors");
    let save = AtStep(|_: &Progress, trainer: &mut Trainer| {
        trainer.save_checkpoint(&amid).expect("a checkpoint");
        Control::Continue
    });
    resumed.fit(&ones(4), Fit::epochs(1).callback(save)).expect("training");
    let saved = fs::read(&amid).expect("a file");
    assert!(!String::from_utf8_lossy(&saved).contains("counter"), "what the callbacks of another call remembered");
}

#[test]
fn the_best_file_of_a_diverging_run_stays_the_best_when_the_run_is_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let data = ones(4);
    let go = |trainer: &mut Trainer, epochs: usize| {
        let fit = Fit::until_epoch(epochs).validation(&data);
        let best = ModelCheckpoint::new(path("best.st")).best_only("val_loss").weights_only(true);
        trainer.fit(&data, fit.callback(best).callback(ModelCheckpoint::new(path("last.st")))).expect("training");
        safetensors::open(path("best.st")).expect("weights")
    };
    let first = go(&mut plain(0.6), 3);
    let mut resumed = plain(0.6);
    resumed.load_checkpoint(path("last.st")).expect("a checkpoint");
    assert_eq!(go(&mut resumed, 5), first);
}

#[test]
fn a_checkpoint_gives_a_model_its_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.safetensors");
    let mut trainer = one().compile(engine(), Compile::new(Adam::new(0.01), MeanSquaredError)).expect("a trainer");
    let stop = EarlyStopping::new("loss").restore_best_weights(true);
    trainer.fit(&ones(4), Fit::epochs(2).callback(stop).callback(ModelCheckpoint::new(&path))).expect("training");
    let mut model = one();
    model.load_weights(&path).expect("the weights alone are taken");
    let again = model.compile(engine(), Compile::new(Sgd::new(0.1), MeanSquaredError)).expect("a trainer");
    assert_eq!(again.weights().expect("weights"), trainer.weights().expect("weights"));
    let mut other = Sequential::new([1]).add(Dense::new(1).name("e")).build().expect("a model");
    assert!(other.load_weights(&path).expect_err("another model").to_string().contains("e/kernel"));
}

#[test]
fn names_of_checkpoints_are_filled_in_or_refused_before_the_first_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let fit = |callback: ModelCheckpoint| {
        let mut trainer = plain(0.1);
        let done = trainer.fit(&ones(4), Fit::epochs(2).callback(callback.weights_only(true)));
        if done.is_err() {
            assert_eq!(trainer.steps(), 0);
        }
        done
    };
    fit(ModelCheckpoint::new(path("new/{epoch}/w.{epoch:02d}-{loss:.2f}.st"))).expect("training");
    let mut loaded = one();
    for name in ["new/1/w.01-1.00.st", "new/2/w.02-0.36.st"] {
        loaded.load_weights(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, word) in [("{val_loss}", "val_loss"), ("{epoch:x}", "{epoch:x}"), ("{loss:d}", "{loss:d}"), ("{", "{")] {
        says(fit(ModelCheckpoint::new(path(name))), &[word, "{epoch:02d}", "{val_loss:.2f}"]);
    }
    fs::write(path("file"), "").expect("a file");
    for lost in [path("file/w.st"), path("file/a/w.st")] {
        says(fit(ModelCheckpoint::new(&lost)), &["file"]);
        says(plain(0.1).fit(&ones(4), Fit::epochs(1).callback(CsvLogger::new(&lost))), &["file"]);
        says(plain(0.1).fit(&ones(4), Fit::epochs(1).callback(TensorBoard::new(&lost))), &["file"]);
    }
    says(fit(ModelCheckpoint::new(folder.path())), &["folder"]);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let odd = |name: &[u8]| folder.path().join(std::ffi::OsString::from_vec(name.to_vec()));
        fit(ModelCheckpoint::new(odd(b"caf\xe9.st"))).expect("training");
        let names: Vec<_> =
            fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("a file").file_name()).collect();
        assert!(names.iter().any(|name| name.as_bytes() == b"caf\xe9.st"), "{names:?}");
        says(fit(ModelCheckpoint::new(odd(b"caf\xe9{epoch}.st"))), &["UTF-8"]);
    }
    let kept = fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("a file").file_name());
    assert!(kept.into_iter().all(|name| !name.to_string_lossy().contains(".try")));
}

#[test]
fn a_schedule_is_not_set_by_anything_else() {
    let schedule = || plain(ExponentialDecay::new(0.1, 1, 0.5));
    let fit = || Fit::epochs(6);
    for (fit, word) in [
        (fit().callback(ReduceLROnPlateau::new("loss")), "ReduceLROnPlateau"),
        (fit().callback(LearningRateScheduler::new(|_, rate| rate)), "LearningRateScheduler"),
    ] {
        let mut trainer = schedule();
        says(trainer.fit(&ones(4), fit), &[word, "schedule"]);
        assert_eq!(trainer.steps(), 0);
    }
    let mut trainer = schedule();
    assert_eq!(trainer.set_learning_rate(0.5), Err(TrainError::Schedule("set_learning_rate")));
    trainer.fit(&ones(4), fit()).expect("training");
    assert_eq!(trainer.learning_rate(), 0.1 * 0.5f64.powi(6));
    // A rate that was set belongs to a run whose rate is a number.
    let folder = tempfile::tempdir().expect("a folder");
    let mut constant = plain(0.1);
    constant.set_learning_rate(0.05).expect("a rate");
    constant.save_checkpoint(folder.path().join("c")).expect("a checkpoint");
    says(schedule().load_checkpoint(folder.path().join("c")), &["schedule"]);
}

#[test]
fn metrics_of_one_kind_have_names_of_their_own() {
    let x = HostTensor::f32([10, 1], vec![1.0; 10]).expect("samples");
    let data = Dataset::new(x, HostTensor::u8([10], (0..10).collect()).expect("labels")).expect("a data set");
    let net = Dense::new(10).kernel_initializer(Zeros).activation(Softmax);
    let model = Sequential::new([1]).add(net).build().expect("a model");
    let how = || Compile::new(Sgd::new(0.0), SparseCategoricalCrossentropy::new());
    let top = TopKAccuracy::new;
    let compiled = how().metric(top(1)).metric(top(3)).metric_named("top5", top(5)).metric(top(4));
    let mut trainer = model.compile(engine(), compiled).expect("a trainer");
    let history = trainer.fit(&data, Fit::epochs(2).validation(&data)).expect("training");
    let scores = trainer.evaluate(&data).expect("scores");
    let name = "top_k_categorical_accuracy";
    for (name, wanted) in [(name, 0.1), (&format!("{name}_1"), 0.3), ("top5", 0.5), (&format!("{name}_2"), 0.4)] {
        for got in [history.last(name), history.last(&format!("val_{name}")), scores.get(name)] {
            assert!(got.is_some_and(|got| (got - wanted).abs() < 1e-6), "{name}: {got:?}");
        }
    }
    assert_eq!((history.series.len(), scores.values.len()), (10, 5));
    for named in ["loss", "val_x", "", "twice"] {
        let how = how().metric_named(named, top(1)).metric_named("twice", top(2));
        says(model.compile(engine(), how), &["name", named]);
    }
    let table = history.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("epoch ") && lines[0].ends_with(&format!("val_{name}_2")), "{table}");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()) && lines[2].trim().starts_with('2'), "{table}");
}

#[test]
fn validation_data_with_other_classes_are_refused_by_name() {
    let named = |pixels: Vec<u8>, labels: Vec<u8>, classes: &[&str]| {
        let n = pixels.len();
        let labels = HostTensor::u8([n], labels).expect("labels");
        let mut data = Dataset::new(HostTensor::u8([n, 1], pixels).expect("pixels"), labels).expect("data");
        data.classes = classes.iter().map(|&name| name.to_owned()).collect();
        data
    };
    let train = named(vec![0, 1, 2], vec![0, 1, 2], &["a", "b", "c"]);
    let fewer = named(vec![0, 2], vec![0, 1], &["a", "c"]);
    let other = named(vec![0, 1, 2], vec![0, 2, 1], &["a", "c", "b"]);
    let more = named(vec![0, 1, 2], vec![0, 1, 2], &["a", "b", "c", "d"]);
    let hidden = Dense::new(32).activation(Relu);
    let model = Sequential::new([1]).add(hidden).add(Dense::new(3).activation(Softmax)).build().expect("a model");
    let how = Compile::new(Adam::new(0.05), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let mut trainer = model.compile(engine(), how).expect("a trainer");
    for (validation, word) in [(&fewer, "`b` is missing"), (&other, "order"), (&more, "`d` is one more")] {
        says(trainer.fit(&train, Fit::epochs(1).validation(validation)), &["a, b, c", word]);
    }
    let mapped = fewer.clone().class_names(&train.classes).expect("names among the training data's");
    let history = trainer.fit(&train, Fit::epochs(200).validation(&mapped)).expect("training");
    assert_eq!((history.last("accuracy"), history.last("val_accuracy")), (Some(1.0), Some(1.0)));
    let again = other.clone().class_names(&["a", "b", "c"]).expect("the same names");
    assert_eq!(again.labels.to_f32(), [0.0, 1.0, 2.0]);
    assert_eq!(trainer.evaluate(&again).expect("scores").get("accuracy"), Some(1.0));
    says(trainer.evaluate(&fewer), &["`b` is missing"]);
    says(trainer.confusion_matrix(&other), &["order"]);
    says(more.class_names(&train.classes).map_err(Error::from), &["`d`", "a, b, c"]);
    // Data that name no classes are taken as they are.
    trainer.evaluate(&named(vec![0], vec![0], &[])).expect("scores");
}

#[test]
fn whole_numbers_are_labels_wherever_the_loss_wants_indices_or_numbers() {
    let x: Vec<f32> = (0..3 * 16).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let x = HostTensor::f32([3, 4, 4, 1], x).expect("pictures");
    let values: Vec<u8> = (0..48).map(|i| (i * 7 % 5 % 2) as u8).collect();
    let shapes = [vec![3, 4, 4], vec![3, 4, 4, 1]];
    let types = |values: &[u8], shape: &[usize]| {
        let wide = |v: &u8| u32::from(*v);
        [
            HostTensor::u8(shape, values.to_vec()).expect("u8"),
            HostTensor::u32(shape, values.iter().map(wide).collect()).expect("u32"),
            HostTensor::i32(shape, values.iter().map(|&v| i32::from(v)).collect()).expect("i32"),
        ]
    };
    let masks = |n: usize| {
        let layer = Conv2D::new(n, 1).activation(if n == 1 { Sigmoid } else { Softmax });
        Sequential::new([4, 4, 1]).add(layer).build().expect("a model")
    };
    let flags = Sequential::new([4, 4, 1]).add(Flatten::new()).add(Dense::new(1).activation(Sigmoid)).build();
    let flags = flags.expect("a model");
    // What is learned of floats, or of indices u32, is learned of all other types.
    let learned = |model: &Model, how: Compile, data: &Dataset, engine: &Engine, host: bool| {
        let mut trainer = model.compile(engine, how).expect("a trainer");
        let loss = trainer.evaluate(data).expect("scores").get("loss").expect("a loss");
        match host {
            true => drop(trainer.train_on_batch(data).expect("a step")),
            false => drop(trainer.fit(data, Fit::epochs(1).batch(3).shuffle(false)).expect("a step")),
        }
        let weights = trainer.weights().expect("weights").into_iter().flat_map(|w| w.1.to_f32()).collect::<Vec<f32>>();
        (loss, weights)
    };
    let per_pixel = || Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let binary = || Compile::new(Sgd::new(0.5), BinaryCrossentropy::new()).metric(Accuracy);
    let check = |model: &Model, how: &dyn Fn() -> Compile, labels: Vec<HostTensor>, wanted: &(f64, Vec<f32>)| {
        for labels in labels {
            let what = format!("{} {:?}", labels.dtype(), labels.shape());
            let data = Dataset::new(x.clone(), labels).expect("a data set");
            for (engine, host) in [(engine(), false), (engine(), true), (&Engine::reference(), true)] {
                let got = learned(model, how(), &data, engine, host);
                assert!((got.0 - wanted.0).abs() < 1e-5, "{what}: loss {} for {}", got.0, wanted.0);
                near(&what, &got.1, &wanted.1);
            }
        }
    };
    // Per pixel: as one-hot masks, which are floats.
    let hot =
        hubel::data::to_categorical(&HostTensor::u8([3, 4, 4], values.clone()).expect("a mask"), 2).expect("floats");
    let dense = Dataset::new(x.clone(), hot).expect("a data set");
    let categorical = Compile::new(Sgd::new(0.5), CategoricalCrossentropy::new());
    let wanted = learned(&masks(2), categorical, &dense, engine(), false);
    check(&masks(2), &per_pixel, shapes.iter().flat_map(|s| types(&values, s)).collect(), &wanted);
    let float = |shape: &[usize], values: &[u8]| {
        let labels = HostTensor::f32(shape, values.iter().map(|&v| f32::from(v)).collect()).expect("floats");
        Dataset::new(x.clone(), labels).expect("a data set")
    };
    let wanted = learned(&masks(1), binary(), &float(&[3, 4, 4, 1], &values), engine(), false);
    check(&masks(1), &binary, shapes.iter().flat_map(|s| types(&values, s)).collect(), &wanted);
    let few = [1u8, 0, 1];
    let wanted = learned(&flags, binary(), &float(&[3, 1], &few), engine(), false);
    check(&flags, &binary, [vec![3], vec![3, 1]].iter().flat_map(|s| types(&few, s)).collect(), &wanted);
    check(&flags, &binary, vec![float(&[3], &few).labels], &wanted);

    let negative = HostTensor::i32([3, 4, 4], vec![-7; 48]).expect("a mask");
    says(Dataset::new(x.clone(), negative).map_err(Error::from), &["-7"]);
    let beyond = HostTensor::u8([3, 4, 4], (0..48).map(|i| if i == 17 { 2 } else { 0 }).collect()).expect("a mask");
    let beyond = Dataset::new(x.clone(), beyond).expect("a data set");
    says(masks(2).compile(engine(), per_pixel()).expect("a trainer").evaluate(&beyond), &["label 2 of sample 1"]);
    let small = Dataset::new(x.clone(), HostTensor::u8([3, 2, 4], vec![0; 24]).expect("a mask")).expect("a data set");
    says(masks(2).compile(engine(), per_pixel()).expect("a trainer").evaluate(&small), &["[4, 4]", "[3, 2, 4]"]);
    let floats = float(&[3, 4, 4], &values);
    says(masks(2).compile(engine(), per_pixel()).expect("a trainer").evaluate(&floats), &["class indices", "f32"]);
}

/// Counts wgpu's live objects of an engine's device.
fn objects(engine: &Engine) -> [isize; 4] {
    let hal = engine.wgpu().expect("a device").0.get_internal_counters().hal;
    [hal.buffers.read(), hal.bind_groups.read(), hal.compute_pipelines.read(), hal.memory_allocations.read()]
}

#[test]
fn predictions_and_evaluations_keep_their_sessions() {
    let engine = Engine::new().expect("an adapter");
    let how = Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax).name("d")).build().expect("a model");
    let mut trainer = model.compile(&engine, how).expect("a trainer");
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
fn callbacks_see_the_trainer_after_every_step() {
    let mut trainer = plain(ExponentialDecay::new(0.1, 1, 0.5));
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = seen.clone();
    let callback = AtStep(move |at: &Progress, trainer: &mut Trainer| {
        told.borrow_mut().push((trainer.steps(), trainer.learning_rate(), at.recent_loss.expect("a loss")));
        if trainer.steps() == 7 { Control::Stop } else { Control::Continue }
    });
    // Batch after batch has other losses: of the weight 0, squares of 1 to 4.
    let labels = HostTensor::f32([4, 1], vec![1.0, 2.0, 3.0, 4.0]).expect("labels");
    let data = Dataset { labels, ..ones(4) };
    let mut still = plain(0.0);
    let losses = Rc::new(RefCell::new(Vec::new()));
    let kept = losses.clone();
    let tell = AtStep(move |at: &Progress, _: &mut Trainer| {
        kept.borrow_mut().extend(at.recent_loss);
        Control::Continue
    });
    still.fit(&data, Fit::epochs(2).batch(1).shuffle(false).read_every_step().callback(tell)).expect("training");
    let wanted = [1.0, 4.0, 9.0, 16.0, 1.0, 4.0, 9.0, 16.0];
    assert!(losses.borrow().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{losses:?}");
    trainer.fit(&data, Fit::epochs(9).batch(1).read_every_step().callback(callback)).expect("training");
    let seen = seen.borrow();
    assert_eq!((seen.len(), trainer.steps()), (7, 7));
    assert!(seen.iter().enumerate().all(|(i, s)| s.0 == i as u64 + 1 && s.1 == 0.1 * 0.5f64.powi(i as i32 + 1)));
    // An error of a callback ends training.
    struct Fails;
    impl Callback for Fails {
        fn step_end(&mut self, _: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
            trainer.set_learning_rate(f64::NAN)?;
            Ok(Control::Continue)
        }
    }
    let mut constant = plain(0.1);
    says(constant.fit(&data, Fit::epochs(9).callback(Fails)), &["learning_rate", "NaN"]);
    assert_eq!(constant.steps(), 1);
}

#[test]
fn batches_of_an_iterator_train_as_those_of_a_data_set() {
    let data = points();
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax).name("d")).build().expect("a model");
    let how =
        || Compile::new(Adam::new(0.1), SparseCategoricalCrossentropy::new()).metric(Accuracy).norms(true).seed(1);
    for engine in [engine(), &Engine::reference()] {
        let trainer = || model.compile(engine, how()).expect("a trainer");
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
    let folder = tempfile::tempdir().expect("a folder");
    let data = points();
    let model = Sequential::new([1])
        .add(Dense::new(4).activation(Tanh).name("base"))
        .add(Dense::new(2).activation(Softmax).name("head"))
        .build()
        .expect("a model");
    for engine in [engine(), &Engine::reference()] {
        let how = || Compile::new(Adam::new(0.1), SparseCategoricalCrossentropy::new()).seed(5);
        let mut trainer = model.compile(engine, how()).expect("a trainer");
        let mut straight = model.compile(engine, how()).expect("a trainer");
        let fit = |trainer: &mut Trainer| trainer.fit(&data, Fit::epochs(2).batch(10)).map(drop).expect("training");
        (fit(&mut trainer), fit(&mut straight));
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
        let mut frozen = model.compile(engine, how()).expect("a trainer");
        frozen.set_trainable("base", false).expect("a layer");
        frozen.load_checkpoint(folder.path().join("c")).expect("the same moments");
        // The head's moments are those of before: a step like the whole network's.
        let mut whole = model.compile(engine, how()).expect("a trainer");
        fit(&mut whole);
        let mut part = model.compile(engine, how()).expect("a trainer");
        fit(&mut part);
        part.set_trainable("base", false).expect("a layer");
        (whole.train_on_batch(&data).expect("a step"), part.train_on_batch(&data).expect("a step"));
        let [whole, part] = [whole, part].map(|t| t.weights().expect("weights"));
        near("head", &part[2].1.to_f32(), &whole[2].1.to_f32());
        assert_ne!(part[0], whole[0]);
        // Evaluations go by the weights of now.
        trainer.evaluate(&data).expect("scores");
        trainer.set_trainable("base", false).expect("a layer");
        trainer.train_on_batch(&data).expect("a step");
        let mut fresh = trainer.trained().expect("a model").compile(engine, how()).expect("a trainer");
        assert_eq!(trainer.evaluate(&data).expect("scores"), fresh.evaluate(&data).expect("scores"));
        says(trainer.set_trainable("haed", false), &["haed"]);
        let inside = AtEnd(|_: &Progress, trainer: &mut Trainer| {
            says(trainer.set_trainable("base", false), &["while `fit` runs"]);
        });
        trainer.fit(&data, Fit::epochs(1).callback(inside)).expect("training");
    }
}

#[test]
fn a_confusion_matrix_needs_classes() {
    says(plain(0.1).confusion_matrix(&ones(4)), &["class indices", "f32"]);
}

#[test]
fn labels_with_and_without_an_axis_of_one_may_follow_each_other() {
    let mut trainer = plain(0.0);
    let labels = [vec![4, 1], vec![4]];
    let data = labels.map(|shape| Dataset { labels: HostTensor::f32(shape, vec![1.0; 4]).expect("labels"), ..ones(4) });
    for data in data.iter().chain(data.iter().rev()) {
        assert_eq!(trainer.train_on_batch(data).expect("a step"), 1.0);
    }
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    let compiled = |how: Compile| one().compile(&Engine::reference(), how);
    let sgd = || Sgd::new(0.1);
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let optimizers: Vec<(Compile, &str)> = [
        (Compile::new(Sgd::new(f64::NAN), MeanSquaredError), "learning_rate"),
        (Compile::new(Sgd::new(-0.1), MeanSquaredError), "learning_rate"),
        (Compile::new(Sgd::new(f64::INFINITY), MeanSquaredError), "learning_rate"),
        (Compile::new(sgd().momentum(nan), MeanSquaredError), "momentum"),
        (Compile::new(sgd().momentum(1.5), MeanSquaredError), "momentum"),
        (Compile::new(sgd().weight_decay(-1.0), MeanSquaredError), "weight_decay"),
        (Compile::new(sgd().clipnorm(nan), MeanSquaredError), "clipnorm"),
        (Compile::new(sgd().clipvalue(-1.0), MeanSquaredError), "clipvalue"),
        (Compile::new(sgd().global_clipnorm(0.0), MeanSquaredError), "global_clipnorm"),
        (Compile::new(Adam::new(0.1).beta_1(1.0), MeanSquaredError), "beta_1"),
        (Compile::new(AdamW::new(0.1).beta_2(nan), MeanSquaredError), "beta_2"),
        (Compile::new(Nadam::new(0.1).epsilon(-1.0), MeanSquaredError), "epsilon"),
        (Compile::new(RmsProp::new(0.1).rho(inf), MeanSquaredError), "rho"),
        (Compile::new(Adagrad::new(0.1).initial_accumulator_value(nan), MeanSquaredError), "initial_accumulator_value"),
        (Compile::new(Sgd::new(ExponentialDecay::new(0.1, 9, f64::NAN)), MeanSquaredError), "decay"),
        (Compile::new(Sgd::new(InverseTimeDecay::new(-0.1, 9, 0.5)), MeanSquaredError), "rate"),
        (Compile::new(Sgd::new(CosineDecay::new(0.1, 9).alpha(f64::NAN)), MeanSquaredError), "alpha"),
        (Compile::new(Sgd::new(CosineDecay::new(0.1, 9).warmup(f64::NAN, 2)), MeanSquaredError), "warmup_target"),
        (Compile::new(Sgd::new(CosineDecayRestarts::new(0.1, 9).growth(0.0, 1.0)), MeanSquaredError), "t_mul"),
        (Compile::new(Sgd::new(PolynomialDecay::new(0.1, 9, f64::NAN)), MeanSquaredError), "end"),
        (Compile::new(Sgd::new(PiecewiseConstantDecay::new(0.1, [(3, f64::NAN)])), MeanSquaredError), "rate"),
        (Compile::new(Sgd::new(OneCycle::new(f64::INFINITY, 9)), MeanSquaredError), "max"),
        (Compile::new(sgd(), Huber::new().delta(0.0)), "delta"),
        (Compile::new(sgd(), BinaryCrossentropy::new().label_smoothing(nan)), "label_smoothing"),
        (Compile::new(sgd(), CategoricalCrossentropy::new().label_smoothing(1.5)), "label_smoothing"),
        (Compile::new(sgd(), MeanSquaredError).loss_weight(nan), "loss_weight"),
        (Compile::new(sgd(), MeanSquaredError).rate_factor("d", inf), "rate_factor"),
        (Compile::new(sgd(), MeanSquaredError).mix_up(0.0), "mix_up"),
        (Compile::new(sgd(), MeanSquaredError).mix_up(nan), "mix_up"),
        (Compile::new(sgd(), MeanSquaredError).metric(BinaryAccuracy::new().threshold(nan)), "threshold"),
        (Compile::new(sgd(), MeanSquaredError).metric(Precision::new().threshold(inf)), "threshold"),
        (Compile::new(sgd(), MeanSquaredError).metric(Huber::new().delta(-1.0)), "delta"),
    ]
    .into();
    for (how, option) in optimizers {
        says(compiled(how), &["wanted", &format!("`{option}`"), "got"]);
    }
    let fit = |fit: Fit| {
        let mut trainer = plain(0.1);
        let done = trainer.fit(&ones(4), fit.validation(Box::leak(Box::new(ones(2)))));
        assert_eq!(trainer.steps(), 0);
        done
    };
    let lower = || ReduceLROnPlateau::new("loss");
    let best = || ModelCheckpoint::new("never").best_only("loss");
    says(fit(Fit::epochs(1).callback(EarlyStopping::new("loss").baseline(f64::NAN))), &["baseline", "NaN"]);
    says(fit(Fit::epochs(1).callback(EarlyStopping::new(Watch::new("loss").min_delta(f64::NAN)))), &["min_delta"]);
    says(fit(Fit::epochs(1).callback(lower().factor(1.0))), &["factor", "below 1"]);
    says(fit(Fit::epochs(1).callback(lower().factor(f64::NAN))), &["factor"]);
    says(fit(Fit::epochs(1).callback(lower().min_lr(-1.0))), &["min_lr"]);
    says(fit(Fit::epochs(1).callback(best().initial_value_threshold(f64::NAN))), &["initial_value_threshold"]);
    says(fit(Fit::epochs(1).callback(LearningRateScheduler::new(|_, _| f64::NAN))), &["learning_rate"]);
    says(fit(Fit::epochs(1).callback(EarlyStopping::new("val_los"))), &["`val_los`", "val_loss"]);
    #[derive(Debug)]
    struct Lost;
    impl LearningRate for Lost {
        fn at(&self, step: u64) -> f64 {
            if step == 2 { f64::NAN } else { 0.1 }
        }
    }
    let mut trainer = plain(Lost);
    says(trainer.fit(&ones(4), Fit::epochs(9)), &["learning_rate", "NaN"]);
    assert_eq!(trainer.steps(), 2);
    let pictures = HostTensor::f32([1, 8, 8, 3], vec![1.0; 192]).expect("a picture");
    let conv = Conv2D::new(4, 3).name("c");
    let net = Sequential::new([8, 8, 3]).add(conv).add(Flatten::new()).add(Dense::new(2)).build().expect("a model");
    for noise in [nan, -1.0, inf] {
        let mut explainer = net.explain(&Engine::reference(), Batch::up_to(1)).expect("an explainer");
        says(explainer.smooth_grad(&pictures, None, noise, 1, 0), &["noise"]);
    }
    let style = || Style::new(&net, hubel::nn::models::Preprocessing::Unit).content("c", 1.0);
    for (style, option) in [
        (style().content("c", nan), "content"),
        (style().style(&["c"], inf), "style"),
        (style().variation(-1.0), "variation"),
        (style().optimizer(Adam::new(f64::NAN)), "learning_rate"),
    ] {
        says(style.run(&Engine::reference(), &pictures, &pictures), &[&format!("`{option}`")]);
    }
    for data in [Dataset { scale: nan, ..ones(4) }, Dataset { offset: inf, ..ones(4) }, ones(4).standardize(0.0, 0.0)] {
        says(plain(0.1).fit(&data, Fit::epochs(1)), &["Dataset"]);
        says(plain(0.1).evaluate(&data), &["Dataset"]);
    }
}
