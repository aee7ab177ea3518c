use crate::{graph::TensorType, kernels::UnboundedLoop};

/// A graph cannot be planned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A tensor does not fit one binding.
    #[error(
        "{tensor} takes {bytes} bytes for {capacity} samples, but this adapter binds at most {limit}; use a smaller batch \
         or image"
    )]
    TooLarge {
        /// The node that computes it.
        tensor: String,
        /// The plan's batch.
        capacity: usize,
        /// Its size.
        bytes: u64,
        /// The adapter's limit.
        limit: u64,
    },
    /// A state of the graph is not in any store.
    #[error("state `{name}` ({ty}) is not in any store; add it to a layout")]
    UnknownState {
        /// The state's name.
        name: String,
        /// Its type.
        ty: TensorType,
    },
    /// An update does not overwrite its state.
    #[error("the update of `{name}` must come from an operation that overwrites it in place")]
    Update {
        /// The state's name.
        name: String,
    },
    /// Nodes overwrite values that others still need.
    #[error("a value is overwritten by two nodes, or before its last reader")]
    Overwritten,
    /// Values that share one binding are not contiguous in memory.
    #[error("node `{node}`: its operands are not contiguous in memory; keep them in layout order")]
    Group {
        /// The node.
        node: String,
    },
    /// An operation offers no kernel.
    #[error("node `{node}` ({op}) has no kernel for this adapter")]
    NoKernel {
        /// The node.
        node: String,
        /// The operation.
        op: String,
    },
    /// A loop is longer than the driver can run.
    #[error(
        "node `{node}` ({op}): its loops take {iterations} iterations for {capacity} samples, and this adapter's driver ends \
         them after {limit}; use a smaller batch or image"
    )]
    TooLong {
        /// The node.
        node: String,
        /// The operation.
        op: String,
        /// Loop iterations of one invocation.
        iterations: u64,
        /// The plan's batch.
        capacity: usize,
        /// The adapter's limit.
        limit: u64,
    },
    /// A loop may have any number of iterations, and the adapter's driver ends long ones.
    #[error("node `{node}` ({op}): {source}")]
    Unbounded {
        /// The node.
        node: String,
        /// The operation.
        op: String,
        /// The loop.
        source: UnboundedLoop,
    },
    /// A kernel binds more buffers than the adapter allows.
    #[error("node `{node}`: kernel {kernel} binds {got} storage buffers, the adapter allows {limit}")]
    Bindings {
        /// The node.
        node: String,
        /// The kernel.
        kernel: String,
        /// Buffers bound.
        got: usize,
        /// The adapter's limit.
        limit: usize,
    },
}
