use crate::runtime::gpu::DeviceBuffer;

/// Room for the timestamps of launches.
pub(super) struct Queries {
    pub set: wgpu::QuerySet,
    pub resolved: DeviceBuffer,
}
