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
    /// Where training stands.
    pub progress: Progress,
    read_every: Duration,
    /// Steps that may still be taken.
    pub steps_left: u64,
    began: Instant,
    /// Samples of the epoch that were seen before the call.
    from: usize,
    shown: Instant,
    /// Samples and the sum of their losses when they were read before.
    sums: [f64; 2],
}

impl<'f> Observers<'f> {
    /// Tells callbacks that training begins, and hands back to them what a checkpoint kept.
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

    /// Returns what each callback that remembers something does, under names of their own.
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

    /// Tells that an epoch begins, or goes on.
    pub fn epoch_begin(&mut self, trainer: &mut Trainer) -> Result<(), Error> {
        let now = Instant::now();
        (self.began, self.shown, self.from, self.sums) = (now, now, trainer.position.cursor, [0.0; 2]);
        self.progress.epoch = trainer.position.epoch;
        match trainer.position.cursor {
            0 => self.callbacks.iter_mut().try_for_each(|c| c.epoch_begin(trainer.position.epoch, trainer)),
            _ => Ok(()),
        }
    }

    /// Tells that a step was taken, and returns whether training ends with it.
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

    /// Reads the values of the epoch so far; the steps so far are then on the device for certain.
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

    /// Tells that an epoch is done, and returns whether training ends with it. Nothing is saved of a broken one.
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

    /// Tells that training ends.
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
