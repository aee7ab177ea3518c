//! Max pooling over the two picture axes and its gradient. The first of equal values, in row-major order of the
//! window, gets the gradient.

use super::{
    Padding,
    conv2d::{picture, pictures},
    pool2d::{Geometry, Pool2dOptions, any_options},
    window::{lift, lower_rank},
};
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceClass, DeviceProfile, Epilogue, Family, Fault, Field, Fill, Graph, Grid, Io, Op,
        OpError, Sample, Slot, Step, TensorType, Value,
    },
    kernels::{self, Slide},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape, rank},
};
use std::sync::Arc;

/// Returns the index of the first largest value; NaN is the largest.
fn first_maximum(x: &Array, taps: &[usize]) -> usize {
    taps.iter()
        .copied()
        .reduce(|best, tap| if rank(x.data[tap]) > rank(x.data[best]) { tap } else { best })
        .unwrap_or(0)
}

fn lanes(profile: &DeviceProfile) -> u32 {
    match profile.class {
        DeviceClass::Cpu => 256,
        DeviceClass::Gpu => 64,
    }
}

/// Max pooling (Keras `MaxPooling2D`, ONNX MaxPool): (N, h, w, c) → (N, h', w', c).
#[derive(Debug, Clone, PartialEq)]
pub struct MaxPool2d {
    /// The windows.
    pub options: Pool2dOptions,
}

impl MaxPool2d {
    fn out(&self, x: &Array) -> Option<(Geometry, Array)> {
        let geometry = self.options.geometry("max_pool2d", &TensorType::f32(Shape::fixed(x.shape.clone()))).ok()?;
        let y = Array::zeros([x.shape[0], geometry.oh, geometry.ow, geometry.c]);
        Some((geometry, y))
    }
}

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn key(&self) -> String {
        format!("{:?}", self.options)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = inputs else {
            return Err(OpError::new("max_pool2d", "1 input", inputs.len(), "pass the tensor to pool"));
        };
        let g = self.options.geometry("max_pool2d", x)?;
        Ok(vec![TensorType::f32(x.shape.with_row(&[g.oh, g.ow, g.c]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let Some((geometry, mut y)) = self.out(x) else { return Vec::new() };
        geometry.windows(x.shape[0], |window, taps| y.data[window] = x.data[first_maximum(x, taps)]);
        vec![y]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Value],
        outputs: &[Value],
        dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        let Some(dy) = dy[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(MaxPool2dGrad { options: self.options }, &[inputs[0], outputs[0], dy])?)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Ok(geometry) = self.options.geometry(self.name(), &io.inputs[0]) else { return Vec::new() };
        let (width, lanes) = (kernels::width(geometry.c, profile), lanes(profile));
        let items = io.outputs[0].shape.elements().over(width as u64);
        let mut constants = geometry.constants(items, width, lanes);
        constants.push(("PADDED", if geometry.pads == [[0; 2]; 2] { 0.0 } else { 1.0 }));
        let source = kernels::widen(shader!("max_pool2d.wgsl"), width, profile);
        let slots = vec![Slot::input(0), Slot::output(0)];
        let [kh, kw] = self.options.pool;
        let turns = Count { fixed: (kh * (kw + 1)) as u64, per_sample: 0 };
        let dispatch = kernels::dispatch(self.name(), &source, &constants, Grid::new(items, lanes), slots, epilogue);
        let each = Candidate::single(format!("width{width}"), dispatch.turns(turns, 1));
        if !geometry.overlaps() || !geometry.unrolls() {
            return vec![each];
        }
        let window = geometry.window(self.name(), false, pictures(&io.inputs[0].shape));
        vec![kernels::slide(&window, Slide::Largest, profile, epilogue), each]
    }

    fn with_padding(&self, pads: [[usize; 2]; 2], positive: bool) -> Option<Arc<dyn Op>> {
        let padding = self.options.padding.and(pads)?;
        // Every window sees a pixel, which is no smaller than a zero.
        let Padding::Explicit(sides) = padding else { return None };
        let seen = sides.iter().zip(self.options.pool).all(|(side, n)| side.iter().all(|&p| p < n));
        (positive && seen).then(|| Arc::new(MaxPool2d { options: Pool2dOptions { padding, ..self.options } }) as _)
    }

    fn field(&self, _io: &Io) -> Field {
        Field::Window { extent: self.options.pool, strides: self.options.strides }
    }

    fn cost(&self, io: &Io) -> Cost {
        let taps = (self.options.pool[0] * self.options.pool[1]) as u64;
        Cost { flops: io.outputs[0].shape.elements().times(taps), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Exact]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

/// Gradient of max pooling to its input, from the input, the output and the gradient to the output.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxPool2dGrad {
    /// The windows.
    pub options: Pool2dOptions,
}

impl Op for MaxPool2dGrad {
    fn name(&self) -> &'static str {
        "max_pool2d_grad"
    }

    fn key(&self) -> String {
        format!("{:?}", self.options)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, y, dy] = inputs else {
            return Err(OpError::new(self.name(), "3 inputs", inputs.len(), "pass x, y and dy"));
        };
        let g = self.options.geometry(self.name(), x)?;
        let wanted = TensorType::f32(x.shape.with_row(&[g.oh, g.ow, g.c]));
        match [y, dy].into_iter().find(|t| **t != wanted) {
            None => Ok(vec![x.clone()]),
            Some(got) => {
                Err(OpError::new(self.name(), wanted.to_string(), got, "y and dy have the shape of the pooled x"))
            }
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (x, dy) = (inputs[0], inputs[2]);
        let Some((geometry, _)) = (MaxPool2d { options: self.options }).out(x) else { return Vec::new() };
        let mut dx = Array::zeros(x.shape.clone());
        geometry.windows(x.shape[0], |window, taps| dx.data[first_maximum(x, taps)] += dy.data[window]);
        vec![dx]
    }

    fn vjp(
        &self,
        _g: &mut Graph,
        _inputs: &[Value],
        _outputs: &[Value],
        _dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        Err(OpError::first_order(self.name()))
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let x = &io.inputs[0];
        let Ok(geometry) = self.options.geometry(self.name(), x) else { return Vec::new() };
        let (width, lanes) = (kernels::width(geometry.c, profile), lanes(profile));
        let mut candidates = Vec::new();
        // A lane keeps its cell in registers.
        if !geometry.overlaps() && geometry.strides[0] * geometry.strides[1] <= 64 {
            let cells = [
                (geometry.h + geometry.top).div_ceil(geometry.strides[0]).max(geometry.oh),
                (geometry.w + geometry.left).div_ceil(geometry.strides[1]).max(geometry.ow),
            ];
            let items = x.shape.with_row(&[cells[0], cells[1], geometry.c / width]).elements();
            let [sh, sw] = geometry.strides;
            let whole = geometry.pads == [[0; 2]; 2]
                && [geometry.oh * sh, geometry.ow * sw] == [geometry.h, geometry.w]
                && cells == [geometry.oh, geometry.ow];
            let mut constants = geometry.constants(items, width, lanes);
            constants.extend([("CH", cells[0] as f64), ("CW", cells[1] as f64)]);
            constants.push(("WHOLE", f64::from(u8::from(whole))));
            let source = kernels::widen(shader!("max_pool2d_grad_cells.wgsl"), width, profile)
                .replace("const CELL = 4u;", &format!("const CELL = {}u;", sh * sw));
            let slots = vec![Slot::input(0), Slot::input(2), Slot::output(0)];
            let grid = Grid::new(items, lanes);
            let dispatch = kernels::dispatch("max_pool2d_grad_cells", &source, &constants, grid, slots, epilogue);
            candidates.push(Candidate::single(format!("cells_width{width}"), dispatch));
        }
        if geometry.overlaps() && geometry.unrolls() && profile.long_texts() {
            let window = geometry.window(self.name(), true, pictures(&x.shape));
            candidates.push(kernels::largest_back(&window, profile, epilogue));
        }
        let items = x.shape.elements().over(width as u64);
        let source = kernels::widen(shader!("max_pool2d_grad.wgsl"), width, profile);
        let slots = vec![Slot::input(0), Slot::input(1), Slot::input(2), Slot::output(0)];
        let constants = geometry.constants(items, width, lanes);
        let Pool2dOptions { pool, strides, .. } = self.options;
        let windows = pool[0].div_ceil(strides[0]) * pool[1].div_ceil(strides[1]);
        let turns = Count { fixed: (windows * (pool[0] * pool[1] + 2)) as u64, per_sample: 0 };
        let dispatch = kernels::dispatch(self.name(), &source, &constants, Grid::new(items, lanes), slots, epilogue);
        let dispatch = dispatch.turns(turns, 1);
        candidates.push(Candidate::single(format!("gather_width{width}"), dispatch));
        candidates
    }

    fn cost(&self, io: &Io) -> Cost {
        let taps = (self.options.pool[0] * self.options.pool[1]) as u64;
        Cost { flops: io.inputs[2].shape.elements().times(taps), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        let Pool2dOptions { pool, strides, .. } = self.options;
        let terms = pool[0].div_ceil(strides[0]) * pool[1].div_ceil(strides[1]);
        vec![if terms == 1 { Accuracy::Exact } else { Accuracy::Products { terms: terms as u64 } }]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let accuracy = self.accuracy(io, step.n)[0];
        let magnitudes = self.reference(&[inputs[0], inputs[1], &inputs[2].map(f64::abs)], step);
        (exact.iter().zip(&magnitudes))
            .map(|(e, m)| Array::from_fn(e.shape.clone(), |i| accuracy.bound(&[], e.data[i], m.data[i])))
            .collect()
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns the largest value of each window of `x` (N, h, w, c), as (N, h', w', c).
    ///
    /// ```
    /// use hubel::{ops::Pool2dOptions, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 28, 28, 6], F32);
    /// let y = g.max_pool2d(x, Pool2dOptions::new(2))?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn max_pool2d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        self.apply1(MaxPool2d { options }, &[x])
    }

    /// Returns the largest value of each window of rows `x` (N, l, c), as (N, l', c); of the options, those along the
    /// width count.
    pub fn max_pool1d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        let x = lift(self, "max_pool1d", x)?;
        let y = self.max_pool2d(x, options.across())?;
        lower_rank(self, y)
    }

    /// Returns the largest value of each channel of pictures `x` (N, h, w, c), as (N, c) (Keras
    /// GlobalMaxPooling2D); equal values share their gradient.
    pub fn global_max_pool2d(&mut self, x: Value) -> Result<Value, OpError> {
        picture("global_max_pool2d", "pictures", self.ty(x))?;
        self.max_axes(x, &[1, 2], false)
    }
}

fn sample(rng: &mut Philox) -> Sample {
    let (options, x, capacity, n) = any_options(rng);
    Sample::new(MaxPool2d { options }, vec![(TensorType::f32(x), Fill::Distinct)], capacity).with_n(n)
}

fn sample_grad(rng: &mut Philox) -> Sample {
    let (mut options, mut x, capacity, n) = any_options(rng);
    if rng.below(8) == 0 {
        (options.pool, options.strides, x) = ([9, 8], [3, 2], [Batch, 16, 17, rng.pick(&[1, 6, 8])]);
    }
    grad_sample(options, x, capacity, if rng.below(3) == 0 { Fill::Index(4) } else { Fill::Distinct }).with_n(n)
}

fn grad_sample(options: Pool2dOptions, x: [usize; 4], capacity: usize, fill: Fill) -> Sample {
    let x = TensorType::f32(x);
    let forward = MaxPool2d { options };
    let y =
        forward.infer(std::slice::from_ref(&x)).ok().and_then(|t| t.into_iter().next()).unwrap_or_else(|| x.clone());
    let inputs = vec![(x, fill), (y.clone(), Fill::Distinct), (y, Fill::Uniform(-1.0, 1.0))];
    Sample::new(MaxPool2dGrad { options }, inputs, capacity).derived(1, forward)
}

fn benches() -> Vec<(&'static str, Sample)> {
    let pool = |options, shape, n| {
        Sample::new(MaxPool2d { options }, vec![(TensorType::f32(shape), Fill::Uniform(-1.0, 1.0))], n)
    };
    vec![
        ("maxpool2_n8_c64_112", pool(Pool2dOptions::new(2), [Batch, 112, 112, 64], 8)),
        ("maxpool2_n64_c6_28", pool(Pool2dOptions::new(2), [Batch, 28, 28, 6], 64)),
        (
            "maxpool3s2_n8_c64_112",
            pool(Pool2dOptions::new(3).strides(2).padding(Padding::Same), [Batch, 112, 112, 64], 8),
        ),
    ]
}

fn benches_grad() -> Vec<(&'static str, Sample)> {
    let pool = |options, shape, n| grad_sample(options, shape, n, Fill::Uniform(-1.0, 1.0));
    vec![
        ("maxpool2_grad_n8_c64_112", pool(Pool2dOptions::new(2), [Batch, 112, 112, 64], 8)),
        ("maxpool2_grad_n64_c6_28", pool(Pool2dOptions::new(2), [Batch, 28, 28, 6], 64)),
        (
            "maxpool3s2_grad_n8_c64_112",
            pool(Pool2dOptions::new(3).strides(2).padding(Padding::Same), [Batch, 112, 112, 64], 8),
        ),
    ]
}

/// Max pooling as a family.
pub static FAMILY: Family = Family {
    name: "max_pool2d",
    about: "the largest value of each window, padding never wins, NaN always does (Keras MaxPooling2D, ONNX MaxPool)",
    sample,
    benches,
    bad: &[
        Bad {
            what: "a window larger than the picture",
            build: |g| {
                let x = g.input("x", [Batch, 2, 5, 1], DType::F32);
                g.max_pool2d(x, Pool2dOptions::new(3))
            },
        },
        Bad {
            what: "a stride of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.max_pool2d(x, Pool2dOptions::new(2).strides(0))
            },
        },
        Bad {
            what: "a window of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.max_pool2d(x, Pool2dOptions::new(0).strides(1))
            },
        },
        Bad {
            what: "padding as large as the window",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                g.max_pool2d(x, Pool2dOptions::new(2).padding(Padding::Explicit([[2, 0], [0, 0]])))
            },
        },
        Bad {
            what: "a tensor that is no picture",
            build: |g| {
                let x = g.input("x", [Batch, 4], DType::F32);
                g.max_pool2d(x, Pool2dOptions::new(2))
            },
        },
        Bad {
            what: "bytes",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::U8);
                g.max_pool2d(x, Pool2dOptions::new(2))
            },
        },
    ],
    faults: &[
        Fault { what: "drops the last column of taps", from: "kw < KW;", to: "kw + 1u < KW;" },
        Fault { what: "swaps the strides", from: "p * SH + kh", to: "p * SW + kh" },
        Fault { what: "starts at zero", from: "best = of_rank(I(LOWEST))", to: "best = V(0.0)" },
        Fault { what: "shifts a column of a strip", from: "u32(line0 + 0)", to: "u32(line0 + 1)" },
        Fault { what: "drops the last row of a strip", from: "t < end_t", to: "t + 1u < end_t" },
        Fault { what: "shifts a row of a strip", from: "row_in + i32(t", to: "row_in + 1 + i32(t" },
        Fault { what: "skips the last strip", from: "item >= items", to: "item + 1u >= items" },
        Fault { what: "skips the last tile", from: "* step.n) { return; }", to: "* step.n - 1u) { return; }" },
    ],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of max pooling as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "max_pool2d_grad",
    about: "gradient of max_pool2d to its input; the first of equal values in row-major order gets it, or the first NaN",
    sample: sample_grad,
    benches: benches_grad,
    bad: &[Bad {
        what: "a gradient of another shape than the output",
        build: |g| {
            let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
            let options = Pool2dOptions::new(2);
            let y = g.max_pool2d(x, options)?;
            g.apply1(MaxPool2dGrad { options }, &[x, y, x])
        },
    }],
    faults: &[
        Fault { what: "drops the last row of a strip", from: "t < end_t", to: "t + 1u < end_t" },
        Fault { what: "skips the last strip", from: "item >= items", to: "item + 1u >= items" },
        Fault { what: "the last maximum of a strip wins", from: " > best", to: " >= best" },
        Fault { what: "shifts a row of a strip", from: "(row_in + i32(t)) *", to: "(row_in + 1 + i32(t)) *" },
        Fault { what: "the last maximum wins", from: "order > best)", to: "order >= best)" },
        Fault { what: "every maximum wins", from: "t < taps;", to: "t < 0u;" },
        Fault { what: "misses the first window", from: "/ s + 1u, at >= k)", to: "/ s + 2u, at >= k)" },
        Fault { what: "shifts a tap", from: "V(f32(kh * SW + kw)), order", to: "V(f32(kh * SW + kw + 1u)), order" },
    ],
    differentiable: false,
    gradcheck: 1e-6,
};
