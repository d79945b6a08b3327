//! Checkpoints that somebody wants of a job that runs: asked of all its machines.

use super::Api;
use super::data::{name_of, strange, whichever_runs};
use super::gate::Who;
use super::jobs::positions;
use super::refusal::Refusal;
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use std::time::Duration;
use yard_common::id::{NodeId, TaskRange};
use yard_common::limits::MISSING_NODES_MAX;
use yard_core::command::Visit;
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{AssignmentRef, CheckpointAsked, CheckpointWant, member_data};
use yard_proto::v1;

/// How long a machine may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Machines that are asked at the same time.
const AT_ONCE: usize = 32;

impl Api {
    pub(super) async fn ask_for_checkpoint(
        &self,
        who: &Who,
        request: v1::CheckpointRequest,
    ) -> Result<v1::CheckpointResponse, Refusal> {
        let view = self.view(who, None).await?;
        let (id, _) = view.job(request.job_id)?;
        let job = view.may_visit(id)?;
        let tasks = positions(job, request.tasks.as_ref())?;
        let first = tasks.map_or(0, |range| range.first);
        self.write_down(who, id, first, Visit::Checkpoint).await?;
        let mut wanted: BTreeMap<NodeId, Vec<AssignmentRef>> = BTreeMap::new();
        let its = view.state.allocations.iter().filter(|(_, one)| one.job == id);
        for (allocation, record) in its {
            for share in record.shares.iter().filter(|share| !share.is_over()) {
                let assignment = whichever_runs(allocation, id, share);
                wanted.entry(share.node).or_default().push(assignment);
            }
        }
        let answers = stream::iter(wanted).map(|(node, assignments)| async move {
            (node, self.checkpoint_on(node, assignments, tasks).await)
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        let mut response = v1::CheckpointResponse::default();
        for (node, answer) in answers {
            let problem = match answer {
                Ok(asked) => {
                    response.ranks += asked.ranks;
                    response.nodes += u32::from(asked.ranks > 0);
                    asked.problem
                }
                Err(refusal) => refusal.message().to_string(),
            };
            if !problem.is_empty() {
                response.missing_nodes.push(name_of(&view.state, node));
                if response.problem.is_empty() {
                    response.problem = problem;
                }
            }
        }
        response.missing_nodes.sort_unstable();
        response.missing_nodes.truncate(MISSING_NODES_MAX);
        Ok(response)
    }

    async fn checkpoint_on(
        &self,
        node: NodeId,
        assignments: Vec<AssignmentRef>,
        tasks: Option<TaskRange>,
    ) -> Result<CheckpointAsked, Refusal> {
        let tasks = tasks.map(v1::TaskRange::from);
        let question = member_data::What::Checkpoint(CheckpointWant { assignments, tasks });
        match self.ask_once(node, question, PATIENCE).await? {
            What::Checkpoint(asked) => Ok(asked),
            _ => Err(strange()),
        }
    }
}
