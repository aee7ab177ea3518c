//! Which tiles the core through workgroup memory has for a product: how they are cut, and how long they take.

use super::{
    gpu,
    layout::{ahead, depth, lanes, lanes_of_slice},
    product::{LONG_BATCH, Loop, Operand, Product, count_product},
};
use crate::{
    graph::{DeviceProfile, NOMINAL_BATCH},
    kernels::{self, Schedule, cost::SHARED},
    tensor::Count,
};

/// Chunks may be filled with zeros up to this much of their terms, before more loops become one.
const MAX_FILLED: f64 = 1.2;
/// Most schedules that are offered for a product.
const MAX_OFFERED: usize = 5;
/// The elements that a lane stages at most of a side whose elements have a place each.
const MAX_SCATTERED: usize = 8;
/// Tiles of fewer rows stage more for what they multiply: they are for results of at most so many rows, read as vectors.
const MIN_ROWS: usize = 16;
const FEW_ROWS: u64 = 64;
/// The sums of a lane that has few registers.
const MAX_FEW: usize = 32;

/// Returns a loop's number of iterations as a count, for any batch and any first value at most.
fn extent(l: &Loop) -> Count {
    l.to.div_ceil(l.step as u64)
}

pub(super) fn is_single(l: &Loop) -> bool {
    l.from.is_none() && extent(l) == Count { fixed: 1, per_sample: 0 }
}

/// Returns the first of the inner loops that are flattened into one range of K, which is cut into chunks; chosen so that chunks are nearly full.
/// A reduction that is cut into more parts than its outermost loop has iterations is cut anywhere: there all loops are one.
pub(super) fn first_inner(product: &Product, tile: Schedule) -> usize {
    // What is on its way into registers starts anew with each run.
    if ahead(tile) > 0 && has_whole_runs(product, tile) {
        return 0;
    }
    let (mut terms, cut) = (1, split_level(product));
    let most = if extent(&product.loops[cut]).at(NOMINAL_BATCH) < tile.split as u64 { cut } else { usize::MAX };
    for (level, l) in product.loops.iter().enumerate().rev() {
        terms *= extent(l).at(NOMINAL_BATCH);
        if (terms.next_multiple_of(depth(tile) as u64) as f64) <= terms as f64 * MAX_FILLED {
            return level.min(most);
        }
    }
    0
}

/// Returns whether each chunk of all loops' terms is of one run of the innermost one.
fn has_whole_runs(product: &Product, tile: Schedule) -> bool {
    let innermost = product.loops.last().map(extent).unwrap_or_default();
    let whole = innermost.per_sample == 0 && innermost.fixed.is_multiple_of(depth(tile) as u64);
    whole && product.loops.iter().all(|l| l.from.is_none())
}

/// Returns whether the inner loops fill their chunks, for any batch.
pub(super) fn fills_chunks(product: &Product, tile: Schedule) -> bool {
    let loops = &product.loops[first_inner(product, tile)..];
    let Count { fixed, per_sample } = all(loops.iter().map(extent));
    let whole = |n: u64| n.is_multiple_of(depth(tile) as u64);
    loops.iter().all(|l| l.from.is_none()) && whole(fixed) && whole(per_sample)
}

/// Returns the loop that is cut where the reduction is.
pub(super) fn split_level(product: &Product) -> usize {
    product.loops.iter().position(|l| !is_single(l)).unwrap_or(product.loops.len() - 1)
}

fn all(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count { fixed: 1, per_sample: 0 }, count_product)
}

/// Returns the iterations of the loops of one invocation, where nothing is cut.
fn iterations(product: &Product, tile: Schedule) -> Count {
    let inner = first_inner(product, tile);
    let chunks = all(product.loops[inner..].iter().map(extent)).div_ceil(depth(tile) as u64);
    let mut level = Count { fixed: 1, per_sample: 0 };
    let levels = product.loops[..inner].iter().map(extent).chain([chunks]);
    levels.fold(Count::default(), |sum, l| {
        let outer = level;
        level = count_product(outer, l);
        // A loop costs an iteration more than it has, each time.
        let fixed = sum.fixed + outer.fixed + level.fixed;
        Count { fixed, per_sample: sum.per_sample + outer.per_sample + level.per_sample }
    })
}

/// Returns the schedules that take the least time on a graphics processor, with their cycles, the fastest first; of those that split
/// the reduction only with `split`.
pub(super) fn schedules(product: &Product, split: bool, profile: &DeviceProfile) -> Vec<(f64, Schedule)> {
    // Column sums are taken of columns that lie along the lanes.
    if product.sums && product.columns.along_terms {
        return Vec::new();
    }
    let tiles = SHARED.iter().map(|&([m, n, k, slices], _)| Schedule {
        k,
        slices,
        smem: [true; 2],
        ..Schedule::new(kernels::Core::Shared, [m, n])
    });
    // Each of these elements has a place of its own.
    let scattered = |tile: &Schedule, side: &Operand, size: usize| {
        if side.along_terms && side.run < 4 { size * depth(*tile) / lanes(*tile) } else { 0 }
    };
    let fits = |tile: &Schedule| {
        let sums = tile.m * tile.n / lanes_of_slice(*tile);
        let scattered = [(&product.rows, tile.m), (&product.columns, tile.n)].map(|(s, n)| scattered(tile, s, n));
        let low = tile.m < MIN_ROWS && !(product.rows.extent.at(profile.batch) <= FEW_ROWS && product.is_of_vectors());
        (!profile.few_registers || sums <= MAX_FEW) && scattered.into_iter().all(|n| n <= MAX_SCATTERED) && !low
    };
    let most = if split { f64::INFINITY } else { 1.0 };
    let mut ways: Vec<(f64, Schedule)> = (tiles.filter(fits))
        .map(|tile| {
            let (cycles, tile) = gpu::with_splits(product, tile, (lanes(tile), most), profile);
            let long = iterations(product, tile).at(LONG_BATCH).div_ceil(profile.max_iterations) as usize;
            (cycles, Schedule { split: if product.whole { tile.split.max(long) } else { 1 }, ..tile })
        })
        .collect();
    ways.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    ways.truncate(MAX_OFFERED);
    ways
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Core;
    use crate::kernels::gemm::layout::{per, pitch};

    #[test]
    fn tiles_fit_into_portable_limits_and_share_their_staging_evenly() {
        for ([m, n, k, slices], _) in SHARED {
            let tile = Schedule { k, slices, ..Schedule::new(Core::Shared, [m, n]) };
            let k = depth(tile);
            let (lanes, vectors) = (lanes(tile), [m / 4, n / 4]);
            assert!((64..=256).contains(&lanes), "{tile}");
            let staged = |v: usize| (k * (v + 1)).max(4 * v * pitch(tile));
            assert!((staged(vectors[0]) + staged(vectors[1])) * 16 + 4 * lanes <= 16_384, "{tile}");
            let joined = slices / 2 * lanes_of_slice(tile) * 2 * per(tile)[0] * per(tile)[1];
            for v in vectors {
                let even = (v * k).is_multiple_of(lanes) && lanes.is_multiple_of(v);
                assert!(even && lanes.is_multiple_of(k), "{tile}");
                assert!(k * (v + 1) >= lanes, "{tile}: column sums need a vector of each lane");
                assert!(k * (v + 1) >= joined, "{tile}: half of the slices leave half of their sums here");
            }
        }
    }
}
