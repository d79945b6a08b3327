//! Attempts: how they are stopped, how they end, and what they leave behind.

use super::Context;
use crate::agent::Chain;
use crate::event::Event;
use crate::fit::model_of;
use crate::mutant;
use crate::retry::{TaskEnd, Verdict, decide};
use crate::state::{
    Allocation, Held, Holding, Leftover, Node, Phase, Share, State, TaskStatus, Timer, UsageKey,
};
use std::collections::BTreeSet;
use yard_common::cause::{Fault, LostReason};
use yard_common::id::{
    AllocationId, AttemptNumber, Generation, JobId, NodeId, TaskIndex, TaskRange,
};
use yard_common::state::{AssignmentState, AttemptState};
use yard_common::{Amounts, ExitCause};

impl State {
    /// Ends tasks by request: what waits is cancelled, if that is the request, and what holds
    /// resources is stopped. Returns the number of tasks concerned.
    pub(super) fn stop_tasks(
        &mut self,
        context: &mut Context,
        id: JobId,
        range: TaskRange,
        cause: ExitCause,
    ) -> u32 {
        let mut stopped = 0;
        if cause == ExitCause::Cancelled {
            let waiting = |phase: Phase| phase.state().is_pending();
            stopped = self.move_tasks(context, id, range, waiting, Phase::Cancelled, Some(cause));
            self.keep_backoff(id, range.end());
        }
        let runs = self.jobs[id].tasks.within(range);
        let active: Vec<_> =
            runs.filter_map(|(run, status)| Some((run, status.phase.allocation()?))).collect();
        for (run, allocation) in active {
            self.stop_run(context, allocation, run, cause);
            stopped += run.len;
        }
        stopped
    }

    /// Cancels the tasks of a job that wait, and calls back those that would start behind others.
    /// What comes back waits, and is cancelled in its turn.
    pub(super) fn cancel_waiting(&mut self, context: &mut Context, id: JobId) {
        let range = self.jobs[id].tasks.range();
        let waiting = |phase: Phase| phase.state().is_pending();
        let cause = Some(ExitCause::Cancelled);
        self.move_tasks(context, id, range, waiting, Phase::Cancelled, cause);
        let runs = self.jobs[id].tasks.iter();
        let held: BTreeSet<_> = runs.filter_map(|(_, status)| status.phase.allocation()).collect();
        for allocation in held {
            self.recall(context, allocation);
        }
    }

    /// Tasks that began to wait together share the timer of the first one. Those from here on need
    /// one of their own, since the ones before them wait no longer.
    fn keep_backoff(&mut self, id: JobId, first: TaskIndex) {
        if let Some(TaskStatus { phase: Phase::Backoff(until_ms), .. }) =
            self.jobs[id].tasks.get(first)
        {
            self.timers.set(*until_ms, Timer::Backoff(id, first));
        }
    }

    /// Stops tasks of one chain: the one that runs, and those that have not started.
    fn stop_run(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        run: TaskRange,
        cause: ExitCause,
    ) {
        // An earlier run of the same request may have ended the allocation.
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let current = allocation.left().tasks().next().map(|(index, _)| index);
        // The bug: the attempt ends, and its task is tried again.
        let cause = match cause {
            ExitCause::Cancelled if mutant!("cancel_lost") => ExitCause::Requeued,
            cause => cause,
        };
        if cause == ExitCause::Cancelled && !allocation.cancelled.contains(&run) {
            allocation.cancelled.push(run);
        }
        if current.is_some_and(|current| run.contains(current)) {
            self.begin_stop(context, id, cause);
        } else if cause != ExitCause::Requeued {
            self.recall(context, id);
        }
    }

    /// Calls back the part of a chain that has not started.
    pub(super) fn recall(&mut self, context: &mut Context, id: AllocationId) {
        let allocation = &mut self.allocations[id];
        let keep = allocation.started.max(allocation.ended + 1);
        if keep < allocation.keep {
            allocation.keep = keep;
            self.push_desired(context, id);
        }
    }

    /// Stops what an allocation runs. The first cause stands, but a cancel goes over all others:
    /// it was answered, so the task must not run again.
    pub(super) fn begin_stop(&mut self, context: &mut Context, id: AllocationId, cause: ExitCause) {
        let allocation = &mut self.allocations[id];
        if allocation.state == AttemptState::Stopping {
            if cause == ExitCause::Cancelled {
                allocation.cause = Some(cause);
            }
            return;
        }
        assert!(allocation.state.may_become(AttemptState::Stopping), "allocation {id} has ended");
        allocation.state = AttemptState::Stopping;
        allocation.cause = Some(cause);
        self.forget_silence(id);
        let allocation = &mut self.allocations[id];
        allocation.keep = allocation.keep.min(allocation.started.max(allocation.ended + 1));
        let (job, current) = (allocation.job, allocation.left().tasks().next());
        let deadline_ms = allocation.deadline_ms.take();
        if let Some(at_ms) = deadline_ms {
            self.timers.unset(at_ms, Timer::Deadline(id));
        }
        if let Some((index, _)) = current
            && let Some(status) = self.jobs[job].tasks.get(index).copied()
        {
            let new = TaskStatus { phase: Phase::Stopping(id), ..status };
            self.set_tasks(context, job, TaskRange::one(index), new);
        }
        self.push_desired(context, id);
    }

    /// Gives every node of an allocation a new desired set.
    pub(super) fn push_desired(&mut self, context: &mut Context, id: AllocationId) {
        for at in 0..self.allocations[id].shares.len() {
            self.bump(context, self.allocations[id].shares[at].node);
        }
    }

    /// Mints the next version of a node's desired set.
    pub(super) fn bump(&mut self, context: &mut Context, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            context.bump(id, node);
        }
    }

    /// Ends one attempt of each task of a run: the retry rules say what becomes of them.
    pub(super) fn conclude(
        &mut self,
        context: &mut Context,
        id: JobId,
        run: TaskRange,
        attempt: AttemptNumber,
        cause: ExitCause,
        allocation: AllocationId,
    ) {
        context.events.push(Event::AttemptEnded {
            job: id,
            tasks: run,
            attempt,
            cause,
            allocation,
        });
        let mut from = run.first;
        while let Some((part, status)) = self.jobs[id].tasks.next_run(from, run.end()) {
            from = part.end();
            let job = &self.jobs[id];
            let blocked = job.waits.any();
            let (phase, tries) = match decide(cause, &job.plan.retry, status.tries) {
                Verdict::End(TaskEnd::Succeeded) => (Phase::Succeeded, status.tries),
                Verdict::End(TaskEnd::Failed) => (Phase::Failed, status.tries),
                Verdict::End(TaskEnd::Cancelled) => (Phase::Cancelled, status.tries),
                Verdict::Retry { tries, .. } if blocked => (Phase::Blocked, tries),
                Verdict::Retry { after_ms: 0, tries } => (Phase::Queued, tries),
                Verdict::Retry { after_ms, tries } => {
                    (Phase::Backoff(context.now_ms.saturating_add(after_ms)), tries)
                }
            };
            if let Phase::Backoff(until_ms) = phase {
                self.timers.set(until_ms, Timer::Backoff(id, part.first));
            }
            let new = TaskStatus { phase, tries, cause: Some(cause), ..status };
            self.set_tasks(context, id, part, new);
        }
    }

    /// Puts tasks back that never started: their attempt numbers are used up, nothing else is.
    pub(super) fn give_back_tasks(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        tail: &Chain,
    ) {
        let (job, cancelled) = (self.allocations[id].job, self.allocations[id].cancelled.clone());
        for link in &tail.0 {
            for (index, attempt) in Chain(vec![*link]).tasks() {
                let task = TaskRange::one(index);
                if cancelled.iter().any(|range| range.contains(index)) {
                    self.conclude(context, job, task, attempt, ExitCause::Cancelled, id);
                } else {
                    let back =
                        if self.jobs[job].waits.any() { Phase::Blocked } else { Phase::Queued };
                    self.move_tasks(context, job, task, |_| true, back, None);
                }
            }
        }
    }

    /// Ends an allocation whose ranks are all accounted for.
    pub(super) fn end_allocation(&mut self, context: &mut Context, id: AllocationId) {
        let allocation = &mut self.allocations[id];
        if allocation.ends_in_turn() && !allocation.left().is_empty() {
            // The last exit was that of the task before: it says nothing about this one.
            allocation.shares[0].exit = None;
        }
        let allocation = &self.allocations[id];
        let (job, left) = (allocation.job, allocation.left());
        let known = allocation.started.saturating_sub(allocation.ended);
        // What was told to stop may have started without a report of it.
        let known = if allocation.cause.is_some() { known.max(1) } else { known };
        let final_cause = allocation.final_cause();
        let tail = left.slice(known.min(left.len()), left.len());
        for (index, attempt) in left.slice(0, known).tasks() {
            let cause = self.allocations[id].cause_of(index, final_cause);
            self.conclude(context, job, TaskRange::one(index), attempt, cause, id);
        }
        self.give_back_tasks(context, id, &tail);
        self.dissolve(context, id);
    }

    /// Takes an allocation apart: what is not seen reaped stays behind on its node.
    fn dissolve(&mut self, context: &mut Context, id: AllocationId) {
        let Some(allocation) = self.allocations.remove(id) else { return };
        if let Some(at_ms) = allocation.deadline_ms {
            self.timers.unset(at_ms, Timer::Deadline(id));
        }
        if let Some(at_ms) = allocation.stall_ms {
            self.timers.unset(at_ms, Timer::Stall(id));
        }
        for share in &allocation.shares {
            self.leave_behind(context, id, &allocation, share);
        }
        let payers = State::payers(&self.jobs[allocation.job]);
        self.holdings.take_off(&payers, &allocation.holding());
        if mutant!("quota_released_twice") {
            self.holdings.take_off(&payers, &allocation.holding());
        }
        self.jobs[allocation.job].allocations -= 1;
        if !(mutant!("usage_forgotten") && allocation.cause == Some(ExitCause::NodeLost)) {
            self.bill(context, &allocation, &allocation.shares);
        }
        self.shapes.release(allocation.shape);
        context.events.push(Event::Freed(id));
    }

    /// Frees a share, or keeps it in its node's books until it is seen reaped.
    fn leave_behind(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        allocation: &Allocation,
        share: &Share,
    ) {
        let Some(node) = self.nodes.get_mut(share.node) else { return };
        node.allocations.remove(&id);
        let key = Allocation::assignment(id, share);
        let freed = match share.state {
            AssignmentState::Exited => mutant!("freed_before_reaped"),
            AssignmentState::Gone => mutant!("doubt_forgotten"),
            AssignmentState::Reaped => true,
            AssignmentState::Preparing | AssignmentState::Ready | AssignmentState::Running => false,
        };
        if freed {
            node.give_back(&share.amounts, &share.gpus);
        } else {
            let in_doubt = share.state == AssignmentState::Gone;
            let (amounts, gpus) = (share.amounts, share.gpus);
            let (job, chain) = (allocation.job, allocation.chain.clone());
            let left = Leftover { amounts, gpus, in_doubt, job, chain };
            node.leftovers.insert(key, left);
        }
        context.bump(share.node, node);
    }

    /// Rolls up what shares of an allocation used until now.
    fn bill(&mut self, context: &Context, allocation: &Allocation, shares: &[Share]) {
        let job = &self.jobs[allocation.job];
        let lost = allocation.final_cause().fault() == Fault::Infra;
        // A gang has GPUs of one model; shares without any come on top.
        let mut by_model: Vec<(&str, Amounts, u64)> = Vec::new();
        for share in shares {
            let node = self.nodes.get(share.node);
            let model = node.and_then(|node| model_of(node, &share.gpus)).unwrap_or_default();
            let parts = share.gpus.total_parts();
            match by_model.iter_mut().find(|(known, ..)| *known == model) {
                Some((_, sum, gpu_parts)) => {
                    *sum = sum.checked_add(&share.amounts).unwrap_or(*sum);
                    *gpu_parts += parts;
                }
                None => by_model.push((model, share.amounts, parts)),
            }
        }
        let for_ms = context.now_ms - allocation.granted_ms;
        let (owner, queue) = (job.owner, job.queue);
        for (model, amounts, gpu_parts) in by_model {
            let key = UsageKey { day: 0, owner, queue, model: model.into() };
            let held = Held { amounts, gpu_parts, lost };
            self.usage.add(&key, &held, for_ms, context.wall_ms);
        }
    }

    /// Every share on a node is given up: it is in doubt until the node says otherwise.
    pub(super) fn give_up_shares(
        &mut self,
        context: &mut Context,
        node: NodeId,
        wanted: impl Fn(&State, &Allocation) -> bool,
    ) {
        for id in self.allocations_on(node) {
            if wanted(self, &self.allocations[id]) {
                self.lose_shares(context, id, node, AssignmentState::Gone);
            }
        }
    }

    /// The machine was off: nothing of before runs there, so nothing is in doubt.
    pub(super) fn clear_node(&mut self, context: &mut Context, id: NodeId) {
        for allocation in self.allocations_on(id) {
            self.lose_shares(context, allocation, id, AssignmentState::Reaped);
        }
        let node = &mut self.nodes[id];
        let leftovers = std::mem::take(&mut node.leftovers);
        for (_, left) in leftovers.iter() {
            node.give_back(&left.amounts, &left.gpus);
        }
        self.bump(context, id);
    }

    /// Every attempt ends: the cluster was restored, and what runs belongs to another life.
    pub(super) fn void_all_attempts(&mut self, context: &mut Context) {
        let nodes: Vec<_> = self.nodes.iter().map(|(id, _)| id).collect();
        for node in nodes {
            self.give_up_shares(context, node, |_, _| true);
        }
    }

    /// The allocations with a share on a node.
    pub(super) fn allocations_on(&self, node: NodeId) -> Vec<AllocationId> {
        self.nodes[node].allocations.iter().map(|(id, ())| *id).collect()
    }

    /// The shares of an allocation on a node are over without a word from it.
    fn lose_shares(
        &mut self,
        context: &mut Context,
        id: AllocationId,
        node: NodeId,
        state: AssignmentState,
    ) {
        if state == AssignmentState::Reaped {
            // What is taken out of the books below is billed until now.
            let allocation = self.allocations[id].clone();
            let here = allocation.shares.iter().filter(|share| share.node == node);
            let here: Vec<_> = here.copied().collect();
            self.bill(context, &allocation, &here);
        }
        let mut freed = Vec::new();
        for share in self.allocations[id].shares.iter_mut().filter(|share| share.node == node) {
            if share.state.may_become(state) {
                share.state = state;
            }
            if state == AssignmentState::Reaped {
                // The node may come back with other devices: its books must not name these.
                freed.push((share.amounts, share.gpus));
                (share.amounts, share.gpus) = Default::default();
            }
        }
        for (amounts, gpus) in freed {
            self.nodes[node].give_back(&amounts, &gpus);
            let job = self.allocations[id].job;
            let payers = State::payers(&self.jobs[job]);
            let gpu_parts = gpus.total_parts();
            self.holdings.take_off(&payers, &Holding { amounts, gpu_parts, ..Holding::default() });
        }
        context.events.push(Event::ShareLost { allocation: id, node });
        self.begin_stop(context, id, ExitCause::NodeLost);
        self.end_if_over(context, id);
    }

    /// Ends an allocation if all of its shares are over.
    pub(super) fn end_if_over(&mut self, context: &mut Context, id: AllocationId) {
        if self.allocations[id].is_over() {
            self.end_allocation(context, id);
        }
    }
}

impl Context {
    /// Mints the next version of a node's desired set.
    pub(super) fn bump(&mut self, id: NodeId, node: &mut Node) {
        node.generation = Generation(node.generation.0 + 1);
        self.events.push(Event::Desired { node: id, generation: node.generation });
    }
}

impl Allocation {
    /// Why the attempt as a whole ends, as far as is known.
    pub(crate) fn final_cause(&self) -> ExitCause {
        let success = |share: &Share| share.exit.is_some_and(ExitCause::is_success);
        let all_succeeded = match self.first_rank_decides {
            true => self.shares.first().is_some_and(success),
            false => self.shares.iter().all(success),
        };
        match self.cause {
            // It was done before the stop reached it.
            Some(cause) if all_succeeded && cause.fault() != Fault::Request => ExitCause::Exited(0),
            Some(ExitCause::NodeLost) if mutant!("lost_is_success") => ExitCause::Exited(0),
            Some(cause) => cause,
            None if all_succeeded => ExitCause::Exited(0),
            None => {
                let failed = self.shares.iter().filter_map(|share| share.exit);
                let mut failed = failed.filter(|exit| !exit.is_success());
                failed.next().unwrap_or(ExitCause::Lost(LostReason::Unknown))
            }
        }
    }

    /// Why the attempt of one task of the chain ends.
    pub(crate) fn cause_of(&self, index: u32, cause: ExitCause) -> ExitCause {
        let cancelled = self.cancelled.iter().any(|range| range.contains(index));
        if cancelled { ExitCause::Cancelled } else { cause }
    }

    /// What it counts for in the totals.
    pub(crate) fn holding(&self) -> Holding {
        let amounts = self.shares.iter().fold(Amounts::ZERO, |sum, share| {
            sum.checked_add(&share.amounts).expect("shares fit their nodes")
        });
        let gpu_parts = self.shares.iter().map(|share| share.gpus.total_parts()).sum();
        Holding { amounts, gpu_parts, tasks: 1, jobs: 0 }
    }
}
