//! A model ready to predict, alone or inside an application's commands.

use super::{
    TrainError,
    runner::{Compiled, Runner},
    weights::with_weights,
};
use crate::{
    Error,
    data::Dataset,
    graph::{Graph, Step, TensorType, Value},
    nn::{self, Mode, Model},
    passes::{Choice, Plan, PlanOptions, choices, plan},
    runtime::{Engine, External, Profile, RuntimeError, Session, Store},
    tensor::{Batch, HostTensor},
};
use std::sync::Arc;

/// A model ready to run, on host samples or inside an application's own command encoder.
///
/// ```no_run
/// use hubel::{layers::*, prelude::*};
/// let engine = Engine::new()?;
/// let model = Sequential::new([4]).add(Dense::new(2)).build()?;
/// let mut net = model.inference(&engine, Batch::up_to(8))?;
/// let y = net.predict(&HostTensor::f32([3, 4], vec![0.5; 12])?)?;
/// assert_eq!(y.shape(), [3, 2]);
/// # Ok::<(), hubel::Error>(())
/// ```
pub struct Inference {
    pub(super) engine: Engine,
    pub(super) params: Store,
    pub(super) graph: Graph,
    /// The model's outputs, then those of the named layers.
    names: Vec<String>,
    pub(super) inputs: Vec<(String, TensorType)>,
    pub(super) batch: usize,
    runner: Option<Runner>,
    embedded: Option<Session>,
}

pub(super) const INPUT: &str = "input";
const OUTPUT: &str = "output";

impl Model {
    /// Returns the model ready to run on batches of at most `batch.capacity` samples.
    pub fn inference(&self, engine: &Engine, batch: Batch) -> Result<Inference, Error> {
        self.inference_with(engine, batch, &[])
    }

    /// Returns the model ready to run; the outputs of the layers named in `layers` are returned too.
    ///
    /// A matrix larger than one binding of this adapter is cut by rows.
    pub fn inference_with(&self, engine: &Engine, batch: Batch, layers: &[&str]) -> Result<Inference, Error> {
        let assembled = assemble(self, layers)?;
        let (graph, params) = with_weights(self, engine, &assembled.graph)?;
        Ok(Inference::of(Assembled { graph, ..assembled }, engine, params, batch))
    }
}

/// A model's graph for inference, with its outputs by name.
pub(super) struct Assembled {
    pub graph: Graph,
    pub names: Vec<String>,
    pub inputs: Vec<(String, TensorType)>,
}

/// Returns a layer's output, or an error that lists the layers.
pub(super) fn layer_output(model: &Model, built: &nn::Assembled, name: &str) -> Result<Value, RuntimeError> {
    let found = built.layers.iter().find(|layer| layer.0 == name).map(|layer| layer.1);
    let known = || model.layer_names().join(", ");
    found.ok_or_else(|| RuntimeError::UnknownName { kind: "layer", name: name.into(), known: known() })
}

fn assemble(model: &Model, layers: &[&str]) -> Result<Assembled, Error> {
    let mut graph = Graph::new();
    // A single input or output has a fixed name, so that programs need not know the model's.
    let single = |k: usize, of: usize, one: &str, name: String| match (k, of) {
        (0, 1) => one.to_owned(),
        _ => name,
    };
    let n = model.inputs().len();
    let inputs: Vec<(String, TensorType)> = (model.inputs().iter().enumerate())
        .map(|(k, (name, ty))| (single(k, n, INPUT, name.clone()), ty.clone()))
        .collect();
    let values: Vec<Value> = inputs.iter().map(|(name, ty)| graph.input(name, ty.shape.clone(), ty.dtype)).collect();
    let built = model.assemble(&mut graph, &values, Mode::Inference)?;
    let n = built.outputs.len();
    let mut names = Vec::new();
    for (k, &output) in built.outputs.iter().enumerate() {
        let name = single(k, n, OUTPUT, format!("{OUTPUT}_{k}"));
        graph.output(&name, output);
        names.push(name);
    }
    for &name in layers {
        graph.output(name, layer_output(model, &built, name)?);
        names.push(name.to_owned());
    }
    Ok(Assembled { graph, names, inputs })
}

/// Returns a layer's output, or an error if that is not a map (N, h, w, c).
pub(super) fn layer_map(model: &Model, built: &nn::Assembled, g: &Graph, name: &str) -> Result<Value, Error> {
    let value = layer_output(model, built, name)?;
    if g.shape(value).rank() == 4 {
        return Ok(value);
    }
    let maps: Vec<&str> = built.layers.iter().filter(|l| g.shape(l.1).rank() == 4).map(|l| l.0.as_str()).collect();
    let (layer, got, known) = (name.to_owned(), g.shape(value).to_string(), maps.join(", "));
    Err(TrainError::NoMap { layer, got, known }.into())
}

impl Inference {
    pub(super) fn new(
        model: &Model,
        engine: &Engine,
        params: Store,
        batch: Batch,
        layers: &[&str],
    ) -> Result<Self, Error> {
        Ok(Self::of(assemble(model, layers)?, engine, params, batch))
    }

    pub(super) fn of(
        Assembled { graph, names, inputs }: Assembled,
        engine: &Engine,
        params: Store,
        batch: Batch,
    ) -> Self {
        let (runner, embedded) = (None, None);
        Inference { engine: engine.clone(), params, graph, names, inputs, batch: batch.capacity, runner, embedded }
    }

    /// Returns the model's output for f32 samples (n, …), any number of them, cut into batches.
    pub fn predict(&mut self, samples: &HostTensor) -> Result<HostTensor, Error> {
        let first = self.predict_all(samples)?.into_iter().next();
        first.map(|(_, t)| t).ok_or_else(|| TrainError::NoData.into())
    }

    /// Returns the data set with the model's output instead of each sample, to train further layers without running
    /// this model again. `progress` gets the number of samples done and their total.
    ///
    /// ```
    /// use hubel::{layers::*, prelude::*};
    /// let base = Sequential::new([4]).add(Dense::new(2)).build()?;
    /// let data = Dataset::new(HostTensor::u8([3, 4], vec![7; 12])?, HostTensor::u8([3], vec![0, 1, 0])?)?;
    /// let features = base.inference(&Engine::reference(), Batch::up_to(2))?.features(&data, |_, _| {})?;
    /// assert_eq!((features.images.shape(), features.len()), (&[3, 2][..], 3));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn features(&mut self, data: &Dataset, mut progress: impl FnMut(usize, usize)) -> Result<Dataset, Error> {
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let (mut shape, mut values) = (Vec::new(), Vec::new());
        for rows in rows.chunks(self.batch) {
            let part = self.predict(&data.rows(rows)?)?;
            shape = part.shape().to_vec();
            values.extend(part.to_f32());
            progress(rows[0] as usize + rows.len(), data.len());
        }
        let Some(n) = shape.first_mut() else { return Err(TrainError::NoData.into()) };
        *n = data.len();
        Ok(Dataset { images: HostTensor::f32(shape, values)?, scale: 1.0, offset: 0.0, ..data.clone() })
    }

    /// Returns the outputs of the model and of the named layers, by name, for samples (n, …), any number of them, cut
    /// into batches.
    pub fn predict_all(&mut self, samples: &HostTensor) -> Result<Vec<(String, HostTensor)>, Error> {
        self.predict_many(std::slice::from_ref(samples))
    }

    /// Returns the outputs of the model and of the named layers, by name, for samples of all the model's inputs, each
    /// (n, …), cut into batches.
    ///
    /// A single output is `output`, several are `output_0`, `output_1`, ….
    ///
    /// ```no_run
    /// use hubel::{layers::*, prelude::*};
    /// let (a, b) = (Input::new([2]), Input::new([2]));
    /// let model = Model::new(&[a.clone(), b.clone()], &[add(&[a.clone(), b])?, a.apply(Relu)?])?;
    /// let x = HostTensor::f32([1, 2], vec![1.0, 2.0])?;
    /// let y = model.inference(&Engine::new()?, Batch::up_to(1))?.predict_many(&[x.clone(), x])?;
    /// assert_eq!(y[0].1.to_f32(), [2.0, 4.0]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn predict_many(&mut self, samples: &[HostTensor]) -> Result<Vec<(String, HostTensor)>, Error> {
        let (all, n) = self.typed(samples)?;
        self.make_runner()?;
        let mut results: Vec<(Vec<usize>, Vec<f32>)> = vec![Default::default(); self.names.len()];
        if let Some(runner) = &mut self.runner {
            for start in (0..n).step_by(self.batch) {
                let count = self.batch.min(n - start);
                // What has no batch axis is fed whole.
                let part = |ty: &TensorType, t: &HostTensor| match ty.shape.is_batched() {
                    true => {
                        let row = t.bytes().len() / n;
                        start * row..(start + count) * row
                    }
                    false => 0..t.bytes().len(),
                };
                let inputs = self.inputs.iter().zip(&all).filter(|((name, _), _)| runner.reads(name));
                let feeds: Vec<_> =
                    inputs.map(|((name, ty), t)| (name.as_str(), vec![&t.bytes()[part(ty, t)]])).collect();
                runner.run(&Step::of(count), &feeds)?;
                for (name, (shape, data)) in self.names.iter().zip(&mut results) {
                    let part = runner.read(name, count)?;
                    let named = self.graph.outputs().iter().find(|o| o.0 == *name);
                    let batched = named.is_some_and(|o| self.graph.shape(o.1).is_batched());
                    match shape.first_mut().filter(|_| start > 0 && batched) {
                        Some(rows) => *rows += part.shape()[0],
                        None => (*shape, *data) = (part.shape().to_vec(), Vec::new()),
                    }
                    data.extend(part.to_f32());
                }
            }
        }
        let whole = |(name, (shape, data)): (&String, (Vec<usize>, Vec<f32>))| -> Result<_, Error> {
            Ok((name.clone(), HostTensor::f32(shape, data)?))
        };
        self.names.iter().zip(results).map(whole).collect()
    }

    fn make_runner(&mut self) -> Result<(), Error> {
        if self.runner.is_none() {
            let stores = vec![self.params.clone()];
            let compiled = Compiled::new(&self.engine, self.graph.clone(), self.batch, stores)?;
            self.runner = Some(compiled.runner(&self.engine, None)?);
        }
        Ok(())
    }

    /// Runs one batch of samples of all the model's inputs, each (n, …), this many times, at least once, and returns the time of each
    /// launch in the run of median time.
    ///
    /// One run before is not timed. An error on the reference engine, or if the samples are more than a batch. See [`Profile`] for an
    /// example.
    pub fn profile(&mut self, samples: &[HostTensor], runs: usize) -> Result<Profile, Error> {
        let (all, n) = self.typed(samples)?;
        self.make_runner()?;
        let Some(runner) = &mut self.runner else { return Err(TrainError::NoData.into()) };
        let inputs = self.inputs.iter().zip(&all).filter(|((name, _), _)| runner.reads(name));
        let feeds: Vec<_> = inputs.map(|((name, _), t)| (name.as_str(), vec![t.bytes()])).collect();
        let step = Step::of(n);
        runner.run(&step, &feeds)?;
        let profiles = (0..runs.max(1)).map(|_| runner.profile(&step, &feeds)).collect::<Result<_, _>>()?;
        Profile::median(profiles).ok_or_else(|| TrainError::NoData.into())
    }

    /// Returns samples of all inputs in their types, at least one of each, and their number, or an error that says what is
    /// wrong.
    pub(super) fn typed(&self, samples: &[HostTensor]) -> Result<(Vec<HostTensor>, usize), Error> {
        let batched = self.inputs.iter().position(|(_, ty)| ty.shape.is_batched());
        let n = batched.map_or(1, |at| samples.get(at).and_then(|t| t.shape().first().copied()).unwrap_or(0));
        if n == 0 {
            return Err(TrainError::NoData.into());
        }
        if samples.len() != self.inputs.len() {
            let (wanted, got) = (self.inputs.len(), samples.len());
            return Err(TrainError::Inputs { wanted, got }.into());
        }
        let mut all = Vec::new();
        for ((_, ty), tensor) in self.inputs.iter().zip(samples) {
            let (wanted, got) = (ty.shape.at(n), tensor.shape().to_vec());
            if ty.shape.is_batched() && got == wanted[1..] {
                return Err(TrainError::NoBatchAxis { wanted: ty.shape.at(1), got }.into());
            }
            if wanted != got {
                return Err(TrainError::SampleShape { wanted, got }.into());
            }
            all.push(if tensor.dtype() == ty.dtype { tensor.clone() } else { tensor.to_array().to_host(ty.dtype) });
        }
        Ok((all, n))
    }

    /// Records one run into the caller's encoder: reads samples from `inputs`, and writes the outputs and those of the
    /// named layers to `outputs`, all f32 buffers of the caller. Nothing crosses the host.
    ///
    /// `n` samples are computed, at most the capacity. Nothing is created after the first call with the same buffers;
    /// the first call compiles and allocates, unless [`Inference::prepare`] did.
    pub fn record_batch(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        n: usize,
        inputs: &[External<'_>],
        outputs: &[External<'_>],
    ) -> Result<(), Error> {
        let buffers: Vec<External<'_>> = inputs.iter().chain(outputs).copied().collect();
        Ok(self.embedded()?.record(encoder, n, &buffers)?)
    }

    /// Plans, compiles and allocates everything that the first [`Inference::record`] needs, and waits for it: seconds
    /// for a large network. After that, `record` creates nothing on the device except bind groups for new buffers.
    ///
    /// ```no_run
    /// # fn load(engine: &hubel::prelude::Engine, model: &hubel::nn::Model) -> Result<hubel::train::Inference, hubel::Error> {
    /// use hubel::prelude::*;
    /// let mut net = model.inference(engine, Batch::up_to(1))?;
    /// net.prepare()?;                                  // while the application loads
    /// # Ok(net)
    /// # }
    /// ```
    pub fn prepare(&mut self) -> Result<(), Error> {
        Ok(self.embedded()?.prepare()?)
    }

    fn embedded(&mut self) -> Result<&mut Session, Error> {
        let session = match self.embedded.take() {
            Some(session) => session,
            None => {
                let plan = self.embedded_plan()?;
                self.engine.session(Arc::new(plan), std::slice::from_ref(&self.params), None)?
            }
        };
        Ok(self.embedded.insert(session))
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
            external_inputs: self.inputs.iter().map(|(name, _)| name.clone()).collect(),
            external_outputs: self.names.clone(),
            ..Compiled::options(&self.engine, self.batch, std::slice::from_ref(&self.params))
        };
        Ok(plan(&self.graph, &options)?)
    }

    /// Returns the plan of one run on host samples.
    pub fn plan(&self) -> Result<Plan, Error> {
        Ok(Compiled::plan_of(&self.engine, &self.graph, self.batch, std::slice::from_ref(&self.params))?)
    }

    /// Returns what was considered for each convolution and product of that plan.
    pub fn choices(&self) -> Result<Vec<Choice>, Error> {
        let options = Compiled::options(&self.engine, self.batch, std::slice::from_ref(&self.params));
        Ok(choices(&self.graph, &options)?)
    }
}
