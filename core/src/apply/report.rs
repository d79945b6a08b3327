//! What agents saw. Reports are in order per node, may come more than once, and count only for the
//! attempt that holds the resources: what comes late is history.

use super::Context;
use crate::agent::{Chain, Exit, Report, ReportKind};
use crate::command::{NodeReport, Object, Rejection, Reply};
use crate::mutant;
use crate::state::{Phase, State, Timer};
use yard_common::ExitCause;
use yard_common::cause::Fault;
use yard_common::id::{AllocationId, JobId, NodeId, TaskRange};
use yard_common::limits::REPORT_RANGES_MAX;
use yard_common::state::{AssignmentState, AttemptState, NodeState};

impl State {
    pub(super) fn run_report(
        &mut self,
        context: &mut Context,
        report: &NodeReport,
    ) -> Result<Reply, Rejection> {
        let object = Object::Node(report.node);
        let node = self.nodes.get(report.node).ok_or(Rejection::NotFound(object))?;
        if node.state == NodeState::Lost {
            // Its attempts may run elsewhere by now. It comes back under a new lease first.
            return Err(Rejection::Stale(object));
        }
        if report.reports.iter().map(Report::ranges).sum::<usize>() > REPORT_RANGES_MAX {
            return Err(Rejection::LimitReached {
                what: "ranges of one report".into(),
                limit: REPORT_RANGES_MAX as u64,
            });
        }
        for one in &report.reports {
            let node = &mut self.nodes[report.node];
            // Without a gap: a report that was refused while the node was lost comes again.
            let next = one.sequence.0 == node.reported.0.saturating_add(1);
            let first = node.resync && one.sequence > node.reported;
            if next || first {
                (node.reported, node.resync) = (one.sequence, false);
                self.take_report(context, report.node, one);
            }
        }
        Ok(Reply::Reported(self.nodes[report.node].reported))
    }

    /// Lets one report take effect, if its assignment still stands.
    fn take_report(&mut self, context: &mut Context, node: NodeId, report: &Report) {
        let id = report.assignment.allocation;
        let allocation = self.allocations.get(id);
        let share = allocation.and_then(|a| a.share_of(node, report.assignment.group));
        let Some(share) = share else {
            if report.what == ReportKind::Reaped {
                self.reap_leftover(context, node, report);
            }
            return;
        };
        match &report.what {
            ReportKind::Ready => self.share_ready(context, id, share),
            ReportKind::Started(chain) => self.share_started(context, id, share, chain),
            ReportKind::Exited(exits) => self.share_exited(context, id, share, exits),
            ReportKind::Recalled(tail) => self.share_recalled(context, id, share, tail),
            ReportKind::Reaped => self.share_reaped(context, id, share),
            ReportKind::Silent { for_ms } => {
                self.share_silent(context, id, share, Some(*for_ms));
            }
            ReportKind::Active => self.share_silent(context, id, share, None),
        }
    }

    /// Frees what an ended attempt left behind.
    fn reap_leftover(&mut self, context: &mut Context, id: NodeId, report: &Report) {
        let node = &mut self.nodes[id];
        if let Some(left) = node.leftovers.remove(&report.assignment) {
            node.give_back(&left.amounts, &left.gpus);
            context.changed(Object::Allocation(report.assignment.allocation));
            context.bump(id, node);
        }
    }

    /// Moves a share on. Returns false if the step is not legal: the report is late or doubled.
    fn step_share(&mut self, id: AllocationId, share: usize, to: AssignmentState) -> bool {
        let state = &mut self.allocations[id].shares[share].state;
        let legal = state.may_become(to);
        if legal {
            *state = to;
        }
        legal
    }

    /// A node is prepared: when the whole gang is, it starts.
    fn share_ready(&mut self, context: &mut Context, id: AllocationId, share: usize) {
        if !self.step_share(id, share, AssignmentState::Ready) {
            return;
        }
        let allocation = &mut self.allocations[id];
        let ready = allocation.shares.iter().all(|s| s.state == AssignmentState::Ready);
        if ready && allocation.state == AttemptState::Preparing {
            allocation.state = AttemptState::Running;
            self.push_desired(context, id);
        }
    }

    /// Ranks have started.
    fn share_started(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        share: usize,
        chain: &Chain,
    ) {
        let allocation = &self.allocations[id];
        let alone = allocation.shares.len() == 1;
        if allocation.state == AttemptState::Preparing {
            // No start was given: it would end the wait for the rest of the gang for good.
            return;
        }
        let from = if alone { allocation.started } else { 0 };
        if chain.is_empty() || !allocation.chain.has(from, &chain.0) {
            return;
        }
        let state = allocation.shares[share].state;
        let goes_on = alone && state == AssignmentState::Running;
        if !goes_on && !self.step_share(id, share, AssignmentState::Running) {
            return;
        }
        let allocation = &mut self.allocations[id];
        allocation.started = allocation.started.max(from + chain.len());
        let job = allocation.job;
        for link in &chain.0 {
            let preparing = |phase| phase == Phase::Preparing(id);
            self.move_tasks(context, job, link.tasks, preparing, Phase::Running(id), None);
        }
        self.set_time_limit(context.now_ms, id);
    }

    /// Restarts the clock of the time limit: it counts from the start of each attempt.
    fn set_time_limit(&mut self, now_ms: u64, id: AllocationId) {
        let allocation = &mut self.allocations[id];
        if allocation.state == AttemptState::Stopping {
            return;
        }
        let limit_ms = self.jobs[allocation.job].plan.time_limit_ms;
        let old = allocation.deadline_ms;
        allocation.deadline_ms = limit_ms.map(|limit_ms| now_ms.saturating_add(limit_ms));
        let new = allocation.deadline_ms;
        if let Some(at_ms) = old {
            self.timers.unset(at_ms, Timer::Deadline(id));
        }
        if let Some(at_ms) = new {
            self.timers.set(at_ms, Timer::Deadline(id));
        }
    }

    /// Ranks have ended: of tasks of a chain in turn, or of a gang's share.
    fn share_exited(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        share: usize,
        exits: &[Exit],
    ) {
        if self.allocations[id].shares[share].is_over() {
            return;
        }
        if self.allocations[id].ends_in_turn() {
            for exit in exits {
                self.chain_exited(context, id, exit);
            }
            self.end_if_chain_is_over(context, id);
            return;
        }
        let Some(exit) = exits.first() else { return };
        if self.allocations[id].chain.0.first() != Some(&exit.link) {
            return;
        }
        let before_ms = self.allocations[id].silent_since_ms();
        self.step_share(id, share, AssignmentState::Exited);
        self.allocations[id].shares[share].silent_ms = None;
        if mutant!("gang_released_partly") && !exit.cause.is_success() {
            let node = self.allocations[id].shares[share].node;
            self.nodes[node].allocations.remove(&id);
        }
        let allocation = &mut self.allocations[id];
        allocation.shares[share].exit = Some(exit.cause);
        let (node, job) = (allocation.shares[share].node, allocation.job);
        let decides = allocation.first_rank_decides && share == 0;
        let cause =
            if allocation.cause.is_none() { exit.cause } else { ExitCause::StoppedWithGang };
        if decides || !exit.cause.is_success() {
            self.begin_stop(context, id, exit.cause);
        }
        if self.allocations[id].state != AttemptState::Stopping {
            // Those that are left may all be silent.
            self.settle_silence(context, id, before_ms);
        }
        self.judge_node(context, node, job, cause);
        self.end_if_over(context, id);
    }

    /// Tasks of a chain have ended.
    fn chain_exited(&mut self, context: &mut Context, id: AllocationId, exit: &Exit) {
        let allocation = &mut self.allocations[id];
        let job = allocation.job;
        if !allocation.chain.has(allocation.ended, &[exit.link]) {
            return;
        }
        allocation.ended += exit.link.tasks.len;
        self.forget_silence(id);
        let allocation = &mut self.allocations[id];
        allocation.started = allocation.started.max(allocation.ended);
        allocation.shares[0].exit = Some(exit.cause);
        let node = allocation.shares[0].node;
        let stopped = allocation.cause.is_some();
        let cause = if stopped { allocation.final_cause() } else { exit.cause };
        if allocation.cancelled.is_empty() {
            self.finish_part(context, id, job, exit.link.tasks, exit, cause);
        } else {
            for (part, cause) in split_cancelled(exit.link.tasks, &allocation.cancelled, cause) {
                self.finish_part(context, id, job, part, exit, cause);
            }
        }
        self.judge_node(context, node, job, cause);
    }

    /// Concludes the attempts of a part of a chain; a start that was not reported is implied.
    fn finish_part(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        job: JobId,
        part: TaskRange,
        exit: &Exit,
        cause: ExitCause,
    ) {
        let preparing = |phase| phase == Phase::Preparing(id);
        let started = !matches!(cause.fault(), Fault::Request)
            && !matches!(exit.cause, ExitCause::PrepareFailed(_) | ExitCause::StartFailed(_));
        if started {
            self.move_tasks(context, job, part, preparing, Phase::Running(id), None);
        }
        self.conclude(context, job, part, exit.link.attempt, cause, id);
    }

    /// Ends a chain of which no task is left, or starts the clock of the next task.
    fn end_if_chain_is_over(&mut self, context: &mut Context, id: AllocationId) {
        let allocation = &self.allocations[id];
        if allocation.ended == allocation.len {
            self.step_share(id, 0, AssignmentState::Exited);
            self.end_allocation(context, id);
            return;
        }
        if let Some(cause) = allocation.cause {
            // The task that was to be stopped is gone; what was told to stop is the next one, if
            // the node started it before it heard of the stop.
            let current = allocation.left().tasks().next();
            let job = allocation.job;
            if let Some((index, _)) = current
                && cause != ExitCause::NodeLost
                && allocation.started > allocation.ended
            {
                let running = |phase| phase == Phase::Running(id);
                let task = TaskRange::one(index);
                self.move_tasks(context, job, task, running, Phase::Stopping(id), None);
            }
        }
        self.set_time_limit(context.now_ms, id);
    }

    /// Tasks never started and never will.
    fn share_recalled(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        share: usize,
        tail: &Chain,
    ) {
        let allocation = &mut self.allocations[id];
        if allocation.shares[share].is_over() {
            return;
        }
        let (len, count) = (allocation.len, tail.len());
        let keep = len.saturating_sub(count);
        if count == 0 || keep < allocation.started || allocation.chain.slice(keep, len) != *tail {
            return;
        }
        if !allocation.ends_in_turn() {
            // The rank of this share never started: it was stopped before.
            self.step_share(id, share, AssignmentState::Exited);
            self.allocations[id].shares[share].silent_ms = None;
            self.end_if_over(context, id);
            return;
        }
        // An attempt that was stopped before its start has ended for the cause of the stop, unless
        // the cluster took its resources back: then it is as if it had not been placed.
        let stopped = allocation.cause.filter(|cause| cause.fault() != Fault::Reclaim);
        let job = allocation.job;
        let stopped = stopped.filter(|_| keep == allocation.ended);
        let ended = u32::from(stopped.is_some());
        if let (Some(cause), Some((index, attempt))) = (stopped, tail.tasks().next()) {
            let cause = self.allocations[id].cause_of(index, cause);
            self.conclude(context, job, TaskRange::one(index), attempt, cause, id);
        }
        self.give_back_tasks(context, id, &tail.slice(ended, count));
        let allocation = &mut self.allocations[id];
        allocation.len = keep;
        allocation.keep = allocation.keep.min(keep);
        self.end_if_chain_is_over(context, id);
    }

    /// No process of a share is left.
    fn share_reaped(&mut self, context: &mut Context, id: AllocationId, share: usize) {
        if self.step_share(id, share, AssignmentState::Reaped) {
            self.allocations[id].shares[share].silent_ms = None;
            let node = self.allocations[id].shares[share].node;
            self.bump(context, node);
            self.end_if_over(context, id);
        }
    }
}

/// Splits tasks that ended alike by whether they were cancelled.
fn split_cancelled(
    tasks: TaskRange,
    cancelled: &[TaskRange],
    cause: ExitCause,
) -> Vec<(TaskRange, ExitCause)> {
    let of = |index| {
        let is_cancelled = cancelled.iter().any(|range| range.contains(index));
        if is_cancelled { ExitCause::Cancelled } else { cause }
    };
    tasks.indices().map(|index| (TaskRange::one(index), of(index))).collect()
}
