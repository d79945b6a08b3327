//! The replicated state: every table, and the one way to change them.
//!
//! [`State::apply`] takes a committed command and nothing else; whatever reads the state works on
//! a clone, which costs nothing. Every member that applied the same commands holds the same state:
//! a running hash over replies and events, and a rolling digest of the records, show it at once
//! when one does not.

mod access;
mod allocation;
mod check;
mod dedup;
mod desired;
mod digest;
mod holder;
mod holding;
mod job;
mod member;
mod names;
mod node;
mod shape;
mod slices;
mod task;
mod timer;
mod usage;

pub use access::{Principal, Revocation, Secret, SecretKey, Token};
pub use allocation::{Allocation, Share};
pub use check::{Rule, Violation};
pub use dedup::{Answer, Dedup, Made};
pub use digest::Digest;
pub use holder::{Experiment, Mount, Pool, Queue, Workspace};
pub use holding::{Excess, Holding, HoldingKey, Holdings, Payers};
pub use job::{Cancel, Job, Pending, PendingKey, Waits, pending_of};
pub use member::{Joined, Member};
pub use node::{Cordon, Drain, HeldBack, Leftover, Node};
pub use shape::Shapes;
pub use slices::{Schema, slice_name};
pub use task::{Counts, Phase, TaskStatus, Tasks};
pub use timer::{Timer, Timers};
pub use usage::{Held, Integral, Usage, UsageKey, UsageTable};

use crate::command::{Promise, Stamp};
use crate::encoding::bytes_of;
use crate::lease::{Membership, MembershipId};
use crate::table::{Named, Ordered, Table};
use minicbor::{Decode, Encode};
use yard_common::id::{
    AllocationId, ClusterId, ExperimentId, FeatureLevel, Incarnation, JobId, LeaderId, LogIndex,
    MemberId, MountId, NodeId, PoolId, PrincipalId, QueueId, TaskIndex, TokenId, WorkspaceId,
};

/// The number of the field that says which version a member needs: it never changes.
const LEVEL_VERSION: u32 = 36;

/// Everything that the members agree on.
#[derive(Clone, Debug, Encode, Decode)]
pub struct State {
    /// The cluster; none before it is initialised.
    #[n(0)]
    pub cluster: Option<ClusterId>,
    /// Its life.
    #[n(1)]
    pub incarnation: Incarnation,
    /// What every member understands.
    #[n(2)]
    pub feature_level: FeatureLevel,
    /// The leader that started last.
    #[n(3)]
    pub leader: Option<LeaderId>,
    /// The voting members, and the position of the entry that made them so.
    #[n(4)]
    pub membership: Membership,
    /// The last command that was applied.
    #[n(5)]
    pub applied: LogIndex,
    /// Its time.
    #[n(6)]
    pub clock: Stamp,
    /// Hash over the replies and events of all commands so far.
    #[n(7)]
    pub history_hash: u64,
    /// Rolling digest of the records.
    #[n(8)]
    pub digest: Digest,

    /// Tenancy boundaries.
    #[n(10)]
    pub workspaces: Named<WorkspaceId, Workspace>,
    /// Groups of jobs.
    #[n(11)]
    pub experiments: Table<ExperimentId, Experiment>,
    /// Experiments by name.
    #[n(12)]
    pub experiment_names: Ordered<(WorkspaceId, Box<str>), ExperimentId>,
    /// Users.
    #[n(13)]
    pub principals: Named<PrincipalId, Principal>,
    /// Tokens that nobody has used.
    #[n(14)]
    pub tokens: Ordered<TokenId, Token>,
    /// Refused certificates by serial number.
    #[n(15)]
    pub revocations: Ordered<Vec<u8>, Revocation>,
    /// Sealed secrets.
    #[n(16)]
    pub secrets: Ordered<SecretKey, Secret>,
    /// Sets of nodes.
    #[n(17)]
    pub pools: Named<PoolId, Pool>,
    /// Holders of pending tasks.
    #[n(18)]
    pub queues: Named<QueueId, Queue>,
    /// Cluster-wide settings.
    #[n(19)]
    pub settings: Ordered<Box<str>, Box<str>>,
    /// Volume definitions.
    #[n(20)]
    pub mounts: Table<MountId, Mount>,
    /// Volume definitions by name.
    #[n(21)]
    pub mount_names: Ordered<(WorkspaceId, Box<str>), MountId>,
    /// What is held by whom, and the limits on it.
    #[n(22)]
    pub holdings: Holdings,
    /// Machines.
    #[n(23)]
    pub nodes: Named<NodeId, Node>,
    /// Jobs.
    #[n(24)]
    pub jobs: Table<JobId, Job>,
    /// Jobs with a queued task, in the order of their queues.
    #[n(25)]
    pub pending: Pending,
    /// Which jobs wait for which: (the one that must end, the one that waits).
    #[n(26)]
    pub dependents: Ordered<(JobId, JobId), ()>,
    /// Ended jobs by the time of their end.
    #[n(27)]
    pub ended: Ordered<(u64, JobId), ()>,
    /// Shapes of jobs and allocations.
    #[n(28)]
    pub shapes: Shapes,
    /// What attempts hold.
    #[n(29)]
    pub allocations: Table<AllocationId, Allocation>,
    /// Resources promised to tasks that do not hold them yet.
    #[n(30)]
    pub reservations: Ordered<(JobId, TaskIndex), Promise>,
    /// Answered requests.
    #[n(31)]
    pub dedup: Dedup,
    /// What is to happen at a time.
    #[n(32)]
    pub timers: Timers,
    /// Usage roll-ups.
    #[n(33)]
    pub usage: UsageTable,
    /// Machines that joined as members, and members that are to leave. One that founded the
    /// cluster is a member without a record.
    #[n(34)]
    #[cbor(default)]
    pub members: Ordered<MemberId, Member>,
    /// The highest number that a member ever had: none is used twice.
    #[n(35)]
    #[cbor(default)]
    pub member_last: u64,
    /// The version of the program that asked for the feature level; empty at the first one.
    #[n(36)]
    #[cbor(default)]
    pub level_version: Box<str>,
}

impl Default for State {
    /// The state before the first command.
    fn default() -> Self {
        State {
            cluster: None,
            incarnation: Incarnation(1),
            feature_level: FeatureLevel(0),
            leader: None,
            membership: Membership::of(MembershipId(LogIndex(0)), []),
            applied: LogIndex(0),
            clock: Stamp::default(),
            history_hash: 0,
            digest: Digest::default(),
            workspaces: Named::default(),
            experiments: Table::default(),
            experiment_names: Ordered::default(),
            principals: Named::default(),
            tokens: Ordered::default(),
            revocations: Ordered::default(),
            secrets: Ordered::default(),
            pools: Named::default(),
            queues: Named::default(),
            settings: Ordered::default(),
            mounts: Table::default(),
            mount_names: Ordered::default(),
            holdings: Holdings::default(),
            nodes: Named::default(),
            jobs: Table::default(),
            pending: Pending::default(),
            dependents: Ordered::default(),
            ended: Ordered::default(),
            shapes: Shapes::default(),
            allocations: Table::default(),
            reservations: Ordered::default(),
            dedup: Dedup::default(),
            timers: Timers::default(),
            usage: UsageTable::default(),
            members: Ordered::default(),
            member_last: 0,
            level_version: "".into(),
        }
    }
}

impl State {
    /// Milliseconds of the cluster's life, as of the last command.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.cluster_ms
    }

    /// Who a job counts for.
    #[must_use]
    pub fn payers(job: &Job) -> Payers {
        Payers { queue: job.queue, workspace: job.workspace, owner: job.owner }
    }

    /// The whole state as bytes: what a snapshot holds.
    ///
    /// # Errors
    /// Only if the bytes cannot be written, which memory never refuses.
    pub fn to_bytes(&self) -> Vec<u8> {
        bytes_of(self)
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// If the bytes are not those of a state, say where and why.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }

    /// The version of the program that asked for the feature level, of a snapshot that may not be
    /// readable otherwise; empty if it is not known.
    #[must_use]
    pub fn version_of(bytes: &[u8]) -> String {
        let mut decoder = minicbor::Decoder::new(bytes);
        let mut find = || {
            decoder.array()?;
            for _ in 0..LEVEL_VERSION {
                decoder.skip()?;
            }
            decoder.str()
        };
        find().unwrap_or_default().into()
    }
}
