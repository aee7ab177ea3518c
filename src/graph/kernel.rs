use super::{Counts, Program, TensorType, Wgsl};
use crate::tensor::{Count, Shape};
use std::ops::Range;

/// The class of device that kernels are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceClass {
    /// A processor that runs shaders (lavapipe, SwiftShader, WARP): no barriers, wide register tiles.
    Cpu,
    /// A graphics processor.
    Gpu,
}

/// The capabilities of an adapter, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceProfile {
    /// Kind of device.
    pub class: DeviceClass,
    /// Maximum bytes of a storage binding.
    pub max_binding_bytes: u64,
    /// Maximum bytes of a buffer.
    pub max_buffer_bytes: u64,
    /// Maximum workgroups along one axis of a dispatch.
    pub max_groups: u32,
    /// Maximum invocations of a workgroup.
    pub max_invocations: u32,
    /// Maximum storage buffers that one kernel may bind.
    pub max_storage_buffers: u32,
    /// Alignment of a storage binding's offset in bytes.
    pub align_bytes: u64,
    /// Lanes of a subgroup if kernels may use subgroup operations and all have the same number, else 0.
    pub subgroup_lanes: u32,
    /// Whether kernels should read and write two floats as one 64-bit integer: if lanes are served one by one, a word
    /// costs the same whatever its size.
    pub u64_loads: bool,
    /// Whether 64 sums and their operands are too many for the registers of a lane, as on Intel's GPUs, whose compiler spills them.
    pub few_registers: bool,
    /// Iterations after which the driver ends the loops of an invocation, all loops taken together.
    pub max_iterations: u64,
    /// What runs workgroups side by side: streaming multiprocessors, compute units, Xe cores. Processors have 1.
    pub multiprocessors: u32,
    /// Bytes that memory moves in a cycle, for each multiprocessor: by it, products that compute run beside others that move memory.
    pub bytes_per_cycle: u32,
    /// The batch for which schedules are chosen. On processors every batch runs. For a GPU it is the largest: kernels need not be
    /// right beyond it, and a plan sets it to its capacity.
    pub batch: usize,
}

/// llvmpipe silently ends all loops of an invocation after this many iterations.
pub const MAX_SOFTWARE_ITERATIONS: u64 = 65_535;

/// The batch for which schedules are chosen where a plan's capacity does not say.
pub const NOMINAL_BATCH: usize = 64;

/// Multiprocessors of a discrete GPU that is not known by its name.
pub const DISCRETE_MULTIPROCESSORS: u32 = 64;

/// Bytes that memory moves in a cycle for each multiprocessor of a GPU that is not known by its name.
pub const BYTES_PER_CYCLE: u32 = 4;

impl DeviceProfile {
    /// Returns the limits that every WebGPU adapter has.
    pub fn portable(class: DeviceClass) -> Self {
        DeviceProfile {
            class,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            max_groups: 65_535,
            max_invocations: 256,
            max_storage_buffers: 8,
            align_bytes: 256,
            subgroup_lanes: 0,
            u64_loads: false,
            few_registers: false,
            max_iterations: if class == DeviceClass::Cpu { MAX_SOFTWARE_ITERATIONS } else { u64::MAX },
            multiprocessors: if class == DeviceClass::Cpu { 1 } else { DISCRETE_MULTIPROCESSORS },
            bytes_per_cycle: BYTES_PER_CYCLE,
            batch: NOMINAL_BATCH,
        }
    }

    /// Returns the profile whose schedules are chosen for plans of a capacity. On processors they are the same for all.
    pub fn for_batch(self, capacity: usize) -> Self {
        let batch = if self.class == DeviceClass::Gpu { capacity } else { self.batch };
        DeviceProfile { batch, ..self }
    }

    /// Returns whether the driver compiles long straight-line kernels in bounded memory: SwiftShader needs gigabytes
    /// for them.
    pub fn large_shaders(&self) -> bool {
        self.class == DeviceClass::Gpu || self.subgroup_lanes == 8
    }
}

/// The number of workgroups of a dispatch: the ceiling of a count over `per_group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Work items.
    pub items: Count,
    /// Items per workgroup.
    pub per_group: u32,
}

impl Grid {
    /// Returns a grid of one workgroup per `per_group` items.
    pub fn new(items: Count, per_group: u32) -> Self {
        Grid { items, per_group: per_group.max(1) }
    }

    /// Returns a grid of exactly `groups` workgroups.
    pub fn fixed(groups: u64) -> Self {
        Grid { items: Count { fixed: groups, per_sample: 0 }, per_group: 1 }
    }

    /// Returns the workgroups for a batch of `n`, folded into two axes of at most `max_groups`.
    ///
    /// A kernel finds its linear number as `id.x + id.y * counts.x` and must ignore numbers past the end.
    pub fn at(self, n: usize, max_groups: u32) -> [u32; 2] {
        let groups = self.items.at(n).div_ceil(u64::from(self.per_group)).max(1);
        let y = groups.div_ceil(u64::from(max_groups));
        [groups.div_ceil(y) as u32, y as u32]
    }
}

/// The maximum bytes that a kernel may read as one uniform buffer, which every WebGPU adapter supports.
pub const UNIFORM_BYTES: u64 = 65_536;

/// The alignment of ranges that a kernel binds, which all adapters allow.
pub const ALIGN_BYTES: u64 = 256;

/// What a kernel binds at one binding, after the step record at binding 0.
///
/// A range of more than one value asks the planner to lay those values out contiguously, each at
/// a multiple of 256 bytes, so that one binding covers them all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Inputs, read only.
    In(Range<usize>),
    /// Outputs, written.
    Out(Range<usize>),
    /// Outputs that overwrite inputs in place.
    InOut {
        /// The inputs overwritten.
        inputs: Range<usize>,
        /// The outputs that overwrite them.
        outputs: Range<usize>,
    },
    /// One input, read only as a uniform buffer of at most [`UNIFORM_BYTES`].
    ///
    /// The kernel declares it no larger than the tensor, or than `samples` samples of it. The latter asks for one
    /// launch for each chunk of `samples` samples; the input is then symbolic in the batch, and the bytes of a chunk
    /// are a multiple of 256.
    Uniform {
        /// The input.
        input: usize,
        /// Samples per launch, if not all.
        samples: Option<usize>,
    },
    /// The launch's [`Dispatch::extents`] as a uniform buffer.
    Extents,
    /// Scratch memory of this node: written by the node's first launch that binds it, read by those after.
    Scratch(usize),
}

impl Slot {
    /// Returns the slot of one input.
    pub fn input(i: usize) -> Slot {
        Slot::In(i..i + 1)
    }

    /// Returns the slot of one output.
    pub fn output(i: usize) -> Slot {
        Slot::Out(i..i + 1)
    }
}

/// The extent that is the index of the launch's chunk of samples, from 0.
pub const CHUNK_INDEX: &str = "chunk";

/// One kernel launch as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// Name of the kernel: its file in shaders/ or its generator.
    pub kernel: String,
    /// The whole WGSL, entry point `main`.
    pub source: Wgsl,
    /// Values of `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// What kernels of one text differ in: the members of the uniform buffer at [`Slot::Extents`], in order. Of
    /// [`CHUNK_INDEX`] the plan gives the value.
    pub extents: Vec<(String, u32)>,
    /// The number of workgroups.
    pub grid: Grid,
    /// What is bound at 1, 2, …
    pub slots: Vec<Slot>,
}

impl Dispatch {
    /// Returns the extents of the launch for a chunk of samples.
    pub fn extents_at(&self, chunk: usize) -> Vec<(String, u32)> {
        let value = |name: &str, value: u32| if name == CHUNK_INDEX { chunk as u32 } else { value };
        self.extents.iter().map(|(name, v)| (name.clone(), value(name, *v))).collect()
    }

    /// Returns the number of storage buffers that the launch binds.
    pub fn n_storage(&self) -> usize {
        self.slots.iter().filter(|s| !matches!(s, Slot::Uniform { .. } | Slot::Extents)).count()
    }
}

/// One way to run an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Name of the variant, for the tuner and the benches.
    pub variant: String,
    /// Launches in order.
    pub dispatches: Vec<Dispatch>,
    /// Bytes of each scratch buffer.
    pub scratch_bytes: Vec<Count>,
    /// What its launches do for a batch of 64, where that is estimated.
    pub counts: Option<Counts>,
    /// The estimated cycles of a GPU's multiprocessors for its first launch, at the profile's batch.
    pub cycles: Option<f64>,
    /// What it is chosen by, where that is an estimate, the least first: nanoseconds at a batch of 64 on a processor, cycles of all launches
    /// at the profile's batch on a GPU.
    pub score: Option<f64>,
    /// The parts of column sums that it leaves, where an epilogue asked for them.
    pub parts: Option<ColumnParts>,
    /// Whether it applies the programs that an epilogue asks for to what it loads.
    pub prologues: bool,
}

impl Candidate {
    /// Returns a candidate with one launch and no scratch.
    pub fn single(variant: impl Into<String>, dispatch: Dispatch) -> Self {
        Candidate::new(variant, vec![dispatch], Vec::new())
    }

    /// Returns a candidate with so many bytes of each scratch buffer.
    pub fn new(variant: impl Into<String>, dispatches: Vec<Dispatch>, scratch_bytes: Vec<Count>) -> Self {
        Candidate {
            variant: variant.into(),
            dispatches,
            scratch_bytes,
            counts: None,
            cycles: None,
            score: None,
            parts: None,
            prologues: false,
        }
    }

    /// Returns the candidate with what its launches do.
    pub fn with_counts(self, counts: Counts) -> Self {
        Candidate { counts: Some(counts), ..self }
    }

    /// Returns the candidate with what it is chosen by.
    pub fn with_score(self, score: f64) -> Self {
        Candidate { score: Some(score), ..self }
    }

    /// Returns the candidate with the estimated cycles of its first launch.
    pub fn with_cycles(self, cycles: f64) -> Self {
        Candidate { cycles: Some(cycles), ..self }
    }
}

/// A way to run an operation that has no candidate on its operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// What would compute.
    pub core: String,
    /// Why it does not.
    pub why: String,
}

/// An elementwise program applied to a kernel's result as it is stored.
///
/// Input 0 of the program is the result; the others are the `extras`, broadcast to `shape`.
#[derive(Debug, Clone, PartialEq)]
pub struct Epilogue {
    /// The program.
    pub program: Program,
    /// Types of the program's inputs from 1 on.
    pub extras: Vec<TensorType>,
    /// Index of the first extra among the node's inputs.
    pub first_input: usize,
    /// For each extra, the kernel's own input that is the same value.
    pub repeats: Vec<Option<usize>>,
    /// For each extra how many pixels of the result, along height and width, are from one of its own to the next: between them it is 0.
    /// 1 where it has all pixels.
    pub steps: Vec<[usize; 2]>,
    /// Whether some pixels of the result are 0 by definition and the program keeps them so: it need not be applied to these.
    pub keeps_zero: bool,
    /// Shape of the result.
    pub shape: Shape,
    /// What the kernel is to add up of its result, if it can: its candidates say so by [`Candidate::parts`].
    pub sums: Option<SumKind>,
    /// What the kernel is to apply to what it loads, if it can: its candidates say so by [`Candidate::prologues`].
    pub prologues: Vec<Prologue>,
}

/// An elementwise program applied to what a kernel loads of one of its inputs.
///
/// Input 0 of the program is what is loaded; the others are the `extras`, broadcast to `shape`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prologue {
    /// The kernel's input.
    pub input: usize,
    /// The program.
    pub program: Program,
    /// Types of the program's inputs from 1 on.
    pub extras: Vec<TensorType>,
    /// Index of the first extra among the node's inputs.
    pub first_input: usize,
    /// Shape of the input.
    pub shape: Shape,
    /// The node's output that is what the program makes of the input, if the kernel is to store it.
    pub kept: Option<usize>,
}

/// What is added up over all rows, for each column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumKind {
    /// Mean, sum of squared deviations, and number of rows.
    Moments,
    /// Sum, and sum of the products with `x − mean`, two inputs: one like the summed value, one of a row.
    Products {
        /// Index of x among the inputs.
        x: usize,
        /// Index of the mean among the inputs.
        mean: usize,
    },
}

impl SumKind {
    /// Returns how many values a part has of each column.
    pub fn n_values(&self) -> usize {
        match self {
            SumKind::Moments => 3,
            SumKind::Products { .. } => 2,
        }
    }
}

/// The parts of column sums that a candidate's launches leave in its last scratch buffer: `[part, values, columns]` floats, with as many
/// values as [`SumKind::n_values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnParts {
    /// Rows of a stack.
    pub rows: Count,
    /// Rows of a part; the last part of a stack may have fewer.
    pub rows_per_part: u64,
    /// Stacks.
    pub stacks: u64,
}
