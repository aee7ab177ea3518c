use super::{
    Result, RuntimeError,
    error::{Bytes, driver_advice},
    gpu::{Gpu, GpuOptions},
    multiprocessors::{bytes_per_cycle, multiprocessors},
    pipeline::Pipelines,
};
use crate::graph::{DeviceClass, DeviceProfile};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};

/// A graphics API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Linux, Windows, Android.
    Vulkan,
    /// macOS, iOS.
    Metal,
    /// Windows.
    Dx12,
}

impl From<Backend> for wgpu::Backends {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Vulkan => wgpu::Backends::VULKAN,
            Backend::Metal => wgpu::Backends::METAL,
            Backend::Dx12 => wgpu::Backends::DX12,
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.to_lowercase().as_str() {
            "vulkan" | "vk" => Ok(Backend::Vulkan),
            "metal" | "mtl" => Ok(Backend::Metal),
            "dx12" | "d3d12" => Ok(Backend::Dx12),
            _ => Err(format!("no backend `{text}`; the backends are vulkan, metal and dx12")),
        }
    }
}

/// An adapter as the system reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Its number in [`Engine::adapters`].
    pub index: usize,
    /// Its name.
    pub name: String,
    /// vulkan, metal or dx12.
    pub backend: String,
    /// The driver with its version.
    pub driver: String,
    /// discrete GPU, integrated GPU, virtual GPU, CPU or other.
    pub kind: String,
    /// Whether the shaders run on the processor.
    pub software: bool,
    /// Minimum and maximum lanes of a subgroup, 0 without subgroup operations.
    pub subgroup_lanes: [u32; 2],
    /// Whether shaders can compute in 16-bit floats.
    pub f16: bool,
    /// Whether shaders can multiply small matrices cooperatively.
    pub cooperative_matrix: bool,
}

impl AdapterInfo {
    fn new(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, features) = (adapter.get_info(), adapter.features());
        let (kind, software) = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => ("discrete GPU", false),
            wgpu::DeviceType::IntegratedGpu => ("integrated GPU", false),
            wgpu::DeviceType::VirtualGpu => ("virtual GPU", false),
            wgpu::DeviceType::Cpu => ("CPU", true),
            wgpu::DeviceType::Other => ("other", false),
        };
        let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_owned();
        let backend = info.backend.to_string();
        let has = |feature| features.contains(feature);
        AdapterInfo {
            index,
            name: info.name,
            backend,
            driver,
            kind: kind.into(),
            software,
            subgroup_lanes: match has(wgpu::Features::SUBGROUP) {
                true => [info.subgroup_min_size, info.subgroup_max_size],
                false => [0, 0],
            },
            f16: has(wgpu::Features::SHADER_F16),
            cooperative_matrix: has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        }
    }
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AdapterInfo { index, name, backend, driver, kind, .. } = self;
        write!(f, "{index}: {name} ({kind}, {backend}, {driver})")
    }
}

/// The features and limits to request of a device, so that [`Engine::from_wgpu`] can use it fully.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Required {
    /// Features to ask for.
    pub features: wgpu::Features,
    /// Limits to ask for: the adapter's own.
    pub limits: wgpu::Limits,
}

/// What models run on: a device, or the reference evaluator without one. Cheap to clone.
///
/// ```no_run
/// use hubel::runtime::{Backend, Engine};
/// let engine = Engine::new()?;
/// let engine = Engine::builder().backend(Backend::Vulkan).adapter("RTX").build()?;
/// # Ok::<(), hubel::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    gpu: Option<Arc<Gpu>>,
    pipelines: Pipelines,
    profile: DeviceProfile,
    info: AdapterInfo,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.inner.info)
    }
}

/// Chooses an adapter; see [`Engine::builder`].
#[derive(Debug, Clone, Default)]
pub struct EngineBuilder {
    backend: Option<Backend>,
    adapter: Option<String>,
    pub(super) memory_budget: Option<u64>,
    pub(super) timeout: Option<Duration>,
    pub(super) checked: Option<bool>,
}

impl EngineBuilder {
    /// Uses only this backend. Without this, `WGPU_BACKEND` is honoured.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Uses the adapter with this index, or the first whose name contains the text, ignoring case. Without this,
    /// `WGPU_ADAPTER_NAME` is honoured, and else a GPU is preferred to a software adapter.
    pub fn adapter(mut self, name_or_index: impl Into<String>) -> Self {
        self.adapter = Some(name_or_index.into());
        self
    }

    /// Limits buffers to this many bytes in total; what would exceed it is refused before any work.
    ///
    /// A software adapter has a budget of three quarters of the memory that the system reports as
    /// available, since such drivers grant buffers that they cannot back.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = Some(bytes);
        self
    }

    /// Waits at most this long for the device (60 s without it).
    ///
    /// Only waiting for submitted steps counts, also on lavapipe and SwiftShader, which work on their own threads. A
    /// driver that computes or compiles inside the submit blocks the caller, which no timeout can end. Submitted work
    /// is not cancelled: it still runs when the error is returned.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Says whether kernels are checked as they run, so that a fault of theirs ends a loop or reads another element instead of what
    /// is not theirs. Without this, `HUBEL_CHECKED` is honoured, 1 or 0.
    ///
    /// Without both, GPUs run the kernels of the crate's operations unchecked, which is faster: each loop and each index is tested
    /// to end and to lie inside. Kernels of other crates, and those of plans that were changed by hand, are always checked. Software
    /// adapters check all: on them it costs no time that could be measured.
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = Some(checked);
        self
    }

    /// Returns the adapters that match these choices.
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        infos(&pollster::block_on(enumerate(self.backends())))
    }

    fn backends(&self) -> wgpu::Backends {
        self.backend.map(Into::into).or_else(wgpu::Backends::from_env).unwrap_or(ALL)
    }

    /// Returns an engine on the chosen adapter, or an error that lists the adapters.
    pub fn build(self) -> Result<Engine> {
        pollster::block_on(self.build_async())
    }

    /// Async form of [`EngineBuilder::build`].
    pub async fn build_async(self) -> Result<Engine> {
        let adapters = enumerate(self.backends()).await;
        let known = infos(&adapters);
        let named = |text: &str| {
            let lower = text.to_lowercase();
            let index = text.trim().parse::<usize>().ok().filter(|&i| i < known.len());
            index.or_else(|| known.iter().position(|a| a.name.to_lowercase().contains(&lower)))
        };
        let wanted = self.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok().filter(|t| !t.is_empty()));
        let rank = |info: &AdapterInfo| match info.kind.as_str() {
            "discrete GPU" => 0,
            "integrated GPU" => 1,
            "virtual GPU" => 2,
            "other" => 3,
            _ => 4,
        };
        let chosen = match &wanted {
            Some(text) => named(text),
            None => (0..known.len()).min_by_key(|&i| rank(&known[i])),
        };
        let Some(index) = chosen else {
            let backend = self.backend.map(|b| format!("backend {b:?}"));
            let env = std::env::var("WGPU_BACKEND").ok().map(|b| format!("WGPU_BACKEND={b}"));
            let wishes: Vec<String> = wanted.map(|w| format!("`{w}`")).into_iter().chain(backend.or(env)).collect();
            let found = if known.is_empty() { infos(&enumerate(ALL).await) } else { known };
            if wishes.is_empty() || found.is_empty() {
                return Err(RuntimeError::NoAdapter { advice: driver_advice() });
            }
            let found = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(RuntimeError::AdapterNotFound { wanted: wishes.join(" with "), found });
        };
        let (adapter, info) = (&adapters[index], known[index].clone());
        let required = Engine::required(adapter);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("hubel"),
            required_features: required.features,
            required_limits: required.limits,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|e| RuntimeError::Device { adapter: info.name.clone(), message: e.to_string() })?;
        let gpu = Gpu::new(device, queue, self.gpu_options(&info));
        gpu.install_handlers();
        Ok(Engine::with(gpu, info, &adapter.get_info()))
    }

    fn gpu_options(&self, info: &AdapterInfo) -> GpuOptions {
        GpuOptions {
            budget: self.memory_budget.or_else(|| host_budget().filter(|_| info.software)),
            timeout: self.timeout.unwrap_or(Duration::from_secs(60)),
            checked: self.checked.or_else(checked_by_env).unwrap_or(info.software),
        }
    }

    /// Returns an engine on the application's device with this budget and timeout, as [`Engine::from_wgpu`] does; the
    /// adapter is the application's choice.
    ///
    /// ```no_run
    /// # fn engine(adapter: &hubel::wgpu::Adapter, device: &hubel::wgpu::Device, queue: &hubel::wgpu::Queue) -> Result<(), hubel::Error> {
    /// use hubel::prelude::*;
    /// let engine = Engine::builder().memory_budget(64 << 20).build_on(adapter, device, queue)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_on(self, adapter: &wgpu::Adapter, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Engine> {
        let info = AdapterInfo::new(0, adapter);
        let limits = device.limits();
        if limits.max_storage_buffers_per_shader_stage < 8 || limits.max_compute_invocations_per_workgroup < 256 {
            let message = "the device was requested with fewer than 8 storage buffers or 256 invocations; \
                           request it with Engine::required";
            return Err(RuntimeError::Device { adapter: info.name, message: message.into() });
        }
        let gpu = Gpu::new(device.clone(), queue.clone(), self.gpu_options(&info));
        Ok(Engine::with(gpu, info, &adapter.get_info()))
    }
}

/// The number of a vendor of PCI devices.
const INTEL: u32 = 0x8086;

const ALL: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// Returns the adapters of these backends that can compute.
async fn enumerate(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let descriptor = wgpu::InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::from_env_or_default(),
        backend_options: wgpu::BackendOptions::from_env_or_default(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let mut adapters = wgpu::Instance::new(descriptor).enumerate_adapters(backends).await;
    adapters.retain(|a| {
        a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
            && a.limits().max_storage_buffers_per_shader_stage >= 8
    });
    adapters
}

fn infos(adapters: &[wgpu::Adapter]) -> Vec<AdapterInfo> {
    adapters.iter().enumerate().map(|(i, a)| AdapterInfo::new(i, a)).collect()
}

/// Returns what `HUBEL_CHECKED` says.
fn checked_by_env() -> Option<bool> {
    std::env::var("HUBEL_CHECKED").ok().filter(|text| !text.is_empty()).map(|text| text != "0")
}

/// Returns three quarters of the memory that the system reports as available, if it does.
pub(super) fn host_budget() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 768)
}

impl Engine {
    /// Returns an engine on the best adapter: a GPU, or else a software adapter.
    ///
    /// `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose one. Without any adapter the error says how to install a
    /// driver on this system; [`Engine::reference`] needs none.
    pub fn new() -> Result<Engine> {
        Engine::builder().build()
    }

    /// Async form of [`Engine::new`].
    pub async fn new_async() -> Result<Engine> {
        Engine::builder().build_async().await
    }

    /// Returns a builder, to choose the adapter, the memory budget and the timeout.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Returns the adapters of this system; `WGPU_BACKEND` is honoured.
    pub fn adapters() -> Vec<AdapterInfo> {
        Engine::builder().adapters()
    }

    /// Returns the engine without a device, which evaluates the reference of graphs on processor threads.
    pub fn reference() -> Engine {
        Engine::without_device(DeviceProfile::portable(DeviceClass::Cpu))
    }

    /// Returns [`Engine::reference`], whose plans are those of a device with this profile.
    pub fn without_device(profile: DeviceProfile) -> Engine {
        let info = AdapterInfo {
            index: 0,
            name: "reference evaluator".into(),
            backend: "none".into(),
            driver: "no driver".into(),
            kind: "CPU".into(),
            software: true,
            subgroup_lanes: [0, 0],
            f16: false,
            cooperative_matrix: false,
        };
        Engine { inner: Arc::new(Inner { gpu: None, pipelines: Pipelines::default(), profile, info }) }
    }

    /// Returns an engine on the same device whose plans are those of a device with this profile, for tests of the kernels of another
    /// class. The device's own limits must allow them.
    pub fn with_profile(&self, profile: DeviceProfile) -> Engine {
        let (gpu, info) = (self.inner.gpu.clone(), self.inner.info.clone());
        Engine { inner: Arc::new(Inner { gpu, pipelines: Pipelines::default(), profile, info }) }
    }

    /// Returns what an application should request its device with.
    pub fn required(adapter: &wgpu::Adapter) -> Required {
        let times = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        let wanted = times | wgpu::Features::SUBGROUP | wgpu::Features::SHADER_INT64;
        let features = adapter.features() & wanted;
        Required { features, limits: adapter.limits() }
    }

    /// Returns an engine on the application's device, or an error if the device cannot compute.
    ///
    /// Installs no handlers. A lost device is noticed by the next call that creates a buffer, waits or reads; after
    /// [`Engine::notify_lost`], by every call. [`EngineBuilder::build_on`] gives the engine a budget of memory and a
    /// timeout.
    pub fn from_wgpu(adapter: &wgpu::Adapter, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Engine> {
        Engine::builder().build_on(adapter, device, queue)
    }

    fn with(gpu: Gpu, info: AdapterInfo, adapter: &wgpu::AdapterInfo) -> Engine {
        if info.software {
            log::warn!("{} is a software adapter: shaders run on the processor", info.name);
        }
        let limits = &gpu.limits;
        let lanes = (adapter.subgroup_min_size, adapter.subgroup_max_size);
        let fixed = gpu.device.features().contains(wgpu::Features::SUBGROUP) && lanes.0 == lanes.1;
        let class = if info.software { DeviceClass::Cpu } else { DeviceClass::Gpu };
        let profile = DeviceProfile {
            class,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_groups: limits.max_compute_workgroups_per_dimension,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            align_bytes: u64::from(limits.min_storage_buffer_offset_alignment),
            subgroup_lanes: if fixed { lanes.0 } else { 0 },
            u64_loads: info.software && gpu.device.features().contains(wgpu::Features::SHADER_INT64),
            few_registers: class == DeviceClass::Gpu && adapter.vendor == INTEL,
            multiprocessors: multiprocessors(adapter),
            bytes_per_cycle: bytes_per_cycle(&adapter.name),
            ..DeviceProfile::portable(class)
        };
        log::debug!(
            "adapter {info}; binding {}, buffer {}, budget {}",
            Bytes(profile.max_binding_bytes),
            Bytes(profile.max_buffer_bytes),
            gpu.budget.map_or("none".to_owned(), |b| Bytes(b).to_string()),
        );
        Engine { inner: Arc::new(Inner { gpu: Some(Arc::new(gpu)), pipelines: Pipelines::default(), profile, info }) }
    }

    /// Returns the adapter.
    pub fn info(&self) -> &AdapterInfo {
        &self.inner.info
    }

    /// Returns what the device can do.
    pub fn profile(&self) -> &DeviceProfile {
        &self.inner.profile
    }

    /// Returns whether this is [`Engine::reference`].
    pub fn is_reference(&self) -> bool {
        self.inner.gpu.is_none()
    }

    /// Returns the device and its queue, `None` on the reference engine.
    pub fn wgpu(&self) -> Option<(&wgpu::Device, &wgpu::Queue)> {
        self.inner.gpu.as_ref().map(|gpu| (&gpu.device, &gpu.queue))
    }

    /// Returns the bytes of buffers that stores, arenas and sessions of this engine hold.
    pub fn allocated_bytes(&self) -> u64 {
        self.inner.gpu.as_ref().map_or(0, |gpu| gpu.used())
    }

    pub(super) fn pipelines(&self) -> &Pipelines {
        &self.inner.pipelines
    }

    /// Tells an engine on a borrowed device that the device was lost; every later call returns that error.
    pub fn notify_lost(&self) {
        if let Some(gpu) = &self.inner.gpu {
            gpu.failure.set(RuntimeError::DeviceLost { reason: "its owner reported it".into() });
        }
    }

    /// Returns the error that ended this engine, if one did.
    pub fn check(&self) -> Result<()> {
        self.inner.gpu.as_ref().map_or(Ok(()), |gpu| gpu.failure.check())
    }

    /// Refuses the buffer number `n` from now on, from 0, as a driver out of memory would.
    #[cfg(feature = "testing")]
    pub(crate) fn refuse_buffer(&self, n: Option<u64>) -> bool {
        let Some(gpu) = &self.inner.gpu else { return false };
        let before = std::mem::replace(&mut *gpu.refuses.lock().unwrap_or_else(std::sync::PoisonError::into_inner), n);
        before.is_some()
    }

    pub(super) fn gpu(&self) -> Option<&Arc<Gpu>> {
        self.inner.gpu.as_ref()
    }

    pub(super) fn is_same(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}
