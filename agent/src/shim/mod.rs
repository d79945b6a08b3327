//! The shim: one small, single-threaded process per assignment that outlives the agent.
//!
//! It is our own program with a hidden argument, `yard shim GROUP...`; some of them stand by for
//! assignments that are to come, see `enlist`. It has its own session and cgroup, is the subreaper
//! of everything that its ranks leave behind, and speaks to the agent over a socket in its
//! directory; agents come and go. It holds a lock on its directory for as long as it lives, so that
//! nobody takes a dead shim for a living one.
//!
//! Per exit: `waitid(WNOWAIT)`, record, durable, reap. While an agent is connected, starts and ends
//! are told together, at most `SHIM_HOLD_MS` late, or at once when nothing more starts. The agent
//! makes them durable before it reports them, together with those of other shims; the shim flushes
//! its own record if that takes longer than `SHIM_FLUSH_MS`, and always when it is alone. At most
//! `SHIM_STARTS_AHEAD` tasks start beyond the last end that is durable.
//!
//! **Invariants:** a task starts only under the lease, which is looked at again between fork and
//! exec. A rank's status is in the record before it is reaped. When the shim says `Reaped`, no
//! process of the assignment is left: it has no child, and its cgroup is empty.

mod checkpoint;
mod dial;
mod enlist;
pub(crate) mod message;
mod news;
mod obey;
mod output;
mod patience;
mod peers;
mod pipes;
mod preparation;
mod reap;
pub mod record;
mod run;
mod setup;
mod task;
mod visits;

pub use dial::main as dial_main;
pub(crate) use enlist::enlist;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Names of files in a shim's directory.
pub(crate) const DETAIL: &str = "detail";
/// See [`DETAIL`].
pub(crate) const RECORD: &str = "record";
/// See [`DETAIL`].
pub(crate) const SOCKET: &str = "sock";
/// See [`DETAIL`].
pub(crate) const VISITS: &str = "visit.sock";
/// See [`DETAIL`].
pub(crate) const LOCK: &str = "lock";
/// See [`DETAIL`].
pub(crate) const LOG: &str = "shim.log";
/// See [`DETAIL`]: the CPUs that the agent has chosen, if the job has some for itself.
pub(crate) const CPUS: &str = "cpus";
/// The group of all shims, apart from those of their ranks.
pub(crate) const GROUP: &str = "shims";

/// Stands by in these control groups until the agent, whose connection is the standard input, has
/// an assignment; then runs its shim until the agent lets it go.
#[must_use]
pub fn main(groups: impl Iterator<Item = OsString>) -> ExitCode {
    let run = || match setup::stand_by(groups.map(PathBuf::from).collect())? {
        Some(ready) => setup::setup(ready)?.run(),
        None => Ok(()),
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without its record or its children it has nothing to go on with; what it leaves
            // behind is found and ended by the agent.
            eprintln!("shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a shim gives up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// A step of its start failed.
    #[error("{step}: {source}")]
    Setup {
        /// Which.
        step: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Its record cannot be written.
    #[error("the record cannot be written: {0}")]
    Record(std::io::Error),
    /// It cannot ask about its children.
    #[error("children cannot be waited for: {0}")]
    Wait(std::io::Error),
    /// It cannot wait for events.
    #[error("poll: {0}")]
    Poll(nix::errno::Errno),
}
