//! Where the first value came up that is no finite number.

use super::{
    Trainer,
    runner::{Compiled, Runner},
    step::Source,
    trainer::{Position, as_bytes},
};
use crate::{
    Error,
    data::{Dataset, shuffled},
    graph::Value,
    nn::Mode,
    runtime::Store,
    tensor::HostTensor,
};
use std::{collections::HashSet, fmt};

/// The first value of a training step, in the order of its nodes, that is infinite or no number.
#[derive(Debug, Clone, PartialEq)]
pub struct NotFinite {
    /// The step, from 0.
    pub step: u64,
    /// The node, whose name has its layer's in front; the name of a weight, or `x` for the samples.
    pub node: String,
    /// The operation of the node, `weight`, `moment` or `input`.
    pub op: String,
    /// The element, in row-major order.
    pub index: usize,
    /// What it is.
    pub value: f32,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotFinite { step, node, op, index, value } = self;
        write!(
            f,
            "the first value that is no finite number is {value}, element {index} of `{node}` ({op}) in step {step}"
        )
    }
}

/// Returns the first value of a tensor that is no finite number.
fn not_finite(step: u64, node: &str, op: &str, tensor: &HostTensor) -> Option<NotFinite> {
    let values = tensor.to_f32();
    let index = values.iter().position(|x| !x.is_finite())?;
    Some(NotFinite { step, node: node.into(), op: op.into(), index, value: values[index] })
}

/// All that training changes.
pub(super) struct Snapshot {
    at: Position,
    tensors: Vec<(String, HostTensor)>,
}

/// The steps of a call of fit.
pub(super) struct Steps<'d> {
    pub data: &'d Dataset,
    pub batch: usize,
    pub seed: u64,
    pub shuffle: bool,
}

impl Steps<'_> {
    /// Returns the rows of an epoch in their order.
    pub fn order(&self, epoch: usize) -> Vec<u32> {
        match self.shuffle {
            true => shuffled(self.seed, epoch as u32, self.data.len()),
            false => (0..self.data.len() as u32).collect(),
        }
    }

    fn rows(&self, at: &Position) -> Vec<u32> {
        let order = self.order(at.epoch);
        order[at.cursor..(at.cursor + self.batch).min(order.len())].to_vec()
    }
}

impl Trainer {
    /// Returns all that training changes.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot { at: self.at, tensors: self.state()? })
    }

    /// Returns the first value of a weight, or of a moment, that is no finite number, as of this step.
    pub(super) fn flaw(&self, step: u64) -> Result<Option<NotFinite>, Error> {
        for (store, op) in [(Some(&self.params), "weight"), (self.moments.as_ref(), "moment")] {
            for (name, tensor) in store.into_iter().map(Store::read_all).collect::<Result<Vec<_>, _>>()?.concat() {
                let found = not_finite(step, &name, op, &tensor);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.at = snapshot.at;
        self.set_state(&snapshot.tensors)
    }

    /// Returns the first value that is no finite number in the steps since a snapshot, up to `until`. The trainer then
    /// stands before the step that made it, and at the snapshot where there is none.
    pub(super) fn trace(
        &mut self,
        runner: &mut Runner,
        source: &Source,
        steps: &Steps,
        snapshot: &Snapshot,
        until: u64,
    ) -> Result<Option<NotFinite>, Error> {
        let mut advance = |trainer: &mut Trainer| -> Result<f64, Error> {
            let rows = steps.rows(&trainer.at);
            trainer.feed(runner, &trainer.step(rows.len(), true)?, steps.data, source, &rows, Mode::Training)?;
            trainer.at.step += 1;
            trainer.at.cursor += rows.len();
            if trainer.at.cursor >= steps.data.len() {
                (trainer.at.epoch, trainer.at.cursor) = (trainer.at.epoch + 1, 0);
            }
            Ok(trainer.read_values(runner, rows.len())?[0].1)
        };
        self.restore(snapshot)?;
        let mut by_loss = false;
        while self.at.step < until && !by_loss {
            by_loss = !advance(self)?.is_finite();
        }
        let last = self.at.step;
        self.restore(snapshot)?;
        // A loss that is no number comes of its own step, or of the weights that the step before it made.
        while by_loss && self.at.step + 2 < last {
            advance(self)?;
        }
        while self.at.step < last {
            let (step, before) = (self.at.step, self.snapshot()?);
            let batch = steps.data.select(&steps.rows(&self.at))?;
            let found = if by_loss { self.first_not_finite(&batch)? } else { None };
            if found.is_some() {
                return Ok(found);
            }
            advance(self)?;
            if let Some(made) = self.flaw(step)? {
                self.restore(&before)?;
                return Ok(self.first_not_finite(&batch)?.or(Some(made)));
            }
        }
        self.restore(snapshot)?;
        Ok(None)
    }

    /// Returns the first value that is no finite number in a training step on these samples, or `None`; nothing is
    /// learned. Every node is computed by a kernel of its own, and all values are kept on the device together.
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
        let find = |node: &str, op: &str, tensor: &HostTensor| not_finite(self.at.step, node, op, tensor);
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let own = self.step(data.len(), true)?;
        let feeds = self.feeds(&own, data, &Source::Host, &rows, Mode::Training)?;
        let weights = self.weights()?;
        let inputs = feeds.iter().map(|(name, t)| (name.as_str(), "input", t));
        let weights = weights.iter().map(|(name, t)| (name.as_str(), "weight", t));
        if let Some(found) = inputs.chain(weights).find_map(|(name, kind, t)| find(name, kind, t)) {
            return Ok(Some(found));
        }
        let mut graph = self.graph(data, &Source::Host, Mode::Training)?;
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
        runner.run(&own, &as_bytes(&feeds))?;
        for ((name, _), (node, op)) in kept.iter().zip(&ops) {
            let found = find(node, op, &runner.read(name, data.len())?);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
