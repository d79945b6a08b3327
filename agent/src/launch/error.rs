//! Why an assignment cannot be prepared on this node: each names the value and the fix.

use std::path::PathBuf;
use thiserror::Error;
use yard_common::cause::PrepareStep;
use yard_common::spec::run::Launch;

/// Why preparing failed.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The stored details cannot be read.
    #[error("the details of the assignment cannot be read: {0}")]
    Details(String),
    /// The spec is none that this release understands.
    #[error("the job's spec is not understood by this release: {0}")]
    Spec(String),
    /// The details do not fit the spec.
    #[error("the details name node {node} of {nodes}, and group {group}; they do not fit the job")]
    Shape {
        /// Position of the node.
        node: u32,
        /// Nodes of the gang.
        nodes: usize,
        /// The group.
        group: u8,
    },
    /// This release has no such launcher.
    #[error("launch: {0} cannot be launched by this release; use plain, torch, mpi or custom")]
    Launcher(Launch),
    /// The owner has no unix account.
    #[error(
        "the job's owner has no unix login; an operator sets it: yard user set NAME --unix LOGIN"
    )]
    NoLogin,
    /// The login is unknown here.
    #[error(
        "there is no account {login} on node {node}; create it, or give the owner another login"
    )]
    NoAccount {
        /// The login.
        login: String,
        /// The node.
        node: String,
    },
    /// Only root becomes somebody else.
    #[error(
        "the agent of node {node} runs as {own} and cannot start processes as {login}; run the \
        agent as root, or submit as {own}"
    )]
    OtherAccount {
        /// The login that is asked for.
        login: String,
        /// The agent's own.
        own: String,
        /// The node.
        node: String,
    },
    /// The account has the rights of root.
    #[error(
        "jobs do not run as {login} on node {node}, which has the rights of root; give the owner \
        another login, or name this one in root_logins of the node's agent.toml"
    )]
    Root {
        /// The login.
        login: String,
        /// The node.
        node: String,
    },
    /// The name service does not answer.
    #[error("account {login} cannot be looked up: {errno}")]
    Lookup {
        /// The login.
        login: String,
        /// The system's answer.
        errno: nix::errno::Errno,
    },
    /// The working directory is not there.
    #[error(
        "the working directory {path} is not on node {node}; set workdir: to one that every node \
        has, or use a shared file system"
    )]
    Workdir {
        /// The directory.
        path: PathBuf,
        /// The node.
        node: String,
    },
    /// A directory or file of the attempt cannot be made.
    #[error("{path} cannot be made: {source}")]
    Scratch {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A limit cannot be set.
    #[error("{0}: {source}", source = std::error::Error::source(.0).map_or(String::new(),
        ToString::to_string))]
    Limits(#[from] crate::cgroup::CgroupError),
    /// A text holds a NUL.
    #[error("a word or variable of the job holds a NUL: {0}")]
    Nul(String),
    /// Nobody can reach the other nodes of the gang.
    #[error(
        "launch: mpi over {0} machines is not in this version; write nodes: 1 with more \
        ranks_per_node, or another launcher"
    )]
    NoGang(usize),
}

impl PrepareError {
    /// The step that failed, as the coordinator counts it.
    #[must_use]
    pub fn step(&self) -> PrepareStep {
        match self {
            PrepareError::NoLogin => PrepareStep::Login,
            PrepareError::NoAccount { .. }
            | PrepareError::OtherAccount { .. }
            | PrepareError::Root { .. }
            | PrepareError::Lookup { .. } => PrepareStep::Account,
            PrepareError::Workdir { .. } => PrepareStep::Workdir,
            PrepareError::Limits(_) | PrepareError::Scratch { .. } => PrepareStep::Limits,
            PrepareError::Details(_) | PrepareError::Shape { .. } => PrepareStep::Code,
            // What no other try and no other machine would change.
            PrepareError::Spec(_)
            | PrepareError::Launcher(_)
            | PrepareError::NoGang(_)
            | PrepareError::Nul(_) => PrepareStep::Setup,
        }
    }
}
