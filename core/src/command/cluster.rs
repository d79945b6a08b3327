//! Commands about the cluster itself.

use minicbor::{Decode, Encode};
use std::collections::BTreeSet;
use yard_common::id::{ClusterId, FeatureLevel, Incarnation, MemberId};

/// Life of the cluster itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Cluster {
    /// The first command of a log: names the cluster and its first administrator, and makes the
    /// workspace, pool and queue `default`.
    #[n(0)]
    Initialise {
        /// The new cluster.
        #[n(0)]
        cluster: ClusterId,
        /// Name of the first administrator.
        #[n(1)]
        admin: String,
        /// Its unix login.
        #[n(2)]
        unix: Option<String>,
    },
    /// The leader of the envelope begins; commands under earlier ones are refused from here on.
    #[n(1)]
    LeaderStarted,
    /// Lets due timers fire. Proposed when the next one is due.
    #[n(2)]
    Tick,
    /// The cluster was restored from a backup: a new life, in which every old fence, assignment
    /// and lease is void.
    #[n(3)]
    Restored {
        /// The life, which no restore ever gave before.
        #[n(0)]
        incarnation: Incarnation,
        /// Time since the backup, in milliseconds by clocks on the wall. So many more ids are left
        /// out.
        #[n(1)]
        after_ms: u64,
    },
    /// Every member understands a level now; never goes back.
    #[n(4)]
    RaiseFeatureLevel(#[n(0)] Raise),
    /// The voting members from this position of the log on. Proposed by nobody: every member
    /// derives it from the membership entry of the log.
    #[n(5)]
    Members {
        /// The voters; during a change, the old ones.
        #[n(0)]
        voters: BTreeSet<MemberId>,
        /// The new voters, during a change.
        #[n(1)]
        joint: Option<BTreeSet<MemberId>>,
    },
    /// A member that has joined is to vote, also if that makes the number of voters even.
    #[n(6)]
    AddMember(#[n(0)] MemberId),
    /// A member is to leave for good. The leader takes it out; the last voter stays.
    #[n(7)]
    RemoveMember(#[n(0)] MemberId),
    /// A member that was to leave is in the membership of the log no more.
    #[n(8)]
    MemberLeft(#[n(0)] MemberId),
}

/// A higher feature level, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Raise {
    /// The level.
    #[n(0)]
    pub level: FeatureLevel,
    /// The version of the program that asked for it: what a member of an older one is told.
    #[n(1)]
    pub version: String,
    /// Those that said just before that they understand the level.
    #[n(2)]
    pub understood_by: BTreeSet<MemberId>,
}
