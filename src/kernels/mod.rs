//! Kernels: WGSL text and launches as data, for operations to choose from.
//!
//! Unstable: kernels as WGSL and launches.
//!
//! What comes in: extents as plain numbers and [`Count`](crate::tensor::Count)s (a batch is a factor, never a number), a
//! [`DeviceProfile`](crate::graph::DeviceProfile), and the [`Epilogue`](crate::graph::Epilogue) that is applied to what is
//! stored. What goes out: [`Dispatch`](crate::graph::Dispatch)es and [`Candidate`](crate::graph::Candidate)s. Nothing here
//! knows an operation, a graph's nodes or a buffer.
//!
//! | file | what it makes |
//! |---|---|
//! | `wgsl.rs` | a launch of a file of `shaders`: what it shares with others, vectors, the epilogue |
//! | `language/` | the language that other kernels are written in |
//! | `reflect.rs` | what a text binds, read by naga |
//! | `join.rs` | several launches as one |
//! | `iterations/` | how many iterations a text's loops take |
//! | `cost.rs` | the cost model: what each thing that kernels do takes |
//! | `gemm/` | products and convolutions: operands as loaders, several tile cores, the fastest first |
//! | `schedule.rs` | how a kernel is cut, as data: what variants are called |
//! | `window/` | windows over each channel alone: depthwise convolution, pooling, their gradients |
//! | `recurrent/` | a recurrent cell over all timesteps |
//!
//! Invariants:
//! - Binding 0 is the step record; inputs, outputs and scratch follow in the order of a launch's slots.
//! - A text stores what it computes through `epilogue(value, index)`, so that any elementwise program can follow.
//! - Every edge is guarded: a launch has whole workgroups, and the batch may be smaller than the plan's.
//! - The order of a sum depends on extents alone, never on the batch or on threads.
//! - Every loop ends by what is known before the launch, so that `iterations/` can bound it.
//!
//! Start with [`dispatch`], then `shaders/avg_pool2d.wgsl` and the operation that launches it, `src/ops/pool2d/op.rs`.

mod column_parts;
mod cost;
pub mod gemm;
mod iterations;
mod join;
mod language;
pub mod recurrent;
mod reflect;
mod schedule;
mod wgsl;
mod window;

pub use cost::coefficients;
pub use iterations::{UnboundedLoop, max_iterations, workgroup_size};
pub use join::{Part, Whole, join};
pub use language::{
    Buffer, Divisor, Expr, Extent, Finish, Kernel, Layout, Neighbours, Scalar, Stored, Type, apply, count, link,
    loop_end, scalar,
};
pub use reflect::{Access, BindingInfo, ReflectError, reflect};
pub use schedule::{Axis, Core, Schedule, ScheduleError};
pub(crate) use wgsl::shader;
pub use wgsl::{Source, common, dispatch, width};
pub use window::{Reduction, max_pool_grad, reduce_window};
