//! A sorted map in buckets behind reference counts.
//!
//! A directory of buckets, each a sorted run of entries. A change copies at most one bucket and
//! the directory, and only what a clone shares. Two flat levels hold millions of small entries
//! with fewer cache misses, and less memory, than a tree of nodes.

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};
use std::cmp::Ordering;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Entries of a bucket at most.
const BUCKET: usize = 128;

type Bucket<K, V> = Arc<Vec<(K, V)>>;
type Directory<K, V> = Vec<(K, Bucket<K, V>)>;

/// A sorted map, cloned in constant time.
#[derive(Clone, Debug)]
pub struct Ordered<K, V> {
    /// Buckets in order, none empty, each with a copy of its first key. Absent when empty, since
    /// most arrays never need a map.
    directory: Option<Arc<Directory<K, V>>>,
    len: usize,
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Ordered { directory: None, len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> Ordered<K, V> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn buckets(&self) -> &[(K, Bucket<K, V>)] {
        self.directory.as_ref().map_or(&[], |directory| directory.as_slice())
    }

    /// Bucket and position of the entry, or where it would be.
    fn locate(&self, order: impl Fn(&K) -> Ordering) -> (usize, Result<usize, usize>) {
        let buckets = self.buckets();
        let bucket = buckets.partition_point(|(first, _)| order(first).is_le()).saturating_sub(1);
        match buckets.get(bucket) {
            Some((_, entries)) => (bucket, entries.binary_search_by(|(key, _)| order(key))),
            None => (0, Err(0)),
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.get_by(|probe| probe.cmp(key))
    }

    /// The value of the key for which the order is `Equal`; the order must agree with that of
    /// the keys.
    #[must_use]
    pub fn get_by(&self, order: impl Fn(&K) -> Ordering) -> Option<&V> {
        let (bucket, at) = self.locate(order);
        let at = at.ok()?;
        Some(&self.buckets()[bucket].1[at].1)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, to change it.
    #[must_use]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (bucket, at) = self.locate(|probe| probe.cmp(key));
        let at = at.ok()?;
        let directory = Arc::make_mut(self.directory.as_mut()?);
        Some(&mut Arc::make_mut(&mut directory[bucket].1)[at].1)
    }

    /// Puts a value; returns the one that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (bucket, at) = self.locate(|probe| probe.cmp(&key));
        let directory = Arc::make_mut(self.directory.get_or_insert_with(Arc::default));
        let at = match at {
            Ok(at) => {
                let entry = &mut Arc::make_mut(&mut directory[bucket].1)[at];
                return Some(std::mem::replace(&mut entry.1, value));
            }
            Err(at) => at,
        };
        self.len += 1;
        if directory.is_empty() {
            directory.push((key.clone(), Arc::new(vec![(key, value)])));
            return None;
        }
        let full = directory[bucket].1.len() >= BUCKET;
        if full && at == BUCKET {
            // Rising keys fill buckets whole: a split in the middle would leave half of each empty.
            directory.insert(bucket + 1, (key.clone(), Arc::new(vec![(key, value)])));
            return None;
        }
        let (mut bucket, mut at) = (bucket, at);
        if full {
            let upper = Arc::make_mut(&mut directory[bucket].1).split_off(BUCKET / 2);
            directory.insert(bucket + 1, (upper[0].0.clone(), Arc::new(upper)));
            if at > BUCKET / 2 {
                (bucket, at) = (bucket + 1, at - BUCKET / 2);
            }
        }
        if at == 0 {
            directory[bucket].0 = key.clone();
        }
        Arc::make_mut(&mut directory[bucket].1).insert(at, (key, value));
        None
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (bucket, at) = self.locate(|probe| probe.cmp(key));
        let at = at.ok()?;
        let directory = Arc::make_mut(self.directory.as_mut()?);
        let entries = Arc::make_mut(&mut directory[bucket].1);
        let (_, value) = entries.remove(at);
        self.len -= 1;
        if let Some((first, _)) = entries.first() {
            if at == 0 {
                directory[bucket].0 = first.clone();
            }
            Self::merge(directory, bucket);
        } else {
            directory.remove(bucket);
        }
        if self.len == 0 {
            self.directory = None;
        }
        Some(value)
    }

    /// Joins a bucket with the next when both are nearly empty, so that removals give memory back.
    fn merge(directory: &mut Directory<K, V>, bucket: usize) {
        let room = |b: usize| directory.get(b).map_or(BUCKET, |(_, entries)| entries.len());
        if room(bucket) + room(bucket + 1) <= BUCKET / 2 {
            let (_, next) = directory.remove(bucket + 1);
            let entries = Arc::make_mut(&mut directory[bucket].1);
            entries.extend(next.iter().cloned());
        } else if entries_waste(&directory[bucket].1) {
            Arc::make_mut(&mut directory[bucket].1).shrink_to_fit();
        }
    }

    /// The first entry.
    #[must_use]
    pub fn first(&self) -> Option<(&K, &V)> {
        self.buckets().first().map(|(_, entries)| (&entries[0].0, &entries[0].1))
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<(&K, &V)> {
        let (_, entries) = self.buckets().last()?;
        entries.last().map(|(key, value)| (key, value))
    }

    /// The last entry at or before a key.
    #[must_use]
    pub fn floor(&self, key: &K) -> Option<(&K, &V)> {
        let (bucket, at) = self.locate(|probe| probe.cmp(key));
        let entry = match at {
            Ok(at) => &self.buckets()[bucket].1[at],
            // The directory leads to the last bucket that starts at or before the key.
            Err(0) => return None,
            Err(at) => &self.buckets()[bucket].1[at - 1],
        };
        Some((&entry.0, &entry.1))
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.range(..)
    }

    /// The entries within a range of keys, in order.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        let before_start = |key: &K| match range.start_bound() {
            Bound::Included(start) => key < start,
            Bound::Excluded(start) => key <= start,
            Bound::Unbounded => false,
        };
        let first = self.buckets().partition_point(|(key, _)| before_start(key)).saturating_sub(1);
        let skip = self
            .buckets()
            .get(first)
            .map_or(0, |(_, entries)| entries.partition_point(|(key, _)| before_start(key)));
        let end = range.end_bound().cloned();
        self.buckets()[first.min(self.buckets().len())..]
            .iter()
            .enumerate()
            .flat_map(move |(i, (_, entries))| &entries[if i == 0 { skip } else { 0 }..])
            .take_while(move |(key, _)| match &end {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            })
            .map(|(key, value)| (key, value))
    }
}

/// Whether a bucket holds much more memory than entries.
fn entries_waste<T>(entries: &Arc<Vec<T>>) -> bool {
    entries.capacity() > 8 && entries.len() * 4 < entries.capacity()
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Ordered<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for Ordered<K, V> {}

impl<C, K: Ord + Clone + Encode<C>, V: Clone + Encode<C>> Encode<C> for Ordered<K, V> {
    /// `[key, value, key, value, ..]`
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(2 * self.len as u64)?;
        for (key, value) in self.iter() {
            key.encode(e, ctx)?;
            value.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C, K, V> Decode<'b, C> for Ordered<K, V>
where
    K: Ord + Clone + Decode<'b, C>,
    V: Clone + Decode<'b, C>,
{
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let items = d.array()?.ok_or_else(|| DecodeError::message("a map has a length"))?;
        let mut left = usize::try_from(items / 2).map_err(DecodeError::message)?;
        let (mut directory, mut len) = (Directory::new(), 0);
        let mut last: Option<K> = None;
        while left > 0 {
            let count = left.min(BUCKET);
            let mut entries: Vec<(K, V)> = Vec::new();
            for _ in 0..count {
                let key = K::decode(d, ctx)?;
                let before = entries.last().map(|(key, _)| key).or(last.as_ref());
                if before.is_some_and(|before| *before >= key) {
                    return Err(DecodeError::message("keys of a map must rise"));
                }
                entries.push((key, V::decode(d, ctx)?));
            }
            last = entries.last().map(|(key, _)| key.clone());
            (left, len) = (left - count, len + count);
            directory.push((entries[0].0.clone(), Arc::new(entries)));
        }
        let directory = (len > 0).then(|| Arc::new(directory));
        Ok(Ordered { directory, len })
    }
}
