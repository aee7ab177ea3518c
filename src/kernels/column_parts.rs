//! Parts of the column sums of a kernel's result, which it leaves beside it for another launch to merge.

use super::language::{Buffer, Kernel, Layout};
use crate::graph::{Slot, SumKind};

/// Where a kernel leaves them, and x and its mean, where products with these are summed.
pub(in crate::kernels) struct PartSums {
    pub(in crate::kernels) to: Buffer,
    pub(in crate::kernels) centred: Option<[Buffer; 2]>,
}

impl PartSums {
    /// Binds them, behind what a kernel reads and its result.
    pub(in crate::kernels) fn bind(k: &mut Kernel, kind: SumKind, layout: Layout) -> Self {
        let centred = match kind {
            SumKind::Moments => None,
            SumKind::Products { x, mean } => {
                Some([k.bind("centred", layout, Slot::input(x)), k.bind("centre", layout, Slot::input(mean))])
            }
        };
        PartSums { to: k.bind_result("parts", layout, Slot::Scratch(0)), centred }
    }
}
