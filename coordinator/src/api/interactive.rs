//! Visits: programs and ports beside the ranks of a job that runs.
//!
//! Whoever visits acts as the job's user, so only its owner may, and an admin of its workspace.
//! Each visit is a command first: it is judged by the state that everybody agrees on, and stays in
//! the log. What the client sends then goes to the agent as it is, and back.

use super::Api;
use super::data::name_of;
use super::files::parts;
use super::gate::Who;
use super::jobs::positions;
use super::read::View;
use super::refusal::Refusal;
use crate::sessions::{Answer, Answers, ask_on};
use futures_util::{Stream, StreamExt};
use std::future::ready;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};
use yard_common::ErrorCode;
use yard_common::id::{AttemptNumber, JobId, NodeId, TaskIndex};
use yard_common::limits::{
    TERMINAL_NAME_BYTES_MAX, TERMINAL_SIZE_MAX, VISIT_CHUNK_BYTES_MAX, VISIT_WORDS_BYTES_MAX,
    VISIT_WORDS_MAX,
};
use yard_core::command::{Command, JobCommand, Role, Visit};
use yard_core::state::Job;
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{AssignmentRef, ExecWant, ForwardWant, MemberData, member_data};
use yard_proto::v1;
use yard_proto::v1::interactive_service_server::InteractiveService;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a visit goes.
struct Target {
    job: JobId,
    task: TaskIndex,
    node: NodeId,
    node_name: String,
    assignment: AssignmentRef,
    local_rank: u32,
}

#[tonic::async_trait]
impl InteractiveService for Api {
    type ExecStream = Answers<v1::ExecOutput>;
    type ForwardStream = Answers<v1::ForwardOutput>;

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let who = Who::of(&request);
        Ok(Response::new(self.run_beside(&who, request.into_inner()).await?))
    }

    async fn forward(
        &self,
        request: Request<Streaming<v1::ForwardInput>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let who = Who::of(&request);
        Ok(Response::new(self.reach_port(&who, request.into_inner()).await?))
    }

    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Result<Response<v1::CheckpointResponse>, Status> {
        let who = Who::of(&request);
        Ok(Response::new(self.ask_for_checkpoint(&who, request.into_inner()).await?))
    }
}

impl Api {
    async fn run_beside(
        &self,
        who: &Who,
        mut inputs: Streaming<v1::ExecInput>,
    ) -> Result<Answers<v1::ExecOutput>, Refusal> {
        let first = first(&mut inputs).await?.what;
        let Some(v1::exec_input::What::Start(start)) = first else {
            return Err(Refusal::invalid("start", "it comes first"));
        };
        check(&start)?;
        let target = self.target(who, start.place.as_ref()).await?;
        self.write_down(who, target.job, target.task, Visit::Exec).await?;
        let want = ExecWant {
            assignment: Some(target.assignment),
            local_rank: target.local_rank,
            start: Some(start),
        };
        let more = inputs.scan((), |(), input| ready(more_of_exec_input(input)));
        let question = member_data::What::Exec(want);
        let answer = self.visit(who, &target, question, more).await?;
        let (name, job) = (target.node_name, target.job);
        let parts = parts(answer, None, move |what| match what {
            What::Exec(mut output) => {
                if let Some(v1::exec_output::What::Started(started)) = &mut output.what {
                    started.node.clone_from(&name);
                }
                Some(output)
            }
            _ => None,
        });
        Ok(self.while_welcome(who, job, parts))
    }

    async fn reach_port(
        &self,
        who: &Who,
        mut inputs: Streaming<v1::ForwardInput>,
    ) -> Result<Answers<v1::ForwardOutput>, Refusal> {
        let first = first(&mut inputs).await?.what;
        let Some(v1::forward_input::What::Start(start)) = first else {
            return Err(Refusal::invalid("start", "it comes first"));
        };
        let port = u16::try_from(start.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| Refusal::invalid("start.port", "it is 1 to 65535"))?;
        let target = self.target(who, start.place.as_ref()).await?;
        self.write_down(who, target.job, target.task, Visit::Forward(port)).await?;
        let want = ForwardWant {
            assignment: Some(target.assignment),
            port: u32::from(port),
            probe: start.probe,
        };
        let more = inputs.scan((), |(), input| ready(more_of_forward_input(input)));
        let question = member_data::What::Forward(want);
        let answer = self.visit(who, &target, question, more).await?;
        let (name, job) = (target.node_name, target.job);
        let parts = parts(answer, None, move |what| match what {
            What::Forward(mut output) => {
                if let Some(v1::forward_output::What::Opened(opened)) = &mut output.what {
                    opened.node.clone_from(&name);
                }
                Some(output)
            }
            _ => None,
        });
        Ok(self.while_welcome(who, job, parts))
    }

    /// Asks the agent, and lets what the client sends follow, as long as it may.
    async fn visit<S>(
        &self,
        who: &Who,
        target: &Target,
        question: member_data::What,
        more: S,
    ) -> Result<Answer, Refusal>
    where
        S: Stream<Item = Result<MemberData, Status>> + Send + 'static,
    {
        // Whoever does not read what comes is not seen by the look at the answer.
        let unwelcome = self.clone().until_unwelcome(who.clone(), target.job);
        let more = more.take_until(Box::pin(unwelcome));
        Ok(ask_on(self, target.node, question, Box::pin(more)).await?)
    }

    /// Where a rank is, if the caller may visit it.
    async fn target(&self, who: &Who, place: Option<&v1::RankPlace>) -> Result<Target, Refusal> {
        let place = place.ok_or_else(|| Refusal::invalid("start.place", "it is missing"))?;
        let view = self.view(who, None).await?;
        let (id, _) = view.job(place.job_id)?;
        let job = view.may_visit(id)?;
        let one = v1::TaskRange { first: place.task_index, len: 1 };
        let task = positions(job, Some(&one))?.map_or(place.task_index, |range| range.first);
        let spot = self.spot(&view, id, job, task, AttemptNumber(place.attempt))?;
        let has =
            |first: u32, ranks: u32| (first..first.saturating_add(ranks)).contains(&place.rank);
        let share = spot.shares.iter().find(|share| has(share.first_rank, share.ranks));
        let share = share.ok_or_else(|| Refusal::no_such("rank", place.rank))?;
        Ok(Target {
            job: id,
            task,
            node: share.node,
            node_name: name_of(&view.state, share.node),
            assignment: share.assignment,
            local_rank: place.rank - share.first_rank,
        })
    }

    /// Lets the log say who visited what, before anything happens.
    pub(super) async fn write_down(
        &self,
        who: &Who,
        job: JobId,
        task: TaskIndex,
        visit: Visit,
    ) -> Result<(), Refusal> {
        let request = self.any_request_id();
        let command = Command::Job(JobCommand::Visit { job, task, visit });
        self.change(who, &request, command).await?;
        let user = who.user()?;
        tracing::info!(%user, %job, task, ?visit, "a job is visited");
        Ok(())
    }
}

impl View {
    /// A job that the user may visit.
    pub(super) fn may_visit(&self, id: JobId) -> Result<&Job, Refusal> {
        let (_, job) = self.job(id.0)?;
        if self.owns_or_is(job, Role::Admin) {
            return Ok(job);
        }
        let message = "this needs the owner of the job, or an admin of its workspace: whoever \
                       visits a job acts as its owner";
        Err(Refusal::new(Code::PermissionDenied, ErrorCode::NotAllowed, message))
    }
}

/// The first message of a client.
async fn first<T>(inputs: &mut Streaming<T>) -> Result<T, Refusal> {
    let late = |_| Refusal::plain(Code::DeadlineExceeded, "nothing was asked");
    let came = timeout(PATIENCE, inputs.message()).await.map_err(late)?;
    let broken = |status: Status| Refusal::plain(status.code(), status.message());
    came.map_err(broken)?.ok_or_else(|| Refusal::invalid("start", "it comes first"))
}

fn check(start: &v1::ExecStart) -> Result<(), Refusal> {
    let bytes: usize = start.words.iter().map(String::len).sum();
    if start.words.len() > VISIT_WORDS_MAX || bytes > VISIT_WORDS_BYTES_MAX {
        let problem = format!(
            "{} words of {bytes} bytes; at most {VISIT_WORDS_MAX} of {VISIT_WORDS_BYTES_MAX}",
            start.words.len()
        );
        return Err(Refusal::invalid("start.words", &problem));
    }
    if start.words.iter().any(|word| word.contains('\0')) {
        return Err(Refusal::invalid("start.words", "a word holds a zero byte"));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
    if start.term.len() > TERMINAL_NAME_BYTES_MAX || !start.term.bytes().all(is_name) {
        return Err(Refusal::invalid("start.term", "it is no name of a kind of terminal"));
    }
    let size = start.terminal.unwrap_or_default();
    if size.columns.max(size.rows) > TERMINAL_SIZE_MAX {
        let problem = format!("at most {TERMINAL_SIZE_MAX} columns and rows");
        return Err(Refusal::invalid("start.terminal", &problem));
    }
    Ok(())
}

/// What follows a question, as long as the client sends what can be taken.
fn more_of_exec_input(input: Result<v1::ExecInput, Status>) -> Option<Result<MemberData, Status>> {
    let input = input.ok()?;
    let len = match &input.what {
        Some(v1::exec_input::What::Stdin(bytes)) => bytes.len(),
        _ => 0,
    };
    let what = Some(member_data::What::ExecInput(input));
    (len <= VISIT_CHUNK_BYTES_MAX).then_some(Ok(MemberData { what }))
}

/// See [`more_of_exec_input`].
fn more_of_forward_input(
    input: Result<v1::ForwardInput, Status>,
) -> Option<Result<MemberData, Status>> {
    let input = input.ok()?;
    let len = match &input.what {
        Some(v1::forward_input::What::Data(data)) => data.len(),
        _ => 0,
    };
    let what = Some(member_data::What::ForwardInput(input));
    (len <= VISIT_CHUNK_BYTES_MAX).then_some(Ok(MemberData { what }))
}
