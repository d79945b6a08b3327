//! Who is who: certificate authorities, certificates, and the tokens that lead to the first one.
//!
//! A cluster has one CA for each kind of principal: members, nodes and users ([`Tree`]). A
//! certificate names its principal by a URI, `yard://<cluster>/member|node|user/<id>`, and is
//! believed only if it was issued by the CA of that very kind: a user's certificate never opens
//! what is for members, whatever stands in it.
//!
//! Invariants: names are decided by the issuer, never taken from a request; private keys are
//! made where they are used and stay there; neither keys nor secrets show in `Debug`.

mod authority;
mod peer;
mod store;
mod token;
mod trust;

#[cfg(test)]
mod tests;

pub use authority::{Authority, CERTIFICATE_LIFE_MS, Issued, key_sha256};
pub use peer::{Peer, PeerError, Principal, Tree};
pub use store::{IDENTITY_FILE, Identity, KeyRequest, TRUST_FILE};
pub use token::{Secret, Token, TokenError, TokenKind};
pub use trust::{Fingerprint, Trust};

use crate::files::FileError;

/// What went wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("a file of the identity failed")]
    File(#[from] FileError),
    /// No key could be made.
    #[error("cannot make a key")]
    MakeKey(#[source] rcgen::Error),
    /// The key cannot be read.
    #[error("cannot read the private key")]
    ReadKey(#[source] rcgen::Error),
    /// A certificate of a CA cannot be read.
    #[error("cannot read the certificate of the {0} CA")]
    ReadAuthority(Tree, #[source] rcgen::Error),
    /// The request for a certificate could not be made.
    #[error("cannot write the request for a certificate")]
    WriteRequest(#[source] rcgen::Error),
    /// The request for a certificate is too large.
    #[error("the request for a certificate has {0} bytes; {limit} are allowed",
        limit = yard_common::limits::CSR_BYTES_MAX)]
    LargeRequest(usize),
    /// The request for a certificate cannot be read, or is not signed by its key.
    #[error("the request for a certificate is not valid")]
    ReadRequest(#[source] rcgen::Error),
    /// The key in the request is of a kind that is not issued for.
    #[error("the key in the request is neither ECDSA P-256 nor Ed25519")]
    WeakKey,
    /// A name of a server is no DNS name.
    #[error("{0:?} is no DNS name")]
    BadName(String, #[source] rcgen::Error),
    /// Signing failed.
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
    /// There is no good PEM.
    #[error("{0} is no valid PEM")]
    BadPem(&'static str),
    /// The bundle of CAs is not one certificate for each tree of one cluster.
    #[error("the bundle of CA certificates is not valid: {0}")]
    BadBundle(&'static str),
    /// The bundle is not the one that was expected.
    #[error(
        "the CA has fingerprint {found}, not {expected}: this is another cluster, or somebody \
             in between; ask for a new token"
    )]
    Fingerprint {
        /// Of the bundle at hand.
        found: Fingerprint,
        /// What the token says.
        expected: Fingerprint,
    },
    /// The certificate is not good.
    #[error("the certificate is not valid")]
    Peer(#[from] PeerError),
    /// The CAs are there already.
    #[error("{} exists: every certificate of its cluster hangs on it; remove the folder by hand \
             if that is meant", .0.display())]
    Exists(std::path::PathBuf),
    /// A key of a CA does not belong to its certificate.
    #[error("the key of the {0} CA does not belong to its certificate")]
    OtherKey(Tree),
    /// Key and certificate are not of one pair.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch(#[source] rustls::Error),
}
