//! Group normalisation of channels-last tensors and its gradient; layer normalisation is that of one group per row.

mod families;
mod op;

pub use families::{FAMILY, FAMILY_GRAD};
pub use op::{GroupNorm, GroupNormGrad};
