//! What ends a member: the first error that it cannot live with.

use crate::storage::StorageError;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use yard_common::ErrorCode;
use yard_common::id::{LogIndex, MemberId};

/// Why a member had to stop. Whoever runs it ends the process with this.
#[derive(Debug, Error)]
pub enum FatalError {
    /// The disk failed, or its content is damaged. What was not durable by then is not acked.
    #[error("storage failed")]
    Storage(#[source] StorageError),
    /// An entry of the log cannot be read: a newer version wrote it.
    #[error("entry {index} of the log has a form that this version does not know")]
    UnknownEntry {
        /// The entry.
        index: LogIndex,
        /// What the decoder says.
        #[source]
        source: minicbor::decode::Error,
    },
    /// A snapshot cannot be read.
    #[error("the snapshot at entry {index} has a form that this version does not know")]
    UnknownSnapshot {
        /// The last entry in it.
        index: LogIndex,
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
    /// The consensus stopped by itself.
    #[error("the consensus stopped: {0}")]
    Consensus(String),
    /// The disk does not answer, and nobody took the lead over.
    #[error("the disk has not finished a flush for {0} ms, and no other member took over")]
    StuckDisk(u64),
}

impl FatalError {
    /// The page that says more.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            FatalError::Storage(error) => error.code(),
            FatalError::OldCopy { .. } => Some(ErrorCode::FolderOutdated),
            FatalError::Differs { .. } => Some(ErrorCode::MembersDiffer),
            FatalError::UnknownEntry { .. }
            | FatalError::UnknownSnapshot { .. }
            | FatalError::Broken { .. }
            | FatalError::Consensus(_)
            | FatalError::StuckDisk(_) => None,
        }
    }

    /// Whether what is in the folder cannot be relied on: to start the process again does not
    /// help.
    #[must_use]
    pub fn is_of_content(&self) -> bool {
        match self {
            FatalError::Storage(error) => error.is_of_content(),
            FatalError::OldCopy { .. } => true,
            FatalError::UnknownEntry { .. }
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
