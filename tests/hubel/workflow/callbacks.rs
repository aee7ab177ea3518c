//! The values that callbacks see, and when they stop or change training.

use super::{AtEnd, AtStep, Golden, Weights, kernel, numbers, ones, option, plain, says, text};
use hubel::{Error, callbacks::*, io::safetensors, layers::*, losses::*, optimizers::*, prelude::*};
use serde_json::Value as Json;
use std::{cell::RefCell, rc::Rc};

/// Calls a callback with a series of values of epochs whose weights are their numbers, and returns the number of epochs,
/// the weights at the end, and the learning rates.
fn drive(callback: &mut dyn Callback, case: &Json) -> (usize, f32, Vec<f64>) {
    let model = Sequential::new([1]).add(Dense::new(1).use_bias(false).name("d")).build().expect("a model");
    let config = Compile::new(Sgd::new(0.5), MeanSquaredError);
    let mut trainer = model.compile(&Engine::reference(), config).expect("a trainer");
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
fn no_number_is_never_the_best() {
    let folder = temp_dir::TempDir::new().expect("a folder");
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
