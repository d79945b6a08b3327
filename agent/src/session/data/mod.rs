//! Questions about logs and files, and visits: the agent dials back to the member that has one,
//! shows its ticket, hears the question, and answers it. One connection each, so that no amount of
//! output stands in the way of anything else.

mod beneath;
mod checkpoint;
mod exec;
mod files;
mod forward;
mod inflow;
mod logs;
mod place;
mod samples;
mod setup;

pub(super) use place::{needs_note, note};

use super::{Shared, link};
use crate::visit::VisitError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use yard_common::id::MemberId;
use yard_common::limits::{DATA_CALLS_MAX, STREAM_QUEUE_LEN_MAX};
use yard_proto::internal;
use yard_proto::internal::agent_data::What as Said;
use yard_proto::internal::member_data::What as Want;
use yard_proto::internal::{AgentData, DataCall, DataEnd, DataErrorKind, MemberData};
use yard_runtime::identity::Principal;
use yard_runtime::tls::Expect;

/// How long a member may take to say what it wants, and to take the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a question is not answered, as the member is told.
#[derive(Debug)]
struct DataError {
    kind: DataErrorKind,
    message: String,
}

impl DataError {
    fn not_found(message: impl Into<String>) -> DataError {
        DataError { kind: DataErrorKind::NotFound, message: message.into() }
    }

    fn not_allowed(message: impl Into<String>) -> DataError {
        DataError { kind: DataErrorKind::NotAllowed, message: message.into() }
    }

    fn limit(message: impl Into<String>) -> DataError {
        DataError { kind: DataErrorKind::Limit, message: message.into() }
    }

    fn io(message: impl Into<String>) -> DataError {
        DataError { kind: DataErrorKind::Io, message: message.into() }
    }
}

impl From<VisitError> for DataError {
    fn from(error: VisitError) -> DataError {
        match &error {
            VisitError::Nobody => DataError::not_found(error.to_string()),
            VisitError::Io(source) => DataError::io(format!("{error}: {source}")),
            VisitError::Strange => DataError::io(error.to_string()),
        }
    }
}

/// Why there is nothing more to send: the member is gone, or does not want it any more.
#[derive(Debug)]
struct Gone;

/// Where answers go.
#[derive(Clone, Debug)]
struct Answers(mpsc::Sender<AgentData>);

impl Answers {
    async fn send(&self, what: Said) -> Result<(), Gone> {
        self.0.send(AgentData { what: Some(what) }).await.map_err(|_| Gone)
    }

    /// Room for one more, for whoever does other things until there is some.
    async fn place(&self) -> Result<AnswerPlace<'_>, Gone> {
        self.0.reserve().await.map(AnswerPlace).map_err(|_| Gone)
    }
}

/// Room for one answer.
#[must_use]
struct AnswerPlace<'a>(mpsc::Permit<'a, AgentData>);

impl AnswerPlace<'_> {
    fn fill(self, what: Said) {
        self.0.send(AgentData { what: Some(what) });
    }
}

/// An answer that was not given whole.
#[derive(Debug)]
enum Cut {
    /// The member is told.
    Error(DataError),
    /// Nobody is left to be told.
    Gone,
}

impl From<DataError> for Cut {
    fn from(error: DataError) -> Cut {
        Cut::Error(error)
    }
}

impl From<Gone> for Cut {
    fn from(Gone: Gone) -> Cut {
        Cut::Gone
    }
}

/// The questions that are being answered. They outlive the control stream that brought them.
#[derive(Debug)]
pub(super) struct DataCalls {
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

impl DataCalls {
    pub(super) fn new(shared: Arc<Shared>) -> DataCalls {
        DataCalls { shared, running: JoinSet::new() }
    }

    /// Begins to answer one. Beyond the bound it is not heard; the member's patience ends it.
    pub(super) fn answer(&mut self, call: DataCall) {
        while let Some(ended) = self.running.try_join_next() {
            note_panic(ended);
        }
        if self.running.len() >= DATA_CALLS_MAX {
            tracing::warn!(limit = DATA_CALLS_MAX, "too many questions at a time; one is dropped");
            return;
        }
        let shared = self.shared.clone();
        self.running.spawn(async move {
            let member = call.member_id;
            if let Err(error) = serve(&shared, call).await {
                tracing::warn!(member, error, "a question was not answered");
            }
        });
    }

    /// Stops all.
    pub(super) async fn stop(&mut self) {
        self.running.abort_all();
        while let Some(ended) = self.running.join_next().await {
            note_panic(ended);
        }
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "an answer panicked");
    }
}

async fn serve(shared: &Arc<Shared>, call: DataCall) -> Result<(), String> {
    let expect = Expect::Only(Principal::Member(MemberId(call.member_id)));
    let mut client = link::client(&call.address, &shared.tls, expect).map_err(|e| e.to_string())?;
    let (out, queue) = mpsc::channel(STREAM_QUEUE_LEN_MAX);
    let answers = Answers(out);
    let late = |_| "the member does not answer".to_string();
    let gone = |Gone| "the member is gone".to_string();
    // The ticket is there before the stream is.
    answers.send(Said::Ticket(call.ticket)).await.map_err(gone)?;
    let opened = timeout(PATIENCE, client.data(ReceiverStream::new(queue))).await;
    let opened = opened.map_err(late)?.map_err(|status| link::told(&status))?;
    let mut wants = opened.into_inner();
    let want = timeout(PATIENCE, wants.message()).await.map_err(late)?;
    let want = want.map_err(|status| link::told(&status))?;
    let Some(want) = want.and_then(|want| want.what) else {
        return Err("the member asked nothing".into());
    };
    let outcome = async {
        match want {
            Want::Exec(want) => {
                let _place = visit()?;
                exec::answer(shared, want, &answers, &mut wants).await
            }
            Want::Forward(want) => {
                let _place = visit()?;
                forward::answer(shared, want, &answers, &mut wants).await
            }
            want => tokio::select! {
                answered = answer(shared, want, &answers) => answered,
                () = unwanted(&mut wants) => Err(Cut::Gone),
            },
        }
    };
    let answered = tokio::select! {
        answered = outcome => answered,
        // The member has given the stream up. Until a visit has begun, nobody else looks.
        () = answers.0.closed() => return Ok(()),
    };
    let end = match answered {
        Ok(()) => Said::End(DataEnd {}),
        Err(Cut::Error(DataError { kind, message })) => {
            tracing::debug!(?kind, message, "a question has no answer");
            Said::Error(internal::DataError { kind: kind.into(), message })
        }
        Err(Cut::Gone) => return Ok(()),
    };
    answers.send(end).await.map_err(gone)?;
    drop(answers);
    // What was sent must arrive before the connection goes. What a visitor still types comes first.
    let heard = async { while let Ok(Some(_)) = wants.message().await {} };
    let _ = timeout(PATIENCE, heard).await;
    Ok(())
}

/// Visits last for days: questions keep room beside them.
static VISITS: Semaphore = Semaphore::const_new(DATA_CALLS_MAX / 2);

/// The place of a visit, for as long as it lasts.
fn visit() -> Result<SemaphorePermit<'static>, Cut> {
    let full = |_| {
        let most = DATA_CALLS_MAX / 2;
        Cut::from(DataError::limit(format!("{most} visits of this node at a time are the most")))
    };
    VISITS.try_acquire().map_err(full)
}

/// Waits until the member ends the stream. A second question ends it too.
async fn unwanted(wants: &mut Streaming<MemberData>) {
    let _ = wants.message().await;
}

async fn answer(shared: &Arc<Shared>, want: Want, answers: &Answers) -> Result<(), Cut> {
    match want {
        Want::Log(want) => logs::answer(shared, want, answers).await,
        Want::Files(want) => files::list(shared, want, answers).await,
        Want::File(want) => files::read(shared, want, answers).await,
        Want::Samples(want) => samples::answer(shared, want, answers).await,
        Want::Checkpoint(want) => checkpoint::answer(shared, want, answers).await,
        Want::SetupLog(want) => setup::answer(shared, want, answers).await,
        Want::Exec(_) | Want::Forward(_) | Want::ExecInput(_) | Want::ForwardInput(_) => {
            Err(DataError::not_allowed("this is no question").into())
        }
    }
}

/// Runs what may wait for a disk where nobody else waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(DataError::io(format!("the work was cut off: {error}"))))
}
