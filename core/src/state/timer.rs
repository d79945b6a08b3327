//! What is to happen at a time.
//!
//! The leader proposes a tick when the first timer is due; each command lets what is due fire,
//! so a late tick delays nothing else. A timer whose reason has gone finds nothing to do.

use crate::table::Ordered;
use minicbor::{Decode, Encode};
use yard_common::id::{AllocationId, JobId, NodeId, TaskIndex, TokenId};

/// What fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Timer {
    /// A job's `not_before` has come.
    #[n(0)]
    NotBefore(#[n(0)] JobId),
    /// Tasks of a job wait no longer, from this one on.
    #[n(1)]
    Backoff(#[n(0)] JobId, #[n(1)] TaskIndex),
    /// An allocation has not become ready, or has run for as long as it may.
    #[n(2)]
    Deadline(#[n(0)] AllocationId),
    /// A drain begins, or its deadline has come.
    #[n(3)]
    Drain(#[n(0)] NodeId),
    /// A maintenance lease ends.
    #[n(4)]
    Maintenance(#[n(0)] NodeId),
    /// A token ends.
    #[n(5)]
    Token(#[n(0)] TokenId),
    /// A job that another one waited for has ended: look at the waiting one.
    #[n(6)]
    Dependency(#[n(0)] JobId),
    /// A lost node holds attempts of jobs that tolerate silence: until now.
    #[n(7)]
    Tolerance(#[n(0)] NodeId),
    /// A cordoned node is asked to check itself.
    #[n(8)]
    Check(#[n(0)] NodeId),
    /// An attempt has been silent for longer than its job allows.
    #[n(9)]
    Stall(#[n(0)] AllocationId),
}

/// Timers by time, in `cluster_ms`.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Timers {
    #[n(0)]
    due: Ordered<(u64, Timer), ()>,
}

impl Timers {
    /// When the next one is due.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.due.first().map(|((at_ms, _), ())| *at_ms)
    }

    /// Whether this timer is set for this time.
    #[must_use]
    pub fn contains(&self, at_ms: u64, timer: Timer) -> bool {
        self.due.contains(&(at_ms, timer))
    }

    /// All timers in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Timer)> {
        self.due.iter().map(|((at_ms, timer), ())| (*at_ms, *timer))
    }

    /// Number of timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Sets a timer.
    pub(crate) fn set(&mut self, at_ms: u64, timer: Timer) {
        self.due.insert((at_ms, timer), ());
    }

    /// Takes a timer back.
    pub(crate) fn unset(&mut self, at_ms: u64, timer: Timer) {
        self.due.remove(&(at_ms, timer));
    }

    /// Takes the next timer that is due.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Timer> {
        let (at_ms, timer) = *self.due.first()?.0;
        if at_ms > now_ms {
            return None;
        }
        self.due.remove(&(at_ms, timer));
        Some(timer)
    }
}
