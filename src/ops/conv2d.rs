//! Two-dimensional convolution (cross-correlation) of NHWC images, and its geometry.

use super::{
    arity::arity,
    matmul::io_bytes,
    pad2d::zero_padded_input,
    window::{Padding, lift, lift_weights, lower_rank},
};
use crate::{
    graph::{
        Bad, Candidate, Cost, Declined, DeviceProfile, Epilogue, Family, Field, Fill, Gradients, Graph, Io, Op,
        OpError, Patch, RewriteCx, Sample, Step, TensorType, Value,
    },
    kernels::gemm::{self, Window},
    tensor::{Accuracy, Array, Batch, Count, DType, Philox, Shape},
};
use rayon::prelude::*;

/// How a kernel slides over an image.
///
/// ```
/// use hubel::ops::{Conv2dOptions, Padding};
/// let options = Conv2dOptions::same().strides([2, 2]);
/// assert_eq!(options.padding, Padding::Same);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    /// Steps down and to the right.
    pub strides: [usize; 2],
    /// How the image is extended by zeros.
    pub padding: Padding,
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels, each convolved alone; as many as channels is a depthwise convolution.
    pub groups: usize,
}

impl Conv2dOptions {
    /// Returns a convolution of stride 1 with this padding.
    pub fn new(padding: Padding) -> Self {
        Conv2dOptions { strides: [1, 1], padding, dilation: [1, 1], groups: 1 }
    }

    /// Returns a convolution of stride 1 without padding.
    pub fn valid() -> Self {
        Self::new(Padding::Valid)
    }

    /// Returns a convolution of stride 1 with a result as large as the image.
    pub fn same() -> Self {
        Self::new(Padding::Same)
    }

    /// Returns a convolution of stride 1 with `[[top, bottom], [left, right]]` rows and columns of zeros.
    pub fn explicit(pads: [[usize; 2]; 2]) -> Self {
        Self::new(Padding::Explicit(pads))
    }

    /// Returns the convolution with these steps.
    pub fn strides(mut self, strides: [usize; 2]) -> Self {
        self.strides = strides;
        self
    }

    /// Returns the convolution with this distance of neighbouring taps.
    pub fn dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// Returns what of it concerns the width, for images of height 1.
    pub(super) fn across(self) -> Self {
        let Conv2dOptions { strides: [_, s], padding, dilation: [_, d], groups } = self;
        Conv2dOptions { strides: [1, s], padding: padding.across(), dilation: [1, d], groups }
    }

    /// Returns the convolution of so many groups of channels, each with filters of its own.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }
}

/// The sizes around a convolution, all explicit; index 0 is height, 1 is width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Size of the image.
    pub input: [usize; 2],
    /// Taps of the kernel.
    pub kernel: [usize; 2],
    /// Steps.
    pub strides: [usize; 2],
    /// Zeros before and behind.
    pub pads: [[usize; 2]; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Size of the result.
    pub output: [usize; 2],
    /// Groups of channels, each convolved alone.
    pub groups: usize,
}

/// The taps of a depthwise convolution up to which a lane has registers for what it computes of an input.
const MAX_COMPUTED: usize = 9;

impl Geometry {
    /// Returns whether kernels compute elementwise inputs as they load them, of images and results of so many channels. What others read
    /// they would compute once for each of their taps.
    pub(super) fn computes_loads(&self, channels: [usize; 2]) -> bool {
        let depthwise = self.groups > 1 && channels == [self.groups; 2];
        self.kernel == [1, 1] || (depthwise && self.kernel[0] * self.kernel[1] <= MAX_COMPUTED)
    }

    /// Returns the sizes of a convolution, or `None` where a stride is 0 or the kernel does not fit.
    pub fn new(input: [usize; 2], kernel: [usize; 2], options: Conv2dOptions) -> Option<Self> {
        let Conv2dOptions { strides, padding, dilation, groups } = options;
        let extent = |axis: usize| kernel[axis].checked_sub(1)?.checked_mul(dilation[axis])?.checked_add(1);
        if dilation.contains(&0) || groups == 0 {
            return None;
        }
        let (pads, output) = padding.resolve(input, [extent(0)?, extent(1)?], strides)?;
        Some(Geometry { input, kernel, strides, pads, dilation, output, groups })
    }

    /// Returns the options that give these sizes.
    pub fn options(&self) -> Conv2dOptions {
        let Geometry { strides, pads, dilation, groups, .. } = *self;
        Conv2dOptions { strides, padding: Padding::Explicit(pads), dilation, groups }
    }

    /// Returns the sizes of the same convolution of images without so many pixels at each side, which are zeros, or `None` where a
    /// pixel that is none would be cut off.
    pub(super) fn without_edges(&self, edges: [[usize; 2]; 2]) -> Option<Self> {
        let mut inner = *self;
        for axis in [0, 1] {
            let [before, after] = edges[axis];
            inner.input[axis] = self.input[axis].checked_sub(before + after).filter(|&n| n > 0)?;
            inner.pads[axis] = [self.pads[axis][0] + before, self.pads[axis][1] + after];
        }
        Some(inner)
    }

    /// Returns the input position under a tap of an output position, along an axis.
    pub(super) fn tap(&self, axis: usize, out: usize, tap: usize) -> Option<usize> {
        let at = (out * self.strides[axis] + tap * self.dilation[axis]).checked_sub(self.pads[axis][0])?;
        (at < self.input[axis]).then_some(at)
    }

    /// Returns how many elements of images of this shape the kernel meets at most: strides may pass over pixels.
    pub(super) fn met(&self, images: &Shape) -> Count {
        let pixels = |axis: usize| self.output[axis].saturating_mul(self.kernel[axis]).min(self.input[axis]);
        let all = images.elements();
        let [met, of] = [pixels(0) * pixels(1), self.input[0] * self.input[1]].map(|n| n.max(1) as u64);
        all.times(met).over(of)
    }

    pub(super) fn key(&self) -> String {
        let Geometry { kernel, strides, pads, dilation, input, groups, .. } = self;
        format!(
            "kernel={kernel:?} strides={strides:?} pads={pads:?} dilation={dilation:?} groups={groups} input={input:?}"
        )
    }
}

/// Convolution (ONNX Conv, Keras Conv2D without bias): x (N, H, W, C), w (R, S, C / groups, K) → (N, P, Q, K),
/// `y[n, p, q, k] = Σ x[n, p·sh + r·dh − top, q·sw + s·dw − left, first(k) + c] · w[r, s, c, k]`, where `first(k)` is
/// the first channel of the group of k: ⌊k · groups / K⌋ · C / groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// How the kernel slides.
    pub options: Conv2dOptions,
}

/// Returns the axes after the first of an image type.
pub(super) fn image(op: &str, what: &str, t: &TensorType) -> Result<[usize; 3], OpError> {
    match (t.shape.dims(), t.dtype) {
        (&[_, h, w, c], DType::F32) => Ok([h, w, c]),
        _ => Err(OpError::new(op, format!("{what} as f32 (N, height, width, channels)"), t, "reshape or convert it")),
    }
}

pub(super) fn kernel(op: &str, what: &str, t: &TensorType) -> Result<[usize; 4], OpError> {
    match (t.shape.dims(), t.dtype, t.shape.is_batched()) {
        (&[r, s, c, k], DType::F32, false) => Ok([r, s, c, k]),
        _ => Err(OpError::new(op, format!("{what} as f32 (height, width, in, out)"), t, "reshape or convert it")),
    }
}

impl Conv2d {
    fn geometry(&self, x: &[usize], w: &[usize]) -> Option<Geometry> {
        Geometry::new([x[1], x[2]], [w[0], w[1]], self.options)
    }
}

impl Conv2d {
    /// Returns the window that slides over the images, where it fits.
    fn window(&self, io: &Io) -> Option<Window> {
        let (x, w) = (&io.inputs[0].shape, io.inputs[1].shape.dims());
        let geometry = self.geometry(x.dims(), w)?;
        Some(Window {
            name: "conv2d",
            transposed: false,
            from: geometry.input,
            to: geometry.output,
            from_channels: x.last(),
            to_channels: w[3],
            kernel: geometry.kernel,
            strides: geometry.strides,
            pads: [geometry.pads[0][0], geometry.pads[1][0]],
            dilation: geometry.dilation,
            groups: geometry.groups,
            images: images(x),
        })
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn key(&self) -> String {
        let Conv2dOptions { strides, padding, dilation, groups } = self.options;
        format!("strides={strides:?} padding={padding:?} dilation={dilation:?} groups={groups}")
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, w] = arity("conv2d", inputs, "pass images and weights")?;
        let [h, width, c] = image("conv2d", "images", x)?;
        let [r, s, ic, oc] = kernel("conv2d", "weights", w)?;
        let groups = self.options.groups;
        if groups == 0 || c != ic * groups || oc % groups != 0 {
            let advice = "give the weights the channels of one group of the image, and as many filters for each";
            return Err(OpError::new(
                "conv2d",
                format!("weights for {groups} groups of {c} channels"),
                &w.shape,
                advice,
            ));
        }
        let geometry = Geometry::new([h, width], [r, s], self.options).ok_or_else(|| {
            let wanted = format!("strides and dilation from 1 to 2²⁴ and a padded image that the {r}×{s} taps fit in");
            let got = format!("{h}×{width} with {}", self.key());
            OpError::new("conv2d", wanted, got, "pad the image or take a smaller kernel")
        })?;
        let [p, q] = geometry.output;
        Ok(vec![TensorType::f32(x.shape.with_row(&[p, q, oc]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (x, w) = (inputs[0], inputs[1]);
        let Some(geometry) = self.geometry(&x.shape, &w.shape) else { return Vec::new() };
        let [n, h, width, c] = [x.shape[0], x.shape[1], x.shape[2], x.shape[3]];
        let (k, group) = (w.shape[3], w.shape[2]);
        let per_group = k / geometry.groups;
        let [p, q] = geometry.output;
        let [r, s] = geometry.kernel;
        let mut y = Array::zeros([n, p, q, k]);
        y.data.par_chunks_mut((q * k).max(1)).enumerate().for_each(|(row, y)| {
            let (image, row) = (&x.data[row / p * h * width * c..], row % p);
            for (at, y) in y.chunks_mut(k).enumerate() {
                for i in 0..r {
                    let Some(ih) = geometry.tap(0, row, i) else { continue };
                    for j in 0..s {
                        let Some(iw) = geometry.tap(1, at, j) else { continue };
                        let x = &image[(ih * width + iw) * c..][..c];
                        let w = &w.data[(i * s + j) * group * k..][..group * k];
                        for (c, &x) in x.iter().enumerate() {
                            let first = c / group * per_group;
                            let w = &w[c % group * k + first..][..per_group];
                            y[first..].iter_mut().zip(w).for_each(|(y, &w)| *y += x * w);
                        }
                    }
                }
            }
        });
        vec![y]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(dy) = dy[0] else { return Ok(vec![None, None]) };
        let (x, w) = (inputs[0], inputs[1]);
        let Some(geometry) = self.geometry(g.shape(x).dims(), g.shape(w).dims()) else { return Ok(vec![None, None]) };
        Ok(g.conv2d_gradients(geometry, [x, w, dy])?.map(Some).to_vec())
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        self.window(io).map(|window| gemm::window(&window, profile, epilogue)).unwrap_or_default()
    }

    fn declines(&self, io: &Io, profile: &DeviceProfile) -> Vec<Declined> {
        self.window(io).map(|window| gemm::window_declines(&window, profile)).unwrap_or_default()
    }

    fn rewrite(&self, cx: &RewriteCx) -> Option<Patch> {
        let (x, zeros) = zero_padded_input(cx)?;
        let options = Conv2dOptions { padding: self.options.padding.and(zeros)?, ..self.options };
        cx.patch(Conv2d { options }, &[x, cx.node().inputs[1]], &[cx.output(0)])
    }

    fn read(&self, io: &Io, input: usize) -> Count {
        let images = &io.inputs[0].shape;
        match self.geometry(images.dims(), io.inputs[1].shape.dims()) {
            Some(geometry) if input == 0 => geometry.met(images),
            _ => io.inputs[input].shape.elements(),
        }
    }

    fn macs(&self, io: &Io) -> Count {
        self.cost(io).flops.over(2)
    }

    fn meets_zeros(&self, input: usize) -> Option<[usize; 2]> {
        (input == 1).then_some([0, 1])
    }

    fn field(&self, io: &Io) -> Field {
        let taps = io.inputs[1].shape.dims();
        let extent = [0, 1].map(|axis| (taps[axis] - 1) * self.options.dilation[axis] + 1);
        Field::Window { extent, strides: self.options.strides }
    }

    fn cost(&self, io: &Io) -> Cost {
        let w = io.inputs[1].shape.dims();
        Cost { flops: io.outputs[0].shape.elements().times(2 * (w[0] * w[1] * w[2]) as u64), bytes: io_bytes(io) }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        let w = io.inputs[1].shape.dims();
        vec![Accuracy::Products { terms: (w[0] * w[1] * w[2]) as u64 }]
    }

    fn prologue(&self, io: &Io, input: usize) -> bool {
        let channels = [io.inputs[0].shape.last(), io.outputs[0].shape.last()];
        let geometry = self.geometry(io.inputs[0].shape.dims(), io.inputs[1].shape.dims());
        input == 0 && geometry.is_some_and(|geometry| geometry.computes_loads(channels))
    }

    fn keeps(&self, io: &Io, input: usize) -> bool {
        let geometry = self.geometry(io.inputs[0].shape.dims(), io.inputs[1].shape.dims());
        input == 0 && geometry.is_some_and(|g| g.groups == 1 && g.kernel == [1, 1] && g.input == g.output)
    }

    fn epilogue(&self) -> bool {
        true
    }
}

/// Returns the number of images of a shape.
pub(super) fn images(shape: &Shape) -> Count {
    let n = shape.dims()[0] as u64;
    if shape.is_batched() { Count { fixed: 0, per_sample: n } } else { Count { fixed: n, per_sample: 0 } }
}

impl Graph {
    /// Returns the convolution of images `x` (N, H, W, C) with weights `w` (R, S, C / groups, K): (N, P, Q, K).
    ///
    /// With as many groups as channels it is depthwise: weights (R, S, 1, C · multiplier) are Keras' (R, S, C, multiplier).
    ///
    /// ```
    /// use hubel::{ops::Conv2dOptions, layers::*, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 28, 28, 32], F32);
    /// let w = g.parameter("w", [3, 3, 1, 64], GlorotUniform);
    /// let y = g.conv2d(x, w, Conv2dOptions::same().groups(32))?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 28, 28, 64)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn conv2d(&mut self, x: Value, w: Value, options: Conv2dOptions) -> Result<Value, OpError> {
        self.apply1(Conv2d { options }, &[x, w])
    }

    /// Returns the convolution of rows `x` (N, L, C) with weights `w` (S, C / groups, K): (N, Q, K) (Keras Conv1D).
    ///
    /// Of the options, those along the width count.
    ///
    /// ```
    /// use hubel::{ops::Conv2dOptions, layers::*, prelude::*};
    /// let mut g = Graph::new();
    /// let x = g.input("x", [Batch, 100, 3], F32);
    /// let w = g.parameter("w", [5, 3, 8], GlorotUniform);
    /// let y = g.conv1d(x, w, Conv2dOptions::valid().strides([1, 2]))?;
    /// assert_eq!(g.shape(y).to_string(), "(N, 48, 8)");
    /// # Ok::<(), hubel::Error>(())
    /// ```
    pub fn conv1d(&mut self, x: Value, w: Value, options: Conv2dOptions) -> Result<Value, OpError> {
        let (x, w) = (lift(self, "conv1d", x)?, lift_weights(self, "conv1d", w)?);
        let y = self.conv2d(x, w, options.across())?;
        lower_rank(self, y)
    }
}

pub(super) const ANY: Fill = Fill::Uniform(-1.0, 1.0);

/// A convolution to test: images, weights and options.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub x: Shape,
    pub w: [usize; 4],
    pub options: Conv2dOptions,
    pub capacity: usize,
}

impl Case {
    pub(super) fn geometry(&self) -> Option<Geometry> {
        let d = self.x.dims();
        Geometry::new([d[1], d[2]], [self.w[0], self.w[1]], self.options)
    }

    pub(super) fn dy(&self) -> Shape {
        let [p, q] = self.geometry().map_or([1, 1], |g| g.output);
        self.x.with_row(&[p, q, self.w[3]])
    }

    pub(super) fn of(n: usize, size: usize, c: usize, kernel: usize, k: usize, options: Conv2dOptions) -> Self {
        let w = [kernel, kernel, c / options.groups, k];
        Case { x: Shape::from([Batch, size, size, c]), w, options, capacity: n }
    }
}

/// Returns a random case whose geometry exists.
pub(super) fn case(rng: &mut Philox) -> Case {
    loop {
        let channels = [1, 2, 3, 4, 6, 7, 8, 15, 16, 17, 33, 63, 64, 65];
        let (mut c, mut k) = (rng.pick(&channels), rng.pick(&channels));
        let groups = match rng.below(4) {
            0 => {
                k = c * rng.pick(&[1, 1, 1, 2, 3, 4]);
                c
            }
            1 => {
                let groups = rng.pick(&[2, 3, 4, 5]);
                (c, k) = (groups * rng.pick(&[1, 2, 3, 8, 17]), groups * rng.pick(&[1, 2, 3, 8, 17]));
                groups
            }
            _ => 1,
        };
        let size = [1, 2, 5, 7, 8, 9, 13, 14, 15, 16, 17, 18];
        let (h, w) = (rng.pick(&size), rng.pick(&size));
        let taps = [1, 1, 2, 3, 3, 5, 7];
        let mut pad = || rng.below(3);
        let pads = [[pad(), pad()], [pad(), pad()]];
        let padding = rng.pick(&[Padding::Valid, Padding::Same, Padding::Explicit(pads)]);
        let strides = rng.pick(&[[1, 1], [1, 1], [2, 2], [1, 2], [3, 1], [4, 3]]);
        let dilation = rng.pick(&[[1, 1], [1, 1], [1, 1], [2, 1], [2, 2], [1, 3]]);
        let capacity = rng.pick(&[1, 2, 3, 5]);
        let x = if rng.below(8) == 0 { Shape::fixed([2, h, w, c]) } else { Shape::from([Batch, h, w, c]) };
        let w = [rng.pick(&taps), rng.pick(&taps), c / groups, k];
        let case = Case { x, w, options: Conv2dOptions { strides, padding, dilation, groups }, capacity };
        if case.geometry().is_some_and(|g| g.output[0] * g.output[1] * w.iter().product::<usize>() < 2_000_000) {
            return case;
        }
    }
}

/// The convolutions that are benched.
pub(super) fn bench_cases() -> Vec<(&'static str, Case)> {
    let same = Conv2dOptions::same();
    vec![
        ("lenet_conv1_n64", Case::of(64, 32, 1, 5, 6, Conv2dOptions::valid())),
        ("lenet_conv2_n64", Case::of(64, 14, 6, 5, 16, Conv2dOptions::valid())),
        ("conv3x3_n8_c64_56", Case::of(8, 56, 64, 3, 64, same)),
        ("conv3x3_n8_c256_14", Case::of(8, 14, 256, 3, 256, same)),
        ("conv1x1_n8_c256_k64_56", Case::of(8, 56, 256, 1, 64, same)),
        ("dwconv3x3_n8_c32_112", Case::of(8, 112, 32, 3, 32, same.groups(32))),
        ("dwconv3x3s2_n8_c96_56", Case::of(8, 56, 96, 3, 96, same.groups(96).strides([2, 2]))),
        ("dwconv7x7_n8_c96_28", Case::of(8, 28, 96, 7, 96, same.groups(96))),
        ("dwconv3x3_n8_c960_7", Case::of(8, 7, 960, 3, 960, same.groups(960))),
        ("conv3x3_g32_n8_c128_28", Case::of(8, 28, 128, 3, 128, same.groups(32))),
        ("conv7x7s2_n8_c3_224", Case::of(8, 224, 3, 7, 64, Conv2dOptions::explicit([[3, 3], [3, 3]]).strides([2, 2]))),
    ]
}

fn of(case: Case) -> Sample {
    let inputs = vec![(TensorType::f32(case.x), ANY), (TensorType::f32(case.w), ANY)];
    Sample::new(Conv2d { options: case.options }, inputs, case.capacity)
}

fn sample(rng: &mut Philox) -> Sample {
    let sample = of(case(rng));
    let n = 1 + rng.below(sample.capacity);
    sample.with_n(n)
}

/// Convolution as a family.
pub static FAMILY: Family = Family {
    name: "conv2d",
    about: "two-dimensional convolution of NHWC images with weights (height, width, in / groups, out), depthwise where there are as many groups as channels (ONNX Conv, Keras Conv2D, DepthwiseConv2D)",
    sample,
    benches: || bench_cases().into_iter().map(|(name, case)| (name, of(case))).collect(),
    bad: &[
        Bad {
            what: "images of rank 3",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8], DType::F32);
                let w = g.input("w", [3, 3, 1, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::valid())
            },
        },
        Bad {
            what: "a kernel larger than the padded image",
            build: |g| {
                let x = g.input("x", [Batch, 4, 4, 1], DType::F32);
                let w = g.input("w", [5, 5, 1, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::valid())
            },
        },
        Bad {
            what: "channels that differ",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8, 3], DType::F32);
                let w = g.input("w", [3, 3, 1, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::same())
            },
        },
        Bad {
            what: "channels that do not fall into groups",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8, 6], DType::F32);
                let w = g.input("w", [3, 3, 1, 6], DType::F32);
                g.conv2d(x, w, Conv2dOptions::same().groups(4))
            },
        },
        Bad {
            what: "filters that do not fall into groups",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8, 6], DType::F32);
                let w = g.input("w", [3, 3, 2, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::same().groups(3))
            },
        },
        Bad {
            what: "no group",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8, 6], DType::F32);
                let w = g.input("w", [3, 3, 6, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::same().groups(0))
            },
        },
        Bad {
            what: "a stride of 0",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8, 3], DType::F32);
                let w = g.input("w", [3, 3, 3, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::same().strides([0, 1]))
            },
        },
        Bad {
            what: "a dilation of 0",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8, 3], DType::F32);
                let w = g.input("w", [3, 3, 3, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::same().dilation([1, 0]))
            },
        },
        Bad {
            what: "weights that change with the batch",
            build: |g| {
                let x = g.input("x", [Batch, 8, 8, 3], DType::F32);
                let w = g.input("w", [Batch, 3, 3, 4], DType::F32);
                g.conv2d(x, w, Conv2dOptions::same())
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};
