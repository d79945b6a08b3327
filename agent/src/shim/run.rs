//! The state of a shim and its loop: wait, look at children, listen, do what is due.

use super::message::{FromShim, State};
use super::news::News;
use super::patience::Patience;
use super::peers::Peers;
use super::pipes::Pipes;
use super::preparation::Preparation;
use super::record::{Entry, History, KillReason, Writer};
use super::setup::Prepared;
use super::task::Running;
use super::visits::Visits;
use super::{GROUP, ShimError};
use crate::launch::{Orders, Plan};
use crate::lease_file::LeaseFile;
use crate::sys;
use crate::wire::Wire;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use yard_common::ExitCause;
use yard_common::limits::SHIM_FLUSH_MS;

/// How often a start that waits for the lease looks at it.
const LEASE_POLL_MS: u64 = 100;
/// How far a deadline moves until that is written down: it is for people, and a record must not
/// grow with the weeks that a job runs.
const DEADLINE_NOTE_MS: u64 = 600_000;

/// A shim.
pub(super) struct Shim {
    /// Held for as long as the shim lives.
    _lock: OwnedFd,
    signals: SignalFd,
    listener: UnixListener,
    pub(super) agent: Option<Wire>,
    record: Writer,
    pub(super) history: History,
    pub(super) lease: Option<LeaseFile>,
    pub(super) work: Option<Work>,
    /// The job's own command before its tasks; none: there is none, or it is over.
    pub(super) preparation: Option<Preparation>,
    pub(super) peers: Peers,
    /// Through which ranks write where they cannot do so by themselves.
    pub(super) pipes: Pipes,
    pub(super) visits: Visits,
    /// What the agent was not told yet.
    pub(super) news: News,
    /// What runs now.
    pub(super) running: Option<Running>,
    /// Kills for lack of memory in the group, when the last task ended.
    pub(super) oom_kills: Option<u64>,
    /// Ended and not reaped: position and process.
    pub(super) zombies: Vec<(u32, i32)>,
    /// Ends that are on disk, here or with the agent.
    pub(super) durable: u32,
    /// When the record is flushed unless the agent was quicker.
    pub(super) flush_at_ms: Option<u64>,
    /// When output is looked at next, while no agent does.
    pub(super) output_at_ms: Option<u64>,
    /// The deadline that was looked at last; 0: none yet.
    pub(super) deadline_ms: u64,
    /// The deadline that was written down last.
    noted_ms: u64,
    /// A start waits for the lease.
    pub(super) waits_for_lease: bool,
    /// Processes are being killed, and looked at again.
    pub(super) is_killing: bool,
    /// How long that has gone on.
    pub(super) patience: Patience,
    pub(super) leaves: bool,
    /// Groups that it has entered.
    pub(super) entered: Vec<PathBuf>,
    /// It has left the agent's group.
    is_settled: bool,
}

/// What is there once the orders could be read and prepared.
pub(super) struct Work {
    pub(super) orders: Orders,
    pub(super) plan: Plan,
}

impl Shim {
    /// A shim that has done nothing yet.
    pub(super) fn new(
        lock: OwnedFd,
        signals: SignalFd,
        listener: UnixListener,
        agent: Wire,
        record: Writer,
        history: History,
        lease: Option<LeaseFile>,
    ) -> Shim {
        Shim {
            _lock: lock,
            signals,
            listener,
            agent: Some(agent),
            record,
            history,
            lease,
            work: None,
            preparation: None,
            peers: Peers::default(),
            pipes: Pipes::default(),
            visits: Visits::default(),
            news: News::default(),
            running: None,
            oom_kills: None,
            zombies: Vec::new(),
            durable: 0,
            flush_at_ms: None,
            output_at_ms: None,
            deadline_ms: 0,
            noted_ms: 0,
            waits_for_lease: false,
            is_killing: false,
            patience: Patience::default(),
            leaves: false,
            entered: Vec::new(),
            is_settled: false,
        }
    }

    /// Everything is ready but for the job's own command.
    pub(super) fn on_prepared(&mut self, prepared: Prepared) -> Result<(), ShimError> {
        let Prepared { orders, plan, jobs, gang, visits } = prepared;
        self.peers = Peers::new(jobs, gang);
        self.visits = Visits::new(visits);
        self.work = Some(Work { orders, plan });
        self.prepare_or_announce()
    }

    /// Nothing will run.
    pub(super) fn on_prepare_failed(&mut self, cause: ExitCause) -> Result<(), ShimError> {
        self.write(&Entry::Failed(cause))?;
        self.tell(FromShim::Failed(cause));
        Ok(())
    }

    /// The loop.
    pub(super) fn run(mut self) -> Result<(), ShimError> {
        while !self.leaves {
            self.wait()?;
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.pump_output();
            // What has ended before an order came is not blamed on the order.
            self.look_at_children()?;
            self.listen_to_agents()?;
            self.listen_to_peers()?;
            self.listen_to_visitors();
            self.look_at_deadline()?;
            self.look_at_checkpoint();
            self.go_on()?;
            self.look_at_output();
            self.make_durable()?;
            self.tell_news();
            self.settle();
        }
        self.peers.close(self.work.as_ref().map(|work| work.orders.assignment.node_rank));
        Ok(())
    }

    /// Leaves the agent's group, so that what stops the agent's unit does not stop the shim. The
    /// kernel may take milliseconds to move a process: a shim that had no time to do so while it
    /// stood by does it once the first start is behind it, or will not come.
    fn settle(&mut self) {
        let prepares = self.preparation.as_ref().is_some_and(Preparation::has_started);
        let runs = self.running.is_some() || self.history.started > 0;
        let due = prepares || runs || self.waits_for_lease;
        if let Some(work) = self.work.as_ref().filter(|_| due && !self.is_settled) {
            // Those that cannot, live with it.
            let _ = work.orders.site.cgroups().find(GROUP).enter_v2(&self.entered);
            self.is_settled = true;
        }
    }

    /// Writes an entry and takes it in.
    pub(super) fn write(&mut self, entry: &Entry) -> Result<(), ShimError> {
        self.record.append(entry).map_err(ShimError::Record)?;
        self.history.apply(entry);
        Ok(())
    }

    /// Tells the agent, if one is there.
    pub(super) fn tell(&mut self, message: FromShim) {
        let news = self.news.take();
        self.send_all(news.chain([message]));
    }

    /// Sends to the agent, if one is there, so that it hears all of it at once. An agent that does
    /// not listen is dropped: it hears the whole state when it comes back.
    pub(super) fn send_all(&mut self, mut messages: impl Iterator<Item = FromShim>) {
        let Some(agent) = &mut self.agent else { return };
        let queued = messages.try_for_each(|message| agent.queue(&message));
        if queued.and_then(|()| agent.flush()).is_err() {
            self.agent = None;
        }
    }

    /// The whole state.
    pub(super) fn state(&self) -> State {
        let history = &self.history;
        State {
            prepared: history.prepared,
            failed: history.failed,
            start_given: history.start_given,
            started: history.started,
            len: history.len,
            endings: history.endings.iter().map(|ending| (*ending).into()).collect(),
            reaped: history.reaped,
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// Whether it still watches over the deadline.
    pub(super) fn is_guardian(&self) -> bool {
        self.history.killing.is_none() && !self.history.reaped
    }

    /// Sleeps until something happens or is due.
    fn wait(&mut self) -> Result<(), ShimError> {
        let timeout = self.timeout();
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(agent) = &self.agent {
            let out = if agent.is_waiting() { PollFlags::POLLOUT } else { PollFlags::empty() };
            fds.push(PollFd::new(agent.fd(), PollFlags::POLLIN | out));
        }
        self.peers.add_to(&mut fds);
        self.pipes.add_to(&mut fds);
        self.visits.add_to(&mut fds);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(ShimError::Poll(errno)),
        }
    }

    /// When something is due by itself.
    fn timeout(&self) -> PollTimeout {
        let now_ms = sys::boot_ms();
        let deadline = Some(self.deadline_ms).filter(|at| *at > 0 && self.is_guardian());
        // Before the first renewal there is no deadline to wait for.
        let begun = self.history.start_given || self.preparation.is_some();
        let unknown = self.deadline_ms == 0 && begun && self.is_guardian();
        let lease = (self.waits_for_lease || unknown).then(|| now_ms + LEASE_POLL_MS);
        let kill = self.is_killing.then(|| now_ms + self.patience.pause_ms(now_ms));
        let siblings = self.running.as_ref().and_then(|running| running.kill_at_ms);
        let prepare = self.preparation.as_ref().and_then(Preparation::due_ms);
        let (flush, news, output) = (self.flush_at_ms, self.news.due_ms, self.output_at_ms);
        let (visits, checkpoint) = (self.visits.due_ms(), self.checkpoint_due_ms());
        let due =
            [deadline, lease, kill, prepare, siblings, flush, news, output, visits, checkpoint];
        let Some(next_ms) = due.into_iter().flatten().min() else { return PollTimeout::NONE };
        let wait_ms = next_ms.saturating_sub(now_ms).min(60_000);
        PollTimeout::try_from(wait_ms).unwrap_or(PollTimeout::MAX)
    }

    /// Kills when the deadline has passed, unless it moved meanwhile.
    fn look_at_deadline(&mut self) -> Result<(), ShimError> {
        if !self.is_guardian() || sys::boot_ms() < self.deadline_ms {
            return Ok(());
        }
        let Some(work) = &self.work else { return Ok(()) };
        let at_ms = match self.lease.as_ref().and_then(LeaseFile::read) {
            Some(lease) => lease.deadline_ms(work.orders.isolation),
            // What cannot be read has not moved.
            None if self.deadline_ms > 0 => self.deadline_ms,
            None => return Ok(()),
        };
        self.deadline_ms = at_ms;
        if at_ms >= self.noted_ms + DEADLINE_NOTE_MS {
            self.noted_ms = at_ms;
            self.write(&Entry::Deadline(at_ms))?;
        }
        if sys::boot_ms() >= at_ms {
            self.kill(KillReason::Deadline)?;
        }
        Ok(())
    }

    /// Flushes the record when it is due, and reaps what is durable.
    fn make_durable(&mut self) -> Result<(), ShimError> {
        let ended = self.history.endings.len() as u32;
        if self.durable < ended {
            let now_ms = sys::boot_ms();
            let due_ms = *self.flush_at_ms.get_or_insert(now_ms + SHIM_FLUSH_MS);
            // Alone, nobody else makes it durable.
            let alone = self.agent.is_none();
            let last = self.history.killing.is_some() && !self.zombies.is_empty();
            if alone || last || now_ms >= due_ms {
                self.record.sync().map_err(ShimError::Record)?;
                self.durable = ended;
            }
        }
        if self.durable >= ended {
            self.flush_at_ms = None;
        }
        self.reap_durable()
    }

    /// An agent has so many ends on disk.
    pub(super) fn on_saved(&mut self, ended: u32) {
        let durable = ended.min(self.history.endings.len() as u32);
        if durable > self.durable {
            // What ended since has a time of its own.
            (self.durable, self.flush_at_ms) = (durable, None);
        }
    }

    /// Takes agents in that want to speak. A new one replaces the old: what the old one has said
    /// is heard first, so that nothing of it arrives after the new one was told the state.
    pub(super) fn accept_agents(&mut self) -> Result<(), ShimError> {
        while let Ok((stream, _)) = self.listener.accept() {
            if !crate::wire::is_trusted(&stream, None) {
                continue;
            }
            self.hear_agent()?;
            let Ok(wire) = Wire::new(stream) else { continue };
            self.agent = Some(wire);
            // The state has it all.
            self.news = News::default();
            let state = self.state();
            self.tell(FromShim::State(state));
            // But what hangs, which it tells beside.
            self.patience.tell_again();
        }
        Ok(())
    }
}
