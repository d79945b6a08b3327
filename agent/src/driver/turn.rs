//! The thread of the driver: wait, take in, decide, write, do.

use super::adopt;
use super::clean::Cleaner;
use super::cpus::Cpus;
use super::disk::Meter;
use super::handle::{DriverError, Found, Options, Released, Request, Share};
use super::ready::Ready;
use super::remains::Remains;
use super::shims::Shim;
use crate::cgroup::Group;
use crate::launch::Site;
use crate::lease_file::LeaseFile;
use crate::paths::{Paths, from_tag};
use crate::store::Store;
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, TryLockError};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;
use tokio::sync::mpsc::{self, Receiver};
use yard_core::agent::{Action, Agent, AssignmentId, Fence, Input, Kept, Lease, Report};

/// How often what cannot be waited for is looked at: shims in doubt, remains, ended children.
const LOOK_MS: u64 = 5;
/// How long a new agent waits for the last one to be gone.
const LOCK_MS: u64 = 2_000;

/// Everything that the thread owns.
pub(super) struct Turn {
    pub(super) options: Options,
    pub(super) site: Site,
    pub(super) paths: Paths,
    /// Held for as long as the driver lives.
    _lock: File,
    agent: Agent,
    store: Store,
    pub(super) lease_file: LeaseFile,
    pub(super) shims: BTreeMap<AssignmentId, Shim>,
    /// Those that wait for the check before a job.
    pub(super) checking: BTreeSet<AssignmentId>,
    /// When a check after a failure was asked for last, by the boot clock.
    pub(super) checked_after_ms: Option<u64>,
    pub(super) ready: Ready,
    pub(super) remains: BTreeMap<AssignmentId, Remains>,
    /// Shims that were let go: their processes, unless an earlier agent started them, and the
    /// groups that they are in to their end.
    pub(super) leaving: Vec<(Option<Child>, Group)>,
    /// What was let go, for whoever looks after its output.
    pub(super) released: VecDeque<Released>,
    pub(super) cleaner: Cleaner,
    pub(super) cpus: Cpus,
    pub(super) meter: Meter,
    /// What the automaton is to be told next.
    pub(super) inputs: VecDeque<Input>,
    pub(super) reports: Option<mpsc::Sender<Report>>,
    pub(super) timers: BTreeSet<u64>,
    requests: Receiver<Request>,
    woken: UnixStream,
}

/// Takes the directory for this agent. One that was killed while it started a shim may hold it for
/// a moment longer, through a process that is not yet the shim.
fn lock(paths: &Paths) -> Result<File, DriverError> {
    let io = |source| DriverError::Io { step: "lock the directory", source };
    let lock = File::create(paths.root().join("lock")).map_err(io)?;
    let end_ms = sys::boot_ms() + LOCK_MS;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if sys::boot_ms() < end_ms => {
                std::thread::sleep(Duration::from_millis(LOOK_MS));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(DriverError::InUse { root: paths.root().into() });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
}

impl Turn {
    /// Reads what is kept, and adopts what is there.
    pub(super) fn start(
        options: Options,
        requests: Receiver<Request>,
        woken: UnixStream,
    ) -> Result<Turn, DriverError> {
        let io = |step| move |source| DriverError::Io { step, source };
        let paths = options.paths();
        super::shims::make_directory(&paths.shims()).map_err(io("make the directory"))?;
        let lock = lock(&paths)?;
        let site = options.site()?;
        let boot = site.boot;
        let (fence, last) = options.begin;
        let (store, kept) = Store::open(&paths.store(), || Kept::new(boot, fence, last))?;
        let lease_file =
            LeaseFile::create(&paths.lease(), boot).map_err(io("open the lease file"))?;
        let cleaner = Cleaner::start(paths.root().join("trash")).map_err(io("clean up"))?;
        // The group that the shims enter.
        let _ = options.cgroups.group(crate::shim::GROUP, &crate::cgroup::GroupLimits::default());
        let ready = Ready::new(&options.program, &options.cgroups);
        let adopted =
            adopt::look(&paths, &kept, boot).map_err(io("look at the shims that are there"))?;
        // Of shims that an earlier agent let go.
        let is_known = |id| adopted.shims.contains_key(&id);
        options.cgroups.remove_empty(|name| from_tag(name).is_some_and(|id| !is_known(id)));
        let meter = Meter::start().map_err(io("start to measure the disk"))?;
        let lease = lease_file.read();
        let (agent, actions) = Agent::restore(kept, boot, adopted.found, lease, sys::boot_ms());
        let mut turn = Turn {
            options,
            site,
            paths,
            _lock: lock,
            agent,
            store,
            lease_file,
            shims: adopted.shims,
            checking: BTreeSet::new(),
            checked_after_ms: None,
            ready,
            remains: BTreeMap::new(),
            leaving: Vec::new(),
            released: VecDeque::new(),
            cleaner,
            cpus: Cpus::read(),
            meter,
            inputs: VecDeque::new(),
            reports: None,
            timers: BTreeSet::new(),
            requests,
            woken,
        };
        turn.resume();
        turn.perform(vec![actions])?;
        turn.settle()?;
        Ok(turn)
    }

    /// The last set that was obeyed.
    fn fence(&self) -> Fence {
        self.agent.kept().fence
    }

    /// What an earlier agent left.
    pub(super) fn found(&self) -> Found {
        let maintenance_ms = self.lease_file.read().map_or(0, |lease| lease.maintenance_ms);
        Found { fence: self.fence(), maintenance_ms }
    }

    /// What is kept.
    pub(super) fn kept(&self) -> &Kept {
        self.agent.kept()
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self) -> Result<(), DriverError> {
        loop {
            self.wait()?;
            let mut sink = [0; 64];
            while self.woken.read(&mut sink).is_ok_and(|count| count > 0) {}
            self.hear_shims();
            self.hear_meter();
            self.look()?;
            if !self.hear_requests()? {
                return Ok(());
            }
            self.settle()?;
        }
    }

    /// Steps the automaton until it has nothing more to be told.
    fn settle(&mut self) -> Result<(), DriverError> {
        while !self.inputs.is_empty() {
            let now_ms = sys::boot_ms();
            let inputs = std::mem::take(&mut self.inputs);
            let lists = inputs.into_iter().map(|input| self.agent.step(input, now_ms)).collect();
            self.perform(lists)?;
        }
        Ok(())
    }

    /// Does the actions of several steps: everything that is to be written first, at once, then
    /// the rest in order.
    fn perform(&mut self, lists: Vec<Vec<Action>>) -> Result<(), DriverError> {
        let (mut changes, mut actions) = (Vec::new(), Vec::new());
        let mut flush = false;
        for action in lists.into_iter().flatten() {
            match action {
                Action::Persist(more) => {
                    changes.extend(more);
                    flush = true;
                }
                Action::Note(more) => changes.extend(more),
                other => actions.push(other),
            }
        }
        if flush {
            self.store.persist(&changes, self.agent.kept())?;
            self.tell_saved();
        } else if !changes.is_empty() {
            self.store.note(&changes, self.agent.kept())?;
        }
        for action in actions {
            self.act(action);
        }
        Ok(())
    }

    /// Tells shims which of their ends are on disk.
    fn tell_saved(&mut self) {
        for (id, record) in &self.agent.kept().records {
            if let Some(shim) = self.shims.get_mut(id) {
                shim.tell_saved(record.ended);
            }
        }
    }

    /// Sleeps until something happens or is due.
    fn wait(&self) -> Result<(), DriverError> {
        let now_ms = sys::boot_ms();
        let looks = !self.remains.is_empty()
            || !self.leaving.is_empty()
            || self.ready.is_ending()
            || self.shims.values().any(|shim| shim.in_doubt);
        let look = looks.then_some(now_ms + LOOK_MS);
        let due = [look, self.timers.first().copied(), self.ready.due_ms()];
        let next = due.into_iter().flatten().min();
        let timeout = next.map_or(PollTimeout::NONE, |at_ms| {
            let wait_ms = at_ms.saturating_sub(now_ms).min(60_000);
            PollTimeout::try_from(wait_ms).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.meter.fd(), PollFlags::POLLIN),
        ];
        for wire in self.shims.values().filter_map(Shim::wire) {
            let out = if wire.is_waiting() { PollFlags::POLLOUT } else { PollFlags::empty() };
            fds.push(PollFd::new(wire.fd(), PollFlags::POLLIN | out));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(DriverError::Io { step: "wait", source: errno.into() }),
        }
    }

    /// Takes in what was asked. Returns whether to go on.
    fn hear_requests(&mut self) -> Result<bool, DriverError> {
        loop {
            match self.requests.try_recv() {
                Ok(Request::Desired(desired, details, reply)) => {
                    let written = self.write_details(&desired, details);
                    if let Ok(written) = &written {
                        self.inputs.push_back(Input::Desired(desired));
                        // It is obeyed and on disk before the answer.
                        self.settle()?;
                        self.drop_unused_details(written);
                    }
                    drop(reply.send(written.map(drop)));
                }
                Ok(Request::Lease(lease)) => self.renew(lease)?,
                Ok(Request::Connected(reports)) => {
                    self.settle()?;
                    self.reports = Some(reports);
                    self.inputs.push_back(Input::Connected);
                }
                Ok(Request::Disconnected) => self.reports = None,
                Ok(Request::Acknowledged(up_to)) => {
                    self.inputs.push_back(Input::Acknowledged(up_to));
                }
                Ok(Request::Shares(reply)) => {
                    self.settle()?;
                    drop(reply.send((self.fence(), self.shares())));
                }
                Ok(Request::Released(reply)) => {
                    drop(reply.send(std::mem::take(&mut self.released).into()));
                }
                Ok(Request::GpuFault { devices, xid, ends }) => {
                    self.on_gpu_fault(&devices, xid, ends);
                }
                Ok(Request::Silence(id, position, news)) => {
                    self.inputs.push_back(Input::Silence { id, position, news });
                }
                Ok(Request::Checked(id, outcome)) => self.on_checked(id, outcome),
                Ok(Request::Shutdown) | Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.settle()?;
                    return Ok(false);
                }
                Err(mpsc::error::TryRecvError::Empty) => return Ok(true),
            }
        }
    }

    /// New deadlines: for the shims first, which keep them.
    fn renew(&mut self, lease: Lease) -> Result<(), DriverError> {
        let old = self.lease_file.read();
        let lease = self
            .lease_file
            .advance(lease)
            .map_err(|source| DriverError::Io { step: "write the lease file", source })?;
        let was_over = old.is_none_or(|old| old.strict_ms <= sys::boot_ms());
        if was_over {
            self.shims.values_mut().for_each(Shim::tell_lease_moved);
        }
        self.inputs.push_back(Input::Lease(lease));
        Ok(())
    }

    fn shares(&self) -> Vec<Share> {
        let share = |(id, record): (&AssignmentId, &yard_core::agent::Record)| Share {
            id: *id,
            job: record.assignment.job,
            state: record.state,
            started: record.started,
            ended: record.ended,
            connected: self.shims.get(id).is_some_and(|shim| shim.wire().is_some()),
            silent: record.silent,
            stuck: self.stuck(*id),
        };
        self.kept().records.iter().map(share).collect()
    }
}
