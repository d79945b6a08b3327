//! Records by dense id, in pages behind reference counts.
//!
//! Three levels: a root of branches, branches of leaves, leaves of records. A change copies at
//! most one leaf, one branch and the root's list of branches, and only what a clone shares.
//!
//! A restore from a backup skips ids by the million. Such a hole is a pair of numbers in front of
//! the root, and costs nothing else.

use super::Ordered;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};
use std::marker::PhantomData;
use std::sync::Arc;
use yard_common::id::Dense;

/// Records of a leaf. Small, since a change under a held clone copies a whole leaf.
const LEAF: usize = 16;
/// Leaves of a branch.
const BRANCH: usize = 64;

/// From how many missing branches on a gap is a hole.
const HOLE_LEAST: usize = 64;
/// Holes of a table; beyond them a gap takes its place in the root, as a short one does.
const HOLES_MAX: usize = 64;

/// Branches that the root leaves out.
#[derive(Clone, Copy, Debug)]
struct Hole {
    first: usize,
    len: usize,
}

type Leaf<T> = [Option<T>; LEAF];
type Branch<T> = [Option<Arc<Leaf<T>>>; BRANCH];

/// Records by dense id. The table mints the ids: in rising order, never one twice.
#[derive(Clone, Debug)]
pub struct Table<K, T> {
    root: Arc<Vec<Option<Arc<Branch<T>>>>>,
    /// Ascending.
    holes: Arc<[Hole]>,
    /// Index of the next record.
    next: usize,
    /// Records that are present.
    len: usize,
    key: PhantomData<K>,
}

/// Where a record lives: branch, leaf, slot.
fn place(index: usize) -> (usize, usize, usize) {
    (index / (LEAF * BRANCH), index / LEAF % BRANCH, index % LEAF)
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        let (root, holes) = (Arc::default(), Arc::from([]));
        Table { root, holes, next: 0, len: 0, key: PhantomData }
    }
}

impl<K: Dense, T: Clone> Table<K, T> {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id that the next [`Table::push`] returns.
    #[must_use]
    pub fn next_id(&self) -> K {
        K::from_index(self.next)
    }

    /// The record.
    #[must_use]
    pub fn get(&self, id: K) -> Option<&T> {
        let (branch, leaf, slot) = place(id.index());
        self.branch(branch)?[leaf].as_ref()?[slot].as_ref()
    }

    /// Where the root has a branch.
    fn spot(&self, branch: usize) -> Option<usize> {
        let mut spot = branch;
        for hole in self.holes.iter().take_while(|hole| hole.first <= branch) {
            if branch - hole.first < hole.len {
                return None;
            }
            spot -= hole.len;
        }
        Some(spot)
    }

    /// Which branch the root has at a spot.
    fn number(&self, spot: usize) -> usize {
        let passed = |branch: usize, hole: &Hole| match branch >= hole.first {
            true => branch + hole.len,
            false => branch,
        };
        self.holes.iter().fold(spot, passed)
    }

    fn branch(&self, branch: usize) -> Option<&Arc<Branch<T>>> {
        self.root.get(self.spot(branch)?)?.as_ref()
    }

    /// Mints no id below this one any more.
    pub fn skip_to(&mut self, id: K) {
        self.next = self.next.max(id.index());
    }

    /// The record, to change it. Copies what a clone shares.
    #[must_use]
    pub fn get_mut(&mut self, id: K) -> Option<&mut T> {
        let (branch, leaf, slot) = place(id.index());
        self.get(id)?;
        let spot = self.spot(branch)?;
        let branch = Arc::make_mut(&mut self.root).get_mut(spot)?.as_mut()?;
        Arc::make_mut(Arc::make_mut(branch)[leaf].as_mut()?)[slot].as_mut()
    }

    /// Whether there is such a record.
    #[must_use]
    pub fn contains(&self, id: K) -> bool {
        self.get(id).is_some()
    }

    /// Adds a record under a new id.
    pub fn push(&mut self, record: T) -> K {
        let id = self.next_id();
        self.put(self.next, record);
        id
    }

    /// Places a record at or after the next index; used by `push` and by decoding.
    fn put(&mut self, index: usize, record: T) {
        assert!(index >= self.next, "record {index} placed before the next, {}", self.next);
        let (branch, leaf, slot) = place(index);
        let first = self.number(self.root.len());
        if branch >= first + HOLE_LEAST && self.holes.len() < HOLES_MAX {
            let hole = Hole { first, len: branch - first };
            self.holes = self.holes.iter().copied().chain([hole]).collect();
        }
        let spot = self.spot(branch).expect("holes end before what is placed");
        let root = Arc::make_mut(&mut self.root);
        if root.len() <= spot {
            root.resize(spot + 1, None);
        }
        let branch = root[spot].get_or_insert_with(|| Arc::new([const { None }; BRANCH]));
        let leaf =
            Arc::make_mut(branch)[leaf].get_or_insert_with(|| Arc::new([const { None }; LEAF]));
        Arc::make_mut(leaf)[slot] = Some(record);
        self.next = index + 1;
        self.len += 1;
    }

    /// Takes a record out; its id is not used again. Empty pages are given back.
    pub fn remove(&mut self, id: K) -> Option<T> {
        self.get(id)?;
        let (b, l, slot) = place(id.index());
        let b = self.spot(b)?;
        let root = Arc::make_mut(&mut self.root);
        let branch = Arc::make_mut(root[b].as_mut()?);
        let leaf = Arc::make_mut(branch[l].as_mut()?);
        let record = leaf[slot].take();
        self.len -= 1;
        if leaf.iter().all(Option::is_none) {
            branch[l] = None;
            if branch.iter().all(Option::is_none) {
                root[b] = None;
            }
        }
        record
    }

    /// All records in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.iter_from(K::from_index(0))
    }

    /// The records from an id on, in order.
    pub fn iter_from(&self, from: K) -> impl Iterator<Item = (K, &T)> {
        let from = from.index();
        let first_branch = place(from).0;
        // A hole has no spot: what comes before it is skipped below.
        let first_spot = self.spot(first_branch).unwrap_or(0);
        let branches = self.root.iter().enumerate().skip(first_spot);
        branches
            .filter_map(|(spot, branch)| Some((self.number(spot), branch.as_ref()?)))
            .skip_while(move |(b, _)| *b < first_branch)
            .flat_map(|(b, branch)| {
                branch
                    .iter()
                    .enumerate()
                    .filter_map(move |(l, leaf)| Some(((b * BRANCH + l) * LEAF, leaf.as_ref()?)))
            })
            .skip_while(move |(base, _)| base + LEAF <= from)
            .flat_map(|(base, leaf)| {
                leaf.iter().enumerate().filter_map(move |(s, r)| Some((base + s, r.as_ref()?)))
            })
            .skip_while(move |(index, _)| *index < from)
            .map(|(index, record)| (K::from_index(index), record))
    }

    /// The records before an id, from the highest one down.
    pub fn iter_before(&self, end: K) -> impl Iterator<Item = (K, &T)> {
        let end = end.index();
        let branches = self.root.iter().enumerate().rev();
        branches
            .filter_map(|(spot, branch)| Some((self.number(spot), branch.as_ref()?)))
            .skip_while(move |(b, _)| b * BRANCH * LEAF >= end)
            .flat_map(|(b, branch)| {
                let leaves = branch.iter().enumerate().rev();
                leaves.filter_map(move |(l, leaf)| Some(((b * BRANCH + l) * LEAF, leaf.as_ref()?)))
            })
            .flat_map(|(base, leaf)| {
                let records = leaf.iter().enumerate().rev();
                records.filter_map(move |(s, r)| Some((base + s, r.as_ref()?)))
            })
            .skip_while(move |(index, _)| *index >= end)
            .map(|(index, record)| (K::from_index(index), record))
    }

    /// The ids whose record may differ from an older version of this table: those on pages that
    /// the two do not share. Costs a comparison of pointers per page.
    pub fn changed_since(&self, older: &Table<K, T>, mut each: impl FnMut(K)) {
        let (mut ours, mut theirs) = (0, 0);
        loop {
            let left = (ours < self.root.len()).then(|| self.number(ours));
            let right = (theirs < older.root.len()).then(|| older.number(theirs));
            let Some(b) = left.into_iter().chain(right).min() else { return };
            ours += usize::from(left == Some(b));
            theirs += usize::from(right == Some(b));
            let (new, old) = (self.branch(b), older.branch(b));
            if same(new, old) {
                continue;
            }
            for l in 0..BRANCH {
                let new = new.and_then(|branch| branch[l].as_ref());
                let old = old.and_then(|branch| branch[l].as_ref());
                if same(new, old) {
                    continue;
                }
                for s in 0..LEAF {
                    let present =
                        |leaf: Option<&Arc<Leaf<T>>>| leaf.is_some_and(|l| l[s].is_some());
                    if present(new) || present(old) {
                        each(K::from_index((b * BRANCH + l) * LEAF + s));
                    }
                }
            }
        }
    }
}

/// Whether both are the same page, or both absent.
fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl<K: Dense, T: Clone> std::ops::Index<K> for Table<K, T> {
    type Output = T;

    /// The record.
    ///
    /// # Panics
    /// If there is none: the caller took the id from another table that must agree with this one.
    fn index(&self, id: K) -> &T {
        self.get(id).unwrap_or_else(|| panic!("no record {id}: tables disagree"))
    }
}

impl<K: Dense, T: Clone> std::ops::IndexMut<K> for Table<K, T> {
    fn index_mut(&mut self, id: K) -> &mut T {
        self.get_mut(id).unwrap_or_else(|| panic!("no record {id}: tables disagree"))
    }
}

impl<C, K: Dense, T: Clone + Encode<C>> Encode<C> for Table<K, T> {
    /// `[next, [index, record, index, record, ..]]`
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.u64(self.next as u64)?.array(2 * self.len as u64)?;
        for (id, record) in self.iter() {
            e.u64(id.index() as u64)?;
            record.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C, K: Dense, T: Clone + Decode<'b, C>> Decode<'b, C> for Table<K, T> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let bad = DecodeError::message;
        let mut table = Table::default();
        if d.array()? != Some(2) {
            return Err(bad("a table is an array of two"));
        }
        let next = d.u64()? as usize;
        let items = d.array()?.ok_or_else(|| bad("a table has a length"))?;
        for _ in 0..items / 2 {
            let index = d.u64()? as usize;
            if index < table.next || index >= next {
                return Err(bad("record ids of a table must rise and stay below the next"));
            }
            table.put(index, T::decode(d, ctx)?);
        }
        table.next = next;
        Ok(table)
    }
}

/// Records that also have a unique name within the table.
#[derive(Clone, Debug)]
pub struct Named<K, T> {
    records: Table<K, T>,
    names: Ordered<Box<str>, K>,
}

impl<K, T> Default for Named<K, T> {
    fn default() -> Self {
        Named { records: Table::default(), names: Ordered::default() }
    }
}

impl<K: Dense, T: Clone> Named<K, T> {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records by id.
    #[must_use]
    pub fn records(&self) -> &Table<K, T> {
        &self.records
    }

    /// The id that has this name, compared byte for byte.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<K> {
        self.names.get_by(|key| (**key).cmp(name)).copied()
    }

    /// The record.
    #[must_use]
    pub fn get(&self, id: K) -> Option<&T> {
        self.records.get(id)
    }

    /// The record, to change it.
    #[must_use]
    pub fn get_mut(&mut self, id: K) -> Option<&mut T> {
        self.records.get_mut(id)
    }

    /// Adds a record under a new id.
    ///
    /// # Panics
    /// If the name is taken: the caller has asked with [`Named::find`].
    pub fn push(&mut self, name: &str, record: T) -> K {
        let id = self.records.push(record);
        let taken = self.names.insert(name.into(), id);
        assert!(taken.is_none(), "name {name} given twice");
        id
    }

    /// Mints no id below this one any more.
    pub fn skip_to(&mut self, id: K) {
        self.records.skip_to(id);
    }

    /// The id that the next [`Named::push`] returns.
    #[must_use]
    pub fn next_id(&self) -> K {
        self.records.next_id()
    }

    /// Takes a record out and frees its name.
    pub fn remove(&mut self, id: K, name: &str) -> Option<T> {
        let record = self.records.remove(id)?;
        let freed = self.names.remove(&Box::from(name));
        assert!(freed == Some(id), "name {name} did not belong to {id}");
        Some(record)
    }

    /// All records in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.records.iter()
    }

    /// All names with their ids, in the order of the names.
    pub fn names(&self) -> impl Iterator<Item = (&str, K)> {
        self.names.iter().map(|(name, id)| (&**name, *id))
    }
}

impl<K: Dense, T: Clone> std::ops::Index<K> for Named<K, T> {
    type Output = T;

    fn index(&self, id: K) -> &T {
        &self.records[id]
    }
}

impl<K: Dense, T: Clone> std::ops::IndexMut<K> for Named<K, T> {
    fn index_mut(&mut self, id: K) -> &mut T {
        &mut self.records[id]
    }
}

impl<C, K: Dense + Encode<C>, T: Clone + Encode<C>> Encode<C> for Named<K, T> {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?;
        self.records.encode(e, ctx)?;
        self.names.encode(e, ctx)
    }
}

impl<'b, C, K: Dense + Decode<'b, C>, T: Clone + Decode<'b, C>> Decode<'b, C> for Named<K, T> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        if d.array()? != Some(2) {
            return Err(DecodeError::message("a named table is an array of two"));
        }
        Ok(Named { records: Decode::decode(d, ctx)?, names: Decode::decode(d, ctx)? })
    }
}
