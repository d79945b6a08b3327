//! How others speak to the driver.

use super::check::{Checks, Refused};
use super::turn::Turn;
use crate::cgroup::{GpuNodes, Support};
use crate::launch::{Assignment, Site};
use crate::logs::makes_holes;
use crate::paths::Paths;
use crate::process;
use crate::store::StoreError;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use yard_common::id::{JobId, Sequence};
use yard_common::limits::DRIVER_QUEUE_LEN_MAX;
use yard_common::state::AssignmentState;
use yard_core::agent::{AssignmentId, Chain, Desired, DesiredError, Fence, Lease, Report};
use yard_core::stall::News;

/// What a driver needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's directory; absolute.
    pub root: PathBuf,
    /// The node's name.
    pub node: String,
    /// Our own program, which runs as `PROGRAM shim GROUP...` and `PROGRAM shim-dial HOST WORD...`.
    pub program: PathBuf,
    /// `PATH` of jobs.
    pub job_path: String,
    /// Where the shims of gangs meet if all nodes are on this machine.
    pub gang_dir: Option<PathBuf>,
    /// Control groups to use.
    pub cgroups: Support,
    /// Run jobs whose owner has no login as the agent's own account, even if that is root.
    pub jobs_as_agent: bool,
    /// Whole CPUs are a job's own, and parts of one are so much time. If not, they are a weight.
    pub cpus_bound: bool,
    /// Accounts with the rights of root that jobs may run as.
    pub root_logins: Vec<String>,
    /// Where the device files of GPUs are described.
    pub gpu_nodes: GpuNodes,
    /// Where an agent without memory begins, as the coordinator says; see
    /// `yard_core::agent::Kept::new`.
    pub begin: (Fence, Sequence),
    /// Which assignments are checked before they are prepared; none: none is.
    pub checks: Option<Checks>,
}

impl Options {
    /// The `PATH` of jobs unless the pool has another.
    pub const JOB_PATH: &'static str =
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/// Why the driver does not do what it is asked.
#[derive(Debug, Error)]
pub enum DriverError {
    /// The set breaks a bound.
    #[error("the desired set is refused")]
    Desired(#[from] DesiredError),
    /// Details are longer than any job needs.
    #[error("the details of assignment {id} have {bytes} bytes")]
    Detail {
        /// The assignment.
        id: AssignmentId,
        /// How long they are.
        bytes: usize,
    },
    /// What is kept cannot be read or written.
    #[error("the agent's memory fails")]
    Store(#[from] StoreError),
    /// A step of its work failed.
    #[error("cannot {step}")]
    Io {
        /// Which.
        step: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent uses the directory.
    #[error("{root} is in use by another agent")]
    InUse {
        /// The directory.
        root: PathBuf,
    },
    /// The driver has ended.
    #[error("the driver has ended")]
    Ended,
}

/// What is known of one assignment, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which.
    pub id: AssignmentId,
    /// Its job.
    pub job: JobId,
    /// How far it has come.
    pub state: AssignmentState,
    /// Tasks that started.
    pub started: u32,
    /// Tasks that ended.
    pub ended: u32,
    /// Whether its shim answers.
    pub connected: bool,
    /// Whether the coordinator was told that its ranks do nothing.
    pub silent: bool,
    /// Processes of it that were killed and do not end, for people. Until they do, it is not
    /// reaped, and nobody else gets what it holds.
    pub stuck: Option<String>,
}

/// An assignment that was let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Which.
    pub id: AssignmentId,
    /// Its job.
    pub job: JobId,
    /// Its tasks.
    pub chain: Chain,
}

/// A request to the thread.
pub(super) enum Request {
    Desired(Desired, Vec<(AssignmentId, Assignment)>, oneshot::Sender<Result<(), DriverError>>),
    Lease(Lease),
    Connected(mpsc::Sender<Report>),
    Disconnected,
    Acknowledged(Sequence),
    Shares(oneshot::Sender<(Fence, Vec<Share>)>),
    Released(oneshot::Sender<Vec<Released>>),
    /// A GPU has failed: what runs on these devices is ended for it, or blamed on it.
    GpuFault {
        devices: Vec<String>,
        xid: u32,
        ends: bool,
    },
    /// Ranks fell silent, or do something again.
    Silence(AssignmentId, u32, News),
    /// The check before a job is done.
    Checked(AssignmentId, Result<(), Refused>),
    Shutdown,
}

/// The driver of one agent.
#[derive(Debug)]
pub struct Driver;

/// How to speak to a driver. Dropping it ends the driver; shims go on.
#[derive(Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
    ended: Option<oneshot::Receiver<Result<(), DriverError>>>,
    found: Found,
}

/// What an earlier agent left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The last set that was obeyed.
    pub(super) fence: Fence,
    /// Until when ranks may count on maintenance, by the boot clock; 0: they do not.
    pub(super) maintenance_ms: u64,
}

impl Driver {
    /// Starts: reads what is kept, adopts the shims that it finds, and goes on from there.
    ///
    /// # Errors
    /// If another agent uses the directory, or what is kept cannot be read.
    pub async fn start(options: Options) -> Result<Handle, DriverError> {
        let (requests, queue) = mpsc::channel(DRIVER_QUEUE_LEN_MAX);
        let (wake, woken) = pair()?;
        let (started, ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let run = move || match Turn::start(options, queue, woken) {
            Err(error) => drop(started.send(Err(error))),
            Ok(turn) => {
                let found = turn.found();
                if started.send(Ok(found)).is_ok() {
                    drop(end.send(turn.run()));
                }
            }
        };
        let named = std::thread::Builder::new().name("yard-driver".into());
        let thread = named
            .spawn(run)
            .map_err(|source| DriverError::Io { step: "start the thread", source })?;
        let found = ready.await.map_err(|_| DriverError::Ended)??;
        let (thread, ended) = (Some(thread), Some(ended));
        Ok(Handle { requests, wake, thread, ended, found })
    }
}

fn pair() -> Result<(UnixStream, UnixStream), DriverError> {
    let step = |source| DriverError::Io { step: "make the wake-up", source };
    let (a, b) = UnixStream::pair().map_err(step)?;
    a.set_nonblocking(true).map_err(step)?;
    b.set_nonblocking(true).map_err(step)?;
    Ok((a, b))
}

impl Handle {
    /// The last set that was obeyed before the start.
    #[must_use]
    pub fn found_fence(&self) -> Fence {
        self.found.fence
    }

    /// Until when ranks counted on maintenance at the start, by the boot clock; 0: they did not.
    #[must_use]
    pub fn found_maintenance_ms(&self) -> u64 {
        self.found.maintenance_ms
    }

    async fn ask(&self, request: Request) -> Result<(), DriverError> {
        self.requests.send(request).await.map_err(|_| DriverError::Ended)?;
        // A full pipe wakes as well.
        let _ = (&self.wake).write(&[1]);
        Ok(())
    }

    /// The coordinator wants this set; with the details of those assignments that are new. When it
    /// returns, the set is obeyed and on disk.
    ///
    /// # Errors
    /// If the set breaks a bound, or the driver has ended.
    pub async fn desired(
        &self,
        desired: Desired,
        details: Vec<(AssignmentId, Assignment)>,
    ) -> Result<(), DriverError> {
        desired.check()?;
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Desired(desired, details, reply)).await?;
        answer.await.map_err(|_| DriverError::Ended)?
    }

    /// The lease was renewed.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn lease(&self, lease: Lease) -> Result<(), DriverError> {
        self.ask(Request::Lease(lease)).await
    }

    /// A stream to the leader is open: whatever is not acknowledged comes out here, in order, and
    /// then what is new. A stream that does not take what it is given is dropped.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn connected(&self) -> Result<mpsc::Receiver<Report>, DriverError> {
        let bound = yard_common::limits::AGENT_SENDS_MAX as usize;
        let (reports, stream) = mpsc::channel(bound);
        self.ask(Request::Connected(reports)).await?;
        Ok(stream)
    }

    /// The stream is over.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn disconnected(&self) -> Result<(), DriverError> {
        self.ask(Request::Disconnected).await
    }

    /// The coordinator has committed every report up to this one.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn acknowledged(&self, up_to: Sequence) -> Result<(), DriverError> {
        self.ask(Request::Acknowledged(up_to)).await
    }

    /// The set that is obeyed, and what is known of its assignments.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn shares(&self) -> Result<(Fence, Vec<Share>), DriverError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Shares(reply)).await?;
        answer.await.map_err(|_| DriverError::Ended)
    }

    /// What was let go since this was asked last; of very many, the latest `RELEASED_MAX`.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn released(&self) -> Result<Vec<Released>, DriverError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Released(reply)).await?;
        answer.await.map_err(|_| DriverError::Ended)
    }

    /// The check before a job is done: it is prepared, or fails for this step.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn checked(
        &self,
        id: AssignmentId,
        outcome: Result<(), Refused>,
    ) -> Result<(), DriverError> {
        self.ask(Request::Checked(id, outcome)).await
    }

    /// These devices have failed. What runs on them is ended for it, or its failure is theirs.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn gpu_fault(
        &self,
        devices: Vec<String>,
        xid: u32,
        ends: bool,
    ) -> Result<(), DriverError> {
        self.ask(Request::GpuFault { devices, xid, ends }).await
    }

    /// The ranks of an assignment fell silent, or do something again: those of the task at this
    /// position of its chain. What is no news any more is left out.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn silence(
        &self,
        id: AssignmentId,
        position: u32,
        news: News,
    ) -> Result<(), DriverError> {
        self.ask(Request::Silence(id, position, news)).await
    }

    /// Waits until the driver has ended, whatever for.
    pub async fn gone(&self) {
        self.requests.closed().await;
    }

    /// Waits until the driver ends by itself, which it does for an error only.
    ///
    /// # Errors
    /// The error.
    pub async fn ended(&mut self) -> Result<(), DriverError> {
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Err(DriverError::Ended)),
            None => Err(DriverError::Ended),
        }
    }

    /// Ends the driver, and leaves the shims running.
    ///
    /// # Errors
    /// If it had ended with an error before.
    pub async fn shutdown(mut self) -> Result<(), DriverError> {
        // If it has ended by itself, that says why.
        let _ = self.ask(Request::Shutdown).await;
        let result = self.ended().await;
        if let Some(thread) = self.thread.take() {
            // It has ended but for its last instructions.
            let _ = thread.join();
        }
        result
    }
}

impl Options {
    /// What shims are told of the node.
    pub(super) fn site(&self) -> Result<Site, DriverError> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let boot = process::boot_id()
            .map_err(|source| DriverError::Io { step: "read the id of the boot", source })?;
        let site = Site {
            node: self.node.clone(),
            root: text(&self.root),
            boot,
            path: self.job_path.clone(),
            program: text(&self.program),
            gang_dir: self.gang_dir.as_ref().map(text),
            cgroup_v2: None,
            cgroup_controllers: Vec::new(),
            cgroup_v1: Vec::new(),
            jobs_as_agent: self.jobs_as_agent,
            cgroup_programs: false,
            cpus_bound: self.cpus_bound,
            root_logins: self.root_logins.clone(),
            gpu_nodes: self.gpu_nodes.clone(),
            // Who cannot try it finds out with the first file.
            lacks_holes: !makes_holes(&self.root).unwrap_or(true),
        };
        Ok(site.with_cgroups(&self.cgroups))
    }

    pub(super) fn paths(&self) -> Paths {
        Paths::new(&self.root)
    }
}
