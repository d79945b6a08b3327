//! The directory of `logs.dir`, as the job's user sees it.
//!
//! **Invariant:** below the directory that the job names no link is followed, folder by folder.
//! What is written is a plain file.

use super::is_below;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// An open directory.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
}

impl Place {
    /// Opens a directory, which is made if it is not there.
    pub(super) fn open(dir: &Path) -> io::Result<Place> {
        std::fs::create_dir_all(dir)?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_DIRECTORY);
        Ok(Place { dir: options.open(dir)?.into() })
    }

    /// Opens a folder below it; those on the way are made.
    pub(super) fn folder(&self, path: &str) -> io::Result<OwnedFd> {
        if !is_below(path) {
            return Err(Errno::EINVAL.into());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut at = self.dir.try_clone()?;
        for part in path.split('/') {
            match mkdirat(&at, part, Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO) {
                // Whatever it is that is there: it is opened as a folder.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            at = openat(&at, part, flags, Mode::empty())?;
        }
        Ok(at)
    }

    /// Opens a file below it for writing; it is made if there is none.
    pub(super) fn file(&self, path: &str) -> io::Result<File> {
        let (folder, name) = path.rsplit_once('/').ok_or(Errno::EINVAL)?;
        let folder = self.folder(folder)?;
        if !is_below(name) {
            return Err(Errno::EINVAL.into());
        }
        // Nobody waits for the other end of a pipe.
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o666);
        let file = File::from(openat(&folder, name, flags, mode)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(Errno::EINVAL.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, symlink};

    #[test]
    fn folders_are_made_and_files_go_on_where_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("new/logs");
        let place = Place::open(&at).unwrap();
        place.file("8/attempt-1/0.out").unwrap().write_all_at(b"abc", 0).unwrap();
        let file = Place::open(&at).unwrap().file("8/attempt-1/0.out").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
        file.write_all_at(b"de", 3).unwrap();
        assert_eq!(std::fs::read(at.join("8/attempt-1/0.out")).unwrap(), b"abcde");
    }

    #[test]
    fn what_was_put_in_the_way_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("logs");
        let place = Place::open(&at).unwrap();
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("f"), "kept").unwrap();
        symlink(&outside, at.join("link")).unwrap();
        std::fs::create_dir(at.join("8")).unwrap();
        symlink(outside.join("f"), at.join("8/0.out")).unwrap();
        symlink(outside.join("new"), at.join("8/1.out")).unwrap();
        nix::unistd::mkfifo(&at.join("8/2.out"), Mode::S_IRWXU).unwrap();
        std::fs::create_dir(at.join("8/3.out")).unwrap();
        std::fs::write(at.join("9"), "a file").unwrap();
        for path in [
            "link/0.out",
            "8/0.out",
            "8/1.out",
            "8/2.out",
            "8/3.out",
            "9/0.out",
            "../outside/f",
            "8/../../outside/f",
            "0.out",
            "8/",
        ] {
            assert!(place.file(path).is_err(), "{path}");
        }
        assert_eq!(std::fs::read(outside.join("f")).unwrap(), b"kept");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }
}
