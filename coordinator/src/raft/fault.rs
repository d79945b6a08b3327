//! What ends a member: the first error that it cannot live with.

use crate::storage::StorageError;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use yard_common::ErrorCode;
use yard_common::id::{FeatureLevel, LogIndex, MemberId};

/// Why a member had to stop. Whoever runs it ends the process with this.
#[derive(Debug, Error)]
pub enum FatalError {
    /// The disk failed, or its content is damaged. What was not durable by then is not acked.
    #[error("storage failed")]
    Storage(#[source] StorageError),
    /// The cluster is at a feature level that this program does not understand.
    #[error(
        "the cluster is at feature level {level}, and this program understands {max}; {missing}"
    )]
    TooOld {
        /// The level of the cluster.
        level: FeatureLevel,
        /// The highest that the program understands.
        max: FeatureLevel,
        /// What to install.
        missing: Missing,
    },
    /// An entry of the log cannot be read: a newer version wrote it.
    #[error("entry {index} of the log has a form that this program does not know; {missing}")]
    UnknownEntry {
        /// The entry.
        index: LogIndex,
        /// What to install.
        missing: Missing,
        /// What the decoder says.
        #[source]
        source: minicbor::decode::Error,
    },
    /// A snapshot cannot be read.
    #[error("the snapshot at entry {index} has a form that this program does not know; {missing}")]
    UnknownSnapshot {
        /// The last entry in it.
        index: LogIndex,
        /// What to install.
        missing: Missing,
        /// What the decoder says.
        #[source]
        source: minicbor::decode::Error,
    },
    /// A rule of the house was broken: to go on would be to differ from the other members.
    #[error("a rule is broken at entry {index}: {what}")]
    Broken {
        /// The entry that was applied.
        index: LogIndex,
        /// The rule.
        what: String,
    },
    /// This member holds something else than the others. What it would answer may be wrong.
    #[error(
        "this member differs from the others, at entry {index} of the log: {what}. It \
         stops before anybody relies on it"
    )]
    Differs {
        /// An entry that both had applied.
        index: LogIndex,
        /// What differs, and from whose.
        what: String,
    },
    /// The folder is an older copy of itself.
    #[error(
        "the folder is an older copy of itself: member {from} knows of {what} which is not \
         in it. It must not be used any more: what was promised from it is forgotten"
    )]
    OldCopy {
        /// Who knows.
        from: MemberId,
        /// What is missing.
        what: &'static str,
    },
    /// It is no member any more.
    #[error(
        "this coordinator was removed from the cluster, as member {by} says; what is in its folder \
         is out of date"
    )]
    Removed {
        /// Who says so.
        by: MemberId,
    },
    /// The consensus stopped by itself.
    #[error("the consensus stopped: {0}")]
    Consensus(String),
    /// The disk does not answer, and nobody took the lead over.
    #[error("the disk has not finished a flush for {0} ms, and no other member took over")]
    StuckDisk(u64),
}

/// The program that would understand, as far as this one can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The version that runs.
    pub own: &'static str,
    /// The version that asked for the level of the cluster; empty: it is not known.
    pub version: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { own, version } = self;
        match version.as_str() {
            "" => write!(f, "it is of version {own}: install the version that the others have"),
            version => {
                write!(f, "it is of version {own}: install version {version} or a later one")
            }
        }
    }
}

impl FatalError {
    /// Whether another version of the program is wanted. The folder is well.
    #[must_use]
    pub fn is_of_version(&self) -> bool {
        match self {
            FatalError::TooOld { .. }
            | FatalError::UnknownEntry { .. }
            | FatalError::UnknownSnapshot { .. } => true,
            FatalError::Storage(_)
            | FatalError::Broken { .. }
            | FatalError::Differs { .. }
            | FatalError::OldCopy { .. }
            | FatalError::Removed { .. }
            | FatalError::Consensus(_)
            | FatalError::StuckDisk(_) => false,
        }
    }

    /// The page that says more.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            FatalError::Storage(error) => error.code(),
            FatalError::OldCopy { .. } => Some(ErrorCode::FolderOutdated),
            FatalError::Removed { .. } => Some(ErrorCode::NotAMember),
            FatalError::Differs { .. } => Some(ErrorCode::MembersDiffer),
            FatalError::TooOld { .. }
            | FatalError::UnknownEntry { .. }
            | FatalError::UnknownSnapshot { .. } => Some(ErrorCode::VersionTooOld),
            FatalError::Broken { .. } | FatalError::Consensus(_) | FatalError::StuckDisk(_) => None,
        }
    }

    /// Whether what is in the folder cannot be relied on: to start the process again does not
    /// help.
    #[must_use]
    pub fn is_of_content(&self) -> bool {
        match self {
            FatalError::Storage(error) => error.is_of_content(),
            FatalError::OldCopy { .. } | FatalError::Removed { .. } => true,
            FatalError::TooOld { .. }
            | FatalError::UnknownEntry { .. }
            | FatalError::UnknownSnapshot { .. }
            | FatalError::Broken { .. }
            | FatalError::Differs { .. }
            | FatalError::Consensus(_)
            | FatalError::StuckDisk(_) => false,
        }
    }
}

impl From<std::io::Error> for FatalError {
    /// Work that was cut off because the process ends.
    fn from(source: std::io::Error) -> FatalError {
        FatalError::Storage(source.into())
    }
}

/// Where the first fatal error is kept. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) struct Fault(watch::Sender<Option<Arc<FatalError>>>);

impl Fault {
    pub(crate) fn new() -> Fault {
        Fault(watch::Sender::new(None))
    }

    /// Keeps the error, unless there was one before it.
    pub(crate) fn set(&self, error: FatalError) {
        self.0.send_if_modified(|kept| {
            let first = kept.is_none();
            if first {
                tracing::error!(error = ?error, "fatal");
                *kept = Some(Arc::new(error));
            }
            first
        });
    }

    /// The first error, if there was one.
    pub(crate) fn get(&self) -> Option<Arc<FatalError>> {
        self.0.borrow().clone()
    }

    /// Waits for an error.
    pub(crate) async fn wait(&self) {
        let mut changes = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(Option::is_some).await;
    }
}
