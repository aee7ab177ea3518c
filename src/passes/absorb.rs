//! Fusion on devices whose kernels can be large: kernels begin the column sums of what they compute, and compute what they load.

use super::{
    fuse::{Draft, unique_inputs},
    fused::Fused,
};
use crate::{
    graph::{ColumnSums, Io, Kind, Node, Program, TensorType, Value},
    ops::Elementwise,
};
use std::sync::Arc;

/// Most instructions of a program that readers compute anew.
const MAX_PROLOGUE: usize = 8;

/// An elementwise node that its readers may compute.
struct Computable {
    v: Value,
    program: Program,
    inputs: Vec<Value>,
    /// The inputs that have its shape.
    full: Vec<usize>,
}

impl Draft<'_> {
    /// Lets gradients of which only some pixels are not 0 be these pixels alone, where nothing but an epilogue reads them.
    pub(super) fn pixels(&mut self) {
        let uses = self.uses();
        for i in 0..self.nodes.len() {
            let Some(mut node) = self.nodes[i].clone() else { continue };
            let Some(mut fused) = node.op().and_then(|op| op.downcast::<Fused>().cloned()) else { continue };
            let extras = node.inputs[fused.n_inputs..fused.first_of_sums()].to_vec();
            for (extra, v) in extras.into_iter().enumerate() {
                let of = v.node as usize;
                let Some(source) = self.nodes[of].clone().filter(|_| uses.get(&v) == Some(&1)) else { continue };
                let types: Vec<TensorType> = source.inputs.iter().filter_map(|&u| self.ty(u).cloned()).collect();
                let io = Io { inputs: types, outputs: source.outputs.clone() };
                let Some(pixels) = source.op().and_then(|op| op.pixels(&io)) else { continue };
                let Ok(outputs) = pixels.op.infer(&io.inputs) else { continue };
                fused.steps[extra] = pixels.steps;
                node.kind = Kind::Op(Arc::new(fused.clone()));
                self.nodes[of] = Some(Node { kind: Kind::Op(pixels.op), outputs, ..source });
            }
            self.nodes[i] = Some(node);
        }
    }

    /// Lets the kernels of compute-heavy nodes begin the column sums of their results.
    pub(super) fn sums(&mut self) {
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
                    let alone = Fused::new(heavy, own.len(), Program::identity());
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
                self.replace(old, new);
            }
            self.arrange();
        }
    }

    /// Returns what others need to compute a node, if it is elementwise, small, and like one of its inputs.
    fn computable(&self, i: usize) -> Option<Computable> {
        let program = self.pointwise(i).filter(|p| p.instrs.len() <= MAX_PROLOGUE)?;
        let (v, inputs) = (Value { node: i as u32, output: 0 }, self.inputs(i));
        let shape = &self.ty(v)?.shape;
        let full = (0..inputs.len()).filter(|&k| self.ty(inputs[k]).is_some_and(|t| t.shape == *shape));
        let full: Vec<usize> = full.collect();
        (!full.is_empty()).then_some(Computable { v, program, inputs, full })
    }

    /// Lets the readers of elementwise nodes compute them as they load their inputs, where that moves fewer bytes.
    pub(super) fn prologues(&mut self) {
        for i in 0..self.nodes.len() {
            let Some(node) = self.computable(i) else { continue };
            let Some(readers) = self.readers(node.v) else { continue };
            let (n, full) = (readers.len(), node.full.len());
            // Before: its inputs, itself and each reader's; afterwards its inputs for each reader.
            if n == 0 || n * full >= full + 1 + n {
                continue;
            }
            let absorbed: Option<Vec<(usize, Node)>> = readers
                .into_iter()
                .map(|reader| Some((reader, self.absorb(self.nodes[reader].clone()?, &node)?)))
                .collect();
            let Some(absorbed) = absorbed else { continue };
            for (reader, node) in absorbed {
                self.nodes[reader] = Some(node);
            }
            self.nodes[i] = None;
            self.arrange();
        }
    }

    /// Lets a kernel that reads the result of an elementwise node compute it as it loads it, and store it for the node's other readers.
    pub(super) fn keeps(&mut self) {
        for i in 0..self.nodes.len() {
            let Some(computable) = self.computable(i) else { continue };
            let Some(readers) = self.readers(computable.v) else { continue };
            let keeper = readers.iter().find_map(|&reader| {
                let waits = |&other: &usize| other != reader && self.reaches(reader, other);
                let node = self.nodes[reader].clone().filter(|_| !readers.iter().any(waits))?;
                Some((reader, self.keeper(node, &computable)?))
            });
            let Some((reader, node)) = keeper else { continue };
            let output = node.outputs.len() as u32 - 1;
            self.nodes[reader] = Some(node);
            self.nodes[i] = None;
            self.replace(computable.v, Value { node: reader as u32, output });
            self.arrange();
        }
    }

    /// Lets the epilogues that read the result of an elementwise node, and all of its size that the node reads, compute it instead.
    pub(super) fn recompute(&mut self) {
        for i in 0..self.nodes.len() {
            let Some(computable) = self.computable(i) else { continue };
            let Computable { v, inputs, full, .. } = &computable;
            for reader in self.nodes_that_read(*v) {
                let Some(node) = self.nodes[reader].clone() else { continue };
                let Some(fused) = node.op().and_then(|op| op.downcast::<Fused>()) else { continue };
                let of_epilogue = node.inputs[fused.n_inputs..fused.first_of_sums()].contains(v);
                let reads = |k: &usize| node.inputs.contains(&inputs[*k]);
                if !of_epilogue || node.inputs[..fused.n_inputs].contains(v) || !full.iter().all(reads) {
                    continue;
                }
                if let Some(node) = self.absorb(node, &computable) {
                    self.nodes[reader] = Some(node);
                }
            }
        }
        self.arrange();
    }

    /// Returns a node that computes its input itself, as [`absorb`](Self::absorb) does, with that as its last output, if it can.
    fn keeper(&self, node: Node, computable: &Computable) -> Option<Node> {
        let (own, v) = (&node.inputs, computable.v);
        let at = own.iter().position(|u| *u == v).filter(|_| own.iter().filter(|u| **u == v).count() == 1)?;
        let types = own.iter().map(|&u| self.ty(u).cloned());
        let io = Io { inputs: types.collect::<Option<_>>()?, outputs: node.outputs.clone() };
        let keeps = match node.op()?.downcast::<Fused>() {
            Some(fused) => fused.kept.is_none() && at < fused.n_inputs && fused.anchor.keeps(&io, at),
            None => node.op()?.keeps(&io, at),
        };
        let absorbed = if keeps { self.absorb(node, computable)? } else { return None };
        let fused = Fused { kept: Some(at), ..absorbed.op()?.downcast::<Fused>()?.clone() };
        let outputs: Vec<TensorType> = absorbed.outputs.iter().cloned().chain([self.ty(v)?.clone()]).collect();
        let fits = self.fits_all(&fused, &absorbed.inputs, &outputs);
        fits.then(|| Node { kind: Kind::Op(Arc::new(fused)), outputs, ..absorbed })
    }

    /// Where columns are all that is read of an elementwise node, or elementwise nodes are all that reads columns, no copies of these
    /// are made: each reader computes, or finds, its own.
    pub(super) fn columns(&mut self) {
        for i in (0..self.nodes.len()).rev() {
            let v = Value { node: i as u32, output: 0 };
            let Some((program, readers)) = self.pointwise(i).zip(self.readers(v)) else { continue };
            let starts: Option<Vec<usize>> = readers.iter().map(|&reader| self.copied(reader)).collect();
            let (Some(starts), Some(ty)) = (starts.filter(|all| !all.is_empty()), self.ty(v).cloned()) else {
                continue;
            };
            let inputs = self.inputs(i);
            let all = ty.shape.last();
            // Whether all columns of an input are read, `None` where their number is another one.
            let whole = |u: &Value| {
                let shape = &self.ty(*u)?.shape;
                let columns = shape.rank() > usize::from(shape.is_batched());
                let n = if columns { shape.last() } else { 1 };
                (n == all || n == 1).then_some(n == all)
            };
            let whole: Option<Vec<bool>> = inputs.iter().map(whole).collect();
            let Some(whole) = whole.filter(|_| all > 1) else { continue };
            for (reader, start) in readers.into_iter().zip(starts) {
                let starts = whole.iter().map(|&whole| whole.then_some(start)).collect();
                let Some(node) = self.nodes[reader].clone() else { continue };
                let shape = Some(node.outputs[0].shape.clone());
                let kind = Kind::Op(Arc::new(Elementwise { shape, starts, ..program.clone().into() }));
                self.nodes[reader] = Some(Node { kind, inputs: inputs.clone(), ..node });
            }
            self.nodes[i] = None;
            self.arrange();
        }
    }

    /// Returns the first of the columns that a node copies of its input, if it does nothing else.
    fn copied(&self, i: usize) -> Option<usize> {
        let node = self.nodes[i].as_ref()?;
        let inputs: Option<Vec<TensorType>> = self.inputs(i).iter().map(|&v| self.ty(v).cloned()).collect();
        node.op()?.columns(&Io { inputs: inputs?, outputs: node.outputs.clone() })
    }

    /// Returns the nodes that read a value, or `None` if it is an output or an update.
    fn readers(&self, v: Value) -> Option<Vec<usize>> {
        let mut results = self.outputs.iter().map(|o| o.1).chain(self.updates.iter().flat_map(|u| [u.0, u.1]));
        if results.any(|r| r == v) {
            return None;
        }
        Some(self.nodes_that_read(v))
    }

    fn nodes_that_read(&self, v: Value) -> Vec<usize> {
        let reads = |i: &usize| self.nodes[*i].as_ref().is_some_and(|node| node.inputs.contains(&v));
        (0..self.nodes.len()).filter(reads).collect()
    }

    /// Returns the node as one that computes these inputs itself, if it can.
    fn absorb(&self, node: Node, computable: &Computable) -> Option<Node> {
        let Computable { v, program, inputs, full } = computable;
        let (v, base) = (*v, *full.first()?);
        let own = node.inputs.clone();
        let at = own.iter().rposition(|u| *u == v)?;
        let others = || inputs.iter().enumerate().filter(|(k, _)| *k != base).map(|(_, u)| *u);
        let op = node.op()?.clone();
        let op = op.as_ref();
        if !op.in_place(own.len()).is_empty() {
            return None;
        }
        if let Some(reading) = op.pointwise() {
            let without = own.iter().copied().filter(|u| *u != v);
            let all = without.chain(inputs.iter().copied()).collect();
            let (all, program) = unique_inputs(all, &reading.compose(at, program));
            let shape = Some(node.outputs[0].shape.clone());
            let kind = Kind::Op(Arc::new(Elementwise { shape, ..program.into() }));
            return (all.len() < self.max_slots()).then_some(Node { kind, inputs: all, ..node });
        }
        let mut fused = match op.downcast::<Fused>() {
            Some(fused) => fused.clone(),
            None => Fused::new(node.op()?.clone(), own.len(), Program::identity()),
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
            fused.steps.remove(extra);
            fused.steps.extend(inputs.iter().map(|_| [1, 1]));
            let others = own[fused.n_inputs..end].iter().enumerate().filter(|(i, _)| *i != extra).map(|(_, u)| *u);
            let extras = others.chain(inputs.iter().copied());
            all = own[..fused.n_inputs].iter().copied().chain(extras).chain(own[end..].iter().copied()).collect();
        } else {
            return None;
        }
        let again = all.contains(&v);
        if !again && !self.fits_all(&fused, &all, &node.outputs) {
            return None;
        }
        let fused = Node { kind: Kind::Op(Arc::new(fused)), inputs: all, ..node };
        if again { self.absorb(fused, computable) } else { Some(fused) }
    }

    /// Returns whether the first candidate of a fused operation exists, and each of its launches can bind what it reads and writes.
    pub(super) fn fits_all(&self, fused: &Fused, inputs: &[Value], outputs: &[TensorType]) -> bool {
        let types = inputs.iter().filter_map(|&v| self.ty(v).cloned());
        let io = Io { inputs: types.collect(), outputs: outputs.to_vec() };
        let first = || fused.candidates(&io, self.profile).next();
        let fits = || first().is_some_and(|c| c.dispatches.iter().all(|d| d.n_storage() <= self.max_slots()));
        *self.known.borrow_mut().entry(format!("{fused:?} {io:?}")).or_insert_with(fits)
    }
}
