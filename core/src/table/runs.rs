//! A status for each index of a range, as runs of equal statuses.
//!
//! A million tasks that are all alike are one run; memory grows with the number of changes from
//! one status to the next, not with the number of tasks.

use super::Ordered;
use minicbor::{Decode, Encode};
use yard_common::id::{TaskIndex, TaskRange};

/// A status for each index of a fixed range.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Runs<S: Clone> {
    /// The indices that have a status.
    #[n(0)]
    range: TaskRange,
    #[n(1)]
    content: Content<S>,
}

#[derive(Clone, Debug, Encode, Decode)]
enum Content<S: Clone> {
    /// One run: needs no memory of its own.
    #[n(0)]
    Uniform(#[n(0)] S),
    /// By first index of the run; a run ends where the next begins.
    #[n(1)]
    Split(#[n(0)] Ordered<TaskIndex, S>),
}

impl<S: Clone + Eq> Runs<S> {
    /// The same status for every index.
    #[must_use]
    pub fn new(range: TaskRange, status: S) -> Runs<S> {
        Runs { range, content: Content::Uniform(status) }
    }

    /// The indices that have a status.
    #[must_use]
    pub fn range(&self) -> TaskRange {
        self.range
    }

    /// Number of runs.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.content {
            Content::Uniform(_) => 1,
            Content::Split(map) => map.len(),
        }
    }

    /// The status of an index, or `None` outside the range.
    #[must_use]
    pub fn get(&self, index: TaskIndex) -> Option<&S> {
        if !self.range.contains(index) {
            return None;
        }
        match &self.content {
            Content::Uniform(status) => Some(status),
            Content::Split(map) => map.floor(&index).map(|(_, status)| status),
        }
    }

    /// The runs that overlap a range, cut to it, in order.
    pub fn within(&self, range: TaskRange) -> impl Iterator<Item = (TaskRange, &S)> {
        let start = range.first.max(self.range.first);
        let end = range.end().min(self.range.end());
        let (uniform, map) = match &self.content {
            Content::Uniform(status) => (Some(status), None),
            Content::Split(map) => (None, Some(map)),
        };
        let uniform =
            uniform.filter(|_| start < end).map(|status| (TaskRange::between(start, end), status));
        let from = map.and_then(|map| map.floor(&start)).map_or(start, |(first, _)| *first);
        let split = map.into_iter().flat_map(move |map| {
            let starts = map.range(from..end);
            let ends = map.range(from..).skip(1).map(|(first, _)| *first);
            starts.zip(ends.chain(std::iter::once(end))).filter(move |_| start < end).map(
                move |((first, status), next)| {
                    (TaskRange::between((*first).max(start), next.min(end)), status)
                },
            )
        });
        uniform.into_iter().chain(split)
    }

    /// All runs in order.
    pub fn iter(&self) -> impl Iterator<Item = (TaskRange, &S)> {
        self.within(self.range)
    }

    /// Gives a range of indices one status.
    ///
    /// # Panics
    /// If the range is not inside this one's.
    pub fn set(&mut self, range: TaskRange, status: S) {
        assert!(
            self.range.first <= range.first && range.end() <= self.range.end(),
            "tasks {range} set outside of {}",
            self.range
        );
        if range == self.range {
            self.content = Content::Uniform(status);
            return;
        }
        let map = match &mut self.content {
            Content::Uniform(old) if *old == status => return,
            Content::Uniform(old) => {
                let mut map = Ordered::default();
                map.insert(self.range.first, old.clone());
                self.content = Content::Split(map);
                match &mut self.content {
                    Content::Split(map) => map,
                    Content::Uniform(_) => unreachable!("just made a map"),
                }
            }
            Content::Split(map) => map,
        };
        if range.end() < self.range.end() {
            split_at(map, range.end());
        }
        split_at(map, range.first);
        while let Some(inner) = first_between(map, range.first + 1, range.end()) {
            map.remove(&inner);
        }
        map.insert(range.first, status);
        join_before(map, range.end());
        join_before(map, range.first);
        if map.len() == 1
            && let Some((_, status)) = map.first()
        {
            self.content = Content::Uniform(status.clone());
        }
    }
}

/// The first run that starts within `from .. end`.
fn first_between<S: Clone>(
    map: &Ordered<TaskIndex, S>,
    from: TaskIndex,
    end: TaskIndex,
) -> Option<TaskIndex> {
    map.range(from..end).next().map(|(first, _)| *first)
}

/// Makes a run start at an index.
fn split_at<S: Clone + Eq>(map: &mut Ordered<TaskIndex, S>, index: TaskIndex) {
    if let Some((first, status)) = map.floor(&index)
        && *first != index
    {
        let status = status.clone();
        map.insert(index, status);
    }
}

/// Joins the run that starts at an index with the one before it, if they are equal.
fn join_before<S: Clone + Eq>(map: &mut Ordered<TaskIndex, S>, index: TaskIndex) {
    let Some(status) = map.get(&index) else { return };
    let Some(before) = index.checked_sub(1) else { return };
    if map.floor(&before).is_some_and(|(_, left)| left == status) {
        map.remove(&index);
    }
}
