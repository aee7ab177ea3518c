//! NaN and infinity in each operand: the device must treat them as the reference does.

use super::{
    Failure, Run,
    case::{Case, device_feeds, rng},
    of, reference,
    run::Prepared,
    sample_graph, sample_inputs, step_of,
};
use crate::{
    graph::{Family, Fill, Graph, Sample, Step, Value},
    runtime::Engine,
    tensor::{Array, DType, Philox, strides, ulp},
};

/// The number of a family's samples with special values.
const SAMPLES: usize = 4;

/// A planted value: a name, the number, and whether it fills a whole row.
const PLANTS: [(&str, f64, bool); 4] = [
    ("NaN", f64::NAN, false),
    ("a row of -NaN", -f64::NAN, true),
    ("+inf", f64::INFINITY, false),
    ("-inf", f64::NEG_INFINITY, false),
];

/// Plants NaN and infinities into each f32 input, one at a time, and compares the device with the reference: NaN where
/// it is NaN, the same infinity where it is infinite, else near it. Runs the operation alone, with elementwise
/// functions fused after it, and its gradients, fused and unfused.
pub fn special_values_agree(engine: &Engine, family: &Family) -> Result<(), Failure> {
    let mut rng = rng(family, 13);
    for number in 0..SAMPLES {
        let sample = (family.sample)(&mut rng);
        let (graph, _, outputs) = sample_graph(&sample)?;
        let candidates = sample.op.lower(&graph.io(graph.node(outputs[0])), engine.profile(), None);
        let variant =
            candidates.get(number % candidates.len().max(1)).map(|c| (sample.op.name().to_owned(), c.variant.clone()));
        let run = Run { variant, ..Run::default() };
        special_values_agree_on(engine, &sample, &mut rng, &run).map_err(|e| of(family, e))?;
    }
    Ok(())
}

/// [`special_values_agree`] for one sample, with the fault and the variant of `run`.
pub fn special_values_agree_on(engine: &Engine, sample: &Sample, rng: &mut Philox, run: &Run) -> Result<(), Failure> {
    let alone = Run { optimize: false, guarded: true, ..run.clone() };
    let fused = Run { optimize: true, guarded: false, ..run.clone() };
    let forward = View::forward(sample, rng)?;
    forward.check(engine, sample, rng, &alone, "alone")?;
    if let Some(behind) = forward.with_functions_behind(rng)? {
        behind.check(engine, sample, rng, &fused, "with functions after it")?;
    }
    // A gradient operation has no gradient.
    if let Some(gradients) = View::gradients(sample, rng)? {
        gradients.check(engine, sample, rng, &alone, "gradients")?;
        gradients.check(engine, sample, rng, &fused, "fused gradients")?;
    }
    Ok(())
}

/// A graph of a sample's operation with inputs, its outputs for them and their bounds.
struct View {
    graph: Graph,
    feeds: Vec<(String, Array)>,
    step: Step,
    capacity: usize,
    exact: Vec<Array>,
    bounds: Vec<Array>,
    /// The outputs without functions after them.
    sums: Vec<Array>,
}

impl View {
    fn forward(sample: &Sample, rng: &mut Philox) -> Result<Self, Failure> {
        let (graph, _, outputs) = sample_graph(sample)?;
        let (arrays, step) = (sample_inputs(sample, rng), step_of(sample, rng));
        let inputs: Vec<&Array> = arrays.iter().collect();
        let exact = sample.op.reference(&inputs, &step);
        let bounds = sample.op.bounds(&graph.io(graph.node(outputs[0])), &inputs, &exact, &step);
        let feeds = arrays.into_iter().enumerate().map(|(i, a)| (format!("in{i}"), a)).collect();
        Ok(View { graph, feeds, step, capacity: sample.capacity, sums: exact.clone(), exact, bounds })
    }

    /// Returns relu(output 0 · t + t) with a tensor t, which fusion merges into one launch if it can.
    fn with_functions_behind(&self, rng: &mut Philox) -> Result<Option<Self>, Failure> {
        let mut graph = self.graph.clone();
        let outputs = graph.outputs().to_vec();
        let ty = graph.ty(outputs[0].1).clone();
        if ty.dtype != DType::F32 {
            return Ok(None);
        }
        let more = graph.input("more", ty.shape, DType::F32);
        let product = graph.mul(outputs[0].1, more)?;
        let sum = graph.add(product, more)?;
        let y = graph.relu(sum)?;
        graph.set_outputs(Vec::new());
        graph.output("y", y);
        (outputs[1..].iter()).for_each(|(name, v)| graph.output(name, *v));
        let more = Fill::Uniform(-1.0, 1.0).array(&self.exact[0].shape, rng);
        let feeds: Vec<(String, Array)> = self.feeds.iter().cloned().chain([("more".into(), more.clone())]).collect();
        let exact = reference(&graph, &feeds, &self.step)?;
        let mut bounds = self.bounds.clone();
        for (bound, (y, more)) in bounds[0].data.iter_mut().zip(self.exact[0].data.iter().zip(&more.data)) {
            *bound += 2.0 * ulp(y.abs() + more.abs());
        }
        let (step, sums) = (self.step.clone(), self.exact.clone());
        Ok(Some(View { graph, feeds, step, exact, bounds, sums, ..*self }))
    }

    fn gradients(sample: &Sample, rng: &mut Philox) -> Result<Option<Self>, Failure> {
        let Some(Case { mut graph, feeds, step, capacity, .. }) = Case::new(sample, rng)? else { return Ok(None) };
        let outputs = graph.outputs().to_vec();
        graph.set_outputs(outputs.into_iter().filter(|(name, _)| name != "loss").collect());
        let exact = reference(&graph, &feeds, &step)?;
        let bound = |a: &Array| 1e-4 * a.data.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
        let bounds = exact.iter().map(|a| Array::full(a.shape.clone(), bound(a))).collect();
        Ok(Some(View { graph, feeds, step, capacity, sums: exact.clone(), exact, bounds }))
    }

    fn check(&self, engine: &Engine, sample: &Sample, rng: &mut Philox, run: &Run, how: &str) -> Result<(), Failure> {
        let mut device = Prepared::new(engine, &self.graph, self.capacity, run)?;
        for input in 0..self.feeds.len() {
            for (what, number, row) in PLANTS {
                let Some((feeds, at)) = self.planted(sample, input, number, row, rng) else { continue };
                let exact = reference(&self.graph, &feeds, &self.step)?;
                let maybe = self.spread(input, at, row).map(|f| reference(&self.graph, &f, &self.step)).transpose()?;
                let got = device.run(&device_feeds(&self.graph, &feeds), &self.step)?;
                for (k, got) in got.iter().enumerate() {
                    for (i, &got) in got.to_f32().iter().enumerate() {
                        let (wanted, before) = (exact[k].data[i], self.exact[k].data[i]);
                        // A sum without terms counts as a sum of such zeros.
                        let none = wanted == before && self.sums[k].data[i] == 0.0;
                        let met = got.is_nan() && maybe.as_ref().is_some_and(|m| none || m[k].data[i].is_nan());
                        if met || agrees(got, wanted, before, self.bounds[k].data[i]) {
                            continue;
                        }
                        let op = format!("{} [{}]", sample.op.name(), sample.op.key());
                        let name = &self.feeds[input].0;
                        let text = format!("{what} at {at} of {name} gives {got} at {i} of {k}, wanted {wanted}");
                        return Err(Failure(format!("{op} {how} on {:?} n={}: {text}", sample.inputs, sample.n)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the inputs with NaN in all elements of one that share the other coordinates of `at`, along the axes on
    /// which it may meet zeros, if there are any.
    fn spread(&self, input: usize, at: usize, row: bool) -> Option<Vec<(String, Array)>> {
        let value = self.graph.find(&self.feeds[input].0)?;
        let axes = self.graph.nodes().iter().find_map(|node| {
            let op = node.op()?;
            let of = |v: Value| self.origin(v) == value;
            (0..node.inputs.len()).filter(|&i| of(node.inputs[i])).find_map(|i| op.meets_zeros(i))
        })?;
        let mut feeds = self.feeds.clone();
        let array = &mut feeds[input].1;
        let (shape, steps) = (array.shape.clone(), strides(&array.shape));
        let place = |i: usize, axis: usize| i / steps[axis] % shape[axis];
        let free = |axis: &usize| axes.contains(axis) || (row && axis + 1 == shape.len());
        let beside = |i: usize| (0..shape.len()).all(|a| free(&a) || place(i, a) == place(at, a));
        array.data.iter_mut().enumerate().filter(|(i, _)| beside(*i)).for_each(|(_, x)| *x = f64::NAN);
        Some(feeds)
    }

    /// Returns the input from which a value is computed by elementwise functions alone.
    fn origin(&self, value: Value) -> Value {
        let node = self.graph.node(value);
        let same = |v: &&Value| self.graph.ty(**v) == self.graph.ty(value);
        match node.op().and_then(|op| op.pointwise()).and_then(|_| node.inputs.iter().rev().find(same)) {
            Some(&source) => self.origin(source),
            None => value,
        }
    }

    /// Returns the inputs with a number planted into one of them, and its index; `None` if that input cannot hold it.
    fn planted(
        &self,
        sample: &Sample,
        input: usize,
        number: f64,
        row: bool,
        rng: &mut Philox,
    ) -> Option<(Vec<(String, Array)>, usize)> {
        let (name, array) = &self.feeds[input];
        let f32 = self.graph.find(name).is_some_and(|v| self.graph.ty(v).dtype == DType::F32);
        let own = input < sample.inputs.len();
        if !f32 || array.data.is_empty() || (own && sample.derived.iter().any(|(i, _)| *i == input)) {
            return None;
        }
        let mut feeds = self.feeds.clone();
        let at = rng.below(array.data.len());
        let size = if row { array.shape.last().copied().unwrap_or(1) } else { 1 };
        feeds[input].1.data[at / size * size..][..size].fill(number);
        for (i, op) in sample.derived.iter().filter(|(i, _)| own && input < *i) {
            let before: Vec<&Array> = feeds[..*i].iter().map(|(_, a)| a).collect();
            feeds[*i].1 =
                op.reference(&before, &self.step).swap_remove(0).to_host(sample.inputs[*i].0.dtype).to_array();
        }
        Some((feeds, at))
    }
}

/// Returns whether a result is of the wanted kind, and near the wanted value; other checks hold its accuracy.
fn agrees(got: f32, wanted: f64, before: f64, bound: f64) -> bool {
    let (of_32, min) = (wanted as f32, f64::from(f32::MIN_POSITIVE));
    if of_32.is_nan() || of_32.is_infinite() {
        // Infinity times a number that underflows in 32 bits is NaN.
        return got == of_32 || (got.is_nan() && (wanted.is_nan() || before.abs() <= min));
    }
    (f64::from(got) - wanted).abs() <= bound + 1e-5 * wanted.abs() + 2.0 * min
}
