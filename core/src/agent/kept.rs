//! What an agent keeps on disk, and the changes to it.

use super::desired::{AssignmentId, Fence};
use super::record::Record;
use super::report::Report;
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, VecDeque};
use yard_common::id::{BootId, LeaseId, Sequence};

/// Everything that an agent must find again when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// The boot of the machine in which it was written last.
    #[n(0)]
    pub boot: BootId,
    /// The last set that was obeyed.
    #[n(1)]
    pub fence: Fence,
    /// The lease of that set.
    #[n(2)]
    pub lease: LeaseId,
    /// Assignments of that set, and others that are not reaped yet.
    #[n(3)]
    pub records: BTreeMap<AssignmentId, Record>,
    /// Reports that are not acknowledged, in order.
    #[n(4)]
    pub outbox: VecDeque<Report>,
    /// The last report ever made.
    #[n(5)]
    pub last: Sequence,
}

/// One change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// The machine has booted anew.
    #[n(0)]
    Booted(#[n(0)] BootId),
    /// A set is obeyed from here on.
    #[n(1)]
    Obeyed {
        /// Its fence.
        #[n(0)]
        fence: Fence,
        /// Its lease.
        #[n(1)]
        lease: LeaseId,
    },
    /// The record is new, or has changed.
    #[n(2)]
    Recorded(#[n(0)] Record),
    /// Nothing of the assignment is left, and nobody wants it.
    #[n(3)]
    Forgotten(#[n(0)] AssignmentId),
    /// A report was made.
    #[n(4)]
    Reported(#[n(0)] Report),
    /// Reports up to this one have reached the coordinator.
    #[n(5)]
    Acknowledged(#[n(0)] Sequence),
}

impl Kept {
    /// What an agent keeps that has just joined.
    ///
    /// An agent that lost its disk but not its identity starts here too, with the `fence` and the
    /// `last` sequence that the coordinator names once it has committed that the agent lost its
    /// memory, which ends every attempt on the node. Only then is it sure that a set beyond the
    /// fence holds nothing that ran here before.
    #[must_use]
    pub fn new(boot: BootId, fence: Fence, last: Sequence) -> Kept {
        Kept {
            boot,
            fence,
            lease: LeaseId(0),
            records: BTreeMap::new(),
            outbox: VecDeque::new(),
            last,
        }
    }

    /// Applies one change. The driver replays the changes that are on disk in order.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Booted(boot) => self.boot = boot,
            Change::Obeyed { fence, lease } => {
                assert!(fence > self.fence, "set {fence} is not above {}", self.fence);
                (self.fence, self.lease) = (fence, lease);
            }
            Change::Recorded(record) => {
                self.records.insert(record.id(), record);
            }
            Change::Forgotten(id) => {
                self.records.remove(&id);
            }
            Change::Reported(report) => {
                let (sequence, last) = (report.sequence, self.last);
                assert!(sequence > last, "report {sequence} comes after {last}");
                self.last = sequence;
                self.outbox.push_back(report);
            }
            Change::Acknowledged(up_to) => {
                while self.outbox.front().is_some_and(|report| report.sequence <= up_to) {
                    self.outbox.pop_front();
                }
            }
        }
    }
}
