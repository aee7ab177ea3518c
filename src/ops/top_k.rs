//! The largest elements of each row, sorted, with their places.

use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape, rank},
};
use std::cmp::Reverse;

/// The `k` largest along the last axis by falling value, equal ones by rising index: values f32 and indices u32
/// (ONNX TopK, Keras `ops.top_k`).
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// How many.
    pub k: usize,
}

/// Gradient of the values of [`TopK`]: indices (…, k), gradient (…, k) → (…, `columns`).
#[derive(Debug, Clone, PartialEq)]
pub struct TopKGrad {
    /// Elements of a row.
    pub columns: usize,
}

/// Returns the shape with another last extent.
fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    if let Some(end) = dims.last_mut() {
        *end = last;
    }
    if shape.is_batched() { shape.with_row(&dims[1..]) } else { Shape::fixed(dims) }
}

/// Returns whether the last axis is one that is not the batch.
fn has_rows(shape: &Shape) -> bool {
    shape.rank() > usize::from(shape.is_batched()) && !shape.dims().contains(&0)
}

impl Op for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn key(&self) -> String {
        format!("k={}", self.k)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        match inputs {
            [x] if x.dtype == DType::F32 && has_rows(&x.shape) && (1..=x.shape.last()).contains(&self.k) => {
                let shape = with_last(&x.shape, self.k);
                Ok(vec![TensorType::f32(shape.clone()), TensorType::new(shape, DType::U32)])
            }
            _ => {
                let got: Vec<String> = inputs.iter().map(ToString::to_string).collect();
                let wanted = format!("f32 rows of at least {} elements, at least one of them wanted", self.k);
                Err(OpError::new("top_k", wanted, got.join(", "), "ask for no more than a row has"))
            }
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let mut shape = x.shape.clone();
        let columns = shape.pop().unwrap_or(1);
        shape.push(self.k);
        let mut indices = Vec::new();
        for row in x.data.chunks(columns) {
            let mut order: Vec<usize> = (0..columns).collect();
            order.sort_by_key(|&i| Reverse(rank(row[i])));
            indices.extend(order[..self.k].iter().map(|&i| i as f64));
        }
        let values = Array::from_fn(shape.clone(), |i| x.data[i / self.k * columns + indices[i] as usize]);
        vec![values, Array { shape, data: indices }]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let back = TopKGrad { columns: g.shape(inputs[0]).last() };
        Ok(vec![dy[0].map(|dy| g.apply1(back, &[outputs[1], dy])).transpose()?])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let rows = io.inputs[0].shape.rows();
        let constants = [
            ("ROWS", rows.fixed as f64),
            ("PER_SAMPLE", rows.per_sample as f64),
            ("COLUMNS", io.inputs[0].shape.last() as f64),
            ("K", self.k as f64),
        ];
        let slots = vec![Slot::input(0), Slot::output(0), Slot::output(1)];
        let source = shader!("top_k.wgsl");
        let kernel = kernels::dispatch("top_k", source, &constants, Grid::new(rows, 64), slots, None);
        vec![Candidate::single(Schedule::of_width(Core::Lane, 1), kernel)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements().times(self.k as u64), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact, Accuracy::Exact]
    }
}

impl Op for TopKGrad {
    fn name(&self) -> &'static str {
        "top_k_grad"
    }

    fn key(&self) -> String {
        format!("columns={}", self.columns)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        match inputs {
            [i, dy]
                if i.dtype == DType::U32
                    && *dy == TensorType::f32(i.shape.clone())
                    && has_rows(&i.shape)
                    && self.columns > 0 =>
            {
                Ok(vec![TensorType::f32(with_last(&dy.shape, self.columns))])
            }
            _ => {
                let got: Vec<String> = inputs.iter().map(ToString::to_string).collect();
                let wanted = "u32 indices and an f32 gradient of their shape";
                Err(OpError::new("top_k_grad", wanted, got.join(", "), "pass what top_k gave"))
            }
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (indices, dy) = (inputs[0], inputs[1]);
        let mut shape = dy.shape.clone();
        let k = shape.pop().unwrap_or(1);
        shape.push(self.columns);
        let mut dx = Array::zeros(shape);
        for (i, (&at, d)) in indices.data.iter().zip(&dy.data).enumerate() {
            dx.data[i / k * self.columns + at as usize] += d;
        }
        vec![dx]
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let elements = io.outputs[0].shape.elements();
        let constants = [
            ("ELEMENTS", elements.fixed as f64),
            ("PER_SAMPLE", elements.per_sample as f64),
            ("COLUMNS", self.columns as f64),
            ("K", io.inputs[0].shape.last() as f64),
        ];
        let slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let source = shader!("top_k_grad.wgsl");
        let kernel = kernels::dispatch("top_k_grad", source, &constants, Grid::new(elements, 64), slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, 1), kernel)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[1].shape.elements(), bytes: io.bytes() }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Products { terms: io.inputs[0].shape.last() as u64 }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns the `k` largest elements of each row of `x` (…, c) by falling value, equal ones by rising index, as
    /// values f32 (…, k) and indices u32 (…, k). NaN is the largest, as in PyTorch.
    pub fn top_k(&mut self, x: Value, k: usize) -> Result<[Value; 2], OpError> {
        let outputs = self.apply(TopK { k }, &[x])?;
        Ok([outputs[0], outputs[1]])
    }
}

/// Returns the shape of rows, their number of elements and k.
fn rows(rng: &mut Philox) -> (Vec<usize>, usize, usize) {
    let columns = rng.pick(&[1, 2, 7, 10, 15, 16, 17, 63, 64, 65]);
    let mut dims: Vec<usize> = (0..rng.below(3)).map(|_| rng.pick(&[1, 3, 7, 16, 17])).collect();
    if rng.below(4) > 0 {
        dims.insert(0, Batch);
    }
    (dims, columns, 1 + rng.below(columns.min(8)))
}

fn sample(rng: &mut Philox) -> Sample {
    let (dims, columns, k) = rows(rng);
    let capacity = rng.pick(&[1, 2, 5, 17, 64]);
    let n = 1 + rng.below(capacity);
    let x = (TensorType::f32([dims, vec![columns]].concat()), Fill::Distinct);
    Sample::new(TopK { k }, vec![x], capacity).with_n(n)
}

fn sample_grad(rng: &mut Philox) -> Sample {
    let (dims, columns, k) = rows(rng);
    let capacity = rng.pick(&[1, 2, 5, 17, 64]);
    let n = 1 + rng.below(capacity);
    let shape = [dims, vec![k]].concat();
    let indices = (TensorType::new(shape.clone(), DType::U32), Fill::Index(columns));
    let dy = (TensorType::f32(shape), Fill::Uniform(-1.0, 1.0));
    Sample::new(TopKGrad { columns }, vec![indices, dy], capacity).with_n(n)
}

/// Top-k as a family.
pub static FAMILY: Family = Family {
    name: "top_k",
    about: "the k largest of each row by falling value, equal ones by rising index, NaN first, and their places (ONNX TopK, Keras ops.top_k)",
    sample,
    benches: || {
        let x = (TensorType::f32([Batch, 1000]), Fill::Distinct);
        vec![("n64_1000_5", Sample::new(TopK { k: 5 }, vec![x], 64))]
    },
    bad: &[
        Bad {
            what: "more than a row has",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                Ok(g.top_k(x, 4)?[0])
            },
        },
        Bad {
            what: "none",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                Ok(g.top_k(x, 0)?[0])
            },
        },
        Bad {
            what: "the batch as a row",
            build: |g| {
                let x = g.input("x", [Batch], DType::F32);
                Ok(g.top_k(x, 1)?[0])
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of top-k as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "top_k_grad",
    about: "gradient of the values of top_k: each goes back to its place",
    sample: sample_grad,
    benches: || {
        let indices = (TensorType::new([Batch, 5], DType::U32), Fill::Index(1000));
        let dy = (TensorType::f32([Batch, 5]), Fill::Uniform(-1.0, 1.0));
        vec![("n64_1000_5", Sample::new(TopKGrad { columns: 1000 }, vec![indices, dy], 64))]
    },
    bad: &[Bad {
        what: "indices that are no whole numbers",
        build: |g| {
            let dy = g.input("dy", [Batch, 3], DType::F32);
            g.apply1(TopKGrad { columns: 5 }, &[dy, dy])
        },
    }],
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};
