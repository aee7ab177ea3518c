//! Bytes as floats.

use super::arity::arity;
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox},
};

/// Bytes as the numbers from 0 to 255: u8 (…) → f32 (…) (ONNX Cast).
#[derive(Debug, Clone, PartialEq)]
pub struct Cast;

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity("cast", inputs, "pass the bytes")?;
        match x.dtype {
            DType::U8 => Ok(vec![TensorType::f32(x.shape.clone())]),
            _ => Err(OpError::new("cast", "bytes, u8", x, "leave it out: other types are cast by the host")),
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        vec![inputs[0].clone()]
    }

    fn vjp(&self, _g: &mut Graph, _inputs: &[Value], _outputs: &[Value], _dy: &[Option<Value>]) -> Gradients {
        Ok(vec![None])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let elements = io.outputs[0].shape.elements();
        let by_four = [elements.fixed, elements.per_sample].iter().all(|n| n.is_multiple_of(4));
        let (kernel, source, width) =
            if by_four { ("cast4", shader!("cast4.wgsl"), 4) } else { ("cast", shader!("cast.wgsl"), 1) };
        let items = Count { fixed: elements.fixed / width, per_sample: elements.per_sample / width };
        let constants = [("FIXED", items.fixed as f64), ("PER_SAMPLE", items.per_sample as f64)];
        let slots = vec![Slot::input(0), Slot::output(0)];
        let source = kernels::Source::of_width(source, width as usize);
        let launch = kernels::dispatch(kernel, source, &constants, Grid::new(items, 64), slots, epilogue);
        vec![Candidate::single(Schedule::of_width(Core::Elements, width as usize), launch)]
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
    /// Returns bytes (u8) as the numbers from 0 to 255 (f32), of the same shape.
    ///
    /// ```
    /// use hubel::prelude::*;
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 28, 28, 1], DType::U8);
    /// let y = g.cast(x)?;
    /// assert_eq!(g.ty(y).dtype, F32);
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn cast(&mut self, x: Value) -> Result<Value, OpError> {
        self.apply1(Cast, &[x])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let rank = 1 + rng.below(4);
    let mut dims: Vec<usize> = (0..rank).map(|_| rng.pick(&[1, 2, 3, 4, 7, 8, 17])).collect();
    if rng.below(4) > 0 {
        dims[0] = Batch;
    }
    let capacity = rng.pick(&[1, 2, 5, 16, 33]);
    let n = 1 + rng.below(capacity);
    Sample::new(Cast, vec![(TensorType::new(dims, DType::U8), Fill::Index(256))], capacity).with_n(n)
}

/// Cast as a family.
pub static FAMILY: Family = Family {
    name: "cast",
    about: "bytes as floats (ONNX Cast)",
    sample,
    benches: || {
        let images = (TensorType::new([Batch, 96, 96, 3], DType::U8), Fill::Index(256));
        vec![("n32_c3_96", Sample::new(Cast, vec![images], 32))]
    },
    bad: &[Bad {
        what: "floats",
        build: |g| {
            let x = g.input("x", [Batch, 3], DType::F32);
            g.cast(x)
        },
    }],
    equivalent: &[],
    differentiable: false,
    gradcheck: 1e-6,
};
