//! Assignments that wait for the check before a job, and GPUs that fail under others.
//!
//! Somebody else checks, as that takes time. Meanwhile the assignment has no shim, only what the
//! shim will be told; so a kill finds nothing to kill.

use super::shims::Shim;
use super::turn::Turn;
use crate::launch::Orders;
use crate::shim::DETAIL;
use crate::sys::boot_ms;
use tokio::sync::mpsc;
use yard_common::ExitCause;
use yard_common::cause::{Fault, PrepareStep};
use yard_common::gpu::GPU_PARTS;
use yard_common::limits::CHECK_GOOD_MS;
use yard_core::agent::{AssignmentId, Ending, Input, Order, ShimEvent, Stop};

/// Which assignments are checked, and by whom.
#[derive(Clone, Debug)]
pub struct Checks {
    /// All of them; if not, those with GPUs.
    pub all: bool,
    /// Who checks. The answer to one before a job is `Handle::checked`.
    pub queue: mpsc::Sender<Check>,
}

/// What is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether an assignment may be prepared, which waits for the answer.
    Before(Wanted),
    /// Whether the machine is well, now that a task of this assignment has failed. Nobody waits.
    After(AssignmentId),
}

/// An assignment that is to be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: AssignmentId,
    /// UUIDs of its GPUs.
    pub gpus: Vec<String>,
    /// Whether it has them for itself.
    pub whole: bool,
}

/// Why an assignment is not started here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The step that failed.
    pub step: PrepareStep,
    /// For people.
    pub why: String,
}

impl Turn {
    fn orders(&self, id: AssignmentId) -> Option<Orders> {
        let bytes = std::fs::read(self.paths.shim(id).join(DETAIL)).ok()?;
        Orders::from_bytes(&bytes).ok()
    }

    /// Asks for the check before a job. Returns whether it is waited for.
    pub(super) fn ask_check(&mut self, id: AssignmentId) -> bool {
        let Some(checks) = &self.options.checks else { return false };
        // What is wrong with its details is told by its preparation.
        let Some(orders) = self.orders(id) else { return false };
        let assignment = orders.assignment;
        if !checks.all && assignment.gpus.is_empty() {
            return false;
        }
        let gpus = assignment.gpus.into_iter().map(|gpu| gpu.uuid).collect();
        let wanted = Wanted { id, gpus, whole: assignment.gpu_parts >= GPU_PARTS };
        if checks.queue.try_send(Check::Before(wanted)).is_err() {
            tracing::warn!(assignment = %id, "it starts without a check: too many wait for one");
            return false;
        }
        self.shims.insert(id, Shim::waiting(self.paths.shim(id)));
        self.checking.insert(id);
        true
    }

    /// Asks for a check after tasks have ended, if one of them failed: the machine may be to blame.
    /// Its end is told meanwhile. Tasks that fail in a row need no check each.
    pub(super) fn ask_check_after(&mut self, id: AssignmentId, endings: &[Ending]) {
        let Some(checks) = &self.options.checks else { return };
        let stop = self.kept().records.get(&id).and_then(|record| record.stop);
        if !endings.iter().any(|ending| is_failure(*ending, stop)) {
            return;
        }
        let now_ms = boot_ms();
        if self.checked_after_ms.is_some_and(|at_ms| now_ms < at_ms.saturating_add(CHECK_GOOD_MS)) {
            return;
        }
        let on_gpus = |orders: Orders| !orders.assignment.gpus.is_empty();
        if checks.all || self.orders(id).is_some_and(on_gpus) {
            self.checked_after_ms = Some(now_ms);
            // Without room, checks before jobs are under way, and look at the same.
            let _ = checks.queue.try_send(Check::After(id));
        }
    }

    /// The check is done.
    pub(super) fn on_checked(&mut self, id: AssignmentId, outcome: Result<(), Refused>) {
        if !self.checking.remove(&id) {
            return;
        }
        match outcome {
            Ok(()) => self.make(id),
            Err(Refused { step, why }) => {
                self.explain_refusal(id, &why);
                self.shims.insert(id, Shim::dead(self.paths.shim(id)));
                let failed = ShimEvent::Failed(ExitCause::PrepareFailed(step));
                self.inputs.push_back(Input::Shim(id, failed));
            }
        }
    }

    /// Puts the reason where the output of the first task would be.
    fn explain_refusal(&self, id: AssignmentId, why: &str) {
        let Some(orders) = self.orders(id) else { return };
        let Some((task, attempt)) = orders.chain.tasks().next() else { return };
        let logs = self.paths.attempt_logs(orders.assignment.job, task, attempt);
        // Without room for it, the step says what it can.
        let _ = std::fs::create_dir_all(&logs);
        let _ = std::fs::write(logs.join("prepare.err"), format!("{why}\n"));
    }

    /// It is not waited for any more: nothing of it runs.
    pub(super) fn drop_check(&mut self, id: AssignmentId) {
        if self.checking.remove(&id) {
            self.shims.insert(id, Shim::dead(self.paths.shim(id)));
        }
    }

    /// A GPU has failed: tells the automaton which assignments hold it.
    pub(super) fn on_gpu_fault(&mut self, devices: &[String], xid: u32, ends: bool) {
        let records = self.kept().records.values();
        let live = records.filter(|record| record.is_live() && record.order > Order::Nothing);
        let ids: Vec<AssignmentId> = live.map(yard_core::agent::Record::id).collect();
        for id in ids {
            let Some(orders) = self.orders(id) else { continue };
            if orders.assignment.gpus.iter().any(|gpu| devices.contains(&gpu.uuid)) {
                tracing::warn!(assignment = %id, xid, ends, "a GPU of it has failed");
                self.inputs.push_back(Input::Fault { id, xid, ends });
            }
        }
    }
}

/// Whether a task has failed by itself. Whoever was stopped by an order has not.
fn is_failure(ending: Ending, stop: Option<Stop>) -> bool {
    let cause = match stop {
        Some(stop) if ending.stopped => stop.cause,
        _ => ending.status,
    };
    match cause.fault() {
        // Of those that end with another one, that other one is told to its own node.
        Fault::User | Fault::Infra => cause != ExitCause::StoppedWithGang,
        Fault::None | Fault::Request | Fault::Reclaim => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_by_an_order_has_not_failed() {
        let ending = |status, stopped| Ending { status, stopped, rank: None };
        let stop = |cause| Some(Stop { cause, kill_at_ms: 0, asked: true });
        let (killed, failed) = (ExitCause::Signaled(15), ExitCause::Exited(1));
        assert!(is_failure(ending(failed, false), None));
        assert!(is_failure(ending(failed, false), stop(ExitCause::Cancelled)), "before the stop");
        assert!(is_failure(ending(killed, true), stop(ExitCause::TimedOut)));
        assert!(!is_failure(ending(ExitCause::Exited(0), false), None));
        for cause in [ExitCause::Cancelled, ExitCause::Preempted, ExitCause::StoppedWithGang] {
            assert!(!is_failure(ending(killed, true), stop(cause)), "{cause}");
        }
    }
}
