//! Operations with a scalar loss on their outputs.

use super::{
    Failure,
    run::{sample_graph, sample_inputs, step_of},
};
use crate::{
    graph::{Family, Graph, Sample, Step, Value},
    tensor::{Array, DType, HostTensor, Philox, Purpose, stream_id},
};

/// Returns the random numbers of a check of this family.
pub(super) fn rng(family: &Family, stream: u32) -> Philox {
    Philox::new(u64::from(stream_id(family.name)), Purpose::Test, stream)
}

/// A scalar loss on an operation's outputs, with gradients to the inputs that have one.
pub(super) struct Case {
    pub(super) graph: Graph,
    pub(super) feeds: Vec<(String, Array)>,
    pub(super) step: Step,
    pub(super) wrt: Vec<usize>,
    pub(super) capacity: usize,
}

impl Case {
    /// Returns `None` if no input has a gradient.
    pub(super) fn new(sample: &Sample, rng: &mut Philox) -> Result<Option<Self>, Failure> {
        let (mut g, inputs, outputs) = sample_graph(sample)?;
        let arrays = sample_inputs(sample, rng);
        let step = step_of(sample, rng);
        let wrt = differentiable(sample)?;
        let mut feeds: Vec<(String, Array)> =
            arrays.into_iter().enumerate().map(|(i, a)| (format!("in{i}"), a)).collect();
        let mut loss = None;
        for (k, &y) in outputs.iter().enumerate() {
            if g.ty(y).dtype != DType::F32 {
                continue;
            }
            let shape = g.shape(y).clone();
            let r = g.input(&format!("r{k}"), shape.clone(), DType::F32);
            let extents = shape.at(sample.n);
            let data = (0..extents.iter().product()).map(|_| f64::from(rng.uniform(-1.0, 1.0) as f32)).collect();
            feeds.push((format!("r{k}"), Array { shape: extents, data }));
            let product = g.mul(y, r)?;
            let axes: Vec<usize> = (0..shape.rank()).collect();
            let sum = g.sum(product, &axes, false)?;
            loss = Some(match loss {
                None => sum,
                Some(other) => g.add(other, sum)?,
            });
        }
        let Some(loss) = loss.filter(|_| !wrt.is_empty()) else { return Ok(None) };
        let values: Vec<Value> = wrt.iter().map(|&i| inputs[i]).collect();
        let gradients = g.gradients(loss, &values)?;
        g.set_outputs(Vec::new());
        g.output("loss", loss);
        for (i, d) in wrt.iter().zip(gradients) {
            g.output(&format!("d{i}"), d);
        }
        Ok(Some(Case { graph: g, feeds, step, wrt, capacity: sample.capacity }))
    }

    /// Returns the inputs in their types.
    pub(super) fn device_feeds(&self) -> Vec<(String, HostTensor)> {
        device_feeds(&self.graph, &self.feeds)
    }
}

/// Returns a graph's inputs in their types.
pub(super) fn device_feeds(graph: &Graph, feeds: &[(String, Array)]) -> Vec<(String, HostTensor)> {
    let typed = |(name, array): &(String, Array)| {
        let dtype = graph.find(name).map_or(DType::F32, |v| graph.ty(v).dtype);
        (name.clone(), array.to_host(dtype))
    };
    feeds.iter().map(typed).collect()
}

/// Returns the inputs to which the operation has a gradient.
pub(super) fn differentiable(sample: &Sample) -> Result<Vec<usize>, Failure> {
    let (mut g, inputs, outputs) = sample_graph(sample)?;
    let dy: Vec<Option<Value>> = (outputs.iter())
        .map(|&y| {
            let ty = g.ty(y).clone();
            (ty.dtype == DType::F32).then(|| g.input("dy", ty.shape, DType::F32))
        })
        .collect();
    let grads = sample.op.vjp(&mut g, &inputs, &outputs, &dy).unwrap_or_default();
    Ok((0..grads.len()).filter(|&i| grads[i].is_some()).collect())
}
