//! A file that has no name before it is whole: whatever ends the process, nothing of it is left.

use crate::files::{FileError, flush_folder};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A new file, to be written and then put in its place.
#[derive(Debug)]
pub struct FreshFile {
    file: File,
    folder: PathBuf,
    /// The name that it has meanwhile, where the file system makes no file without one.
    name: Option<Temporary>,
}

impl FreshFile {
    /// Makes one in a folder.
    ///
    /// # Errors
    /// If it cannot be made there.
    pub fn create(folder: &Path, mode: u32) -> Result<FreshFile, FileError> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(CWD, folder, flags, Mode::from_raw_mode(mode)) {
            Ok(file) => {
                Ok(FreshFile { file: file.into(), folder: folder.to_path_buf(), name: None })
            }
            // Of old kernels and of file systems that cannot: the folder itself would be opened.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                FreshFile::with_a_name(folder, mode)
            }
            Err(error) => Err(FileError::Open(folder.to_path_buf(), error.into())),
        }
    }

    /// Makes one with a hidden name.
    fn with_a_name(folder: &Path, mode: u32) -> Result<FreshFile, FileError> {
        let path = folder.join(format!(".new.{:016x}", rand::random::<u64>()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let file = options.open(&path).map_err(|error| FileError::Open(path.clone(), error))?;
        Ok(FreshFile { file, folder: folder.to_path_buf(), name: Some(Temporary(path)) })
    }

    /// What is written to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Whether a signal that ends the process would leave it behind.
    #[must_use]
    pub fn has_a_name(&self) -> bool {
        self.name.is_some()
    }

    /// Gives it its name in the folder, once all of it is on the disk. Replaces nothing.
    ///
    /// # Errors
    /// The step that failed, and if there is something of that name.
    pub fn put(self, path: &Path) -> Result<(), FileError> {
        let FreshFile { file, folder, name } = self;
        file.sync_all().map_err(|error| FileError::Flush(path.to_path_buf(), error))?;
        let linked = match &name {
            Some(Temporary(name)) => std::fs::hard_link(name, path),
            None => {
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
            }
        };
        linked.map_err(|error| FileError::Rename(path.to_path_buf(), error))?;
        drop(name);
        flush_folder(&folder)
    }
}

/// A name that goes, whether or not the file got another one.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::PRIVATE;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    type Make = fn(&Path, u32) -> Result<FreshFile, FileError>;

    fn count(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        let ways: [Make; 2] = [FreshFile::create, FreshFile::with_a_name];
        for (nth, make) in ways.into_iter().enumerate() {
            let path = folder.join(format!("file-{nth}"));
            let mut fresh = make(folder, PRIVATE).unwrap();
            fresh.file().write_all(b"whole").unwrap();
            assert!(!path.exists());
            fresh.put(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"whole");
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            // It replaces nothing, and one that is dropped leaves nothing.
            let taken = make(folder, PRIVATE).unwrap().put(&path);
            assert!(matches!(taken, Err(FileError::Rename(..))), "{taken:?}");
            drop(make(folder, PRIVATE).unwrap());
            assert_eq!(count(folder), nth + 1);
        }
        assert!(matches!(
            FreshFile::create(&folder.join("absent"), PRIVATE),
            Err(FileError::Open(..))
        ));
    }

    #[test]
    fn nothing_is_seen_of_it_before() {
        let root = tempfile::tempdir().unwrap();
        let mut fresh = FreshFile::create(root.path(), PRIVATE).unwrap();
        fresh.file().write_all(b"keys").unwrap();
        assert_eq!(count(root.path()), usize::from(fresh.has_a_name()));
    }
}
