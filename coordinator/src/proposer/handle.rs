//! How everything above uses the replicated state.

use super::batch::Proposal;
use super::lead::Leadership;
use super::reads::{ReadError, Reader};
use super::room::{Room, is_new_work, is_short};
use crate::build::Build;
use crate::compare::{Comparer, Own};
use crate::env::Env;
use crate::raft::{
    AnswerError, Consensus, FatalError, Fault, LeaderView, MembersError, NotDone, Question, Shared,
    Update,
};
use crate::storage::{Peer, Promises};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use yard_common::id::{FeatureLevel, LogIndex, MemberId, RequestId};
use yard_common::limits::COMMAND_BYTES_MAX;
use yard_core::command::{Actor, Command, Rejection, Reply};
use yard_core::state::State;

/// Why a command was not answered by the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// This member does not lead. The command had no effect.
    #[error("this member does not lead")]
    NotLeader {
        /// Who does, if known.
        hint: Option<MemberId>,
    },
    /// Too much waits already. The command had no effect.
    #[error("too many commands wait; try again")]
    Overloaded,
    /// The command is too large. It had no effect.
    #[error("a command of {bytes} bytes; at most {COMMAND_BYTES_MAX} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The disks of this leader, or of too many members, have no room for it. The command had no
    /// effect.
    #[error("the disk is full: nothing new is taken; cancels and the ends of jobs are")]
    DiskFull,
    /// This member has stopped. The command had no effect.
    #[error("this member has stopped")]
    Stopped,
    /// The command may have taken effect, or may yet. Ask again with the same request id: it
    /// takes effect once.
    #[error("nobody can say yet whether the command takes effect; ask again as the same request")]
    Unknown,
}

/// The replicated state, and what can be asked of it. Clones are cheap and the same thing.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Parts>);

/// What a handle is made of.
pub(super) struct Parts {
    pub(super) consensus: Consensus,
    pub(super) shared: Shared,
    pub(super) env: Arc<dyn Env>,
    pub(super) promises: Promises,
    pub(super) comparer: Comparer,
    pub(super) room: Room,
    pub(super) build: Build,
    pub(super) proposals: mpsc::Sender<Proposal>,
    pub(super) room_kib: Arc<Semaphore>,
    pub(super) reads: mpsc::Sender<Reader>,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) fault: Fault,
    pub(super) stop: CancellationToken,
}

/// What a member says of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskReport {
    /// Whether it has too little room for new work.
    pub is_full: bool,
    /// Bytes that are free.
    pub free_bytes: u64,
}

/// How long a difference that was found is worth showing, in milliseconds.
const DIFFERENCE_MS_MAX: u64 = 60_000;
/// How long a report of another member is worth showing, in milliseconds.
const REPORT_MS_MAX: u64 = 10_000;

/// What is applied from some index on.
pub struct Subscription(broadcast::Receiver<Update>);

/// Why there is no next update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubscriptionError {
    /// The subscriber was too slow and has missed entries: it must read the state again.
    #[error("{0} entries were missed; read the state again")]
    Lagged(u64),
    /// This member has stopped.
    #[error("this member has stopped")]
    Stopped,
}

impl Subscription {
    /// The next update. Entries come in order of their index, without holes. An entry without
    /// commands brings none. May be dropped and called again.
    ///
    /// # Errors
    /// If entries were missed, or this member has stopped.
    pub async fn next(&mut self) -> Result<Update, SubscriptionError> {
        self.0.recv().await.map_err(|error| match error {
            RecvError::Lagged(missed) => SubscriptionError::Lagged(missed),
            RecvError::Closed => SubscriptionError::Stopped,
        })
    }
}

impl Handle {
    /// Asks for a change. Returns what came of it, after it is durable on a majority and applied
    /// here. Dropping the future does not take the command back.
    ///
    /// # Errors
    /// Each says whether the command can have had an effect.
    pub async fn propose(
        &self,
        actor: Actor,
        request: Option<RequestId>,
        command: &Command,
    ) -> Result<Result<Reply, Rejection>, ProposeError> {
        if let Err(rejection) = self.check_level(command) {
            return Ok(Err(rejection));
        }
        let is_new = is_new_work(command);
        let command = (self.0.build.commands.write)(command);
        let bytes = command.len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes });
        }
        if matches!(*self.0.leadership.borrow(), Leadership::Leader { .. })
            && is_new
            && !self.has_room()
        {
            return Err(ProposeError::DiskFull);
        }
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0.room_kib).try_acquire_many_owned(kib);
        let permit = Some(room.map_err(|_| ProposeError::Overloaded)?);
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal { actor, request, command, answer, permit };
        self.0.proposals.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })?;
        // Dropped without an answer: it was on its way when this member stopped.
        answered.await.unwrap_or(Err(ProposeError::Unknown))
    }

    /// Refuses what some member may not understand yet: the cluster's level is below the one that
    /// the command needs. Nothing of it gets into a log.
    pub(crate) fn check_level(&self, command: &Command) -> Result<(), Rejection> {
        let needed = (self.0.build.commands.requires)(command);
        // Most need nothing, and then nobody looks at the state.
        if needed == FeatureLevel(0) {
            return Ok(());
        }
        let have = self.state().1.feature_level;
        if needed > have {
            return Err(Rejection::FeatureLevelTooLow { needed, have });
        }
        Ok(())
    }

    /// Whether the disks of this member, and of enough others, have room for new work.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let Parts { room, comparer, consensus, .. } = &*self.0;
        !is_short(room, comparer, &consensus.voters())
    }

    /// How many slices of the state were found equal with those of other members, and how many
    /// differences there were.
    #[must_use]
    pub fn compared(&self) -> (u64, u64) {
        self.0.comparer.counts()
    }

    /// What differed between this member and another one, in the last minute.
    #[must_use]
    pub fn difference(&self) -> Option<String> {
        let (what, ms) = self.0.comparer.difference()?;
        (ms < DIFFERENCE_MS_MAX).then_some(what)
    }

    /// What the members say of their disks; none of those that were not heard lately.
    #[must_use]
    pub fn disks(&self) -> BTreeMap<MemberId, DiskReport> {
        let report = |own: &Own| DiskReport { is_full: own.is_full, free_bytes: own.free_bytes };
        let others = self.0.comparer.others();
        let fresh = others.iter().filter(|(_, (_, ms))| *ms < REPORT_MS_MAX);
        let others = fresh.map(|(member, (own, _))| (*member, report(own)));
        others.chain([(self.0.consensus.own(), report(&self.0.comparer.own()))]).collect()
    }

    /// The last entry that is applied here, and the state there. Costs nothing; may be behind the
    /// leader.
    #[must_use]
    pub fn state(&self) -> (LogIndex, State) {
        self.0.shared.state()
    }

    /// The state, and everything that is applied after it.
    #[must_use]
    pub fn subscribe(&self) -> (LogIndex, State, Subscription) {
        let (index, state, updates) = self.0.shared.subscribe();
        (index, state, Subscription(updates))
    }

    /// The index of the last applied entry, as it rises.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<LogIndex> {
        self.0.shared.index()
    }

    /// Makes sure that the state here has everything that was acked to anybody before this call.
    /// Many callers share one question to the other members. Returns the index that the state
    /// has at least.
    ///
    /// # Errors
    /// If this member does not lead, cannot make sure of it, or has stopped.
    pub async fn read_barrier(&self) -> Result<LogIndex, ReadError> {
        let (answer, answered) = oneshot::channel();
        self.0.reads.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ReadError::Stopped,
        })?;
        answered.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// Who leads, and its changes.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// The cluster's time by this leader's clock, never behind the state's; none unless it leads.
    #[must_use]
    pub fn cluster_ms(&self) -> Option<u64> {
        match *self.0.leadership.borrow() {
            Leadership::Leader { clock, .. } => Some(clock.cluster_ms(self.0.env.boot_ms())),
            Leadership::Follower { .. } => None,
        }
    }

    /// Begins a cluster with this member alone, and gives it its first command, which must be
    /// `Cluster::Initialise`. A member that began one and was cut off goes on where it was.
    ///
    /// # Errors
    /// If this member has the log of a cluster, or cannot go on; the command's own refusal comes
    /// inside, as from [`Handle::propose`].
    pub async fn init_cluster(
        &self,
        peer: Peer,
        first: &Command,
    ) -> Result<Result<Reply, Rejection>, MembersError> {
        let peers = self.peers();
        if peers.is_empty() {
            self.0.consensus.initialize(peer).await?;
        } else if peers.len() > 1 {
            return Err(MembersError::Refused("this member is part of a cluster already".into()));
        }
        self.propose_first(first).await
    }

    /// Proposes the first command of a cluster whose only member this is, or of a new life of it,
    /// once this member leads.
    ///
    /// # Errors
    /// If it stops or is told to follow somebody.
    pub async fn propose_first(
        &self,
        first: &Command,
    ) -> Result<Result<Reply, Rejection>, MembersError> {
        let mut leadership = self.leadership();
        let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader { .. }));
        leads.await.map_err(|_| MembersError::Stopped)?;
        self.propose(Actor::Leader, None, first).await.map_err(|error| match error {
            ProposeError::NotLeader { hint } => MembersError::NotLeader { hint },
            ProposeError::Unknown => MembersError::Unknown,
            ProposeError::Stopped => MembersError::Stopped,
            ProposeError::Overloaded | ProposeError::TooLarge { .. } | ProposeError::DiskFull => {
                MembersError::Refused(error.to_string())
            }
        })
    }

    /// Adds a member that gets the log and does not vote, and waits until it has caught up.
    /// An id is never used a second time.
    ///
    /// # Errors
    /// If this member does not lead, or the change is not possible now.
    pub async fn add_learner(&self, id: MemberId, peer: Peer) -> Result<(), MembersError> {
        self.0.consensus.add_learner(id, peer, true).await
    }

    /// Adds a member that gets the log and does not vote.
    ///
    /// # Errors
    /// As [`Handle::add_learner`].
    pub(crate) async fn listen(&self, id: MemberId, peer: Peer) -> Result<(), MembersError> {
        self.0.consensus.add_learner(id, peer, false).await
    }

    /// Takes a member that does not vote out of the cluster.
    ///
    /// # Errors
    /// If this member does not lead, or the change is not possible now.
    pub(crate) async fn forget(&self, id: MemberId) -> Result<(), MembersError> {
        self.0.consensus.forget(id).await
    }

    /// What this member knows of the others, if it leads.
    pub(crate) fn view(&self) -> Option<LeaderView> {
        self.0.consensus.view()
    }

    /// The time within which 99 of 100 of the latest writes of the log were durable.
    pub(crate) fn flush_p99_us(&self) -> Option<u64> {
        self.0.consensus.flush_p99_us()
    }

    /// Makes these members, which have the log already, the voters. Who voted and is not among
    /// them leaves the cluster.
    ///
    /// # Errors
    /// If this member does not lead, or the change is not possible now.
    pub async fn change_membership(&self, voters: BTreeSet<MemberId>) -> Result<(), MembersError> {
        self.0.consensus.change(voters).await
    }

    /// Asks another voter to take the lead. Whether it does shows in [`Handle::leadership`].
    ///
    /// # Errors
    /// If this member has stopped.
    pub async fn transfer_leadership(&self, to: MemberId) -> Result<(), MembersError> {
        self.0.consensus.transfer(to).await.map_err(|_| MembersError::Stopped)
    }

    /// The voters that could take over, as far as a leader knows, the one with the most of the
    /// log first.
    #[must_use]
    pub fn successors(&self) -> Vec<MemberId> {
        self.0.consensus.successors()
    }

    /// All members that get the log, and how to reach them.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<MemberId, Peer> {
        self.0.consensus.peers()
    }

    /// Begins to write a snapshot; [`Handle::snapshot`] shows when it is there.
    ///
    /// # Errors
    /// If this member has stopped.
    pub async fn take_snapshot(&self) -> Result<(), ReadError> {
        self.0.consensus.take_snapshot().await.map_err(|error| match error {
            NotDone::NotLeader(hint) => ReadError::NotLeader { hint },
            NotDone::Unknown | NotDone::Stopped => ReadError::Stopped,
        })
    }

    /// The last entry in the latest snapshot, and its size in bytes.
    #[must_use]
    pub fn snapshot(&self) -> Option<(LogIndex, u64)> {
        self.0.consensus.snapshot()
    }

    /// Answers a message of another member. The caller has made sure that a member sent it.
    ///
    /// # Errors
    /// If the message makes no sense, or this member has stopped.
    pub async fn answer(&self, question: Question, body: &[u8]) -> Result<Bytes, AnswerError> {
        match question {
            Question::Compare => self.0.comparer.answer(body),
            Question::Append
            | Question::Vote
            | Question::PreVote
            | Question::Snapshot
            | Question::Transfer => self.0.consensus.answer(question, body).await,
        }
    }

    /// Promises about leases that survive this process.
    #[must_use]
    pub fn promises(&self) -> &Promises {
        &self.0.promises
    }

    /// What ended this member, if something did.
    #[must_use]
    pub fn fatal(&self) -> Option<Arc<FatalError>> {
        self.0.fault.get()
    }

    /// Ends this member because of something that it cannot live with.
    pub fn fail(&self, error: FatalError) {
        self.0.fault.set(error);
    }

    /// Asks the service to stop; `Service::wait` returns when it has.
    pub fn shutdown(&self) {
        self.0.stop.cancel();
    }
}
