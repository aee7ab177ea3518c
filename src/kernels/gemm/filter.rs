//! The tile core for gradients to small kernels: each lane sums over pixel rows of its own, with a window of the
//! picture in registers; lanes are added at the end.

use super::{Finish, LOAD, MADD, NOMINAL_BATCH, declare, split_sum, wgsl_count};
use crate::{
    graph::{Candidate, DeviceProfile, Grid, Slot},
    kernels::dispatch,
    tensor::{Count, DType},
};
use std::fmt::Write as _;

/// A gradient to the weights of a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filter {
    /// Size of the pictures.
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
    /// Channels of the pictures.
    pub from_channels: usize,
    /// Channels of the result.
    pub to_channels: usize,
    /// Number of pictures.
    pub pictures: Count,
    /// Whether output 1 is the sum of the gradient over all pixels.
    pub sums: bool,
}

/// How much of the kernel one workgroup does: rows of taps, input and output channels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Block {
    rows: usize,
    from: usize,
    to: usize,
}

const LANES: usize = 8;

impl Filter {
    fn groups(&self, b: Block) -> [usize; 3] {
        [self.kernel[0].div_ceil(b.rows), self.from_channels.div_ceil(b.from), self.to_channels.div_ceil(b.to)]
    }

    fn time(&self, b: Block) -> f64 {
        let [_, taps] = self.kernel;
        let terms = (self.pictures.at(NOMINAL_BATCH) as usize * self.output[0]).div_ceil(LANES) * self.output[1];
        let madds = (b.rows * taps * b.from * b.to) as f64;
        let loads = (b.rows * b.from + b.to) as f64;
        let shifts = (b.rows * b.from * taps) as f64 * 0.5;
        let groups: usize = self.groups(b).iter().product();
        groups as f64 * (terms as f64 * (loads * LOAD + madds * MADD + shifts + 10.0) + madds * 10.0)
    }

    fn choose(&self, profile: &DeviceProfile) -> Option<(f64, Block)> {
        if !super::lanes_of_eight(profile) || self.strides[1] != 1 || self.dilation[1] != 1 {
            return None;
        }
        let mut best: Option<(f64, Block)> = None;
        for rows in 1..=self.kernel[0] {
            for from in 1..=self.from_channels.min(8) {
                for to in 1..=self.to_channels.min(32) {
                    let block = Block { rows, from, to };
                    let time = self.time(block);
                    if rows * from * to * self.kernel[1] <= 480 && best.as_ref().is_none_or(|b| time < b.0) {
                        best = Some((time, block));
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
        let parts = 16usize.div_ceil(groups).max(2);
        let Filter { input: [h, width], output: [p, q], kernel: [_, taps], from_channels, to_channels, .. } = *self;
        let pixel_rows = self.pictures.times(p as u64);
        let n_rows = wgsl_count(pixel_rows);
        let weights = self.kernel[0] * taps * from_channels * to_channels;
        let elements = weights + if self.sums { to_channels } else { 0 };
        let mut t = declare(1, "x", DType::F32) + &declare(2, "dy", DType::F32);
        let _ = write!(
            t,
            "@group(0) @binding(3) var<storage, read_write> y: array<f32>;
fn over_lanes(v: f32) -> f32 {{
    let a = v + subgroupShuffleXor(v, 4u);
    let b = a + subgroupShuffleXor(a, 2u);
    return b + subgroupShuffleXor(b, 1u);
}}
@compute @workgroup_size({LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let tile = id.x + id.y * counts.x;
    let tiles = {}u;
    if (tile >= tiles) {{ return; }}
    let r_0 = min(tile % {r_groups}u * {}u, {}u);
    let c_0 = min(tile / {r_groups}u % {c_groups}u * {}u, {}u);
    let k_0 = min(tile / {}u % {k_groups}u * {}u, {}u);
    let part = tile / {groups}u;
",
            groups * parts,
            b.rows,
            self.kernel[0] - b.rows,
            b.from,
            from_channels - b.from,
            r_groups * c_groups,
            b.to,
            to_channels - b.to,
        );
        // Accumulators and window, in the order of the weights.
        let names: Vec<(usize, usize, usize, usize)> = (0..b.rows)
            .flat_map(|r| (0..taps).map(move |s| (r, s)))
            .flat_map(|(r, s)| (0..b.from).map(move |c| (r, s, c)))
            .flat_map(|(r, s, c)| (0..b.to).map(move |k| (r, s, c, k)))
            .collect();
        for (r, s, c, k) in &names {
            let _ = writeln!(t, "    var c{r}_{s}_{c}_{k} = 0.0;");
        }
        let n_sums = if self.sums { b.to } else { 0 };
        for k in 0..n_sums {
            let _ = writeln!(t, "    var sum{k} = 0.0;");
        }
        let _ = write!(
            t,
            "    let end_row = {n_rows};\n    let end_at = {q}u;
    for (var first = part * {LANES}u; first < end_row; first += {}u) {{
    let row_there = first + lane < end_row;
    let row = min(first + lane, end_row - 1u);
    let dy_o = row * {}u + k_0;
",
            parts * LANES,
            q * to_channels
        );
        let pad = self.pads[1];
        for r in 0..b.rows {
            let _ = write!(
                t,
                "    let y{r} = u32(i32(row % {p}u) * {} + i32(r_0 + {r}u) * {} - {});
    let y{r}_there = y{r} < {h}u;
    let x{r}_o = ((row / {p}u) * {h}u + select(0u, y{r}, y{r}_there)) * {}u + c_0;\n",
                self.strides[0],
                self.dilation[0],
                self.pads[0],
                width * from_channels
            );
            for c in 0..b.from {
                for s in 0..taps - 1 {
                    let at = s.checked_sub(pad).filter(|&at| at < width);
                    let value = at.map_or("0.0".into(), |at| {
                        format!("select(0.0, x[x{r}_o + {}u], y{r}_there)", at * from_channels + c)
                    });
                    let _ = writeln!(t, "    var x{r}_{s}_{c} = {value};");
                }
            }
        }
        let _ = writeln!(t, "    for (var at = 0u; at < end_at; at++) {{");
        let _ = writeln!(
            t,
            "    let column = u32(i32(at) + {} - {pad});\n    let column_there = column < {width}u;\n    \
             let column_o = select(0u, column, column_there) * {from_channels}u;",
            taps - 1
        );
        for r in 0..b.rows {
            for c in 0..b.from {
                let _ = writeln!(
                    t,
                    "    let x{r}_{}_{c} = select(0.0, x[x{r}_o + column_o + {c}u], y{r}_there && column_there);",
                    taps - 1
                );
            }
        }
        for k in 0..b.to {
            let _ = writeln!(t, "    let d{k} = select(0.0, dy[dy_o + at * {to_channels}u + {k}u], row_there);");
        }
        for (r, s, c, k) in &names {
            let _ = writeln!(t, "    c{r}_{s}_{c}_{k} += x{r}_{s}_{c} * d{k};");
        }
        for k in 0..n_sums {
            let _ = writeln!(t, "    sum{k} += d{k};");
        }
        for r in 0..b.rows {
            for c in 0..b.from {
                for s in 1..taps {
                    let _ = writeln!(t, "    x{r}_{}_{c} = x{r}_{s}_{c};", s - 1);
                }
            }
        }
        t.push_str("    }\n    }\n");
        // Eight accumulators at a time: lane i stores the i-th.
        for (v, names) in names.chunks(LANES).enumerate() {
            let _ = writeln!(t, "    var v{v} = 0.0;");
            for (i, (r, s, c, k)) in names.iter().enumerate() {
                let _ = writeln!(t, "    v{v} = select(v{v}, over_lanes(c{r}_{s}_{c}_{k}), lane == {i}u);");
            }
            let (at, last) = (v * LANES, v * LANES + names.len() - 1);
            let _ = write!(
                t,
                "    let i{v} = lane + {at}u;
    let r{v} = r_0 + i{v} / {}u;
    let o{v} = ((r{v} * {taps}u + i{v} / {}u % {taps}u) * {from_channels}u + c_0 + i{v} / {}u % {}u) * {to_channels}u + k_0 + i{v} % {}u;
    if (i{v} <= {last}u) {{ y[part * {elements}u + o{v}] = v{v}; }}\n",
                taps * b.from * b.to,
                b.from * b.to,
                b.to,
                b.from,
                b.to,
            );
        }
        for k in 0..n_sums {
            let _ = writeln!(t, "    let total{k} = over_lanes(sum{k});");
        }
        if self.sums {
            t.push_str("    if (r_0 == 0u && c_0 == 0u && lane == 0u) {\n");
            for k in 0..n_sums {
                let _ = writeln!(t, "    y[part * {elements}u + {weights}u + k_0 + {k}u] = total{k};");
            }
            t.push_str("    }\n");
        }
        t.push_str("}\n");
        let slots = vec![Slot::input(0), Slot::input(1), Slot::Scratch(0)];
        let main = dispatch("conv2d_grad_weight", &t, &[], Grid::fixed((groups * parts) as u64), slots, None);
        let count = |n: usize| Count { fixed: n as u64, per_sample: 0 };
        let finish = Finish::new(None, to_channels as u64);
        let sum = split_sum(self.sums, count(elements), parts as u64, &finish, None);
        let variant = format!("filter_{}x{}x{}_split{parts}", b.rows, b.from, b.to);
        let scratch_bytes = vec![count(elements * 4 * parts)];
        Some((time, Candidate { variant, dispatches: vec![main, sum], scratch_bytes }))
    }
}
