//! The order of a data set's samples in each epoch.

use super::state::Position;
use crate::data::{Dataset, shuffled};

/// A data set cut into batches, in an order that depends on seed and epoch alone.
pub(super) struct EpochOrder<'d> {
    pub data: &'d Dataset,
    pub batch: usize,
    pub seed: u64,
    pub shuffle: bool,
}

impl EpochOrder<'_> {
    /// Returns the rows of an epoch in their order.
    pub fn epoch(&self, epoch: usize) -> Vec<u32> {
        match self.shuffle {
            true => shuffled(self.seed, epoch as u32, self.data.len()),
            false => (0..self.data.len() as u32).collect(),
        }
    }

    /// Returns the part of an epoch's rows that the step at this position takes.
    pub fn batch_at<'o>(&self, order: &'o [u32], position: &Position) -> &'o [u32] {
        let rest = order.get(position.cursor..).unwrap_or_default();
        &rest[..self.batch.min(rest.len())]
    }
}
