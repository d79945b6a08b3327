//! Reads that must not be stale: one confirmation of the leader for all that wait.

use crate::raft::{Consensus, NotDone, Shared};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yard_common::id::{LogIndex, MemberId};

/// Why a read cannot be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Ask the leader.
    #[error("this member does not lead")]
    NotLeader {
        /// Who does, if known.
        hint: Option<MemberId>,
    },
    /// Too many wait.
    #[error("too many reads wait; try again")]
    Overloaded,
    /// This member has stopped.
    #[error("this member has stopped")]
    Stopped,
}

/// Who waits for a confirmation.
pub(super) type Reader = oneshot::Sender<Result<LogIndex, ReadError>>;

/// Confirms reads until it is stopped.
pub(super) async fn run(
    consensus: Consensus,
    shared: Shared,
    mut queue: mpsc::Receiver<Reader>,
    stop: CancellationToken,
) {
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            reader = queue.recv() => reader,
        };
        let Some(first) = first else { return };
        let mut readers = vec![first];
        while let Ok(reader) = queue.try_recv() {
            readers.push(reader);
        }
        // Whoever comes from here on waits for the next round: this one may be under way already.
        let confirmed = tokio::select! {
            () = stop.cancelled() => return,
            confirmed = consensus.confirm() => confirmed,
        };
        let answer = match confirmed {
            Ok(()) => Ok(*shared.index().borrow()),
            Err(NotDone::NotLeader(hint)) => Err(ReadError::NotLeader { hint }),
            Err(NotDone::Unknown | NotDone::Stopped) => Err(ReadError::Stopped),
        };
        for reader in readers {
            // Whoever asked may be gone.
            let _ = reader.send(answer);
        }
    }
}
