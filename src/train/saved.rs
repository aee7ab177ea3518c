//! A trainer as a Keras file: the model, how it is trained, and the optimiser's tensors.

use super::{
    config::{Compile, Target},
    error::TrainError,
    trainer::Trainer,
};
use crate::{
    Error,
    io::weights,
    nn::{KerasOptions, Model, Optimizer, Training, compiled},
    runtime::Engine,
    tensor::HostTensor,
};
use serde_json::{Value as Json, json};
use std::{path::Path, sync::Arc};

/// Returns the moments that Keras keeps weight by weight, group by group: Adam's first two together.
fn groups(optimizer: &dyn Optimizer) -> Vec<Vec<&'static str>> {
    let moments = optimizer.moments();
    let together = if moments.starts_with(&["m", "v"]) { 2 } else { 0 };
    let (first, rest) = moments.split_at(together);
    let groups = [first.to_vec()].into_iter().chain(rest.iter().map(|&moment| vec![moment]));
    groups.filter(|group| !group.is_empty()).collect()
}

fn unfit(what: &str, wanted: &str, got: impl Into<String>) -> Error {
    TrainError::Saved { what: what.into(), wanted: wanted.into(), got: got.into() }.into()
}

impl Compile {
    /// Returns Keras's `compile_config`.
    fn to_keras(&self) -> Result<Json, Error> {
        let known = |what: &str, value: Json, of: &dyn std::fmt::Debug| match value.is_null() {
            true => Err(unfit(what, "one that Keras has", format!("{of:?}"))),
            false => Ok(value),
        };
        let optimizer = known("the optimiser and its rate", self.optimizer.config(), &self.optimizer)?;
        let (mut losses, mut metrics) = (Vec::new(), Vec::new());
        for target in &self.targets {
            let loss = known("a loss", target.loss.config(), &target.loss)?;
            let classes = target.loss.takes_classes();
            let mut own = Vec::new();
            for (name, metric) in &target.metrics {
                let mut value = known("a metric", metric.config(classes), metric)?;
                if let Some(name) = name {
                    if value.is_string() {
                        let class = match loss["class_name"].as_str() {
                            _ if classes => "SparseCategoricalAccuracy",
                            Some("BinaryCrossentropy") => "BinaryAccuracy",
                            _ => "CategoricalAccuracy",
                        };
                        value = json!({ "module": "keras.metrics", "class_name": class, "config": {} });
                    }
                    value["config"]["name"] = json!(name);
                }
                own.push(value);
            }
            losses.push(loss);
            metrics.push(json!(own));
        }
        let several = losses.len() > 1;
        let one = |mut all: Vec<Json>| if several { json!(all) } else { all.pop().unwrap_or_default() };
        let weights: Vec<f32> = self.targets.iter().map(|target| target.weight).collect();
        let weights = weights.iter().any(|weight| *weight != 1.0).then_some(weights);
        Ok(json!({
            "optimizer": optimizer, "loss": one(losses), "loss_weights": weights, "metrics": one(metrics),
            "weighted_metrics": null, "run_eagerly": false, "steps_per_execution": 1, "jit_compile": false,
        }))
    }

    /// Returns what Keras's `compile_config` says for outputs of these names, with what the file says besides.
    fn from_keras(config: &Json, own: &Json, outputs: &[String]) -> Result<Compile, Error> {
        if config["optimizer"].is_null() {
            return Err(unfit("its `compile_config`", "an optimiser and a loss", "none"));
        }
        // A value for all outputs, a list, or an object by their names.
        let of = |value: &Json, k: usize| match value {
            Json::Array(all) if outputs.len() > 1 => all.get(k).cloned().unwrap_or_default(),
            Json::Object(by_name) if value.get("class_name").is_none() => {
                by_name.get(&outputs[k]).cloned().unwrap_or_default()
            }
            whole => whole.clone(),
        };
        let mut targets = Vec::new();
        for k in 0..outputs.len() {
            let loss = match of(&config["loss"], k) {
                Json::Array(mut one) if one.len() == 1 => one.pop().unwrap_or_default(),
                loss => loss,
            };
            let weight = of(&config["loss_weights"], k);
            let weight = weight.as_f64().or(weight[0].as_f64()).unwrap_or(1.0) as f32;
            let metrics = match of(&config["metrics"], k) {
                Json::Null => Vec::new(),
                Json::Array(all) => all,
                one => vec![one],
            };
            let flat = metrics.iter().flat_map(|m| m.as_array().map_or(std::slice::from_ref(m), Vec::as_slice));
            let metrics = flat.map(compiled::metric).collect::<Result<_, _>>()?;
            targets.push(Target { loss: compiled::loss(&loss)?, weight, metrics });
        }
        let factors = own["rate_factors"].as_array().into_iter().flatten();
        let factors = factors.filter_map(|f| Some((f[0].as_str()?.to_owned(), f[1].as_f64()? as f32)));
        Ok(Compile {
            optimizer: compiled::optimizer(&config["optimizer"])?,
            targets,
            seed: own["seed"].as_u64().unwrap_or(0),
            factors: factors.collect(),
            norms: own["norms"] == true,
            mix_up: own["mix_up"].as_f64().map(|alpha| alpha as f32),
        })
    }
}

impl Trainer {
    /// Writes a `.keras` file that Keras 3 reads, or the older `.h5`: the model with its trained weights, class names and preprocessing,
    /// optimiser, losses and metrics, and the optimiser's moments, rate and steps, so that training goes on there or by
    /// [`Trainer::load`]. Without all that but the model: `trainer.trained()?.save(path)`.
    ///
    /// A crash leaves the old file or the new. An error for what Keras does not have, such as [`OneCycle`] or an own
    /// loss. To continue to the same bits within an epoch, use [`Trainer::save_checkpoint`].
    ///
    /// [`OneCycle`]: crate::nn::OneCycle
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let folder = temp_dir::TempDir::new()?;
    /// let model = Sequential::new([2]).add(Dense::new(1)).build()?;
    /// let data = Dataset::new(HostTensor::f32([1, 2], vec![0.0, 1.0])?, HostTensor::f32([1, 1], vec![1.0])?)?;
    /// let mut trainer = model.compile(&Engine::reference(), Compile::new(Adam::new(0.1), MeanSquaredError))?;
    /// trainer.train_on_batch(&data)?;
    /// trainer.save(folder.path().join("line.keras"))?;
    /// let mut again = Trainer::load(folder.path().join("line.keras"), &Engine::reference())?;
    /// assert_eq!(again.steps(), 1);
    /// trainer.train_on_batch(&data)?;
    /// again.train_on_batch(&data)?;
    /// assert_eq!(again.weights()?, trainer.weights()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let (names, config) = (self.model.trained_names()?, &self.config);
        let moments = match &self.state.moments {
            None => Vec::new(),
            Some(store) => store.read_all()?,
        };
        let rate = self.learning_rate();
        let mut state = vec![HostTensor::i32([], vec![self.position.step.try_into().unwrap_or(i32::MAX)])?];
        if !config.optimizer.has_schedule() {
            state.push(HostTensor::f32([], vec![rate as f32])?);
        }
        for name in places(&*config.optimizer, &names) {
            let found = moments.iter().find(|(moment, _)| *moment == name);
            state.extend(found.map(|(_, tensor)| tensor.clone()));
        }
        let own = json!({
            "seed": config.seed, "rate_factors": config.factors, "norms": config.norms, "mix_up": config.mix_up,
            "epoch": self.position.epoch,
        });
        let training = Training { compiled: config.to_keras()?, own, state };
        self.trained()?.save_with(path.as_ref(), Some(&training))
    }

    /// Returns the trainer of a `.keras` or an `.h5` file of [`Trainer::save`] or of Keras's `model.save`: model, optimiser,
    /// losses, metrics, and the optimiser's moments, rate and steps. A file without these moments begins anew.
    ///
    /// An error for a model that was not compiled, and for an optimiser, a loss or a metric that Hubel does not have:
    /// then [`Model::load`] reads the model alone.
    pub fn load(path: impl AsRef<Path>, engine: &Engine) -> Result<Trainer, Error> {
        let path = path.as_ref();
        let (model, training) = Model::from_file(path, &KerasOptions::default())?;
        let state = weights::optimizer_state(path)?;
        let config = Compile::from_keras(&training.compiled, &training.own, &model.output_names())?;
        let mut trainer = model.compile(engine, config)?;
        trainer.position.epoch = training.own["epoch"].as_u64().unwrap_or(0) as usize;
        trainer.set_state(state)?;
        Ok(trainer)
    }

    /// Sets steps, rate and moments from the tensors of an optimiser in Keras's order.
    fn set_state(&mut self, state: Vec<HostTensor>) -> Result<(), Error> {
        let optimizer: Arc<dyn Optimizer> = self.config.optimizer.clone();
        let names = places(&*optimizer, &self.model.trained_names()?);
        // Keras 2 keeps the rate in the configuration, and moments of optimisers that use none.
        let is_rate_there = !optimizer.has_schedule() && state.len() != 1 + names.len();
        let numbers = 1 + usize::from(is_rate_there && state.get(1).is_none_or(|rate| rate.shape().is_empty()));
        if state.is_empty() || state.len() <= numbers && !names.is_empty() {
            // It was never built.
            return Ok(());
        }
        if state.len() != numbers + names.len() && !names.is_empty() {
            let (wanted, got) = (format!("{} tensors", numbers + names.len()), state.len().to_string());
            return Err(unfit("the optimiser's state", &wanted, got));
        }
        let number = |i: usize| state[i].to_f32().first().copied().unwrap_or(0.0);
        self.position.step = state[0].to_array().data.first().map_or(0, |&step| step as u64);
        if numbers == 2 && number(1) != optimizer.rate(0) as f32 {
            self.position.rate = Some(Self::checked_rate(f64::from(number(1)))?);
        }
        let tensors: Vec<_> = names.into_iter().zip(state.into_iter().skip(numbers)).collect();
        for (name, tensor) in &tensors {
            let entry = self.state.moments.as_ref().and_then(|store| store.layout().find(name).cloned());
            let wanted = entry.map(|entry| entry.ty.shape.dims().to_vec()).unwrap_or_default();
            if tensor.shape() != wanted {
                return Err(unfit(name, &format!("{wanted:?}"), format!("{:?}", tensor.shape())));
            }
        }
        self.state.set_tensors(&tensors)
    }
}

/// Returns the names of the moments of these weights in Keras's order.
fn places(optimizer: &dyn Optimizer, weights: &[String]) -> Vec<String> {
    let of = |group: Vec<&'static str>| {
        weights.iter().flat_map(move |w| group.clone().into_iter().map(move |moment| format!("{moment}/{w}")))
    };
    groups(optimizer).into_iter().flat_map(of).collect()
}
