//! Tensors on the host: shapes, element types, random numbers, comparison. Depends on nothing else here.

mod accuracy;
mod array;
mod dtype;
mod host;
mod philox;
mod shape;

pub use accuracy::{Accuracy, Mismatch, UNIT, compare, ulp};
pub(crate) use accuracy::{maximum, rank};
pub(crate) use array::gather;
pub use array::{Array, strides};
pub use dtype::DType;
pub use host::{Data, HostTensor, TensorError};
pub use philox::{Philox, Purpose, philox_key, philox4x32, stream_id, unit_f32};
pub use shape::{Batch, Count, Shape};
