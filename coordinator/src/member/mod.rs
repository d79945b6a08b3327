//! What every member does, whether it leads or not, and what all parts of it share.

pub(crate) mod attempts;
pub(crate) mod barrier;
pub(crate) mod catch_up;
pub(crate) mod follow;
pub(crate) mod leases;
pub(crate) mod notebook;
pub(crate) mod plays;
pub(crate) mod recall;
pub(crate) mod recent;
mod successor;

use self::attempts::Attempts;
use self::barrier::Barrier;
use self::catch_up::CatchUp;
use self::leases::Leases;
use self::plays::Plays;
use self::recent::Recent;
use crate::build::Build;
use crate::certificate::Certificate;
use crate::copies::Copies;
use crate::counters::Counters;
use crate::env::Env;
use crate::pace::Pace;
use crate::peers::Peers;
use crate::proposer::{Handle, Leadership};
use crate::sessions::{Sessions, Tickets};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use yard_common::id::{ClusterId, Incarnation, LogIndex, MemberId};
use yard_common::spec::Features;
use yard_core::state::State;
use yard_proto::internal::{MemberAddress, Members};
use yard_runtime::identity::Authority;

/// The parts of a running member. Shared by all of its tasks and calls.
pub(crate) struct Member {
    /// Its id.
    pub(crate) id: MemberId,
    /// Its cluster.
    pub(crate) cluster: ClusterId,
    /// The life of the cluster that it is of.
    pub(crate) life: Incarnation,
    /// How long it waits for others.
    pub(crate) pace: Pace,
    /// What jobs may ask for.
    pub(crate) features: Features,
    /// What the program understands.
    pub(crate) build: Build,
    /// Clocks and chance.
    pub(crate) env: Arc<dyn Env>,
    /// The replicated state.
    pub(crate) raft: Handle,
    /// Leases of nodes.
    pub(crate) leases: Leases,
    /// The latest events.
    pub(crate) recent: Recent,
    /// What is remembered of attempts.
    pub(crate) attempts: Attempts,
    /// Plays of the scheduler, for people who ask.
    pub(crate) plays: Plays,
    /// Backups that are being written.
    pub(crate) backups: Arc<Semaphore>,
    /// Reads that must not be stale.
    pub(crate) barrier: Barrier,
    /// Whether the state here can be judged by.
    pub(crate) caught_up: CatchUp,
    /// Control streams of agents, while it leads.
    pub(crate) sessions: Sessions,
    /// Questions that wait for an agent to dial back.
    pub(crate) tickets: Tickets,
    /// Copies of what ranks wrote.
    pub(crate) copies: Copies,
    /// Connections to the other members.
    pub(crate) peers: Arc<Peers>,
    /// The keys that sign certificates, on members that have them.
    pub(crate) authority: Option<Authority>,
    /// What it shows to others.
    pub(crate) certificate: Arc<Certificate>,
    /// What is counted for `/metrics`.
    pub(crate) counters: Counters,
    /// Cancelled when the member is to stop.
    pub(crate) stop: CancellationToken,
}

impl Member {
    /// Who leads, as far as this member knows.
    pub(crate) fn leader(&self) -> Option<MemberId> {
        match *self.raft.leadership().borrow() {
            Leadership::Leader { id, .. } => Some(id.member),
            Leadership::Follower { leader } => leader,
        }
    }

    /// Whether this member leads, and may work as a leader.
    pub(crate) fn leads(&self) -> bool {
        matches!(*self.raft.leadership().borrow(), Leadership::Leader { .. })
    }

    /// Whether it can serve: it knows who leads, and everybody who may call.
    pub(crate) fn is_ready(&self) -> bool {
        self.leader().is_some() && self.caught_up.is_done()
    }

    /// Where a member is reached.
    pub(crate) fn address_of(&self, id: MemberId) -> Option<MemberAddress> {
        let peers = self.raft.peers();
        let peer = peers.get(&id)?;
        Some(MemberAddress { member_id: id.0, address: peer.address.clone() })
    }

    /// Where this member is reached; empty while it is part of no cluster.
    pub(crate) fn own_address(&self) -> String {
        self.address_of(self.id).map(|own| own.address).unwrap_or_default()
    }

    /// Where all members are reached, as of a state.
    pub(crate) fn members(&self, state: &State) -> Members {
        let peers = self.raft.peers();
        let told = |(id, peer): (&MemberId, &crate::storage::Peer)| MemberAddress {
            member_id: id.0,
            address: peer.address.clone(),
        };
        Members { members: peers.iter().map(told).collect(), index: state.membership.id.0.0 }
    }

    /// Waits until an entry is applied here. False: the member has stopped.
    pub(crate) async fn applied(&self, index: LogIndex) -> bool {
        self.raft.applied().wait_for(|applied| *applied >= index).await.is_ok()
    }
}
