//! What a node told of its machine beyond what jobs are placed by.

use super::facts;
use crate::text::{self, harmless};
use serde_json::{Value, json};
use yard_proto::v1;

/// More GPUs than that make a table that is wider than a screen.
const WAYS_SHOWN_MAX: usize = 16;

/// The machine as machines read it.
pub(crate) fn value(told: &v1::NodeFacts) -> Value {
    let networks = told.networks.iter().map(|one| {
        json!({
            "name": one.name,
            "speed_mbit": one.speed_mbit,
            "up": one.up,
            "rdma": one.rdma,
        })
    });
    let disks = told.disks.iter().map(|one| {
        json!({
            "mounted_at": one.mounted_at,
            "kind": one.kind,
            "bytes": one.bytes,
            "free_bytes": one.free_bytes,
        })
    });
    json!({
        "told_wall_ms": told.told_wall_ms,
        "hostname": told.hostname,
        "kernel": told.kernel,
        "cgroups": told.cgroups,
        "cpu_model": told.cpu_model,
        "numa_cpus": told.numa_cpus,
        "networks": networks.collect::<Vec<_>>(),
        "disks": disks.collect::<Vec<_>>(),
        "gpu_source": told.gpu_source,
        "driver_version": told.driver_version,
        "nvml_version": told.nvml_version,
        "cuda_version": told.cuda_version,
        "gpus": told.gpus.iter().map(gpu_value).collect::<Vec<_>>(),
        "stuck": told.stuck.iter().map(stuck_value).collect::<Vec<_>>(),
        "late": told.late.iter().map(late_value).collect::<Vec<_>>(),
    })
}

fn gpu_value(gpu: &v1::GpuFacts) -> Value {
    let peers = gpu
        .peers
        .iter()
        .map(|peer| json!({ "uuid": peer.uuid, "path": peer.path, "links": peer.links }));
    json!({
        "uuid": gpu.uuid,
        "name": gpu.name,
        "pci_address": gpu.pci_address,
        "parent_uuid": gpu.parent_uuid,
        "minor": gpu.minor,
        "numa_node": gpu.numa_node,
        "memory_used_bytes": gpu.memory_used_bytes,
        "ecc": gpu.ecc,
        "ecc_corrected": gpu.ecc_corrected,
        "ecc_uncorrected": gpu.ecc_uncorrected,
        "temperature_c": gpu.temperature_c,
        "power_mw": gpu.power_mw,
        "power_limit_mw": gpu.power_limit_mw,
        "busy_percent": gpu.busy_percent,
        "sm_clock_mhz": gpu.sm_clock_mhz,
        "sm_clock_max_mhz": gpu.sm_clock_max_mhz,
        "memory_clock_mhz": gpu.memory_clock_mhz,
        "throttled_by": gpu.throttled_by,
        "pcie_width": gpu.pcie_width,
        "pcie_width_max": gpu.pcie_width_max,
        "pcie_generation": gpu.pcie_generation,
        "pcie_generation_max": gpu.pcie_generation_max,
        "peers": peers.collect::<Vec<_>>(),
        "processes": gpu.processes,
        "foreign_pids": gpu.foreign_pids,
    })
}

/// What does not end, as machines read it.
pub(crate) fn stuck_value(one: &v1::StuckProcesses) -> Value {
    json!({ "job_id": one.job_id, "node": one.node, "text": one.text })
}

/// Output that does not arrive, as machines read it.
pub(crate) fn late_value(one: &v1::LateOutput) -> Value {
    json!({
        "job_id": one.job_id,
        "task_index": one.task_index,
        "attempt": one.attempt,
        "node": one.node,
        "text": one.text,
    })
}

/// The machine for people.
pub(crate) fn describe(told: &v1::NodeFacts) -> String {
    let versions = [("driver", &told.driver_version), ("CUDA", &told.cuda_version)];
    let versions = versions.iter().filter(|(_, version)| !version.is_empty());
    let versions: Vec<String> = versions.map(|(what, one)| format!("{what} {one}")).collect();
    let source = match versions.is_empty() {
        true => told.gpu_source.clone(),
        false => format!("{} ({})", told.gpu_source, versions.join(", ")),
    };
    let mut out = facts(&[
        ("kernel", told.kernel.clone()),
        ("limits", told.cgroups.clone()),
        ("cpu", told.cpu_model.clone()),
        ("numa", told.numa_cpus.join(" | ")),
        ("gpus by", source),
    ]);
    for one in &told.networks {
        let speed = match one.speed_mbit {
            0 => String::new(),
            mbit if mbit % 1_000 == 0 => format!(", {} Gbit/s", mbit / 1_000),
            mbit => format!(", {mbit} Mbit/s"),
        };
        let state = if one.up { "up" } else { "down" };
        let rdma = if one.rdma.is_empty() { String::new() } else { format!(", RDMA {}", one.rdma) };
        out.push_str(&harmless(&format!("network  {}, {state}{speed}{rdma}", one.name)));
        out.push('\n');
    }
    for one in &told.disks {
        let (free, all) = (text::bytes(one.free_bytes), text::bytes(one.bytes));
        out.push_str(&harmless(&format!(
            "disk  {}, {}, {free} of {all} free",
            one.mounted_at, one.kind
        )));
        out.push('\n');
    }
    for gpu in &told.gpus {
        out.push_str(&harmless(&format!("now  {}", gpu_line(gpu))));
        out.push('\n');
    }
    out.push_str(&ways(&told.gpus));
    for one in &told.stuck {
        let line = format!("killed and does not end: job {}, {}", one.job_id, one.text);
        out.push_str(&harmless(&line));
        out.push('\n');
    }
    for one in &told.late {
        let line = format!("output does not arrive: job {}, {}", one.job_id, one.text);
        out.push_str(&harmless(&line));
        out.push('\n');
    }
    out
}

/// The way from each GPU to each other one, by their places in the list. `NV18` are 18 direct
/// links, else it is the nearest thing that both are behind. Nothing for a single GPU.
fn ways(gpus: &[v1::GpuFacts]) -> String {
    let whole: Vec<_> = gpus.iter().filter(|gpu| gpu.parent_uuid.is_empty()).collect();
    if !(2..=WAYS_SHOWN_MAX).contains(&whole.len()) || whole.iter().all(|gpu| gpu.peers.is_empty())
    {
        return String::new();
    }
    let way = |from: &v1::GpuFacts, to: &v1::GpuFacts| {
        if from.uuid == to.uuid {
            return "-".to_string();
        }
        match from.peers.iter().find(|peer| peer.uuid == to.uuid) {
            Some(peer) if peer.links > 0 => format!("NV{}", peer.links),
            Some(peer) if !peer.path.is_empty() => harmless(&peer.path),
            Some(_) | None => "?".to_string(),
        }
    };
    let mut rows = vec![std::iter::once("ways".to_string()).collect::<Vec<_>>()];
    rows[0].extend((0..whole.len()).map(|at| at.to_string()));
    for (at, from) in whole.iter().enumerate() {
        let cells = whole.iter().map(|to| way(from, to));
        rows.push(std::iter::once(at.to_string()).chain(cells).collect());
    }
    let width = rows.iter().flatten().map(String::len).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().map(|cell| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A GPU as it is now: what it is, how warm and busy, and what is unusual.
fn gpu_line(gpu: &v1::GpuFacts) -> String {
    let mut parts = vec![gpu.name.clone()];
    let mut add = |shown: bool, text: String| {
        if shown {
            parts.push(text);
        }
    };
    add(!gpu.pci_address.is_empty(), format!("PCI {}", gpu.pci_address));
    add(
        gpu.pcie_width_max > 0,
        format!(
            "gen {}/{} x{}/{}",
            gpu.pcie_generation, gpu.pcie_generation_max, gpu.pcie_width, gpu.pcie_width_max
        ),
    );
    add(gpu.numa_node.is_some(), format!("NUMA {}", gpu.numa_node()));
    add(true, format!("{} in use", text::bytes(gpu.memory_used_bytes)));
    add(true, format!("{} % busy", gpu.busy_percent));
    add(gpu.temperature_c > 0, format!("{} °C", gpu.temperature_c));
    add(gpu.power_mw > 0, format!("{}/{} W", gpu.power_mw / 1_000, gpu.power_limit_mw / 1_000));
    add(gpu.sm_clock_mhz > 0, format!("{}/{} MHz", gpu.sm_clock_mhz, gpu.sm_clock_max_mhz));
    add(
        gpu.ecc.is_some(),
        match gpu.ecc() {
            true => format!("ECC {}/{}", gpu.ecc_corrected, gpu.ecc_uncorrected),
            false => "ECC off".to_string(),
        },
    );
    add(!gpu.throttled_by.is_empty(), format!("clocks: {}", gpu.throttled_by));
    add(gpu.processes > 0, format!("{} processes", gpu.processes));
    let foreign: Vec<String> = gpu.foreign_pids.iter().map(u32::to_string).collect();
    add(!foreign.is_empty(), format!("of no job: {}", foreign.join(" ")));
    let nvlinks = gpu.peers.iter().map(|peer| peer.links).max().unwrap_or(0);
    add(nvlinks > 0, format!("up to {nvlinks} direct links to another GPU"));
    format!("{}  {}", parts.join(", "), gpu.uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> v1::NodeFacts {
        v1::NodeFacts {
            kernel: "6.8".into(),
            gpu_source: "NVML".into(),
            driver_version: "550.54".into(),
            networks: vec![
                v1::NetworkFacts {
                    name: "eth0".into(),
                    speed_mbit: 25_000,
                    up: true,
                    ..Default::default()
                },
                v1::NetworkFacts {
                    name: "ib0".into(),
                    rdma: "mlx5_0".into(),
                    ..Default::default()
                },
            ],
            gpus: vec![v1::GpuFacts {
                uuid: "GPU-1".into(),
                name: "NVIDIA H100".into(),
                ecc: Some(true),
                ecc_uncorrected: 2,
                foreign_pids: vec![77],
                peers: vec![v1::GpuPeer { uuid: "GPU-2".into(), path: "node".into(), links: 18 }],
                ..v1::GpuFacts::default()
            }],
            stuck: vec![v1::StuckProcesses {
                job_id: 7,
                text: "cat (9) in state D".into(),
                ..v1::StuckProcesses::default()
            }],
            late: vec![v1::LateOutput {
                job_id: 8,
                text: "/share/logs: it does not answer".into(),
                ..v1::LateOutput::default()
            }],
            ..v1::NodeFacts::default()
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let text = describe(&told());
        assert!(text.contains("gpus by  NVML (driver 550.54)\n"), "{text}");
        assert!(text.contains("network  eth0, up, 25 Gbit/s\nnetwork  ib0, down, RDMA mlx5_0\n"));
        let stuck = "killed and does not end: job 7, cat (9) in state D\n";
        assert!(text.contains(stuck), "{text}");
        let late = "output does not arrive: job 8, /share/logs: it does not answer\n";
        assert!(text.ends_with(late), "{text}");
        let gpu = "now  NVIDIA H100, 0B in use, 0 % busy, ECC 0/2, of no job: 77, up to 18 direct \
                   links to another GPU  GPU-1\n";
        assert!(text.contains(gpu), "{text}");
        assert!(!text.contains("numa") && !text.contains("PCI"), "{text}");
    }

    #[test]
    fn ways_between_gpus_are_a_table() {
        let peer = |uuid: &str, path: &str, links| v1::GpuPeer {
            uuid: uuid.into(),
            path: path.into(),
            links,
        };
        let gpu =
            |uuid: &str, peers| v1::GpuFacts { uuid: uuid.into(), peers, ..Default::default() };
        let gpus = [
            gpu("a", vec![peer("b", "pci-switch", 12), peer("c", "system", 0)]),
            gpu("b", vec![peer("a", "pci-switch", 12), peer("c", "system", 0)]),
            gpu("c", vec![peer("a", "system", 0)]),
        ];
        let table = "ways    0       1       2\n\
                     0       -       NV12    system\n\
                     1       NV12    -       system\n\
                     2       system  ?       -\n";
        assert_eq!(ways(&gpus), table);
        assert_eq!(ways(&gpus[..1]), "");
    }

    #[test]
    fn machines_read_all_of_it() {
        let value = value(&told());
        assert_eq!(value["gpus"][0]["peers"][0]["links"], 18);
        assert_eq!(value["networks"][1]["rdma"], "mlx5_0");
    }
}
