//! Workspaces, experiments, pools, queues and mounts.

use crate::command::{PoolChange, QueueChange};
use crate::job::Floor;
use minicbor::{Decode, Encode};
use yard_common::id::WorkspaceId;

/// A tenancy boundary.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Workspace {
    /// Unique name.
    #[n(0)]
    pub name: Box<str>,
    /// Jobs in the state, ended ones included.
    #[n(1)]
    pub jobs: u64,
    /// Experiments, mounts and secrets that belong to it.
    #[n(2)]
    pub holds: u64,
}

/// A named group of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Experiment {
    /// Its workspace.
    #[n(0)]
    pub workspace: WorkspaceId,
    /// Its name there.
    #[n(1)]
    pub name: Box<str>,
    /// Jobs in the state, ended ones included. It goes with the last one.
    #[n(2)]
    pub jobs: u64,
}

/// A named set of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pool {
    /// Unique name.
    #[n(0)]
    pub name: Box<str>,
    /// What operators set.
    #[n(1)]
    pub set: PoolChange,
    /// Nodes in it.
    #[n(2)]
    pub nodes: u32,
    /// The smallest of its nodes; none while it has none.
    #[n(3)]
    pub floor: Option<Floor>,
}

/// An ordered holder of pending tasks. The order itself is in [`super::job::Pending`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Queue {
    /// Unique name.
    #[n(0)]
    pub name: Box<str>,
    /// What operators set.
    #[n(1)]
    pub set: QueueChange,
    /// Jobs in the state, ended ones included.
    #[n(2)]
    pub jobs: u64,
}

/// A volume definition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mount {
    /// Its workspace.
    #[n(0)]
    pub workspace: WorkspaceId,
    /// Its name there.
    #[n(1)]
    pub name: Box<str>,
    /// Canonical text; holds no secret.
    #[n(2)]
    pub definition: Box<str>,
}
