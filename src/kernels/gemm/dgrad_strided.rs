//! The tile core for gradients to images of few channels, where the convolution has strides: each lane takes a strip
//! of blocks of results, one for each phase of the taps, so that one load serves all taps and all phases.
//!
//! Result `s · b + e` of block `b` and phase `e` reads place `b + d` through tap `e + pad − s · d`, for all `d` where
//! there is such a tap.

use super::{
    product::{
        BROADCAST, Finish, LOAD, MADD, MAX_ITERATIONS, NOMINAL_BATCH, STORE, UNIFORM_LOAD, declare, declare_pair,
        declare_uniform, fastest, has_eight_lanes, looped_store, read, wgsl_count,
    },
    window::Window,
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Grid, Slot, UNIFORM_BYTES},
    kernels::wgsl::dispatch,
    tensor::{Count, DType},
};
use std::{collections::BTreeSet, fmt::Write as _, ops::RangeInclusive};

const LANES: usize = 8;
/// Sums of a lane, and multiply-adds in one loop body: beyond these, drivers take long to compile it.
const MAX_SUMS: usize = 256;
const MAX_MADDS: usize = 1280;

/// A strip's shape: blocks along the row, result channels, and source channels in one turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    blocks: usize,
    channels: usize,
    terms: usize,
    uniform: bool,
}

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

impl Spread {
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

    /// Returns the source columns that a strip reads, from its first block.
    fn columns(self, w: &Window) -> Vec<i64> {
        let mut columns = BTreeSet::new();
        for d in distances(w, 1).filter(|&d| (0..w.strides[1]).any(|e| tap(w, 1, e, d).is_some())) {
            columns.extend((0..self.blocks as i64).map(|j| j + d));
        }
        columns.into_iter().collect()
    }

    fn sums(self, w: &Window) -> usize {
        w.strides[0] * w.strides[1] * self.blocks * self.channels
    }

    /// Returns the estimated nanoseconds.
    fn time(self, w: &Window) -> f64 {
        let [block_rows, strips] =
            [w.to[0].div_ceil(w.strides[0]), w.to[1].div_ceil(w.strides[1]).div_ceil(self.blocks)];
        let items = w.images.at(NOMINAL_BATCH) as usize * block_rows * strips;
        let tiles = items.div_ceil(LANES) * w.to_channels.div_ceil(self.channels);
        let x_loads = self.columns(w).len() as f64 * LOAD / self.terms as f64;
        let w_load = if self.uniform { UNIFORM_LOAD } else { LOAD };
        let of_rows = |rows: &Rows| {
            let weights = rows.phases.clone().count() * w.kernel[1] * self.channels;
            let madds = (weights * self.blocks) as f64 * MADD;
            let turn = x_loads + weights.div_ceil(LANES) as f64 * w_load + weights as f64 * BROADCAST + madds;
            rows.distances.clone().count() as f64 * (turn * w.from_channels as f64 + 50.0)
        };
        let all: f64 = Self::rows(w).iter().map(of_rows).sum();
        tiles as f64 * (all + self.sums(w) as f64 * STORE + 200.0)
    }

    /// Returns the best strip and its time, where strips can do the window.
    pub(super) fn choose(w: &Window, profile: &DeviceProfile) -> Option<(f64, Spread)> {
        if !has_eight_lanes(profile) || !w.transposed || w.strides == [1, 1] || w.dilation != [1, 1] || w.groups > 1 {
            return None;
        }
        let terms = if profile.u64_loads && w.from_channels.is_multiple_of(2) { 2 } else { 1 };
        let weights = w.kernel[0] * w.kernel[1] * w.from_channels * w.to_channels * 4;
        let uniform = weights as u64 <= UNIFORM_BYTES;
        let width = w.to[1].div_ceil(w.strides[1]);
        let spreads = (1..=w.to_channels.min(16)).flat_map(|channels| {
            let of = move |strips| Spread { blocks: width.div_ceil(strips), channels, terms, uniform };
            (1..=width.min(64)).map(of)
        });
        let madds = |s: &Spread| w.strides[0] * w.kernel[1] * s.channels * s.blocks * terms;
        let spreads = spreads.filter(|s| s.sums(w) <= MAX_SUMS && madds(s) <= MAX_MADDS);
        fastest(spreads, |spread| spread.time(w))
    }

    /// Returns the launch of the window in such strips.
    pub(super) fn lower(self, w: &Window, epilogue: Option<&Epilogue>) -> Candidate {
        let Spread { blocks, channels, terms, uniform } = self;
        let Window { to: [to_h, to_w], from_channels, to_channels, .. } = *w;
        let finish = Finish::new(epilogue, to_channels as u64);
        let [rows, width] = [to_h.div_ceil(w.strides[0]), to_w.div_ceil(w.strides[1])];
        let (strips, groups) = (width.div_ceil(blocks), to_channels.div_ceil(channels));
        let items = w.images.times((rows * strips) as u64);
        let n_items = wgsl_count(items);
        let weights = (w.kernel[0] * w.kernel[1] * from_channels * to_channels) as u64;
        let mut slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let mut t = if terms > 1 { declare_pair(1, "x") } else { declare(1, "x", DType::F32) };
        if uniform {
            t.push_str(&declare_uniform(2, "w", weights));
            slots[1] = Slot::Uniform { input: 1, samples: None };
        } else {
            t.push_str(&declare(2, "w", DType::F32));
        }
        t.push_str("@group(0) @binding(3) var<storage, read_write> y: array<f32>;\n");
        t.push_str(&w.weights());
        t.push_str(&finish.function());
        let _ = write!(
            t,
            "@compute @workgroup_size({LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let tile = id.x + id.y * counts.x;
    let tiles = ({n_items} + {}u) / {LANES}u * {groups}u;
    if (tile >= tiles) {{ return; }}
    let channel0 = min(tile % {groups}u * {channels}u, {}u);
    let strip = min(tile / {groups}u * {LANES}u + lane, {n_items} - 1u);
    let start = min(strip % {strips}u * {blocks}u, {}u);
    let row = strip / {strips}u % {rows}u;
    let image = strip / {}u;
    let end_c = {from_channels}u;
",
            LANES - 1,
            to_channels - channels,
            width - blocks,
            strips * rows,
        );
        let columns = self.columns(w);
        for e in 0..w.strides[0] {
            for (k, j, f) in self.results(w) {
                let _ = writeln!(t, "    var c{e}_{k}_{j}_{f} = 0.0;");
            }
        }
        for (i, at) in columns.iter().enumerate() {
            let _ = writeln!(t, "    let x{i}_at = u32(i32(start) + {at});");
        }
        for rows in Self::rows(w) {
            self.taps(&mut t, w, &rows, &columns);
        }
        let [whole_h, whole_w] = [to_h.is_multiple_of(w.strides[0]), to_w.is_multiple_of(w.strides[1])];
        t.push_str(&finish.load_shared("channel0", channels as u64, true, false));
        for e in 0..w.strides[0] {
            let _ = writeln!(
                t,
                "    let row{e} = row * {}u + {e}u;\n    let place{e} = ((image * {to_h}u + row{e}) * {to_w}u + start * {}u) * {to_channels}u + channel0;",
                w.strides[0], w.strides[1]
            );
        }
        let phases = w.strides[1];
        let sums: Vec<(usize, usize, usize)> = (0..w.strides[0])
            .flat_map(|e| (0..channels).flat_map(move |k| (0..phases).map(move |f| (e, k, f))))
            .collect();
        let sum = |j: usize, i: usize| format!("c{}_{}_{j}_{}", sums[i].0, sums[i].1, sums[i].2);
        looped_store(&mut t, [blocks, sums.len()], sum, |t, j, values| {
            for (value, &(e, k, f)) in values.iter().zip(&sums) {
                let column = format!("{j} * {phases}u + {f}u");
                let index = format!("place{e} + ({column}) * {to_channels}u + {k}u");
                let store = format!("y[{index}] = {};", finish.call(value, &index, &k.to_string()));
                let inside = [
                    (!whole_h && e > 0).then(|| format!("row{e} < {to_h}u")),
                    (!whole_w && f > 0).then(|| format!("start * {phases}u + {column} < {to_w}u")),
                ];
                let inside: Vec<String> = inside.into_iter().flatten().collect();
                let _ = match inside.is_empty() {
                    true => writeln!(t, "    {store}"),
                    false => writeln!(t, "    if ({}) {{ {store} }}", inside.join(" && ")),
                };
            }
        });
        t.push_str("}\n");
        let items = items.times(groups as u64);
        let items = Count { fixed: items.fixed + (LANES * groups) as u64, ..items };
        let iterations: usize = Self::rows(w).iter().map(|r| r.distances.clone().count()).sum::<usize>();
        let iterations = (iterations * (1 + from_channels.div_ceil(terms))) as u64 + MAX_ITERATIONS;
        let iterations = Count { fixed: iterations, per_sample: 0 };
        let kernel =
            dispatch(w.name, &t, &[], Grid::new(items, LANES as u32), slots, epilogue).iterations(iterations, 1);
        let how = if uniform { "_uniform_weights" } else { "" };
        Candidate::single(format!("spread_{blocks}x{channels}x{terms}{how}"), kernel)
    }

    /// Returns the channel, block and phase along the row of each sum of one row of results.
    fn results(self, w: &Window) -> impl Iterator<Item = (usize, usize, usize)> {
        let phases = w.strides[1];
        (0..self.channels).flat_map(move |k| (0..self.blocks).flat_map(move |j| (0..phases).map(move |f| (k, j, f))))
    }

    /// Writes the loops over rows of the source that the same phases read.
    fn taps(self, t: &mut String, w: &Window, rows: &Rows, columns: &[i64]) {
        let Spread { channels, terms, uniform, .. } = self;
        let Window { from: [from_h, from_w], from_channels, .. } = *w;
        let (first, phases) = (*rows.phases.start(), rows.phases.clone().count());
        let _ = write!(
            t,
            "    {{
    let end_r = {}u;
    for (var r = 0u; r < end_r; r++) {{
    let d = i32(r) + {};
    let y = u32(i32(row) + d);
    let x_o = (image * {from_h}u + y) * {from_w}u;\n",
            rows.distances.clone().count(),
            rows.distances.start()
        );
        for i in 0..columns.len() {
            let _ = writeln!(
                t,
                "    let x{i}_in_bounds = y < {from_h}u && x{i}_at < {from_w}u;
    let x{i}_o = select(0u, (x_o + x{i}_at) * {from_channels}u, x{i}_in_bounds);"
            );
        }
        let n_weights = phases * w.kernel[1] * channels;
        for v in 0..n_weights.div_ceil(LANES) {
            let _ = writeln!(
                t,
                "    let w{v}_i = min(lane + {}u, {}u);
    let w{v}_r = u32(i32({first}u + w{v}_i / {}u + {}u) - {} * d);
    let w{v}_o = tap_offset(w{v}_r, w{v}_i / {channels}u % {}u) + (channel0 + w{v}_i % {channels}u) * {from_channels}u;",
                v * LANES,
                n_weights - 1,
                w.kernel[1] * channels,
                w.pads[0],
                w.strides[0],
                w.kernel[1],
            );
        }
        let step = if terms == 1 { "c++".to_owned() } else { format!("c += {terms}u") };
        let _ = writeln!(t, "    for (var c = 0u; c < end_c; {step}) {{");
        for i in 0..columns.len() {
            let value = read("x", &format!("x{i}_o + c"), Some(&format!("x{i}_in_bounds")), terms > 1);
            let _ = writeln!(t, "    let x{i} = {value};");
        }
        let part = |u: usize| if terms == 1 { "" } else { [".x", ".y"][u] };
        for v in 0..n_weights.div_ceil(LANES) {
            for u in 0..terms {
                let index = format!("w{v}_o + c + {u}u");
                let value = if uniform { format!("w_at({index})") } else { format!("w[{index}]") };
                let _ = writeln!(t, "    let w{v}_{u} = {value};");
            }
        }
        for e in 0..phases {
            for k in 0..channels {
                let weight = |s: usize| (e * w.kernel[1] + s) * channels + k;
                for l in (0..w.kernel[1]).map(weight) {
                    for u in 0..terms {
                        let _ =
                            writeln!(t, "    let f{l}_{u} = subgroupBroadcast(w{}_{u}, {}u);", l / LANES, l % LANES);
                    }
                }
                for (_, j, f) in self.results(w).filter(|r| r.0 == k) {
                    let taps = columns.iter().enumerate().filter_map(|(i, at)| Some((i, tap(w, 1, f, at - j as i64)?)));
                    let products: Vec<String> = taps
                        .flat_map(|(i, s)| (0..terms).map(move |u| format!("f{}_{u} * x{i}{}", weight(s), part(u))))
                        .collect();
                    if !products.is_empty() {
                        let _ = writeln!(t, "    c{}_{k}_{j}_{f} += {};", first + e, products.join(" + "));
                    }
                }
            }
        }
        t.push_str("    }\n    }\n    }\n");
    }
}
