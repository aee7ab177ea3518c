//! Weights and whole training states as safetensors files.

use super::{
    error::TrainError,
    state::{CallbackState, Position},
    trainer::Trainer,
};
use crate::{
    Error,
    io::{safetensors, save},
    tensor::HostTensor,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// A learning rate that was set; otherwise the optimiser's own applies.
const RATE: &str = "rate";
/// States of callbacks: their names and numbers as JSON.
const CALLBACKS: &str = "callbacks";

/// Returns the tensor name of a weight that a callback keeps.
fn kept(callback: &str, weight: &str) -> String {
    format!("{CALLBACKS}/{callback}:{weight}")
}

fn mismatch(what: &str, wanted: impl Into<String>, got: impl Into<String>) -> TrainError {
    TrainError::Checkpoint { what: what.into(), wanted: wanted.into(), got: got.into() }
}

impl Trainer {
    /// Writes the weights as safetensors under their Keras names; a crash leaves the old file or the new.
    pub fn save_weights(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let tensors = self.weights()?;
        let bytes = safetensors::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &BTreeMap::new())?;
        Ok(save::save(path, &bytes, false)?)
    }

    /// Writes everything that training needs to continue to the same bits: weights, moments, position, seed, plan,
    /// states of callbacks.
    ///
    /// Called by a callback, it has the epoch's states of the callbacks before it; in [`super::Callback::checkpoint`],
    /// of all.
    pub fn save_checkpoint(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut tensors = self.state.tensors()?;
        let fields = [
            ("step", self.position.step),
            ("epoch", self.position.epoch as u64),
            ("cursor", self.position.cursor as u64),
            ("seed", self.position.seed),
            ("plan", self.position.plan),
            ("data", self.position.data),
        ];
        let mut metadata: BTreeMap<String, String> = fields.map(|(k, v)| (k.to_owned(), v.to_string())).into();
        metadata.extend(self.position.rate.map(|rate| (RATE.to_owned(), rate.to_string())));
        let mut callbacks = serde_json::Map::new();
        for CallbackState { name, numbers, weights } in &self.callback_states {
            // As text: JSON has no NaN.
            let numbers = numbers.iter().map(|(name, x)| (name.clone(), x.to_string().into()));
            callbacks.insert(name.clone(), serde_json::Value::Object(numbers.collect()));
            let weights = weights.iter().flat_map(|weights| weights.iter());
            tensors.extend(weights.map(|(weight, tensor)| (kept(name, weight), tensor.clone())));
        }
        metadata.insert(CALLBACKS.into(), serde_json::Value::Object(callbacks).to_string());
        let bytes = safetensors::write(tensors.iter().map(|(n, t)| (n.as_str(), t)), &metadata)?;
        Ok(save::save(path, &bytes, true)?)
    }

    /// Restores the state of a checkpoint; the next [`Trainer::fit`] continues from there.
    ///
    /// Names and shapes must be those of this model and optimiser. Results are the same to the bit only if plan,
    /// adapter and driver are the same; a change of plan is logged. If the file is damaged, the previous checkpoint is
    /// read, which is logged too.
    pub fn load_checkpoint(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let read = |bytes: &[u8]| {
            safetensors::verify(bytes)?;
            Ok((safetensors::metadata(bytes)?, safetensors::read(bytes)?))
        };
        let ((metadata, mut tensors), damage) = save::load(path, safetensors::FILE_CAP_BYTES, read)?;
        if let Some(damage) = damage {
            log::warn!("{damage}; using the previous checkpoint");
        }
        let field = |name: &str| -> Result<u64, TrainError> {
            let text = metadata.get(name).cloned().unwrap_or_default();
            text.parse().map_err(|_| mismatch(name, "a whole number", format!("`{text}`")))
        };
        let position = Position {
            step: field("step")?,
            epoch: field("epoch")? as usize,
            cursor: field("cursor")? as usize,
            seed: field("seed")?,
            plan: field("plan")?,
            data: if metadata.contains_key("data") { field("data")? } else { 0 },
            rate: match metadata.get(RATE) {
                None => None,
                Some(text) if self.config.optimizer.has_schedule() => {
                    return Err(mismatch(RATE, "none that was set, as the rate is a schedule", text).into());
                }
                Some(text) => Some(text.parse().map_err(|_| mismatch(RATE, "a number", format!("`{text}`")))?),
            },
        };
        let remembered = remembered(metadata.get(CALLBACKS).map(String::as_str).unwrap_or("{}"), &mut tensors)?;
        let wanted: Vec<_> = self.state.stores().flat_map(|s| s.layout().entries.clone()).collect();
        for entry in &wanted {
            let found = tensors.iter().find(|(name, _)| *name == entry.name);
            let fits = found.is_some_and(|(_, t)| t.shape() == entry.ty.shape.dims() && t.dtype() == entry.ty.dtype);
            if !fits {
                let got = found.map_or_else(|| "nothing".to_owned(), |(_, t)| format!("{} {:?}", t.dtype(), t.shape()));
                return Err(mismatch(&entry.name, entry.ty.to_string(), got).into());
            }
        }
        if wanted.len() != tensors.len() {
            let (wanted, got) = (format!("{} tensors", wanted.len()), tensors.len().to_string());
            return Err(mismatch("its tensors", wanted, got).into());
        }
        self.state.set_tensors(&tensors)?;
        (self.position, self.callback_states, self.resumed) = (position, remembered, true);
        Ok(())
    }
}

/// Removes the weights that callbacks keep from a checkpoint's tensors, and returns the state of each callback.
fn remembered(text: &str, tensors: &mut Vec<(String, HostTensor)>) -> Result<Vec<CallbackState>, TrainError> {
    let wrong = |got: String| mismatch(CALLBACKS, "states of callbacks, as JSON", got);
    let all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let mut states = Vec::new();
    for (name, numbers) in all {
        let number = |(name, x): (String, String)| Some((name, x.parse().ok()?));
        let numbers = numbers.into_iter().map(number).collect::<Option<_>>();
        let numbers = numbers.ok_or_else(|| wrong(format!("no numbers for {name}")))?;
        let prefix = kept(&name, "");
        let (own, rest) = std::mem::take(tensors).into_iter().partition(|(tensor, _)| tensor.starts_with(&prefix));
        *tensors = rest;
        let own: Vec<(String, HostTensor)> = own;
        let own: Vec<_> = own.into_iter().map(|(tensor, t)| (tensor[prefix.len()..].to_owned(), t)).collect();
        let weights = (!own.is_empty()).then(|| Arc::new(own));
        states.push(CallbackState { name, numbers, weights });
    }
    Ok(states)
}
