//! Gradients: central differences on the references, and the GPU against the references.

use crate::harness::{Run, families, reference, run_graph, sample_graph, sample_inputs, step_of};
use hubel::{
    graph::{Family, Fill, Sample, Step},
    nn::Mode,
    ops::{TABLE, sample_of},
    prelude::*,
    tensor::{Array, Philox, Purpose, stream_id},
};

/// A scalar loss on an operation's outputs, with gradients to the inputs that have one.
struct Case {
    graph: Graph,
    feeds: Vec<(String, Array)>,
    step: Step,
    wrt: Vec<usize>,
    capacity: usize,
}

fn case(sample: &Sample, rng: &mut Philox) -> Option<Case> {
    let (mut g, inputs, outputs) = sample_graph(sample);
    let arrays = sample_inputs(sample, rng);
    let step = step_of(sample, rng);
    let wrt = differentiable(sample)?;
    let mut feeds: Vec<(String, Array)> = arrays.into_iter().enumerate().map(|(i, a)| (format!("in{i}"), a)).collect();
    let mut loss = None;
    for (k, &y) in outputs.iter().enumerate() {
        if g.ty(y).dtype != DType::F32 {
            continue;
        }
        let shape = g.shape(y).clone();
        let r = g.input(&format!("r{k}"), shape.clone(), DType::F32);
        let weights = Array::from_fn(shape.at(sample.n), |_| 0.0);
        let weights = weights.map(|_| 0.0);
        let data = weights.data.iter().map(|_| f64::from(rng.uniform(-1.0, 1.0) as f32)).collect();
        feeds.push((format!("r{k}"), Array { shape: weights.shape, data }));
        let product = g.mul(y, r).expect("the weights have the output's shape");
        let axes: Vec<usize> = (0..shape.rank()).collect();
        let sum = g.sum(product, &axes, false).expect("a sum over all axes");
        loss = Some(match loss {
            None => sum,
            Some(other) => g.add(other, sum).expect("scalars add"),
        });
    }
    let loss = loss?;
    let values: Vec<Value> = wrt.iter().map(|&i| inputs[i]).collect();
    let gradients = g.gradients(loss, &values).expect("the operation is differentiable");
    g.set_outputs(Vec::new());
    g.output("loss", loss);
    for (i, d) in wrt.iter().zip(gradients) {
        g.output(&format!("d{i}"), d);
    }
    Some(Case { graph: g, feeds, step, wrt, capacity: sample.capacity })
}

/// Returns the inputs to which the operation gives a gradient.
fn differentiable(sample: &Sample) -> Option<Vec<usize>> {
    let (mut g, inputs, outputs) = sample_graph(sample);
    let dy: Vec<Option<Value>> = (outputs.iter())
        .map(|&y| {
            let ty = g.ty(y).clone();
            (ty.dtype == DType::F32).then(|| g.input("dy", ty.shape, DType::F32))
        })
        .collect();
    let grads = sample.op.vjp(&mut g, &inputs, &outputs, &dy).ok()?;
    Some((0..grads.len()).filter(|&i| grads[i].is_some()).collect())
}

fn each_differentiable(count: usize, check: impl Fn(&'static Family, Case) -> Result<(), String>) {
    let mut failed = Vec::new();
    for family in families().filter(|f| f.differentiable) {
        let mut rng = Philox::new(u64::from(stream_id(family.name)), Purpose::Test, 7);
        let mut checked = 0;
        for _ in 0..count * 4 {
            let sample = (family.sample)(&mut rng);
            if let Some(case) = case(&sample, &mut rng).filter(|c| !c.wrt.is_empty()) {
                checked += 1;
                if let Err(e) = check(family, case) {
                    failed.push(format!("{} {:?}: {e}", family.name, sample));
                    break;
                }
            }
            if checked == count {
                break;
            }
        }
        if checked == 0 {
            failed.push(format!("{}: no sample has a gradient", family.name));
        }
    }
    let mut rng = Philox::new(9, Purpose::Test, 7);
    for elementwise in families().filter(|f| f.name == "elementwise") {
        for f in TABLE {
            let sample = sample_of(f, &mut rng);
            if let Some(case) = case(&sample, &mut rng).filter(|c| !c.wrt.is_empty())
                && let Err(e) = check(elementwise, case)
            {
                failed.push(format!("{} {:?}: {e}", f.name, sample));
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn every_gradient_is_that_of_central_differences() {
    each_differentiable(12, |family, case| {
        let exact = reference(&case.graph, &case.feeds, &case.step);
        let mut rng = Philox::new(3, Purpose::Test, 8);
        for direction in 0..4 {
            let mut along = 0.0;
            let mut moved = [case.feeds.clone(), case.feeds.clone()];
            let h = 1e-5;
            for (&i, d) in case.wrt.iter().zip(&exact[1..]) {
                for (k, g) in d.data.iter().enumerate() {
                    let u = rng.uniform(-1.0, 1.0);
                    along += u * g;
                    moved[0][i].1.data[k] += h * u;
                    moved[1][i].1.data[k] -= h * u;
                }
            }
            let [up, down] = moved.map(|feeds| reference(&case.graph, &feeds, &case.step)[0].data[0]);
            let difference = (up - down) / (2.0 * h);
            let scale: f64 = exact[1..].iter().flat_map(|d| &d.data).map(|g| g * g).sum::<f64>().sqrt();
            let error = (difference - along).abs() / scale.max(difference.abs()).max(1e-3);
            if error > family.gradcheck {
                return Err(format!("direction {direction}: {along} but differences give {difference} ({error:e})"));
            }
        }
        Ok(())
    });
}

#[test]
fn gpu_gradients_agree_with_the_reference_fused_and_unfused() {
    each_differentiable(12, |_, case| {
        let exact = reference(&case.graph, &case.feeds, &case.step);
        let feeds: Vec<_> = case
            .feeds
            .iter()
            .map(|(n, a)| {
                let dtype = case.graph.find(n).map_or(DType::F32, |v| case.graph.ty(v).dtype);
                (n.clone(), a.to_host(dtype))
            })
            .collect();
        for optimize in [false, true] {
            let run = Run { optimize, guarded: !optimize, ..Run::default() };
            let got = run_graph(&case.graph, &feeds, &case.step, case.capacity, &run)?;
            for (k, (got, exact)) in got.iter().zip(&exact).enumerate().skip(1) {
                let scale = exact.data.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
                let worst = got.to_f32().iter().zip(&exact.data).fold(0f64, |m, (&g, e)| {
                    let d = (f64::from(g) - e).abs();
                    if d <= m { m } else { d }
                });
                if !(worst <= 1e-4 * scale) {
                    return Err(format!("gradient {k} (optimize {optimize}) is off by {worst:e} of {scale:e}"));
                }
            }
        }
        Ok(())
    });
}

/// Returns the loss of a model in training on a batch of 3 and its central difference along random weights.
fn check_model(name: &str, model: &Model) {
    let mut g = Graph::new();
    let x = g.input("x", model.input_shape(), F32);
    let labels = g.input("labels", [Batch], DType::U32);
    let built = model.assemble(&mut g, x, Mode::Training).expect("the model assembles");
    let losses = g.softmax_cross_entropy(built.logits.expect("models end in softmax"), labels).expect("a loss");
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
