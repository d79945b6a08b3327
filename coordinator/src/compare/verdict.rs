//! Who is wrong when members differ: a pure function of who holds what.
//!
//! Among those that were heard, the largest group of members that hold the same is right, as far
//! as anybody can tell. Without a largest one it is the group of the leader: clients have been
//! answered from its state, and if it stopped, one that may be wrong would lead at once. Then the
//! others stop, so that nothing is committed any more without a majority that agrees.

use std::collections::{BTreeMap, BTreeSet};
use yard_common::id::MemberId;

/// What another member holds, next to one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The same.
    Same,
    /// Something else; members with the same number hold the same.
    Other(u64),
}

/// What follows for this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody differs.
    Agreed,
    /// Others differ, and are to stop.
    OthersAreOdd,
    /// As many hold something else, and others may know better. If nobody does, this member is
    /// the odd one.
    Undecided,
    /// This member is the odd one.
    Odd,
}

/// Judges. `voters`: whose word counts; `heard`: what the others hold, without this member.
pub(super) fn judge(
    own: MemberId,
    leader: Option<MemberId>,
    voters: &BTreeSet<MemberId>,
    heard: &BTreeMap<MemberId, Held>,
) -> Verdict {
    let count = |held: Held| heard.iter().filter(move |(id, h)| voters.contains(id) && **h == held);
    let with_us = count(Held::Same).count() + usize::from(voters.contains(&own));
    let others = heard.values().filter(|held| matches!(held, Held::Other(_)));
    let Some(largest) = others.map(|held| count(*held).count()).max() else {
        return Verdict::Agreed;
    };
    if largest != with_us {
        return if largest > with_us { Verdict::Odd } else { Verdict::OthersAreOdd };
    }
    // Several groups are as large: the leader's goes on, or else that of the lowest id.
    let of_largest = |held: &Held| *held == Held::Same || count(*held).count() == largest;
    let candidates = heard.iter().filter(|(id, held)| voters.contains(id) && of_largest(held));
    let candidates: BTreeSet<MemberId> =
        candidates.map(|(id, _)| *id).chain(voters.get(&own).copied()).collect();
    let chosen = leader.filter(|leader| candidates.contains(leader));
    let chosen = chosen.or_else(|| candidates.first().copied());
    match chosen.is_some_and(|chosen| chosen == own || heard.get(&chosen) == Some(&Held::Same)) {
        true => Verdict::OthersAreOdd,
        false if heard.len() + 1 < voters.len() => Verdict::Undecided,
        false => Verdict::Odd,
    }
}

#[cfg(test)]
mod tests {
    use super::Held::{Other, Same};
    use super::Verdict::{Agreed, Odd, OthersAreOdd, Undecided};
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    /// The verdict of each member of a cluster whose members hold these values; 0: not heard.
    fn all(values: &[u64], leader: u64) -> Vec<Verdict> {
        let voters: BTreeSet<MemberId> = (1..=values.len() as u64).map(MemberId).collect();
        let up = || (1..).zip(values).filter(|(_, value)| **value > 0);
        let verdict = |(own, value): (u64, &u64)| {
            let others = up().filter(|(id, _)| *id != own);
            let heard = others.map(|(id, other)| {
                (MemberId(id), if other == value { Same } else { Other(*other) })
            });
            judge(MemberId(own), Some(MemberId(leader)), &voters, &heard.collect())
        };
        up().map(verdict).collect()
    }

    #[test]
    fn the_odd_one_of_three_stops_whoever_leads() {
        for leader in 1..=3 {
            assert_eq!(all(&[7, 7, 7], leader), [Agreed; 3]);
            assert_eq!(all(&[7, 7, 8], leader), [OthersAreOdd, OthersAreOdd, Odd]);
            assert_eq!(all(&[8, 7, 7], leader), [Odd, OthersAreOdd, OthersAreOdd]);
        }
        let five = [OthersAreOdd, Odd, OthersAreOdd, Odd, OthersAreOdd];
        assert_eq!(all(&[7, 8, 7, 9, 7], 2), five);
    }

    #[test]
    fn of_two_opinions_the_leaders_counts_and_a_third_is_waited_for() {
        assert_eq!(all(&[7, 8], 1), [OthersAreOdd, Odd]);
        assert_eq!(all(&[7, 8], 2), [Odd, OthersAreOdd]);
        assert_eq!(all(&[7, 8, 0], 2), [Undecided, OthersAreOdd]);
        // The leader is the one that nobody hears.
        assert_eq!(all(&[7, 8, 0], 3), [OthersAreOdd, Undecided]);
        assert_eq!(all(&[7, 8, 9], 3), [Odd, Odd, OthersAreOdd]);
        assert_eq!(all(&[7, 7, 8, 8, 9], 5), [OthersAreOdd, OthersAreOdd, Odd, Odd, Odd]);
    }

    #[test]
    fn at_least_one_goes_on_and_no_two_that_differ() {
        // All ways in which five members hold three values, or are away.
        for code in 0..4_u64.pow(5) {
            let values: Vec<u64> = (0..5).map(|nth| code / 4_u64.pow(nth) % 4).collect();
            for leader in 1..=5 {
                let verdicts = all(&values, leader);
                let up = values.iter().filter(|value| **value > 0);
                let goes = up
                    .zip(&verdicts)
                    .filter(|(_, verdict)| matches!(verdict, Agreed | OthersAreOdd));
                let going: BTreeSet<u64> = goes.map(|(value, _)| *value).collect();
                let some = values.iter().any(|value| *value > 0);
                assert_eq!(going.len(), usize::from(some), "{values:?}, {leader} leads");
            }
        }
    }

    #[test]
    fn who_only_listens_has_no_say() {
        let heard = BTreeMap::from([(MemberId(1), Same), (MemberId(9), Other(1))]);
        assert_eq!(judge(MemberId(2), None, &ids(&[1, 2]), &heard), OthersAreOdd);
        let heard = BTreeMap::from([(MemberId(1), Other(1)), (MemberId(2), Other(1))]);
        assert_eq!(judge(MemberId(9), None, &ids(&[1, 2]), &heard), Odd);
    }
}
