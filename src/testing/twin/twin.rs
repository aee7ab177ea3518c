//! A kernel on the host.

use super::{
    code::Code,
    error::TwinError,
    lower::lower,
    machine::{MAX_TURNS, Machine, Work},
    memory::Buffer,
};
use naga::{
    back::{PipelineConstants, pipeline_constants::process_overrides},
    valid::{Capabilities, ValidationFlags, Validator},
};
use std::ops::Range;

/// A kernel that runs on the host, workgroup by workgroup, and finds what it must not do.
///
/// ```
/// use hubel::testing::twin::{Buffer, FaultKind, Twin, TwinError};
/// let kernel = "override BY: u32;
///     @group(0) @binding(0) var<storage, read_write> y: array<u32>;
///     @compute @workgroup_size(4)
///     fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x + BY] = id.x; }";
/// let mut y = [Buffer::unwritten(32)];
/// Twin::new(kernel, &[("BY", 0.0)])?.run([2, 1], 0, &mut y)?;
/// assert_eq!(y[0].bytes()[4..8], [1, 0, 0, 0]);
/// let Err(TwinError::Fault(fault)) = Twin::new(kernel, &[("BY", 1.0)])?.run([2, 1], 0, &mut y) else { panic!() };
/// assert_eq!(fault.kind, FaultKind::Outside { index: 8, length: 8 });
/// assert_eq!((fault.variable.as_str(), fault.line, fault.group, fault.lane), ("y", 4, 1, 3));
/// # Ok::<(), TwinError>(())
/// ```
#[derive(Debug)]
pub struct Twin {
    code: Code,
    source: String,
}

impl Twin {
    /// Returns the twin of a kernel's entry point `main` with these values of its `override` constants.
    pub fn new(source: &str, constants: &[(&str, f64)]) -> Result<Self, TwinError> {
        let module = naga::front::wgsl::parse_str(source).map_err(|e| TwinError::Source(e.emit_to_string(source)))?;
        // Control flow is looked at as it runs.
        let flags = ValidationFlags::all() - ValidationFlags::CONTROL_FLOW_UNIFORMITY;
        let mut validator = Validator::new(flags, Capabilities::all());
        let info = validator.validate(&module).map_err(|e| TwinError::Source(e.emit_to_string(source)))?;
        let constants: PipelineConstants = constants.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let filled = process_overrides(&module, &info, None, &constants);
        let (module, info) = filled.map_err(|e| TwinError::Source(e.to_string()))?;
        Ok(Twin { code: lower(&module, &info, source)?, source: source.to_owned() })
    }

    /// Returns whether a place in the text belongs to a branch that constants decide against.
    pub(super) fn is_dead(&self, place: &Range<usize>) -> bool {
        self.code.dead.iter().any(|dead| dead.start <= place.start && place.end <= dead.end)
    }

    /// Runs workgroups over the memory of binding 0, 1, ….
    ///
    /// Subgroups have `subgroup_lanes` lanes; 0 stands for the lanes of a workgroup. What an earlier run wrote counts as
    /// written.
    pub fn run(&self, groups: [u32; 2], subgroup_lanes: u32, buffers: &mut [Buffer]) -> Result<Work, TwinError> {
        self.run_within(MAX_TURNS, groups, subgroup_lanes, buffers)
    }

    /// Does what [`Twin::run`] does, with loops said not to end after `max_turns` turns of an invocation.
    pub(super) fn run_within(
        &self,
        max_turns: u32,
        groups: [u32; 2],
        subgroup_lanes: u32,
        buffers: &mut [Buffer],
    ) -> Result<Work, TwinError> {
        let wrong = |binding, wanted, got| Err(TwinError::Binding { binding, wanted, got });
        for (binding, declared) in self.code.bindings.iter().enumerate() {
            let Some(declared) = declared else { continue };
            let Some(buffer) = buffers.get(binding) else { return wrong(binding, "a buffer".into(), "none".into()) };
            if buffer.len() < declared.bytes {
                let wanted = format!("at least {} bytes", declared.bytes);
                return wrong(binding, wanted, format!("{} bytes", buffer.len()));
            }
        }
        let machine = Machine::new(&self.code, buffers, subgroup_lanes);
        machine.run(groups, max_turns, &self.source).map_err(TwinError::Fault)
    }
}
