//! Fusion: chains of elementwise functions become one program, programs become epilogues of the compute-heavy kernels
//! that compute their input. Asks operations for their traits, never for their names.

use super::{fused::Fused, schedule::topological};
use crate::{
    graph::{DeviceClass, DeviceProfile, Graph, Kind, Node, Program, TensorType, Value},
    ops::Elementwise,
    tensor::DType,
};
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// A graph whose nodes can be replaced.
pub(super) struct Draft<'p> {
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) outputs: Vec<(String, Value)>,
    pub(super) updates: Vec<(Value, Value)>,
    pub(super) profile: &'p DeviceProfile,
    /// The nodes' positions in a topological order.
    positions: Vec<usize>,
    /// The fused operations of which it is known whether they fit.
    pub(super) known: RefCell<HashMap<String, bool>>,
}

/// Returns the graph with elementwise chains and epilogues fused, in a valid order.
pub fn fuse(graph: &Graph, profile: &DeviceProfile) -> Graph {
    let mut draft = Draft {
        nodes: graph.nodes().iter().zip(graph.live()).map(|(n, live)| live.then(|| n.clone())).collect(),
        outputs: graph.outputs().to_vec(),
        updates: graph.updates().to_vec(),
        profile,
        positions: Vec::new(),
        known: RefCell::default(),
    };
    draft.arrange();
    draft.chains();
    draft.epilogues();
    if profile.class == DeviceClass::Gpu {
        draft.pixels();
    }
    draft.sums();
    draft.prologues();
    if profile.class == DeviceClass::Gpu {
        draft.keeps();
        draft.recompute();
        draft.columns();
    }
    draft.finish()
}

impl Draft<'_> {
    /// Lets all that reads a value read another one.
    pub(super) fn replace(&mut self, old: Value, new: Value) {
        let inputs = self.nodes.iter_mut().flatten().flat_map(|node| &mut node.inputs);
        let outputs = self.outputs.iter_mut().map(|(_, v)| v);
        let updates = self.updates.iter_mut().flat_map(|(state, v)| [state, v]);
        inputs.chain(outputs).chain(updates).filter(|v| **v == old).for_each(|v| *v = new);
    }

    pub(super) fn inputs(&self, i: usize) -> Vec<Value> {
        self.nodes[i].as_ref().map(|node| node.inputs.clone()).unwrap_or_default()
    }

    pub(super) fn ty(&self, v: Value) -> Option<&TensorType> {
        self.nodes[v.node as usize].as_ref()?.outputs.get(v.output as usize)
    }

    pub(super) fn uses(&self) -> HashMap<Value, usize> {
        let mut uses = HashMap::new();
        for i in 0..self.nodes.len() {
            for v in self.inputs(i) {
                *uses.entry(v).or_insert(0) += 1;
            }
        }
        for v in self.outputs.iter().map(|o| o.1).chain(self.updates.iter().flat_map(|u| [u.0, u.1])) {
            *uses.entry(v).or_insert(0) += 1;
        }
        uses
    }

    pub(super) fn pointwise(&self, i: usize) -> Option<Program> {
        self.nodes[i].as_ref()?.op()?.pointwise().cloned()
    }

    /// Updates the nodes' positions.
    pub(super) fn arrange(&mut self) {
        self.positions = vec![0; self.nodes.len()];
        for (position, i) in self.order().into_iter().enumerate() {
            self.positions[i] = position;
        }
    }

    fn order(&self) -> Vec<usize> {
        let edges: Vec<Vec<usize>> =
            (0..self.nodes.len()).map(|i| self.inputs(i).iter().map(|v| v.node as usize).collect()).collect();
        topological(&edges, |i| self.nodes[i].is_some())
    }

    /// Merges elementwise producers with one use into their elementwise consumers.
    fn chains(&mut self) {
        let mut uses = self.uses();
        for i in 0..self.nodes.len() {
            while let Some((at, from, producer)) = self.producer_of(i, &uses) {
                let Some(program) = self.pointwise(i) else { break };
                let mut inputs = self.inputs(i);
                let kept: Vec<Value> = inputs.iter().enumerate().filter(|(k, _)| *k != at).map(|(_, v)| *v).collect();
                let source = self.inputs(from);
                let before: Vec<Value> = inputs.iter().chain(&source).copied().collect();
                inputs = kept.into_iter().chain(source).collect();
                let (inputs, program) = unique_inputs(inputs, &program.compose(at, &producer));
                if inputs.len() + 1 > self.max_slots() {
                    break;
                }
                if let Some(node) = &mut self.nodes[i] {
                    let shape = Some(node.outputs[0].shape.clone());
                    node.kind = Kind::Op(Arc::new(Elementwise { shape, ..program.into() }));
                    node.inputs = inputs;
                }
                self.nodes[from] = None;
                for v in before {
                    uses.entry(v).and_modify(|n| *n -= 1);
                }
                for v in self.inputs(i) {
                    *uses.entry(v).or_insert(0) += 1;
                }
            }
        }
    }

    fn producer_of(&self, i: usize, uses: &HashMap<Value, usize>) -> Option<(usize, usize, Program)> {
        let consumer = self.pointwise(i)?;
        let out = self.nodes[i].as_ref()?.outputs[0].shape.clone();
        let inputs = self.inputs(i);
        inputs.iter().enumerate().find_map(|(at, v)| {
            let producer = self.pointwise(v.node as usize)?;
            let widened = self.ty(*v)?.shape != out;
            let once = uses.get(v) == Some(&1) && inputs.iter().filter(|u| *u == v).count() == 1;
            let cheap = !widened || producer.instrs.len() <= 4;
            let fits = consumer.instrs.len() + producer.instrs.len() <= 48;
            let separate = || self.keeps_own_epilogue(*v, widened, &inputs, uses);
            (once && cheap && fits && !separate()).then_some((at, v.node as usize, producer))
        })
    }

    /// Returns the output of the compute-heavy node whose kernel can store `v`, directly or through an epilogue.
    fn stored_by(&self, v: Value, uses: &HashMap<Value, usize>) -> Option<Value> {
        let node = v.node as usize;
        match self.pointwise(node) {
            Some(_) => self.anchor(node, uses).map(|(_, heavy)| heavy),
            None => self.nodes[node].as_ref()?.op().filter(|op| op.epilogue()).map(|_| v),
        }
    }

    /// Returns whether the producer of operand `v`, of which there is one use, should become the epilogue of its own compute-heavy node
    /// instead of merging into its consumer: if it has fewer elements, or if the consumer can be the epilogue of a later node. Neither
    /// then needs a separate launch.
    fn keeps_own_epilogue(&self, v: Value, widened: bool, operands: &[Value], uses: &HashMap<Value, usize>) -> bool {
        let shape = |u: Value| self.ty(u).map(|t| &t.shape);
        let merges = |u: Value| uses.get(&u) == Some(&1) && shape(u) == shape(v);
        let Some(own) = self.stored_by(v, uses) else { return false };
        let heavy = own.node as usize;
        let n_outputs = self.nodes[heavy].as_ref().map_or(0, |n| n.outputs.len());
        let slots = self.inputs(v.node as usize).len() - 1 + self.inputs(heavy).len() + n_outputs;
        let ends_later = |&u: &Value| u != v && merges(u) && self.stored_by(u, uses).is_some_and(|o| o.node > own.node);
        slots <= self.max_slots() && (widened || operands.iter().any(ends_later))
    }

    /// Applies an elementwise node as the last step of the heavy node that feeds it.
    fn epilogues(&mut self) {
        let mut uses = self.uses();
        for i in 0..self.nodes.len() {
            let Some(program) = self.pointwise(i) else { continue };
            let inputs = self.inputs(i);
            let Some(out) = self.nodes[i].as_ref().map(|n| n.outputs[0].clone()) else { continue };
            let Some((at, v)) = self.anchor(i, &uses) else { continue };
            let Some(source) = self.nodes[v.node as usize].clone() else { continue };
            let Some(op) = source.op() else { continue };
            // Input 0 becomes the anchor's result; the others keep their order.
            let order: Vec<usize> =
                (0..inputs.len()).map(|k| if k == at { 0 } else { 1 + k - usize::from(k > at) }).collect();
            let program = program.remap(&order, inputs.len());
            let extras: Vec<Value> = inputs.iter().enumerate().filter(|(k, _)| *k != at).map(|(_, u)| *u).collect();
            let own = self.inputs(v.node as usize);
            let n_inputs = own.len();
            let repeats = extras.iter().map(|e| own.iter().position(|o| o == e)).collect();
            let steps = vec![[1, 1]; extras.len()];
            let mut outputs = source.outputs.clone();
            outputs[0] = out;
            let (name, anchor) = (source.name.clone(), op.clone());
            let fused = Fused { repeats, steps, ..Fused::new(anchor, n_inputs, program) };
            let inputs: Vec<Value> = own.into_iter().chain(extras).collect();
            if !self.fits(&fused, &inputs, &outputs) {
                continue;
            }
            // A reader of another output of the heavy node runs after it, but perhaps before this one.
            let position = self.positions[v.node as usize];
            let early = inputs.iter().all(|u| self.positions[u.node as usize] < position);
            self.nodes[i] = Some(Node { name, kind: Kind::Op(Arc::new(fused)), inputs, outputs });
            self.nodes[v.node as usize] = None;
            uses.remove(&v);
            for output in 1..source.outputs.len() as u32 {
                let (old, new) = (Value { node: v.node, output }, Value { node: i as u32, output });
                self.replace(old, new);
                if let Some(n) = uses.remove(&old) {
                    uses.insert(new, n);
                }
            }
            match early {
                true => self.positions[i] = position,
                false if source.outputs.len() > 1 => self.arrange(),
                false => {}
            }
        }
    }

    pub(super) fn max_slots(&self) -> usize {
        self.profile.max_storage_buffers as usize
    }

    /// Returns whether each launch of a fused operation can bind what it reads and writes, including scratch.
    fn fits(&self, fused: &Fused, inputs: &[Value], outputs: &[TensorType]) -> bool {
        let slots = inputs.len() + outputs.len();
        if slots != self.max_slots() {
            return slots < self.max_slots();
        }
        self.fits_all(fused, inputs, outputs)
    }

    /// Returns an operand of an elementwise node, with its index, whose heavy node can run the elementwise node as its
    /// epilogue.
    fn anchor(&self, i: usize, uses: &HashMap<Value, usize>) -> Option<(usize, Value)> {
        let inputs = self.inputs(i);
        let out = &self.nodes[i].as_ref()?.outputs[0];
        let found = inputs.iter().enumerate().filter(|(_, v)| {
            let node = self.nodes[v.node as usize].as_ref();
            v.output == 0
                && uses.get(v) == Some(&1)
                && inputs.iter().filter(|u| u == v).count() == 1
                && node.is_some_and(|n| n.op().is_some_and(|op| op.epilogue()))
                && self.ty(**v).is_some_and(|t| t.shape == out.shape && t.dtype == DType::F32)
                && inputs.iter().all(|u| u == *v || !self.reaches(u.node as usize, v.node as usize))
        });
        found.max_by_key(|(_, v)| v.node).map(|(at, &v)| (at, v))
    }

    /// Returns whether node `from` depends on node `to`.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        let mut seen = HashSet::new();
        let mut stack = vec![from];
        while let Some(i) = stack.pop() {
            if i == to {
                return true;
            }
            if self.positions[i] > self.positions[to] && seen.insert(i) {
                stack.extend(self.inputs(i).iter().map(|v| v.node as usize));
            }
        }
        false
    }

    fn finish(self) -> Graph {
        let mut graph = Graph::new();
        let mut map: HashMap<Value, Value> = HashMap::new();
        for i in self.order() {
            let inputs = self.inputs(i).iter().map(|v| map[v]).collect();
            let Some(node) = self.nodes[i].clone() else { continue };
            for (output, value) in graph.push_node(Node { inputs, ..node }).into_iter().enumerate() {
                map.insert(Value { node: i as u32, output: output as u32 }, value);
            }
        }
        for (name, v) in &self.outputs {
            graph.output(name, map[v]);
        }
        for &(s, v) in &self.updates {
            graph.update(map[&s], map[&v]);
        }
        graph
    }
}

pub(super) fn unique_inputs(inputs: Vec<Value>, program: &Program) -> (Vec<Value>, Program) {
    let mut kept: Vec<Value> = Vec::new();
    let map: Vec<usize> = inputs
        .iter()
        .map(|v| {
            kept.iter().position(|k| k == v).unwrap_or_else(|| {
                kept.push(*v);
                kept.len() - 1
            })
        })
        .collect();
    let program = program.remap(&map, kept.len());
    (kept, program)
}
