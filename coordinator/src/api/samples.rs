//! What running jobs use: asked of their machines, all at once.

use super::Api;
use super::data::{name_of, strange, whichever_runs};
use super::gate::Who;
use super::read::View;
use super::refusal::Refusal;
use super::serve::serve;
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use yard_common::id::{AllocationId, JobId, NodeId};
use yard_common::limits::{SAMPLE_JOBS_MAX, SAMPLE_NODES_MAX, SAMPLES_MAX};
use yard_core::state::{Allocation, Job, Share, State};
use yard_proto::convert::TaskIndices;
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{AssignmentRef, AssignmentSample, RankSample, SamplesWant, member_data};
use yard_proto::v1;
use yard_proto::v1::sample_service_server::SampleService;

/// How long a machine may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take where its answer adds to another one.
const SOON: Duration = Duration::from_secs(1);
/// Machines that are asked at the same time.
const AT_ONCE: usize = 32;

serve!(SampleService [] {
    latest: v1::LatestSamplesRequest => v1::LatestSamplesResponse = latest_samples;
});

/// What each machine is asked.
#[derive(Default)]
struct Wanted {
    nodes: BTreeMap<NodeId, Vec<AssignmentRef>>,
    count: usize,
    /// Whether something was left out.
    more: bool,
}

impl Api {
    async fn latest_samples(
        &self,
        who: &Who,
        request: v1::LatestSamplesRequest,
    ) -> Result<v1::LatestSamplesResponse, Refusal> {
        if request.job_ids.len() > SAMPLE_JOBS_MAX {
            let problem = format!("{} jobs; at most {SAMPLE_JOBS_MAX}", request.job_ids.len());
            return Err(Refusal::invalid("job_ids", &problem));
        }
        let view = self.view(who, None).await?;
        let named: Result<BTreeSet<JobId>, Refusal> =
            request.job_ids.iter().map(|id| view.job(*id).map(|(id, _)| id)).collect();
        let named = named?;
        let is_meant = |id: JobId, job: &Job| match named.is_empty() {
            true => view.sees_job(id) && (request.all_users || job.owner == view.user),
            false => named.contains(&id),
        };
        let mut wanted = Wanted::default();
        for (id, allocation) in view.state.allocations.iter() {
            let job = view.state.jobs.get(allocation.job);
            if job.is_some_and(|job| is_meant(allocation.job, job)) {
                wanted.add(id, allocation);
            }
        }
        let more = wanted.more;
        let answers = stream::iter(wanted.nodes).map(|(node, assignments)| async move {
            let want = SamplesWant { assignments, ranks: false };
            (node, self.samples_of(node, want, PATIENCE).await)
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        let (mut samples, mut missing_nodes) = (Vec::new(), Vec::new());
        for (node, answer) in answers {
            match answer {
                Ok(found) => samples.extend(found.iter().filter_map(|s| told(&view, node, s))),
                Err(_) => missing_nodes.push(name_of(&view.state, node)),
            }
        }
        samples.sort_by(|a: &v1::Sample, b| {
            (a.job_id, a.task_index, &a.node).cmp(&(b.job_id, b.task_index, &b.node))
        });
        missing_nodes.sort_unstable();
        Ok(v1::LatestSamplesResponse { samples, missing_nodes, more })
    }

    /// For how long each rank of an attempt has been silent, as far as its machines say so soon.
    pub(super) async fn silent_ranks(
        &self,
        state: &State,
        id: AllocationId,
        allocation: &Allocation,
    ) -> Vec<v1::SilentRank> {
        let mut wanted = Wanted::default();
        wanted.add(id, allocation);
        let name = |node| name_of(state, node);
        let answers = stream::iter(wanted.nodes).map(|(node, assignments)| async move {
            let want = SamplesWant { assignments, ranks: true };
            (name(node), self.samples_of(node, want, SOON).await.unwrap_or_default())
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        let mut ranks = Vec::new();
        for (node, samples) in answers {
            for RankSample { rank, silent_ms } in samples.into_iter().flat_map(|one| one.ranks) {
                ranks.push(v1::SilentRank { rank, node: node.clone(), silent_ms });
            }
        }
        // A machine says what it likes.
        ranks.sort_by_key(|one| one.rank);
        ranks.dedup_by_key(|one| one.rank);
        ranks
    }

    /// What one machine has.
    async fn samples_of(
        &self,
        node: NodeId,
        want: SamplesWant,
        patience: Duration,
    ) -> Result<Vec<AssignmentSample>, Refusal> {
        match self.ask_once(node, member_data::What::Samples(want), patience).await? {
            What::Samples(list) => Ok(list.samples),
            _ => Err(strange()),
        }
    }
}

impl Wanted {
    fn add(&mut self, id: AllocationId, allocation: &Allocation) {
        for share in allocation.shares.iter().filter(|share| !share.is_over()) {
            let is_known = self.nodes.contains_key(&share.node);
            if self.count >= SAMPLES_MAX || !is_known && self.nodes.len() >= SAMPLE_NODES_MAX {
                self.more = true;
                continue;
            }
            self.count += 1;
            let assignment = whichever_runs(id, allocation.job, share);
            self.nodes.entry(share.node).or_default().push(assignment);
        }
    }
}

/// A sample as people see it; none if its allocation is gone by now, or another one's.
fn told(view: &View, node: NodeId, sample: &AssignmentSample) -> Option<v1::Sample> {
    let of = sample.assignment?;
    let allocation = view.state.allocations.get(AllocationId(of.allocation_id))?;
    let has = |share: &&Share| share.node == node && u32::from(share.group) == of.group;
    let share = allocation.shares.iter().find(has)?;
    let job = view.state.jobs.get(allocation.job)?;
    let group = job.plan.shape.groups.get(usize::from(share.group))?;
    let owner = view.state.principals.get(job.owner);
    Some(v1::Sample {
        job_id: allocation.job.0,
        job_name: job.plan.name.to_string(),
        owner: owner.map_or(String::new(), |owner| owner.name.to_string()),
        task_index: TaskIndices::of(&job.plan).shown_one(of.task_index),
        attempt: of.attempt,
        node: name_of(&view.state, node),
        ranks: group.ranks_per_node,
        age_ms: sample.age_ms,
        cpu_milli: sample.cpu_milli,
        granted_cpu_milli: share.amounts.cpu_milli,
        memory_bytes: sample.memory_bytes,
        memory_peak_bytes: sample.memory_peak_bytes,
        granted_memory_bytes: share.amounts.memory_bytes,
        read_bytes_per_s: sample.read_bytes_per_s,
        write_bytes_per_s: sample.write_bytes_per_s,
        log_bytes_per_s: sample.log_bytes_per_s,
        processes: sample.processes,
        silent_ms: sample.silent_ms,
        gpu_busy_percent: sample.gpu_busy_percent,
        gpu_memory_bytes: sample.gpu_memory_bytes,
        gpus: sample.gpus,
        net_bytes_per_s: sample.net_bytes_per_s,
    })
}
