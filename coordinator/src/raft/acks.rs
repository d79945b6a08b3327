//! What other members have acked to this one, as a leader.
//!
//! A member that acked an entry and does not have it any more came back with an older copy of its
//! folder. It may have forgotten a vote as well, and must not count. The Raft library takes such
//! an answer for a bug of its own, so it does not get to see it.

use crate::storage::{Position, Vote};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use yard_common::id::MemberId;

/// An entry that is durable at a member, and as whose follower it said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(crate) struct Acked {
    /// The leader.
    #[n(0)]
    pub(crate) vote: Vote,
    /// The entry.
    #[n(1)]
    pub(crate) last: Position,
}

/// The last entry that each member acked. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Acks(Arc<Mutex<BTreeMap<MemberId, Acked>>>);

impl Acks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberId, Acked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a member acked last.
    pub(crate) fn of(&self, member: MemberId) -> Option<Acked> {
        self.lock().get(&member).copied()
    }

    /// A member has acked entries up to this one. As the follower of one leader it acks more and
    /// more; another leader may have taken entries back.
    pub(super) fn note(&self, member: MemberId, vote: Vote, last: Position) {
        let mut acks = self.lock();
        let new = Acked { vote, last };
        let known = acks.entry(member).or_insert(new);
        if known.vote != vote || known.last < last {
            *known = new;
        }
    }
}

impl Acked {
    /// Whether a follower of this leader that lacks the entry at this position has lost it.
    pub(super) fn covers(&self, vote: Vote, lacking: Option<Position>) -> bool {
        self.vote == vote && lacking.is_some_and(|lacking| lacking.index <= self.last.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::{LeaderId, LogIndex};

    #[test]
    fn what_was_acked_to_one_leader_says_nothing_to_another() {
        let leader = |term| LeaderId { term, member: MemberId(1) };
        let vote = |term| Vote { leader: leader(term), committed: true };
        let at = |term, index| Position { leader: leader(term), index: LogIndex(index) };
        let (acks, member) = (Acks::default(), MemberId(2));
        assert!(acks.of(member).is_none());
        acks.note(member, vote(1), at(1, 9));
        acks.note(member, vote(1), at(1, 7));
        let acked = acks.of(member).unwrap();
        assert_eq!(acked.last, at(1, 9), "an answer that comes late takes nothing back");
        assert!(acked.covers(vote(1), Some(at(1, 9))) && acked.covers(vote(1), Some(at(1, 3))));
        assert!(!acked.covers(vote(1), Some(at(1, 10))) && !acked.covers(vote(1), None));
        assert!(!acked.covers(vote(2), Some(at(1, 3))), "another leader may have taken it back");
        acks.note(member, vote(3), at(3, 5));
        assert_eq!(acks.of(member).unwrap().last, at(3, 5));
    }
}
