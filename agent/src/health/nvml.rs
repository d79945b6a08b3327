//! One look at all GPUs through NVML.
//!
//! A GPU that does not answer takes nothing from the others: each is asked by itself, and what it
//! does not know is left out.

use super::ours::Ours;
use super::probe::Progress;
use crate::inventory::gpu::{model_name, profile};
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, TemperatureSensor, TopologyLevel,
};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
};
use nvml_wrapper::{Device, Nvml};
use std::collections::BTreeMap;
use yard_common::Bytes;
use yard_common::gpu::GpuDevice;
use yard_common::limits::{GPU_PROCESSES_MAX, NODE_DEVICES_MAX};
use yard_core::health::{Answer, Link, Reading, Recovery};

/// Links between GPUs that a GPU may have.
const NVLINKS_MAX: u32 = 18;

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// In the order of NVML; in place of a GPU that is split, its MIG instances.
    pub(crate) devices: Vec<GpuDevice>,
    /// What jobs are not placed by; one for each device, in the same order.
    pub(crate) details: Vec<Detail>,
    /// What conditions follow from. There may be readings of GPUs that are not listed any more.
    pub(crate) readings: Vec<Reading>,
    pub(crate) versions: Versions,
}

/// Versions of the driver and of what comes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) driver: String,
    pub(crate) nvml: String,
    /// The newest CUDA that the driver runs, such as 12.4.
    pub(crate) cuda: String,
}

/// What else is known of a device. What NVML does not tell is 0 or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    pub(crate) uuid: String,
    /// Of a MIG instance: the GPU that it is of.
    pub(crate) parent: String,
    /// The name as NVML tells it.
    pub(crate) name: String,
    /// Address on the PCI bus.
    pub(crate) pci: String,
    /// Number of `/dev/nvidia<N>`.
    pub(crate) minor: Option<u32>,
    pub(crate) numa_node: Option<u32>,
    pub(crate) ecc: Option<bool>,
    pub(crate) corrected: u64,
    pub(crate) temperature_c: u32,
    pub(crate) power_mw: u32,
    pub(crate) power_limit_mw: u32,
    pub(crate) gpu_busy_percent: u32,
    pub(crate) sm_clock_mhz: u32,
    pub(crate) sm_clock_max_mhz: u32,
    pub(crate) memory_clock_mhz: u32,
    /// What limits its clocks now, usual reasons included.
    pub(crate) throttled_by: String,
    /// Its way to each other GPU.
    pub(crate) peers: Vec<Peer>,
}

/// The way from one GPU to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uuid: String,
    /// The nearest thing that both are behind.
    pub(crate) path: &'static str,
    /// Direct links that work.
    pub(crate) links: u32,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// UUIDs by index, from looks at which they answered.
    names: BTreeMap<u32, String>,
    /// The ways between GPUs, which change with the library alone.
    peers: BTreeMap<String, Vec<Peer>>,
}

impl Known {
    /// The library is loaded anew.
    pub(super) fn forget_peers(&mut self) {
        self.peers.clear();
    }
}

/// Looks at all GPUs.
pub(super) fn look(
    nvml: &Nvml,
    ours: &Ours,
    known: &mut Known,
    progress: &Progress,
) -> Result<Found, NvmlError> {
    let names = &mut known.names;
    let mut found = Found { versions: versions(nvml), ..Found::default() };
    let mut gpus = Vec::new();
    for index in 0..nvml.device_count()?.min(NODE_DEVICES_MAX as u32) {
        progress.at(names.get(&index));
        let looked = nvml.device_by_index(index).and_then(|device| {
            one(&device, ours, &mut found)?;
            Ok(device)
        });
        match looked {
            Ok(device) => {
                if let Ok(uuid) = device.uuid() {
                    names.insert(index, uuid.clone());
                    gpus.push((uuid, device));
                }
            }
            // One that never answered has no name, and was never granted.
            Err(error) => {
                if let Some(uuid) = names.get(&index) {
                    let answer = answer_of(&error);
                    found.readings.push(Reading { answer, ..Reading::clean(uuid, 0) });
                }
            }
        }
    }
    progress.at(None);
    if !gpus.iter().all(|(uuid, _)| known.peers.contains_key(uuid)) {
        known.peers = topology(nvml, &gpus);
    }
    for detail in &mut found.details {
        detail.peers = known.peers.get(&detail.uuid).cloned().unwrap_or_default();
    }
    found.devices.truncate(NODE_DEVICES_MAX);
    found.details.truncate(NODE_DEVICES_MAX);
    Ok(found)
}

fn answer_of(error: &NvmlError) -> Answer {
    match error {
        NvmlError::GpuLost => Answer::Lost,
        other => Answer::Failed(other.to_string()),
    }
}

fn versions(nvml: &Nvml) -> Versions {
    let cuda = nvml.sys_cuda_driver_version().ok();
    let cuda = cuda.map(|version| format!("{}.{}", version / 1_000, version % 1_000 / 10));
    Versions {
        driver: nvml.sys_driver_version().unwrap_or_default(),
        nvml: nvml.sys_nvml_version().unwrap_or_default(),
        cuda: cuda.unwrap_or_default(),
    }
}

/// One GPU, or its MIG instances. An error means that nothing of it is to be used.
fn one(device: &Device<'_>, ours: &Ours, found: &mut Found) -> Result<(), NvmlError> {
    let (name, uuid) = (device.name()?, device.uuid()?);
    let split = device.mig_mode().is_ok_and(|mode| mode.current != 0);
    let detail = detail(device, uuid.clone(), &name);
    if !split {
        let memory = Bytes(device.memory_info()?.total);
        found.readings.push(reading(device, &uuid, ours)?);
        let model = model_name(&name);
        found.devices.push(GpuDevice { uuid, model, memory, mig: None, healthy: true });
        found.details.push(detail);
        return Ok(());
    }
    for instance in 0..device.mig_device_count()? {
        // Places of the list may be empty.
        let Ok(instance) = device.mig_device_by_index(instance) else { continue };
        let of_instance = instance.uuid()?;
        let memory = Bytes(instance.memory_info()?.total);
        let mig = instance.name().ok().and_then(|name| profile(&name));
        let mut told = reading(&instance, &of_instance, ours)?;
        // Errors, heat and links are those of the GPU.
        let whole = reading(device, &uuid, ours)?;
        (told.uncorrected, told.reset_due) = (whole.uncorrected, whole.reset_due);
        (told.repair_failed, told.recovery) = (whole.repair_failed, whole.recovery);
        (told.link, told.slowed_by) = (whole.link, whole.slowed_by);
        found.readings.push(told);
        found.details.push(Detail {
            uuid: of_instance.clone(),
            parent: uuid.clone(),
            ..detail.clone()
        });
        let (uuid, model, healthy) = (of_instance, model_name(&name), mig.is_some());
        found.devices.push(GpuDevice { uuid, model, memory, mig, healthy });
    }
    Ok(())
}

/// What conditions follow from. Of what a GPU does not support there is nothing to tell; that it
/// is lost is told whatever was asked.
fn reading(device: &Device<'_>, uuid: &str, ours: &Ours) -> Result<Reading, NvmlError> {
    let memory = device.memory_info()?;
    let mut reading = Reading::clean(uuid, memory.total);
    reading.used_bytes = memory.used;
    let errors = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    reading.uncorrected = unless_lost(errors)?.unwrap_or(0);
    // GPUs before Ampere retire pages, later ones use other rows in their place.
    let retires = unless_lost(device.are_pages_pending_retired())?.unwrap_or(false);
    let [remaps, failed, recovery] = fields(
        device,
        [
            NVML_FI_DEV_REMAPPED_PENDING,
            NVML_FI_DEV_REMAPPED_FAILURE,
            NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        ],
    )?;
    reading.reset_due = retires || remaps > 0;
    reading.repair_failed = failed > 0;
    reading.recovery = Recovery::of_nvml(recovery);
    let width = unless_lost(device.current_pcie_link_width())?;
    let width_max = unless_lost(device.max_pcie_link_width())?;
    if let (Some(width), Some(width_max)) = (width, width_max) {
        reading.link = Some(Link {
            width,
            width_max,
            generation: unless_lost(device.current_pcie_link_gen())?.unwrap_or(0),
            generation_max: unless_lost(device.max_pcie_link_gen())?.unwrap_or(0),
        });
    }
    let throttled = unless_lost(device.current_throttle_reasons())?;
    reading.slowed_by = throttled.map(slowed_by).unwrap_or_default();
    let compute = unless_lost(device.running_compute_processes())?.unwrap_or_default();
    let graphics = unless_lost(device.running_graphics_processes())?.unwrap_or_default();
    let mut pids: Vec<u32> = compute.iter().chain(&graphics).map(|process| process.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids.truncate(GPU_PROCESSES_MAX);
    reading.foreign = pids.iter().copied().filter(|pid| ours.is_foreign(*pid)).collect();
    reading.processes = pids;
    Ok(reading)
}

/// Numbers of a GPU, each 0 if it is not told.
fn fields<const N: usize>(device: &Device<'_>, ids: [u32; N]) -> Result<[u64; N], NvmlError> {
    let mut numbers = [0; N];
    let told = unless_lost(device.field_values_for(&ids.map(FieldId)))?.unwrap_or_default();
    for (number, told) in numbers.iter_mut().zip(told) {
        *number = match unless_lost(told.and_then(|sample| sample.value))? {
            Some(SampleValue::U32(value)) => value.into(),
            Some(SampleValue::U64(value)) => value,
            Some(_) | None => 0,
        };
    }
    Ok(numbers)
}

fn unless_lost<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::GpuLost) => Err(NvmlError::GpuLost),
        Err(_) => Ok(None),
    }
}

/// What keeps a GPU below its speed that should not. A power limit is a choice of its owner.
fn slowed_by(reasons: ThrottleReasons) -> String {
    let bad = [
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "heat"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "heat"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "the power supply"),
        (ThrottleReasons::HW_SLOWDOWN, "the hardware"),
    ];
    let first = bad.into_iter().find(|(reason, _)| reasons.contains(*reason));
    first.map_or(String::new(), |(_, why)| format!("slowed down by {why}"))
}

/// Everything that limits its clocks, for people.
fn throttled_by(reasons: ThrottleReasons) -> String {
    let names = reasons.iter_names().map(|(name, _)| name.to_ascii_lowercase());
    names.collect::<Vec<_>>().join(" ")
}

fn detail(device: &Device<'_>, uuid: String, name: &str) -> Detail {
    let corrected = device.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile);
    Detail {
        uuid,
        parent: String::new(),
        name: name.to_string(),
        pci: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
        minor: device.minor_number().ok(),
        numa_node: device.numa_node_id().ok(),
        ecc: device.is_ecc_enabled().ok().map(|ecc| ecc.currently_enabled),
        corrected: corrected.unwrap_or(0),
        temperature_c: device.temperature(TemperatureSensor::Gpu).unwrap_or(0),
        power_mw: device.power_usage().unwrap_or(0),
        power_limit_mw: device.enforced_power_limit().unwrap_or(0),
        gpu_busy_percent: device.utilization_rates().map(|rates| rates.gpu).unwrap_or(0),
        sm_clock_mhz: device.clock_info(Clock::SM).unwrap_or(0),
        sm_clock_max_mhz: device.max_clock_info(Clock::SM).unwrap_or(0),
        memory_clock_mhz: device.clock_info(Clock::Memory).unwrap_or(0),
        throttled_by: device.current_throttle_reasons().map(throttled_by).unwrap_or_default(),
        peers: Vec::new(),
    }
}

/// The ways between all GPUs.
fn topology(nvml: &Nvml, gpus: &[(String, Device<'_>)]) -> BTreeMap<String, Vec<Peer>> {
    let address = |device: &Device<'_>| device.pci_info().map(|pci| pci.bus_id).ok();
    let addresses: Vec<Option<String>> = gpus.iter().map(|(_, gpu)| address(gpu)).collect();
    let mut ways = BTreeMap::new();
    for (uuid, gpu) in gpus {
        let links = (0..NVLINKS_MAX).map(|link| gpu.link_wrapper_for(link));
        let active = links.filter(|link| link.is_active().is_ok_and(|active| active));
        let far_ends: Vec<Option<String>> =
            active.map(|link| link.remote_pci_info().ok().map(|pci| pci.bus_id)).collect();
        // The far end of a link is a GPU, or a switch that leads to all of them.
        let is_gpu = |end: &&Option<String>| end.is_some() && addresses.contains(end);
        let switched = far_ends.iter().filter(|end| !is_gpu(end)).count();
        let others = gpus.iter().zip(&addresses).filter(|((other, _), _)| other != uuid);
        let peers = others.map(|((other, device), address)| {
            let level = nvml.topology_common_ancestor(gpu, device).ok();
            let direct = far_ends.iter().filter(|end| end.is_some() && *end == address).count();
            let links = u32::try_from(direct + switched).unwrap_or(u32::MAX);
            Peer { uuid: other.clone(), path: level.map_or("", path), links }
        });
        ways.insert(uuid.clone(), peers.collect());
    }
    ways
}

fn path(level: TopologyLevel) -> &'static str {
    match level {
        TopologyLevel::Internal => "board",
        TopologyLevel::Single => "pci-switch",
        TopologyLevel::Multiple => "pci-switches",
        TopologyLevel::HostBridge => "host-bridge",
        TopologyLevel::Node => "numa-node",
        TopologyLevel::System => "system",
    }
}
