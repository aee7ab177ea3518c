//! Evaluation and prediction with a trainer's weights.

use super::{
    data_check::same_classes,
    error::TrainError,
    inference::Inference,
    prepared_step::PreparedStep,
    runner::largest_batch,
    step_graph::{feeds::Source, metrics},
    steps::all_rows,
    trainer::Trainer,
};
use crate::{
    Error,
    data::Dataset,
    nn::Mode,
    tensor::{Batch, HostTensor},
};
use std::sync::PoisonError;

/// Loss and metrics of an evaluation.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Scores {
    /// Name and mean over all samples.
    pub values: Vec<(String, f64)>,
}

impl Scores {
    /// Returns the score of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| n == name).map(|v| v.1)
    }
}

/// Returns the size of a batch for `n` samples: a power of two if `max` allows, so that few plans are needed.
fn batch_for(n: usize, max: usize) -> usize {
    n.min(max).max(1).next_power_of_two().min(max)
}

impl Trainer {
    /// Returns loss and metrics over a whole data set, without dropout and with moving statistics.
    ///
    /// The compiled step is cached for the next call with data of the same shapes, types and number of samples.
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Scores, Error> {
        self.check(data)?;
        same_classes(&self.classes, &data.classes)?;
        let mut prepared = match self.cache.evaluation.take().filter(|step| step.fits(data)) {
            Some(cached) => {
                cached.source.replace(data, &self.config.takes_classes())?;
                cached
            }
            None => self.evaluation_step(data)?,
        };
        let scores = self.run_evaluation(&mut prepared, data)?;
        self.cache.evaluation = Some(prepared);
        Ok(scores)
    }

    /// Returns a step that evaluates data of this kind. If one batch can hold all samples, it is fed from the host, so
    /// that it also fits other numbers of samples.
    fn evaluation_step(&self, data: &Dataset) -> Result<PreparedStep, Error> {
        let graph = self.step_graph(data, &Source::Host, Mode::Inference)?.graph;
        let max = largest_batch(&self.engine, &graph);
        let compiled = if data.len() <= max {
            self.compile_graph(graph, data, Source::Host, Mode::Inference, batch_for(data.len(), max))?
        } else {
            self.compile_step(data, Mode::Inference, 1)?
        };
        compiled.prepare(&self.engine, Some(&self.arena))
    }

    /// Returns loss and metrics over a data set that the step fits.
    pub(super) fn run_evaluation(&self, prepared: &mut PreparedStep, data: &Dataset) -> Result<Scores, Error> {
        for (i, rows) in all_rows(data).chunks(prepared.capacity).enumerate() {
            prepared.run(&self.config, &self.next_step(rows.len(), i == 0)?, data, rows)?;
        }
        Ok(Scores { values: metrics::read(&self.metrics, &mut prepared.runner)? })
    }

    /// Returns the model ready to run on batches of at most `batch` samples, on the trainer's weights.
    ///
    /// `layers` names layers whose outputs are returned too.
    pub fn inference(&self, batch: Batch, layers: &[&str]) -> Result<Inference, Error> {
        Inference::new(&self.model, &self.engine, self.state.params.clone(), batch, layers)
    }

    /// Returns the model's output for f32 samples (n, …), any number of them; an error if the batch axis n is missing.
    ///
    /// The compiled step is cached for the next call, and always uses the current weights.
    pub fn predict(&self, samples: &HostTensor) -> Result<HostTensor, Error> {
        let n = samples.shape().first().copied().unwrap_or(1);
        self.predicted(n, |net| net.predict(samples))
    }

    /// Returns the result of `run` on the model, ready for batches of a size that fits `n` samples and the device.
    fn predicted<T>(&self, n: usize, run: impl FnOnce(&mut Inference) -> Result<T, Error>) -> Result<T, Error> {
        let mut kept = self.cache.prediction.lock().unwrap_or_else(PoisonError::into_inner);
        let mut net = match kept.take() {
            Some(net) => net,
            None => self.inference(Batch::up_to(1), &[])?,
        };
        let wanted = batch_for(n, largest_batch(&self.engine, &net.graph));
        if net.batch < wanted {
            net = self.inference(Batch::up_to(wanted), &[])?;
        }
        let result = run(&mut net)?;
        *kept = Some(net);
        Ok(result)
    }

    /// Returns the confusion matrix: a row for each class of the labels, with the number of samples predicted as each
    /// class by the model's first output. An error if labels are not class indices.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let model = Sequential::new([1]).add(Dense::new(2).kernel_initializer(Zeros)).build()?;
    /// let config = Compile::new(Sgd::new(0.1), SparseCategoricalCrossentropy::new().from_logits(true));
    /// let trainer = model.compile(&Engine::reference(), config)?;
    /// let data = Dataset::new(HostTensor::f32([3, 1], vec![1.0; 3])?, HostTensor::u8([3], vec![0, 1, 1])?)?;
    /// assert_eq!(trainer.confusion_matrix(&data)?, [[1, 0], [2, 0]]);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn confusion_matrix(&self, data: &Dataset) -> Result<Vec<Vec<u64>>, Error> {
        self.check(data)?;
        if !data.has_classes() {
            let (wanted, got) = ("class indices, u8 or u32 (n)".into(), data.labels.dtype().to_string());
            return Err(TrainError::Labels { wanted, got }.into());
        }
        same_classes(&self.classes, &data.classes)?;
        let said = self.predicted(data.len(), |net| net.features(data, |_, _| {}))?;
        let classes = self.model.output_shape().last();
        let mut matrix = vec![vec![0; classes]; classes];
        for (said, label) in said.images.to_f32().chunks(classes).zip(data.labels.to_f32()) {
            // The first of equal ones, as in accuracy.
            let likeliest = (0..classes).fold(0, |best, k| if said[k] > said[best] { k } else { best });
            matrix[label as usize][likeliest] += 1;
        }
        Ok(matrix)
    }
}
