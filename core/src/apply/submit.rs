//! New jobs, and new versions of jobs of which nothing has started.

use super::Context;
use super::bound::{between, legal_name, reached};
use crate::command::{Actor, Object, Rejection, Reply, Submit};
use crate::event::Event;
use crate::job::{Group, JobPlan, Shape, Wanted};
use crate::mutant;
use crate::state::{Experiment, Holding, Job, Payers, Phase, State, Tasks, Timer, Waits};
use crate::table::Shared;
use yard_common::gpu::{GPU_PARTS, GpuCount};
use yard_common::id::{ExperimentId, JobId, PrincipalId, RequestId, TaskRange, WorkspaceId};
use yard_common::limits;
use yard_common::state::{JobState, TaskState};

impl State {
    /// Takes a new job in.
    pub(super) fn submit(
        &mut self,
        context: &mut Context,
        owner: PrincipalId,
        request: RequestId,
        submit: &Submit,
    ) -> Result<Reply, Rejection> {
        let id = self.jobs.next_id();
        if self.jobs.len() as u64 >= limits::JOBS_MAX {
            return Err(reached("jobs of the cluster", limits::JOBS_MAX));
        }
        let plan = self.check_submit(id, submit)?;
        let payers = Payers { queue: submit.queue, workspace: submit.workspace, owner };
        let one = Holding { jobs: 1, ..Holding::default() };
        if let Some(excess) = self.holdings.excess(&payers, &one) {
            return Err(reached("jobs that have not ended", excess.limit));
        }
        let experiment = self.join_experiment(context, submit)?;
        self.holdings.add(&payers, &one);
        self.workspaces[submit.workspace].jobs += 1;
        self.queues[submit.queue].jobs += 1;
        let shape = self.shapes.acquire(&plan.shape);
        let waits = self.waits_of(context, id, &plan);
        let blocked = waits.any() || !plan.after.each.is_empty();
        let phase = if blocked { Phase::Blocked } else { Phase::Queued };
        let range = plan.tasks();
        self.jobs.push(Job {
            owner,
            workspace: submit.workspace,
            queue: submit.queue,
            experiment,
            plan: Shared::from(plan),
            shape,
            spec: Shared::from(submit.spec.clone()),
            request,
            revision: 0,
            submitted: self.clock,
            ended: None,
            tasks: Tasks::new(range, phase),
            waits,
            state: JobState::Queued,
            allocations: 0,
            cancels: Vec::new(),
        });
        context.events.push(Event::Job { job: id, state: JobState::Queued });
        context.touch(id);
        self.begin_waiting(context, id);
        Ok(Reply::Job(id))
    }

    /// Arrays that wait for this one index by index were checked against its indices.
    fn check_indices_kept(&self, id: JobId, tasks: TaskRange) -> Result<(), Rejection> {
        if tasks == self.jobs[id].tasks.range() {
            return Ok(());
        }
        let by_index = |waiter: &JobId| self.jobs[*waiter].plan.after.each.contains(&id);
        match self.waiters_of(id).into_iter().find(by_index) {
            None => Ok(()),
            Some(waiter) => {
                let why = format!("job {waiter} waits for it index by index; keep its indices");
                Err(Rejection::InUse(Object::Job(id), why))
            }
        }
    }

    /// Replaces a job of which nothing has started.
    pub(super) fn replace(
        &mut self,
        context: &mut Context,
        id: JobId,
        revision: u32,
        new: &Submit,
    ) -> Result<Reply, Rejection> {
        let job = self.jobs.get(id).ok_or(Rejection::NotFound(Object::Job(id)))?;
        let counts = *job.tasks.counts();
        let waiting = counts.of(TaskState::Blocked) + counts.of(TaskState::Queued);
        let untouched = job.tasks.iter().all(|(_, status)| status.attempt.0 == 0);
        if waiting != job.tasks.range().len || !untouched {
            let state = format!("{}, and parts of it have started", job.state);
            return Err(Rejection::WrongState(Object::Job(id), state));
        }
        if job.revision != revision {
            return Err(Rejection::Changed(Object::Job(id)));
        }
        if new.workspace != job.workspace {
            return Err(Rejection::invalid("workspace", "a job stays in its workspace"));
        }
        let plan = self.check_submit(id, new)?;
        self.check_indices_kept(id, plan.tasks())?;
        let experiment = self.join_experiment(context, new)?;
        self.forget_waiting(id);
        let job = &self.jobs[id];
        let (old, old_place) = (State::payers(job), job.place(id));
        let (old_shape, old_experiment) = (job.shape, job.experiment);
        let payers = Payers { queue: new.queue, ..old };
        let one = Holding { jobs: 1, ..Holding::default() };
        self.pending.remove(&old_place);
        self.holdings.take_off(&old, &one);
        self.holdings.add(&payers, &one);
        self.queues[old.queue].jobs -= 1;
        self.queues[new.queue].jobs += 1;
        self.leave_experiment(context, old_experiment);
        let shape = self.shapes.acquire(&plan.shape);
        self.shapes.release(old_shape);
        let waits = self.waits_of(context, id, &plan);
        let blocked = waits.any() || !plan.after.each.is_empty();
        let phase = if blocked { Phase::Blocked } else { Phase::Queued };
        let job = &mut self.jobs[id];
        job.tasks = Tasks::new(plan.tasks(), phase);
        (job.queue, job.experiment, job.shape, job.waits) = (new.queue, experiment, shape, waits);
        (job.plan, job.spec) = (Shared::from(plan), Shared::from(new.spec.clone()));
        job.revision += 1;
        context.touch(id);
        context.changed(Object::Job(id));
        self.begin_waiting(context, id);
        Ok(Reply::Job(id))
    }

    /// What keeps a job with this plan from being started. Changes nothing.
    fn waits_of(&self, context: &Context, id: JobId, plan: &JobPlan) -> Waits {
        let open = plan.after.whole().filter(|(other, _)| *other != id && !self.has_ended(*other));
        let delay_ms = plan.not_before_wall_ms.map_or(0, |at| at.saturating_sub(context.wall_ms));
        let delay_ms = delay_ms.min(limits::DURATION_MS_MAX);
        Waits {
            held: plan.hold.then(|| "submitted with hold".into()),
            suspended: None,
            until_ms: if delay_ms > 0 { context.now_ms + delay_ms } else { 0 },
            jobs: u32::try_from(open.count()).unwrap_or(u32::MAX),
        }
    }

    /// Enters what a job waits for into the books, and looks at what has ended already.
    fn begin_waiting(&mut self, context: &mut Context, id: JobId) {
        let job = &self.jobs[id];
        let (until_ms, range) = (job.waits.until_ms, job.tasks.range());
        let others: Vec<_> = job.plan.after.all().collect();
        if until_ms > 0 {
            self.timers.set(until_ms, Timer::NotBefore(id));
        }
        for other in &others {
            self.dependents.insert((*other, id), ());
        }
        if !others.is_empty() {
            self.resolve_dependencies(context, id);
            self.unblock_tasks(context, id, range);
        }
    }

    /// Takes what a job waits for out of the books.
    fn forget_waiting(&mut self, id: JobId) {
        let job = &self.jobs[id];
        let (until_ms, others) = (job.waits.until_ms, job.plan.after.clone());
        self.timers.unset(until_ms, Timer::NotBefore(id));
        for other in others.all() {
            self.dependents.remove(&(other, id));
        }
    }

    /// Whether a job has ended, or left the state after its end.
    pub(super) fn has_ended(&self, id: JobId) -> bool {
        self.jobs.get(id).is_none_or(|job| job.state.is_terminal())
    }

    /// Whether the end of a job is the one that was asked for; none while it has not ended.
    pub(super) fn satisfies(&self, id: JobId, wanted: Wanted) -> Option<bool> {
        let state = self.jobs.get(id)?.state;
        state.is_terminal().then(|| match wanted {
            Wanted::End => true,
            Wanted::Success if mutant!("dependency_any") => true,
            Wanted::Success => state == JobState::Succeeded,
            Wanted::Failure => state != JobState::Succeeded,
        })
    }

    /// The experiment of a new job, made on first use.
    fn join_experiment(
        &mut self,
        context: &mut Context,
        submit: &Submit,
    ) -> Result<Option<ExperimentId>, Rejection> {
        let Some(name) = submit.experiment.as_deref() else { return Ok(None) };
        let key = (submit.workspace, Box::from(name));
        if let Some(id) = self.experiment_names.get(&key).copied() {
            self.experiments[id].jobs += 1;
            return Ok(Some(id));
        }
        if self.experiments.len() >= limits::EXPERIMENTS_MAX {
            return Err(reached("experiments", limits::EXPERIMENTS_MAX as u64));
        }
        let (workspace, name) = key.clone();
        let id = self.experiments.push(Experiment { workspace, name, jobs: 1 });
        self.experiment_names.insert(key, id);
        self.workspaces[workspace].holds += 1;
        context.changed(Object::Experiment(id));
        Ok(Some(id))
    }

    /// A job leaves its experiment; the last one takes it along.
    pub(super) fn leave_experiment(&mut self, context: &mut Context, id: Option<ExperimentId>) {
        let Some(id) = id else { return };
        let experiment = &mut self.experiments[id];
        experiment.jobs -= 1;
        if experiment.jobs == 0 {
            let (workspace, name) = (experiment.workspace, experiment.name.clone());
            self.experiments.remove(id);
            self.experiment_names.remove(&(workspace, name));
            self.workspaces[workspace].holds -= 1;
            context.changed(Object::Experiment(id));
        }
    }

    /// Checks a job whole, and fills in what its queue decides.
    fn check_submit(&self, id: JobId, submit: &Submit) -> Result<JobPlan, Rejection> {
        let object = Object::Workspace(submit.workspace);
        self.workspaces.get(submit.workspace).ok_or(Rejection::NotFound(object))?;
        let object = Object::Queue(submit.queue);
        let queue = self.queues.get(submit.queue).ok_or(Rejection::NotFound(object))?;
        if !queue.set.accepts {
            return Err(Rejection::QueueClosed(object));
        }
        let mut plan = submit.plan.clone();
        plan.time_limit_ms = plan.time_limit_ms.or(queue.set.time_limit_default_ms);
        self.check_priority(submit.queue, plan.priority)?;
        self.check_time_limit(submit.queue, plan.time_limit_ms)?;
        check_texts(submit)?;
        check_durations(&plan)?;
        for shape in std::iter::once(&plan.shape).chain(&plan.any_of) {
            self.check_shape(shape)?;
        }
        self.check_after(id, submit.workspace, &plan)?;
        Ok(plan)
    }

    /// Whether a queue allows a priority.
    pub(super) fn check_priority(
        &self,
        queue: yard_common::id::QueueId,
        priority: i32,
    ) -> Result<(), Rejection> {
        let max = self.queues[queue].set.job_priority_max.min(limits::PRIORITY_ABS_MAX);
        if priority > max || priority < -limits::PRIORITY_ABS_MAX {
            let problem = format!("{priority} is outside -{} to {max}", limits::PRIORITY_ABS_MAX);
            return Err(Rejection::invalid("priority", problem));
        }
        Ok(())
    }

    /// Whether a queue allows a time limit.
    pub(super) fn check_time_limit(
        &self,
        queue: yard_common::id::QueueId,
        limit_ms: Option<u64>,
    ) -> Result<(), Rejection> {
        let max_ms = self.queues[queue].set.time_limit_max_ms;
        let allowed_ms = max_ms.unwrap_or(limits::DURATION_MS_MAX);
        match limit_ms {
            Some(0) => Err(Rejection::invalid("time_limit", "0 leaves no time; leave it out")),
            Some(limit_ms) if limit_ms > allowed_ms => {
                let problem = format!("{limit_ms} ms; the queue allows {allowed_ms} ms");
                Err(Rejection::invalid("time_limit", problem))
            }
            None if max_ms.is_some() => {
                let problem = format!("missing; the queue needs one of at most {allowed_ms} ms");
                Err(Rejection::invalid("time_limit", problem))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_shape(&self, shape: &Shape) -> Result<(), Rejection> {
        if let Some(pool) = shape.pool {
            self.pools.get(pool).ok_or(Rejection::NotFound(Object::Pool(pool)))?;
        }
        let place = &shape.place;
        between("roles", shape.groups.len() as u64, 1, limits::GROUPS_MAX as u64)?;
        between("nodes", shape.nodes_min(), 1, limits::GANG_NODES_MAX)?;
        between("place.labels", place.labels.len() as u64, 0, limits::LABELS_MAX as u64)?;
        let names = place.exclude_nodes.len().max(place.only_nodes.len()) as u64;
        between("place.only_nodes", names, 0, limits::NODE_LIST_MAX as u64)?;
        if !place.labels.is_sorted() {
            return Err(Rejection::invalid("place.labels", "not sorted by key"));
        }
        shape.groups.iter().try_for_each(check_group)
    }

    /// Checks what a job waits for. All of it is older, so no circle can arise.
    fn check_after(
        &self,
        id: JobId,
        workspace: WorkspaceId,
        plan: &JobPlan,
    ) -> Result<(), Rejection> {
        let mut all: Vec<_> = plan.after.all().collect();
        between("after", all.len() as u64, 0, limits::DEPENDENCIES_MAX as u64)?;
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Rejection::invalid("after", "names a job twice"));
        }
        for other in all {
            let found = self.jobs.get(other).filter(|job| job.workspace == workspace);
            let found =
                found.filter(|_| other < id).ok_or(Rejection::NotFound(Object::Job(other)))?;
            let waiting = self.waiters_of(other).len() as u64;
            if waiting >= limits::DEPENDENTS_MAX as u64 {
                return Err(reached("jobs that wait for one job", limits::DEPENDENTS_MAX as u64));
            }
            if plan.after.each.contains(&other) {
                if found.tasks.range() != plan.tasks() {
                    let problem = format!("job {other} has other indices than this one");
                    return Err(Rejection::invalid("after.each", problem));
                }
                if waiting >= limits::EACH_DEPENDENTS_MAX as u64 {
                    let limit = limits::EACH_DEPENDENTS_MAX as u64;
                    return Err(reached("arrays that wait for one array by index", limit));
                }
            }
        }
        Ok(())
    }
}

impl Context {
    /// The user who asks.
    pub(super) fn user(&self) -> Result<PrincipalId, Rejection> {
        match self.actor {
            Actor::User(user) => Ok(user),
            Actor::Leader | Actor::Node(_) | Actor::Bearer => {
                Err(Rejection::NotAllowed("a user".into()))
            }
        }
    }
}

fn check_texts(submit: &Submit) -> Result<(), Rejection> {
    legal_name("name", &submit.plan.name)?;
    submit.experiment.as_deref().map_or(Ok(()), |name| legal_name("experiment", name))?;
    between("spec", submit.spec.len() as u64, 0, limits::SPEC_BYTES_MAX as u64)?;
    let plan = &submit.plan;
    between("any_of", plan.any_of.len() as u64, 0, limits::GROUPS_MAX as u64)?;
    between("retry.on", plan.retry.rules.len() as u64, 0, limits::RETRY_RULES_MAX as u64)?;
    let budgets = [plan.retry.infra, plan.retry.user, plan.retry.preempted.unwrap_or(0)];
    let largest = budgets.into_iter().max().unwrap_or(0);
    between("retry", largest, 0, limits::RETRIES_MAX)?;
    if let Some(array) = &plan.array {
        between("array", array.tasks.len, 1, limits::ARRAY_TASKS_MAX)?;
        let end = u64::from(array.tasks.first) + u64::from(array.tasks.len);
        between("array.indices", end, 1, u32::MAX.into())?;
        between("array.max_running", array.running_max.unwrap_or(1), 1, u32::MAX)?;
    }
    Ok(())
}

fn check_durations(plan: &JobPlan) -> Result<(), Rejection> {
    let max_ms = limits::DURATION_MS_MAX;
    between("stop.grace", plan.grace_ms, 0, max_ms)?;
    between("prepare_timeout", plan.prepare_ms, 0, max_ms)?;
    between("isolation.lease", plan.isolation.lease_ms.unwrap_or(1), 1, max_ms)?;
    between("retry.backoff", plan.retry.backoff_max_ms, 0, max_ms)?;
    between("retry.backoff", plan.retry.backoff_min_ms, 0, plan.retry.backoff_max_ms)
}

fn check_group(group: &Group) -> Result<(), Rejection> {
    legal_name("roles.name", &group.name)?;
    between("nodes", group.nodes_min, 1, limits::GANG_NODES_MAX)?;
    let most = limits::GANG_NODES_MAX;
    between("nodes", group.nodes_max, group.nodes_min, most)?;
    let ranks_max = limits::RANKS_PER_NODE_MAX;
    between("ranks_per_node", group.ranks_per_node, 1, ranks_max)?;
    let models = group.gpus.models.len() as u64;
    between("resources.gpus", models, 0, limits::GPU_MODELS_MAX as u64)?;
    let devices_max = limits::NODE_DEVICES_MAX as u64;
    match group.gpus.count {
        GpuCount::None => Ok(()),
        GpuCount::Whole(count) => between("resources.gpus", count.into(), 1, devices_max),
        GpuCount::Mig(_, count) => between("resources.mig", count.into(), 1, devices_max),
        GpuCount::Part(parts) => {
            between("resources.gpus", parts.into(), 1, u64::from(GPU_PARTS) - 1)
        }
    }
}
