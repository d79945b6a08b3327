//! The containers of the state against the slow, obvious versions of them, under clones that
//! must not change, and through their encoding.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use yard_common::id::{JobId, TaskRange};
use yard_core::table::{Ordered, Runs, Table};

#[derive(Clone, Debug)]
enum Step {
    Put(u16, u8),
    Remove(u16),
    Clone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..600u16, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        3 => (0..600u16).prop_map(Step::Remove),
        1 => Just(Step::Clone),
    ];
    vec(step, 0..1500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ordered_equals_btreemap(steps in steps(), from in 0..600u16, to in 0..600u16) {
        let mut map = Ordered::default();
        let mut oracle = BTreeMap::new();
        let mut clones = Vec::new();
        for step in steps {
            match step {
                Step::Put(k, v) => prop_assert_eq!(map.insert(k, v), oracle.insert(k, v)),
                Step::Remove(k) => prop_assert_eq!(map.remove(&k), oracle.remove(&k)),
                Step::Clone => clones.push((map.clone(), oracle.clone())),
            }
            prop_assert_eq!(map.len(), oracle.len());
        }
        clones.push((map, oracle));
        for (map, oracle) in clones {
            prop_assert!(map.iter().eq(oracle.iter()));
            if from <= to {
                prop_assert!(map.range(from..to).eq(oracle.range(from..to)));
                prop_assert!(map.range(from..=to).eq(oracle.range(from..=to)));
            }
            prop_assert_eq!(map.get(&from), oracle.get(&from));
            prop_assert_eq!(map.floor(&from), oracle.range(..=from).next_back());
            prop_assert_eq!(map.first(), oracle.first_key_value());
            prop_assert_eq!(map.last(), oracle.last_key_value());
            let bytes = minicbor::to_vec(&map).unwrap();
            let read: Ordered<u16, u8> = minicbor::decode(&bytes).unwrap();
            prop_assert!(read.iter().eq(oracle.iter()));
        }
    }

    #[test]
    fn table_equals_btreemap(steps in steps(), from in 0..600u64) {
        let mut table: Table<JobId, u8> = Table::default();
        let mut oracle = BTreeMap::new();
        let mut clones = Vec::new();
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    // Gaps, from none to far more than any table has records.
                    if k % 50 == 0 {
                        table.skip_to(JobId(table.next_id().0 + u64::from(k) * 5_000));
                    }
                    oracle.insert(table.push(v), v);
                }
                Step::Remove(k) => {
                    let nth = oracle.keys().nth(usize::from(k) % 60).copied();
                    let id = nth.unwrap_or(JobId(u64::from(k)));
                    prop_assert_eq!(table.get(id), oracle.get(&id));
                    prop_assert_eq!(table.remove(id), oracle.remove(&id));
                }
                Step::Clone => clones.push((table.clone(), oracle.clone())),
            }
        }
        for (old, old_oracle) in &clones {
            prop_assert!(old.iter().map(|(k, v)| (k, *v)).eq(old_oracle.clone()));
            let mut changed = Vec::new();
            table.changed_since(old, |id| changed.push(id));
            for id in oracle.keys().chain(old_oracle.keys()) {
                prop_assert!(oracle.get(id) == old_oracle.get(id) || changed.contains(id));
            }
        }
        // Somewhere among them, or in a gap.
        let nth = oracle.keys().nth(from as usize % 60).map_or(from, |id| id.0);
        let from = JobId((nth + from % 3 * 1_000).saturating_sub(from % 7));
        let before: Vec<_> = table.iter_before(from).map(|(k, v)| (k, *v)).collect();
        prop_assert!(before.into_iter().eq(oracle.range(..from).rev().map(|(k, v)| (*k, *v))));
        for id in oracle.keys() {
            prop_assert_eq!(table.get(*id), oracle.get(id));
        }
        prop_assert!(table.iter_from(from).map(|(k, v)| (k, *v)).eq(oracle.split_off(&from)));
        let bytes = minicbor::to_vec(&table).unwrap();
        let read: Table<JobId, u8> = minicbor::decode(&bytes).unwrap();
        prop_assert!(read.iter().eq(table.iter()));
        prop_assert_eq!(read.next_id(), table.next_id());
    }

    #[test]
    fn runs_equal_a_plain_vector(
        first in 0..5u32,
        len in 1..60u32,
        sets in vec((0..60u32, 1..60u32, 0..4u8), 0..60),
        ask in (0..70u32, 1..70u32),
    ) {
        let range = TaskRange { first, len };
        let mut runs = Runs::new(range, 0u8);
        let mut oracle = vec![0u8; len as usize];
        for (at, count, status) in sets {
            let at = first + at % len;
            let end = (at + count).min(range.end());
            runs.set(TaskRange::between(at, end), status);
            oracle[(at - first) as usize..(end - first) as usize].fill(status);
            let changes = oracle.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert_eq!(runs.count(), changes + 1, "runs are as few as can be");
        }
        for index in 0..70u32 {
            let expected = index.checked_sub(first).and_then(|i| oracle.get(i as usize));
            prop_assert_eq!(runs.get(index), expected);
        }
        let ask = TaskRange { first: ask.0, len: ask.1 };
        let mut seen = Vec::new();
        for (run, status) in runs.within(ask) {
            for index in run.indices() {
                seen.push((index, *status));
            }
        }
        let expected: Vec<_> = ask.indices().filter_map(|i| Some((i, *runs.get(i)?))).collect();
        prop_assert_eq!(seen, expected);
        let bytes = minicbor::to_vec(&runs).unwrap();
        let read: Runs<u8> = minicbor::decode(&bytes).unwrap();
        prop_assert!(read.iter().eq(runs.iter()));
    }
}
