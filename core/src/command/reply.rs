//! Answers to commands. Part of the replicated history: deterministic and numbered.

use minicbor::{Decode, Encode};
use std::fmt;
use yard_common::ErrorCode;
use yard_common::id::{
    AllocationId, ExperimentId, FeatureLevel, Generation, Incarnation, JobId, LeaseId, MemberId,
    MountId, NodeId, PoolId, PrincipalId, QueueId, Sequence, TokenId, WorkspaceId,
};

/// What an accepted command answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Done.
    #[n(0)]
    Done,
    /// The job, new or found again.
    #[n(1)]
    Job(#[n(0)] JobId),
    /// A new object.
    #[n(2)]
    Made(#[n(0)] Object),
    /// A node joined or returned, under this lease.
    #[n(3)]
    Node {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// Its lease.
        #[n(1)]
        lease: LeaseId,
        /// Version of its desired set.
        #[n(2)]
        generation: Generation,
    },
    /// Tasks that the command took effect on.
    #[n(4)]
    Tasks(#[n(0)] u32),
    /// What of a plan was taken.
    #[n(5)]
    Planned {
        /// For each placement the allocation, or why it was left out.
        #[n(0)]
        placements: Vec<Result<AllocationId, Rejection>>,
    },
    /// All reports up to this one are applied.
    #[n(6)]
    Reported(#[n(0)] Sequence),
    /// Timers that fired.
    #[n(7)]
    Fired(#[n(0)] u32),
    /// The life of the cluster that began.
    #[n(8)]
    Incarnation(#[n(0)] Incarnation),
    /// The user whose login token was used up.
    #[n(9)]
    Login(#[n(0)] PrincipalId),
    /// The number of a machine that joined as a member.
    #[n(10)]
    Member(#[n(0)] MemberId),
}

/// An object that a reply names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Object {
    /// The cluster.
    #[n(0)]
    Cluster,
    /// A workspace.
    #[n(1)]
    Workspace(#[n(0)] WorkspaceId),
    /// A user.
    #[n(2)]
    User(#[n(0)] PrincipalId),
    /// A token.
    #[n(3)]
    Token(#[n(0)] TokenId),
    /// A pool.
    #[n(4)]
    Pool(#[n(0)] PoolId),
    /// A queue.
    #[n(5)]
    Queue(#[n(0)] QueueId),
    /// A volume.
    #[n(6)]
    Mount(#[n(0)] MountId),
    /// A node.
    #[n(7)]
    Node(#[n(0)] NodeId),
    /// A job.
    #[n(8)]
    Job(#[n(0)] JobId),
    /// An allocation.
    #[n(9)]
    Allocation(#[n(0)] AllocationId),
    /// An experiment.
    #[n(10)]
    Experiment(#[n(0)] ExperimentId),
    /// Something without an id: a secret, a setting, a limit, a revocation.
    #[n(11)]
    Definition,
    /// A member of the coordinator.
    #[n(12)]
    Member(#[n(0)] MemberId),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Cluster => write!(f, "the cluster"),
            Object::Workspace(id) => write!(f, "workspace {id}"),
            Object::User(id) => write!(f, "user {id}"),
            Object::Token(id) => write!(f, "token {id}"),
            Object::Pool(id) => write!(f, "pool {id}"),
            Object::Queue(id) => write!(f, "queue {id}"),
            Object::Mount(id) => write!(f, "mount {id}"),
            Object::Node(id) => write!(f, "node {id}"),
            Object::Job(id) => write!(f, "job {id}"),
            Object::Allocation(id) => write!(f, "allocation {id}"),
            Object::Experiment(id) => write!(f, "experiment {id}"),
            Object::Definition => write!(f, "the definition"),
            Object::Member(id) => write!(f, "member {id}"),
        }
    }
}

/// Why a command was refused. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Rejection {
    /// No such object, or none that this actor may see.
    #[error("{0} does not exist")]
    #[n(0)]
    NotFound(#[n(0)] Object),
    /// The name is taken, or the request id was used with another body.
    #[error("{0} exists already")]
    #[n(1)]
    AlreadyExists(#[n(0)] Object),
    /// The actor may not do this.
    #[error("this needs {0}")]
    #[n(2)]
    NotAllowed(#[n(0)] String),
    /// The state of the object does not allow it.
    #[error("{0} is {1}")]
    #[n(3)]
    WrongState(#[n(0)] Object, #[n(1)] String),
    /// A limit would be passed.
    #[error("{what} would pass its limit of {limit}")]
    #[n(4)]
    LimitReached {
        /// What is bounded.
        #[n(0)]
        what: String,
        /// The bound.
        #[n(1)]
        limit: u64,
    },
    /// An argument that the state does not accept.
    #[error("{field}: {problem}")]
    #[n(5)]
    InvalidArgument {
        /// Path of the field.
        #[n(0)]
        field: String,
        /// What is wrong, and what would be right.
        #[n(1)]
        problem: String,
    },
    /// The object changed since it was read.
    #[error("{0} changed since it was read; read it again")]
    #[n(6)]
    Changed(#[n(0)] Object),
    /// Another leader has started.
    #[error("another leader has started; ask it")]
    #[n(7)]
    StaleLeader,
    /// A report or decision about something that was replaced.
    #[error("{0} was replaced by a newer one")]
    #[n(8)]
    Stale(#[n(0)] Object),
    /// The placement does not fit the state as it is now.
    #[error("the placement does not fit: {0}")]
    #[n(9)]
    DoesNotFit(#[n(0)] String),
    /// The object is in use.
    #[error("{0} is in use: {1}")]
    #[n(10)]
    InUse(#[n(0)] Object, #[n(1)] String),
    /// Unknown, used, expired, or for something else; which of them is not told.
    #[error("the token is not valid")]
    #[n(11)]
    BadToken,
    /// Not every member understands this yet.
    #[error("this needs feature level {needed}, the cluster is at {have}")]
    #[n(12)]
    FeatureLevelTooLow {
        /// What it needs.
        #[n(0)]
        needed: FeatureLevel,
        /// What the cluster has.
        #[n(1)]
        have: FeatureLevel,
    },
    /// The queue takes no jobs.
    #[error("{0} takes no jobs at present")]
    #[n(13)]
    QueueClosed(#[n(0)] Object),
    /// The actor is disabled or revoked.
    #[error("{0} is disabled or revoked")]
    #[n(14)]
    Revoked(#[n(0)] Object),
}

impl Rejection {
    /// A field that the state does not accept.
    #[must_use]
    pub fn invalid(field: &str, problem: impl Into<String>) -> Rejection {
        Rejection::InvalidArgument { field: field.into(), problem: problem.into() }
    }

    /// What it is about, if that is one object.
    #[must_use]
    pub fn object(&self) -> Option<Object> {
        match self {
            Rejection::NotFound(object)
            | Rejection::AlreadyExists(object)
            | Rejection::Changed(object)
            | Rejection::Stale(object)
            | Rejection::QueueClosed(object)
            | Rejection::Revoked(object)
            | Rejection::WrongState(object, _)
            | Rejection::InUse(object, _) => Some(*object),
            Rejection::NotAllowed(_)
            | Rejection::LimitReached { .. }
            | Rejection::InvalidArgument { .. }
            | Rejection::StaleLeader
            | Rejection::DoesNotFit(_)
            | Rejection::BadToken
            | Rejection::FeatureLevelTooLow { .. } => None,
        }
    }

    /// The stable code, for the page that says what to do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Rejection::NotFound(_) => ErrorCode::NotFound,
            Rejection::AlreadyExists(_) => ErrorCode::AlreadyExists,
            Rejection::NotAllowed(_) => ErrorCode::NotAllowed,
            Rejection::WrongState(..) => ErrorCode::WrongState,
            Rejection::LimitReached { .. } => ErrorCode::LimitReached,
            Rejection::InvalidArgument { .. } => ErrorCode::InvalidArgument,
            Rejection::Changed(_) => ErrorCode::Changed,
            Rejection::StaleLeader => ErrorCode::StaleLeader,
            Rejection::Stale(_) => ErrorCode::Stale,
            Rejection::DoesNotFit(_) => ErrorCode::DoesNotFit,
            Rejection::InUse(..) => ErrorCode::InUse,
            Rejection::BadToken => ErrorCode::BadToken,
            Rejection::FeatureLevelTooLow { .. } => ErrorCode::FeatureLevelTooLow,
            Rejection::QueueClosed(_) => ErrorCode::QueueClosed,
            Rejection::Revoked(_) => ErrorCode::Revoked,
        }
    }
}
