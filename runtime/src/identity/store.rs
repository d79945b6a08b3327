//! The identity of this process: private key, certificate, and the CAs that it trusts.
//!
//! On disk it is two files, `ca.pem` and `identity.pem`; the latter holds certificate and key
//! together, so that a renewal replaces both in one rename.

use super::authority::new_key;
use super::trust::to_pem;
use super::{IdentityError, Peer, Trust};
use crate::files;
use crate::tls;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use yard_common::limits::PEM_FILE_BYTES_MAX;
use zeroize::Zeroizing;

/// Name of the file with the CAs, in a folder of an identity.
pub const TRUST_FILE: &str = "ca.pem";
/// Name of the file with certificate and key, in a folder of an identity.
pub const IDENTITY_FILE: &str = "identity.pem";

/// A new key that waits for its certificate.
pub struct KeyRequest {
    key: KeyPair,
    der: Vec<u8>,
}

impl KeyRequest {
    /// Makes a key, and the request for its certificate.
    ///
    /// # Errors
    /// If the key cannot be made.
    pub fn new() -> Result<KeyRequest, IdentityError> {
        KeyRequest::of(new_key()?)
    }

    /// Reads the key of an earlier try, and makes the request for its certificate.
    ///
    /// # Errors
    /// If the file cannot be read, or others may read it.
    pub fn load(path: &Path) -> Result<KeyRequest, IdentityError> {
        let pem = Zeroizing::new(files::read_private(path, PEM_FILE_BYTES_MAX)?);
        KeyRequest::of(KeyPair::from_pem(&pem).map_err(IdentityError::ReadKey)?)
    }

    /// Keeps the key, so that a request whose answer was lost can be made again with the same one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let pem = Zeroizing::new(self.key.serialize_pem());
        Ok(files::write_durably(path, pem.as_bytes(), files::PRIVATE)?)
    }

    fn of(key: KeyPair) -> Result<KeyRequest, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(IdentityError::WriteRequest)?;
        Ok(KeyRequest { der: request.der().to_vec(), key })
    }

    /// The request in DER; its names are empty, since the issuer decides them.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The identity, once the certificate (in DER) is there.
    ///
    /// # Errors
    /// If the certificate is not of this key, or the CAs did not issue it.
    pub fn complete(self, certificate: &[u8], trust: Trust) -> Result<Identity, IdentityError> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der());
        let key = key.map_err(|_| IdentityError::BadPem("the private key"))?;
        Identity::assemble(trust, CertificateDer::from(certificate.to_vec()), key)
    }
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRequest(...)")
    }
}

/// A principal that can prove who it is. Key and certificate belong together, and the CAs issued
/// the certificate; whether it has run out is a question of the moment, see [`Peer::is_current`].
#[derive(Clone)]
pub struct Identity {
    trust: Trust,
    peer: Peer,
    certificate: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Identity {
    fn assemble(
        trust: Trust,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, IdentityError> {
        let chain = vec![certificate.clone()];
        CertifiedKey::from_der(chain, key.clone_key(), &tls::provider())
            .map_err(IdentityError::KeyMismatch)?;
        // Judged at the moment when it began: a certificate that ran out is still ours.
        let began = Peer::read(&certificate)?.not_before_wall_ms;
        let began = UnixTime::since_unix_epoch(Duration::from_millis(began));
        let peer = trust.verify_client(&certificate, began)?;
        Ok(Identity { trust, peer, certificate, key: Arc::new(key) })
    }

    /// Reads an identity from a folder.
    ///
    /// # Errors
    /// If a file is missing, damaged, open to others, or the parts do not belong together.
    pub fn load(folder: &Path) -> Result<Identity, IdentityError> {
        Identity::load_files(&folder.join(TRUST_FILE), &folder.join(IDENTITY_FILE))
    }

    /// Reads an identity from its two files.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn load_files(trust: &Path, identity: &Path) -> Result<Identity, IdentityError> {
        let trust = Trust::from_pem(&files::read_text(trust, PEM_FILE_BYTES_MAX)?)?;
        let text = Zeroizing::new(files::read_private(identity, PEM_FILE_BYTES_MAX)?);
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| IdentityError::BadPem("the certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| IdentityError::BadPem("the private key"))?;
        Identity::assemble(trust, certificate, key)
    }

    /// Writes the identity into a folder that nobody else can enter.
    ///
    /// # Errors
    /// If the folder is open to others, or a write fails.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        files::private_folder(folder)?;
        let trust = self.trust.to_pem();
        files::write_durably(&folder.join(TRUST_FILE), trust.as_bytes(), files::PUBLIC)?;
        let mut text = Zeroizing::new(to_pem("CERTIFICATE", &self.certificate));
        let key = Zeroizing::new(to_pem("PRIVATE KEY", self.key.secret_der()));
        text.push_str(&key);
        files::write_durably(&folder.join(IDENTITY_FILE), text.as_bytes(), files::PRIVATE)?;
        Ok(())
    }

    /// Who this is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The CAs that it trusts.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {:?})", self.peer.principal, self.trust)
    }
}
