//! Known networks in a small form: built, and trained for a few steps.

use crate::harness::engine;
use hubel::{
    nn::models::{Application, Options},
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
};
use std::time::Instant;

pub fn build(application: &Application, options: &Options) -> Model {
    (application.build)(options).unwrap_or_else(|e| panic!("{}: {e}", application.name))
}

pub fn uniform(name: &str, shape: &[usize]) -> HostTensor {
    let mut rng = Philox::new(1, Purpose::Test, stream_id(name));
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).expect("as many numbers as the shape has")
}

/// Trains a small form of a network on a few samples and returns the losses.
fn losses(application: &Application) -> Vec<f64> {
    let side = match application.name {
        "InceptionV3" | "InceptionResNetV2" => 96,
        _ => application.least.next_multiple_of(32),
    };
    let mut options = Options::default().input_shape([side, side, application.channels]).classes(3);
    if ["MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "UNet"].contains(&application.name) {
        options = options.alpha(0.25);
    }
    let model = build(application, &options);
    let n = 4;
    let x = uniform(application.name, &[n, side, side, application.channels]);
    let one_hot = |i: usize| (0..3).map(move |c| if c == i % 3 { 1.0 } else { 0.0 });
    let places = model.output_shape().elements().at(1) as usize / 3;
    let labels = (0..n).flat_map(|i| (0..places).flat_map(move |_| one_hot(i))).collect();
    let labels = HostTensor::f32(model.output_shape().at(n), labels).expect("labels");
    let data = Dataset::new(x, labels).expect("a data set");
    let how = Compile::new(Adam::new(1e-3), CategoricalCrossentropy::new()).seed(1);
    let mut trainer = model.compile(engine(), how).expect("a trainer");
    (0..6).map(|_| trainer.train_on_batch(&data).unwrap_or_else(|e| panic!("{}: {e}", application.name))).collect()
}

pub fn learns(application: &Application) {
    let (start, losses) = (Instant::now(), losses(application));
    println!("{}: {losses:.3?} in {:.0} s", application.name, start.elapsed().as_secs_f64());
    let end = losses[4].min(losses[5]);
    assert!(losses.iter().all(|l| l.is_finite()) && end < losses[0], "{}: {losses:?}", application.name);
}
