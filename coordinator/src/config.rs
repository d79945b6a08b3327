//! The file of a member's settings: addresses and paths. What concerns the whole cluster is
//! replicated, and not here.

use crate::proposer::{DiskOptions, ROUND_TRIP_MS};
use crate::service::Options;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use yard_core::lease::{LEASE_MS_MAX, LEASE_MS_MIN, LeaseTimes};
use yard_runtime::config::{self, ConfigError, Section, Setting};

/// The slowest links that members are made for, in milliseconds: other waits of theirs are fixed.
const ROUND_TRIP_MS_MAX: u64 = 300;
/// The most room on a disk that a setting may ask for, in MiB: 1 TiB.
const DISK_MIB_MAX: u64 = 1 << 20;

impl Options {
    /// Where a member's folder is unless somebody says otherwise.
    pub const FOLDER: &str = "/var/lib/yard/coordinator";
    /// Where a member listens unless somebody says otherwise.
    pub const LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 7100);

    /// Reads a file of settings. Every problem is told at once.
    ///
    /// # Errors
    /// If the file cannot be read, or has problems.
    pub fn read(path: &Path) -> Result<Options, ConfigError> {
        config::read(path, Options::build)
    }

    /// Every setting of a file.
    #[must_use]
    pub fn settings() -> Vec<Setting> {
        config::settings(Options::build)
    }

    fn build(root: &mut Section<'_>) -> Option<Options> {
        root.about("Where it keeps its keys, its certificate and its log");
        let folder: PathBuf = root.path("folder", Path::new(Options::FOLDER));
        root.about("The account that it runs as; what root makes for it is handed to this one");
        let user = root.optional("user", "the name of an account");
        root.about("Where users, agents and the other coordinators connect");
        let listen = root.value("listen", Options::LISTEN, "an address such as \"0.0.0.0:7100\"");
        let default_ms = LeaseTimes::DEFAULT.lease_ms();
        root.about(
            "The longest lease that a pool may have, in milliseconds; the same on all coordinators",
        );
        let lease_ms = root.number("longest_lease_ms", default_ms, LEASE_MS_MIN..=LEASE_MS_MAX);
        let disk = disk(root);
        root.about(
            "One and a half times the longest usual round trip to another coordinator, in \
             milliseconds; the same on all coordinators",
        );
        let round_trip_ms =
            root.number("round_trip_ms", ROUND_TRIP_MS, ROUND_TRIP_MS..=ROUND_TRIP_MS_MAX);
        let lease = times(lease_ms);
        Some(Options { user, lease, disk, round_trip_ms, ..Options::new(folder, listen) })
    }
}

fn disk(root: &mut Section<'_>) -> DiskOptions {
    let DiskOptions { stuck_ms, floor_bytes, reserve_bytes } = DiskOptions::DEFAULT;
    root.about("With less free space than this, in MiB, it takes no new work");
    let floor_mib = root.number("disk_floor_mib", floor_bytes >> 20, 0..=DISK_MIB_MAX);
    // A frame of the log must fit into what is kept.
    root.about("Space that is kept for what must go on then, in MiB");
    let reserve_mib = root.number("disk_reserve_mib", reserve_bytes >> 20, 1..=DISK_MIB_MAX);
    root.about("A leader whose flush takes longer hands over, in milliseconds");
    let stuck_ms = root.number("disk_stuck_ms", stuck_ms, 100..=60_000);
    DiskOptions { stuck_ms, floor_bytes: floor_mib << 20, reserve_bytes: reserve_mib << 20 }
}

/// The times of a lease of this length, within its bounds: renewed six times, as the default one.
fn times(lease_ms: u64) -> LeaseTimes {
    LeaseTimes::new(lease_ms, lease_ms / 6, 200).expect("the range of the setting is legal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lease_in_range_has_legal_times() {
        for lease_ms in [LEASE_MS_MIN, 1_001, 3_000, 7_777, LEASE_MS_MAX] {
            assert_eq!(times(lease_ms).lease_ms(), lease_ms);
        }
        assert_eq!(times(3_000), LeaseTimes::DEFAULT);
    }

    #[test]
    fn every_setting_says_what_it_is_for() {
        let silent: Vec<_> =
            Options::settings().into_iter().filter(|one| one.about.is_empty()).collect();
        assert_eq!(silent, [], "say it with Section::about");
    }

    #[test]
    fn a_file_is_read_with_defaults_and_told_every_problem() {
        let options = config::parse("listen = \"127.0.0.1:1\"", "c.toml", Options::build).unwrap();
        assert_eq!(options.listen, "127.0.0.1:1".parse().unwrap());
        assert_eq!(options.folder, Path::new(Options::FOLDER));
        assert_eq!(options.disk, DiskOptions::DEFAULT);
        assert_eq!(options.round_trip_ms, 40);
        let slow = config::parse("round_trip_ms = 250", "c.toml", Options::build).unwrap();
        assert_eq!(slow.round_trip_ms, 250);
        let text = "disk_floor_mib = 3\ndisk_reserve_mib = 2\ndisk_stuck_ms = 100";
        let disk = config::parse(text, "c.toml", Options::build).unwrap().disk;
        assert_eq!((disk.floor_bytes, disk.reserve_bytes, disk.stuck_ms), (3 << 20, 2 << 20, 100));
        let bad = "listen = \"x\"\nlongest_lease_ms = 1\nfoldr = \"/x\"\nround_trip_ms = 301\n";
        let error = config::parse(bad, "c.toml", Options::build).unwrap_err();
        assert_eq!(error.problems().len(), 4, "{error}");
    }
}
