//! The sources of batches for a call of fit: a data set, or an iterator.

use super::{
    data_check::{fingerprint, same_classes},
    epoch_order::EpochOrder,
    error::TrainError,
    evaluation::Scores,
    fit::Fit,
    nan_trace,
    not_finite::NotFinite,
    prepared_step::PreparedStep,
    runner::{Runner, reserve},
    state::Snapshot,
    steps::all_rows,
    trainer::Trainer,
};
use crate::{Error, data::Dataset, nn::Mode};
use std::iter::Peekable;

/// The batches of a call of fit, epoch by epoch.
pub(super) trait Batches {
    /// Begins the epoch at the trainer's position; with `trace`, keeps what [`Batches::trace`] needs.
    fn begin_epoch(&mut self, trainer: &Trainer, trace: bool) -> Result<(), Error>;

    /// Trains on the next batch, or returns false at the end of the epoch.
    fn step(&mut self, trainer: &mut Trainer) -> Result<bool, Error>;

    /// Returns the runner of the last step.
    fn runner(&mut self) -> Result<&mut Runner, Error>;

    /// Returns the number of steps of the epoch, or `None` if training stopped before its end.
    fn end_epoch(&mut self, trainer: &mut Trainer) -> Option<usize>;

    /// Returns loss and metrics on the validation data, if there are any.
    fn validate(&mut self, trainer: &mut Trainer) -> Result<Option<Scores>, Error>;

    /// Returns the first value that is not finite in the epoch's steps.
    fn trace(&mut self, trainer: &mut Trainer) -> Result<Option<NotFinite>, Error>;
}

/// Batches of a data set in random order; a stopped epoch can be continued.
pub(super) struct DatasetBatches<'d> {
    order: EpochOrder<'d>,
    rows: Vec<u32>,
    step: PreparedStep,
    validation: Option<(&'d Dataset, PreparedStep)>,
    /// The state at the beginning of the epoch.
    snapshot: Option<Snapshot>,
}

impl<'d> DatasetBatches<'d> {
    /// Compiles the steps of training and validation, and continues the trainer's epoch or restarts it.
    pub fn new(trainer: &mut Trainer, fit: &Fit<'d>, data: &'d Dataset) -> Result<Self, Error> {
        trainer.classes.clone_from(&data.classes);
        continue_epoch(trainer, data);
        trainer.position.seed = fit.seed;
        let order = EpochOrder { data, batch: fit.batch.min(data.len()), seed: fit.seed, shuffle: fit.shuffle };
        let training = trainer.compile_step(data, Mode::Training, order.batch)?;
        let validation = match fit.validation {
            None => None,
            Some(data) => Some((data, trainer.compile_step(data, Mode::Inference, order.batch)?)),
        };
        let graphs: Vec<_> = validation.iter().map(|(_, step)| &step.compiled).chain([&training.compiled]).collect();
        reserve(&trainer.engine, &trainer.arena, &graphs)?;
        if let Some(plan) = training.compiled.plan() {
            if trainer.position.plan != 0 && trainer.position.plan != plan.hash {
                log::warn!(
                    "the training step's plan differs from the checkpoint's: results may differ in their last bits"
                );
            }
            trainer.position.plan = plan.hash;
            trainer.plan = Some(plan.clone());
        }
        let step = training.prepare(&trainer.engine, Some(&trainer.arena))?;
        let validation = match validation {
            None => None,
            Some((data, step)) => Some((data, step.prepare(&trainer.engine, Some(&trainer.arena))?)),
        };
        Ok(DatasetBatches { order, rows: Vec::new(), step, validation, snapshot: None })
    }
}

/// Restarts the epoch if it began on other data.
fn continue_epoch(trainer: &mut Trainer, data: &Dataset) {
    let (position, print) = (&mut trainer.position, fingerprint(data));
    let other = (position.data != 0 && position.data != print) || position.cursor >= data.len();
    if position.cursor > 0 && other {
        let (epoch, seen, n) = (position.epoch + 1, position.cursor, data.len());
        log::warn!("epoch {epoch} began on other data, {seen} samples of it: it restarts, on {n} samples");
        position.cursor = 0;
    }
    position.data = print;
}

impl Batches for DatasetBatches<'_> {
    fn begin_epoch(&mut self, trainer: &Trainer, trace: bool) -> Result<(), Error> {
        self.rows = self.order.epoch(trainer.position.epoch);
        self.snapshot = None;
        if trace {
            self.snapshot = Some(trainer.snapshot()?);
        }
        Ok(())
    }

    fn step(&mut self, trainer: &mut Trainer) -> Result<bool, Error> {
        let rows = self.order.batch_at(&self.rows, &trainer.position);
        if rows.is_empty() {
            return Ok(false);
        }
        trainer.train_step(&mut self.step, self.order.data, rows, trainer.position.cursor == 0)?;
        trainer.position.cursor += rows.len();
        Ok(true)
    }

    fn runner(&mut self) -> Result<&mut Runner, Error> {
        Ok(&mut self.step.runner)
    }

    fn end_epoch(&mut self, trainer: &mut Trainer) -> Option<usize> {
        let complete = trainer.position.cursor >= self.rows.len();
        complete.then(|| self.rows.len().div_ceil(self.order.batch))
    }

    fn validate(&mut self, trainer: &mut Trainer) -> Result<Option<Scores>, Error> {
        let Some((data, step)) = &mut self.validation else { return Ok(None) };
        trainer.run_evaluation(step, data).map(Some)
    }

    fn trace(&mut self, trainer: &mut Trainer) -> Result<Option<NotFinite>, Error> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        nan_trace::trace(trainer, &mut self.step, &self.order, &self.rows, snapshot)
    }
}

/// Batches that an iterator returns for each epoch; a stopped epoch is left.
pub(super) struct IteratorBatches<'d, F, I: Iterator> {
    epochs: F,
    rest: Option<Peekable<I>>,
    /// The step of the last batch.
    step: Option<PreparedStep>,
    last: Option<Dataset>,
    n_steps: usize,
    validation: Option<&'d Dataset>,
}

impl<'d, F, I: Iterator> IteratorBatches<'d, F, I> {
    /// Returns the batches that `epochs` returns for each epoch, and restarts the trainer's epoch.
    pub fn new(trainer: &mut Trainer, fit: &Fit<'d>, epochs: F) -> Self {
        let position = &mut trainer.position;
        (position.cursor, position.data, position.seed) = (0, 0, fit.seed);
        let step = trainer.cache.training.take();
        IteratorBatches { epochs, rest: None, step, last: None, n_steps: 0, validation: fit.validation }
    }

    /// Returns the step of the last batch.
    pub fn into_step(self) -> Option<PreparedStep> {
        self.step
    }
}

impl<F, I> Batches for IteratorBatches<'_, F, I>
where
    F: FnMut(usize) -> I,
    I: Iterator<Item = Result<Dataset, Error>>,
{
    fn begin_epoch(&mut self, trainer: &Trainer, _trace: bool) -> Result<(), Error> {
        self.rest = Some((self.epochs)(trainer.position.epoch).peekable());
        self.n_steps = 0;
        Ok(())
    }

    fn step(&mut self, trainer: &mut Trainer) -> Result<bool, Error> {
        let Some(batch) = self.rest.as_mut().and_then(Iterator::next).transpose()? else {
            return if self.n_steps == 0 { Err(TrainError::NoData.into()) } else { Ok(false) };
        };
        trainer.check(&batch)?;
        if let Some(validation) = self.validation {
            same_classes(&batch.classes, &validation.classes)?;
        }
        let step = match self.step.take().filter(|step| step.fits(&batch)) {
            Some(step) => step,
            None => trainer.compile_training_step(&batch)?,
        };
        let step = self.step.insert(step);
        trainer.train_step(step, &batch, &all_rows(&batch), trainer.position.cursor == 0)?;
        trainer.position.cursor += batch.len();
        self.n_steps += 1;
        self.last = Some(batch);
        Ok(true)
    }

    fn runner(&mut self) -> Result<&mut Runner, Error> {
        self.step.as_mut().map(|step| &mut step.runner).ok_or_else(|| TrainError::NoData.into())
    }

    fn end_epoch(&mut self, trainer: &mut Trainer) -> Option<usize> {
        let complete = self.rest.as_mut().is_none_or(|rest| rest.peek().is_none());
        if !complete {
            trainer.position.cursor = 0;
        }
        complete.then_some(self.n_steps)
    }

    fn validate(&mut self, trainer: &mut Trainer) -> Result<Option<Scores>, Error> {
        self.validation.map(|data| trainer.evaluate(data)).transpose()
    }

    /// Looks for the value in the last step alone, as earlier batches are gone.
    fn trace(&mut self, trainer: &mut Trainer) -> Result<Option<NotFinite>, Error> {
        let Some(last) = &self.last else { return Ok(None) };
        let step = trainer.position.step - 1;
        Ok(trainer.first_not_finite(last)?.map(|found| NotFinite { step, ..found }))
    }
}
