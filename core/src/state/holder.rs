//! Workspaces, experiments, pools, queues and mounts.

use crate::command::{Inventory, PoolChange, QueueChange, Setup, SetupId, SetupStage};
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
    /// What its machines do before they take work.
    #[n(4)]
    #[cbor(default)]
    pub setup: Option<Setup>,
    /// Which one that is, or which change took the last one away.
    #[n(5)]
    #[cbor(default)]
    pub setup_id: SetupId,
}

impl Pool {
    /// Whether a machine that tells this has not done the setup.
    #[must_use]
    pub fn is_setup_due(&self, facts: &Inventory) -> bool {
        let done = |stage| stage == SetupStage::Done;
        let report = facts.setup.filter(|report| report.id == self.setup_id && done(report.stage));
        self.setup.is_some() && report.is_none()
    }
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
