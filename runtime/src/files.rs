//! Small files that must be there after a crash, whole, and private ones.
//!
//! A file is written beside its place, flushed, and renamed; then its folder is flushed. So a
//! reader sees the old content or the new one, never a part, and a reported write outlasts a
//! crash. An error of a flush is final: the kernel may have dropped the data (ARCHITECTURE.md,
//! rule 9), so nothing here tries again.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of files that hold a key.
pub const PRIVATE: u32 = 0o600;
/// The file of a folder that [`FolderLock`] locks.
pub const LOCK_FILE: &str = "lock";
/// Mode of files that everybody may read.
pub const PUBLIC: u32 = 0o644;

/// What went wrong with a file, and in which step.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be opened.
    #[error("cannot open {}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// It could not be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is larger than anything that belongs there.
    #[error("{} is larger than {} bytes", .0.display(), .1)]
    TooLarge(PathBuf, usize),
    /// It is not UTF-8.
    #[error("{} is not UTF-8", .0.display())]
    NotText(PathBuf),
    /// Others than its owner may read or write it.
    #[error("{} has mode {:03o}: others may get at it; run chmod go= on it", .0.display(), .1)]
    NotPrivate(PathBuf, u32),
    /// It belongs to somebody else.
    #[error("{} belongs to uid {}, not to uid {} that runs this", .0.display(), .1, .2)]
    NotOurs(PathBuf, u32, u32),
    /// The path has no folder to write in.
    #[error("{} is no path of a file", .0.display())]
    NoFolder(PathBuf),
    /// The new content could not be written.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The new content could not be flushed. Never tried again.
    #[error("cannot flush {}", .0.display())]
    Flush(PathBuf, #[source] io::Error),
    /// The new content could not be put in place.
    #[error("cannot rename {} into place", .0.display())]
    Rename(PathBuf, #[source] io::Error),
    /// The folder could not be made.
    #[error("cannot make the folder {}", .0.display())]
    MakeFolder(PathBuf, #[source] io::Error),
    /// Another process works in the folder.
    #[error("{} is in use by another process{}", .0.display(), pid(.1))]
    Locked(PathBuf, String),
}

fn pid(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" (pid {text})") }
}

/// Replaces the content of a file, durably: once this returns, a crash does not undo it, and at
/// no moment is there a part of it.
///
/// # Errors
/// The step that failed. The file then holds the old content or the new one.
pub fn write_durably(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| FileError::NoFolder(path.to_path_buf()))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}", rand::random::<u64>()));
    let temporary = folder.join(temporary);
    let result = write_new(&temporary, content, mode)
        .and_then(|()| {
            let failed = |error| FileError::Rename(path.to_path_buf(), error);
            std::fs::rename(&temporary, path).map_err(failed)
        })
        .and_then(|()| flush_folder(folder));
    if result.is_err() {
        // Best effort: what is left carries a random name and harms nobody.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file =
        options.open(path).map_err(|error| FileError::Open(path.to_path_buf(), error))?;
    // The umask may have taken bits away that were asked for.
    let permissions = std::fs::Permissions::from_mode(mode);
    let write = |error| FileError::Write(path.to_path_buf(), error);
    file.set_permissions(permissions).map_err(write)?;
    file.write_all(content).map_err(write)?;
    file.sync_all().map_err(|error| FileError::Flush(path.to_path_buf(), error))
}

/// Makes what was created, renamed or removed in a folder outlast a crash.
///
/// # Errors
/// If the folder cannot be opened or flushed.
pub fn flush_folder(folder: &Path) -> Result<(), FileError> {
    let file = File::open(folder).map_err(|error| FileError::Open(folder.to_path_buf(), error))?;
    file.sync_all().map_err(|error| FileError::Flush(folder.to_path_buf(), error))
}

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// If it cannot be read, or is larger.
pub fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|error| FileError::Open(path.to_path_buf(), error))?;
    read_open(path, &file, bytes_max)
}

/// Reads a text of at most `bytes_max` bytes.
///
/// # Errors
/// If it cannot be read, is larger, or is not UTF-8.
pub fn read_text(path: &Path, bytes_max: usize) -> Result<String, FileError> {
    let bytes = read(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText(path.to_path_buf()))
}

/// Reads a text that only its owner may get at, such as a key.
///
/// # Errors
/// As [`read_text`], and if others may read or write the file.
pub fn read_private(path: &Path, bytes_max: usize) -> Result<String, FileError> {
    let failed = |error| FileError::Open(path.to_path_buf(), error);
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file, so that nobody can put another in its place meanwhile.
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::NotPrivate(path.to_path_buf(), mode));
    }
    let bytes = read_open(path, &file, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText(path.to_path_buf()))
}

fn read_open(path: &Path, file: &File, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let mut bounded = file.take(bytes_max as u64 + 1);
    let failed = |error| FileError::Read(path.to_path_buf(), error);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(FileError::TooLarge(path.to_path_buf(), bytes_max));
    }
    Ok(bytes)
}

/// Makes a folder that only its owner may enter, with the folders above it; one that is there
/// must be ours, and closed to others.
///
/// # Errors
/// If it cannot be made, belongs to another user, or is open to others.
pub fn private_folder(path: &Path) -> Result<(), FileError> {
    let failed = |error| FileError::MakeFolder(path.to_path_buf(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let found = std::fs::metadata(path).map_err(failed)?;
    let uid = rustix::process::geteuid().as_raw();
    if found.uid() != uid {
        return Err(FileError::NotOurs(path.to_path_buf(), found.uid(), uid));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::NotPrivate(path.to_path_buf(), mode));
    }
    Ok(())
}

/// Holds a folder for this process, until it is dropped or the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// If another process holds it; its pid is named where known.
    pub fn take(folder: &Path) -> Result<FolderLock, FileError> {
        let path = folder.join(LOCK_FILE);
        let failed = |error| FileError::Open(path.clone(), error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_open(&path, &file, 32).unwrap_or_default();
                let holder = String::from_utf8_lossy(&holder).trim().to_string();
                return Err(FileError::Locked(folder.to_path_buf(), holder));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Only for the message above; the lock itself is the kernel's.
        let write = |error| FileError::Write(path.clone(), error);
        file.set_len(0).map_err(write)?;
        file.write_all(std::process::id().to_string().as_bytes()).map_err(write)?;
        Ok(FolderLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_write_replaces_all_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_durably(&path, b"first, and longer", PUBLIC).unwrap();
        write_durably(&path, b"second", PRIVATE).unwrap();
        assert_eq!(read_text(&path, 100).unwrap(), "second");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        let error = write_durably(&path, b"x", PUBLIC).unwrap_err();
        assert!(matches!(error, FileError::Rename(..)), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let lost = folder.path().join("no/such/folder");
        assert!(matches!(write_durably(&lost, b"x", PUBLIC), Err(FileError::Open(..))));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_durably(&path, &[b'x'; 10], PUBLIC).unwrap();
        assert_eq!(read(&path, 10).unwrap().len(), 10);
        assert!(matches!(read(&path, 9), Err(FileError::TooLarge(_, 9))));
        write_durably(&path, b"\xff", PUBLIC).unwrap();
        assert!(matches!(read_text(&path, 9), Err(FileError::NotText(_))));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_durably(&path, b"secret", PRIVATE).unwrap();
        assert_eq!(read_private(&path, 100).unwrap(), "secret");
        write_durably(&path, b"secret", 0o640).unwrap();
        assert!(matches!(read_private(&path, 100), Err(FileError::NotPrivate(_, 0o640))));
    }

    #[test]
    fn a_private_folder_is_made_or_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        private_folder(&path).unwrap();
        private_folder(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(private_folder(&path), Err(FileError::NotPrivate(_, 0o755))));
    }

    #[test]
    fn a_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }
}
