//! The axes of a tensor in another order.

use super::arity::arity;
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fill, Gradients, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Schedule},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape, strides},
};

/// Transpose (ONNX): axis `i` of the result is axis `permutation[i]` of the operand; the batch stays first.
#[derive(Debug, Clone, PartialEq)]
pub struct Transpose {
    /// Where each axis of the result comes from.
    pub permutation: Vec<usize>,
}

/// The most groups of axes that stay together which the kernel can reorder.
pub(super) const MAX_RUNS: usize = 6;
const EXTENTS: [&str; MAX_RUNS] = ["", "E1", "E2", "E3", "E4", "E5"];
const STRIDES: [&str; MAX_RUNS] = ["S0", "S1", "S2", "S3", "S4", "S5"];

/// Returns the launch that gathers words at `base + Σ coordinate · stride`, where `runs` are extent and operand
/// stride of the result's axes, outermost first; the first may be the batch.
pub(super) fn strided_copy(
    kernel: &str,
    runs: &[(usize, isize)],
    base: usize,
    elements: Count,
    profile: &DeviceProfile,
) -> Candidate {
    let mut runs = runs.to_vec();
    let width = match runs.last() {
        Some(&(extent, 1)) => (runs[..runs.len() - 1].iter().map(|r| r.1.unsigned_abs()))
            .chain([extent, base])
            .map(|n| kernels::width(n, profile))
            .min()
            .unwrap_or(1),
        _ => 1,
    };
    if let Some((last, outer)) = runs.split_last_mut() {
        last.0 /= width;
        outer.iter_mut().for_each(|r| r.1 /= width as isize);
    }
    let elements = elements.over(width as u64);
    let mut constants = vec![
        ("FIXED", elements.fixed as f64),
        ("PER_SAMPLE", elements.per_sample as f64),
        ("BASE", (base / width) as f64),
    ];
    // The outermost coordinate is what remains after all divisions, so that runs are aligned at the last.
    let first = MAX_RUNS - runs.len();
    for (k, &(extent, stride)) in runs.iter().enumerate() {
        // Sums of u32 wrap, so that a negative stride is its complement.
        constants.push((STRIDES[if k == 0 { 0 } else { first + k }], f64::from(stride as u32)));
        if k > 0 {
            constants.push((EXTENTS[first + k], extent as f64));
        }
    }
    let word = match (width, profile.u64_loads) {
        (1, _) => "u32",
        (2, _) => "u64",
        (_, true) => "vec2<u64>",
        _ => "vec4<u32>",
    };
    let source = kernels::Source::from(shader!("transpose.wgsl")).with(format!("alias S = {word};\n"));
    let slots = vec![Slot::input(0), Slot::output(0)];
    let launch = kernels::dispatch(kernel, source, &constants, Grid::new(elements, 64), slots, None);
    Candidate::single(Schedule::of_width(Core::Elements, width), launch)
}

impl Transpose {
    /// Returns extent and operand stride of each run of axes that stay neighbours, in the result's order.
    fn runs(&self, shape: &Shape) -> Vec<(usize, usize)> {
        let from = strides(shape.dims());
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &axis in &self.permutation {
            let (extent, stride) = (shape.dims()[axis], from[axis]);
            match runs.last_mut() {
                _ if extent == 1 && !(axis == 0 && shape.is_batched()) => {}
                Some(run) if run.1 == extent * stride => *run = (run.0 * extent, stride),
                _ => runs.push((extent, stride)),
            }
        }
        runs
    }
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn key(&self) -> String {
        format!("{:?}", self.permutation)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let error = |wanted: String, got: String, advice: &str| Err(OpError::new("transpose", wanted, got, advice));
        let [x] = arity("transpose", inputs, "pass the tensor to transpose")?;
        let rank = x.shape.rank();
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        let got = format!("{:?}", self.permutation);
        if !sorted.into_iter().eq(0..rank) {
            return error(format!("each axis from 0 to {} once", rank.max(1) - 1), got, "name every axis once");
        }
        if x.shape.is_batched() && self.permutation[0] != 0 {
            return error("the batch axis in front".into(), got, "leave axis 0 where it is");
        }
        if x.dtype.bytes() != 4 {
            return error("a type of 32 bits".into(), x.to_string(), "gather or cast the tensor to f32 first");
        }
        if x.shape.dims().contains(&0) || self.runs(&x.shape).len() > MAX_RUNS {
            let wanted = format!("extents above 0 and at most {MAX_RUNS} groups of axes that move");
            return error(
                wanted,
                format!("{} by {got}", x.shape),
                "merge axes that stay together, or do it in two steps",
            );
        }
        let dims: Vec<usize> = self.permutation.iter().map(|&a| x.shape.dims()[a]).collect();
        let shape = if x.shape.is_batched() { x.shape.with_row(&dims[1..]) } else { Shape::fixed(dims) };
        Ok(vec![TensorType { shape, dtype: x.dtype }])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let shape: Vec<usize> = self.permutation.iter().map(|&a| x.shape[a]).collect();
        let (from, to) = (strides(&x.shape), strides(&shape));
        let source = |i: usize| (0..to.len()).map(|k| i / to[k] % shape[k] * from[self.permutation[k]]).sum::<usize>();
        vec![Array::from_fn(shape.clone(), |i| x.data[source(i)])]
    }

    fn vjp(&self, g: &mut Graph, _inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let mut inverse = vec![0; self.permutation.len()];
        self.permutation.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
        Ok(vec![dy[0].map(|dy| g.transpose(dy, &inverse)).transpose()?])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, _epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let runs: Vec<(usize, isize)> =
            self.runs(&io.inputs[0].shape).into_iter().map(|(extent, stride)| (extent, stride as isize)).collect();
        vec![strided_copy("transpose", &runs, 0, io.outputs[0].shape.elements(), profile)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: Count::default(), bytes: io.inputs[0].shape.elements().times(8) }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }
}

impl Graph {
    /// Returns `x` with axis `permutation[i]` as axis `i`; a batch axis must stay first.
    pub fn transpose(&mut self, x: Value, permutation: &[usize]) -> Result<Value, OpError> {
        self.apply1(Transpose { permutation: permutation.to_vec() }, &[x])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let rank = 2 + rng.below(8).div_ceil(2).min(3);
    let batched = rng.below(3) > 0;
    let sizes: &[usize] =
        if rank > 3 { &[1, 2, 3, 4, 5, 7, 8, 15] } else { &[1, 2, 7, 12, 15, 16, 17, 31, 33, 63, 64, 65] };
    let mut dims: Vec<usize> = (0..rank).map(|_| rng.pick(sizes)).collect();
    let mut permutation: Vec<usize> = rng.permutation(rank).into_iter().map(|a| a as usize).collect();
    if batched {
        dims[0] = Batch;
        let at = permutation.iter().position(|&a| a == 0).unwrap_or(0);
        permutation[..=at].rotate_right(1);
    }
    let capacity = rng.pick(&[1, 2, 3, 5, 8, 15]);
    let n = 1 + rng.below(capacity);
    Sample::new(Transpose { permutation }, vec![(TensorType::f32(dims), Fill::Distinct)], capacity).with_n(n)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let op = Transpose { permutation: vec![0, 3, 1, 2] };
    let input = (TensorType::f32([Batch, 56, 56, 64]), Fill::Uniform(-1.0, 1.0));
    vec![("nhwc_to_nchw_n8_c64_56", Sample::new(op, vec![input], 8))]
}

/// Transpose as a family.
pub static FAMILY: Family = Family {
    name: "transpose",
    about: "the axes in another order, the batch first (ONNX Transpose, Keras Permute)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "an axis named twice",
            build: |g| {
                let x = g.input("x", [Batch, 2, 3], DType::F32);
                g.transpose(x, &[0, 1, 1])
            },
        },
        Bad {
            what: "a batch that moves",
            build: |g| {
                let x = g.input("x", [Batch, 2, 3], DType::F32);
                g.transpose(x, &[1, 0, 2])
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let x = g.input("x", [Batch, 2, 3], DType::U8);
                g.transpose(x, &[0, 2, 1])
            },
        },
    ],
    equivalent: &[
        ("adds for a product at y", "samples have no more than four axes that stay apart"),
        ("leaves a term out at y", "samples have no more than four axes that stay apart"),
    ],
    differentiable: true,
    gradcheck: 1e-6,
};
