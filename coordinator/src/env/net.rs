//! Connections, as bytes: what TCP gives, or the network of a test.

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use yard_runtime::tls::{self, Sockets};

/// Both directions of a connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// An open connection.
pub type Socket = Box<dyn Connection>;

/// Connections that others open, each with where it comes from. It does not end on an error.
pub trait Listener: Stream<Item = io::Result<(Socket, SocketAddr)>> + Send + Unpin {
    /// Where it listens; the port is real even if 0 was asked for.
    ///
    /// # Errors
    /// If the machine does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Connections over TCP.
struct Tcp(Sockets);

impl Stream for Tcp {
    type Item = io::Result<(Socket, SocketAddr)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let boxed = |(socket, address)| (Box::new(socket) as Socket, address);
        self.0.poll_next_unpin(cx).map(|next| next.map(|accepted| accepted.map(boxed)))
    }
}

impl Listener for Tcp {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Listens for TCP.
pub(super) fn listen(at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
    async move { Ok(Box::new(Tcp(Sockets::bind(at).await?)) as Box<dyn Listener>) }.boxed()
}

/// Opens a connection over TCP.
pub(super) fn dial(host: String, port: u16) -> BoxFuture<'static, io::Result<Socket>> {
    async move { Ok(Box::new(tls::dial(host, port).await?) as Socket) }.boxed()
}
