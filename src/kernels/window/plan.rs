//! How images are cut into strips, and what the kernels over strips share.

use super::{axis::Axis, strip_sums::StripSums};
use crate::{
    graph::{Candidate, ColumnParts, Counts, DeviceClass, DeviceProfile, Dispatch, Epilogue, Grid, Slot},
    kernels::{
        Core, Schedule,
        cost::fastest,
        gemm::Window,
        language::{Buffer, Expr, Finish, Kernel, Layout, Loaded, Stored, Type},
        wgsl::width,
    },
    tensor::{Count, DType},
};
use std::collections::BTreeSet;

/// The batch for which strips are chosen; every batch runs.
pub(super) const NOMINAL_BATCH: usize = 8;

/// The most taps that a loop body names.
pub(in crate::kernels) const MAX_TAPS: usize = 256;

/// What one loop body may multiply, hold as rows under way and read, in vectors: more take drivers long to compile and run no
/// faster.
pub(super) const MAX_MADDS: usize = 384;
const MAX_UNDER_WAY: usize = 128;
const MAX_READS: usize = 20;

/// The vectors that a lane keeps at most for what it applies to an input: what depends on the channel alone.
pub(super) const KEPT_OF_INPUT: usize = 5;

/// The numbers that a lane of a GPU keeps at most: with the rest of what it needs they fill half of its registers, so that other
/// subgroups work while it waits.
const MAX_KEPT: usize = 108;

/// A kernel over strips.
pub(super) struct Plan<'a> {
    w: &'a Window,
    profile: &'a DeviceProfile,
    pub(super) rows: Axis,
    pub(super) columns: Axis,
    /// Channels of a vector.
    width: usize,
    /// Vectors that a lane keeps beside the rows under way: weights, or their sums.
    kept: usize,
    lanes: usize,
    /// Channels of the result for a channel that is read, or the other way round.
    pub(super) multiplier: usize,
    /// What windows over the images count.
    pub(super) counts: Counts,
}

/// Where a strip lies; all numbers but the channel are i32.
pub(super) struct Strip {
    /// The vector of channels of the result.
    pub(super) channel: Expr,
    image: Expr,
    /// Row and column of position 0 that is read.
    pub(super) read: [Expr; 2],
    /// Row and column of result 0.
    pub(super) result: [Expr; 2],
}

impl Strip {
    /// Returns the index of a pixel's channel in images of `size` and `channels`.
    pub(super) fn index(&self, [h, w]: [usize; 2], channels: usize, [row, column, channel]: [&Expr; 3]) -> Expr {
        (&self.image * h + row) * (w * channels) + channel.i32() + column * channels
    }
}

/// A row that a step reads, and its pixels by position: whether they lie in the image, and their vectors of channels.
pub(super) struct ReadRow {
    pub(super) row: Expr,
    pub(super) pixels: Vec<(Expr, Expr)>,
}

/// An input of a kernel, and what is applied to it as it is loaded, with what that needs of the channel.
pub(super) struct Input {
    buffer: Buffer,
    loaded: Option<(Loaded, Vec<Expr>)>,
}

impl Input {
    /// Returns the vector of number `index`.
    pub(super) fn at(&self, index: &Expr) -> Expr {
        let value = self.buffer.at(index);
        match &self.loaded {
            None => value,
            Some((loaded, columns)) => loaded.apply(value, index, columns),
        }
    }

    /// Reads what is needed of a vector of channels.
    pub(super) fn enter(&mut self, k: &mut Kernel, channel: &Expr) {
        self.loaded.iter_mut().for_each(|(loaded, columns)| *columns = loaded.columns(k, channel));
    }
}

/// The result of a kernel: its buffer, and the rows under way, each of which starts as `start`.
pub(super) struct Output {
    y: Buffer,
    finish: Finish,
    start: Expr,
    pub(super) rows: Vec<Vec<Expr>>,
    pub(super) sums: Option<StripSums>,
}

impl<'a> Plan<'a> {
    /// Returns the plan of a kernel that keeps so many vectors beside the rows under way.
    pub(super) fn new(w: &'a Window, profile: &'a DeviceProfile, kept: usize) -> Self {
        let multiplier = (w.from_channels / w.to_channels).max(w.to_channels / w.from_channels);
        // Channels that a vector takes have one input channel each, or all the same.
        let whole = if multiplier == 1 { w.to_channels } else { multiplier };
        let width = if multiplier > 1 && w.transposed { 1 } else { width(whole, profile) };
        let lanes = if profile.class == DeviceClass::Cpu { 8 } else { 64 };
        let mut plan = Plan {
            w,
            profile,
            rows: Axis::new(w, 0),
            columns: Axis::new(w, 1),
            width,
            kept,
            lanes,
            multiplier,
            counts: Counts::default(),
        };
        let two = plan.columns.in_strips(plan.columns.per_phase().div_ceil(2));
        plan.narrow(|plan| plan.keeps(plan.reads(&two) + plan.kept + two.size * plan.rows.under_way()));
        plan.cut();
        plan
    }

    /// Returns whether a lane can keep so many vectors.
    pub(super) fn keeps(&self, vectors: usize) -> bool {
        self.profile.class == DeviceClass::Cpu || vectors * self.width <= MAX_KEPT
    }

    /// Takes narrower vectors until they fit.
    pub(super) fn narrow(&mut self, fits: impl Fn(&Self) -> bool) {
        while self.width > 1 && !fits(self) {
            self.width /= 2;
        }
    }

    /// Returns how many pixels a step reads.
    fn reads(&self, columns: &Axis) -> usize {
        let positions: BTreeSet<usize> = columns.terms().iter().map(|term| term.read).collect();
        positions.len() * self.rows.reads_per_step()
    }

    /// Cuts columns into the strips that take the least time, and rows where there are too few lanes, or too few threads.
    fn cut(&mut self) {
        let gpu = self.profile.class == DeviceClass::Gpu;
        let taps = self.w.kernel[0] * self.w.kernel[1];
        let (rows, most) = (self.rows, self.columns.per_phase());
        let fits = |c: &Axis| {
            let (reads, under_way) = (self.reads(c), c.size * rows.under_way());
            let madds = c.size * taps <= MAX_MADDS && !(gpu && c.size > 4);
            madds && under_way <= MAX_UNDER_WAY && reads <= MAX_READS && self.keeps(self.kept + under_way + reads)
        };
        let counts = |c: &Axis| {
            let step = Counts::load(self.reads(c)) + Counts::store(c.size * rows.results_per_step());
            let step = step + Counts::madd(c.size * taps * self.width) + Counts::instruction(10);
            let once = Counts::load(taps) + Counts::instruction(100);
            (step * rows.per_phase() as f64 + once) * c.strips() as f64
        };
        let columns = (1..=most).map(|n| self.columns.in_strips(n));
        let columns = columns.enumerate().filter(|(i, c)| i + 1 == most || fits(c)).map(|(_, c)| c);
        let (counts, columns) = fastest(columns, self.profile.class, counts).unwrap_or((self.counts, self.columns));
        let images = self.w.images.at(crate::graph::NOMINAL_BATCH) as usize;
        let counts = counts * ((self.channels() * columns.phases * rows.phases * images) as f64 / 8.0);
        // Words of a vector.
        let words = self.width as f64 / if self.profile.u64_loads && self.width > 1 { 2.0 } else { 1.0 };
        self.counts = Counts { load: counts.load * words, store: counts.store * words, ..counts };
        self.columns = columns;
        let lanes = self.channels() * self.columns.strips() * self.columns.phases * rows.phases;
        let wanted = if gpu { 512 * self.profile.multiprocessors as usize } else { 8 * self.lanes };
        let most = rows.per_phase().div_ceil(if gpu { 2 } else { 4 * rows.under_way() });
        let each = lanes * if gpu { self.profile.batch } else { NOMINAL_BATCH };
        self.rows = rows.in_strips(wanted.div_ceil(each).clamp(1, most.max(1)));
    }

    /// Returns the vectors of channels of the result.
    pub(super) fn channels(&self) -> usize {
        self.w.to_channels / self.width
    }

    /// Returns strips of one image.
    pub(super) fn strips(&self) -> usize {
        self.columns.strips() * self.columns.phases * self.rows.strips() * self.rows.phases
    }

    /// Returns the strips of all images, each once for each vector of channels.
    pub(super) fn items(&self) -> Count {
        self.w.images.times((self.channels() * self.strips()) as u64)
    }

    /// Returns the type of a vector of channels, and of their ranks.
    pub(super) fn vectors(&self) -> [Type; 2] {
        [Type::F32, Type::I32].map(|scalar| scalar.vector(self.width))
    }

    /// Returns how a tensor lies in memory that has the result's channels, a multiple or as many for each of them.
    pub(super) fn layout(&self) -> Layout {
        Layout::Vectors { width: self.width, words: self.profile.u64_loads }
    }

    /// Returns a kernel that reads input 0 as `x`.
    pub(super) fn kernel(&self) -> (Kernel, Buffer) {
        let mut k = Kernel::new(self.w.name, self.lanes);
        let layout = if self.multiplier == 1 { self.layout() } else { Layout::Scalars(DType::F32) };
        let x = k.bind("x", layout, Slot::input(0));
        (k, x)
    }

    /// Declares what an epilogue asks to apply to input `i` as it is loaded, behind what the kernel binds else.
    pub(super) fn input(&self, k: &mut Kernel, (i, buffer): (usize, Buffer), epilogue: Option<&Epilogue>) -> Input {
        let prologue = epilogue.and_then(|e| e.prologues.iter().find(|p| p.input == i));
        let columns = self.w.to_channels as u64;
        let loaded = Stored { width: self.width, words: self.profile.u64_loads, columns };
        let loaded = prologue.map(|p| (Loaded::bind(k, p, loaded, false), Vec::new()));
        Input { buffer, loaded }
    }

    /// Returns the launch of a kernel whose lanes do one item each.
    pub(super) fn launch(&self, k: Kernel, items: Count) -> Dispatch {
        k.launch(Grid::new(items, self.lanes as u32))
    }

    /// Returns the candidate of a kernel whose lanes do a strip each and leave these column sums.
    pub(super) fn candidate(&self, k: Kernel, sums: Option<(ColumnParts, Count)>) -> Candidate {
        let launch = self.launch(k, self.items());
        match sums {
            None => Candidate::single(self.schedule(), launch),
            Some((parts, bytes)) => {
                Candidate { parts: Some(parts), ..Candidate::new(self.schedule(), vec![launch], vec![bytes]) }
            }
        }
    }

    pub(super) fn schedule(&self) -> Schedule {
        Schedule { width: self.width, ..Schedule::new(Core::Window, [self.rows.size, self.columns.size]) }
    }

    /// Returns the number of a lane's vector of channels, and that of its strip or slice.
    pub(super) fn item(&self, k: &mut Kernel, items: Count) -> [Expr; 2] {
        let i = k.item(items);
        [k.let_("c", &i % self.channels()), i / self.channels()]
    }

    /// Returns where the strip lies that has this number among those of all images.
    pub(super) fn strip(&self, k: &mut Kernel, [channel, number]: [&Expr; 2]) -> Strip {
        let (rows, columns) = (&self.rows, &self.columns);
        let n_columns = columns.strips() * columns.phases;
        let column = k.let_("column", number % n_columns);
        let row = k.let_("row", number / n_columns % (rows.strips() * rows.phases));
        let image = k.let_("image", (number / self.strips()).i32());
        let read = [k.let_("row_in", rows.reads().origin(&row)), k.let_("column_in", columns.reads().origin(&column))];
        let result = [rows.results().origin(&row), columns.results().origin(&column)];
        let [row, column] = result;
        let result = [k.let_("row_out", row), k.let_("column_out", column)];
        Strip { channel: channel.clone(), image, read, result }
    }

    /// Returns the number of the step in the loop over the steps of a strip.
    pub(super) fn step() -> Expr {
        Expr::name("t", Type::U32)
    }

    /// Writes a loop over so many steps of a strip.
    pub(super) fn for_steps(&self, k: &mut Kernel, steps: usize, body: impl FnOnce(&mut Kernel)) {
        k.for_("t", 0u32, steps, 1, |k, _| body(k));
    }

    /// Returns row `i` of those that a step reads; `j` is the channel among several that are read for one of the result.
    pub(super) fn read(&self, k: &mut Kernel, x: &Input, strip: &Strip, i: usize, j: &Expr) -> ReadRow {
        let (rows, columns, m) = (&self.rows, &self.columns, self.multiplier);
        let per_step = rows.reads_per_step() * rows.phases;
        let row = k.let_(format!("h{i}"), &strip.read[0] + (Self::step() * per_step).i32() + i * rows.phases);
        let row_inside = rows.reads().inside(&row, 0..rows.steps() * rows.reads_per_step());
        let (channels, channel) = match (m, self.w.transposed) {
            (1, _) => (self.channels(), strip.channel.clone()),
            (_, true) => (self.w.from_channels, &strip.channel * m + j),
            (_, false) => (self.w.from_channels, &strip.channel * self.width / m),
        };
        let line = strip.index(self.w.from, channels, [&row, &strip.read[1], &channel]);
        let line = k.let_(format!("line{i}"), line);
        let pixel = |p: usize| {
            let column = &strip.read[1] + p * columns.phases;
            let inside = row_inside.and(columns.reads().inside(&column, p..p + 1));
            let inside = k.let_(format!("in_bounds{i}_{p}"), inside);
            let index = (&line + p * columns.phases * channels).u32();
            let value = x.at(&inside.select(index, 0u32));
            (inside, self.vectors()[0].splat(value))
        };
        let pixels = (0..columns.n_reads()).map(pixel).collect();
        ReadRow { row, pixels }
    }

    /// Binds the result, behind what the kernel reads, and declares the rows under way.
    pub(super) fn output(&self, k: &mut Kernel, start: Expr, epilogue: Option<&Epilogue>) -> Output {
        let y = k.bind_result("y", self.layout(), Slot::output(0));
        let stored = Stored { width: self.width, words: self.profile.u64_loads, columns: self.w.to_channels as u64 };
        let finish = Finish::bind(k, epilogue, stored);
        let start = k.let_("start", start);
        let rows = self.variables(k, "a", self.rows.under_way(), &start);
        Output { y, finish, start, rows, sums: None }
    }

    /// Declares variables for so many rows of the results of a strip.
    pub(super) fn variables(&self, k: &mut Kernel, name: &str, rows: usize, start: &Expr) -> Vec<Vec<Expr>> {
        let mut row = |e: usize| (0..self.columns.size).map(|o| k.var(format!("{name}{e}_{o}"), start)).collect();
        (0..rows).map(&mut row).collect()
    }

    /// Writes the end of a step: stores what `results` returns of each row that is complete, and moves the others up.
    pub(super) fn complete(
        &self,
        k: &mut Kernel,
        strip: &Strip,
        output: &Output,
        results: impl Fn(&mut Kernel, usize, &Expr) -> Vec<Expr>,
    ) {
        let (rows, columns, channels, t) = (&self.rows, &self.columns, self.channels(), Self::step());
        let (per_step, halo) = (rows.results_per_step(), rows.halo());
        for e in 0..per_step {
            let row = &strip.result[0] + (t.i32() - halo) * (per_step * rows.phases) + e * rows.phases;
            let row = k.let_(format!("p{e}"), row);
            k.if_(t.at_least(halo).and(rows.results().inside(&row, 0..rows.size)), |k| {
                let line = strip.index(self.w.to, channels, [&row, &strip.result[1], &strip.channel]);
                let line = k.let_(format!("line_out{e}"), line);
                let extras = output.finish.columns(k, &e.to_string(), &strip.channel);
                for (o, result) in results(k, e, &row).into_iter().enumerate() {
                    let column = &strip.result[1] + o * columns.phases;
                    k.if_(columns.results().inside(&column, o..o + 1), |k| {
                        let at = k.let_(format!("at{e}_{o}"), (&line + o * columns.phases * channels).u32());
                        let value = output.finish.apply(result, &at * self.width, &extras);
                        let value = match &output.sums {
                            None => value,
                            Some(sums) => {
                                let value = k.let_(format!("y{e}_{o}"), value);
                                sums.add(k, &value, &at);
                                value
                            }
                        };
                        k.store(&output.y, &at, value);
                    });
                }
            });
        }
        for (e, row) in output.rows.iter().enumerate() {
            for (o, sum) in row.iter().enumerate() {
                k.set(sum, output.rows.get(e + per_step).map_or(&output.start, |later| &later[o]));
            }
        }
    }
}

/// Returns floats as whole numbers in their order, NaN as the largest.
pub(super) fn rank(value: Expr) -> Expr {
    let ty = value.ty();
    Expr::call("rank", Type::I32.vector(ty.width), [value])
}

/// Returns the rank of -infinity, the lowest.
pub(super) fn lowest() -> Expr {
    Expr::name("LOWEST", Type::I32)
}
