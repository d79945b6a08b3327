//! Opening connections: the peer must be the expected one before the application sends a byte.

use super::accept::tune;
use super::{ALPN, ClientTls};
use crate::identity::{Peer, Principal, Tree};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, OtherError};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use yard_common::limits::{HANDSHAKE_MS, STATUS_DETAILS_BYTES_MAX};

/// How long opening a TCP connection may take.
const DIAL: Duration = Duration::from_secs(3);
/// Pings over HTTP/2 when nothing else happens.
const PING: Duration = Duration::from_secs(5);
/// How long an answer to a ping may take.
const PONG: Duration = Duration::from_secs(5);
/// Bytes of the headers of one response: the details of a refusal travel there, in Base64.
const HEADERS_BYTES_MAX: u32 = 4 * STATUS_DETAILS_BYTES_MAX as u32;

/// Who must be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anybody of this kind.
    Any(Tree),
    /// This very one.
    Only(Principal),
}

impl Expect {
    fn accepts(self, found: Principal) -> bool {
        match self {
            Expect::Any(tree) => found.tree() == tree,
            Expect::Only(principal) => found == principal,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Any(tree) => write!(f, "a {tree}"),
            Expect::Only(principal) => principal.fmt(f),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address has no host or port.
    #[error("{0} is no address; write host:port")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot connect to {0}")]
    Dial(String, #[source] io::Error),
    /// The other end did not answer in time.
    #[error("{0} does not answer")]
    TimedOut(String),
    /// The handshake failed: one side does not believe the other, or does not speak TLS 1.3.
    #[error("the handshake with {0} failed")]
    Handshake(String, #[source] io::Error),
    /// Its certificate is not believed.
    #[error("{0} cannot prove who it is")]
    Distrusted(String, #[source] Arc<dyn Error + Send + Sync>),
    /// It does not speak HTTP/2.
    #[error("{0} does not speak HTTP/2")]
    Protocol(String),
    /// It is somebody else.
    #[error("{address} is {found}, not {expected}")]
    OtherPeer {
        /// Who was called.
        address: String,
        /// Who it is.
        found: Principal,
        /// Who was expected.
        expected: Expect,
    },
}

/// Opens a TCP connection, with keepalive and without Nagle's delay.
///
/// # Errors
/// If nobody listens there, or does not answer within a few seconds.
pub async fn dial(host: String, port: u16) -> io::Result<TcpStream> {
    let connect = TcpStream::connect((host.as_str(), port));
    let socket = timeout(DIAL, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tune(&socket)?;
    Ok(socket)
}

/// Opens verified connections, for tonic's `Endpoint::connect_with_connector`. `D` dials: [`dial`]
/// for TCP, or the function of a simulated network.
#[derive(Clone, Debug)]
pub struct Connector<D> {
    tls: Arc<ClientTls>,
    expect: Expect,
    dial: D,
}

impl<D, F, IO> Connector<D>
where
    D: Fn(String, u16) -> F + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Connections to whom `expect` names.
    pub fn new(tls: Arc<ClientTls>, expect: Expect, dial: D) -> Connector<D> {
        Connector { tls, expect, dial }
    }

    /// Opens one connection to `host:port`.
    ///
    /// # Errors
    /// If there is none, or somebody else answers.
    pub fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = Result<TlsStream<IO>, ConnectError>> + Send + use<D, F, IO> {
        // The newest certificate at each connection.
        let connector = TlsConnector::from(self.tls.config());
        let expected = self.expect;
        let address = format!("{host}:{port}");
        // An IPv6 address stands in brackets in a URI, and only there.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let name = ServerName::try_from(host.clone());
        let dialled = (self.dial)(host, port);
        async move {
            let Ok(name) = name else { return Err(ConnectError::Address(address)) };
            let socket = match dialled.await {
                Ok(socket) => socket,
                Err(error) => return Err(ConnectError::Dial(address, error)),
            };
            let limit = Duration::from_millis(HANDSHAKE_MS);
            let stream = match timeout(limit, connector.connect(name, socket)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return Err(failed(address, error)),
                Err(_) => return Err(ConnectError::TimedOut(address)),
            };
            check(&stream, address, expected)?;
            Ok(stream)
        }
    }
}

/// What a failed handshake means: the reason of our own verifiers, if they refused.
fn failed(address: String, error: io::Error) -> ConnectError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
            ConnectError::Distrusted(address, why.clone())
        }
        _ => ConnectError::Handshake(address, error),
    }
}

fn check<IO>(
    stream: &TlsStream<IO>,
    address: String,
    expected: Expect,
) -> Result<(), ConnectError> {
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(ConnectError::Protocol(address));
    }
    // Verified in the handshake; only read again here.
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let found = leaf.and_then(|leaf| Peer::read(leaf).ok()).map(|peer| peer.principal);
    match found {
        Some(found) if expected.accepts(found) => Ok(()),
        Some(found) => Err(ConnectError::OtherPeer { address, found, expected }),
        None => Err(ConnectError::Handshake(address, io::ErrorKind::InvalidData.into())),
    }
}

impl<D, F, IO> tower::Service<Uri> for Connector<D>
where
    D: Fn(String, u16) -> F + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = TokioIo<TlsStream<IO>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Box::pin(std::future::ready(Err(ConnectError::Address(uri.to_string()))));
        };
        let connecting = self.connect(host, port);
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}

/// An endpoint for `host:port` with the settings of the system: pings that notice a dead peer
/// also when nothing is going on, and bounded headers. Calls have their own deadlines.
///
/// # Errors
/// If the address is no `host:port`.
pub fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let bad = || ConnectError::Address(address.to_string());
    // The scheme is only a form: the connector speaks nothing but TLS.
    let uri: Uri = format!("http://{address}").parse().map_err(|_| bad())?;
    if uri.port_u16().is_none() || uri.host().is_none_or(str::is_empty) || uri.path() != "/" {
        return Err(bad());
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(DIAL + Duration::from_millis(HANDSHAKE_MS))
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADERS_BYTES_MAX))
}

/// A channel to `host:port` over TCP that connects when it is used, and again when it broke.
///
/// # Errors
/// If the address is no `host:port`.
pub fn channel(
    address: &str,
    tls: &Arc<ClientTls>,
    expect: Expect,
) -> Result<Channel, ConnectError> {
    channel_over(address, tls, expect, dial)
}

/// A channel such as [`channel`], over connections that `dial` opens.
///
/// # Errors
/// If the address is no `host:port`.
pub fn channel_over<D, F, IO>(
    address: &str,
    tls: &Arc<ClientTls>,
    expect: Expect,
    dial: D,
) -> Result<Channel, ConnectError>
where
    D: Fn(String, u16) -> F + Send + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connector = Connector::new(tls.clone(), expect, dial);
    Ok(endpoint(address)?.connect_with_connector_lazy(connector))
}
