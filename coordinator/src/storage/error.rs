//! Why storage cannot go on. Each of these ends the process.

use super::record::Identity;
use std::io;
use std::sync::Arc;
use thiserror::Error;
use yard_common::ErrorCode;
use yard_common::id::LogIndex;

/// Why storage cannot go on.
#[derive(Clone, Debug, Error)]
pub enum StorageError {
    /// The file system refused something.
    #[error("cannot {step} {file}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// With which file.
        file: String,
        /// What the file system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another process uses the folder.
    #[error("another process uses this data folder; two would destroy it")]
    Locked,
    /// A file is not as it was written.
    #[error("{file} is damaged at byte {offset}: {what}. Nothing was changed")]
    Damaged {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What does not add up.
        what: &'static str,
    },
    /// Files are missing.
    #[error("{file} is missing. Nothing was changed")]
    Missing {
        /// What should be there.
        file: String,
    },
    /// The files are of another member.
    #[error("{file} belongs to {found}, not to {wanted}")]
    OtherIdentity {
        /// The file.
        file: String,
        /// Whose it is.
        found: Box<Identity>,
        /// Whose it should be.
        wanted: Box<Identity>,
    },
    /// The files were written by another version.
    #[error("{file} has format {found}; this program knows format {known} only")]
    OtherFormat {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// An entry that would leave a hole.
    #[error("entry {index} cannot follow entry {last}")]
    Hole {
        /// The entry.
        index: LogIndex,
        /// The last one.
        last: LogIndex,
    },
    /// The log was asked for something after it had ended.
    #[error("the log is closed")]
    Closed,
}

impl StorageError {
    /// Whether the disk is full. What was refused for that was not begun: nothing is lost. Only a
    /// file that could not be made or become longer is so; no room for anything else, such as for
    /// bytes where there were some, leaves behind what nobody knows.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = |source: &io::Error| {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        matches!(self, StorageError::Io { step: "create" | "write", source, .. } if full(source))
    }

    /// The page that says more.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            StorageError::Damaged { .. } | StorageError::Missing { .. } => {
                Some(ErrorCode::FolderDamaged)
            }
            StorageError::OtherIdentity { .. } | StorageError::OtherFormat { .. } => {
                Some(ErrorCode::FolderForeign)
            }
            StorageError::Io { .. } if self.is_full() => Some(ErrorCode::DiskFull),
            StorageError::Io { .. }
            | StorageError::Locked
            | StorageError::Hole { .. }
            | StorageError::Closed => None,
        }
    }

    /// Whether what is in the folder cannot be relied on, or is somebody else's: to start the
    /// process again does not help.
    #[must_use]
    pub fn is_of_content(&self) -> bool {
        match self {
            StorageError::Damaged { .. }
            | StorageError::Missing { .. }
            | StorageError::OtherIdentity { .. }
            | StorageError::OtherFormat { .. }
            | StorageError::Hole { .. } => true,
            StorageError::Io { .. } | StorageError::Locked | StorageError::Closed => false,
        }
    }

    /// A step of the file system that failed.
    pub(super) fn io(step: &'static str, file: &str) -> impl FnOnce(io::Error) -> StorageError {
        let file = file.to_string();
        move |source| StorageError::Io { step, file, source: Arc::new(source) }
    }
}

impl From<io::Error> for StorageError {
    /// Work that was cut off because the process ends.
    fn from(source: io::Error) -> StorageError {
        StorageError::Io { step: "finish", file: "blocking work".into(), source: Arc::new(source) }
    }
}
