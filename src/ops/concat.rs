//! Concatenation along an axis, with as many operands per launch as can be bound.

use super::slice::Part;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceClass, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op,
        OpError, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Expr, Finish, Kernel, Layout, Schedule, Stored, Type},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape},
};

/// Concat (ONNX): f32 tensors that differ at most in the extent of `axis`, which is not the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Concat {
    /// The axis along which they follow each other.
    pub axis: usize,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn key(&self) -> String {
        format!("axis={}", self.axis)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let error = |wanted: String, got: String, advice: &str| Err(OpError::new("concat", wanted, got, advice));
        let Some(first) = inputs.first() else {
            return error("at least 1 input".into(), "none".into(), "pass the tensors to join");
        };
        let (rank, batched) = (first.shape.rank(), first.shape.is_batched());
        if self.axis >= rank || (batched && self.axis == 0) {
            let wanted = format!("an axis below {rank} that is not the batch");
            return error(wanted, self.axis.to_string(), "join along another axis");
        }
        let outside = |t: &TensorType| {
            let dims = t.shape.dims().iter().enumerate();
            (t.shape.is_batched(), dims.filter(|(i, _)| *i != self.axis).map(|(_, &d)| d).collect::<Vec<_>>())
        };
        let fits = |t: &TensorType| t.dtype == DType::F32 && t.shape.rank() == rank && outside(t) == outside(first);
        let empty = |t: &TensorType| t.shape.dims().contains(&0);
        if let Some(other) = inputs.iter().find(|t| !fits(t) || empty(t)) {
            let wanted = format!("f32 like {} but for axis {}", first.shape, self.axis);
            return error(wanted, other.to_string(), "give all tensors equal extents in the other axes");
        }
        let mut dims = first.shape.dims().to_vec();
        dims[self.axis] = inputs.iter().map(|t| t.shape.dims()[self.axis]).sum();
        let shape = if batched { first.shape.with_row(&dims[1..]) } else { Shape::fixed(dims) };
        Ok(vec![TensorType::f32(shape)])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let mut shape = inputs[0].shape.clone();
        shape[self.axis] = inputs.iter().map(|a| a.shape[self.axis]).sum();
        let outer: usize = shape[..self.axis].iter().product();
        let mut data = Vec::with_capacity(shape.iter().product());
        for i in 0..outer {
            for x in inputs {
                let block = x.data.len() / outer;
                data.extend_from_slice(&x.data[i * block..][..block]);
            }
        }
        vec![Array { shape, data }]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(dy) = dy[0] else { return Ok(vec![None; inputs.len()]) };
        let mut start = 0;
        (inputs.iter())
            .map(|&x| {
                let size = g.shape(x).dims()[self.axis];
                start += size;
                g.slice_axis(dy, self.axis, Part::new(start - size, size)).map(Some)
            })
            .collect()
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let block = |t: &TensorType| t.shape.dims()[self.axis..].iter().product::<usize>();
        let width = io.inputs.iter().map(|t| kernels::width(block(t), profile)).min().unwrap_or(1);
        let all = block(&io.outputs[0]) / width;
        let outer = io.outputs[0].shape.elements().over((all * width) as u64);
        let extras = epilogue.map_or(0, |e| e.extras.len());
        let at_once = (profile.max_storage_buffers as usize).saturating_sub(1 + extras).max(1);
        let words = profile.u64_loads;
        // As many as in launches that merge parts, of which some may run beside this one.
        let lanes: u32 = if profile.class == DeviceClass::Gpu { 256 } else { 64 };
        let layout = Layout::Vectors { width, words };
        let mut dispatches = Vec::new();
        let mut before = 0;
        for first in (0..io.inputs.len()).step_by(at_once) {
            let members = first..(first + at_once).min(io.inputs.len());
            let mut k = Kernel::new("concat", lanes as usize);
            let mut end = 0;
            let mut parts = Vec::new();
            for (n, input) in members.enumerate() {
                let size = block(&io.inputs[input]) / width;
                parts.push((end, size, k.bind(format!("x{n}"), layout, Slot::input(input))));
                end += size;
            }
            let y = k.bind_result("y", layout, Slot::output(0));
            let finish = Finish::bind(&mut k, epilogue, Stored { width, words, columns: 0 });
            let items = outer.times(end as u64);
            let i = k.item(items);
            let (o, j) = (k.let_("o", &i / end), k.let_("j", &i % end));
            let value = k.unset("value", Type::F32.vector(width));
            for (start, size, x) in parts {
                let inside = j.at_least(start).and(Expr::from(start + size == end).or(j.less(start + size)));
                k.if_(inside, |k| k.set(&value, x.at(&o * size + &j - start)));
            }
            let at = k.let_("at", o * all + before + j);
            k.store(&y, &at, finish.apply(value, &at * width, &[]));
            dispatches.push(k.launch(Grid::new(items, lanes)));
            before += end;
        }
        vec![Candidate::new(Schedule::of_width(Core::Elements, width), dispatches, Vec::new())]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: Count::default(), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Concatenates tensors along `axis`, which must not be the batch.
    pub fn concat(&mut self, tensors: &[Value], axis: usize) -> Result<Value, OpError> {
        match tensors {
            [x] if axis < self.shape(*x).rank() && (axis > 0 || !self.shape(*x).is_batched()) => Ok(*x),
            _ => self.apply1(Concat { axis }, tensors),
        }
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let rank = 2 + rng.below(3);
    let axis = 1 + rng.below(rank - 1);
    let mut dims: Vec<usize> = (0..rank).map(|_| rng.pick(&[1, 2, 3, 4, 7, 8, 15, 16, 17])).collect();
    if rng.below(4) > 0 {
        dims[0] = Batch;
    }
    let quads = rng.below(3) == 0;
    let count = rng.pick(&[1, 2, 2, 3, 4, 7, 8, 9, 17]);
    let inputs = (0..count)
        .map(|_| {
            let sizes: &[usize] = if quads { &[4, 8, 16, 64] } else { &[1, 2, 6, 7, 15, 16, 17, 63, 64, 65] };
            dims[axis] = rng.pick(sizes);
            (TensorType::f32(dims.as_slice()), Fill::Uniform(-1.0, 1.0))
        })
        .collect();
    let capacity = rng.pick(&[1, 2, 3, 5]);
    let n = 1 + rng.below(capacity);
    Sample::new(Concat { axis }, inputs, capacity).with_n(n)
}

/// Concat as a family.
pub static FAMILY: Family = Family {
    name: "concat",
    about: "concatenation along any axis but the batch (ONNX Concat, Keras Concatenate)",
    sample,
    benches: || {
        let map = |c| (TensorType::f32([Batch, 28, 28, c]), Fill::Uniform(-1.0, 1.0));
        vec![("channels_n8_c64_128_32_28", Sample::new(Concat { axis: 3 }, vec![map(64), map(128), map(32)], 8))]
    },
    bad: &[
        Bad {
            what: "the batch axis",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                g.concat(&[x, x], 0)
            },
        },
        Bad {
            what: "another extent beside the axis",
            build: |g| {
                let (a, b) = (g.input("a", [Batch, 3, 4], DType::F32), g.input("b", [Batch, 3, 5], DType::F32));
                g.concat(&[a, b], 1)
            },
        },
        Bad { what: "nothing", build: |g| g.concat(&[], 1) },
        Bad {
            what: "whole numbers",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::I32);
                g.concat(&[x, x], 1)
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
