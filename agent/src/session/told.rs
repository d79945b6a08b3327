//! What the machine is like now, as the coordinator shows it to people. Nothing depends on it, and
//! nothing of it is kept.

use crate::health::Detail;
use crate::health::probe::Round;
use crate::inventory::hardware::Hardware;
use std::time::{SystemTime, UNIX_EPOCH};
use yard_core::health::Reading;
use yard_proto::v1;

/// What does not change from one look to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) hostname: String,
    pub(crate) kernel: String,
    pub(crate) cgroups: String,
    pub(crate) hardware: Hardware,
}

/// The machine as it is told.
pub(crate) fn facts(place: &Place, round: &Round) -> v1::NodeFacts {
    let hardware = &place.hardware;
    let networks = hardware.networks.iter().map(|one| v1::NetworkFacts {
        name: one.name.clone(),
        speed_mbit: one.speed_mbit,
        up: one.up,
        rdma: one.rdma.clone(),
    });
    let disks = hardware.disks.iter().map(|one| v1::DiskFacts {
        mounted_at: one.mounted_at.clone(),
        kind: one.kind.clone(),
        bytes: one.bytes,
        free_bytes: one.free_bytes,
    });
    let versions = &round.found.versions;
    v1::NodeFacts {
        told_wall_ms: wall_ms(),
        hostname: place.hostname.clone(),
        kernel: place.kernel.clone(),
        cgroups: place.cgroups.clone(),
        cpu_model: hardware.cpu_model.clone(),
        numa_cpus: hardware.numa.clone(),
        networks: networks.collect(),
        disks: disks.collect(),
        gpu_source: round.finding.to_string(),
        driver_version: versions.driver.clone(),
        nvml_version: versions.nvml.clone(),
        cuda_version: versions.cuda.clone(),
        stuck: Vec::new(),
        late: Vec::new(),
        gpus: round.found.details.iter().map(|detail| gpu(detail, round)).collect(),
    }
}

/// The machine's clock, in milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn gpu(detail: &Detail, round: &Round) -> v1::GpuFacts {
    let reading = round.found.readings.iter().find(|reading| reading.uuid == detail.uuid);
    let told = v1::GpuFacts {
        uuid: detail.uuid.clone(),
        name: detail.name.clone(),
        pci_address: detail.pci.clone(),
        parent_uuid: detail.parent.clone(),
        minor: detail.minor,
        numa_node: detail.numa_node,
        ecc: detail.ecc,
        ecc_corrected: detail.corrected,
        temperature_c: detail.temperature_c,
        power_mw: detail.power_mw,
        power_limit_mw: detail.power_limit_mw,
        busy_percent: detail.gpu_busy_percent,
        sm_clock_mhz: detail.sm_clock_mhz,
        sm_clock_max_mhz: detail.sm_clock_max_mhz,
        memory_clock_mhz: detail.memory_clock_mhz,
        throttled_by: detail.throttled_by.clone(),
        peers: detail
            .peers
            .iter()
            .map(|peer| v1::GpuPeer {
                uuid: peer.uuid.clone(),
                path: peer.path.to_string(),
                links: peer.links,
            })
            .collect(),
        ..v1::GpuFacts::default()
    };
    match reading {
        Some(reading) => with_reading(told, reading),
        None => told,
    }
}

fn with_reading(told: v1::GpuFacts, reading: &Reading) -> v1::GpuFacts {
    let link = reading.link.unwrap_or_default();
    v1::GpuFacts {
        memory_used_bytes: reading.used_bytes,
        ecc_uncorrected: reading.uncorrected,
        pcie_width: link.width,
        pcie_width_max: link.width_max,
        pcie_generation: link.generation,
        pcie_generation_max: link.generation_max,
        processes: u32::try_from(reading.processes.len()).unwrap_or(u32::MAX),
        foreign_pids: reading.foreign.clone(),
        ..told
    }
}
