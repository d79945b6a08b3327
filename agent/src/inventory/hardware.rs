//! What people want to know of a machine, and nothing is placed by: processors, networks, disks.

use std::fs;
use std::path::Path;
use yard_common::limits::{DISKS_MAX, LABEL_BYTES_MAX, NETWORKS_MAX};

/// The machine, but for its GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hardware {
    /// The processor, as the kernel names it.
    pub(crate) cpu_model: String,
    /// CPUs of each NUMA node, such as `0-31,64-95`.
    pub(crate) numa: Vec<String>,
    pub(crate) networks: Vec<Network>,
    pub(crate) disks: Vec<Disk>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) name: String,
    /// Megabits a second; 0: not known.
    pub(crate) speed_mbit: u64,
    pub(crate) up: bool,
    /// Its device for direct access to memory, with the state of the port; empty: none.
    pub(crate) rdma: String,
}

/// A file system on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) mounted_at: String,
    pub(crate) kind: String,
    pub(crate) bytes: u64,
    pub(crate) free_bytes: u64,
}

/// Looks at this machine.
pub(crate) fn look() -> Hardware {
    let sys = Path::new("/sys");
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Hardware {
        cpu_model: cpu_model(&cpus),
        numa: numa(sys),
        networks: networks(sys),
        disks: disks(),
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let named = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let key = key.trim();
        (key == "model name" || key == "Processor").then(|| short(value.trim()))
    };
    cpuinfo.lines().find_map(named).unwrap_or_default()
}

/// The text of a small file of the kernel.
fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| short(text.trim()))
}

fn short(text: &str) -> String {
    text.chars().take(LABEL_BYTES_MAX / 4).collect()
}

/// Names in a folder of the kernel, sorted.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn numa(sys: &Path) -> Vec<String> {
    let folder = sys.join("devices/system/node");
    let number = |name: &String| name.strip_prefix("node")?.parse::<u32>().ok();
    let mut nodes: Vec<u32> = names(&folder).iter().filter_map(number).collect();
    nodes.sort_unstable();
    let cpus = |node: &u32| text(&folder.join(format!("node{node}/cpulist"))).unwrap_or_default();
    nodes.iter().take(NETWORKS_MAX).map(cpus).collect()
}

/// Interfaces of real devices: what software made up has no device behind it.
fn networks(sys: &Path) -> Vec<Network> {
    let folder = sys.join("class/net");
    let one = |name: &String| {
        let home = folder.join(name);
        let device = home.join("device");
        if !device.exists() {
            return None;
        }
        let speed = text(&home.join("speed")).and_then(|text| text.parse().ok());
        let up = text(&home.join("operstate")).is_some_and(|state| state == "up");
        let rdma = names(&device.join("infiniband"));
        let rdma = rdma.first().map(|device| port(sys, device)).unwrap_or_default();
        Some(Network { name: short(name), speed_mbit: speed.unwrap_or(0), up, rdma })
    };
    let mut found: Vec<Network> = names(&folder).iter().filter_map(one).collect();
    // Devices without an interface of their own.
    for device in names(&sys.join("class/infiniband")) {
        let told = port(sys, &device);
        if !found.iter().any(|network| network.rdma == told) {
            found.push(Network { name: short(&device), rdma: told, ..Network::default() });
        }
    }
    found.truncate(NETWORKS_MAX);
    found
}

/// `mlx5_0 (4: ACTIVE, 200 Gb/sec (4X HDR))`: a device with the state and speed of its first port.
fn port(sys: &Path, device: &str) -> String {
    let ports = sys.join("class/infiniband").join(device).join("ports");
    let first = names(&ports).into_iter().next();
    let read = |file: &str| first.as_ref().and_then(|port| text(&ports.join(port).join(file)));
    match (read("state"), read("rate")) {
        (Some(state), Some(rate)) => short(&format!("{device} ({state}, {rate})")),
        (Some(state), None) => short(&format!("{device} ({state})")),
        (None, _) => short(device),
    }
}

/// File systems on disks of this machine. Those of other machines may hang, and are not touched.
fn disks() -> Vec<Disk> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut disks: Vec<Disk> = local_mounts(&mounts).into_iter().filter_map(disk).collect();
    disks.truncate(DISKS_MAX);
    disks
}

fn disk((at, kind): (String, String)) -> Option<Disk> {
    let found = nix::sys::statvfs::statvfs(at.as_str()).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Some(Disk {
        mounted_at: short(&at),
        kind: short(&kind),
        bytes: bytes(found.blocks()),
        free_bytes: bytes(found.blocks_available()),
    })
}

/// Where file systems of local disks are mounted, each device once, and their kinds.
fn local_mounts(mounts: &str) -> Vec<(String, String)> {
    const LOCAL: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs"];
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(at), Some(kind)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        // The root may lie on something else, and is what everything is below.
        let local = LOCAL.contains(&kind) || at == "/";
        if local && !seen.contains(&device) {
            seen.push(device);
            found.push((at.replace("\\040", " "), kind.to_string()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn networks_have_speed_and_what_reaches_memory_directly() {
        let sys = tempfile::tempdir().unwrap();
        let root = sys.path();
        for (path, text) in [
            ("class/net/eth0/device/vendor", "x"),
            ("class/net/eth0/speed", "100000\n"),
            ("class/net/eth0/operstate", "up\n"),
            ("class/net/eth0/device/infiniband/mlx5_0/x", ""),
            ("class/net/lo/operstate", "unknown\n"),
            ("class/net/eth1/device/vendor", "x"),
            ("class/net/eth1/speed", "-1\n"),
            ("class/net/eth1/operstate", "down\n"),
            ("class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n"),
            ("class/infiniband/mlx5_0/ports/1/rate", "200 Gb/sec (4X HDR)\n"),
            ("class/infiniband/mlx5_7/ports/1/state", "1: DOWN\n"),
        ] {
            write(root, path, text);
        }
        let found = networks(root);
        let told: Vec<_> =
            found.iter().map(|one| (&*one.name, one.speed_mbit, one.up, &*one.rdma)).collect();
        assert_eq!(
            told,
            [
                ("eth0", 100_000, true, "mlx5_0 (4: ACTIVE, 200 Gb/sec (4X HDR))"),
                ("eth1", 0, false, ""),
                ("mlx5_7", 0, false, "mlx5_7 (1: DOWN)"),
            ]
        );
    }

    #[test]
    fn disks_of_other_machines_are_not_touched() {
        let mounts = "overlay / overlay rw 0 0\nproc /proc proc rw 0 0\n\
                      /dev/sda1 /data\\040one xfs rw 0 0\n/dev/sda1 /again xfs rw 0 0\n\
                      server:/home /home nfs4 rw 0 0\nbad\n";
        let found = local_mounts(mounts);
        let told: Vec<_> = found.iter().map(|(at, kind)| (&**at, &**kind)).collect();
        assert_eq!(told, [("/", "overlay"), ("/data one", "xfs")]);
    }

    #[test]
    fn processors_are_named_and_grouped() {
        let sys = tempfile::tempdir().unwrap();
        write(sys.path(), "devices/system/node/node10/cpulist", "8-11\n");
        write(sys.path(), "devices/system/node/node2/cpulist", "0-7\n");
        write(sys.path(), "devices/system/node/possible", "0-10\n");
        assert_eq!(numa(sys.path()), ["0-7", "8-11"]);
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A B\n"), "A B");
        assert_eq!(cpu_model(""), "");
    }
}
