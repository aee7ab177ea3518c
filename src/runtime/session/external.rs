//! The caller's buffers for a plan's external inputs and outputs.

use crate::passes::{BufferRef, Plan, PlannedDispatch, Port};

/// A buffer of the caller for one of a plan's external inputs or outputs.
#[derive(Debug, Clone, Copy)]
pub struct External<'a> {
    /// The buffer, with usage `STORAGE`.
    pub buffer: &'a wgpu::Buffer,
    /// The tensor's offset in bytes, a multiple of the device's storage offset alignment.
    pub offset: u64,
}

impl<'a> From<&'a wgpu::Buffer> for External<'a> {
    fn from(buffer: &'a wgpu::Buffer) -> Self {
        External { buffer, offset: 0 }
    }
}

pub(super) struct ExternalSet {
    pub buffers: Vec<(wgpu::Buffer, u64)>,
    /// One per dispatch, `None` if it binds none of them.
    pub groups: Vec<Option<wgpu::BindGroup>>,
}

pub(super) fn is_external(port: &Port) -> bool {
    matches!(port.range.buffer, BufferRef::External(_))
}

pub(super) fn touches_external(dispatch: &PlannedDispatch) -> bool {
    dispatch.bindings.iter().any(|b| matches!(b.range.buffer, BufferRef::External(_)))
}

pub(super) fn n_externals(plan: &Plan) -> usize {
    let ports = plan.inputs.iter().chain(&plan.outputs);
    ports
        .filter_map(|p| if let BufferRef::External(i) = p.range.buffer { Some(i + 1) } else { None })
        .max()
        .unwrap_or(0)
}
