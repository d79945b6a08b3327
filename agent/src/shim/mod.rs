//! The shim: one small, single-threaded process per assignment that outlives the agent.
//!
//! It is our own program with a hidden argument, `yard shim DIR`. It has its own session and
//! cgroup, is the subreaper of everything that its ranks leave behind, and speaks to the agent
//! over a socket in its directory; agents come and go. It holds a lock on its directory for as
//! long as it lives, so that nobody takes a dead shim for a living one.
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

mod dial;
pub(crate) mod message;
mod news;
mod obey;
mod peers;
mod reap;
pub mod record;
mod run;
mod setup;
mod task;

pub use dial::main as dial_main;

use std::path::Path;
use std::process::ExitCode;

/// Names of files in a shim's directory.
pub(crate) const DETAIL: &str = "detail";
/// See [`DETAIL`].
pub(crate) const RECORD: &str = "record";
/// See [`DETAIL`].
pub(crate) const SOCKET: &str = "sock";
/// See [`DETAIL`].
pub(crate) const LOCK: &str = "lock";
/// See [`DETAIL`].
pub(crate) const LOG: &str = "shim.log";
/// The group of all shims, apart from those of their ranks.
pub(crate) const GROUP: &str = "shims";

/// Runs the shim of a directory until the agent lets it go. Its standard input is the agent's
/// first connection, its output the lock of the directory, its errors its log.
#[must_use]
pub fn main(directory: &Path) -> ExitCode {
    let result = setup::setup(directory).and_then(run::Shim::run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without its record or its children it has nothing to go on with; what it leaves
            // behind is found and ended by the agent.
            eprintln!("shim {}: {error}", directory.display());
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
