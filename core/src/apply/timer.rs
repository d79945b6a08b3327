//! Timers that are due.

use super::Context;
use crate::state::{State, Timer};
use yard_common::ExitCause;
use yard_common::cause::PrepareStep;
use yard_common::id::{AllocationId, JobId, NodeId};
use yard_common::limits::TIMERS_PER_APPLY_MAX;
use yard_common::state::NodeState;

impl State {
    /// Lets due timers fire, up to a bound; the next command goes on.
    pub(super) fn fire_timers(&mut self, context: &mut Context) {
        for _ in 0..TIMERS_PER_APPLY_MAX {
            let Some(timer) = self.timers.pop(context.now_ms) else { return };
            match timer {
                Timer::NotBefore(job) => self.begin_job(context, job),
                Timer::Backoff(job, first) => self.end_backoff(context, job, first),
                Timer::Deadline(allocation) => self.pass_deadline(context, allocation),
                Timer::Drain(node) => self.pass_drain(context, node),
                Timer::Maintenance(node) => self.end_maintenance(context, node),
                Timer::Token(token) => self.expire_token(token),
                Timer::Dependency(job) => self.resolve_dependencies(context, job),
                Timer::Tolerance(node) => self.end_tolerance(context, node),
                Timer::Check(node) => self.ask_check(context, node),
                Timer::Stall(allocation) => self.pass_stall(context, allocation),
            }
            self.settle_jobs(context);
        }
    }

    /// A job's `not_before` has come.
    fn begin_job(&mut self, context: &mut Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.waits.until_ms = 0;
        let range = job.tasks.range();
        self.unblock_tasks(context, id, range);
    }

    /// An allocation has not become ready in time, or an attempt has run for as long as it may.
    fn pass_deadline(&mut self, context: &mut Context, id: AllocationId) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        if allocation.deadline_ms.is_none_or(|at_ms| at_ms > context.now_ms) {
            return;
        }
        allocation.deadline_ms = None;
        let started = allocation.started > allocation.ended;
        let barrier = ExitCause::PrepareFailed(PrepareStep::Barrier);
        let cause = if started { ExitCause::TimedOut } else { barrier };
        self.begin_stop(context, id, cause);
    }

    /// Moves the deadline of an attempt that runs under a new time limit.
    pub(super) fn shift_time_limit(
        &mut self,
        id: AllocationId,
        old_ms: Option<u64>,
        new_ms: Option<u64>,
    ) {
        let now_ms = self.now_ms();
        let allocation = &mut self.allocations[id];
        let old_at_ms = allocation.deadline_ms;
        let started_ms = match (old_at_ms, old_ms) {
            (Some(at_ms), Some(limit_ms)) => at_ms.saturating_sub(limit_ms),
            (Some(_), None) | (None, _) => now_ms,
        };
        allocation.deadline_ms = new_ms.map(|limit_ms| started_ms.saturating_add(limit_ms));
        let new_at_ms = allocation.deadline_ms;
        if let Some(at_ms) = old_at_ms {
            self.timers.unset(at_ms, Timer::Deadline(id));
        }
        if let Some(at_ms) = new_at_ms {
            self.timers.set(at_ms, Timer::Deadline(id));
        }
    }

    /// The deadline of a drain: what still runs is stopped.
    fn pass_drain(&mut self, context: &mut Context, id: NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        let deadline_ms = node.drain.as_ref().and_then(|drain| drain.deadline_ms);
        context.changed(crate::command::Object::Node(id));
        if deadline_ms.is_some_and(|at_ms| at_ms <= context.now_ms) {
            for allocation in self.allocations_on(id) {
                self.begin_stop(context, allocation, ExitCause::Drained);
            }
        }
    }

    fn end_maintenance(&mut self, context: &mut Context, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.maintenance_until_ms <= context.now_ms {
            (node.maintenance_until_ms, node.back) = (0, false);
            context.changed(crate::command::Object::Node(id));
        }
    }

    /// A lost node has been silent for longer than even tolerant jobs wait.
    fn end_tolerance(&mut self, context: &mut Context, id: NodeId) {
        let lost = self.nodes.get(id).is_some_and(|node| node.state == NodeState::Lost);
        if lost {
            self.give_up_shares(context, id, |_, _| true);
        }
    }
}
