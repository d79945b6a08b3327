//! Who votes: the members of the coordinator at one point of the replicated log.

use minicbor::{Decode, Encode};
use std::collections::BTreeSet;
use std::fmt;
use yard_common::id::{LogIndex, MemberId};
use yard_common::limits::VOTERS_MAX;

/// Names a committed membership: the log position of its entry. Only committed memberships are
/// named, so a position stands for one membership even if a lost leader wrote another there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct MembershipId(#[n(0)] pub LogIndex);

impl fmt::Display for MembershipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The voters as of one log entry. While the membership changes there are two sets of them, and
/// whatever needs a majority needs one in each.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// Which membership this is.
    #[n(0)]
    pub id: MembershipId,
    /// The voters; during a change, the old ones.
    #[n(1)]
    pub voters: BTreeSet<MemberId>,
    /// The new voters, during a change.
    #[n(2)]
    pub joint: Option<BTreeSet<MemberId>>,
}

impl Membership {
    /// A membership outside a change.
    #[must_use]
    pub fn of(id: MembershipId, voters: impl IntoIterator<Item = MemberId>) -> Membership {
        Membership { id, voters: voters.into_iter().collect(), joint: None }
    }

    /// Whether the member votes, in either half.
    #[must_use]
    pub fn is_voter(&self, member: MemberId) -> bool {
        self.halves().any(|half| half.contains(&member))
    }

    /// Whether one coordinator is all there is.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.halves().all(|half| half.len() <= 1)
    }

    /// Whether the members for which `has` holds are a majority; of both halves in a change.
    /// No set is a majority of no voters.
    #[must_use]
    pub fn is_majority(&self, has: impl Fn(MemberId) -> bool) -> bool {
        self.halves()
            .all(|half| 2 * half.iter().filter(|&&member| has(member)).count() > half.len())
    }

    /// The latest time that a majority has reached: the majority-th largest of the members' times;
    /// in a change, the earlier one of the two halves. `None` while no majority has a time.
    #[must_use]
    pub fn majority_ms(&self, time_ms: impl Fn(MemberId) -> Option<u64>) -> Option<u64> {
        let mut reached_ms = u64::MAX;
        for half in self.halves() {
            // On the stack: every renewal of every node asks. A half beyond the bound is none that
            // apply let through, and has no majority.
            let mut times_ms = [0; VOTERS_MAX];
            let mut len = 0;
            for ms in half.iter().filter_map(|&member| time_ms(member)) {
                *times_ms.get_mut(len)? = ms;
                len += 1;
            }
            let times_ms = &mut times_ms[..len];
            times_ms.sort_unstable_by(|a, b| b.cmp(a));
            reached_ms = reached_ms.min(*times_ms.get(half.len() / 2)?);
        }
        Some(reached_ms)
    }

    fn halves(&self) -> impl Iterator<Item = &BTreeSet<MemberId>> {
        std::iter::once(&self.voters).chain(&self.joint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::Dense;

    fn members(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    fn membership(voters: &[u64], joint: Option<&[u64]>) -> Membership {
        Membership {
            id: MembershipId(LogIndex(7)),
            voters: members(voters),
            joint: joint.map(members),
        }
    }

    /// The slow obvious version: the latest time whose reachers are a majority.
    fn oracle(membership: &Membership, times: &[Option<u64>]) -> Option<u64> {
        let time = |member: MemberId| times.get(member.index()).copied().flatten();
        let mut all: Vec<u64> = times.iter().flatten().copied().collect();
        all.sort_unstable();
        all.into_iter().rev().find(|&ms| {
            membership.is_majority(|member| time(member).is_some_and(|reached| reached >= ms))
        })
    }

    #[test]
    fn majorities_of_every_small_set_and_time() {
        let values = [None, Some(10), Some(20), Some(30)];
        let shapes: [(&[u64], Option<&[u64]>); 7] = [
            (&[], None),
            (&[0], None),
            (&[0, 1], None),
            (&[0, 1, 2], None),
            (&[0, 1, 2, 3], None),
            (&[0, 1, 2], Some(&[2, 3])),
            (&[0], Some(&[1, 2, 3])),
        ];
        for (voters, joint) in shapes {
            let membership = membership(voters, joint);
            for code in 0..256usize {
                let times: Vec<_> = (0..4).map(|at| values[code >> (2 * at) & 3]).collect();
                let fast = membership.majority_ms(|member| times[member.index()]);
                assert_eq!(fast, oracle(&membership, &times), "{membership:?} {times:?}");
            }
        }
    }

    #[test]
    fn a_change_needs_both_halves() {
        let change = membership(&[1, 2, 3], Some(&[3, 4, 5]));
        let has = |set: &'static [u64]| move |member: MemberId| set.contains(&member.0);
        assert!(!change.is_majority(has(&[1, 2])));
        assert!(!change.is_majority(has(&[4, 5])));
        assert!(change.is_majority(has(&[1, 3, 4])));
        assert!(change.is_voter(MemberId(5)) && !change.is_voter(MemberId(6)));
    }

    #[test]
    fn a_single_coordinator_is_alone_and_a_growing_one_is_not() {
        assert!(membership(&[1], None).is_alone());
        assert!(membership(&[1], Some(&[2])).is_alone());
        assert!(!membership(&[1], Some(&[1, 2, 3])).is_alone());
    }

    #[test]
    fn nobody_is_no_majority() {
        assert!(!membership(&[], None).is_majority(|_| true));
    }
}
