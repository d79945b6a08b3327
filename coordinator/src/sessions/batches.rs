//! Batches of reports on their way into the log, in the order in which they came.
//!
//! A few are on their way at a time; what comes meanwhile gathers and goes with the next, so that
//! a machine with many short tasks does not wait for the disk once for each of them.

use crate::proposer::{Handle, ProposeError};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use std::task::Poll;
use yard_common::id::{NodeId, Sequence};
use yard_common::limits::{AGENT_SENDS_MAX, REPORT_BATCHES_MAX, REPORT_RANGES_MAX};
use yard_core::agent::Report;
use yard_core::command::{Actor, Command, NodeReport, Rejection, Reply};

type Outcome = Result<Result<Reply, Rejection>, ProposeError>;

/// Why reports were not taken. Their stream ends; the agent says them again on the next one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    /// The state refused them.
    #[error("reports were refused: {0}")]
    Refused(Rejection),
    /// They were not committed.
    #[error("reports were not committed: {0}")]
    NotCommitted(ProposeError),
    /// The agent sent more than it may before an answer.
    #[error("more than {AGENT_SENDS_MAX} reports without an answer")]
    TooMany,
}

/// The reports of one stream.
pub(crate) struct Batches {
    node: NodeId,
    raft: Handle,
    waiting: Vec<Report>,
    on_the_way: FuturesOrdered<BoxFuture<'static, Outcome>>,
    /// Reports in each batch of `on_the_way`, the oldest first.
    unanswered: Vec<usize>,
}

impl Batches {
    pub(crate) fn new(node: NodeId, raft: Handle) -> Batches {
        let (waiting, on_the_way, unanswered) = (Vec::new(), FuturesOrdered::new(), Vec::new());
        Batches { node, raft, waiting, on_the_way, unanswered }
    }

    /// Takes reports that came, and proposes them as soon as there is room.
    pub(crate) async fn take(&mut self, reports: Vec<Report>) -> Result<(), BatchError> {
        let on_the_way: usize = self.unanswered.iter().sum();
        let all = on_the_way + self.waiting.len() + reports.len();
        if all as u64 > AGENT_SENDS_MAX {
            return Err(BatchError::TooMany);
        }
        self.waiting.extend(reports);
        self.send().await;
        Ok(())
    }

    /// Whether something is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.on_the_way.is_empty()
    }

    /// The next answer: everything up to this report is committed. Pending for ever while nothing
    /// is on its way. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Sequence>, BatchError> {
        let Some(outcome) = self.on_the_way.next().await else {
            return std::future::pending().await;
        };
        self.unanswered.remove(0);
        let answer = match outcome {
            Ok(Ok(Reply::Reported(upto))) => Ok(Some(upto)),
            Ok(Ok(_)) => Ok(None),
            Ok(Err(rejection)) => Err(BatchError::Refused(rejection)),
            Err(error) => Err(BatchError::NotCommitted(error)),
        };
        if answer.is_ok() {
            self.send().await;
        }
        answer
    }

    async fn send(&mut self) {
        while !self.waiting.is_empty() && self.on_the_way.len() < REPORT_BATCHES_MAX {
            let count = fitting(&self.waiting);
            let (node, reports) = (self.node, self.waiting.drain(..count).collect::<Vec<_>>());
            self.unanswered.push(reports.len());
            let raft = self.raft.clone();
            let propose = async move {
                let command = Command::Report(NodeReport { node, reports });
                raft.propose(Actor::Node(node), None, &command).await
            };
            let mut propose = propose.boxed();
            // Its first step puts it into the queue of the proposer: batches keep their order
            // whatever the executor does with them later.
            let first = std::future::poll_fn(|cx| Poll::Ready(propose.poll_unpin(cx))).await;
            self.on_the_way.push_back(match first {
                Poll::Ready(outcome) => std::future::ready(outcome).boxed(),
                Poll::Pending => propose,
            });
        }
    }
}

/// How many of these reports go into one command: as many as it takes, and never none.
fn fitting(reports: &[Report]) -> usize {
    let mut ranges = 0usize;
    let fits = reports.iter().take_while(|report| {
        ranges = ranges.saturating_add(report.ranges());
        ranges <= REPORT_RANGES_MAX
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::ExitCause;
    use yard_common::id::{AllocationId, AttemptNumber, TaskRange};
    use yard_core::agent::{AssignmentId, ChainLink, Exit, ReportKind};

    fn report(ranges: usize) -> Report {
        let link = ChainLink { tasks: TaskRange::one(0), attempt: AttemptNumber(1) };
        let exit = Exit { link, cause: ExitCause::Exited(1), status: None, rank: None };
        let assignment = AssignmentId { allocation: AllocationId(1), group: 0 };
        let what = ReportKind::Exited(vec![exit; ranges]);
        Report { sequence: Sequence(1), assignment, what }
    }

    #[test]
    fn a_command_has_as_many_ranges_as_the_state_takes() {
        assert_eq!(fitting(&[report(REPORT_RANGES_MAX), report(1)]), 1);
        assert_eq!(fitting(&[report(REPORT_RANGES_MAX - 1), report(1), report(1)]), 2);
        assert_eq!(fitting(&[report(1), report(1)]), 2);
        // One that can never be taken is refused by the state, and does not hang here.
        assert_eq!(fitting(&[report(REPORT_RANGES_MAX + 1), report(1)]), 1);
    }
}
