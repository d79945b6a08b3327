//! Chains: same-shape tasks of one array that run in turn on one allocation.
//!
//! A place in a chain is a *position*, 0 .. len. Ranges compress it, but every position is one
//! task with its own attempt number.

use minicbor::{Decode, Encode};
use std::fmt;
use yard_common::id::{AttemptNumber, TaskIndex, TaskRange};

/// Neighbouring tasks of a chain with the same attempt number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ChainLink {
    /// The tasks, in the order in which they run.
    #[n(0)]
    pub tasks: TaskRange,
    /// The attempt of each of them.
    #[n(1)]
    pub attempt: AttemptNumber,
}

/// Tasks that run in turn. A task that runs alone is a chain of one. Displays as `3#1,7-9#2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Chain(#[n(0)] pub Vec<ChainLink>);

impl Chain {
    /// The chain of one task.
    #[must_use]
    pub fn one(task: TaskIndex, attempt: AttemptNumber) -> Chain {
        Chain(vec![ChainLink { tasks: TaskRange::one(task), attempt }])
    }

    /// Number of tasks.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().fold(0, |sum: u32, link| sum.saturating_add(link.tasks.len))
    }

    /// Whether no task is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every position's task and attempt, in order.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskIndex, AttemptNumber)> + '_ {
        self.0.iter().flat_map(|link| link.tasks.indices().map(|task| (task, link.attempt)))
    }

    /// The tasks of the positions `from .. to`. What lies past the end is left out.
    #[must_use]
    pub fn slice(&self, from: u32, to: u32) -> Chain {
        Chain(self.links(from, to).collect())
    }

    /// The links of the positions `from .. to`, cut to them.
    fn links(&self, from: u32, to: u32) -> impl Iterator<Item = ChainLink> + '_ {
        let mut position = 0u32;
        self.0.iter().filter_map(move |link| {
            let skip = from.saturating_sub(position).min(link.tasks.len);
            let keep = to.saturating_sub(position).min(link.tasks.len);
            position = position.saturating_add(link.tasks.len);
            let first = link.tasks.first.saturating_add(skip);
            (skip < keep).then(|| {
                let tasks = TaskRange { first, len: keep - skip };
                ChainLink { tasks, attempt: link.attempt }
            })
        })
    }

    /// Whether these links are the tasks of the positions from one on.
    #[must_use]
    pub fn has(&self, from: u32, links: &[ChainLink]) -> bool {
        let len = links.iter().fold(0, |sum: u32, link| sum.saturating_add(link.tasks.len));
        self.links(from, from.saturating_add(len)).eq(links.iter().copied())
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, link) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}#{}", link.tasks, link.attempt)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_chain() -> impl Strategy<Value = Chain> {
        let link = (0u32..50, 1u32..5, 1u32..3).prop_map(|(first, len, attempt)| ChainLink {
            tasks: TaskRange { first, len },
            attempt: AttemptNumber(attempt),
        });
        prop::collection::vec(link, 0..6).prop_map(Chain)
    }

    #[test]
    fn chains_display_tasks_and_attempts() {
        let mut chain = Chain::one(3, AttemptNumber(1));
        chain.0.push(ChainLink { tasks: TaskRange::between(7, 10), attempt: AttemptNumber(2) });
        assert_eq!(chain.to_string(), "3#1,7-9#2");
        assert_eq!(chain.len(), 4);
        assert_eq!(chain.slice(1, 3).to_string(), "7-8#2");
        assert_eq!(chain.slice(4, 9), Chain::default());
    }

    proptest! {
        /// The oracle is the plain list of tasks.
        #[test]
        fn a_slice_is_that_of_the_plain_list(
            chain in any_chain(),
            from in 0u32..30,
            to in 0u32..30,
        ) {
            let plain: Vec<_> = chain.tasks().collect();
            let end = plain.len().min(to as usize);
            let expected = plain.get(from as usize..end).unwrap_or_default();
            let slice = chain.slice(from, to);
            prop_assert_eq!(slice.tasks().collect::<Vec<_>>(), expected);
            prop_assert!(chain.has(from, &slice.0));
            prop_assert_eq!(chain.len() as usize, plain.len());
        }
    }
}
