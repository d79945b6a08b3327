//! Takes jobs: from the text of a job file to a command, with every problem told at once.

use super::Api;
use super::gate::Who;
use super::problems::Found;
use super::read::View;
use super::refusal::Refusal;
use crate::env::run_blocking;
use std::io;
use yard_common::PendingReason;
use yard_common::gpu::GpuCount;
use yard_common::id::{JobId, PoolId, QueueId, RequestId, WorkspaceId};
use yard_common::spec::each::Each;
use yard_common::spec::{Draft, JobSpec};
use yard_core::command::{Actor, Command, Envelope, JobCommand, Rejection, Reply, Role, Submit};
use yard_core::fit::{self, Demand, Unfit};
use yard_core::job::{Context, Shape, compile};
use yard_core::scheduler::{Policy, explain};
use yard_core::state::{Job, Made, Queue, State};
use yard_proto::v1::{SpecFormat, SubmitRequest, SubmitResponse, Warning};
use yard_proto::{convert, v1};

/// The name of a job file in messages.
const FILE_NAME_BYTES_MAX: usize = 4_096;

/// A job file that was read.
struct Read {
    draft: Draft,
    spec: JobSpec,
}

impl Api {
    /// Takes a job, or only checks it.
    pub(super) async fn submit_job(
        &self,
        who: &Who,
        request: SubmitRequest,
    ) -> Result<SubmitResponse, Refusal> {
        let read = self.read_job(&request)?;
        if request.dry_run {
            return self.try_out(who, read).await;
        }
        let request_id = convert::request_id(&request.request_id)?;
        let taken = self.take_job(who, &request.request_id, &read).await;
        self.or_first_answer(who, request_id, &read, taken, |_, _| true).await
    }

    /// Only checks a job.
    async fn try_out(&self, who: &Who, read: Read) -> Result<SubmitResponse, Refusal> {
        let (view, submit) = self.resolve_fresh(who, &read.spec).await?;
        let warnings = warnings_of(&view.state, &submit);
        let canonical_spec = submit.spec.to_string();
        let warnings = self.rehearse(view, submit, warnings).await?;
        let resolved_spec = read.draft.print_resolved(&read.spec);
        Ok(SubmitResponse { warnings, canonical_spec, resolved_spec, ..SubmitResponse::default() })
    }

    async fn take_job(
        &self,
        who: &Who,
        request_id: &[u8],
        read: &Read,
    ) -> Result<SubmitResponse, Refusal> {
        let (view, submit) = self.resolve_fresh(who, &read.spec).await?;
        let warnings = warnings_of(&view.state, &submit);
        let canonical_spec = submit.spec.to_string();
        let command = Command::Job(JobCommand::Submit(Box::new(submit)));
        let written = self.change(who, request_id, command).await?;
        let job_id = job_of(&written.reply)?.0;
        Ok(SubmitResponse {
            job_id,
            warnings,
            canonical_spec,
            applied_index: written.index.0,
            ..SubmitResponse::default()
        })
    }

    /// Replaces a job of which nothing has started.
    pub(super) async fn replace_job(
        &self,
        who: &Who,
        request: v1::ReplaceRequest,
    ) -> Result<SubmitResponse, Refusal> {
        let new = request.new.unwrap_or_default();
        let read = self.read_job(&new)?;
        let request_id = convert::request_id(&new.request_id)?;
        let (job_id, revision) = (request.job_id, request.revision);
        let replaced = self.put_job(who, &new.request_id, (job_id, revision), &read).await;
        let found = |job: &Job, id: JobId| id.0 == job_id && job.revision > revision;
        self.or_first_answer(who, request_id, &read, replaced, found).await
    }

    async fn put_job(
        &self,
        who: &Who,
        request_id: &[u8],
        (job_id, revision): (u64, u32),
        read: &Read,
    ) -> Result<SubmitResponse, Refusal> {
        let view = self.view(who, None).await?;
        let (job, _) = view.job(job_id)?;
        let submit = self.resolve(&view, &read.spec)?;
        let warnings = warnings_of(&view.state, &submit);
        let canonical_spec = submit.spec.to_string();
        let command = JobCommand::Replace { job, revision, new: Box::new(submit) };
        let written = self.change(who, request_id, Command::Job(command)).await?;
        Ok(SubmitResponse {
            job_id: job.0,
            warnings,
            canonical_spec,
            applied_index: written.index.0,
            ..SubmitResponse::default()
        })
    }

    /// The answer to a request; if it is refused, the one that the same request got before.
    ///
    /// A retry compiles to another command than the first try did, where a delay counts from
    /// another moment or a name stands for something else by now. What tells it from another
    /// request under the same id is the text of the job, which the state keeps. `found`: whether
    /// the request can have made the job what it is.
    async fn or_first_answer(
        &self,
        who: &Who,
        request: RequestId,
        read: &Read,
        answer: Result<SubmitResponse, Refusal>,
        found: impl Fn(&Job, JobId) -> bool,
    ) -> Result<SubmitResponse, Refusal> {
        let Err(refusal) = answer else { return answer };
        if refusal.is_unavailable() {
            // Nobody who knows is reached from here. Whoever asks may reach another member.
            return Err(refusal);
        }
        let Ok(view) = self.view(who, None).await else { return Err(refusal) };
        let known = view.state.dedup.get(Actor::User(view.user), request);
        let id = match known.map(|answer| &answer.made) {
            Some(Made::Job(id) | Made::Other(_, Reply::Job(id))) => *id,
            Some(Made::Other(..)) | None => return Err(refusal),
        };
        let canonical_spec = read.spec.to_json();
        let job = view.state.jobs.get(id);
        if !job.is_some_and(|job| **job.spec == *canonical_spec && found(job, id)) {
            return Err(refusal);
        }
        Ok(SubmitResponse {
            job_id: id.0,
            canonical_spec,
            applied_index: view.applied_index(),
            ..SubmitResponse::default()
        })
    }

    /// Reads the text of a job.
    fn read_job(&self, request: &SubmitRequest) -> Result<Read, Refusal> {
        let file: String = request.file_name.chars().take(FILE_NAME_BYTES_MAX / 4).collect();
        let file = (!file.is_empty()).then_some(file.as_str());
        let text = request.spec.as_bytes();
        let mut draft = match request.format() {
            // JSON is a part of YAML.
            SpecFormat::Unspecified | SpecFormat::Yaml | SpecFormat::Json => {
                Draft::read(text, file)
            }
            SpecFormat::Script => {
                let mut draft = Draft::read_script(text, file);
                draft.set_text("command", &request.spec, "script");
                draft
            }
        };
        if !request.workspace.is_empty() {
            draft.set("workspace", &request.workspace, "--workspace");
        }
        let is_named = draft.has("workdir") || draft.has("code");
        if !is_named && !request.submit_dir.is_empty() {
            draft.set_text("workdir", &request.submit_dir, "submit_dir");
        }
        let spec = draft.validate(&self.features).map_err(|problems| Refusal::from(&problems))?;
        let each = spec.array.as_ref().and_then(|array| array.each.as_ref());
        if let Some(Each::File(path)) = each {
            // Whether the server has such a file is nobody's business.
            let problem = format!(
                "{path} is a file of whoever submits: the client reads it and sends its rows, as \
                 `yard submit` does; or write the rows here, as a list of mappings"
            );
            return Err(Refusal::invalid("array.each", &problem));
        }
        Ok(Read { draft, spec })
    }

    /// Turns names into what they name. Names rarely change: the state as it is here mostly does,
    /// and a name that it lacks is looked for in one that is not stale.
    async fn resolve_fresh(&self, who: &Who, spec: &JobSpec) -> Result<(View, Submit), Refusal> {
        let view = self.glance(who)?;
        if let Ok(submit) = self.resolve(&view, spec) {
            return Ok((view, submit));
        }
        let view = self.view(who, None).await?;
        let submit = self.resolve(&view, spec)?;
        Ok((view, submit))
    }

    /// Turns names into what they name.
    fn resolve(&self, view: &View, spec: &JobSpec) -> Result<Submit, Refusal> {
        let state = &view.state;
        let mut found = Found::default();
        let (workspace, queue) = (spec.workspace.as_str(), spec.queue.as_str());
        let mine = |id: &WorkspaceId| view.has(Role::Viewer, *id);
        let names = state.workspaces.names().filter(|(_, id)| mine(id)).map(|(name, _)| name);
        let id = state.workspaces.find(workspace).filter(mine);
        let workspace = found.name("workspace", workspace, id, names);
        let names = state.queues.names().map(|(name, _)| name);
        let queue: Option<QueueId> = found.name("queue", queue, state.queues.find(queue), names);
        let pool: Option<Option<PoolId>> = match &spec.pool {
            None => Some(None),
            Some(pool) => {
                let names = state.pools.names().map(|(name, _)| name);
                found.name("pool", pool.as_str(), state.pools.find(pool.as_str()), names).map(Some)
            }
        };
        let (Some(workspace), Some(queue), Some(pool)) = (workspace, queue, pool) else {
            found.check()?;
            return Err(Refusal::invalid("spec", "it names something that does not exist"));
        };
        let rows = spec.array.as_ref().and_then(|array| array.rows()).unwrap_or(0);
        let context = Context { pool, wall_ms: self.env.wall_ms(), rows };
        Ok(Submit {
            workspace,
            queue,
            experiment: spec.experiment.as_ref().map(|name| name.as_str().to_string()),
            plan: compile(spec, &context),
            spec: spec.to_json().into(),
        })
    }

    /// Tries a job on a copy of the state: what would be refused is, and what would wait for ever
    /// is told with numbers.
    async fn rehearse(
        &self,
        view: View,
        submit: Submit,
        mut warnings: Vec<Warning>,
    ) -> Result<Vec<Warning>, Refusal> {
        let request = u128::from(self.env.random()) << 64 | u128::from(self.env.random());
        let View { state, user, .. } = view;
        let Some(leader) = state.leader else { return Ok(warnings) };
        let envelope = Envelope {
            actor: Actor::User(user),
            leader,
            stamp: state.clock,
            request: Some(RequestId::from_u128(request)),
        };
        let play = self.plays.enter().await?;
        let work = move || -> io::Result<Result<Option<Warning>, Rejection>> {
            let _play = play;
            let mut trial = state;
            let command = Command::Job(JobCommand::Submit(Box::new(submit)));
            let reply = trial.apply(trial.applied, &envelope, &command).reply;
            Ok(reply.map(|reply| match reply {
                Reply::Job(job) => hopeless(&trial, job),
                _ => None,
            }))
        };
        let rehearsed = run_blocking(&*self.env, work).await;
        let rehearsed = rehearsed.map_err(|error| {
            tracing::error!(%error, "a job could not be rehearsed");
            Refusal::plain(tonic::Code::Internal, "the job could not be tried; see the log")
        })?;
        if let Some(warning) = rehearsed? {
            warnings.retain(|one| one.field == GPUS);
            warnings.insert(0, warning);
        }
        Ok(warnings)
    }
}

/// The job that a reply names.
fn job_of(reply: &Reply) -> Result<JobId, Refusal> {
    match reply {
        Reply::Job(job) => Ok(*job),
        other => {
            tracing::error!(?other, "a submit was answered with something else");
            Err(Refusal::plain(tonic::Code::Internal, "the answer names no job"))
        }
    }
}

/// A warning, if no machine that there is could ever run a job; with the scheduler's numbers.
fn hopeless(state: &State, job: JobId) -> Option<Warning> {
    let first = state.jobs.get(job)?.tasks.range().first;
    let told = explain(state, state.now_ms(), &Policy::default(), job, first)?;
    if told.reason() != Some(PendingReason::Unsatisfiable) {
        return None;
    }
    let first = told.constraints.first();
    let message = first.map(|first| first.told(state, state.now_ms(), &|_| false));
    let message = message.unwrap_or_default();
    let changes: Vec<String> = told.changes.iter().map(ToString::to_string).collect();
    let fix = match changes.is_empty() {
        true => "ask for less, or add machines".to_string(),
        false => changes.join("; or "),
    };
    Some(Warning { field: String::new(), message, fix })
}

/// The field of GPUs.
const GPUS: &str = "resources.gpus";

/// What is told of a job that is taken all the same.
fn warnings_of(state: &State, submit: &Submit) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = never_fits(state, submit).into_iter().collect();
    let shapes = std::iter::once(&submit.plan.shape).chain(&submit.plan.any_of);
    let mut groups = shapes.flat_map(|shape| &shape.groups);
    if groups.any(|group| matches!(group.gpus.count, GpuCount::Part(_))) {
        let message = "a share of a GPU is accounted, and nothing enforces it: jobs that share a \
                       GPU see all of it";
        let fix = "keep to your share, or ask for whole GPUs";
        warnings.push(Warning { field: GPUS.into(), message: message.into(), fix: fix.into() });
    }
    warnings
}

/// A warning, if too few of the present machines could ever run a share of some group. Stops at
/// enough, so that it costs little for jobs that are well.
fn never_fits(state: &State, submit: &Submit) -> Option<Warning> {
    let queue = state.queues.get(submit.queue)?;
    let shapes = std::iter::once(&submit.plan.shape).chain(&submit.plan.any_of);
    let lacking: Vec<Warning> =
        shapes.map(|shape| lacking(state, queue, shape)).collect::<Option<_>>()?;
    lacking.into_iter().next()
}

/// What the machines lack for a shape; none: nothing.
pub(super) fn lacking(state: &State, queue: &Queue, shape: &Shape) -> Option<Warning> {
    shape.groups.iter().find_map(|group| {
        let wanted = usize::try_from(group.nodes_min).unwrap_or(usize::MAX);
        let fits = |node: &yard_core::state::Node| -> Result<(), Unfit> {
            fit::allowed(shape, &queue.set.pools, node)?;
            let floor = state.pools.get(node.pool).and_then(|pool| pool.floor.as_ref());
            let floor = floor.ok_or(Unfit::Pool)?;
            fit::ever(&Demand::of(shape, group, floor), None, node)
        };
        let fitting = state.nodes.iter().filter(|(_, node)| fits(node).is_ok());
        let found = fitting.take(wanted).count();
        (found < wanted).then(|| Warning {
            field: if &*group.name == "main" {
                String::new()
            } else {
                format!("roles.{}", group.name)
            },
            message: format!(
                "{found} of the {} machines of the cluster could ever run a share of it, and it \
                 needs {wanted}: it will wait",
                state.nodes.len()
            ),
            fix: "ask for less on each machine or for fewer machines, or add machines; \
                  `yard why` tells the numbers"
                .into(),
        })
    })
}
