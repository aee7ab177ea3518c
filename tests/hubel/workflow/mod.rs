//! Training as in Keras: losses, metrics, schedules, callbacks, checkpoints and calls of fit, many of them against Keras's own
//! numbers in tests/golden/training.py.

mod callbacks;
mod checkpoints;
mod data_and_options;
mod fit;
mod learning_rates;
mod losses_and_metrics;

use crate::harness::engine;
use hubel::{Error, io::safetensors, layers::*, losses::*, optimizers::*, prelude::*};
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

/// Points of two classes on a line, 40 of them.
fn points() -> Dataset {
    let x: Vec<f32> = (0..40).map(|i| i as f32 / 20.0 - 1.0).collect();
    let labels = x.iter().enumerate().map(|(i, x)| u8::from(*x > 0.1) ^ u8::from(i % 9 == 4)).collect();
    Dataset::new(HostTensor::f32([40, 1], x).expect("x"), HostTensor::u8([40], labels).expect("y")).expect("data")
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

/// Asserts that a result is an error that contains each of these.
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
