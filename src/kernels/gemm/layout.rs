//! How the tile of a workgroup lies on its lanes and in workgroup memory.

use crate::kernels::Schedule;

/// The sums of a lane and what is on its way to it, at most.
const MAX_IN_REGISTERS: usize = 40;

/// Returns the vectors of four rows and of four columns of each lane.
pub(super) fn per(tile: Schedule) -> [usize; 2] {
    [tile.m, tile.n].map(|n| (n / 64).max(1))
}

/// Returns the lanes of a workgroup.
pub(super) fn lanes(tile: Schedule) -> usize {
    lanes_of_slice(tile) * tile.slices
}

/// Returns the lanes that have the sums of a whole tile: each slice of a workgroup has those of its own terms.
pub(super) fn lanes_of_slice(tile: Schedule) -> usize {
    tile.m * tile.n / (16 * per(tile)[0] * per(tile)[1])
}

/// Returns the terms of a chunk, which the slices of a workgroup share.
pub(super) fn depth(tile: Schedule) -> usize {
    tile.k * tile.slices
}

/// Returns how many chunks are on their way into registers while one is multiplied: as many as a lane has registers for.
pub(super) fn ahead(tile: Schedule) -> usize {
    let sums = tile.m * tile.n / lanes_of_slice(tile);
    let staged = (tile.m + tile.n) * depth(tile) / lanes(tile);
    (MAX_IN_REGISTERS.saturating_sub(sums) / staged).min(2)
}

/// Returns how many vectors apart two indices are whose vectors are of terms: an odd number, which spreads them over the banks.
pub(super) fn pitch(tile: Schedule) -> usize {
    (depth(tile) / 4) | 1
}
