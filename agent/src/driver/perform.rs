//! Orders to the machine, and what comes back.

use super::handle::{DriverError, Released};
use super::remains::Remains;
use super::shims::{Shim, make_directory};
use super::turn::Turn;
use crate::launch::{Assignment, Orders};
use crate::paths::tag;
use crate::shim::message::{FromShim, State};
use crate::shim::record::History;
use crate::shim::{DETAIL, RECORD};
use crate::sys;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Child;
use yard_common::ExitCause;
use yard_common::limits::{DETAIL_BYTES_MAX, RELEASED_MAX};
use yard_core::agent::{Action, AssignmentId, Desired, Ending, Input, ShimEvent};

impl Turn {
    /// Does one thing. What cannot be done is told to the automaton, never an error: the storage
    /// of the agent itself is all that ends it.
    pub(super) fn act(&mut self, action: Action) {
        match action {
            // Taken out before.
            Action::Persist(_) | Action::Note(_) => {}
            Action::Prepare(id) => self.prepare(id),
            Action::Start { id, len } => self.with(id, |shim| shim.start(len)),
            Action::Cut { id, len } => self.with(id, |shim| shim.cut(len)),
            Action::SignalStop(id) => self.with(id, Shim::signal_stop),
            Action::Kill(id) => self.kill(id),
            Action::Release(id) => self.release(id),
            Action::Send(report) => {
                let sent = self.reports.as_ref().map(|reports| reports.try_send(report));
                if matches!(sent, Some(Err(_))) {
                    // The stream is over, or does not take what it asked for.
                    self.reports = None;
                }
            }
            Action::SetTimer(at_ms) => {
                self.timers.insert(at_ms);
            }
        }
    }

    fn with(&mut self, id: AssignmentId, order: impl FnOnce(&mut Shim)) {
        if let Some(shim) = self.shims.get_mut(&id).filter(|shim| !shim.is_dead) {
            order(shim);
        }
    }

    fn tell(&mut self, id: AssignmentId, event: ShimEvent) {
        self.inputs.push_back(Input::Shim(id, event));
    }

    fn prepare(&mut self, id: AssignmentId) {
        if !self.shims.contains_key(&id) && !self.ask_check(id) {
            self.make(id);
        }
    }

    /// Makes the shim of an assignment, and tells it what it was to be told meanwhile.
    pub(super) fn make(&mut self, id: AssignmentId) {
        let waiting = self.shims.remove(&id);
        let directory = self.paths.shim(id);
        match self.make_shim(id, &directory) {
            Ok(mut shim) => {
                shim.follow(waiting);
                self.shims.insert(id, shim);
            }
            Err(refusal) => {
                tracing::error!(assignment = %id, error = refusal.text, "no shim");
                self.shims.insert(id, Shim::dead(directory));
                self.tell(id, ShimEvent::Failed(ExitCause::PrepareFailed(refusal.step)));
            }
        }
    }

    fn kill(&mut self, id: AssignmentId) {
        self.drop_check(id);
        match self.shims.get_mut(&id) {
            Some(shim) if !shim.is_dead => shim.kill(),
            Some(shim) => {
                let history = History::read(&shim.directory().join(RECORD)).unwrap_or_default();
                self.watch_remains(id, history);
            }
            None => self.watch_remains(id, History::default()),
        }
    }

    /// What is known of those that do not end.
    pub(super) fn stuck(&self, id: AssignmentId) -> Option<String> {
        let told = self.shims.get(&id).and_then(|shim| shim.stuck.clone());
        told.or_else(|| self.remains.get(&id).and_then(Remains::stuck))
    }

    /// Kills what has no shim, and looks until nothing is left.
    fn watch_remains(&mut self, id: AssignmentId, history: History) {
        let group = self.options.cgroups.find(&tag(id));
        let mark = crate::launch::mark(&self.site, &tag(id));
        let this_boot = history.boot == Some(self.site.boot);
        let mains = if this_boot { history.processes } else { Vec::new() };
        let mut remains = Remains::new(group, mark, mains);
        if remains.kill() {
            self.tell(id, ShimEvent::Reaped);
        } else {
            self.remains.insert(id, remains);
        }
    }

    /// Removes everything but the output of the ranks.
    fn release(&mut self, id: AssignmentId) {
        self.drop_check(id);
        let child = self.shims.remove(&id).and_then(Shim::leave);
        self.cpus.forget(id);
        self.meter.forget(id);
        self.leaving.push((child, self.options.cgroups.find(&tag(id))));
        let directory = self.paths.shim(id);
        if let Ok(orders) = std::fs::read(directory.join(DETAIL))
            && let Ok(orders) = Orders::from_bytes(&orders)
        {
            let scratch = self.paths.scratch(orders.assignment.job, id);
            self.cleaner.remove(&scratch);
            self.note_released(&orders);
            if let Some(job) = scratch.parent() {
                let _ = std::fs::remove_dir(job);
            }
        }
        self.cleaner.remove(&directory);
    }

    /// Remembers whose output nobody may have looked at since it ended.
    fn note_released(&mut self, orders: &Orders) {
        if self.released.len() >= RELEASED_MAX {
            self.released.pop_front();
        }
        let (id, job, chain) = (orders.id, orders.assignment.job, orders.chain.clone());
        self.released.push_back(Released { id, job, chain });
    }

    /// Takes in what shims say.
    pub(super) fn hear_shims(&mut self) {
        let mut said = Vec::new();
        for (id, shim) in &mut self.shims {
            said.extend(shim.receive().into_iter().map(|message| (*id, message)));
        }
        for (id, message) in said {
            self.hear(id, message);
        }
    }

    fn hear(&mut self, id: AssignmentId, message: FromShim) {
        match message {
            FromShim::State(state) => self.hear_state(id, state),
            FromShim::Prepared => self.tell(id, ShimEvent::Prepared),
            FromShim::Failed(cause) => self.tell(id, ShimEvent::Failed(cause)),
            FromShim::Started(count) => self.tell(id, ShimEvent::Started(count)),
            FromShim::Ended(first, ends) => {
                let endings: Vec<Ending> = ends.into_iter().map(Ending::from).collect();
                self.ask_check_after(id, &endings);
                self.tell(id, ShimEvent::Ended { first, endings });
            }
            FromShim::Cut(len) => self.tell(id, ShimEvent::Cut(len)),
            FromShim::Reaped => self.tell(id, ShimEvent::Reaped),
            FromShim::Stuck(text) => {
                tracing::warn!(assignment = %id, text, "what was killed does not end");
                if let Some(shim) = self.shims.get_mut(&id) {
                    shim.stuck = Some(text);
                }
            }
            // It was told already what to do next.
            FromShim::Ready => {}
        }
    }

    /// The whole state, in the order in which it came about.
    fn hear_state(&mut self, id: AssignmentId, state: State) {
        if state.prepared {
            self.tell(id, ShimEvent::Prepared);
        }
        if let Some(cause) = state.failed {
            self.tell(id, ShimEvent::Failed(cause));
        }
        if state.started > 0 {
            self.tell(id, ShimEvent::Started(state.started));
        }
        let endings: Vec<Ending> = state.endings.into_iter().map(Ending::from).collect();
        if !endings.is_empty() {
            self.tell(id, ShimEvent::Ended { first: 0, endings });
        }
        if state.start_given {
            self.tell(id, ShimEvent::Cut(state.len));
        }
        if state.reaped {
            self.tell(id, ShimEvent::Reaped);
        }
    }

    /// Looks at what cannot be waited for.
    pub(super) fn look(&mut self) -> Result<(), DriverError> {
        let now_ms = sys::boot_ms();
        if self.timers.first().is_some_and(|at_ms| *at_ms <= now_ms) {
            self.timers.retain(|at_ms| *at_ms > now_ms);
            self.inputs.push_back(Input::Tick);
        }
        self.ready.refill();
        let lives = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        let ended = self.leaving.extract_if(.., |(child, _)| !child.as_mut().is_some_and(lives));
        ended.for_each(|(_, group)| self.cleaner.remove_group(group));
        let empty = self.remains.extract_if(.., |_, remains| remains.kill());
        for (id, _) in empty.collect::<Vec<_>>() {
            self.tell(id, ShimEvent::Reaped);
        }
        let doubtful: Vec<AssignmentId> =
            self.shims.iter().filter(|(_, shim)| shim.in_doubt).map(|(id, _)| *id).collect();
        for id in doubtful {
            self.resolve_doubt(id);
        }
        Ok(())
    }

    /// A shim does not answer: it is dead if nobody holds its lock, and is connected to if not.
    fn resolve_doubt(&mut self, id: AssignmentId) {
        let Some(shim) = self.shims.get_mut(&id) else { return };
        if !shim.lock_is_free() {
            // It may be on its way out, or in; the next look tells.
            let _ = shim.connect();
            return;
        }
        shim.reap();
        (shim.in_doubt, shim.is_dead) = (false, true);
        tracing::warn!(assignment = %id, "the shim is dead");
        let record = shim.directory().join(RECORD);
        let chain_len = self.chain_len(id);
        let history = History::read(&record).unwrap_or(History {
            damaged: true,
            boot: Some(self.site.boot),
            ..History::default()
        });
        let state = State {
            prepared: history.prepared,
            failed: history.failed,
            start_given: history.start_given,
            started: history.started,
            len: history.len,
            endings: history.endings.iter().map(|ending| (*ending).into()).collect(),
            reaped: history.reaped,
            ..State::default()
        };
        self.hear_state(id, state);
        if !history.reaped {
            let started = match history.damaged {
                true => chain_len,
                false => history.starting.max(history.started),
            };
            self.tell(id, ShimEvent::Died { started });
            let given = self.kept().records.get(&id).is_some_and(|record| record.killed);
            if given {
                // The kill was given to one that did not live to do it.
                self.watch_remains(id, history);
            }
        }
    }

    fn chain_len(&self, id: AssignmentId) -> u32 {
        self.kept().records.get(&id).map_or(0, |record| record.assignment.chain.len())
    }

    /// Puts the details of new assignments where their shims find them. Returns which were new.
    pub(super) fn write_details(
        &self,
        desired: &Desired,
        details: Vec<(AssignmentId, Assignment)>,
    ) -> Result<Vec<AssignmentId>, DriverError> {
        let mut written_ids = Vec::new();
        let mut details: BTreeMap<AssignmentId, Assignment> = details.into_iter().collect();
        let known = &self.kept().records;
        for wanted in desired.assignments.iter().filter(|wanted| !known.contains_key(&wanted.id)) {
            let Some(assignment) = details.remove(&wanted.id) else { continue };
            let orders = Orders {
                id: wanted.id,
                chain: wanted.chain.clone(),
                isolation: wanted.isolation,
                assignment,
                site: self.site.clone(),
            };
            let bytes = orders.to_bytes();
            if bytes.len() > DETAIL_BYTES_MAX {
                return Err(DriverError::Detail { id: wanted.id, bytes: bytes.len() });
            }
            let directory = self.paths.shim(wanted.id);
            let written =
                make_directory(&directory).and_then(|()| write(&directory.join(DETAIL), &bytes));
            written.map_err(|source| DriverError::Io { step: "write the details", source })?;
            written_ids.push(wanted.id);
        }
        Ok(written_ids)
    }

    /// Removes the details of assignments that the set did not bring to life.
    pub(super) fn drop_unused_details(&self, written: &[AssignmentId]) {
        for id in written {
            if !self.kept().records.contains_key(id) && !self.shims.contains_key(id) {
                let _ = std::fs::remove_dir_all(self.paths.shim(*id));
            }
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}
