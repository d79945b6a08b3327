//! The replicated log as one member has it on its disk.
//!
//! An entry holds the commands of one batch. A position is an index with the leader that wrote it
//! there: leaders are ordered by (term, member), as two of them may share a term.

use std::collections::VecDeque;
use std::rc::Rc;
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_core::command::{Command, Envelope};
use yard_core::lease::{Membership, MembershipId, PromiseRecord};

/// Below every leader.
pub const NOBODY: LeaderId = LeaderId { term: 0, member: MemberId(0) };

/// A place in the log and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Who wrote it.
    pub leader: LeaderId,
    /// Where.
    pub index: u64,
}

/// Before the first entry.
pub const START: Position = Position { leader: NOBODY, index: 0 };

/// One entry.
#[derive(Debug)]
pub struct Entry {
    /// Where and by whom.
    pub position: Position,
    /// Applied in order, all under the index of the entry.
    pub commands: Vec<(Envelope, Command)>,
    /// Present if this is a change of the membership.
    pub members: Option<Membership>,
}

/// A state, and what it stands for.
#[derive(Debug)]
pub struct Snapshot {
    /// The last entry in it.
    pub last: Position,
    /// The membership there.
    pub membership: Membership,
    /// The state.
    pub bytes: Vec<u8>,
}

/// What is durable of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    /// The vote.
    pub vote: LeaderId,
    /// The last entry.
    pub index: u64,
    /// Number of promises.
    pub promises: usize,
}

/// The disk of a member, the page cache included.
#[derive(Debug)]
pub struct Disk {
    /// Whom it voted for.
    pub vote: LeaderId,
    /// Entries after the snapshot.
    entries: VecDeque<Rc<Entry>>,
    /// The last entry before `entries`.
    base: Position,
    /// Memberships in the log, the latest last; never empty.
    memberships: Vec<Membership>,
    /// The latest snapshot.
    pub snapshot: Option<Rc<Snapshot>>,
    /// Promises about leases.
    pub promises: Vec<PromiseRecord>,
    /// How much of this survives a power cut.
    pub durable: Durable,
}

impl Disk {
    /// The disk of a member that starts for the first time.
    #[must_use]
    pub fn new(voters: &[MemberId]) -> Disk {
        let first = Membership::of(MembershipId(LogIndex(0)), voters.iter().copied());
        Disk {
            vote: NOBODY,
            entries: VecDeque::new(),
            base: START,
            memberships: vec![first],
            snapshot: None,
            promises: Vec::new(),
            durable: Durable { vote: NOBODY, index: 0, promises: 0 },
        }
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |entry| entry.position)
    }

    /// The last entry that only a snapshot has.
    #[must_use]
    pub fn base(&self) -> Position {
        self.base
    }

    /// An entry that the log still has.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<&Rc<Entry>> {
        self.entries.get(index.checked_sub(self.base.index + 1)? as usize)
    }

    /// Who wrote an index; none if it is unknown.
    #[must_use]
    pub fn position(&self, index: u64) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entry(index).map(|entry| entry.position)
    }

    /// The latest membership, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.memberships.last().expect("a disk is made with a membership")
    }

    /// Adds an entry at the end.
    pub fn append(&mut self, entry: Rc<Entry>) {
        assert_eq!(entry.position.index, self.last().index + 1, "the log has no holes");
        if let Some(members) = &entry.members {
            self.memberships.push(members.clone());
        }
        self.entries.push_back(entry);
    }

    /// Drops every entry after this index.
    pub fn truncate(&mut self, index: u64) {
        let keep = index.saturating_sub(self.base.index) as usize;
        self.entries.truncate(keep);
        self.durable.index = self.durable.index.min(index.max(self.base.index));
        while self.memberships.len() > 1 && self.membership().id.0.0 > index {
            self.memberships.pop();
        }
    }

    /// Keeps a snapshot, and drops the entries that are in it.
    pub fn compact(&mut self, snapshot: Rc<Snapshot>) {
        let last = snapshot.last;
        let known = self.position(last.index) == Some(last);
        while self.entries.front().is_some_and(|e| !known || e.position.index <= last.index) {
            self.entries.pop_front();
        }
        if !known {
            // Another history, or one too short: the snapshot stands for all of it.
            self.memberships.clear();
        }
        self.base = last;
        self.memberships.retain(|m| m.id > snapshot.membership.id);
        self.memberships.insert(0, snapshot.membership.clone());
        // A snapshot is renamed into place only after it was flushed.
        self.durable.index = self.durable.index.max(last.index).min(self.last().index);
        self.snapshot = Some(snapshot);
    }

    /// The power fails: of what was not flushed, `keep` entries happen to be there.
    pub fn lose_unsynced(&mut self, keep: u64) {
        self.vote = self.durable.vote;
        self.promises.truncate(self.durable.promises);
        let last = self.last().index;
        self.truncate((self.durable.index + keep).min(last));
        self.durable.index = self.last().index;
    }
}
