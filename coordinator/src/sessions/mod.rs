//! Control streams of agents, on the leader, and questions that agents answer on streams of their
//! own.
//!
//! **Invariants.** A node has one control stream; a newer one ends the one before. Streams are
//! open only while this member leads, and end with its leadership. A ticket is random, good once,
//! for one node, and for a short time.

mod batches;
mod control;
mod ticket;

pub(crate) use control::control;
pub(crate) use ticket::{Answer, AskError, Tickets, ask, ask_on, dial_back};

use futures_util::Stream;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use yard_common::id::{LeaderId, LeaseId, NodeId};
use yard_common::limits::DATA_CALLS_MAX;
use yard_proto::internal::DataCall;
use yard_proto::v1::NodeFacts;

/// What a call with many answers returns.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The control streams of this member.
#[derive(Default)]
pub(crate) struct Sessions(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    /// As whom this member leads; streams are refused while it does not.
    leads: Option<LeaderId>,
    streams: BTreeMap<NodeId, Entry>,
    /// Numbers the streams, so that one that ends late does not take its successor out.
    serial: u64,
    /// The lease that each agent said it holds, and when, by the boot clock. It outlives the
    /// stream: a node that was given up loses its stream with each of its reports.
    held: BTreeMap<NodeId, (LeaseId, u64)>,
    /// What nodes told of themselves last; of those with a stream.
    facts: BTreeMap<NodeId, NodeFacts>,
}

struct Entry {
    serial: u64,
    wake: Arc<Notify>,
    calls: mpsc::Sender<DataCall>,
    over: CancellationToken,
}

/// The place of one stream in the book. Leaves it when dropped.
pub(crate) struct Place {
    book: Arc<Mutex<Book>>,
    node: NodeId,
    serial: u64,
    /// As whom this member leads.
    pub(crate) leader: LeaderId,
    /// Somebody has something to tell.
    pub(crate) wake: Arc<Notify>,
    /// Questions of members.
    pub(crate) calls: mpsc::Receiver<DataCall>,
    /// Cancelled when the stream is to end.
    pub(crate) over: CancellationToken,
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// This member leads from now on: streams may come.
    pub(crate) fn open(&self, leader: LeaderId) {
        let mut book = lock(&self.0);
        book.leads = Some(leader);
        book.held.clear();
    }

    /// It leads no more: all streams end.
    pub(crate) fn close(&self) {
        let mut book = lock(&self.0);
        book.leads = None;
        book.facts.clear();
        for entry in std::mem::take(&mut book.streams).into_values() {
            entry.over.cancel();
        }
    }

    /// The stream of a node begins, and ends the one before. None while this member does not lead.
    pub(crate) fn enter(&self, node: NodeId) -> Option<Place> {
        let mut book = lock(&self.0);
        let leader = book.leads?;
        book.serial += 1;
        let (calls, asked) = mpsc::channel(DATA_CALLS_MAX);
        let (serial, wake, over) = (book.serial, Arc::new(Notify::new()), CancellationToken::new());
        let entry = Entry { serial, wake: Arc::clone(&wake), calls, over: over.clone() };
        if let Some(before) = book.streams.insert(node, entry) {
            before.over.cancel();
        }
        drop(book);
        Some(Place { book: Arc::clone(&self.0), node, serial, leader, wake, calls: asked, over })
    }

    /// The stream of a node has something to tell.
    pub(crate) fn wake(&self, node: NodeId) {
        if let Some(entry) = lock(&self.0).streams.get(&node) {
            entry.wake.notify_one();
        }
    }

    /// Every stream may have something to tell.
    pub(crate) fn wake_all(&self) {
        lock(&self.0).streams.values().for_each(|entry| entry.wake.notify_one());
    }

    /// Hands a question to the stream of a node. False if there is none, or it has too many.
    pub(crate) fn call(&self, node: NodeId, call: DataCall) -> bool {
        let book = lock(&self.0);
        book.streams.get(&node).is_some_and(|entry| entry.calls.try_send(call).is_ok())
    }

    /// An agent says which lease it holds.
    pub(crate) fn hold(&self, node: NodeId, lease: Option<LeaseId>, now_ms: u64) {
        let held = &mut lock(&self.0).held;
        match lease {
            Some(lease) => held.insert(node, (lease, now_ms)),
            None => held.remove(&node),
        };
    }

    /// The lease that an agent said it holds, and when.
    pub(crate) fn held(&self, node: NodeId) -> Option<(LeaseId, u64)> {
        lock(&self.0).held.get(&node).copied()
    }

    /// A node tells what it is like.
    pub(crate) fn learn(&self, node: NodeId, facts: NodeFacts) {
        let mut book = lock(&self.0);
        if book.streams.contains_key(&node) {
            book.facts.insert(node, facts);
        }
    }

    /// What a node told last.
    pub(crate) fn facts(&self, node: NodeId) -> Option<NodeFacts> {
        lock(&self.0).facts.get(&node).cloned()
    }

    /// What nodes told, each handed to `take` in turn.
    pub(crate) fn each_facts(&self, mut take: impl FnMut(NodeId, &NodeFacts)) {
        for (node, facts) in &lock(&self.0).facts {
            take(*node, facts);
        }
    }

    /// How many streams are open.
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).streams.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = lock(&self.book);
        if book.streams.get(&self.node).is_some_and(|entry| entry.serial == self.serial) {
            book.streams.remove(&self.node);
            book.facts.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::MemberId;

    const NODE: NodeId = NodeId(4);
    const LEADER: LeaderId = LeaderId { term: 3, member: MemberId(1) };

    #[test]
    fn a_newer_stream_ends_the_one_before_and_not_the_other_way_round() {
        let sessions = Sessions::default();
        assert!(sessions.enter(NODE).is_none(), "it does not lead");
        sessions.open(LEADER);
        let first = sessions.enter(NODE).unwrap();
        let second = sessions.enter(NODE).unwrap();
        assert!(first.over.is_cancelled() && !second.over.is_cancelled());
        drop(first);
        assert!(sessions.call(NODE, DataCall::default()), "the second one is still there");
        drop(second);
        assert!(!sessions.call(NODE, DataCall::default()));
    }

    #[test]
    fn all_streams_end_with_the_leadership() {
        let sessions = Sessions::default();
        sessions.open(LEADER);
        let place = sessions.enter(NODE).unwrap();
        sessions.hold(NODE, Some(LeaseId(2)), 77);
        assert_eq!(sessions.held(NODE), Some((LeaseId(2), 77)));
        sessions.close();
        assert!(place.over.is_cancelled() && sessions.enter(NODE).is_none());
        sessions.open(LEADER);
        assert_eq!(sessions.held(NODE), None, "what was said to an earlier leader is old");
    }

    #[test]
    fn questions_are_bounded() {
        let sessions = Sessions::default();
        sessions.open(LEADER);
        let place = sessions.enter(NODE).unwrap();
        for _ in 0..DATA_CALLS_MAX {
            assert!(sessions.call(NODE, DataCall::default()));
        }
        assert!(!sessions.call(NODE, DataCall::default()));
        drop(place);
    }
}
