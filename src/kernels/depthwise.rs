//! Depthwise convolution, pooling and their gradients: a lane slides down strips of pictures with the rows of sums, or of the
//! result's gradient, that are still open in registers, so that it loads each element of a strip once for all taps.
//!
//! Along an axis, with `back = (taps − 1) · dilation / stride`, step t of a strip reads the rows that later steps no
//! longer need and closes the rows that no later step adds to. Where the stride is 1, positions that are a multiple
//! of the dilation apart form problems of their own (phases) without dilation.

use super::{
    dispatch,
    gemm::{Filter, Finish, LOAD, LONG_BATCH, MADD, STORE, Window, split_sum, wgsl_count},
    widen, width,
};
use crate::{
    graph::{Candidate, DeviceClass, DeviceProfile, Epilogue, Grid, Slot, wgsl_f32},
    tensor::Count,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The batch for which strips are chosen; every batch runs.
const NOMINAL_BATCH: usize = 8;

/// One axis of a depthwise convolution; local positions are those of one phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    taps: usize,
    stride: usize,
    dilation: usize,
    phases: usize,
    pad: usize,
    to: usize,
    transposed: bool,
    /// Local results of one strip; where transposed a multiple of the stride.
    pub(super) size: usize,
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

    pub(super) fn back(&self) -> usize {
        self.reach() / self.stride
    }

    /// Zeros in front that strips leave out.
    fn lead(&self) -> usize {
        if self.transposed { self.pad / self.stride * self.stride } else { 0 }
    }

    pub(super) fn results(&self) -> usize {
        let before = if self.transposed { self.pad - self.lead() } else { 0 };
        (self.to + before).div_ceil(self.phases)
    }

    /// Returns the axis cut into at most `n` strips.
    pub(super) fn cut(mut self, n: usize) -> Self {
        self.size = self.results().div_ceil(n.max(1)).max(1);
        if self.transposed {
            self.size = self.size.next_multiple_of(self.stride);
        }
        self
    }

    fn strips(&self) -> usize {
        self.results().div_ceil(self.size)
    }

    /// Returns what position 0 of a strip reads, per strip, per phase and before all strips.
    fn source(&self) -> (usize, i64) {
        let Axis { phases, stride, size, pad, .. } = *self;
        if self.transposed {
            (phases * size / stride, (self.lead() / stride) as i64 - (phases * self.back()) as i64)
        } else {
            (phases * size * stride, -(pad as i64))
        }
    }

    /// Returns where result 0 of a strip lies, per strip and before all strips.
    fn place(&self) -> (usize, i64) {
        let before = if self.transposed { (self.pad - self.lead()) as i64 } else { 0 };
        (self.phases * self.size, -before)
    }

    /// Returns which (position read, result, tap) of a strip belong together.
    fn products(&self) -> Vec<(usize, usize, usize)> {
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
    fn inside(&self, (per_strip, first): (usize, i64), at: usize, end: usize) -> (bool, bool) {
        let all = (0..self.strips())
            .flat_map(|b| (0..self.phases).map(move |phase| first + (b * per_strip + phase + self.phases * at) as i64));
        let there = all.map(|p| (0..end as i64).contains(&p)).collect::<Vec<_>>();
        (there.contains(&true), !there.contains(&false))
    }

    /// Returns the rows that a step reads, and the rows that it closes.
    fn steps(&self) -> (usize, usize) {
        if self.transposed { (1, self.stride) } else { (self.stride, 1) }
    }

    /// Returns the number of open rows.
    pub(super) fn open(&self) -> usize {
        if self.transposed { (self.reach() + 1).max(self.stride) } else { self.back() + 1 }
    }

    /// Returns which (row read in a step, open row, tap) belong together.
    fn row_products(&self) -> Vec<(usize, usize, usize)> {
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
    /// The sum over the window's pixels, or those of them inside the picture, divided by their number.
    Average {
        /// Whether pixels outside the picture count, as zeros.
        padding: bool,
    },
    /// The largest value; NaN is the largest.
    Largest,
}

impl Slide {
    /// Returns what stands outside the picture.
    fn outside(self) -> &'static str {
        if self == Slide::Largest { "I(LOWEST)" } else { "V(0.0)" }
    }

    /// Returns what a result begins with: a zero that no compiler knows, since the epilogue may multiply by it.
    fn start(self) -> &'static str {
        if self == Slide::Largest { "I(LOWEST)" } else { "V(step.zero)" }
    }
}

/// A depthwise kernel in strips.
pub(super) struct Plan<'a> {
    w: &'a Window,
    pub(super) rows: Axis,
    pub(super) columns: Axis,
    pub(super) width: usize,
    pub(super) lanes: usize,
    /// Result channels of an input channel.
    multiplier: usize,
    profile: &'a DeviceProfile,
}

/// The most taps that a loop body names.
pub(super) const MOST_TAPS: usize = 256;

/// What one loop body may multiply, hold as open rows and read, in V: more take drivers long to compile and run no
/// faster.
pub(super) const MOST_MADDS: usize = 384;
const MOST_OPEN: usize = 128;
const MOST_READS: usize = 20;

impl<'a> Plan<'a> {
    pub(super) fn new(w: &'a Window, profile: &'a DeviceProfile) -> Self {
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
    pub(super) fn vectors(&self) -> usize {
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
            let long =
                axis.size * taps > MOST_MADDS || open > MOST_OPEN || reads > MOST_READS || (gpu && axis.size > 4);
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

    /// Returns strips of one picture.
    pub(super) fn strips(&self) -> usize {
        self.columns.strips() * self.columns.phases * self.rows.strips() * self.rows.phases
    }

    pub(super) fn header(&self) -> String {
        "alias V = f32;
alias S = f32;
const WIDTH = 1u;
fn unpack(s: S) -> V { return s; }
fn pack(v: V) -> S { return v; }
"
        .to_owned()
    }

    /// Returns statements that find the strip's place from `strip`, which counts strips of all pictures.
    pub(super) fn enter(&self) -> String {
        let (columns, rows) = (&self.columns, &self.rows);
        let (n_columns, n_rows) = (columns.strips() * columns.phases, rows.strips() * rows.phases);
        let mut t = format!(
            "    let column = strip % {n_columns}u;
    let row = strip / {n_columns}u % {n_rows}u;
    let picture = strip / {}u;\n",
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
    fn load(
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
    let line{i} = i32((picture * {h}u + h{i}) * {} + {c}) + column_in * {channels};\n",
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
            let mut there = Vec::new();
            if !safe {
                there.push(format!("h{i} < {h}u"));
            }
            if !all {
                there.push(format!("u32(column_in + {}) < {w}u", j * columns.phases));
            }
            let _ = if !some {
                writeln!(t, "    let x{i}_{j} = {outside};")
            } else if there.is_empty() {
                writeln!(t, "    let x{i}_{j} = {};", value(&index))
            } else {
                let there = there.join(" && ");
                let value = value(&format!("select(0u, {index}, there{i}_{j})"));
                writeln!(
                    t,
                    "    let there{i}_{j} = {there};\n    let x{i}_{j} = select({outside}, {value}, there{i}_{j});"
                )
            };
        }
        t
    }

    /// Returns the factor that makes an average of a sum over whole windows.
    fn share(&self) -> String {
        format!(" * {}", wgsl_f32(1.0 / (self.w.kernel[0] * self.w.kernel[1]) as f32))
    }

    /// Returns the number of pixels inside the picture of the window at position `at` along an axis.
    fn inside_window(&self, axis: usize, at: &str) -> String {
        let Window { kernel, strides, pads, from, to, transposed, .. } = self.w;
        let first = format!("{at} * {} - {}", strides[axis], pads[axis]);
        let size = if *transposed { to[axis] } else { from[axis] };
        format!("min({first} + {}, {size}) - max({first}, 0)", kernel[axis])
    }

    /// Returns statements that load the weights of the channel `k` as `w0_0`, ….
    fn load_weights(&self, k: &str) -> String {
        let mut t = String::new();
        let ([kh, kw], channels) = (self.w.kernel, self.w.from_channels.max(self.w.to_channels) / self.width);
        for r in 0..kh {
            for s in 0..kw {
                let _ = writeln!(t, "    let w{r}_{s} = unpack(w[{k} + {}u]);", (r * kw + s) * channels);
            }
        }
        t
    }

    pub(super) fn variant(&self, how: &str) -> String {
        format!("{how}_{}x{}_width{}", self.rows.size, self.columns.size, self.width)
    }
}

/// Returns the way to slide a window over each channel alone.
pub fn slide(w: &Window, how: Slide, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Candidate {
    let plan = Plan::new(w, profile);
    let (rows, columns, m) = (&plan.rows, &plan.columns, plan.multiplier);
    let (vectors, strips) = (plan.vectors(), plan.strips());
    let row_products = rows.row_products();
    let products = columns.products();
    let (whole, weighted) = (m == 1, how == Slide::Weighted);
    // Averages over the pixels inside the picture divide sums, or shares where transposed, by their number.
    let counted = how == Slide::Average { padding: false };
    let mut t = plan.header();
    let _ = write!(
        t,
        "@group(0) @binding(1) var<storage, read> x: array<{x}>;
{weights}@group(0) @binding({last}) var<storage, read_write> y: array<S>;
@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let item = (id.x + id.y * counts.x) * {lanes}u + lane;
    let items = {items};
    if (item >= items) {{ return; }}
    let c = item % {vectors}u;
    let strip = item / {vectors}u;
",
        x = if whole { "S" } else { "f32" },
        weights = if weighted { "@group(0) @binding(2) var<storage, read> w: array<S>;\n" } else { "" },
        last = if weighted { 3 } else { 2 },
        lanes = plan.lanes,
        items = wgsl_count(w.pictures.times((vectors * strips) as u64)),
    );
    t.push_str(&plan.enter());
    // Several channels for each result: their weights do not fit into registers.
    let many = m > 1 && w.transposed;
    if weighted && !many {
        t.push_str(&plan.load_weights("c"));
    }
    if counted {
        let positions: BTreeSet<usize> =
            if w.transposed { products.iter().map(|p| p.0).collect() } else { (0..columns.size).collect() };
        let from = if w.transposed { "column_in" } else { "column_out" };
        for k in positions {
            let n = plan.inside_window(1, &format!("({from} + {k})"));
            let _ = writeln!(t, "    let column_n{k} = {n};");
        }
    }
    let (n_open, (reads, closes)) = (rows.open(), rows.steps());
    for e in 0..n_open {
        for o in 0..columns.size {
            let _ = writeln!(t, "    var a{e}_{o} = {};", how.start());
        }
    }
    let back = rows.back();
    let steps = rows.size / closes + back;
    let _ = writeln!(t, "    let end_t = {steps}u;\n    for (var t = 0u; t < end_t; t++) {{");
    let (channels, c) = match (whole, w.transposed) {
        (true, _) => (vectors, "c".to_owned()),
        (_, false) => (w.from_channels, format!("c * {}u / {m}u", plan.width)),
        (_, true) => (w.from_channels, format!("c * {m}u + m")),
    };
    if many {
        let _ = writeln!(t, "    for (var m = 0u; m < {m}u; m++) {{\n    let k = c * {m}u + m;");
        t.push_str(&plan.load_weights("k"));
    }
    for i in 0..reads {
        if row_products.iter().any(|p| p.0 == i) {
            t.push_str(&plan.load(i, &products, (channels, &c), whole, how));
        }
    }
    // All products of one sum together: it stays in a register.
    for e in 0..n_open {
        for o in 0..columns.size {
            for (i, _, r) in row_products.iter().filter(|p| p.1 == e) {
                for (j, _, s) in products.iter().filter(|p| p.1 == o) {
                    let _ = match how {
                        Slide::Weighted => writeln!(t, "    a{e}_{o} += x{i}_{j} * w{r}_{s};"),
                        Slide::Average { .. } => writeln!(t, "    a{e}_{o} += x{i}_{j};"),
                        Slide::Largest => writeln!(t, "    a{e}_{o} = max(a{e}_{o}, x{i}_{j});"),
                    };
                }
            }
        }
    }
    if many {
        t.push_str("    }\n");
    }
    let [to_h, to_w] = w.to;
    for e in 0..closes {
        let _ = writeln!(
            t,
            "    let p{e} = u32(row_out + (i32(t) - {back}) * {} + {});
    if (t >= {back}u && p{e} < {to_h}u) {{
    let line_out{e} = i32((picture * {to_h}u + p{e}) * {}u + c) + column_out * {vectors};",
            closes * rows.phases,
            e * rows.phases,
            to_w * vectors
        );
        if counted && !w.transposed {
            let _ = writeln!(t, "    let row_n{e} = {};", plan.inside_window(0, &format!("i32(p{e})")));
        }
        for o in 0..columns.size {
            let at = o * columns.phases;
            let share = match how {
                Slide::Average { padding: false } if !w.transposed => {
                    format!(" * (1.0 / f32(max(row_n{e} * column_n{o}, 1)))")
                }
                Slide::Average { padding: true } if !w.transposed => plan.share(),
                _ => String::new(),
            };
            let sum = if how == Slide::Largest { format!("of_rank(a{e}_{o})") } else { format!("a{e}_{o}{share}") };
            let store = format!(
                "let at{o} = u32(line_out{e} + {}); y[at{o}] = pack(epilogue({sum}, at{o} * WIDTH));",
                at * vectors
            );
            let _ = match columns.inside(columns.place(), o, to_w) {
                (_, true) => writeln!(t, "    {store}"),
                _ => writeln!(t, "    if (u32(column_out + {at}) < {to_w}u) {{ {store} }}"),
            };
        }
        t.push_str("    }\n");
    }
    for e in 0..n_open {
        for o in 0..columns.size {
            let next = if e + closes < n_open { format!("a{}_{o}", e + closes) } else { how.start().into() };
            let _ = writeln!(t, "    a{e}_{o} = {next};");
        }
    }
    t.push_str("    }\n}\n");
    let source = widen(&t, plan.width, profile);
    let grid = Grid::new(w.pictures.times((vectors * strips) as u64), plan.lanes as u32);
    let mut slots = vec![Slot::input(0), Slot::output(0)];
    if weighted {
        slots.insert(1, Slot::input(1));
    }
    let turns = Count { fixed: (steps * if many { m + 1 } else { 1 }) as u64, per_sample: 0 };
    let dispatch = dispatch(w.name, &source, &[], grid, slots, epilogue).turns(turns, 1);
    Candidate::single(plan.variant("strips"), dispatch)
}

/// Returns the way to compute the gradient to the weights of a convolution of each channel alone: every lane adds up
/// all taps of its channel over every so manieth strip, and a second launch adds the lanes' sums in order.
pub(super) fn filter(f: &Filter, profile: &DeviceProfile) -> Candidate {
    let w = Window {
        name: "conv2d_grad_weight",
        transposed: false,
        from: f.input,
        to: f.output,
        from_channels: f.from_channels,
        to_channels: f.to_channels,
        kernel: f.kernel,
        strides: f.strides,
        pads: f.pads,
        dilation: f.dilation,
        groups: f.from_channels,
        pictures: f.pictures,
    };
    let plan = Plan::new(&w, profile);
    let (rows, columns, m) = (&plan.rows, &plan.columns, plan.multiplier);
    let (vectors, strips) = (plan.vectors(), plan.strips());
    let wanted: usize = if profile.class == DeviceClass::Cpu { 64 } else { 16_384 };
    let turns = f.pictures.times((strips * (plan.rows.size + plan.rows.back() + 1)) as u64);
    let long = turns.at(LONG_BATCH).div_ceil(profile.max_turns / 2) as usize;
    let parts = wanted.div_ceil(vectors).min(f.pictures.at(NOMINAL_BATCH) as usize * strips).max(long).max(1);
    let (row_products, products, whole) = (rows.row_products(), columns.products(), m == 1);
    let ([kh, kw], [p, q]) = (f.kernel, f.output);
    let elements = (kh * kw + usize::from(f.sums)) * vectors;
    let mut t = plan.header();
    let _ = write!(
        t,
        "@group(0) @binding(1) var<storage, read> x: array<{x}>;
@group(0) @binding(2) var<storage, read> dy: array<S>;
@group(0) @binding(3) var<storage, read_write> y: array<S>;
@compute @workgroup_size({lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let item = (id.x + id.y * counts.x) * {lanes}u + lane;
    let items = {}u;
    if (item >= items) {{ return; }}
    let c = item % {vectors}u;
    let part = item / {vectors}u;
    let end_strip = {};
",
        parts * vectors,
        wgsl_count(f.pictures.times(strips as u64)),
        x = if whole { "S" } else { "f32" },
        lanes = plan.lanes,
    );
    for r in 0..kh {
        for s in 0..kw {
            let _ = writeln!(t, "    var w{r}_{s} = V(0.0);");
        }
    }
    if f.sums {
        t.push_str("    var sum = V(0.0);\n");
    }
    let _ = writeln!(t, "    for (var strip = part; strip < end_strip; strip += {parts}u) {{");
    t.push_str(&plan.enter());
    let (back, reads) = (rows.back(), rows.steps().0);
    for e in 0..back {
        for o in 0..columns.size {
            let _ = writeln!(t, "    var d{e}_{o} = V(0.0);");
        }
    }
    let _ = writeln!(
        t,
        "    let end_t = {}u;\n    for (var t = 0u; t < end_t; t++) {{
    let p = u32(row_out) + t * {}u;
    let there = t < {}u && p < {p}u;
    let line = i32((picture * {p}u + p) * {}u + c) + column_out * {vectors};",
        rows.size + back,
        rows.phases,
        rows.size,
        q * vectors
    );
    for o in 0..columns.size {
        let at = o * columns.phases;
        let there = match columns.inside(columns.place(), o, q) {
            (_, true) => "there".to_owned(),
            _ => format!("(there && u32(column_out + {at}) < {q}u)"),
        };
        let index = format!("u32(line + {})", at * vectors);
        let _ = writeln!(t, "    let d{back}_{o} = select(V(0.0), unpack(dy[select(0u, {index}, {there})]), {there});");
        if f.sums {
            let _ = writeln!(t, "    sum += d{back}_{o};");
        }
    }
    let (channels, c) =
        if whole { (vectors, "c".to_owned()) } else { (f.from_channels, format!("c * {}u / {m}u", plan.width)) };
    for i in 0..reads {
        if row_products.iter().any(|p| p.0 == i) {
            t.push_str(&plan.load(i, &products, (channels, &c), whole, Slide::Weighted));
        }
    }
    for (i, e, r) in &row_products {
        for s in 0..kw {
            for (j, o, _) in products.iter().filter(|p| p.2 == s) {
                let _ = writeln!(t, "    w{r}_{s} += x{i}_{j} * d{e}_{o};");
            }
        }
    }
    for e in 0..back {
        for o in 0..columns.size {
            let _ = writeln!(t, "    d{e}_{o} = d{}_{o};", e + 1);
        }
    }
    t.push_str("    }\n    }\n");
    let _ = writeln!(t, "    let y_o = part * {elements}u + c;");
    for r in 0..kh {
        for s in 0..kw {
            let _ = writeln!(t, "    y[y_o + {}u] = pack(w{r}_{s});", (r * kw + s) * vectors);
        }
    }
    if f.sums {
        let _ = writeln!(t, "    y[y_o + {}u] = pack(sum);", kh * kw * vectors);
    }
    t.push_str("}\n");
    let source = widen(&t, plan.width, profile);
    let slots = vec![Slot::input(0), Slot::input(1), Slot::Scratch(0)];
    let grid = Grid::new(Count { fixed: (parts * vectors) as u64, per_sample: 0 }, plan.lanes as u32);
    // The last strip of a part that has one more than others.
    let rest = parts * (plan.rows.size + plan.rows.back() + 1);
    let turns = Count { fixed: turns.fixed + rest as u64, ..turns };
    let main = dispatch(w.name, &source, &[], grid, slots, None).turns(turns, parts as u64);
    let sums = if f.sums { f.to_channels } else { 0 };
    let elements = Count { fixed: (elements * plan.width) as u64, per_sample: 0 };
    let sum = split_sum(sums as u64, elements, parts as u64, &Finish::new(None, f.to_channels as u64), None);
    let variant = format!("{}_split{parts}", plan.variant("strips"));
    let scratch_bytes = vec![elements.times(4 * parts as u64)];
    Candidate { variant, dispatches: vec![main, sum], scratch_bytes }
}
