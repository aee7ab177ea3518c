//! Fusion: chains of elementwise functions become one program, programs become epilogues of the compute-heavy kernels
//! that compute their input. Asks operations for their traits, never for their names.

use super::schedule::topological;
use crate::{
    graph::{
        Candidate, ColumnSums, Cost, DeviceProfile, Epilogue, Gradients, Graph, Io, Kind, Node, Op, OpError, Program,
        Prologue, Slot, Step, SumKind, TensorType, Value,
    },
    ops::Elementwise,
    tensor::{Accuracy, Array, DType},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// An operation with an elementwise program applied to its output 0 as it is stored.
///
/// Its reference is the operation followed by the program.
#[derive(Debug, Clone)]
pub struct Fused {
    /// The operation.
    pub anchor: Arc<dyn Op>,
    /// The number of its inputs; the program's inputs from 1 on follow.
    pub n_inputs: usize,
    /// For each of the program's inputs from 1 on, the operation's input that is the same value, if any.
    pub repeats: Vec<Option<usize>>,
    /// The program; its input 0 is the anchor's output 0.
    pub program: Program,
    /// What adds up the columns of the program's result: its other inputs follow the program's, its outputs the anchor's.
    pub sums: Option<Arc<dyn Op>>,
    /// Programs of the anchor's inputs as it loads them, by input: their inputs from 1 on follow all others.
    pub prologues: Vec<(usize, Program)>,
}

impl Fused {
    /// Returns an operation of no inputs with a program applied to its output 0.
    fn new(anchor: Arc<dyn Op>, program: Program) -> Self {
        Fused { anchor, n_inputs: 0, repeats: Vec::new(), program, sums: None, prologues: Vec::new() }
    }

    fn anchor_io(&self, io: &Io) -> Io {
        let mut inner = Io { inputs: io.inputs[..self.n_inputs].to_vec(), outputs: io.outputs.clone() };
        if let Ok(outputs) = self.anchor.infer(&inner.inputs) {
            inner.outputs = outputs;
        }
        inner
    }

    /// Returns what the anchor applies to what it loads.
    fn prologues(&self, io: &Io) -> Vec<Prologue> {
        let first = self.first_of_prologues(io.inputs.len());
        (self.prologues.iter().zip(first.windows(2)))
            .map(|((input, program), range)| Prologue {
                input: *input,
                program: program.clone(),
                extras: io.inputs[range[0]..range[1]].to_vec(),
                first_input: range[0],
                shape: io.inputs[*input].shape.clone(),
            })
            .collect()
    }

    /// Returns what adds up columns.
    fn column_sums(&self) -> Option<&dyn ColumnSums> {
        self.sums.as_ref()?.column_sums()
    }

    /// Returns where the inputs of the column sums begin, behind those of the program.
    fn first_of_sums(&self) -> usize {
        self.n_inputs + self.program.n_inputs - 1
    }

    /// Returns the position among all inputs of input `i` of the column sums, which is not the one that is summed.
    fn sums_input(&self, i: usize) -> usize {
        let summed = self.column_sums().map_or(usize::MAX, ColumnSums::summed);
        self.first_of_sums() + i - usize::from(i > summed)
    }

    /// Returns where the inputs of each prologue begin, of so many in all, and the end of them all.
    fn first_of_prologues(&self, n_inputs: usize) -> Vec<usize> {
        let counts = self.prologues.iter().map(|(_, program)| program.n_inputs - 1);
        let first = n_inputs - counts.clone().sum::<usize>();
        let ends = counts.scan(first, |end, n| {
            *end += n;
            Some(*end)
        });
        [first].into_iter().chain(ends).collect()
    }

    /// Returns the anchor's inputs after their prologues.
    fn anchor_inputs(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let mut own: Vec<Array> = inputs[..self.n_inputs].iter().map(|&a| a.clone()).collect();
        let first = self.first_of_prologues(inputs.len());
        for ((input, program), range) in self.prologues.iter().zip(first.windows(2)) {
            let operands: Vec<&Array> =
                [inputs[*input]].into_iter().chain(inputs[range[0]..range[1]].iter().copied()).collect();
            own[*input] = Elementwise::from(program.clone()).reference(&operands, step).swap_remove(0);
        }
        own
    }

    /// Returns the anchor's inputs after their prologues, each with what its error may be.
    fn errors_of_inputs(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let mut errors: Vec<Array> = inputs[..self.n_inputs].iter().map(|a| Array::zeros(a.shape.clone())).collect();
        let first = self.first_of_prologues(inputs.len());
        for ((input, program), range) in self.prologues.iter().zip(first.windows(2)) {
            let operands: Vec<&Array> =
                [inputs[*input]].into_iter().chain(inputs[range[0]..range[1]].iter().copied()).collect();
            let program = Elementwise::from(program.clone());
            let exact = program.reference(&operands, step);
            let io = Io { inputs: Vec::new(), outputs: Vec::new() };
            errors[*input] = program.bounds(&io, &operands, &exact, step).swap_remove(0);
        }
        errors
    }

    /// Returns the inputs of the column sums, given all inputs and the one that is summed.
    fn inputs_of_sums<T: Clone>(&self, inputs: &[T], summed: T) -> Vec<T> {
        let mut own = inputs[self.first_of_sums()..self.first_of_prologues(inputs.len())[0]].to_vec();
        own.insert(self.column_sums().map_or(0, ColumnSums::summed).min(own.len()), summed);
        own
    }

    /// Returns what bounds the errors of the column sums of a result whose own error is bounded.
    fn bounds_of_sums(
        &self,
        sums: &dyn Op,
        (io, inputs): (&Io, &[&Array]),
        exact: &[Array],
        bound: &Array,
        step: &Step,
    ) -> Vec<Array> {
        let n_sums = sums.infer(&self.inputs_of_sums(&io.inputs, io.outputs[0].clone())).map_or(0, |all| all.len());
        let first = exact.len() - n_sums.min(exact.len());
        let (y, sums_exact) = (&exact[0], &exact[first..]);
        let types = self.inputs_of_sums(&io.inputs, io.outputs[0].clone());
        let of_sums = Io { inputs: types, outputs: io.outputs[first..].to_vec() };
        let own = sums.bounds(&of_sums, &self.inputs_of_sums(inputs, y), sums_exact, step);
        // Errors of rows that point both ways by turns, and all one way, as far as a sum of independent ones may be off.
        let columns = y.shape.last().copied().unwrap_or(1).max(1);
        let moved = [0, 1].map(|period| {
            let sign = |row: usize| if row % 2 < period { -1.0 } else { 1.0 };
            let y = Array::from_fn(y.shape.clone(), |i| y.data[i] + sign(i / columns) * bound.data[i]);
            sums.reference(&self.inputs_of_sums(inputs, &y), step)
        });
        let often = ((y.data.len() / columns) as f64).sqrt();
        (own.into_iter().enumerate())
            .map(|(k, own)| {
                let by = |i: usize| moved.iter().map(move |m| (m[k].data[i], i));
                let off = |i: usize| by(i).map(|(m, i)| (m - sums_exact[k].data[i]).abs()).fold(0.0, f64::max);
                Array::from_fn(own.shape.clone(), |i| own.data[i] + often * off(i))
            })
            .collect()
    }

    /// Returns the candidate of the anchor with the launch that merges the parts that it leaves, if it does.
    fn with_merge(&self, candidate: Candidate, io: &Io, profile: &DeviceProfile) -> Option<Candidate> {
        let (sums, parts) = (self.column_sums()?, candidate.parts?);
        let anchor_outputs = self.anchor_io(io).outputs.len();
        let own = Io {
            inputs: self.inputs_of_sums(&io.inputs, io.outputs[0].clone()),
            outputs: io.outputs[anchor_outputs..].to_vec(),
        };
        let scratch = candidate.scratch_bytes.len() - 1;
        let slots = |slot: Slot| match slot {
            Slot::In(range) => Slot::input(self.sums_input(range.start)),
            Slot::Out(range) => Slot::output(anchor_outputs + range.start),
            Slot::Scratch(_) => Slot::Scratch(scratch),
            other => other,
        };
        let merge = sums.merge(&own, Some(&parts), profile, &slots);
        Some(Candidate { dispatches: [candidate.dispatches, vec![merge]].concat(), ..candidate })
    }
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        self.anchor.name()
    }

    fn key(&self) -> String {
        let sums = self.sums.as_ref().map(|op| format!(" | {} {}", op.name(), op.key())).unwrap_or_default();
        let prologues: String =
            self.prologues.iter().map(|(input, program)| format!(" | {input}: {program}")).collect();
        format!("{} | {} {:?}{sums}{prologues}", self.anchor.key(), self.program, self.repeats)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let mut outputs = self.anchor.infer(&inputs[..self.n_inputs])?;
        if let (Some(sums), [summed, ..]) = (&self.sums, &outputs[..]) {
            outputs.extend(sums.infer(&self.inputs_of_sums(inputs, summed.clone()))?);
        }
        Ok(outputs)
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let own = self.anchor_inputs(inputs, step);
        let mut outputs = self.anchor.reference(&own.iter().collect::<Vec<_>>(), step);
        let mut operands = vec![&outputs[0]];
        operands.extend(&inputs[self.n_inputs..self.first_of_sums()]);
        outputs[0] = Elementwise::from(self.program.clone()).reference(&operands, step).swap_remove(0);
        if let Some(sums) = &self.sums {
            let more = sums.reference(&self.inputs_of_sums(inputs, &outputs[0]), step);
            outputs.extend(more);
        }
        outputs
    }

    fn vjp(&self, _: &mut Graph, _: &[Value], _: &[Value], _: &[Option<Value>]) -> Gradients {
        Err(OpError::new(self.name(), "an unfused graph", "a fused node", "take gradients before fusion"))
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        if epilogue.is_some() {
            return Vec::new();
        }
        let kind = self.column_sums().map(|sums| match sums.kind() {
            SumKind::Products { x, mean } => SumKind::Products { x: self.sums_input(x), mean: self.sums_input(mean) },
            kind => kind,
        });
        let epilogue = Epilogue {
            program: self.program.clone(),
            extras: io.inputs[self.n_inputs..self.first_of_sums()].to_vec(),
            first_input: self.n_inputs,
            repeats: self.repeats.clone(),
            shape: io.outputs[0].shape.clone(),
            sums: kind,
            prologues: self.prologues(io),
        };
        let candidates = self.anchor.lower(&self.anchor_io(io), profile, Some(&epilogue));
        let candidates = candidates.into_iter().filter(|c| c.prologues || self.prologues.is_empty());
        match &self.sums {
            None => candidates.collect(),
            Some(_) => candidates.filter_map(|c| self.with_merge(c, io, profile)).collect(),
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        self.anchor.cost(&self.anchor_io(io))
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        let mut all = self.anchor.accuracy(&self.anchor_io(io), n);
        if let Some(sums) = &self.sums {
            let inputs = self.inputs_of_sums(&io.inputs, io.outputs[0].clone());
            all.extend(sums.accuracy(&Io { inputs, outputs: io.outputs[all.len()..].to_vec() }, n));
        }
        all
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], all_exact: &[Array], step: &Step) -> Vec<Array> {
        let extras = &inputs[self.n_inputs..self.first_of_sums()];
        let own = self.anchor_inputs(inputs, step);
        let own: Vec<&Array> = own.iter().collect();
        let raw = self.anchor.reference(&own, step);
        let mut bounds = self.anchor.bounds(&self.anchor_io(io), &own, &raw, step);
        let errors = self.errors_of_inputs(inputs, step);
        for (input, _) in &self.prologues {
            let error = errors[*input].clone();
            // What takes a prologue is linear in that input.
            let mut magnitudes: Vec<Array> = own.iter().map(|a| a.map(f64::abs)).collect();
            magnitudes[*input] = error;
            let carried = self.anchor.reference(&magnitudes.iter().collect::<Vec<_>>(), step);
            for (bound, carried) in bounds.iter_mut().zip(carried) {
                *bound = Array::from_fn(bound.shape.clone(), |i| bound.data[i] + carried.data[i].abs());
            }
        }
        let program = Elementwise::from(self.program.clone());
        let run = |sign: f64| {
            let moved = Array::from_fn(raw[0].shape.clone(), |i| raw[0].data[i] + sign * bounds[0].data[i]);
            let operands: Vec<&Array> = [&moved].into_iter().chain(extras.iter().copied()).collect();
            let y = program.reference(&operands, step).swap_remove(0);
            let rounding = program.bounds(io, &operands, std::slice::from_ref(&y), step).swap_remove(0);
            (y, rounding)
        };
        let ((exact, rounding), (low, _), (high, _)) = (run(0.0), run(-1.0), run(1.0));
        bounds[0] = Array::from_fn(exact.shape.clone(), |i| {
            let y = exact.data[i];
            (low.data[i] - y).abs().max((high.data[i] - y).abs()) + rounding.data[i]
        });
        if let Some(sums) = &self.sums {
            bounds.extend(self.bounds_of_sums(sums.as_ref(), (io, inputs), all_exact, &bounds[0], step));
        }
        bounds
    }

    fn in_place(&self, _n_inputs: usize) -> Vec<(usize, usize)> {
        self.anchor.in_place(self.n_inputs)
    }
}

/// Most instructions of a program that readers compute anew.
const MAX_PROLOGUE: usize = 8;

/// A graph whose nodes can be replaced; values that no longer exist forward to their replacements.
struct Draft<'p> {
    nodes: Vec<Option<Node>>,
    forward: HashMap<Value, Value>,
    outputs: Vec<(String, Value)>,
    updates: Vec<(Value, Value)>,
    profile: &'p DeviceProfile,
    /// The nodes' positions in a topological order.
    positions: Vec<usize>,
}

/// Returns the graph with elementwise chains and epilogues fused, in a valid order.
pub fn fuse(graph: &Graph, profile: &DeviceProfile) -> Graph {
    let mut draft = Draft {
        nodes: graph.nodes().iter().zip(graph.live()).map(|(n, live)| live.then(|| n.clone())).collect(),
        forward: HashMap::new(),
        outputs: graph.outputs().to_vec(),
        updates: graph.updates().to_vec(),
        profile,
        positions: Vec::new(),
    };
    draft.arrange();
    draft.chains();
    draft.epilogues();
    draft.sums();
    draft.prologues();
    draft.finish()
}

impl Draft<'_> {
    fn resolve(&self, mut v: Value) -> Value {
        while let Some(&next) = self.forward.get(&v) {
            v = next;
        }
        v
    }

    fn inputs(&self, i: usize) -> Vec<Value> {
        let node = self.nodes[i].as_ref();
        node.map(|n| n.inputs.iter().map(|&v| self.resolve(v)).collect()).unwrap_or_default()
    }

    fn ty(&self, v: Value) -> Option<&TensorType> {
        self.nodes[v.node as usize].as_ref()?.outputs.get(v.output as usize)
    }

    fn uses(&self) -> HashMap<Value, usize> {
        let mut uses = HashMap::new();
        for i in 0..self.nodes.len() {
            for v in self.inputs(i) {
                *uses.entry(v).or_insert(0) += 1;
            }
        }
        for v in self.outputs.iter().map(|o| o.1).chain(self.updates.iter().flat_map(|u| [u.0, u.1])) {
            *uses.entry(self.resolve(v)).or_insert(0) += 1;
        }
        uses
    }

    fn pointwise(&self, i: usize) -> Option<Program> {
        self.nodes[i].as_ref()?.op()?.pointwise().cloned()
    }

    /// Updates the nodes' positions.
    fn arrange(&mut self) {
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
                    node.kind = Kind::Op(Arc::new(Elementwise { program, shape, in_place: false }));
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
            let separate = || self.keeps_own_epilogue(*v, &inputs, uses);
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

    /// Returns whether the producer of operand `v` should become the epilogue of its own compute-heavy node instead of
    /// merging into its consumer: if the consumer can be the epilogue of a later node, neither needs a separate launch.
    fn keeps_own_epilogue(&self, v: Value, operands: &[Value], uses: &HashMap<Value, usize>) -> bool {
        let shape = |u: Value| self.ty(u).map(|t| &t.shape);
        let merges = |u: Value| uses.get(&u) == Some(&1) && shape(u) == shape(v);
        let Some(own) = Some(v).filter(|&v| merges(v)).and_then(|v| self.stored_by(v, uses)) else { return false };
        let heavy = own.node as usize;
        let n_outputs = self.nodes[heavy].as_ref().map_or(0, |n| n.outputs.len());
        let slots = self.inputs(v.node as usize).len() - 1 + self.inputs(heavy).len() + n_outputs;
        let ends_later = |&u: &Value| u != v && merges(u) && self.stored_by(u, uses).is_some_and(|o| o.node > own.node);
        slots <= self.max_slots() && operands.iter().any(ends_later)
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
            let mut outputs = source.outputs.clone();
            outputs[0] = out;
            let (name, anchor) = (source.name.clone(), op.clone());
            let fused = Fused { n_inputs, repeats, ..Fused::new(anchor, program) };
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
                self.forward.insert(old, new);
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

    /// Lets the kernels of compute-heavy nodes begin the column sums of their results.
    fn sums(&mut self) {
        for i in 0..self.nodes.len() {
            let Some((node, op)) = self.nodes[i].clone().and_then(|node| Some((node.clone(), node.op()?.clone())))
            else {
                continue;
            };
            let Some(summed) = op.column_sums().map(ColumnSums::summed) else { continue };
            let inputs = self.inputs(i);
            let v = inputs[summed];
            let Some(source) = self.nodes[v.node as usize].clone() else { continue };
            let Some(heavy) =
                source.op().filter(|op| v.output == 0 && (op.epilogue() || op.downcast::<Fused>().is_some())).cloned()
            else {
                continue;
            };
            let own = self.inputs(v.node as usize);
            let mut rest = inputs.clone();
            rest.remove(summed);
            if rest.contains(&v) || rest.iter().any(|u| self.reaches(u.node as usize, v.node as usize)) {
                continue;
            }
            let fused = match heavy.downcast::<Fused>() {
                Some(fused) if fused.sums.is_some() => continue,
                Some(fused) => Fused { sums: Some(op), ..fused.clone() },
                None => {
                    let alone = Fused { n_inputs: own.len(), ..Fused::new(heavy, Program::identity()) };
                    Fused { sums: Some(op), ..alone }
                }
            };
            let all: Vec<Value> = own.into_iter().chain(rest).collect();
            let outputs = [source.outputs.clone(), node.outputs.clone()].concat();
            if !self.fits_all(&fused, &all, &outputs) {
                continue;
            }
            let n_outputs = source.outputs.len() as u32;
            self.nodes[v.node as usize] =
                Some(Node { kind: Kind::Op(Arc::new(fused)), inputs: all, outputs, name: source.name });
            self.nodes[i] = None;
            for output in 0..node.outputs.len() as u32 {
                let (old, new) = (Value { node: i as u32, output }, Value { node: v.node, output: n_outputs + output });
                self.forward.insert(old, new);
            }
            self.arrange();
        }
    }

    /// Lets the readers of elementwise nodes compute them as they load their inputs, where that moves fewer bytes.
    fn prologues(&mut self) {
        for i in 0..self.nodes.len() {
            let Some(program) = self.pointwise(i).filter(|p| p.instrs.len() <= MAX_PROLOGUE) else { continue };
            let v = Value { node: i as u32, output: 0 };
            let Some(shape) = self.ty(v).map(|ty| ty.shape.clone()) else { continue };
            let inputs = self.inputs(i);
            let full: Vec<usize> =
                (0..inputs.len()).filter(|&k| self.ty(inputs[k]).is_some_and(|t| t.shape == shape)).collect();
            let (Some(&base), Some(readers)) = (full.first(), self.readers(v)) else { continue };
            let n = readers.len();
            // Before: its inputs, itself and each reader's; afterwards its inputs for each reader.
            if n == 0 || n * full.len() >= full.len() + 1 + n {
                continue;
            }
            let absorbed: Option<Vec<(usize, Node)>> = readers
                .into_iter()
                .map(|reader| Some((reader, self.absorb(reader, v, (&program, &inputs, base))?)))
                .collect();
            let Some(absorbed) = absorbed else { continue };
            for (reader, node) in absorbed {
                self.nodes[reader] = Some(node);
            }
            self.nodes[i] = None;
            self.arrange();
        }
    }

    /// Returns the nodes that read a value, or `None` if it is an output or an update.
    fn readers(&self, v: Value) -> Option<Vec<usize>> {
        let mut results = self.outputs.iter().map(|o| o.1).chain(self.updates.iter().flat_map(|u| [u.0, u.1]));
        if results.any(|r| self.resolve(r) == v) {
            return None;
        }
        Some((0..self.nodes.len()).filter(|&i| self.inputs(i).contains(&v)).collect())
    }

    /// Returns a node that computes its input `v` itself, by a program of inputs of which `base` is like `v`, if it can.
    fn absorb(&self, reader: usize, v: Value, (program, inputs, base): (&Program, &[Value], usize)) -> Option<Node> {
        let node = self.nodes[reader].clone()?;
        let own = self.inputs(reader);
        if own.iter().filter(|u| **u == v).count() > 1 {
            return None;
        }
        let at = own.iter().position(|u| *u == v)?;
        let others = || inputs.iter().enumerate().filter(|(k, _)| *k != base).map(|(_, u)| *u);
        let op = node.op()?.clone();
        let op = op.as_ref();
        let without = || own.iter().copied().filter(|u| *u != v);
        if !op.in_place(own.len()).is_empty() {
            return None;
        }
        if let Some(reading) = op.pointwise() {
            let all = without().chain(inputs.iter().copied()).collect();
            let (all, program) = unique_inputs(all, &reading.compose(at, program));
            let shape = Some(node.outputs[0].shape.clone());
            let kind = Kind::Op(Arc::new(Elementwise { program, shape, in_place: false }));
            return (all.len() < self.max_slots()).then_some(Node { kind, inputs: all, ..node });
        }
        let mut fused = match op.downcast::<Fused>() {
            Some(fused) => fused.clone(),
            None => Fused { n_inputs: own.len(), ..Fused::new(node.op()?.clone(), Program::identity()) },
        };
        let mut all = own.clone();
        if at < fused.n_inputs {
            let types = own[..fused.n_inputs].iter().filter_map(|&u| self.ty(u).cloned());
            let io = Io { inputs: types.collect(), outputs: node.outputs.clone() };
            if !fused.anchor.prologue(&io, at) || fused.prologues.iter().any(|(input, _)| *input == at) {
                return None;
            }
            // Input 0 of the program is what is loaded.
            let order: Vec<usize> =
                (0..inputs.len()).map(|k| if k == base { 0 } else { 1 + k - usize::from(k > base) }).collect();
            fused.prologues.push((at, program.remap(&order, inputs.len())));
            all[at] = inputs[base];
            all.extend(others());
        } else if at < fused.first_of_sums() {
            let end = fused.first_of_sums();
            let extra = at - fused.n_inputs;
            fused.program = fused.program.compose(1 + extra, program);
            fused.repeats.remove(extra);
            fused.repeats.extend(inputs.iter().map(|_| None));
            let extras = own[fused.n_inputs..end].iter().copied().filter(|u| *u != v).chain(inputs.iter().copied());
            all = own[..fused.n_inputs].iter().copied().chain(extras).chain(own[end..].iter().copied()).collect();
        } else {
            return None;
        }
        if all.contains(&v) || !self.fits_all(&fused, &all, &node.outputs) {
            return None;
        }
        Some(Node { kind: Kind::Op(Arc::new(fused)), inputs: all, ..node })
    }

    /// Returns whether the first candidate of a fused operation exists, and each of its launches can bind what it reads and writes.
    fn fits_all(&self, fused: &Fused, inputs: &[Value], outputs: &[TensorType]) -> bool {
        let types = inputs.iter().filter_map(|&v| self.ty(v).cloned());
        let io = Io { inputs: types.collect(), outputs: outputs.to_vec() };
        let candidates = fused.lower(&io, self.profile, None);
        candidates.first().is_some_and(|c| c.dispatches.iter().all(|d| d.n_storage() <= self.max_slots()))
    }

    fn max_slots(&self) -> usize {
        self.profile.max_storage_buffers as usize
    }

    /// Returns whether each launch of a fused operation can bind what it reads and writes, including scratch.
    fn fits(&self, fused: &Fused, inputs: &[Value], outputs: &[TensorType]) -> bool {
        let slots = inputs.len() + outputs.len();
        if slots != self.max_slots() {
            return slots < self.max_slots();
        }
        let types = inputs.iter().filter_map(|&v| self.ty(v).cloned());
        let io = Io { inputs: types.collect(), outputs: outputs.to_vec() };
        let candidates = fused.lower(&io, self.profile, None);
        candidates.first().is_some_and(|c| c.dispatches.iter().all(|d| d.n_storage() <= slots))
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
    fn reaches(&self, from: usize, to: usize) -> bool {
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
            graph.output(name, map[&self.resolve(*v)]);
        }
        for &(s, v) in &self.updates {
            graph.update(map[&self.resolve(s)], map[&self.resolve(v)]);
        }
        graph
    }
}

fn unique_inputs(inputs: Vec<Value>, program: &Program) -> (Vec<Value>, Program) {
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
