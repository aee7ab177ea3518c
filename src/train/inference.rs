use super::{
    runner::{Compiled, Runner},
    trainer::params_layout,
};
use crate::{
    Error,
    graph::{Graph, Step},
    nn::{Mode, Model},
    passes::{Plan, PlanOptions, plan},
    runtime::{Engine, External, RuntimeError, Session, Store},
    tensor::{Batch, DType, HostTensor},
};
use std::sync::Arc;

/// A model ready to run, on host samples or inside an application's own command encoder.
///
/// ```no_run
/// use hubel::prelude::*;
/// let engine = Engine::new()?;
/// let model = Sequential::new([4]).add(Dense::new(2)).build()?;
/// let mut net = model.inference(&engine, Batch::up_to(8))?;
/// let y = net.predict(&HostTensor::f32([3, 4], vec![0.5; 12])?)?;
/// assert_eq!(y.shape(), [3, 2]);
/// # Ok::<(), hubel::Error>(())
/// ```
pub struct Inference {
    engine: Engine,
    params: Store,
    graph: Graph,
    names: Vec<String>,
    sample: Vec<usize>,
    batch: usize,
    runner: Option<Runner>,
    embedded: Option<Session>,
}

const INPUT: &str = "input";
const OUTPUT: &str = "output";

impl Model {
    /// Returns the model ready to run on batches of at most `batch.capacity` samples.
    pub fn inference(&self, engine: &Engine, batch: Batch) -> Result<Inference, Error> {
        self.inference_with(engine, batch, &[])
    }

    /// Returns the model ready to run; the outputs of the layers named in `taps` are results too.
    pub fn inference_with(&self, engine: &Engine, batch: Batch, taps: &[&str]) -> Result<Inference, Error> {
        let params = engine.store(Arc::new(params_layout(self, engine.profile().max_binding_bytes)))?;
        for weight in self.weights() {
            params.write(&weight.name, &self.initial_value(weight, 0))?;
        }
        Inference::new(self, engine, params, batch, taps)
    }
}

impl Inference {
    pub(super) fn new(
        model: &Model,
        engine: &Engine,
        params: Store,
        batch: Batch,
        taps: &[&str],
    ) -> Result<Self, Error> {
        let mut graph = Graph::new();
        let x = graph.input(INPUT, model.input_shape(), DType::F32);
        let built = model.assemble(&mut graph, &[x], Mode::Inference)?;
        graph.output(OUTPUT, built.outputs[0]);
        let mut names = vec![OUTPUT.to_owned()];
        for &tap in taps {
            let Some((_, value)) = built.layers.iter().find(|(name, _)| name == tap) else {
                let known = model.layer_names().join(", ");
                return Err(RuntimeError::UnknownName { kind: "layer", name: tap.into(), known }.into());
            };
            graph.output(tap, *value);
            names.push(tap.to_owned());
        }
        let sample = model.input_shape().dims()[1..].to_vec();
        let (runner, embedded) = (None, None);
        Ok(Inference { engine: engine.clone(), params, graph, names, sample, batch: batch.capacity, runner, embedded })
    }

    /// Returns the model's output for f32 samples (n, …), any number of them, cut into batches.
    pub fn predict(&mut self, samples: &HostTensor) -> Result<HostTensor, Error> {
        let first = self.predict_all(samples)?.into_iter().next();
        first.map(|(_, t)| t).ok_or_else(|| super::TrainError::NoData.into())
    }

    /// Returns output and taps by name for f32 samples (n, …), any number of them, cut into batches.
    pub fn predict_all(&mut self, samples: &HostTensor) -> Result<Vec<(String, HostTensor)>, Error> {
        let Some((&n, sample)) = samples.shape().split_first().filter(|(n, _)| **n > 0) else {
            return Err(super::TrainError::NoData.into());
        };
        if sample != self.sample {
            let (wanted, got) = (self.sample.clone(), sample.to_vec());
            return Err(super::TrainError::SampleShape { wanted, got }.into());
        }
        let values = samples.to_f32();
        let row: usize = sample.iter().product();
        if self.runner.is_none() {
            let stores = vec![self.params.clone()];
            let compiled = Compiled::new(&self.engine, self.graph.clone(), self.batch, stores)?;
            self.runner = Some(compiled.runner(&self.engine, None)?);
        }
        let mut results: Vec<(Vec<usize>, Vec<f32>)> = vec![Default::default(); self.names.len()];
        if let Some(runner) = &mut self.runner {
            for start in (0..n).step_by(self.batch) {
                let count = self.batch.min(n - start);
                let part = &values[start * row..(start + count) * row];
                runner.run(&Step::of(count), &[(INPUT, bytemuck::cast_slice(part))])?;
                for (name, (shape, data)) in self.names.iter().zip(&mut results) {
                    let part = runner.read(name, count)?;
                    *shape = part.shape().to_vec();
                    data.extend(part.to_f32());
                }
            }
        }
        let whole = |(name, (mut shape, data)): (&String, (Vec<usize>, Vec<f32>))| -> Result<_, Error> {
            shape[0] = n;
            Ok((name.clone(), HostTensor::f32(shape, data)?))
        };
        self.names.iter().zip(results).map(whole).collect()
    }

    /// Records one run into the caller's encoder: reads samples from `inputs[0]`, writes the output and
    /// the taps to `outputs`, all f32 buffers of the caller; nothing crosses the host.
    ///
    /// `n` samples are computed, at most the capacity. Nothing is created after the first call with the same buffers.
    pub fn record_batch(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        n: usize,
        inputs: &[External<'_>],
        outputs: &[External<'_>],
    ) -> Result<(), Error> {
        if self.embedded.is_none() {
            let plan = self.embedded_plan()?;
            self.embedded = Some(self.engine.session(Arc::new(plan), std::slice::from_ref(&self.params), None)?);
        }
        let buffers: Vec<External<'_>> = inputs.iter().chain(outputs).copied().collect();
        match &mut self.embedded {
            Some(session) => Ok(session.record(encoder, n, &buffers)?),
            None => Ok(()),
        }
    }

    /// Records one run of a full batch; see [`Inference::record_batch`].
    pub fn record(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: &[External<'_>],
        outputs: &[External<'_>],
    ) -> Result<(), Error> {
        self.record_batch(encoder, self.batch, inputs, outputs)
    }

    fn embedded_plan(&self) -> Result<Plan, Error> {
        let options = PlanOptions {
            layouts: vec![self.params.layout()],
            external_inputs: vec![INPUT.into()],
            external_outputs: self.names.clone(),
            ..PlanOptions::new(self.batch, self.engine.profile().clone())
        };
        Ok(plan(&self.graph, &options)?)
    }

    /// Returns the plan of one run on host samples.
    pub fn plan(&self) -> Result<Plan, Error> {
        let layouts = vec![self.params.layout().as_ref()];
        let options = PlanOptions { layouts, ..PlanOptions::new(self.batch, self.engine.profile().clone()) };
        Ok(plan(&self.graph, &options)?)
    }
}
