//! How long a product takes on a graphics processor: an estimate, by which its core, tile and split-K are chosen.
//!
//! A multiprocessor issues the multiply-adds of its workgroups in turn. A workgroup waits in each step, a chunk of terms or an
//! iteration of the innermost loop, for what it loads; those that reside on the multiprocessor beside it fill the wait, and so do, in
//! workgroup memory, the products of the chunk before.

use super::layout::ahead;
use super::product::{Product, of_workgroup};
use crate::{
    graph::DeviceProfile,
    kernels::{Axis, Core, Schedule, cost::SHARED},
    tensor::Count,
};

/// Multiply-adds, and bytes of memory, of a multiprocessor in a cycle.
const MADDS: f64 = 128.0;
const BYTES: f64 = 10.0;
/// Cycles that a chunk waits for its loads, and for its barriers, and an iteration in registers for its loads.
const CHUNK_WAIT: f64 = 650.0;
const BARRIERS: f64 = 50.0;
const LOAD_WAIT: f64 = 250.0;
/// The share of its products that a workgroup takes longer, if no other fills the multiprocessor as it stages.
const ALONE: f64 = 0.15;
/// How much longer a launch may take that gives each multiprocessor a workgroup, than one that leaves some idle from start to end, if that
/// one takes more than so many cycles: its estimate is the less certain.
const FILLED: f64 = 1.15;
const SHORT: f64 = 8_000.0;
/// Cycles in which half of the slices of a workgroup leave their sums, and the others add them.
const JOIN: f64 = 150.0;
/// Cycles in which a workgroup starts and ends, and those that a second launch must save: its gap, and the time of the host.
const GROUP: f64 = 1_500.0;
pub(super) const LAUNCH: f64 = 18_000.0;
/// Bytes that a part of a sum takes of the memory: it is written and read, beside launches that wait for memory too.
const PART: usize = 10;
/// Lanes that reside on a multiprocessor, if each has the registers of a tile.
const RESIDENT: usize = 768;
/// Cycles of a load or a store of 64 lanes, of neighbours in memory or each elsewhere.
const NEIGHBOURS: f64 = 2.0;
const SCATTERED: f64 = 64.0;

/// Cuts of a reduction, and terms of each part at least.
pub(super) const SPLITS: [usize; 36] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 32, 40, 48, 56, 64, 80, 96, 112,
    128, 160, 192, 256, 512,
];
const PART_TERMS: f64 = 128.0;

/// Returns the cycles that a schedule takes, all launches together.
pub(super) fn cycles(product: &Product, s: &Schedule, lanes: usize, profile: &DeviceProfile) -> f64 {
    let main = first_launch(product, s, lanes, profile);
    let idle = main > SHORT && groups(product, s, lanes, profile) < u64::from(profile.multiprocessors);
    main * if idle { FILLED } else { 1.0 } + if s.split > 1 { merge(product.elements(), s.split, profile) } else { 0.0 }
}

/// Returns the workgroups of a schedule's first launch.
fn groups(product: &Product, s: &Schedule, lanes: usize, profile: &DeviceProfile) -> u64 {
    let tile = if s.core == Core::Shared { [s.m, s.n] } else { of_workgroup(s, lanes) };
    product.tiles(tile, profile.batch) * s.split as u64
}

/// Returns the cycles of a schedule's first launch.
pub(super) fn first_launch(product: &Product, s: &Schedule, lanes: usize, profile: &DeviceProfile) -> f64 {
    let terms = product.terms(profile.batch);
    let sums = (s.m * s.n) as f64;
    let (issue, alone, once) = match s.core {
        Core::Shared => {
            let tile = [s.m, s.n, s.k, s.slices];
            let peak = SHARED.iter().find(|(shared, _)| *shared == tile).map_or(0.5, |(_, peak)| *peak);
            let issue = sums * (s.k * s.slices) as f64 / (MADDS * peak);
            let alone = BARRIERS
                + match ahead(*s) {
                    0 => issue + CHUNK_WAIT,
                    ahead => issue.max(CHUNK_WAIT / ahead as f64) + ALONE * issue,
                };
            (issue, alone, GROUP + JOIN * (s.slices as f64).log2())
        }
        _ => {
            let along = s.lanes == Some(Axis::M);
            let (side, indices, others) = if along { (&product.rows, s.m, s.n) } else { (&product.columns, s.n, s.m) };
            let load = if side.along_terms { SCATTERED } else { NEIGHBOURS };
            let loads = indices as f64 * load + others as f64 * NEIGHBOURS;
            let store = if along { SCATTERED } else { NEIGHBOURS };
            let issue = s.k as f64 * (sums * lanes as f64 / MADDS + loads);
            (issue, issue + LOAD_WAIT, GROUP + sums * store)
        }
    };
    let steps = (terms / (s.k * s.slices * s.split) as f64).ceil() * product.share();
    let groups = groups(product, s, lanes, profile) as f64;
    let units = f64::from(profile.multiprocessors.max(1));
    let each = (groups / units).ceil();
    let rounds = (each / (RESIDENT / lanes).max(1) as f64).ceil();
    rounds * once + steps * (each * issue).max(rounds * alone)
}

/// Returns the cycles in which the parts of a reduction are written, read and added.
fn merge(elements: Count, splits: usize, profile: &DeviceProfile) -> f64 {
    let bytes = elements.at(profile.batch) as f64 * (PART * splits) as f64;
    LAUNCH + bytes / (BYTES * f64::from(profile.multiprocessors.max(1)))
}

/// Returns the schedule with the split-K, of at most `most` parts, that takes the least time, and its cycles.
pub(super) fn with_splits(
    product: &Product,
    s: Schedule,
    (lanes, most): (usize, f64),
    profile: &DeviceProfile,
) -> (f64, Schedule) {
    let most = if product.whole { most.min(product.terms(profile.batch) / PART_TERMS) } else { 1.0 };
    let ways = SPLITS.iter().filter(|&&split| split == 1 || split as f64 <= most);
    let ways = ways.map(|&split| Schedule { split, ..s }).map(|s| (cycles(product, &s, lanes, profile), s));
    ways.min_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap_or((f64::INFINITY, s))
}
