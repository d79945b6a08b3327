//! How a process becomes the shim of an assignment: it stands by until the agent names one.
//!
//! The agent starts it with one end of a socket as its standard input, and names the control
//! groups to enter as arguments: all that takes time and is the same for every assignment is done
//! before there is one. The agent then sends the directory, with the lock of the directory and the
//! log of the shim as open files. So the lock is held at every moment: first by the agent, then by
//! the message, then by the shim.

use super::message::FromShim;
use crate::cgroup::{self, CgroupError};
use crate::sys;
use crate::wire;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use yard_common::limits::SHIM_PATH_BYTES_MAX;

/// A process that stands by.
pub(super) struct StandBy {
    pub(super) stream: UnixStream,
    /// The groups that it was to enter.
    pub(super) groups: Vec<PathBuf>,
    /// Whether it is in all of them.
    pub(super) entered: Result<(), CgroupError>,
}

/// What the agent made of it.
pub(super) struct Enlisted {
    pub(super) directory: PathBuf,
    pub(super) lock: OwnedFd,
    pub(super) log: OwnedFd,
    pub(super) stand_by: StandBy,
}

impl StandBy {
    /// Enters the groups. That may fail; whoever is enlisted says so.
    pub(super) fn new(stream: OwnedFd, groups: Vec<PathBuf>) -> StandBy {
        let entered = groups.iter().try_for_each(|group| cgroup::enter(group));
        StandBy { stream: UnixStream::from(stream), groups, entered }
    }

    /// Waits until the agent needs it. None: the agent is gone, and nobody needs it any more.
    pub(super) fn wait(mut self) -> io::Result<Option<Enlisted>> {
        // An agent that is gone already is seen below.
        let _ = self.stream.write_all(&wire::frame(&FromShim::Ready));
        let mut head = [0; 4];
        let (count, files) = match sys::receive_files(self.stream.as_fd(), &mut head) {
            // An agent that died had not heard that somebody stands by.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            received => received?,
        };
        if count == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut head[count..])?;
        let len = u32::from_le_bytes(head) as usize;
        let [lock, log] = <[OwnedFd; 2]>::try_from(files)
            .map_err(|files| io::Error::other(format!("{} files came", files.len())))?;
        if len > SHIM_PATH_BYTES_MAX {
            return Err(io::Error::other(format!("a path of {len} bytes")));
        }
        let mut path = vec![0; len];
        self.stream.read_exact(&mut path)?;
        let directory = PathBuf::from(OsString::from_vec(path));
        Ok(Some(Enlisted { directory, lock, log, stand_by: self }))
    }
}

/// Names the assignment to a process that stands by, or is about to.
pub(crate) fn enlist(to: BorrowedFd<'_>, at: &Path, lock: &File, log: &File) -> io::Result<()> {
    let path = at.as_os_str().as_bytes();
    if path.len() > SHIM_PATH_BYTES_MAX {
        return Err(io::Error::other(format!("a path of {} bytes", path.len())));
    }
    let head = (path.len() as u32).to_le_bytes();
    let files = [lock.as_raw_fd(), log.as_raw_fd()];
    let files = [ControlMessage::ScmRights(&files)];
    let parts = [IoSlice::new(&head), IoSlice::new(path)];
    let sent = sendmsg::<()>(to.as_raw_fd(), &parts, &files, MsgFlags::MSG_NOSIGNAL, None)?;
    // It is the first message, and much shorter than what a socket holds.
    match sent == head.len() + path.len() {
        true => Ok(()),
        false => Err(io::Error::other("the order did not go out whole")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn pair() -> (UnixStream, StandBy) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, StandBy::new(theirs.into(), Vec::new()))
    }

    #[test]
    fn the_lock_is_held_from_the_order_on() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name| File::create(directory.path().join(name)).unwrap();
        let (ours, stand_by) = pair();
        let (lock, log) = (open("lock"), open("log"));
        lock.try_lock().unwrap();
        enlist(ours.as_fd(), directory.path(), &lock, &log).unwrap();
        drop(lock);
        let is_free = || open("lock").try_lock().is_ok();
        assert!(!is_free(), "the message holds it");
        let enlisted = stand_by.wait().unwrap().unwrap();
        assert_eq!(enlisted.directory, directory.path());
        let same = File::from(enlisted.log).metadata().unwrap().ino();
        assert_eq!(same, log.metadata().unwrap().ino());
        assert!(!is_free(), "the shim holds it");
        drop(enlisted.lock);
        assert!(is_free());
    }

    #[test]
    fn an_order_that_nobody_took_frees_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = File::create(directory.path().join("lock")).unwrap();
        let (ours, stand_by) = pair();
        lock.try_lock().unwrap();
        enlist(ours.as_fd(), directory.path(), &lock, &lock).unwrap();
        drop(lock);
        drop(stand_by);
        let again = File::create(directory.path().join("lock")).unwrap();
        assert!(again.try_lock().is_ok());
    }

    #[test]
    fn without_an_agent_nobody_waits() {
        let (ours, stand_by) = pair();
        drop(ours);
        assert!(stand_by.wait().unwrap().is_none());
    }

    #[test]
    fn what_is_no_order_is_an_error() {
        let (mut ours, stand_by) = pair();
        ours.write_all(&7u32.to_le_bytes()).unwrap();
        assert!(stand_by.wait().is_err());
        let long = PathBuf::from("x".repeat(SHIM_PATH_BYTES_MAX + 1));
        let file = File::open("/dev/null").unwrap();
        let (ours, _stand_by) = pair();
        assert!(enlist(ours.as_fd(), &long, &file, &file).is_err());
    }
}
