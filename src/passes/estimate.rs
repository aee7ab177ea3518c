//! How long a plan takes on a GPU that is not here: an estimate, by the data sheet of the GPU and what is known of each launch.
//!
//! A launch takes a gap, and then the longest of three times: its bytes at 80% of the memory's speed; the cycles that its product
//! is estimated at; the iterations of its longest invocation, each with a wait for memory, in as many rounds as its workgroups
//! need. Large launches are right to about a third, small ones to a factor of two; nothing is known of caches and compilers.

use super::plan_types::{Plan, PlannedDispatch};
use crate::{
    graph::{DeviceClass, DeviceProfile},
    kernels::{max_iterations, workgroup_size},
};

/// What a GPU's data sheet says.
///
/// ```
/// use hubel::passes::GpuSpec;
/// let spec = GpuSpec::find("h100").expect("it is known");
/// assert_eq!(spec.multiprocessors, 132);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuSpec {
    /// Name for the command line.
    pub name: &'static str,
    /// Streaming multiprocessors or compute units.
    pub multiprocessors: u32,
    /// Billions of cycles a second.
    pub gigahertz: f64,
    /// Billions of bytes a second from and to memory.
    pub gigabytes_per_second: f64,
    /// Invocations of one size that are always together, 0 where the size varies.
    pub subgroup_lanes: u32,
    /// Multiply-adds of a multiprocessor in a cycle, of 128.
    pub issue: f64,
}

/// The GPUs for which there are estimates. An RX 7900 XTX issues two multiply-adds at once where its compiler pairs them, here half
/// of the time.
const SPECS: [GpuSpec; 3] = [
    GpuSpec {
        name: "h100",
        multiprocessors: 132,
        gigahertz: 1.755,
        gigabytes_per_second: 3350.0,
        subgroup_lanes: 32,
        issue: 1.0,
    },
    GpuSpec {
        name: "rtx4060",
        multiprocessors: 24,
        gigahertz: 2.46,
        gigabytes_per_second: 272.0,
        subgroup_lanes: 32,
        issue: 1.0,
    },
    GpuSpec {
        name: "rx7900",
        multiprocessors: 96,
        gigahertz: 2.5,
        gigabytes_per_second: 960.0,
        subgroup_lanes: 0,
        issue: 0.75,
    },
];

/// Nanoseconds between two launches.
const GAP: f64 = 3_000.0;
/// The share of the memory's speed that a launch reaches.
const BANDWIDTH: f64 = 0.8;
/// Cycles of an iteration that waits for memory, of the start and end of a workgroup, and of an iteration's instructions for 128 lanes.
const WAIT: f64 = 500.0;
const GROUP: f64 = 800.0;
const ISSUE: f64 = 16.0;
/// Lanes that reside on a multiprocessor.
const RESIDENT: f64 = 1_536.0;

/// A multiprocessor of a GPU that is not known: billions of bytes and of cycles a second.
const MULTIPROCESSOR: [f64; 2] = [5.0, 1.5];
/// A processor: billions of operations and of bytes a second.
const CPU: [f64; 2] = [20.0, 4.0];

impl GpuSpec {
    /// Returns the GPU of this name.
    pub fn find(name: &str) -> Option<GpuSpec> {
        SPECS.into_iter().find(|spec| spec.name == name)
    }

    /// Returns the names of all GPUs.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SPECS.iter().map(|spec| spec.name)
    }

    /// Returns the profile for which plans are made, with the limits that current drivers have.
    pub fn profile(&self) -> DeviceProfile {
        DeviceProfile {
            max_binding_bytes: (4 << 30) - 4,
            max_buffer_bytes: 1 << 40,
            max_invocations: 1024,
            max_storage_buffers: 64,
            multiprocessors: self.multiprocessors,
            bytes_per_cycle: self.bytes_per_cycle(),
            subgroup_lanes: self.subgroup_lanes,
            ..DeviceProfile::portable(DeviceClass::Gpu)
        }
    }

    /// Returns the bytes that memory moves in a cycle for each multiprocessor.
    fn bytes_per_cycle(&self) -> u32 {
        let cycles = self.gigahertz * f64::from(self.multiprocessors);
        (BANDWIDTH * self.gigabytes_per_second / cycles).round() as u32
    }

    /// Returns the estimated nanoseconds of a launch at a plan's capacity.
    fn nanoseconds(&self, d: &PlannedDispatch, capacity: usize) -> f64 {
        let n = d.samples.len().min(capacity);
        let bytes = d.bytes_moved as f64 / (BANDWIDTH * self.gigabytes_per_second);
        // Workgroups of one fill what those of another leave.
        let [longest, all] = match d.launches() {
            [one] => [self.cycles(one, n)[0]; 2],
            many => many
                .iter()
                .map(|d| self.cycles(d, n))
                .fold([0.0, 0.0], |[longest, all], [alone, share]| [f64::max(longest, alone), all + share]),
        };
        GAP + bytes.max(longest.max(all) / self.gigahertz)
    }

    /// Returns the cycles of a launch, and those that it takes of the multiprocessors' where another one has the rest.
    fn cycles(&self, d: &PlannedDispatch, n: usize) -> [f64; 2] {
        if let Some(cycles) = d.cycles {
            return [cycles / self.issue; 2];
        }
        let dispatch = d.dispatch();
        let iterations = max_iterations(&dispatch, n, u32::MAX).unwrap_or(0) as f64;
        let lanes = f64::from(workgroup_size(&dispatch));
        let [x, y] = d.grid.at(n, u32::MAX);
        let time = |each: f64, rounds: f64| {
            let issue = each * lanes / 128.0 * ISSUE / self.issue;
            rounds * GROUP + (iterations + 1.0) * issue.max(rounds * WAIT)
        };
        let each = f64::from(x) * f64::from(y) / f64::from(self.multiprocessors);
        [time(each.ceil(), (each.ceil() * lanes / RESIDENT).ceil()), time(each, each * lanes / RESIDENT)]
    }
}

impl Plan {
    /// Returns the bytes that all launches read and write, if each value crosses memory once in each launch that it takes part in.
    pub fn bytes_moved(&self) -> u64 {
        self.dispatches.iter().map(|d| d.bytes_moved).sum()
    }

    /// Returns the estimated nanoseconds of each launch at the plan's capacity on a device of which only the profile is known: right to a
    /// factor of ten.
    pub fn estimate_on(&self, profile: &DeviceProfile) -> Vec<f64> {
        let nanoseconds = |d: &PlannedDispatch| {
            let (flops, bytes) = (d.flops as f64, d.bytes_moved as f64);
            match profile.class {
                DeviceClass::Cpu => flops / CPU[0] + bytes / CPU[1],
                DeviceClass::Gpu => {
                    let n = f64::from(profile.multiprocessors.max(1));
                    // Without an estimate of its cycles a kernel is taken to compute at a quarter of the peak.
                    let cycles = d.cycles.unwrap_or(flops / (256.0 * n) * 4.0);
                    GAP + (bytes / (MULTIPROCESSOR[0] * n)).max(cycles / MULTIPROCESSOR[1])
                }
            }
        };
        self.dispatches.iter().map(nanoseconds).collect()
    }

    /// Returns the estimated nanoseconds of each launch on a GPU, for which the plan has been made.
    pub fn estimate(&self, gpu: &GpuSpec) -> Vec<f64> {
        self.dispatches.iter().map(|d| gpu.nanoseconds(d, self.capacity)).collect()
    }
}
