//! The calls about jobs.

use super::Api;
use super::explain::ended_attempts;
use super::gate::Who;
use super::read::View;
use super::refusal::Refusal;
use super::serve::serve;
use super::waiting::Waiting;
use crate::member::attempts::Kept;
use std::collections::{BTreeMap, BTreeSet};
use yard_common::id::{AllocationId, JobId, TaskRange};
use yard_common::limits::{LIST_SCAN_MAX, SUMMARY_RUNS_MAX};
use yard_common::state::{JobState, TaskState};
use yard_core::command::{Adjust, Command, JobCommand, Reply};
use yard_core::state::{Job, TaskStatus};
use yard_proto::convert::{TaskIndices, page};
use yard_proto::v1::job_service_server::JobService;
use yard_proto::{convert, v1};

serve!(JobService [
    WatchStream = v1::WatchResponse,
    LogsStream = v1::LogsResponse,
    ReadFileStream = v1::ReadFileResponse
] {
    submit: v1::SubmitRequest => v1::SubmitResponse = submit_job;
    get: v1::GetJobRequest => v1::GetJobResponse = get_job;
    list: v1::ListJobsRequest => v1::ListJobsResponse = list_jobs;
    list_tasks: v1::ListTasksRequest => v1::ListTasksResponse = list_task_runs;
    attempts: v1::AttemptsRequest => v1::AttemptsResponse = list_attempts;
    explain: v1::ExplainRequest => v1::ExplainResponse = explain_job;
    cancel: v1::CancelRequest => v1::JobChanged = cancel_job;
    requeue: v1::RequeueRequest => v1::JobChanged = requeue_job;
    hold: v1::HoldRequest => v1::JobChanged = hold_job;
    release: v1::ReleaseRequest => v1::JobChanged = release_job;
    suspend: v1::SuspendRequest => v1::JobChanged = suspend_job;
    resume: v1::ResumeRequest => v1::JobChanged = resume_job;
    adjust: v1::AdjustRequest => v1::AdjustResponse = adjust_job;
    replace: v1::ReplaceRequest => v1::SubmitResponse = replace_job;
    watch: v1::WatchJobsRequest => Self::WatchStream = watch_jobs;
    logs: v1::LogsRequest => Self::LogsStream = read_logs;
    list_files: v1::ListFilesRequest => v1::ListFilesResponse = list_job_files;
    read_file: v1::ReadFileRequest => Self::ReadFileStream = read_job_file;
});

impl Api {
    async fn get_job(
        &self,
        who: &Who,
        request: v1::GetJobRequest,
    ) -> Result<v1::GetJobResponse, Refusal> {
        let view = self.view(who, None).await?;
        let (id, job) = view.job(request.job_id)?;
        let mut told = convert::job(&view.state, id, job);
        Waiting::of(&view.state).tell(job, &mut told);
        Ok(v1::GetJobResponse {
            job: Some(told),
            spec: job.spec.to_string(),
            applied_index: view.applied_index(),
            now: view.now(),
        })
    }

    async fn list_jobs(
        &self,
        who: &Who,
        request: v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let state = &view.state;
        let filter = Filter::of(&view, &request)?;
        let after = page::after_number::<u64>(request.page.as_ref())?;
        let end = state.jobs.next_id().0;
        let first = JobId(after.map_or(0, |after| after.saturating_add(1)));
        let end = JobId(after.unwrap_or(end).min(end));
        // A page costs what it looks at, which is bounded.
        let found: Box<dyn Iterator<Item = (JobId, &Job)>> = match request.newest_first {
            true => Box::new(state.jobs.iter_before(end)),
            false => Box::new(state.jobs.iter_from(first)),
        };
        let rows_max = page::rows_max(request.page.as_ref());
        let mut jobs = Vec::new();
        let mut waiting = Waiting::of(state);
        let mut next_key = None;
        for (looked_at, (id, job)) in found.enumerate() {
            if jobs.len() >= rows_max || looked_at >= LIST_SCAN_MAX {
                let last = if request.newest_first { id.0 + 1 } else { id.0 - 1 };
                next_key = Some(last.to_string());
                break;
            }
            if !filter.accepts(&view, job) {
                continue;
            }
            let mut told = convert::job(state, id, job);
            waiting.tell(job, &mut told);
            jobs.push(told);
        }
        Ok(v1::ListJobsResponse { jobs, page: Some(view.page_info(next_key)) })
    }

    async fn list_task_runs(
        &self,
        who: &Who,
        request: v1::ListTasksRequest,
    ) -> Result<v1::ListTasksResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let (_, job) = view.job(request.job_id)?;
        let all = job.tasks.range();
        let wanted = positions(job, request.tasks.as_ref())?.unwrap_or(all);
        // The key is the position that the page begins at.
        let from = page::after_number::<u32>(request.page.as_ref())?.unwrap_or(0);
        let (first, end) = (wanted.first.max(from).max(all.first), wanted.end().min(all.end()));
        if first >= end {
            let page = Some(view.page_info(None));
            return Ok(v1::ListTasksResponse { runs: Vec::new(), page });
        }
        let states = convert::known_all::<v1::TaskState, TaskState>("states", &request.states)?;
        let accepts =
            |status: &TaskStatus| states.is_empty() || states.contains(&status.phase.state());
        let rows_max = page::rows_max(request.page.as_ref());
        let wanted = TaskRange::between(first, end);
        let (runs, next) = convert::task_runs(&view.state, job, wanted, accepts, rows_max);
        let page = view.page_info(next.map(|next| next.to_string()));
        Ok(v1::ListTasksResponse { runs, page: Some(page) })
    }

    async fn list_attempts(
        &self,
        who: &Who,
        request: v1::AttemptsRequest,
    ) -> Result<v1::AttemptsResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let (id, job) = view.job(request.job_id)?;
        let wanted = convert::range(request.tasks.as_ref())?;
        let after = page::after_number::<u64>(request.page.as_ref())?;
        let mut found: BTreeMap<AllocationId, Vec<v1::Attempt>> = BTreeMap::new();
        let known: BTreeMap<AllocationId, Kept> = self.attempts.of(id).into_iter().collect();
        for (allocation, kept) in &known {
            found.insert(*allocation, ended_attempts(&view.state, job, *allocation, kept));
        }
        let indices = TaskIndices::of(&job.plan);
        for allocation in held(job) {
            let Some(record) = view.state.allocations.get(allocation) else { continue };
            let mut present = convert::attempts(&view.state, allocation, record);
            if let Some(kept) = known.get(&allocation) {
                for attempt in &mut present {
                    attempt.started = started(attempt, kept, &indices);
                }
            }
            found.entry(allocation).or_default().extend(present);
        }
        let meets = |attempt: &v1::Attempt| {
            let tasks = attempt.tasks.unwrap_or_default();
            wanted.is_none_or(|wanted| {
                tasks.first < wanted.end() && wanted.first < tasks.first.saturating_add(tasks.len)
            })
        };
        // The attempts of one allocation stay on one page, whose key is its id.
        let rows_max = page::rows_max(request.page.as_ref());
        let (mut attempts, mut last, mut next_key) = (Vec::new(), None, None);
        for (id, group) in found.into_iter().rev() {
            if after.is_some_and(|after| id.0 >= after) {
                continue;
            }
            if attempts.len() >= rows_max {
                next_key = last;
                break;
            }
            attempts.extend(group.into_iter().filter(meets));
            last = Some(id.to_string());
        }
        let page = Some(view.page_info(next_key));
        Ok(v1::AttemptsResponse { attempts, page })
    }

    async fn cancel_job(
        &self,
        who: &Who,
        request: v1::CancelRequest,
    ) -> Result<v1::JobChanged, Refusal> {
        let view = self.view(who, None).await?;
        let (job, record) = view.job(request.job_id)?;
        let tasks = positions(record, request.tasks.as_ref())?;
        let command = JobCommand::Cancel { job, tasks, reason: request.reason };
        self.change_job(who, &request.request_id, command).await
    }

    async fn requeue_job(
        &self,
        who: &Who,
        request: v1::RequeueRequest,
    ) -> Result<v1::JobChanged, Refusal> {
        let view = self.view(who, None).await?;
        let (job, record) = view.job(request.job_id)?;
        let tasks = positions(record, request.tasks.as_ref())?;
        self.change_job(who, &request.request_id, JobCommand::Requeue { job, tasks }).await
    }

    async fn hold_job(
        &self,
        who: &Who,
        request: v1::HoldRequest,
    ) -> Result<v1::JobChanged, Refusal> {
        let command = JobCommand::Hold { job: JobId(request.job_id), reason: request.reason };
        self.change_job(who, &request.request_id, command).await
    }

    async fn release_job(
        &self,
        who: &Who,
        request: v1::ReleaseRequest,
    ) -> Result<v1::JobChanged, Refusal> {
        let command = JobCommand::Release(JobId(request.job_id));
        self.change_job(who, &request.request_id, command).await
    }

    async fn suspend_job(
        &self,
        who: &Who,
        request: v1::SuspendRequest,
    ) -> Result<v1::JobChanged, Refusal> {
        let command = JobCommand::Suspend { job: JobId(request.job_id), reason: request.reason };
        self.change_job(who, &request.request_id, command).await
    }

    async fn resume_job(
        &self,
        who: &Who,
        request: v1::ResumeRequest,
    ) -> Result<v1::JobChanged, Refusal> {
        let command = JobCommand::Resume(JobId(request.job_id));
        self.change_job(who, &request.request_id, command).await
    }

    /// Apply judges whether the job exists for the caller, and may be changed by it.
    async fn change_job(
        &self,
        who: &Who,
        request_id: &[u8],
        command: JobCommand,
    ) -> Result<v1::JobChanged, Refusal> {
        let written = self.change(who, request_id, Command::Job(command)).await?;
        let tasks = match written.reply {
            Reply::Tasks(tasks) => tasks,
            _ => 0,
        };
        Ok(v1::JobChanged { tasks, applied_index: written.index.0 })
    }

    async fn adjust_job(
        &self,
        who: &Who,
        request: v1::AdjustRequest,
    ) -> Result<v1::AdjustResponse, Refusal> {
        let view = self.view(who, None).await?;
        let (job, record) = view.job(request.job_id)?;
        let before = Some(convert::job(&view.state, job, record));
        let change = Adjust {
            priority: request.priority,
            time_limit_ms: request.time_limit_ms,
            running_max: request.running_max,
        };
        let command = Command::Job(JobCommand::Adjust { job, change });
        let written = self.change(who, &request.request_id, command).await?;
        let (_, state) = self.raft.state();
        let after = state.jobs.get(job).map(|record| convert::job(&state, job, record));
        Ok(v1::AdjustResponse { before, after, applied_index: written.index.0 })
    }
}

/// When an attempt that is under way started, as this member remembers it.
fn started(attempt: &v1::Attempt, kept: &Kept, indices: &TaskIndices) -> Option<v1::Stamp> {
    let shown = convert::range(attempt.tasks.as_ref()).ok()??;
    let first = indices.positions(TaskRange::one(shown.first))?.first;
    kept.start_of(first).map(Into::into)
}

/// The allocations that tasks of a job hold, as far as its first runs of tasks tell.
fn held(job: &Job) -> BTreeSet<AllocationId> {
    let runs = job.tasks.iter().take(SUMMARY_RUNS_MAX);
    runs.filter_map(|(_, status)| status.phase.allocation()).collect()
}

/// The positions of tasks that people mean by a range.
pub(super) fn positions(
    job: &Job,
    range: Option<&v1::TaskRange>,
) -> Result<Option<TaskRange>, Refusal> {
    let Some(shown) = convert::range(range)? else { return Ok(None) };
    let found = TaskIndices::of(&job.plan).positions(shown);
    found.map(Some).ok_or_else(|| Refusal::no_such("task", shown))
}

/// Which jobs are listed.
struct Filter {
    workspace: Option<yard_common::id::WorkspaceId>,
    /// None of it: nobody has this name, so that no job can be whoever's it is.
    owner: Option<Option<yard_common::id::PrincipalId>>,
    queue: Option<yard_common::id::QueueId>,
    experiment: Option<String>,
    name: Option<String>,
    states: Vec<JobState>,
    /// Jobs that ended before are left out, in the cluster's time.
    ended_since_ms: Option<u64>,
}

impl Filter {
    fn of(view: &View, request: &v1::ListJobsRequest) -> Result<Filter, Refusal> {
        let state = &view.state;
        let given = |text: &str| (!text.is_empty()).then(|| text.to_string());
        let owner = match (request.mine, request.owner.as_str()) {
            (true, _) => Some(Some(view.user)),
            (false, "") => None,
            // Whether there is such a user is nobody's business but an operator's.
            (false, name) => Some(convert::user_id(state, name).ok()),
        };
        Ok(Filter {
            workspace: given(&request.workspace).map(|name| view.workspace(&name)).transpose()?,
            owner,
            queue: given(&request.queue).map(|name| convert::queue_id(state, &name)).transpose()?,
            experiment: given(&request.experiment),
            name: given(&request.name),
            states: convert::known_all::<v1::JobState, JobState>("states", &request.states)?,
            ended_since_ms: request
                .ended_within_ms
                .map(|within_ms| state.now_ms().saturating_sub(within_ms)),
        })
    }

    fn accepts(&self, view: &View, job: &Job) -> bool {
        let experiment = || {
            let id = job.experiment?;
            view.state.experiments.get(id).map(|found| &*found.name)
        };
        view.sees(job.workspace)
            && self.workspace.is_none_or(|workspace| workspace == job.workspace)
            && self.owner.is_none_or(|owner| owner == Some(job.owner))
            && self.queue.is_none_or(|queue| queue == job.queue)
            && self.name.as_deref().is_none_or(|name| name == &*job.plan.name)
            && self.experiment.as_deref().is_none_or(|name| Some(name) == experiment())
            && (self.states.is_empty() || self.states.contains(&job.state))
            && self
                .ended_since_ms
                .is_none_or(|since_ms| job.ended.is_none_or(|ended| ended.cluster_ms >= since_ms))
    }
}
