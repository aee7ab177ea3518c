//! The state of training: everything that a checkpoint stores.

use super::{config::Compile, not_finite::NotFinite, weights::params_layout};
use crate::{
    Error,
    graph::TensorType,
    nn::Model,
    passes::Layout,
    runtime::{Engine, Store},
    tensor::HostTensor,
};
use std::sync::Arc;

/// The position of training.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Position {
    pub step: u64,
    pub epoch: usize,
    /// Samples of the epoch seen so far.
    pub cursor: usize,
    pub seed: u64,
    /// Hash of the plan that ran the last step, 0 if none.
    pub plan: u64,
    /// A learning rate that overrides the optimiser's.
    pub rate: Option<f64>,
    /// Fingerprint of the data that the epoch began on, 0 if unknown.
    pub data: u64,
}

/// The state of a callback between epochs, as a checkpoint stores it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CallbackState {
    /// The callback's type and the value it watches; empty if the callback has no state.
    pub name: String,
    /// Numbers by name.
    pub numbers: Vec<(String, f64)>,
    /// Weights, if it keeps any.
    pub weights: Option<Arc<Vec<(String, HostTensor)>>>,
}

impl CallbackState {
    /// Returns the number of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(n, _)| n == name).map(|v| v.1)
    }
}

/// A copy of everything that training changes.
pub(super) struct Snapshot {
    pub position: Position,
    pub tensors: Vec<(String, HostTensor)>,
}

/// The tensors that training changes, in device memory.
pub(super) struct DeviceState {
    pub params: Store,
    /// The optimiser's moments, if it has any.
    pub moments: Option<Store>,
    /// Sums of losses, metrics and norms.
    pub sums: Store,
}

impl DeviceState {
    /// Returns the state before the first step; `sums` are the names and types of the metrics' sums.
    pub fn new(
        model: &Model,
        engine: &Engine,
        config: &Compile,
        sums: impl IntoIterator<Item = (String, TensorType)>,
    ) -> Result<Self, Error> {
        let limit = engine.profile().max_binding_bytes;
        let params = engine.store(Arc::new(params_layout(model, limit)))?;
        for weight in model.weights() {
            params.write(&weight.name, &model.initial_value(weight, config.seed))?;
        }
        let trainable = || model.weights().iter().filter(|w| w.trainable);
        let moments: Vec<(String, TensorType)> = (config.optimizer.moments().iter())
            .flat_map(|moment| {
                trainable().map(move |w| (format!("{moment}/{}", w.name), TensorType::f32(w.shape.clone())))
            })
            .collect();
        let moments = match moments.is_empty() {
            true => None,
            false => Some(engine.store(Arc::new(Layout::new(moments, limit)))?),
        };
        if let Some(store) = moments.as_ref().filter(|_| config.optimizer.initial() != 0.0) {
            for entry in &store.layout().entries {
                let shape = entry.ty.shape.dims().to_vec();
                let values = vec![config.optimizer.initial(); shape.iter().product()];
                store.write(&entry.name, &HostTensor::f32(shape, values)?)?;
            }
        }
        let sums = engine.store(Arc::new(Layout::new(sums, limit)))?;
        Ok(DeviceState { params, moments, sums })
    }

    /// Returns the stores: weights, sums, moments.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        [Some(&self.params), Some(&self.sums), self.moments.as_ref()].into_iter().flatten()
    }

    /// Returns all tensors by name.
    pub fn tensors(&self) -> Result<Vec<(String, HostTensor)>, Error> {
        let mut tensors = Vec::new();
        for store in self.stores() {
            tensors.extend(store.read_all()?);
        }
        Ok(tensors)
    }

    /// Writes the tensors that [`DeviceState::tensors`] returned.
    pub fn set_tensors(&self, tensors: &[(String, HostTensor)]) -> Result<(), Error> {
        for (name, tensor) in tensors {
            for store in self.stores().filter(|s| s.layout().find(name).is_some()) {
                store.write(name, tensor)?;
            }
        }
        Ok(())
    }

    /// Copies the tensors that another state has under the same name, in the same type.
    pub fn copy_from(&self, other: &DeviceState) -> Result<(), Error> {
        for store in self.stores() {
            for entry in &store.layout().entries {
                let same = |old: &&Store| old.layout().find(&entry.name).is_some_and(|known| known.ty == entry.ty);
                if let Some(old) = other.stores().find(same) {
                    store.write(&entry.name, &old.read(&entry.name)?)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the first value of a weight, or of a moment, that is not finite; `step` is the step that computed it.
    pub fn find_not_finite(&self, step: u64) -> Result<Option<NotFinite>, Error> {
        for (store, op) in [(&self.params, "weight")].into_iter().chain(self.moments.iter().map(|m| (m, "moment"))) {
            for (name, tensor) in store.read_all()? {
                let found = NotFinite::find(step, &name, op, &tensor);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }
}
