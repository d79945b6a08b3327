//! Commands about what holds jobs and nodes: workspaces, pools, queues, limits, settings, mounts.

use super::Setup;
use minicbor::{Decode, Encode};
use yard_common::Amounts;
use yard_common::id::{MountId, PoolId, PrincipalId, QueueId, WorkspaceId};

/// Workspaces, pools, queues, limits, settings, mounts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Holder {
    /// Makes a workspace.
    #[n(0)]
    AddWorkspace(#[n(0)] String),
    /// Removes a workspace that holds nothing.
    #[n(1)]
    RemoveWorkspace(#[n(0)] WorkspaceId),
    /// Makes a pool.
    #[n(2)]
    AddPool(#[n(0)] String, #[n(1)] PoolChange),
    /// Changes a pool.
    #[n(3)]
    SetPool(#[n(0)] PoolId, #[n(1)] PoolChange),
    /// Removes a pool without nodes that no queue names.
    #[n(4)]
    RemovePool(#[n(0)] PoolId),
    /// Makes a queue.
    #[n(5)]
    AddQueue(#[n(0)] String, #[n(1)] QueueChange),
    /// Changes a queue.
    #[n(6)]
    SetQueue(#[n(0)] QueueId, #[n(1)] QueueChange),
    /// Removes a queue without jobs.
    #[n(7)]
    RemoveQueue(#[n(0)] QueueId),
    /// Sets or, with none, removes the limit of a scope.
    #[n(8)]
    SetLimit(#[n(0)] LimitScope, #[n(1)] Option<HolderLimit>),
    /// Sets or, with none, removes a cluster-wide setting.
    #[n(9)]
    SetSetting(#[n(0)] String, #[n(1)] Option<String>),
    /// Defines a volume of a workspace. The definition is checked where it came in, and holds no
    /// secret.
    #[n(10)]
    AddMount {
        /// Its workspace.
        #[n(0)]
        workspace: WorkspaceId,
        /// Name within the workspace.
        #[n(1)]
        name: String,
        /// Canonical text.
        #[n(2)]
        definition: String,
    },
    /// Changes the definition of a volume.
    #[n(11)]
    SetMount(#[n(0)] MountId, #[n(1)] String),
    /// Removes a volume.
    #[n(12)]
    RemoveMount(#[n(0)] MountId),
    /// Sets or, with none, removes what the machines of a pool do before they take work.
    #[n(13)]
    SetSetup(#[n(0)] PoolId, #[n(1)] Option<Setup>),
}

/// What can be changed of a pool. The whole of it is given each time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PoolChange {
    /// For people.
    #[n(0)]
    pub description: String,
    /// Lease of its nodes in milliseconds; 0: the cluster's.
    #[n(1)]
    pub lease_ms: u64,
}

/// What can be changed of a queue. The whole of it is given each time.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueueChange {
    /// Queues of higher priority are planned first.
    #[n(0)]
    pub priority: i32,
    /// Pools that its tasks may use; empty: any.
    #[n(1)]
    pub pools: Vec<PoolId>,
    /// Whether it takes jobs.
    #[n(2)]
    pub accepts: bool,
    /// Whether it starts tasks.
    #[n(3)]
    pub starts: bool,
    /// Highest priority of its jobs.
    #[n(4)]
    pub job_priority_max: i32,
    /// Limit of an attempt for jobs that name none, in milliseconds.
    #[n(5)]
    pub time_limit_default_ms: Option<u64>,
    /// Longest limit of an attempt, in milliseconds; jobs without a limit are refused if set.
    #[n(6)]
    pub time_limit_max_ms: Option<u64>,
    /// Whether its jobs are preemptible unless they say otherwise.
    #[n(7)]
    pub preemptible: bool,
}

impl Default for QueueChange {
    /// An open queue without bounds.
    fn default() -> Self {
        QueueChange {
            priority: 0,
            pools: Vec::new(),
            accepts: true,
            starts: true,
            job_priority_max: yard_common::limits::PRIORITY_ABS_MAX,
            time_limit_default_ms: None,
            time_limit_max_ms: None,
            preemptible: false,
        }
    }
}

/// Whose use a limit bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum LimitScope {
    /// All jobs of a queue together.
    #[n(0)]
    Queue(#[n(0)] QueueId),
    /// All jobs of a workspace together.
    #[n(1)]
    Workspace(#[n(0)] WorkspaceId),
    /// All jobs of one owner together, in all queues.
    #[n(2)]
    Owner(#[n(0)] PrincipalId),
    /// The jobs of each owner in a queue, for every owner alike.
    #[n(3)]
    EachOwner(#[n(0)] QueueId),
}

/// What a limit bounds; `None`: not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct HolderLimit {
    /// CPU, memory and disk that running tasks hold; parts that are 0 are not bounded.
    #[n(0)]
    pub amounts: Amounts,
    /// GPUs that running tasks hold, in ten-thousandths.
    #[n(1)]
    pub gpu_parts: Option<u64>,
    /// Tasks that hold resources.
    #[n(2)]
    pub tasks: Option<u64>,
    /// Jobs that have not ended.
    #[n(3)]
    pub jobs: Option<u64>,
}
