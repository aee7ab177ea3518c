//! Known networks in a small form, built and trained for a few steps.

use crate::harness::engine;
use hubel::{
    losses::*,
    nn::models::{Application, Options},
    optimizers::*,
    prelude::*,
    tensor::{Philox, Purpose, stream_id},
};
use std::time::Instant;

/// The share of its loss that a network's step should remove.
const SHARE: f64 = 3e-3;

pub fn build(application: &Application, options: &Options) -> Model {
    (application.build)(options).unwrap_or_else(|e| panic!("{}: {e}", application.name))
}

pub fn uniform(name: &str, shape: &[usize]) -> HostTensor {
    let mut rng = Philox::new(1, Purpose::Test, stream_id(name));
    let data = (0..shape.iter().product()).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
    HostTensor::f32(shape, data).expect("as many numbers as the shape has")
}

/// Returns a small form of a network's loss on a few samples before and after a step down its gradient, so long that
/// were the loss a plane it would lose a [`SHARE`]. Both with the same random numbers.
fn losses(application: &Application) -> [f64; 2] {
    let side = match application.name {
        "InceptionV3" | "InceptionResNetV2" => 96,
        // On maps of one pixel its gradient is so long that the step rounds to nothing.
        "EfficientNetB7" => 64,
        _ => application.min_size.next_multiple_of(32),
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
    let trained = |trainer: &Trainer| -> Vec<f32> {
        let weights = trainer.weights().expect("weights").into_iter().zip(model.weights());
        weights.filter(|(_, w)| w.trainable).flat_map(|(w, _)| w.1.to_f32()).collect()
    };
    let step = |model: &Model, rate: f64| {
        let config = Compile::new(Sgd::new(rate), CategoricalCrossentropy::new()).seed(1);
        let mut trainer = model.compile(engine(), config).expect("a trainer");
        let old = trained(&trainer);
        let loss = trainer.train_on_batch(&data).unwrap_or_else(|e| panic!("{}: {e}", application.name));
        let new = trained(&trainer);
        let length = old.iter().zip(new).map(|(old, new)| f64::from(old - new).powi(2)).sum::<f64>();
        (loss, length, trainer.trained().expect("weights"))
    };
    let (before, squared_gradient, _) = step(&model, 1.0);
    let (_, _, after) = step(&model, SHARE * before / squared_gradient);
    [before, step(&after, 1.0).0]
}

pub fn learns(application: &Application) {
    let (start, [before, after]) = (Instant::now(), losses(application));
    println!("{}: {before:.4} to {after:.4} in {:.0} s", application.name, start.elapsed().as_secs_f64());
    let fall = (before - after) / before / SHARE;
    assert!((0.25..4.0).contains(&fall), "{}: {before} to {after}", application.name);
}
