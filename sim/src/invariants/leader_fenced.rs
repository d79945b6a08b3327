//! Once a leader has started, nothing that an earlier one stamped takes effect, even if both lead
//! in one term (P6).

use super::{Invariant, Seen};
use crate::truth::Truth;
use yard_common::id::LeaderId;
use yard_core::command::{Cluster, Command, Rejection};

/// The leader that started last.
#[derive(Debug, Default)]
pub struct LeaderFenced {
    leader: Option<LeaderId>,
}

impl Invariant for LeaderFenced {
    fn name(&self) -> &'static str {
        "leader_fenced"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Truth) -> Result<(), String> {
        let Seen::Applied(step) = seen else { return Ok(()) };
        let by = step.envelope.leader;
        let refused = step.applied.reply == Err(Rejection::StaleLeader);
        if matches!(step.command, Command::Cluster(Cluster::Members { .. })) {
            // The log itself says so, whoever leads.
            return Ok(());
        }
        if *step.command == Command::Cluster(Cluster::LeaderStarted) {
            if refused == self.leader.is_none_or(|leader| by > leader) {
                return Err(format!("leader {by} after {:?}: refused is {refused}", self.leader));
            }
            if !refused {
                self.leader = Some(by);
            }
        } else if refused == (self.leader == Some(by)) {
            let leader = self.leader;
            return Err(format!("a command of {by} under {leader:?}: refused is {refused}"));
        }
        Ok(())
    }
}
