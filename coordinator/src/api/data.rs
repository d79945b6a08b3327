//! Which node has what of an attempt, and questions to nodes that one message answers.

use super::Api;
use super::read::View;
use super::refusal::Refusal;
use crate::sessions::ask;
use std::time::Duration;
use tokio::time::timeout;
use yard_common::id::{AllocationId, AttemptNumber, JobId, NodeId, TaskIndex};
use yard_core::state::{Job, Share, State};
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{AssignmentRef, DataErrorKind, member_data};
use yard_proto::{internal, v1};

/// One attempt of one task, and where its shares are.
pub(super) struct Spot {
    /// The attempt.
    pub(super) attempt: AttemptNumber,
    /// Its shares in the order of the gang.
    pub(super) shares: Vec<SpotShare>,
}

/// One share of an attempt.
pub(super) struct SpotShare {
    /// The node.
    pub(super) node: NodeId,
    /// What its agent knows it by.
    pub(super) assignment: AssignmentRef,
    /// Its ranks.
    pub(super) ranks: u32,
    /// The first of them within the attempt.
    pub(super) first_rank: u32,
}

impl Spot {
    /// Ranks of the attempt in all.
    pub(super) fn ranks(&self) -> u32 {
        self.shares.iter().fold(0, |sum, share| sum.saturating_add(share.ranks))
    }
}

impl Api {
    /// Asks a node what it answers with one message.
    pub(super) async fn ask_once(
        &self,
        node: NodeId,
        question: member_data::What,
        patience: Duration,
    ) -> Result<What, Refusal> {
        let asked = async {
            match ask(self, node, question).await?.next().await {
                Ok(what) => what.ok_or_else(strange),
                Err(status) => Err(Refusal::unavailable(status.message())),
            }
        };
        let late = |_| Refusal::unavailable("it does not answer");
        timeout(patience, asked).await.map_err(late)?
    }

    /// Where an attempt of a task is, or was; 0: the latest.
    pub(super) fn spot(
        &self,
        view: &View,
        id: JobId,
        job: &Job,
        task: TaskIndex,
        attempt: AttemptNumber,
    ) -> Result<Spot, Refusal> {
        let status = job.tasks.get(task).ok_or_else(|| Refusal::no_such("task", task))?;
        let wanted = if attempt.0 == 0 { status.attempt } else { attempt };
        if wanted.0 == 0 {
            return Err(Refusal::new(
                tonic::Code::FailedPrecondition,
                yard_common::ErrorCode::WrongState,
                format!("task {task} of job {id} has had no attempt yet"),
            ));
        }
        // What is held now is in the state; what was is remembered.
        let held = status.phase.allocation().filter(|_| wanted == status.attempt);
        let held = held.and_then(|held| Some((held, view.state.allocations.get(held)?)));
        let (allocation, shares) = match held {
            Some((allocation, record)) => {
                let shares = record.shares.iter().map(|share| (share.node, share.group));
                (allocation, shares.collect())
            }
            None => {
                let (allocation, kept) = self.attempts.find(id, task, wanted).ok_or_else(|| {
                    let name = format!("{id}[{task}]#{wanted}, as far as this member remembers");
                    Refusal::no_such("attempt", name)
                })?;
                (allocation, kept.shares)
            }
        };
        Ok(Spot {
            attempt: wanted,
            shares: share_out(job, allocation, &shares, (id, task, wanted)),
        })
    }
}

/// The shares of an attempt in the order of the gang.
pub(super) fn share_out(
    job: &Job,
    allocation: AllocationId,
    shares: &[(NodeId, u8)],
    (id, task, attempt): (JobId, TaskIndex, AttemptNumber),
) -> Vec<SpotShare> {
    let mut first_rank = 0u32;
    let share = |(node, group): &(NodeId, u8)| {
        let shape = job.plan.shape.groups.get(usize::from(*group));
        let ranks = shape.map_or(0, |group| group.ranks_per_node);
        let share = SpotShare {
            node: *node,
            assignment: AssignmentRef {
                allocation_id: allocation.0,
                group: u32::from(*group),
                job_id: id.0,
                task_index: task,
                attempt: attempt.0,
            },
            ranks,
            first_rank,
        };
        first_rank = first_rank.saturating_add(ranks);
        share
    };
    shares.iter().map(share).collect()
}

/// What an agent could not do.
pub(super) fn failed(error: &internal::DataError) -> Refusal {
    let message = error.message.chars().take(1_000).collect::<String>();
    match error.kind() {
        DataErrorKind::NotFound => Refusal::plain(tonic::Code::NotFound, message),
        DataErrorKind::NotAllowed => Refusal::plain(tonic::Code::PermissionDenied, message),
        DataErrorKind::Limit => Refusal::plain(tonic::Code::ResourceExhausted, message),
        DataErrorKind::Io | DataErrorKind::Unspecified => {
            Refusal::plain(tonic::Code::Internal, message)
        }
    }
}

/// The node of a share by its name; the first one without a name.
pub(super) fn share_on<'a>(
    view: &View,
    spot: &'a Spot,
    node: &str,
) -> Result<&'a SpotShare, Refusal> {
    let named =
        |share: &&SpotShare| node.is_empty() || view.state.nodes.find(node) == Some(share.node);
    spot.shares.iter().find(named).ok_or_else(|| Refusal::no_such("node of this attempt", node))
}

/// What an agent knows a share by, whatever task of it runs.
pub(super) fn whichever_runs(id: AllocationId, job: JobId, share: &Share) -> AssignmentRef {
    AssignmentRef {
        allocation_id: id.0,
        group: u32::from(share.group),
        job_id: job.0,
        task_index: 0,
        attempt: 0,
    }
}

/// A node as people know it.
pub(super) fn name_of(state: &State, node: NodeId) -> String {
    state.nodes.get(node).map_or(node.to_string(), |node| node.name.to_string())
}

/// An answer of an agent that has nothing to do with the question.
pub(super) fn strange() -> Refusal {
    Refusal::plain(tonic::Code::Internal, "the agent answered something else than was asked")
}

/// A log stream by its number, both for none.
pub(super) fn streams(stream: v1::LogStream) -> &'static [v1::LogStream] {
    match stream {
        v1::LogStream::Unspecified => &[v1::LogStream::Stdout, v1::LogStream::Stderr],
        v1::LogStream::Stdout => &[v1::LogStream::Stdout],
        v1::LogStream::Stderr => &[v1::LogStream::Stderr],
    }
}
