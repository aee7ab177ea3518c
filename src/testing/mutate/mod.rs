//! Faults derived from kernels: one statement of a kernel changed, which the operation's own samples must notice.
//!
//! [`mutants`] reads a kernel with naga and finds what can go wrong in it: every loop, index, guard, barrier, store and
//! operator of the kernel's own functions that `main` reaches. [`Noticed`] plants them, runs them on the host twin and
//! says which no sample notices.

mod find;
mod mutant;
mod notice;
mod text;

pub use find::mutants;
pub use mutant::{Change, Mutant};
pub use notice::{Noticed, Unnoticed};
