//! Runs a graph: on a device, or by reference evaluation.

use crate::{
    Error,
    graph::{Graph, Kind, Step, Value, evaluate},
    passes::{Plan, PlanError, PlanOptions, plan},
    runtime::{Arena, Engine, Profile, RuntimeError, Session, Store},
    tensor::{Array, HostTensor},
};
use std::{collections::HashMap, sync::Arc};

/// The maximum launches into which a step is cut for a software adapter's cheaper reads.
const MAX_LAUNCHES: usize = 30;

/// A graph ready to run: a session on a device, or reference evaluation without one.
pub(super) enum Runner {
    Device(Box<Session>),
    Reference(Box<Reference>),
}

/// Reference evaluation with states kept in host stores.
pub(super) struct Reference {
    graph: Graph,
    stores: Vec<Store>,
    results: HashMap<String, Array>,
}

/// A graph compiled for batches of some capacity, without device memory of its own yet.
pub(super) struct Compiled {
    graph: Graph,
    stores: Vec<Store>,
    plan: Option<Arc<Plan>>,
}

impl Compiled {
    /// Returns the graph compiled for batches of at most `capacity`, with a plan if there is a device.
    pub fn new(engine: &Engine, graph: Graph, capacity: usize, stores: Vec<Store>) -> Result<Self, Error> {
        if engine.is_reference() {
            return Ok(Compiled { graph, stores, plan: None });
        }
        let plan = Self::plan_of(engine, &graph, capacity, &stores)?;
        log::debug!("{plan}");
        Ok(Compiled { graph, stores, plan: Some(Arc::new(plan)) })
    }

    /// Returns the graph compiled with a separate kernel for each node.
    pub fn unfused(engine: &Engine, graph: Graph, capacity: usize, stores: Vec<Store>) -> Result<Self, Error> {
        if engine.is_reference() {
            return Self::new(engine, graph, capacity, stores);
        }
        let options = PlanOptions { optimize: false, ..Self::options(engine, capacity, &stores) };
        let plan = Arc::new(plan(&graph, &options)?);
        Ok(Compiled { graph, stores, plan: Some(plan) })
    }

    /// Returns the options by which graphs are planned.
    pub fn options<'s>(engine: &Engine, capacity: usize, stores: &'s [Store]) -> PlanOptions<'s> {
        let layouts = stores.iter().map(|s| s.layout().as_ref()).collect();
        PlanOptions { layouts, max_launches: MAX_LAUNCHES, ..PlanOptions::new(capacity, engine.profile().clone()) }
    }

    /// Returns the plan of a graph for batches of at most `capacity`.
    pub fn plan_of(engine: &Engine, graph: &Graph, capacity: usize, stores: &[Store]) -> Result<Plan, PlanError> {
        plan(graph, &Self::options(engine, capacity, stores))
    }

    /// Returns the plan, if it is for a device.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// Returns the graph ready to run, with activations in `arena` if given.
    pub fn runner(self, engine: &Engine, arena: Option<&Arena>) -> Result<Runner, Error> {
        Ok(match self.plan {
            Some(plan) => Runner::Device(Box::new(engine.session(plan, &self.stores, arena)?)),
            None => {
                let reference = Reference { graph: self.graph, stores: self.stores, results: HashMap::new() };
                Runner::Reference(Box::new(reference))
            }
        })
    }
}

/// The largest batch of a step whose batch is chosen automatically.
const MAX_SAMPLES: u64 = 256;
/// The size of the largest value of such a step.
const MAX_VALUE_BYTES: u64 = 64 << 20;

/// Returns the number of samples for which each of a graph's values is small and fits into a binding.
pub(super) fn largest_batch(engine: &Engine, graph: &Graph) -> usize {
    let values = graph.nodes().iter().flat_map(|node| &node.outputs);
    let row = values.map(|ty| 4 * ty.shape.elements().per_sample).max().unwrap_or(0);
    let max = engine.profile().max_binding_bytes.min(MAX_VALUE_BYTES);
    (max / row.max(1)).clamp(1, MAX_SAMPLES) as usize
}

/// Enlarges `arena` to the largest of each of these graphs' arenas.
pub(super) fn reserve(engine: &Engine, arena: &Arena, graphs: &[&Compiled]) -> Result<(), Error> {
    let mut arenas: Vec<u64> = Vec::new();
    for plan in graphs.iter().filter_map(|g| g.plan()) {
        arenas.resize(arenas.len().max(plan.arenas.len()), 0);
        arenas.iter_mut().zip(&plan.arenas).for_each(|(size, bytes)| *size = (*size).max(*bytes));
    }
    Ok(arena.reserve(engine, &arenas)?)
}

impl Runner {
    /// Runs one step; `feeds` are raw elements by input name, in parts.
    pub fn run(&mut self, step: &Step, feeds: &[(&str, Vec<&[u8]>)]) -> Result<(), Error> {
        match self {
            Runner::Device(session) => Ok(session.run_parts(step, feeds)?),
            Runner::Reference(reference) => {
                let whole: Vec<(&str, Vec<u8>)> = feeds.iter().map(|(name, parts)| (*name, parts.concat())).collect();
                let whole: Vec<(&str, &[u8])> = whole.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
                reference.run(step, &whole)
            }
        }
    }

    /// Returns whether a step reads an input: one that no output needs is not.
    pub fn reads(&self, input: &str) -> bool {
        match self {
            Runner::Device(session) => session.plan().inputs.iter().any(|port| port.name == input),
            Runner::Reference(_) => true,
        }
    }

    /// Runs one step and returns the time of each launch; an error without a device.
    pub fn profile(&mut self, step: &Step, feeds: &[(&str, Vec<&[u8]>)]) -> Result<Profile, Error> {
        match self {
            Runner::Device(session) => Ok(session.profile_parts(None, step, feeds)?),
            Runner::Reference(_) => Err(RuntimeError::Unsupported {
                what: "a profile on the reference engine",
                advice: "create an engine on an adapter",
            }
            .into()),
        }
    }

    /// Returns an output of the last step, for its batch of `n`.
    pub fn read(&mut self, output: &str, n: usize) -> Result<HostTensor, Error> {
        match self {
            Runner::Device(session) => Ok(session.read(output, n)?),
            Runner::Reference(reference) => {
                let ty = (reference.graph.outputs().iter())
                    .find(|(name, _)| name == output)
                    .map(|(_, v)| reference.graph.ty(*v).dtype);
                match (ty, reference.results.get(output)) {
                    (Some(dtype), Some(array)) => Ok(array.to_host(dtype)),
                    _ => {
                        let known: Vec<&str> = reference.graph.outputs().iter().map(|o| o.0.as_str()).collect();
                        let known = known.join(", ");
                        Err(RuntimeError::UnknownName { kind: "output", name: output.into(), known }.into())
                    }
                }
            }
        }
    }
}

impl Reference {
    fn run(&mut self, step: &Step, feeds: &[(&str, &[u8])]) -> Result<(), Error> {
        let mut values: HashMap<Value, Array> = HashMap::new();
        let live = self.graph.live();
        for (i, node) in self.graph.nodes().iter().enumerate().filter(|(i, _)| live[*i]) {
            let value = Value { node: i as u32, output: 0 };
            match &node.kind {
                Kind::Op(_) => {}
                Kind::Input => {
                    let ty = &node.outputs[0];
                    if let Some((_, bytes)) = feeds.iter().find(|(name, _)| *name == node.name) {
                        let tensor = HostTensor::from_bytes(ty.shape.at(step.n), ty.dtype, bytes)?;
                        values.insert(value, tensor.to_array());
                    }
                }
                Kind::State { .. } => {
                    if let Some(store) = self.store_of(&node.name) {
                        values.insert(value, store.read(&node.name)?.to_array());
                    }
                }
            }
        }
        let mut result = evaluate(&self.graph, values, step, false);
        self.results.clear();
        for (name, value) in self.graph.outputs() {
            if let Some(array) = result.get(*value) {
                self.results.insert(name.clone(), array.clone());
            }
        }
        for &(state, value) in self.graph.updates() {
            let node = self.graph.node(state);
            if let (Some(store), Some(array)) = (self.store_of(&node.name), result.take(value)) {
                store.write(&node.name, &array.to_host(node.outputs[0].dtype))?;
            }
        }
        Ok(())
    }

    fn store_of(&self, name: &str) -> Option<&Store> {
        self.stores.iter().find(|s| s.layout().find(name).is_some())
    }
}
