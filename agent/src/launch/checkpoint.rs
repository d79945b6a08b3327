//! How a job is asked for a checkpoint: by a file that it looks for, and by a signal if it names
//! one.

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The file, in the scratch directory of the assignment.
const FILE: &str = "checkpoint-request";

/// Where the job looks for the file.
pub(super) fn path(scratch: &Path) -> PathBuf {
    scratch.join(FILE)
}

/// How the ranks of one assignment are asked.
#[derive(Debug)]
pub(crate) struct CheckpointRequest<'a> {
    pub(super) scratch: &'a Path,
    pub(super) owner: (u32, u32),
    /// For their main processes.
    pub(crate) signal: Option<i32>,
    /// When it is due by itself, from the start of a task.
    pub(crate) due_ms: Option<u64>,
}

impl CheckpointRequest<'_> {
    /// The directory is the user's own, and the one above it is not: nobody can put a link there.
    fn directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(open(self.scratch, flags, Mode::empty())?)
    }

    /// Makes the file, with what asks in it. One that is still there was not heeded yet; whatever
    /// else the job has put in its place is left as it is.
    pub(crate) fn write(&self, why: &str) -> io::Result<()> {
        let (uid, gid) = self.owner;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = match openat(self.directory()?, FILE, flags, Mode::from_bits_truncate(0o600)) {
            Err(nix::errno::Errno::EEXIST) => return Ok(()),
            file => file?,
        };
        if geteuid().is_root() {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        writeln!(File::from(file), "{why}")
    }

    /// Takes away what an earlier task was asked.
    pub(crate) fn clear(&self) {
        if let Ok(directory) = self.directory() {
            let _ = unlinkat(directory, FILE, UnlinkatFlags::NoRemoveDir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_that_a_job_plants_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (scratch, other) = (folder.path().join("scratch"), folder.path().join("other"));
        fs::create_dir(&scratch).unwrap();
        fs::write(&other, "kept").unwrap();
        let owner = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let request = CheckpointRequest { scratch: &scratch, owner, signal: None, due_ms: None };
        symlink(&other, path(&scratch)).unwrap();
        request.write("user").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
        request.clear();
        assert!(other.exists() && !path(&scratch).exists());
        request.write("user").unwrap();
        request.write("time limit").unwrap();
        assert_eq!(fs::read_to_string(path(&scratch)).unwrap(), "user\n");
        // The directory itself is no link either.
        let link = folder.path().join("link");
        symlink(&scratch, &link).unwrap();
        request.clear();
        let request = CheckpointRequest { scratch: &link, ..request };
        assert!(request.write("user").is_err());
        assert!(!path(&scratch).exists());
    }
}
