//! Whether the machine and its GPUs are well: what is looked at, and when. What follows from it is
//! decided by `yard_core::health`.
//!
//! ```text
//!   probe     a thread that asks NVML, round after round --> watch --> session::facts
//!   xids      a thread that waits for errors of the driver --> queue --> session::facts
//!   before    before a job on GPUs: are they clean? and the owner's own check
//! ```
//!
//! **Invariants:** NVML is asked on threads that nobody waits for: a driver that hangs costs a
//! thread, and its GPUs count as not answering. A check that hangs has failed, and is killed.

pub(crate) mod before;
pub(crate) mod command;
mod kmsg;
mod nvml;
mod ours;
pub(crate) mod probe;
pub(crate) mod xids;

pub(crate) use nvml::Detail;
pub(crate) use ours::Ours;

use std::path::PathBuf;
use std::time::Duration;
use yard_core::health::Rules;

/// How health is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file of NVML; none: where the system has it.
    pub library: Option<PathBuf>,
    /// Time between two looks at the GPUs.
    pub every: Duration,
    /// How long NVML may take for one look.
    pub patience: Duration,
    /// Whether GPUs are looked at before each job that uses them.
    pub before_jobs: bool,
    /// Rules for XIDs, other than those of the table.
    pub rules: Rules,
    /// The owner's own check: a program and its words. Empty: none.
    pub command: Vec<String>,
    /// Where the kernel's messages are read.
    pub kmsg: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            library: None,
            every: Duration::from_secs(10),
            patience: Duration::from_millis(yard_common::limits::GPU_PROBE_MS),
            before_jobs: true,
            rules: Rules::default(),
            command: Vec::new(),
            kmsg: PathBuf::from("/dev/kmsg"),
        }
    }
}
