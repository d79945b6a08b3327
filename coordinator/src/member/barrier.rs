//! Reads that must not be stale, on any member: one question to the leader for all that wait.

use crate::env::Env;
use crate::pace::Pace;
use crate::peers::{Asked, Peers};
use crate::proposer::{Handle, Leadership, ReadError};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use yard_common::id::{LogIndex, MemberId};
use yard_common::limits::READS_WAITING_MAX;
use yard_runtime::backoff::Backoff;

/// Why a read cannot be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum BarrierError {
    /// Nobody leads, or cannot be reached.
    #[error("no leader answers at present; try again")]
    NoLeader,
    /// Too many wait.
    #[error("too many reads wait; try again")]
    Overloaded,
    /// This member stops.
    #[error("this member is stopping; ask another one")]
    Stopped,
}

type Reader = oneshot::Sender<Result<LogIndex, BarrierError>>;

/// Where reads wait.
pub(crate) struct Barrier(mpsc::Sender<Reader>);

/// Confirms the reads that wait.
pub(crate) struct Confirmer {
    queue: mpsc::Receiver<Reader>,
    raft: Handle,
    peers: Arc<Peers>,
    env: Arc<dyn Env>,
    /// How long a read waits for a leader.
    patience: Duration,
}

impl Barrier {
    pub(crate) fn new(
        raft: Handle,
        peers: Arc<Peers>,
        env: Arc<dyn Env>,
        pace: Pace,
    ) -> (Barrier, Confirmer) {
        let (reads, queue) = mpsc::channel(READS_WAITING_MAX);
        let patience = pace.search();
        (Barrier(reads), Confirmer { queue, raft, peers, env, patience })
    }

    /// A position of the log: whoever has applied it has everything that was answered to anybody
    /// before this call.
    pub(crate) async fn index(&self) -> Result<LogIndex, BarrierError> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BarrierError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => BarrierError::Stopped,
        })?;
        answered.await.unwrap_or(Err(BarrierError::Stopped))
    }
}

impl Confirmer {
    /// Runs until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => return,
                reader = self.queue.recv() => reader,
            };
            let Some(first) = first else { return };
            let mut readers = vec![first];
            while let Ok(reader) = self.queue.try_recv() {
                readers.push(reader);
            }
            // Whoever comes from here on waits for the next round: this one may be under way.
            let answer = tokio::select! {
                () = stop.cancelled() => return,
                answer = timeout(self.patience, self.confirm()) => {
                    answer.unwrap_or(Err(BarrierError::NoLeader))
                }
            };
            for reader in readers {
                // Whoever asked may be gone.
                let _ = reader.send(answer);
            }
        }
    }

    async fn confirm(&self) -> Result<LogIndex, BarrierError> {
        let mut pause = Backoff::new(20, 500);
        let mut changes = self.raft.leadership();
        loop {
            let leadership = *changes.borrow_and_update();
            let mut later = changes.clone();
            let answer = match leadership {
                Leadership::Leader { .. } => match self.raft.read_barrier().await {
                    Ok(index) => Some(index),
                    Err(ReadError::NotLeader { .. } | ReadError::Overloaded) => None,
                    Err(ReadError::Stopped) => return Err(BarrierError::Stopped),
                },
                // A leader that is gone holds up nobody once there is another one.
                Leadership::Follower { leader: Some(leader) } => tokio::select! {
                    answer = self.ask(leader) => answer,
                    _ = later.wait_for(|now| now.is_past(leader)) => None,
                },
                Leadership::Follower { leader: None } => None,
            };
            if let Some(index) = answer {
                return Ok(index);
            }
            // A new leader may be known any moment.
            let wait = pause.next(self.env.random());
            // Whether it changed or the time is over: the next try sees.
            let _ = timeout(wait, changes.changed()).await;
        }
    }

    async fn ask(&self, leader: MemberId) -> Option<LogIndex> {
        let peers = self.raft.peers();
        let address = &peers.get(&leader)?.address;
        match self.peers.read_index(leader, address).await {
            Ok(Asked::Answer(index)) => Some(index),
            Ok(Asked::NotLeader) => None,
            Err(error) => {
                tracing::debug!(%leader, %error, "a read was not confirmed");
                None
            }
        }
    }
}
