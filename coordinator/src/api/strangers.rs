//! What those cost who have shown no certificate: a few small calls at a time, each for a short
//! while.
//!
//! **Invariant.** Until a token was checked, nobody makes a member keep more than
//! `STRANGER_CALLS_MAX` messages of `STRANGER_BYTES_MAX` for one connection: a message is refused
//! when its head says that it is longer, before there is room made for it.

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body;
use yard_common::limits::{STRANGER_BYTES_MAX, STRANGER_CALLS_MAX};

/// Bytes before each message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// Calls of strangers in progress, by connection.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<BTreeMap<SocketAddr, usize>>>);

/// One call of a stranger. It is over when this is dropped.
pub(super) struct Visit {
    strangers: Strangers,
    address: SocketAddr,
}

impl Strangers {
    /// A call begins; none: the connection has as many as it may.
    pub(super) fn enter(&self, address: SocketAddr) -> Option<Visit> {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = calls.entry(address).or_default();
        if *count >= STRANGER_CALLS_MAX {
            return None;
        }
        *count += 1;
        Some(Visit { strangers: self.clone(), address })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut calls = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = calls.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        match left {
            0 => calls.remove(&self.address),
            left => calls.insert(self.address, left),
        };
    }
}

/// The body of a request whose sender is not known.
pub(super) struct Bounded {
    inner: Body,
    /// What may still come.
    left: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that have come.
    head_len: usize,
    /// Bytes of the present message that have not come.
    message: usize,
}

impl Bounded {
    pub(super) fn new(inner: Body) -> Bounded {
        let left = STRANGER_BYTES_MAX;
        Bounded { inner, left, head: [0; HEAD_BYTES], head_len: 0, message: 0 }
    }

    /// Looks at what came, before anybody keeps it.
    fn hear(&mut self, mut data: &[u8]) -> Result<(), Status> {
        self.left = self.left.checked_sub(data.len()).ok_or_else(too_long)?;
        while data.has_remaining() {
            if self.message > 0 {
                let here = self.message.min(data.len());
                data.advance(here);
                self.message -= here;
                continue;
            }
            self.head[self.head_len] = data.get_u8();
            self.head_len += 1;
            if self.head_len == HEAD_BYTES {
                let [_, len @ ..] = self.head;
                let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
                if len > STRANGER_BYTES_MAX {
                    return Err(too_long());
                }
                (self.head_len, self.message) = (0, len);
            }
        }
        Ok(())
    }
}

fn too_long() -> Status {
    let message = format!("a request with a token has at most {STRANGER_BYTES_MAX} bytes");
    Status::out_of_range(message)
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            self.hear(data)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_connection_has_a_few_calls_at_a_time() {
        let strangers = Strangers::default();
        let visits: Vec<_> = (0..STRANGER_CALLS_MAX).map(|_| strangers.enter(address(1))).collect();
        assert!(visits.iter().all(Option::is_some) && strangers.enter(address(1)).is_none());
        assert!(strangers.enter(address(2)).is_some(), "another connection");
        drop(visits);
        assert!(strangers.enter(address(1)).is_some());
        assert!(strangers.0.lock().unwrap().is_empty(), "nothing is left of calls that are over");
    }

    #[test]
    fn a_message_is_refused_by_its_head_alone() {
        let mut body = Bounded::new(Body::empty());
        // Two messages, in pieces that end within a head and within a message.
        body.hear(&[0, 0, 0]).unwrap();
        body.hear(&[0, 3, 7]).unwrap();
        body.hear(&[7, 7, 0, 0xff, 0xff]).unwrap();
        assert_eq!(body.hear(&[0xff, 0xff]).unwrap_err().code(), Code::OutOfRange);
        let mut body = Bounded::new(Body::empty());
        let len = u32::try_from(STRANGER_BYTES_MAX).unwrap().to_be_bytes();
        body.hear(&[0, len[0], len[1], len[2], len[3]]).unwrap();
        body.hear(&vec![0; STRANGER_BYTES_MAX - HEAD_BYTES]).unwrap();
        assert_eq!(body.hear(&[0]).unwrap_err().code(), Code::OutOfRange, "too many in all");
    }
}
