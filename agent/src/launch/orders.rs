//! What a shim finds in its directory: which assignment it serves, and where.

use super::assignment::Assignment;
use super::error::PrepareError;
use crate::cgroup::{GpuNodes, Support};
use minicbor::{Decode, Encode};
use std::path::PathBuf;
use yard_common::id::BootId;
use yard_core::agent::{AssignmentId, Chain, Isolation};

/// Everything that a shim is told when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Orders {
    /// Which assignment.
    #[n(0)]
    pub id: AssignmentId,
    /// Its tasks.
    #[n(1)]
    pub chain: Chain,
    /// Which deadline it keeps.
    #[n(2)]
    pub isolation: Isolation,
    /// The rest of it.
    #[n(3)]
    pub assignment: Assignment,
    /// The node.
    #[n(4)]
    pub site: Site,
}

/// What is the same for all assignments of a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Site {
    /// The node's name.
    #[n(0)]
    pub node: String,
    /// The agent's directory.
    #[n(1)]
    pub root: String,
    /// The boot in which this was written.
    #[n(2)]
    pub boot: BootId,
    /// `PATH` of jobs.
    #[n(3)]
    pub path: String,
    /// Our own program.
    #[n(4)]
    pub program: String,
    /// Where the shims of a gang meet when all are on one machine.
    #[n(5)]
    pub gang_dir: Option<String>,
    /// Groups of version 2.
    #[n(6)]
    pub cgroup_v2: Option<String>,
    /// Their controllers.
    #[n(7)]
    pub cgroup_controllers: Vec<String>,
    /// Groups of version 1 by controller.
    #[n(8)]
    pub cgroup_v1: Vec<(String, String)>,
    /// Jobs whose owner has no login run as the agent's own account, root included.
    #[n(9)]
    pub jobs_as_agent: bool,
    /// Groups of version 2 may have programs.
    #[n(10)]
    #[cbor(default)]
    pub cgroup_programs: bool,
    /// CPUs are a bound, not a weight alone.
    #[n(11)]
    #[cbor(default)]
    pub cpus_bound: bool,
    /// Accounts with the rights of root that jobs may run as.
    #[n(12)]
    #[cbor(default)]
    pub root_logins: Vec<String>,
    /// Where the device files of GPUs are described.
    #[n(13)]
    #[cbor(default)]
    pub gpu_nodes: GpuNodes,
    /// Its file system makes no holes in files.
    #[n(14)]
    #[cbor(default)]
    pub lacks_holes: bool,
}

impl Site {
    /// With what the machine offers.
    #[must_use]
    pub fn with_cgroups(mut self, support: &Support) -> Site {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        self.cgroup_v2 = support.v2.as_ref().map(text);
        self.cgroup_controllers = support.controllers.clone();
        self.cgroup_v1 = support.v1.iter().map(|(n, path)| (n.clone(), text(path))).collect();
        self.cgroup_programs = support.programs;
        self
    }

    /// What the machine offers.
    #[must_use]
    pub fn cgroups(&self) -> Support {
        Support {
            v2: self.cgroup_v2.as_ref().map(PathBuf::from),
            controllers: self.cgroup_controllers.clone(),
            v1: self.cgroup_v1.iter().map(|(n, path)| (n.clone(), path.into())).collect(),
            programs: self.cgroup_programs,
            // For the whole of the agent, which does it itself.
            refuses: false,
        }
    }
}

impl Orders {
    /// As a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = minicbor::to_vec(self).expect("writing to memory does not fail");
        let mut bytes = crc32fast::hash(&body).to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// From a file.
    ///
    /// # Errors
    /// If it is damaged, or of a release that this one does not understand.
    pub fn from_bytes(bytes: &[u8]) -> Result<Orders, PrepareError> {
        let (head, body) = bytes
            .split_first_chunk::<4>()
            .ok_or_else(|| PrepareError::Details("the file is empty".into()))?;
        if u32::from_le_bytes(*head) != crc32fast::hash(body) {
            return Err(PrepareError::Details("the file is damaged".into()));
        }
        minicbor::decode(body).map_err(|error| PrepareError::Details(error.to_string()))
    }
}
