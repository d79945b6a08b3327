//! What is held, suspended, waiting for a job that has not ended as wished, or for a queue that
//! starts nothing gets no resources; nor does anything on a node that is drained or not up.

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeSet;
use yard_common::id::{JobId, NodeId, QueueId, RequestId};
use yard_common::state::{JobState, NodeState, TaskState};
use yard_core::command::{Actor, Command, Envelope, Holder, JobCommand, NodeCommand};
use yard_core::event::Event;

/// What was asked for and not taken back, as far as commands were accepted.
#[derive(Debug, Default)]
pub struct WaitsRespected {
    held: BTreeSet<JobId>,
    suspended: BTreeSet<JobId>,
    drained: BTreeSet<NodeId>,
    closed: BTreeSet<QueueId>,
    /// Requests that took effect. One that is asked again is answered, and changes nothing.
    requests: BTreeSet<(Actor, RequestId)>,
}

impl WaitsRespected {
    fn learn(&mut self, command: &Command) {
        match command {
            Command::Job(JobCommand::Hold { job, .. }) => {
                self.held.insert(*job);
            }
            Command::Job(JobCommand::Release(job) | JobCommand::Replace { job, .. }) => {
                self.held.remove(job);
                self.suspended.remove(job);
            }
            Command::Job(JobCommand::Suspend { job, .. }) => {
                self.suspended.insert(*job);
            }
            Command::Job(JobCommand::Resume(job)) => {
                self.suspended.remove(job);
            }
            Command::Node(NodeCommand::Drain { node, plan }) if plan.in_ms == 0 => {
                self.drained.insert(*node);
            }
            Command::Node(NodeCommand::Drain { node, .. } | NodeCommand::Undrain(node)) => {
                self.drained.remove(node);
            }
            Command::Holder(Holder::SetQueue(queue, set)) => {
                if set.starts {
                    self.closed.remove(queue)
                } else {
                    self.closed.insert(*queue)
                };
            }
            _ => {}
        }
    }
}

impl Invariant for WaitsRespected {
    fn name(&self) -> &'static str {
        "waits_respected"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        let state = step.state;
        for fact in &step.applied.events {
            let Event::Granted { job: id, tasks, allocation, .. } = fact else { continue };
            let Some(job) = state.jobs.get(*id) else { continue };
            if self.held.contains(id) || self.suspended.contains(id) {
                return Err(format!("job {id} is held or suspended and got resources"));
            }
            if self.closed.contains(&job.queue) {
                return Err(format!("job {id} started in queue {}, which is closed", job.queue));
            }
            for (other, wanted) in job.plan.after.whole() {
                let end = state.jobs.get(other).map(|other| other.state);
                let good = match wanted {
                    yard_core::job::Wanted::Success => end == Some(JobState::Succeeded),
                    yard_core::job::Wanted::End => end.is_none_or(JobState::is_terminal),
                    yard_core::job::Wanted::Failure => {
                        matches!(end, Some(JobState::Failed | JobState::Cancelled))
                    }
                };
                if !good {
                    return Err(format!(
                        "job {id} started and waits for {other}, which is {end:?}"
                    ));
                }
            }
            for other in &job.plan.after.each {
                let Some(other) = state.jobs.get(*other) else { continue };
                let open = |task: &u32| {
                    let status = other.tasks.get(*task);
                    status.is_none_or(|status| status.phase.state() != TaskState::Succeeded)
                };
                if let Some(task) = tasks.indices().find(open) {
                    return Err(format!("{id}[{task}] started before what it waits for"));
                }
            }
            let shares = state.allocations.get(*allocation).map_or(&[][..], |a| &a.shares);
            for share in shares {
                let up = state.nodes.get(share.node).is_some_and(|n| n.state == NodeState::Up);
                if !up || self.drained.contains(&share.node) {
                    let node = share.node;
                    return Err(format!("job {id} got node {node}, which is drained or not up"));
                }
            }
        }
        if step.applied.reply.is_ok() {
            let Envelope { actor, request, .. } = *step.envelope;
            let again = request.is_some_and(|id| !self.requests.insert((actor, id)));
            if !again {
                self.learn(step.command);
            }
        }
        Ok(())
    }
}
