//! The tile core for few result channels: each lane slides along a strip of a row, so that one load serves all
//! taps of a row of the kernel.

use super::{
    product::{
        BROADCAST, Finish, LAUNCH, LOAD, MADD, MIN_ITERATIONS, NOMINAL_BATCH, STORE, UNIFORM_LOAD, declare,
        declare_uniform, fastest, has_eight_lanes, looped_store, wgsl_count,
    },
    window::Window,
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Grid, Slot, UNIFORM_BYTES},
    kernels::wgsl::dispatch,
    tensor::{Count, DType},
};
use std::{collections::BTreeMap, fmt::Write as _};

/// A strip's shape: pixels along the row and result channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Strip {
    pixels: usize,
    channels: usize,
    reads: Reads,
}

/// What is read as uniform buffers, of which a load costs a tenth.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reads {
    Storage,
    UniformWeights,
    /// Weights, and so many images for each launch.
    Uniform(usize),
}

impl Reads {
    /// Returns the ways that fit a window.
    fn all(w: &Window) -> Vec<Reads> {
        let mut all = vec![Reads::Storage];
        let weights = w.kernel[0] * w.kernel[1] * w.from_channels * w.to_channels * 4;
        if weights as u64 > UNIFORM_BYTES {
            return all;
        }
        all.push(Reads::UniformWeights);
        let image = w.from[0] * w.from[1] * w.from_channels * 4;
        let most = UNIFORM_BYTES as usize / image;
        let aligned = |n: &usize| (n * image).is_multiple_of(256);
        let lanes = (LANES..=most).rev().filter(|n| n.is_multiple_of(LANES)).find(aligned);
        let aligned = lanes.or((1..=most).rev().find(aligned));
        if let Some(n) = aligned.filter(|_| w.images == Count { fixed: 0, per_sample: 1 }) {
            all.push(Reads::Uniform(n));
        }
        all
    }
}

const LANES: usize = 8;

/// Whether a source column lies inside the image, over all strips.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Inside {
    Always,
    Sometimes,
}

impl Strip {
    /// Returns where strips start: the last one overlaps its neighbour rather than the edge.
    fn starts(self, width: usize) -> Vec<usize> {
        (0..width.div_ceil(self.pixels)).map(|i| (i * self.pixels).min(width - self.pixels)).collect()
    }

    /// Returns the source columns that any strip needs.
    fn columns(self, w: &Window) -> BTreeMap<i64, Inside> {
        let step = if w.transposed { 1 } else { w.strides[1] as i64 };
        let starts = self.starts(w.to[1]);
        let mut columns = BTreeMap::new();
        for pixel in 0..self.pixels {
            for tap in 0..w.kernel[1] {
                let at = w.column(pixel, tap);
                let inside = |&start: &usize| (0..w.from[1] as i64).contains(&(start as i64 * step + at));
                let n = starts.iter().filter(|s| inside(s)).count();
                if n > 0 {
                    columns.insert(at, if n == starts.len() { Inside::Always } else { Inside::Sometimes });
                }
            }
        }
        columns
    }

    /// Returns the estimated nanoseconds.
    fn time(self, w: &Window) -> f64 {
        let rows = w.images.at(NOMINAL_BATCH) as usize * w.to[0];
        let groups = (rows * w.to[1].div_ceil(self.pixels)).div_ceil(LANES) * w.to_channels.div_ceil(self.channels);
        let weights = w.kernel[1] * self.channels;
        let (x_load, w_load, launches) = match self.reads {
            Reads::Storage => (LOAD, LOAD, 1),
            Reads::UniformWeights => (LOAD, UNIFORM_LOAD, 1),
            Reads::Uniform(n) => (UNIFORM_LOAD, UNIFORM_LOAD, NOMINAL_BATCH.div_ceil(n)),
        };
        let loads = self.columns(w).len() as f64 * x_load + weights.div_ceil(LANES) as f64 * w_load;
        let pixels = (self.pixels * self.channels) as f64;
        let term = loads + weights as f64 * BROADCAST + pixels * w.kernel[1] as f64 * MADD + 10.0;
        groups as f64 * (term * (w.kernel[0] * w.from_channels) as f64 + pixels * STORE + 200.0)
            + launches as f64 * LAUNCH
    }

    /// Returns the best strip of each way to read, and its time, where strips can do the window.
    pub(super) fn choose(w: &Window, profile: &DeviceProfile) -> Vec<(f64, Strip)> {
        if !has_eight_lanes(profile) || (w.transposed && w.strides != [1, 1]) {
            return Vec::new();
        }
        Reads::all(w).into_iter().filter_map(|reads| Self::best(w, reads)).collect()
    }

    fn best(w: &Window, reads: Reads) -> Option<(f64, Strip)> {
        // A longer text takes too long to compile.
        let most = if matches!(reads, Reads::Uniform(_)) { 512 } else { 1024 };
        let strips = (1..=16).filter(|&c| c <= w.to_channels).flat_map(|channels| {
            let of = move |n_strips| Strip { pixels: w.to[1].div_ceil(n_strips), channels, reads };
            (1..=w.to[1].min(64)).map(of)
        });
        let tile = |s: &Strip| s.pixels * s.channels;
        let strips = strips.filter(|s| tile(s) <= 256 && tile(s) * w.kernel[1] <= most);
        fastest(strips, |strip| strip.time(w))
    }

    /// Returns the launch of the window in such strips.
    pub(super) fn lower(self, w: &Window, epilogue: Option<&Epilogue>) -> Candidate {
        let Strip { pixels, channels, reads } = self;
        let Window { from: [from_h, from_w], to: [to_h, to_w], from_channels, to_channels, .. } = *w;
        let finish = Finish::new(epilogue, to_channels as u64);
        let columns = self.columns(w);
        let n_strips = to_w.div_ceil(pixels);
        let channel_groups = to_channels.div_ceil(channels);
        let rows = w.images.times((to_h * n_strips) as u64);
        let mut n_rows = wgsl_count(rows);
        let step = if w.transposed { 1 } else { w.strides[1] };
        let taps = w.kernel[1];
        let weights = (w.kernel[0] * taps * from_channels * to_channels) as u64;
        let mut slots = vec![Slot::input(0), Slot::input(1), Slot::output(0)];
        let mut t = match reads {
            Reads::Uniform(n) => declare_uniform(1, "x", (n * from_h * from_w * from_channels) as u64),
            _ => declare(1, "x", DType::F32),
        };
        if reads == Reads::Storage {
            t.push_str(&declare(2, "w", DType::F32));
        } else {
            t.push_str(&declare_uniform(2, "w", weights));
            slots[1] = Slot::Uniform { input: 1, samples: None };
        }
        t.push_str("@group(0) @binding(3) var<storage, read_write> y: array<f32>;\n");
        let (mut part, mut all_images) = (String::new(), "image");
        let per_image = to_h * n_strips;
        let mut order =
            format!("    let image = strip / {per_image}u;\n    let place_in_image = strip % {per_image}u;\n");
        if let Reads::Uniform(n) = reads {
            slots[0] = Slot::Uniform { input: 0, samples: Some(n) };
            slots.push(Slot::ChunkIndex);
            t.push_str("@group(0) @binding(4) var<uniform> part: vec4<u32>;\n");
            n_rows = "n_rows".into();
            let _ = write!(
                part,
                "    let first = part.x * {n}u;\n    let n_images = min(max(step.n, first) - first, {n}u);
    let n_rows = n_images * {per_image}u;\n"
            );
            // Lanes of one row skip the rows of taps outside the image together.
            order = "    let image = strip % n_images;\n    let place_in_image = strip / n_images;\n".into();
            all_images = "(first + image)";
        }
        let read = |name: &str, index: &str| {
            let uniform = if name == "x" { matches!(reads, Reads::Uniform(_)) } else { reads != Reads::Storage };
            if uniform { format!("{name}_at({index})") } else { format!("{name}[{index}]") }
        };
        t.push_str(&w.weights());
        t.push_str(&finish.function());
        let _ = write!(
            t,
            "@compute @workgroup_size({LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let tile = id.x + id.y * counts.x;
{part}    let tiles = ({n_rows} + {}u) / {LANES}u * {channel_groups}u;
    if (tile >= tiles) {{ return; }}
    let channel0 = min(tile % {channel_groups}u * {channels}u, {}u);
    let strip = min(tile / {channel_groups}u * {LANES}u + lane, {n_rows} - 1u);
{order}    let start = min(place_in_image % {n_strips}u * {pixels}u, {}u);
    let row = place_in_image / {n_strips}u % {to_h}u;
",
            LANES - 1,
            to_channels - channels,
            to_w - pixels,
        );
        let n_weights = taps * channels;
        for v in 0..n_weights.div_ceil(LANES) {
            let scale = if w.transposed { format!(" * {from_channels}u") } else { String::new() };
            let _ = write!(
                t,
                "    let w{v}_i = min(lane + {}u, {}u);\n    let w{v}_s = w{v}_i / {channels}u;
    let w{v}_k = (channel0 + w{v}_i % {channels}u){scale};\n",
                v * LANES,
                n_weights - 1
            );
        }
        let each_sum = |line: &dyn Fn(String) -> String| -> String {
            (0..pixels).flat_map(|j| (0..channels).map(move |k| format!("{j}_{k}"))).map(line).collect()
        };
        t.push_str(&each_sum(&|at| format!("    var c{at} = 0.0;\n")));
        let partial = from_channels as u64 >= MIN_ITERATIONS;
        let sum = if partial { "a" } else { "c" };
        let _ = write!(
            t,
            "{}    let end_c = {from_channels}u;\n    for (var r = first_r; r < end_r; r++) {{\n",
            w.tap_rows(true)
        );
        let rows_inside = w.rows_inside();
        let source = w.source(0, "row", "r");
        if rows_inside {
            let _ = writeln!(t, "    let line = u32({source});");
        } else {
            let _ = writeln!(
                t,
                "    let in_bounds = u32({source}) < {from_h}u;\n    let line = select(0u, u32({source}), in_bounds);"
            );
        }
        let _ = writeln!(
            t,
            "    let x_o = (image * {from_h}u + line) * {}u + start * {}u;",
            from_w * from_channels,
            step * from_channels
        );
        for (i, (&at, &inside)) in columns.iter().enumerate() {
            let offset = at * from_channels as i64;
            if inside == Inside::Sometimes {
                let in_bounds = if rows_inside { String::new() } else { " && in_bounds".into() };
                let _ = writeln!(
                    t,
                    "    let x{i}_in_bounds = u32(i32(start * {step}u) + {at}) < {from_w}u{in_bounds};
    let x{i}_o = select(0u, u32(i32(x_o) + {offset}), x{i}_in_bounds);"
                );
            }
        }
        for v in 0..n_weights.div_ceil(LANES) {
            let _ = writeln!(t, "    let w{v}_o = tap_offset(r, w{v}_s) + w{v}_k;");
        }
        if partial {
            t.push_str(&each_sum(&|at| format!("    var {sum}{at} = 0.0;\n")));
        }
        t.push_str("    for (var c = 0u; c < end_c; c++) {\n");
        for (i, (&at, &inside)) in columns.iter().enumerate() {
            let offset = at * from_channels as i64;
            let value = match (inside, rows_inside) {
                (Inside::Sometimes, _) => {
                    format!("select(0.0, {}, x{i}_in_bounds)", read("x", &format!("x{i}_o + c")))
                }
                (Inside::Always, true) => read("x", &format!("u32(i32(x_o) + {offset}) + c")),
                (Inside::Always, false) => {
                    format!("select(0.0, {}, in_bounds)", read("x", &format!("u32(i32(x_o) + {offset}) + c")))
                }
            };
            let _ = writeln!(t, "    let x{i} = {value};");
        }
        let pitch = if w.transposed { "c".into() } else { format!("c * {to_channels}u") };
        for v in 0..n_weights.div_ceil(LANES) {
            let _ = writeln!(t, "    let w{v} = {};", read("w", &format!("w{v}_o + {pitch}")));
        }
        // All taps of one sum together: it stays in a register.
        for k in 0..channels {
            for l in (0..taps).map(|s| s * channels + k) {
                let _ = writeln!(t, "    let f{l} = subgroupBroadcast(w{}, {}u);", l / LANES, l % LANES);
            }
            for j in 0..pixels {
                let column = |s| columns.keys().position(|&a| a == w.column(j, s));
                let products: Vec<String> =
                    (0..taps).filter_map(|s| Some(format!("f{} * x{}", s * channels + k, column(s)?))).collect();
                if !products.is_empty() {
                    let _ = writeln!(t, "    {sum}{j}_{k} += {};", products.join(" + "));
                }
            }
        }
        t.push_str("    }\n");
        if partial {
            t.push_str(&each_sum(&|at| format!("    c{at} += {sum}{at};\n")));
        }
        t.push_str("    }\n");
        let _ = writeln!(
            t,
            "    let place = (({all_images} * {to_h}u + row) * {to_w}u + start) * {to_channels}u + channel0;"
        );
        t.push_str(&finish.load_shared("channel0", channels as u64, true, false));
        let sum = |j, k| format!("c{j}_{k}");
        looped_store(&mut t, [pixels, channels], sum, |t, j, values| {
            for (k, value) in values.iter().enumerate() {
                let index = format!("place + {j} * {to_channels}u + {k}u");
                let _ = writeln!(t, "    y[{index}] = {};", finish.call(value, &index, &k.to_string()));
            }
        });
        t.push_str("}\n");
        let per_group = LANES as u32;
        let items = rows.times(channel_groups as u64);
        let items = Count { fixed: items.fixed + (LANES * channel_groups) as u64, ..items };
        let kernel =
            dispatch(w.name, &t, &[], Grid::new(items, per_group), slots, epilogue).iterations(w.iterations(), 1);
        let how = match reads {
            Reads::Storage => "",
            Reads::UniformWeights => "_uniform_weights",
            Reads::Uniform(_) => "_uniform",
        };
        Candidate::single(format!("strips_{pixels}x{channels}{how}"), kernel)
    }
}
