//! The callbacks of a call of fit, and what they are told.

use super::{
    callback::{Callback, Control, Progress},
    config::distinct,
    fit::Fit,
    runner::Runner,
    state::CallbackState,
    step_graph::metrics,
    trainer::Trainer,
};
use crate::Error;
use std::time::{Duration, Instant};

/// The callbacks of a call of fit.
pub(super) struct Observers<'f> {
    callbacks: Vec<Box<dyn Callback + 'f>>,
    /// What callbacks are told.
    pub progress: Progress,
    read_every: Duration,
    /// Steps until [`Fit::max_steps`].
    pub steps_left: u64,
    began: Instant,
    /// Samples of the epoch seen before this call.
    from: usize,
    shown: Instant,
    /// Samples and the sum of their losses at the previous read.
    sums: [f64; 2],
}

impl<'f> Observers<'f> {
    /// Tells callbacks that training begins, and restores what a checkpoint kept of them.
    pub fn begin(trainer: &mut Trainer, fit: Fit<'f>, samples: usize) -> Result<Self, Error> {
        let names = value_names(trainer, fit.validation.is_some());
        let epochs = fit.until(trainer.position.epoch);
        let progress = Progress { epoch: trainer.position.epoch, epochs, samples, names, ..Progress::default() };
        let (read_every, steps_left, now) = (fit.read_every, fit.max_steps.unwrap_or(u64::MAX), Instant::now());
        let mut own = Observers {
            callbacks: fit.callbacks,
            progress,
            read_every,
            steps_left,
            began: now,
            from: 0,
            shown: now,
            sums: [0.0; 2],
        };
        own.callbacks.iter_mut().try_for_each(|c| c.begin(&own.progress, trainer))?;
        if std::mem::take(&mut trainer.resumed) || trainer.position.cursor > 0 {
            for (i, state) in own.states() {
                if let Some(kept) = trainer.callback_states.iter().find(|kept| kept.name == state.name) {
                    own.callbacks[i].set_state(kept);
                }
            }
        }
        own.remember(trainer);
        Ok(own)
    }

    /// Returns the states of callbacks that have one, under distinct names.
    fn states(&self) -> Vec<(usize, CallbackState)> {
        let states = self.callbacks.iter().map(|c| c.state()).enumerate();
        let mut states: Vec<_> = states.filter(|(_, state)| !state.name.is_empty()).collect();
        let names = distinct(states.iter().map(|(_, state)| state.name.clone()), &[]);
        states.iter_mut().zip(names).for_each(|((_, state), name)| state.name = name);
        states
    }

    fn remember(&self, trainer: &mut Trainer) {
        trainer.callback_states = self.states().into_iter().map(|(_, state)| state).collect();
    }

    /// Returns whether a callback wants the first value that is not finite to be found.
    pub fn trace_not_finite(&self) -> bool {
        self.callbacks.iter().any(|c| c.finite())
    }

    /// Tells callbacks that an epoch begins, unless it continues.
    pub fn epoch_begin(&mut self, trainer: &mut Trainer) -> Result<(), Error> {
        let now = Instant::now();
        (self.began, self.shown, self.from, self.sums) = (now, now, trainer.position.cursor, [0.0; 2]);
        self.progress.epoch = trainer.position.epoch;
        match trainer.position.cursor {
            0 => self.callbacks.iter_mut().try_for_each(|c| c.epoch_begin(trainer.position.epoch, trainer)),
            _ => Ok(()),
        }
    }

    /// Tells callbacks that a step is done, and returns whether training ends.
    pub fn step_end(&mut self, trainer: &mut Trainer, runner: &mut Runner) -> Result<bool, Error> {
        self.steps_left = self.steps_left.saturating_sub(1);
        (self.progress.epoch, self.progress.seen) = (trainer.position.epoch, trainer.position.cursor);
        if self.shown.elapsed() >= self.read_every {
            self.read(trainer, runner)?;
            self.callbacks.iter_mut().for_each(|c| c.progress(&self.progress));
            self.shown = Instant::now();
        }
        let mut stop = self.steps_left == 0;
        for callback in &mut self.callbacks {
            stop |= callback.step_end(&self.progress, trainer)? == Control::Stop;
        }
        Ok(stop)
    }

    /// Reads the values of the epoch so far, which waits for its steps.
    pub fn read(&mut self, trainer: &Trainer, runner: &mut Runner) -> Result<(), Error> {
        let progress = &mut self.progress;
        progress.values = metrics::read(&trainer.metrics, runner)?;
        let seen = trainer.position.cursor as f64;
        let sums = [seen, progress.values[0].1 * seen];
        if sums[0] > self.sums[0] {
            progress.recent_loss = Some((sums[1] - self.sums[1]) / (sums[0] - self.sums[0]));
            self.sums = sums;
        }
        progress.samples_per_s = (trainer.position.cursor - self.from) as f64 / self.began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Tells callbacks that an epoch is done, and returns whether training ends. A `broken` epoch is not saved.
    pub fn epoch_end(&mut self, trainer: &mut Trainer, broken: bool) -> Result<bool, Error> {
        trainer.history.push(trainer.position.epoch, &self.progress.values);
        (trainer.position.epoch, trainer.position.cursor) = (trainer.position.epoch + 1, 0);
        self.callbacks.iter_mut().for_each(|c| c.progress(&self.progress));
        let mut stop = false;
        for callback in &mut self.callbacks {
            stop |= callback.epoch_end(&self.progress, trainer)? == Control::Stop;
        }
        self.remember(trainer);
        if !broken {
            self.callbacks.iter_mut().try_for_each(|c| c.checkpoint(&self.progress, trainer))?;
        }
        Ok(stop)
    }

    /// Tells callbacks that training ends.
    pub fn end(mut self, trainer: &mut Trainer) -> Result<(), Error> {
        self.callbacks.iter_mut().try_for_each(|c| c.end(trainer))
    }
}

/// Returns the names of the values of an epoch.
fn value_names(trainer: &Trainer, validated: bool) -> Vec<String> {
    let metrics = trainer.metrics.iter().map(|metric| metric.name.clone());
    let own: Vec<String> = ["loss".to_owned()].into_iter().chain(metrics).collect();
    let validation: Vec<String> = own.iter().filter(|_| validated).map(|name| format!("val_{name}")).collect();
    own.into_iter().chain(trainer.norms.iter().map(|norm| norm.name.clone())).chain(validation).collect()
}
