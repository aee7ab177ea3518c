//! Gradients of whole networks against central differences.

use crate::harness::reference;
use hubel::{
    graph::{Fill, Step},
    layers::*,
    nn::Mode,
    prelude::*,
    tensor::{Array, Philox, Purpose, stream_id},
};

/// Returns the loss of a model in training on a batch of 3 and its central difference along random weights.
fn check_model(name: &str, model: &Model) {
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let labels = g.input("labels", [Batch], DType::U32);
    let built = model.assemble(&mut g, &[x], Mode::Training).expect("the model assembles");
    let losses = g.softmax_cross_entropy(built.logits[0].expect("models end in softmax"), labels).expect("a loss");
    let loss = g.mean(losses).expect("a mean");
    let weights: Vec<_> = built.weights.iter().filter(|w| w.trainable).collect();
    let wrt: Vec<Value> = weights.iter().map(|w| w.value).chain([x]).collect();
    let gradients = g.gradients(loss, &wrt).expect("the model is differentiable");
    g.set_outputs(Vec::new());
    g.output("loss", loss);
    for (i, d) in gradients.into_iter().enumerate() {
        g.output(&format!("d{i}"), d);
    }
    let mut rng = Philox::new(u64::from(stream_id(name)), Purpose::Test, 10);
    let step = Step { seed: 5, ..Step::of(3) };
    let mut feeds: Vec<(String, Array)> =
        weights.iter().map(|w| (w.name.clone(), model.initial_value(w, 1).to_array())).collect();
    feeds.push(("x".into(), Fill::Uniform(-1.0, 1.0).array(&model.input_shape().at(3), &mut rng)));
    let trained = feeds.len();
    feeds.push(("labels".into(), Fill::Index(model.output_shape().last()).array(&[3], &mut rng)));
    let moving = built.weights.iter().filter(|w| !w.trainable);
    feeds.extend(moving.map(|w| (w.name.clone(), model.initial_value(w, 1).to_array())));
    let exact = reference(&g, &feeds, &step);
    for direction in 0..4 {
        let h = 1e-6;
        let (mut along, mut scale) = (0.0, 0.0);
        let mut moved = [feeds.clone(), feeds.clone()];
        for (i, d) in exact[1..].iter().enumerate().take(trained) {
            for (k, gradient) in d.data.iter().enumerate() {
                let u = rng.uniform(-1.0, 1.0);
                along += u * gradient;
                scale += gradient * gradient;
                moved[0][i].1.data[k] += h * u;
                moved[1][i].1.data[k] -= h * u;
            }
        }
        let [up, down] = moved.map(|feeds| reference(&g, &feeds, &step)[0].data[0]);
        let difference = (up - down) / (2.0 * h);
        let error = (difference - along).abs() / f64::sqrt(scale);
        assert!(error <= 1e-5, "{name}, direction {direction}: {along}, by differences {difference} ({error:e})");
        assert!(scale > 1e-6, "{name}: no gradient");
    }
}

#[test]
fn whole_networks_have_the_gradients_of_central_differences() {
    let head = |model: Sequential| model.add(Flatten::new()).add(Dense::new(4).activation(Softmax)).build();
    let nets = [
        ("dense with tanh", head(Sequential::new([6]).add(Dense::new(9).activation(Tanh)).add(Dropout::new(0.25)))),
        (
            "LeNet",
            head(
                (Sequential::new([12, 12, 1]).add(Conv2D::new(3, 5).activation(Relu)).add(MaxPooling2D::new(2)))
                    .add(Conv2D::new(4, 3).activation(Relu))
                    .add(Flatten::new())
                    .add(Dense::new(8).activation(Relu)),
            ),
        ),
        (
            "convolution, batch normalisation, activation",
            head(
                (Sequential::new([7, 9, 2]).add(Conv2D::new(5, 3).padding(Padding::Same)))
                    .add(BatchNormalization::new())
                    .add(Relu)
                    .add(Conv2D::new(3, (3, 2)).strides(2).padding(Padding::Same).activation(Sigmoid))
                    .add(BatchNormalization::new()),
            ),
        ),
        (
            "strides and overlapping pools",
            head(
                (Sequential::new([11, 11, 3]).add(Conv2D::new(4, 3).strides(2).activation(Tanh)))
                    .add(MaxPooling2D::new(3).strides(1).padding(Padding::Same))
                    .add(Conv2D::new(6, 2).activation(Relu))
                    .add(Dropout::new(0.5)),
            ),
        ),
        (
            "deep and narrow",
            head((0..6).fold(Sequential::new([5, 5, 2]), |model, _| {
                let layer = Conv2D::new(2, 3).padding(Padding::Same).activation(Tanh);
                model.add(layer).add(BatchNormalization::new())
            })),
        ),
    ];
    for (name, model) in nets {
        check_model(name, &model.expect("the model is valid"));
    }
}
