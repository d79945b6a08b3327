//! Somebody wants checkpoints of what runs here.

use super::place::Place;
use super::{Answers, Cut, DataError, blocking};
use crate::session::Shared;
use crate::shim::message::{VisitReply, VisitRequest};
use crate::visit::{self, Visit, VisitError};
use std::sync::Arc;
use yard_common::limits::SAMPLES_MAX;
use yard_proto::convert;
use yard_proto::internal::agent_data::What as Said;
use yard_proto::internal::{AssignmentRef, CheckpointAsked, CheckpointWant};

/// Asks each assignment in its turn. What does not run any more is left out; the first that cannot
/// be asked is told of, and the others are asked all the same.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    want: CheckpointWant,
    answers: &Answers,
) -> Result<(), Cut> {
    let tasks = convert::range(want.tasks.as_ref());
    let tasks = tasks.map_err(|_| DataError::not_found("there are no such tasks"))?;
    let mut asked = CheckpointAsked::default();
    for wanted in want.assignments.into_iter().take(SAMPLES_MAX) {
        match ask(shared, wanted, VisitRequest::Checkpoint(tasks)).await {
            Ok(ranks) => asked.ranks += ranks,
            Err(problem) if asked.problem.is_empty() => asked.problem = problem,
            Err(_) => {}
        }
    }
    answers.send(Said::Checkpoint(asked)).await?;
    Ok(())
}

/// How many ranks of an assignment were asked, or why none could be.
async fn ask(
    shared: &Arc<Shared>,
    wanted: AssignmentRef,
    request: VisitRequest,
) -> Result<u32, String> {
    let place = Place::new(shared, Some(wanted)).map_err(|error| error.message)?;
    let home = shared.paths.shim(place.id);
    let asked = blocking(move || match visit::ask(&home, &request, &[]) {
        Ok(stream) => Ok(Some(stream)),
        Err(VisitError::Nobody) => Ok(None),
        Err(error) => Err(error.into()),
    });
    let Some(stream) = asked.await.map_err(|error| error.message)? else { return Ok(0) };
    let heard = async { Visit::new(stream)?.hear().await }.await;
    match heard.map_err(|error| DataError::from(error).message)? {
        VisitReply::Asked(ranks) => Ok(ranks),
        VisitReply::Refused(problem) => Err(problem),
        VisitReply::Started | VisitReply::Ended(_) | VisitReply::Members(_) => {
            Err(VisitError::Strange.to_string())
        }
    }
}
