//! The host twin: kernels run on the host, lane by lane, for tests.
//!
//! A [`Twin`] takes WGSL and runs it workgroup by workgroup as naga reads it, all lanes of a workgroup in step. A
//! [`Fault`] names the variable, the line and the lane: an index outside its array, a read of workgroup memory, scratch
//! or output that nobody has written, two lanes of a workgroup that reach the same memory without a barrier between
//! them, two workgroups that do, a barrier or a subgroup operation that not all lanes reach. No order of lanes hides
//! one: who reached each word since the last barrier is kept. Lanes that write the same bits to the same place of a
//! buffer are no fault: at edges kernels repeat their last element in place of guards; [`Work`] counts them.
//!
//! A [`Trial`] runs the candidates of an operation's sample, all their launches, and compares the results with the
//! reference.
//!
//! Numbers are those of WGSL: 32-bit floats, each operation rounded once, and integers that wrap round. Kernels of
//! 16-bit floats, matrices, atomics and images are refused with [`TwinError::Unsupported`].

mod alu;
mod candidate;
mod code;
mod error;
mod expressions;
mod layout;
mod lower;
mod machine;
mod mask;
mod memory;
mod operators;
mod subgroup;
#[allow(clippy::module_inception, reason = "the folder is named after its main type")]
mod twin;

pub use candidate::{CandidateError, Checked, Trial};
pub use error::{Fault, FaultKind, TwinError};
pub use machine::Work;
pub use memory::Buffer;
pub use twin::Twin;
