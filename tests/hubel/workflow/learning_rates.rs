//! Schedules, rates of single layers, optimisers.

use super::{Golden, numbers, ones, option, plain, points, says, text};
use crate::harness::engine;
use hubel::{callbacks::*, layers::*, losses::*, optimizers::*, prelude::*, train::TrainError};

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

#[test]
fn layers_learn_at_rates_of_their_own_and_callbacks_change_them() {
    let data = points();
    let model = Sequential::new([1])
        .add(Dense::new(4).activation(Tanh).name("base"))
        .add(Dense::new(2).activation(Softmax).name("head"))
        .build()
        .expect("a model");
    let moved = |factor: f32, rate: f64| {
        let config = Compile::new(Sgd::new(rate), SparseCategoricalCrossentropy::new()).seed(2);
        let mut trainer = model.compile(engine(), config.rate_factor("base", factor)).expect("a trainer");
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

    let config = || Compile::new(Sgd::new(0.5), SparseCategoricalCrossentropy::new());
    assert!(
        model.compile(engine(), config().rate_factor("bas", 0.1)).err().expect("refused").to_string().contains("base")
    );
    let mut trainer = model.compile(engine(), config()).expect("a trainer");
    let scheduler = LearningRateScheduler::new(|epoch, rate| if epoch == 0 { rate } else { rate / 2.0 });
    trainer.fit(&data, Fit::epochs(3).callback(scheduler)).expect("training");
    assert_eq!(trainer.learning_rate(), 0.125);
    let folder = temp_dir::TempDir::new().expect("a folder");
    trainer.save_checkpoint(folder.path().join("c")).expect("a checkpoint");
    let mut resumed = model.compile(engine(), config()).expect("a trainer");
    assert_eq!(resumed.learning_rate(), 0.5);
    resumed.load_checkpoint(folder.path().join("c")).expect("a checkpoint");
    assert_eq!(resumed.learning_rate(), 0.125);
    // An epoch that is gone on with does not begin again.
    for steps in [1, 1, 2] {
        let halve = LearningRateScheduler::new(|_, rate| rate / 2.0);
        resumed.fit(&data, Fit::until_epoch(4).batch(20).max_steps(steps).callback(halve)).expect("training");
    }
    assert_eq!((resumed.learning_rate(), resumed.steps()), (0.0625, trainer.steps() + 2));
    let missing = trainer.fit(&data, Fit::epochs(4).callback(EarlyStopping::new("val_loss"))).expect_err("refused");
    assert!(missing.to_string().contains("validation data"), "{missing}");
}

#[test]
fn every_optimizer_learns_with_every_kind_of_clipping_and_starts_its_slots_as_keras_does() {
    let data = points();
    let model = Sequential::new([1]).add(Dense::new(2).activation(Softmax)).build().expect("a model");
    let learns = |config: Compile| {
        let mut trainer = model.compile(engine(), config.seed(3)).expect("a trainer");
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
    let folder = temp_dir::TempDir::new().expect("a folder");
    let mut constant = plain(0.1);
    constant.set_learning_rate(0.05).expect("a rate");
    constant.save_checkpoint(folder.path().join("c")).expect("a checkpoint");
    says(schedule().load_checkpoint(folder.path().join("c")), &["schedule"]);
}
