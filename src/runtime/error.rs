use crate::kernels::ReflectError;
use std::fmt;

/// Errors of a device; each text says what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The system has no driver that can compute.
    #[error("no graphics adapter was found. {advice}")]
    NoAdapter {
        /// How to install a driver on this system.
        advice: String,
    },
    /// No adapter matches the request.
    #[error("no adapter matches {wanted}; the adapters are: {found}. Give the name or index of one of these")]
    AdapterNotFound {
        /// What was requested.
        wanted: String,
        /// The adapters.
        found: String,
    },
    /// The adapter provides no suitable device.
    #[error("the adapter {adapter} cannot be used: {message}. Choose another adapter or update its driver")]
    Device {
        /// The adapter's name.
        adapter: String,
        /// What the driver or a check says.
        message: String,
    },
    /// The device is gone: unplugged, reset by the system, destroyed by its owner.
    #[error("the device was lost: {reason}. Create a new Engine and continue from the last checkpoint")]
    DeviceLost {
        /// What the driver says.
        reason: String,
    },
    /// Memory is full.
    #[error("out of device memory: {what} needs {} and {} are left; use a smaller batch or model, or raise the memory budget",
        Bytes(*.bytes), Bytes(*.limit))]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// The bytes requested.
        bytes: u64,
        /// The bytes left in the budget, 0 if the driver refused.
        limit: u64,
    },
    /// Something exceeds a buffer or binding limit of this adapter.
    #[error("{what} needs {}, more than this adapter's {which} of {}; use a smaller batch or model, or another adapter",
        Bytes(*.bytes), Bytes(*.limit))]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// The name of the limit.
        which: &'static str,
    },
    /// The device did not finish in time, counted while Hubel waits: see [`super::EngineBuilder::timeout`].
    #[error(
        "{label} did not finish within {seconds} s of waiting; the device may hang: try a smaller batch, or allow a longer time"
    )]
    Timeout {
        /// What the call waited for.
        label: String,
        /// The timeout in seconds.
        seconds: f64,
    },
    /// wgpu refused a call.
    #[error("wgpu refused a call, which is a bug in Hubel or in an operation's kernel: {message}")]
    Validation {
        /// wgpu's message.
        message: String,
    },
    /// A tensor has the wrong shape or type.
    #[error("`{name}`: wanted {wanted}, got {got}")]
    Mismatch {
        /// The tensor's name.
        name: String,
        /// The expected type.
        wanted: String,
        /// The given type.
        got: String,
    },
    /// A name is unknown.
    #[error("no {kind} is called `{name}`; known: {known}")]
    UnknownName {
        /// The kind of thing that was looked up.
        kind: &'static str,
        /// The name.
        name: String,
        /// The known names.
        known: String,
    },
    /// A step was not given one of its inputs.
    #[error("the input `{name}` was not given; pass {wanted} with the step")]
    MissingInput {
        /// The input's name.
        name: String,
        /// Its type.
        wanted: String,
    },
    /// The batch does not fit the plan.
    #[error("a batch of {n} does not fit a plan for 1 to {capacity} samples; split it or plan for more")]
    Capacity {
        /// Samples requested.
        n: usize,
        /// Samples planned for.
        capacity: usize,
    },
    /// A plan does not fit its kernels or buffers.
    #[error("the plan cannot run: `{node}` ({kernel}): {message}")]
    Plan {
        /// The node.
        node: String,
        /// Its kernel.
        kernel: String,
        /// What is wrong.
        message: String,
    },
    /// A kernel is not valid WGSL.
    #[error(transparent)]
    Kernel(#[from] ReflectError),
    /// The engine or its adapter cannot do this.
    #[error("{what} is not available: {advice}")]
    Unsupported {
        /// What was requested.
        what: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
}

/// A size in bytes, displayed in a suitable unit.
pub(super) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB"];
        match (self.0.max(1).ilog2() / 10).min(3) {
            0 => write!(f, "{} B", self.0),
            k => write!(f, "{:.1} {}", self.0 as f64 / f64::from(1u32 << (10 * k)), units[k as usize - 1]),
        }
    }
}

/// Returns how to get a driver on this system.
pub(super) fn driver_advice() -> String {
    let advice = if cfg!(target_os = "windows") {
        "Install the graphics driver of your GPU's vendor; Windows includes WARP, a software adapter for DirectX 12"
    } else if cfg!(target_os = "macos") {
        "Metal needs macOS 10.13 or later, and virtual machines often have no adapter; update macOS"
    } else {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default().to_lowercase();
        let is = |names: &[&str]| {
            let mut ids = release.lines().filter(|l| l.starts_with("id=") || l.starts_with("id_like="));
            ids.any(|line| names.iter().any(|name| line.contains(name)))
        };
        if is(&["debian", "ubuntu"]) {
            "Install a Vulkan driver, which also runs without a GPU: sudo apt install mesa-vulkan-drivers"
        } else if is(&["fedora", "rhel", "centos"]) {
            "Install a Vulkan driver, which also runs without a GPU: sudo dnf install mesa-vulkan-drivers"
        } else if is(&["arch"]) {
            "Install a Vulkan driver, which also runs without a GPU: sudo pacman -S vulkan-swrast vulkan-icd-loader"
        } else {
            "Install a Vulkan driver and the Vulkan loader; Mesa's lavapipe also runs without a GPU"
        }
    };
    advice.to_owned()
}
