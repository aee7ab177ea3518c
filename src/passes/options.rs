use super::plan_types::Layout;
use crate::graph::DeviceProfile;

/// How a plan is made.
#[derive(Debug, Clone)]
pub struct PlanOptions<'a> {
    /// The largest batch.
    pub capacity: usize,
    /// What the adapter can do.
    pub profile: DeviceProfile,
    /// The layouts of states, in the order of the session's stores.
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
    /// If a plan would have more launches than this, operations cut into several launches change to a candidate with
    /// one, those with the most launches first.
    pub max_launches: usize,
}

impl PlanOptions<'_> {
    /// Returns the options with kernels for their capacity, which may have been changed since they were made.
    pub(super) fn of_capacity(&self) -> Self {
        PlanOptions { profile: self.profile.clone().for_batch(self.capacity), ..self.clone() }
    }

    /// Returns options for a batch of `capacity` on an adapter, with defaults otherwise.
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
