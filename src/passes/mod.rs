//! From a graph to a [`Plan`]: gradients, rewriting, fusion, order, memory. Pure data, no device.
//!
//! Unstable: from a graph to a plan.
//!
//! **In**: a [`Graph`](crate::graph::Graph) and [`PlanOptions`]: the largest batch, what the adapter can do, where
//! states are ([`Layout`]), and which inputs and outputs are the caller's buffers.
//!
//! **Out**: a [`Plan`]: launches in order, each with its WGSL, its grid and the ranges of buffers that it binds,
//! which [`crate::runtime`] runs for any batch up to the largest. [`plan`] runs these passes:
//!
//! | file | from → to |
//! |---|---|
//! | `grad.rs` | a loss → the graph with its gradients, [`Graph::gradients`](crate::graph::Graph::gradients), before all others |
//! | `split.rs` | weights too large for one binding → several states ([`split_rows`]), before all others |
//! | `rewrite.rs` | patches that operations offer ([`Op::rewrite`](crate::graph::Op::rewrite)) are applied |
//! | `simplify.rs` | constants fold, repeated and idle nodes go ([`simplify`]) |
//! | `fuse.rs`, `absorb.rs` | elementwise chains → programs → epilogues and prologues, column sums ([`fuse`]); `fused.rs` is the result ([`Fused`]) |
//! | `schedule.rs` | a graph → an order of its nodes |
//! | `select.rs` | an operation's candidates → the kernels that run |
//! | `steps.rs` | launches → those that run as one |
//! | `alias.rs`, `fixed.rs`, `liveness.rs` | values → blocks of memory and how long each is needed |
//! | `arenas.rs` | blocks → offsets in arenas |
//! | `emit.rs` | all of it → the plan; `hash.rs` and `text.rs` say what it is, `estimate.rs` how long it may take |
//!
//! Invariants, which `verify.rs` checks after each pass in builds with debug assertions ([`verify_graph`], [`verify`]):
//! - a value is computed before it is read, and its memory holds it until its last reader has run;
//! - a node that overwrites an input runs after every other reader of it;
//! - no launch binds one buffer for reading and for writing, since wgpu tracks whole buffers;
//! - each range starts at a multiple of [`ALIGN_BYTES`](crate::graph::ALIGN_BYTES) and is inside its buffer; each slot of a kernel is bound;
//! - passes ask operations for their traits, never for their names, and change no result.
//!
//! Where to start: [`plan`] in `plan.rs`, which calls the passes in order, and `plan_types.rs`.

mod absorb;
mod alias;
mod arenas;
mod choices;
mod emit;
mod error;
mod estimate;
mod fixed;
mod fuse;
mod fused;
mod grad;
mod hash;
mod liveness;
mod options;
mod plan;
mod plan_types;
mod rewrite;
mod schedule;
mod scheduled;
mod select;
mod simplify;
mod split;
mod steps;
mod text;
mod verify;

pub use choices::{Choice, Considered, choices};
pub use error::PlanError;
pub use estimate::GpuSpec;
pub use fuse::fuse;
pub use fused::Fused;
pub use options::PlanOptions;
pub use plan::{optimize, plan, traced_plan};
pub use plan_types::{Binding, BufferRange, BufferRef, Entry, Layout, Plan, PlannedDispatch, Port, Trust};
pub use simplify::simplify;
pub use split::{Parts, split_rows};
pub use verify::{Content, Held, Trace, Traffic, Violation, verify, verify_graph};
