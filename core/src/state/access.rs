//! Users, tokens, revocations and secrets.

use crate::command::{Actor, Grant, Role, Scope};
use crate::table::Shared;
use minicbor::{Decode, Encode};
use yard_common::id::{PrincipalId, WorkspaceId};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Principal {
    /// Unique name.
    #[n(0)]
    pub name: Box<str>,
    /// Login that its ranks run as; resolved on each node.
    #[n(1)]
    pub unix: Option<Box<str>>,
    /// What it may do.
    #[n(2)]
    pub grants: Vec<Grant>,
    /// Whether it may do nothing at present.
    #[n(3)]
    pub disabled: bool,
}

impl Principal {
    /// Whether it has a role, or a higher one, in a workspace; with none: in the whole cluster.
    #[must_use]
    pub fn has(&self, role: Role, workspace: Option<WorkspaceId>) -> bool {
        !self.disabled
            && self.grants.iter().any(|grant| {
                grant.role >= role && (grant.workspace.is_none() || grant.workspace == workspace)
            })
    }
}

/// A token that nobody has used yet.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    /// SHA-256 of its secret.
    #[n(0)]
    pub secret_sha256: [u8; 32],
    /// What it is good for.
    #[n(1)]
    pub scope: Scope,
    /// When it ends, in `cluster_ms`.
    #[n(2)]
    pub ends_ms: u64,
    /// Who made it.
    #[n(3)]
    pub by: Actor,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?}, ends {}, by {:?})", self.scope, self.ends_ms, self.by)
    }
}

impl Token {
    /// Whether this is the hash of its secret. Looks at every byte, so that the time taken tells
    /// nothing about where two hashes differ.
    #[must_use]
    pub fn matches(&self, secret_sha256: &[u8; 32]) -> bool {
        let pairs = self.secret_sha256.iter().zip(secret_sha256);
        pairs.fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

/// A certificate that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Revocation {
    /// For people.
    #[n(0)]
    pub reason: Box<str>,
    /// When the certificate ends by itself, in milliseconds UTC since 1970.
    #[n(1)]
    pub expires_wall_ms: u64,
    /// Who refused it.
    #[n(2)]
    pub by: Actor,
}

/// Name of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct SecretKey {
    /// Its workspace.
    #[n(0)]
    pub workspace: WorkspaceId,
    /// Its name there.
    #[n(1)]
    pub name: Box<str>,
}

/// A sealed secret. Nothing in the state can open it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Secret {
    /// Rises with each new value; sealed in, so that an old value cannot be put back.
    #[n(0)]
    pub version: u32,
    /// Nonce, ciphertext and tag.
    #[n(1)]
    pub ciphertext: Shared<Vec<u8>>,
    /// Who set it.
    #[n(2)]
    pub by: PrincipalId,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(version {}, {} bytes sealed)", self.version, self.ciphertext.len())
    }
}
