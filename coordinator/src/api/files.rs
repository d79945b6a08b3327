//! What lies in the directories of an attempt, from the agent of its node.

use super::Api;
use super::data::{failed, share_on, strange};
use super::gate::Who;
use super::jobs::positions;
use super::read::View;
use super::refusal::Refusal;
use crate::sessions::{Answer, Answers, ask};
use futures_util::stream;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Status;
use yard_common::id::{AttemptNumber, JobId, NodeId};
use yard_common::limits::{FILE_PATH_BYTES_MAX, PAGE_ROWS_MAX};
use yard_core::command::Role;
use yard_proto::convert::page;
use yard_proto::internal::agent_data::What;
use yard_proto::internal::{AssignmentRef, FileListWant, FileWant, member_data};
use yard_proto::v1;

/// How long the next part of an answer may take, where all of it is there already.
pub(super) const PART: Duration = Duration::from_secs(30);

impl Api {
    /// Lists a directory.
    pub(super) async fn list_job_files(
        &self,
        who: &Who,
        request: v1::ListFilesRequest,
    ) -> Result<v1::ListFilesResponse, Refusal> {
        let view = self.view(who, request.page.as_ref()).await?;
        let place = request.place.unwrap_or_default();
        let (node, assignment) = self.place(&view, &place)?;
        let rows_max = page::rows_max(request.page.as_ref());
        let want = FileListWant {
            assignment: Some(assignment),
            root: place.root,
            path: place.path,
            after_name: page::after_name(request.page.as_ref()).to_string(),
            entries_max: u32::try_from(rows_max).unwrap_or(u32::MAX),
        };
        let mut answer = ask(self, node, member_data::What::Files(want)).await?;
        let list = match part_of(&mut answer, Some(PART)).await {
            Ok(Some(What::Files(list))) => list,
            Ok(Some(What::Error(error))) => return Err(failed(&error)),
            Ok(Some(_) | None) => return Err(strange()),
            Err(status) => return Err(broken(&status)),
        };
        let mut entries = list.entries;
        entries.truncate(PAGE_ROWS_MAX);
        let next_key = entries.last().filter(|_| list.more).map(|last| last.name.clone());
        let page = Some(view.page_info(next_key));
        Ok(v1::ListFilesResponse { entries, page })
    }

    /// Reads a file.
    pub(super) async fn read_job_file(
        &self,
        who: &Who,
        request: v1::ReadFileRequest,
    ) -> Result<Answers<v1::ReadFileResponse>, Refusal> {
        let view = self.view(who, None).await?;
        let place = request.place.unwrap_or_default();
        let (node, assignment) = self.place(&view, &place)?;
        let want = FileWant {
            assignment: Some(assignment),
            root: place.root,
            path: place.path,
            offset: request.offset,
            len: request.len,
        };
        let answer = ask(self, node, member_data::What::File(want)).await?;
        let parts = parts(answer, Some(PART), |what| match what {
            What::File(file) => Some(v1::ReadFileResponse {
                offset: file.offset,
                data: file.data,
                size_bytes: file.size_bytes,
            }),
            _ => None,
        });
        Ok(self.while_admitted(who, Some(JobId(place.job_id)), parts))
    }

    /// The node that has a place, and what its agent knows it by. Files are more than logs: only
    /// those who may change the job read them.
    fn place(
        &self,
        view: &View,
        place: &v1::FilePlace,
    ) -> Result<(NodeId, AssignmentRef), Refusal> {
        if place.path.len() > FILE_PATH_BYTES_MAX {
            let problem = format!("{} bytes; at most {FILE_PATH_BYTES_MAX}", place.path.len());
            return Err(Refusal::invalid("place.path", &problem));
        }
        let (id, job) = view.job(place.job_id)?;
        if !view.owns_or_is(job, Role::Operator) {
            let message = "this needs the owner of the job, or an operator of its workspace";
            let code = yard_common::ErrorCode::NotAllowed;
            return Err(Refusal::new(tonic::Code::PermissionDenied, code, message));
        }
        let one = v1::TaskRange { first: place.task_index, len: 1 };
        let task = positions(job, Some(&one))?.map_or(place.task_index, |range| range.first);
        let spot = self.spot(view, id, job, task, AttemptNumber(place.attempt))?;
        let share = share_on(view, &spot, &place.node)?;
        Ok((share.node, share.assignment))
    }
}

/// The next part of an answer. An agent that says nothing for longer than this is given up.
async fn part_of(answer: &mut Answer, patience: Option<Duration>) -> Result<Option<What>, Status> {
    let Some(patience) = patience else { return answer.next().await };
    let next = timeout(patience, answer.next()).await;
    next.unwrap_or_else(|_| Err(Status::deadline_exceeded("nothing came for too long")))
}

/// The parts of an answer as clients are told them, until the first that is none of it. Without
/// patience for each of them they may take as long as they like.
pub(super) fn parts<T: Send + 'static>(
    answer: Answer,
    patience: Option<Duration>,
    told: impl Fn(What) -> Option<T> + Send + 'static,
) -> Answers<T> {
    Box::pin(stream::unfold(Some((answer, told)), move |reading| async move {
        let (mut answer, told) = reading?;
        let part = match part_of(&mut answer, patience).await {
            Ok(Some(What::Error(error))) => Err(failed(&error)),
            Ok(Some(what)) => told(what).ok_or_else(strange),
            Ok(None) => return None,
            Err(status) => Err(broken(&status)),
        };
        match part {
            Ok(part) => Some((Ok(part), Some((answer, told)))),
            Err(refusal) => Some((Err(Status::from(refusal)), None)),
        }
    }))
}

fn broken(status: &Status) -> Refusal {
    Refusal::unavailable(format!("the agent's stream broke: {}", status.message()))
}
