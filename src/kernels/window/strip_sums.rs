//! Column sums of a strip, which a lane leaves beside its results.

use crate::{
    graph::{ColumnParts, SumKind},
    kernels::{
        column_parts::PartSums,
        language::{Expr, Kernel, Type},
    },
    tensor::Count,
};

/// The vectors that a lane keeps at most for its sums, with what it computes them of.
pub(super) const KEPT: usize = 6;

/// The sums under way, of a vector of channels.
pub(super) struct StripSums {
    to: PartSums,
    /// Sums of the results, and of their squares or of their products with x; of moments all less the first result.
    sums: [Expr; 2],
    /// The first result and the number of results, where moments are summed; else the mean of x.
    first: Expr,
    count: Option<Expr>,
    kind: SumKind,
    width: usize,
}

impl StripSums {
    /// Declares the sums of a vector of channels, the one of number `channel`.
    pub(super) fn new(k: &mut Kernel, (kind, to): (SumKind, PartSums), (ty, channel): (Type, &Expr)) -> Self {
        let zero = ty.splat(0.0);
        let sums = [k.var("sum0", zero.clone()), k.var("sum1", zero.clone())];
        let (first, count) = match &to.centred {
            None => (k.var("first", zero), Some(k.var("n_results", 0.0))),
            Some([_, centre]) => (k.let_("centre_of_x", centre.at(channel)), None),
        };
        StripSums { to, sums, first, count, kind, width: ty.width }
    }

    /// Adds a result, which is stored as vector `at`.
    pub(super) fn add(&self, k: &mut Kernel, value: &Expr, at: &Expr) {
        let other = match (&self.to.centred, &self.count) {
            (Some([x, _]), _) => x.at(at) - &self.first,
            (None, Some(count)) => {
                k.set(&self.first, count.equals(0.0).select(value, &self.first));
                k.add(count, 1.0);
                value - &self.first
            }
            _ => return,
        };
        let other = k.let_(format!("{at}_other"), other);
        k.add(&self.sums[0], if self.count.is_some() { &other } else { value });
        k.add(&self.sums[1], if self.count.is_some() { &other * &other } else { value * &other });
    }

    /// Leaves the sums as part `part`, of so many vectors of channels.
    pub(super) fn write(&self, k: &mut Kernel, part: &Expr, channels: usize, channel: &Expr) {
        let [plain, product] = &self.sums;
        let values = match &self.count {
            None => vec![plain.clone(), product.clone()],
            Some(count) => {
                let mean = k.let_("mean_of_strip", plain / plain.ty().splat(count.max(1.0)));
                let deviation = k.let_("deviation", product - plain * &mean);
                // Not max, which may lose NaN.
                let component = |i: usize| deviation.component(i).less(0.0).select(0.0, deviation.component(i));
                let deviation = Expr::vector((0..self.width).map(component).collect());
                vec![&self.first + mean, deviation, plain.ty().splat(count)]
            }
        };
        let n = values.len();
        for (i, value) in values.into_iter().enumerate() {
            k.store(&self.to.to, (part * n + i) * channels + channel, value);
        }
    }

    /// Returns what is left of so many strips, and its bytes, of so many channels.
    pub(super) fn parts(&self, strips: Count, channels: usize) -> (ColumnParts, Count) {
        let bytes = strips.times((4 * channels * self.kind.n_values()) as u64);
        (ColumnParts { rows: strips, rows_per_part: 1, stacks: 1 }, bytes)
    }
}
