//! Commands: the only inputs of [`State::apply`](crate::state::State::apply).
//!
//! A command comes out of the committed log in an [`Envelope`] that says who asks, who led, when,
//! and under which request. A member that meets a command it does not know stops: numbers of
//! variants and fields are never used twice.

mod access;
mod cluster;
mod holder;
mod job;
mod level;
mod node;
mod plan;
mod reply;
mod setup;

pub use access::{Access, Grant, Role, Scope};
pub use cluster::{Cluster, Raise};
pub use holder::{Holder, HolderLimit, LimitScope, PoolChange, QueueChange};
pub use job::{Adjust, JobCommand, Submit, Visit};
pub use level::{FEATURE_LEVEL_MAX, requires};
pub use node::{Condition, DrainPlan, Inventory, NodeCommand};
pub use plan::{Placement, Plan, Promise, ShareChoice, Stop};
pub use reply::{Object, Rejection, Reply};
pub use setup::{Setup, SetupId, SetupReport, SetupStage};

use crate::agent::Report;
use minicbor::{Decode, Encode};
use yard_common::id::{LeaderId, NodeId, PrincipalId, RequestId};

/// Who, under whom, when, and as which request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    /// Who asks. The edge has authenticated it; apply authorises.
    #[n(0)]
    pub actor: Actor,
    /// Who led when this was proposed. Refused if another leader has started since.
    #[n(1)]
    pub leader: LeaderId,
    /// When it was proposed.
    #[n(2)]
    pub stamp: Stamp,
    /// Made by the client, so that a retry finds the first answer.
    #[n(3)]
    pub request: Option<RequestId>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Actor {
    /// The leader's own work: plans, time, liveness of nodes.
    #[n(0)]
    Leader,
    /// A user.
    #[n(1)]
    User(#[n(0)] PrincipalId),
    /// An agent, for its own node only.
    #[n(2)]
    Node(#[n(0)] NodeId),
    /// Whoever presents a token; the command carries its hash.
    #[n(3)]
    Bearer,
}

/// The two times of a command.
///
/// `cluster_ms` is the last value that the leader saw applied at its barrier plus the time that
/// its monotonic clock counted since. Limits, back-off, aging and retention use it alone, so a
/// wrong wall clock harms nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Stamp {
    /// Milliseconds of the cluster's life; never falls.
    #[n(0)]
    pub cluster_ms: u64,
    /// Milliseconds since 1970 UTC, for people.
    #[n(1)]
    pub wall_ms: u64,
}

/// Everything that can be asked of the state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Life of the cluster itself.
    #[n(0)]
    Cluster(#[n(0)] Cluster),
    /// Users, roles, tokens, revocations, secrets.
    #[n(1)]
    Access(#[n(0)] Access),
    /// Workspaces, pools, queues, limits, settings, mounts.
    #[n(2)]
    Holder(#[n(0)] Holder),
    /// Life of a node.
    #[n(3)]
    Node(#[n(0)] NodeCommand),
    /// Life of a job.
    #[n(4)]
    Job(#[n(0)] JobCommand),
    /// What the scheduler decided.
    #[n(5)]
    Plan(#[n(0)] Plan),
    /// What an agent saw.
    #[n(6)]
    Report(#[n(0)] NodeReport),
}

impl Command {
    /// The family, for the audit record.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self {
            Command::Cluster(_) => "cluster",
            Command::Access(_) => "access",
            Command::Holder(_) => "holder",
            Command::Node(_) => "node",
            Command::Job(JobCommand::Visit { visit: Visit::Exec, .. }) => "exec",
            Command::Job(JobCommand::Visit { visit: Visit::Forward(_), .. }) => "forward",
            Command::Job(JobCommand::Visit { visit: Visit::Checkpoint, .. }) => "checkpoint",
            Command::Job(_) => "job",
            Command::Plan(_) => "plan",
            Command::Report(_) => "report",
        }
    }
}

/// Reports of one node, in the order of their sequence.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeReport {
    /// The node; must be the actor.
    #[n(0)]
    pub node: NodeId,
    /// The reports.
    #[n(1)]
    pub reports: Vec<Report>,
}
