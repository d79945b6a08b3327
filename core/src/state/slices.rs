//! The state in slices, each with a hash of its own.
//!
//! The hash over replies and events shows when two members decide differently, and the digest
//! hashes a record with every command. Neither shows soon that something was damaged in memory
//! which nobody reads. So members also hash the whole state, slice by slice, and compare slices at
//! equal positions of the log. Every field of the state is in some slice.
//!
//! **Invariant.** What is hashed, and in which order, depends on the feature level alone: members
//! of two versions hash alike as long as the level is the same. Each way to hash has a number, the
//! schema, which goes along with every hash, and hashes of two schemas are never compared
//! (docs/adr/0014). `core/tests/schema.rs` fails if a schema changes.

use super::State;
use crate::encoding::hash_on;
use minicbor::{Decode, Encode};
use yard_common::id::{Dense, FeatureLevel};

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
    allocations, reservations, dedup, timers, usage, members, member_last, level_version,
}

/// For each schema the level from which it holds, and how many of the fields it hashes. Fields are
/// only ever added, at the end: a later schema goes on where the one before it ends.
const SCHEMAS: &[(FeatureLevel, u16)] = &[(FeatureLevel(0), 35)];

/// How the state is hashed at a feature level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Schema {
    /// Its number, from 1.
    #[n(0)]
    pub number: u16,
    /// How many slices a state has.
    #[n(1)]
    pub slices: u16,
}

impl Schema {
    /// That of a level.
    #[must_use]
    pub fn of(level: FeatureLevel) -> Schema {
        let known = SCHEMAS.iter().take_while(|(from, _)| *from <= level);
        let (number, fields) =
            known.enumerate().last().map_or((0, 0), |(at, (_, fields))| (at as u16 + 1, *fields));
        Schema { number, slices: JOB_SLICES + fields }
    }
}

/// What a slice holds, for people.
#[must_use]
pub fn slice_name(slice: u16) -> String {
    match slice.checked_sub(JOB_SLICES) {
        None => format!("jobs, part {} of {JOB_SLICES}", slice + 1),
        Some(field) => FIELDS.get(usize::from(field)).map_or("nothing", |name| name).to_string(),
    }
}

impl State {
    /// How this state is hashed.
    #[must_use]
    pub fn schema(&self) -> Schema {
        Schema::of(self.feature_level)
    }

    /// The hash of one slice. Equal states have equal hashes.
    ///
    /// # Panics
    /// If there is no such slice: callers count to that of [`State::schema`].
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
        (0..state.schema().slices).map(|slice| state.slice_hash(slice)).collect()
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
        assert_eq!(slice_name(state.schema().slices - 1), "level_version");
        assert_eq!(slice_name(63), "jobs, part 64 of 64");
    }

    #[test]
    fn every_field_is_in_the_latest_schema_and_schemas_only_grow() {
        let (_, fields) = SCHEMAS.last().unwrap();
        assert_eq!(usize::from(*fields), FIELDS.len(), "a new field needs a schema of its own");
        let grows = |pair: &[(FeatureLevel, u16)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        assert!(SCHEMAS.windows(2).all(grows));
        assert_eq!(SCHEMAS[0].0, FeatureLevel(0));
        assert_eq!(Schema::of(FeatureLevel(9)).number, SCHEMAS.len() as u16);
    }
}
