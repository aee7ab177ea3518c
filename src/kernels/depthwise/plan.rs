//! How images are cut into strips, and what a step of a strip reads and closes.

use crate::{
    graph::{DeviceClass, DeviceProfile, wgsl_f32},
    kernels::{
        gemm::{LOAD, MADD, STORE, Window},
        wgsl::width,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The batch for which strips are chosen; every batch runs.
pub(super) const NOMINAL_BATCH: usize = 8;

/// One axis of a depthwise convolution; local positions are those of one phase.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Axis {
    taps: usize,
    stride: usize,
    dilation: usize,
    pub(super) phases: usize,
    pad: usize,
    to: usize,
    transposed: bool,
    /// Local results of one strip; where transposed a multiple of the stride.
    pub(in crate::kernels) size: usize,
}

impl Axis {
    fn new(w: &Window, axis: usize) -> Self {
        let (stride, dilation) = (w.strides[axis], w.dilation[axis]);
        let phases = if stride == 1 { dilation } else { 1 };
        Axis {
            taps: w.kernel[axis],
            stride,
            dilation: dilation / phases,
            phases,
            pad: w.pads[axis],
            to: w.to[axis],
            transposed: w.transposed,
            size: 1,
        }
    }

    fn reach(&self) -> usize {
        (self.taps - 1) * self.dilation
    }

    pub(in crate::kernels) fn back(&self) -> usize {
        self.reach() / self.stride
    }

    /// Zeros in front that strips leave out.
    fn lead(&self) -> usize {
        if self.transposed { self.pad / self.stride * self.stride } else { 0 }
    }

    pub(in crate::kernels) fn results(&self) -> usize {
        let before = if self.transposed { self.pad - self.lead() } else { 0 };
        (self.to + before).div_ceil(self.phases)
    }

    /// Returns the axis cut into at most `n` strips.
    pub(in crate::kernels) fn cut(mut self, n: usize) -> Self {
        self.size = self.results().div_ceil(n.max(1)).max(1);
        if self.transposed {
            self.size = self.size.next_multiple_of(self.stride);
        }
        self
    }

    pub(super) fn strips(&self) -> usize {
        self.results().div_ceil(self.size)
    }

    /// Returns what position 0 of a strip reads, per strip, per phase and before all strips.
    pub(super) fn source(&self) -> (usize, i64) {
        let Axis { phases, stride, size, pad, .. } = *self;
        if self.transposed {
            (phases * size / stride, (self.lead() / stride) as i64 - (phases * self.back()) as i64)
        } else {
            (phases * size * stride, -(pad as i64))
        }
    }

    /// Returns where result 0 of a strip lies, per strip and before all strips.
    pub(super) fn place(&self) -> (usize, i64) {
        let before = if self.transposed { (self.pad - self.lead()) as i64 } else { 0 };
        (self.phases * self.size, -before)
    }

    /// Returns which (position read, result, tap) of a strip belong together.
    pub(super) fn products(&self) -> Vec<(usize, usize, usize)> {
        let mut products = Vec::new();
        for o in 0..self.size {
            for tap in 0..self.taps {
                if self.transposed {
                    let at = (o + self.back() * self.stride).checked_sub(tap * self.dilation);
                    if let Some(at) = at.filter(|at| at % self.stride == 0) {
                        products.push((at / self.stride, o, tap));
                    }
                } else {
                    products.push((o * self.stride + tap * self.dilation, o, tap));
                }
            }
        }
        products
    }

    /// Returns for a position whether it lies in `0..end` in some strip and in all, given the strip's first.
    pub(super) fn inside(&self, (per_strip, first): (usize, i64), at: usize, end: usize) -> (bool, bool) {
        let all = (0..self.strips())
            .flat_map(|b| (0..self.phases).map(move |phase| first + (b * per_strip + phase + self.phases * at) as i64));
        let in_bounds = all.map(|p| (0..end as i64).contains(&p)).collect::<Vec<_>>();
        (in_bounds.contains(&true), !in_bounds.contains(&false))
    }

    /// Returns the rows that a step reads, and the rows that it closes.
    pub(super) fn steps(&self) -> (usize, usize) {
        if self.transposed { (1, self.stride) } else { (self.stride, 1) }
    }

    /// Returns the number of open rows.
    pub(in crate::kernels) fn open(&self) -> usize {
        if self.transposed { (self.reach() + 1).max(self.stride) } else { self.back() + 1 }
    }

    /// Returns which (row read in a step, open row, tap) belong together.
    pub(super) fn row_products(&self) -> Vec<(usize, usize, usize)> {
        (0..self.taps)
            .map(|tap| {
                let at = tap * self.dilation;
                if self.transposed { (0, at, tap) } else { (at % self.stride, self.back() - at / self.stride, tap) }
            })
            .collect()
    }
}

/// What a window does with what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slide {
    /// The sum of products with weights, input 1.
    Weighted,
    /// The sum over the window's pixels, or those of them inside the image, divided by their number.
    Average {
        /// Whether pixels outside the image count, as zeros.
        padding: bool,
    },
    /// The largest value; NaN is the largest.
    Largest,
    /// The square root of the sum of squares.
    Root,
}

impl Slide {
    /// Returns what stands outside the image.
    fn outside(self) -> &'static str {
        if self == Slide::Largest { "I(LOWEST)" } else { "V(0.0)" }
    }

    /// Returns what a result begins with: a zero that no compiler knows, since the epilogue may multiply by it.
    pub(super) fn start(self) -> &'static str {
        if self == Slide::Largest { "I(LOWEST)" } else { "V(step.zero)" }
    }
}

/// A depthwise kernel in strips.
pub(in crate::kernels) struct Plan<'a> {
    w: &'a Window,
    pub(in crate::kernels) rows: Axis,
    pub(in crate::kernels) columns: Axis,
    pub(in crate::kernels) width: usize,
    pub(in crate::kernels) lanes: usize,
    /// Result channels of an input channel.
    pub(super) multiplier: usize,
    profile: &'a DeviceProfile,
}

/// The most taps that a loop body names.
pub(in crate::kernels) const MAX_TAPS: usize = 256;

/// What one loop body may multiply, hold as open rows and read, in V: more take drivers long to compile and run no
/// faster.
pub(in crate::kernels) const MAX_MADDS: usize = 384;
const MAX_OPEN: usize = 128;
const MAX_READS: usize = 20;

impl<'a> Plan<'a> {
    pub(in crate::kernels) fn new(w: &'a Window, profile: &'a DeviceProfile) -> Self {
        let multiplier = (w.from_channels / w.to_channels).max(w.to_channels / w.from_channels);
        // Channels that a vector takes have one input channel each, or all the same.
        let whole = if multiplier == 1 { w.to_channels } else { multiplier };
        let width = if multiplier > 1 && w.transposed { 1 } else { width(whole, profile) };
        let lanes = if profile.class == DeviceClass::Cpu { 8 } else { 64 };
        let (rows, columns) = (Axis::new(w, 0), Axis::new(w, 1));
        let mut plan = Plan { w, rows, columns, width, lanes, multiplier, profile };
        plan.cut();
        plan
    }

    /// Result channels in units of V.
    pub(in crate::kernels) fn vectors(&self) -> usize {
        self.w.to_channels / self.width
    }

    fn cut(&mut self) {
        let gpu = self.profile.class == DeviceClass::Gpu;
        let taps = self.w.kernel[0] * self.w.kernel[1];
        let mut best: Option<(f64, Axis)> = None;
        for n in 1..=self.columns.results() {
            let axis = self.columns.cut(n);
            let open = axis.size * self.rows.open();
            let (reads_per_step, closes) = self.rows.steps();
            let reads = axis.products().iter().map(|p| p.0).collect::<BTreeSet<_>>().len() * reads_per_step;
            let long = axis.size * taps > MAX_MADDS || open > MAX_OPEN || reads > MAX_READS || (gpu && axis.size > 4);
            if long && n < self.columns.results() {
                continue;
            }
            let step = reads as f64 * LOAD
                + (axis.size * closes) as f64 * STORE
                + (axis.size * taps * self.width) as f64 * MADD
                + 10.0;
            let time = axis.strips() as f64 * (step * self.rows.results() as f64 + taps as f64 * LOAD + 100.0);
            if best.as_ref().is_none_or(|(t, _)| time < *t) {
                best = Some((time, axis));
            }
        }
        self.columns = best.map_or(self.columns, |(_, axis)| axis);
        // Rows are cut where there are too few lanes, or too few threads.
        let lanes = self.vectors() * self.columns.strips() * self.columns.phases * self.rows.phases;
        let wanted = if gpu { 32_768 } else { 8 * self.lanes };
        let most = self.rows.results().div_ceil(if gpu { 8 } else { 4 * self.rows.open() });
        self.rows = self.rows.cut(wanted.div_ceil(lanes * if gpu { 1 } else { NOMINAL_BATCH }).clamp(1, most.max(1)));
    }

    /// Returns strips of one image.
    pub(in crate::kernels) fn strips(&self) -> usize {
        self.columns.strips() * self.columns.phases * self.rows.strips() * self.rows.phases
    }

    /// Returns statements that find the strip's place from `strip`, which counts strips of all images.
    pub(in crate::kernels) fn enter(&self) -> String {
        let (columns, rows) = (&self.columns, &self.rows);
        let (n_columns, n_rows) = (columns.strips() * columns.phases, rows.strips() * rows.phases);
        let mut t = format!(
            "    let column = strip % {n_columns}u;
    let row = strip / {n_columns}u % {n_rows}u;
    let image = strip / {}u;\n",
            n_columns * n_rows
        );
        for (name, axis) in [("row", rows), ("column", columns)] {
            let first = |(per_strip, before): (usize, i64)| {
                format!("i32({name} / {p}u * {per_strip}u + {name} % {p}u) + ({before})", p = axis.phases)
            };
            let _ = writeln!(t, "    let {name}_in = {};", first(axis.source()));
            let _ = writeln!(t, "    let {name}_out = {};", first(axis.place()));
        }
        t
    }

    /// Returns statements that load what row `i` of step `t` reads under the names `x0`, `x1`, …; `channels` is the
    /// length of a pixel, `c` the expression of the channel, both in units of what is read.
    pub(super) fn load(
        &self,
        i: usize,
        products: &[(usize, usize, usize)],
        (channels, c): (usize, &str),
        whole: bool,
        how: Slide,
    ) -> String {
        let (columns, rows) = (&self.columns, &self.rows);
        let (reads, _) = rows.steps();
        let [h, w] = self.w.from;
        let steps = rows.size / rows.steps().1 + rows.back();
        let safe = (0..steps * reads).all(|at| rows.inside(rows.source(), at, h).1);
        let mut t = format!(
            "    let h{i} = u32(row_in + i32(t * {}u) + {});
    let line{i} = i32((image * {h}u + h{i}) * {} + {c}) + column_in * {channels};\n",
            reads * rows.phases,
            i * rows.phases,
            w * channels
        );
        if how == (Slide::Average { padding: false }) && self.w.transposed {
            let _ = writeln!(t, "    let row_n{i} = {};", self.inside_window(0, &format!("i32(h{i})")));
        }
        let used: BTreeMap<usize, (bool, bool)> =
            products.iter().map(|&(j, ..)| (j, columns.inside(columns.source(), j, w))).collect();
        for (&j, &(some, all)) in &used {
            let share = match how {
                Slide::Average { padding: false } if self.w.transposed => {
                    format!(" * (1.0 / f32(max(row_n{i} * column_n{j}, 1)))")
                }
                Slide::Average { padding: true } if self.w.transposed => self.share(),
                _ => String::new(),
            };
            let value = |index: &str| match whole {
                _ if how == Slide::Largest => format!("rank(unpack(x[{index}]))"),
                true => format!("unpack(x[{index}]){share}"),
                false => format!("V(x[{index}])"),
            };
            let outside = how.outside();
            let index = format!("u32(line{i} + {})", j * columns.phases * channels);
            let mut in_bounds = Vec::new();
            if !safe {
                in_bounds.push(format!("h{i} < {h}u"));
            }
            if !all {
                in_bounds.push(format!("u32(column_in + {}) < {w}u", j * columns.phases));
            }
            let _ = if !some {
                writeln!(t, "    let x{i}_{j} = {outside};")
            } else if in_bounds.is_empty() {
                writeln!(t, "    let x{i}_{j} = {};", value(&index))
            } else {
                let in_bounds = in_bounds.join(" && ");
                let value = value(&format!("select(0u, {index}, in_bounds{i}_{j})"));
                writeln!(
                    t,
                    "    let in_bounds{i}_{j} = {in_bounds};\n    let x{i}_{j} = select({outside}, {value}, in_bounds{i}_{j});"
                )
            };
        }
        t
    }

    /// Returns the factor that makes an average of a sum over whole windows.
    pub(super) fn share(&self) -> String {
        format!(" * {}", wgsl_f32(1.0 / (self.w.kernel[0] * self.w.kernel[1]) as f32))
    }

    /// Returns the number of pixels inside the image of the window at position `at` along an axis.
    pub(super) fn inside_window(&self, axis: usize, at: &str) -> String {
        let Window { kernel, strides, pads, from, to, transposed, .. } = self.w;
        let first = format!("{at} * {} - {}", strides[axis], pads[axis]);
        let size = if *transposed { to[axis] } else { from[axis] };
        format!("min({first} + {}, {size}) - max({first}, 0)", kernel[axis])
    }

    /// Returns statements that load the weights of the channel `k` as `w0_0`, ….
    pub(super) fn load_weights(&self, k: &str) -> String {
        let mut t = String::new();
        let ([kh, kw], channels) = (self.w.kernel, self.w.from_channels.max(self.w.to_channels) / self.width);
        for r in 0..kh {
            for s in 0..kw {
                let _ = writeln!(t, "    let w{r}_{s} = unpack(w[{k} + {}u]);", (r * kw + s) * channels);
            }
        }
        t
    }

    pub(in crate::kernels) fn variant(&self, how: &str) -> String {
        format!("{how}_{}x{}_width{}", self.rows.size, self.columns.size, self.width)
    }
}
