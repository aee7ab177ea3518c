//! Recurrent layers' cells over all timesteps: simple, LSTM and GRU, and their gradients through time.
//!
//! The input's product is taken outside, for all timesteps at once ([`Graph::project`](crate::graph::Graph::project)); a cell
//! adds its state's product in one launch. On the way back one launch gives the gradient to what was added; what that means
//! for the recurrent kernel are products over all timesteps.

mod families;
mod methods;
mod op;

pub use crate::kernels::recurrent::{Cell, CellActivation, CellKind};
pub use families::{GRU, GRU_GRAD, LSTM, LSTM_GRAD, SIMPLE, SIMPLE_GRAD};
pub use op::{Recurrent, RecurrentGrad};
