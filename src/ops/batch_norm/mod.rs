//! Batch normalisation over all axes but the last.
//!
//! | file | what it is |
//! |---|---|
//! | `op.rs` | training with batch statistics, its gradient, and inference with given statistics |
//! | `statistics.rs` | the sums over rows alone, which the kernel that computes the input may begin |
//! | `rows.rs` | sums over rows, demands on inputs |
//! | `layout.rs` | how launches share rows and channels |
//! | `families.rs` | samples, benches, mistakes |

mod families;
mod layout;
mod op;
mod rows;
mod statistics;

pub use families::{FAMILY, FAMILY_GRAD, FAMILY_STATISTICS, FAMILY_SUMS};
pub use op::{BatchNorm, BatchNormGrad};
pub use statistics::{BatchNormStatistics, BatchNormSums};
