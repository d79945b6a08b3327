//! Connections over the network of turmoil, and a trace of all that goes over them.
//!
//! What is written at once travels at once. The trace holds who sent to whom, when, and in which
//! order, and no bytes: keys and signatures differ from run to run, in length too, and responses
//! carry a date by the clock of the machine.
//!
//! When a process dies its connections are closed in the order in which they were opened. tokio
//! drops tasks in an order that depends on everything that ever ran in the test's process.

use futures_util::Stream;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};
use yard_coordinator::env::{Listener, Socket};

/// How long opening a connection may take, as over TCP.
const DIAL: Duration = Duration::from_secs(3);

/// A message, as far as it is the same in every run of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at_us: u128,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// All messages in their order. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<Sent>>>);

impl Trace {
    fn add(&self, from: SocketAddr, to: SocketAddr) {
        let at_us = turmoil::sim_elapsed().unwrap_or_default().as_micros();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Sent { at_us, from, to });
    }

    pub(crate) fn messages(&self) -> Vec<Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The connections of one process. Clones are those of the same one.
#[derive(Clone, Default)]
pub(crate) struct Wires {
    trace: Trace,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    opened: u64,
    dying: bool,
    /// What was dropped since it is dying, by the order of opening.
    dropped: BTreeMap<u64, TcpStream>,
}

/// Closes the connections of a process that died. Held by what is dropped last.
pub(crate) struct Last(Arc<Mutex<Open>>);

impl Drop for Last {
    fn drop(&mut self) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, stream)) = open.dropped.pop_first() {
            drop(stream);
        }
    }
}

impl Wires {
    pub(crate) fn new(trace: Trace) -> Wires {
        Wires { trace, open: Arc::default() }
    }

    /// The process is about to be killed.
    pub(crate) fn die(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).dying = true;
    }

    pub(crate) fn last(&self) -> Last {
        Last(Arc::clone(&self.open))
    }

    fn traced(&self, stream: TcpStream) -> io::Result<Socket> {
        let (own, other) = (stream.local_addr()?, stream.peer_addr()?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.opened += 1;
        let nth = open.opened;
        drop(open);
        Ok(Box::new(Traced { stream: Some(stream), nth, wires: self.clone(), own, other }))
    }
}

/// A connection that is written down.
struct Traced {
    /// There until it is dropped.
    stream: Option<TcpStream>,
    nth: u64,
    wires: Wires,
    own: SocketAddr,
    other: SocketAddr,
}

impl Traced {
    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("it is not dropped yet"))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let mut open = self.wires.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.dying
            && let Some(stream) = self.stream.take()
        {
            open.dropped.insert(self.nth, stream);
        }
    }
}

impl AsyncRead for Traced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream().poll_write(cx, bytes))?;
        self.wires.trace.add(self.own, self.other);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// Opens a connection.
pub(crate) async fn dial(host: String, port: u16, wires: Wires) -> io::Result<Socket> {
    let stream = timeout(DIAL, TcpStream::connect((host, port))).await;
    let stream = stream.map_err(|_| io::ErrorKind::TimedOut)??;
    wires.traced(stream)
}

type Accept = BoxFuture<'static, io::Result<(TcpStream, SocketAddr)>>;

/// Connections of others.
struct Listening {
    listener: Arc<TcpListener>,
    next: Accept,
    wires: Wires,
}

fn accept(listener: &Arc<TcpListener>) -> Accept {
    let listener = Arc::clone(listener);
    Box::pin(async move { listener.accept().await })
}

/// Listens for connections.
pub(crate) async fn listen(at: SocketAddr, wires: Wires) -> io::Result<Box<dyn Listener>> {
    let listener = Arc::new(TcpListener::bind(at).await?);
    let next = accept(&listener);
    Ok(Box::new(Listening { listener, next, wires }))
}

impl Stream for Listening {
    type Item = io::Result<(Socket, SocketAddr)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accepted = ready!(self.next.as_mut().poll(cx));
        self.next = accept(&self.listener);
        let traced = |(stream, address)| Ok((self.wires.traced(stream)?, address));
        Poll::Ready(Some(accepted.and_then(traced)))
    }
}

impl Listener for Listening {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
