//! What a cluster trusts: the certificates of its three CAs, and their fingerprint.

use super::peer::{self, Peer, PeerError, SCHEME, Tree};
use super::token::unhex;
use super::{IdentityError, Principal};
use crate::tls;
use data_encoding::HEXLOWER;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};
use yard_common::id::ClusterId;

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// SHA-256 of the certificates of a cluster's CAs. Displays as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of_bytes(bytes: &[u8]) -> Fingerprint {
        Fingerprint(sha256(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Fingerprint, &'static str> {
        unhex(text).map(Fingerprint).ok_or("not 64 hexadecimal digits in lower case")
    }
}

/// The CAs of one cluster.
#[derive(Clone)]
pub struct Trust {
    cluster: ClusterId,
    /// In the order of [`Tree::ALL`].
    certificates: [CertificateDer<'static>; 3],
    servers: [Arc<RootCertStore>; 3],
    clients: [Arc<dyn ClientCertVerifier>; 3],
}

impl Trust {
    /// The CAs with these certificates: one of each tree, all of one cluster, in any order.
    ///
    /// # Errors
    /// If they are anything else.
    pub fn from_certificates(list: &[CertificateDer<'_>]) -> Result<Trust, IdentityError> {
        if list.len() != Tree::ALL.len() {
            return Err(IdentityError::BadBundle("it does not have three certificates"));
        }
        let mut found: [Option<CertificateDer<'static>>; 3] = [None, None, None];
        let mut clusters = Vec::new();
        for der in list {
            let (cluster, tree) = read_authority(der)?;
            clusters.push(cluster);
            found[tree as usize] = Some(der.clone().into_owned());
        }
        if clusters.iter().any(|cluster| *cluster != clusters[0]) {
            return Err(IdentityError::BadBundle("its certificates are of different clusters"));
        }
        let [Some(member), Some(node), Some(user)] = found else {
            return Err(IdentityError::BadBundle("a tree is missing"));
        };
        let certificates = [member, node, user];
        let servers =
            [roots(&certificates[0])?, roots(&certificates[1])?, roots(&certificates[2])?];
        let clients = [client(&servers[0])?, client(&servers[1])?, client(&servers[2])?];
        Ok(Trust { cluster: clusters[0], certificates, servers, clients })
    }

    /// Reads a bundle of three certificates in PEM.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn from_pem(text: &str) -> Result<Trust, IdentityError> {
        let bad = |_| IdentityError::BadPem("the bundle of CA certificates");
        let list: Result<Vec<CertificateDer<'_>>, _> =
            CertificateDer::pem_slice_iter(text.as_bytes()).take(Tree::ALL.len() + 1).collect();
        Trust::from_certificates(&list.map_err(bad)?)
    }

    /// The bundle in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.certificates.iter().map(|der| to_pem("CERTIFICATE", der)).collect()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What tokens carry to recognise these CAs.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        // DER says its own length, so two bundles never have the same bytes.
        Fingerprint::of_bytes(&self.certificates.iter().fold(Vec::new(), |mut all, der| {
            all.extend_from_slice(der);
            all
        }))
    }

    /// The certificates of the CAs, in the order of [`Tree::ALL`].
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Who a client is, by its certificate: issued by the CA of its kind, for clients, and valid
    /// at `now`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn verify_client(
        &self,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        let peer = self.read(leaf)?;
        let verifier = &self.clients[peer.principal.tree() as usize];
        // No certificates in between: the CAs issue directly.
        verifier.verify_client_cert(leaf, &[], now).map_err(|_| PeerError::NotIssued)?;
        Ok(peer)
    }

    /// Who a server is, by its certificate: issued by the CA of its kind, for servers, and valid
    /// at `now`. The host's name is not looked at: the URI names the principal, and addresses
    /// change.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        let peer = self.read(leaf)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|_| PeerError::Unreadable)?;
        let roots = &self.servers[peer.principal.tree() as usize];
        let algorithms = tls::provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], now, algorithms)
            .map_err(|_| PeerError::NotIssued)?;
        Ok(peer)
    }

    fn read(&self, leaf: &CertificateDer<'_>) -> Result<Peer, PeerError> {
        let peer = Peer::read(leaf)?;
        if peer.cluster != self.cluster {
            return Err(PeerError::OtherCluster);
        }
        Ok(peer)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({}, {})", self.cluster, self.fingerprint())
    }
}

/// The URI that names a CA in its certificate. It is none of a principal.
pub(super) fn authority_uri(cluster: ClusterId, tree: Tree) -> String {
    format!("{SCHEME}{cluster}/ca/{tree}")
}

fn read_authority(der: &[u8]) -> Result<(ClusterId, Tree), IdentityError> {
    let unreadable = IdentityError::BadBundle("a certificate cannot be read");
    let Ok((rest, found)) = X509Certificate::from_der(der) else { return Err(unreadable) };
    if !rest.is_empty() || !found.is_ca() {
        return Err(IdentityError::BadBundle("a certificate is not that of a CA"));
    }
    let named = peer::only_uri(&found).and_then(|uri| {
        let (cluster, tree) = uri.strip_prefix(SCHEME)?.split_once("/ca/")?;
        Some((cluster.parse().ok()?, Tree::from_word(tree)?))
    });
    debug_assert!(peer::only_uri(&found).and_then(Principal::from_uri).is_none());
    named.ok_or(IdentityError::BadBundle("a certificate does not name its cluster and tree"))
}

fn roots(der: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut roots = RootCertStore::empty();
    let bad = |_| IdentityError::BadBundle("a certificate cannot be used as a root");
    roots.add(der.clone()).map_err(bad)?;
    Ok(Arc::new(roots))
}

fn client(roots: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, IdentityError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), tls::provider());
    builder.build().map_err(|_| IdentityError::BadBundle("a certificate cannot be used as a root"))
}

/// PEM, as RFC 7468 wants it.
pub(super) fn to_pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
