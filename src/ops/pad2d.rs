//! Zeros around pictures, and its gradient, which crops.

use crate::{
    graph::{
        Bad, Candidate, DeviceProfile, Epilogue, Family, Fault, Fill, Graph, Grid, Io, Op, OpError, Sample, Slot, Step,
        TensorType, Value,
    },
    kernels,
    tensor::{Accuracy, Array, Batch, DType, Philox, Shape},
};

/// Rows and columns added around NHWC pictures (Keras `ZeroPadding2D`, ONNX Pad), or taken away where
/// negative (Keras `Cropping2D`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pad2d {
    /// `[[top, bottom], [left, right]]`.
    pub pads: [[isize; 2]; 2],
}

impl Op for Pad2d {
    fn name(&self) -> &'static str {
        "pad2d"
    }

    fn key(&self) -> String {
        format!("{:?}", self.pads)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let wanted = "f32 pictures (N, h, w, c)";
        let [x] = inputs else {
            return Err(OpError::new("pad2d", wanted, format!("{} inputs", inputs.len()), "pass the pictures"));
        };
        let (4, DType::F32) = (x.shape.rank(), x.dtype) else {
            return Err(OpError::new("pad2d", wanted, x, "reshape to NHWC and convert to f32"));
        };
        let dims = x.shape.dims();
        let side = |n: usize, [before, after]: [isize; 2]| {
            let size = (n as isize).checked_add(before)?.checked_add(after)?;
            usize::try_from(size).ok().filter(|&s| s > 0 && before.min(after) > -(n as isize))
        };
        match (side(dims[1], self.pads[0]), side(dims[2], self.pads[1])) {
            (Some(h), Some(w)) => Ok(vec![TensorType::f32(x.shape.with_row(&[h, w, dims[3]]))]),
            _ => {
                let got = format!("{:?} on {}×{}", self.pads, dims[1], dims[2]);
                Err(OpError::new("pad2d", "a picture that keeps at least one pixel", got, "crop less"))
            }
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let [[top, bottom], [left, right]] = self.pads;
        let &[n, h, w, c] = &inputs[0].shape[..] else { return Vec::new() };
        let (p, q) = (h.saturating_add_signed(top + bottom), w.saturating_add_signed(left + right));
        vec![Array::from_fn([n, p, q, c], |i| {
            let row = (i / (c * q) % p) as isize - top;
            let column = (i / c % q) as isize - left;
            let inside = (0..h as isize).contains(&row) && (0..w as isize).contains(&column);
            let at = ((i / (c * q * p) * h + row.max(0) as usize) * w + column.max(0) as usize) * c + i % c;
            if inside { inputs[0].data[at] } else { 0.0 }
        })]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        _inputs: &[Value],
        _outputs: &[Value],
        dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        let back = Pad2d { pads: self.pads.map(|side| side.map(|n| -n)) };
        Ok(vec![dy[0].map(|dy| g.apply1(back, &[dy])).transpose()?])
    }

    fn lower(&self, io: &Io, _profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let (x, y) = (io.inputs[0].shape.dims(), io.outputs[0].shape.dims());
        let elements = io.outputs[0].shape.elements();
        let constants = [
            ("ELEMENTS", elements.fixed as f64),
            ("PER_SAMPLE", elements.per_sample as f64),
            ("H", x[1] as f64),
            ("W", x[2] as f64),
            ("C", x[3] as f64),
            ("P", y[1] as f64),
            ("Q", y[2] as f64),
            ("TOP", self.pads[0][0] as f64),
            ("LEFT", self.pads[1][0] as f64),
        ];
        let source = include_str!("../../shaders/pad2d.wgsl");
        let slots = vec![Slot::input(0), Slot::output(0)];
        let kernel = kernels::dispatch("pad2d", source, &constants, Grid::new(elements, 64), slots, epilogue);
        vec![Candidate::single("element", kernel)]
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns pictures (N, h, w, c) with `[[top, bottom], [left, right]]` zeros around, or cropped where negative.
    pub fn pad2d(&mut self, x: Value, pads: [[isize; 2]; 2]) -> Result<Value, OpError> {
        self.apply1(Pad2d { pads }, &[x])
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let sizes = [1, 2, 7, 15, 16, 17, 33];
    let (h, w, c) = (rng.pick(&sizes), rng.pick(&sizes), rng.pick(&[1, 3, 4, 7]));
    // At most a third is taken away on each side, so that something stays.
    let mut side = |n: usize| [rng.below(4), rng.below(4)].map(|k| k as isize - (n / 3).min(2) as isize);
    let pads = [side(h), side(w)];
    let capacity = rng.pick(&[1, 2, 5]);
    let n = 1 + rng.below(capacity);
    let x = (TensorType::f32(Shape::from([Batch, h, w, c])), Fill::Uniform(-1.0, 1.0));
    Sample::new(Pad2d { pads }, vec![x], capacity).with_n(n)
}

/// Padding and cropping as a family.
pub static FAMILY: Family = Family {
    name: "pad2d",
    about: "zeros around pictures, or rows and columns taken away (Keras ZeroPadding2D and Cropping2D, ONNX Pad)",
    sample,
    benches: || {
        let x = (TensorType::f32(Shape::from([Batch, 56, 56, 64])), Fill::Uniform(-1.0, 1.0));
        vec![("pad1_n8_c64_56", Sample::new(Pad2d { pads: [[1, 1]; 2] }, vec![x], 8))]
    },
    bad: &[
        Bad {
            what: "a picture cropped to nothing",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.pad2d(x, [[-2, -2], [0, 0]])
            },
        },
        Bad {
            what: "a matrix",
            build: |g| {
                let x = g.input("x", [Batch, 4], DType::F32);
                g.pad2d(x, [[1, 1], [1, 1]])
            },
        },
    ],
    faults: &[
        Fault { what: "swaps top and left", from: "% Q) - LEFT", to: "% Q) - TOP" },
        Fault { what: "reads past the last row", from: "row < i32(H)", to: "row <= i32(H)" },
    ],
    differentiable: true,
    gradcheck: 1e-6,
};
