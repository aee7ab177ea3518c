//! The tile core for many result channels of few source channels: lanes are result channels, and a workgroup takes
//! pixels of one row, of which a load brings eight source columns that all lanes get from one another.

use super::{
    product::{
        BROADCAST, Finish, LOAD, MADD, NOMINAL_BATCH, STORE, UNIFORM_LOAD, declare, declare_uniform, fastest,
        has_eight_lanes, looped_store, read, wgsl_count,
    },
    window::Window,
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Grid, Slot, UNIFORM_BYTES},
    kernels::wgsl::dispatch,
    tensor::DType,
};
use std::fmt::Write as _;

const LANES: usize = 8;
/// Sums of a lane, and multiply-adds in one loop body: beyond these, drivers take long to compile it.
const MAX_SUMS: usize = 256;
const MAX_MADDS: usize = 1024;

/// A tile's shape: pixels along the row and vectors of result channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    pixels: usize,
    vectors: usize,
}

impl Row {
    /// Returns the first source column of a tile, from the place of its first pixel, and the number of columns.
    fn columns(self, w: &Window) -> (i64, usize) {
        let ends = [0, self.pixels - 1].map(|pixel| [0, w.kernel[1] - 1].map(|tap| w.column(pixel, tap)));
        let (first, last) = if w.transposed { (ends[0][1], ends[1][0]) } else { (ends[0][0], ends[1][1]) };
        (first, (last - first) as usize + 1)
    }

    /// Returns the estimated nanoseconds.
    fn time(self, w: &Window) -> f64 {
        let rows = w.images.at(NOMINAL_BATCH) as usize * w.to[0];
        let tiles = rows * w.to[1].div_ceil(self.pixels) * w.to_channels.div_ceil(self.vectors * LANES);
        let columns = self.columns(w).1;
        let weights = w.kernel[1] * self.vectors;
        let madds = (weights * self.pixels) as f64 * MADD;
        let loads = columns.div_ceil(LANES) as f64 * LOAD + columns as f64 * BROADCAST;
        let turn = loads + weights as f64 * UNIFORM_LOAD + madds + 10.0;
        let stores = (self.pixels * self.vectors) as f64 * STORE;
        tiles as f64 * (turn * (w.kernel[0] * w.from_channels) as f64 + stores + 200.0)
    }

    /// Returns the best tile and its time, where rows can do the window.
    pub(super) fn choose(w: &Window, profile: &DeviceProfile) -> Option<(f64, Row)> {
        let weights = w.kernel[0] * w.kernel[1] * w.from_channels * w.to_channels * 4;
        if !has_eight_lanes(profile)
            || (w.transposed && w.strides != [1, 1])
            || w.groups > 1
            || weights as u64 > UNIFORM_BYTES
        {
            return None;
        }
        let rows = (1..=w.to_channels / LANES)
            .flat_map(|vectors| (1..=w.to[1]).map(move |tiles| Row { pixels: w.to[1].div_ceil(tiles), vectors }));
        let sums = |row: &Row| row.pixels * row.vectors;
        let rows = rows.filter(|row| sums(row) <= MAX_SUMS && sums(row) * w.kernel[1] <= MAX_MADDS);
        fastest(rows, |row| row.time(w))
    }

    /// Returns the launch of the window in such tiles.
    pub(super) fn lower(self, w: &Window, epilogue: Option<&Epilogue>) -> Candidate {
        let Row { pixels, vectors } = self;
        let Window { from: [_, from_w], to: [to_h, to_w], from_channels, to_channels, kernel: [_, taps], .. } = *w;
        let finish = Finish::new(epilogue, to_channels as u64);
        let (tiles, groups) = (to_w.div_ceil(pixels), to_channels.div_ceil(vectors * LANES));
        let rows = w.images.times(to_h as u64);
        let (first, columns) = self.columns(w);
        let step = if w.transposed { 1 } else { w.strides[1] };
        let weights = (w.kernel[0] * taps * from_channels * to_channels) as u64;
        let slots = vec![Slot::input(0), Slot::Uniform { input: 1, samples: None }, Slot::output(0)];
        let mut t = declare(1, "x", DType::F32) + &declare_uniform(2, "w", weights);
        t.push_str("@group(0) @binding(3) var<storage, read_write> y: array<f32>;\n");
        t.push_str(&w.weights());
        t.push_str(&finish.function());
        let _ = write!(
            t,
            "@compute @workgroup_size({LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let tile = id.x + id.y * counts.x;
    if (tile >= {} * {}u) {{ return; }}
    let channel0 = min(tile % {groups}u * {}u, {}u);
    let start = min(tile / {groups}u % {tiles}u * {pixels}u, {}u);
    let line = tile / {}u;
    let image = line / {to_h}u;
    let row = line % {to_h}u;
",
            wgsl_count(rows),
            tiles * groups,
            vectors * LANES,
            to_channels - vectors * LANES,
            to_w - pixels,
            tiles * groups,
        );
        for j in 0..pixels {
            for v in 0..vectors {
                let _ = writeln!(t, "    var c{j}_{v} = 0.0;");
            }
        }
        for i in 0..columns.div_ceil(LANES) {
            let _ = write!(
                t,
                "    let x{i}_at = u32(i32(start * {step}u + lane) + {});
    let x{i}_in_bounds = x{i}_at < {from_w}u;
    let x{i}_c = select(0u, x{i}_at, x{i}_in_bounds) * {from_channels}u;\n",
                first + (i * LANES) as i64
            );
        }
        let pitch = if w.transposed { from_channels } else { 1 };
        let _ = writeln!(t, "    let w_k = (channel0 + lane) * {pitch}u;");
        let _ = write!(
            t,
            "{}    let end_c = {from_channels}u;
    for (var r = first_r; r < end_r; r++) {{
    let x_o = (image * {}u + u32({})) * {}u;
    for (var c = 0u; c < end_c; c++) {{\n",
            w.tap_rows(false),
            w.from[0],
            w.source(0, "row", "r"),
            from_w * from_channels,
        );
        for i in 0..columns.div_ceil(LANES) {
            let value = read("x", &format!("x_o + x{i}_c + c"), Some(&format!("x{i}_in_bounds")), false);
            let _ = writeln!(t, "    let x{i} = {value};");
        }
        for i in 0..columns {
            let _ = writeln!(t, "    let b{i} = subgroupBroadcast(x{}, {}u);", i / LANES, i % LANES);
        }
        let along = if w.transposed { "c".into() } else { format!("c * {to_channels}u") };
        // All taps of one sum together: it stays in a register.
        for v in 0..vectors {
            for s in 0..taps {
                let at = v * LANES * pitch;
                let _ = writeln!(t, "    let f{s}_{v} = w_at(tap_offset(r, {s}u) + {along} + w_k + {at}u);");
            }
            for j in 0..pixels {
                let products: Vec<String> =
                    (0..taps).map(|s| format!("f{s}_{v} * b{}", w.column(j, s) - first)).collect();
                let _ = writeln!(t, "    c{j}_{v} += {};", products.join(" + "));
            }
        }
        t.push_str("    }\n    }\n");
        let _ = writeln!(t, "    let place = (line * {to_w}u + start) * {to_channels}u + channel0 + lane;");
        for v in 0..vectors {
            t.push_str(&finish.load_column(&v.to_string(), &format!("channel0 + lane + {}u", v * LANES)));
        }
        let sum = |j, v| format!("c{j}_{v}");
        looped_store(&mut t, [pixels, vectors], sum, |t, j, values| {
            for (v, value) in values.iter().enumerate() {
                let index = format!("place + {j} * {to_channels}u + {}u", v * LANES);
                let _ = writeln!(t, "    y[{index}] = {};", finish.call(value, &index, &v.to_string()));
            }
        });
        t.push_str("}\n");
        let items = rows.times((tiles * groups * LANES) as u64);
        let kernel =
            dispatch(w.name, &t, &[], Grid::new(items, LANES as u32), slots, epilogue).iterations(w.iterations(), 1);
        Candidate::single(format!("row_{pixels}x{vectors}"), kernel)
    }
}
