//! The consensus: openraft, with our bytes for everything that is stored or sent.
//!
//! **Invariants.** openraft's types stay in here, so that it can be replaced in one module. A
//! leader's id is (term, member): two leaders may share a term. An entry is applied as a whole, and
//! its index is the index of all of its commands; a change of the members is applied as the
//! command `Members` by every member alike, at the entry that makes it.

mod acks;
mod applied;
mod fault;
mod flushes;
mod inbound;
mod log_store;
mod machine;
mod network;
mod runtime;
mod standing;
mod transport;
mod types;
mod wire;

#[cfg(test)]
mod tests;

pub use applied::{AppliedEntry, Update};
pub use fault::{FatalError, Missing};
pub use inbound::AnswerError;
pub use transport::{Lane, Letter, Question, Transport, TransportError};

pub(crate) use acks::{Acked, Acks};
pub(crate) use applied::Shared;
pub(crate) use fault::Fault;
pub(crate) use standing::LeaderView;
pub(crate) use types::Outcomes;

use self::flushes::Flushes;
use self::inbound::Incoming;
use self::log_store::LogStore;
use self::machine::Machine;
use self::network::Network;
use self::types::{Commands, Config, leader_to_ours, leader_to_raft};
use crate::build::Build;
use crate::env::Env;
use crate::pace::Pace;
use crate::proposer::Room;
use crate::storage::{Log, Peer, Snapshot, Snapshots};
use bytes::Bytes;
use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError,
};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::{OneshotReceiverOf, WatchReceiverOf};
use openraft::{ReadPolicy, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_common::limits::LOG_KEPT_ENTRIES;

/// openraft with our types.
type RaftNode = openraft::Raft<Config, Machine>;

/// The consensus of one member. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Consensus {
    raft: RaftNode,
    own: MemberId,
    incoming: Incoming,
    flushes: Flushes,
    snapshot: Arc<Mutex<Option<Snapshot>>>,
}

/// What this member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It was elected. It may have been deposed already and not know it.
    Leads(LeaderId),
    /// It follows, if it knows whom.
    Follows(Option<MemberId>),
}

/// Tells of changes of the role.
pub(crate) struct Roles {
    metrics: WatchReceiverOf<Config, openraft::metrics::RaftServerMetrics<Config>>,
    own: MemberId,
}

/// Why something that only a leader does was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDone {
    /// It has had no effect; this member may know who leads.
    NotLeader(Option<MemberId>),
    /// It may take effect yet, or not.
    Unknown,
    /// This member has stopped; it has had no effect.
    Stopped,
}

/// Why a change of the members was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembersError {
    /// Only the leader can.
    #[error("this member does not lead")]
    NotLeader {
        /// Who does, if known.
        hint: Option<MemberId>,
    },
    /// The change is not possible as things are.
    #[error("{0}")]
    Refused(String),
    /// The lead was lost meanwhile; whether the change was made will be seen.
    #[error("the lead was lost; look at the members to see whether the change was made")]
    Unknown,
    /// This member has stopped.
    #[error("this member has stopped")]
    Stopped,
}

/// An entry that was handed to the consensus.
pub(crate) struct Proposed(OneshotReceiverOf<Config, ClientWriteResult<Config>>, MemberId);

impl Proposed {
    /// What came of it: its index, and the outcome of each command.
    pub(crate) async fn outcome(self) -> Result<(LogIndex, Outcomes), NotDone> {
        match self.0.await {
            Ok(Ok(written)) => Ok((types::index_to_ours(written.log_id.index), written.data)),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(forwarded(&forward, self.1)),
            Ok(Err(ClientWriteError::PreconditionFailed(_))) => Err(NotDone::NotLeader(None)),
            // Cut off by a new leader here, but it may have kept it elsewhere.
            Ok(Err(_)) | Err(_) => Err(NotDone::Unknown),
        }
    }
}

fn forwarded(forward: &ForwardToLeader<Config>, own: MemberId) -> NotDone {
    // A leader without its lease names nobody; one that was asked to hand over may name itself.
    NotDone::NotLeader(forward.leader_id.map(MemberId).filter(|hint| *hint != own))
}

/// The settings for links with this round trip. A heartbeat whose answer takes longer than the
/// period of heartbeats counts as lost, however often it arrives: a leader without answers has no
/// lease and commits nothing. A vote must be answered within the shortest election timeout.
fn config(round_trip_ms: u64) -> openraft::Config {
    let heartbeat_ms = Pace::new(round_trip_ms).heartbeat_ms();
    openraft::Config {
        cluster_name: "yard".into(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: 3 * heartbeat_ms,
        election_timeout_max: 8 * heartbeat_ms,
        // One candidate that cannot win must not depose a leader that is well.
        enable_pre_vote: Some(true),
        // A leader that restarts has forgotten what it applied: it stands for election again.
        enable_leader_restore: Some(false),
        // By bytes of the log, not by entries; `Service` sees to it.
        snapshot_policy: SnapshotPolicy::Never,
        // For the last piece, after which all of the state is decoded.
        install_snapshot_timeout: 120_000,
        max_in_snapshot_log_to_keep: LOG_KEPT_ENTRIES,
        replication_lag_threshold: LOG_KEPT_ENTRIES,
        ..openraft::Config::default()
    }
}

/// What the consensus is built on.
pub(crate) struct Parts {
    pub(crate) own: MemberId,
    /// The longest usual round trip between members.
    pub(crate) round_trip_ms: u64,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) log: Log,
    pub(crate) snapshots: Snapshots,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) shared: Shared,
    pub(crate) fault: Fault,
    pub(crate) acks: Acks,
    pub(crate) room: Room,
    pub(crate) build: Build,
}

impl Consensus {
    /// This member.
    pub(crate) fn own(&self) -> MemberId {
        self.own
    }

    /// Starts it. The state is that of the last snapshot until a leader is known.
    pub(crate) async fn start(parts: Parts) -> Result<Consensus, FatalError> {
        let Parts { own, round_trip_ms, env, log, snapshots, transport, .. } = parts;
        let Parts { shared, fault, acks, room, build, .. } = parts;
        let incoming = Incoming::new(snapshots.clone(), room);
        let snapshot = Arc::new(Mutex::new(snapshots.found().cloned()));
        let current = Arc::clone(&snapshot);
        let machine = Machine { shared, snapshots, current, build, fault: fault.clone() };
        let network = Network { transport, env: Arc::clone(&env), own, acks };
        let flushes = Flushes::new();
        let store = LogStore { log, fault, flushes: flushes.clone() };
        let config = config(round_trip_ms).validate().expect("the settings are checked by a test");
        let raft = RaftNode::new(own.0, Arc::new(config), network, store, machine);
        let raft = runtime::within(env, raft).await;
        let raft = raft.map_err(|error| FatalError::Consensus(error.to_string()))?;
        let voters: Vec<u64> = raft.voter_ids().collect();
        if voters == [own.0] {
            // Nobody else could be elected, so there is nothing to wait for.
            let elected = raft.trigger().elect(false).await;
            elected.map_err(|error| FatalError::Consensus(error.to_string()))?;
        }
        Ok(Consensus { raft, own, incoming, flushes, snapshot })
    }

    /// The role, and its changes.
    pub(crate) fn roles(&self) -> Roles {
        Roles { metrics: self.raft.server_metrics(), own: self.own }
    }

    /// Hands commands over that `leader`, which is this member, has stamped. Order is kept.
    pub(crate) async fn propose(
        &self,
        leader: LeaderId,
        commands: Bytes,
    ) -> Result<Proposed, NotDone> {
        let (responder, outcome) = ProgressResponder::complete_only();
        let write = self.raft.write(Commands(commands));
        let write = write.with_leader(leader_to_raft(leader)).responder(responder);
        write.await.map_err(|_| NotDone::Stopped)?;
        Ok(Proposed(outcome, self.own))
    }

    /// Whether this member leads and a majority answered it lately. Alone it always does.
    pub(crate) fn holds_lease(&self) -> bool {
        if self.raft.voter_ids().count() <= 1 {
            return self.raft.is_leader();
        }
        let lease = Duration::from_millis(self.raft.config().election_timeout_max);
        let acked = self.raft.as_leader().ok().and_then(|leader| leader.last_quorum_acked());
        acked.is_some_and(|acked| acked.elapsed() < lease)
    }

    /// Makes sure that this member leads, and that everything that was acked before this call is
    /// applied here.
    pub(crate) async fn confirm(&self) -> Result<(), NotDone> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(forwarded(&forward, self.own))
            }
            // No majority answered: somebody else may lead by now.
            Err(RaftError::APIError(_)) => Err(NotDone::NotLeader(None)),
            Err(RaftError::Fatal(_)) => Err(NotDone::Stopped),
        }
    }

    /// Makes this member the only one of a cluster that has no log yet.
    pub(crate) async fn initialize(&self, peer: Peer) -> Result<(), MembersError> {
        match self.raft.initialize(BTreeMap::from([(self.own.0, peer)])).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(error)) => Err(MembersError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(MembersError::Stopped),
        }
    }

    /// Adds a member that listens; with `wait`, once it is almost up to date.
    pub(crate) async fn add_learner(
        &self,
        id: MemberId,
        peer: Peer,
        wait: bool,
    ) -> Result<(), MembersError> {
        self.explain(self.raft.add_learner(id.0, peer, wait).await.map(|_| ()))
    }

    /// Makes these the voters. Who votes no more leaves the cluster.
    pub(crate) async fn change(&self, voters: BTreeSet<MemberId>) -> Result<(), MembersError> {
        let voters: BTreeSet<u64> = voters.into_iter().map(|id| id.0).collect();
        self.explain(self.raft.change_membership(voters, false).await.map(|_| ()))
    }

    fn explain(
        &self,
        result: Result<(), RaftError<Config, ClientWriteError<Config>>>,
    ) -> Result<(), MembersError> {
        match result {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                let hint = forward.leader_id.map(MemberId).filter(|hint| *hint != self.own);
                Err(MembersError::NotLeader { hint })
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(MembersError::Unknown)
            }
            Err(RaftError::APIError(error)) => Err(MembersError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(MembersError::Stopped),
        }
    }

    /// Asks another member to take the lead; it does, or it does not.
    pub(crate) async fn transfer(&self, to: MemberId) -> Result<(), NotDone> {
        self.raft.trigger().transfer_leader(to.0).await.map_err(|_| NotDone::Stopped)
    }

    /// The time within which 99 of 100 of the latest writes of the log were durable.
    pub(crate) fn flush_p99_us(&self) -> Option<u64> {
        self.flushes.p99_us()
    }

    /// Begins to write a snapshot.
    pub(crate) async fn take_snapshot(&self) -> Result<(), NotDone> {
        self.raft.trigger().snapshot().await.map_err(|_| NotDone::Stopped)
    }

    /// The last entry and the size in bytes of the latest snapshot.
    pub(crate) fn snapshot(&self) -> Option<(LogIndex, u64)> {
        let snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.as_ref().map(|snapshot| (snapshot.meta().last.index, snapshot.bytes()))
    }

    /// Who gets the log, and how to reach them, as of the last entry of the log.
    pub(crate) fn peers(&self) -> BTreeMap<MemberId, Peer> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let peers = metrics.membership_config.nodes();
        peers.map(|(id, peer)| (MemberId(*id), peer.clone())).collect()
    }

    /// Whose word counts, as of the last entry of the log.
    pub(crate) fn voters(&self) -> BTreeSet<MemberId> {
        self.raft.voter_ids().map(MemberId).collect()
    }

    /// Answers a message of another member.
    pub(crate) async fn answer(
        &self,
        question: Question,
        body: &[u8],
    ) -> Result<Bytes, AnswerError> {
        inbound::answer(&self.raft, &self.incoming, question, body).await
    }

    /// Waits until it has stopped by itself, and says why.
    pub(crate) async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            match &metrics.borrow_watched().running_state {
                Err(Fatal::Stopped) | Ok(()) => (),
                Err(error) => return error.to_string(),
            }
            if metrics.changed().await.is_err() {
                return "its task has ended".into();
            }
        }
    }

    /// Stops it.
    pub(crate) async fn shutdown(&self) {
        // It has stopped by itself, or it stops now: both are what is wanted.
        let _ = self.raft.shutdown().await;
    }
}

impl Roles {
    /// What this member is now.
    pub(crate) fn current(&self) -> Role {
        let metrics = self.metrics.borrow_watched();
        let leader = leader_to_ours(&metrics.vote.leader_id);
        let elected = metrics.vote.committed && leader.member == self.own;
        match metrics.state {
            ServerState::Leader if elected => Role::Leads(leader),
            _ => {
                let known = metrics.current_leader.map(MemberId);
                Role::Follows(known.filter(|known| *known != self.own))
            }
        }
    }

    /// Waits for a change. False: there will be none any more.
    pub(crate) async fn changed(&mut self) -> bool {
        self.metrics.changed().await.is_ok()
    }
}
