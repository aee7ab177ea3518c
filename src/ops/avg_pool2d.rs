//! Average pooling over the two picture axes and its gradient.

use super::{
    conv2d::{ANY, picture, pictures},
    pool2d::{Geometry, Pool2dOptions, any_options},
    window::{lift, lower_rank},
};
use crate::kernels::shader;
use crate::{
    graph::{
        Bad, Candidate, Cost, DeviceProfile, Epilogue, Family, Fault, Field, Graph, Grid, Io, Op, OpError, Sample,
        Slot, Step, TensorType, Value,
    },
    kernels::{self, Slide},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape},
};

/// Average pooling (Keras `AveragePooling2D`, ONNX AveragePool): (N, h, w, c) → (N, h', w', c), the sum over each
/// window divided by the number of its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct AvgPool2d {
    /// The windows.
    pub options: Pool2dOptions,
    /// Whether pixels outside the picture count, as zeros (ONNX `count_include_pad`); in Keras they do not.
    pub include_padding: bool,
}

/// Gradient of average pooling to its input: (N, h', w', c) → (N, h, w, c).
#[derive(Debug, Clone, PartialEq)]
pub struct AvgPool2dGrad {
    /// The pooling.
    pub pool: AvgPool2d,
    /// Height and width of its input.
    pub input: [usize; 2],
}

impl AvgPool2d {
    fn slide(&self) -> Slide {
        Slide::Average { padding: self.include_padding }
    }

    /// Returns what a window of so many taps inside the picture is divided by.
    fn count(&self, taps: usize) -> f64 {
        (if self.include_padding { self.options.pool[0] * self.options.pool[1] } else { taps }) as f64
    }

    fn terms(&self, transposed: bool) -> u64 {
        let Pool2dOptions { pool: [kh, kw], strides: [sh, sw], .. } = self.options;
        (if transposed { kh.div_ceil(sh) * kw.div_ceil(sw) } else { kh * kw }) as u64
    }
}

impl AvgPool2d {
    fn candidates(
        &self,
        g: &Geometry,
        io: &Io,
        transposed: bool,
        profile: &DeviceProfile,
        epilogue: Option<&Epilogue>,
    ) -> Vec<Candidate> {
        let (name, source) = if transposed {
            ("avg_pool2d_grad", shader!("avg_pool2d_grad.wgsl"))
        } else {
            ("avg_pool2d", shader!("avg_pool2d.wgsl"))
        };
        let (width, lanes) = (kernels::width(g.c, profile), 64);
        let items = io.outputs[0].shape.elements().over(width as u64);
        let mut constants = g.constants(items, width, lanes);
        constants.push(("PADDING", f64::from(u8::from(self.include_padding))));
        let slots = vec![Slot::input(0), Slot::output(0)];
        let source = kernels::widen(source, width, profile);
        let each = kernels::dispatch(name, &source, &constants, Grid::new(items, lanes), slots, epilogue);
        let turns = Count { fixed: self.terms(transposed) + self.options.pool[0] as u64, per_sample: 0 };
        let each = Candidate::single(format!("width{width}"), each.turns(turns, 1));
        let strips = || {
            let window = g.window(name, transposed, pictures(&io.inputs[0].shape));
            kernels::slide(&window, self.slide(), profile, epilogue)
        };
        if g.unrolls() { vec![strips(), each] } else { vec![each] }
    }
}

impl Op for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn key(&self) -> String {
        format!("{:?}{}", self.options, if self.include_padding { " include_padding" } else { "" })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = inputs else {
            return Err(OpError::new(self.name(), "1 input", inputs.len(), "pass the tensor to pool"));
        };
        let g = self.options.geometry(self.name(), x)?;
        Ok(vec![TensorType::f32(x.shape.with_row(&[g.oh, g.ow, g.c]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let Ok(g) = self.options.geometry(self.name(), &TensorType::f32(Shape::fixed(x.shape.clone()))) else {
            return Vec::new();
        };
        let mut y = Array::zeros([x.shape[0], g.oh, g.ow, g.c]);
        g.windows(x.shape[0], |window, taps| {
            y.data[window] = taps.iter().map(|&tap| x.data[tap]).sum::<f64>() / self.count(taps.len());
        });
        vec![y]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Value],
        _outputs: &[Value],
        dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        let Some(dy) = dy[0] else { return Ok(vec![None]) };
        let [h, w, _] = picture(self.name(), "pictures", g.ty(inputs[0]))?;
        Ok(vec![Some(g.apply1(AvgPool2dGrad { pool: self.clone(), input: [h, w] }, &[dy])?)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Ok(g) = self.options.geometry(self.name(), &io.inputs[0]) else { return Vec::new() };
        self.candidates(&g, io, false, profile, epilogue)
    }

    fn field(&self, _io: &Io) -> Field {
        Field::Window { extent: self.options.pool, strides: self.options.strides }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].shape.elements().times(self.terms(false)), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Products { terms: self.terms(false) }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl AvgPool2dGrad {
    fn geometry(&self, dy: &Shape) -> Result<Geometry, OpError> {
        let [h, w] = self.input;
        self.pool.options.geometry(self.name(), &TensorType::f32(dy.with_row(&[h, w, dy.last()])))
    }
}

impl Op for AvgPool2dGrad {
    fn name(&self) -> &'static str {
        "avg_pool2d_grad"
    }

    fn key(&self) -> String {
        format!("{} input={:?}", self.pool.key(), self.input)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [dy] = inputs else {
            return Err(OpError::new(self.name(), "1 input", inputs.len(), "pass the gradient to the result"));
        };
        let [p, q, c] = picture(self.name(), "the gradient to the result", dy)?;
        let g = self.geometry(&dy.shape)?;
        if [p, q] != [g.oh, g.ow] {
            let wanted = format!("a gradient of {}×{} pixels", g.oh, g.ow);
            return Err(OpError::new(self.name(), wanted, &dy.shape, "pass the gradient to the result"));
        }
        Ok(vec![TensorType::f32(dy.shape.with_row(&[g.h, g.w, c]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let dy = inputs[0];
        let Ok(g) = self.geometry(&Shape::fixed(dy.shape.clone())) else { return Vec::new() };
        let mut dx = Array::zeros([dy.shape[0], g.h, g.w, g.c]);
        g.windows(dy.shape[0], |window, taps| {
            let share = dy.data[window] / self.pool.count(taps.len());
            taps.iter().for_each(|&tap| dx.data[tap] += share);
        });
        vec![dx]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        _inputs: &[Value],
        _outputs: &[Value],
        dy: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, OpError> {
        let Some(d) = dy[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(self.pool.clone(), &[d])?)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Ok(g) = self.geometry(&io.inputs[0].shape) else { return Vec::new() };
        self.pool.candidates(&g, io, true, profile, epilogue)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].shape.elements().times(self.pool.terms(true)), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        vec![Accuracy::Products { terms: self.pool.terms(true) }]
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Graph {
    /// Returns the average of each window of `x` (N, h, w, c), as (N, h', w', c); pixels outside the picture do not
    /// count (Keras).
    ///
    /// ```
    /// use hubel::{ops::Pool2dOptions, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 28, 28, 6], F32);
    /// let y = g.avg_pool2d(x, Pool2dOptions::new(2))?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 14, 14, 6)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn avg_pool2d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        self.apply1(AvgPool2d { options, include_padding: false }, &[x])
    }

    /// Returns the average of each window of rows `x` (N, l, c), as (N, l', c); of the options, those along the width
    /// count.
    pub fn avg_pool1d(&mut self, x: Value, options: Pool2dOptions) -> Result<Value, OpError> {
        let x = lift(self, "avg_pool1d", x)?;
        let y = self.avg_pool2d(x, options.across())?;
        lower_rank(self, y)
    }

    /// Returns the average of each channel of pictures `x` (N, h, w, c), as (N, c) (Keras GlobalAveragePooling2D).
    pub fn global_avg_pool2d(&mut self, x: Value) -> Result<Value, OpError> {
        picture("global_avg_pool2d", "pictures", self.ty(x))?;
        self.mean_axes(x, &[1, 2], false)
    }
}

fn of(pool: AvgPool2d, x: [usize; 4], capacity: usize) -> Sample {
    Sample::new(pool, vec![(TensorType::f32(x), ANY)], capacity)
}

fn grad_of(pool: AvgPool2d, x: [usize; 4], capacity: usize) -> Sample {
    let x = TensorType::f32(x);
    let y = pool.infer(std::slice::from_ref(&x)).map_or_else(|_| x.clone(), |mut y| y.swap_remove(0));
    let input = [x.shape.dims()[1], x.shape.dims()[2]];
    Sample::new(AvgPool2dGrad { pool, input }, vec![(y, ANY)], capacity)
}

fn random(rng: &mut Philox, of: fn(AvgPool2d, [usize; 4], usize) -> Sample) -> Sample {
    let (mut options, mut x, capacity, n) = any_options(rng);
    if rng.below(8) == 0 {
        (options.pool, x) = ([9, 8], [Batch, 16, 17, rng.pick(&[1, 6, 8])]);
    }
    of(AvgPool2d { options, include_padding: rng.below(2) == 1 }, x, capacity).with_n(n)
}

fn benches(of: fn(AvgPool2d, [usize; 4], usize) -> Sample) -> Vec<(&'static str, Sample)> {
    let keras = |options| AvgPool2d { options, include_padding: false };
    let overlapping = Pool2dOptions::new(3).strides(2).padding(super::Padding::Same);
    vec![
        ("avgpool2_n8_c64_112", of(keras(Pool2dOptions::new(2)), [Batch, 112, 112, 64], 8)),
        ("avgpool3s2_n8_c64_112", of(keras(overlapping), [Batch, 112, 112, 64], 8)),
    ]
}

const FAULTS: &[Fault] = &[
    Fault { what: "drops the last row of a strip", from: "t < end_t", to: "t + 1u < end_t" },
    Fault { what: "shifts a row of a strip", from: "row_in + i32(t", to: "row_in + 1 + i32(t" },
    Fault { what: "skips the last strip", from: "item >= items", to: "item + 1u >= items" },
    Fault { what: "counts a pixel outside", from: ") - max(", to: ") + 1 - max(" },
    Fault { what: "skips the last result", from: "* step.n) { return; }", to: "* step.n - 1u) { return; }" },
    Fault { what: "drops the last column of a window", from: "w < end_w;", to: "w + 1u < end_w;" },
];

const FAULTS_GRAD: &[Fault] = &[
    Fault { what: "drops the last row of a strip", from: "t < end_t", to: "t + 1u < end_t" },
    Fault { what: "shifts a row of a strip", from: "row_in + i32(t", to: "row_in + 1 + i32(t" },
    Fault { what: "skips the last strip", from: "item >= items", to: "item + 1u >= items" },
    Fault { what: "counts a pixel outside", from: ") - max(", to: ") + 1 - max(" },
    Fault { what: "skips the last result", from: "* step.n) { return; }", to: "* step.n - 1u) { return; }" },
    Fault { what: "drops the last column of windows", from: "q < end_q;", to: "q + 1u < end_q;" },
];

/// Average pooling as a family.
pub static FAMILY: Family = Family {
    name: "avg_pool2d",
    about: "the average of each window, padding counted or not (Keras AveragePooling2D, ONNX AveragePool)",
    sample: |rng| random(rng, of),
    benches: || benches(of),
    bad: &[
        Bad {
            what: "a window larger than the picture",
            build: |g| {
                let x = g.input("x", [Batch, 2, 5, 1], DType::F32);
                g.avg_pool2d(x, Pool2dOptions::new(3))
            },
        },
        Bad {
            what: "a stride of 0",
            build: |g| {
                let x = g.input("x", [Batch, 4, 1], DType::F32);
                g.avg_pool1d(x, Pool2dOptions::new(2).strides(0))
            },
        },
        Bad {
            what: "rows as pictures",
            build: |g| {
                let x = g.input("x", [Batch, 4, 1], DType::F32);
                g.global_avg_pool2d(x)
            },
        },
    ],
    faults: FAULTS,
    differentiable: true,
    gradcheck: 1e-6,
};

/// The gradient of average pooling as a family.
pub static FAMILY_GRAD: Family = Family {
    name: "avg_pool2d_grad",
    about: "gradient of avg_pool2d to its input",
    sample: |rng| random(rng, grad_of),
    benches: || benches(grad_of),
    bad: &[Bad {
        what: "a gradient of another size",
        build: |g| {
            let dy = g.input("dy", [Batch, 3, 2, 1], DType::F32);
            let pool = AvgPool2d { options: Pool2dOptions::new(2), include_padding: false };
            g.apply1(AvgPool2dGrad { pool, input: [4, 4] }, &[dy])
        },
    }],
    faults: FAULTS_GRAD,
    differentiable: true,
    gradcheck: 1e-6,
};
