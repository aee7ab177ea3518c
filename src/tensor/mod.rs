//! Tensors on the host: shapes, element types, random numbers, comparison. Depends on nothing else here.
//!
//! - [`Shape`]: extents with a symbolic batch in front ([`struct@Batch`]); a [`Count`] is a number with a fixed part and a part per
//!   sample, to be evaluated for any batch.
//! - [`HostTensor`]: elements of a [`DType`] in row-major order, as files and devices hold them.
//! - [`Array`]: the same in `f64`, which references are evaluated on.
//! - [`Accuracy`] and [`compare`]: the allowed error of a result, and its worst element.
//! - [`Philox`]: random numbers as a function of seed, purpose and counter, the same here and in WGSL.
//!
//! Invariants: a `HostTensor` has as many elements as its shape. The batch is the outermost axis or absent.

mod accuracy;
mod array;
mod dtype;
mod fnv;
mod host;
mod philox;
mod shape;

pub use accuracy::{Accuracy, Mismatch, UNIT, compare, ulp};
pub(crate) use accuracy::{maximum, rank};
pub use array::Array;
pub use dtype::DType;
pub(crate) use fnv::Fnv;
pub(crate) use host::gather;
pub use host::{Data, HostTensor, TensorError};
pub use philox::{Philox, Purpose, philox_key, philox4x32, stream_id, unit_f32};
pub use shape::{Batch, Count, Shape, strides};
