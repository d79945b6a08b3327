//! Whose certificates are believed, on either side of a handshake.
//!
//! Chains are verified here. Whether a verified peer is the one that was wanted is asked right
//! after the handshake, before the application sends anything.

use super::provider;
use crate::identity::{Fingerprint, PeerError, Trust};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use std::sync::{Arc, OnceLock};

fn refused(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// TLS 1.2 is not configured, so nothing ever asks.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".into())
}

fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, algorithms)
}

/// The methods that are the same in every verifier.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(no_tls12())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            check_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// A server's view of its clients: members, nodes and users, each of their own tree.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) trust: Trust,
    /// Whether a client may come without a certificate, to join or to log in.
    pub(super) strangers: bool,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        !self.strangers
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trust.verify_client(leaf, now).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// A client's view of servers whose cluster it knows.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) trust: Trust,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.trust.verify_server(leaf, now).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// A client's view of a server of which it knows nothing but the fingerprint of the CAs: the
/// server shows its CAs behind its certificate, and they are trusted if the fingerprint is right.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) fingerprint: Fingerprint,
    /// What was learned from a server that passed.
    pub(super) learned: Arc<OnceLock<Trust>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let Ok(trust) = Trust::from_certificates(intermediates) else { return Err(unknown) };
        if trust.fingerprint() != self.fingerprint {
            let found = trust.fingerprint();
            let expected = self.fingerprint;
            let other = crate::identity::IdentityError::Fingerprint { found, expected };
            let other = OtherError(Arc::new(other));
            return Err(Error::InvalidCertificate(CertificateError::Other(other)));
        }
        trust.verify_server(leaf, now).map_err(refused)?;
        // A second server of the same CAs teaches nothing new.
        let _ = self.learned.set(trust);
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}
