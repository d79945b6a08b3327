//! The member's own certificate: renewed in place before it ends, and read again when asked.

use crate::folder::{Places, certify};
use crate::member::Member;
use crate::peers::Peers;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use yard_runtime::identity::{Identity, IdentityError};
use yard_runtime::tls::{ClientTls, ServerTls, TlsError};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(3_600);

/// Why a certificate was not replaced; the old one stays.
#[derive(Debug, Error)]
pub enum ReplaceError {
    /// It cannot be made, read or written.
    #[error("the identity of the member failed")]
    Identity(#[from] IdentityError),
    /// It cannot be used.
    #[error("the certificate cannot be used")]
    Tls(#[from] TlsError),
}

/// What a member shows to others.
pub(crate) struct Certificate {
    places: Places,
    identity: Mutex<Identity>,
    server: Arc<ServerTls>,
    client: Arc<ClientTls>,
    peers: Arc<Peers>,
}

impl Certificate {
    pub(crate) fn new(
        places: Places,
        identity: Identity,
        server: Arc<ServerTls>,
        client: Arc<ClientTls>,
        peers: Arc<Peers>,
    ) -> Certificate {
        Certificate { places, identity: Mutex::new(identity), server, client, peers }
    }

    fn renew_at_wall_ms(&self, random: u64) -> u64 {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.peer().renew_at_wall_ms(random)
    }

    /// When it ends.
    pub(crate) fn ends_wall_ms(&self) -> u64 {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.peer().not_after_wall_ms
    }

    /// Uses what lies in the folder, from the next connection on.
    pub(crate) fn reload(&self) -> Result<(), ReplaceError> {
        self.replace(Identity::load(&self.places.identity)?)
    }

    fn replace(&self, identity: Identity) -> Result<(), ReplaceError> {
        self.server.replace(&identity)?;
        self.client.replace(&identity)?;
        // Connections that are kept would go on with the old one until it ends.
        self.peers.reconnect();
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// Makes the next certificate with the member's own authority.
    fn renew(&self, member: &Member) -> Result<Renewed, ReplaceError> {
        if member.raft.state().1.has_left(member.id) {
            return Ok(Renewed::Removed);
        }
        let Some(authority) = &member.authority else { return Ok(Renewed::NoAuthority) };
        let principal = yard_runtime::identity::Principal::Member(member.id);
        let identity = certify(authority, principal, &member.own_address(), &*member.env)?;
        identity.save(&self.places.identity)?;
        self.replace(identity)?;
        Ok(Renewed::Done)
    }
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewed {
    /// There is a new certificate.
    Done,
    /// This member has no keys to sign with.
    NoAuthority,
    /// This member was removed: nobody would believe a certificate of it.
    Removed,
}

/// Renews the certificate in time, until it is stopped.
pub(crate) async fn run(member: Arc<Member>, stop: CancellationToken) {
    let certificate = &member.certificate;
    loop {
        let due_ms = certificate.renew_at_wall_ms(member.env.random());
        if due_ms <= member.env.wall_ms() {
            match certificate.renew(&member) {
                Ok(Renewed::Done) => tracing::info!("the member has a new certificate"),
                Ok(Renewed::NoAuthority) => {
                    tracing::warn!("the certificate ends soon, and this member has no authority");
                }
                Ok(Renewed::Removed) => {
                    tracing::warn!("the member was removed: its certificate is not renewed");
                }
                Err(error) => tracing::error!(?error, "the certificate could not be renewed"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => (),
        }
    }
}
