//! Answers that go on for long end when their reader would not be let in any more.

use super::Api;
use super::gate::Who;
use super::refusal::Refusal;
use crate::sessions::Answers;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use yard_common::id::JobId;

/// How often the reader of an answer that goes on is looked at.
const LOOK: Duration = Duration::from_secs(2);

impl Api {
    /// An answer, until the gate would not let its reader in any more, or the reader may not know
    /// of this job any more.
    pub(super) fn while_admitted<T: Send + 'static>(
        &self,
        who: &Who,
        job: Option<JobId>,
        answers: Answers<T>,
    ) -> Answers<T> {
        self.while_it_holds(who, answers, move |api, who| api.still_admitted(who, job))
    }

    /// An answer to whoever visits a job, until that would not be allowed any more.
    pub(super) fn while_welcome<T: Send + 'static>(
        &self,
        who: &Who,
        job: JobId,
        answers: Answers<T>,
    ) -> Answers<T> {
        self.while_it_holds(who, answers, move |api, who| api.is_welcome(who, job))
    }

    /// Waits until somebody who visits a job would not be let in any more.
    pub(super) async fn until_unwelcome(self, who: Who, job: JobId) {
        while self.is_welcome(&who, job).is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_welcome(&self, who: &Who, job: JobId) -> Result<(), Refusal> {
        who.admitted(self)?;
        let (_, state) = self.raft.state();
        self.view_of(state, who.user()?).may_visit(job).map(drop)
    }

    fn while_it_holds<T: Send + 'static>(
        &self,
        who: &Who,
        answers: Answers<T>,
        check: impl Fn(&Api, &Who) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Answers<T> {
        let check = Arc::new(check);
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reading = Some((self.clone(), who.clone(), answers, looks));
        Box::pin(stream::unfold(reading, move |reading| {
            let check = Arc::clone(&check);
            async move {
                let (api, who, mut answers, mut looks) = reading?;
                loop {
                    tokio::select! {
                        biased;
                        _ = looks.tick() => {
                            if let Err(refusal) = check(&api, &who) {
                                return Some((Err(refusal.into()), None));
                            }
                        }
                        next = answers.next() => {
                            return Some((next?, Some((api, who, answers, looks))));
                        }
                    }
                }
            }
        }))
    }

    fn still_admitted(&self, who: &Who, job: Option<JobId>) -> Result<(), Refusal> {
        who.admitted(self)?;
        let Some(id) = job else { return Ok(()) };
        let (_, state) = self.raft.state();
        let view = self.view_of(state, who.user()?);
        if view.sees_job(id) { Ok(()) } else { Err(Refusal::no_such("job", id)) }
    }
}
