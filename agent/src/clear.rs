//! The end of everything that an agent without a process has left running: for machines that leave
//! a cluster, and for clusters of one machine that are stopped as a whole.
//!
//! Shims die first: what they have not recorded then counts as lost with the machine, so that no
//! job is billed for it.

use crate::driver::Remains;
use crate::launch::{self, Orders};
use crate::paths::{Paths, from_tag, tag};
use crate::process;
use crate::shim::record::History;
use crate::shim::{DETAIL, LOCK, RECORD, SOCKET};
use crate::wire::short_path;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;
use yard_core::agent::AssignmentId;

/// How long the kernel may take to end what was killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(10);

/// Why something may still run.
#[derive(Debug, Error)]
pub enum ClearError {
    /// The shims cannot be listed.
    #[error("the shims in {} cannot be listed", .0.display())]
    List(PathBuf, #[source] io::Error),
    /// The deadlines of the shims that ended cannot be removed.
    #[error("{} cannot be removed", .0.display())]
    Lease(PathBuf, #[source] io::Error),
    /// The kernel does not end a process; it may hang in a file system.
    #[error(
        "{0} assignments in {path} do not end; a process may hang in a file system",
        path = .1.display()
    )]
    Left(usize, PathBuf),
}

/// Kills every shim and rank of an agent's directory, and waits until they are gone. The agent
/// itself must not run. Returns how many assignments were ended.
///
/// # Errors
/// If the directory cannot be read, or processes do not end.
pub fn clear(directory: &Path) -> Result<usize, ClearError> {
    let mut left = assignments(directory)?;
    left.retain(|(id, at)| !end_one(*id, at));
    let ended = left.len();
    let end = Instant::now() + PATIENCE;
    while !left.is_empty() {
        if Instant::now() > end {
            return Err(ClearError::Left(left.len(), directory.to_path_buf()));
        }
        std::thread::sleep(LOOK);
        left.retain(|(id, at)| !end_one(*id, at));
    }
    forget_maintenance(directory)?;
    Ok(ended)
}

/// How many assignments of an agent's directory have a shim that lives, whether or not the agent
/// runs.
///
/// # Errors
/// If the directory cannot be read.
pub fn living(directory: &Path) -> Result<usize, ClearError> {
    Ok(assignments(directory)?.iter().filter(|(_, at)| is_alive(at)).count())
}

/// The assignments of an agent's directory.
fn assignments(directory: &Path) -> Result<Vec<(AssignmentId, PathBuf)>, ClearError> {
    let shims = Paths::new(directory).shims();
    let entries = match std::fs::read_dir(&shims) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ClearError::List(shims, error)),
    };
    let found = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((from_tag(entry.file_name().to_str()?)?, entry.path())));
    Ok(found.collect())
}

/// Nobody lives on the time that was granted when the agent left, so that the next agent can give
/// it back.
fn forget_maintenance(directory: &Path) -> Result<(), ClearError> {
    let lease = Paths::new(directory).lease();
    match std::fs::remove_file(&lease) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ClearError::Lease(lease, error)),
    }
}

/// Whether a shim holds the lock of its directory.
fn is_alive(at: &Path) -> bool {
    File::open(at.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_err())
}

/// Kills what there is of one assignment. Returns whether nothing was left.
fn end_one(id: AssignmentId, at: &Path) -> bool {
    if is_alive(at) {
        if let Some(shim) = shim_of(at) {
            process::kill_all(&[shim]);
        }
        return false;
    }
    let orders = std::fs::read(at.join(DETAIL)).ok();
    let Some(orders) = orders.and_then(|bytes| Orders::from_bytes(&bytes).ok()) else {
        // A shim that could not read them either started nothing.
        return true;
    };
    let history = History::read(&at.join(RECORD)).unwrap_or_default();
    let this_boot = history.boot == Some(orders.site.boot);
    let mains = if this_boot { history.processes } else { Vec::new() };
    let group = orders.site.cgroups().find(&tag(id));
    Remains::new(group, launch::mark(&orders.site, &tag(id)), mains).kill()
}

/// Who listens on the socket of a shim.
fn shim_of(at: &Path) -> Option<i32> {
    let directory = File::open(at).ok()?;
    let stream = UnixStream::connect(short_path(&directory, SOCKET)).ok()?;
    Some(getsockopt(&stream, PeerCredentials).ok()?.pid())
}
