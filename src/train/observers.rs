//! The callbacks of a call of fit, and what they are told.

use super::{Callback, CallbackState, Control, Fit, Progress, Trainer, options::distinct, runner::Runner};
use crate::Error;
use std::time::{Duration, Instant};

/// The callbacks of a call of fit.
pub(super) struct Observers<'f> {
    callbacks: Vec<Box<dyn Callback + 'f>>,
    /// Where training stands.
    pub at: Progress,
    read_every: Duration,
    /// Steps that may still be taken.
    pub left: u64,
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
        let names = trainer.value_names(fit.validation.is_some());
        let epochs = fit.until(trainer.at.epoch);
        let at = Progress { epoch: trainer.at.epoch, epochs, samples, names, ..Progress::default() };
        let (read_every, left, now) = (fit.read_every, fit.max_steps.unwrap_or(u64::MAX), Instant::now());
        let mut own = Observers {
            callbacks: fit.callbacks,
            at,
            read_every,
            left,
            began: now,
            from: 0,
            shown: now,
            sums: [0.0; 2],
        };
        own.callbacks.iter_mut().try_for_each(|c| c.begin(&own.at, trainer))?;
        if std::mem::take(&mut trainer.resumed) || trainer.at.cursor > 0 {
            for (i, state) in own.states() {
                if let Some(kept) = trainer.remembered.iter().find(|kept| kept.name == state.name) {
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
        trainer.remembered = self.states().into_iter().map(|(_, state)| state).collect();
    }

    /// Returns whether a copy of what training changes is to be kept.
    pub fn keep(&self) -> bool {
        self.callbacks.iter().any(|c| c.finite())
    }

    /// Tells that an epoch begins, or goes on.
    pub fn epoch_begin(&mut self, trainer: &mut Trainer) -> Result<(), Error> {
        let now = Instant::now();
        (self.began, self.shown, self.from, self.sums) = (now, now, trainer.at.cursor, [0.0; 2]);
        self.at.epoch = trainer.at.epoch;
        match trainer.at.cursor {
            0 => self.callbacks.iter_mut().try_for_each(|c| c.epoch_begin(trainer.at.epoch, trainer)),
            _ => Ok(()),
        }
    }

    /// Tells that a step of `n` samples was taken, and returns whether training ends with it.
    pub fn step_end(&mut self, trainer: &mut Trainer, runner: &mut Runner, n: usize) -> Result<bool, Error> {
        self.left = self.left.saturating_sub(1);
        (self.at.epoch, self.at.seen) = (trainer.at.epoch, trainer.at.cursor);
        if self.shown.elapsed() >= self.read_every {
            self.read(trainer, runner, n)?;
            self.callbacks.iter_mut().for_each(|c| c.progress(&self.at));
            self.shown = Instant::now();
        }
        let mut stop = self.left == 0;
        for callback in &mut self.callbacks {
            stop |= callback.step_end(&self.at, trainer)? == Control::Stop;
        }
        Ok(stop)
    }

    /// Reads the values of the epoch so far; the steps so far are then on the device for certain.
    pub fn read(&mut self, trainer: &Trainer, runner: &mut Runner, n: usize) -> Result<(), Error> {
        let at = &mut self.at;
        at.values = trainer.read_values(runner, n)?;
        let seen = trainer.at.cursor as f64;
        let sums = [seen, at.values[0].1 * seen];
        if sums[0] > self.sums[0] {
            at.recent_loss = Some((sums[1] - self.sums[1]) / (sums[0] - self.sums[0]));
            self.sums = sums;
        }
        at.samples_per_s = (trainer.at.cursor - self.from) as f64 / self.began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Tells that an epoch is done, and returns whether training ends with it. Nothing is saved of a broken one.
    pub fn epoch_end(&mut self, trainer: &mut Trainer, broken: bool) -> Result<bool, Error> {
        trainer.history.push(trainer.at.epoch, &self.at.values);
        (trainer.at.epoch, trainer.at.cursor) = (trainer.at.epoch + 1, 0);
        self.callbacks.iter_mut().for_each(|c| c.progress(&self.at));
        let mut stop = false;
        for callback in &mut self.callbacks {
            stop |= callback.epoch_end(&self.at, trainer)? == Control::Stop;
        }
        self.remember(trainer);
        if !broken {
            self.callbacks.iter_mut().try_for_each(|c| c.checkpoint(&self.at, trainer))?;
        }
        Ok(stop)
    }

    /// Tells that training ends.
    pub fn end(mut self, trainer: &mut Trainer) -> Result<(), Error> {
        self.callbacks.iter_mut().try_for_each(|c| c.end(trainer))
    }
}
