use super::plan_types::Layout;
use crate::graph::DeviceProfile;

/// How a plan is made.
#[derive(Debug, Clone)]
pub struct PlanOptions<'a> {
    /// The largest batch.
    pub capacity: usize,
    /// What the adapter can do.
    pub profile: DeviceProfile,
    /// Where states lie, in the order in which a session gets its stores.
    pub layouts: Vec<&'a Layout>,
    /// Names of inputs that the caller binds.
    pub external_inputs: Vec<String>,
    /// Names of outputs that the caller binds.
    pub external_outputs: Vec<String>,
    /// Whether nodes are simplified and fused.
    pub optimize: bool,
    /// Bytes of untouched memory around every tensor; nothing is reused then. For tests.
    pub guard_bytes: u64,
    /// Variant to take for an operation, by name, instead of its first.
    pub force: Option<(String, String)>,
    /// Where a plan would have more launches than this, operations that cut themselves into several take a way
    /// of one instead, those of most launches first.
    pub max_launches: usize,
}

impl PlanOptions<'_> {
    /// Returns options for a batch of `capacity` on an adapter, everything else as usual.
    pub fn new(capacity: usize, profile: DeviceProfile) -> Self {
        PlanOptions {
            capacity,
            profile,
            layouts: Vec::new(),
            external_inputs: Vec::new(),
            external_outputs: Vec::new(),
            optimize: true,
            guard_bytes: 0,
            force: None,
            max_launches: usize::MAX,
        }
    }
}
