//! The gradients of a convolution to its images and to its weights.

use super::{
    arity::arity,
    conv2d::{ANY, Conv2dOptions, Geometry, bench_cases, case, image, images, kernel},
    matmul::{column_sums, io_bytes},
    pad2d::{Pad2d, zero_padded_input},
    reduce::column_sums_of,
};
use crate::{
    graph::{
        Bad, Candidate, Cost, Declined, DeviceClass, DeviceProfile, Epilogue, Family, Field, Gradients, Graph, Io, Op,
        OpError, Patch, Pixels, RewriteCx, Sample, Step, TensorType, Value,
    },
    kernels::{
        Expr, Extent, Kernel,
        gemm::{self, Apart, Cursor, Filter, Loop, Operand, Periodic, Product, Window},
    },
    tensor::{Accuracy, Array, Batch, Count, DType, Philox},
};
use rayon::prelude::*;
use std::sync::Arc;

/// Gradient of a convolution to its images: dy (N, P, Q, K), w (R, S, C, K) → (N, H, W, C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dGradInput {
    /// The sizes of the convolution.
    pub geometry: Geometry,
}

/// Gradient of a convolution to its weights: x (N, H, W, C), dy (N, P, Q, K) → (R, S, C, K).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dGradWeight {
    /// The sizes of the convolution.
    pub geometry: Geometry,
    /// Whether a second output holds dy summed over all axes but the last (the gradient to a bias).
    pub column_sums: bool,
}

fn output_image(op: &str, geometry: &Geometry, t: &TensorType) -> Result<usize, OpError> {
    let [p, q, k] = image(op, "the gradient to the result", t)?;
    match [p, q] == geometry.output {
        true => Ok(k),
        false => {
            let [p, q] = geometry.output;
            Err(OpError::new(op, format!("a gradient of {p}×{q} pixels"), &t.shape, "pass the gradient to the result"))
        }
    }
}

/// Returns the geometry that the sizes imply, if it is this one.
fn consistent(op: &str, geometry: &Geometry) -> Result<(), OpError> {
    match Geometry::new(geometry.input, geometry.kernel, geometry.options()) {
        Some(g) if g == *geometry => Ok(()),
        other => Err(OpError::new(
            op,
            "the sizes of a convolution",
            format!("{geometry:?}, where {other:?} follows"),
            "take the sizes from Geometry::new",
        )),
    }
}

/// Returns statements that find a pixel of `c` channels, for the gradient to the weights: at level 0 its tap and channel
/// from `index`, at level 1 its row, then its column.
fn enter_pixel(g: &Geometry, c: usize, (k, at, vars): (&mut Kernel, &mut Cursor, &[Expr])) {
    let ([h, width], [p, _], [_, s]) = (g.input, g.output, g.kernel);
    let group = c / g.groups;
    let [dilation_h, dilation_w] = g.dilation.map(|v| v as i64);
    let [top, left] = g.pads.map(|[before, _]| before as i64);
    let [stride_h, stride_w] = g.strides.map(|v| v as i64);
    match vars {
        [] => {
            let first = if g.groups > 1 { Product::batch_index() * group } else { 0u32.into() };
            at.set(k, "c", at.index() % group + first);
            at.set(k, "h", (at.index() / (s * group)).i32() * dilation_h - top);
            at.set(k, "w", (at.index() / group % s).i32() * dilation_w - left);
        }
        [row] => {
            at.set(k, "y", ((row % p).i32() * stride_h + at.get("h")).u32());
            at.set(k, "p", (row / p * h + at.get("y")) * (width * c));
        }
        [_, column, ..] => {
            at.set(k, "x", (column.i32() * stride_w + at.get("w")).u32());
            let pixel = at.get("p") + at.get("x") * c + at.get("c");
            if g.pads == [[0, 0], [0, 0]] {
                return at.set(k, "o", pixel);
            }
            at.set(k, "in_bounds", at.get("y").less(h).and(at.get("x").less(width)));
            at.set(k, "o", at.get("in_bounds").select(pixel, 0u32));
        }
    }
}

/// Returns which pixels of the gradient, all numbered in one run, have one of an equally large image under a tap.
fn pixels_under(g: &Geometry, at: &Cursor) -> Vec<Periodic> {
    let range = |axis: &'static str, size: usize, unit: usize| {
        let (from, last) = (at.get(axis), size as i64);
        let within = |at: Expr| at.max(0i32).min(last).u32() * unit;
        let (first, end) = (within(-from.clone()), within(Expr::from(last) - from));
        Periodic { period: (size * unit) as u32, first, end }
    };
    vec![range("w", g.output[1], 1), range("h", g.output[0], g.output[1])]
}

impl Graph {
    /// Returns the gradients of a convolution to its images and its weights.
    pub(super) fn conv2d_gradients(
        &mut self,
        geometry: Geometry,
        [x, w, dy]: [Value; 3],
    ) -> Result<[Value; 2], OpError> {
        let dx = self.apply1(Conv2dGradInput { geometry }, &[dy, w])?;
        Ok([dx, self.apply1(Conv2dGradWeight { geometry, column_sums: false }, &[x, dy])?])
    }
}

impl Conv2dGradInput {
    /// Returns the window that gathers the gradient.
    fn window(&self, io: &Io) -> Window {
        let (g, w) = (&self.geometry, io.inputs[1].shape.dims());
        Window {
            name: "conv2d_grad_input",
            transposed: true,
            from: g.output,
            to: g.input,
            from_channels: w[3],
            to_channels: w[2] * g.groups,
            kernel: g.kernel,
            strides: g.strides,
            pads: [g.pads[0][0], g.pads[1][0]],
            dilation: g.dilation,
            groups: g.groups,
            images: images(&io.inputs[0].shape),
        }
    }
}

impl Op for Conv2dGradInput {
    fn name(&self) -> &'static str {
        "conv2d_grad_input"
    }

    fn key(&self) -> String {
        self.geometry.key()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [dy, w] = arity(self.name(), inputs, "pass gradient and weights")?;
        consistent(self.name(), &self.geometry)?;
        let k = output_image(self.name(), &self.geometry, dy)?;
        let [r, s, ic, oc] = kernel(self.name(), "weights", w)?;
        if oc != k || [r, s] != self.geometry.kernel || oc % self.geometry.groups != 0 {
            let [r, s] = self.geometry.kernel;
            let wanted = format!("weights of {r}×{s} taps for {k} output channels in {} groups", self.geometry.groups);
            return Err(OpError::new(self.name(), wanted, &w.shape, "pass the weights of the convolution"));
        }
        let [h, width] = self.geometry.input;
        Ok(vec![TensorType::f32(dy.shape.with_row(&[h, width, ic * self.geometry.groups]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (dy, w) = (inputs[0], inputs[1]);
        let g = &self.geometry;
        let ([h, width], [p, q], [r, s]) = (g.input, g.output, g.kernel);
        let (n, k, group) = (dy.shape[0], dy.shape[3], w.shape[2]);
        let (c, per_group) = (group * g.groups, k / g.groups);
        let mut dx = Array::zeros([n, h, width, c]);
        let (image, gradient) = ((h * width * c).max(1), p * q * k);
        dx.data.par_chunks_mut(image).enumerate().for_each(|(sample, dx)| {
            let dy = &dy.data[sample * gradient..][..gradient];
            for row in 0..p {
                for i in 0..r {
                    let Some(ih) = g.tap(0, row, i) else { continue };
                    for at in 0..q {
                        let dy = &dy[(row * q + at) * k..][..k];
                        for j in 0..s {
                            let Some(iw) = g.tap(1, at, j) else { continue };
                            let w = &w.data[(i * s + j) * group * k..][..group * k];
                            let dx = &mut dx[(ih * width + iw) * c..][..c];
                            for (c, dx) in dx.iter_mut().enumerate() {
                                let first = c / group * per_group;
                                let w = &w[c % group * k + first..][..per_group];
                                *dx += w.iter().zip(&dy[first..]).map(|(w, dy)| w * dy).sum::<f64>();
                            }
                        }
                    }
                }
            }
        });
        vec![dx]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(d) = dy[0] else { return Ok(vec![None, None]) };
        let to_dy = g.conv2d(d, inputs[1], self.geometry.options())?;
        let to_w = g.apply1(Conv2dGradWeight { geometry: self.geometry, column_sums: false }, &[d, inputs[0]])?;
        Ok(vec![Some(to_dy), Some(to_w)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        gemm::window(&self.window(io), profile, epilogue)
    }

    fn declines(&self, io: &Io, profile: &DeviceProfile) -> Vec<Declined> {
        gemm::window_declines(&self.window(io), profile)
    }

    /// Where only a crop reads the gradient, it is the gradient to images without these edges.
    fn rewrite(&self, cx: &RewriteCx) -> Option<Patch> {
        let (cropped, reader) = cx.sole_reader(0)?;
        let edges = reader.op()?.downcast::<Pad2d>()?.crop()?;
        let geometry = self.geometry.without_edges(edges)?;
        cx.patch(Conv2dGradInput { geometry }, &cx.node().inputs, &[cropped])
    }

    fn prologue(&self, io: &Io, input: usize) -> bool {
        input == 0 && self.geometry.computes_loads([io.inputs[0].shape.last(), io.outputs[0].shape.last()])
    }

    fn macs(&self, io: &Io) -> Count {
        self.cost(io).flops.over(2)
    }

    fn meets_zeros(&self, input: usize) -> Option<[usize; 2]> {
        Some(if input == 0 { [1, 2] } else { [0, 1] })
    }

    fn field(&self, _io: &Io) -> Field {
        let Geometry { kernel, strides, dilation, .. } = self.geometry;
        let extent = [0, 1].map(|axis| ((kernel[axis] - 1) * dilation[axis] + 1).div_ceil(strides[axis]));
        Field::Spread { extent, factor: strides }
    }

    fn cost(&self, io: &Io) -> Cost {
        let w = io.inputs[1].shape.dims();
        Cost { flops: io.inputs[0].shape.elements().times(2 * (w[0] * w[1] * w[2]) as u64), bytes: io_bytes(io) }
    }

    fn accuracy(&self, io: &Io, _n: usize) -> Vec<Accuracy> {
        let w = io.inputs[1].shape.dims();
        vec![Accuracy::Products { terms: (w[0] * w[1] * w[3] / self.geometry.groups) as u64 }]
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn pixels(&self, io: &Io) -> Option<Pixels> {
        let steps = self.window(io).steps()?;
        let geometry = Geometry::new(self.geometry.output, [1, 1], Conv2dOptions::valid())?;
        Some(Pixels { op: Arc::new(Conv2dGradInput { geometry }), steps })
    }
}

impl Conv2dGradWeight {
    /// Returns the gradient as its own core takes it.
    fn filter(&self, io: &Io) -> Filter {
        let g = &self.geometry;
        let (c, k) = (io.inputs[0].shape.last(), io.inputs[1].shape.last());
        Filter {
            input: g.input,
            output: g.output,
            kernel: g.kernel,
            strides: g.strides,
            pads: [g.pads[0][0], g.pads[1][0]],
            dilation: g.dilation,
            groups: g.groups,
            from_channels: c,
            to_channels: k,
            images: images(&io.inputs[0].shape),
            sums: self.column_sums,
        }
    }

    /// Returns whether pixels of images lie as those of the gradient do, and their edges can be told of the whole batch.
    fn pixels_are_one_run(&self, io: &Io, profile: &DeviceProfile) -> bool {
        let (g, [p, q]) = (&self.geometry, self.geometry.output);
        let pixels = images(&io.inputs[0].shape).times((p * q) as u64).at(profile.batch);
        let same = g.strides == [1, 1] && g.input == g.output && profile.class == DeviceClass::Gpu;
        same && [q, p * q].iter().all(|&n| Periodic::can_tell(n as u64, pixels))
    }
}

impl Op for Conv2dGradWeight {
    fn name(&self) -> &'static str {
        "conv2d_grad_weight"
    }

    fn key(&self) -> String {
        format!("{}{}", self.geometry.key(), if self.column_sums { " sums" } else { "" })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x, dy] = arity(self.name(), inputs, "pass images and gradient")?;
        consistent(self.name(), &self.geometry)?;
        let [h, w, c] = image(self.name(), "images", x)?;
        let k = output_image(self.name(), &self.geometry, dy)?;
        if [h, w] != self.geometry.input || images(&x.shape) != images(&dy.shape) {
            let [h, w] = self.geometry.input;
            let wanted = format!("as many images of {h}×{w} as {} has", dy.shape);
            return Err(OpError::new(self.name(), wanted, &x.shape, "pass the images of the convolution"));
        }
        let ([r, s], groups) = (self.geometry.kernel, self.geometry.groups);
        if c % groups != 0 || k % groups != 0 {
            let got = format!("{c} and {k}");
            return Err(OpError::new(self.name(), format!("channels in {groups} groups"), got, "choose other groups"));
        }
        let mut outputs = vec![TensorType::f32([r, s, c / groups, k])];
        if self.column_sums {
            outputs.push(TensorType::f32([k]));
        }
        Ok(outputs)
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let (x, dy) = (inputs[0], inputs[1]);
        let g = &self.geometry;
        let ([h, width], [p, q], [r, s]) = (g.input, g.output, g.kernel);
        let (n, c, k) = (x.shape[0], x.shape[3], dy.shape[3]);
        let (group, per_group) = (c / g.groups, k / g.groups);
        let mut dw = Array::zeros([r, s, group, k]);
        dw.data.par_chunks_mut((group * k).max(1)).enumerate().for_each(|(tap, dw)| {
            for row in 0..n * p {
                let Some(ih) = g.tap(0, row % p, tap / s) else { continue };
                for at in 0..q {
                    let Some(iw) = g.tap(1, at, tap % s) else { continue };
                    let x = &x.data[((row / p * h + ih) * width + iw) * c..][..c];
                    let dy = &dy.data[(row * q + at) * k..][..k];
                    for (c, &x) in x.iter().enumerate() {
                        let first = c / group * per_group;
                        let dw = &mut dw[c % group * k + first..][..per_group];
                        dw.iter_mut().zip(&dy[first..]).for_each(|(dw, &dy)| *dw += x * dy);
                    }
                }
            }
        });
        let mut outputs = vec![dw];
        if self.column_sums {
            outputs.push(column_sums(dy));
        }
        outputs
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        if self.column_sums {
            let advice = "take gradients before fusion";
            return Err(OpError::new(self.name(), "a gradient without column sums", "column sums", advice));
        }
        let Some(d) = dy[0] else { return Ok(vec![None, None]) };
        let to_x = g.apply1(Conv2dGradInput { geometry: self.geometry }, &[inputs[1], d])?;
        let to_dy = g.conv2d(inputs[0], d, self.geometry.options())?;
        Ok(vec![Some(to_x), Some(to_dy)])
    }

    fn declines(&self, io: &Io, profile: &DeviceProfile) -> Vec<Declined> {
        self.filter(io).declines(profile)
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let g = &self.geometry;
        let ([p, q], [r, s]) = (g.output, g.kernel);
        let (c, k) = (io.inputs[0].shape.last(), io.inputs[1].shape.last());
        let filter = self.filter(io);
        if let Some(candidate) = filter.depthwise(profile, epilogue) {
            return vec![candidate];
        }
        if let Some(matrices) = filter.matrices() {
            return matrices.product(|product| gemm::lower_with(filter.lower(profile), product, profile, epilogue));
        }
        let groups = g.groups;
        let (group, per_group) = (c / groups, k / groups);
        let batch = Product::batch_index();
        let in_group = |size: usize| if groups > 1 { &batch * size } else { 0u32.into() };
        let padded = g.pads != [[0, 0], [0, 0]];
        let x_enter = |k: &mut Kernel, at: &mut Cursor, vars: &[Expr]| enter_pixel(g, c, (k, at, vars));
        let x_at = |at: &Cursor, _: &[Expr]| {
            (at.get("o").clone(), if padded { at.get("in_bounds").clone() } else { true.into() })
        };
        let x_index = |at: &Cursor, unit: usize| {
            let tap = at.get("h") * g.input[1] as i64 + at.get("w");
            (tap * (c / unit) as i64).u32() + at.get("c") / unit
        };
        let x_terms = |vars: &[Expr], unit: usize| {
            let row = match g.input[0] == p * g.strides[0] {
                true => &vars[0] * g.strides[0],
                false => &vars[0] / p * g.input[0] + &vars[0] % p * g.strides[0],
            };
            (row * g.input[1] + &vars[1] * g.strides[1]) * (c / unit)
        };
        let same = self.pixels_are_one_run(io, profile);
        let x_there = |at: &Cursor| pixels_under(g, at);
        let dy_index = |at: &Cursor, unit: usize| (at.index() + in_group(per_group)) / unit;
        let dy_terms = |vars: &[Expr], unit: usize| (&vars[0] * q + &vars[1]) * k / unit;
        let dy_enter = |kernel: &mut Kernel, at: &mut Cursor, vars: &[Expr]| {
            if let [row] = vars {
                at.set(kernel, "o", row * (q * k) + at.index() + in_group(per_group));
            }
        };
        let dy_at = |at: &Cursor, vars: &[Expr]| (at.get("o") + &vars[1] * k, Expr::from(true));
        let count = |n: usize| Count { fixed: n as u64, per_sample: 0 };
        let position = |row: &Expr| (row * groups + &batch, Expr::from(true));
        let rows = Extent::constant(images(&io.inputs[0].shape).times(p as u64));
        let product = Product {
            name: "conv2d_grad_weight",
            batch: count(groups),
            rows: Operand {
                buffer: "x",
                extent: Extent::new(["rows", ""], count(r * s * group)),
                enter: &x_enter,
                at: &x_at,
                apart: Some(Apart {
                    index: &x_index,
                    terms: &x_terms,
                    step: (g.strides[1] * c).into(),
                    of_all: same,
                    there: if padded { Some(&x_there) } else { None },
                }),
                run: gemm::run(group),
                along_terms: false,
            },
            columns: Operand {
                buffer: "dy",
                extent: Extent::new(["columns", ""], count(per_group)),
                enter: &dy_enter,
                at: &dy_at,
                apart: Some(Apart { index: &dy_index, terms: &dy_terms, step: k.into(), of_all: true, there: None }),
                run: gemm::run(per_group),
                along_terms: false,
            },
            loops: vec![Loop::new("row", rows), Loop::new("at", Extent::constant(count(q)))],
            position: if groups > 1 { Some(&position) } else { None },
            zeros: None,
            whole: true,
            sums: self.column_sums,
        };
        gemm::lower_with(filter.lower(profile), &product, profile, epilogue)
    }

    fn prologue(&self, io: &Io, input: usize) -> bool {
        let channels = [io.inputs[0].shape.last(), io.inputs[1].shape.last()];
        // The gradient is read without taps.
        (input == 1 && self.geometry.groups == 1) || self.geometry.computes_loads(channels)
    }

    fn keeps(&self, _io: &Io, input: usize) -> bool {
        input == 1 && self.geometry.groups == 1
    }

    fn read(&self, io: &Io, input: usize) -> Count {
        let shape = &io.inputs[input].shape;
        if input == 0 { self.geometry.met(shape) } else { shape.elements() }
    }

    fn macs(&self, io: &Io) -> Count {
        self.cost(io).flops.over(2)
    }

    fn meets_zeros(&self, _input: usize) -> Option<[usize; 2]> {
        Some([1, 2])
    }

    fn cost(&self, io: &Io) -> Cost {
        let w = io.outputs[0].shape.dims();
        Cost { flops: io.inputs[1].shape.elements().times(2 * (w[0] * w[1] * w[2]) as u64), bytes: io_bytes(io) }
    }

    fn accuracy(&self, io: &Io, n: usize) -> Vec<Accuracy> {
        let [p, q] = self.geometry.output;
        let terms = images(&io.inputs[0].shape).at(n) * (p * q) as u64;
        vec![Accuracy::Products { terms }; io.outputs.len()]
    }

    fn rewrite(&self, cx: &RewriteCx) -> Option<Patch> {
        if let Some((x, zeros)) = zero_padded_input(cx) {
            let geometry = self.geometry.without_edges(zeros)?;
            let outputs: Vec<Value> = (0..1 + usize::from(self.column_sums)).map(|i| cx.output(i)).collect();
            return cx.patch(Conv2dGradWeight { geometry, ..*self }, &[x, cx.node().inputs[1]], &outputs);
        }
        let sums = column_sums_of(cx, 1).filter(|_| !self.column_sums)?;
        cx.patch(Conv2dGradWeight { column_sums: true, ..*self }, &cx.node().inputs, &[cx.output(0), sums])
    }
}

fn input_of(case: &super::conv2d::Case, geometry: Geometry) -> Sample {
    let inputs = vec![(TensorType::f32(case.dy()), ANY), (TensorType::f32(case.w), ANY)];
    Sample::new(Conv2dGradInput { geometry }, inputs, case.capacity)
}

fn weight_of(case: &super::conv2d::Case, geometry: Geometry, column_sums: bool) -> Sample {
    let inputs = vec![(TensorType::f32(case.x.clone()), ANY), (TensorType::f32(case.dy()), ANY)];
    Sample::new(Conv2dGradWeight { geometry, column_sums }, inputs, case.capacity)
}

fn random(rng: &mut Philox, of: impl Fn(&super::conv2d::Case, Geometry, bool) -> Sample) -> Sample {
    loop {
        let case = case(rng);
        if let Some(geometry) = case.geometry() {
            let sample = of(&case, geometry, rng.below(2) == 1);
            let n = 1 + rng.below(sample.capacity);
            return sample.with_n(n);
        }
    }
}

fn benches(of: impl Fn(&super::conv2d::Case, Geometry) -> Sample) -> Vec<(&'static str, Sample)> {
    let cases = bench_cases().into_iter();
    cases.filter_map(|(name, case)| case.geometry().map(|g| (name, of(&case, g)))).collect()
}

/// The gradient to the images as a family.
pub static INPUT_FAMILY: Family = Family {
    name: "conv2d_grad_input",
    about: "gradient of conv2d to its images, each pixel gathered from the results that read it",
    sample: |rng| {
        // Parts of long sums for more results than one workgroup adds up.
        let long = super::conv2d::Case::of(1, 4, 20, 5, 16, Conv2dOptions::same());
        match long.geometry().filter(|_| rng.below(16) == 0) {
            Some(geometry) => input_of(&long, geometry),
            None => random(rng, |case, geometry, _| input_of(case, geometry)),
        }
    },
    benches: || benches(input_of),
    bad: &[
        Bad {
            what: "a gradient of another size",
            build: |g| {
                let geometry = example()?;
                let dy = g.input("dy", [Batch, 8, 8, 4], DType::F32);
                let w = g.input("w", [3, 3, 2, 4], DType::F32);
                g.apply1(Conv2dGradInput { geometry }, &[dy, w])
            },
        },
        Bad {
            what: "weights of other channels",
            build: |g| {
                let geometry = example()?;
                let dy = g.input("dy", [Batch, 6, 6, 4], DType::F32);
                let w = g.input("w", [3, 3, 2, 5], DType::F32);
                g.apply1(Conv2dGradInput { geometry }, &[dy, w])
            },
        },
        Bad {
            what: "sizes of no convolution",
            build: |g| {
                let geometry = Geometry { output: [7, 6], ..example()? };
                let dy = g.input("dy", [Batch, 7, 6, 4], DType::F32);
                let w = g.input("w", [3, 3, 2, 4], DType::F32);
                g.apply1(Conv2dGradInput { geometry }, &[dy, w])
            },
        },
    ],
    equivalent: &[],
    differentiable: true,
    gradcheck: 1e-6,
};

/// The sizes of a valid 3×3 convolution of 8×8 pixels.
fn example() -> Result<Geometry, OpError> {
    Geometry::new([8, 8], [3, 3], Conv2dOptions::valid())
        .ok_or_else(|| OpError::new("conv2d", "a kernel that fits", "none", "choose another size"))
}

/// The gradient to the weights as a family.
pub static WEIGHT_FAMILY: Family = Family {
    name: "conv2d_grad_weight",
    about: "gradient of conv2d to its weights, on request with the gradient to the bias",
    sample: |rng| random(rng, weight_of),
    benches: || benches(|case, geometry| weight_of(case, geometry, true)),
    bad: &[
        Bad {
            what: "images of another size",
            build: |g| {
                let geometry = example()?;
                let x = g.input("x", [Batch, 9, 8, 2], DType::F32);
                let dy = g.input("dy", [Batch, 6, 6, 4], DType::F32);
                g.apply1(Conv2dGradWeight { geometry, column_sums: false }, &[x, dy])
            },
        },
        Bad {
            what: "another number of images",
            build: |g| {
                let geometry = example()?;
                let x = g.input("x", [4, 8, 8, 2], DType::F32);
                let dy = g.input("dy", [Batch, 6, 6, 4], DType::F32);
                g.apply1(Conv2dGradWeight { geometry, column_sums: false }, &[x, dy])
            },
        },
    ],
    equivalent: &[("takes for true at lane", "every tile of rows sums the columns alike")],
    differentiable: true,
    gradcheck: 1e-6,
};
