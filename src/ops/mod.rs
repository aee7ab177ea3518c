//! The operations: one file or folder per operation, one line each in `families!`.
//!
//! Unstable but for what [`Graph`](crate::graph::Graph)'s methods take: the operations.
//!
//! An operation is a struct of its attributes that implements [`Op`](crate::graph::Op). It states once what everything
//! else follows from: the types of its results (`infer`), its definition in f64 (`reference`), its gradient as graph nodes
//! (`vjp`), the kernels that compute it (`lower`) and how exact they are (`accuracy`). A method of
//! [`Graph`](crate::graph::Graph) in the same file builds it. Its [`Family`] states random samples, benches, constructions
//! that must be refused and faults of the kernels that no test can notice.
//!
//! What comes in: types of inputs, f64 arrays for the definition, a device profile for kernels. What goes out: types,
//! arrays, and kernels as data, of which the planner takes the first that fits the device. No operation knows a device,
//! a buffer or another operation's kernels.
//!
//! Invariants:
//! - The batch is the outermost axis. A kernel is built for any batch up to the capacity and reads the batch as `step.n`.
//! - NaN in an input is NaN in the result, by bits (`shaders/shared/common.wgsl`); infinity gives what the formula gives.
//! - Every loop ends by what is known before the launch, since some drivers end long loops: nobody states its iterations.
//! - Errors are [`OpError`](crate::graph::OpError): what was wanted, what came, what to do.
//!
//! Start with `reshape.rs` (no kernel), `transpose.rs` (one kernel), then `pool2d/` (one description for three reductions,
//! a gradient, fast kernels from [`kernels`](crate::kernels)).
//!
//! ```
//! let names: Vec<&str> = hubel::ops::FAMILIES.iter().map(|family| family.name).collect();
//! assert!(names.contains(&"conv2d") && names.contains(&"lp_pool2d"));
//! ```

mod arity;
mod window;

pub use window::Padding;

use crate::graph::Family;

/// Declares the files of the operations and lists their families: `file::{names for users} [families]`.
macro_rules! families {
    ($($file:ident $(::{$($name:ident),*})? [$($family:ident),*],)*) => {
        $(mod $file; $(pub use $file::{$($name),*};)?)*

        /// Every operation family of the crate.
        pub static FAMILIES: &[&Family] = &[$($(&$file::$family),*),*];
    };
}

families! {
    accumulate::{Accumulate} [FAMILY],
    accuracy::{CategoricalAccuracy} [FAMILY],
    affine2d::{Affine2d, FillMode} [FAMILY],
    argmax::{Argmax} [FAMILY],
    batch_norm::{BatchNorm, BatchNormGrad, BatchNormStatistics, BatchNormSums} [FAMILY, FAMILY_GRAD, FAMILY_STATISTICS, FAMILY_SUMS],
    cast::{Cast} [FAMILY],
    concat::{Concat} [FAMILY],
    conv2d::{Conv2d, Conv2dOptions, Geometry} [FAMILY],
    conv2d_grad::{Conv2dGradInput, Conv2dGradWeight} [INPUT_FAMILY, WEIGHT_FAMILY],
    conv2d_transpose [FAMILY],
    dropout::{Dropout} [FAMILY],
    elementwise::{Elementwise, TABLE, elementary, sample_of} [FAMILY],
    gather::{Gather, GatherGrad} [FAMILY],
    group_norm::{GroupNorm, GroupNormGrad} [FAMILY, FAMILY_GRAD],
    literal::{Literal} [FAMILY],
    local_response_norm::{LocalResponseNorm, LocalResponseNormGrad} [FAMILY, FAMILY_GRAD],
    matmul::{Matmul, MatmulOptions} [FAMILY],
    non_max_suppression::{NonMaxSuppression} [FAMILY],
    optimizer::{Optimizer, Rule} [ADAGRAD, ADAM, MOVING_AVERAGE, NADAM, RMSPROP, SGD],
    pad2d::{Pad2d, Pad2dGrad, PadMode} [FAMILY, FAMILY_GRAD],
    pool2d::{Pool2d, Pool2dGrad, Pool2dOptions, Pooling} [AVERAGE, AVERAGE_GRAD, L2, L2_GRAD, MAX, MAX_GRAD],
    random::{Draw, Random} [FAMILY],
    recurrent::{Cell, CellActivation, CellKind, Recurrent, RecurrentGrad} [GRU, GRU_GRAD, LSTM, LSTM_GRAD, SIMPLE, SIMPLE_GRAD],
    reduce::{Reduce, ReduceKind} [FAMILY],
    reshape::{Reshape} [FAMILY],
    resize2d::{Interpolation, Resize2d, Resize2dGrad} [FAMILY, FAMILY_GRAD],
    slice::{Part, Slice, SliceGrad} [FAMILY, FAMILY_GRAD],
    softmax::{Softmax} [FAMILY],
    softmax_cross_entropy::{SoftmaxCrossEntropy} [FAMILY],
    top_k::{TopK, TopKGrad} [FAMILY, FAMILY_GRAD],
    transpose::{Transpose} [FAMILY],
}
