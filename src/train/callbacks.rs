//! Keras's callbacks.

use super::{Callback, CallbackState, Control, Progress, TrainError, Trainer, template::Template};
use crate::{
    Error,
    io::{FormatError, save},
    nn::{Bounds, Number, check_numbers, setter},
    tensor::HostTensor,
};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Whether a watched value should fall or rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// By its name: accuracies, areas, precision and recall should rise, others fall.
    #[default]
    Auto,
    /// It should fall.
    Min,
    /// It should rise.
    Max,
}

/// A value of an epoch that a callback watches; converts from a name.
///
/// ```
/// use hubel::{callbacks::*, prelude::*};
/// let watch = Watch::new("val_score").direction(Direction::Max).min_delta(0.01);
/// let fit = Fit::epochs(100).callback(EarlyStopping::new(watch)).callback(ReduceLROnPlateau::new("val_loss"));
/// ```
#[derive(Debug, Clone)]
pub struct Watch {
    name: String,
    direction: Direction,
    min_delta: Option<f64>,
    best: Option<f64>,
}

impl<S: Into<String>> From<S> for Watch {
    fn from(name: S) -> Self {
        Watch { name: name.into(), direction: Direction::Auto, min_delta: None, best: None }
    }
}

impl Watch {
    /// Returns a watch over the value of this name.
    pub fn new(name: impl Into<String>) -> Self {
        name.into().into()
    }

    setter!(set
        /// Sets whether the value should fall or rise; [`Direction::Auto`] by default.
        direction: Direction);

    /// Sets the smallest change that counts as an improvement.
    pub fn min_delta(self, min_delta: f64) -> Self {
        Watch { min_delta: Some(min_delta), ..self }
    }

    fn rises(&self) -> bool {
        match self.direction {
            Direction::Min => false,
            Direction::Max => true,
            Direction::Auto => ["acc", "auc", "precision", "recall", "top_k"].iter().any(|w| self.name.contains(w)),
        }
    }

    /// Returns an error if training has no value of its name, or if an option of its owner is out of bounds.
    fn check(&self, at: &Progress, numbers: impl IntoIterator<Item = Number>) -> Result<(), TrainError> {
        check_numbers(self.min_delta.map(|delta| Number::new("Watch", "min_delta", delta, Bounds::AtLeastZero)))?;
        check_numbers(numbers)?;
        if at.names.contains(&self.name) {
            return Ok(());
        }
        Err(TrainError::NoValue { got: self.name.clone(), wanted: at.names.join(", ") })
    }

    /// Returns the value at the end of an epoch.
    fn value(&self, at: &Progress) -> Result<f64, TrainError> {
        let none = || TrainError::NoValue { got: self.name.clone(), wanted: at.names.join(", ") };
        at.get(&self.name).ok_or_else(none)
    }

    /// Returns the state of its owner, with the best value; NaN if there is none yet.
    fn state(&self, callback: &str, numbers: &[(&str, usize)]) -> CallbackState {
        let best = ("best".to_owned(), self.best.unwrap_or(f64::NAN));
        let numbers = numbers.iter().map(|(name, n)| ((*name).to_owned(), *n as f64));
        let numbers = [best].into_iter().chain(numbers).collect();
        CallbackState { name: format!("{callback}/{}", self.name), numbers, weights: None }
    }

    fn set_state(&mut self, state: &CallbackState) {
        self.best = state.get("best").filter(|best| !best.is_nan());
    }

    /// Returns whether a value is better than a reference by more than the minimum change, or there is no reference.
    /// NaN never is.
    fn better(&self, value: f64, reference: Option<f64>) -> bool {
        let min_delta = self.min_delta.unwrap_or(0.0);
        match reference {
            None => !value.is_nan(),
            Some(r) if self.rises() => value - min_delta > r,
            Some(r) => value + min_delta < r,
        }
    }

    /// Returns whether a value is better than all before it, and then keeps it.
    fn improves(&mut self, value: f64) -> bool {
        let better = self.better(value, self.best);
        if better {
            self.best = Some(value);
        }
        better
    }
}

/// Ends training when a value has not improved for some epochs (Keras `EarlyStopping`).
///
/// ```
/// use hubel::{callbacks::*, prelude::*};
/// let stop = EarlyStopping::new("val_loss").patience(3).restore_best_weights(true);
/// let fit = Fit::epochs(100).callback(stop);
/// ```
#[derive(Debug, Clone)]
pub struct EarlyStopping {
    watch: Watch,
    patience: usize,
    baseline: Option<f64>,
    start_from_epoch: usize,
    restore: bool,
    wait: usize,
    best: Option<Arc<Vec<(String, HostTensor)>>>,
}

impl EarlyStopping {
    /// Watches this value, with a patience of 0.
    pub fn new(watch: impl Into<Watch>) -> Self {
        EarlyStopping {
            watch: watch.into(),
            patience: 0,
            baseline: None,
            start_from_epoch: 0,
            restore: false,
            wait: 0,
            best: None,
        }
    }

    setter!(set
        /// Sets the number of epochs without improvement before it acts (Keras `patience`).
        patience: usize);

    /// Restarts the patience only for values better than this (Keras `baseline`).
    pub fn baseline(mut self, baseline: f64) -> Self {
        self.baseline = Some(baseline);
        self
    }

    setter!(set
        /// Ignores the epochs before this one, from 0; 0 by default.
        start_from_epoch: usize);

    /// Restores the weights of the best epoch at the end; false by default.
    pub fn restore_best_weights(mut self, restore: bool) -> Self {
        self.restore = restore;
        self
    }
}

impl Callback for EarlyStopping {
    fn begin(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        (self.wait, self.best, self.watch.best) = (0, None, None);
        let baseline = self.baseline.map(|value| Number::new("EarlyStopping", "baseline", value, Bounds::Finite));
        Ok(self.watch.check(at, baseline)?)
    }

    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        let value = self.watch.value(at)?;
        if at.epoch < self.start_from_epoch {
            return Ok(Control::Continue);
        }
        self.wait += 1;
        if self.watch.improves(value) {
            if self.restore {
                self.best = Some(Arc::new(trainer.weights()?));
            }
            if self.watch.better(value, self.baseline) {
                self.wait = 0;
            }
            return Ok(Control::Continue);
        }
        let stop = self.wait >= self.patience && at.epoch > 0;
        Ok(if stop { Control::Stop } else { Control::Continue })
    }

    fn end(&mut self, trainer: &mut Trainer) -> Result<(), Error> {
        self.best.take().map_or(Ok(()), |best| trainer.set_weights(&best))
    }

    fn state(&self) -> CallbackState {
        let state = self.watch.state("early_stopping", &[("wait", self.wait)]);
        CallbackState { weights: self.best.clone(), ..state }
    }

    fn set_state(&mut self, state: &CallbackState) {
        self.watch.set_state(state);
        (self.wait, self.best) = (state.get("wait").unwrap_or(0.0) as usize, state.weights.clone());
    }
}

/// Lowers the learning rate when a value has not improved for some epochs (Keras `ReduceLROnPlateau`). An optimiser
/// whose rate is a schedule is refused, as in Keras.
///
/// ```
/// use hubel::{callbacks::*, prelude::*};
/// let fit = Fit::epochs(100).callback(ReduceLROnPlateau::new("val_loss").factor(0.5).patience(3));
/// ```
#[derive(Debug, Clone)]
pub struct ReduceLROnPlateau {
    watch: Watch,
    factor: f64,
    patience: usize,
    cooldown: usize,
    min_lr: f64,
    wait: usize,
    cooling: usize,
}

impl ReduceLROnPlateau {
    /// Watches this value with Keras's defaults: a tenth of the rate after 10 epochs without an improvement by 1e-4.
    pub fn new(watch: impl Into<Watch>) -> Self {
        let mut watch = watch.into();
        watch.min_delta.get_or_insert(1e-4);
        ReduceLROnPlateau { watch, factor: 0.1, patience: 10, cooldown: 0, min_lr: 0.0, wait: 0, cooling: 0 }
    }

    setter!(set
        /// Sets the factor that the rate is multiplied by.
        factor: f64);

    setter!(set
        /// Sets the number of epochs without improvement before it acts (Keras `patience`).
        patience: usize);

    setter!(set
        /// Sets the number of epochs after a reduction that are not counted; 0 by default.
        cooldown: usize);

    setter!(set
        /// Sets the lowest learning rate; 0 by default.
        min_lr: f64);
}

impl Callback for ReduceLROnPlateau {
    fn begin(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<(), Error> {
        (self.wait, self.cooling, self.watch.best) = (0, 0, None);
        let number = |option, value, bounds| Number::new("ReduceLROnPlateau", option, value, bounds);
        let factor = number("factor", self.factor, Bounds::Between);
        self.watch.check(at, [factor, number("min_lr", self.min_lr, Bounds::AtLeastZero)])?;
        Ok(trainer.check_settable("ReduceLROnPlateau")?)
    }

    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        let value = self.watch.value(at)?;
        if self.cooling > 0 {
            self.cooling -= 1;
            self.wait = 0;
        }
        if self.watch.improves(value) {
            self.wait = 0;
        } else if self.cooling == 0 {
            self.wait += 1;
            let rate = trainer.learning_rate();
            if self.wait >= self.patience && rate > self.min_lr {
                trainer.set_learning_rate((rate * self.factor).max(self.min_lr))?;
                (self.cooling, self.wait) = (self.cooldown, 0);
            }
        }
        Ok(Control::Continue)
    }

    fn state(&self) -> CallbackState {
        self.watch.state("reduce_lr_on_plateau", &[("wait", self.wait), ("cooling", self.cooling)])
    }

    fn set_state(&mut self, state: &CallbackState) {
        self.watch.set_state(state);
        let number = |name| state.get(name).unwrap_or(0.0) as usize;
        (self.wait, self.cooling) = (number("wait"), number("cooling"));
    }
}

/// Sets the learning rate of each epoch (Keras `LearningRateScheduler`). An optimiser whose rate is a schedule is
/// refused, as in Keras.
///
/// ```
/// use hubel::{callbacks::*, prelude::*};
/// let fit = Fit::epochs(20).callback(LearningRateScheduler::new(|epoch, rate| if epoch < 10 { rate } else { rate * 0.9
/// }));
/// ```
#[derive(Debug, Clone)]
pub struct LearningRateScheduler<F>(F);

impl<F: FnMut(usize, f64) -> f64> LearningRateScheduler<F> {
    /// Sets the rate that `schedule` returns for the epoch, from 0, and the current rate.
    pub fn new(schedule: F) -> Self {
        LearningRateScheduler(schedule)
    }
}

impl<F: FnMut(usize, f64) -> f64> Callback for LearningRateScheduler<F> {
    fn begin(&mut self, _at: &Progress, trainer: &mut Trainer) -> Result<(), Error> {
        Ok(trainer.check_settable("LearningRateScheduler")?)
    }

    fn epoch_begin(&mut self, epoch: usize, trainer: &mut Trainer) -> Result<(), Error> {
        let rate = (self.0)(epoch, trainer.learning_rate());
        Ok(trainer.set_learning_rate(rate)?)
    }
}

/// Writes a checkpoint after each epoch, or after each that is the best so far (Keras `ModelCheckpoint`).
///
/// A crash leaves the old file or the new. [`Trainer::load_checkpoint`] reads it; [`crate::nn::Model::load_weights`]
/// reads only its weights.
///
/// ```
/// use hubel::{callbacks::*, prelude::*};
/// let fit = Fit::epochs(20).callback(ModelCheckpoint::new("out/last.safetensors"))
///     .callback(ModelCheckpoint::new("out/best.safetensors").best_only("val_accuracy").weights_only(true));
/// ```
#[derive(Debug, Clone)]
pub struct ModelCheckpoint {
    path: PathBuf,
    watch: Option<Watch>,
    threshold: Option<f64>,
    weights_only: bool,
    template: Option<Template>,
    /// Whether the epoch is to be written.
    due: bool,
}

impl ModelCheckpoint {
    /// Writes everything that training needs to continue, after each epoch.
    ///
    /// In the path, `{epoch}` becomes the epoch's number, from 1, and the name of a value in braces becomes that value,
    /// in Keras's formats: `out/{epoch:02d}-{val_loss:.2f}.safetensors`. Other fields are refused before the first
    /// step, as is a folder that cannot be created or written to. A path that is not UTF-8 is used unchanged.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        ModelCheckpoint { path, watch: None, threshold: None, weights_only: false, template: None, due: false }
    }

    /// Writes only if this value is better than ever before. NaN never is.
    pub fn best_only(self, watch: impl Into<Watch>) -> Self {
        ModelCheckpoint { watch: Some(watch.into()), ..self }
    }

    /// Writes only values better than this, with [`ModelCheckpoint::best_only`].
    ///
    /// ```
    /// use hubel::callbacks::*;
    /// let best = ModelCheckpoint::new("out/best.safetensors").best_only("val_accuracy").initial_value_threshold(0.9);
    /// ```
    pub fn initial_value_threshold(mut self, value: f64) -> Self {
        self.threshold = Some(value);
        self
    }

    setter!(set
        /// Writes the model's weights alone; false by default, which writes the whole state of training.
        weights_only: bool);
}

impl Callback for ModelCheckpoint {
    fn begin(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        let template = Template::new(&self.path, &at.names)?;
        save::prepare(template.fixed())?;
        self.template = Some(template);
        if let Some(watch) = &mut self.watch {
            let bound = |value| Number::new("ModelCheckpoint", "initial_value_threshold", value, Bounds::Finite);
            watch.check(at, self.threshold.map(bound))?;
            watch.best = watch.best.or(self.threshold);
        }
        Ok(())
    }

    fn epoch_end(&mut self, at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        self.due = match &mut self.watch {
            None => true,
            Some(watch) => {
                let value = watch.value(at)?;
                watch.improves(value)
            }
        };
        Ok(Control::Continue)
    }

    fn checkpoint(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<(), Error> {
        let Some(template) = self.template.as_ref().filter(|_| self.due) else { return Ok(()) };
        let path = template.at(at);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| FormatError::io(&path, "its folder to exist or be created", &e))?;
        }
        if self.weights_only { trainer.save_weights(path) } else { trainer.save_checkpoint(path) }
    }

    fn state(&self) -> CallbackState {
        self.watch.as_ref().map_or_else(CallbackState::default, |watch| watch.state("model_checkpoint", &[]))
    }

    fn set_state(&mut self, state: &CallbackState) {
        if let Some(watch) = &mut self.watch {
            watch.set_state(state);
        }
    }
}

/// Writes a row for each epoch to a CSV file, values in alphabetical order (Keras `CSVLogger`).
///
/// ```
/// use hubel::{callbacks::*, prelude::*};
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
    /// Writes a new file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        CsvLogger { path: path.as_ref().into(), append: false, names: Vec::new(), text: String::new() }
    }

    setter!(set
        /// Appends to an existing file; false by default.
        append: bool);
}

impl Callback for CsvLogger {
    fn begin(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        save::prepare(&self.path)?;
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

/// Ends training when the loss, a weight or a moment is not finite (Keras `TerminateOnNaN`). It checks the loss
/// whenever values are read, and all of them at the end of an epoch and before [`Trainer::fit`] returns.
///
/// The steps of the epoch are then taken again to find the first non-finite value, which
/// [`Trainer::not_finite`] names, and the trainer is left before the step that computed it. Batches of an iterator
/// cannot be taken again: there the trainer is left after the last step, and the first such value of that step is
/// named.
///
/// ```
/// use hubel::{callbacks::*, layers::*, losses::*, optimizers::*, prelude::*};
/// let model = Sequential::new([1]).add(Dense::new(1).kernel_initializer(Ones)).build()?;
/// let mut trainer = model.compile(&Engine::reference(), Compile::new(Sgd::new(1e30), MeanSquaredError))?;
/// let data = Dataset::new(HostTensor::f32([8, 1], vec![2.0; 8])?, HostTensor::f32([8, 1], vec![1.0; 8])?)?;
/// trainer.fit(&data, Fit::epochs(9).batch(2).callback(TerminateOnNaN::new()))?;
/// let found = trainer.not_finite().expect("such a rate cannot do");
/// assert_eq!(found.step, 1);
/// # Ok::<(), hubel::Error>(())
/// ```
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
    fn finite(&self) -> bool {
        true
    }

    fn begin(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<(), Error> {
        self.lost = false;
        Ok(())
    }

    fn step_end(&mut self, _at: &Progress, _trainer: &mut Trainer) -> Result<Control, Error> {
        Ok(if self.lost { Control::Stop } else { Control::Continue })
    }

    fn progress(&mut self, at: &Progress) {
        if at.get("loss").is_some_and(|loss| !loss.is_finite()) {
            log::error!("the loss is not finite at sample {} of epoch {}", at.seen, at.epoch + 1);
            self.lost = true;
        }
    }

    fn epoch_end(&mut self, at: &Progress, trainer: &mut Trainer) -> Result<Control, Error> {
        self.progress(at);
        self.step_end(at, trainer)
    }
}
