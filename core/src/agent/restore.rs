//! The start of an agent: what it remembers meets what is on the machine.

use super::automaton::{Agent, Turn};
use super::desired::AssignmentId;
use super::kept::{Change, Kept};
use super::machine::{Action, Found, Lease};
use super::record::{Order, Record};
use super::report::ReportKind;
use std::collections::BTreeMap;
use yard_common::ExitCause;
use yard_common::cause::LostReason;
use yard_common::id::BootId;
use yard_common::state::AssignmentState;

impl Agent {
    /// The agent that remembers `kept`, on a machine in the boot `boot` on which exactly these
    /// shims were found. Adopts what it knows, and kills what it does not.
    ///
    /// The lease is the one that the shims hold in shared memory; `None` after a boot.
    pub fn restore(
        kept: Kept,
        boot: BootId,
        found: Vec<Found>,
        lease: Option<Lease>,
        now_ms: u64,
    ) -> (Agent, Vec<Action>) {
        let mut agent = Agent::new(kept, lease, now_ms);
        let mut turn = Turn::default();
        let rebooted = agent.kept.boot != boot;
        if rebooted {
            turn.change(&mut agent.kept, Change::Booted(boot));
        }
        let mut found: BTreeMap<AssignmentId, Found> =
            found.into_iter().map(|shim| (shim.id, shim)).collect();
        let ids: Vec<AssignmentId> = agent.kept.records.keys().copied().collect();
        for id in ids {
            agent.adopt(id, found.remove(&id), rebooted, &mut turn);
        }
        // A record is written before its shim is made: these are left over from one that was
        // reaped and forgotten, or from a memory that was lost.
        turn.orders.extend(found.into_keys().map(Action::Kill));
        agent.expire(&mut turn);
        let actions = agent.finish(turn);
        (agent, actions)
    }

    /// Brings one record up to date with what was found of it.
    fn adopt(&mut self, id: AssignmentId, found: Option<Found>, rebooted: bool, turn: &mut Turn) {
        let now_ms = self.now_ms;
        let Some(record) = self.kept.records.get_mut(&id) else { return };
        if record.state == AssignmentState::Reaped {
            if found.is_some() {
                turn.orders.push(Action::Release(id));
            }
            return;
        }
        // The agent may have died between writing and ordering.
        record.killed = false;
        let alive = found.as_ref().is_some_and(|shim| shim.alive) && !rebooted;
        let mut reports = Vec::new();
        match &found {
            Some(shim) => reports = catch_up(record, shim, alive),
            // With no trace of its shim, all that was given the start may have started.
            None if record.order == Order::Start => record.started = record.len,
            None => {}
        }
        match found {
            Some(shim) if alive => repeat_orders(record, &shim, now_ms, turn),
            _ if rebooted => lose(record, LostReason::Reboot, now_ms),
            Some(_) => lose(record, LostReason::Shim, now_ms),
            None => match record.order {
                Order::Nothing => {}
                Order::Prepare if record.is_live() && record.stop.is_none() => {
                    turn.orders.push(Action::Prepare(id));
                }
                Order::Prepare => {}
                Order::Start => lose(record, LostReason::Shim, now_ms),
            },
        }
        self.report(id, reports, turn);
        if rebooted {
            self.reaped(id, turn);
        }
    }
}

/// Notes what the shim has done since the record was written.
fn catch_up(record: &mut Record, shim: &Found, alive: bool) -> Vec<ReportKind> {
    let mut reports = Vec::new();
    if !record.is_live() {
        // Every task is accounted for.
        return reports;
    }
    if shim.prepared {
        reports.extend(record.on_prepared());
    }
    if shim.start_given {
        record.order = Order::Start;
        reports.extend(record.on_cut(shim.len));
        if alive {
            reports.extend(record.on_started(shim.started));
        } else {
            record.started = record.started.max(shim.started.min(record.len));
        }
        reports.extend(record.on_ended(0, &shim.endings));
    } else if record.order == Order::Start {
        // The agent died before it gave the start: the shim is the witness that nothing ran.
        record.order = Order::Prepare;
    }
    if let Some(cause) = shim.failed.filter(|_| record.stop.is_none()) {
        reports.extend(record.on_failed(cause));
    }
    reports
}

/// Gives the orders again that a living shim may not have got.
fn repeat_orders(record: &mut Record, shim: &Found, now_ms: u64, turn: &mut Turn) {
    let id = record.id();
    if !record.is_live() {
        return;
    }
    match (record.order, record.stop) {
        // Without ranks there was no grace: the kill is due.
        (Order::Nothing | Order::Prepare, Some(_)) => {}
        (Order::Nothing | Order::Prepare, None) => {
            if !shim.prepared && shim.failed.is_none() {
                turn.orders.push(Action::Prepare(id));
            }
        }
        (Order::Start, Some(stop)) => {
            if now_ms < stop.kill_at_ms {
                turn.orders.push(Action::SignalStop(id));
            }
        }
        (Order::Start, None) => {
            let keep = record.assignment.keep;
            if keep < record.len {
                turn.orders.push(Action::Cut { id, len: keep });
            }
        }
    }
}

/// Nobody watches over it any more: what has not told its end will not.
fn lose(record: &mut Record, reason: LostReason, now_ms: u64) {
    if record.is_live() {
        record.stop_at(ExitCause::Lost(reason), now_ms, false);
    }
}
