//! `yard agent run`: the process of one node, from its start to its end.
//!
//! Start: the driver adopts the shims that it finds; then renewals go out, before anything else,
//! for ranks may live on the last seconds of a lease; then the rest. End on purpose: the
//! coordinator is asked to leave the node alone for a while, the shims are told, and go on.
//!
//! **Invariant:** an error of storage ends the process, and nothing that was started by it.

use crate::cgroup::Support;
use crate::driver::{self, Driver, DriverError};
use crate::inventory::{self, InventoryError};
use crate::paths::Paths;
use crate::session::certificate::{self, Renewer};
use crate::session::facts::{self, Observer};
use crate::session::lease::{Keeper, not_held, times_of};
use crate::session::memory::{AwayFile, Memory, NodeFile};
use crate::session::roster::Rosters;
use crate::session::{Fatal, MemoryError, Shared, control, maintenance};
use crate::sys::boot_ms;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use yard_common::id::{NodeId, Sequence};
use yard_common::limits::{LABELS_MAX, MAINTENANCE_MS_MAX, MEMBERS_MAX, NODE_DEVICES_MAX};
use yard_common::state::AssignmentState;
use yard_core::agent::Lease;
use yard_core::lease::Holder;
use yard_runtime::config::{self, ConfigError};
use yard_runtime::files::{FileError, FolderLock};
use yard_runtime::identity::{Identity, Principal};
use yard_runtime::shutdown::{CancellationToken, Outcome, Signal, Signals, Tasks};
use yard_runtime::tls::{ClientTls, TlsError};

/// How long the members may take to grant that the agent leaves.
const LEAVE: Duration = Duration::from_secs(2);
/// How long they may take to take back what was granted.
const RETURN: Duration = Duration::from_secs(60);
/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// How often the driver is asked whether it lives, when nothing else asks.
const DRIVER_LOOK: Duration = Duration::from_secs(1);
/// How long an agent may be away unless asked otherwise, in milliseconds.
const MAINTENANCE_MS: u64 = 120_000;
/// The exit code of a process whose storage failed (`EX_SOFTWARE`).
const STORAGE_EXIT: u8 = 70;

/// What an agent needs to know. Who it is stands in its directory, since it has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The agent's directory; absolute.
    pub directory: PathBuf,
    /// Our own program, which runs as `PROGRAM shim DIR`.
    pub program: PathBuf,
    /// Where members may be beside those that it knows: `host:port`.
    pub coordinators: Vec<String>,
    /// Address that other nodes reach this one by; none: its host name.
    pub address: Option<String>,
    /// Labels, sorted by key.
    pub labels: Vec<(String, String)>,
    /// Pretend to have so many GPUs: for `yard dev` alone.
    pub gpus_fake: Option<u16>,
    /// `PATH` of jobs.
    pub job_path: String,
    /// Where the shims of gangs meet if all nodes are on this machine.
    pub gang_dir: Option<PathBuf>,
    /// Name of its control group; none: `yard-` and the node's name. `none` uses no groups.
    pub cgroup: Option<String>,
    /// How long it may be away when it is stopped on purpose.
    pub maintenance_ms: u64,
}

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
            _ => 1,
        }
    }
}

impl Options {
    /// An agent with this directory and program, and defaults for the rest.
    #[must_use]
    pub fn new(directory: PathBuf, program: PathBuf) -> Options {
        Options {
            directory,
            program,
            coordinators: Vec::new(),
            address: None,
            labels: Vec::new(),
            gpus_fake: None,
            job_path: driver::Options::JOB_PATH.into(),
            gang_dir: None,
            cgroup: None,
            maintenance_ms: MAINTENANCE_MS,
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it cannot be read, or has problems; all of them are told.
    pub fn read(path: &Path, program: PathBuf) -> Result<Options, ConfigError> {
        config::read(path, |root| {
            let directory = root.path("directory", Path::new("/var/lib/trainyard/agent"));
            let mut options = Options::new(directory, program);
            let at = "\"host:port\"";
            options.coordinators = root.list("coordinators", MEMBERS_MAX, at);
            options.address = root.optional("address", "a host name or address");
            let labels = root.list::<Label>("labels", LABELS_MAX, "\"key=value\"");
            options.labels = labels.into_iter().map(|label| (label.key, label.value)).collect();
            options.labels.sort();
            let fake = root.number("gpus_fake", 0, 0..=NODE_DEVICES_MAX as u64);
            options.gpus_fake = u16::try_from(fake).ok().filter(|count| *count > 0);
            options.job_path = root.value("job_path", options.job_path, "\"/usr/bin:/bin\"");
            options.gang_dir = root.optional("gang_dir", "a path");
            options.cgroup = root.optional("cgroup", "the name of a control group, or \"none\"");
            let range = 1_000..=MAINTENANCE_MS_MAX;
            options.maintenance_ms = root.number("maintenance_ms", MAINTENANCE_MS, range);
            Some(options)
        })
    }

    fn inventory(&self, node: &NodeFile) -> inventory::Options {
        inventory::Options {
            root: self.directory.clone(),
            address: self.address.clone(),
            labels: self.labels.clone(),
            gpus_fake: self.gpus_fake,
            node: node.name.clone(),
        }
    }

    fn cgroups(&self, node: &NodeFile) -> Support {
        match self.cgroup.as_deref() {
            Some("none") => Support::none(),
            Some(name) => Support::detect(name),
            None => Support::detect(&format!("yard-{}", node.name)),
        }
    }
}

/// A label of a configuration file.
struct Label {
    key: String,
    value: String,
}

impl std::str::FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Label, &'static str> {
        let (key, value) = text.split_once('=').ok_or("there is no = in it")?;
        let key = key.trim();
        if key.is_empty() {
            return Err("it has no key");
        }
        Ok(Label { key: key.into(), value: value.trim().into() })
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
        let paths = Paths::new(&options.directory);
        let memory = Memory::new(&options.directory);
        let Some(node) = memory.node()? else {
            return Err(ServiceError::NotJoined(options.directory));
        };
        let lock = FolderLock::take(memory.folder()).map_err(ServiceError::InUse)?;
        let identity = load_identity(&memory, &node)?;
        let tls = ClientTls::new(&identity)?;
        if memory.has_begun() && !paths.store().exists() {
            return Err(ServiceError::MemoryLost(paths.store()));
        }
        let mut seeds = options.coordinators.clone();
        seeds.extend(node.addresses.clone());
        let rosters = Rosters::load(memory.clone(), seeds)?;
        let cgroups = options.cgroups(&node);
        let driver = Arc::new(Driver::start(driver_options(&options, &node, &cgroups)).await?);
        if !memory.has_begun() {
            memory.save_begun()?;
        }
        let kept = memory.lease()?.map(|file| file.lease_at(driver.found_fence()));
        let lease = kept.unwrap_or(node.lease);
        let mut tasks = Tasks::new(CancellationToken::new());
        let stop = tasks.token();
        let (fatal_sender, fatal) = mpsc::channel(8);
        let held = watch::Sender::new(not_held(lease));
        let certificates = watch::Sender::new(0);
        let (successions, succession_queue) = mpsc::channel(1);
        let times = times_of(node.lease_ms);
        let keeper = Keeper {
            holder: Holder::new(node.node, lease, times),
            times,
            tls: tls.clone(),
            roster: rosters.watch(),
            certificate: certificates.subscribe(),
            successions: succession_queue,
            held: held.clone(),
        };
        // Before anything else: ranks may live on the last seconds of their lease.
        tasks.spawn("renewals", keeper.run(stop.clone()));
        let pushed = push(driver.clone(), held.subscribe(), stop.clone());
        tasks.spawn("deadlines", told(fatal_sender.clone(), pushed));
        let look = options.inventory(&node);
        let facts = facts::look(&look, &cgroups).await?;
        tracing::info!(
            node = node.name, kernel = facts.kernel, cgroups = facts.cgroups, gpus = %facts.gpus,
            "the machine"
        );
        let found = facts::settled(memory.inventory()?.as_ref(), facts.inventory, &facts.gpus);
        memory.save_inventory(&found)?;
        let inventory = watch::Sender::new(found);
        let shared = Arc::new(Shared {
            name: node.name.clone(),
            tls,
            driver: driver.clone(),
            paths,
            memory: memory.clone(),
            rosters,
            inventory: inventory.subscribe(),
            held: held.subscribe(),
            successions,
            certificate: certificates.subscribe(),
            fence: watch::Sender::new(driver.found_fence()),
        });
        let controlled = control::run(shared.clone(), stop.clone());
        tasks.spawn("control stream", told(fatal_sender.clone(), controlled));
        let observer = Observer { options: look, cgroups, memory: memory.clone(), inventory };
        tasks.spawn("inventory", observer.run(stop.clone()));
        let generation = certificates.clone();
        let renewer = Renewer { shared: shared.clone(), identity, generation };
        tasks.spawn("certificate", told(fatal_sender.clone(), renewer.run(stop.clone())));
        if let Some(away) = memory.away()? {
            let back = come_back(shared.clone(), away, stop);
            tasks.spawn("return", told(fatal_sender, back));
        }
        let maintenance_ms = options.maintenance_ms;
        Ok(Handle { node, shared, driver, tasks, fatal, certificates, maintenance_ms, _lock: lock })
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

fn driver_options(options: &Options, node: &NodeFile, cgroups: &Support) -> driver::Options {
    driver::Options {
        root: options.directory.clone(),
        node: node.name.clone(),
        program: options.program.clone(),
        job_path: options.job_path.clone(),
        gang_dir: options.gang_dir.clone(),
        cgroups: cgroups.clone(),
        begin: (node.fence(), Sequence(0)),
    }
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
            // Says nothing new, and fails if nobody is there.
            () = sleep(DRIVER_LOOK) => {
                driver.acknowledged(Sequence(0)).await.map_err(|_| Fatal::Driver)?;
            }
        }
    }
}

/// Gives back what was granted when the agent left, if no rank counts on it.
async fn come_back(
    shared: Arc<Shared>,
    away: AwayFile,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    if !away.handed {
        let asked = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            asked = maintenance::ask(&shared, 0, RETURN) => asked,
        };
        if let Err(error) = asked {
            tracing::warn!(%error, "maintenance goes on until its time is over");
        }
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

    /// Waits until it cannot go on. [`Handle::abandon`] then says why.
    pub async fn ended(&mut self) -> Ended {
        loop {
            let ended = tokio::select! {
                Some(fatal) = self.fatal.recv() => return Ended(Why::Fatal(fatal)),
                Some(ended) = self.tasks.next_ended() => ended,
            };
            if ended.name == "return" && ended.outcome == Outcome::Returned {
                continue;
            }
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
    pub async fn leave(self) -> Result<(), ServiceError> {
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
        if let Err(error) = maintenance::ask(&self.shared, self.maintenance_ms, LEAVE).await {
            tracing::warn!(%error, "the agent leaves, and the coordinator does not know");
            return Ok(());
        }
        self.shared.memory.save_away(&AwayFile { handed })?;
        if handed {
            let maintenance_ms = maintenance::until_ms(asked_ms, self.maintenance_ms);
            let held = *self.shared.held.borrow();
            self.driver.lease(Lease { maintenance_ms, ..held }).await?;
        }
        Ok(())
    }

    async fn shut_down(self) -> Result<(), ServiceError> {
        for late in self.tasks.stop(GRACE).await {
            tracing::warn!(task = late.name, outcome = ?late.outcome, "a task did not end");
        }
        drop(self.shared);
        let mut driver = Arc::into_inner(self.driver).ok_or(DriverError::Ended)?;
        match driver.acknowledged(Sequence(0)).await {
            Ok(()) => Ok(driver.shutdown().await?),
            // It has ended by itself, and says why.
            Err(_) => Ok(driver.ended().await?),
        }
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
    let mut handle = Service::start(options).await?;
    tracing::info!(node = handle.name(), "the agent runs");
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => return handle.leave().await,
                Signal::Reload => {
                    if let Err(error) = handle.reload() {
                        tracing::warn!(%error, "the certificate is not read again");
                    }
                }
            },
            ended = handle.ended() => return Err(handle.abandon(ended).await),
        }
    }
}
