//! Column sums of a strip, which a lane leaves beside its results.

use crate::{
    graph::{ColumnParts, SumKind},
    kernels::{
        column_parts::PartSums,
        language::{Buffer, Expr, Kernel, Type},
    },
    tensor::Count,
};

/// The vectors that a lane keeps at most for its sums, with what it computes them of.
pub(super) const KEPT: usize = 6;

/// The sums under way, of a vector of channels.
pub(super) struct StripSums {
    to: Buffer,
    kind: SumKind,
    /// Sums of the results, and of their squares or of their products with x; of moments all less the first result.
    sums: [Expr; 2],
    of: Of,
}

/// What else a kind of sums needs.
enum Of {
    /// The first result, and the number of results.
    Moments { first: Expr, count: Expr },
    /// Where x lies, and its mean.
    Products { x: Buffer, mean: Expr },
}

impl StripSums {
    /// Declares the sums of a vector of channels, the one of number `channel`.
    pub(super) fn new(k: &mut Kernel, (kind, to): (SumKind, PartSums), (ty, channel): (Type, &Expr)) -> Self {
        let zero = ty.splat(0.0);
        let sums = [k.var("sum0", zero.clone()), k.var("sum1", zero.clone())];
        let of = match to.centred {
            None => Of::Moments { first: k.var("first", zero), count: k.var("n_results", 0.0) },
            Some([x, mean]) => Of::Products { x, mean: k.let_("centre_of_x", mean.at(channel)) },
        };
        StripSums { to: to.to, kind, sums, of }
    }

    /// Adds a result, which is stored as vector `at`.
    pub(super) fn add(&self, k: &mut Kernel, value: &Expr, at: &Expr) {
        let name = format!("{at}_other");
        let terms = match &self.of {
            Of::Moments { first, count } => {
                k.set(first, count.equals(0.0).select(value, first));
                k.add(count, 1.0);
                let other = k.let_(name, value - first);
                [other.clone(), &other * &other]
            }
            Of::Products { x, mean } => {
                let other = k.let_(name, x.at(at) - mean);
                [value.clone(), value * &other]
            }
        };
        self.sums.iter().zip(terms).for_each(|(sum, term)| k.add(sum, term));
    }

    /// Leaves the sums as part `part`, of so many vectors of channels.
    pub(super) fn write(&self, k: &mut Kernel, part: &Expr, channels: usize, channel: &Expr) {
        let [plain, product] = &self.sums;
        let values = match &self.of {
            Of::Products { .. } => vec![plain.clone(), product.clone()],
            Of::Moments { first, count } => {
                let mean = k.let_("mean_of_strip", plain / plain.ty().splat(count.max(1.0)));
                let deviation = k.let_("deviation", product - plain * &mean);
                // Not max, which may lose NaN.
                let component = |i: usize| deviation.component(i).less(0.0).select(0.0, deviation.component(i));
                let deviation = Expr::vector((0..plain.ty().width).map(component).collect());
                vec![first + mean, deviation, plain.ty().splat(count)]
            }
        };
        let n = values.len();
        for (i, value) in values.into_iter().enumerate() {
            k.store(&self.to, (part * n + i) * channels + channel, value);
        }
    }

    /// Returns what is left of so many strips, and its bytes, of so many channels.
    pub(super) fn parts(&self, strips: Count, channels: usize) -> (ColumnParts, Count) {
        let bytes = strips.times((4 * channels * self.kind.n_values()) as u64);
        (ColumnParts { rows: strips, rows_per_part: 1, stacks: 1 }, bytes)
    }
}
