//! How long a call of `Trainer::fit` trains, and on what.

use super::callback::Callback;
use crate::data::Dataset;
use std::time::Duration;

/// How far a call of fit goes.
#[derive(Debug, Clone, Copy)]
enum Span {
    More(usize),
    Until(usize),
}

/// The options of one call of [`Trainer::fit`](super::Trainer::fit): epochs, batch, validation, callbacks.
pub struct Fit<'a> {
    span: Span,
    pub(super) batch: usize,
    pub(super) validation: Option<&'a Dataset>,
    pub(super) seed: u64,
    pub(super) shuffle: bool,
    pub(super) max_steps: Option<u64>,
    pub(super) read_every: Duration,
    pub(super) callbacks: Vec<Box<dyn Callback + 'a>>,
}

impl<'a> Fit<'a> {
    /// Trains for `epochs` more epochs, with batches of 32, shuffled (Keras's defaults). The rest of a stopped epoch
    /// counts as one.
    pub fn epochs(epochs: usize) -> Self {
        Self::of(Span::More(epochs))
    }

    /// Trains until `epoch` epochs are done, including those before this call; otherwise as [`Fit::epochs`]. For a run
    /// that continues from a checkpoint.
    ///
    /// ```
    /// use hubel::{callbacks::*, layers::*, losses::*, optimizers::*, prelude::*};
    /// # let folder = temp_dir::TempDir::new().expect("a folder");
    /// # let path = folder.path().join("last.safetensors");
    /// let data = Dataset::new(HostTensor::f32([4, 1], vec![1.0; 4])?, HostTensor::f32([4, 1], vec![2.0; 4])?)?;
    /// let model = Sequential::new([1]).add(Dense::new(1)).build()?;
    /// let config = || Compile::new(Sgd::new(0.1), MeanSquaredError);
    /// let mut trainer = model.compile(&Engine::reference(), config())?;
    /// trainer.fit(&data, Fit::epochs(3).callback(ModelCheckpoint::new(&path)))?;
    /// let mut resumed = model.compile(&Engine::reference(), config())?;
    /// resumed.load_checkpoint(&path)?;
    /// resumed.fit(&data, Fit::until_epoch(5))?;
    /// assert_eq!(resumed.history().epochs, [3, 4]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn until_epoch(epoch: usize) -> Self {
        Self::of(Span::Until(epoch))
    }

    /// Returns the number of epochs done at the end, of which `done` are at the beginning.
    pub(super) fn until(&self, done: usize) -> usize {
        match self.span {
            Span::More(epochs) => done.saturating_add(epochs),
            Span::Until(epoch) => epoch,
        }
    }

    fn of(span: Span) -> Self {
        Fit {
            span,
            batch: 32,
            validation: None,
            seed: 0,
            shuffle: true,
            max_steps: None,
            read_every: Duration::from_millis(250),
            callbacks: Vec::new(),
        }
    }

    /// Sets the batch size, at most the number of samples; the last batch of an epoch may be smaller. 32 by default.
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch.max(1);
        self
    }

    /// Evaluates on this data after every epoch; none by default.
    pub fn validation(mut self, data: &'a Dataset) -> Self {
        self.validation = Some(data);
        self
    }

    /// Sets the seed of order and dropout; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Shuffles the samples in each epoch; true by default.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Stops after this number of steps, in the middle of an epoch if need be, where the next call continues. 0 takes
    /// none; unlimited by default.
    pub fn max_steps(mut self, steps: u64) -> Self {
        self.max_steps = Some(steps);
        self
    }

    /// Reads values from the device after every step, instead of a few times a second.
    ///
    /// Each step then waits for the device.
    pub fn read_every_step(mut self) -> Self {
        self.read_every = Duration::ZERO;
        self
    }

    /// Adds a callback.
    pub fn callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }
}
