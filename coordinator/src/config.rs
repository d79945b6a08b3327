//! The file of a member's settings: addresses and paths. What concerns the whole cluster is
//! replicated, and not here.

use crate::service::Options;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use yard_core::lease::{LEASE_MS_MAX, LEASE_MS_MIN, LeaseTimes};
use yard_runtime::config::{self, ConfigError, Section};

impl Options {
    /// Where a member's folder is unless somebody says otherwise.
    pub const FOLDER: &str = "/var/lib/yard/coordinator";
    /// Where a member listens unless somebody says otherwise.
    pub const LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 7100);

    /// Reads a file of settings. Every problem is told at once.
    ///
    /// ```toml
    /// folder = "/var/lib/yard/coordinator"
    /// listen = "0.0.0.0:7100"
    /// longest_lease_ms = 3000   # of any pool; the same on all members
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read, or has problems.
    pub fn read(path: &Path) -> Result<Options, ConfigError> {
        config::read(path, Options::build)
    }

    fn build(root: &mut Section<'_>) -> Option<Options> {
        let folder: PathBuf = root.path("folder", Path::new(Options::FOLDER));
        let listen = root.value("listen", Options::LISTEN, "an address such as \"0.0.0.0:7100\"");
        let default_ms = LeaseTimes::DEFAULT.lease_ms();
        let lease_ms = root.number("longest_lease_ms", default_ms, LEASE_MS_MIN..=LEASE_MS_MAX);
        Some(Options { lease: times(lease_ms), ..Options::new(folder, listen) })
    }
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
    fn a_file_is_read_with_defaults_and_told_every_problem() {
        let options = config::parse("listen = \"127.0.0.1:1\"", "c.toml", Options::build).unwrap();
        assert_eq!(options.listen, "127.0.0.1:1".parse().unwrap());
        assert_eq!(options.folder, Path::new(Options::FOLDER));
        let bad = "listen = \"x\"\nlongest_lease_ms = 1\nfoldr = \"/x\"\n";
        let error = config::parse(bad, "c.toml", Options::build).unwrap_err();
        assert_eq!(error.problems().len(), 3, "{error}");
    }
}
