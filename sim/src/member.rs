//! A member of the coordinator: its disk, its replica of the state, its part in the lease.

use crate::clock::{Clock, Us};
use crate::leader::Lead;
use crate::log::{Disk, NOBODY, Position};
use std::collections::BTreeSet;
use yard_common::id::MemberId;
use yard_core::lease::{Keeper, LeaseTimes};
use yard_core::scheduler::Cache;
use yard_core::state::State;

/// One member, running or not.
#[derive(Debug)]
pub struct Member {
    /// Its id, never used again.
    pub id: MemberId,
    /// Rises with each start; what belongs to an earlier life is ignored.
    pub life: u32,
    /// Whether it runs.
    pub up: bool,
    /// Whether it is part of the cluster: a spare one is not yet, a replaced one no more.
    pub enrolled: bool,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// When its disk is done with the batch that it flushes, and with the one that gathers
    /// meanwhile.
    pub disk_busy_us: (Us, Us),
    /// By how much its disk is slower than usual.
    pub disk_factor: u64,
    /// What it is in the consensus.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub hint: Option<usize>,
    /// When it heard of a leader last.
    pub heard_us: Us,
    /// The highest term that it has heard of: a campaign goes beyond it.
    pub term_seen: u64,
    /// The last entry up to which its log was compared with that of the leader it follows. Beyond
    /// it there may be entries of an earlier leader, which it must not acknowledge to this one.
    pub agreed: u64,
    /// The last entry that it knows to be committed.
    pub commit: u64,
    /// The last entry that it has applied.
    pub applied: Position,
    /// Its replica.
    pub state: State,
    /// Its part in the lease.
    pub keeper: Keeper,
    /// What its scheduler remembers.
    pub cache: Cache,
}

/// What a member is in the consensus.
#[derive(Debug)]
pub enum Role {
    /// It follows whoever leads.
    Follower,
    /// It wants to lead; these voted for it.
    Candidate(BTreeSet<MemberId>),
    /// It leads, as far as it knows.
    Leader(Box<Lead>),
}

impl Member {
    /// A member that never ran.
    #[must_use]
    pub fn new(id: MemberId, voters: &[MemberId], clock: Clock) -> Member {
        let state = State::default();
        let keeper = Keeper::new(id, state.membership.clone(), LeaseTimes::DEFAULT, 0);
        Member {
            id,
            life: 0,
            up: false,
            enrolled: false,
            clock,
            disk: Disk::new(voters),
            disk_busy_us: (0, 0),
            disk_factor: 1,
            role: Role::Follower,
            hint: None,
            heard_us: 0,
            term_seen: 0,
            agreed: 0,
            commit: 0,
            applied: Position { leader: NOBODY, index: 0 },
            state,
            keeper,
            cache: Cache::default(),
        }
    }

    /// Its leadership, if it leads.
    pub fn lead(&mut self) -> Option<&mut Lead> {
        match &mut self.role {
            Role::Leader(lead) => Some(lead),
            Role::Follower | Role::Candidate(_) => None,
        }
    }

    /// Whether it leads, and has seen its own barrier applied.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(&self.role, Role::Leader(lead) if lead.started)
    }

    /// Its boot clock.
    #[must_use]
    pub fn local_ms(&self, now_us: Us) -> u64 {
        self.clock.now_ms(now_us)
    }
}
