//! Keras's callbacks.

use super::{Callback, Control, Progress, TrainError, Trainer};
use crate::{
    Error,
    io::{FormatError, save},
    tensor::HostTensor,
};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// Whether a watched value should fall or rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// What its name says: accuracies, areas, precision and recall should rise, others fall.
    #[default]
    Auto,
    /// It should fall.
    Min,
    /// It should rise.
    Max,
}

/// A watched value and the best that it was.
#[derive(Debug, Clone)]
struct Watched {
    name: String,
    direction: Direction,
    min_delta: f64,
    best: Option<f64>,
}

impl Watched {
    fn new(name: impl Into<String>) -> Self {
        Watched { name: name.into(), direction: Direction::Auto, min_delta: 0.0, best: None }
    }

    fn rises(&self) -> bool {
        match self.direction {
            Direction::Min => false,
            Direction::Max => true,
            Direction::Auto => ["acc", "auc", "precision", "recall", "top_k"].iter().any(|w| self.name.contains(w)),
        }
    }

    /// Returns the value at the end of an epoch, or an error where there is none of its name.
    fn value(&self, at: &Progress) -> Result<f64, TrainError> {
        at.get(&self.name).ok_or_else(|| {
            let names: Vec<&str> = at.values.iter().map(|v| v.0.as_str()).collect();
            TrainError::NoValue { got: self.name.clone(), wanted: names.join(", ") }
        })
    }

    /// Returns whether a value is better than a reference, or than none, by more than the least change.
    fn better(&self, value: f64, reference: Option<f64>) -> bool {
        match reference {
            None => true,
            Some(r) if self.rises() => value - self.min_delta > r,
            Some(r) => value + self.min_delta < r,
        }
    }
}

/// Ends training when a value has not become better for some epochs (Keras `EarlyStopping`).
///
/// ```
/// use hubel::prelude::*;
/// let stop = EarlyStopping::new("val_loss").patience(3).restore_best_weights(true);
/// let fit = Fit::epochs(100).callback(stop);
/// ```
#[derive(Debug, Clone)]
pub struct EarlyStopping {
    watched: Watched,
    patience: usize,
    baseline: Option<f64>,
    start_from_epoch: usize,
    restore: bool,
    wait: usize,
    best: Option<Vec<(String, HostTensor)>>,
}

impl EarlyStopping {
    /// Returns the callback that watches this value and has no patience.
    pub fn new(value: impl Into<String>) -> Self {
        EarlyStopping {
            watched: Watched::new(value),
            patience: 0,
            baseline: None,
            start_from_epoch: 0,
            restore: false,
            wait: 0,
            best: None,
        }
    }

    /// Returns the callback that waits for so many epochs without a better value.
    pub fn patience(mut self, epochs: usize) -> Self {
        self.patience = epochs;
        self
    }

    /// Returns the callback to which only a change by more than this is a better value.
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.watched.min_delta = min_delta.abs();
        self
    }

    /// Returns the callback whose value should fall or rise.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.watched.direction = direction;
        self
    }

    /// Returns the callback that waits on for as long as values are not better than this.
    pub fn baseline(mut self, baseline: f64) -> Self {
        self.baseline = Some(baseline);
        self
    }

    /// Returns the callback that looks at nothing before this epoch, from 0.
    pub fn start_from_epoch(mut self, epoch: usize) -> Self {
        self.start_from_epoch = epoch;
        self
    }

    /// Returns the callback that gives the model the weights of the best epoch at the end, or not.
    pub fn restore_best_weights(mut self, restore: bool) -> Self {
        self.restore = restore;
        self
    }
}

impl Callback for EarlyStopping {
    fn begin(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        (self.wait, self.best, self.watched.best) = (0, None, None);
        Ok(())
    }

    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        let value = self.watched.value(at)?;
        if at.epoch < self.start_from_epoch {
            return Ok(Control::Continue);
        }
        self.wait += 1;
        if self.watched.better(value, self.watched.best) {
            self.watched.best = Some(value);
            if self.restore {
                self.best = Some(trainer.weights()?);
            }
            if self.watched.better(value, self.baseline) {
                self.wait = 0;
            }
            return Ok(Control::Continue);
        }
        if self.restore && self.best.is_none() {
            self.best = Some(trainer.weights()?);
        }
        let stop = self.wait >= self.patience && at.epoch > 0;
        Ok(if stop { Control::Stop } else { Control::Continue })
    }

    fn end(&mut self, trainer: &mut Trainer) -> Result<(), Error> {
        self.best.take().map_or(Ok(()), |best| trainer.set_weights(&best))
    }
}

/// Lowers the learning rate when a value has not become better for some epochs (Keras `ReduceLROnPlateau`).
///
/// ```
/// use hubel::prelude::*;
/// let fit = Fit::epochs(100).callback(ReduceLROnPlateau::new("val_loss").factor(0.5).patience(3));
/// ```
#[derive(Debug, Clone)]
pub struct ReduceLROnPlateau {
    watched: Watched,
    factor: f64,
    patience: usize,
    cooldown: usize,
    min_lr: f64,
    wait: usize,
    cooling: usize,
}

impl ReduceLROnPlateau {
    /// Returns the callback with Keras's defaults: a tenth of the rate after 10 epochs.
    pub fn new(value: impl Into<String>) -> Self {
        let watched = Watched { min_delta: 1e-4, ..Watched::new(value) };
        ReduceLROnPlateau { watched, factor: 0.1, patience: 10, cooldown: 0, min_lr: 0.0, wait: 0, cooling: 0 }
    }

    /// Returns the callback that multiplies the rate with this.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Returns the callback that waits for so many epochs without a better value.
    pub fn patience(mut self, epochs: usize) -> Self {
        self.patience = epochs;
        self
    }

    /// Returns the callback to which only a change by more than this is a better value.
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.watched.min_delta = min_delta;
        self
    }

    /// Returns the callback that does not count so many epochs after it has lowered the rate.
    pub fn cooldown(mut self, epochs: usize) -> Self {
        self.cooldown = epochs;
        self
    }

    /// Returns the callback that goes no lower than this rate.
    pub fn min_lr(mut self, min_lr: f64) -> Self {
        self.min_lr = min_lr;
        self
    }

    /// Returns the callback whose value should fall or rise.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.watched.direction = direction;
        self
    }
}

impl Callback for ReduceLROnPlateau {
    fn begin(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        (self.wait, self.cooling, self.watched.best) = (0, 0, None);
        Ok(())
    }

    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        let value = self.watched.value(at)?;
        if self.cooling > 0 {
            self.cooling -= 1;
            self.wait = 0;
        }
        if self.watched.better(value, self.watched.best) {
            self.watched.best = Some(value);
            self.wait = 0;
        } else if self.cooling == 0 {
            self.wait += 1;
            let rate = trainer.learning_rate();
            if self.wait >= self.patience && rate > self.min_lr {
                trainer.set_learning_rate((rate * self.factor).max(self.min_lr));
                (self.cooling, self.wait) = (self.cooldown, 0);
            }
        }
        Ok(Control::Continue)
    }
}

/// Sets the learning rate of each epoch (Keras `LearningRateScheduler`).
///
/// ```
/// use hubel::prelude::*;
/// let fit = Fit::epochs(20).callback(LearningRateScheduler::new(|epoch, rate| if epoch < 10 { rate } else { rate * 0.9 }));
/// ```
#[derive(Debug, Clone)]
pub struct LearningRateScheduler<F>(F);

impl<F: FnMut(usize, f64) -> f64> LearningRateScheduler<F> {
    /// Returns the callback that asks `schedule` for a rate from the epoch, from 0, and the rate so far.
    pub fn new(schedule: F) -> Self {
        LearningRateScheduler(schedule)
    }
}

impl<F: FnMut(usize, f64) -> f64> Callback for LearningRateScheduler<F> {
    fn epoch_begin(&mut self, epoch: usize, trainer: &mut Trainer) -> Result<(), Error> {
        let rate = (self.0)(epoch, trainer.learning_rate());
        trainer.set_learning_rate(rate);
        Ok(())
    }
}

/// Writes a checkpoint after each epoch, or after those that were the best so far (Keras `ModelCheckpoint`).
///
/// A crash leaves the old file or the new; [`Trainer::load_checkpoint`] reads it.
///
/// ```
/// use hubel::prelude::*;
/// let fit = Fit::epochs(20).callback(ModelCheckpoint::new("out/last.safetensors"))
///     .callback(ModelCheckpoint::new("out/best.safetensors").best_only("val_accuracy").weights_only(true));
/// ```
#[derive(Debug, Clone)]
pub struct ModelCheckpoint {
    path: PathBuf,
    watched: Option<Watched>,
    weights_only: bool,
}

impl ModelCheckpoint {
    /// Returns the callback that writes all that training needs to go on after each epoch; `{epoch}` in the path
    /// becomes its number, from 1.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ModelCheckpoint { path: path.into(), watched: None, weights_only: false }
    }

    /// Returns the callback that writes only where this value is better than ever before.
    pub fn best_only(mut self, value: impl Into<String>) -> Self {
        self.watched = Some(Watched::new(value));
        self
    }

    /// Returns the callback whose value, after [`ModelCheckpoint::best_only`], should fall or rise.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.watched.iter_mut().for_each(|w| w.direction = direction);
        self
    }

    /// Returns the callback that writes the model's weights alone, or the whole state of training.
    pub fn weights_only(mut self, weights_only: bool) -> Self {
        self.weights_only = weights_only;
        self
    }
}

impl Callback for ModelCheckpoint {
    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        if let Some(watched) = &mut self.watched {
            let value = watched.value(at)?;
            if !watched.better(value, watched.best) {
                return Ok(Control::Continue);
            }
            watched.best = Some(value);
        }
        let path = PathBuf::from(self.path.to_string_lossy().replace("{epoch}", &(at.epoch + 1).to_string()));
        match self.weights_only {
            true => trainer.save_weights(path)?,
            false => trainer.save_checkpoint(path)?,
        }
        Ok(Control::Continue)
    }
}

/// Writes a row for each epoch to a CSV file, values by the alphabet (Keras `CSVLogger`).
///
/// ```
/// use hubel::prelude::*;
/// let fit = Fit::epochs(20).callback(CsvLogger::new("out/history.csv"));
/// ```
#[derive(Debug, Clone)]
pub struct CsvLogger {
    path: PathBuf,
    append: bool,
    names: Vec<String>,
    text: String,
}

impl CsvLogger {
    /// Returns the callback that writes a new file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        CsvLogger { path: path.as_ref().into(), append: false, names: Vec::new(), text: String::new() }
    }

    /// Returns the callback that adds rows to a file that is there, or not.
    pub fn append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }
}

impl Callback for CsvLogger {
    fn begin(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        self.text.clear();
        self.names.clear();
        if self.append && self.path.exists() {
            let read = std::fs::read_to_string(&self.path);
            self.text = read.map_err(|e| FormatError::io(&self.path, "a readable file", &e))?;
            let header = self.text.lines().next().unwrap_or_default();
            self.names = header.split(',').skip(1).map(str::to_owned).collect();
        }
        Ok(())
    }

    fn epoch_end(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        if self.text.is_empty() {
            self.names = at.values.iter().map(|v| v.0.clone()).collect();
            self.names.sort();
            self.text = format!("epoch,{}\n", self.names.join(","));
        }
        let _ = write!(self.text, "{}", at.epoch);
        for name in &self.names {
            match at.get(name) {
                Some(value) => drop(write!(self.text, ",{value}")),
                None => self.text.push_str(",NA"),
            }
        }
        self.text.push('\n');
        save::save(&self.path, self.text.as_bytes(), false)?;
        Ok(Control::Continue)
    }
}

/// Ends training where the loss is no number any more (Keras `TerminateOnNaN`); it looks whenever values are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct TerminateOnNaN {
    lost: bool,
}

impl TerminateOnNaN {
    /// Returns the callback.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Callback for TerminateOnNaN {
    fn step_end(&mut self, _at: &Progress) -> Control {
        if self.lost { Control::Stop } else { Control::Continue }
    }

    fn progress(&mut self, at: &Progress) {
        if at.get("loss").is_some_and(|loss| !loss.is_finite()) {
            log::error!("the loss is no number at sample {} of epoch {}", at.seen, at.epoch + 1);
            self.lost = true;
        }
    }

    fn epoch_end(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        self.progress(at);
        Ok(self.step_end(at))
    }
}
