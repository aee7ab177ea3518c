//! Kernels of recurrent cells: one launch runs all timesteps, forward or back.
//!
//! A workgroup has blocks of lanes; a block has some samples and a lane for each unit (or every so many units). Hidden
//! states, and on the way back the gradients to the gates, lie in workgroup memory as vectors over the block's samples,
//! so that one number of the recurrent kernel serves them all. Timesteps are iterations of a loop.

mod backward;
mod cell;
mod core;
mod forward;

pub use backward::backward;
pub use cell::{Cell, CellActivation, CellKind};
pub use core::{Extents, MAX_UNITS};
pub use forward::forward;
