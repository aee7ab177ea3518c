//! Losses, metrics, schedules and callbacks against what Keras makes of them: tests/golden/training.py.

use crate::harness::{Run, engine, run_graph};
use hubel::{graph::Step, io::safetensors, nn::Curve, prelude::*};
use serde_json::Value as Json;
use std::fs;

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
    callback.begin(&Progress::default(), &mut trainer).expect("it begins");
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
        let (mut train, validation) = data.split(0.25);
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
            let fit = Fit::epochs(epoch + 1).batch(16).shuffle(false).validation(&validation);
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
        resumed.fit(&data, Fit::epochs(4).batch(20).max_steps(steps).callback(halve)).expect("training");
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
        .callback(CsvLogger::new(path("log.csv")));
    let history = trainer.fit(&data, fit).expect("training");
    let mut resumed = model.compile(engine(), how()).expect("a trainer");
    resumed.load_checkpoint(path("epoch2.safetensors")).expect("a checkpoint");
    assert_eq!((resumed.steps(), trainer.steps()), (4, 6));
    resumed.fit(&data, Fit::epochs(3).callback(CsvLogger::new(path("log.csv")).append(true))).expect("training");
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
