//! Tasks that move, and what follows for their jobs: place in the queue, state, end, and the
//! arrays that wait for them index by index.

use super::Context;
use crate::event::Event;
use crate::state::{Holding, Job, Phase, State, TaskStatus, Timer};
use yard_common::ExitCause;
use yard_common::id::{JobId, NodeId, TaskRange};
use yard_common::state::TaskState;

/// What the tasks of other arrays say about a run of tasks that wait for them index by index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Each {
    /// All of them succeeded.
    Satisfied,
    /// Some have not ended.
    Open,
    /// One of them ended without success.
    Impossible,
}

impl State {
    /// Gives a run of tasks, which are alike now, a new status, and tells watchers.
    pub(super) fn set_tasks(
        &mut self,
        context: &mut Context,
        id: JobId,
        run: TaskRange,
        new: TaskStatus,
    ) {
        let job = &mut self.jobs[id];
        let old = job.tasks.get(run.first).map(|status| status.phase.state());
        job.tasks.set(run, new);
        let state = new.phase.state();
        if old != Some(state) {
            context.events.push(Event::Tasks { job: id, tasks: run, state, cause: new.cause });
        }
        if state.is_terminal() {
            context.ended.push((id, run));
            self.drop_promises(id, run);
        }
        context.touch(id);
    }

    /// Gives every run within a range that has one of the wanted phases a new phase.
    pub(super) fn move_tasks(
        &mut self,
        context: &mut Context,
        id: JobId,
        range: TaskRange,
        wanted: impl Fn(Phase) -> bool,
        phase: Phase,
        cause: Option<ExitCause>,
    ) -> u32 {
        let (mut from, mut moved) = (range.first, 0);
        while let Some((run, status)) = self.jobs[id].tasks.next_run(from, range.end()) {
            from = run.end();
            if wanted(status.phase) {
                let cause = cause.or(status.cause);
                self.set_tasks(context, id, run, TaskStatus { phase, cause, ..status });
                moved += run.len;
            }
        }
        moved
    }

    /// Keeps the tasks that wait from being started.
    pub(super) fn block_tasks(&mut self, context: &mut Context, id: JobId) -> u32 {
        let range = self.jobs[id].tasks.range();
        let waiting = |phase| matches!(phase, Phase::Queued | Phase::Backoff(_));
        self.move_tasks(context, id, range, waiting, Phase::Blocked, None)
    }

    /// Queues the blocked tasks of a range, unless something still keeps them back.
    pub(super) fn unblock_tasks(
        &mut self,
        context: &mut Context,
        id: JobId,
        range: TaskRange,
    ) -> u32 {
        let job = &self.jobs[id];
        let free = !job.waits.any();
        if job.plan.after.each.is_empty() {
            let blocked = |phase| phase == Phase::Blocked;
            return if free {
                self.move_tasks(context, id, range, blocked, Phase::Queued, None)
            } else {
                0
            };
        }
        let mut moved = 0;
        for (part, each) in self.each_of(job, range) {
            let blocked = |phase| phase == Phase::Blocked;
            moved += match each {
                Each::Satisfied if free => {
                    self.move_tasks(context, id, part, blocked, Phase::Queued, None)
                }
                Each::Impossible => {
                    let cause = Some(ExitCause::DependencyFailed);
                    self.move_tasks(context, id, part, blocked, Phase::Failed, cause)
                }
                Each::Satisfied | Each::Open => 0,
            };
        }
        moved
    }

    /// Splits a range by what the arrays say that are waited for index by index.
    fn each_of(&self, job: &Job, range: TaskRange) -> Vec<(TaskRange, Each)> {
        let mut parts = vec![(range, Each::Satisfied)];
        for other in &job.plan.after.each {
            let Some(other) = self.jobs.get(*other) else { continue };
            let mut next = Vec::with_capacity(parts.len());
            for (part, so_far) in parts {
                for (run, status) in other.tasks.within(part) {
                    let says = match status.phase.state() {
                        TaskState::Succeeded => so_far,
                        TaskState::Failed | TaskState::Cancelled => Each::Impossible,
                        TaskState::Blocked
                        | TaskState::Queued
                        | TaskState::Backoff
                        | TaskState::Preparing
                        | TaskState::Running
                        | TaskState::Stopping => match so_far {
                            Each::Impossible => Each::Impossible,
                            Each::Satisfied | Each::Open => Each::Open,
                        },
                    };
                    next.push((run, says));
                }
            }
            parts = next;
        }
        parts
    }

    /// Draws the consequences of all tasks that moved.
    pub(super) fn settle_jobs(&mut self, context: &mut Context) {
        loop {
            if let Some((id, range)) = context.ended.pop() {
                for waiter in self.waiters_of(id) {
                    let each =
                        self.jobs.get(waiter).is_some_and(|w| w.plan.after.each.contains(&id));
                    if each {
                        self.unblock_tasks(context, waiter, range);
                    }
                }
            } else if let Some(id) = context.touched.pop() {
                self.settle_job(context, id);
            } else {
                return;
            }
        }
    }

    /// The jobs that wait for a job.
    pub(super) fn waiters_of(&self, id: JobId) -> Vec<JobId> {
        let range = (id, JobId(0))..=(id, JobId(u64::MAX));
        self.dependents.range(range).map(|((_, waiter), ())| *waiter).collect()
    }

    /// Brings place in the queue and state of a job up to date with its tasks.
    fn settle_job(&mut self, context: &mut Context, id: JobId) {
        let Some(job) = self.jobs.get(id) else { return };
        let place = job.place(id);
        let queued = job.tasks.counts().of(TaskState::Queued) > 0;
        if !queued {
            self.pending.remove(&place);
        } else if !self.pending.contains(&place) {
            self.pending.insert(place, ());
        }
        let (old, new) = (job.state, job.derived_state());
        if old != new {
            assert!(old.may_become(new), "job {id}: {old} may not become {new}");
            self.jobs[id].state = new;
            context.events.push(Event::Job { job: id, state: new });
            if new.is_terminal() {
                self.end_job(context, id);
                return;
            }
        }
        self.end_array_that_failed(context, id);
    }

    /// Lets no more tasks of an array start of which too many failed. Those that run go on.
    fn end_array_that_failed(&mut self, context: &mut Context, id: JobId) {
        if self.jobs[id].has_failed_too_often() {
            self.cancel_waiting(context, id);
        }
    }

    /// A job has ended: it counts no more, and others may wait for it no longer.
    fn end_job(&mut self, context: &mut Context, id: JobId) {
        let now_ms = context.now_ms;
        let stamp = self.clock;
        let job = &mut self.jobs[id];
        job.ended = Some(stamp);
        let until_ms = std::mem::take(&mut job.waits).until_ms;
        let (payers, waited_for) = (State::payers(job), job.plan.after.clone());
        if until_ms > 0 {
            self.timers.unset(until_ms, Timer::NotBefore(id));
        }
        self.holdings.take_off(&payers, &Holding { jobs: 1, ..Holding::default() });
        self.ended.insert((now_ms, id), ());
        for other in waited_for.all() {
            self.dependents.remove(&(other, id));
        }
        for waiter in self.waiters_of(id) {
            self.timers.set(now_ms, Timer::Dependency(waiter));
        }
    }

    /// Forgets promises that name a node that goes.
    pub(super) fn drop_promises_of_node(&mut self, node: NodeId) {
        let promises = self.reservations.iter();
        let names_it = promises.filter(|(_, promise)| promise.nodes.contains(&node));
        let keys: Vec<_> = names_it.map(|(key, _)| *key).collect();
        for key in keys {
            self.reservations.remove(&key);
        }
    }

    /// Forgets what was promised to tasks that no longer wait.
    pub(super) fn drop_promises(&mut self, id: JobId, tasks: TaskRange) {
        if self.reservations.is_empty() {
            return;
        }
        let range = (id, tasks.first)..(id, tasks.end());
        let keys: Vec<_> = self.reservations.range(range).map(|(key, _)| *key).collect();
        for key in keys {
            self.reservations.remove(&key);
        }
    }
}
