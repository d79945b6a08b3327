//! What people are told of an end that was no success: what happened, with numbers, and what to
//! try.

use super::read::View;
use crate::member::attempts::Fault as Blame;
use yard_common::cause::{Fault, PrepareStep, start_words};
use yard_common::id::{JobId, TaskIndex};
use yard_common::spec::JobSpec;
use yard_common::spec::run::Command;
use yard_common::spec::time::DurationMs;
use yard_common::state::{JobState, TaskState};
use yard_common::{Amounts, Bytes, ExitCause};
use yard_core::job::Wanted;
use yard_core::state::{Job, TaskStatus};
use yard_proto::convert::TaskIndices;

/// The end of a task, or of its last attempt.
pub(super) struct End<'a> {
    /// Who asks, and the state.
    pub(super) view: &'a View,
    /// The job.
    pub(super) id: JobId,
    /// It.
    pub(super) job: &'a Job,
    /// The task.
    pub(super) task: TaskIndex,
    /// Its status.
    pub(super) status: &'a TaskStatus,
    /// Why it ended.
    pub(super) cause: ExitCause,
    /// The attempt that ended; 0: there was none.
    pub(super) attempt: u32,
    /// Whether it is tried again.
    pub(super) goes_on: bool,
    /// Who is to blame, if somebody is.
    pub(super) blame: Option<Blame>,
}

impl End<'_> {
    /// What happened, as lines.
    pub(super) fn facts(&self) -> Vec<String> {
        let fact = match self.cause {
            ExitCause::DependencyFailed => self.culprit().map(|(text, _)| text),
            ExitCause::Cancelled => self.who_cancelled(),
            ExitCause::TimedOut => {
                let limit = self.job.plan.time_limit_ms.and_then(DurationMs::new);
                limit.map(|limit| format!("its time limit is {limit}"))
            }
            ExitCause::OutOfMemory => {
                let limit = self.limits().map(|limits| Bytes(limits.memory_bytes));
                limit.map(|limit| format!("it reached its limit of memory on a node: {limit}"))
            }
            ExitCause::DiskFull => {
                let limit = self.limits().map(|limits| Bytes(limits.disk_bytes));
                let limit = limit.filter(|limit| limit.0 > 0);
                limit.map(|limit| {
                    format!("its files and output passed its limit of disk on a node: {limit}")
                })
            }
            ExitCause::StartFailed(errno) => self.program().map(|program| {
                let words = start_words(errno).map_or(format!("errno {errno}"), str::to_string);
                format!("the program {program}: {words}")
            }),
            _ => None,
        };
        fact.into_iter().collect()
    }

    /// What to try.
    pub(super) fn hint(&self) -> String {
        let hint = match (self.cause, self.cause.fault()) {
            (ExitCause::OutOfMemory, _) => "ask for more memory: resources.memory",
            (ExitCause::DiskFull, _) => "ask for more disk: resources.disk; or write less",
            (ExitCause::TimedOut, _) => "raise time_limit, or save and resume",
            (ExitCause::Stalled, _) => {
                let logs = self.logs("");
                return format!("look at what it wrote last: {logs}; or raise stall.kill");
            }
            (ExitCause::DependencyFailed, _) => {
                let job = self.culprit().and_then(|(_, job)| job);
                return job.map_or(String::new(), |job| format!("yard why {job}"));
            }
            (ExitCause::PrepareFailed(PrepareStep::Login), _) => {
                let owner = self.view.state.principals.get(self.job.owner);
                let owner = owner.map_or("NAME", |owner| &owner.name);
                return format!(
                    "an operator gives {owner} one: yard user set {owner} --unix LOGIN"
                );
            }
            (ExitCause::PrepareFailed(_), _) => {
                return format!("look at all that was written: {}", self.logs(" --prepare"));
            }
            (ExitCause::StartFailed(2 | 20), _) => {
                "name a program that each node has; a script also needs what its first line names"
            }
            (ExitCause::StartFailed(13), _) => {
                "make it executable for the job's user: chmod +x; it must not be a directory"
            }
            (ExitCause::StartFailed(_), _) => "check the command on the node",
            (_, Fault::User) => {
                return format!("look at the last lines of stderr: {}", self.logs(" --stderr"));
            }
            (_, Fault::Infra) if self.goes_on => {
                "the machines are to blame; it is tried again within retry.infra"
            }
            (_, Fault::Infra) => {
                "the machines are to blame; raise retry.infra, and submit it again"
            }
            (_, Fault::Reclaim) => "the cluster took the resources back; it is queued again",
            (ExitCause::Cancelled, _) if self.was_array_given_up() => {
                "see which tasks failed: yard show, yard why; or raise array.max_failures"
            }
            (_, Fault::Request) => "it was asked to end",
            (_, Fault::None) => "",
        };
        hint.to_string()
    }

    /// What the job may use of the node that is to blame, or of any.
    fn limits(&self) -> Option<Amounts> {
        let state = &self.view.state;
        let group = self.blame.map_or(0, |blame| blame.group);
        let group = self.job.plan.shape.groups.get(usize::from(group))?;
        let node = self.blame.and_then(|blame| state.nodes.get(blame.node));
        let pool = node.map(|node| node.pool).or(self.job.plan.shape.pool);
        let floor = pool.and_then(|pool| state.pools.get(pool)?.floor);
        let amounts = group.amounts(&floor.unwrap_or_default());
        match (self.job.plan.shape.exclusive, node) {
            (true, node) => node.map(|node| node.facts.amounts),
            // Without the floor of its pool nothing is known of what was left to the cluster.
            (false, _) => floor.map(|_| amounts),
        }
    }

    /// The program of the command, where the job names one without a shell.
    fn program(&self) -> Option<String> {
        let spec = JobSpec::from_json(&self.job.spec).ok()?;
        let group = self.blame.map_or(0, |blame| blame.group);
        let role = spec.roles.get(usize::from(group)).map(|role| &role.command);
        match role.or(spec.command.as_ref())? {
            Command::Exec(words) => words.first().map(ToString::to_string),
            Command::Shell(_) => None,
        }
    }

    fn was_array_given_up(&self) -> bool {
        self.job.cancel_of(self.task).is_none() && self.job.has_failed_too_often()
    }

    fn who_cancelled(&self) -> Option<String> {
        if self.was_array_given_up() {
            let failures = self.job.tasks.counts().of(TaskState::Failed);
            let max = self.job.plan.array.as_ref().and_then(|array| array.failures_max)?;
            return Some(format!(
                "{failures} tasks of the array failed, and array.max_failures is {max}: no more \
                 of them were started"
            ));
        }
        let cancel = self.job.cancel_of(self.task)?;
        let by = self.view.state.name_of_actor(cancel.by);
        Some(match &*cancel.reason {
            "" => format!("cancelled by {by}"),
            reason => format!("cancelled by {by}: {reason}"),
        })
    }

    /// Which job it waited for in vain, as far as that is still known, and how it is typed.
    fn culprit(&self) -> Option<(String, Option<String>)> {
        let (view, after) = (self.view, &self.job.plan.after);
        let whole = after.whole();
        let mut known =
            whole.filter_map(|(id, wanted)| Some((id, wanted, view.state.jobs.get(id)?)));
        let whole = known.find(|(_, wanted, other)| {
            let succeeded = other.state == JobState::Succeeded;
            other.state.is_terminal()
                && match wanted {
                    Wanted::Success => !succeeded,
                    Wanted::End => false,
                    Wanted::Failure => succeeded,
                }
        });
        let (id, name, state, wanted) = match whole {
            Some((id, wanted, other)) => {
                let wanted = match wanted {
                    Wanted::Success | Wanted::End => "success",
                    Wanted::Failure => "failure",
                };
                (id, id.to_string(), other.state.to_string(), wanted)
            }
            None => after.each.iter().find_map(|id| {
                let other = view.state.jobs.get(*id)?;
                let state = other.tasks.get(self.task)?.phase.state();
                let index = TaskIndices::of(&other.plan).shown_one(self.task);
                let failed = matches!(state, TaskState::Failed | TaskState::Cancelled);
                failed.then(|| (*id, format!("{id}[{index}]"), state.to_string(), "success"))
            })?,
        };
        if !view.sees_job(id) {
            let text = "it waited for a job that you may not see, which ended otherwise";
            return Some((text.into(), None));
        }
        let text = format!("it waited for the {wanted} of job {name}, which is {state}");
        Some((text, Some(name)))
    }

    /// The command that shows what an attempt wrote.
    fn logs(&self, option: &str) -> String {
        let array = self.job.plan.array.is_some();
        let task = TaskIndices::of(&self.job.plan).shown_one(self.task);
        let task = if array { format!("[{task}]") } else { String::new() };
        // Without a number the last one is shown, which may be the one after.
        let earlier = self.attempt > 0 && self.attempt < self.status.attempt.0;
        let attempt = if earlier { format!(" --attempt {}", self.attempt) } else { String::new() };
        format!("yard logs {}{task}{option}{attempt}", self.id)
    }
}
