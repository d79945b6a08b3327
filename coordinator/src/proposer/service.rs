//! Starts and owns the tasks of a member.

use super::handle::{Handle, Parts};
use super::lead::{Leadership, Proposer};
use super::reads;
use super::watchdog::Watchdog;
use crate::env::{Env, Guard};
use crate::raft::{self, Consensus, FatalError, Fault, Shared, Transport};
use crate::storage::{Identity, StorageError, Store};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use yard_common::limits::{PROPOSALS_KIB_MAX, PROPOSALS_MAX, READS_WAITING_MAX};

/// What a member needs to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who it is. A folder keeps the identity that it was made with.
    pub identity: Identity,
    /// Where its files are.
    pub folder: PathBuf,
}

/// Why a member cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its files.
    #[error("cannot open the data folder")]
    Storage(#[from] StorageError),
    /// The consensus.
    #[error("cannot start the consensus")]
    Consensus(#[source] Arc<FatalError>),
}

/// A running member. Whoever starts it waits for it.
pub struct Service {
    handle: Handle,
    tasks: JoinSet<()>,
    writer: BoxFuture<'static, ()>,
    guard: Box<dyn Guard>,
}

impl Service {
    /// Starts a member from its folder, which is made if it does not exist. A new member is part
    /// of no cluster: [`Handle::init_cluster`] begins one, or a leader adds it to its own.
    ///
    /// # Errors
    /// If the folder cannot be used, or what is in it.
    pub async fn start(
        options: Options,
        env: Arc<dyn Env>,
        transport: Arc<dyn Transport>,
    ) -> Result<Service, StartError> {
        let Options { identity, folder } = options;
        let Store { log, snapshots, promises, writer, guard } =
            Store::open(&env, &folder, identity).await?;
        let (shared, fault, stop) = (Shared::new(), Fault::new(), CancellationToken::new());
        let parts = raft::Parts {
            own: identity.member,
            env: Arc::clone(&env),
            log: log.clone(),
            snapshots,
            transport,
            shared: shared.clone(),
            fault: fault.clone(),
        };
        let consensus = Consensus::start(parts).await.map_err(|error| {
            // The first error says more than the text that came back through openraft.
            fault.set(error);
            StartError::Consensus(fault.get().expect("it was just set"))
        })?;
        let (proposals, queue) = mpsc::channel(PROPOSALS_MAX);
        let (reads, readers) = mpsc::channel(READS_WAITING_MAX);
        let (leadership, now) = watch::channel(Leadership::Follower { leader: None });
        let proposer = Proposer {
            consensus: consensus.clone(),
            env: Arc::clone(&env),
            shared: shared.clone(),
            queue,
            leadership,
            stop: stop.clone(),
        };
        let watchdog = Watchdog {
            consensus: consensus.clone(),
            log,
            fault: fault.clone(),
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(proposer.run());
        tasks.spawn(watchdog.run());
        tasks.spawn(reads::run(consensus.clone(), shared.clone(), readers, stop.clone()));
        tasks.spawn(look_for_faults(consensus.clone(), fault.clone(), stop.clone()));
        let room_kib = Arc::new(Semaphore::new(PROPOSALS_KIB_MAX as usize));
        let handle = Handle(Arc::new(Parts {
            consensus,
            shared,
            env,
            promises,
            proposals,
            room_kib,
            reads,
            leadership: now,
            fault,
            stop,
        }));
        Ok(Service { handle, tasks, writer, guard })
    }

    /// A handle to it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until it has stopped: because it was asked to, or because of an error that the
    /// process should end with. Its files are closed then.
    ///
    /// # Errors
    /// The first fatal error.
    pub async fn wait(mut self) -> Result<(), Arc<FatalError>> {
        while let Some(ended) = self.tasks.join_next().await {
            // The first task to end takes the others with it.
            self.handle.0.stop.cancel();
            if let Err(error) = ended {
                self.handle.0.fault.set(FatalError::Consensus(error.to_string()));
            }
        }
        self.handle.0.consensus.shutdown().await;
        self.writer.await;
        drop(self.guard);
        self.handle.0.fault.get().map_or(Ok(()), Err)
    }
}

/// Stops everything at the first fatal error.
async fn look_for_faults(consensus: Consensus, fault: Fault, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => (),
        () = fault.wait() => stop.cancel(),
        why = consensus.failed() => fault.set(FatalError::Consensus(why)),
    }
}
