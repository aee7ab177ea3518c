//! Losses and metrics, of one output and of several, of weighted and of mixed samples.

use super::{Golden, near, numbers, option, points, says, text};
use crate::harness::{Run, engine, run_graph};
use hubel::{graph::Step, layers::*, losses::*, metrics::*, nn::Curve, optimizers::*, prelude::*};
use serde_json::Value as Json;

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

fn binary(data: &Dataset) -> Dataset {
    let labels = HostTensor::f32([data.len(), 1], data.labels.to_f32()).expect("labels");
    Dataset::new(data.images.clone(), labels).expect("data")
}

#[test]
fn sums_of_many_metrics_are_kept_over_an_epoch() {
    let model = Sequential::new([1]).add(Dense::new(1).activation(Sigmoid).name("d")).build().expect("a model");
    let data = binary(&points());
    let values = |engine: &Engine| {
        let config = Compile::new(Sgd::new(0.1), BinaryCrossentropy::new())
            .metric(Accuracy)
            .metric(Precision::new())
            .metric(Recall::new())
            .metric(Auc::new())
            .metric(RootMeanSquaredError)
            .seed(4);
        let mut trainer = model.compile(engine, config).expect("a trainer");
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
        let config = Compile::new(Sgd::new(rate), SparseCategoricalCrossentropy::new()).seed(1);
        let mut trainer = model.compile(engine(), config).expect("a trainer");
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
    assert!(trainer.train_on_batch(&short).expect_err("refused").to_string().contains("40 finite numbers"));
}

#[test]
fn several_outputs_are_trained_by_the_sum_of_their_weighted_losses() {
    let x = Input::new([6]);
    let hidden = x.clone().apply(Dense::new(8).activation(Tanh).name("hidden")).expect("a layer");
    let class = hidden.clone().apply(Dense::new(3).activation(Softmax).name("class")).expect("a layer");
    let size = hidden.apply(Dense::new(2).name("size")).expect("a layer");
    let model = Model::new(std::slice::from_ref(&x), &[class.clone(), size.clone()]).expect("a model");
    let value = |i: usize| (i * 37 % 101) as f32 / 101.0 - 0.5;
    let samples = HostTensor::f32([12, 6], (0..72).map(value).collect()).expect("samples");
    let classes = HostTensor::u8([12], (0..12).map(|i| i % 3).collect()).expect("labels");
    let sizes = HostTensor::f32([12, 2], (0..24).map(|i| value(i * 5)).collect()).expect("labels");
    let one = Dataset::new(samples.clone(), classes).expect("a data set");
    let two = one.clone().and_labels(sizes.clone()).expect("labels of both");
    let config = |weight: f32| {
        Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new())
            .metric(Accuracy)
            .output(MeanSquaredError)
            .loss_weight(weight)
            .metric(RootMeanSquaredError)
    };
    let mut trainer = model.compile(engine(), config(0.25)).expect("a trainer");
    let history = trainer.fit(&two, Fit::epochs(30).batch(5).validation(&two)).expect("training");
    let last = |name: &str| history.last(name).unwrap_or_else(|| panic!("no {name} in {:?}", history.series));
    assert!((last("loss") - last("output_0_loss") - 0.25 * last("output_1_loss")).abs() < 1e-5);
    let rmse = last("val_output_1_root_mean_squared_error");
    assert!((rmse * rmse - last("val_output_1_loss")).abs() < 1e-5 && last("output_0_accuracy") <= 1.0);
    assert!(last("output_0_loss") < 1.0 && last("loss") < history.get("loss").expect("losses")[0]);

    // Without weight the second output changes nothing; the first is then trained as if alone.
    let mut both = model.compile(engine(), config(0.0)).expect("a trainer");
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
    let mut reference = model.compile(&Engine::reference(), config(0.25)).expect("a trainer");
    let again = reference.fit(&two, Fit::epochs(2).batch(5)).expect("training");
    assert!((again.get("loss").expect("losses")[1] - history.get("loss").expect("losses")[1]).abs() < 1e-4);
    let error = trainer.fit(&one, Fit::epochs(31)).expect_err("labels are missing").to_string();
    assert!(error.contains("2 outputs, but 1"), "{error}");
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
    let config = || Compile::new(Sgd::new(0.5), CategoricalCrossentropy::new());
    let first = model.compile(engine(), config()).expect("a trainer").weights().expect("weights");
    let after = |config: Compile, data: &Dataset, seed: u64, host: bool| {
        let mut trainer = model.compile(engine(), config).expect("a trainer");
        let fit = Fit::epochs(1).batch(8).shuffle(false).seed(seed);
        match host {
            true => drop(trainer.train_on_batch(data).expect("a step")),
            false => drop(trainer.fit(data, fit).expect("a step")),
        }
        let before = trainer.evaluate(data).expect("scores");
        assert_eq!(before, trainer.evaluate(data).expect("scores"), "nothing is mixed in evaluation");
        trainer.weights().expect("weights")
    };
    let (mixed, plain) = (after(config().mix_up(1.0), &data, 3, false), after(config(), &data, 3, false));
    assert!(mixed != plain && mixed != first);
    assert_eq!(mixed, after(config().mix_up(1.0), &data, 3, false));
    assert_ne!(mixed, after(config().mix_up(1.0), &data, 4, false));
    // From the host, with the seed that a trainer begins with.
    let (host, device) = (after(config().mix_up(1.0), &data, 0, true), after(config().mix_up(1.0), &data, 0, false));
    host.iter().zip(&device).for_each(|(a, b)| near("host", &a.1.to_f32(), &b.1.to_f32()));
    // The gradient is linear in labels, and of a softmax's bias Σ(p − y): a neighbour's share moves it between the two.
    let same = Dataset::new(HostTensor::f32([8, 5], x.to_f32()[..5].repeat(8)).expect("samples"), data.labels.clone());
    let same = same.expect("a data set");
    let sum = |w: &[(String, HostTensor)]| w[1].1.to_f32().iter().sum::<f32>();
    assert!((sum(&after(config().mix_up(0.2), &same, 1, false)) - sum(&after(config(), &same, 1, false))).abs() < 1e-5);

    let sparse = Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new()).mix_up(0.2);
    let error = model.compile(engine(), sparse).expect("a trainer").fit(&classes, Fit::epochs(1)).expect_err("classes");
    assert!(error.to_string().contains("to_categorical"), "{error}");
    assert!(model.compile(engine(), config().mix_up(0.0)).is_err());
}

#[test]
fn metrics_of_one_kind_have_names_of_their_own() {
    let x = HostTensor::f32([10, 1], vec![1.0; 10]).expect("samples");
    let data = Dataset::new(x, HostTensor::u8([10], (0..10).collect()).expect("labels")).expect("a data set");
    let net = Dense::new(10).kernel_initializer(Zeros).activation(Softmax);
    let model = Sequential::new([1]).add(net).build().expect("a model");
    let config = || Compile::new(Sgd::new(0.0), SparseCategoricalCrossentropy::new());
    let top = TopKAccuracy::new;
    let compiled = config().metric(top(1)).metric(top(3)).metric_named("top5", top(5)).metric(top(4));
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
        let config = config().metric_named(named, top(1)).metric_named("twice", top(2));
        says(model.compile(engine(), config), &["name", named]);
    }
    let table = history.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("epoch ") && lines[0].ends_with(&format!("val_{name}_2")), "{table}");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()) && lines[2].trim().starts_with('2'), "{table}");
}
