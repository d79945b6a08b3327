//! How much room the disk has, and what is taken while it has too little.
//!
//! A member whose disk is almost full takes no new work: what there is, it keeps for the ends of
//! what runs, for cancels, for members and leaders. Some of that it keeps for good, in a file that
//! becomes part of the log when nothing else is left (`storage::Reserve`). When that is used up,
//! too, it takes nothing but votes. It goes on living all the while, and comes back by itself.

use crate::compare::Comparer;
use crate::env::{Env, run_blocking};
use crate::raft::{Consensus, FatalError, Fault, Role};
use crate::storage::{Gauge, Reserve, StorageError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use yard_common::id::MemberId;
use yard_common::limits::LOG_LAST_BYTES;
use yard_core::command::{Access, Cluster, Command, Holder, JobCommand, NodeCommand};

/// Period of the looks at the disk.
const PERIOD: Duration = Duration::from_millis(500);
/// What was heard of another member's disk is good for so long, in milliseconds.
const HEARD_MS_MAX: u64 = 3_000;
/// Looks until a leader that could not hand over tries again.
const HAND_OVER_LOOKS: u32 = 10;

/// The room on a member's disk. Clones are the same.
#[derive(Clone)]
pub(crate) struct Room(Arc<Inner>);

struct Inner {
    log: Gauge,
    reserve: Reserve,
    /// Free bytes that a member with room has at least, and bytes of the reserve.
    floor_bytes: u64,
    reserve_bytes: u64,
    free_bytes: AtomicU64,
    is_low: AtomicBool,
}

impl Room {
    pub(crate) fn new(log: Gauge, reserve: Reserve, floor_bytes: u64, reserve_bytes: u64) -> Room {
        let (free_bytes, is_low) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        Room(Arc::new(Inner { log, reserve, floor_bytes, reserve_bytes, free_bytes, is_low }))
    }

    /// Whether it has too little for new work.
    pub(crate) fn is_low(&self) -> bool {
        self.0.is_low.load(Ordering::Acquire)
    }

    /// Bytes that were free at the last look.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.0.free_bytes.load(Ordering::Acquire)
    }

    /// Whether so many bytes can be written to the log, and votes after them.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        let Inner { log, reserve, .. } = &*self.0;
        let need = bytes.saturating_add(log.queued()).saturating_add(LOG_LAST_BYTES);
        !self.is_low() || need <= log.left().max(reserve.bytes())
    }

    /// Looks at the disk, and makes the reserve if it can. `snapshot_bytes`: what a snapshot would
    /// take. Blocks. Returns whether it has become low, or is no longer.
    ///
    /// # Errors
    /// Those of the file system, but for a full disk.
    pub(crate) fn look(&self, snapshot_bytes: u64) -> Result<Option<bool>, StorageError> {
        let Inner { reserve, floor_bytes, reserve_bytes, .. } = &*self.0;
        let mut free_bytes = reserve.free_bytes()?;
        let kept = reserve.bytes() > 0 || *reserve_bytes == 0;
        let need = floor_bytes.saturating_add(snapshot_bytes);
        if !kept && free_bytes > need.saturating_add(*reserve_bytes) {
            match reserve.make(*reserve_bytes) {
                Err(error) if error.is_full() => {}
                made => made?,
            }
            free_bytes = reserve.free_bytes()?;
        }
        self.0.free_bytes.store(free_bytes, Ordering::Release);
        // A little more to come back than to get there, so that it does not flap.
        let was_low = self.is_low();
        let margin = if was_low { need / 8 } else { 0 };
        let is_low = free_bytes < need.saturating_add(margin)
            || (reserve.bytes() == 0 && *reserve_bytes > 0);
        self.0.is_low.store(is_low, Ordering::Release);
        Ok((was_low != is_low).then_some(is_low))
    }
}

/// Looks after the room of a member.
pub(super) struct Janitor {
    pub(super) room: Room,
    pub(super) comparer: Comparer,
    pub(super) consensus: Consensus,
    pub(super) env: Arc<dyn Env>,
    pub(super) fault: Fault,
    pub(super) stop: CancellationToken,
}

impl Janitor {
    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wait = 0;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => (),
            }
            let (room, snapshot) = (self.room.clone(), self.consensus.snapshot());
            let snapshot_bytes = snapshot.map_or(0, |(_, bytes)| bytes);
            let look = run_blocking(&*self.env, move || room.look(snapshot_bytes));
            let free_bytes = || self.room.free_bytes();
            match look.await {
                Ok(None) => {}
                Ok(Some(true)) => {
                    tracing::warn!(free_bytes = free_bytes(), "the disk is full: no new work");
                }
                Ok(Some(false)) => {
                    tracing::info!(free_bytes = free_bytes(), "the disk has room again");
                }
                Err(error) => return self.fault.set(FatalError::Storage(error)),
            }
            wait = match self.room.is_low() && wait == 0 {
                true => self.hand_over().await,
                false => wait.saturating_sub(1),
            };
        }
    }

    /// Lets a voter with room lead instead. Returns for how many looks to wait for it.
    async fn hand_over(&self) -> u32 {
        if !matches!(self.consensus.roles().current(), Role::Leads(_)) {
            return 0;
        }
        let (others, voters) = (self.comparer.others(), self.consensus.voters());
        let has_room = |member: &MemberId| {
            others.get(member).is_some_and(|(own, ms)| !own.is_full && *ms < HEARD_MS_MAX)
        };
        // One that lacks much of the log could not take the lead, and a leader that waits for it
        // does nothing meanwhile.
        let Some(view) = self.consensus.view() else { return 0 };
        let fit = |member: &MemberId| {
            let standing = &view.standing;
            standing.caught_up.contains(member) && standing.answers.contains(member)
        };
        let Some(to) = voters.into_iter().find(|member| has_room(member) && fit(member)) else {
            return 0;
        };
        tracing::warn!(%to, "the disk is full; handing over");
        // Whether it takes the lead will be seen.
        let _ = self.consensus.transfer(to).await;
        HAND_OVER_LOOKS
    }
}

/// Whether so many voters have too little room that a leader should keep what is left.
pub(super) fn is_short(own: &Room, comparer: &Comparer, voters: &BTreeSet<MemberId>) -> bool {
    if own.is_low() {
        return true;
    }
    let full = comparer
        .others()
        .into_iter()
        .filter(|(member, (own, ms))| own.is_full && *ms < HEARD_MS_MAX && voters.contains(member));
    let with_room = voters.len().saturating_sub(full.count());
    with_room < voters.len() / 2 + 1 && voters.len() > 1
}

/// Whether a command brings work or data that is not there yet. What ends something, or keeps
/// what is there in order, is none.
pub(crate) fn is_new_work(command: &Command) -> bool {
    match command {
        Command::Plan(_) => true,
        Command::Report(_) => false,
        Command::Cluster(command) => match command {
            Cluster::Initialise { .. } => true,
            Cluster::LeaderStarted
            | Cluster::Tick
            | Cluster::Restored { .. }
            | Cluster::RaiseFeatureLevel(_)
            | Cluster::Members { .. }
            | Cluster::AddMember(_)
            | Cluster::RemoveMember(_)
            | Cluster::MemberLeft(_) => false,
        },
        Command::Access(command) => match command {
            Access::AddUser { .. } | Access::AddToken { .. } | Access::PutSecret { .. } => true,
            // Whoever shall make room may have to log in first, or to join.
            Access::RedeemLogin { .. }
            | Access::JoinMember { .. }
            | Access::SetUser { .. }
            | Access::DisableUser { .. }
            | Access::DropToken(_)
            | Access::Revoke { .. }
            | Access::DropSecret { .. } => false,
        },
        Command::Holder(command) => match command {
            Holder::AddWorkspace(_)
            | Holder::AddPool(..)
            | Holder::AddQueue(..)
            | Holder::AddMount { .. }
            | Holder::SetMount(..) => true,
            Holder::SetSetup(_, setup) => setup.is_some(),
            Holder::RemoveWorkspace(_)
            | Holder::SetPool(..)
            | Holder::RemovePool(_)
            | Holder::SetQueue(..)
            | Holder::RemoveQueue(_)
            | Holder::SetLimit(..)
            | Holder::SetSetting(..)
            | Holder::RemoveMount(_) => false,
        },
        Command::Node(command) => match command {
            NodeCommand::Join { .. } => true,
            NodeCommand::Update { .. }
            | NodeCommand::Suspect { .. }
            | NodeCommand::Lost(_)
            | NodeCommand::Returned { .. }
            | NodeCommand::Lift(_)
            | NodeCommand::Maintenance { .. }
            | NodeCommand::Back(_)
            | NodeCommand::Drain { .. }
            | NodeCommand::DrainGpu { .. }
            | NodeCommand::UndrainGpu { .. }
            | NodeCommand::Check(_)
            | NodeCommand::Undrain(_)
            | NodeCommand::ConfirmDead(_)
            | NodeCommand::Remove(_) => false,
        },
        Command::Job(command) => match command {
            JobCommand::Submit(_)
            | JobCommand::Replace { .. }
            | JobCommand::Requeue { .. }
            | JobCommand::Resume(_)
            | JobCommand::Visit { .. } => true,
            JobCommand::Adjust { .. }
            | JobCommand::Cancel { .. }
            | JobCommand::Hold { .. }
            | JobCommand::Release(_)
            | JobCommand::Suspend { .. } => false,
        },
    }
}
