//! Compares each kernel of a model with its definition.

use super::{Inference, TrainError, runner::Compiled};
use crate::{
    Error,
    graph::{Graph, Kind, Node, Step, Value},
    passes::{PlanOptions, optimize, plan},
    runtime::RuntimeError,
    tensor::{Array, HostTensor, Mismatch, compare},
};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// One node of a plan, compared with its definition.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// The node, which names its layer.
    pub node: String,
    /// Its operation.
    pub op: &'static str,
    /// The variant of each of its kernels.
    pub kernels: Vec<String>,
    /// The element farthest outside its bound, if any is.
    pub mismatch: Option<Mismatch>,
}

/// The result of [`Inference::verify`], node by node in the order in which the device runs them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Verification {
    /// Every node that the device computes.
    pub nodes: Vec<Checked>,
}

impl Verification {
    /// Returns the first node whose results are wrong, or `None` if all are right.
    pub fn first_wrong(&self) -> Option<&Checked> {
        self.nodes.iter().find(|n| n.mismatch.is_some())
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = self.nodes.iter().filter(|n| n.mismatch.is_some()).count();
        match self.first_wrong() {
            None => write!(f, "all {} nodes agree with their definitions", self.nodes.len()),
            Some(Checked { node, op, kernels, mismatch: Some(mismatch) }) => {
                let kernels = kernels.join(", ");
                write!(f, "{wrong} of {} nodes are wrong, the first is `{node}` ", self.nodes.len())?;
                write!(f, "({op}, kernels: {kernels}): {mismatch}")
            }
            Some(_) => Ok(()),
        }
    }
}

impl Inference {
    /// Compares each node's kernels with the node's 64-bit definition, for a batch of samples of all the model's
    /// inputs, each (n, …) with n at most the capacity.
    ///
    /// A node's definition gets the device's values of the node's inputs, so that one wrong node does not make later
    /// ones wrong, and ties in pooling and ReLU give no false alarm. All activations are kept on the device together.
    /// `progress` gets the number of nodes done and their total, from several threads. Without a device there is
    /// nothing to verify, which is an error.
    ///
    /// ```no_run
    /// use hubel::{layers::*, prelude::*};
    /// let model = Sequential::new([28, 28, 1]).add(Conv2D::new(8, 3).activation(Relu)).build()?;
    /// let net = model.inference(&Engine::new()?, Batch::up_to(1))?;
    /// let found = net.verify(&[HostTensor::f32([1, 28, 28, 1], vec![0.5; 784])?], |_, _| {})?;
    /// assert!(found.first_wrong().is_none(), "{found}");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn verify(
        &self,
        samples: &[HostTensor],
        progress: impl Fn(usize, usize) + Sync,
    ) -> Result<Verification, Error> {
        self.verified(samples, progress, |source| source.into())
    }

    /// [`Inference::verify`] with each kernel's WGSL replaced by what `change` returns.
    #[cfg(feature = "testing")]
    pub fn verify_changed(
        &self,
        samples: &[HostTensor],
        change: impl Fn(&str) -> Arc<str>,
    ) -> Result<Verification, Error> {
        self.verified(samples, |_, _| {}, change)
    }

    fn verified(
        &self,
        samples: &[HostTensor],
        progress: impl Fn(usize, usize) + Sync,
        change: impl Fn(&str) -> Arc<str>,
    ) -> Result<Verification, Error> {
        if self.engine.is_reference() {
            let (what, advice) = ("verification without a device", "install a driver, or choose an adapter");
            return Err(RuntimeError::Unsupported { what, advice }.into());
        }
        let (samples, n) = self.typed(samples)?;
        if n > self.batch {
            return Err(TrainError::SampleShape { wanted: vec![self.batch], got: vec![n] }.into());
        }
        let step = Step::of(n);
        let mut graph = optimize(&self.graph, self.engine.profile());
        let live = graph.live();
        let mut kept: Vec<(String, Value)> = Vec::new();
        let mut nodes: Vec<(usize, Node)> = Vec::new();
        for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]) {
            if node.op().is_some() {
                nodes.push((i, node.clone()));
                let outputs = 0..node.outputs.len() as u32;
                kept.extend(outputs.map(|k| (format!("{}.{k}", node.name), Value { node: i as u32, output: k })));
            }
        }
        graph.set_outputs(kept.clone());
        let stores = std::slice::from_ref(&self.params);
        let options = PlanOptions { optimize: false, ..Compiled::options(&self.engine, self.batch, stores) };
        let mut plan = plan(&graph, &options)?;
        for dispatch in &mut plan.dispatches {
            dispatch.source = change(&dispatch.source);
        }
        let plan = Arc::new(plan);
        let mut session = self.engine.session(plan.clone(), stores, None)?;
        let feeds: Vec<(&str, &[u8])> = (self.inputs.iter().zip(&samples))
            .filter(|((name, _), _)| plan.inputs.iter().any(|p| p.name == *name))
            .map(|((name, _), tensor)| (name.as_str(), tensor.bytes()))
            .collect();
        session.run(&step, &feeds)?;

        let mut values = self.fed_values(&graph, &samples)?;
        for (name, value) in &kept {
            values.insert(*value, session.read(name, n)?);
        }
        let done = AtomicUsize::new(0);
        let total = nodes.len();
        let checked = nodes.par_iter().filter_map(|(i, node)| {
            let op = node.op()?;
            let inputs: Vec<Array> =
                node.inputs.iter().map(|v| Some(values.get(v)?.to_array())).collect::<Option<_>>()?;
            let inputs: Vec<&Array> = inputs.iter().collect();
            let exact = op.reference(&inputs, &step);
            let bounds = op.bounds(&graph.io(node), &inputs, &exact, &step);
            let wrong = |(k, (exact, bound)): (usize, (&Array, &Array))| {
                let got = values.get(&Value { node: *i as u32, output: k as u32 })?;
                compare(k, &got.to_f32(), exact, bound).err()
            };
            let mismatch = exact.iter().zip(&bounds).enumerate().find_map(wrong);
            let own = plan.dispatches.iter().filter(|d| d.node == node.name);
            let kernels = own.map(|d| format!("{}:{}", d.kernel, d.variant)).collect();
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Some(Checked { node: node.name.clone(), op: op.name(), kernels, mismatch })
        });
        Ok(Verification { nodes: checked.collect() })
    }

    /// Returns the values of a graph's inputs and weights.
    fn fed_values(&self, graph: &Graph, samples: &[HostTensor]) -> Result<HashMap<Value, HostTensor>, Error> {
        let mut values = HashMap::new();
        for (i, node) in graph.nodes().iter().enumerate() {
            let at = Value { node: i as u32, output: 0 };
            match &node.kind {
                Kind::Input => {
                    let fed = self.inputs.iter().zip(samples).find(|((name, _), _)| *name == node.name);
                    values.extend(fed.map(|(_, tensor)| (at, tensor.clone())));
                }
                Kind::State { .. } => {
                    values.insert(at, self.params.read(&node.name)?);
                }
                Kind::Op(_) => {}
            }
        }
        Ok(values)
    }
}
