//! A window that slides over images: its sizes, and where its taps read.

use super::{matrix::Matrices, product::Product};
use crate::{
    graph::{Epilogue, Slot, UNIFORM_BYTES},
    kernels::language::{Buffer, Expr, Finish, Kernel, Layout, Stored, Type},
    tensor::{Count, DType},
};

/// A kernel that slides over images, forward or transposed.
///
/// Input 0 is the images to read, NHWC; input 1 the weights: (height, width, from / groups, to) forward and
/// (height, width, to / groups, from) transposed. Forward, result position `o` reads `o · stride + tap · dilation − pad`;
/// transposed, it reads the `i` for which `i · stride + tap · dilation − pad = o`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Name of the kernel.
    pub name: &'static str,
    /// Whether positions are the other way round.
    pub transposed: bool,
    /// Size of the images that are read.
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
    /// Number of images.
    pub images: Count,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Window {
    /// Returns the product of matrices that the window is, if its kernel is one pixel that moves by one.
    pub(super) fn matrices(&self) -> Option<Matrices> {
        let pointwise = self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0, 0] && self.from == self.to;
        (pointwise && self.groups == 1).then(|| Matrices {
            name: self.name,
            buffers: ["x", "w"],
            stack: None,
            m: self.images.times((self.to[0] * self.to[1]) as u64),
            k: Count { fixed: self.from_channels as u64, per_sample: 0 },
            n: self.to_channels,
            transposed: [false, self.transposed],
            sums: false,
        })
    }

    /// Returns how many pixels are from one of the result that is not 0 to the next, if its kernel is one pixel that moves by more.
    pub fn steps(&self) -> Option<[usize; 2]> {
        let of_pixels = self.transposed && self.kernel == [1, 1] && self.strides != [1, 1] && self.groups == 1;
        let all = [0, 1].map(|axis| self.to[axis].div_ceil(self.strides[axis]));
        (of_pixels && self.pads == [0, 0] && self.from == all).then_some(self.strides)
    }

    /// Returns the product of the pixels that are [not 0](Self::steps).
    pub(super) fn pixels(&self) -> Option<Matrices> {
        self.steps().and_then(|_| Window { strides: [1, 1], to: self.from, ..*self }.matrices())
    }

    /// Calls `f` with the product of the pixels that are [not 0](Self::steps), which is this one without the others.
    pub(super) fn among_zeros<R>(&self, pixels: &Matrices, f: impl FnOnce(&Product) -> R) -> R {
        let [h, w] = self.strides;
        let [[from_h, from_w], [to_h, to_w]] = [self.from, self.to];
        let corner = |row: &Expr| {
            let [y, x] = [row / from_w % from_h * h, row % from_w * w];
            let first = (row / (from_h * from_w) * to_h + &y) * to_w + &x;
            (first, y, x)
        };
        let place = |row: &Expr| (corner(row).0, Expr::from(true));
        let zeros = |row: &Expr| {
            let (first, y, x) = corner(row);
            let others = (0..h * w).skip(1).map(|i| [i / w, i % w]);
            let there = |at: &Expr, by: usize, size: usize| Expr::from(by == 0).or((at + by).less(size));
            let zero = others.map(|[down, right]| {
                let inside = there(&y, down, to_h).and(there(&x, right, to_w));
                (&first + (down * to_w + right), inside)
            });
            zero.collect()
        };
        pixels.placed(Some(&place), Some(&zeros), f)
    }

    /// Returns whether the weights fit into a uniform buffer.
    pub(super) fn weights_are_uniform(&self) -> bool {
        4 * self.n_weights() <= UNIFORM_BYTES
    }

    fn n_weights(&self) -> u64 {
        (self.kernel[0] * self.kernel[1] * self.from_channels * self.to_channels) as u64
    }

    /// Binds the weights, as a uniform buffer or not, and the result.
    pub(super) fn bind(&self, k: &mut Kernel, uniform: bool, epilogue: Option<&Epilogue>) -> (Buffer, Buffer, Finish) {
        let float = Layout::Scalars(DType::F32);
        let weights = match uniform {
            true => k.bind("w", Layout::Uniform(self.n_weights()), Slot::Uniform { input: 1, samples: None }),
            false => k.bind("w", float, Slot::input(1)),
        };
        let y = k.bind_result("y", float, Slot::output(0));
        let stored = Stored { width: 1, words: false, columns: self.to_channels as u64 };
        (weights, y, Finish::bind(k, epilogue, stored))
    }

    /// Returns the number of tap phases along an axis: result positions of one phase share their taps.
    pub(super) fn phases(&self, axis: usize) -> usize {
        if self.transposed { self.strides[axis] } else { 1 }
    }

    /// Returns the result positions of one phase along an axis.
    pub(super) fn per_phase(&self, axis: usize) -> usize {
        self.to[axis].div_ceil(self.phases(axis))
    }

    /// Returns the first tap that reads anything at a phase, and the distance to the next.
    pub(super) fn taps(&self, axis: usize, phase: usize) -> (usize, usize) {
        let (stride, dilation) = (self.phases(axis), self.dilation[axis]);
        let reads = |tap: usize| (phase + self.pads[axis] + (stride - 1) * dilation * tap).is_multiple_of(stride);
        let first = (0..self.kernel[axis]).find(|&tap| reads(tap)).unwrap_or(self.kernel[axis]);
        (first, stride / gcd(dilation, stride))
    }

    /// Returns the first tap for a phase, where there are several.
    pub(super) fn first_tap(&self, axis: usize, phase: &Expr) -> Option<Expr> {
        (self.phases(axis) > 1).then(|| {
            (0..self.phases(axis))
                .rev()
                .fold(Expr::from(self.kernel[axis]), |other, k| phase.equals(k).select(self.taps(axis, k).0, other))
        })
    }

    /// Returns the position that is read, as i32, for a result position.
    pub(super) fn source(&self, axis: usize, at: &Expr, tap: &Expr) -> Expr {
        let [stride, dilation, pad] = [self.strides[axis], self.dilation[axis], self.pads[axis]].map(|v| v as i64);
        match self.transposed {
            true => (at.i32() + pad - tap.i32() * dilation) / stride,
            false => at.i32() * stride + tap.i32() * dilation - pad,
        }
    }

    /// Returns where the weights of a tap begin.
    pub(super) fn tap_offset(&self, r: &Expr, s: &Expr) -> Expr {
        (r * self.kernel[1] + s) * (self.from_channels * self.to_channels / self.groups)
    }

    /// Returns the source column, relative to the strip's start, of a pixel under a tap.
    pub(super) fn column(&self, pixel: usize, tap: usize) -> i64 {
        let [_, stride] = self.strides.map(|v| v as i64);
        let (pixel, tap) = (pixel as i64, (tap * self.dilation[1]) as i64);
        if self.transposed { pixel + self.pads[1] as i64 - tap } else { pixel * stride + tap - self.pads[1] as i64 }
    }

    /// Returns the first row of taps that lies inside the image for a result row, and the end; with `by_lane` of all lanes' rows.
    pub(super) fn tap_rows(&self, k: &mut Kernel, row: &Expr, by_lane: bool) -> [Expr; 2] {
        if self.inside(0) {
            return [0u32.into(), Expr::from(self.kernel[0])];
        }
        let [first, end] = self.taps_inside(0, row);
        let of_lanes = |f: &str, value: Expr| if by_lane { Expr::call(f, Type::U32, [value]) } else { value };
        let (first, end) = (of_lanes("subgroupMin", first), of_lanes("subgroupMax", end));
        [k.let_("first_r", first), k.let_("end_r", end.min(self.kernel[0]))]
    }

    /// Returns the first tap along an axis that lies inside the image for a result position, and the end; there may be fewer taps.
    fn taps_inside(&self, axis: usize, at: &Expr) -> [Expr; 2] {
        let [from, pad, dilation] = [self.from, self.pads, self.dilation].map(|v| v[axis] as i64);
        let before = match self.transposed {
            true => at.i32() + (pad - from + 1),
            false => at.i32() * -(self.strides[axis] as i64) + pad,
        };
        let taps_in = |pixels: Expr| (pixels.max(0i32).u32() + (dilation - 1)) / dilation;
        [taps_in(before.clone()), taps_in(before + from)]
    }

    /// Returns whether a word has a bit for each tap along each axis.
    pub(super) fn has_tap_bits(&self) -> bool {
        self.kernel.iter().all(|&taps| taps < 16)
    }

    /// Returns the bits of the taps that lie inside the image for a result position: of rows in the lower half of a word, of columns
    /// in the upper one. Axes along which all do have none.
    pub(super) fn tap_bits(&self, at: [&Expr; 2]) -> Expr {
        let bits = |axis: usize| {
            let taps = self.taps_inside(axis, at[axis]).map(|tap| tap.min(self.kernel[axis]));
            let [first, end] = taps.map(|tap| Expr::from(1u32) << (tap + 16 * axis));
            end - first
        };
        (0..2).filter(|&axis| !self.inside(axis)).map(bits).sum()
    }

    /// Returns the bits of a tap among [those that lie inside](Self::tap_bits).
    pub(super) fn bits_of_tap(&self, tap: [&Expr; 2]) -> Expr {
        let axes = (0..2).filter(|&axis| !self.inside(axis));
        axes.map(|axis| Expr::from(1u32) << (tap[axis] + 16 * axis)).sum()
    }

    /// Returns whether all taps along an axis lie inside the image.
    pub(super) fn inside(&self, axis: usize) -> bool {
        let last = (self.kernel[axis] - 1) * self.dilation[axis];
        if self.transposed {
            self.pads[axis] >= last && self.to[axis] - 1 + self.pads[axis] < self.from[axis]
        } else {
            self.pads[axis] == 0 && (self.to[axis] - 1) * self.strides[axis] + last < self.from[axis]
        }
    }
}
