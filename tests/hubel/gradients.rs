//! Gradients: central differences on the references, and the GPU against the references.

use crate::harness::{Run, reference, run_graph, sample_graph, sample_inputs, step_of};
use hubel::{
    graph::{Family, Graph, Sample, Step, Value},
    ops::{FAMILIES, TABLE, sample_of},
    tensor::{Array, DType, Philox, Purpose, stream_id},
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
    for family in FAMILIES.iter().filter(|f| f.differentiable) {
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
    let elementwise = FAMILIES.iter().find(|f| f.name == "elementwise").expect("the table is a family");
    let mut rng = Philox::new(9, Purpose::Test, 7);
    for f in TABLE {
        let sample = sample_of(f, &mut rng);
        if let Some(case) = case(&sample, &mut rng).filter(|c| !c.wrt.is_empty())
            && let Err(e) = check(elementwise, case)
        {
            failed.push(format!("{} {:?}: {e}", f.name, sample));
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
