//! What the machine has, as the coordinator is told and as people see it.

pub(crate) mod gpu;
pub(crate) mod hardware;

pub use gpu::GpuFinding;

use crate::cgroup::Support;
use crate::process;
use hardware::Hardware;
use std::io;
use std::path::{Path, PathBuf};
use sysinfo::System;
use thiserror::Error;
use yard_common::Amounts;
use yard_common::gpu::GpuDevice;
use yard_common::limits::{LABEL_BYTES_MAX, NODE_BYTES_MAX, NODE_CPU_MILLI_MAX};
use yard_core::command::Inventory;

/// Where to look, and what to say instead.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory whose disk holds scratch and logs.
    pub root: PathBuf,
    /// Address that other nodes reach this one by; none: its host name.
    pub address: Option<String>,
    /// Labels from the configuration, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Pretend to have so many GPUs: for `yard dev` alone.
    pub gpus_fake: Option<u16>,
    /// The node's name, which fake GPUs are named after.
    pub node: String,
    /// The version of our program.
    pub version: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the coordinator schedules by.
    pub inventory: Inventory,
    /// Host name.
    pub hostname: String,
    /// Release of the kernel.
    pub kernel: String,
    /// How ranks are held together and limited.
    pub cgroups: String,
    /// What nothing is placed by.
    pub(crate) hardware: Hardware,
}

/// Why the machine cannot be described.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// The boot has no id.
    #[error("the id of the boot cannot be read")]
    Boot(#[source] io::Error),
    /// The machine has no name.
    #[error("the host name cannot be read: {0}")]
    Hostname(nix::errno::Errno),
}

/// Looks at the machine, but for its GPUs, which are handed in. A file system may hang, so not on a
/// thread that others wait for.
///
/// # Errors
/// If the machine has no boot id or no name.
pub fn take(
    options: &Options,
    cgroups: &Support,
    devices: Vec<GpuDevice>,
) -> Result<Facts, InventoryError> {
    let boot = process::boot_id().map_err(InventoryError::Boot)?;
    let hostname = nix::unistd::gethostname().map_err(InventoryError::Hostname)?;
    let hostname = short(&hostname.to_string_lossy());
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let amounts = Amounts {
        cpu_milli: (cpus * 1_000).min(NODE_CPU_MILLI_MAX),
        memory_bytes: memory_bytes().min(NODE_BYTES_MAX),
        disk_bytes: disk_bytes(&options.root).min(NODE_BYTES_MAX),
    };
    let inventory = Inventory {
        boot,
        amounts,
        devices,
        labels: options.labels.clone(),
        address: options.address.clone().unwrap_or_else(|| hostname.clone()),
        version: options.version.clone(),
        conditions: Vec::new(),
        checked: 0,
        setup: None,
    };
    let kernel = System::kernel_version().unwrap_or_default();
    Ok(Facts {
        inventory,
        hostname,
        kernel,
        cgroups: cgroups.describe(),
        hardware: hardware::look(),
    })
}

/// Memory that jobs may use: of the machine, or of the group that the agent is confined to.
fn memory_bytes() -> u64 {
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory();
    let of_machine = system.total_memory();
    let of_group = system.cgroup_limits().map(|limits| limits.total_memory);
    of_group.filter(|bytes| *bytes > 0).map_or(of_machine, |bytes| bytes.min(of_machine))
}

/// Size of the file system that holds a directory.
fn disk_bytes(root: &Path) -> u64 {
    let Ok(found) = nix::sys::statvfs::statvfs(root) else { return 0 };
    found.blocks().saturating_mul(found.fragment_size())
}

fn short(text: &str) -> String {
    text.chars().take(LABEL_BYTES_MAX / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something_to_give() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            root: directory.path().into(),
            address: None,
            labels: Vec::new(),
            gpus_fake: Some(2),
            node: "n1".into(),
            version: "1".into(),
        };
        let devices = gpu::fake(2, "n1");
        let facts = take(&options, &Support::none(), devices).unwrap();
        let amounts = facts.inventory.amounts;
        assert!(amounts.cpu_milli >= 1_000 && amounts.memory_bytes > 1 << 20, "{amounts:?}");
        assert_eq!(facts.inventory.address, facts.hostname);
        assert_eq!(facts.inventory.devices.len(), 2);
        assert!(facts.cgroups.starts_with("none"));
    }
}
