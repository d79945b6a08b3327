//! Commands about who may do what.

use minicbor::{Decode, Encode};
use yard_common::id::{FeatureLevel, NodeId, PoolId, PrincipalId, TokenId, WorkspaceId};

/// Users, roles, tokens, revocations, secrets.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Access {
    /// Adds a user.
    #[n(0)]
    AddUser {
        /// Unique name.
        #[n(0)]
        name: String,
        /// Login that its ranks run as; resolved on each node.
        #[n(1)]
        unix: Option<String>,
        /// What it may do.
        #[n(2)]
        grants: Vec<Grant>,
    },
    /// Replaces what a user may do, and its login.
    #[n(1)]
    SetUser {
        /// The user.
        #[n(0)]
        user: PrincipalId,
        /// Login that its ranks run as.
        #[n(1)]
        unix: Option<String>,
        /// What it may do.
        #[n(2)]
        grants: Vec<Grant>,
    },
    /// Disables or enables a user. Its jobs go on.
    #[n(2)]
    DisableUser {
        /// The user.
        #[n(0)]
        user: PrincipalId,
        /// Whether it is disabled.
        #[n(1)]
        disabled: bool,
    },
    /// Makes a single-use token for a machine that joins, or for a user that logs in.
    #[n(3)]
    AddToken {
        /// Public part of the token.
        #[n(0)]
        token: TokenId,
        /// SHA-256 of the secret part.
        #[n(1)]
        secret_sha256: [u8; 32],
        /// What it is for.
        #[n(2)]
        scope: Scope,
        /// Life in milliseconds, at most `TOKEN_LIFE_MS_MAX`.
        #[n(3)]
        life_ms: u64,
    },
    /// Takes an unused token back.
    #[n(4)]
    DropToken(#[n(0)] TokenId),
    /// Uses a login token up. Join tokens are used by `NodeCommand::Join`, those of members by
    /// `JoinMember`.
    #[n(5)]
    RedeemLogin {
        /// Public part of the token.
        #[n(0)]
        token: TokenId,
        /// SHA-256 of the secret that was presented.
        #[n(1)]
        secret_sha256: [u8; 32],
    },
    /// Refuses a certificate from now on, by its serial number.
    #[n(6)]
    Revoke {
        /// Serial number of the certificate.
        #[n(0)]
        serial: Vec<u8>,
        /// Why, for people.
        #[n(1)]
        reason: String,
        /// When the certificate ends by itself, in milliseconds UTC since 1970; forgotten then.
        #[n(2)]
        expires_wall_ms: u64,
    },
    /// Stores a new version of a secret. The key to the ciphertext is not in the state.
    #[n(7)]
    PutSecret {
        /// Workspace that may use it.
        #[n(0)]
        workspace: WorkspaceId,
        /// Name within the workspace.
        #[n(1)]
        name: String,
        /// Sealed with the workspace's name, the secret's name and version as associated data.
        #[n(2)]
        ciphertext: Vec<u8>,
        /// The version that was sealed in: one more than the present one, 1 for a new secret.
        /// Refused if the secret changed since, as nobody could open it.
        #[n(3)]
        version: u32,
    },
    /// Removes a secret, all versions.
    #[n(8)]
    DropSecret {
        /// Its workspace.
        #[n(0)]
        workspace: WorkspaceId,
        /// Its name.
        #[n(1)]
        name: String,
    },
    /// A machine joins as a member of the coordinator, with a token: it gets a number that nobody
    /// ever had. Asked again for the same key, while the token would be good, it gets the same.
    #[n(9)]
    JoinMember {
        /// Public part of the token.
        #[n(0)]
        token: TokenId,
        /// SHA-256 of the secret that was presented.
        #[n(1)]
        secret_sha256: [u8; 32],
        /// SHA-256 of the machine's public key.
        #[n(2)]
        key_sha256: [u8; 32],
        /// Host and port by which everybody is to reach it.
        #[n(3)]
        address: String,
        /// The highest feature level that its program understands.
        #[n(4)]
        level_max: FeatureLevel,
    },
}

impl std::fmt::Debug for Access {
    /// Names what is asked, and shows neither hashes nor ciphertext.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Access::AddUser { name, unix, grants } => {
                write!(f, "AddUser({name}, {unix:?}, {grants:?})")
            }
            Access::SetUser { user, unix, grants } => {
                write!(f, "SetUser({user}, {unix:?}, {grants:?})")
            }
            Access::DisableUser { user, disabled } => write!(f, "DisableUser({user}, {disabled})"),
            Access::AddToken { token, scope, life_ms, .. } => {
                write!(f, "AddToken({token}, {scope:?}, {life_ms} ms)")
            }
            Access::DropToken(token) => write!(f, "DropToken({token})"),
            Access::RedeemLogin { token, .. } => write!(f, "RedeemLogin({token})"),
            Access::Revoke { serial, reason, .. } => write!(f, "Revoke({serial:02x?}, {reason})"),
            Access::PutSecret { workspace, name, ciphertext, version } => {
                let len = ciphertext.len();
                write!(f, "PutSecret({workspace}, {name}, version {version}, {len} bytes)")
            }
            Access::DropSecret { workspace, name } => write!(f, "DropSecret({workspace}, {name})"),
            Access::JoinMember { token, address, .. } => {
                write!(f, "JoinMember({token}, {address})")
            }
        }
    }
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Scope {
    /// One machine joins this pool.
    #[n(0)]
    Join(#[n(0)] PoolId),
    /// This user logs in once.
    #[n(1)]
    Login(#[n(0)] PrincipalId),
    /// One machine joins as a member of the coordinator.
    #[n(2)]
    Member,
    /// The machine that had this node id renews a certificate that has run out.
    #[n(3)]
    Renew(#[n(0)] NodeId),
}

/// A role in a workspace, or in the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Grant {
    /// Where; `None`: everywhere.
    #[n(0)]
    pub workspace: Option<WorkspaceId>,
    /// What.
    #[n(1)]
    pub role: Role,
}

/// What a user may do. Each role contains those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Sees jobs and nodes.
    #[n(0)]
    Viewer,
    /// Submits jobs, and changes its own.
    #[n(1)]
    User,
    /// Changes every job, nodes, queues and pools.
    #[n(2)]
    Operator,
    /// Everything: users, tokens, secrets, settings.
    #[n(3)]
    Admin,
}
