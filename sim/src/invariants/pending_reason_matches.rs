//! The reason that `explain` gives for a task is what the records say: held if it is held, waiting
//! for machines if they are really full, unsatisfiable only if no machines could ever hold it; and
//! what it says starts is in the plan. Worked out anew the slow and obvious way, without the
//! scheduler; where that would mean to search, what is given need only be possible.

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use yard_common::PendingReason as Reason;
use yard_common::id::{JobId, TaskIndex};
use yard_common::state::{NodeState, TaskState};
use yard_core::command::{Placement, Plan};
use yard_core::scheduler::{Budget, Cache, Outlook, Planned, Policy, explain, plan};
use yard_core::state::{Job, Phase, State};

mod limits;
mod machines;

/// Audits, of which there is one a second, and plans from one look to the next: an explanation
/// costs as much as several plans.
const AUDITS: u64 = 40;
const PLANS: u64 = 400;

/// How much was seen so far.
#[derive(Debug, Default)]
pub struct PendingReasonMatches {
    audits: u64,
    plans: u64,
    /// Which tasks come next.
    turn: usize,
}

impl Invariant for PendingReasonMatches {
    fn name(&self) -> &'static str {
        "pending_reason_matches"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Audit { state, .. } => {
                self.audits += 1;
                if self.audits % AUDITS == 1 {
                    let (now_ms, policy) = (state.now_ms(), Policy::default());
                    let cache = &mut Cache::default();
                    let planned = plan(cache, state, now_ms, &policy, Budget::UNLIMITED);
                    return self.look(state, now_ms, &policy, &planned);
                }
            }
            Seen::Planned { state, planned, now_ms, policy } => {
                self.plans += 1;
                if self.plans % PLANS == 1 {
                    return self.look(state, *now_ms, policy, planned);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl PendingReasonMatches {
    /// Looks at the task whose turn is first, and at one that waits for whatever else.
    fn look(
        &mut self,
        state: &State,
        now_ms: u64,
        policy: &Policy,
        planned: &Planned,
    ) -> Result<(), String> {
        if !planned.complete {
            return Ok(());
        }
        let records = Records { state, now_ms, plan: &planned.plan };
        let open = || state.jobs.iter().filter(|(_, job)| job.ended.is_none());
        let ends = |(id, job): (JobId, &Job)| -> Vec<(JobId, TaskIndex)> {
            let runs = job.tasks.iter();
            runs.flat_map(|(run, _)| [(id, run.first), (id, run.end() - 1)]).collect()
        };
        let mut tasks: Vec<_> = open().flat_map(ends).collect();
        tasks.dedup();
        let queued = |(_, job): &(JobId, &Job)| job.tasks.counts().of(TaskState::Queued) > 0;
        let first = open().filter(queued).min_by_key(|(id, _)| records.turn(*id));
        let task = |(id, job): (JobId, &Job)| Some((id, job.tasks.queued().next()?.0.first));
        // No common factor with the few tasks of most moments, so that each gets its turn.
        self.turn += 7;
        let other = tasks.get(self.turn % tasks.len().max(1)).copied();
        let looked: BTreeSet<_> = first.and_then(task).into_iter().chain(other).collect();
        for (job, task) in looked {
            let found = explain(state, now_ms, policy, job, task);
            let found = found.ok_or_else(|| format!("{job}[{task}] has no explanation"))?;
            records.judge(job, task, found.outlook).map_err(|why| {
                format!("{job}[{task}] is explained as {:?}, but {why}", found.outlook)
            })?;
        }
        Ok(())
    }
}

/// The records, and the plan for them.
struct Records<'a> {
    state: &'a State,
    now_ms: u64,
    plan: &'a Plan,
}

fn expect(found: Outlook, wanted: Outlook) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("the records say {wanted:?}")) }
}

impl Records<'_> {
    /// Place in the order of all queues.
    fn turn(&self, id: JobId) -> (Reverse<i32>, Reverse<i32>, JobId) {
        let job = &self.state.jobs[id];
        let queue = self.state.queues[job.queue].set.priority;
        (Reverse(queue), Reverse(job.plan.priority), id)
    }

    fn placements(&self, id: JobId) -> impl Iterator<Item = &Placement> {
        self.plan.placements.iter().filter(move |placement| placement.job == id)
    }

    /// Holds what was said of a task against the records.
    fn judge(&self, id: JobId, task: TaskIndex, said: Outlook) -> Result<(), String> {
        let job = &self.state.jobs[id];
        let phase = job.tasks.get(task).map_or(Phase::Blocked, |status| status.phase);
        if !phase.state().is_pending() {
            return expect(said, Outlook::NotPending);
        }
        if let Some(own) = self.own(job, task, phase) {
            return expect(said, Outlook::Waits(own));
        }
        if phase != Phase::Queued {
            return Err("nothing keeps it back, and it is not queued".into());
        }
        let has = |placement: &Placement| placement.tasks.iter().any(|run| run.contains(task));
        if self.placements(id).any(has) {
            return expect(said, Outlook::Starts);
        }
        let Outlook::Waits(reason) = said else { return Err("it is not in the plan".into()) };
        let held = self.state.allocations.iter().filter(|(_, held)| held.job == id).count();
        let running_max = job.plan.array.as_ref().and_then(|array| array.running_max);
        if running_max.is_some_and(|max| held + self.placements(id).count() >= max as usize) {
            return expect(said, Outlook::Waits(Reason::ArrayThrottle));
        }
        match reason {
            Reason::QueueLimit | Reason::OwnerLimit | Reason::WorkspaceLimit => {
                self.judge_limit(job, reason)
            }
            _ if self.is_limited_everywhere(job) => Err("a limit keeps it back".into()),
            Reason::Unsatisfiable
            | Reason::NodesInDoubt
            | Reason::PlannedDrain
            | Reason::Resources
            | Reason::Priority => self.judge_machines(id, task, reason),
            Reason::Held
            | Reason::Suspended
            | Reason::Dependency
            | Reason::NotBefore
            | Reason::Backoff
            | Reason::QueueClosed
            | Reason::ArrayThrottle => Err("no record says so".into()),
        }
    }

    /// What keeps a task out of its queue, or its queue from starting it: the first of the order
    /// in which users are told.
    fn own(&self, job: &Job, task: TaskIndex, phase: Phase) -> Option<Reason> {
        let waits = &job.waits;
        if waits.held.is_some() {
            Some(Reason::Held)
        } else if waits.suspended.is_some() {
            Some(Reason::Suspended)
        } else if waits.jobs > 0 || self.waits_for_job(job, task) {
            Some(Reason::Dependency)
        } else if waits.until_ms > 0 {
            Some(Reason::NotBefore)
        } else if let Phase::Backoff(_) = phase {
            Some(Reason::Backoff)
        } else if !self.state.queues[job.queue].set.starts {
            Some(Reason::QueueClosed)
        } else {
            None
        }
    }

    /// Whether a job that it waits for has not ended, or the task of its index there.
    fn waits_for_job(&self, job: &Job, task: TaskIndex) -> bool {
        let jobs = &self.state.jobs;
        let open = |id: JobId| jobs.get(id).is_some_and(|other| !other.state.is_terminal());
        let task_open = |id: &JobId| {
            let status = jobs.get(*id).and_then(|other| other.tasks.get(task));
            status.is_some_and(|status| !status.phase.state().is_terminal())
        };
        let after = &job.plan.after;
        after.whole().any(|(id, _)| open(id)) || after.each.iter().any(task_open)
    }

    fn judge_machines(&self, id: JobId, task: TaskIndex, reason: Reason) -> Result<(), String> {
        let job = &self.state.jobs[id];
        match (reason, self.holds_ever(job)) {
            (Reason::Unsatisfiable, Some(true)) => return Err("its machines exist".into()),
            (Reason::Unsatisfiable, Some(false) | None) => return Ok(()),
            (_, Some(false)) => return Err("no machines could ever hold it".into()),
            (_, Some(true) | None) => {}
        }
        let nodes = || self.state.nodes.iter().map(|(_, node)| node);
        let silent = |state| matches!(state, NodeState::Suspect | NodeState::Lost);
        let ahead = self.is_anybody_ahead(id);
        let backed = match reason {
            Reason::NodesInDoubt => nodes().any(|n| silent(n.state) || !n.leftovers.is_empty()),
            Reason::PlannedDrain => {
                let drains = nodes().filter_map(|node| node.drain.as_ref());
                { drains }.any(|drain| drain.at_ms > self.now_ms)
            }
            Reason::Priority => ahead,
            _ => true,
        };
        if !backed {
            return Err("no record says so".into());
        }
        // What others keep may be free; to say for whom means to search.
        if (reason == Reason::Resources || !ahead) && self.has_room(job, machines::World::Now) {
            return Err("it fits now".into());
        }
        let first = job.tasks.queued().next().is_some_and(|(run, _)| run.first == task);
        if ahead || !first || !self.plan.is_empty() || !self.is_plain(job) {
            return Ok(());
        }
        let wanted = if self.has_room(job, machines::World::WithoutDoubt) {
            Reason::NodesInDoubt
        } else if self.has_room(job, machines::World::WithoutPlannedDrains) {
            Reason::PlannedDrain
        } else {
            Reason::Resources
        };
        expect(Outlook::Waits(reason), Outlook::Waits(wanted))
    }

    /// Whether a job before it in the order has queued tasks that the plan leaves behind.
    fn is_anybody_ahead(&self, id: JobId) -> bool {
        self.state.jobs.iter().any(|(other, job)| {
            let placed = self.placements(other).flat_map(|placement| &placement.tasks);
            let placed: u32 = placed.map(|run| run.len).sum();
            job.tasks.counts().of(TaskState::Queued) > placed
                && self.state.queues[job.queue].set.starts
                && self.turn(other) < self.turn(id)
        })
    }
}
