//! A submit that was answered is never lost, belongs to one job, and every job was asked for; at
//! the end each is in a terminal state (P1).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_common::id::{JobId, RequestId};
use yard_core::command::{Actor, Reply};
use yard_core::event::Event;

/// What clients were told, and what history took over.
#[derive(Debug, Default)]
pub struct AckedSubmissionsSurvive {
    told: BTreeMap<(Actor, RequestId), JobId>,
    forgotten: Vec<JobId>,
}

impl Invariant for AckedSubmissionsSurvive {
    fn name(&self) -> &'static str {
        "acked_submissions_survive"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Answered { actor, request, answer: Ok(Reply::Job(job)), .. } => {
                let first = *self.told.entry((*actor, *request)).or_insert(*job);
                if first != *job {
                    return Err(format!("request {request} made job {first}, then job {job}"));
                }
            }
            Seen::Applied(step) => {
                for fact in &step.applied.events {
                    if let Event::Forgotten(job) = fact {
                        self.forgotten.push(*job);
                    }
                }
            }
            Seen::Over { state, requests, .. } => {
                for ((actor, request), job) in &self.told {
                    let found = state.jobs.get(*job);
                    let ended = found.is_some_and(|found| found.state.is_terminal());
                    if !ended && !self.forgotten.contains(job) {
                        return Err(format!("job {job} of {actor:?} {request} is lost"));
                    }
                }
                for (id, job) in state.jobs.iter() {
                    if !requests.contains_key(&(Actor::User(job.owner), job.request)) {
                        return Err(format!("nobody asked for job {id}"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
