//! How a newer desired set changes what an agent is about to do.

use super::automaton::{Agent, Turn};
use super::desired::{AssignmentId, Desired, DesiredAssignment, DesiredPhase};
use super::kept::Change;
use super::machine::Action;
use super::record::{Order, Record};
use crate::mutant;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::ExitCause;
use yard_common::cause::LostReason;
use yard_common::id::{AttemptNumber, JobId, TaskRange};

impl Agent {
    /// Takes over a desired set, unless one that is as new was obeyed before.
    pub(super) fn obey(&mut self, desired: Desired, turn: &mut Turn) {
        if desired.fence <= self.kept.fence && !mutant!("fence_ignored") {
            return;
        }
        let (fence, lease) = (desired.fence, desired.lease);
        (self.kept.fence, self.kept.lease) = (fence, lease);
        turn.changes.push(Change::Obeyed { fence, lease });
        let mut wanted: BTreeMap<AssignmentId, DesiredAssignment> =
            desired.assignments.into_iter().map(|assignment| (assignment.id, assignment)).collect();
        let now_ms = self.now_ms;
        for (id, record) in &mut self.kept.records {
            turn.touched.insert(*id);
            match wanted.remove(id) {
                Some(assignment) => want(record, assignment, now_ms, turn),
                None => {
                    record.wanted = false;
                    release(record, now_ms, turn);
                }
            }
        }
        for (id, assignment) in wanted {
            turn.touched.insert(id);
            let mut record = Record::new(assignment.clone());
            match assignment.phase {
                DesiredPhase::Prepare | DesiredPhase::Run => {}
                DesiredPhase::Start => {
                    // It was ready once, so it was here, and it may have started: the memory of
                    // it is gone. What cannot be known is lost, and never starts twice.
                    record.order = Order::Start;
                    record.started = record.len;
                    record.stop_at(ExitCause::Lost(LostReason::Unknown), now_ms, false);
                }
                DesiredPhase::Stop { cause, grace_ms } => {
                    ask_to_stop(&mut record, cause, grace_ms, now_ms, turn);
                }
            }
            self.kept.records.insert(id, record);
        }
        for id in self.superseded() {
            if let Some(record) = self.kept.records.get_mut(&id) {
                release(record, now_ms, turn);
            }
        }
    }

    /// Assignments with a task that another one holds in a higher attempt. A set that is minted
    /// after both attempts has one of them at most; if that ever fails, the lower one yields.
    fn superseded(&self) -> BTreeSet<AssignmentId> {
        let live = self.kept.records.values().filter(|r| r.is_live() && r.stop.is_none());
        let mut links: Vec<(JobId, TaskRange, AttemptNumber, AssignmentId)> = live
            .flat_map(|record| {
                let links = record.remaining().0.into_iter();
                let (job, id) = (record.assignment.job, record.id());
                links.map(move |link| (job, link.tasks, link.attempt, id))
            })
            .collect();
        links.sort_unstable();
        let mut lower = BTreeSet::new();
        for (index, (job, tasks, attempt, id)) in links.iter().enumerate() {
            let overlapping = links[index + 1..]
                .iter()
                .take_while(|next| next.0 == *job && next.1.first < tasks.end());
            for (_, _, other_attempt, other_id) in overlapping {
                match attempt.cmp(other_attempt) {
                    Ordering::Less => lower.insert(*id),
                    Ordering::Greater => lower.insert(*other_id),
                    Ordering::Equal => false,
                };
            }
        }
        lower
    }
}

/// Takes over what a newer set wants of a known assignment.
fn want(record: &mut Record, assignment: DesiredAssignment, now_ms: u64, turn: &mut Turn) {
    record.wanted = true;
    if (record.assignment.job, &record.assignment.chain) != (assignment.job, &assignment.chain) {
        // Something else under the same id: whatever it is, what runs here is not wanted.
        return release(record, now_ms, turn);
    }
    let keep = assignment.keep;
    if keep < record.len && keep < record.assignment.keep && record.order == Order::Start {
        turn.order(record.id(), Action::Cut { id: record.id(), len: keep });
    }
    record.assignment = assignment;
    if let DesiredPhase::Stop { cause, grace_ms } = record.assignment.phase {
        ask_to_stop(record, cause, grace_ms, now_ms, turn);
    }
}

/// Ends an assignment that is no longer wanted. Its attempt has ended elsewhere, so its own
/// cause decides nothing.
fn release(record: &mut Record, now_ms: u64, turn: &mut Turn) {
    ask_to_stop(record, ExitCause::StoppedWithGang, 0, now_ms, turn);
}

/// Ends an assignment: the signal now, the kill after the grace. Only ranks get the signal.
fn ask_to_stop(record: &mut Record, cause: ExitCause, grace_ms: u64, now_ms: u64, turn: &mut Turn) {
    if !record.is_live() {
        return;
    }
    let grace_ms = if record.order == Order::Start { grace_ms } else { 0 };
    if record.stop.is_none() && grace_ms > 0 {
        turn.order(record.id(), Action::SignalStop(record.id()));
    }
    record.stop_at(cause, now_ms.saturating_add(grace_ms), true);
}
