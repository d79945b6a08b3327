//! Who gets the log, and who votes: what a leader does next about the members.
//!
//! The state says what is wanted: who joined, who is to leave. The log says what is. A leader
//! takes one step at a time from the one to the other, and whichever leads next goes on there.
//!
//! **Invariants.** Nobody votes before it has nearly all of the log and answers. A set of voters of
//! which no majority answers is never asked for: it could not even be left again. Without being
//! asked, a leader makes no even number of voters, since one more than an odd number only adds one
//! that can fail; and it takes nobody's vote who is not to leave.

use crate::state::Member;
use crate::table::Ordered;
use std::collections::BTreeSet;
use yard_common::id::MemberId;
use yard_common::limits::VOTERS_MAX;

/// How the members are, as their leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The leader.
    pub leader: MemberId,
    /// The voters; during a change, the new ones.
    pub voters: BTreeSet<MemberId>,
    /// Whether a change is under way.
    pub changing: bool,
    /// Those that get the log and do not vote.
    pub learners: BTreeSet<MemberId>,
    /// Those that answered lately, the leader included.
    pub answers: BTreeSet<MemberId>,
    /// Those that have nearly all of the log.
    pub caught_up: BTreeSet<MemberId>,
}

/// What a leader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// All is as it is wanted, or cannot be for the moment.
    Nothing,
    /// This one is to get the log.
    Listen(MemberId),
    /// This one, which does not vote, is to get it no more.
    Forget(MemberId),
    /// These are to vote.
    Vote(BTreeSet<MemberId>),
    /// The leader is to leave: this one is to lead.
    HandOver(MemberId),
    /// This one has left: its record can go.
    Left(MemberId),
}

impl Standing {
    /// Whether these voters could work: a majority of them answers.
    #[must_use]
    pub fn works(&self, voters: &BTreeSet<MemberId>) -> bool {
        2 * voters.intersection(&self.answers).count() > voters.len()
    }

    /// The voters that would be left without this one.
    #[must_use]
    pub fn without(&self, id: MemberId, members: &Ordered<MemberId, Member>) -> BTreeSet<MemberId> {
        let stays = |other: &&MemberId| **other != id && !leaves(members, **other);
        self.voters.iter().filter(stays).copied().collect()
    }

    /// The next step.
    pub fn next(&self, members: &Ordered<MemberId, Member>) -> Step {
        // One without a record founded the cluster, or was added apart from it: it stays.
        if let Some(id) = self.learners.iter().find(|id| leaves(members, **id)) {
            return Step::Forget(*id);
        }
        let is_new = |id: &MemberId| !self.voters.contains(id) && !self.learners.contains(id);
        let mut left = members.iter().filter(|(id, it)| it.leaves && is_new(id));
        if let Some((id, _)) = left.next().filter(|_| !self.changing) {
            return Step::Left(*id);
        }
        let mut joined = members.iter().filter(|(_, it)| it.joined.is_some() && !it.leaves);
        if let Some((id, _)) = joined.find(|(id, _)| is_new(id)) {
            return Step::Listen(*id);
        }
        let wanted = self.wanted(members);
        if (wanted == self.voters && !self.changing) || !self.works(&wanted) {
            return Step::Nothing;
        }
        if wanted.contains(&self.leader) {
            return Step::Vote(wanted);
        }
        let fit = |id: &&MemberId| {
            self.voters.contains(*id) && self.answers.contains(*id) && self.caught_up.contains(*id)
        };
        wanted.iter().find(fit).map_or(Step::Nothing, |id| Step::HandOver(*id))
    }

    /// Who is to vote.
    fn wanted(&self, members: &Ordered<MemberId, Member>) -> BTreeSet<MemberId> {
        let mut wanted: BTreeSet<MemberId> =
            self.voters.iter().filter(|id| !leaves(members, **id)).copied().collect();
        // One without a record was added apart from it, by somebody who says when it votes.
        let joined = |id: &MemberId| members.get(id).is_some_and(|member| !member.leaves);
        let ready = |id: &&MemberId| {
            joined(id) && self.answers.contains(*id) && self.caught_up.contains(*id)
        };
        let mut spare = Vec::new();
        for id in self.learners.iter().filter(ready) {
            if wanted.len() == VOTERS_MAX {
                return wanted;
            }
            match members.get(id).is_some_and(|member| member.votes) {
                true => drop(wanted.insert(*id)),
                false => spare.push(*id),
            }
        }
        spare.truncate(VOTERS_MAX - wanted.len());
        if (wanted.len() + spare.len()).is_multiple_of(2) {
            spare.pop();
        }
        wanted.extend(spare);
        wanted
    }
}

fn leaves(members: &Ordered<MemberId, Member>, id: MemberId) -> bool {
    members.get(&id).is_some_and(|member| member.leaves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Joined;
    use yard_common::id::TokenId;

    fn ids(numbers: &[u64]) -> BTreeSet<MemberId> {
        numbers.iter().copied().map(MemberId).collect()
    }

    /// Led by 1; everybody answers and has caught up.
    fn standing(voters: &[u64], learners: &[u64]) -> Standing {
        let (voters, learners) = (ids(voters), ids(learners));
        let all: BTreeSet<MemberId> = voters.union(&learners).copied().collect();
        Standing {
            leader: MemberId(1),
            voters,
            changing: false,
            learners,
            answers: all.clone(),
            caught_up: all,
        }
    }

    /// Records: joined, and asked to vote or to leave.
    fn members(joined: &[u64], vote: &[u64], leave: &[u64]) -> Ordered<MemberId, Member> {
        let mut members = Ordered::default();
        for id in ids(joined).union(&ids(leave)) {
            let proof = Joined {
                token: TokenId::from_u128(1),
                secret_sha256: [0; 32],
                key_sha256: [0; 32],
                ends_ms: 0,
            };
            let member = Member {
                address: "a:1".into(),
                joined: joined.contains(&id.0).then_some(proof),
                votes: vote.contains(&id.0),
                leaves: leave.contains(&id.0),
            };
            members.insert(*id, member);
        }
        members
    }

    #[test]
    fn who_joined_listens_first() {
        let standing = standing(&[1], &[2]);
        assert_eq!(standing.next(&members(&[2, 3], &[], &[])), Step::Listen(MemberId(3)));
    }

    #[test]
    fn the_number_of_voters_stays_odd_unless_somebody_asks() {
        let next = |voters: &[u64], learners: &[u64], vote: &[u64]| {
            let joined: Vec<u64> = voters[1..].iter().chain(learners).copied().collect();
            standing(voters, learners).next(&members(&joined, vote, &[]))
        };
        assert_eq!(next(&[1], &[2], &[]), Step::Nothing);
        assert_eq!(next(&[1], &[2], &[2]), Step::Vote(ids(&[1, 2])));
        assert_eq!(next(&[1], &[2, 3], &[]), Step::Vote(ids(&[1, 2, 3])));
        assert_eq!(next(&[1, 2], &[3], &[]), Step::Vote(ids(&[1, 2, 3])));
        assert_eq!(next(&[1, 2, 3], &[4], &[]), Step::Nothing);
        assert_eq!(next(&[1, 2, 3], &[4, 5], &[]), Step::Vote(ids(&[1, 2, 3, 4, 5])));
        assert_eq!(next(&[1, 2, 3, 4], &[], &[]), Step::Nothing, "nobody loses the vote");
        let many: Vec<u64> = (2..=12).collect();
        let Step::Vote(voters) = next(&[1], &many, &many) else { panic!("they are to vote") };
        assert_eq!(voters.len(), VOTERS_MAX);
    }

    #[test]
    fn nobody_votes_who_is_behind_or_silent() {
        let members = members(&[2, 3], &[], &[]);
        let mut behind = standing(&[1], &[2, 3]);
        behind.caught_up.remove(&MemberId(3));
        assert_eq!(behind.next(&members), Step::Nothing);
        let mut silent = standing(&[1], &[2, 3]);
        silent.answers.remove(&MemberId(2));
        assert_eq!(silent.next(&members), Step::Nothing);
    }

    #[test]
    fn who_is_to_leave_leaves_if_the_rest_can_work() {
        let leaves = members(&[2, 3], &[], &[3]);
        let mut standing = standing(&[1, 2, 3], &[]);
        assert_eq!(standing.next(&leaves), Step::Vote(ids(&[1, 2])));
        // It is dead: as good a reason as any.
        standing.answers.remove(&MemberId(3));
        assert_eq!(standing.next(&leaves), Step::Vote(ids(&[1, 2])));
        assert!(standing.works(&standing.without(MemberId(3), &leaves)));
        // Another one is dead: the two that would be left could decide nothing.
        standing.answers = ids(&[1, 3]);
        assert_eq!(standing.next(&leaves), Step::Nothing);
        assert!(!standing.works(&standing.without(MemberId(3), &leaves)));
    }

    #[test]
    fn a_dead_voter_is_replaced_in_one_step() {
        let mut standing = standing(&[1, 2, 3], &[4]);
        standing.answers.remove(&MemberId(3));
        let members = members(&[2, 3, 4], &[], &[3]);
        assert_eq!(standing.next(&members), Step::Vote(ids(&[1, 2, 4])));
    }

    #[test]
    fn a_leader_that_is_to_leave_hands_over_first() {
        let leaves = members(&[2, 3], &[], &[1]);
        let mut standing = standing(&[1, 2, 3], &[]);
        standing.caught_up.remove(&MemberId(2));
        assert_eq!(standing.next(&leaves), Step::HandOver(MemberId(3)));
        standing.answers = ids(&[1]);
        assert_eq!(standing.next(&leaves), Step::Nothing, "nobody could take over");
    }

    #[test]
    fn learners_that_are_to_leave_go_and_then_their_records() {
        let standing = standing(&[1], &[2, 3]);
        assert_eq!(standing.next(&members(&[2, 3], &[], &[2])), Step::Forget(MemberId(2)));
        // Nobody said that 3, which has no record, is to go, or to vote.
        assert_eq!(standing.next(&members(&[2], &[], &[])), Step::Nothing);
        assert_eq!(standing.next(&members(&[2, 3], &[], &[4])), Step::Left(MemberId(4)));
    }

    #[test]
    fn a_change_that_an_earlier_leader_began_is_finished() {
        let mut standing = standing(&[1, 2, 3], &[]);
        standing.changing = true;
        assert_eq!(standing.next(&members(&[2, 3], &[], &[])), Step::Vote(ids(&[1, 2, 3])));
    }
}
