//! Applies what is committed, and makes and takes snapshots.

use super::applied::{AppliedEntry, Inner, Shared, Update};
use super::fault::{FatalError, Fault, Missing};
use super::types::{Config, Outcomes, RaftEntry, entry_to_ours, position_to_raft, stored_to_raft};
use crate::build::{Build, Commands};
use crate::env::run_blocking;
use crate::storage::{Members, Payload, Position, Snapshot, SnapshotMeta, Snapshots, StorageError};
use futures_util::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_core::command::{Actor, Cluster, Command, Envelope, Stamp};
use yard_core::event::Applied;
use yard_core::state::State;

/// The state machine of this member.
pub(super) struct Machine {
    pub(super) shared: Shared,
    pub(super) snapshots: Snapshots,
    /// The latest durable snapshot.
    pub(super) current: Arc<Mutex<Option<Snapshot>>>,
    pub(super) build: Build,
    pub(super) fault: Fault,
}

/// Writes one snapshot, of a state that is a clone.
pub(super) struct Builder {
    state: State,
    meta: SnapshotMeta,
    snapshots: Snapshots,
    current: Arc<Mutex<Option<Snapshot>>>,
    fault: Fault,
}

/// Before the first entry.
const START: Position =
    Position { leader: LeaderId { term: 0, member: MemberId(0) }, index: LogIndex(0) };

/// Remembers what ends the process; openraft gets the text.
fn fail(fault: &Fault, error: FatalError) -> io::Error {
    let text = error.to_string();
    fault.set(error);
    io::Error::other(text)
}

/// Applies the commands of one entry.
fn apply_all(
    inner: &mut Inner,
    position: Position,
    commands: Commands,
    watched: bool,
) -> (Outcomes, Vec<(Envelope, Command, Applied)>) {
    let mut replies = Vec::with_capacity(commands.len());
    let mut outcomes = Vec::new();
    for (envelope, command) in commands {
        let applied = inner.state.apply(position.index, &envelope, &command);
        replies.push(applied.reply.clone());
        if watched {
            outcomes.push((envelope, command, applied));
        }
    }
    (replies, outcomes)
}

/// The command that a change of the members stands for. It has the time that the state has: who
/// proposed it had no say in its stamp.
fn members_command(inner: &Inner, position: Position, members: &Members) -> (Envelope, Command) {
    let stamp = Stamp { cluster_ms: inner.state.now_ms(), wall_ms: inner.state.clock.wall_ms };
    let leader = position.leader;
    let envelope = Envelope { actor: Actor::Leader, leader, stamp, request: None };
    let (voters, joint) = (members.voters.clone(), members.joint.clone());
    (envelope, Command::Cluster(Cluster::Members { voters, joint }))
}

/// Whether a program understands all that may be in a state, and in the log after it.
fn understood(build: &Build, state: &State) -> Result<(), FatalError> {
    let (level, max) = (state.feature_level, build.feature_level_max);
    if level <= max {
        return Ok(());
    }
    let missing = Missing { own: build.version, version: state.level_version.to_string() };
    Err(FatalError::TooOld { level, max, missing })
}

impl Machine {
    fn missing(&self) -> Missing {
        let version = self.shared.lock().state.level_version.to_string();
        Missing { own: self.build.version, version }
    }

    /// Applies one entry; none of it is seen before all of it is applied.
    fn apply_entry(&self, entry: RaftEntry) -> Result<Outcomes, FatalError> {
        let entry = entry_to_ours(entry);
        let (position, index) = (entry.position, entry.position.index);
        let mut commands = match &entry.payload {
            Payload::Blank | Payload::Members(_) => Vec::new(),
            Payload::Commands(bytes) => (self.build.commands.read)(bytes).map_err(|source| {
                FatalError::UnknownEntry { index, missing: self.missing(), source }
            })?,
        };
        let watched = self.shared.is_watched();
        let mut inner = self.shared.lock();
        if let Payload::Members(members) = entry.payload {
            commands.push(members_command(&inner, position, &members));
            (inner.members, inner.members_at) = (members, Some(position));
        }
        let apply = AssertUnwindSafe(|| apply_all(&mut inner, position, commands, watched));
        let (replies, outcomes) = catch_unwind(apply).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let what = text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic");
            FatalError::Broken { index, what: what.into() }
        })?;
        // What came of it is seen by nobody: this member may have understood half of it.
        understood(&self.build, &inner.state)?;
        inner.last = Some(position);
        inner.note();
        let update = (!outcomes.is_empty())
            .then(|| Update::Entry(Arc::new(AppliedEntry { index, outcomes })));
        self.shared.tell(&inner, update);
        Ok(replies)
    }

    async fn install(&self, snapshot: Snapshot) -> Result<(), FatalError> {
        let meta = snapshot.meta().clone();
        let (read, index) = (snapshot.clone(), meta.last.index);
        // A large state takes seconds to decode.
        let build = self.build;
        let load = move || {
            let bytes = read.read().map_err(FatalError::Storage)?;
            let state = State::from_bytes(&bytes).map_err(|source| {
                let missing = Missing { own: build.version, version: State::version_of(&bytes) };
                FatalError::UnknownSnapshot { index, missing, source }
            })?;
            understood(&build, &state)?;
            Ok::<_, FatalError>(state)
        };
        let state = run_blocking(&**self.snapshots.env(), load).await?;
        let kept = keep(&self.snapshots, &self.current, snapshot).await;
        kept.map_err(FatalError::Storage)?;
        {
            let mut inner = self.shared.lock();
            inner.replace(state, meta);
            self.shared.tell(&inner, Some(Update::Replaced(index)));
        }
        Ok(())
    }
}

/// This snapshot is the current one now, unless a leader's came in that is newer; all others go.
async fn keep(
    snapshots: &Snapshots,
    current: &Mutex<Option<Snapshot>>,
    snapshot: Snapshot,
) -> Result<(), StorageError> {
    let adopting = (snapshots.clone(), snapshot.clone());
    run_blocking(&**snapshots.env(), move || adopting.0.adopt(&adopting.1)).await?;
    let kept = {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = |known: &Snapshot| known.meta().last.index > snapshot.meta().last.index;
        let kept = current.take().filter(newer).unwrap_or(snapshot);
        current.insert(kept).clone()
    };
    let removing = snapshots.clone();
    run_blocking(&**snapshots.env(), move || removing.keep_only(&kept)).await
}

/// A snapshot as openraft sees it.
pub(super) fn to_raft(snapshot: Snapshot) -> SnapshotOf<Config, Snapshot> {
    let meta = snapshot.meta();
    let meta = SnapshotMetaOf::<Config> {
        last_log_id: (meta.last > START).then(|| position_to_raft(meta.last)),
        last_membership: stored_to_raft(&meta.members, meta.members_at),
    };
    SnapshotOf::<Config, Snapshot> { meta, snapshot }
}

impl RaftStateMachine<Config> for Machine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Config>>, StoredMembershipOf<Config>), io::Error> {
        let inner = self.shared.lock();
        let members = stored_to_raft(&inner.members, inner.members_at);
        Ok((inner.last.map(position_to_raft), members))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Config>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcomes = self.apply_entry(entry).map_err(|error| fail(&self.fault, error))?;
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let inner = self.shared.lock();
        let meta = SnapshotMeta {
            last: inner.last.unwrap_or(START),
            members: inner.members.clone(),
            members_at: inner.members_at,
        };
        Builder {
            state: inner.state.clone(),
            meta,
            snapshots: self.snapshots.clone(),
            current: Arc::clone(&self.current),
            fault: self.fault.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        _: &SnapshotMetaOf<Config>,
        snapshot: Snapshot,
    ) -> Result<(), io::Error> {
        self.install(snapshot).await.map_err(|error| fail(&self.fault, error))
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Config, Snapshot>>, io::Error> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(current.clone().map(to_raft))
    }
}

impl RaftSnapshotBuilder<Config> for Builder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Config, Snapshot>, io::Error> {
        let (meta, state) = (self.meta.clone(), self.state.clone());
        let snapshots = self.snapshots.clone();
        let write = move || {
            let mut writer = snapshots.create(meta)?;
            match minicbor::encode(&state, &mut writer) {
                Ok(()) => writer.finish(),
                Err(error) => Err(error.into_write().expect("only the writing of it can fail")),
            }
        };
        let built = run_blocking(&**self.snapshots.env(), write).await;
        let kept = match built {
            Ok(built) => keep(&self.snapshots, &self.current, built.clone()).await.map(|()| built),
            Err(error) => Err(error),
        };
        let last = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = match (kept, last) {
            // The log is as long as it was, and the one before is as good as it was.
            (Err(error), Some(last)) if error.is_full() => {
                tracing::warn!(%error, "no room for a snapshot");
                Ok(last)
            }
            (kept, _) => kept,
        };
        // openraft purges the log before it, which is safe for a newer one too.
        kept.map(to_raft).map_err(|error| fail(&self.fault, FatalError::Storage(error)))
    }
}
