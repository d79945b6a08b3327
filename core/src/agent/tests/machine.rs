//! A toy machine: shims that outlive the agent, and the truth about what ran.

use crate::agent::{Action, AssignmentId, Ending, Found, ShimEvent};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use yard_common::ExitCause;

/// One shim, its record on disk included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shim {
    pub(super) dead: bool,
    pub(super) prepared: bool,
    pub(super) failed: Option<ExitCause>,
    pub(super) start_given: bool,
    pub(super) len: u32,
    pub(super) started: u32,
    pub(super) endings: Vec<Ending>,
    /// Whether ranks of the last started task run.
    pub(super) running: bool,
    pub(super) signalled: bool,
    pub(super) kill_given: bool,
}

/// What a shim does next, if it can.
#[derive(Clone, Copy, Debug)]
pub(super) enum Progress {
    Prepare,
    FailPrepare(ExitCause),
    StartNext,
    End(ExitCause),
    Die,
    FinishKill,
}

/// The machine of one node.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) shims: BTreeMap<AssignmentId, Shim>,
    /// Told to the agent in order; lost with it.
    pub(super) events: VecDeque<(AssignmentId, ShimEvent)>,
    /// How often each task started: the truth that no crash forgets.
    pub(super) starts: BTreeMap<(AssignmentId, u32), u32>,
    /// What the shims wrote down of each end.
    pub(super) truth: BTreeMap<(AssignmentId, u32), Ending>,
    /// Assignments of which the agent has said that nothing is left.
    pub(super) closed: BTreeSet<AssignmentId>,
    /// Assignments whose records on this machine were damaged.
    pub(super) damaged: BTreeSet<AssignmentId>,
    /// Kills of assignments without a shim.
    empty_kills: BTreeSet<AssignmentId>,
    /// Until when a task may start: the strict deadline in shared memory.
    pub(super) start_until_ms: u64,
}

impl Machine {
    /// Carries an order out. Orders that come twice have the effect of one.
    pub(super) fn order(&mut self, action: &Action) {
        match *action {
            Action::Prepare(id) => {
                self.shims.entry(id).or_default();
            }
            Action::Start { id, len } => {
                let Some(shim) = self.shims.get_mut(&id) else { return };
                if !shim.start_given {
                    (shim.start_given, shim.len) = (true, len);
                }
            }
            Action::Cut { id, len } => self.cut(id, len),
            Action::SignalStop(id) => {
                if let Some(shim) = self.shims.get_mut(&id) {
                    shim.signalled = true;
                    self.cut(id, 0);
                }
            }
            Action::Kill(id) => match self.shims.get_mut(&id) {
                Some(shim) => shim.kill_given = true,
                None => {
                    self.empty_kills.insert(id);
                }
            },
            Action::Release(id) => {
                let left = self.shims.remove(&id);
                assert!(!left.is_some_and(|shim| shim.running), "{id} released while it runs");
            }
            Action::Persist(_) | Action::Note(_) | Action::Send(_) | Action::SetTimer(_) => {
                unreachable!("not for the machine: {action:?}")
            }
        }
    }

    fn cut(&mut self, id: AssignmentId, len: u32) {
        let Some(shim) = self.shims.get_mut(&id).filter(|shim| !shim.dead) else { return };
        shim.len = shim.len.min(len.max(shim.started));
        let len = shim.len;
        self.events.push_back((id, ShimEvent::Cut(len)));
    }

    /// Lets a shim take a step, and says whether it could.
    pub(super) fn progress(&mut self, id: AssignmentId, progress: Progress, now_ms: u64) -> bool {
        if self.empty_kills.remove(&id) {
            self.events.push_back((id, ShimEvent::Reaped));
            return true;
        }
        let start_until_ms = self.start_until_ms;
        let Some(shim) = self.shims.get_mut(&id) else { return false };
        let idle = !shim.dead && !shim.kill_given && shim.failed.is_none();
        match progress {
            Progress::Prepare if idle && !shim.prepared => {
                shim.prepared = true;
                self.events.push_back((id, ShimEvent::Prepared));
            }
            Progress::FailPrepare(cause) if idle && !shim.prepared => {
                shim.failed = Some(cause);
                self.events.push_back((id, ShimEvent::Failed(cause)));
            }
            Progress::StartNext
                if idle
                    && shim.prepared
                    && shim.start_given
                    && !shim.signalled
                    && !shim.running
                    && shim.started < shim.len
                    && now_ms < start_until_ms =>
            {
                let position = shim.started;
                shim.started += 1;
                shim.running = true;
                *self.starts.entry((id, position)).or_default() += 1;
                assert_eq!(self.starts[&(id, position)], 1, "{id} started {position} twice");
                assert!(!self.closed.contains(&id), "{id} started {position} after the last word");
                self.events.push_back((id, ShimEvent::Started(position + 1)));
            }
            Progress::End(status) if !shim.dead && !shim.kill_given && shim.running => {
                let stopped = shim.signalled;
                self.end(id, Ending { status, stopped, rank: None });
            }
            Progress::Die if !shim.dead => {
                shim.dead = true;
                let started = shim.started;
                self.events.push_back((id, ShimEvent::Died { started }));
            }
            Progress::FinishKill if shim.kill_given => {
                if shim.running && shim.dead {
                    // Nobody was there to wait for it.
                    shim.running = false;
                } else if shim.running {
                    let status = ExitCause::Signaled(9);
                    self.end(id, Ending { status, stopped: true, rank: None });
                }
                self.shims.entry(id).or_default().dead = true;
                self.events.push_back((id, ShimEvent::Reaped));
            }
            Progress::Prepare
            | Progress::FailPrepare(_)
            | Progress::StartNext
            | Progress::End(_)
            | Progress::Die
            | Progress::FinishKill => return false,
        }
        true
    }

    fn end(&mut self, id: AssignmentId, ending: Ending) {
        let shim = self.shims.entry(id).or_default();
        let position = shim.started - 1;
        shim.running = false;
        shim.endings.push(ending);
        self.truth.insert((id, position), ending);
        self.events.push_back((id, ShimEvent::Ended { first: position, endings: vec![ending] }));
    }

    /// A shim tells again all that it has told.
    pub(super) fn repeat(&mut self, id: AssignmentId) {
        let Some(shim) = self.shims.get(&id).filter(|shim| !shim.dead) else { return };
        if shim.prepared {
            self.events.push_back((id, ShimEvent::Prepared));
        }
        if shim.started > 0 {
            self.events.push_back((id, ShimEvent::Started(shim.started)));
        }
        let endings = shim.endings.clone();
        self.events.push_back((id, ShimEvent::Ended { first: 0, endings }));
    }

    /// The records of a shim are lost, and it dies with its ranks.
    pub(super) fn damage(&mut self, id: AssignmentId) {
        self.shims.remove(&id);
        self.damaged.insert(id);
    }

    /// The machine goes down: every process is gone, what was written down stays.
    pub(super) fn reboot(&mut self) {
        self.events.clear();
        self.empty_kills.clear();
        self.start_until_ms = 0;
        for shim in self.shims.values_mut() {
            (shim.dead, shim.running) = (true, false);
        }
    }

    /// What a new agent finds.
    pub(super) fn found(&self) -> Vec<Found> {
        let found = |(id, shim): (&AssignmentId, &Shim)| Found {
            id: *id,
            alive: !shim.dead,
            prepared: shim.prepared,
            start_given: shim.start_given,
            started: shim.started,
            len: shim.len,
            endings: shim.endings.clone(),
            failed: shim.failed,
        };
        self.shims.iter().map(found).collect()
    }

    /// Whether ranks of this assignment run.
    pub(super) fn runs(&self, id: AssignmentId) -> bool {
        self.shims.get(&id).is_some_and(|shim| shim.running)
    }

    /// Everything that a step could be taken for.
    pub(super) fn ids(&self) -> Vec<AssignmentId> {
        self.shims.keys().chain(&self.empty_kills).copied().collect()
    }
}
