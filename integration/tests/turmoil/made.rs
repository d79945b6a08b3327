//! A cluster before it runs: certificates, folders, and the log of a first member.

use crate::agent::inventory;
use crate::env::WALL_MS;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::{Builder, RngSeed};
use yard_common::id::{
    ClusterId, Incarnation, MemberId, NodeId, PoolId, PrincipalId, RequestId, TokenId,
};
use yard_coordinator::env::{MemoryDisk, TestEnv};
use yard_coordinator::proposer;
use yard_coordinator::raft::{Letter, Transport, TransportError};
use yard_coordinator::storage::{self, Peer};
use yard_core::command::{Access, Actor, Cluster, Command, NodeCommand, Scope};
use yard_runtime::identity::{Authority, Identity, KeyRequest, Principal};

/// Members of a cluster.
pub(crate) const MEMBERS: u64 = 3;
/// Machines of a cluster.
pub(crate) const NODES: u32 = 2;
/// Where each of them listens.
pub(crate) const PORT: u16 = 7100;
/// Longer than any real clock of a machine that runs this test: it is TLS that looks at it.
const LIFE_MS: u64 = 15 * 365 * 24 * 3_600 * 1_000;

/// The host of a member.
pub(crate) fn host(member: u64) -> String {
    format!("m{member}")
}

/// The host of a machine.
pub(crate) fn machine(node: u32) -> String {
    format!("n{node}")
}

/// Where others reach a member.
pub(crate) fn address(member: u64) -> String {
    format!("{}:{PORT}", host(member))
}

/// What a run begins with.
pub(crate) struct Made {
    root: TempDir,
    pub(crate) admin: Identity,
    /// Agents by node, from 0 on.
    pub(crate) agents: Vec<Identity>,
    /// Disks by member, from 1 on.
    pub(crate) disks: Vec<MemoryDisk>,
}

impl Made {
    /// Makes a cluster whose first member is alone, and what the others need to join it.
    pub(crate) fn new(seed: u64) -> Made {
        let root = tempfile::tempdir().unwrap();
        let cluster = ClusterId::from_u128(u128::from(seed) + 1);
        let authority = Authority::create(cluster, WALL_MS).unwrap();
        for member in 1..=MEMBERS {
            let principal = Principal::Member(MemberId(member));
            let identity = certify(&authority, principal, &[host(member)]);
            let folder = root.path().join(host(member)).join("identity");
            std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
            identity.save(&folder).unwrap();
        }
        let admin = certify(&authority, Principal::User(PrincipalId(0)), &[]);
        let agent = |node| certify(&authority, Principal::Node(NodeId(node)), &[]);
        let agents = (0..NODES).map(agent).collect();
        let disks: Vec<MemoryDisk> = (0..MEMBERS).map(|_| MemoryDisk::default()).collect();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()
            .unwrap();
        runtime.block_on(begin(cluster, disks[0].clone(), seed));
        Made { root, admin, agents, disks }
    }

    /// The folder of a member.
    pub(crate) fn folder(&self, member: u64) -> PathBuf {
        self.root.path().join(host(member))
    }

    /// The disk of a member.
    pub(crate) fn disk(&self, member: u64) -> MemoryDisk {
        self.disks[usize::try_from(member - 1).unwrap()].clone()
    }
}

fn certify(authority: &Authority, principal: Principal, names: &[String]) -> Identity {
    let request = KeyRequest::new().unwrap();
    let issued = authority.issue(request.der(), principal, names, WALL_MS, LIFE_MS).unwrap();
    request.complete(&issued.certificate, authority.trust().clone()).unwrap()
}

/// Nobody answers: the first member is alone.
struct Nobody;

impl Transport for Nobody {
    fn ask(&self, letter: Letter) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let gone = TransportError::Unreachable(letter.to, "it does not run yet".into());
        std::future::ready(Err(gone)).boxed()
    }
}

/// A reserve that disks in memory are not busy with.
pub(crate) const DISK: proposer::DiskOptions =
    proposer::DiskOptions { reserve_bytes: 256 << 10, ..proposer::DiskOptions::DEFAULT };

/// Writes the first entries of the cluster.
async fn begin(cluster: ClusterId, disk: MemoryDisk, seed: u64) {
    let member = MemberId(1);
    let identity = storage::Identity { cluster, incarnation: Incarnation(1), member };
    let (round_trip_ms, build) = (proposer::ROUND_TRIP_MS, yard_coordinator::Build::CURRENT);
    let (folder, disk_options) = ("data".into(), DISK);
    let options = proposer::Options { identity, folder, disk: disk_options, round_trip_ms, build };
    let env = Arc::new(TestEnv::new(disk, seed, WALL_MS));
    let service = proposer::Service::start(options, env, Arc::new(Nobody)).await.unwrap();
    let handle = service.handle();
    let first = Cluster::Initialise { cluster, admin: "ada".into(), unix: None };
    let peer = Peer { address: address(1) };
    handle.init_cluster(peer, &Command::Cluster(first)).await.unwrap().unwrap();
    for node in 0..NODES {
        let (token, secret_sha256) = (TokenId::from_u128(u128::from(node)), [7; 32]);
        let scope = Scope::Join(PoolId(0));
        let add = Access::AddToken { token, secret_sha256, scope, life_ms: 60_000 };
        let inventory = inventory(node);
        let join = NodeCommand::Join { token, secret_sha256, name: machine(node), inventory };
        // Clients count from the other end.
        let request = |nth: u32| Some(RequestId::from_u128(u128::MAX - u128::from(2 * node + nth)));
        let admin = Actor::User(PrincipalId(0));
        handle.propose(admin, request(0), &Command::Access(add)).await.unwrap().unwrap();
        handle.propose(Actor::Bearer, request(1), &Command::Node(join)).await.unwrap().unwrap();
    }
    handle.shutdown();
    service.wait().await.unwrap();
}
