//! A node that has joined, and jobs for it.

use crate::cluster::Cluster;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use yard_agent::join::{self, Joined};
use yard_agent::service::{Handle, Options, Service};
use yard_common::id::{AllocationId, AttemptNumber, Generation, Incarnation, JobId, LeaseId};
use yard_common::spec::JobSpec;
use yard_core::agent::{
    AssignmentId, Chain, Desired, DesiredAssignment, DesiredPhase, Fence, Isolation,
};
use yard_proto::internal::coordinator_message::What as Told;
use yard_proto::internal::{self, AssignmentRef, Detail, DetailTask, GangNode};
use yard_proto::v1;
use yard_proto::wire::Payload;
use yard_runtime::identity::Token;

/// The program that is shim.
const HOST: &str = env!("CARGO_BIN_EXE_yard-agent-host");
pub(crate) const NAME: &str = "n1";
pub(crate) const JOB: u64 = 812;

/// A directory of an agent, that leaves no process when the story is over.
pub(crate) struct Root(TempDir);

impl Root {
    pub(crate) fn new() -> Root {
        Root(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        crate::leftovers::kill_below(self.path());
    }
}

pub(crate) fn join_options(root: &Root, token: Token, addresses: Vec<String>) -> join::Options {
    join::Options {
        directory: root.path().into(),
        token,
        addresses,
        name: NAME.into(),
        address: Some("127.0.0.1".into()),
        labels: Vec::new(),
        gpus_fake: Some(2),
        health: yard_agent::health::Options::default(),
        patience: Duration::from_secs(30),
    }
}

/// Joins through the first member.
pub(crate) async fn joined(root: &Root, cluster: &Cluster) -> Joined {
    let options = join_options(root, cluster.token(), vec![cluster.address(1)]);
    join::join(options).await.unwrap()
}

pub(crate) fn options(root: &Root) -> Options {
    let mut options = Options::new(root.path().into(), HOST.into());
    options.gpus_fake = Some(2);
    options.address = Some("127.0.0.1".into());
    options.cgroup = Some("none".into());
    // Jobs run as whoever runs the tests.
    options.root_logins = vec!["root".into()];
    options
}

pub(crate) async fn started(root: &Root) -> Handle {
    Service::start(options(root)).await.unwrap()
}

pub(crate) fn id(allocation: u64) -> AssignmentId {
    AssignmentId { allocation: AllocationId(allocation), group: 0 }
}

/// A set of one-task assignments that run.
pub(crate) fn set(generation: u64, allocations: &[u64]) -> Desired {
    let fence = Fence { incarnation: Incarnation(1), generation: Generation(generation) };
    let one = |allocation: &u64| DesiredAssignment {
        id: id(*allocation),
        job: JobId(JOB),
        // One task each: of one task, only the highest attempt runs.
        chain: Chain::one(*allocation as u32, AttemptNumber(1)),
        keep: 1,
        phase: DesiredPhase::Run,
        isolation: Isolation::Fenced,
    };
    let assignments = allocations.iter().map(one).collect();
    Desired { fence, lease: LeaseId(1), assignments, check: 0 }
}

/// Everything that the launcher needs of a job on this node.
pub(crate) fn detail(allocation: u64, command: &str) -> Detail {
    let yaml = format!("name: j\ncommand: {command:?}\n");
    let spec = JobSpec::from_yaml(&yaml).unwrap_or_else(|problems| panic!("{problems}"));
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    let node = GangNode {
        group: 0,
        group_name: "main".into(),
        node_id: 7,
        name: NAME.into(),
        address: "127.0.0.1".into(),
        ranks: 1,
        first_rank: 0,
        gpus: 0,
    };
    Detail {
        allocation_id: allocation,
        job_id: JOB,
        job_name: "j".into(),
        workspace: "default".into(),
        owner: "ann".into(),
        unix_login: own.name,
        spec: spec.to_json(),
        group_name: "main".into(),
        gang: vec![node],
        amounts: Some(v1::ResourceAmounts { cpu_milli: 1_000, ..Default::default() }),
        task_count: 1_000,
        tasks: vec![DetailTask {
            tasks: Some(v1::TaskRange { first: allocation as u32, len: 1 }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A set as the leader tells it.
pub(crate) fn told(set: &Desired, details: Vec<Detail>) -> Told {
    Told::Desired(internal::Desired { payload: set.to_payload().unwrap(), details })
}

/// The only task of an assignment.
pub(crate) fn reference(allocation: u64) -> Option<AssignmentRef> {
    Some(AssignmentRef {
        allocation_id: allocation,
        group: 0,
        job_id: JOB,
        task_index: allocation as u32,
        attempt: 1,
    })
}
