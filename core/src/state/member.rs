//! Machines that joined as members of the coordinator.
//!
//! Who votes stands in the log itself, and in `State::membership`. The records here say what is
//! wanted: the leader makes learners of who joined, lets them vote, and takes out who is to leave.

use minicbor::{Decode, Encode};
use yard_common::id::TokenId;

/// A machine that joined as a member, or a member that is to leave.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Host and port by which everybody reaches it; empty for one that founded the cluster.
    #[n(0)]
    pub address: Box<str>,
    /// How it came in; none for one that founded the cluster.
    #[n(1)]
    pub joined: Option<Joined>,
    /// Whether it is to vote, also if that makes the number of voters even.
    #[n(2)]
    pub votes: bool,
    /// Whether it is to leave. The record goes when the log has it no more.
    #[n(3)]
    pub leaves: bool,
}

/// How a member came in: whoever shows all of it again is the same machine.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Joined {
    /// Public part of the token.
    #[n(0)]
    pub token: TokenId,
    /// SHA-256 of its secret.
    #[n(1)]
    pub secret_sha256: [u8; 32],
    /// SHA-256 of the machine's public key.
    #[n(2)]
    pub key_sha256: [u8; 32],
    /// When the token would have ended, in `cluster_ms`: from then on it proves nothing.
    #[n(3)]
    pub ends_ms: u64,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Joined({}, ends {})", self.token, self.ends_ms)
    }
}

impl Joined {
    /// Whether this is the token, the hash of its secret, and that of the key. Looks at every
    /// byte, so that the time taken tells nothing about where two hashes differ.
    #[must_use]
    pub fn matches(&self, token: TokenId, secret_sha256: &[u8; 32], key_sha256: &[u8; 32]) -> bool {
        let secret = self.secret_sha256.iter().zip(secret_sha256);
        let key = self.key_sha256.iter().zip(key_sha256);
        let differ = secret.chain(key).fold(0, |differ, (a, b)| differ | (a ^ b));
        self.token == token && differ == 0
    }
}
