//! Logs for TensorBoard.

use super::{Callback, Control, Progress, Trainer};
use crate::{Error, data::Dataset, io::events::EventWriter, nn::setter};
use std::path::PathBuf;

/// Writes logs for TensorBoard (Keras `TensorBoard`): `epoch_loss` and other values in the folders `train` and
/// `validation`, the learning rate, norms with [`super::Compile::norms`], histograms of weights, and histograms of
/// activations and gradients on samples of your choice.
///
/// ```
/// use hubel::{callbacks::*, prelude::*};
/// let fit = Fit::epochs(20).callback(TensorBoard::new("out/logs").histogram_freq(1));
/// ```
#[derive(Debug)]
pub struct TensorBoard {
    log_dir: PathBuf,
    histogram_freq: usize,
    samples: Option<Dataset>,
    train: Option<EventWriter>,
    validation: Option<EventWriter>,
}

impl TensorBoard {
    /// Writes below this folder, without histograms.
    pub fn new(log_dir: impl Into<PathBuf>) -> Self {
        TensorBoard { log_dir: log_dir.into(), histogram_freq: 0, samples: None, train: None, validation: None }
    }

    setter!(set
        /// Writes histograms of all weights every `histogram_freq` epochs; 0, the default, for none.
        histogram_freq: usize);
    setter!(into
        /// Writes, with each histogram of weights, those of the activations and gradients of a training step on these
        /// samples, at most a batch, from which nothing is learned; none by default.
        samples: Option<Dataset>);
}

/// Returns the writer of a folder, created when first needed.
fn writer(slot: &mut Option<EventWriter>, path: PathBuf) -> Result<&mut EventWriter, Error> {
    match slot {
        Some(writer) => Ok(writer),
        None => Ok(slot.insert(EventWriter::create(path)?)),
    }
}

impl Callback for TensorBoard {
    fn begin(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        self.train = Some(EventWriter::create(self.log_dir.join("train"))?);
        self.validation = match at.names.iter().any(|name| name.starts_with("val_")) {
            true => Some(EventWriter::create(self.log_dir.join("validation"))?),
            false => None,
        };
        Ok(())
    }

    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        let step = at.epoch as u64;
        let train = writer(&mut self.train, self.log_dir.join("train"))?;
        for (name, value) in &at.values {
            match name.strip_prefix("val_") {
                Some(name) => writer(&mut self.validation, self.log_dir.join("validation"))?.scalar(
                    &format!("epoch_{name}"),
                    step,
                    *value as f32,
                )?,
                None if name.contains('/') => train.scalar(name, step, *value as f32)?,
                None => train.scalar(&format!("epoch_{name}"), step, *value as f32)?,
            }
        }
        train.scalar("epoch_learning_rate", step, trainer.learning_rate() as f32)?;
        if self.histogram_freq > 0 && at.epoch.is_multiple_of(self.histogram_freq) {
            for (name, tensor) in trainer.weights()? {
                train.histogram(&name, step, &tensor.to_f32())?;
            }
            if let Some(samples) = &self.samples {
                for (name, tensor) in trainer.activations_and_gradients(samples)? {
                    train.histogram(&name, step, &tensor.to_f32())?;
                }
            }
        }
        train.flush()?;
        self.validation.as_mut().map_or(Ok(()), EventWriter::flush)?;
        Ok(Control::Continue)
    }
}
