//! What a handshake needs, replaced in place when a certificate is renewed.

use super::verify::{Clients, Pinned, Servers};
use super::{ALPN, provider};
use crate::identity::{Fingerprint, Identity, Trust};
use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::version::TLS13;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Why an identity cannot be used for connections.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Its certificate has run out, or has not begun.
    #[error("the certificate of {0} has run out or has not begun; is the clock right?")]
    NotCurrent(String),
    /// The library does not take it.
    #[error("the certificate cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// Whom a server lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Only those who show a certificate.
    Known,
    /// Also those without one, for a short time, to join or to log in.
    Strangers,
}

/// The server's side of handshakes.
pub struct ServerTls {
    config: ArcSwap<ServerConfig>,
    admit: Admit,
}

impl ServerTls {
    /// Handshakes as this identity.
    ///
    /// # Errors
    /// If the identity cannot be used now.
    pub fn new(identity: &Identity, admit: Admit) -> Result<Arc<ServerTls>, TlsError> {
        let config = ArcSwap::from(server_config(identity, admit)?);
        Ok(Arc::new(ServerTls { config, admit }))
    }

    /// Uses another certificate from the next handshake on. Open connections go on.
    ///
    /// # Errors
    /// If the identity cannot be used now; the old one then stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        self.config.store(server_config(identity, self.admit)?);
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls({:?})", self.admit)
    }
}

/// The client's side of handshakes.
pub struct ClientTls {
    config: ArcSwap<ClientConfig>,
    learned: Arc<OnceLock<Trust>>,
}

impl ClientTls {
    /// Handshakes as this identity, with servers of its cluster.
    ///
    /// # Errors
    /// If the identity cannot be used now.
    pub fn new(identity: &Identity) -> Result<Arc<ClientTls>, TlsError> {
        let config = ArcSwap::from(client_config(identity)?);
        Ok(Arc::new(ClientTls { config, learned: Arc::default() }))
    }

    /// Handshakes of somebody who has nothing but a token: the server must show the CAs with
    /// this fingerprint, and a certificate of theirs.
    ///
    /// # Panics
    /// Never: what is passed to the library is fixed.
    #[must_use]
    pub fn pinned(fingerprint: Fingerprint) -> Arc<ClientTls> {
        let learned = Arc::new(OnceLock::new());
        let verifier = Pinned { fingerprint, learned: learned.clone() };
        let config = with_verifier(Arc::new(verifier)).with_no_client_auth();
        let config = ArcSwap::from(finish(config));
        Arc::new(ClientTls { config, learned })
    }

    /// The CAs of a pinned server, once a handshake with it succeeded.
    #[must_use]
    pub fn learned(&self) -> Option<Trust> {
        self.learned.get().cloned()
    }

    /// Uses another certificate from the next handshake on. Open connections go on.
    ///
    /// # Errors
    /// If the identity cannot be used now; the old one then stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        self.config.store(client_config(identity)?);
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.config.load_full()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(...)")
    }
}

/// Refuses an identity whose peers would refuse it.
fn check_current(identity: &Identity) -> Result<(), TlsError> {
    let found = identity.trust().verify_client(identity.certificate(), UnixTime::now());
    found.map(drop).map_err(|_| TlsError::NotCurrent(identity.peer().principal.to_string()))
}

fn server_config(identity: &Identity, admit: Admit) -> Result<Arc<ServerConfig>, TlsError> {
    check_current(identity)?;
    let trust = identity.trust().clone();
    // The CAs go along, for those who know only their fingerprint (`ClientTls::pinned`).
    let mut chain = vec![identity.certificate().clone()];
    chain.extend_from_slice(trust.certificates());
    let verifier = Clients { trust, strangers: admit == Admit::Strangers };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, identity.key())
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TlsError> {
    check_current(identity)?;
    let verifier = Servers { trust: identity.trust().clone() };
    let chain = vec![identity.certificate().clone()];
    let config = with_verifier(Arc::new(verifier)).with_client_auth_cert(chain, identity.key());
    Ok(finish(config.map_err(TlsError::Unusable)?))
}

fn with_verifier(
    verifier: Arc<dyn ServerCertVerifier>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // The name would tell an observer which member is meant, and no server looks at it.
    config.enable_sni = false;
    Arc::new(config)
}
