//! Requests that were answered, so that a retry gets the first answer.
//!
//! A request that made a job is remembered as long as the job. Others are remembered for
//! `DEDUP_LIFE_MS`, and `DEDUP_ENTRIES_MAX` of them at most.

use crate::command::{Actor, Reply};
use crate::table::Ordered;
use minicbor::{Decode, Encode};
use yard_common::id::{JobId, RequestId};
use yard_common::limits::{DEDUP_ENTRIES_MAX, DEDUP_LIFE_MS};

/// Answered requests.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Dedup {
    /// By who asked and the request; equal requests of two actors are different.
    #[n(0)]
    answers: Ordered<(Actor, RequestId), Answer>,
    /// Those that made no job, by age.
    #[n(1)]
    by_age: Ordered<(u64, Actor, RequestId), ()>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// Hash of the command, so that the same id with another body is noticed.
    #[n(0)]
    pub body: u64,
    /// What was made.
    #[n(1)]
    pub made: Made,
}

/// What a request made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Made {
    /// A job.
    #[n(0)]
    Job(#[n(0)] JobId),
    /// Something else, at this time in `cluster_ms`.
    #[n(1)]
    Other(#[n(0)] u64, #[n(1)] Reply),
}

impl Dedup {
    /// The answer to a request.
    #[must_use]
    pub fn get(&self, actor: Actor, request: RequestId) -> Option<&Answer> {
        self.answers.get(&(actor, request))
    }

    /// Number of remembered requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// All answers.
    pub fn iter(&self) -> impl Iterator<Item = (&(Actor, RequestId), &Answer)> {
        self.answers.iter()
    }

    /// Requests that made no job, oldest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = &(u64, Actor, RequestId)> {
        self.by_age.iter().map(|(key, ())| key)
    }

    /// Remembers an answer.
    pub(crate) fn remember(&mut self, actor: Actor, request: RequestId, answer: Answer) {
        if let Made::Other(at_ms, _) = answer.made {
            self.by_age.insert((at_ms, actor, request), ());
        }
        self.answers.insert((actor, request), answer);
    }

    /// Forgets the request that made a job.
    pub(crate) fn forget_job(&mut self, actor: Actor, request: RequestId) {
        self.answers.remove(&(actor, request));
    }

    /// Forgets what is too old or too much, a few at a time.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        for _ in 0..8 {
            let Some(((at_ms, actor, request), ())) = self.by_age.first() else { return };
            let (at_ms, actor, request) = (*at_ms, *actor, *request);
            if at_ms + DEDUP_LIFE_MS > now_ms && self.by_age.len() <= DEDUP_ENTRIES_MAX {
                return;
            }
            self.by_age.remove(&(at_ms, actor, request));
            self.answers.remove(&(actor, request));
        }
    }
}
