//! `yard agent run`: the process of one node, from its start to its end.
//!
//! Start: the driver adopts the shims that it finds; then renewals go out, before anything else,
//! for ranks may live on the last seconds of a lease; then the rest. End on purpose: the
//! coordinator is asked to leave the node alone for a while, the shims are told, and go on.
//!
//! **Invariant:** an error of storage ends the process, and nothing that was started by it.

mod health;
mod options;
mod samples;

pub use options::Options;

use crate::cgroup::Support;
use crate::driver::{self, Check, Driver, DriverError};
use crate::health::command::Command;
use crate::health::xids::Xids;
use crate::inventory::InventoryError;
use crate::paths::Paths;
use crate::samples::Samples;
use crate::session::certificate::{self, Renewer};
use crate::session::facts;
use crate::session::health::{Findings, Observer, conditions_of, judged, with_setup};
use crate::session::lease::{Keeper, Succession, not_held, times_of};
use crate::session::maintenance::Ask;
use crate::session::memory::{Memory, NodeFile};
use crate::session::room;
use crate::session::roster::{Roster, Rosters};
use crate::session::told::{self, Place};
use crate::session::{Fatal, MemoryError, Shared, control, maintenance, output};
use crate::setup::{self, Heard, SetupFile};
use crate::sys::boot_ms;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use yard_common::id::NodeId;
use yard_common::state::AssignmentState;
use yard_core::agent::Lease;
use yard_core::health::Judge;
use yard_core::lease::Holder;
use yard_core::lease::times::maintenance_until_ms;
use yard_proto::v1;
use yard_runtime::files::{FileError, FolderLock};
use yard_runtime::identity::{Identity, Principal};
use yard_runtime::notify::Manager;
use yard_runtime::shutdown::{CancellationToken, Outcome, Signal, Signals, Tasks};
use yard_runtime::tls::{ClientTls, TlsError};

/// How long the members may take to grant that the agent leaves.
const LEAVE: Duration = Duration::from_secs(2);
/// How long they may take to take back what was granted.
const RETURN: Duration = Duration::from_secs(60);
/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// Errors that wait to be told; the first ends everything.
const FATALS_MAX: usize = 8;
/// How long the driver may take to show that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// The exit code of a process whose storage failed (`EX_SOFTWARE`).
const STORAGE_EXIT: u8 = 70;
/// The exit code of a process whose directory is not that of a node: to start it again does not
/// help (`EX_DATAERR`).
pub const EXIT_DIRECTORY: u8 = 65;

/// Why an agent cannot run, or does not go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// It is no node yet.
    #[error("{} belongs to no node; run `yard agent join` first", .0.display())]
    NotJoined(PathBuf),
    /// Another agent uses the directory.
    #[error("the directory is in use")]
    InUse(#[source] FileError),
    /// The node ran before, and what it remembers is gone.
    #[error(
        "{} is gone: the agent does not know what runs here; remove the node, move its directory \
         away, and join anew", .0.display()
    )]
    MemoryLost(PathBuf),
    /// A file of the agent's own failed.
    #[error("what the agent knows of itself cannot be read or kept")]
    Memory(#[from] MemoryError),
    /// The certificate is of somebody else.
    #[error("the certificate is of {found}, and the node is {expected}")]
    Mixed {
        /// Of the certificate.
        found: Principal,
        /// Of the node's file.
        expected: Principal,
    },
    /// The certificate cannot be used.
    #[error("the node cannot prove who it is; join anew if its certificate has run out")]
    Tls(#[from] TlsError),
    /// The driver failed.
    #[error("the agent cannot go on")]
    Driver(#[from] DriverError),
    /// The machine cannot be described.
    #[error("the machine cannot be described")]
    Inventory(#[from] InventoryError),
    /// There can be no thread.
    #[error("no thread can be started")]
    Threads(#[source] io::Error),
    /// Signals cannot be taken over.
    #[error("signals cannot be heard")]
    Signals(#[source] io::Error),
    /// A task ended that never should.
    #[error("the task {name:?} ended: {outcome:?}")]
    Task {
        /// Which.
        name: &'static str,
        /// How.
        outcome: Outcome,
    },
}

impl ServiceError {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ServiceError::Memory(_)
            | ServiceError::Driver(DriverError::Store(_) | DriverError::Io { .. }) => STORAGE_EXIT,
            ServiceError::NotJoined(_)
            | ServiceError::MemoryLost(_)
            | ServiceError::Mixed { .. } => EXIT_DIRECTORY,
            _ => 1,
        }
    }
}

/// The agent.
#[derive(Debug)]
pub struct Service;

/// A running agent. Dropping it stops it at once, without a word to the coordinator.
#[derive(Debug)]
pub struct Handle {
    node: NodeFile,
    shared: Arc<Shared>,
    driver: Arc<driver::Handle>,
    tasks: Tasks,
    /// What says that the agent is back, until it is said.
    returning: Tasks,
    fatal: mpsc::Receiver<Fatal>,
    certificates: watch::Sender<u64>,
    maintenance_ms: u64,
    _lock: FolderLock,
}

impl Service {
    /// Starts.
    ///
    /// # Errors
    /// If the machine has not joined, another agent runs, or what it knows cannot be read.
    pub async fn start(options: Options) -> Result<Handle, ServiceError> {
        let memory = Memory::new(&options.directory);
        let Some(node) = memory.node()? else {
            return Err(ServiceError::NotJoined(options.directory));
        };
        let lock = FolderLock::take(memory.folder()).map_err(ServiceError::InUse)?;
        let identity = load_identity(&memory, &node)?;
        let store = Paths::new(&options.directory).store();
        if memory.has_begun() && !store.exists() {
            return Err(ServiceError::MemoryLost(store));
        }
        let mut seeds = options.coordinators.clone();
        seeds.extend(node.addresses.clone());
        let rosters = Rosters::load(memory.clone(), seeds)?;
        let cgroups = options.cgroups(&node);
        let (checks, wanted) = health::checks(&options.health, options.gpus_fake.is_some());
        let driver = Arc::new(Driver::start(options.driver(&node, &cgroups, checks)).await?);
        if !memory.has_begun() {
            memory.save_begun()?;
        }
        let (sender, fatal) = mpsc::channel(FATALS_MAX);
        let mut start = Start {
            tls: ClientTls::new(&identity)?,
            tasks: Tasks::new(CancellationToken::new()),
            certificates: watch::Sender::new(0),
            fatal: sender,
            node,
            memory,
            driver,
            lock,
        };
        // Before anything else: ranks may live on the last seconds of their lease.
        let (held, successions) = start.renew(rosters.watch())?;
        let asked = watch::Sender::new(start.memory.asked()?);
        let setup = start.memory.setup()?;
        let stuck = watch::Sender::new(Vec::new());
        let late = watch::Sender::new(Vec::new());
        let watched =
            Watched { asked: asked.subscribe(), stuck: stuck.subscribe(), late: late.subscribe() };
        let looked = start.look(&options, cgroups.clone(), wanted, watched, &setup).await;
        let (observer, setup_told) = looked?;
        let heard = Heard { wanted: setup.wanted.clone(), is_confirmed: false };
        let shared = Arc::new(Shared {
            name: start.node.name.clone(),
            tls: start.tls.clone(),
            driver: start.driver.clone(),
            paths: Paths::new(&options.directory),
            program: options.program.clone(),
            samples: Samples::default(),
            memory: start.memory.clone(),
            rosters,
            inventory: observer.inventory.subscribe(),
            facts: observer.facts.subscribe(),
            findings: observer.findings.clone(),
            held,
            successions,
            certificate: start.certificates.subscribe(),
            fence: watch::Sender::new(start.driver.found_fence()),
            setup: watch::Sender::new(heard),
            stuck,
            late,
            asked,
        });
        start.set_up(&shared, &options, cgroups, (setup, setup_told));
        start.go_on(&shared, observer, identity);
        Ok(start.finish(shared, fatal, options.maintenance_ms))
    }
}

/// What the observer of the machine hears of by others.
struct Watched {
    asked: watch::Receiver<u32>,
    stuck: watch::Receiver<Vec<v1::StuckProcesses>>,
    late: watch::Receiver<Vec<v1::LateOutput>>,
}

/// A start on its way.
struct Start {
    node: NodeFile,
    memory: Memory,
    tls: Arc<ClientTls>,
    driver: Arc<driver::Handle>,
    tasks: Tasks,
    certificates: watch::Sender<u64>,
    fatal: mpsc::Sender<Fatal>,
    lock: FolderLock,
}

impl Start {
    /// Renews the lease, and hands its deadlines on.
    fn renew(
        &mut self,
        roster: watch::Receiver<Roster>,
    ) -> Result<(watch::Receiver<Lease>, mpsc::Sender<Succession>), ServiceError> {
        let obeyed = self.driver.found_fence();
        let kept = self.memory.lease()?.map(|file| file.lease_at(obeyed));
        let lease = kept.unwrap_or(self.node.lease);
        let times = times_of(self.node.lease_ms);
        let held = watch::Sender::new(not_held(lease));
        let watched = held.subscribe();
        let (successions, queue) = mpsc::channel(1);
        let keeper = Keeper {
            holder: Holder::new(self.node.node, lease, times),
            times,
            tls: self.tls.clone(),
            roster,
            certificate: self.certificates.subscribe(),
            successions: queue,
            held,
        };
        let stop = self.tasks.token();
        self.tasks.spawn("renewals", keeper.run(stop.clone()));
        let pushed = push(self.driver.clone(), watched.clone(), stop);
        self.tasks.spawn("deadlines", told(self.fatal.clone(), pushed));
        Ok((watched, successions))
    }

    /// Looks at the machine, which may take its time.
    async fn look(
        &self,
        options: &Options,
        cgroups: Support,
        wanted: mpsc::Receiver<Check>,
        Watched { asked, stuck, late }: Watched,
        setup: &SetupFile,
    ) -> Result<(Observer, watch::Sender<setup::Told>), ServiceError> {
        let look = options.inventory(&self.node);
        let threads = |source| ServiceError::Threads(source);
        let probe = facts::probe(&look, &options.health, options.ours(&self.node));
        let probe = probe.map_err(threads)?;
        let round = probe.watch().fresh().await;
        let looked = facts::look(&look, &cgroups, Vec::new()).await?;
        let (node, gpus) = (&self.node.name, round.finding.to_string());
        tracing::info!(node, kernel = looked.kernel, cgroups = looked.cgroups, gpus, "the machine");
        let place = Place {
            hostname: looked.hostname,
            kernel: looked.kernel,
            cgroups: looked.cgroups,
            hardware: looked.hardware,
        };
        let mut base = looked.inventory;
        let before = self.memory.inventory()?;
        base.checked = before.as_ref().map_or(0, |before| before.checked);
        let before = before.unwrap_or_else(|| base.clone());
        let told_before = conditions_of(&before, base.boot);
        let mut judge = Judge::new(options.health.rules.clone(), told_before);
        let (findings, told) = (Findings::new(), watch::Sender::new(setup.told(base.boot)));
        with_setup(&mut base, &mut findings.clone(), &told.borrow());
        let found = judged(&mut judge, &before, base.clone(), &round, &findings);
        self.memory.save_inventory(&found)?;
        let xids = match options.gpus_fake {
            Some(_) => Xids::none(),
            None => Xids::start(&options.health).map_err(threads)?,
        };
        let observer = Observer {
            options: look,
            cgroups,
            memory: self.memory.clone(),
            driver: self.driver.clone(),
            probe,
            xids,
            judge,
            wanted,
            before_jobs: options.health.before_jobs,
            command: Arc::new(Command::new(options.health.command.clone())),
            findings: watch::Sender::new(findings),
            stuck,
            late,
            setup: told.subscribe(),
            asked,
            base,
            inventory: watch::Sender::new(found),
            facts: watch::Sender::new(told::facts(&place, &round)),
            place,
            checks: JoinSet::new(),
        };
        Ok((observer, told))
    }

    /// Starts what does what the pool wants before the machine takes work.
    fn set_up(
        &mut self,
        shared: &Arc<Shared>,
        options: &Options,
        cgroups: Support,
        (file, told): (SetupFile, watch::Sender<setup::Told>),
    ) {
        let site = setup::Site {
            options: options.setup.clone(),
            node: self.node.name.clone(),
            paths: shared.paths.clone(),
            cgroups,
            boot: shared.inventory.borrow().boot,
        };
        let runner = setup::Runner {
            site,
            memory: self.memory.clone(),
            file,
            heard: shared.setup.subscribe(),
            asked: shared.asked.subscribe(),
            told,
        };
        let running = runner.run(self.tasks.token());
        self.tasks.spawn("setup", crate::service::told(self.fatal.clone(), running));
    }

    /// Starts everything else.
    fn go_on(&mut self, shared: &Arc<Shared>, observer: Observer, identity: Identity) {
        let stop = self.tasks.token();
        let controlled = control::run(shared.clone(), stop.clone());
        self.tasks.spawn("control stream", told(self.fatal.clone(), controlled));
        let observed = observer.run(stop.clone());
        self.tasks.spawn("health", told(self.fatal.clone(), observed));
        let output = output::run(shared.clone(), stop.clone());
        self.tasks.spawn("output", told(self.fatal.clone(), output));
        self.tasks.spawn("room", room::watch(shared.clone(), stop.clone()));
        self.tasks.spawn("samples", samples::take(shared.clone(), stop.clone()));
        let generation = self.certificates.clone();
        let renewer = Renewer { shared: shared.clone(), identity, generation };
        let renewed = renewer.run(stop);
        self.tasks.spawn("certificate", told(self.fatal.clone(), renewed));
    }

    /// Says that the agent is back, if it was away.
    fn returning(&self, shared: &Arc<Shared>) -> Tasks {
        let mut returning = Tasks::default();
        if self.memory.is_away() {
            let back = come_back(shared.clone(), returning.token());
            returning.spawn("return", told(self.fatal.clone(), back));
        }
        returning
    }

    fn finish(
        self,
        shared: Arc<Shared>,
        fatal: mpsc::Receiver<Fatal>,
        maintenance_ms: u64,
    ) -> Handle {
        let returning = self.returning(&shared);
        let Start { node, driver, tasks, certificates, lock, .. } = self;
        let _lock = lock;
        Handle {
            node,
            shared,
            driver,
            tasks,
            returning,
            fatal,
            certificates,
            maintenance_ms,
            _lock,
        }
    }
}

fn load_identity(memory: &Memory, node: &NodeFile) -> Result<Identity, ServiceError> {
    let identity = Identity::load(memory.folder()).map_err(MemoryError::from)?;
    let (found, expected) = (identity.peer().principal, Principal::Node(node.node));
    if found != expected {
        return Err(ServiceError::Mixed { found, expected });
    }
    Ok(identity)
}

/// Hands deadlines to the driver, the newest at once; and notices when the driver has ended.
async fn push(
    driver: Arc<driver::Handle>,
    mut held: watch::Receiver<Lease>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = held.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let lease = *held.borrow_and_update();
                driver.lease(lease).await.map_err(|_| Fatal::Driver)?;
            }
            () = driver.gone() => return Err(Fatal::Driver),
        }
    }
}

/// Says that the agent is back, and gives back what was granted if no rank counts on it.
async fn come_back(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), Fatal> {
    let what = match shared.driver.found_maintenance_ms() > boot_ms() {
        true => Ask::Back,
        false => Ask::End,
    };
    let asked = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        asked = maintenance::ask(&shared, what, RETURN) => asked,
    };
    if let Err(error) = asked {
        tracing::warn!(%error, "maintenance goes on until its time is over");
    }
    Ok(shared.memory.remove_away()?)
}

/// Runs a task, and tells its owner what it cannot go on after.
async fn told(fatal: mpsc::Sender<Fatal>, task: impl Future<Output = Result<(), Fatal>>) {
    if let Err(error) = task.await {
        // Whoever is told first ends everything.
        let _ = fatal.send(error).await;
    }
}

impl Handle {
    /// The node's number.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node.node
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Whether a majority of members answers for the node now.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        crate::session::lease::held_now(&self.shared.held.borrow()).is_some()
    }

    /// Whether the driver, on which all else waits, gets to its work.
    pub async fn is_alive(&self) -> bool {
        let answered = tokio::time::timeout(SIGN_OF_LIFE, self.driver.shares()).await;
        matches!(answered, Ok(Ok(_)))
    }

    /// Waits until it cannot go on. [`Handle::abandon`] then says why.
    pub async fn ended(&mut self) -> Ended {
        loop {
            let ended = tokio::select! {
                Some(fatal) = self.fatal.recv() => return Ended(Why::Fatal(fatal)),
                Some(ended) = self.tasks.next_ended() => ended,
                Some(ended) = self.returning.next_ended() => match ended.outcome {
                    Outcome::Returned => continue,
                    Outcome::Panicked(_) | Outcome::Aborted => ended,
                },
            };
            // What a task could not go on after is told before it ends.
            if let Ok(fatal) = self.fatal.try_recv() {
                return Ended(Why::Fatal(fatal));
            }
            return Ended(Why::Task(ended.name, ended.outcome));
        }
    }

    /// Reads the certificate again, as it is on disk.
    ///
    /// # Errors
    /// If it cannot be used; the old one then stays.
    pub fn reload(&self) -> Result<(), ServiceError> {
        let identity = load_identity(&self.shared.memory, &self.node)?;
        match certificate::use_it(&self.shared.tls, &self.certificates, &identity) {
            Err(certificate::CertificateError::Tls(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Leaves on purpose: the coordinator is asked not to give the node up for a while, and what
    /// runs goes on.
    ///
    /// # Errors
    /// If storage fails. That nothing was granted is no error: the node then has its lease, and
    /// its ranks their deadlines.
    pub async fn leave(mut self) -> Result<(), ServiceError> {
        // First: it would take back what is said now.
        self.end_return().await;
        let left = self.announce().await;
        let ended = self.shut_down().await;
        left.and(ended)
    }

    /// Stops without a word; what runs goes on.
    ///
    /// # Errors
    /// If storage fails.
    pub async fn stop(self) -> Result<(), ServiceError> {
        self.shut_down().await
    }

    /// Stops after [`Handle::ended`], and says why it ended.
    pub async fn abandon(self, ended: Ended) -> ServiceError {
        let stopped = self.shut_down().await;
        match (ended.0, stopped) {
            (Why::Fatal(Fatal::Memory(error)), _) => error.into(),
            (Why::Fatal(Fatal::Driver), Err(error)) => error,
            (Why::Fatal(Fatal::Driver), Ok(())) => DriverError::Ended.into(),
            (Why::Task(name, outcome), _) => ServiceError::Task { name, outcome },
        }
    }

    async fn announce(&self) -> Result<(), ServiceError> {
        let (_, shares) = self.driver.shares().await?;
        let runs = |state| match state {
            AssignmentState::Preparing | AssignmentState::Ready | AssignmentState::Running => true,
            AssignmentState::Exited | AssignmentState::Gone | AssignmentState::Reaped => false,
        };
        let handed = shares.iter().any(|share| runs(share.state));
        let asked_ms = boot_ms();
        // Before: it may be granted, and the answer lost.
        self.shared.memory.save_away()?;
        let leave = Ask::Leave { for_ms: self.maintenance_ms };
        if let Err(error) = maintenance::ask(&self.shared, leave, LEAVE).await {
            tracing::warn!(%error, "the agent leaves, and the coordinator does not know");
            return Ok(());
        }
        if handed {
            let maintenance_ms = maintenance_until_ms(asked_ms, self.maintenance_ms);
            let held = *self.shared.held.borrow();
            self.driver.lease(Lease { maintenance_ms, ..held }).await?;
        }
        Ok(())
    }

    async fn end_return(&mut self) {
        for late in std::mem::take(&mut self.returning).stop(GRACE).await {
            tracing::warn!(outcome = ?late.outcome, "the return did not end");
        }
    }

    async fn shut_down(mut self) -> Result<(), ServiceError> {
        self.end_return().await;
        for late in self.tasks.stop(GRACE).await {
            tracing::warn!(task = late.name, outcome = ?late.outcome, "a task did not end");
        }
        drop(self.shared);
        let driver = Arc::into_inner(self.driver).ok_or(DriverError::Ended)?;
        Ok(driver.shutdown().await?)
    }
}

/// That an agent cannot go on.
#[derive(Debug)]
pub struct Ended(Why);

#[derive(Debug)]
enum Why {
    Fatal(Fatal),
    Task(&'static str, Outcome),
}

/// Runs an agent until it is told to stop by a signal, or cannot go on.
///
/// # Errors
/// Why it did not start, or did not go on.
pub async fn run(options: Options) -> Result<(), ServiceError> {
    let mut signals = Signals::install().map_err(ServiceError::Signals)?;
    // Jobs are killed for memory before the agent is. Who may not say so lives with it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    let manager = Manager::of_process();
    let mut handle = Service::start(options).await?;
    tracing::info!(node = handle.name(), "the agent runs");
    manager.ready();
    let mut pulse = manager.pulse();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => {
                    manager.stopping();
                    return handle.leave().await;
                }
                Signal::Reload => {
                    if let Err(error) = handle.reload() {
                        tracing::warn!(%error, "the certificate is not read again");
                    }
                }
            },
            () = pulse.beat() => {
                if handle.is_alive().await {
                    manager.alive();
                }
            }
            ended = handle.ended() => return Err(handle.abandon(ended).await),
        }
    }
}
