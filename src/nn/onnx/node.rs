//! A node of a file as a layer.

use super::{
    call::{Build, Call, Kind, MAX_LITERAL, Make, Place, Slot, T},
    constant::{Constant, is_whole},
    spec::Spec,
};
use crate::{
    graph::{Graph, OpError, Value},
    nn::{Initializer, Layer, Mode, Scope},
    tensor::{Array, HostTensor, Shape},
};
use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

/// What the first construction of a layer finds out.
#[derive(Debug, Default)]
struct Found {
    results: Vec<(Vec<usize>, i32, Option<Vec<usize>>)>,
    /// The weights' elements, until the importer takes them.
    weights: BTreeMap<String, Option<HostTensor>>,
}

/// A node of a file as a layer; its weights are named `kernel`, `bias`, … below the node's name.
#[derive(Debug)]
pub struct Node {
    spec: Spec,
    build: Build,
    slots: RwLock<Vec<Slot>>,
    found: Mutex<Found>,
}

impl Node {
    pub fn new(spec: Spec, build: Build, slots: Vec<Slot>) -> Self {
        Node { spec, build, slots: RwLock::new(slots), found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how the results are stored: axes, type of the elements, flattened maps.
    pub fn results(&self) -> Vec<(Vec<usize>, i32, Option<Vec<usize>>)> {
        self.found().results.clone()
    }

    /// Returns the elements of the weights by name, which the layer then no longer holds.
    pub fn take_weights(&self) -> Vec<(String, HostTensor)> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let weights = &mut self.found().weights;
        for slot in slots.iter_mut() {
            if let Slot::Const(constant) = slot {
                // What is larger than a literal, and no list of places, is a weight by now.
                let is_weight = constant.count() > MAX_LITERAL && !is_whole(constant.elem);
                *constant = if is_weight { constant.moved() } else { constant.detached() };
            }
        }
        weights.iter_mut().filter_map(|(name, value)| Some((name.clone(), value.take()?))).collect()
    }
}

impl Layer for Node {
    fn kind(&self) -> &'static str {
        self.spec.op
    }

    fn given_name(&self) -> Option<&str> {
        Some(&self.spec.name)
    }

    fn nested(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn build(&self, scope: &mut Scope, inputs: &[Value]) -> Result<Vec<Value>, OpError> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut place = InLayer { scope, inputs, node: self };
        let results = (self.build)(&mut Call { node: &self.spec, slots: &slots, place: &mut place })?;
        let mut found = self.found();
        if found.results.is_empty() {
            found.results = results.iter().map(|t| (t.axes.clone(), t.elem, t.flat.clone())).collect();
        }
        Ok(results.into_iter().map(|t| t.value).collect())
    }
}

struct InLayer<'p, 's> {
    scope: &'p mut Scope<'s>,
    inputs: &'p [Value],
    node: &'p Node,
}

impl Place for InLayer<'_, '_> {
    fn graph(&mut self) -> &mut Graph {
        self.scope.graph
    }

    fn input(&mut self, at: usize) -> Result<Value, OpError> {
        let missing =
            || OpError::new(self.node.spec.op, format!("{} inputs", at + 1), self.inputs.len(), "pass them all");
        self.inputs.get(at).copied().ok_or_else(missing)
    }

    fn weight(&mut self, name: &str, dims: &[usize], kind: Kind, make: &Make) -> Result<Value, OpError> {
        let initial = match make {
            Make::Fill(value) => Initializer::Constant { value: *value },
            Make::Elements(elements) => {
                let mut found = self.node.found();
                if !found.weights.contains_key(name) {
                    let error = |e| OpError::new(self.node.spec.op, "a weight", e, "export the model again");
                    let value = HostTensor::f32(dims, elements()?).map_err(error)?;
                    found.weights.insert(name.to_owned(), Some(value));
                }
                Initializer::Zeros
            }
        };
        match kind {
            Kind::Trainable => self.scope.weight(name, dims, &initial),
            Kind::State if dims.contains(&0) => Err(OpError::new(name, "elements", "none", "export the model again")),
            Kind::State => Ok(self.scope.state(name, dims, &initial)),
        }
    }

    fn is_training(&self) -> bool {
        self.scope.mode == Mode::Training && self.scope.trainable()
    }
}

/// A graph whose inputs are all known.
#[derive(Default)]
struct Known {
    graph: Graph,
    feeds: HashMap<Value, Array>,
}

impl Place for Known {
    fn graph(&mut self) -> &mut Graph {
        &mut self.graph
    }

    fn input(&mut self, at: usize) -> Result<Value, OpError> {
        Err(OpError::new("constant", "known operands", format!("input {at}"), "report this as a bug"))
    }

    fn weight(&mut self, name: &str, dims: &[usize], _kind: Kind, make: &Make) -> Result<Value, OpError> {
        let data = match make {
            Make::Fill(value) => vec![f64::from(*value); dims.iter().product()],
            Make::Elements(elements) => elements()?.into_iter().map(f64::from).collect(),
        };
        let value = self.graph.input(name, Shape::fixed(dims), crate::tensor::DType::F32);
        self.feeds.insert(value, Array { shape: dims.to_vec(), data });
        Ok(value)
    }

    fn is_training(&self) -> bool {
        false
    }

    fn feed(&mut self, dims: &[usize], elements: &[f64]) -> Option<Value> {
        let value = self.graph.input("constant", Shape::fixed(dims), crate::tensor::DType::F32);
        self.feeds.insert(value, Array { shape: dims.to_vec(), data: elements.to_vec() });
        Some(value)
    }

    fn is_known(&self) -> bool {
        true
    }
}

/// Returns the results of a node whose operands are all known, by the definitions of the operations.
pub fn computed(spec: &Spec, build: Build, slots: &[Slot]) -> Result<Vec<Constant>, OpError> {
    let mut known = Known::default();
    let results = build(&mut Call { node: spec, slots, place: &mut known })?;
    let results = {
        let mut call = Call { node: spec, slots, place: &mut known };
        results.into_iter().map(|t| call.natural_of(t)).collect::<Result<Vec<T>, _>>()?
    };
    for (i, t) in results.iter().enumerate() {
        known.graph.output(&i.to_string(), t.value);
    }
    let Known { graph, feeds } = known;
    let found = crate::graph::evaluate(&graph, feeds, &crate::graph::Step::of(1), false);
    let constant = |t: &T| {
        let array = found.get(t.value).cloned();
        let missing = || OpError::new(spec.op, "known operands", "one that is not", "report this as a bug");
        array.map(|a| Constant::numbers(a.shape, t.elem, a.data)).ok_or_else(missing)
    };
    results.iter().map(constant).collect()
}
