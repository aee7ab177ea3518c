//! An operation with what is fused into it: a program of its result, programs of its inputs, column sums.

use crate::{
    graph::{
        Candidate, ColumnSums, Cost, Declined, DeviceProfile, Epilogue, Gradients, Graph, Io, Op, OpError, Program,
        Prologue, Slot, Step, SumKind, TensorType, Value,
    },
    ops::{Elementwise, Part, SliceGrad},
    tensor::{Accuracy, Array, Count, Shape},
};
use std::{borrow::Cow, sync::Arc};

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
    /// For each of them how many pixels of the result are from one of its own to the next, as [`Pixels`](crate::graph::Pixels) says.
    pub steps: Vec<[usize; 2]>,
    /// The program; its input 0 is the anchor's output 0.
    pub program: Program,
    /// What adds up the columns of the program's result: its other inputs follow the program's, its outputs the anchor's.
    pub sums: Option<Arc<dyn Op>>,
    /// Programs of the anchor's inputs as it loads them, by input: their inputs from 1 on follow all others.
    pub prologues: Vec<(usize, Program)>,
    /// The input with a prologue whose result is the last output.
    pub kept: Option<usize>,
}

impl Fused {
    /// Returns an operation of so many inputs with a program of no other inputs applied to its output 0.
    pub fn new(anchor: Arc<dyn Op>, n_inputs: usize, program: Program) -> Self {
        Fused {
            anchor,
            n_inputs,
            repeats: Vec::new(),
            steps: Vec::new(),
            program,
            sums: None,
            prologues: Vec::new(),
            kept: None,
        }
    }

    /// Returns whether some of the program's inputs have not all pixels of the result.
    fn is_among_zeros(&self) -> bool {
        self.steps.iter().any(|steps| *steps != [1, 1])
    }

    /// Returns whether the program makes 0 of 0.
    fn keeps_zero(&self) -> bool {
        let zero = |input: usize| {
            input.checked_sub(1).is_none_or(|extra| self.steps.get(extra).is_some_and(|steps| *steps != [1, 1]))
        };
        self.program.keeps_zero(&zero)
    }

    /// Returns the program's inputs from 1 on, with zeros between their pixels.
    fn extras<'a>(&self, inputs: &[&'a Array], result: &[usize], step: &Step) -> Vec<Cow<'a, Array>> {
        let extras = inputs[self.n_inputs..self.first_of_sums()].iter().zip(&self.steps);
        let extra = |(&extra, &steps): (&&'a Array, &[usize; 2])| match steps {
            [1, 1] => Cow::Borrowed(extra),
            _ => Cow::Owned(spread(extra, result, steps, step)),
        };
        extras.map(extra).collect()
    }

    /// Returns how many pixels are from one of the result that is not 0 for certain to the next, if the program keeps zeros.
    fn steps_of_result(&self, io: &Io) -> Option<[usize; 2]> {
        self.anchor.pixels(&self.anchor_io(io)).filter(|_| self.keeps_zero()).map(|pixels| pixels.steps)
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
                kept: self.kept.filter(|kept| kept == input).map(|_| io.outputs.len() - 1),
            })
            .collect()
    }

    /// Returns the anchor's candidates, also those that cannot do all that is fused into it.
    fn anchor_candidates(&self, io: &Io, profile: &DeviceProfile) -> Vec<Candidate> {
        let kind = self.column_sums().map(|sums| match sums.kind() {
            SumKind::Products { x, mean } => SumKind::Products { x: self.sums_input(x), mean: self.sums_input(mean) },
            kind => kind,
        });
        let epilogue = Epilogue {
            program: self.program.clone(),
            extras: io.inputs[self.n_inputs..self.first_of_sums()].to_vec(),
            first_input: self.n_inputs,
            repeats: self.repeats.clone(),
            steps: self.steps.clone(),
            keeps_zero: self.steps_of_result(io).is_some(),
            shape: io.outputs[0].shape.clone(),
            sums: kind,
            prologues: self.prologues(io),
        };
        self.anchor.lower(&self.anchor_io(io), profile, Some(&epilogue))
    }

    /// Returns the candidates, each made when it is asked for.
    pub(super) fn candidates<'a>(
        &'a self,
        io: &'a Io,
        profile: &'a DeviceProfile,
    ) -> impl Iterator<Item = Candidate> + 'a {
        let can = self.anchor_candidates(io, profile).into_iter().filter(|c| c.prologues || self.prologues.is_empty());
        can.filter_map(move |c| if self.sums.is_some() { self.with_merge(c, io, profile) } else { Some(c) })
    }

    /// Returns what adds up columns.
    fn column_sums(&self) -> Option<&dyn ColumnSums> {
        self.sums.as_ref()?.column_sums()
    }

    /// Returns where the inputs of the column sums begin, behind those of the program.
    pub(super) fn first_of_sums(&self) -> usize {
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

    /// Returns for each prologue its input, its program and the program's operands.
    fn loads<'a>(&self, inputs: &[&'a Array]) -> Vec<(usize, Elementwise, Vec<&'a Array>)> {
        let first = self.first_of_prologues(inputs.len());
        (self.prologues.iter().zip(first.windows(2)))
            .map(|((input, program), range)| {
                let extras = inputs[range[0]..range[1]].iter().copied();
                (*input, Elementwise::from(program.clone()), [inputs[*input]].into_iter().chain(extras).collect())
            })
            .collect()
    }

    /// Returns the anchor's inputs after their prologues.
    fn anchor_inputs(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let mut own: Vec<Array> = inputs[..self.n_inputs].iter().map(|&a| a.clone()).collect();
        for (input, program, operands) in self.loads(inputs) {
            own[input] = program.reference(&operands, step).swap_remove(0);
        }
        own
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
        let exact = &exact[..exact.len() - usize::from(self.kept.is_some())];
        let n_sums = sums.infer(&self.inputs_of_sums(&io.inputs, io.outputs[0].clone())).map_or(0, |all| all.len());
        let first = exact.len() - n_sums.min(exact.len());
        let (y, sums_exact) = (&exact[0], &exact[first..]);
        let types = self.inputs_of_sums(&io.inputs, io.outputs[0].clone());
        let of_sums = Io { inputs: types, outputs: io.outputs[first..exact.len()].to_vec() };
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

    /// Returns how many elements of what has the result's shape a kernel reads that passes over zeros.
    fn pixels_of(&self, io: &Io, shape: &Shape) -> Count {
        match (self.steps_of_result(io), shape.dims()) {
            (Some([down, right]), &[_, h, w, c]) => {
                shape.with_row(&[h.div_ceil(down), w.div_ceil(right), c]).elements()
            }
            _ => shape.elements(),
        }
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
            Slot::Out(range) => Slot::Out(anchor_outputs + range.start..anchor_outputs + range.end),
            Slot::Scratch(_) => Slot::Scratch(scratch),
            other => other,
        };
        let merge = sums.merge(&own, Some(&parts), profile, &slots);
        Some(Candidate { dispatches: [candidate.dispatches, vec![merge]].concat(), ..candidate })
    }
}

/// Returns images of such a shape with the pixels of others among zeros.
fn spread(pixels: &Array, shape: &[usize], [down, right]: [usize; 2], step: &Step) -> Array {
    let &[_, p, q, c] = &pixels.shape[..] else { return pixels.clone() };
    let every = |size: usize, by: usize| Part { start: 0, size, step: by as isize };
    let shape = Shape::fixed(shape.to_vec());
    SliceGrad { shape, parts: vec![every(p, down), every(q, right), Part::all(c)] }
        .reference(&[pixels], step)
        .swap_remove(0)
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        self.anchor.name()
    }

    fn key(&self) -> String {
        let sums = self.sums.as_ref().map(|op| format!(" | {} {}", op.name(), op.key())).unwrap_or_default();
        let prologues: String =
            self.prologues.iter().map(|(input, program)| format!(" | {input}: {program}")).collect();
        let kept = self.kept.map(|input| format!(" | keeps {input}")).unwrap_or_default();
        let steps = if self.is_among_zeros() { format!(" | steps {:?}", self.steps) } else { String::new() };
        format!("{} | {} {:?}{steps}{sums}{prologues}{kept}", self.anchor.key(), self.program, self.repeats)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let mut outputs = self.anchor.infer(&inputs[..self.n_inputs])?;
        if let (Some(sums), [summed, ..]) = (&self.sums, &outputs[..]) {
            outputs.extend(sums.infer(&self.inputs_of_sums(inputs, summed.clone()))?);
        }
        outputs.extend(self.kept.map(|input| inputs[input].clone()));
        Ok(outputs)
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let own = self.anchor_inputs(inputs, step);
        let mut outputs = self.anchor.reference(&own.iter().collect::<Vec<_>>(), step);
        let extras = self.extras(inputs, &outputs[0].shape, step);
        let operands: Vec<&Array> = [&outputs[0]].into_iter().chain(extras.iter().map(AsRef::as_ref)).collect();
        outputs[0] = Elementwise::from(self.program.clone()).reference(&operands, step).swap_remove(0);
        if let Some(sums) = &self.sums {
            let more = sums.reference(&self.inputs_of_sums(inputs, &outputs[0]), step);
            outputs.extend(more);
        }
        outputs.extend(self.kept.map(|input| own[input].clone()));
        outputs
    }

    fn vjp(&self, _: &mut Graph, _: &[Value], _: &[Value], _: &[Option<Value>]) -> Gradients {
        Err(OpError::new(self.name(), "an unfused graph", "a fused node", "take gradients before fusion"))
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        if epilogue.is_some() {
            return Vec::new();
        }
        self.candidates(io, profile).collect()
    }

    fn declines(&self, io: &Io, profile: &DeviceProfile) -> Vec<Declined> {
        let offered = self.lower(io, profile, None);
        let dropped = self.anchor_candidates(io, profile).into_iter();
        let dropped = dropped.filter(|c| offered.iter().all(|o| o.variant != c.variant)).map(|c| Declined {
            core: c.variant,
            why: "it cannot do what is fused into it: column sums of its result, or programs of what it loads".into(),
        });
        dropped.chain(self.anchor.declines(&self.anchor_io(io), profile)).collect()
    }

    fn read(&self, io: &Io, input: usize) -> Count {
        let shape = &io.inputs[input].shape;
        let first = self.first_of_prologues(io.inputs.len());
        let loads = self.prologues.iter().zip(first.windows(2));
        let of_load = loads.filter(|(_, range)| (range[0]..range[1]).contains(&input)).map(|(load, _)| load.0).next();
        match of_load.unwrap_or(input) {
            own if own < self.n_inputs && *shape == io.inputs[own].shape => self.anchor.read(&self.anchor_io(io), own),
            own if own >= self.n_inputs && *shape == io.outputs[0].shape => self.pixels_of(io, shape),
            _ => shape.elements(),
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
        let kept = self.prologues.iter().filter(|(input, _)| self.kept == Some(*input));
        all.extend(kept.flat_map(|(_, program)| Elementwise::from(program.clone()).accuracy(io, n)));
        all
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], all_exact: &[Array], step: &Step) -> Vec<Array> {
        let extras = self.extras(inputs, &all_exact[0].shape, step);
        let own = self.anchor_inputs(inputs, step);
        let own: Vec<&Array> = own.iter().collect();
        let raw = self.anchor.reference(&own, step);
        let mut bounds = self.anchor.bounds(&self.anchor_io(io), &own, &raw, step);
        let mut of_kept = None;
        for (input, program, operands) in self.loads(inputs) {
            let exact = program.reference(&operands, step);
            let error = program.bounds(io, &operands, &exact, step).swap_remove(0);
            if self.kept == Some(input) {
                of_kept = Some(error.clone());
            }
            // What takes a prologue is linear in that input, or a maximum, which moves no further than it, or a maximum's gradient, which
            // is as if nothing had moved: it goes to the same pixel, if no two are as near as their errors.
            let mut magnitudes: Vec<Array> = own.iter().map(|a| a.map(f64::abs)).collect();
            magnitudes[input] = error;
            let carried = self.anchor.reference(&magnitudes.iter().collect::<Vec<_>>(), step);
            for (bound, carried) in bounds.iter_mut().zip(carried) {
                *bound = Array::from_fn(bound.shape.clone(), |i| bound.data[i] + carried.data[i].abs());
            }
        }
        let program = Elementwise::from(self.program.clone());
        let run = |sign: f64| {
            let moved = Array::from_fn(raw[0].shape.clone(), |i| raw[0].data[i] + sign * bounds[0].data[i]);
            let operands: Vec<&Array> = [&moved].into_iter().chain(extras.iter().map(AsRef::as_ref)).collect();
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
        bounds.extend(of_kept);
        bounds
    }

    fn in_place(&self, _n_inputs: usize) -> Vec<(usize, usize)> {
        self.anchor.in_place(self.n_inputs)
    }
}
