//! What a certificate says: principal, cluster, serial number, end.

use std::fmt;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use yard_common::id::{ClusterId, MemberId, NodeId, PrincipalId};
use yard_common::limits::SERIAL_BYTES_MAX;

/// Start of the URIs that name principals.
pub(super) const SCHEME: &str = "yard://";

/// A kind of principal, with a CA of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// Members of the coordinator.
    Member,
    /// Nodes, that is their agents.
    Node,
    /// Users.
    User,
}

impl Tree {
    /// Every tree, in the order of bundles.
    pub const ALL: [Tree; 3] = [Tree::Member, Tree::Node, Tree::User];

    /// Its word in URIs and file names.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Tree::Member => "member",
            Tree::Node => "node",
            Tree::User => "user",
        }
    }

    /// The tree of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Tree> {
        Tree::ALL.into_iter().find(|tree| tree.word() == word)
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Somebody who can prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// A member of the coordinator.
    Member(MemberId),
    /// The agent of a node.
    Node(NodeId),
    /// A user.
    User(PrincipalId),
}

impl Principal {
    /// Its kind.
    #[must_use]
    pub fn tree(self) -> Tree {
        match self {
            Principal::Member(_) => Tree::Member,
            Principal::Node(_) => Tree::Node,
            Principal::User(_) => Tree::User,
        }
    }

    /// Its number within its kind.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Principal::Member(id) => id.0,
            Principal::Node(id) => u64::from(id.0),
            Principal::User(id) => u64::from(id.0),
        }
    }

    /// The URI that names it in a certificate.
    #[must_use]
    pub fn uri(self, cluster: ClusterId) -> String {
        format!("{SCHEME}{cluster}/{self}")
    }

    /// Reads a URI as [`Principal::uri`] writes it, and in no other way.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<(ClusterId, Principal)> {
        let mut parts = uri.strip_prefix(SCHEME)?.split('/');
        let cluster: ClusterId = parts.next()?.parse().ok()?;
        let tree = Tree::from_word(parts.next()?)?;
        let text = parts.next()?;
        let number: u64 = text.parse().ok()?;
        let small = u32::try_from(number);
        let principal = match tree {
            Tree::Member => Principal::Member(MemberId(number)),
            Tree::Node => Principal::Node(NodeId(small.ok()?)),
            Tree::User => Principal::User(PrincipalId(small.ok()?)),
        };
        // `007` and `+7` are no second names of 7.
        (principal.uri(cluster) == uri).then_some((cluster, principal))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tree(), self.number())
    }
}

/// A principal as its certificate shows it. Only as good as the chain that was verified: the
/// connections of `crate::tls` give out verified ones only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub principal: Principal,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Serial number of the certificate, for revocation.
    pub serial: Vec<u8>,
    /// Begin of the certificate, in milliseconds UTC since 1970.
    pub not_before_wall_ms: u64,
    /// End of the certificate, in milliseconds UTC since 1970.
    pub not_after_wall_ms: u64,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is no X.509 certificate.
    #[error("it cannot be read")]
    Unreadable,
    /// It names no principal, or more than one.
    #[error("it does not name exactly one principal of a cluster")]
    NoPrincipal,
    /// Its serial number is too long.
    #[error("its serial number is too long")]
    LongSerial,
    /// It is of another cluster.
    #[error("it is of another cluster")]
    OtherCluster,
    /// The CA of its kind did not sign it, or it is not valid now.
    #[error("the CA of its kind did not issue it for this use, or it is not valid now")]
    NotIssued,
}

impl Peer {
    /// Reads a certificate. Verifies nothing: see [`super::Trust::verify`].
    ///
    /// # Errors
    /// If it cannot be read or does not name exactly one principal.
    pub fn read(der: &[u8]) -> Result<Peer, PeerError> {
        let (rest, found) = X509Certificate::from_der(der).map_err(|_| PeerError::Unreadable)?;
        if !rest.is_empty() {
            return Err(PeerError::Unreadable);
        }
        let uri = only_uri(&found).ok_or(PeerError::NoPrincipal)?;
        let (cluster, principal) = Principal::from_uri(uri).ok_or(PeerError::NoPrincipal)?;
        let serial = found.tbs_certificate.serial.to_bytes_be();
        if serial.len() > SERIAL_BYTES_MAX {
            return Err(PeerError::LongSerial);
        }
        let validity = found.validity();
        let wall_ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
        Ok(Peer {
            principal,
            cluster,
            serial,
            not_before_wall_ms: wall_ms(validity.not_before.timestamp()),
            not_after_wall_ms: wall_ms(validity.not_after.timestamp()),
        })
    }

    /// Whether the certificate has not run out. Connections outlive certificates, so servers ask
    /// at every request.
    #[must_use]
    pub fn is_current(&self, now_wall_ms: u64) -> bool {
        now_wall_ms < self.not_after_wall_ms
    }

    /// When to ask for the next certificate: after two thirds of its life, and up to a tenth of
    /// it later, by `random`, so that a fleet that joined together does not come back together.
    #[must_use]
    pub fn renew_at_wall_ms(&self, random: u64) -> u64 {
        let life = self.not_after_wall_ms.saturating_sub(self.not_before_wall_ms);
        let jitter = (u128::from(life / 10) * u128::from(random)) >> 64;
        self.not_before_wall_ms + life / 3 * 2 + u64::try_from(jitter).unwrap_or(0)
    }
}

/// The one URI of a certificate's alternative names.
pub(super) fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    uris.next().is_none().then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "0123456789abcdef0011223344556677";

    #[test]
    fn a_principal_has_one_uri() {
        let cluster: ClusterId = CLUSTER.parse().unwrap();
        for principal in [
            Principal::Member(MemberId(u64::MAX)),
            Principal::Node(NodeId(0)),
            Principal::User(PrincipalId(7)),
        ] {
            let uri = principal.uri(cluster);
            assert_eq!(Principal::from_uri(&uri), Some((cluster, principal)), "{uri}");
        }
    }

    #[test]
    fn other_texts_name_nobody() {
        for bad in [
            "",
            "yard://",
            "yard://x/member/1",
            &format!("yard://{CLUSTER}/member/01"),
            &format!("yard://{CLUSTER}/member/+1"),
            &format!("yard://{CLUSTER}/member/1/"),
            &format!("yard://{CLUSTER}/root/1"),
            &format!("yard://{CLUSTER}/node/4294967296"),
            &format!("YARD://{CLUSTER}/node/1"),
            &format!("spiffe://{CLUSTER}/node/1"),
        ] {
            assert_eq!(Principal::from_uri(bad), None, "{bad}");
        }
    }

    #[test]
    fn renewal_comes_after_two_thirds_and_before_the_end() {
        let peer = Peer {
            principal: Principal::User(PrincipalId(1)),
            cluster: CLUSTER.parse().unwrap(),
            serial: vec![1],
            not_before_wall_ms: 3_000,
            not_after_wall_ms: 33_000,
        };
        assert_eq!(peer.renew_at_wall_ms(0), 23_000);
        assert_eq!(peer.renew_at_wall_ms(u64::MAX), 25_999);
        assert!(peer.is_current(32_999) && !peer.is_current(33_000));
    }

    #[test]
    fn rubbish_is_no_certificate() {
        for bad in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0xff; 300]] {
            assert_eq!(Peer::read(bad), Err(PeerError::Unreadable));
        }
    }
}
