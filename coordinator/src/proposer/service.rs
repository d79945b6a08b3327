//! Starts and owns the tasks of a member.

use super::batch::Proposal;
use super::handle::{Handle, Parts};
use super::lead::{Leadership, Proposer};
use super::reads;
use super::room::{Janitor, Room};
use super::watchdog::Watchdog;
use crate::build::Build;
use crate::compare::{self, Comparer};
use crate::env::{Env, Guard};
use crate::raft::{self, Acks, Consensus, FatalError, Fault, Shared, Transport};
use crate::storage::{Identity, Log, StorageError, Store};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use yard_common::limits::{LOG_RESERVE_BYTES, PROPOSALS_KIB_MAX, PROPOSALS_MAX, READS_WAITING_MAX};

/// What a member needs to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who it is. A folder keeps the identity that it was made with.
    pub identity: Identity,
    /// Where its files are.
    pub folder: PathBuf,
    /// How it treats its disk.
    pub disk: DiskOptions,
    /// The longest usual round trip to another member, in milliseconds.
    pub round_trip_ms: u64,
    /// What it understands.
    pub build: Build,
}

/// Round trips that need no setting, in milliseconds.
pub const ROUND_TRIP_MS: u64 = 40;

/// How long the parts of a member may take to end whose disk is stuck.
const STUCK_GRACE: Duration = Duration::from_millis(500);

/// How a member treats its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// How long a flush of a leader may take until it hands over, in milliseconds.
    pub stuck_ms: u64,
    /// With fewer free bytes than this, and what a snapshot takes, there is no new work.
    pub floor_bytes: u64,
    /// Bytes that are kept for what must go on while the disk is full; 0: none.
    pub reserve_bytes: u64,
}

impl DiskOptions {
    /// What fits a disk of its own.
    pub const DEFAULT: DiskOptions =
        DiskOptions { stuck_ms: 500, floor_bytes: 64 << 20, reserve_bytes: LOG_RESERVE_BYTES };
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
        let Options { identity, folder, disk, round_trip_ms, build } = options;
        let Store { log, snapshots, promises, reserve, writer, guard } =
            Store::open(&env, &folder, identity).await?;
        let (shared, fault, stop) = (Shared::new(), Fault::new(), CancellationToken::new());
        let room = Room::new(log.gauge(), reserve, disk.floor_bytes, disk.reserve_bytes);
        let acks = Acks::default();
        let parts = raft::Parts {
            own: identity.member,
            round_trip_ms,
            env: Arc::clone(&env),
            log: log.clone(),
            snapshots,
            transport: Arc::clone(&transport),
            shared: shared.clone(),
            fault: fault.clone(),
            acks: acks.clone(),
            room: room.clone(),
            build,
        };
        let consensus = Consensus::start(parts).await.map_err(|error| {
            // The first error says more than the text that came back through openraft.
            fault.set(error);
            StartError::Consensus(fault.get().expect("it was just set"))
        })?;
        let comparer = Comparer::new(compare::Parts {
            own: identity.member,
            consensus: consensus.clone(),
            log: log.gauge(),
            shared: shared.clone(),
            room: room.clone(),
            acks,
            transport,
            env: Arc::clone(&env),
            fault: fault.clone(),
        });
        let (proposals, queue) = mpsc::channel(PROPOSALS_MAX);
        let (reads, readers) = mpsc::channel(READS_WAITING_MAX);
        let (leadership, now) = watch::channel(Leadership::Follower { leader: None });
        let room_kib = Arc::new(Semaphore::new(PROPOSALS_KIB_MAX as usize));
        let handle = Handle(Arc::new(Parts {
            consensus,
            shared,
            env,
            promises,
            comparer,
            room,
            build,
            proposals,
            room_kib,
            reads,
            leadership: now,
            fault,
            stop,
        }));
        let mut tasks = JoinSet::new();
        spawn_work(&mut tasks, &handle, queue, leadership, readers);
        spawn_care(&mut tasks, &handle, log, disk);
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
    pub async fn wait(self) -> Result<(), Arc<FatalError>> {
        let fault = self.handle.0.fault.clone();
        // What waits for a disk that does not answer never ends: the process does instead.
        let stuck = async {
            fault.wait().await;
            match fault.get().as_deref() {
                Some(FatalError::StuckDisk(_)) => tokio::time::sleep(STUCK_GRACE).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.close() => {}
            () = stuck => {}
        }
        fault.get().map_or(Ok(()), Err)
    }

    async fn close(mut self) {
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
    }
}

/// What callers wait for.
fn spawn_work(
    tasks: &mut JoinSet<()>,
    handle: &Handle,
    queue: mpsc::Receiver<Proposal>,
    leadership: watch::Sender<Leadership>,
    readers: mpsc::Receiver<reads::Reader>,
) {
    let Parts { consensus, shared, env, room, stop, .. } = &*handle.0;
    let proposer = Proposer {
        consensus: consensus.clone(),
        env: Arc::clone(env),
        shared: shared.clone(),
        room: room.clone(),
        queue,
        leadership,
        stop: stop.clone(),
    };
    tasks.spawn(proposer.run());
    tasks.spawn(reads::run(consensus.clone(), shared.clone(), readers, stop.clone()));
}

/// What looks after the member itself.
fn spawn_care(tasks: &mut JoinSet<()>, handle: &Handle, log: Log, disk: DiskOptions) {
    let Parts { consensus, shared, env, comparer, room, fault, stop, .. } = &*handle.0;
    let watchdog = Watchdog {
        consensus: consensus.clone(),
        log,
        shared: shared.clone(),
        room: room.clone(),
        stuck_ms: disk.stuck_ms,
        fault: fault.clone(),
        stop: stop.clone(),
    };
    let janitor = Janitor {
        room: room.clone(),
        comparer: comparer.clone(),
        consensus: consensus.clone(),
        env: Arc::clone(env),
        fault: fault.clone(),
        stop: stop.clone(),
    };
    tasks.spawn(watchdog.run());
    tasks.spawn(janitor.run());
    tasks.spawn(compare::run(comparer.clone(), stop.clone()));
    tasks.spawn(compare::scan(comparer.clone(), stop.clone()));
    tasks.spawn(look_for_faults(consensus.clone(), fault.clone(), stop.clone()));
}

/// Stops everything at the first fatal error.
async fn look_for_faults(consensus: Consensus, fault: Fault, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => (),
        () = fault.wait() => stop.cancel(),
        why = consensus.failed() => fault.set(FatalError::Consensus(why)),
    }
}
