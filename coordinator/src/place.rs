//! A folder that is complete or not there: it is made beside its place, and then renamed into it.

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use yard_runtime::files::{self, FileError, FolderLock};

/// Why a folder is not made.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// There is something in the folder.
    #[error("{} is not empty; it may be that of a member already", .0.display())]
    Exists(PathBuf),
    /// The folder is a link, or a file system of its own: nothing can be put in its place.
    #[error("{path} is {1}, and no new folder can be put in its place", path = .0.display())]
    Fixed(PathBuf, &'static str),
    /// The folder has no place beside it.
    #[error("{} is no path of a folder", .0.display())]
    NoFolder(PathBuf),
    /// Another process makes the folder at this very time.
    #[error("another process makes {} at this moment", .0.display())]
    Busy(PathBuf, #[source] FileError),
    /// A step of the file system.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The step.
        step: &'static str,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// A file.
    #[error("a file of the folder failed")]
    File(#[from] FileError),
}

/// A path without a slash at its end, behind which the system would follow a link.
pub(crate) fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Where a folder is to be, and where it is made.
pub(crate) struct Place {
    folder: PathBuf,
    parent: PathBuf,
    beside: PathBuf,
}

impl Place {
    /// The place of a folder. `word` ends the name of the one beside it.
    pub(crate) fn of(folder: &Path, word: &str) -> Result<Place, PlaceError> {
        let folder = plain(folder);
        let name = folder.file_name().ok_or_else(|| PlaceError::NoFolder(folder.clone()))?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).to_path_buf();
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(".");
        beside.push(word);
        let beside = parent.join(beside);
        Ok(Place { folder: folder.clone(), parent, beside })
    }

    /// The folder in which it is made.
    pub(crate) fn beside(&self) -> &Path {
        &self.beside
    }

    /// Refuses a folder that has something in it, or that [`Place::put`] could not replace.
    pub(crate) fn check(&self) -> Result<(), PlaceError> {
        match statx(CWD, &self.folder, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
            Ok(found) => {
                let mode = u32::from(found.stx_mode);
                if rustix::fs::FileType::from_raw_mode(mode).is_symlink() {
                    return Err(PlaceError::Fixed(self.folder.clone(), "a link"));
                }
                if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                    let what = "a file system of its own";
                    return Err(PlaceError::Fixed(self.folder.clone(), what));
                }
            }
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(&self.folder, "look at")(error.into())),
        }
        match std::fs::read_dir(&self.folder) {
            Ok(mut entries) => match entries.next() {
                None => Ok(()),
                Some(_) => Err(PlaceError::Exists(self.folder.clone())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&self.folder, "read")(error)),
        }
    }

    /// Removes what an earlier try left behind.
    pub(crate) fn clear(&self) -> Result<(), PlaceError> {
        match std::fs::remove_dir_all(&self.beside) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&self.beside, "remove")(error)),
        }
    }

    /// Makes the folder beside the place, closed to others, and takes it for this process; one that
    /// is there stays. Then the place is checked: whoever had it before may have put it there.
    pub(crate) fn begin(&self) -> Result<FolderLock, PlaceError> {
        files::private_folder(&self.beside)?;
        let lock = FolderLock::take(&self.beside).map_err(|error| match error {
            FileError::Locked(..) => PlaceError::Busy(self.folder.clone(), error),
            error => PlaceError::File(error),
        })?;
        self.check()?;
        Ok(lock)
    }

    /// The same, without what an earlier try left in it.
    pub(crate) fn begin_anew(&self) -> Result<FolderLock, PlaceError> {
        let lock = self.begin()?;
        let entries = std::fs::read_dir(&self.beside).map_err(failed(&self.beside, "read"))?;
        for entry in entries {
            let entry = entry.map_err(failed(&self.beside, "read"))?;
            let (path, kind) = (entry.path(), entry.file_type());
            let removed = match kind.map_err(failed(&path, "look at"))?.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false if entry.file_name() == files::LOCK_FILE => Ok(()),
                false => std::fs::remove_file(&path),
            };
            removed.map_err(failed(&path, "remove"))?;
        }
        Ok(lock)
    }

    /// Puts the folder in its place, over an empty one if there is one.
    pub(crate) fn put(self) -> Result<(), PlaceError> {
        let rename = std::fs::rename(&self.beside, &self.folder);
        rename.map_err(failed(&self.folder, "put in place"))?;
        Ok(files::flush_folder(&self.parent)?)
    }
}

/// A step of the file system that failed.
fn failed(path: &Path, step: &'static str) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_path_buf();
    move |source| PlaceError::Io { path, step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_replaced_passes() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| Place::of(&root.path().join(name), "new").unwrap().check();
        assert!(at("absent").is_ok());
        std::fs::create_dir(root.path().join("empty")).unwrap();
        assert!(at("empty").is_ok());
        std::os::unix::fs::symlink(root.path().join("empty"), root.path().join("link")).unwrap();
        for link in ["link", "link/", "link/."] {
            assert!(matches!(at(link), Err(PlaceError::Fixed(_, "a link"))), "{link}");
        }
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        assert!(matches!(at("dangling"), Err(PlaceError::Fixed(_, "a link"))));
        std::fs::create_dir_all(root.path().join("full/of")).unwrap();
        assert!(matches!(at("full"), Err(PlaceError::Exists(_))));
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(matches!(at("file"), Err(PlaceError::Io { step: "read", .. })));
        let mount = Place::of(Path::new("/proc"), "new").unwrap().check();
        assert!(matches!(mount, Err(PlaceError::Fixed(_, "a file system of its own"))));
    }
    #[test]
    fn one_process_at_a_time_makes_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let place = || Place::of(&root.path().join("member"), "new").unwrap();
        let lock = place().begin_anew().unwrap();
        std::fs::write(place().beside().join("half"), "").unwrap();
        let busy = place().begin_anew();
        assert!(matches!(busy, Err(PlaceError::Busy(..))), "{busy:?}");
        assert!(place().beside().join("half").exists(), "it is the first one's");
        drop(lock);
        // What a crash left goes.
        std::fs::create_dir(place().beside().join("folder")).unwrap();
        let lock = place().begin_anew().unwrap();
        assert_eq!(std::fs::read_dir(place().beside()).unwrap().count(), 1, "the lock is there");
        std::fs::write(place().beside().join("whole"), "").unwrap();
        place().put().unwrap();
        drop(lock);
        assert!(matches!(place().begin_anew(), Err(PlaceError::Exists(_))));
    }
}
