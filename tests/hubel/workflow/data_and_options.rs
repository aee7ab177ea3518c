//! Data and options that are accepted in several forms, or refused.

use super::{near, one, ones, plain, says};
use crate::harness::engine;
use hubel::{Error, callbacks::*, layers::*, losses::*, metrics::*, optimizers::*, prelude::*, train::Style};

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
    let config = Compile::new(Adam::new(0.05), SparseCategoricalCrossentropy::new()).metric(Accuracy);
    let mut trainer = model.compile(engine(), config).expect("a trainer");
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
    let x = HostTensor::f32([3, 4, 4, 1], x).expect("images");
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
    let learned = |model: &Model, config: Compile, data: &Dataset, engine: &Engine, host: bool| {
        let mut trainer = model.compile(engine, config).expect("a trainer");
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
    let check = |model: &Model, config: &dyn Fn() -> Compile, labels: Vec<HostTensor>, wanted: &(f64, Vec<f32>)| {
        for labels in labels {
            let what = format!("{} {:?}", labels.dtype(), labels.shape());
            let data = Dataset::new(x.clone(), labels).expect("a data set");
            for (engine, host) in [(engine(), false), (engine(), true), (&Engine::reference(), true)] {
                let got = learned(model, config(), &data, engine, host);
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
fn numbers_of_compile_out_of_range_are_refused_by_name() {
    let compiled = |config: Compile| one().compile(&Engine::reference(), config);
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
    for (config, option) in optimizers {
        says(compiled(config), &["wanted", &format!("`{option}`"), "got"]);
    }
}

#[test]
fn numbers_of_fit_out_of_range_are_refused_by_name() {
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
    for data in [
        Dataset { scale: f32::NAN, ..ones(4) },
        Dataset { offset: f32::INFINITY, ..ones(4) },
        ones(4).standardize(0.0, 0.0),
    ] {
        says(plain(0.1).fit(&data, Fit::epochs(1)), &["Dataset"]);
        says(plain(0.1).evaluate(&data), &["Dataset"]);
    }
}

#[test]
fn numbers_of_explanations_and_style_out_of_range_are_refused_by_name() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let images = HostTensor::f32([1, 8, 8, 3], vec![1.0; 192]).expect("an image");
    let conv = Conv2D::new(4, 3).name("c");
    let net = Sequential::new([8, 8, 3]).add(conv).add(Flatten::new()).add(Dense::new(2)).build().expect("a model");
    for noise in [nan, -1.0, inf] {
        let mut explainer = net.explain(&Engine::reference(), Batch::up_to(1)).expect("an explainer");
        says(explainer.smooth_grad(&images, None, noise, 1, 0), &["noise"]);
    }
    let style = || Style::new(&net, hubel::nn::models::Preprocessing::Unit).content("c", 1.0);
    for (style, option) in [
        (style().content("c", nan), "content"),
        (style().style(&["c"], inf), "style"),
        (style().variation(-1.0), "variation"),
        (style().optimizer(Adam::new(f64::NAN)), "learning_rate"),
    ] {
        says(style.run(&Engine::reference(), &images, &images), &[&format!("`{option}`")]);
    }
}
