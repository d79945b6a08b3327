use super::log_store::LogStore;
use super::machine::Machine;
use super::types::{self, Config};
use super::*;
use crate::env::{MemoryDisk, TestEnv};
use crate::storage::{Entry, Identity, Members, Payload, Position, Store, Vote};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::path::Path;
use yard_common::id::{ClusterId, Incarnation};

/// Builds a store on a disk of its own for each test of openraft's suite.
struct Builder;

/// What must live as long as the store.
struct Kept(#[allow(dead_code)] Box<dyn crate::env::Guard>);

impl StoreBuilder<Config, LogStore, Machine, Kept> for Builder {
    async fn build(&self) -> Result<(Kept, LogStore, Machine), StorageError<Config>> {
        let env: Arc<dyn Env> = Arc::new(TestEnv::new(MemoryDisk::default(), 1, 1));
        let (cluster, incarnation) = (ClusterId::from_u128(7), Incarnation(1));
        let identity = Identity { cluster, incarnation, member: MemberId(0) };
        let store = Store::open(&env, Path::new("data"), identity).await.unwrap();
        let (shared, fault) = (Shared::new(), Fault::new());
        let current = Arc::new(Mutex::new(None));
        let (snapshots, log) = (store.snapshots, store.log);
        let build = crate::Build::CURRENT;
        let machine = Machine { shared, snapshots, current, build, fault: fault.clone() };
        Ok((Kept(store.guard), LogStore { log, fault, flushes: Flushes::new() }, machine))
    }
}

#[tokio::test]
async fn the_store_passes_openrafts_own_suite() {
    Suite::test_all(Builder).await.unwrap();
}

#[test]
fn the_settings_are_legal() {
    for round_trip_ms in [0, 1, 40, 41, 150, 400] {
        let config = config(round_trip_ms).validate().unwrap();
        let modes = (config.enable_pre_vote, config.enable_leader_restore);
        assert_eq!(modes, (Some(true), Some(false)));
        assert!(config.heartbeat_interval > round_trip_ms, "answers come in time");
        assert!(config.election_timeout_min > 2 * round_trip_ms, "so do votes");
    }
    let times = |round_trip_ms| {
        let config = config(round_trip_ms);
        [config.heartbeat_interval, config.election_timeout_min, config.election_timeout_max]
    };
    assert_eq!(times(40), [50, 150, 400], "what links need that nobody thinks about");
    assert_eq!(times(200), [250, 750, 2_000]);
}

#[test]
fn our_types_come_back_from_openrafts() {
    let leader = LeaderId { term: 3, member: MemberId(2) };
    let position = Position { leader, index: LogIndex(1) };
    assert_eq!(types::position_to_raft(position).index, 0);
    let vote = Vote { leader, committed: true };
    assert_eq!(types::vote_to_ours(&types::vote_to_raft(vote)), vote);
    let peer = Peer { address: "a:1".into() };
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    let joint = Members {
        voters: ids(&[1, 2]),
        joint: Some(ids(&[2, 3])),
        peers: [1, 2, 3, 4].map(|id| (MemberId(id), peer.clone())).into(),
    };
    let payloads = [
        Payload::Blank,
        Payload::Commands(Bytes::from_static(b"abc")),
        Payload::Members(joint.clone()),
        Payload::Members(Members::default()),
    ];
    for payload in payloads {
        let entry = Entry { position, payload };
        assert_eq!(types::entry_to_ours(types::entry_to_raft(entry.clone())), entry);
    }
    assert!(types::members_are_sound(&joint) && types::members_are_sound(&Members::default()));
    let lost = Members { peers: BTreeMap::new(), ..joint.clone() };
    assert!(!types::members_are_sound(&lost));
    let odd = Members { voters: ids(&[]), ..joint };
    assert!(!types::members_are_sound(&odd));
}
