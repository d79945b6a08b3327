//! A connection that was accepted, and who is at its other end.

use crate::identity::Peer;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Who calls: in the extensions of every request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The verified peer; `None`: it has shown no certificate, and may only join or log in.
    pub peer: Option<Arc<Peer>>,
    /// Where it calls from, for audit.
    pub address: SocketAddr,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    inner: TlsStream<IO>,
    caller: Caller,
    /// When a stranger's time is over.
    ends: Option<Pin<Box<Sleep>>>,
    /// Its place among the connections of the listener.
    _place: OwnedSemaphorePermit,
}

impl<IO> Accepted<IO> {
    pub(super) fn new(
        inner: TlsStream<IO>,
        caller: Caller,
        ends: Option<Pin<Box<Sleep>>>,
        place: OwnedSemaphorePermit,
    ) -> Accepted<IO> {
        Accepted { inner, caller, ends, _place: place }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(cx).is_ready());
        if over {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the time of a stranger is over"));
        }
        Ok(())
    }
}

impl<IO> Connected for Accepted<IO> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Accepted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Accepted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_time(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_time(cx)?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
