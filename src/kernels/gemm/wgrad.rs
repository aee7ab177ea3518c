//! The tile core for gradients to small kernels: lanes are output channels, and a workgroup slides down strips of
//! images with a window of rows in registers, so that one load serves all rows of taps.

use super::matrix::Matrices;
use super::product::{EIGHT_LANES, LONG_BATCH, LONG_TEXT, broadcast, has_eight_lanes, split_sum, store_sums};
use super::select::declined;
use crate::{
    graph::{Candidate, Counts, Declined, DeviceProfile, Grid, NOMINAL_BATCH, Slot},
    kernels::{
        self, Axis, Schedule,
        cost::fastest,
        language::{Buffer, Expr, Kernel, Layout, count},
    },
    tensor::{Count, DType},
};

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

const LANES: usize = 8;

/// Sums and multiply-adds in one loop body: beyond these, drivers take long to compile it.
const MAX_SUMS: usize = 128;
const MAX_MADDS: usize = 256;

impl Filter {
    /// Returns the product of matrices that the gradient is, if the kernel is one pixel that moves by one.
    pub fn matrices(&self) -> Option<Matrices> {
        let pointwise = self.kernel == [1, 1] && self.strides == [1, 1] && self.input == self.output;
        (pointwise && self.pads == [0, 0] && self.groups == 1).then(|| Matrices {
            name: "conv2d_grad_weight",
            buffers: ["x", "dy"],
            stack: None,
            m: Count { fixed: self.from_channels as u64, per_sample: 0 },
            k: self.images.times((self.input[0] * self.input[1]) as u64),
            n: self.to_channels,
            transposed: [true, false],
            sums: self.sums,
        })
    }

    fn groups(&self, b: &Schedule) -> [usize; 3] {
        let vectors = self.to_channels.div_ceil(LANES);
        [self.kernel[0].div_ceil(b.tiles), self.from_channels.div_ceil(b.m), vectors.div_ceil(b.n)]
    }

    /// Returns the elements of one row of the window.
    fn window(&self, b: &Schedule) -> usize {
        (b.k + self.kernel[1] - 1) * b.m
    }

    fn counts(&self, b: &Schedule) -> Counts {
        let steps = self.images.at(NOMINAL_BATCH) as usize * self.output[0] * self.output[1] / b.k;
        let (sums, window) = (self.sums(b), self.window(b));
        let loads = Counts::load(window.div_ceil(LANES) + b.k * b.n) + Counts::broadcast(b.tiles * window);
        let step = loads + Counts::madd(sums * b.k) + Counts::instruction(sums) * 0.5 + Counts::instruction(10);
        (step * steps as f64 + Counts::store(4 * sums)) * self.groups(b).iter().product::<usize>() as f64
    }

    fn sums(&self, b: &Schedule) -> usize {
        b.tiles * self.kernel[1] * b.m * b.n
    }

    /// Returns why the core cannot do the gradient, but for texts that would be too long.
    fn reason(&self, profile: &DeviceProfile) -> Option<&'static str> {
        match () {
            () if !has_eight_lanes(profile) => Some(EIGHT_LANES),
            () if self.strides != [1, 1] => Some("it slides by one pixel"),
            () if self.dilation != [1, 1] => Some("it knows no dilation"),
            () if self.groups > 1 => Some("it knows no groups"),
            () => None,
        }
    }

    /// Returns the cores that do not offer to compute the gradient, and why.
    pub fn declines(&self, profile: &DeviceProfile) -> Vec<Declined> {
        if self.depthwise(profile, None).is_some() {
            let why = "each channel has a filter of its own: a window over each channel alone needs no product";
            return [kernels::Core::Registers, kernels::Core::Shared].map(|core| declined(core, why)).into();
        }
        let reason = self.reason(profile).or_else(|| self.choose(profile).is_none().then_some(LONG_TEXT));
        reason.map(|why| declined(kernels::Core::Filter, why)).into_iter().collect()
    }

    /// Returns what one workgroup does at a time: `tiles` rows of taps, `m` input channels, `n` vectors of output channels, and `k`
    /// pixels along the row, which divide it.
    fn choose(&self, profile: &DeviceProfile) -> Option<(Counts, Schedule)> {
        if self.reason(profile).is_some() {
            return None;
        }
        let vectors = self.to_channels.div_ceil(LANES).min(4);
        let block = |tiles, m, n, k| Schedule {
            tiles,
            k,
            lanes: Some(Axis::N),
            ..Schedule::new(kernels::Core::Filter, [m, n])
        };
        let blocks =
            (1..=self.kernel[0]).flat_map(|rows| (1..=self.from_channels.min(32)).map(move |from| (rows, from)));
        let blocks = blocks.flat_map(|(rows, from)| (1..=vectors).map(move |vectors| (rows, from, vectors)));
        let blocks = blocks.flat_map(|(rows, from, vectors)| {
            let pixels = (1..=self.output[1].min(32)).filter(|&n| self.output[1].is_multiple_of(n));
            pixels.map(move |pixels| block(rows, from, vectors, pixels))
        });
        let fits = |b: &Schedule| {
            let sums = self.sums(b);
            sums <= MAX_SUMS && sums * b.k <= MAX_MADDS && b.tiles * self.window(b) <= MAX_MADDS
        };
        fastest(blocks.filter(fits), profile.class, |b| self.counts(b))
    }

    /// Returns the launches, where this core can do the gradient.
    pub fn lower(&self, profile: &DeviceProfile) -> Option<Candidate> {
        let (counts, b) = self.choose(profile)?;
        let [r_groups, c_groups, k_groups] = self.groups(&b);
        let groups = r_groups * c_groups * k_groups;
        let Filter { output: [p, q], kernel: [_, taps], from_channels, to_channels, .. } = *self;
        let strips = q / b.k;
        let iterations = self.images.times((strips * (p + 2)) as u64);
        let parts =
            8usize.div_ceil(groups).max(4).max(iterations.at(LONG_BATCH).div_ceil(profile.max_iterations) as usize);
        let sums = if self.sums { to_channels } else { 0 };
        let elements =
            Count { fixed: (self.kernel[0] * taps * from_channels * to_channels + sums) as u64, per_sample: 0 };
        let float = Layout::Scalars(DType::F32);
        let mut k = Kernel::new("conv2d_grad_weight", LANES);
        let x = k.bind("x", float, Slot::input(0));
        let dy = k.bind("dy", float, Slot::input(1));
        let y = k.bind_result("y", float, Slot::Scratch(0));
        let block = Schedule { split: parts, ..b };
        Core { filter: self, block, x, dy, y }.write(&mut k);
        let main = k.launch(Grid::fixed((groups * parts) as u64));
        let sums = [to_channels, sums].map(|n| n as u64);
        Some(split_sum(block, main, elements, sums, profile, None).with_counts(counts))
    }
}

/// The core, as it is written.
struct Core<'f> {
    filter: &'f Filter,
    block: Schedule,
    x: Buffer,
    dy: Buffer,
    y: Buffer,
}

/// The weights of a workgroup, and what a lane has of them.
struct At {
    row0: Expr,
    channel0: Expr,
    part: Expr,
    /// The output channels of a lane; past the end the last one.
    channels: Vec<Expr>,
    /// Column and channel of the elements of a window's row that a lane loads.
    window: Vec<(Expr, Expr)>,
    /// Sums, by row of taps, tap, input channel and vector of output channels.
    sums: Vec<[usize; 4]>,
}

impl Core<'_> {
    fn enter(&self, k: &mut Kernel) -> At {
        let (f, b) = (self.filter, &self.block);
        let [r_groups, c_groups, k_groups] = f.groups(b);
        let groups = r_groups * c_groups * k_groups;
        let tile = k.let_("tile", k.workgroup_index());
        k.return_if(tile.at_least(groups * self.block.split));
        let row0 = k.let_("row0", (&tile % r_groups * b.tiles).min(f.kernel[0] - b.tiles));
        let channel0 = &tile / r_groups % c_groups * b.m;
        let channel0 = k.let_("channel0", channel0.min(f.from_channels - b.m));
        let first = k.let_("first", &tile / (r_groups * c_groups) % k_groups * (b.n * LANES));
        let part = k.let_("part", tile / groups);
        let channel = |v: usize| (&first + k.lane() + v * LANES).min(f.to_channels - 1);
        let channels: Vec<Expr> = (0..b.n).map(channel).collect();
        let channels = channels.into_iter().enumerate().map(|(v, c)| k.let_(format!("k{v}"), c)).collect();
        let window = f.window(b);
        let window = (0..window.div_ceil(LANES))
            .map(|v| {
                let element = k.let_(format!("e{v}"), (k.lane() + v * LANES).min(window - 1));
                let column = k.let_(format!("s{v}"), &element / b.m);
                (column, k.let_(format!("c{v}"), &channel0 + element % b.m))
            })
            .collect();
        let sums = (0..b.tiles)
            .flat_map(|r| (0..f.kernel[1]).map(move |s| (r, s)))
            .flat_map(|(r, s)| (0..b.m).map(move |c| (r, s, c)))
            .flat_map(|(r, s, c)| (0..b.n).map(move |v| [r, s, c, v]))
            .collect();
        At { row0, channel0, part, channels, window, sums }
    }

    fn write(&self, k: &mut Kernel) {
        let (f, b) = (self.filter, &self.block);
        let ([p, q], to_channels) = (f.output, f.to_channels);
        let strips = q / b.k;
        let at = self.enter(k);
        let sums: Vec<Expr> = at.sums.iter().map(|[r, s, c, v]| k.var(format!("c{r}_{s}_{c}_{v}"), 0.0)).collect();
        let n_sums = if f.sums { b.n } else { 0 };
        let column_sums: Vec<Expr> = (0..n_sums).map(|v| k.var(format!("sum{v}"), 0.0)).collect();
        let end = k.let_("end_strip", count(f.images.times(strips as u64)));
        k.for_("strip", &at.part, end, self.block.split, |k, strip| {
            let image = k.let_("image", strip / strips);
            let column = k.let_("at", strip % strips * b.k);
            let dy_o = k.let_("dy_o", (&image * (p * q) + &column) * to_channels);
            let columns: Vec<Expr> = (at.window.iter().enumerate())
                .map(|(v, (s, _))| k.let_(format!("w{v}"), ((&column + s).i32() - f.pads[1] as i64).u32()))
                .collect();
            let place = (&image, &columns[..]);
            let rows: Vec<Vec<Expr>> = (0..b.tiles - 1)
                .map(|r| {
                    let values = self.load_row(k, &at, (r, &0u32.into()), place);
                    values.into_iter().enumerate().map(|(v, x)| k.var(format!("x{r}_{v}"), x)).collect()
                })
                .collect();
            k.for_("row", 0u32, p, 1, |k, row| {
                let last = b.tiles - 1;
                let values = self.load_row(k, &at, (last, row), place);
                let values = values.into_iter().enumerate().map(|(v, x)| k.let_(format!("x{last}_{v}"), x)).collect();
                let window: Vec<Vec<Expr>> = rows.iter().cloned().chain([values]).collect();
                let dy_row = k.let_("dy_row", &dy_o + row * (q * to_channels));
                self.multiply(k, &at, (&window, &dy_row), (&sums, &column_sums));
                for (row, next) in window.iter().zip(&window[1..]) {
                    row.iter().zip(next).for_each(|(x, next)| k.set(x, next));
                }
            });
        });
        self.store(k, &at, &sums, &column_sums);
    }

    /// Returns what a lane loads of row `r` of the window where the result's row is `row`.
    fn load_row(
        &self,
        k: &mut Kernel,
        at: &At,
        (r, row): (usize, &Expr),
        (image, columns): (&Expr, &[Expr]),
    ) -> Vec<Expr> {
        let Filter { input: [h, width], output: [p, q], kernel, pads, from_channels, .. } = *self.filter;
        let padded = pads != [0, 0] || p + kernel[0] > h + 1 || q + kernel[1] > width + 1;
        let y = k.let_(format!("y{r}"), ((row + &at.row0 + r).i32() - pads[0] as i64).u32());
        (at.window.iter().zip(columns).enumerate())
            .map(|(v, ((_, channel), column))| {
                let inside = y.less(h).and(column.less(width)).or(!padded);
                let inside = if padded { k.let_(format!("in_bounds{r}_{v}"), inside) } else { inside };
                let index = ((image * h + &y) * width + column) * from_channels + channel;
                self.x.guarded(&inside.select(index, 0u32), &inside, false)
            })
            .collect()
    }

    /// Writes the products of one row of the result's gradient with the window.
    fn multiply(
        &self,
        k: &mut Kernel,
        at: &At,
        (window, dy_row): (&[Vec<Expr>], &Expr),
        (sums, column_sums): (&[Expr], &[Expr]),
    ) {
        let (f, b) = (self.filter, &self.block);
        let dy: Vec<Vec<Expr>> = (0..b.k)
            .map(|u| {
                let load = |(v, channel): (usize, &Expr)| {
                    let value = k.let_(format!("d{u}_{v}"), self.dy.at(dy_row + channel + u * f.to_channels));
                    column_sums.get(v).into_iter().for_each(|sum| k.add(sum, &value));
                    value
                };
                at.channels.iter().enumerate().map(load).collect()
            })
            .collect();
        let x: Vec<Vec<Expr>> = (window.iter().enumerate())
            .map(|(r, row)| {
                let element = |e: usize| broadcast(&row[e / LANES], (e % LANES) as u64);
                (0..f.window(b)).map(|e| k.let_(format!("b{r}_{e}"), element(e))).collect()
            })
            .collect();
        for (sum, &[r, s, c, v]) in sums.iter().zip(&at.sums) {
            for (u, dy) in dy.iter().enumerate() {
                k.add(sum, &x[r][(u + s) * b.m + c] * &dy[v]);
            }
        }
    }

    fn store(&self, k: &mut Kernel, at: &At, sums: &[Expr], column_sums: &[Expr]) {
        let (f, b) = (self.filter, &self.block);
        let (taps, from_channels, to_channels) = (f.kernel[1], f.from_channels, f.to_channels);
        let weights = f.kernel[0] * taps * from_channels * to_channels;
        let elements = weights + if f.sums { to_channels } else { 0 };
        let y_o = k.let_("y_o", &at.part * elements);
        let sum = |o: usize, v: usize| sums[o * b.n + v].clone();
        store_sums(k, [sums.len() / b.n, b.n], sum, |k, name, o, values| {
            let tap = (&at.row0 * taps + o / b.m) * from_channels + &at.channel0 + o % b.m;
            let place = k.let_(format!("y_{name}"), &y_o + tap * to_channels);
            for (channel, value) in at.channels.iter().zip(values) {
                k.store(&self.y, &place + channel, value);
            }
        });
        k.if_(at.row0.equals(0u32).and(at.channel0.equals(0u32)), |k| {
            for (channel, sum) in at.channels.iter().zip(column_sums) {
                k.store(&self.y, &y_o + channel + weights, sum);
            }
        });
    }
}
