//! A folder that is complete or not there: it is made beside its place, and then renamed into it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use yard_runtime::files::{self, FileError};

/// Why a folder is not made.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// There is something in the folder.
    #[error("{} is not empty; it may be that of a member already", .0.display())]
    Exists(PathBuf),
    /// The folder has no place beside it.
    #[error("{} is no path of a folder", .0.display())]
    NoFolder(PathBuf),
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

/// Where a folder is to be, and where it is made.
pub(crate) struct Place {
    folder: PathBuf,
    parent: PathBuf,
    beside: PathBuf,
}

impl Place {
    /// The place of a folder. `word` ends the name of the one beside it.
    pub(crate) fn of(folder: &Path, word: &str) -> Result<Place, PlaceError> {
        let name = folder.file_name().ok_or_else(|| PlaceError::NoFolder(folder.to_path_buf()))?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).to_path_buf();
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(".");
        beside.push(word);
        let beside = parent.join(beside);
        Ok(Place { folder: folder.to_path_buf(), parent, beside })
    }

    /// The folder in which it is made.
    pub(crate) fn beside(&self) -> &Path {
        &self.beside
    }

    /// Refuses a folder that has something in it.
    pub(crate) fn check_empty(&self) -> Result<(), PlaceError> {
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

    /// Makes the folder beside the place, closed to others; one that is there stays.
    pub(crate) fn begin(&self) -> Result<(), PlaceError> {
        Ok(files::private_folder(&self.beside)?)
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
