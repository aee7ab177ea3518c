//! Finds the first value of a training step that is not finite.

use super::{
    epoch_order::EpochOrder,
    not_finite::NotFinite,
    prepared_step::{PreparedStep, in_parts},
    runner::Compiled,
    state::Snapshot,
    step_graph::{self, feeds::Source, metrics},
    steps::all_rows,
    trainer::Trainer,
};
use crate::{Error, data::Dataset, graph::Value, nn::Mode, tensor::HostTensor};
use std::collections::HashSet;

/// Returns the first value that is not finite in the steps of an epoch since a snapshot, and leaves the trainer before
/// the step that computed it; at the snapshot if there is none. `rows` are the epoch's.
pub(super) fn trace(
    trainer: &mut Trainer,
    step: &mut PreparedStep,
    order: &EpochOrder,
    rows: &[u32],
    snapshot: &Snapshot,
) -> Result<Option<NotFinite>, Error> {
    let until = trainer.position.step;
    trainer.restore(snapshot)?;
    let mut by_loss = false;
    while trainer.position.step < until && !by_loss {
        let Some(loss) = replay(trainer, step, order, rows)? else { break };
        by_loss = !loss.is_finite();
    }
    let last = trainer.position.step;
    trainer.restore(snapshot)?;
    // A non-finite loss comes from its own step, or from the weights of the step before.
    while by_loss && trainer.position.step + 2 < last {
        replay(trainer, step, order, rows)?;
    }
    while trainer.position.step < last {
        let (number, before) = (trainer.position.step, trainer.snapshot()?);
        let batch = order.data.select(order.batch_at(rows, &trainer.position))?;
        let found = if by_loss { trainer.first_not_finite(&batch)? } else { None };
        if found.is_some() {
            return Ok(found);
        }
        replay(trainer, step, order, rows)?;
        if let Some(made) = trainer.state.find_not_finite(number)? {
            trainer.restore(&before)?;
            return Ok(trainer.first_not_finite(&batch)?.or(Some(made)));
        }
    }
    trainer.restore(snapshot)?;
    Ok(None)
}

/// Takes the step at the trainer's position and returns its loss; `None` at the end of the epoch.
fn replay(
    trainer: &mut Trainer,
    step: &mut PreparedStep,
    order: &EpochOrder,
    rows: &[u32],
) -> Result<Option<f64>, Error> {
    let batch = order.batch_at(rows, &trainer.position);
    if batch.is_empty() {
        return Ok(None);
    }
    trainer.train_step(step, order.data, batch, true)?;
    trainer.position.cursor += batch.len();
    Ok(Some(metrics::read(&trainer.metrics, &mut step.runner)?[0].1))
}

impl Trainer {
    /// Returns a copy of everything that training changes.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot { position: self.position, tensors: self.state.tensors()? })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.position = snapshot.position;
        self.state.set_tensors(&snapshot.tensors)
    }

    /// Returns the first value that is not finite in a training step on these samples, or `None`; nothing is learned.
    /// Every node is computed by a separate kernel, and all values are in device memory together.
    ///
    /// ```
    /// use hubel::{layers::*, losses::*, optimizers::*, prelude::*};
    /// let model = Sequential::new([2]).add(Dense::new(1)).build()?;
    /// let trainer = model.compile(&Engine::reference(), Compile::new(Sgd::new(0.1), MeanSquaredError))?;
    /// let data = Dataset::new(HostTensor::f32([1, 2], vec![0.0, f32::INFINITY])?, HostTensor::f32([1, 1], vec![1.0])?)?;
    /// let found = trainer.first_not_finite(&data)?.expect("it is found");
    /// assert_eq!((found.node.as_str(), found.index), ("x", 1));
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn first_not_finite(&self, data: &Dataset) -> Result<Option<NotFinite>, Error> {
        self.check(data)?;
        let find = |node: &str, op: &str, tensor: &HostTensor| NotFinite::find(self.position.step, node, op, tensor);
        let rows = all_rows(data);
        let step = self.next_step(data.len(), true)?;
        let feeds = step_graph::feeds(&self.config, Mode::Training, &Source::Host, &step, data, &rows)?;
        let tensors = feeds.iter().map(|(name, feed)| Ok((name, feed.tensor()?))).collect::<Result<Vec<_>, Error>>()?;
        let weights = self.weights()?;
        let inputs = tensors.iter().map(|(name, t)| (name.as_str(), "input", t));
        let weights = weights.iter().map(|(name, t)| (name.as_str(), "weight", t));
        if let Some(found) = inputs.chain(weights).find_map(|(name, kind, t)| find(name, kind, t)) {
            return Ok(Some(found));
        }
        let mut graph = self.step_graph(data, &Source::Host, Mode::Training)?.graph;
        let (live, changed) = (graph.live(), graph.updates().iter().map(|u| u.1).collect::<HashSet<Value>>());
        let mut kept: Vec<(String, Value)> = Vec::new();
        let mut ops = Vec::new();
        for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]) {
            let values = (0..node.outputs.len() as u32).map(|output| Value { node: i as u32, output });
            let values: Vec<Value> = values.collect();
            let Some(op) = node.op().filter(|_| !values.iter().any(|v| changed.contains(v))) else { continue };
            for value in values {
                kept.push((format!("{}.{}", node.name, kept.len()), value));
                ops.push((node.name.clone(), op.name()));
            }
        }
        graph.set_outputs(kept.clone());
        graph.set_updates(Vec::new());
        let compiled = Compiled::unfused(&self.engine, graph, data.len(), self.stores(&Source::Host))?;
        let mut runner = compiled.runner(&self.engine, None)?;
        runner.run(&step, &in_parts(&feeds))?;
        for ((name, _), (node, op)) in kept.iter().zip(&ops) {
            let found = find(node, op, &runner.read(name, data.len())?);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
