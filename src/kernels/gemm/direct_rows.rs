//! The tile core for few result channels: each lane slides along a strip of a row, so that one load serves all
//! taps of a row of the kernel.

use super::{
    product::{EIGHT_LANES, LONG_TEXT, MIN_ITERATIONS, broadcast, has_eight_lanes, shared_columns, store_sums},
    window::Window,
};
use crate::{
    graph::{
        CHUNK_INDEX, Candidate, Counts, DeviceClass, DeviceProfile, Epilogue, Grid, NOMINAL_BATCH, Slot, UNIFORM_BYTES,
    },
    kernels::{
        self, Axis, Schedule,
        cost::fastest,
        language::{Buffer, Expr, Finish, Kernel, Layout, count},
    },
    tensor::{Count, DType},
};
use std::collections::BTreeMap;

const LANES: usize = 8;

/// Returns the source columns that any strip of so many pixels needs, and whether they lie inside the image for all of them. The last
/// strip overlaps its neighbour rather than the edge.
fn columns(pixels: usize, w: &Window) -> BTreeMap<i64, bool> {
    let (step, to) = (if w.transposed { 1 } else { w.strides[1] }, w.to[1]);
    let starts: Vec<usize> = (0..to.div_ceil(pixels)).map(|i| (i * pixels).min(to - pixels) * step).collect();
    let column = |at: i64| {
        let n = starts.iter().filter(|&&start| (0..w.from[1] as i64).contains(&(start as i64 + at))).count();
        (n > 0).then_some((at, n == starts.len()))
    };
    let all = (0..pixels).flat_map(|pixel| (0..w.kernel[1]).map(move |tap| w.column(pixel, tap)));
    all.filter_map(column).collect()
}

fn counts(s: &Schedule, w: &Window) -> Counts {
    let rows = w.images.at(NOMINAL_BATCH) as usize * w.to[0];
    let groups = (rows * w.to[1].div_ceil(s.m)).div_ceil(LANES) * w.to_channels.div_ceil(s.n);
    let (columns, weights, pixels) = (columns(s.m, w).len(), w.kernel[1] * s.n, s.m * s.n);
    let loads = Counts::loads(columns, s.uniform[0]) + Counts::loads(weights.div_ceil(LANES), s.uniform[1]);
    let turn = loads + Counts::broadcast(weights) + Counts::madd(pixels * w.kernel[1]) + Counts::instruction(10);
    let once = Counts::store(pixels) + Counts::instruction(200);
    let launches = if s.images > 0 { NOMINAL_BATCH.div_ceil(s.images) } else { 1 };
    (turn * (w.kernel[0] * w.from_channels) as f64 + once) * groups as f64 + Counts::launch(launches)
}

/// Returns the ways to read that fit a window: what is read as uniform buffers, of which a load costs a tenth, and images for each
/// launch.
fn reads(w: &Window) -> Vec<([bool; 2], usize)> {
    let mut all = vec![([false; 2], 0)];
    if !w.weights_are_uniform() {
        return all;
    }
    all.push(([false, true], 0));
    let image = w.from[0] * w.from[1] * w.from_channels * 4;
    let most = UNIFORM_BYTES as usize / image;
    let aligned = |n: &usize| (n * image).is_multiple_of(256);
    let lanes = (LANES..=most).rev().filter(|n| n.is_multiple_of(LANES)).find(aligned);
    let aligned = lanes.or((1..=most).rev().find(aligned));
    let symbolic = w.images == Count { fixed: 0, per_sample: 1 };
    all.extend(aligned.filter(|_| symbolic).map(|n| ([true; 2], n)));
    all
}

/// Returns why strips cannot do the window, but for texts that would be too long.
fn reason(w: &Window, profile: &DeviceProfile) -> Option<&'static str> {
    match () {
        () if !has_eight_lanes(profile) => Some(EIGHT_LANES),
        () if w.transposed && w.strides != [1, 1] => Some("the gradient of a strided convolution is cut by phases"),
        () if w.groups > 1 => Some("it knows no groups"),
        () => None,
    }
}

/// Returns why strips cannot do the window.
pub(super) fn declines(w: &Window, profile: &DeviceProfile) -> Option<&'static str> {
    reason(w, profile).or_else(|| reads(w).into_iter().all(|reads| best(w, reads).is_none()).then_some(LONG_TEXT))
}

/// Returns the window in the best strips of each way to read, where strips can do it: `m` pixels of a row and `n` channels.
pub(super) fn candidates(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
    if reason(w, profile).is_some() {
        return Vec::new();
    }
    let best = reads(w).into_iter().filter_map(|reads| best(w, reads));
    best.map(|(counts, s)| lower(s, w, epilogue).with_counts(counts)).collect()
}

fn best(w: &Window, (uniform, images): ([bool; 2], usize)) -> Option<(Counts, Schedule)> {
    // A longer text takes too long to compile.
    let most = if images > 0 { 512 } else { 1024 };
    let strips = (1..=w.to_channels.min(16)).flat_map(|channels| {
        let of = move |n: usize| {
            let tile = Schedule::new(kernels::Core::Rows, [w.to[1].div_ceil(n), channels]);
            Schedule { lanes: Some(Axis::M), uniform, images, ..tile }
        };
        (1..=w.to[1].min(64)).map(of)
    });
    let strips = strips.filter(|s| s.m * s.n <= 256 && s.m * s.n * w.kernel[1] <= most);
    fastest(strips, DeviceClass::Cpu, |s| counts(s, w))
}

fn lower(s: Schedule, w: &Window, epilogue: Option<&Epilogue>) -> Candidate {
    let channel_groups = w.to_channels.div_ceil(s.n);
    let mut k = Kernel::new(w.name, LANES);
    let core = Core::bind(&mut k, s, w, epilogue);
    core.write(&mut k);
    let items = core.rows().times(channel_groups as u64);
    let items = Count { fixed: items.fixed + (LANES * channel_groups) as u64, ..items };
    Candidate::single(s, k.launch(Grid::new(items, LANES as u32)))
}

/// The core, as it is written.
struct Core<'w> {
    s: Schedule,
    w: &'w Window,
    x: Buffer,
    weights: Buffer,
    y: Buffer,
    /// The number of the launch, where there is one for each so many images.
    chunk: Option<Expr>,
    finish: Finish,
    columns: BTreeMap<i64, bool>,
}

/// The strip of a lane.
struct At {
    /// Its image among those that the kernel reads, and among all.
    image: Expr,
    all_images: Expr,
    row: Expr,
    start: Expr,
    channel0: Expr,
    /// Tap and channel of the weights that a lane loads.
    weights: Vec<(Expr, Expr)>,
}

impl<'w> Core<'w> {
    fn bind(k: &mut Kernel, s: Schedule, w: &'w Window, epilogue: Option<&Epilogue>) -> Self {
        let float = Layout::Scalars(DType::F32);
        let image = (w.from[0] * w.from[1] * w.from_channels) as u64;
        let images = (s.images > 0).then_some(s.images);
        let x = match images {
            Some(n) => k.bind("x", Layout::Uniform(n as u64 * image), Slot::Uniform { input: 0, samples: images }),
            None => k.bind("x", float, Slot::input(0)),
        };
        let (weights, y, finish) = w.bind(k, s.uniform[1], epilogue);
        let chunk = images.map(|_| Expr::extent(CHUNK_INDEX, 0));
        Core { s, w, x, weights, y, chunk, finish, columns: columns(s.m, w) }
    }

    fn strips(&self) -> usize {
        self.w.to[1].div_ceil(self.s.m)
    }

    fn rows(&self) -> Count {
        self.w.images.times((self.w.to[0] * self.strips()) as u64)
    }

    fn enter(&self, k: &mut Kernel) -> At {
        let (w, Schedule { m: pixels, n: channels, images: n, .. }) = (self.w, self.s);
        let (to_channels, n_strips) = (w.to_channels, self.strips());
        let (per_image, channel_groups) = (w.to[0] * n_strips, to_channels.div_ceil(channels));
        let tile = k.let_("tile", k.workgroup_index());
        // Of a chunk, lanes of one row skip the rows of taps outside the image together.
        let images = self.chunk.as_ref().map(|chunk| {
            let first = k.let_("first", chunk * n);
            let all = count(Count { fixed: 0, per_sample: 1 });
            let images = k.let_("n_images", (all.max(&first) - &first).min(n));
            (first, images)
        });
        let n_rows = images.as_ref().map_or(count(self.rows()), |(_, images)| images * per_image);
        let n_rows = k.let_("n_rows", n_rows);
        k.return_if(tile.at_least((&n_rows + (LANES - 1)) / LANES * channel_groups));
        let channel0 = (&tile % channel_groups * channels).min(to_channels - channels);
        let channel0 = k.let_("channel0", channel0);
        let strip = k.let_("strip", (tile / channel_groups * LANES + k.lane()).min(n_rows - 1u32));
        let (image, place, all_images) = match &images {
            None => {
                let image = k.let_("image", &strip / per_image);
                (image.clone(), strip % per_image, image)
            }
            Some((first, images)) => {
                let image = k.let_("image", &strip % images);
                (image.clone(), strip / images, first + image)
            }
        };
        let place = k.let_("place_in_image", place);
        let start = k.let_("start", (&place % n_strips * pixels).min(w.to[1] - pixels));
        let row = k.let_("row", place / n_strips % w.to[0]);
        let n_weights = w.kernel[1] * channels;
        let scale = if w.transposed { w.from_channels } else { 1 };
        let weights = (0..n_weights.div_ceil(LANES))
            .map(|v| {
                let i = k.let_(format!("w{v}_i"), (k.lane() + v * LANES).min(n_weights - 1));
                let tap = k.let_(format!("w{v}_s"), &i / channels);
                (tap, k.let_(format!("w{v}_k"), (&channel0 + i % channels) * scale))
            })
            .collect();
        At { image, all_images, row, start, channel0, weights }
    }

    fn write(&self, k: &mut Kernel) {
        let (w, Schedule { m: pixels, n: channels, .. }) = (self.w, self.s);
        let at = self.enter(k);
        let declare = |k: &mut Kernel, name: &str| -> Vec<Vec<Expr>> {
            (0..pixels).map(|j| (0..channels).map(|c| k.var(format!("{name}{j}_{c}"), 0.0)).collect()).collect()
        };
        let sums = declare(k, "c");
        let [first, end] = w.tap_rows(k, &at.row, true);
        k.for_("r", first, end, 1, |k, r| {
            let parts = (w.from_channels as u64 >= MIN_ITERATIONS).then(|| declare(k, "a"));
            self.row_of_taps(k, &at, r, parts.as_ref().unwrap_or(&sums));
            for (sum, part) in sums.iter().flatten().zip(parts.iter().flatten().flatten()) {
                k.add(sum, part);
            }
        });
        let pixel = (&at.all_images * w.to[0] + &at.row) * w.to[1] + &at.start;
        let place = k.let_("place", pixel * w.to_channels + &at.channel0);
        let shared = (&at.channel0, channels as u64);
        let extras = shared_columns(k, &self.finish, shared, w.to_channels as u64, [true, false]);
        let sum = |j: usize, c: usize| sums[j][c].clone();
        store_sums(k, [pixels, channels], sum, |k, _, j, values| {
            for (c, value) in values.iter().enumerate() {
                let index = &place + j * w.to_channels + c;
                let columns: Vec<Expr> = extras.iter().map(|extra| extra[c].clone()).collect();
                k.store(&self.y, &index, self.finish.apply(value, &index, &columns));
            }
        });
    }

    /// Writes the loop over channels for one row of taps.
    fn row_of_taps(&self, k: &mut Kernel, at: &At, r: &Expr, sums: &[Vec<Expr>]) {
        let w = self.w;
        let (from_w, from_channels) = (w.from[1], w.from_channels);
        let step = if w.transposed { 1 } else { w.strides[1] };
        let source = w.source(0, &at.row, r).u32();
        let inside = if w.inside(0) { true.into() } else { k.let_("in_bounds", source.less(w.from[0])) };
        let line = k.let_("line", inside.select(source, 0u32));
        let row = (&at.image * w.from[0] + line) * (from_w * from_channels);
        let x_o = k.let_("x_o", row + &at.start * (step * from_channels));
        // Where the element of a column lies, and whether it is there.
        let columns: Vec<(i64, Expr, Expr)> = (self.columns.iter().enumerate())
            .map(|(i, (&column, &there))| {
                let element = (x_o.i32() + column * from_channels as i64).u32();
                if there {
                    return (column, element, inside.clone());
                }
                let within = ((&at.start * step).i32() + column).u32().less(from_w);
                let inside = k.let_(format!("x{i}_in_bounds"), within.and(&inside));
                (column, k.let_(format!("x{i}_o"), inside.select(element, 0u32)), inside)
            })
            .collect();
        let weights: Vec<Expr> = (at.weights.iter().enumerate())
            .map(|(v, (tap, channel))| k.let_(format!("w{v}_o"), w.tap_offset(r, tap) + channel))
            .collect();
        k.for_("c", 0u32, from_channels, 1, |k, c| {
            let x: BTreeMap<i64, Expr> = (columns.iter().enumerate())
                .map(|(i, (column, o, inside))| {
                    (*column, k.let_(format!("x{i}"), self.x.guarded(&(o + c), inside, false)))
                })
                .collect();
            let pitch = if w.transposed { 1 } else { w.to_channels };
            let weights: Vec<Expr> = (weights.iter().enumerate())
                .map(|(v, o)| k.let_(format!("w{v}"), self.weights.at(o + c * pitch)))
                .collect();
            self.multiply(k, &x, &weights, sums);
        });
    }

    /// Writes the products of a row of taps, all taps of one sum together: it stays in a register.
    fn multiply(&self, k: &mut Kernel, x: &BTreeMap<i64, Expr>, weights: &[Expr], sums: &[Vec<Expr>]) {
        let channels = self.s.n;
        for channel in 0..channels {
            let factors: Vec<Expr> = (0..self.w.kernel[1])
                .map(|s| s * channels + channel)
                .map(|l| k.let_(format!("f{l}"), broadcast(&weights[l / LANES], (l % LANES) as u64)))
                .collect();
            for (j, sum) in sums.iter().enumerate() {
                let product = |(s, factor): (usize, &Expr)| Some(factor * x.get(&self.w.column(j, s))?);
                let products = factors.iter().enumerate().filter_map(product).reduce(|sum, product| sum + product);
                products.into_iter().for_each(|products| k.add(&sum[channel], products));
            }
        }
    }
}
