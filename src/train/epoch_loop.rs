//! The epoch loop of [`Trainer::fit`] and [`Trainer::fit_batches`].

use super::{
    batches::{Batches, DatasetBatches, IteratorBatches},
    data_check::same_classes,
    fit::Fit,
    history::History,
    observers::Observers,
    step_graph::activation_stats,
    trainer::Trainer,
};
use crate::{Error, data::Dataset};

impl Trainer {
    /// Trains for the requested epochs and returns the history of all epochs.
    ///
    /// A trainer that was stopped or resumed in the middle of an epoch continues there. If the epoch began on other
    /// data, it restarts, which is logged.
    pub fn fit(&mut self, data: &Dataset, fit: Fit) -> Result<History, Error> {
        self.during_fit(|trainer| {
            trainer.check(data)?;
            if let Some(validation) = fit.validation {
                trainer.check(validation)?;
                same_classes(&data.classes, &validation.classes)?;
            }
            let mut batches = DatasetBatches::new(trainer, &fit, data)?;
            trainer.run_epochs(&mut batches, fit, data.len())
        })
    }

    /// Trains on batches from an iterator (Keras `fit` of a generator). `batches` is called with the number of each
    /// epoch, from 0, and returns its batches. [`Fit::batch`], [`Fit::shuffle`] and the order of [`Fit::seed`] have no
    /// effect here. A call that ends in the middle of an epoch leaves it: the next call restarts it.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let x = HostTensor::f32([6, 1], (0..6).map(|i| i as f32).collect())?;
    /// let data = Dataset::new(x.clone(), x)?;
    /// let model = Sequential::new([1]).add(Dense::new(1)).build()?;
    /// let mut trainer = model.compile(&Engine::reference(), Compile::new(Sgd::new(0.01), MeanSquaredError))?;
    /// let batches = |_epoch| [[0, 1, 2], [3, 4, 5]].into_iter().map(|rows| data.select(&rows));
    /// let history = trainer.fit_batches(batches, Fit::epochs(20).validation(&data))?;
    /// assert!(trainer.steps() == 40 && history.last("val_loss") < history.get("val_loss").map(|all| all[0]));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn fit_batches<I, E>(&mut self, mut batches: impl FnMut(usize) -> I, fit: Fit) -> Result<History, Error>
    where
        I: IntoIterator<Item = Result<Dataset, E>>,
        Error: From<E>,
    {
        self.during_fit(|trainer| {
            fit.validation.map_or(Ok(()), |data| trainer.check(data))?;
            let epochs = |epoch| batches(epoch).into_iter().map(|batch| Ok(batch?));
            let mut batches = IteratorBatches::new(trainer, &fit, epochs);
            let history = trainer.run_epochs(&mut batches, fit, 0);
            trainer.cache.training = batches.into_step();
            history
        })
    }

    fn during_fit<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.cache.clear_inference();
        self.fitting = true;
        self.not_finite = None;
        let done = run(self);
        self.fitting = false;
        done
    }

    /// Trains on batches until the epochs or steps of `fit` are done or a callback stops; `samples` is the number of
    /// samples in an epoch, 0 if unknown.
    fn run_epochs(&mut self, batches: &mut impl Batches, fit: Fit, samples: usize) -> Result<History, Error> {
        let mut observers = Observers::begin(self, fit, samples)?;
        let trace = observers.trace_not_finite();
        let mut ended = observers.steps_left == 0;
        while !ended && self.position.epoch < observers.progress.epochs {
            observers.epoch_begin(self)?;
            if trace {
                self.not_finite = self.state.find_not_finite(self.position.step)?;
                if self.not_finite.is_some() {
                    break;
                }
            }
            batches.begin_epoch(self, trace)?;
            while !ended && batches.step(self)? {
                ended = observers.step_end(self, batches.runner()?)?;
            }
            observers.read(self, batches.runner()?)?;
            let broken = trace && self.is_broken(&observers)?;
            if let Some(n_steps) = batches.end_epoch(self) {
                let norms = activation_stats::read(&self.norms, &self.state.sums, self.position.cursor, n_steps)?;
                observers.progress.values.extend(norms);
                if let Some(scores) = batches.validate(self)? {
                    let values = scores.values.into_iter().map(|(name, v)| (format!("val_{name}"), v));
                    observers.progress.values.extend(values);
                }
                ended |= observers.epoch_end(self, broken)?;
            }
            if broken {
                self.not_finite = batches.trace(self)?;
                break;
            }
        }
        self.not_finite.iter().for_each(|found| log::error!("{found}"));
        observers.end(self)?;
        Ok(self.history.clone())
    }

    /// Returns whether the loss, a weight or a moment is not finite after the steps so far.
    fn is_broken(&self, observers: &Observers) -> Result<bool, Error> {
        let lost = observers.progress.get("loss").is_some_and(|loss| !loss.is_finite());
        Ok(lost || self.state.find_not_finite(self.position.step)?.is_some())
    }
}
