//! A request takes effect once: however often it is asked, it has one answer, and one job (P1).

use super::{Invariant, Seen};
use crate::truth::Truth;
use std::collections::BTreeMap;
use yard_common::id::RequestId;
use yard_core::command::{Actor, Reply};

/// The first answers, and the jobs that were made.
#[derive(Debug, Default)]
pub struct RequestsIdempotent {
    answers: BTreeMap<(Actor, RequestId), Reply>,
}

impl Invariant for RequestsIdempotent {
    fn name(&self) -> &'static str {
        "requests_idempotent"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        match seen {
            Seen::Applied(step) => {
                let (Some(request), Ok(reply)) = (step.envelope.request, &step.applied.reply)
                else {
                    return Ok(());
                };
                let key = (step.envelope.actor, request);
                match self.answers.get(&key) {
                    None => {
                        self.answers.insert(key, reply.clone());
                    }
                    Some(first) if first != reply => {
                        return Err(format!("{request} was answered {first:?}, then {reply:?}"));
                    }
                    Some(_) => {}
                }
                Ok(())
            }
            Seen::Answered { request, answer: Ok(answer), again: Some(Ok(first)), .. } => {
                if *answer == *first {
                    Ok(())
                } else {
                    Err(format!("{request} was answered {first:?}, then {answer:?}"))
                }
            }
            _ => Ok(()),
        }
    }
}
