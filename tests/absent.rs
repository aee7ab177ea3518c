//! What a compiler for GPUs makes of the kernels for GPUs, without one: Mesa's driver for AMD compiles for hardware that is not there.
//!
//! `tests/absent` writes the tables in benches/results and shows how they changed. With `HUBEL_DUMP` set to a folder, each kernel's WGSL
//! and machine code are written there.

#[path = "hubel/repository.rs"]
#[allow(dead_code, reason = "it is shared, and this test needs a part of it")]
mod repository;

use ash::{khr, vk};
use hubel::{
    graph::{DeviceClass, DeviceProfile, Family, Sample},
    kernels::{Access, Core, Schedule, reflect},
    losses::*,
    nn::models::{self, Options},
    ops::FAMILIES,
    optimizers::*,
    passes::{Plan, PlanOptions, PlannedDispatch, plan},
    prelude::*,
    testing::sample_graph,
};
use repository::{ROOT, is_generated};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    ffi::{CStr, OsString},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

/// The networks whose kernels are compiled, for training and inference, at each of these batches.
const NETWORKS: [&str; 7] = ["LeNet5", "ResNet50", "MobileNetV2", "EfficientNetB0", "VGG16", "DenseNet121", "UNet"];
const BATCHES: [usize; 2] = [1, 32];

/// Workgroups of a kernel have at least so many subgroups at work on each part of a multiprocessor.
const MIN_WAVES: u64 = 6;

/// A kernel, as a plan launches it, and as it goes to a driver.
struct Launched {
    dispatch: PlannedDispatch,
    words: Vec<u32>,
    bindings: Vec<Access>,
}

impl Launched {
    /// Returns the tile of a product in workgroup memory.
    fn product(&self) -> Option<Schedule> {
        let schedule: Option<Schedule> = self.dispatch.variant.parse().ok();
        // The second launches add up what products have left.
        let second = ["split_sum", "_merge", "_join"].iter().any(|name| self.dispatch.kernel.ends_with(name));
        // Of several launches in one, each is looked at alone too.
        schedule.filter(|s| s.core == Core::Shared && !second && self.dispatch.members.is_empty())
    }

    /// Returns the least share that multiply-adds have of the vector instructions of its loop.
    fn least_share(&self) -> f64 {
        // Where channels are no multiple of 4, each element of an image has a place of its own.
        let vectors = |binding: usize| {
            let line = self.dispatch.source.lines().find(|line| line.contains(&format!("@binding({binding}) ")));
            line.is_some_and(|line| line.contains("array<vec4<f32>>"))
        };
        let has_vectors = vectors(1) && vectors(2);
        let prologues =
            || self.dispatch.source.split("fn prologue").skip(1).filter_map(|text| text.split("\n}").next());
        let has_exponential = prologues().any(|function| function.contains("sigmoid_f32"));
        match (self.product(), self.dispatch.kernel.as_str()) {
            (None, _) => 0.0,
            // Of few tiles: they wait for memory, whatever they multiply.
            (Some(Schedule { slices: 2.., .. }), _) if !has_vectors || has_exponential => 0.54,
            (Some(Schedule { slices: 2.., .. }), _) => 0.63,
            (Some(Schedule { m: 128, n: 64 | 128, .. }), _) if !has_vectors => 0.85,
            _ if !has_vectors || has_exponential => 0.7,
            (Some(Schedule { m: 128, n: 64 | 128, .. }), "conv2d_grad_weight") => 0.85,
            (Some(Schedule { m: 128, n: 64 | 128, .. }), _) => 0.9,
            _ => 0.8,
        }
    }

    /// Returns what it is listed under: its name, core and tile.
    fn kind(&self) -> String {
        let PlannedDispatch { kernel, variant, .. } = &self.dispatch;
        let cut = |s: Schedule| Schedule { split: 1, ..s }.to_string();
        match kernel.as_str() {
            "split_sum" => kernel.clone(),
            _ if !self.dispatch.members.is_empty() => format!("{kernel}, as one"),
            _ => format!("{kernel} {}", variant.parse().map_or_else(|_| variant.clone(), cut)),
        }
    }
}

/// Returns what wgpu reports of AMD's GPUs.
fn profile() -> DeviceProfile {
    DeviceProfile {
        max_binding_bytes: (2 << 30) - 4,
        max_buffer_bytes: 4 << 30,
        max_invocations: 1024,
        max_storage_buffers: 64,
        ..DeviceProfile::portable(DeviceClass::Gpu)
    }
}

/// Returns the plans of a network.
fn plans_of(name: &str) -> Result<Vec<Plan>, hubel::Error> {
    let engine = Engine::without_device(profile());
    let application = models::find(name).unwrap_or_else(|| panic!("no {name}"));
    let model = (application.build)(&Options::default())?;
    let output = model.output_shape();
    let images = HostTensor::f32(model.input_shape().at(1), vec![0.5; model.input_shape().elements().at(1) as usize])?;
    let (trainer, labels) = match output.dims() {
        [_, _] => {
            let loss = SparseCategoricalCrossentropy::new();
            (model.compile(&engine, Compile::new(Adam::new(1e-3), loss))?, HostTensor::u32([1], vec![0])?)
        }
        _ => {
            let labels = HostTensor::f32(output.at(1), vec![0.5; output.elements().at(1) as usize])?;
            (model.compile(&engine, Compile::new(Adam::new(1e-3), MeanSquaredError))?, labels)
        }
    };
    let data = Dataset::new(images, labels)?;
    let mut plans = Vec::new();
    for batch in BATCHES {
        plans.push(trainer.plan_for(&data, batch)?);
        plans.push(model.inference(&engine, Batch::up_to(batch))?.plan()?);
    }
    Ok(plans)
}

/// Returns the plans of the benches of an operation.
fn plans_of_benches(family: &Family) -> Vec<Plan> {
    let of = |sample: Sample| {
        let (graph, ..) = sample_graph(&sample).expect("benches have graphs");
        plan(&graph, &PlanOptions::new(sample.capacity, profile())).expect("benches have plans")
    };
    (family.benches)().into_iter().map(|(_, sample)| of(sample)).collect()
}

/// Calls `work` for each item, on as many threads as there are processors.
fn each<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let (rest, done) = (Mutex::new(items), Mutex::new(Vec::new()));
    let next = || rest.lock().expect("no panic").pop();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some(item) = next() {
                    let result = work(item);
                    done.lock().expect("no panic").push(result);
                }
            });
        }
    });
    done.into_inner().expect("no panic")
}

/// Returns a launch, and, if it is several, each of them.
fn alone_and_as_one(launch: PlannedDispatch) -> Vec<PlannedDispatch> {
    launch.members.iter().cloned().chain([launch.clone()]).collect()
}

/// Returns the different kernels of all plans. Of schedules that share one, the first by name is listed.
fn kernels() -> Vec<Launched> {
    let networks = each(NETWORKS.to_vec(), |name| plans_of(name).unwrap_or_else(|e| panic!("{name}: {e}")));
    let benches = each(FAMILIES.to_vec(), plans_of_benches);
    let plans = networks.into_iter().chain(benches).flatten();
    let mut launches: Vec<PlannedDispatch> =
        plans.flat_map(|plan| plan.dispatches).flat_map(alone_and_as_one).collect();
    launches.sort_by(|a, b| (&a.kernel, &a.variant).cmp(&(&b.kernel, &b.variant)));
    let mut known = HashSet::new();
    launches.retain(|launch| known.insert(launch.pipeline_key()));
    each(launches, |dispatch| {
        let (words, bindings) = spirv(&dispatch).unwrap_or_else(|e| panic!("{}: {e}", dispatch.kernel));
        Launched { dispatch, words, bindings }
    })
}

/// A GPU that is not there: its driver compiles for it, and runs nothing.
struct Absent {
    family: &'static str,
    driver: String,
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
}

/// What the compiler says of a kernel.
struct Compiled {
    numbers: BTreeMap<String, u64>,
    /// The machine code, where the share of multiply-adds is asked for: the driver takes long to write it.
    machine: Option<String>,
}

/// How to get the driver.
const ADVICE: &str = "wanted Mesa's driver for AMD, of a version before 26, which compiles for GPUs that are not there; \
    install mesa-vulkan-drivers and libvulkan1 of Debian 12, 13 or Ubuntu 24.04";

impl Absent {
    /// Opens a device of a family of GPUs.
    fn open(family: &'static str) -> Result<Self, String> {
        let folders = ["/usr/share", "/usr/local/share", "/etc"].map(|folder| format!("{folder}/vulkan/icd.d"));
        let files = folders.iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path());
        let radeon =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("radeon_icd"));
        let driver = files.into_iter().find(radeon).ok_or("no radeon_icd*.json")?;
        // SAFETY: tests wait here for this one thread, and nothing else reads the environment meanwhile.
        unsafe {
            env::set_var("VK_DRIVER_FILES", driver);
            env::set_var("RADV_FORCE_FAMILY", family);
        }
        // SAFETY: what is passed lives until the calls return, and was asked of the driver where it must be.
        unsafe { Self::device(family) }.map_err(|e| e.to_string())
    }

    unsafe fn device(family: &'static str) -> Result<Self, Box<dyn std::error::Error>> {
        // SAFETY: as its caller says.
        unsafe {
            let entry = ash::Entry::load()?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None)?;
            let mut version = vk::PhysicalDeviceDriverProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut version);
            let physical = *instance.enumerate_physical_devices()?.first().ok_or("no device")?;
            instance.get_physical_device_properties2(physical, &mut properties);
            let name = properties.properties.device_name_as_c_str()?.to_string_lossy().into_owned();
            if !name.to_lowercase().contains(family) {
                return Err(format!("asked for {family}, the driver has {name}").into());
            }
            let driver = version.driver_info_as_c_str()?.to_string_lossy().into_owned();
            let mut info =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
            let core = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true).shader_int64(true);
            let features = vk::PhysicalDeviceFeatures2::default().features(core);
            let mut features = features.push_next(&mut info).push_next(&mut robust);
            let names = [khr::pipeline_executable_properties::NAME, ash::ext::robustness2::NAME].map(CStr::as_ptr);
            let queue = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let what = vk::DeviceCreateInfo::default().queue_create_infos(&queue).enabled_extension_names(&names);
            let device = instance.create_device(physical, &what.push_next(&mut features), None)?;
            Ok(Absent { family, driver, _entry: entry, instance, device })
        }
    }

    fn compile(&self, kernel: &Launched) -> Result<Compiled, Box<dyn std::error::Error>> {
        let with_machine = kernel.product().is_some() || dump_folder().is_some();
        // SAFETY: the module is naga's, for the bindings that its text declares.
        unsafe { self.pipeline(&kernel.words, &kernel.bindings, with_machine) }
    }

    unsafe fn pipeline(
        &self,
        words: &[u32],
        bindings: &[Access],
        with_machine: bool,
    ) -> Result<Compiled, Box<dyn std::error::Error>> {
        let bindings: Vec<_> = (bindings.iter().zip(0..))
            .map(|(access, binding)| {
                let storage = [vk::DescriptorType::UNIFORM_BUFFER, vk::DescriptorType::STORAGE_BUFFER];
                let ty = storage[usize::from(*access != Access::Uniform)];
                let all = vk::DescriptorSetLayoutBinding::default().binding(binding).descriptor_count(1);
                all.descriptor_type(ty).stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let d = &self.device;
        // SAFETY: as its caller says; each object is destroyed behind those that are made of it.
        unsafe {
            let code = d.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(words), None)?;
            let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = [d.create_descriptor_set_layout(&set, None)?];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&set);
            let layout = d.create_pipeline_layout(&layout, None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default().stage(vk::ShaderStageFlags::COMPUTE);
            let text = vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let text = if with_machine { text } else { vk::PipelineCreateFlags::empty() };
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR | text;
            let what = vk::ComputePipelineCreateInfo::default().flags(flags).layout(layout);
            let what = what.stage(stage.module(code).name(c"main"));
            let made = d.create_compute_pipelines(vk::PipelineCache::null(), &[what], None).map_err(|e| e.1)?;
            let compiled = self.ask(made[0], with_machine)?;
            d.destroy_pipeline(made[0], None);
            d.destroy_pipeline_layout(layout, None);
            d.destroy_descriptor_set_layout(set[0], None);
            d.destroy_shader_module(code, None);
            Ok(compiled)
        }
    }

    /// Returns the numbers of a pipeline, and the machine code of one that captures it.
    unsafe fn ask(&self, pipeline: vk::Pipeline, with_machine: bool) -> Result<Compiled, Box<dyn std::error::Error>> {
        let properties = khr::pipeline_executable_properties::Device::new(&self.instance, &self.device);
        let of = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline captures what is asked for, and each text has the size that the driver asks for.
        unsafe {
            let numbers = properties.get_pipeline_executable_statistics(&of)?;
            let name = |text: &CStr| text.to_string_lossy().into_owned();
            let numbers = numbers.iter().map(|s| (s.name_as_c_str().map(name).unwrap_or_default(), s.value.u64));
            let numbers = numbers.collect();
            if !with_machine {
                return Ok(Compiled { numbers, machine: None });
            }
            let get = properties.fp().get_pipeline_executable_internal_representations_khr;
            let mut n = 0;
            get(self.device.handle(), &of, &mut n, std::ptr::null_mut()).result()?;
            let mut all = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); n as usize];
            get(self.device.handle(), &of, &mut n, all.as_mut_ptr()).result()?;
            let mut texts: Vec<Vec<u8>> = all.iter().map(|r| vec![0; r.data_size]).collect();
            all.iter_mut().zip(&mut texts).for_each(|(r, text)| r.p_data = text.as_mut_ptr().cast());
            get(self.device.handle(), &of, &mut n, all.as_mut_ptr()).result()?;
            let machine = String::from_utf8_lossy(&texts.pop().unwrap_or_default()).into_owned();
            Ok(Compiled { numbers, machine: Some(machine) })
        }
    }
}

/// Returns the module that wgpu makes of a trusted kernel for Vulkan, and what it binds.
fn spirv(kernel: &PlannedDispatch) -> Result<(Vec<u32>, Vec<Access>), Box<dyn std::error::Error>> {
    use naga::{ShaderStage::Compute, back::pipeline_constants::process_overrides, back::spv, valid};
    let (bindings, module) = reflect(&kernel.kernel, &kernel.source)?;
    let info = valid::Validator::new(valid::ValidationFlags::all(), valid::Capabilities::all()).validate(&module)?;
    let constants = kernel.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let (module, info) = process_overrides(&module, &info, Some((Compute, "main")), &constants)?;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        bounds_check_policies: Default::default(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: true,
        ..Default::default()
    };
    let entry = spv::PipelineOptions { shader_stage: Compute, entry_point: "main".into() };
    let words = spv::write_vec(&module, &info, &options, Some(&entry))?;
    Ok((words, bindings.iter().map(|b| b.access).collect()))
}

impl Compiled {
    fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or_else(|| panic!("the driver does not say {name}: {:?}", self.numbers))
    }

    /// Returns the share of multiply-adds of the vector instructions of the loop that has most of them, where it is asked for.
    fn share(&self) -> Option<f64> {
        let lines: Vec<&str> = self.machine.as_ref()?.lines().map(str::trim).collect();
        let labels = lines.iter().enumerate().filter_map(|(at, line)| Some((line.strip_suffix(':')?, at)));
        let labels: HashMap<&str, usize> = labels.collect();
        let branch = |(end, line): (usize, &&str)| {
            let mut words = line.split_whitespace();
            let op = words.next().filter(|op| op.starts_with("s_branch") || op.starts_with("s_cbranch"));
            let start = op.and_then(|_| labels.get(words.next()?));
            start.filter(|&&start| start < end).map(|&start| (start, end))
        };
        let loops: Vec<(usize, usize)> = lines.iter().enumerate().filter_map(branch).collect();
        let innermost = |l: &&(usize, usize)| !loops.iter().any(|m| m != *l && l.0 <= m.0 && m.1 <= l.1);
        let count = |&(start, end): &(usize, usize)| {
            let of = |f: fn(&str) -> usize| lines[start..=end].iter().map(|line| f(line)).sum::<usize>();
            // Two instructions of RDNA3 may share a line.
            let all = of(|line| usize::from(line.starts_with("v_")) + line.matches(" :: ").count());
            (of(|line| line.matches("fma").count().min(2)), all)
        };
        // A loop that is unrolled as a whole leaves none, but its multiply-adds.
        // Of two with as many the first is hotter: it loads chunks that are full.
        let hottest = loops.iter().filter(innermost).map(count).rev().max_by_key(|(multiply_adds, _)| *multiply_adds);
        let hottest = hottest.filter(|(multiply_adds, _)| *multiply_adds > 0);
        let (multiply_adds, all) = hottest.unwrap_or_else(|| {
            let place = |last: bool| {
                let has = |line: &&str| line.contains("fma");
                if last { lines.iter().rposition(has) } else { lines.iter().position(has) }
            };
            place(false).zip(place(true)).map_or((0, 1), |range| count(&range))
        });
        Some(multiply_adds as f64 / all.max(1) as f64)
    }

    /// Returns what is wrong.
    fn faults(&self, kernel: &Launched) -> Vec<String> {
        let mut faults = Vec::new();
        for name in ["Spilled VGPRs", "Spilled SGPRs", "Scratch size"] {
            if self.number(name) > 0 {
                faults.push(format!("{name} {}", self.number(name)));
            }
        }
        let waves = self.number("Subgroups per SIMD");
        if waves < MIN_WAVES {
            faults.push(format!("{waves} waves, at least {MIN_WAVES} wanted"));
        }
        let least = kernel.least_share();
        if let Some(share) = self.share().filter(|share| *share < least) {
            faults.push(format!("{:.1}% multiply-adds, at least {:.0}% wanted", 100.0 * share, 100.0 * least));
        }
        faults
    }
}

/// Returns the least and the largest of some numbers.
fn range(numbers: impl Iterator<Item = u64> + Clone) -> String {
    let (least, most) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
    if least == most { format!("{least}") } else { format!("{least}–{most}") }
}

/// Returns the table of a device: a line for each kind of kernel.
fn table(absent: &Absent, compiled: &[(&Launched, Compiled)]) -> String {
    let mut kinds: BTreeMap<String, Vec<&(&Launched, Compiled)>> = BTreeMap::new();
    compiled.iter().for_each(|one| kinds.entry(one.0.kind()).or_default().push(one));
    let mut out = format!(
        "Kernels for GPUs as {} compiles them for {}: {} of them. tests/absent writes this table.\n\n\
         kernel and schedule | kernels | VGPRs | spilled | scratch | waves | LDS bytes | code bytes | inverse throughput | multiply-adds %\n",
        absent.driver,
        absent.family,
        compiled.len()
    );
    for (kind, all) in kinds {
        let of = |name: &'static str| range(all.iter().map(move |(_, c)| c.number(name)));
        let names = [
            "VGPRs",
            "Spilled VGPRs",
            "Scratch size",
            "Subgroups per SIMD",
            "LDS size",
            "Code size",
            "Inverse Throughput",
        ];
        let products = all.iter().filter(|(kernel, _)| kernel.product().is_some());
        let shares: Vec<f64> = products.filter_map(|(_, c)| c.share()).collect();
        let shares = shares.iter().map(|share| (100.0 * share).round() as u64);
        let share = if shares.len() > 0 { range(shares) } else { "–".to_owned() };
        let _ = writeln!(out, "{kind} | {} | {} | {share}", all.len(), names.map(of).join(" | "));
    }
    out
}

fn dump_folder() -> Option<OsString> {
    env::var_os("HUBEL_DUMP")
}

/// Keeps what was compiled in the folder `HUBEL_DUMP`.
fn dump(absent: &Absent, compiled: &[(&Launched, Compiled)]) {
    let Some(folder) = dump_folder() else { return };
    fs::create_dir_all(&folder).expect("a folder");
    for (i, (kernel, compiled)) in compiled.iter().enumerate() {
        let name = format!("{} {} {i}", kernel.dispatch.kernel, kernel.dispatch.variant).replace(' ', "-");
        let text = format!("{:?}\n{}", compiled.numbers, compiled.machine.as_deref().unwrap_or_default());
        for (extension, text) in [("wgsl", &*kernel.dispatch.source), (absent.family, &text)] {
            fs::write(Path::new(&folder).join(format!("{name}.{extension}")), text).expect("the folder takes files");
        }
    }
}

/// Opens a GPU of AMD's second and one of its third generation, of the names that the driver has for them.
fn devices() -> Result<[Absent; 2], String> {
    let first = Absent::open("navi21")?;
    let third = if first.driver.starts_with("Mesa 22.") { "gfx1100" } else { "navi31" };
    Ok([first, Absent::open(third)?])
}

#[test]
fn no_kernel_for_gpus_spills_or_starves_and_products_multiply() {
    let devices = match devices() {
        Ok(devices) => devices,
        Err(error) if cfg!(target_os = "linux") && env::var_os("CI").is_some() => panic!("{error}: {ADVICE}"),
        Err(error) => return println!("not checked: {error}: {ADVICE}"),
    };
    let kernels = kernels();
    let mut failed = Vec::new();
    for absent in &devices {
        let compile =
            |kernel: &'_ Launched| absent.compile(kernel).unwrap_or_else(|e| panic!("{}: {e}", kernel.kind()));
        let mut compiled = each(kernels.iter().collect(), |kernel| (kernel, compile(kernel)));
        compiled.sort_by(|(a, _), (b, _)| (a.kind(), &a.dispatch.source).cmp(&(b.kind(), &b.dispatch.source)));
        dump(absent, &compiled);
        for (kernel, compiled) in &compiled {
            let (family, PlannedDispatch { kernel: name, node, variant, .. }) = (absent.family, &kernel.dispatch);
            let faults = compiled.faults(kernel).into_iter();
            failed.extend(faults.map(|fault| format!("{family}: {name} {variant} of `{node}`: {fault}")));
        }
        let version = absent.driver.split([' ', '-']).nth(1).unwrap_or("unknown");
        let file = format!("benches/results/absent-{}-mesa-{version}.txt", absent.family);
        if env::var_os("HUBEL_WRITE_DOCS").is_some() || Path::new(ROOT).join(&file).exists() {
            is_generated(&file, &table(absent, &compiled));
        }
    }
    assert!(failed.is_empty(), "{} of {} kernels:\n{}", failed.len(), kernels.len(), failed.join("\n"));
}
