//! Why a job is as it is, in every state: what the scheduler says, how the last attempt failed,
//! and how far the present one is.

use super::Api;
use super::blame::End;
use super::gate::Who;
use super::jobs::positions;
use super::read::View;
use super::refusal::Refusal;
use crate::env::run_blocking;
use crate::member::attempts::{Fault as Blame, Kept};
use std::io;
use yard_common::ExitCause;
use yard_common::id::{AllocationId, JobId, TaskIndex};
use yard_common::limits::{LATE_TOLD_MAX, STALL_ODD_MAX, STUCK_TOLD_MAX};
use yard_common::spec::JobSpec;
use yard_common::spec::policy::Stall;
use yard_common::state::{AssignmentState, AttemptState, TaskState};
use yard_core::scheduler::{Explanation, Policy, explain};
use yard_core::stall::{Odd, odd_ones};
use yard_core::state::{Allocation, Job, Phase, State, TaskStatus};
use yard_proto::convert::TaskIndices;
use yard_proto::{convert, v1};

impl Api {
    /// Explains one task of a job.
    pub(super) async fn explain_job(
        &self,
        who: &Who,
        request: v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, Refusal> {
        let view = self.view(who, None).await?;
        let (id, job) = view.job(request.job_id)?;
        let task = match request.task_index {
            Some(first) => {
                let one = v1::TaskRange { first, len: 1 };
                let found = positions(job, Some(&one))?.map_or(first, |range| range.first);
                job.tasks.get(found).ok_or_else(|| Refusal::no_such("task", first))?;
                found
            }
            None => telling(job),
        };
        let told = Some(convert::job(&view.state, id, job));
        let status = job.tasks.get(task).copied();
        let status = status.ok_or_else(|| Refusal::no_such("task", task))?;
        let now_ms = self.raft.cluster_ms().unwrap_or(0).max(view.state.now_ms());
        let state = view.state.clone();
        // It plays rounds of the scheduler, which may take a while.
        let play = self.plays.enter().await?;
        let work = move || -> io::Result<Option<Explanation>> {
            let _play = play;
            Ok(explain(&state, now_ms, &Policy::default(), id, task))
        };
        let explained = run_blocking(&*self.env, work).await.unwrap_or_else(|error| {
            tracing::error!(%error, job = %id, task, "a job could not be explained");
            None
        });
        let explained = explained.ok_or_else(|| {
            Refusal::plain(tonic::Code::Internal, "the scheduler could not explain it; see the log")
        })?;
        let mut explanation =
            convert::explanation(&view.state, &explained, view.now_ms(), &|job| view.sees_job(job));
        explanation.failure = self.failure(&view, (id, job), task, &status);
        if let Some(failure) = &mut explanation.failure {
            failure.stderr_tail = self.last_lines(id, task, failure.attempt).await;
        }
        explanation.progress = self.progress(&view.state, job, &status, now_ms).await;
        if let Some(progress) = &mut explanation.progress {
            progress.stuck = self.stuck(&view.state, &status);
            progress.late = self.late(&view.state, (id, task), &status);
        }
        Ok(v1::ExplainResponse {
            explanation: Some(explanation),
            job: told,
            applied_index: view.applied_index(),
            now: view.now(),
        })
    }

    /// What does not end of the present attempt, as its nodes have told a member that leads.
    fn stuck(&self, state: &State, status: &TaskStatus) -> Vec<v1::StuckProcesses> {
        let Some(id) = status.phase.allocation() else { return Vec::new() };
        let shares = state.allocations.get(id).map(|allocation| &allocation.shares);
        let told = shares.into_iter().flatten().filter_map(|share| self.sessions.facts(share.node));
        let mut stuck: Vec<_> = told.flat_map(|facts| facts.stuck).collect();
        stuck.retain(|one| one.allocation_id == id.0);
        // Groups of one gang may share a node.
        stuck.dedup();
        stuck.truncate(STUCK_TOLD_MAX);
        stuck
    }

    /// Which output of the present attempt does not arrive in its directory, as its nodes have told
    /// a member that leads.
    fn late(
        &self,
        state: &State,
        (job, task): (JobId, TaskIndex),
        status: &TaskStatus,
    ) -> Vec<v1::LateOutput> {
        let Some(id) = status.phase.allocation() else { return Vec::new() };
        let shares = state.allocations.get(id).map(|allocation| &allocation.shares);
        let told = shares.into_iter().flatten().filter_map(|share| self.sessions.facts(share.node));
        let mut late: Vec<_> = told.flat_map(|facts| facts.late).collect();
        late.retain(|one| {
            let of = (one.job_id, one.task_index, one.attempt);
            of == (job.0, task, status.attempt.0)
        });
        late.dedup();
        late.truncate(LATE_TOLD_MAX);
        late
    }

    /// How the last attempt of a task ended, unless it succeeded or is still running.
    fn failure(
        &self,
        view: &View,
        (id, job): (JobId, &Job),
        task: TaskIndex,
        status: &TaskStatus,
    ) -> Option<v1::FailureReport> {
        let state = &view.state;
        let cause = status.cause.filter(|cause| !cause.is_success())?;
        let mut report = v1::FailureReport { cause: Some(cause.into()), ..Default::default() };
        // The last attempt that ended is the one before, while another one is under way.
        let ended = self.attempts.of(id).into_iter().find(|(_, kept)| kept.end_of(task).is_some());
        if let Some((_, kept)) = &ended {
            report.attempt = kept.attempt_of(task).map_or(0, |attempt| attempt.0);
            report.ended = kept.end_of(task).map(|end| end.at.into());
            if let Some(fault) = kept.fault_of(task) {
                report.node = node_name(state, fault.node);
                report.rank = kept.rank_of(state, fault);
            }
        } else {
            let running = status.phase.allocation().is_some();
            report.attempt = status.attempt.0 - u32::from(running && status.attempt.0 > 0);
        }
        match status.phase {
            Phase::Backoff(until_ms) => {
                report.set_next(v1::NextStep::Retry);
                report.retry_cluster_ms = Some(until_ms);
            }
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => {
                report.set_next(v1::NextStep::None);
            }
            Phase::Blocked
            | Phase::Queued
            | Phase::Preparing(_)
            | Phase::Running(_)
            | Phase::Stopping(_) => report.set_next(v1::NextStep::Retry),
        }
        let blame = ended.as_ref().and_then(|(_, kept)| kept.fault_of(task).copied());
        let (attempt, goes_on) = (report.attempt, report.next() == v1::NextStep::Retry);
        let end = End { view, id, job, task, status, cause, attempt, goes_on, blame };
        (report.facts, report.hint) = (end.facts(), end.hint());
        Some(report)
    }
}

impl Kept {
    /// The rank of the attempt that a node blamed. One that the share has not got was made up.
    fn rank_of(&self, state: &State, fault: &Blame) -> Option<u32> {
        let groups = &state.jobs.get(self.job)?.plan.shape.groups;
        let ranks = groups.get(usize::from(fault.group))?.ranks_per_node;
        let local = fault.rank.filter(|local| *local < ranks)?;
        self.first_rank(state, fault.node, fault.group)?.checked_add(local)
    }

    /// The first rank of a share within its attempt, as far as the job is still known.
    pub(super) fn first_rank(
        &self,
        state: &State,
        node: yard_common::id::NodeId,
        group: u8,
    ) -> Option<u32> {
        let shape = &state.jobs.get(self.job)?.plan.shape;
        let mut first = 0u32;
        for share in &self.shares {
            if *share == (node, group) {
                return Some(first);
            }
            let ranks = shape.groups.get(usize::from(share.1))?.ranks_per_node;
            first = first.saturating_add(ranks);
        }
        None
    }
}

fn node_name(state: &State, node: yard_common::id::NodeId) -> String {
    state.nodes.get(node).map_or_else(|| node.to_string(), |node| node.name.to_string())
}

/// The task that tells most: one that failed, else one that waits, else one that runs.
fn telling(job: &Job) -> TaskIndex {
    let order = |state: TaskState| match state {
        TaskState::Failed => 0,
        TaskState::Backoff => 1,
        TaskState::Queued => 2,
        TaskState::Blocked => 3,
        TaskState::Stopping => 4,
        TaskState::Running => 5,
        TaskState::Preparing => 6,
        TaskState::Cancelled => 7,
        TaskState::Succeeded => 8,
    };
    let runs = job.tasks.iter();
    let most = runs.min_by_key(|(_, status)| order(status.phase.state()));
    most.map_or(job.tasks.range().first, |(run, _)| run.first)
}

impl Api {
    /// How far the present attempt is, and what its ranks do.
    async fn progress(
        &self,
        state: &State,
        job: &Job,
        status: &TaskStatus,
        now_ms: u64,
    ) -> Option<v1::ProgressReport> {
        let id = status.phase.allocation()?;
        let allocation = state.allocations.get(id)?;
        let mut report = progress(allocation, status);
        if !matches!(status.phase, Phase::Running(_)) {
            return Some(report);
        }
        let since_ms = allocation.silent_since_ms();
        report.silent_ms = since_ms.map(|since_ms| now_ms.saturating_sub(since_ms));
        report.stall_cluster_ms = allocation.stall_ms;
        if since_ms.is_none() {
            let silent = allocation.shares.iter().filter(|share| share.silent_ms.is_some());
            let names = silent.map(|share| node_name(state, share.node));
            report.silent_nodes = names.take(STALL_ODD_MAX).collect();
        }
        let ranks = self.silent_ranks(state, id, allocation).await;
        let spec = JobSpec::from_json(&job.spec).ok();
        let matters = spec.and_then(|spec| spec.stall.warn.or(spec.stall.kill));
        let matters = matters.or(Stall::DEFAULT.warn);
        report.contrast = contrast(&ranks, matters.map_or(u64::MAX, |after| after.ms()));
        Some(report)
    }
}

/// The ranks that differ from the others.
fn contrast(ranks: &[v1::SilentRank], silence_ms: u64) -> Option<v1::RankContrast> {
    use v1::RankContrastKind as Kind;
    let known: Vec<(u32, u64)> = ranks.iter().map(|one| (one.rank, one.silent_ms)).collect();
    let (kind, named, lead_ms) = match odd_ones(&known, silence_ms) {
        Odd::Nobody => return None,
        Odd::First { rank, lead_ms } => (Kind::FellSilentFirst, vec![rank], lead_ms),
        Odd::Silent(named) => (Kind::Silent, named, 0),
        Odd::Active(named) => (Kind::Active, named, 0),
    };
    let of = |rank: &u32| ranks.iter().find(|one| one.rank == *rank).cloned();
    let mut contrast = v1::RankContrast {
        ranks: named.iter().filter_map(of).collect(),
        lead_ms,
        ranks_known: u32::try_from(ranks.len()).unwrap_or(u32::MAX),
        ..v1::RankContrast::default()
    };
    contrast.set_kind(kind);
    Some(contrast)
}

/// How far an attempt is.
fn progress(allocation: &Allocation, status: &TaskStatus) -> v1::ProgressReport {
    let ready = allocation.shares.iter().filter(|share| share.state >= AssignmentState::Ready);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut report = v1::ProgressReport {
        attempt: status.attempt.0,
        granted_cluster_ms: Some(allocation.granted_ms),
        deadline_cluster_ms: allocation.deadline_ms,
        ready: count(ready.count()),
        shares: count(allocation.shares.len()),
        ..v1::ProgressReport::default()
    };
    report.set_state(allocation.state.into());
    report
}

/// The attempts of an allocation that have ended, as this member remembers them.
pub(super) fn ended_attempts(
    state: &State,
    job: &Job,
    id: AllocationId,
    kept: &Kept,
) -> Vec<v1::Attempt> {
    let indices = TaskIndices::of(&job.plan);
    let group = |group: u8| job.plan.shape.groups.get(usize::from(group));
    let mut found = Vec::new();
    for end in &kept.ends {
        let shares = kept.shares.iter().map(|(node, at)| {
            let mut share = v1::AttemptShare {
                node: node_name(state, *node),
                node_id: node.0,
                group: group(*at).map_or_else(String::new, |group| group.name.to_string()),
                ranks: group(*at).map_or(0, |group| group.ranks_per_node),
                first_rank: kept.first_rank(state, *node, *at).unwrap_or(0),
                exit: kept.exit_of((*node, *at), end).map(Into::into),
                ..v1::AttemptShare::default()
            };
            // Its ranks have all ended, unless it is their node's silence that ended the attempt.
            let gone = share.exit.is_none() && end.cause == ExitCause::NodeLost;
            let state = if gone { AssignmentState::Gone } else { AssignmentState::Exited };
            share.set_state(state.into());
            share
        });
        let shares: Vec<v1::AttemptShare> = shares.collect();
        for shown in indices.shown(end.tasks) {
            let mut attempt = v1::Attempt {
                tasks: Some(shown.into()),
                attempt: end.attempt.0,
                allocation_id: id.0,
                cause: Some(end.cause.into()),
                granted_cluster_ms: Some(kept.granted.cluster_ms),
                shares: shares.clone(),
                started: kept.start_of(end.tasks.first).map(Into::into),
                ended: Some(end.at.into()),
                ..v1::Attempt::default()
            };
            attempt.set_state(AttemptState::Ended.into());
            found.push(attempt);
        }
    }
    found
}
