//! What an agent remembers of one assignment, and what it reports when that changes.
//!
//! Invariants, for the positions of the chain: `ended <= started <= len <= chain.len()`, and
//! `started` and `ended` only rise, `len` only falls. Positions below `ended` were reported as
//! exited, those from `len` on as recalled; so each is told of once.

use super::chain::{Chain, ChainLink};
use super::desired::{AssignmentId, DesiredAssignment, DesiredPhase};
use super::machine::Ending;
use super::report::{Exit, ReportKind};
use crate::stall::News;
use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::cause::LostReason;
use yard_common::id::TaskRange;
use yard_common::state::AssignmentState;

/// How far the machine was told to go. Written down before the order is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Order {
    /// It has heard nothing.
    #[n(0)]
    Nothing,
    /// To prepare.
    #[n(1)]
    Prepare,
    /// To run the chain. From here on ranks may have started, whatever was reported.
    #[n(2)]
    Start,
}

/// The end of an assignment before its chain is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stop {
    /// The cause of whatever is stopped by it. The first one stays.
    #[n(0)]
    pub cause: ExitCause,
    /// When to kill, by the boot clock.
    #[n(1)]
    pub kill_at_ms: u64,
    /// Whether the coordinator asked. If not, the agent has to tell it of an end.
    #[n(2)]
    pub asked: bool,
}

/// What an agent remembers of one assignment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// As last desired.
    #[n(0)]
    pub assignment: DesiredAssignment,
    /// Whether the last set still has it. If not, the record goes once everything is reaped.
    #[n(1)]
    pub wanted: bool,
    /// How far it has come.
    #[n(2)]
    pub state: AssignmentState,
    /// How far the machine was told to go.
    #[n(3)]
    pub order: Order,
    /// Tasks that have started or may still start.
    #[n(4)]
    pub len: u32,
    /// Tasks that have started, or may have.
    #[n(5)]
    pub started: u32,
    /// Tasks that have ended.
    #[n(6)]
    pub ended: u32,
    /// Set once it is to end early.
    #[n(7)]
    pub stop: Option<Stop>,
    /// Whether the kill was ordered since the agent started.
    #[n(8)]
    pub killed: bool,
    /// A fault of one of its GPUs while the present task runs, by the driver's number.
    #[n(9)]
    #[cbor(default)]
    pub fault: Option<u32>,
    /// Whether the coordinator was told last that the present task is silent.
    #[n(10)]
    #[cbor(default)]
    pub silent: bool,
}

impl Record {
    /// An assignment that the machine has not heard of.
    #[must_use]
    pub fn new(assignment: DesiredAssignment) -> Record {
        let len = assignment.chain.len();
        Record {
            assignment,
            wanted: true,
            state: AssignmentState::Preparing,
            order: Order::Nothing,
            len,
            started: 0,
            ended: 0,
            stop: None,
            killed: false,
            fault: None,
            silent: false,
        }
    }

    /// Which assignment.
    #[must_use]
    pub fn id(&self) -> AssignmentId {
        self.assignment.id
    }

    /// Whether its chain is not through yet.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self.state {
            AssignmentState::Preparing | AssignmentState::Ready | AssignmentState::Running => true,
            AssignmentState::Exited | AssignmentState::Gone | AssignmentState::Reaped => false,
        }
    }

    /// The tasks that it may still run.
    #[must_use]
    pub fn remaining(&self) -> Chain {
        self.assignment.chain.slice(self.ended, self.len.min(self.assignment.keep))
    }

    /// Goes on to the next state.
    ///
    /// # Panics
    /// If the table of `AssignmentState` has no such step.
    fn enter(&mut self, next: AssignmentState) {
        let (id, state) = (self.id(), self.state);
        assert!(state.may_become(next), "assignment {id} cannot go from {state} to {next}");
        self.state = next;
    }

    /// Preparing is done.
    pub(super) fn on_prepared(&mut self) -> Option<ReportKind> {
        if self.state != AssignmentState::Preparing {
            return None;
        }
        self.enter(AssignmentState::Ready);
        let waits = matches!(self.assignment.phase, DesiredPhase::Prepare) && self.stop.is_none();
        waits.then_some(ReportKind::Ready)
    }

    /// So many tasks have started.
    ///
    /// # Panics
    /// If tasks started that were recalled, or without an order.
    pub(super) fn on_started(&mut self, count: u32) -> Option<ReportKind> {
        if count <= self.started {
            return None;
        }
        let (id, len) = (self.id(), self.len);
        assert!(count <= len, "assignment {id} started {count} tasks, {len} are not recalled");
        assert!(self.order == Order::Start, "assignment {id} started without an order");
        if self.state != AssignmentState::Running {
            self.enter(AssignmentState::Running);
        }
        let fresh = self.assignment.chain.slice(self.started, count);
        self.started = count;
        Some(ReportKind::Started(fresh))
    }

    /// What the ranks of the task at this position do, if that is news and the task runs.
    pub(super) fn on_silence(&mut self, position: u32, news: News) -> Option<ReportKind> {
        let runs = self.state == AssignmentState::Running
            && self.stop.is_none()
            && self.ended == position
            && self.started > position;
        let (silent, what) = match news {
            News::Silent(for_ms) => (true, ReportKind::Silent { for_ms }),
            News::Active => (false, ReportKind::Active),
        };
        if !runs || self.silent == silent {
            return None;
        }
        self.silent = silent;
        Some(what)
    }

    /// Tasks from position `first` on have ended. Those that are known already are left out.
    ///
    /// # Panics
    /// If the end of a task before them was left out.
    pub(super) fn on_ended(&mut self, first: u32, endings: &[Ending]) -> Option<ReportKind> {
        let (id, known) = (self.id(), self.ended);
        assert!(first <= known, "assignment {id} ended at {first}, only {known} are known to have");
        let fresh = endings.get((known - first) as usize..).unwrap_or_default();
        if fresh.is_empty() {
            return None;
        }
        let stop = self.stop.map(|stop| stop.cause);
        self.silent = false;
        // The fault is of the task that ran then: of those that are told together, the first.
        let mut fault = self.fault.take();
        let ended = fresh.iter().map(|ending| match (stop, fault.take()) {
            (Some(cause), _) if ending.stopped => (cause, Some(ending.status), ending.rank),
            (_, Some(xid)) if !ending.status.is_success() => {
                (ExitCause::GpuFault(xid), Some(ending.status), ending.rank)
            }
            _ => (ending.status, None, ending.rank),
        });
        let ended: Vec<_> = ended.collect();
        Some(ReportKind::Exited(self.end_tasks(ended.into_iter())))
    }

    /// Writes the next tasks down as ended.
    fn end_tasks(
        &mut self,
        ended: impl Iterator<Item = (ExitCause, Option<ExitCause>, Option<u32>)>,
    ) -> Vec<Exit> {
        let tasks = self.assignment.chain.tasks().skip(self.ended as usize);
        let mut exits: Vec<Exit> = Vec::new();
        let mut count = self.ended;
        for ((task, attempt), (cause, status, rank)) in tasks.zip(ended) {
            count += 1;
            let link = ChainLink { tasks: TaskRange::one(task), attempt };
            let exit = Exit { link, cause, status, rank };
            match exits.last_mut() {
                Some(last) if last.continues_with(&exit) => last.link.tasks.len += 1,
                Some(_) | None => exits.push(exit),
            }
        }
        let (id, len) = (self.id(), self.len);
        assert!(count <= len, "assignment {id} ended {count} tasks, {len} are not recalled");
        self.ended = count;
        self.started = self.started.max(count);
        exits
    }

    /// No task from position `len` on will start.
    ///
    /// # Panics
    /// If one of those has started.
    pub(super) fn on_cut(&mut self, len: u32) -> Option<ReportKind> {
        if len >= self.len {
            return None;
        }
        let (id, started) = (self.id(), self.started);
        assert!(started <= len, "assignment {id} cut at {len}, but {started} have started");
        let tail = self.assignment.chain.slice(len, self.len);
        self.len = len;
        Some(ReportKind::Recalled(tail))
    }

    /// It failed before any rank started: the first task carries the cause, the others may go
    /// elsewhere at no cost.
    pub(super) fn on_failed(&mut self, cause: ExitCause) -> Vec<ReportKind> {
        let mut reports = Vec::new();
        if self.started == 0 && self.len > 0 {
            let first = self.end_tasks(std::iter::once((cause, None, None)));
            reports.push(ReportKind::Exited(first));
        }
        reports.extend(self.on_cut(self.ended));
        reports
    }

    /// Its chain is through.
    pub(super) fn on_all_ended(&mut self) {
        self.enter(AssignmentState::Exited);
    }

    /// No process is left: accounts for every task that was not yet.
    pub(super) fn on_reaped(&mut self) -> Vec<ReportKind> {
        let unknown = ExitCause::Lost(LostReason::Shim);
        let (cause, asked) = self.stop.map_or((unknown, false), |stop| (stop.cause, stop.asked));
        let mut reports = Vec::new();
        if self.ended < self.started {
            let missing = (self.started - self.ended) as usize;
            let ends = std::iter::repeat_n((cause, None, None), missing);
            reports.push(ReportKind::Exited(self.end_tasks(ends)));
        } else if !asked && self.is_live() {
            reports.extend(self.on_failed(cause));
        }
        reports.extend(self.on_cut(self.ended));
        self.enter(AssignmentState::Reaped);
        reports.push(ReportKind::Reaped);
        reports
    }

    /// Ends it early at `kill_at_ms`. A stop that was there keeps its cause; the earlier kill
    /// wins.
    pub(super) fn stop_at(&mut self, cause: ExitCause, kill_at_ms: u64, asked: bool) {
        let earlier_ms = self.stop.map_or(kill_at_ms, |stop| stop.kill_at_ms.min(kill_at_ms));
        let stop = self.stop.get_or_insert(Stop { cause, kill_at_ms, asked });
        stop.kill_at_ms = earlier_ms;
    }
}

impl Exit {
    /// Whether `next` is the next task of the same link and ended alike.
    fn continues_with(&self, next: &Exit) -> bool {
        self.link.tasks.end() == next.link.tasks.first
            && self.link.attempt == next.link.attempt
            && (self.cause, self.status, self.rank) == (next.cause, next.status, next.rank)
    }
}
