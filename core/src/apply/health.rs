//! Health of nodes: what they tell of themselves, GPUs that are held back, cordons and their end.

use super::Context;
use crate::command::{Condition, Inventory, Object, Rejection, Reply};
use crate::state::{Cordon, HeldBack, Node, State, Timer};
use yard_common::ExitCause;
use yard_common::cause::Fault;
use yard_common::id::{JobId, NodeId};
use yard_common::limits::{
    CONDITION_BYTES_MAX, CONDITIONS_MAX, CORDON_DOUBLINGS_MAX, CORDON_MS, HELD_BACK_MAX,
    NODE_FAILURE_WINDOW_MS, NODE_FAILURES_MAX, REASON_BYTES_MAX,
};

impl State {
    /// Holds a GPU back. What runs on it goes on.
    pub(super) fn drain_gpu(
        &mut self,
        context: &mut Context,
        id: NodeId,
        gpu: &str,
        reason: &str,
    ) -> Result<Reply, Rejection> {
        let node = self.node(id)?;
        if !node.facts.devices.iter().any(|device| device.uuid == gpu) {
            let problem = format!("{} has no GPU {gpu}", node.name);
            return Err(Rejection::invalid("gpu", problem));
        }
        if reason.len() > REASON_BYTES_MAX {
            let problem = format!("more than {REASON_BYTES_MAX} bytes");
            return Err(Rejection::invalid("reason", problem));
        }
        let others = node.held_back.iter().filter(|held| *held.gpu != *gpu).count();
        if others >= HELD_BACK_MAX {
            let what = "GPUs that are held back".into();
            return Err(Rejection::LimitReached { what, limit: HELD_BACK_MAX as u64 });
        }
        let since_wall_ms = context.wall_ms;
        let held = HeldBack { gpu: gpu.into(), reason: reason.into(), since_wall_ms };
        let all = &mut self.nodes[id].held_back;
        match all.iter_mut().find(|held| *held.gpu == *gpu) {
            Some(old) => old.reason = held.reason,
            None => all.push(held),
        }
        context.changed(Object::Node(id));
        Ok(Reply::Done)
    }

    /// Gives a GPU back, and lets the node look at it anew.
    pub(super) fn undrain_gpu(
        &mut self,
        context: &mut Context,
        id: NodeId,
        gpu: &str,
    ) -> Result<Reply, Rejection> {
        let node = self.node(id)?;
        let known = node.facts.devices.iter().any(|device| device.uuid == gpu);
        if !known && !node.held_back.iter().any(|held| *held.gpu == *gpu) {
            let problem = format!("{} has no GPU {gpu}", node.name);
            return Err(Rejection::invalid("gpu", problem));
        }
        self.nodes[id].held_back.retain(|held| *held.gpu != *gpu);
        self.want_check(context, id);
        Ok(Reply::Done)
    }

    /// The node looks at itself anew.
    pub(super) fn check_node(
        &mut self,
        context: &mut Context,
        id: NodeId,
    ) -> Result<Reply, Rejection> {
        self.node(id)?;
        self.want_check(context, id);
        Ok(Reply::Done)
    }

    fn want_check(&mut self, context: &mut Context, id: NodeId) {
        let node = &mut self.nodes[id];
        node.check = node.check.saturating_add(1);
        context.bump(id, node);
        context.changed(Object::Node(id));
    }

    /// A cordon has lasted for a while.
    pub(super) fn ask_check(&mut self, context: &mut Context, id: NodeId) {
        let cordon = self.nodes.get(id).and_then(|node| node.cordon.as_ref());
        if cordon.is_some_and(|cordon| cordon.check_at_ms <= context.now_ms) {
            self.want_check(context, id);
        }
    }

    /// What a node tells of its health has been taken in: it may come back from a cordon.
    pub(super) fn settle_health(&mut self, context: &mut Context, id: NodeId, checked: u32) {
        let node = &mut self.nodes[id];
        node.unwell = node.facts.is_unwell();
        node.setup_due = self.pools[node.pool].is_setup_due(&node.facts);
        let Some(cordon) = node.cordon.as_ref().filter(|_| node.cordoned) else { return };
        // The last check that was asked for, since its time had come, and done just now.
        let due = cordon.check_at_ms <= context.now_ms;
        let done = node.facts.checked == node.check && node.facts.checked != checked;
        if !due || !done {
            return;
        }
        if node.unwell {
            self.set_cordon_timer(context, id);
        } else {
            self.end_cordon(id);
            context.changed(Object::Node(id));
        }
    }

    /// Takes a cordon off.
    pub(super) fn end_cordon(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        node.cordoned = false;
        node.failures.clear();
        if let Some(cordon) = node.cordon.take() {
            self.timers.unset(cordon.check_at_ms, Timer::Check(id));
        }
    }

    /// Sets the time at which a cordoned node is asked to check itself.
    fn set_cordon_timer(&mut self, context: &Context, id: NodeId) {
        let node = &mut self.nodes[id];
        let doublings = node.cordons.saturating_sub(1).min(CORDON_DOUBLINGS_MAX);
        let at_ms = context.now_ms + (CORDON_MS << doublings);
        if let Some(cordon) = &mut node.cordon {
            self.timers.unset(cordon.check_at_ms, Timer::Check(id));
            cordon.check_at_ms = at_ms;
            self.timers.set(at_ms, Timer::Check(id));
        }
    }

    /// Cordons a node on which attempts of several jobs failed by the machine's fault in a row,
    /// so that it cannot use up the retries of all others.
    pub(super) fn judge_node(
        &mut self,
        context: &mut Context,
        id: NodeId,
        job: JobId,
        cause: ExitCause,
    ) {
        let now_ms = context.now_ms;
        if cause.is_success() {
            let node = &self.nodes[id];
            if !node.failures.is_empty() || node.cordons > 0 && !node.cordoned {
                let node = &mut self.nodes[id];
                node.failures.clear();
                node.cordons = 0;
            }
            return;
        }
        if !blames_node(cause) {
            return;
        }
        let node = &mut self.nodes[id];
        node.failures.retain(|(other, at_ms)| {
            *other != job && at_ms.saturating_add(NODE_FAILURE_WINDOW_MS) > now_ms
        });
        node.failures.push((job, now_ms));
        if node.failures.len() < NODE_FAILURES_MAX || node.cordoned {
            return;
        }
        let jobs: Vec<String> = node.failures.iter().map(|(job, _)| job.to_string()).collect();
        let reason = format!("attempts of jobs {} failed here, at last: {cause}", jobs.join(", "));
        let since_wall_ms = context.wall_ms;
        node.cordoned = true;
        node.cordons = node.cordons.saturating_add(1);
        node.cordon = Some(Cordon { reason: reason.into(), since_wall_ms, check_at_ms: 0 });
        self.set_cordon_timer(context, id);
        context.changed(Object::Node(id));
    }
}

/// Whether an attempt that ended so says something about its machine.
fn blames_node(cause: ExitCause) -> bool {
    match cause {
        ExitCause::GpuFault(_)
        | ExitCause::DiskFull
        | ExitCause::StartFailed(_)
        | ExitCause::Lost(_) => true,
        ExitCause::PrepareFailed(step) => step.fault() == Fault::Infra,
        ExitCause::Exited(_)
        | ExitCause::Signaled(_)
        | ExitCause::OutOfMemory
        | ExitCause::TimedOut
        | ExitCause::Preempted
        | ExitCause::Drained
        | ExitCause::Suspended
        | ExitCause::PlannedEvent
        | ExitCause::Resized
        | ExitCause::Requeued
        | ExitCause::Cancelled
        | ExitCause::DependencyFailed
        | ExitCause::NodeLost
        | ExitCause::Stalled
        | ExitCause::StoppedWithGang => false,
    }
}

/// Checks what a machine says of its health.
pub(super) fn check_conditions(inventory: &Inventory) -> Result<(), Rejection> {
    let conditions = &inventory.conditions;
    if conditions.len() > CONDITIONS_MAX {
        let problem = format!("{}; at most {CONDITIONS_MAX}", conditions.len());
        return Err(Rejection::invalid("conditions", problem));
    }
    let key = |condition: &Condition| (condition.kind, condition.device);
    if !conditions.is_sorted_by(|a, b| key(a) < key(b)) {
        let problem = "sorted, each once for the machine and each device";
        return Err(Rejection::invalid("conditions", problem));
    }
    for condition in conditions {
        if condition.why.len() > CONDITION_BYTES_MAX {
            let problem = format!("a text of more than {CONDITION_BYTES_MAX} bytes");
            return Err(Rejection::invalid("conditions", problem));
        }
        let device = condition.device.map(usize::from);
        if device.is_some_and(|device| device >= inventory.devices.len()) {
            return Err(Rejection::invalid("conditions", "of a device that is not there"));
        }
    }
    Ok(())
}

impl Node {
    /// What is wrong with a device, as its agent tells.
    pub fn conditions_of(&self, position: usize) -> impl Iterator<Item = &Condition> {
        let of = move |condition: &&Condition| condition.device.map(usize::from) == Some(position);
        self.facts.conditions.iter().filter(of)
    }
}
