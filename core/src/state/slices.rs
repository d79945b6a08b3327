//! The state in slices, each with a hash of its own.
//!
//! The hash over replies and events shows when two members decide differently, and the digest
//! hashes a record with every command. Neither shows soon that something was damaged in memory
//! which nobody reads. So members also hash the whole state, slice by slice, and compare slices at
//! equal positions of the log. Every field of the state is in some slice.

use super::State;
use crate::encoding::hash_on;
use yard_common::id::Dense;

/// Jobs are most of a state: they are cut into so many slices, by their ids.
const JOB_SLICES: u16 = 64;

/// Lists the fields that are a slice each.
macro_rules! fields {
    ($($field:ident),+ $(,)?) => {
        /// Their names, in the order of their slices.
        const FIELDS: &[&str] = &[$(stringify!($field)),+];

        /// The hash of one of them.
        fn hash_of_field(state: &State, nth: u16) -> u64 {
            // A new field of the state must be in some slice.
            let State { jobs: _, $($field),+ } = state;
            let mut left = nth;
            $(
                if left == 0 {
                    return hash_on(0, $field);
                }
                left -= 1;
            )+
            unreachable!("there are {} fields, and this is number {nth}: {left}", FIELDS.len())
        }
    };
}

fields! {
    cluster, incarnation, feature_level, leader, membership, applied, clock, history_hash, digest,
    workspaces, experiments, experiment_names, principals, tokens, revocations, secrets, pools,
    queues, settings, mounts, mount_names, holdings, nodes, pending, dependents, ended, shapes,
    allocations, reservations, dedup, timers, usage, members, member_last,
}

/// How many slices a state has.
pub const SLICES: u16 = JOB_SLICES + FIELDS.len() as u16;

/// What a slice holds, for people.
#[must_use]
pub fn slice_name(slice: u16) -> String {
    match slice.checked_sub(JOB_SLICES) {
        None => format!("jobs, part {} of {JOB_SLICES}", slice + 1),
        Some(field) => FIELDS.get(usize::from(field)).map_or("nothing", |name| name).to_string(),
    }
}

impl State {
    /// The hash of one slice. Equal states have equal hashes.
    ///
    /// # Panics
    /// If there is no such slice: callers count to [`SLICES`].
    #[must_use]
    pub fn slice_hash(&self, slice: u16) -> u64 {
        match slice.checked_sub(JOB_SLICES) {
            None => self.hash_of_jobs(u64::from(slice)),
            Some(field) => hash_of_field(self, field),
        }
    }

    fn hash_of_jobs(&self, slice: u64) -> u64 {
        let jobs = self.jobs.next_id().0;
        let bound = |slice: u64| {
            let share = u128::from(jobs) * u128::from(slice) / u128::from(JOB_SLICES);
            u64::try_from(share).unwrap_or(jobs)
        };
        let (from, end) = (bound(slice), bound(slice + 1));
        let first = Dense::from_index(usize::try_from(from).unwrap_or(usize::MAX));
        let within = self.jobs.iter_from(first).take_while(|(id, _)| id.0 < end);
        within.fold(jobs, |hash, (id, job)| hash_on(hash, &(id, job)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::{FeatureLevel, LogIndex};

    fn hashes(state: &State) -> Vec<u64> {
        (0..SLICES).map(|slice| state.slice_hash(slice)).collect()
    }

    /// The names of slices that differ.
    fn differ(a: &State, b: &State) -> Vec<String> {
        let pairs = hashes(a).into_iter().zip(hashes(b));
        let odd = pairs.enumerate().filter(|(_, (a, b))| a != b);
        odd.map(|(nth, _)| slice_name(nth as u16)).collect()
    }

    #[test]
    fn a_field_that_differs_shows_in_its_slice_alone() {
        let state = State::default();
        assert!(differ(&state, &state.clone()).is_empty());
        let mut other = state.clone();
        other.applied = LogIndex(7);
        assert_eq!(differ(&state, &other), ["applied"]);
        other = State { feature_level: FeatureLevel(3), ..state.clone() };
        assert_eq!(differ(&state, &other), ["feature_level"]);
        let mut other = state.clone();
        other.settings.insert("a".into(), "b".into());
        assert_eq!(differ(&state, &other), ["settings"]);
        assert_eq!(slice_name(SLICES - 1), "member_last");
        assert_eq!(slice_name(63), "jobs, part 64 of 64");
    }
}
