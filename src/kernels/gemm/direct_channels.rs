//! The tile core for many result channels of few source channels: lanes are result channels, and a workgroup takes
//! pixels of one row, of which a load brings eight source columns that all lanes get from one another.

use super::{
    product::{EIGHT_LANES, FEW_CHANNELS, LONG_TEXT, broadcast, has_eight_lanes, store_sums},
    window::Window,
};
use crate::{
    graph::{Candidate, Counts, DeviceProfile, Epilogue, Grid, NOMINAL_BATCH, Slot},
    kernels::{
        Axis, Core, Schedule,
        cost::fastest,
        language::{Expr, Kernel, Layout, count},
    },
    tensor::DType,
};

const LANES: usize = 8;
/// Sums of a lane, and multiply-adds in one loop body: beyond these, drivers take long to compile it.
const MAX_SUMS: usize = 256;
const MAX_MADDS: usize = 1024;

/// Returns the first source column of a tile of so many pixels, from the place of its first pixel, and the number of columns.
fn columns(pixels: usize, w: &Window) -> (i64, usize) {
    let ends = [0, pixels - 1].map(|pixel| [0, w.kernel[1] - 1].map(|tap| w.column(pixel, tap)));
    let (first, last) = if w.transposed { (ends[0][1], ends[1][0]) } else { (ends[0][0], ends[1][1]) };
    (first, (last - first) as usize + 1)
}

fn counts(s: &Schedule, w: &Window) -> Counts {
    let rows = w.images.at(NOMINAL_BATCH) as usize * w.to[0];
    let tiles = rows * w.to[1].div_ceil(s.m) * w.to_channels.div_ceil(s.n * LANES);
    let (columns, weights) = (columns(s.m, w).1, w.kernel[1] * s.n);
    let loads = Counts::load(columns.div_ceil(LANES)) + Counts::broadcast(columns) + Counts::uniform_load(weights);
    let turn = loads + Counts::madd(weights * s.m) + Counts::instruction(10);
    let once = Counts::store(s.m * s.n) + Counts::instruction(200);
    (turn * (w.kernel[0] * w.from_channels) as f64 + once) * tiles as f64
}

/// Returns why tiles cannot do the window, but for texts that would be too long.
fn reason(w: &Window, profile: &DeviceProfile) -> Option<&'static str> {
    match () {
        () if !has_eight_lanes(profile) => Some(EIGHT_LANES),
        () if w.transposed && w.strides != [1, 1] => Some("the gradient of a strided convolution is cut by phases"),
        () if w.groups > 1 => Some("it knows no groups"),
        () if !w.weights_are_uniform() => Some("the weights do not fit a uniform buffer"),
        () if w.to_channels < LANES => Some(FEW_CHANNELS),
        () => None,
    }
}

/// Returns why tiles cannot do the window.
pub(super) fn declines(w: &Window, profile: &DeviceProfile) -> Option<&'static str> {
    reason(w, profile).or_else(|| best(w, profile).is_none().then_some(LONG_TEXT))
}

/// Returns the window in the best tiles, where they can do it: `m` pixels of a row and `n` vectors of channels.
pub(super) fn candidate(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Option<Candidate> {
    if reason(w, profile).is_some() {
        return None;
    }
    best(w, profile).map(|(counts, s)| lower(s, w, epilogue).with_counts(counts))
}

fn best(w: &Window, profile: &DeviceProfile) -> Option<(Counts, Schedule)> {
    let schedule = |vectors: usize, tiles: usize| {
        let tile = Schedule::new(Core::Channels, [w.to[1].div_ceil(tiles), vectors]);
        Schedule { lanes: Some(Axis::N), uniform: [false, true], ..tile }
    };
    let rows = (1..=w.to_channels / LANES).flat_map(|v| (1..=w.to[1]).map(move |tiles| schedule(v, tiles)));
    let rows = rows.filter(|s| s.m * s.n <= MAX_SUMS && s.m * s.n * w.kernel[1] <= MAX_MADDS);
    fastest(rows, profile.class, |s| counts(s, w))
}

fn lower(s: Schedule, w: &Window, epilogue: Option<&Epilogue>) -> Candidate {
    let Schedule { m: pixels, n: vectors, .. } = s;
    let Window { from: [from_h, from_w], to: [to_h, to_w], from_channels, to_channels, .. } = *w;
    let (tiles, groups) = (to_w.div_ceil(pixels), to_channels.div_ceil(vectors * LANES));
    let rows = w.images.times(to_h as u64);
    let step = if w.transposed { 1 } else { w.strides[1] };
    let mut k = Kernel::new(w.name, LANES);
    let x = k.bind("x", Layout::Scalars(DType::F32), Slot::input(0));
    let (weights, y, finish) = w.bind(&mut k, true, epilogue);

    let tile = k.let_("tile", k.workgroup_index());
    k.return_if(tile.at_least(count(rows) * (tiles * groups)));
    let channel0 = (&tile % groups * (vectors * LANES)).min(to_channels - vectors * LANES);
    let channel0 = k.let_("channel0", channel0);
    let start = k.let_("start", (&tile / groups % tiles * pixels).min(to_w - pixels));
    let line = k.let_("line", tile / (tiles * groups));
    let [image, row] = [k.let_("image", &line / to_h), k.let_("row", &line % to_h)];
    let sums: Vec<Vec<Expr>> =
        (0..pixels).map(|j| (0..vectors).map(|v| k.var(format!("c{j}_{v}"), 0.0)).collect()).collect();
    let (first, columns) = columns(pixels, w);
    let loads: Vec<(Expr, Expr)> = (0..columns.div_ceil(LANES))
        .map(|i| {
            let column = (&start * step + k.lane()).i32() + (first + (i * LANES) as i64);
            let column = k.let_(format!("x{i}_at"), column.u32());
            let inside = k.let_(format!("x{i}_in_bounds"), column.less(from_w));
            (k.let_(format!("x{i}_c"), inside.select(column, 0u32) * from_channels), inside)
        })
        .collect();
    let pitch = if w.transposed { from_channels } else { 1 };
    let own = k.let_("w_k", (&channel0 + k.lane()) * pitch);
    let [first_r, end_r] = w.tap_rows(&mut k, &row, false);
    k.for_("r", first_r, end_r, 1, |k, r| {
        let line = &image * from_h + w.source(0, &row, r).u32();
        let x_o = k.let_("x_o", line * (from_w * from_channels));
        k.for_("c", 0u32, from_channels, 1, |k, c| {
            let loaded: Vec<Expr> = (loads.iter().enumerate())
                .map(|(i, (o, inside))| k.let_(format!("x{i}"), x.guarded(&(&x_o + o + c), inside, false)))
                .collect();
            let x: Vec<Expr> = (0..columns)
                .map(|i| k.let_(format!("b{i}"), broadcast(&loaded[i / LANES], (i % LANES) as u64)))
                .collect();
            let term = if w.transposed { c.clone() } else { c * to_channels };
            let weight =
                |s: usize, v: usize| weights.at(w.tap_offset(r, &Expr::from(s)) + &term + &own + v * LANES * pitch);
            // All taps of one sum together: it stays in a register.
            for v in 0..vectors {
                let factors: Vec<Expr> = (0..w.kernel[1]).map(|s| k.let_(format!("f{s}_{v}"), weight(s, v))).collect();
                for (j, sums) in sums.iter().enumerate() {
                    let product = |(s, f): (usize, &Expr)| f * &x[(w.column(j, s) - first) as usize];
                    let products = factors.iter().enumerate().map(product).reduce(|sum, product| sum + product);
                    products.into_iter().for_each(|products| k.add(&sums[v], products));
                }
            }
        });
    });
    let place = (&line * to_w + &start) * to_channels + &channel0 + k.lane();
    let place = k.let_("place", place);
    let extras: Vec<Vec<Expr>> = (0..vectors)
        .map(|v| {
            let column = &channel0 + k.lane() + v * LANES;
            finish.columns(&mut k, &v.to_string(), &column)
        })
        .collect();
    store_sums(
        &mut k,
        [pixels, vectors],
        |j, v| sums[j][v].clone(),
        |k, _, j, values| {
            for (v, value) in values.iter().enumerate() {
                let index = &place + j * to_channels + v * LANES;
                k.store(&y, &index, finish.apply(value, &index, &extras[v]));
            }
        },
    );
    let items = rows.times((tiles * groups * LANES) as u64);
    Candidate::single(s, k.launch(Grid::new(items, LANES as u32)))
}
