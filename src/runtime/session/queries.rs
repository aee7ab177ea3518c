use crate::runtime::gpu::DeviceBuffer;

/// Queries for the timestamps of launches.
pub(super) struct Queries {
    pub set: wgpu::QuerySet,
    pub resolved: DeviceBuffer,
}
