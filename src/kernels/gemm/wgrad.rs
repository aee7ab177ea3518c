//! The tile core for gradients to small kernels: lanes are output channels, and a workgroup slides down strips of
//! images with a window of rows in registers, so that one load serves all rows of taps.

use super::product::{
    BROADCAST, Finish, LOAD, LONG_BATCH, MADD, MAX_ITERATIONS, NOMINAL_BATCH, STORE, declare, has_eight_lanes,
    looped_store, split_sum, wgsl_count,
};
use crate::{
    graph::{Candidate, DeviceProfile, Grid, Slot},
    kernels::wgsl::dispatch,
    tensor::{Count, DType},
};
use std::fmt::Write as _;

/// A gradient to the weights of a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filter {
    /// Size of the images.
    pub input: [usize; 2],
    /// Size of the result's gradient.
    pub output: [usize; 2],
    /// Taps.
    pub kernel: [usize; 2],
    /// Steps.
    pub strides: [usize; 2],
    /// Zeros in front.
    pub pads: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels, each convolved alone.
    pub groups: usize,
    /// Channels of the images.
    pub from_channels: usize,
    /// Channels of the result.
    pub to_channels: usize,
    /// Number of images.
    pub images: Count,
    /// Whether output 1 is the sum of the gradient over all pixels.
    pub sums: bool,
}

/// What one workgroup does at a time: rows of taps, input channels, vectors of output channels, and pixels along
/// the row, which divide it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Block {
    rows: usize,
    from: usize,
    vectors: usize,
    pixels: usize,
}

const LANES: usize = 8;

/// Sums and multiply-adds in one loop body: beyond these, drivers take long to compile it.
const MAX_SUMS: usize = 128;
const MAX_MADDS: usize = 256;

impl Filter {
    fn groups(&self, b: Block) -> [usize; 3] {
        let vectors = self.to_channels.div_ceil(LANES);
        [self.kernel[0].div_ceil(b.rows), self.from_channels.div_ceil(b.from), vectors.div_ceil(b.vectors)]
    }

    /// Returns the elements of one row of the window.
    fn window(&self, b: Block) -> usize {
        (b.pixels + self.kernel[1] - 1) * b.from
    }

    fn time(&self, b: Block) -> f64 {
        let steps = self.images.at(NOMINAL_BATCH) as usize * self.output[0] * self.output[1] / b.pixels;
        let sums = (b.rows * self.kernel[1] * b.from * b.vectors) as f64;
        let loads = self.window(b).div_ceil(LANES) + b.pixels * b.vectors;
        let broadcasts = (b.rows * self.window(b)) as f64 * BROADCAST;
        let step = loads as f64 * LOAD + broadcasts + sums * b.pixels as f64 * MADD + sums * 0.5 + 10.0;
        let groups: usize = self.groups(b).iter().product();
        groups as f64 * (steps as f64 * step + sums * STORE * 4.0)
    }

    fn choose(&self, profile: &DeviceProfile) -> Option<(f64, Block)> {
        if !has_eight_lanes(profile) || self.strides != [1, 1] || self.dilation != [1, 1] || self.groups > 1 {
            return None;
        }
        let mut best: Option<(f64, Block)> = None;
        for rows in 1..=self.kernel[0] {
            for from in 1..=self.from_channels.min(32) {
                for vectors in 1..=self.to_channels.div_ceil(LANES).min(4) {
                    for pixels in (1..=self.output[1].min(32)).filter(|&n| self.output[1].is_multiple_of(n)) {
                        let block = Block { rows, from, vectors, pixels };
                        let sums = rows * self.kernel[1] * from * vectors;
                        if sums > MAX_SUMS || sums * pixels > MAX_MADDS || rows * self.window(block) > MAX_MADDS {
                            continue;
                        }
                        let time = self.time(block);
                        if best.as_ref().is_none_or(|b| time < b.0) {
                            best = Some((time, block));
                        }
                    }
                }
            }
        }
        best
    }

    /// Returns the estimated nanoseconds and the launches, where this core can do the gradient.
    pub fn lower(&self, profile: &DeviceProfile) -> Option<(f64, Candidate)> {
        let (time, b) = self.choose(profile)?;
        let [r_groups, c_groups, k_groups] = self.groups(b);
        let groups = r_groups * c_groups * k_groups;
        let Filter { input: [h, width], output: [p, q], kernel: [_, taps], from_channels, to_channels, .. } = *self;
        let strips = q / b.pixels;
        let iterations = self.images.times((strips * (p + 1)) as u64);
        let parts =
            8usize.div_ceil(groups).max(4).max(iterations.at(LONG_BATCH).div_ceil(profile.max_iterations) as usize);
        let n_strips = wgsl_count(self.images.times(strips as u64));
        let window = self.window(b);
        let weights = self.kernel[0] * taps * from_channels * to_channels;
        let sums = if self.sums { to_channels } else { 0 };
        let elements = weights + sums;
        let mut t = declare(1, "x", DType::F32) + &declare(2, "dy", DType::F32);
        let _ = write!(
            t,
            "@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@compute @workgroup_size({LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let tile = id.x + id.y * counts.x;
    let tiles = {}u;
    if (tile >= tiles) {{ return; }}
    let r_0 = min(tile % {r_groups}u * {}u, {}u);
    let c_0 = min(tile / {r_groups}u % {c_groups}u * {}u, {}u);
    let k_0 = tile / {}u % {k_groups}u * {}u;
    let part = tile / {groups}u;
",
            groups * parts,
            b.rows,
            self.kernel[0] - b.rows,
            b.from,
            from_channels - b.from,
            r_groups * c_groups,
            b.vectors * LANES,
        );
        // Lanes past the end do what the last one does.
        for v in 0..b.vectors {
            let _ = writeln!(t, "    let k{v} = min(k_0 + lane + {}u, {}u);", v * LANES, to_channels - 1);
        }
        let x_vectors = window.div_ceil(LANES);
        for v in 0..x_vectors {
            let _ = writeln!(
                t,
                "    let e{v} = min(lane + {}u, {}u);\n    let s{v} = e{v} / {}u;\n    let c{v} = c_0 + e{v} % {}u;",
                v * LANES,
                window - 1,
                b.from,
                b.from
            );
        }
        // Sums, in the order of the weights.
        let names: Vec<(usize, usize, usize, usize)> = (0..b.rows)
            .flat_map(|r| (0..taps).map(move |s| (r, s)))
            .flat_map(|(r, s)| (0..b.from).map(move |c| (r, s, c)))
            .flat_map(|(r, s, c)| (0..b.vectors).map(move |v| (r, s, c, v)))
            .collect();
        for (r, s, c, v) in &names {
            let _ = writeln!(t, "    var c{r}_{s}_{c}_{v} = 0.0;");
        }
        let n_sums = if self.sums { b.vectors } else { 0 };
        for v in 0..n_sums {
            let _ = writeln!(t, "    var sum{v} = 0.0;");
        }
        let _ = write!(
            t,
            "    let end_strip = {n_strips};\n    let end_row = {p}u;
    for (var strip = part; strip < end_strip; strip += {parts}u) {{
    let image = strip / {strips}u;
    let at = strip % {strips}u * {}u;
    let dy_o = (image * {p}u * {q}u + at) * {to_channels}u;\n",
            b.pixels
        );
        let padded = self.pads != [0, 0] || p + self.kernel[0] > h + 1 || q + taps > width + 1;
        for v in 0..x_vectors {
            let _ = writeln!(t, "    let w{v} = u32(i32(at + s{v}) - {});", self.pads[1]);
        }
        let load_row = |t: &mut String, r: usize, row: &str, keyword: &str| {
            let _ = writeln!(t, "    let y{r} = u32(i32({row} + r_0 + {r}u) - {});", self.pads[0]);
            for v in 0..x_vectors {
                let index = format!("((image * {h}u + y{r}) * {width}u + w{v}) * {from_channels}u + c{v}");
                let _ = if padded {
                    let in_bounds = format!("y{r} < {h}u && w{v} < {width}u");
                    writeln!(
                        t,
                        "    let in_bounds{r}_{v} = {in_bounds};\n    \
                         {keyword} x{r}_{v} = select(0.0, x[select(0u, {index}, in_bounds{r}_{v})], in_bounds{r}_{v});"
                    )
                } else {
                    writeln!(t, "    {keyword} x{r}_{v} = x[{index}];")
                };
            }
        };
        for r in 0..b.rows - 1 {
            load_row(&mut t, r, "0u", "var");
        }
        t.push_str("    for (var row = 0u; row < end_row; row++) {\n");
        load_row(&mut t, b.rows - 1, "row", "let");
        for u in 0..b.pixels {
            for v in 0..b.vectors {
                let _ = writeln!(
                    t,
                    "    let d{u}_{v} = dy[dy_o + row * {}u + {}u + k{v}];",
                    q * to_channels,
                    u * to_channels
                );
                if self.sums {
                    let _ = writeln!(t, "    sum{v} += d{u}_{v};");
                }
            }
        }
        for r in 0..b.rows {
            for e in 0..window {
                let _ = writeln!(t, "    let b{r}_{e} = subgroupBroadcast(x{r}_{}, {}u);", e / LANES, e % LANES);
            }
        }
        for (r, s, c, v) in &names {
            for u in 0..b.pixels {
                let _ = writeln!(t, "    c{r}_{s}_{c}_{v} += b{r}_{} * d{u}_{v};", (u + s) * b.from + c);
            }
        }
        for r in 1..b.rows {
            for v in 0..x_vectors {
                let _ = writeln!(t, "    x{}_{v} = x{r}_{v};", r - 1);
            }
        }
        t.push_str("    }\n    }\n");
        let _ = writeln!(t, "    let y_o = part * {elements}u;");
        let sum = |o: usize, v: usize| {
            let (r, s, c, v) = names[o * b.vectors + v];
            format!("c{r}_{s}_{c}_{v}")
        };
        looped_store(&mut t, [names.len() / b.vectors, b.vectors], sum, |t, o, values| {
            let from = b.from;
            let _ = writeln!(
                t,
                "    let y_{o} = y_o + ((r_0 * {taps}u + {o} / {from}u) * {from_channels}u + c_0 + {o} % {from}u) * {to_channels}u;"
            );
            for (v, value) in values.iter().enumerate() {
                let _ = writeln!(t, "    y[y_{o} + k{v}] = {value};");
            }
        });
        if self.sums {
            t.push_str("    if (r_0 == 0u && c_0 == 0u) {\n");
            for v in 0..n_sums {
                let _ = writeln!(t, "    y[y_o + {weights}u + k{v}] = sum{v};");
            }
            t.push_str("    }\n");
        }
        t.push_str("}\n");
        let slots = vec![Slot::input(0), Slot::input(1), Slot::Scratch(0)];
        let iterations =
            Count { fixed: iterations.fixed + (parts * (p + 1)) as u64 + MAX_ITERATIONS * parts as u64, ..iterations };
        let main = dispatch("conv2d_grad_weight", &t, &[], Grid::fixed((groups * parts) as u64), slots, None)
            .iterations(iterations, parts as u64);
        let count = |n: usize| Count { fixed: n as u64, per_sample: 0 };
        let finish = Finish::new(None, to_channels as u64);
        let sum = split_sum(sums as u64, count(elements), parts as u64, &finish, None);
        let variant = format!("filter_{}x{}x{}x{}_split{parts}", b.rows, b.from, b.vectors, b.pixels);
        let scratch_bytes = vec![count(elements * 4 * parts)];
        Some((time, Candidate { variant, dispatches: vec![main, sum], scratch_bytes }))
    }
}
