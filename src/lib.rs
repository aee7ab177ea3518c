#![deny(missing_docs)]
//! Convolutional networks on any GPU through wgpu.

pub mod graph;
pub mod kernels;
pub mod ops;
pub mod passes;
pub mod runtime;
pub mod tensor;

pub use wgpu;

/// Everything that can go wrong, one variant per boundary.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation cannot be built on its inputs.
    #[error(transparent)]
    Op(#[from] graph::OpError),
    /// A host tensor's elements do not fit its shape.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// The device or its driver.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
}

/// What most programs need.
pub mod prelude {
    pub use crate::graph::{Graph, Value};
    pub use crate::tensor::{Batch, DType, DType::F32, HostTensor, Shape};
}
