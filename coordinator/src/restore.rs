//! `yard coordinator restore`: a cluster comes back from a backup, as a new life of it.
//!
//! **Invariants.** The folder is complete or not there, as any folder of a member. The life is one
//! that no restore ever gave: it is the second in which it happens, and above that of the backup.
//! Whatever is numbered across lives (positions of the log, leases, allocations, members) goes on
//! from that second: nothing that was given out after the backup, or by an earlier restore of the
//! same backup, is given out again. The state itself is changed by one command alone.

use crate::backup::{BackupError, BackupHead, Contents};
use crate::build::Build;
use crate::env::Env;
use crate::folder::{FIRST_LIFE, Places, certify, write_life};
use crate::pace::Pace;
use crate::peers::Peers;
use crate::place::{Place, PlaceError};
use crate::proposer::{self, DiskOptions, StartError};
use crate::raft::{FatalError, MembersError};
use crate::storage::{self, Members, Peer, Position, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use yard_common::id::{ClusterId, Incarnation, LogIndex, MemberId};
use yard_core::command::{Cluster, Command, Rejection};
use yard_core::state::State;
use yard_runtime::files::FileError;
use yard_runtime::identity::{IdentityError, Principal};
use yard_runtime::tls::{self, ClientTls, ConnectError, TlsError};

/// How far the clock of this machine may be behind that of the member that wrote the backup, in
/// milliseconds.
const BEHIND_MS_MAX: u64 = 10 * 60 * 1_000;

/// Where the cluster is to go on.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The folder of its first member; must not exist, or be empty.
    pub folder: PathBuf,
    /// Host and port that everybody reaches the member by.
    pub address: String,
    /// What the program understands.
    pub build: Build,
}

/// A cluster that was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its life from here on.
    pub incarnation: Incarnation,
    /// Its only member.
    pub member: MemberId,
}

/// Why no cluster was restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The folder, or the place beside it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The address is not `host:port`.
    #[error("the address of the member is not legal")]
    Address(#[source] ConnectError),
    /// The clock is wrong.
    #[error(
        "the clock of this machine is {behind_s} s behind that of the backup; set it first: the \
             new life is told from former ones by it"
    )]
    Clock {
        /// How far.
        behind_s: u64,
    },
    /// The clock is wrong, or was once.
    #[error("the clock shows a time that no life can be named after")]
    Far,
    /// A file.
    #[error("a file of the folder failed")]
    File(#[from] FileError),
    /// Keys and certificates.
    #[error("no certificate could be made for the member")]
    Identity(#[from] IdentityError),
    /// Connections.
    #[error("the new certificate cannot be used")]
    Tls(#[from] TlsError),
    /// The state could not be put in place.
    #[error("the state could not be put in place")]
    Storage(#[from] StorageError),
    /// The log.
    #[error("the log could not be begun")]
    Start(#[from] StartError),
    /// The consensus.
    #[error("the cluster could not be begun")]
    Begin(#[from] MembersError),
    /// The command that begins the life.
    #[error("the new life could not be begun: {0}")]
    Refused(Rejection),
    /// The disk.
    #[error("the member stopped")]
    Fatal(#[source] Arc<FatalError>),
}

/// What a restore gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    incarnation: Incarnation,
    member: MemberId,
    /// What the state stands for: the log goes on after it.
    last: Position,
    after_ms: u64,
}

fn plan(head: &BackupHead, state: &State, now_wall_ms: u64) -> Result<Plan, RestoreError> {
    let behind_ms = head.wall_ms.saturating_sub(now_wall_ms);
    if behind_ms > BEHIND_MS_MAX {
        return Err(RestoreError::Clock { behind_s: behind_ms / 1_000 });
    }
    let second = u32::try_from(now_wall_ms / 1_000).map_err(|_| RestoreError::Far)?;
    let life = head.incarnation.0;
    // A life that began with a restore is named after a second. One more than that may be the
    // number of a member that joined it.
    if head.incarnation > FIRST_LIFE && second <= life {
        return Err(RestoreError::Clock { behind_s: u64::from(life - second) + 1 });
    }
    let next = life.checked_add(1).ok_or(RestoreError::Far)?;
    let incarnation = Incarnation(second.max(next));
    let first = incarnation.first_number();
    if head.last.index.0 >= first {
        return Err(RestoreError::Far);
    }
    let known = head.members.iter().map(|(id, _)| id.0);
    let voters = state.membership.voters.iter().chain(state.membership.joint.iter().flatten());
    let known = known.chain(voters.map(|id| id.0)).chain([state.member_last]);
    let highest = known.max().unwrap_or(0);
    let member = MemberId(u64::from(incarnation.0).max(highest.saturating_add(1)));
    let last = Position { index: LogIndex(first), ..head.last };
    let after_ms = now_wall_ms.saturating_sub(head.wall_ms);
    Ok(Plan { incarnation, member, last, after_ms })
}

/// Restores a cluster, with one member that was never in it. Nothing is left behind when it fails.
///
/// # Errors
/// The step that failed.
pub async fn restore(
    options: RestoreOptions,
    backup: Contents,
    env: Arc<dyn Env>,
) -> Result<Restored, RestoreError> {
    tls::endpoint(&options.address).map_err(RestoreError::Address)?;
    let plan = plan(&backup.head, &backup.state, env.wall_ms())?;
    let place = Place::of(&options.folder, "restore")?;
    place.check()?;
    let _lock = place.begin_anew()?;
    let cluster = backup.head.cluster;
    if let Err(error) = fill(&Places::of(place.beside()), &options, plan, backup, &env).await {
        // The first error tells more than one of the clearing up.
        let _ = place.clear();
        return Err(error);
    }
    place.put()?;
    Ok(Restored { cluster, incarnation: plan.incarnation, member: plan.member })
}

async fn fill(
    places: &Places,
    options: &RestoreOptions,
    plan: Plan,
    backup: Contents,
    env: &Arc<dyn Env>,
) -> Result<(), RestoreError> {
    let RestoreOptions { address, build, .. } = options;
    let Plan { incarnation, member, last, after_ms } = plan;
    let Contents { head, authority, state_bytes, .. } = backup;
    authority.save(&places.authority)?;
    let identity = certify(&authority, Principal::Member(member), address, &**env)?;
    identity.save(&places.identity)?;
    write_life(places, incarnation)?;
    let own = storage::Identity { cluster: head.cluster, incarnation, member };
    let members = Members {
        voters: BTreeSet::from([member]),
        joint: None,
        peers: BTreeMap::from([(member, Peer { address: address.clone() })]),
    };
    storage::seed(env, &places.data, own, (last, state_bytes), members).await?;
    let (tls, pace) = (ClientTls::new(&identity)?, Pace::new(proposer::ROUND_TRIP_MS));
    let peers = Arc::new(Peers::new(tls, Arc::clone(env), incarnation, pace));
    // How much room there must be is a setting of the process that will run.
    let disk = DiskOptions { floor_bytes: 0, reserve_bytes: 0, ..DiskOptions::DEFAULT };
    let (folder, round_trip_ms) = (places.data.clone(), proposer::ROUND_TRIP_MS);
    let data = proposer::Options { identity: own, folder, disk, round_trip_ms, build: *build };
    let service = proposer::Service::start(data, Arc::clone(env), peers).await?;
    let handle = service.handle();
    let first = Cluster::Restored { incarnation, after_ms };
    let begun = handle.propose_first(&Command::Cluster(first)).await;
    handle.shutdown();
    service.wait().await.map_err(RestoreError::Fatal)?;
    begun?.map_err(RestoreError::Refused)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::{FeatureLevel, LeaderId};

    const NOW_MS: u64 = 1_795_000_000_000;

    fn head(wall_ms: u64) -> BackupHead {
        let leader = LeaderId { term: 7, member: MemberId(3) };
        BackupHead {
            cluster: ClusterId::from_u128(5),
            incarnation: Incarnation(1),
            last: Position { leader, index: LogIndex(900) },
            wall_ms,
            version: "0.1.0".into(),
            feature_level: FeatureLevel(0),
            members: vec![(MemberId(1), "a:1".into()), (MemberId(4), "b:1".into())],
            jobs: 0,
            jobs_live: 0,
            nodes: 0,
        }
    }

    #[test]
    fn one_backup_restored_twice_is_two_lives_that_share_no_number() {
        let (head, state) = (head(NOW_MS - 3_600_000), State::default());
        let first = plan(&head, &state, NOW_MS).unwrap();
        assert_eq!((first.incarnation, first.after_ms), (Incarnation(1_795_000_000), 3_600_000));
        assert_eq!(first.member, MemberId(1_795_000_000));
        assert_eq!(first.last.leader, head.last.leader);
        let second = plan(&head, &state, NOW_MS + 1_000).unwrap();
        assert!(second.incarnation > first.incarnation && second.member > first.member);
        assert_eq!(second.last.index.0 - first.last.index.0, 1 << 20);
        let later = BackupHead { incarnation: second.incarnation, last: second.last, ..head };
        let third = plan(&later, &state, NOW_MS + 2_000).unwrap();
        assert!(third.incarnation > second.incarnation && third.last > second.last);
        // One more than the life could be the number of a member that joined it.
        let behind = plan(&later, &state, NOW_MS - 60_000);
        assert!(matches!(behind, Err(RestoreError::Clock { behind_s: 62 })), "{behind:?}");
    }

    #[test]
    fn a_clock_that_is_wrong_is_refused() {
        let state = State::default();
        let behind = plan(&head(NOW_MS), &state, NOW_MS - BEHIND_MS_MAX - 1_000);
        assert!(matches!(behind, Err(RestoreError::Clock { behind_s: 601 })));
        assert!(plan(&head(NOW_MS), &state, NOW_MS - BEHIND_MS_MAX).is_ok());
        let far = plan(&head(NOW_MS), &state, u64::MAX);
        assert!(matches!(far, Err(RestoreError::Far)));
        let last = Position { index: LogIndex(u64::MAX), ..head(0).last };
        let far = plan(&BackupHead { last, ..head(NOW_MS) }, &state, NOW_MS);
        assert!(matches!(far, Err(RestoreError::Far)));
    }
}
