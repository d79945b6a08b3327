//! Which members keep a copy of what the ranks of a job write.

use yard_common::id::{JobId, MemberId};

/// The members in the order in which they are to keep copies of a job's output; the first
/// `LOG_COPIES` do. Whoever looks for a copy asks all of them in this order, as members may have
/// come and gone since it was made.
///
/// Each member has a score for each job, so that jobs spread over the members, and few copies are
/// elsewhere after a change (rendezvous hashing: Thaler, Ravishankar 1998).
#[must_use]
pub fn copy_holders(job: JobId, members: impl IntoIterator<Item = MemberId>) -> Vec<MemberId> {
    let mut scored: Vec<(u64, MemberId)> =
        members.into_iter().map(|member| (mix(mix(job.0) ^ member.0), member)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.dedup();
    scored.into_iter().map(|(_, member)| member).collect()
}

/// Spreads the bits of a number (SplitMix64: Steele, Lea, Flood 2014).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn jobs_spread_over_the_members_and_stay_where_they_are() {
        let members = |count: u64| (1..=count).map(MemberId);
        let mut firsts = BTreeMap::new();
        for job in (1..=3_000).map(JobId) {
            let held = copy_holders(job, members(3));
            assert_eq!(held.len(), 3);
            *firsts.entry(held[0]).or_insert(0) += 1;
            // Whoever is left keeps the order; one more member comes in between.
            let fewer = copy_holders(job, members(3).filter(|member| *member != held[0]));
            assert_eq!(fewer, held[1..]);
            let mut more = copy_holders(job, members(4));
            more.retain(|member| *member != MemberId(4));
            assert_eq!(more, held);
        }
        assert!(firsts.values().all(|count| (900..1_100).contains(count)), "{firsts:?}");
    }
}
