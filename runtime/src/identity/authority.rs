//! The CAs of a cluster: made once by `init`, kept by the members, never in the replicated state.
//!
//! A request for a certificate gives its public key, and proves that it has the private one.
//! Nothing else of it is used: who the holder is, and which names its server has, is an argument.

use super::trust::authority_uri;
use super::{IdentityError, Peer, Principal, Token, TokenKind, Tree, Trust};
use crate::files;
use aws_lc_rs::hmac;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use yard_common::id::ClusterId;
use yard_common::limits::{CSR_BYTES_MAX, PEM_FILE_BYTES_MAX};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Life of a certificate unless asked otherwise, in milliseconds: 30 days.
pub const CERTIFICATE_LIFE_MS: u64 = 30 * DAY_MS;
/// Life of the CAs, in milliseconds: 20 years.
const AUTHORITY_LIFE_MS: u64 = 20 * 365 * DAY_MS;
/// Certificates begin this much in the past, for machines whose clocks are slow: an hour.
const BACKDATED_MS: u64 = 3_600 * 1_000;
/// The end of the year 9999.
const LAST_WALL_MS: u64 = 253_402_300_799_000;
/// Bytes of a serial number: nobody guesses or repeats one.
const SERIAL_BYTES: usize = 16;

/// The CAs with their keys.
pub struct Authority {
    trust: Trust,
    /// In the order of [`Tree::ALL`].
    issuers: [Issuer<'static, KeyPair>; 3],
    /// What tokens are derived with; every member that has these CAs has the same.
    tokens: hmac::Key,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// What it says.
    pub peer: Peer,
}

impl Authority {
    /// Makes the CAs of a new cluster.
    ///
    /// # Errors
    /// If keys or certificates cannot be made.
    pub fn create(cluster: ClusterId, now_wall_ms: u64) -> Result<Authority, IdentityError> {
        let mut certificates = Vec::new();
        let mut keys = Vec::new();
        for tree in Tree::ALL {
            let key = new_key()?;
            let params = authority_params(cluster, tree, now_wall_ms);
            let certificate = params.self_signed(&key).map_err(IdentityError::Sign)?;
            certificates.push(certificate.der().clone());
            keys.push(key);
        }
        Authority::assemble(&certificates, keys)
    }

    fn assemble(
        certificates: &[CertificateDer<'static>],
        keys: Vec<KeyPair>,
    ) -> Result<Authority, IdentityError> {
        let trust = Trust::from_certificates(certificates)?;
        let mut issuers = Vec::new();
        for ((tree, der), key) in Tree::ALL.into_iter().zip(trust.certificates()).zip(keys) {
            let bad = |error| IdentityError::ReadAuthority(tree, error);
            issuers.push(Issuer::from_ca_cert_der(der, key).map_err(bad)?);
        }
        let Ok(issuers) = issuers.try_into() else { unreachable!("one issuer for each tree") };
        let issuers: [Issuer<'static, KeyPair>; 3] = issuers;
        let tokens = tokens_key(issuers[Tree::Member as usize].key());
        Ok(Authority { trust, issuers, tokens })
    }

    /// Writes the CAs into a folder of their own that nobody else can enter.
    ///
    /// # Errors
    /// If the folder has CAs already (a cluster would lose every identity), or on failed writes.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        files::private_folder(folder)?;
        for tree in Tree::ALL {
            let path = folder.join(key_file(tree));
            if path.exists() {
                return Err(IdentityError::Exists(path));
            }
        }
        for tree in Tree::ALL {
            let key = self.issuers[tree as usize].key().serialize_pem();
            let key = zeroize::Zeroizing::new(key);
            let path = folder.join(key_file(tree));
            files::write_durably(&path, key.as_bytes(), files::PRIVATE)?;
        }
        // Last: with it the CAs are complete.
        let bundle = self.trust.to_pem();
        files::write_durably(&folder.join(BUNDLE_FILE), bundle.as_bytes(), files::PUBLIC)?;
        Ok(())
    }

    /// The keys in PEM, in the order of [`Tree::ALL`]: for another member, over a connection that
    /// was verified, and for nobody else.
    #[must_use]
    pub fn keys_pem(&self) -> [zeroize::Zeroizing<String>; 3] {
        Tree::ALL.map(|tree| {
            let key = self.issuers[tree as usize].key();
            zeroize::Zeroizing::new(key.serialize_pem())
        })
    }

    /// The CAs that a member handed on: `trust` was verified apart from the keys.
    ///
    /// # Errors
    /// If a key cannot be read, or does not belong to its certificate.
    pub fn from_keys(trust: &Trust, keys_pem: &[&str]) -> Result<Authority, IdentityError> {
        if keys_pem.len() != Tree::ALL.len() {
            return Err(IdentityError::BadBundle("it does not have three keys"));
        }
        let mut keys = Vec::new();
        for ((tree, der), pem) in Tree::ALL.into_iter().zip(trust.certificates()).zip(keys_pem) {
            let key = KeyPair::from_pem(pem).map_err(IdentityError::ReadKey)?;
            check_pair(tree, der, &key)?;
            keys.push(key);
        }
        Authority::assemble(trust.certificates(), keys)
    }

    /// Reads the CAs of a folder.
    ///
    /// # Errors
    /// If a file is missing, damaged, open to others, or does not belong to the rest.
    pub fn load(folder: &Path) -> Result<Authority, IdentityError> {
        files::private_folder(folder)?;
        let bundle = files::read_text(&folder.join(BUNDLE_FILE), PEM_FILE_BYTES_MAX)?;
        let trust = Trust::from_pem(&bundle)?;
        let mut keys = Vec::new();
        for (tree, der) in Tree::ALL.into_iter().zip(trust.certificates()) {
            let pem = files::read_private(&folder.join(key_file(tree)), PEM_FILE_BYTES_MAX)?;
            let key = KeyPair::from_pem(&zeroize::Zeroizing::new(pem));
            let key = key.map_err(IdentityError::ReadKey)?;
            check_pair(tree, der, &key)?;
            keys.push(key);
        }
        Authority::assemble(trust.certificates(), keys)
    }

    /// What the cluster trusts.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The token of a request, the same each time that it is asked for: so that a retry gets what
    /// the first try made, and no secret is kept. `request` must tell who asks, as which request,
    /// and for what.
    #[must_use]
    pub fn token(&self, kind: TokenKind, request: &[u8]) -> Token {
        Token::derive(kind, self.trust.fingerprint(), &self.tokens, request)
    }

    /// Issues a certificate for the key of a request. `names` are the DNS names and addresses of
    /// the holder's server; users have none. The certificate lives for `life_ms`, but not longer
    /// than its CA.
    ///
    /// # Errors
    /// If the request is not signed by its key, too large, or its key is of another kind.
    pub fn issue(
        &self,
        request: &[u8],
        principal: Principal,
        names: &[String],
        now_wall_ms: u64,
        life_ms: u64,
    ) -> Result<Issued, IdentityError> {
        if request.len() > CSR_BYTES_MAX {
            return Err(IdentityError::LargeRequest(request.len()));
        }
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(IdentityError::ReadRequest)?;
        let algorithm = request.public_key.algorithm();
        if *algorithm != rcgen::PKCS_ECDSA_P256_SHA256 && *algorithm != rcgen::PKCS_ED25519 {
            return Err(IdentityError::WeakKey);
        }
        let (tree, cluster) = (principal.tree(), self.trust.cluster());
        let mut params = leaf_params(principal, cluster, names)?;
        set_life(&mut params, now_wall_ms, life_ms.min(AUTHORITY_LIFE_MS));
        let issuer = &self.issuers[tree as usize];
        let signed = params.signed_by(&request.public_key, issuer).map_err(IdentityError::Sign)?;
        let peer = Peer::read(signed.der())?;
        Ok(Issued { certificate: signed.der().to_vec(), peer })
    }
}

/// SHA-256 of the public key of a request for a certificate: the same for each request of one key.
///
/// # Errors
/// If it is no request, or is not signed by its key.
pub fn key_sha256(request: &[u8]) -> Result<[u8; 32], IdentityError> {
    if request.len() > CSR_BYTES_MAX {
        return Err(IdentityError::LargeRequest(request.len()));
    }
    let request = CertificateSigningRequestDer::from(request);
    let request = CertificateSigningRequestParams::from_der(&request);
    let request = request.map_err(IdentityError::ReadRequest)?;
    Ok(super::trust::sha256(request.public_key.der_bytes()))
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({:?})", self.trust)
    }
}

/// A key for tokens from the one of a CA: what is made with it tells nothing of that key.
fn tokens_key(key: &KeyPair) -> hmac::Key {
    let secret = zeroize::Zeroizing::new(key.serialize_der());
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let derived = hmac::sign(&secret, b"trainyard tokens 1");
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}

const BUNDLE_FILE: &str = "ca.pem";

fn key_file(tree: Tree) -> String {
    format!("{tree}-ca.key")
}

/// A new key of the kind that the whole cluster uses.
pub(super) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(IdentityError::MakeKey)
}

/// Sets begin and end, in milliseconds UTC since 1970.
fn set_life(params: &mut CertificateParams, from_wall_ms: u64, life_ms: u64) {
    let at = |wall_ms: u64| {
        // X.509 knows no year beyond 9999, whatever a clock says.
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(wall_ms.min(LAST_WALL_MS))
    };
    params.not_before = at(from_wall_ms.saturating_sub(BACKDATED_MS));
    params.not_after = at(from_wall_ms.saturating_add(life_ms));
}

/// A number that is random, positive and without leading zeros, so that its bytes are its name.
fn serial() -> SerialNumber {
    let mut bytes = [0; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn authority_params(cluster: ClusterId, tree: Tree, now_wall_ms: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Trainyard {tree} CA"));
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    let uri = authority_uri(cluster, tree);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("the URI is ASCII"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    set_life(&mut params, now_wall_ms, AUTHORITY_LIFE_MS);
    params
}

fn leaf_params(
    principal: Principal,
    cluster: ClusterId,
    names: &[String],
) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, principal.to_string());
    let uri = principal.uri(cluster);
    params.subject_alt_names.push(SanType::URI(uri.try_into().expect("the URI is ASCII")));
    for name in names {
        let bad = |error| IdentityError::BadName(name.clone(), error);
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.clone().try_into().map_err(bad)?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if principal.tree() != Tree::User {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.serial_number = Some(serial());
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Checks that a key is the one of a CA's certificate.
fn check_pair(tree: Tree, der: &CertificateDer<'_>, key: &KeyPair) -> Result<(), IdentityError> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let bad = IdentityError::BadBundle("a certificate cannot be read");
    let Ok((_, found)) = X509Certificate::from_der(der) else { return Err(bad) };
    if found.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(IdentityError::OtherKey(tree));
    }
    Ok(())
}
