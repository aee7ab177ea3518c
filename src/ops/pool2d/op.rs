//! The operation and its gradient.

use super::window::{Geometry, Pool2dOptions};
use crate::kernels::shader;
use crate::{
    graph::{
        Candidate, Cost, DeviceClass, DeviceProfile, Epilogue, Field, Gradients, Graph, Grid, Io, Node, Op, OpError,
        Patch, Program, RewriteCx, Slot, Step, TensorType, Value,
    },
    kernels::{self, Core, Reduction, Schedule, Source},
    ops::{
        arity::arity,
        conv2d::{image, images},
        pad2d::{Pad2d, zero_padded_input},
        window::Padding,
    },
    tensor::{Accuracy, Array, Shape, UNIT, rank},
};

/// What a pooling makes of the pixels of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The largest value; NaN is the largest.
    Max,
    /// The sum divided by the number of pixels.
    Average {
        /// Whether pixels outside the image count, as zeros (ONNX `count_include_pad`); in Keras they do not.
        count_padding: bool,
    },
    /// The square root of the sum of squares, √Σx². Squares are f32: above 1.8·10¹⁹ they are infinite, below 10⁻²³ zero.
    L2,
}

impl Pooling {
    /// Returns the names of the pooling and of its gradient.
    fn names(self) -> [&'static str; 2] {
        match self {
            Pooling::Max => ["max_pool2d", "max_pool2d_grad"],
            Pooling::Average { .. } => ["avg_pool2d", "avg_pool2d_grad"],
            Pooling::L2 => ["lp_pool2d", "lp_pool2d_grad"],
        }
    }

    /// Returns the result for the pixels `taps` of a window that has `size` with those outside the image.
    fn reduce(self, x: &Array, taps: &[usize], size: usize) -> f64 {
        match self {
            Pooling::Max => x.data[first_maximum(x, taps)],
            Pooling::Average { .. } => taps.iter().map(|&tap| x.data[tap]).sum::<f64>() / self.count(taps, size),
            Pooling::L2 => taps.iter().map(|&tap| x.data[tap] * x.data[tap]).sum::<f64>().sqrt(),
        }
    }

    fn counts_padding(self) -> bool {
        self == Pooling::Average { count_padding: true }
    }

    /// Returns what an average divides by.
    fn count(self, taps: &[usize], size: usize) -> f64 {
        (if self.counts_padding() { size } else { taps.len() }) as f64
    }

    /// Returns what the kernel that slides over strips makes of a window.
    fn reduction(self) -> Reduction {
        match self {
            Pooling::Max => Reduction::Max,
            Pooling::Average { count_padding } => Reduction::Average { padding: count_padding },
            Pooling::L2 => Reduction::L2,
        }
    }

    /// Returns the shaders for windows of many pixels and for their gradient.
    fn shaders(self) -> [&'static str; 2] {
        match self {
            Pooling::Max => [shader!("max_pool2d.wgsl"), shader!("max_pool2d_grad.wgsl")],
            Pooling::Average { .. } => [shader!("avg_pool2d.wgsl"), shader!("avg_pool2d_grad.wgsl")],
            Pooling::L2 => [shader!("lp_pool2d.wgsl"), shader!("lp_pool2d_grad.wgsl")],
        }
    }

    /// Returns a kernel over vectors of `width` channels.
    fn source(shader: &'static str, width: usize, profile: &DeviceProfile) -> Source<'static> {
        Source::over_vectors(shader, width, profile).with(shader!("shared/pool2d.wgsl"))
    }

    fn lanes(self, profile: &DeviceProfile) -> u32 {
        if self == Pooling::Max && profile.class == DeviceClass::Cpu { 256 } else { 64 }
    }
}

/// Returns the index of the first largest value; NaN is the largest.
fn first_maximum(x: &Array, taps: &[usize]) -> usize {
    taps.iter()
        .copied()
        .reduce(|best, tap| if rank(x.data[tap]) > rank(x.data[best]) { tap } else { best })
        .unwrap_or(0)
}

/// Pooling of windows (Keras `MaxPooling2D` and `AveragePooling2D`, ONNX MaxPool, AveragePool and LpPool with p = 2):
/// (N, h, w, c) → (N, h', w', c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool2d {
    /// What it makes of a window.
    pub pooling: Pooling,
    /// The windows.
    pub options: Pool2dOptions,
}

impl Pool2d {
    /// Returns the pixels of a window.
    fn size(&self) -> usize {
        self.options.pool[0] * self.options.pool[1]
    }

    /// Returns what zeros have been put around, and the same pooling that takes its own padding for these zeros: if only poolings and
    /// their gradients read them.
    fn with_padding(&self, cx: &RewriteCx) -> Option<(Value, Pool2d)> {
        let (x, zeros) = zero_padded_input(cx)?;
        let pools = |op: &dyn Op| op.downcast::<Pool2d>().is_some() || op.downcast::<Pool2dGrad>().is_some();
        let alone = cx.readers(cx.node().inputs[0]).all(|(_, node)| node.op().is_some_and(|op| pools(op.as_ref())));
        let positive = cx.graph().node(x).op()?.pointwise().is_some_and(Program::is_positive);
        let padding = self.options.padding.and(zeros)?;
        // Every window sees a pixel, which is no smaller than a zero.
        let Padding::Explicit(sides) = padding else { return None };
        let seen = sides.iter().zip(self.options.pool).all(|(side, n)| side.iter().all(|&p| p < n));
        let op = Pool2d { options: Pool2dOptions { padding, ..self.options }, ..*self };
        (self.pooling == Pooling::Max && alone && positive && seen).then_some((x, op))
    }

    /// Returns whether the kernel that slides over strips is the first for these images.
    fn strips(&self, io: &Io) -> bool {
        let geometry = self.options.geometry(self.name(), &io.inputs[0]);
        geometry.is_ok_and(|g| g.unrolls() && (self.pooling != Pooling::Max || g.overlaps()))
    }

    /// Returns the most windows that have a pixel in common.
    fn overlap(&self) -> usize {
        let Pool2dOptions { pool: [kh, kw], strides: [sh, sw], .. } = self.options;
        kh.div_ceil(sh) * kw.div_ceil(sw)
    }
}

impl Op for Pool2d {
    fn name(&self) -> &'static str {
        self.pooling.names()[0]
    }

    fn key(&self) -> String {
        format!("{:?}{}", self.options, if self.pooling.counts_padding() { " count_padding" } else { "" })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let [x] = arity(self.name(), inputs, "pass the tensor to pool")?;
        let g = self.options.geometry(self.name(), x)?;
        Ok(vec![TensorType::f32(x.shape.with_row(&[g.oh, g.ow, g.c]))])
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let x = inputs[0];
        let Ok(g) = self.options.geometry(self.name(), &TensorType::f32(Shape::fixed(x.shape.clone()))) else {
            return Vec::new();
        };
        let mut y = Array::zeros([x.shape[0], g.oh, g.ow, g.c]);
        g.windows(x.shape[0], |window, taps| y.data[window] = self.pooling.reduce(x, taps, self.size()));
        vec![y]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Value], outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        let Some(dy) = dy[0] else { return Ok(vec![None]) };
        let [h, w, _] = image(self.name(), "images", g.ty(inputs[0]))?;
        let gradient = Pool2dGrad { pool: *self, input: [h, w] };
        let all = [inputs[0], outputs[0], dy];
        Ok(vec![Some(g.apply1(gradient, if gradient.is_linear() { &all[2..] } else { &all })?)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Ok(g) = self.options.geometry(self.name(), &io.inputs[0]) else { return Vec::new() };
        let (width, lanes) = (kernels::width(g.c, profile), self.pooling.lanes(profile));
        let items = io.outputs[0].shape.elements().over(width as u64);
        let constants = g.constants(items, width, lanes, self.pooling.counts_padding());
        let slots = vec![Slot::input(0), Slot::output(0)];
        let source = Pooling::source(self.pooling.shaders()[0], width, profile);
        let each = kernels::dispatch(self.name(), source, &constants, Grid::new(items, lanes), slots, epilogue);
        let each = Candidate::single(Schedule::of_width(Core::Elements, width), each);
        if !self.strips(io) {
            return vec![each];
        }
        let window = g.window(self.name(), false, images(&io.inputs[0].shape));
        vec![kernels::reduce_window(&window, self.pooling.reduction(), profile, epilogue), each]
    }

    fn rewrite(&self, cx: &RewriteCx) -> Option<Patch> {
        let (x, op) = self.with_padding(cx)?;
        cx.patch(op, &[x], &[cx.output(0)])
    }

    fn field(&self, _io: &Io) -> Field {
        Field::Window { extent: self.options.pool, strides: self.options.strides }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.outputs[0].shape.elements().times(self.size() as u64), bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        let terms = self.size() as u64;
        vec![match self.pooling {
            Pooling::Max => Accuracy::Exact,
            Pooling::Average { .. } => Accuracy::Products { terms },
            // The root halves the error of the sum and adds up to five units in the last place.
            Pooling::L2 => Accuracy::Relative(((terms as f64).sqrt().max(4.0) + 10.0) * UNIT),
        }]
    }

    fn prologue(&self, io: &Io, _input: usize) -> bool {
        self.pooling == Pooling::Max && self.strips(io)
    }

    fn epilogue(&self) -> bool {
        true
    }
}

/// Gradient of [`Pool2d`] to its input x. Inputs are x, the result y and the gradient dy to it, of an average dy alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool2dGrad {
    /// The pooling.
    pub pool: Pool2d,
    /// Height and width of its input.
    pub input: [usize; 2],
}

impl Pool2dGrad {
    /// Returns whether the gradient depends on dy alone.
    pub(super) fn is_linear(&self) -> bool {
        matches!(self.pool.pooling, Pooling::Average { .. })
    }

    /// Returns which input is dy, the last.
    fn dy(&self) -> usize {
        if self.is_linear() { 0 } else { 2 }
    }

    /// Returns the sizes for the shape of dy.
    fn geometry(&self, dy: &Shape) -> Result<Geometry, OpError> {
        let [h, w] = self.input;
        self.pool.options.geometry(self.name(), &TensorType::f32(dy.with_row(&[h, w, dy.last()])))
    }

    /// Returns the kernel of one lane for each pixel: its name, text, slots and loops.
    fn gather(&self, g: &Geometry, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
        let pooling = self.pool.pooling;
        let (width, lanes) = (kernels::width(g.c, profile), pooling.lanes(profile));
        let items = io.outputs[0].shape.elements().over(width as u64);
        let constants = g.constants(items, width, lanes, pooling.counts_padding());
        let core = if self.is_linear() { Core::Elements } else { Core::Gather };
        let mut slots: Vec<Slot> = (0..=self.dy()).map(Slot::input).collect();
        slots.push(Slot::output(0));
        let source = Pooling::source(pooling.shaders()[1], width, profile);
        let dispatch = kernels::dispatch(self.name(), source, &constants, Grid::new(items, lanes), slots, epilogue);
        Candidate::single(Schedule::of_width(core, width), dispatch)
    }

    /// Returns the kernel of one lane for each window and the pixels around it, for maxima of windows that do not overlap.
    fn cells(&self, g: &Geometry, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
        let (width, lanes) = (kernels::width(g.c, profile), self.pool.pooling.lanes(profile));
        let [sh, sw] = g.strides;
        let cells = [(g.h + g.top).div_ceil(sh).max(g.oh), (g.w + g.left).div_ceil(sw).max(g.ow)];
        let items = io.inputs[0].shape.with_row(&[cells[0], cells[1], g.c / width]).elements();
        let whole = g.pads == [[0; 2]; 2] && [g.oh * sh, g.ow * sw] == [g.h, g.w] && cells == [g.oh, g.ow];
        let mut constants = g.constants(items, width, lanes, false);
        constants.extend([("CH", cells[0] as f64), ("CW", cells[1] as f64)]);
        constants.push(("WHOLE", f64::from(u8::from(whole))));
        let shader = shader!("max_pool2d_grad_cells.wgsl");
        let source = Pooling::source(shader, width, profile).constant("CELL", sh * sw);
        let slots = vec![Slot::input(0), Slot::input(2), Slot::output(0)];
        let grid = Grid::new(items, lanes);
        let dispatch = kernels::dispatch("max_pool2d_grad_cells", source, &constants, grid, slots, epilogue);
        Candidate::single(Schedule::of_width(Core::Cells, width), dispatch)
    }
}

impl Op for Pool2dGrad {
    fn name(&self) -> &'static str {
        self.pool.pooling.names()[1]
    }

    fn key(&self) -> String {
        format!("{} input={:?}", self.pool.key(), self.input)
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        if self.is_linear() {
            let [dy] = arity(self.name(), inputs, "pass the gradient to the result")?;
            let [p, q, c] = image(self.name(), "the gradient to the result", dy)?;
            let g = self.geometry(&dy.shape)?;
            if [p, q] != [g.oh, g.ow] {
                let wanted = format!("a gradient of {}×{} pixels", g.oh, g.ow);
                return Err(OpError::new(self.name(), wanted, &dy.shape, "pass the gradient to the result"));
            }
            return Ok(vec![TensorType::f32(dy.shape.with_row(&[g.h, g.w, c]))]);
        }
        let [x, y, dy] = arity(self.name(), inputs, "pass x, y and dy")?;
        let g = self.pool.options.geometry(self.name(), x)?;
        let wanted = TensorType::f32(x.shape.with_row(&[g.oh, g.ow, g.c]));
        match [y, dy].into_iter().find(|t| **t != wanted) {
            None => Ok(vec![x.clone()]),
            Some(got) => {
                Err(OpError::new(self.name(), wanted.to_string(), got, "y and dy have the shape of the pooled x"))
            }
        }
    }

    fn reference(&self, inputs: &[&Array], _step: &Step) -> Vec<Array> {
        let dy = inputs[self.dy()];
        let Ok(g) = self.geometry(&Shape::fixed(dy.shape.clone())) else { return Vec::new() };
        let mut dx = Array::zeros([dy.shape[0], g.h, g.w, g.c]);
        g.windows(dy.shape[0], |window, taps| match (self.pool.pooling, inputs) {
            (Pooling::Max, [x, ..]) => dx.data[first_maximum(x, taps)] += dy.data[window],
            (Pooling::L2, [x, y, ..]) => taps.iter().for_each(|&tap| {
                let slope = if y.data[window] == 0.0 { 0.0 } else { x.data[tap] / y.data[window] };
                dx.data[tap] += slope * dy.data[window];
            }),
            (pooling, _) => {
                let share = dy.data[window] / pooling.count(taps, self.pool.size());
                taps.iter().for_each(|&tap| dx.data[tap] += share);
            }
        });
        vec![dx]
    }

    fn vjp(&self, g: &mut Graph, _inputs: &[Value], _outputs: &[Value], dy: &[Option<Value>]) -> Gradients {
        if !self.is_linear() {
            return Err(OpError::first_order(self.name()));
        }
        let Some(d) = dy[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(self.pool, &[d])?)])
    }

    fn lower(&self, io: &Io, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
        let Ok(g) = self.geometry(&io.inputs[self.dy()].shape) else { return Vec::new() };
        let window = g.window(self.name(), true, images(&io.inputs[0].shape));
        let fast = match self.pool.pooling {
            // A lane keeps its cell in registers.
            Pooling::Max if !g.overlaps() && g.strides[0] * g.strides[1] <= 64 => {
                Some(self.cells(&g, io, profile, epilogue))
            }
            Pooling::Max if g.overlaps() && g.unrolls() && profile.large_shaders() => {
                Some(kernels::max_pool_grad(&window, profile, epilogue))
            }
            Pooling::Average { .. } if g.unrolls() => {
                Some(kernels::reduce_window(&window, self.pool.pooling.reduction(), profile, epilogue))
            }
            _ => None,
        };
        fast.into_iter().chain([self.gather(&g, io, profile, epilogue)]).collect()
    }

    /// Where a crop takes zeros away that stood around the images, windows have padding instead. The gradient of a window whose largest
    /// pixel is 0 may go to another one then: to a 0 of ReLU, which passes none on.
    fn rewrite(&self, cx: &RewriteCx) -> Option<Patch> {
        let (cropped, reader) = cx.sole_reader(0)?;
        let cut = reader.op()?.downcast::<Pad2d>()?.crop()?;
        let (x, pool) =
            self.pool.with_padding(cx).filter(|_| zero_padded_input(cx).is_some_and(|(_, zeros)| zeros == cut))?;
        let masks = |node: &Node| {
            let program = node.op().and_then(|op| op.pointwise());
            let one = program.is_some_and(|p| matches!(&p.instrs[..], [only] if only.f.name == "where_positive"));
            one && node.inputs == [cropped, x]
        };
        let [_, h, w, _] = *cx.graph().shape(x).dims() else { return None };
        let (inputs, op) = (&cx.node().inputs, Pool2dGrad { pool, input: [h, w] });
        let is_result = cx.graph().outputs().iter().any(|(_, v)| *v == cropped);
        if is_result || !cx.readers(cropped).all(|(_, node)| masks(node)) {
            return None;
        }
        cx.patch(op, &[x, inputs[1], inputs[2]], &[cropped])
    }

    fn cost(&self, io: &Io) -> Cost {
        let flops = match self.is_linear() {
            true => io.outputs[0].shape.elements().times(self.pool.overlap() as u64),
            false => io.inputs[2].shape.elements().times(self.pool.size() as u64),
        };
        Cost { flops, bytes: io.bytes() }
    }

    fn accuracy(&self, _io: &Io, _n: usize) -> Vec<Accuracy> {
        let terms = self.pool.overlap() as u64;
        vec![match self.pool.pooling {
            Pooling::Max if terms == 1 => Accuracy::Exact,
            // A quotient may be off by as much as two products.
            Pooling::L2 => Accuracy::Products { terms: 3 * terms },
            _ => Accuracy::Products { terms },
        }]
    }

    fn bounds(&self, io: &Io, inputs: &[&Array], exact: &[Array], step: &Step) -> Vec<Array> {
        let accuracy = self.accuracy(io, step.n)[0];
        // Magnitudes of x would have another maximum.
        let kept = if self.pool.pooling == Pooling::Max { 2 } else { 0 };
        let magnitudes: Vec<Array> =
            inputs.iter().enumerate().map(|(i, &a)| if i < kept { a.clone() } else { a.map(f64::abs) }).collect();
        let magnitudes = self.reference(&magnitudes.iter().collect::<Vec<_>>(), step);
        (exact.iter().zip(&magnitudes))
            .map(|(e, m)| Array::from_fn(e.shape.clone(), |i| accuracy.bound(&[], e.data[i], m.data[i])))
            .collect()
    }

    fn prologue(&self, io: &Io, input: usize) -> bool {
        input == 0 && self.pool.prologue(io, 0)
    }

    fn epilogue(&self) -> bool {
        true
    }
}
