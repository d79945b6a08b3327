//! What the machine has, as it is told.
//!
//! **Invariant:** devices keep their positions for the life of a boot, across agents too. One that
//! is not found any more stays in the list; that it is gone is told as a condition.

use crate::cgroup::Support;
use crate::health::{self, Ours, probe::Probe};
use crate::inventory::{self, GpuFinding, gpu};
use yard_common::gpu::GpuDevice;
use yard_common::limits::NODE_DEVICES_MAX;
use yard_core::command::Inventory;

/// What asks for the GPUs of this machine.
///
/// # Errors
/// If there can be no thread.
pub(crate) fn probe(
    options: &inventory::Options,
    health: &health::Options,
    ours: Ours,
) -> std::io::Result<Probe> {
    match options.gpus_fake {
        Some(count) => Ok(Probe::fake(gpu::fake(count, &options.node))),
        None => Probe::start(health, ours),
    }
}

/// The list of devices, after that which was told before in this boot. Whether each is well is
/// another question.
pub(crate) fn settled(
    before: Option<&Inventory>,
    mut found: Inventory,
    gpus: &GpuFinding,
) -> Inventory {
    let Some(before) = before.filter(|before| before.boot == found.boot) else { return found };
    let answered = matches!(gpus, GpuFinding::Nvml | GpuFinding::Fake);
    let mut devices = before.devices.clone();
    for device in &mut devices {
        match found.devices.iter().position(|one| one.uuid == device.uuid) {
            Some(at) => *device = found.devices.remove(at),
            // A library that does not answer says nothing about the devices.
            None => device.healthy &= !answered,
        }
    }
    devices.append(&mut found.devices);
    devices.truncate(NODE_DEVICES_MAX);
    Inventory { devices, ..found }
}

/// Looks once at everything but the GPUs, where nobody waits.
///
/// # Errors
/// If the machine cannot be described.
pub(crate) async fn look(
    options: &inventory::Options,
    cgroups: &Support,
    devices: Vec<GpuDevice>,
) -> Result<inventory::Facts, inventory::InventoryError> {
    let (options, cgroups) = (options.clone(), cgroups.clone());
    let looked = tokio::task::spawn_blocking(move || inventory::take(&options, &cgroups, devices));
    looked.await.expect("looking at the machine does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::BootId;
    use yard_common::{Amounts, Bytes};

    fn inventory(boot: u128, uuids: &[&str]) -> Inventory {
        let device = |uuid: &&str| GpuDevice {
            uuid: (*uuid).to_string(),
            model: "t4".into(),
            memory: Bytes(1),
            mig: None,
            healthy: true,
        };
        Inventory {
            boot: BootId::from_u128(boot),
            amounts: Amounts::ZERO,
            devices: uuids.iter().map(device).collect(),
            labels: Vec::new(),
            address: "a".into(),
            version: "1".into(),
            conditions: Vec::new(),
            checked: 0,
            setup: None,
        }
    }

    fn told(inventory: &Inventory) -> String {
        let one = |device: &GpuDevice| {
            let mark = if device.healthy { "" } else { "!" };
            format!("{}{mark}", device.uuid)
        };
        inventory.devices.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn devices_keep_their_positions_until_the_next_boot() {
        let before = inventory(1, &["a", "b", "c"]);
        for (boot, found, gpus, expected) in [
            (1, &["c", "b", "a"][..], GpuFinding::Nvml, "a b c"),
            (1, &["c", "a"], GpuFinding::Nvml, "a b! c"),
            (1, &["x", "c", "a", "b"], GpuFinding::Nvml, "a b c x"),
            (1, &[], GpuFinding::TimedOut, "a b c"),
            (1, &[], GpuFinding::Nvml, "a! b! c!"),
            (2, &["c", "a"], GpuFinding::Nvml, "c a"),
        ] {
            let new = settled(Some(&before), inventory(boot, found), &gpus);
            assert_eq!(told(&new), expected);
        }
        assert_eq!(told(&settled(None, inventory(1, &["z"]), &GpuFinding::Nvml)), "z");
    }

    #[test]
    fn a_device_that_comes_back_is_healthy_again() {
        let before =
            settled(Some(&inventory(1, &["a", "b"])), inventory(1, &["b"]), &GpuFinding::Nvml);
        assert_eq!(told(&before), "a! b");
        let again = settled(Some(&before), inventory(1, &["a", "b"]), &GpuFinding::Nvml);
        assert_eq!(told(&again), "a b");
    }
}
