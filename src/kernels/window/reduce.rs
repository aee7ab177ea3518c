//! The kernel that slides a window over each channel alone, forward or transposed.

use super::{
    plan::{Input, KEPT_OF_INPUT, Output, Plan, ReadRow, Strip, lowest, rank},
    strip_sums::{self, StripSums},
};
use crate::{
    graph::{Candidate, DeviceProfile, Epilogue, Slot},
    kernels::{
        column_parts::PartSums,
        gemm::Window,
        language::{Buffer, Expr, Kernel, Type},
    },
};

/// What is made of the pixels of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The sum of products with weights, input 1.
    Weighted,
    /// The sum over the window's pixels, or those of them inside the image, divided by their number.
    Average {
        /// Whether pixels outside the image count, as zeros.
        padding: bool,
    },
    /// The largest value; NaN is the largest.
    Max,
    /// The square root of the sum of squares.
    L2,
}

/// Returns the way to slide a window over each channel alone.
pub fn reduce_window(
    w: &Window,
    reduction: Reduction,
    profile: &DeviceProfile,
    epilogue: Option<&Epilogue>,
) -> Candidate {
    let kind = epilogue.and_then(|e| e.sums).filter(|_| reduction == Reduction::Weighted);
    let kept = if reduction == Reduction::Weighted { w.kernel[0] * w.kernel[1] } else { 0 };
    let prologues = epilogue.map_or(0, |e| e.prologues.len());
    let kept = kept + if kind.is_some() { strip_sums::KEPT } else { 0 } + KEPT_OF_INPUT * prologues;
    let plan = Plan::new(w, profile, kept);
    let (rows, m) = (plan.rows, plan.multiplier);
    let (mut k, x) = plan.kernel();
    let weights = (reduction == Reduction::Weighted).then(|| k.bind("w", plan.layout(), Slot::input(1)));
    let [floats, ranks] = plan.vectors();
    // A zero that no compiler knows, since the epilogue may multiply by it.
    let zero = floats.splat(Expr::name("step.zero", Type::F32));
    let start = if reduction == Reduction::Max { ranks.splat(lowest()) } else { zero };
    let mut output = plan.output(&mut k, start, epilogue);
    let bound = kind.map(|kind| (kind, PartSums::bind(&mut k, kind, plan.layout())));
    let mut x = plan.input(&mut k, (0, x), epilogue);
    let [channel, number] = plan.item(&mut k, plan.items());
    x.enter(&mut k, &channel);
    let number = k.let_("strip", number);
    output.sums = bound.map(|to| StripSums::new(&mut k, to, (floats, &channel)));
    let strip = plan.strip(&mut k, [&channel, &number]);
    let core = Core { w, plan, reduction, x, weights, output, strip };
    // Several channels for each result: their weights do not fit into registers.
    let many = m > 1 && w.transposed;
    let kept = if many { Vec::new() } else { core.load_weights(&mut k, &channel) };
    let columns_inside = core.columns_inside(&mut k);
    core.plan.for_steps(&mut k, rows.steps(), |k| {
        match many {
            false => core.add(k, &0u32.into(), &kept, &columns_inside),
            true => k.for_("m", 0u32, m, 1, |k, j| {
                let weights = core.load_weights(k, &(&channel * m + j));
                core.add(k, j, &weights, &columns_inside);
            }),
        }
        core.plan.complete(k, &core.strip, &core.output, |k, e, row| {
            let rows_inside = k.let_(format!("inside_p{e}"), pixels_inside(w, 0, row));
            let result = |(o, sum): (usize, &Expr)| match reduction {
                Reduction::Max => Expr::call("of_rank", floats, [sum.clone()]),
                Reduction::L2 => Expr::call("sqrt", floats, [sum.clone()]),
                Reduction::Average { .. } if !w.transposed => core.average(sum, [&rows_inside, &columns_inside[o]]),
                _ => sum.clone(),
            };
            core.output.rows[e].iter().enumerate().map(result).collect()
        });
    });
    let strips = w.images.times(core.plan.strips() as u64);
    let sums = core.output.sums.as_ref().map(|sums| {
        sums.write(&mut k, &number, core.plan.channels(), &channel);
        sums.parts(strips, w.to_channels)
    });
    Candidate { prologues: prologues > 0, ..core.plan.candidate(k, sums) }.with_counts(core.plan.counts)
}

/// Returns how many pixels of the window at position `at` of an axis lie inside the image.
fn pixels_inside(w: &Window, axis: usize, at: &Expr) -> Expr {
    let first = at * w.strides[axis] - w.pads[axis];
    let extent = if w.transposed { w.to[axis] } else { w.from[axis] };
    (&first + w.kernel[axis]).min(extent) - first.max(0i32)
}

/// The kernel, as it is written.
struct Core<'a> {
    w: &'a Window,
    plan: Plan<'a>,
    reduction: Reduction,
    x: Input,
    weights: Option<Buffer>,
    output: Output,
    strip: Strip,
}

impl Core<'_> {
    /// Reads the weights of a channel, by tap, if there are any.
    fn load_weights(&self, k: &mut Kernel, channel: &Expr) -> Vec<Expr> {
        let Some(weights) = &self.weights else { return Vec::new() };
        let channels = self.plan.channels() * if self.w.transposed { self.plan.multiplier } else { 1 };
        let taps = 0..self.w.kernel[0] * self.w.kernel[1];
        taps.map(|tap| k.let_(format!("w{tap}"), weights.at(channel + tap * channels))).collect()
    }

    /// Returns how many columns of the windows of a strip lie inside the image.
    fn columns_inside(&self, k: &mut Kernel) -> Vec<Expr> {
        let (w, columns) = (self.w, &self.plan.columns);
        let (n, origin) = match w.transposed {
            true => (columns.n_reads(), &self.strip.read[1]),
            false => (columns.size, &self.strip.result[1]),
        };
        let inside = |p: usize| pixels_inside(w, 1, &(origin + p * columns.phases));
        (0..n).map(|p| k.let_(format!("inside_w{p}"), inside(p))).collect()
    }

    /// Returns an average's part of a sum or pixel; so many rows and columns of the window lie inside the image.
    fn average(&self, sum: &Expr, [rows, columns]: [&Expr; 2]) -> Expr {
        let [kh, kw] = self.w.kernel;
        match self.reduction == (Reduction::Average { padding: true }) {
            true => sum * (1.0 / (kh * kw) as f32),
            false => sum * (Expr::from(1.0) / (rows * columns).max(1i32).f32()),
        }
    }

    /// Adds what a step reads of channel `j` of those that are read for one of the result.
    fn add(&self, k: &mut Kernel, j: &Expr, weights: &[Expr], columns_inside: &[Expr]) {
        let (w, plan, reduction) = (self.w, &self.plan, self.reduction);
        let [floats, ranks] = plan.vectors();
        let mut read = |i: usize| -> Vec<Expr> {
            let ReadRow { row, pixels } = plan.read(k, &self.x, &self.strip, i, j);
            let rows_inside = k.let_(format!("inside_h{i}"), pixels_inside(w, 0, &row));
            let value = |(p, (inside, value)): (usize, (Expr, Expr))| match reduction {
                Reduction::Max => inside.select(rank(value), ranks.splat(lowest())),
                Reduction::Average { .. } if w.transposed => {
                    inside.select(self.average(&value, [&rows_inside, &columns_inside[p]]), floats.splat(0.0))
                }
                _ => inside.select(value, floats.splat(0.0)),
            };
            let values: Vec<Expr> = pixels.into_iter().enumerate().map(value).collect();
            values.into_iter().enumerate().map(|(p, value)| k.let_(format!("x{i}_{p}"), value)).collect()
        };
        let read: Vec<Vec<Expr>> = (0..plan.rows.reads_per_step()).map(&mut read).collect();
        let (row_terms, terms) = (plan.rows.step_terms(), plan.columns.terms());
        // All products of one sum together: it stays in a register.
        for (e, row) in self.output.rows.iter().enumerate() {
            for (o, sum) in row.iter().enumerate() {
                for r in row_terms.iter().filter(|r| r.result == e) {
                    for s in terms.iter().filter(|s| s.result == o) {
                        let x = &read[r.read][s.read];
                        match reduction {
                            Reduction::Weighted => k.add(sum, x * &weights[r.tap * w.kernel[1] + s.tap]),
                            Reduction::Average { .. } => k.add(sum, x),
                            Reduction::Max => k.set(sum, sum.max(x)),
                            Reduction::L2 => k.add(sum, x * x),
                        }
                    }
                }
            }
        }
    }
}
