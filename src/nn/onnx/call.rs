//! What an operator of ONNX is built from: its attributes, and its operands with the order in which their axes are stored.

use super::{
    constant::{Constant, is_whole},
    spec::Spec,
};
use crate::{
    graph::{Graph, OpError, Value},
    tensor::{Shape, strides},
};

/// A tensor and how it is stored: channels may be last, and what is transposed may not have moved.
#[derive(Debug, Clone)]
pub struct T {
    pub value: Value,
    /// Which of ONNX's axes each stored axis is; a batch is stored first.
    pub axes: Vec<usize>,
    /// ONNX's type of the elements, which are f32 on the device.
    pub elem: i32,
    /// Of a matrix whose rows are flattened maps: extents of a map, channels first. It is stored channels last.
    pub flat: Option<Vec<usize>>,
}

impl T {
    /// Returns a tensor stored in ONNX's order.
    pub fn natural(value: Value, rank: usize, elem: i32) -> Self {
        T { value, axes: (0..rank).collect(), elem, flat: None }
    }

    pub fn rank(&self) -> usize {
        self.axes.len()
    }

    /// Returns where an axis of ONNX is stored.
    pub fn place(&self, axis: usize) -> usize {
        self.axes.iter().position(|&a| a == axis).unwrap_or(axis)
    }

    pub fn is_natural(&self) -> bool {
        self.flat.is_none() && self.axes.iter().enumerate().all(|(i, &a)| i == a)
    }

    /// Returns the tensor with another value, stored alike.
    pub fn with(&self, value: Value) -> Self {
        T { value, ..self.clone() }
    }
}

/// An operand of a node.
#[derive(Debug, Clone)]
pub enum Slot {
    Absent,
    /// A result of another layer: its number among the layer's inputs, and how it is stored.
    Input {
        at: usize,
        axes: Vec<usize>,
        elem: i32,
        flat: Option<Vec<usize>>,
    },
    Const(Constant),
}

/// How elements of a constant become a weight: the extents to read them by, the order of those axes, the weight's extents.
pub struct Arrangement {
    pub read: Vec<usize>,
    pub order: Vec<usize>,
    pub dims: Vec<usize>,
}

impl Arrangement {
    /// Returns the axes of `dims` in another order.
    pub fn order(dims: &[usize], order: &[usize]) -> Self {
        let arranged = order.iter().map(|&a| dims[a]).collect();
        Arrangement { read: dims.to_vec(), order: order.to_vec(), dims: arranged }
    }

    /// Returns elements as they are.
    pub fn plain(dims: &[usize]) -> Self {
        let order: Vec<usize> = (0..dims.len()).collect();
        Self::order(dims, &order)
    }
}

/// Where an operator is built: in a layer, or in a graph that is evaluated at once.
pub trait Place {
    fn graph(&mut self) -> &mut Graph;
    /// Returns input number `at`.
    fn input(&mut self, at: usize) -> Result<Value, OpError>;
    /// Returns a weight of these extents whose elements `make` returns in order, or all are one number.
    fn weight(&mut self, name: &str, dims: &[usize], kind: Kind, make: &Make) -> Result<Value, OpError>;
    /// Returns whether the layer is trained.
    fn is_training(&self) -> bool;
    /// Gives a value to evaluate with, where everything is evaluated at once.
    fn feed(&mut self, _dims: &[usize], _elements: &[f64]) -> Option<Value> {
        None
    }
    /// Returns whether everything is evaluated at once.
    fn is_known(&self) -> bool {
        false
    }
}

/// Who changes a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Trainable,
    State,
}

/// What a weight's elements are.
pub enum Make<'m> {
    Fill(f32),
    Elements(&'m dyn Fn() -> Result<Vec<f32>, OpError>),
}

/// A node under construction.
pub struct Call<'c> {
    pub node: &'c Spec,
    pub slots: &'c [Slot],
    pub place: &'c mut dyn Place,
}

/// Builds an operator and returns its results.
pub type Build = fn(&mut Call) -> Result<Vec<T>, OpError>;

/// The largest literal.
pub const MAX_LITERAL: usize = 4096;

impl Call<'_> {
    pub fn g(&mut self) -> &mut Graph {
        self.place.graph()
    }

    pub fn wrong(&self, wanted: impl Into<String>, got: impl std::fmt::Display, advice: &str) -> OpError {
        OpError::new(self.node.op, wanted, got, advice)
    }

    /// Returns whether the node has this operand.
    pub fn has(&self, i: usize) -> bool {
        !matches!(self.slots.get(i), None | Some(Slot::Absent))
    }

    pub fn constant(&self, i: usize) -> Option<&Constant> {
        match self.slots.get(i) {
            Some(Slot::Const(constant)) => Some(constant),
            _ => None,
        }
    }

    /// Returns the extents of an operand in ONNX's order, those of a batch of one.
    pub fn dims(&mut self, i: usize) -> Result<Vec<usize>, OpError> {
        match &self.slots.get(i) {
            Some(Slot::Const(constant)) => Ok(constant.dims.clone()),
            _ => self.t(i).map(|t| self.dims_of(&t)),
        }
    }

    pub fn dims_of(&mut self, t: &T) -> Vec<usize> {
        let stored = self.g().shape(t.value).dims().to_vec();
        (0..t.rank()).map(|axis| stored[t.place(axis)]).collect()
    }

    pub fn elem(&self, i: usize) -> i32 {
        match self.slots.get(i) {
            Some(Slot::Input { elem, .. }) => *elem,
            Some(Slot::Const(constant)) => constant.elem,
            _ => super::constant::FLOAT,
        }
    }

    pub fn rank(&self, i: usize) -> usize {
        match self.slots.get(i) {
            Some(Slot::Input { axes, .. }) => axes.len(),
            Some(Slot::Const(constant)) => constant.dims.len(),
            _ => 0,
        }
    }

    /// Returns an operand as it is stored; a constant becomes a tensor.
    pub fn t(&mut self, i: usize) -> Result<T, OpError> {
        match self.slots.get(i) {
            Some(Slot::Input { at, axes, elem, flat }) => {
                let (axes, flat) = (axes.clone(), flat.clone());
                Ok(T { value: self.place.input(*at)?, axes, elem: *elem, flat })
            }
            Some(Slot::Const(constant)) => {
                let (dims, elem) = (constant.dims.clone(), constant.elem);
                let value = self.tensor(i, &Arrangement::plain(&dims))?;
                Ok(T::natural(value, dims.len(), elem))
            }
            _ => Err(self.wrong(format!("operand {i}"), "none", "export the model again")),
        }
    }

    /// Returns an operand stored in ONNX's order.
    pub fn natural(&mut self, i: usize) -> Result<T, OpError> {
        let t = self.t(i)?;
        self.natural_of(t)
    }

    pub fn natural_of(&mut self, t: T) -> Result<T, OpError> {
        let order: Vec<usize> = (0..t.rank()).collect();
        self.arranged(t, &order)
    }

    /// Returns the tensor stored by these axes of ONNX.
    pub fn arranged(&mut self, t: T, axes: &[usize]) -> Result<T, OpError> {
        let mut t = self.unflattened(t)?;
        if t.axes == axes {
            return Ok(t);
        }
        let order: Vec<usize> = axes.iter().map(|&axis| t.place(axis)).collect();
        let shape = self.g().shape(t.value).clone();
        // Axes of extent 1 move for nothing, but for the batch.
        let wide = |i: &usize| shape.dims()[*i] != 1 || (*i == 0 && shape.is_batched());
        let moving: Vec<usize> = order.iter().copied().filter(wide).collect();
        let first_stays = !shape.is_batched() || order.first() == Some(&0);
        t.value = match moving.is_sorted() && first_stays {
            true => {
                let dims: Vec<usize> = order.iter().map(|&i| shape.dims()[i]).collect();
                let shape = if shape.is_batched() { shape.with_row(&dims[1..]) } else { Shape::fixed(dims) };
                self.g().reshape(t.value, shape)?
            }
            false => self.g().transpose(t.value, &order)?,
        };
        t.axes = axes.to_vec();
        Ok(t)
    }

    /// Returns flattened maps in ONNX's order.
    fn unflattened(&mut self, t: T) -> Result<T, OpError> {
        let Some(maps) = t.flat.clone() else { return Ok(t) };
        let shape = self.g().shape(t.value).clone();
        let stored: Vec<usize> = maps[1..].iter().chain(&maps[..1]).copied().collect();
        let x = self.g().reshape(t.value, shape.with_row(&stored))?;
        let rank = stored.len() + 1;
        let x = T { value: x, axes: channels_last(rank), elem: t.elem, flat: None };
        let x = self.natural_of(x)?;
        Ok(T { value: self.g().reshape(x.value, shape)?, flat: None, ..t })
    }

    /// Returns the elements of a constant operand, which a shape or an option must be.
    pub fn ints(&self, i: usize, what: &str) -> Result<Vec<i64>, OpError> {
        match self.constant(i) {
            Some(constant) => constant.to_ints(),
            None => {
                let advice =
                    "bind the sizes that it depends on with `OnnxOptions::dim`, or its value with `OnnxOptions::value`";
                Err(self.wrong(format!("{what} that is known before the model runs"), "one that is computed", advice))
            }
        }
    }

    pub fn numbers(&self, i: usize, what: &str) -> Result<Vec<f64>, OpError> {
        self.ints(i, what)?;
        Ok(self.constant(i).map(|c| c.values().map(|v| v.to_vec())).transpose()?.unwrap_or_default())
    }

    /// Returns a constant operand as a literal, or as a weight where training may change it or it is large.
    pub fn tensor(&mut self, i: usize, arrangement: &Arrangement) -> Result<Value, OpError> {
        let Some(constant) = self.constant(i).cloned() else {
            let t = self.natural(i)?;
            return self.rearranged(t.value, arrangement);
        };
        if self.place.is_known() {
            let elements = rearranged(constant.values()?.into_owned(), arrangement);
            if let Some(value) = self.place.feed(&arrangement.dims, &elements) {
                return Ok(value);
            }
        }
        if let Some(value) = constant.scalar().filter(|_| !constant.is_parameter || constant.dims.is_empty()) {
            let number = self.g().constant(value as f32)?;
            return self.g().expand(number, &Shape::fixed(arrangement.dims.clone()));
        }
        if !constant.is_parameter && constant.count() <= MAX_LITERAL && constant.filled().is_none() {
            let elements = arrange(&constant, arrangement)?;
            if elements.iter().all(|v| v.is_finite()) {
                return self.g().literal(arrangement.dims.clone(), elements);
            }
        }
        let trained = constant.is_parameter && !is_whole(constant.elem);
        let name = if i == 0 { "value".to_owned() } else { format!("value_{i}") };
        self.weight(i, &name, if trained { Kind::Trainable } else { Kind::State }, arrangement)
    }

    /// Returns an operand as a weight under a name.
    pub fn weight(&mut self, i: usize, name: &str, kind: Kind, arrangement: &Arrangement) -> Result<Value, OpError> {
        let Some(constant) = self.constant(i).cloned() else {
            let t = self.natural(i)?;
            return self.rearranged(t.value, arrangement);
        };
        let elements = || arrange(&constant, arrangement);
        let make = constant.filled().map_or(Make::Elements(&elements), |value| Make::Fill(value as f32));
        self.place.weight(name, &arrangement.dims, kind, &make)
    }

    /// Returns a vector operand as a weight.
    pub fn vector(&mut self, i: usize, name: &str, kind: Kind) -> Result<Value, OpError> {
        let n = self.dims(i)?.iter().product();
        self.weight(i, name, kind, &Arrangement::plain(&[n]))
    }

    fn rearranged(&mut self, x: Value, arrangement: &Arrangement) -> Result<Value, OpError> {
        let Arrangement { read, order, dims } = arrangement;
        let x = self.g().reshape(x, Shape::fixed(read.clone()))?;
        let x = if order.is_sorted() { x } else { self.g().transpose(x, order)? };
        self.g().reshape(x, Shape::fixed(dims.clone()))
    }

    /// Returns the tensor with other extents, stored in ONNX's order but for a batch, which stays in front.
    pub fn reshape(&mut self, t: T, dims: &[usize]) -> Result<T, OpError> {
        let t = self.unflattened(t)?;
        if self.g().shape(t.value).is_batched() && t.axes[0] != 0 {
            return self.reshape_behind(t, dims);
        }
        let t = self.natural_of(t)?;
        let batched = self.g().shape(t.value).is_batched();
        let shape = match (batched, dims) {
            (true, [first, rest @ ..]) => Shape::batched(*first, rest),
            (true, []) => return Err(self.batch("a scalar")),
            (false, _) => Shape::fixed(dims),
        };
        Ok(T::natural(self.g().reshape(t.value, shape)?, dims.len(), t.elem))
    }

    /// Reshapes a tensor whose batch is not ONNX's first axis: the batch must be an axis of the result too.
    fn reshape_behind(&mut self, t: T, dims: &[usize]) -> Result<T, OpError> {
        let (old, batch) = (self.dims_of(&t), t.axes[0]);
        let before: usize = old[..batch].iter().product();
        let fits = |&q: &usize| dims[..q].iter().product::<usize>() == before && dims[q] == old[batch];
        let at = (0..dims.len()).filter(fits).min_by_key(|q| q.abs_diff(batch));
        let Some(at) = at else { return Err(self.batch(format!("{old:?} as {dims:?}"))) };
        let order: Vec<usize> = std::iter::once(batch).chain((0..old.len()).filter(|&a| a != batch)).collect();
        let t = self.arranged(t, &order)?;
        let axes: Vec<usize> = std::iter::once(at).chain((0..dims.len()).filter(|&a| a != at)).collect();
        let row: Vec<usize> = axes[1..].iter().map(|&a| dims[a]).collect();
        let shape = self.g().shape(t.value).with_row(&row);
        Ok(T { value: self.g().reshape(t.value, shape)?, axes, ..t })
    }

    /// Returns the error of an operator that would mix samples.
    pub fn batch(&self, got: impl std::fmt::Display) -> OpError {
        let advice = "bind the batch with `OnnxOptions::dim`, so that the file's first axis is as any other";
        self.wrong("samples that are computed apart", got, advice)
    }

    /// Returns the axes that numbers from −rank up to rank name.
    pub fn axes(&self, numbers: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
        numbers.iter().map(|&n| self.axis(n, rank)).collect()
    }

    pub fn axis(&self, number: i64, rank: usize) -> Result<usize, OpError> {
        let axis = if number < 0 { number + rank as i64 } else { number };
        usize::try_from(axis).ok().filter(|&a| a < rank.max(1)).ok_or_else(|| {
            self.wrong(format!("an axis from −{rank} to {}", rank.max(1) - 1), number, "export the model again")
        })
    }

    /// Returns operands with the same axes in the same order, where NumPy's broadcasting aligns them, and those axes.
    pub fn aligned(&mut self, operands: &[usize]) -> Result<(Vec<Value>, T), OpError> {
        let rank = operands.iter().map(|&i| self.rank(i)).max().unwrap_or(0);
        let mut leader: Option<T> = None;
        for &i in operands {
            if self.constant(i).is_none() && self.rank(i) == rank {
                let t = self.t(i)?;
                let better = leader.as_ref().is_none_or(|l| l.flat.is_some() && t.flat != l.flat);
                leader = if better { Some(t) } else { leader };
            }
        }
        let mut leader = match leader {
            Some(t) => t,
            None => T::natural(Value { node: 0, output: 0 }, rank, self.elem(operands[0])),
        };
        if leader.flat.is_some() {
            let same = |slot: &Slot| match slot {
                Slot::Input { flat, .. } => *flat == leader.flat,
                Slot::Const(constant) => constant.count() == 1,
                Slot::Absent => true,
            };
            if !operands.iter().all(|&i| same(&self.slots[i])) {
                leader = self.unflattened(leader)?;
            }
        }
        let values = operands.iter().map(|&i| self.operand(i, &leader)).collect::<Result<Vec<_>, _>>()?;
        Ok((values, leader))
    }

    /// Returns an operand that broadcasting aligns with a tensor stored as `leader`.
    fn operand(&mut self, i: usize, leader: &T) -> Result<Value, OpError> {
        let rank = leader.rank();
        if let Some(constant) = self.constant(i) {
            let dims = constant.dims.clone();
            let mut whole = vec![1; rank - dims.len()];
            whole.extend(&dims);
            let mut arrangement = Arrangement::order(&whole, &leader.axes);
            let ones = arrangement
                .dims
                .iter()
                .take_while(|&&d| d == 1)
                .count()
                .min(rank - usize::from(!dims.is_empty()).min(rank));
            arrangement.dims.drain(..ones);
            return self.tensor(i, &arrangement);
        }
        let t = self.t(i)?;
        if t.flat.is_some() && t.flat == leader.flat {
            return Ok(t.value);
        }
        let (own, batched) = (t.rank(), self.g().shape(t.value).is_batched());
        if own == rank {
            return Ok(self.arranged(t, &leader.axes)?.value);
        }
        if batched {
            return Err(self.batch("a batch of fewer axes than its partner"));
        }
        let t = self.natural_of(t)?;
        if leader.is_natural() || own == 0 {
            return Ok(t.value);
        }
        let mut whole = vec![1; rank - own];
        whole.extend(self.dims_of(&t));
        let t = self.reshape(t, &whole)?;
        Ok(self.arranged(t, &leader.axes)?.value)
    }
}

/// Returns the axes of a tensor whose channels, axis 1, are stored last.
pub fn channels_last(rank: usize) -> Vec<usize> {
    if rank < 3 { (0..rank).collect() } else { std::iter::once(0).chain(2..rank).chain([1]).collect() }
}

/// Returns a constant's elements in another order; those that are moved come from the file's bytes at once, so that large weights
/// take memory once.
fn arrange(constant: &Constant, arrangement: &Arrangement) -> Result<Vec<f32>, OpError> {
    let moved = Moved::of(arrangement);
    match (constant.raw_floats(), &moved) {
        (Some(raw), Some(moved)) => {
            let at = |i: usize| f32::from_le_bytes(std::array::from_fn(|k| raw[4 * i + k]));
            Ok(moved.elements(raw.len() / 4, at))
        }
        _ => Ok(rearranged(constant.floats()?, arrangement)),
    }
}

fn rearranged<E: Copy>(elements: Vec<E>, arrangement: &Arrangement) -> Vec<E> {
    match Moved::of(arrangement) {
        Some(moved) if !elements.is_empty() => moved.elements(elements.len(), |i| elements[i]),
        _ => elements,
    }
}

/// Axes in another order than they are read in: extents and steps of each, those of extent 1 left out.
struct Moved {
    dims: Vec<usize>,
    steps: Vec<usize>,
}

impl Moved {
    fn of(arrangement: &Arrangement) -> Option<Self> {
        let Arrangement { read, order, .. } = arrangement;
        let wide: Vec<usize> = order.iter().copied().filter(|&a| read[a] != 1).collect();
        let from = strides(read);
        let (dims, steps) = wide.iter().map(|&a| (read[a], from[a])).unzip();
        (!wide.is_sorted()).then_some(Moved { dims, steps })
    }

    fn elements<E>(&self, count: usize, element: impl Fn(usize) -> E) -> Vec<E> {
        let Moved { dims, steps } = self;
        let (inner, step) = (dims[dims.len() - 1], steps[steps.len() - 1]);
        let mut out = Vec::with_capacity(count);
        let (mut at, mut base) = (vec![0usize; dims.len() - 1], 0usize);
        for _ in 0..count / inner.max(1) {
            out.extend((0..inner).map(|k| element(base + k * step)));
            for axis in (0..at.len()).rev() {
                at[axis] += 1;
                base += steps[axis];
                if at[axis] < dims[axis] {
                    break;
                }
                base -= dims[axis] * steps[axis];
                at[axis] = 0;
            }
        }
        out
    }
}
