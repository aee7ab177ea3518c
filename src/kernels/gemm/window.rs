use super::{
    Loop, MOST_TURNS, Operand, Product, declare, lower_with, read, row::Row, spread::Spread, strip::Strip, wgsl_count,
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Slot},
    kernels::depthwise::{self, Slide},
    tensor::{Count, DType},
};

/// A kernel that slides over pictures, forward or transposed.
///
/// Input 0 is the pictures to read, NHWC; input 1 the weights: (height, width, from / groups, to) forward and
/// (height, width, to / groups, from) transposed. Forward, result position `o` reads `o · stride + tap · dilation − pad`;
/// transposed, it reads the `i` for which `i · stride + tap · dilation − pad = o`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Name of the kernel.
    pub name: &'static str,
    /// Whether positions are the other way round.
    pub transposed: bool,
    /// Size of the pictures that are read.
    pub from: [usize; 2],
    /// Size of the result.
    pub to: [usize; 2],
    /// Channels that are read.
    pub from_channels: usize,
    /// Channels of the result.
    pub to_channels: usize,
    /// Taps.
    pub kernel: [usize; 2],
    /// Steps of the forward kernel.
    pub strides: [usize; 2],
    /// Zeros in front.
    pub pads: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels, each convolved alone.
    pub groups: usize,
    /// Number of pictures.
    pub pictures: Count,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Window {
    /// Returns the turns of loops over rows of taps and channels, and of the stores.
    pub(super) fn turns(&self) -> Count {
        Count { fixed: (self.kernel[0] * (1 + self.from_channels)) as u64 + MOST_TURNS, per_sample: 0 }
    }

    /// Returns the number of tap phases along an axis: result positions of one phase share their taps.
    fn phases(&self, axis: usize) -> usize {
        if self.transposed { self.strides[axis] } else { 1 }
    }

    /// Returns the result positions of one phase along an axis.
    fn per_phase(&self, axis: usize) -> usize {
        self.to[axis].div_ceil(self.phases(axis))
    }

    /// Returns the first tap that reads anything at a phase, and the distance to the next.
    fn taps(&self, axis: usize, phase: usize) -> (usize, usize) {
        let (stride, dilation) = (self.phases(axis), self.dilation[axis]);
        let reads = |tap: usize| (phase + self.pads[axis] + (stride - 1) * dilation * tap).is_multiple_of(stride);
        let first = (0..self.kernel[axis]).find(|&tap| reads(tap)).unwrap_or(self.kernel[axis]);
        (first, stride / gcd(dilation, stride))
    }

    /// Returns a WGSL expression of the first tap for the phase named `phase`.
    fn first_tap(&self, axis: usize, phase: &str) -> Option<String> {
        (self.phases(axis) > 1).then(|| {
            (0..self.phases(axis)).rev().fold(format!("{}u", self.kernel[axis]), |other, k| {
                format!("select({other}, {}u, {phase} == {k}u)", self.taps(axis, k).0)
            })
        })
    }

    /// Returns the WGSL position that is read, as i32, for a result position.
    pub(super) fn source(&self, axis: usize, at: &str, tap: &str) -> String {
        let (stride, dilation, pad) = (self.strides[axis], self.dilation[axis], self.pads[axis]);
        if self.transposed {
            let sum = format!("i32({at}) + {pad} - i32({tap}) * {dilation}");
            if stride == 1 { sum } else { format!("({sum}) / {stride}") }
        } else {
            format!("i32({at}) * {stride} + i32({tap}) * {dilation} - {pad}")
        }
    }

    /// Returns the source column, relative to the strip's start, of a pixel under a tap.
    pub(super) fn column(&self, pixel: usize, tap: usize) -> i64 {
        let [_, stride] = self.strides.map(|v| v as i64);
        let (pixel, tap) = (pixel as i64, (tap * self.dilation[1]) as i64);
        if self.transposed { pixel + self.pads[1] as i64 - tap } else { pixel * stride + tap - self.pads[1] as i64 }
    }

    /// Returns statements for the rows of taps, from `first_r` to `end_r`, that lie inside the picture; with
    /// `by_lane` for the row of any lane.
    pub(super) fn tap_rows(&self, by_lane: bool) -> String {
        let (taps, from, pad, dilation) = (self.kernel[0], self.from[0], self.pads[0], self.dilation[0]);
        if self.rows_inside() {
            return format!("    let first_r = 0u;\n    let end_r = {taps}u;\n");
        }
        let (before, until) = if self.transposed {
            (format!("i32(row) + {pad} - {from} + 1"), format!("i32(row) + {pad} + 1"))
        } else {
            let at = format!("{pad} - i32(row) * {}", self.strides[0]);
            (at.clone(), format!("{at} + {from}"))
        };
        let taps_in = |rows: String| format!("(u32(max({rows}, 0)) + {}u) / {dilation}u", dilation - 1);
        let [least, most] = if by_lane { ["subgroupMin", "subgroupMax"] } else { [""; 2] };
        format!(
            "    let first_r = {least}({});\n    let end_r = min({most}({}), {taps}u);\n",
            taps_in(before),
            taps_in(until)
        )
    }

    /// Returns whether all taps of all rows lie inside the picture.
    pub(super) fn rows_inside(&self) -> bool {
        let last = (self.kernel[0] - 1) * self.dilation[0];
        if self.transposed {
            self.pads[0] >= last && self.to[0] - 1 + self.pads[0] < self.from[0]
        } else {
            self.pads[0] == 0 && (self.to[0] - 1) * self.strides[0] + last < self.from[0]
        }
    }

    pub(super) fn weights(&self) -> String {
        let Window { kernel, from_channels, to_channels, groups, .. } = self;
        format!(
            "fn tap_offset(r: u32, s: u32) -> u32 {{ return (r * {}u + s) * {}u; }}\n",
            kernel[1],
            from_channels * to_channels / groups
        )
    }
}

/// Returns ways to slide a window, the one that needs no timing first.
pub fn window(w: &Window, profile: &DeviceProfile, epilogue: Option<&Epilogue>) -> Vec<Candidate> {
    let depthwise = w.groups > 1 && w.groups == if w.transposed { w.to_channels } else { w.from_channels };
    if depthwise && w.kernel[0] * w.kernel[1] <= depthwise::MOST_TAPS {
        return vec![depthwise::slide(w, Slide::Weighted, profile, epilogue)];
    }
    let [phase_h, phase_w] = [w.phases(0), w.phases(1)];
    let [per_h, per_w] = [w.per_phase(0), w.per_phase(1)];
    let [from_h, from_w] = w.from;
    let [to_h, to_w] = w.to;
    let (groups, pitch) = (w.groups, w.from_channels);
    let (channels, to_channels) = (pitch / groups, w.to_channels / groups);
    let grouped = groups > 1;
    let group = |size: usize| if grouped { format!(" + group * {size}u") } else { String::new() };
    let position = |index: &str| {
        let h = format!("(({index} / {per_w}u) % {per_h}u * {phase_h}u + phase_h)");
        let w = format!("(({index} % {per_w}u) * {phase_w}u + phase_w)");
        (h, w)
    };
    let pixel_enter = |level: usize, name: &str, index: &str| match level {
        0 => {
            let (h, w) = position(index);
            format!(
                "    let {name}_n = {index} / {}u;\n    let {name}_h = {h};\n    let {name}_w = {w};\n",
                per_h * per_w
            )
        }
        2 => {
            let ih = w.source(0, &format!("{name}_h"), "r");
            let iw = w.source(1, &format!("{name}_w"), "s");
            format!(
                "    let {name}_y = u32({ih});\n    let {name}_x = u32({iw});
    let {name}_there = {name}_y < {from_h}u && {name}_x < {from_w}u;
    let {name}_o = select(0u, (({name}_n * {from_h}u + {name}_y) * {from_w}u + {name}_x) * {pitch}u{}, {name}_there);\n",
                group(channels)
            )
        }
        _ => String::new(),
    };
    let pixel_value = |name: &str, pair| read("x", &format!("{name}_o + c"), Some(&format!("{name}_there")), pair);
    let weight_enter = |level: usize, name: &str, index: &str| match (level, w.transposed) {
        (2, false) => format!("    let {name}_o = tap_offset(r, s) + {index}{};\n", group(to_channels)),
        (2, true) => format!("    let {name}_o = tap_offset(r, s) + {index} * {pitch}u{};\n", group(channels)),
        _ => String::new(),
    };
    let weight_value = |name: &str, pair| {
        let pitch = if w.transposed { String::new() } else { format!(" * {}u", w.to_channels) };
        read("w", &format!("{name}_o + c{pitch}"), None, pair)
    };
    let even_from = channels.is_multiple_of(2);
    let even_weights = if w.transposed { even_from } else { to_channels.is_multiple_of(2) };
    let place = |row: &str| {
        let (h, width) = position(row);
        let n = per_h * per_w;
        let place = format!("((({row} / {n}u) * {to_h}u + {h}) * {to_w}u + {width})");
        let place = if grouped { format!("({place} * {groups}u + group)") } else { place };
        let rows = wgsl_count(w.pictures.times(n as u64));
        (place, format!("{row} < {rows} && {h} < {to_h}u && {width} < {to_w}u"))
    };
    let count = |n: usize| Count { fixed: n as u64, per_sample: 0 };
    let taps = |var: &'static str, axis: usize, phase: &str| Loop {
        from: w.first_tap(axis, phase),
        step: w.taps(axis, 0).1,
        ..Loop::new(var, count(w.kernel[axis]))
    };
    let phased = phase_h * phase_w > 1;
    let product = Product {
        name: w.name,
        declarations: declare(1, "x", DType::F32) + &declare(2, "w", DType::F32) + &w.weights(),
        slots: vec![Slot::input(0), Slot::input(1)],
        batch: count(phase_h * phase_w * groups),
        head: format!(
            "    let group = batch % {groups}u;\n    let phase_h = batch / {}u;\n    let phase_w = batch / {groups}u % {phase_w}u;\n",
            phase_w * groups
        ),
        rows: Operand {
            extent: w.pictures.times((per_h * per_w) as u64),
            enter: &pixel_enter,
            value: &pixel_value,
            pairs: even_from.then_some("x"),
            along_terms: true,
        },
        columns: Operand {
            extent: count(to_channels),
            enter: &weight_enter,
            value: &weight_value,
            pairs: even_weights.then_some("w"),
            along_terms: w.transposed,
        },
        loops: vec![taps("r", 0, "phase_h"), taps("s", 1, "phase_w"), Loop::new("c", count(channels))],
        place: if phased || grouped { Some(&place) } else { None },
        whole: !phased,
        sums: false,
    };
    let strips = if grouped { Vec::new() } else { Strip::choose(w, profile) };
    let strips = strips.into_iter().map(|(time, strip)| (time, strip.lower(w, epilogue)));
    let spread = Spread::choose(w, profile).map(|(time, spread)| (time, spread.lower(w, epilogue)));
    let row = Row::choose(w, profile).map(|(time, row)| (time, row.lower(w, epilogue)));
    lower_with(strips.chain(spread).chain(row), &product, profile, epilogue)
}
