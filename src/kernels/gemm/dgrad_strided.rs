//! The tile core for gradients to images of few channels, where the convolution has strides: each lane takes a strip
//! of blocks of results, one for each phase of the taps, so that one load serves all taps and all phases.
//!
//! Result `s · b + e` of block `b` and phase `e` reads place `b + d` through tap `e + pad − s · d`, for all `d` where
//! there is such a tap.

use super::{
    product::{EIGHT_LANES, LONG_TEXT, broadcast, has_eight_lanes, shared_columns, store_sums},
    window::Window,
};
use crate::{
    graph::{Candidate, Counts, DeviceProfile, Epilogue, Grid, NOMINAL_BATCH, Slot},
    kernels::{
        self, Axis, Schedule,
        cost::fastest,
        language::{Buffer, Expr, Finish, Kernel, Layout, count},
    },
    tensor::{Count, DType},
};
use std::{collections::BTreeSet, ops::RangeInclusive};

const LANES: usize = 8;
/// Sums of a lane, and multiply-adds in one loop body: beyond these, drivers take long to compile it.
const MAX_SUMS: usize = 256;
const MAX_MADDS: usize = 1280;

/// Rows of the source at distances that the same phases read.
struct Rows {
    distances: RangeInclusive<i64>,
    phases: RangeInclusive<usize>,
}

/// Returns the tap through which a phase reads the place at distance `d`.
fn tap(w: &Window, axis: usize, phase: usize, d: i64) -> Option<usize> {
    let tap = phase as i64 + w.pads[axis] as i64 - w.strides[axis] as i64 * d;
    usize::try_from(tap).ok().filter(|&tap| tap < w.kernel[axis])
}

/// Returns the distances that a phase reads.
fn distances(w: &Window, axis: usize) -> RangeInclusive<i64> {
    let stride = w.strides[axis] as i64;
    -((w.kernel[axis] as i64) / stride)..=(stride + w.pads[axis] as i64) / stride
}

/// Returns the rows of the source that a row of blocks reads.
fn rows(w: &Window) -> Vec<Rows> {
    let mut all: Vec<Rows> = Vec::new();
    for d in distances(w, 0) {
        let phases: Vec<usize> = (0..w.strides[0]).filter(|&e| tap(w, 0, e, d).is_some()).collect();
        let [Some(&first), Some(&last)] = [phases.first(), phases.last()] else { continue };
        match all.last_mut() {
            Some(rows) if rows.phases == (first..=last) && *rows.distances.end() == d - 1 => {
                rows.distances = *rows.distances.start()..=d;
            }
            _ => all.push(Rows { distances: d..=d, phases: first..=last }),
        }
    }
    all
}

/// Returns the source columns that a strip of so many blocks reads, from its first one.
fn columns(blocks: usize, w: &Window) -> Vec<i64> {
    let mut columns = BTreeSet::new();
    for d in distances(w, 1).filter(|&d| (0..w.strides[1]).any(|e| tap(w, 1, e, d).is_some())) {
        columns.extend((0..blocks as i64).map(|j| j + d));
    }
    columns.into_iter().collect()
}

fn sums(s: &Schedule, w: &Window) -> usize {
    w.strides[0] * w.strides[1] * s.m * s.n
}

fn counts(s: &Schedule, w: &Window) -> Counts {
    let [block_rows, strips] = [w.to[0].div_ceil(w.strides[0]), w.to[1].div_ceil(w.strides[1]).div_ceil(s.m)];
    let items = w.images.at(NOMINAL_BATCH) as usize * block_rows * strips;
    let tiles = items.div_ceil(LANES) * w.to_channels.div_ceil(s.n);
    let x_loads = Counts::load(columns(s.m, w).len()) * (1.0 / s.k as f64);
    let of_rows = |rows: &Rows| {
        let weights = rows.phases.clone().count() * w.kernel[1] * s.n;
        let loads = x_loads + Counts::loads(weights.div_ceil(LANES), s.uniform[1]) + Counts::broadcast(weights);
        let turns = (loads + Counts::madd(weights * s.m)) * w.from_channels as f64;
        (turns + Counts::instruction(50)) * rows.distances.clone().count() as f64
    };
    let once = Counts::store(sums(s, w)) + Counts::instruction(200);
    rows(w).iter().map(of_rows).fold(once, |all, rows| all + rows) * tiles as f64
}

/// Returns why strips cannot do the window, but for texts that would be too long.
fn reason(w: &Window, profile: &DeviceProfile) -> Option<&'static str> {
    match () {
        () if !has_eight_lanes(profile) => Some(EIGHT_LANES),
        () if !w.transposed || w.strides == [1, 1] => Some("it is for gradients of strided convolutions alone"),
        () if w.dilation != [1, 1] => Some("it knows no dilation"),
        () if w.groups > 1 => Some("it knows no groups"),
        () => None,
    }
}

/// Returns why strips cannot do the window.
pub(super) fn declines(w: &Window, profile: &DeviceProfile) -> Option<&'static str> {
    reason(w, profile).or_else(|| best(w, profile).is_none().then_some(LONG_TEXT))
}

/// Returns the window in the best strips, where they can do it: `m` blocks of a row, `n` channels and `k` source channels in a turn.
pub(super) fn candidate(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Option<Candidate> {
    if reason(w, profile).is_some() {
        return None;
    }
    best(w, profile).map(|(counts, s)| lower(s, w, epilogue).with_counts(counts))
}

fn best(w: &Window, profile: &DeviceProfile) -> Option<(Counts, Schedule)> {
    let k = if profile.u64_loads && w.from_channels.is_multiple_of(2) { 2 } else { 1 };
    let width = w.to[1].div_ceil(w.strides[1]);
    let schedule = |channels: usize, strips: usize| {
        let tile = Schedule::new(kernels::Core::Strided, [width.div_ceil(strips), channels]);
        Schedule { lanes: Some(Axis::M), k, pairs: [k > 1, false], uniform: [false, w.weights_are_uniform()], ..tile }
    };
    let strips = (1..=w.to_channels.min(16)).flat_map(|c| (1..=width.min(64)).map(move |strips| schedule(c, strips)));
    let madds = |s: &Schedule| w.strides[0] * w.kernel[1] * s.n * s.m * k;
    let strips = strips.filter(|s| sums(s, w) <= MAX_SUMS && madds(s) <= MAX_MADDS);
    fastest(strips, profile.class, |s| counts(s, w))
}

fn lower(s: Schedule, w: &Window, epilogue: Option<&Epilogue>) -> Candidate {
    let mut k = Kernel::new(w.name, LANES);
    let layout = if s.pairs[0] { Layout::Pairs } else { Layout::Scalars(DType::F32) };
    let x = k.bind("x", layout, Slot::input(0));
    let (weights, y, finish) = w.bind(&mut k, s.uniform[1], epilogue);
    Core { s, w, x, weights, y, finish, columns: columns(s.m, w) }.write(&mut k);

    let [rows, width] = [w.to[0].div_ceil(w.strides[0]), w.to[1].div_ceil(w.strides[1])];
    let groups = w.to_channels.div_ceil(s.n);
    let items = w.images.times((rows * width.div_ceil(s.m) * groups) as u64);
    let items = Count { fixed: items.fixed + (LANES * groups) as u64, ..items };
    Candidate::single(s, k.launch(Grid::new(items, LANES as u32)))
}

/// The core, as it is written.
struct Core<'w> {
    s: Schedule,
    w: &'w Window,
    x: Buffer,
    weights: Buffer,
    y: Buffer,
    finish: Finish,
    columns: Vec<i64>,
}

/// The strip of a lane.
struct At {
    image: Expr,
    row: Expr,
    start: Expr,
    channel0: Expr,
    columns: Vec<Expr>,
    /// The sums of each phase of rows, channel, block and phase along the row.
    sums: Vec<Vec<Vec<Vec<Expr>>>>,
}

impl Core<'_> {
    fn write(&self, k: &mut Kernel) {
        let at = self.enter(k);
        for rows in rows(self.w) {
            self.taps(k, &at, &rows);
        }
        self.store(k, &at);
    }

    fn enter(&self, k: &mut Kernel) -> At {
        let (w, Schedule { m: blocks, n: channels, .. }) = (self.w, self.s);
        let [rows, width] = [w.to[0].div_ceil(w.strides[0]), w.to[1].div_ceil(w.strides[1])];
        let (strips, groups) = (width.div_ceil(blocks), w.to_channels.div_ceil(channels));
        let items = count(w.images.times((rows * strips) as u64));
        let tile = k.let_("tile", k.workgroup_index());
        k.return_if(tile.at_least((&items + (LANES - 1)) / LANES * groups));
        let channel0 = k.let_("channel0", (&tile % groups * channels).min(w.to_channels - channels));
        let strip = k.let_("strip", (tile / groups * LANES + k.lane()).min(items - 1u32));
        let start = k.let_("start", (&strip % strips * blocks).min(width - blocks));
        let row = k.let_("row", &strip / strips % rows);
        let image = k.let_("image", strip / (strips * rows));
        let sums =
            (0..w.strides[0]).map(|e| self.each_sum(&mut |c, j, f| k.var(format!("c{e}_{c}_{j}_{f}"), 0.0))).collect();
        let column = |(i, column): (usize, &i64)| k.let_(format!("x{i}_at"), (start.i32() + *column).u32());
        let columns = self.columns.iter().enumerate().map(column).collect();
        At { image, row, start, channel0, columns, sums }
    }

    /// Returns what `f` gives for each channel, block and phase along the row.
    fn each_sum(&self, f: &mut dyn FnMut(usize, usize, usize) -> Expr) -> Vec<Vec<Vec<Expr>>> {
        let Schedule { m: blocks, n: channels, .. } = self.s;
        let mut block = |c, j| (0..self.w.strides[1]).map(|phase| f(c, j, phase)).collect();
        (0..channels).map(|c| (0..blocks).map(|j| block(c, j)).collect()).collect()
    }

    /// Writes the loops over rows of the source that the same phases read.
    fn taps(&self, k: &mut Kernel, at: &At, rows: &Rows) {
        let (w, Schedule { n: channels, k: terms, .. }) = (self.w, self.s);
        let [from_h, from_w] = w.from;
        let n_weights = rows.phases.clone().count() * w.kernel[1] * channels;
        let first = *rows.phases.start();
        k.for_("r", 0u32, rows.distances.clone().count(), 1, |k, r| {
            let d = k.let_("d", r.i32() + *rows.distances.start());
            let y = k.let_("y", (at.row.i32() + &d).u32());
            let x_o = k.let_("x_o", (&at.image * from_h + &y) * from_w);
            let x: Vec<(Expr, Expr)> = (at.columns.iter().enumerate())
                .map(|(i, column)| {
                    let inside = k.let_(format!("x{i}_in_bounds"), y.less(from_h).and(column.less(from_w)));
                    let element = (&x_o + column) * w.from_channels;
                    (k.let_(format!("x{i}_o"), inside.select(element, 0u32)), inside)
                })
                .collect();
            let weights: Vec<Expr> = (0..n_weights.div_ceil(LANES))
                .map(|v| {
                    let i = k.let_(format!("w{v}_i"), (k.lane() + v * LANES).min(n_weights - 1));
                    let row = (&i / (w.kernel[1] * channels) + (first + w.pads[0])).i32();
                    let row = (row - &d * w.strides[0] as i64).u32();
                    let tap = w.tap_offset(&row, &(&i / channels % w.kernel[1]));
                    k.let_(format!("w{v}_o"), tap + (&at.channel0 + i % channels) * w.from_channels)
                })
                .collect();
            k.for_("c", 0u32, w.from_channels, terms, |k, c| {
                let x: Vec<Expr> = (x.iter().enumerate())
                    .map(|(i, (o, inside))| k.let_(format!("x{i}"), self.x.guarded(&(o + c), inside, terms > 1)))
                    .collect();
                let load = |v: usize, u: usize| self.weights.at(&weights[v] + c + u);
                let loaded: Vec<Vec<Expr>> = (0..weights.len())
                    .map(|v| (0..terms).map(|u| k.let_(format!("w{v}_{u}"), load(v, u))).collect())
                    .collect();
                self.multiply(k, at, rows, (&x, &loaded));
            });
        });
    }

    /// Writes the products of some channels of a row of the source.
    fn multiply(&self, k: &mut Kernel, at: &At, rows: &Rows, (x, weights): (&[Expr], &[Vec<Expr>])) {
        let (w, Schedule { m: blocks, n: channels, k: terms, .. }) = (self.w, self.s);
        let first = *rows.phases.start();
        for e in 0..rows.phases.clone().count() {
            for c in 0..channels {
                let factor = |k: &mut Kernel, s: usize, u: usize| {
                    let l = (e * w.kernel[1] + s) * channels + c;
                    k.let_(format!("f{l}_{u}"), broadcast(&weights[l / LANES][u], (l % LANES) as u64))
                };
                let factors: Vec<Vec<Expr>> =
                    (0..w.kernel[1]).map(|s| (0..terms).map(|u| factor(k, s, u)).collect()).collect();
                for (j, phase) in (0..blocks).flat_map(|j| (0..w.strides[1]).map(move |phase| (j, phase))) {
                    let tap = |(i, column): (usize, &i64)| Some((i, tap(w, 1, phase, column - j as i64)?));
                    let products = (self.columns.iter().enumerate().filter_map(tap))
                        .flat_map(|(i, s)| (0..terms).map(move |u| (i, s, u)))
                        .map(|(i, s, u)| &factors[s][u] * x[i].component(u))
                        .reduce(|sum, product| sum + product);
                    products.into_iter().for_each(|p| k.add(&at.sums[first + e][c][j][phase], p));
                }
            }
        }
    }

    fn store(&self, k: &mut Kernel, at: &At) {
        let (w, Schedule { m: blocks, n: channels, .. }) = (self.w, self.s);
        let ([to_h, to_w], to_channels, [_, phases]) = (w.to, w.to_channels, w.strides);
        let shared = (&at.channel0, channels as u64);
        let extras = shared_columns(k, &self.finish, shared, to_channels as u64, [true, false]);
        let rows: Vec<(Expr, Expr)> = (0..w.strides[0])
            .map(|e| {
                let row = k.let_(format!("row{e}"), &at.row * w.strides[0] + e);
                let pixel = (&at.image * to_h + &row) * to_w + &at.start * phases;
                let inside = row.less(to_h).or(e == 0 || to_h.is_multiple_of(w.strides[0]));
                (k.let_(format!("place{e}"), pixel * to_channels + &at.channel0), inside)
            })
            .collect();
        let sums: Vec<(usize, usize, usize)> = (0..w.strides[0])
            .flat_map(|e| (0..channels).flat_map(move |c| (0..phases).map(move |f| (e, c, f))))
            .collect();
        let sum = |j: usize, i: usize| at.sums[sums[i].0][sums[i].1][j][sums[i].2].clone();
        store_sums(k, [blocks, sums.len()], sum, |k, _, j, values| {
            for (value, &(e, c, phase)) in values.iter().zip(&sums) {
                let column = j * phases + phase;
                let (place, inside) = &rows[e];
                let index = place + &column * to_channels + c;
                let columns: Vec<Expr> = extras.iter().map(|extra| extra[c].clone()).collect();
                let value = self.finish.apply(value, &index, &columns);
                let whole = phase == 0 || to_w.is_multiple_of(phases);
                let inside = inside.and((&at.start * phases + column).less(to_w).or(whole));
                k.if_(inside, |k| k.store(&self.y, &index, value));
            }
        });
    }
}
