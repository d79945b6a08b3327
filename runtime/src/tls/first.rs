//! The first connection to a cluster of which only a token is known.
//!
//! **Invariant.** The secret of a token is sent to nobody who has not shown the CAs that the token
//! names: the connection is there, and the other end has proved itself, before there is a message.

use super::{ClientTls, ConnectError, Connector, Expect, dial, endpoint};
use crate::identity::{Fingerprint, Tree};
use std::error::Error;
use std::io;
use std::sync::Arc;
use tonic::transport::Channel;

/// Why there is no first connection.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// Whoever answers there is not of the cluster that the token is for.
    #[error("{address} is not of the cluster that the token is for")]
    Foreign {
        /// Who was called.
        address: String,
        /// What is wrong.
        #[source]
        source: Box<ConnectError>,
    },
    /// Nobody answers there; another time may do.
    #[error("{address}: {why}")]
    Unreachable {
        /// Who was called.
        address: String,
        /// What was heard.
        why: String,
    },
}

/// Connects to a member that must show the CAs with this fingerprint. What it showed can be asked
/// of the connection's settings from then on.
///
/// # Errors
/// If there is no connection, or it is somebody else's.
pub async fn first_contact(
    address: &str,
    fingerprint: Fingerprint,
) -> Result<(Channel, Arc<ClientTls>), FirstError> {
    let tls = ClientTls::pinned(fingerprint);
    // Connected before there is a message: the handshake tells who is there.
    let connector = Connector::new(tls.clone(), Expect::Any(Tree::Member), dial);
    let endpoint = endpoint(address).map_err(|error| FirstError::Unreachable {
        address: address.to_string(),
        why: error.to_string(),
    })?;
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok((channel, tls)),
        Err(error) => Err(unconnected(address, &error)),
    }
}

/// What it means that there is no connection.
fn unconnected(address: &str, error: &tonic::transport::Error) -> FirstError {
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    let mut why = error.to_string();
    while let Some(found) = source {
        if let Some(connect) = found.downcast_ref::<ConnectError>() {
            // A peer that is not believed is told from one that went away.
            let foreign = match connect {
                ConnectError::Handshake(_, error) => error.kind() == io::ErrorKind::InvalidData,
                ConnectError::Distrusted(..) | ConnectError::OtherPeer { .. } => true,
                _ => false,
            };
            if foreign {
                let (address, source) = (address.to_string(), Box::new(copy(connect)));
                return FirstError::Foreign { address, source };
            }
        }
        why.push_str(": ");
        why.push_str(&found.to_string());
        source = found.source();
    }
    FirstError::Unreachable { address: address.to_string(), why }
}

/// The error that the transport keeps to itself, for whoever is told.
fn copy(error: &ConnectError) -> ConnectError {
    match error {
        ConnectError::OtherPeer { address, found, expected } => {
            ConnectError::OtherPeer { address: address.clone(), found: *found, expected: *expected }
        }
        ConnectError::Distrusted(address, why) => {
            ConnectError::Distrusted(address.clone(), why.clone())
        }
        ConnectError::Handshake(address, inner) => {
            let told = inner.get_ref().map_or_else(|| inner.to_string(), ToString::to_string);
            ConnectError::Handshake(address.clone(), io::Error::new(inner.kind(), told))
        }
        other => ConnectError::Address(other.to_string()),
    }
}
