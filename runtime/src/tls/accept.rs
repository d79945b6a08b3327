//! The accept loop: handshakes beside each other, bounded in number and time.
//!
//! A connection is handed to the server only after its handshake, so nothing unverified reaches
//! it. When too many handshakes are in progress the oldest is dropped: an honest one is over in
//! milliseconds, a silent one is not. The loop itself never ends on an error.

use super::stream::{Accepted, Caller};
use super::{ALPN, ServerTls};
use crate::identity::Peer;
use futures_util::{Stream, StreamExt};
use rustix::net::sockopt;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use yard_common::limits::{
    CONNECTIONS_MAX, HANDSHAKE_MS, HANDSHAKES_MAX, STRANGER_MS, STRANGERS_MAX,
};

/// How long to wait when the kernel has no descriptor for the next connection.
const PAUSE: Duration = Duration::from_millis(50);
/// Silence after which the kernel asks whether a peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Questions without an answer until it gives the connection up.
const KEEPALIVE_PROBES: u32 = 4;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Handshakes in progress.
    pub handshakes_max: usize,
    /// How long one may take, in milliseconds.
    pub handshake_ms: u64,
    /// Connections of known peers.
    pub connections_max: usize,
    /// Connections of strangers.
    pub strangers_max: usize,
    /// How long a stranger may stay, in milliseconds.
    pub stranger_ms: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            handshakes_max: HANDSHAKES_MAX,
            handshake_ms: HANDSHAKE_MS,
            connections_max: CONNECTIONS_MAX,
            strangers_max: STRANGERS_MAX,
            stranger_ms: STRANGER_MS,
        }
    }
}

/// Connections of a TCP listener, with keepalive and without Nagle's delay.
#[derive(Debug)]
pub struct Sockets {
    listener: TcpListener,
}

impl Sockets {
    /// Listens at an address.
    ///
    /// # Errors
    /// If the address is taken, or not one of this machine.
    pub async fn bind(address: SocketAddr) -> io::Result<Sockets> {
        Ok(Sockets { listener: TcpListener::bind(address).await? })
    }

    /// Where it listens; the port is real even if 0 was asked for.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Stream for Sockets {
    type Item = io::Result<(TcpStream, SocketAddr)>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accepted = ready!(self.listener.poll_accept(cx));
        Poll::Ready(Some(accepted.and_then(|(socket, address)| {
            tune(&socket)?;
            Ok((socket, address))
        })))
    }
}

/// Sends at once, and notices a peer that is gone.
pub(super) fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Connections that passed their handshake: the stream that a tonic server serves. It yields no
/// errors. Dropping it ends the handshakes in progress.
pub struct Incoming<S, IO> {
    tls: Arc<ServerTls>,
    bounds: Bounds,
    sockets: S,
    closed: bool,
    handshakes: JoinSet<Option<Accepted<IO>>>,
    /// Those in progress, oldest first; some may have ended.
    order: VecDeque<AbortHandle>,
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming<Sockets, TcpStream> {
    /// Listens at an address, with the bounds of the system.
    ///
    /// # Errors
    /// If the address is taken, or not one of this machine.
    pub async fn bind(address: SocketAddr, tls: Arc<ServerTls>) -> io::Result<Self> {
        Ok(Incoming::new(Sockets::bind(address).await?, tls, Bounds::default()))
    }

    /// Where it listens; the port is real even if 0 was asked for.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets.local_addr()
    }
}

impl<S, IO> Incoming<S, IO>
where
    S: Stream<Item = io::Result<(IO, SocketAddr)>> + Unpin,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Handshakes over connections of any kind, such as those of a simulated network.
    pub fn new(sockets: S, tls: Arc<ServerTls>, bounds: Bounds) -> Self {
        Incoming {
            tls,
            sockets,
            closed: false,
            handshakes: JoinSet::new(),
            order: VecDeque::new(),
            known: Arc::new(Semaphore::new(bounds.connections_max)),
            strangers: Arc::new(Semaphore::new(bounds.strangers_max)),
            pause: None,
            bounds,
        }
    }

    fn begin(&mut self, socket: IO, address: SocketAddr) {
        while self.order.front().is_some_and(AbortHandle::is_finished) {
            self.order.pop_front();
        }
        if self.handshakes.len() >= self.bounds.handshakes_max {
            // Behind one that hangs there may be many that ended.
            self.order.retain(|handshake| !handshake.is_finished());
            if let Some(oldest) = self.order.pop_front() {
                debug!("too many handshakes in progress; the oldest is dropped");
                oldest.abort();
            }
        }
        let acceptor = TlsAcceptor::from(self.tls.config());
        let places = (self.known.clone(), self.strangers.clone());
        let handshake = handshake(acceptor, socket, address, places, self.bounds);
        self.order.push_back(self.handshakes.spawn(handshake));
    }
}

/// One handshake; `None`: it did not end well.
async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    acceptor: TlsAcceptor,
    socket: IO,
    address: SocketAddr,
    (known, strangers): (Arc<Semaphore>, Arc<Semaphore>),
    bounds: Bounds,
) -> Option<Accepted<IO>> {
    let limit = Duration::from_millis(bounds.handshake_ms);
    let stream = match timeout(limit, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%address, %error, "a handshake failed");
            return None;
        }
        Err(_) => {
            debug!(%address, "a handshake took too long");
            return None;
        }
    };
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(ALPN) {
        debug!(%address, "a peer does not speak HTTP/2");
        return None;
    }
    let peer = match connection.peer_certificates().and_then(<[_]>::first) {
        // Verified in the handshake; only read again here.
        Some(leaf) => Some(Arc::new(Peer::read(leaf).ok()?)),
        None => None,
    };
    let (places, ends) = match &peer {
        Some(_) => (known, None),
        None => (strangers, Some(Box::pin(sleep(Duration::from_millis(bounds.stranger_ms))))),
    };
    let Ok(place) = places.try_acquire_owned() else {
        warn!(%address, known = peer.is_some(), "too many connections; this one is closed");
        return None;
    };
    Some(Accepted::new(stream, Caller { peer, address }, ends, place))
}

impl<S, IO> Stream for Incoming<S, IO>
where
    S: Stream<Item = io::Result<(IO, SocketAddr)>> + Unpin,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Item = io::Result<Accepted<IO>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(accepted)))) => return Poll::Ready(Some(Ok(accepted))),
                // It failed or was dropped; a panic of the library is no reason to stop either.
                Poll::Ready(Some(Ok(None) | Err(_))) => continue,
                Poll::Ready(None) if this.closed => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if this.closed {
                return Poll::Pending;
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match ready!(this.sockets.poll_next_unpin(cx)) {
                Some(Ok((socket, address))) => this.begin(socket, address),
                Some(Err(error)) => {
                    // Out of descriptors, or a peer that was gone again: the next may be fine.
                    warn!(%error, "a connection could not be accepted");
                    this.pause = Some(Box::pin(sleep(PAUSE)));
                }
                None => this.closed = true,
            }
        }
    }
}

impl<S, IO> std::fmt::Debug for Incoming<S, IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({} handshakes)", self.handshakes.len())
    }
}
