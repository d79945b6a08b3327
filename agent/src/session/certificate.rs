//! The node's certificate: asked for anew after two thirds of its life, and replaced in place.

use super::memory::Memory;
use super::{Fatal, Shared, link};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use yard_common::limits::MEMBERS_MAX;
use yard_proto::internal::{AgentCertificate, RenewAgentCertificateRequest};
use yard_runtime::backoff::Backoff;
use yard_runtime::identity::{Identity, IdentityError, KeyRequest, Principal, Tree, Trust};
use yard_runtime::shutdown::CancellationToken;
use yard_runtime::tls::{ClientTls, ConnectError, Expect, TlsError};

/// How long a member may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The first and the longest wait before the next try.
const WAIT_MS: (u64, u64) = (1_000, 300_000);
/// The wall clock is looked at this often: it may be set while the task sleeps.
const LOOK_MS: u64 = 600_000;

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub(crate) enum CertificateError {
    /// Nobody to ask.
    #[error("no member is known")]
    Nobody,
    /// The address cannot be any.
    #[error("the address is none: {0}")]
    Address(#[from] ConnectError),
    /// It is late.
    #[error("the member does not answer")]
    Late,
    /// It is refused.
    #[error("{}", link::told(.0))]
    Status(Box<tonic::Status>),
    /// What came is no certificate of this node.
    #[error("the certificate that came is refused: {0}")]
    Identity(#[from] IdentityError),
    /// The message is not whole.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// It is of somebody else.
    #[error("the certificate that came is of {found}, not of {expected}")]
    Other {
        /// Whom it names.
        found: Principal,
        /// Who asked.
        expected: Principal,
    },
    /// It cannot be used.
    #[error("the certificate that came cannot be used: {0}")]
    Tls(#[from] TlsError),
}

/// The identity that a certificate makes of a key. `trust` is what is believed already; a bundle
/// that comes along must be of the same cluster.
pub(crate) fn complete(
    key: KeyRequest,
    message: &AgentCertificate,
    trust: &Trust,
) -> Result<Identity, CertificateError> {
    let first = message.chain_der.first().ok_or(CertificateError::Missing("certificate"))?;
    let new_trust = match message.trust_der.is_empty() {
        true => trust.clone(),
        false => {
            let list: Vec<_> = message.trust_der.iter().map(|der| der.to_vec().into()).collect();
            Trust::from_certificates(&list)?
        }
    };
    if new_trust.cluster() != trust.cluster() {
        return Err(IdentityError::BadBundle("it is of another cluster").into());
    }
    Ok(key.complete(first, new_trust)?)
}

/// What renews the certificate.
#[derive(Debug)]
pub(crate) struct Renewer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Identity,
    /// Raised with each new one.
    pub(crate) generation: watch::Sender<u64>,
}

impl Renewer {
    /// Renews until it is stopped.
    ///
    /// # Errors
    /// If a new certificate cannot be written down.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            failed = self.keep() => Err(failed),
        }
    }

    async fn keep(&mut self) -> Fatal {
        let mut backoff = Backoff::new(WAIT_MS.0, WAIT_MS.1);
        let mut due_ms = self.identity.peer().renew_at_wall_ms(rand::random());
        loop {
            let now_ms = wall_ms();
            if now_ms < due_ms {
                sleep(Duration::from_millis((due_ms - now_ms).min(LOOK_MS))).await;
                continue;
            }
            match self.renew().await {
                Ok(identity) => {
                    if let Err(fatal) = self.put_in_place(identity).await {
                        return fatal;
                    }
                    backoff.reset();
                    due_ms = self.identity.peer().renew_at_wall_ms(rand::random());
                }
                Err(error) => {
                    let left_ms = self.identity.peer().not_after_wall_ms.saturating_sub(now_ms);
                    tracing::warn!(%error, left_ms, "the certificate is not renewed");
                    sleep(backoff.next(rand::random())).await;
                }
            }
        }
    }

    /// Asks members in turn.
    async fn renew(&self) -> Result<Identity, CertificateError> {
        let mut last = CertificateError::Nobody;
        for address in self.shared.rosters.addresses().iter().take(MEMBERS_MAX) {
            match self.ask(address).await {
                Ok(identity) => return Ok(identity),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, address: &str) -> Result<Identity, CertificateError> {
        let key = KeyRequest::new()?;
        let mut client = link::client(address, &self.shared.tls, Expect::Any(Tree::Member))?;
        let request = RenewAgentCertificateRequest { csr_der: key.der().to_vec().into() };
        let answered = timeout(ANSWER, client.renew_certificate(request)).await;
        let answered = answered.map_err(|_| CertificateError::Late)?;
        let message = answered.map_err(|status| CertificateError::Status(Box::new(status)))?;
        let identity = complete(key, message.get_ref(), self.identity.trust())?;
        let (found, expected) = (identity.peer().principal, self.identity.peer().principal);
        if found != expected {
            return Err(CertificateError::Other { found, expected });
        }
        Ok(identity)
    }

    /// Written down first: a crash in between must not leave an older one than members know.
    async fn put_in_place(&mut self, identity: Identity) -> Result<(), Fatal> {
        save(&self.shared.memory, &identity).await?;
        if let Err(error) = use_it(&self.shared.tls, &self.generation, &identity) {
            tracing::warn!(%error, "the new certificate is not used yet");
        }
        self.identity = identity;
        Ok(())
    }
}

/// Uses an identity for every connection from now on.
pub(crate) fn use_it(
    tls: &ClientTls,
    generation: &watch::Sender<u64>,
    identity: &Identity,
) -> Result<(), CertificateError> {
    tls.replace(identity)?;
    generation.send_modify(|generation| *generation += 1);
    let until_wall_ms = identity.peer().not_after_wall_ms;
    tracing::info!(until_wall_ms, "the certificate is replaced");
    Ok(())
}

async fn save(memory: &Memory, identity: &Identity) -> Result<(), Fatal> {
    let (folder, identity) = (memory.folder().to_path_buf(), identity.clone());
    let saved = tokio::task::spawn_blocking(move || identity.save(&folder)).await;
    Ok(saved.expect("writing a file does not panic").map_err(super::MemoryError::from)?)
}

/// Milliseconds UTC since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
