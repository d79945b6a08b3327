//! Changes of jobs by their owners and by operators.

use super::Context;
use super::bound::at_most_bytes;
use crate::command::{Actor, Adjust, Envelope, JobCommand, Object, Rejection, Reply, Stamp};
use crate::mutant;
use crate::state::{Cancel, Phase, State, TaskStatus};
use yard_common::ExitCause;
use yard_common::id::{JobId, LeaderId, MemberId, TaskIndex, TaskRange};
use yard_common::limits::{ENDED_JOBS_MAX, ENDED_LIFE_MS};
use yard_common::limits::{FORGET_PER_APPLY_MAX, REASON_BYTES_MAX};

impl State {
    pub(super) fn run_job(
        &mut self,
        context: &mut Context,
        command: &JobCommand,
    ) -> Result<Reply, Rejection> {
        match command {
            JobCommand::Submit(submit) => {
                let request = context.request.ok_or_else(|| {
                    Rejection::invalid("request", "a submit carries a request id")
                })?;
                let owner = context.user()?;
                self.submit(context, owner, request, submit)
            }
            JobCommand::Replace { job, revision, new } => {
                self.replace(context, *job, *revision, new)
            }
            JobCommand::Adjust { job, change } => self.adjust(context, *job, change),
            JobCommand::Cancel { job, tasks, reason } => {
                self.end_tasks(context, *job, *tasks, reason, ExitCause::Cancelled)
            }
            JobCommand::Requeue { job, tasks } => {
                self.end_tasks(context, *job, *tasks, "", ExitCause::Requeued)
            }
            JobCommand::Hold { job, reason } => self.hold(context, *job, reason),
            JobCommand::Release(job) => self.release(context, *job),
            JobCommand::Suspend { job, reason } => self.suspend(context, *job, reason),
            JobCommand::Resume(job) => self.resume(context, *job),
            JobCommand::Visit { job, task, .. } => self.visit(*job, *task),
        }
    }

    /// Fails unless the job exists and has not ended.
    fn unfinished(&self, id: JobId) -> Result<(), Rejection> {
        let job = self.jobs.get(id).ok_or(Rejection::NotFound(Object::Job(id)))?;
        if job.state.is_terminal() {
            return Err(Rejection::WrongState(Object::Job(id), job.state.to_string()));
        }
        Ok(())
    }

    fn adjust(
        &mut self,
        context: &mut Context,
        id: JobId,
        change: &Adjust,
    ) -> Result<Reply, Rejection> {
        self.unfinished(id)?;
        let job = &self.jobs[id];
        let (queue, place) = (job.queue, job.place(id));
        if let Some(priority) = change.priority {
            self.check_priority(queue, priority)?;
        }
        let limit_ms = change.time_limit_ms.map(|limit_ms| (limit_ms > 0).then_some(limit_ms));
        if let Some(limit_ms) = limit_ms {
            self.check_time_limit(queue, limit_ms)?;
        }
        if change.running_max.is_some() && job.plan.array.is_none() {
            return Err(Rejection::invalid("array.max_running", "the job is no array"));
        }
        self.pending.remove(&place);
        let job = &mut self.jobs[id];
        job.revision += 1;
        let plan = job.plan.make_mut();
        plan.priority = change.priority.unwrap_or(plan.priority);
        if let (Some(array), Some(max)) = (&mut plan.array, change.running_max) {
            array.running_max = (max > 0).then_some(max);
        }
        if let Some(limit_ms) = limit_ms {
            self.move_time_limit(id, limit_ms);
        }
        context.changed(Object::Job(id));
        context.touch(id);
        Ok(Reply::Done)
    }

    /// Changes the time limit of a job. Attempts that run end so much later, or earlier.
    fn move_time_limit(&mut self, id: JobId, limit_ms: Option<u64>) {
        let old_ms = self.jobs[id].plan.time_limit_ms;
        self.jobs[id].plan.make_mut().time_limit_ms = limit_ms;
        let tasks = self.jobs[id].tasks.iter();
        let mut running: Vec<_> = tasks
            .filter_map(|(_, status)| match status.phase {
                Phase::Running(allocation) => Some(allocation),
                Phase::Blocked
                | Phase::Queued
                | Phase::Backoff(_)
                | Phase::Preparing(_)
                | Phase::Stopping(_)
                | Phase::Succeeded
                | Phase::Failed
                | Phase::Cancelled => None,
            })
            .collect();
        running.dedup();
        for allocation in running {
            self.shift_time_limit(allocation, old_ms, limit_ms);
        }
    }

    /// Ends tasks that run; a cancel also those that wait.
    fn end_tasks(
        &mut self,
        context: &mut Context,
        id: JobId,
        tasks: Option<TaskRange>,
        reason: &str,
        cause: ExitCause,
    ) -> Result<Reply, Rejection> {
        self.unfinished(id)?;
        check_reason(reason)?;
        let all = self.jobs[id].tasks.range();
        let range = tasks.unwrap_or(all);
        if range.len == 0 || range.first < all.first || range.end() > all.end() {
            return Err(Rejection::invalid("tasks", format!("{range} is not within {all}")));
        }
        let stopped = self.stop_tasks(context, id, range, cause);
        if cause == ExitCause::Cancelled && stopped > 0 {
            let (by, reason) = (context.actor, reason.into());
            self.jobs[id].note_cancel(Cancel { tasks: range, by, reason });
        }
        context.changed(Object::Job(id));
        Ok(Reply::Tasks(stopped))
    }

    fn hold(&mut self, context: &mut Context, id: JobId, reason: &str) -> Result<Reply, Rejection> {
        self.unfinished(id)?;
        check_reason(reason)?;
        self.jobs[id].waits.held = Some(reason.into());
        context.changed(Object::Job(id));
        if mutant!("hold_ignored") {
            return Ok(Reply::Tasks(0));
        }
        Ok(Reply::Tasks(self.block_tasks(context, id)))
    }

    fn release(&mut self, context: &mut Context, id: JobId) -> Result<Reply, Rejection> {
        self.unfinished(id)?;
        if self.jobs[id].waits.held.is_none() {
            return Err(Rejection::WrongState(Object::Job(id), "not held".into()));
        }
        self.jobs[id].waits.held = None;
        context.changed(Object::Job(id));
        let range = self.jobs[id].tasks.range();
        Ok(Reply::Tasks(self.unblock_tasks(context, id, range)))
    }

    fn suspend(
        &mut self,
        context: &mut Context,
        id: JobId,
        reason: &str,
    ) -> Result<Reply, Rejection> {
        self.unfinished(id)?;
        check_reason(reason)?;
        self.jobs[id].waits.suspended = Some(reason.into());
        let blocked = self.block_tasks(context, id);
        let range = self.jobs[id].tasks.range();
        let stopped = self.stop_tasks(context, id, range, ExitCause::Suspended);
        context.changed(Object::Job(id));
        Ok(Reply::Tasks(blocked + stopped))
    }

    fn resume(&mut self, context: &mut Context, id: JobId) -> Result<Reply, Rejection> {
        self.unfinished(id)?;
        if self.jobs[id].waits.suspended.is_none() {
            return Err(Rejection::WrongState(Object::Job(id), "not suspended".into()));
        }
        self.jobs[id].waits.suspended = None;
        context.changed(Object::Job(id));
        let range = self.jobs[id].tasks.range();
        Ok(Reply::Tasks(self.unblock_tasks(context, id, range)))
    }

    /// Lets somebody in beside the ranks of a task. Which attempt, and whether it runs yet, is the
    /// agent's to say.
    fn visit(&self, id: JobId, task: TaskIndex) -> Result<Reply, Rejection> {
        self.unfinished(id)?;
        let tasks = self.jobs[id].tasks.range();
        if !tasks.contains(task) {
            return Err(Rejection::invalid("task", format!("{task} is not within {tasks}")));
        }
        Ok(Reply::Job(id))
    }

    /// The state as it would be if a job were neither held nor suspended: a copy, for questions.
    pub(crate) fn as_if_released(&self, id: JobId) -> State {
        let mut world = self.clone();
        let leader = LeaderId { term: 0, member: MemberId(0) };
        let stamp = Stamp { cluster_ms: self.now_ms(), ..Stamp::default() };
        let envelope = Envelope { actor: Actor::Leader, leader, stamp, request: None };
        let mut context = Context::new(self.applied, &envelope);
        (world.jobs[id].waits.held, world.jobs[id].waits.suspended) = (None, None);
        let range = world.jobs[id].tasks.range();
        world.unblock_tasks(&mut context, id, range);
        world.settle_jobs(&mut context);
        world
    }

    /// Looks at the jobs that a job waits for as a whole: it goes on, goes on waiting, or ends.
    pub(super) fn resolve_dependencies(&mut self, context: &mut Context, id: JobId) {
        let Some(job) = self.jobs.get(id).filter(|job| !job.state.is_terminal()) else { return };
        let found = job.plan.after.whole().map(|(other, wanted)| self.satisfies(other, wanted));
        let found: Vec<_> = found.collect();
        let range = job.tasks.range();
        if found.contains(&Some(false)) {
            let cause = Some(ExitCause::DependencyFailed);
            let waits = |phase: Phase| phase.state().is_pending();
            self.move_tasks(context, id, range, waits, Phase::Failed, cause);
            return;
        }
        let open = found.iter().filter(|answer| answer.is_none()).count();
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        if self.jobs[id].waits.jobs != open {
            self.jobs[id].waits.jobs = open;
        }
        if open == 0 {
            self.unblock_tasks(context, id, range);
        }
    }

    /// Tasks wait no longer after a failure.
    pub(super) fn end_backoff(&mut self, context: &mut Context, id: JobId, first: u32) {
        let Some(job) = self.jobs.get(id) else { return };
        let end = job.tasks.range().end();
        if first >= end {
            return;
        }
        let now_ms = context.now_ms;
        let due = |status: &TaskStatus| matches!(status.phase, Phase::Backoff(t) if t <= now_ms);
        let runs = job.tasks.within(TaskRange::between(first, end));
        let last = runs.take_while(|(_, status)| due(status)).last();
        if let Some((run, _)) = last {
            let range = TaskRange::between(first, run.end());
            self.move_tasks(context, id, range, |_| true, Phase::Queued, None);
        }
    }

    /// Forgets jobs that ended long ago, or too many: history has them. Jobs that others still
    /// look at stay.
    pub(super) fn forget_ended_jobs(&mut self, context: &mut Context) {
        let too_many = self.ended.len().saturating_sub(ENDED_JOBS_MAX);
        let old: Vec<_> = self
            .ended
            .iter()
            .take(FORGET_PER_APPLY_MAX)
            .enumerate()
            .take_while(|(position, ((ended_ms, _), ()))| {
                *position < too_many || ended_ms.saturating_add(ENDED_LIFE_MS) <= context.now_ms
            })
            .map(|(_, (key, ()))| *key)
            .collect();
        for (ended_ms, id) in old {
            if self.waiters_of(id).is_empty() {
                self.ended.remove(&(ended_ms, id));
                self.forget_job(context, id);
            }
        }
    }

    fn forget_job(&mut self, context: &mut Context, id: JobId) {
        let Some(job) = self.jobs.remove(id) else { return };
        self.dedup.forget_job(crate::command::Actor::User(job.owner), job.request);
        self.workspaces[job.workspace].jobs -= 1;
        self.queues[job.queue].jobs -= 1;
        self.leave_experiment(context, job.experiment);
        self.shapes.release(job.shape);
        context.events.push(crate::event::Event::Forgotten(id));
    }
}

fn check_reason(reason: &str) -> Result<(), Rejection> {
    at_most_bytes("reason", reason.as_bytes(), REASON_BYTES_MAX)
}
