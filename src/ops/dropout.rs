//! Dropout with a counter-based mask: nothing is stored for the gradient, which applies the same mask again.

use super::arity::arity;
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, DType, Philox, Purpose, Shape, philox_key, philox4x32, stream_id, unit_f32},
};

/// Inverted dropout (Keras `Dropout`): each element is 0 with probability `rate`, else scaled by 1 / (1 − rate).
///
/// The mask is a function of seed, step, stream, index along the first axis and element: it does not depend on how a
/// batch is split or on what is fused.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropout {
    /// Probability of 0, in 0 ..= 1.
    pub rate: f32,
    /// Number of the mask, from [`stream_id`] of the layer's name.
    pub stream: u32,
}

impl Dropout {
    fn scale(&self) -> f32 {
        if self.rate < 1.0 { 1.0 / (1.0 - self.rate) } else { 0.0 }
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn key(&self) -> String {
        format!("rate={:?} stream={}", self.rate, self.stream)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity("dropout", inputs, "pass the tensor to mask")?;
        if x.dtype != DType::F32 {
            return Err(OpError::new("dropout", "f32 elements", x, "convert the input to f32"));
        }
        if !(0.0..=1.0).contains(&self.rate) {
            return Err(OpError::new("dropout", "a rate in 0 ..= 1", self.rate, "give the share that becomes 0"));
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[&Array], step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let row = x.shape.iter().skip(1).product::<usize>().max(1);
        let key = philox_key(step.seed, Purpose::Dropout);
        let scale = f64::from(self.scale());
        vec![Array::from_fn(x.shape.clone(), |i| {
            let (r, e) = (i / row, i % row);
            let word = philox4x32(key, [step.step, self.stream, r as u32, (e / 4) as u32])[e % 4];
            x.data[i] * if unit_f32(word) >= self.rate { scale } else { 0.0 }
        })]
    }

    fn vjp(&self, g: &mut Graph, _inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        Ok(vec![dy[0].map(|dy| g.apply1(self.clone(), &[dy])).transpose()?])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let shape = &io.inputs[0].shape;
        let items = shape.with_row(&[shape.row().div_ceil(4)]).elements();
        let constants = [
            ("LANES", 64.0),
            ("ITEMS", items.fixed as f64),
            ("ITEMS_PER_SAMPLE", items.per_sample as f64),
            ("ROW", shape.row() as f64),
            ("STREAM", f64::from(self.stream)),
            ("PURPOSE", f64::from(philox_key(0, Purpose::Dropout)[1])),
            ("RATE", f64::from(self.rate)),
            ("SCALE", f64::from(self.scale())),
        ];
        let source = shader!("dropout.wgsl");
        let slots = vec![Slot::input(0), Slot::output(0)];
        let dispatch = kernels::dispatch("dropout", source, &constants, Grid::new(items, 64), slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, 4), dispatch)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.inputs[0].shape.elements(), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Ulp(1.0)]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns `x` with a share `rate` of its elements, drawn anew each step, set to 0 and the others scaled by
    /// 1 / (1 − rate). Equal names give equal masks.
    pub fn dropout(&mut self, x: Value, rate: f32, name: &str) -> Result<Value, OpError> {
        self.apply1(Dropout { rate, stream: stream_id(name) }, &[x])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let row: &[usize] = &[rng.pick(&[1, 2, 5, 7, 16]), rng.pick(&[1, 3, 4, 15, 17, 63, 64, 65])];
    let capacity = rng.pick(&[1, 2, 3, 8]);
    let shape = match rng.below(4) {
        0 => Shape::fixed(row),
        1 => Shape::from([Batch, row[1]]),
        _ => Shape::batched(rng.pick(&[1, 1, 3]), row),
    };
    let op = Dropout { rate: rng.pick(&[0.0, 0.2, 0.5, 0.9, 1.0]), stream: rng.next_u32() };
    let n = 1 + rng.below(capacity);
    Sample::new(op, vec![(TensorType::f32(shape), Fill::Away(0.1, 2.0))], capacity).with_n(n)
}

/// Dropout as a family.
pub static FAMILY: Family = Family {
    name: "dropout",
    about: "inverted dropout with a Philox 4x32-10 mask (Keras Dropout, Salmon et al. 2011)",
    sample,
    benches: || {
        let x = (TensorType::f32([Batch, 56, 56, 64]), Fill::Uniform(-1.0, 1.0));
        vec![("dropout_n8_c64_56", Sample::new(Dropout { rate: 0.5, stream: 1 }, vec![x], 8))]
    },
    bad: &[
        Bad {
            what: "a rate above 1",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                g.dropout(x, 1.5, "d")
            },
        },
        Bad {
            what: "a rate that is no number",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::F32);
                g.dropout(x, f32::NAN, "d")
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let x = g.input("x", [Batch, 3], DType::U8);
                g.dropout(x, 0.5, "d")
            },
        },
    ],
    equivalent: &[("moves a boundary at factors", "no random number equals the rate")],
    differentiable: true,
    gradcheck: 1e-6,
};
