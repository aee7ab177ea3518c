//! The trait of callbacks, and what they are told.

use super::{state::CallbackState, trainer::Trainer};
use crate::Error;

/// Whether training continues after a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// Continue.
    Continue,
    /// Stop after this step; what was learned is kept.
    Stop,
}

/// The progress of training.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Number of the call's last epoch, from 1.
    pub epochs: usize,
    /// Samples of this epoch seen so far.
    pub seen: usize,
    /// Samples in an epoch; 0 if unknown, as with an iterator's batches.
    pub samples: usize,
    /// Samples per second in this epoch.
    pub samples_per_s: f64,
    /// Loss and metrics, averaged over the samples seen; at the end of an epoch also those of the validation.
    pub values: Vec<(String, f64)>,
    /// The mean loss of the samples since the previous read: of one step with
    /// [`Fit::read_every_step`](super::Fit::read_every_step). It is a difference of 32-bit sums over the epoch.
    pub recent_loss: Option<f64>,
    /// Names of the values of an epoch, known before the first step.
    pub names: Vec<String>,
}

impl Progress {
    /// Returns the value of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| n == name).map(|v| v.1)
    }
}

/// Code that runs at fixed points of training; every method has a default.
///
/// ```
/// use hubel::prelude::*;
/// struct StopAtHalf;
/// impl Callback for StopAtHalf {
///     fn epoch_end(&mut self, at: &Progress, _: &mut Trainer) -> Result<Control, hubel::Error> {
///         Ok(if at.get("loss") < Some(0.5) { Control::Stop } else { Control::Continue })
///     }
/// }
/// ```
pub trait Callback {
    /// Returns whether training should find the first value that is not finite, once the loss, a weight or a moment is
    /// not finite. It then keeps a copy of weights and moments from the start of each epoch. False by default.
    fn finite(&self) -> bool {
        false
    }

    /// Called before the first step.
    fn begin(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        Ok(())
    }

    /// Called before the first step of an epoch.
    fn epoch_begin(&mut self, _epoch: usize, _trainer: &mut Trainer) -> Result<(), Error> {
        Ok(())
    }

    /// Called after every step; `values` are those last read from the device. An error ends training.
    fn step_end(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        Ok(Control::Continue)
    }

    /// Called when values have been read from the device, a few times a second.
    fn progress(&mut self, _at: &Progress) {}

    /// Called after an epoch and its validation; an error ends training.
    fn epoch_end(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        Ok(Control::Continue)
    }

    /// Called after the `epoch_end` of all callbacks, when a checkpoint of the trainer holds the state of each; not if
    /// [`Callback::finite`] found a non-finite value.
    fn checkpoint(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        Ok(())
    }

    /// Called after the last step, unless an error ended training.
    fn end(&mut self, _trainer: &mut Trainer) -> Result<(), Error> {
        Ok(())
    }

    /// Returns the callback's state for a checkpoint, so that a resumed run continues with it.
    fn state(&self) -> CallbackState {
        CallbackState::default()
    }

    /// Restores what [`Callback::state`] returned at the checkpoint; called after [`Callback::begin`].
    fn set_state(&mut self, _state: &CallbackState) {}
}
