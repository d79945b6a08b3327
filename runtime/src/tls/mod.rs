//! Connections between principals: TLS 1.3, each side known by a certificate of its own tree.
//!
//! - [`ServerTls`] and [`ClientTls`] hold what a handshake needs, and change it in place: open
//!   connections go on, new ones use the new certificate. There is no resumption of sessions, so
//!   every connection was checked against certificates of its own time.
//! - [`Incoming`] accepts, with bounds: a peer that sends nothing, rubbish, or plain text costs a
//!   slot for a few seconds, and its neighbours nothing.
//! - [`Connector`] opens connections for tonic, and refuses any peer but the expected one before
//!   a byte of the application is sent.

mod accept;
mod config;
mod connect;
mod first;
mod stream;
#[cfg(test)]
mod tests;
mod verify;

pub use accept::{Bounds, Incoming, Sockets};
pub use config::{Admit, ClientTls, ServerTls, TlsError};
pub use connect::{ConnectError, Connector, Expect, channel, channel_over, dial, endpoint};
pub use first::{FirstError, first_contact};
pub use stream::{Accepted, Caller};

use rustls::crypto::CryptoProvider;
use std::sync::{Arc, OnceLock};

/// The only protocol that is spoken: HTTP/2.
const ALPN: &[u8] = b"h2";

/// The cryptography of the whole system. Passed on explicitly: no global default is installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}
