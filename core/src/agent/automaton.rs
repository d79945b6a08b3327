//! The automaton: one input in, a list of actions out.
//!
//! Inputs only note what is new. [`Agent::advance`] then looks at each assignment as it is and
//! takes whatever step is due, so that it does not matter in which order things came.

use super::desired::{AssignmentId, DesiredPhase};
use super::kept::{Change, Kept};
use super::machine::{Action, Input, Lease, ShimEvent};
use super::record::{Order, Record};
use super::report::{Report, ReportKind};
use crate::mutant;
use crate::stall::News;
use std::collections::BTreeSet;
use yard_common::ExitCause;
use yard_common::cause::LostReason;
use yard_common::id::Sequence;
use yard_common::limits::{AGENT_OUTBOX_MAX, AGENT_SENDS_MAX};
use yard_common::state::AssignmentState;

/// What one agent knows and decides. See the [module](super) for the rules that it keeps.
#[derive(Clone, Debug)]
pub struct Agent {
    pub(super) kept: Kept,
    lease: Option<Lease>,
    /// The last report that was sent on this connection.
    sent: Sequence,
    /// The timer that was asked for last, until it goes off.
    timer_ms: Option<u64>,
    pub(super) now_ms: u64,
}

/// What one step has gathered.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) changes: Vec<Change>,
    pub(super) touched: BTreeSet<AssignmentId>,
    /// Those that became ready, which nobody waits for: their shims tell it again.
    ready: BTreeSet<AssignmentId>,
    pub(super) orders: Vec<Action>,
}

impl Agent {
    /// An agent that remembers this, and has heard nothing since.
    pub(super) fn new(kept: Kept, lease: Option<Lease>, now_ms: u64) -> Agent {
        let sent = kept.last;
        Agent { kept, lease, sent, timer_ms: None, now_ms }
    }

    /// What the agent has on disk once the `Persist` or `Note` of the last list is done.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Takes an input in, at this time of the boot clock, and decides.
    ///
    /// # Panics
    /// If a shim breaks its contract: counts that fall, a task that started after its recall.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut turn = Turn::default();
        // A machine that was frozen must see what ran out meanwhile before it hears what is new.
        self.expire(&mut turn);
        match input {
            Input::Desired(desired) => self.obey(desired, &mut turn),
            Input::Shim(id, event) => self.on_shim(id, &event, &mut turn),
            Input::Lease(lease) => self.lease = Some(lease),
            Input::Connected => self.sent = self.acknowledged(),
            Input::Acknowledged(up_to) => self.acknowledge(up_to, &mut turn),
            Input::Tick => self.timer_ms = self.timer_ms.filter(|at_ms| *at_ms > self.now_ms),
            Input::Fault { id, xid, ends } => self.on_fault(id, xid, ends, &mut turn),
            Input::Silence { id, position, news } => {
                self.on_silence(id, position, news, &mut turn);
            }
        }
        self.finish(turn)
    }

    /// Takes every step that is due and lists the actions, the writing first.
    pub(super) fn finish(&mut self, mut turn: Turn) -> Vec<Action> {
        let ids: Vec<AssignmentId> = self.kept.records.keys().copied().collect();
        for id in ids {
            self.advance(id, &mut turn);
        }
        self.forget(&mut turn);
        for id in std::mem::take(&mut turn.touched) {
            turn.changes.push(match self.kept.records.get(&id) {
                Some(record) => Change::Recorded(record.clone()),
                None => Change::Forgotten(id),
            });
        }
        let mut actions = Vec::new();
        if !turn.changes.is_empty() {
            // A flush is what a short job waits for, so there is none for what is heard again.
            let write = if turn.is_light() { Action::Note } else { Action::Persist };
            actions.push(write(turn.changes));
        }
        actions.append(&mut turn.orders);
        self.send_more(&mut actions);
        self.set_timer(&mut actions);
        actions
    }

    /// Takes the step of one assignment that is due, if any.
    fn advance(&mut self, id: AssignmentId, turn: &mut Turn) {
        let may_start = self.may_start();
        let waits = self.waits_for_former_life(id);
        let has_room = self.kept.outbox.len() < AGENT_OUTBOX_MAX;
        let now_ms = self.now_ms;
        let Some(record) = self.kept.records.get_mut(&id) else { return };
        if record.is_live() && record.order < Order::Start && record.assignment.keep < record.len {
            let recalled = record.on_cut(record.assignment.keep);
            self.report(id, recalled, turn);
        }
        let Some(record) = self.kept.records.get_mut(&id) else { return };
        if record.is_live() && record.ended == record.len {
            record.on_all_ended();
            turn.touched.insert(id);
        }
        match (record.state, record.stop) {
            (AssignmentState::Reaped, _) => {}
            (AssignmentState::Exited | AssignmentState::Gone, _) => turn.kill(record),
            (_, Some(_)) if record.order == Order::Nothing => self.reaped(id, turn),
            (_, Some(stop)) => {
                if now_ms >= stop.kill_at_ms {
                    turn.kill(record);
                }
            }
            (_, None) => {
                let starts = match record.assignment.phase {
                    DesiredPhase::Start | DesiredPhase::Run => may_start,
                    DesiredPhase::Prepare | DesiredPhase::Stop { .. } => false,
                };
                if record.order == Order::Nothing && has_room && !waits {
                    record.order = Order::Prepare;
                    turn.order(id, Action::Prepare(id));
                }
                if record.order == Order::Prepare && starts {
                    record.order = Order::Start;
                    turn.order(id, Action::Start { id, len: record.len });
                }
            }
        }
    }

    /// Drops the records that have nothing left to remember. A reaped assignment that the set
    /// still has is kept, so that it does not look new.
    fn forget(&mut self, turn: &mut Turn) {
        self.kept.records.retain(|id, record| {
            let done = record.state == AssignmentState::Reaped && !record.wanted;
            if done {
                turn.touched.insert(*id);
            }
            !done
        });
    }

    /// Whether something of a former life of the cluster is still here. A cluster that was restored
    /// may know nothing of it, and grant what it holds.
    fn waits_for_former_life(&self, id: AssignmentId) -> bool {
        let first = self.kept.fence.incarnation.first_number();
        let former = |id: &AssignmentId| id.allocation.0 < first;
        !former(&id) && { self.kept.records.iter() }
            .take_while(|(id, _)| former(id))
            .any(|(_, record)| record.state != AssignmentState::Reaped)
    }

    /// Whether a rank may start now: a majority answers for the very lease that the set which
    /// wants it was minted under.
    fn may_start(&self) -> bool {
        let held = |lease: Lease| lease.id == self.kept.lease && self.now_ms < lease.strict_ms;
        self.lease.is_some_and(held)
    }

    /// Ends what has outlived its deadline.
    pub(super) fn expire(&mut self, turn: &mut Turn) {
        let Some(lease) = self.lease else { return };
        let now_ms = self.now_ms;
        for (id, record) in &mut self.kept.records {
            let runs = record.is_live() && record.order > Order::Nothing && !record.killed;
            if runs && now_ms >= lease.deadline_ms(record.assignment.isolation) {
                record.stop_at(ExitCause::Lost(LostReason::LeaseExpired), now_ms, false);
                turn.touched.insert(*id);
            }
        }
    }

    /// Notes what a shim says.
    fn on_shim(&mut self, id: AssignmentId, event: &ShimEvent, turn: &mut Turn) {
        let now_ms = self.now_ms;
        let Some(record) = self.kept.records.get_mut(&id) else {
            // Left over from a record that is gone: it was killed when it was found.
            if *event == ShimEvent::Reaped {
                turn.orders.push(Action::Release(id));
            }
            return;
        };
        if record.state == AssignmentState::Reaped {
            return;
        }
        turn.touched.insert(id);
        let live = record.is_live();
        let reports: Vec<ReportKind> = match event {
            ShimEvent::Prepared => {
                let waits = record.on_prepared();
                if waits.is_none() {
                    turn.ready.insert(id);
                }
                waits.into_iter().collect()
            }
            // Under a stop, the failure is that of the stop.
            ShimEvent::Failed(cause) if live && record.stop.is_none() => record.on_failed(*cause),
            ShimEvent::Failed(_) => Vec::new(),
            ShimEvent::Started(count) => record.on_started(*count).into_iter().collect(),
            ShimEvent::Ended { first, endings } => {
                record.on_ended(*first, endings).into_iter().collect()
            }
            // The answer to a recall may cross with a failure that took the whole chain along.
            ShimEvent::Cut(len) if live => record.on_cut(*len).into_iter().collect(),
            ShimEvent::Cut(_) => Vec::new(),
            ShimEvent::Died { started } => {
                if live {
                    record.started = record.started.max((*started).min(record.len));
                    let unknown = match mutant!("unknown_is_success") {
                        true => ExitCause::Exited(0),
                        false => ExitCause::Lost(LostReason::Shim),
                    };
                    record.stop_at(unknown, now_ms, false);
                }
                Vec::new()
            }
            ShimEvent::Reaped => return self.reaped(id, turn),
        };
        self.report(id, reports, turn);
    }

    /// A GPU of an assignment has failed.
    fn on_fault(&mut self, id: AssignmentId, xid: u32, ends: bool, turn: &mut Turn) {
        let now_ms = self.now_ms;
        let Some(record) = self.kept.records.get_mut(&id) else { return };
        if !record.is_live() || record.order == Order::Nothing {
            return;
        }
        // The first fault is the reason of those that follow.
        let first = *record.fault.get_or_insert(xid);
        if ends {
            record.stop_at(ExitCause::GpuFault(first), now_ms, false);
        }
        turn.touched.insert(id);
    }

    /// Ranks fell silent, or do something again. While the coordinator does not listen, this is
    /// left out before anything else is: it is seen again.
    fn on_silence(&mut self, id: AssignmentId, position: u32, news: News, turn: &mut Turn) {
        if self.kept.outbox.len() >= AGENT_OUTBOX_MAX / 2 {
            return;
        }
        let Some(record) = self.kept.records.get_mut(&id) else { return };
        if let Some(report) = record.on_silence(position, news) {
            self.report(id, [report], turn);
        }
    }

    /// No process of the assignment is left.
    pub(super) fn reaped(&mut self, id: AssignmentId, turn: &mut Turn) {
        let Some(record) = self.kept.records.get_mut(&id) else { return };
        let reports = record.on_reaped();
        if record.order > Order::Nothing {
            turn.orders.push(Action::Release(id));
        }
        self.report(id, reports, turn);
    }

    /// Puts reports into the outbox. They are sent when they are on disk.
    pub(super) fn report(
        &mut self,
        assignment: AssignmentId,
        kinds: impl IntoIterator<Item = ReportKind>,
        turn: &mut Turn,
    ) {
        turn.touched.insert(assignment);
        for what in kinds {
            let report = Report { sequence: Sequence(self.kept.last.0 + 1), assignment, what };
            turn.change(&mut self.kept, Change::Reported(report));
        }
    }

    /// The last report that needs no sending any more.
    fn acknowledged(&self) -> Sequence {
        match self.kept.outbox.front() {
            Some(first) => Sequence(first.sequence.0 - 1),
            None => self.kept.last,
        }
    }

    fn acknowledge(&mut self, up_to: Sequence, turn: &mut Turn) {
        if up_to > self.acknowledged() {
            turn.change(&mut self.kept, Change::Acknowledged(up_to));
        }
    }

    /// Sends what is due, in order, a bounded number ahead of the acknowledgements.
    fn send_more(&mut self, actions: &mut Vec<Action>) {
        let limit = self.acknowledged().0.saturating_add(AGENT_SENDS_MAX);
        let sent = self.sent;
        let due = self.kept.outbox.iter().skip_while(|report| report.sequence <= sent);
        for report in due.take_while(|report| report.sequence.0 <= limit) {
            self.sent = report.sequence;
            actions.push(Action::Send(report.clone()));
        }
    }

    /// Asks for a tick at the next deadline, unless one is due before it anyway.
    fn set_timer(&mut self, actions: &mut Vec<Action>) {
        let waiting = self.kept.records.values();
        let waiting = waiting.filter(|r| r.is_live() && r.order > Order::Nothing && !r.killed);
        let deadlines = waiting.filter_map(|record| {
            let kill_ms = record.stop.map(|stop| stop.kill_at_ms);
            let lease_ms = self.lease.map(|lease| lease.deadline_ms(record.assignment.isolation));
            kill_ms.into_iter().chain(lease_ms).min()
        });
        let Some(next_ms) = deadlines.min() else { return };
        if self.timer_ms.is_none_or(|at_ms| next_ms < at_ms) {
            self.timer_ms = Some(next_ms);
            actions.push(Action::SetTimer(next_ms));
        }
    }
}

impl Turn {
    /// Whether all that changed comes again if a loss of power takes it: acknowledgements, since
    /// the reports are then sent again, and shims that are ready, since nothing is started.
    fn is_light(&self) -> bool {
        let light = |change: &Change| match change {
            Change::Acknowledged(_) => true,
            Change::Recorded(record) => self.ready.contains(&record.id()),
            Change::Booted(_)
            | Change::Obeyed { .. }
            | Change::Forgotten(_)
            | Change::Reported(_) => false,
        };
        self.orders.is_empty() && self.changes.iter().all(light)
    }

    /// Orders a change of what is kept, and makes it.
    pub(super) fn change(&mut self, kept: &mut Kept, change: Change) {
        kept.apply(change.clone());
        self.changes.push(change);
    }

    /// Orders the machine to do something that the record says it was told.
    pub(super) fn order(&mut self, id: AssignmentId, action: Action) {
        self.touched.insert(id);
        self.orders.push(action);
    }

    /// Orders the kill, once.
    fn kill(&mut self, record: &mut Record) {
        if !record.killed {
            record.killed = true;
            self.order(record.id(), Action::Kill(record.id()));
        }
    }
}
