//! Events for watchers.

use super::task::TaskIndices;
use crate::v1::{self, event::What};
use yard_common::id::{JobId, LogIndex, TaskRange};
use yard_core::command::{Object, Stamp};
use yard_core::event::Event;
use yard_core::state::State;

/// What watchers are told of an event: one message for each range of tasks that people count
/// without a gap, and one for everything else.
///
/// `state`: as it was after the command; only names and indices are taken from it, so that a later
/// one tells as much about what is still there.
#[must_use]
pub fn event(state: &State, event: &Event) -> Vec<What> {
    let one = match event {
        Event::Changed(object) => What::Changed(changed(state, *object)),
        Event::Job { job, state } => {
            let mut moved = v1::JobMoved { job_id: job.0, state: 0 };
            moved.set_state((*state).into());
            What::Job(moved)
        }
        Event::Tasks { job, tasks, state: task_state, cause } => {
            let told = |tasks: TaskRange| {
                let (job_id, tasks) = (job.0, Some(tasks.into()));
                let cause = cause.map(Into::into);
                let mut moved = v1::TasksMoved { job_id, tasks, state: 0, cause };
                moved.set_state((*task_state).into());
                What::Tasks(moved)
            };
            return shown(state, *job, *tasks).into_iter().map(told).collect();
        }
        Event::Granted { allocation, job, tasks, attempt } => {
            let held = state.allocations.get(*allocation);
            let shares = held.map_or(&[][..], |allocation| &allocation.shares);
            let told = |tasks: TaskRange| {
                What::Granted(v1::Granted {
                    allocation_id: allocation.0,
                    job_id: job.0,
                    tasks: Some(tasks.into()),
                    attempt: attempt.0,
                    nodes: shares.iter().map(|s| super::node::name(state, s.node)).collect(),
                })
            };
            return shown(state, *job, *tasks).into_iter().map(told).collect();
        }
        Event::AttemptEnded { job, tasks, attempt, cause, allocation } => {
            let told = |tasks: TaskRange| {
                What::AttemptEnded(v1::AttemptEnded {
                    job_id: job.0,
                    tasks: Some(tasks.into()),
                    attempt: attempt.0,
                    cause: Some((*cause).into()),
                    allocation_id: allocation.0,
                })
            };
            return shown(state, *job, *tasks).into_iter().map(told).collect();
        }
        Event::Freed(allocation) => What::Freed(v1::Freed { allocation_id: allocation.0 }),
        Event::Node { node, state: node_state } => {
            let name = state.nodes.get(*node).map(|node| node.name.to_string());
            let mut moved =
                v1::NodeMoved { node_id: node.0, node: name.unwrap_or_default(), state: 0 };
            moved.set_state((*node_state).into());
            What::Node(moved)
        }
        // How a node is told of its set is nobody's business but its own. That shares are lost is
        // told by the end of their attempt.
        Event::Desired { .. } | Event::ShareLost { .. } => return Vec::new(),
        Event::Forgotten(job) => What::Forgotten(v1::JobForgotten { job_id: job.0 }),
        Event::Silence { job, task, attempt, since_ms } => {
            let told = |tasks: TaskRange| {
                What::Silence(v1::SilenceChanged {
                    job_id: job.0,
                    tasks: Some(tasks.into()),
                    attempt: attempt.0,
                    since_cluster_ms: *since_ms,
                })
            };
            let task = TaskRange::one(*task);
            return shown(state, *job, task).into_iter().map(told).collect();
        }
    };
    vec![one]
}

/// The message of an event at its place in the log.
#[must_use]
pub fn at(index: LogIndex, position: u32, stamp: Stamp, what: What) -> v1::Event {
    v1::Event { index: index.0, position, at: Some(stamp.into()), what: Some(what) }
}

fn shown(state: &State, job: JobId, tasks: TaskRange) -> Vec<TaskRange> {
    let indices = state.jobs.get(job).map(|job| TaskIndices::of(&job.plan)).unwrap_or_default();
    indices.shown(tasks)
}

fn changed(state: &State, object: Object) -> v1::ObjectChanged {
    use v1::ObjectKind as Kind;
    let name = |name: Option<&str>| name.unwrap_or_default().to_string();
    let (kind, id, name) = match object {
        Object::Cluster => (Kind::Cluster, String::new(), String::new()),
        Object::Workspace(id) => {
            let found = state.workspaces.get(id).map(|found| &*found.name);
            (Kind::Workspace, id.to_string(), name(found))
        }
        Object::User(id) => {
            let found = state.principals.get(id).map(|found| &*found.name);
            (Kind::User, id.to_string(), name(found))
        }
        Object::Token(id) => (Kind::Token, id.to_string(), String::new()),
        Object::Pool(id) => {
            let found = state.pools.get(id).map(|found| &*found.name);
            (Kind::Pool, id.to_string(), name(found))
        }
        Object::Queue(id) => {
            let found = state.queues.get(id).map(|found| &*found.name);
            (Kind::Queue, id.to_string(), name(found))
        }
        Object::Mount(id) => {
            let found = state.mounts.get(id).map(|found| &*found.name);
            (Kind::Mount, id.to_string(), name(found))
        }
        Object::Node(id) => {
            let found = state.nodes.get(id).map(|found| &*found.name);
            (Kind::Node, id.to_string(), name(found))
        }
        Object::Job(id) => {
            let found = state.jobs.get(id).map(|found| &*found.plan.name);
            (Kind::Job, id.to_string(), name(found))
        }
        Object::Allocation(id) => (Kind::Allocation, id.to_string(), String::new()),
        Object::Experiment(id) => {
            let found = state.experiments.get(id).map(|found| &*found.name);
            (Kind::Experiment, id.to_string(), name(found))
        }
        Object::Definition => (Kind::Definition, String::new(), String::new()),
        Object::Member(id) => (Kind::Member, id.to_string(), String::new()),
    };
    let mut message = v1::ObjectChanged { kind: 0, id, name };
    message.set_kind(kind);
    message
}
