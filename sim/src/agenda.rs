//! What is to happen when: a heap with one total order, so that a run is the same every time.

use crate::clock::Us;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Events by time; those of one moment in the order in which they were entered.
#[derive(Debug)]
pub struct Agenda<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    entered: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at_us: Us,
    nth: u64,
    event: E,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Agenda { heap: BinaryHeap::new(), entered: 0 }
    }
}

impl<E> Agenda<E> {
    /// Enters an event.
    pub fn at(&mut self, at_us: Us, event: E) {
        self.entered += 1;
        self.heap.push(Reverse(Entry { at_us, nth: self.entered, event }));
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Us, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at_us, entry.event))
    }
}

impl<E> Entry<E> {
    fn key(&self) -> (Us, u64) {
        (self.at_us, self.nth)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_entry() {
        let mut agenda = Agenda::default();
        for (at_us, name) in [(5, "b"), (1, "a"), (5, "c")] {
            agenda.at(at_us, name);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(order, [(1, "a"), (5, "b"), (5, "c")]);
    }
}
