//! Assignments that wait for the check before a job, and GPUs that fail under others.
//!
//! Somebody else checks, as that takes time. Meanwhile the assignment has no shim, only what the
//! shim will be told; so a kill finds nothing to kill.

use super::shims::Shim;
use super::turn::Turn;
use crate::launch::Orders;
use crate::shim::DETAIL;
use tokio::sync::mpsc;
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::gpu::GPU_PARTS;
use yard_core::agent::{AssignmentId, Input, Order, ShimEvent};

/// Which assignments are checked, and by whom.
#[derive(Clone, Debug)]
pub struct Checks {
    /// All of them; if not, those with GPUs.
    pub all: bool,
    /// Who checks. The answer is `Handle::checked`.
    pub queue: mpsc::Sender<Wanted>,
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
        if checks.queue.try_send(wanted).is_err() {
            tracing::warn!(assignment = %id, "it starts without a check: too many wait for one");
            return false;
        }
        self.shims.insert(id, Shim::waiting(self.paths.shim(id)));
        self.checking.insert(id);
        true
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
