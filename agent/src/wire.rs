//! Messages over unix sockets: a length, then CBOR. Nothing here waits: both sides are loops.

use minicbor::{Decode, Encode};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use thiserror::Error;
use yard_common::limits::{SHIM_BACKLOG_BYTES_MAX, SHIM_MESSAGE_BYTES_MAX};

/// Why a connection is over.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    /// The peer is gone.
    #[error("the peer closed the connection")]
    Closed,
    /// The system's answer.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// A message is too long.
    #[error("a message of {0} bytes")]
    TooLong(usize),
    /// The peer does not read.
    #[error("the peer does not read")]
    Backlog,
}

/// A message as it is sent.
pub(crate) fn frame<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; 4];
    minicbor::encode(message, &mut frame).expect("writing to memory does not fail");
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_le_bytes());
    frame
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Wire {
    /// Takes a connection over.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Wire> {
        stream.set_nonblocking(true)?;
        Ok(Wire { stream, input: Vec::new(), output: Vec::new() })
    }

    /// What to poll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.output.is_empty()
    }

    /// Queues a message and sends what goes.
    pub(crate) fn send<T: Encode<()>>(&mut self, message: &T) -> Result<(), WireError> {
        self.queue(message)?;
        self.flush()
    }

    /// Queues a message, to be sent together with the next one.
    pub(crate) fn queue<T: Encode<()>>(&mut self, message: &T) -> Result<(), WireError> {
        let frame = frame(message);
        if frame.len() > SHIM_MESSAGE_BYTES_MAX + 4 {
            return Err(WireError::TooLong(frame.len() - 4));
        }
        if self.output.len() + frame.len() > SHIM_BACKLOG_BYTES_MAX {
            return Err(WireError::Backlog);
        }
        self.output.extend_from_slice(&frame);
        Ok(())
    }

    /// Sends what goes.
    pub(crate) fn flush(&mut self) -> Result<(), WireError> {
        let mut sent = 0;
        let result = loop {
            if sent == self.output.len() {
                break Ok(());
            }
            match self.stream.write(&self.output[sent..]) {
                Ok(0) => break Err(WireError::Closed),
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error.into()),
            }
        };
        self.output.drain(..sent);
        result
    }

    /// Reads what is there. Messages that this release does not know are left out. What came
    /// before the end is given too; the end is told by the next call.
    pub(crate) fn receive<T: for<'b> Decode<'b, ()>>(&mut self) -> Result<Vec<T>, WireError> {
        let mut end = None;
        let mut chunk = [0; 16 * 1024];
        // Bounded, so that one peer that never stops does not keep the loop.
        while self.input.len() <= SHIM_MESSAGE_BYTES_MAX + 4 {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    end = Some(WireError::Closed);
                    break;
                }
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    end = Some(error.into());
                    break;
                }
            }
        }
        let mut messages = Vec::new();
        let mut at = 0;
        while let Some(head) = self.input.get(at..at + 4) {
            let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if len > SHIM_MESSAGE_BYTES_MAX {
                return Err(WireError::TooLong(len));
            }
            let Some(body) = self.input.get(at + 4..at + 4 + len) else { break };
            if let Ok(message) = minicbor::decode(body) {
                messages.push(message);
            }
            at += 4 + len;
        }
        self.input.drain(..at);
        match end {
            Some(end) if messages.is_empty() => Err(end),
            _ => Ok(messages),
        }
    }
}

/// Whether the peer of a socket may give orders: it is root, or who we are.
pub(crate) fn is_trusted(stream: &UnixStream, also: Option<u32>) -> bool {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    let own = nix::unistd::geteuid().as_raw();
    match getsockopt(stream, PeerCredentials) {
        Ok(peer) => peer.uid() == 0 || peer.uid() == own || Some(peer.uid()) == also,
        Err(_) => false,
    }
}

/// The path of a socket in a directory, short enough for an address of any length of directory.
pub(crate) fn short_path(directory: &impl AsFd, name: &str) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Wire, Wire) {
        let (a, b) = UnixStream::pair().unwrap();
        (Wire::new(a).unwrap(), Wire::new(b).unwrap())
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (mut a, mut b) = pair();
        for number in 0..1_000u32 {
            a.send(&number).unwrap();
        }
        let mut got: Vec<u32> = Vec::new();
        while got.len() < 1_000 {
            got.extend(b.receive::<u32>().unwrap());
            a.flush().unwrap();
        }
        assert!(got.iter().copied().eq(0..1_000));
        drop(a);
        assert!(matches!(b.receive::<u32>(), Err(WireError::Closed)));
    }

    #[test]
    fn what_was_sent_before_the_end_is_not_lost() {
        let (mut a, mut b) = pair();
        a.send(&7u32).unwrap();
        drop(a);
        assert_eq!(b.receive::<u32>().unwrap(), [7]);
        assert!(b.receive::<u32>().is_err());
    }

    #[test]
    fn a_peer_that_does_not_read_is_dropped() {
        let (mut a, _b) = pair();
        let long = "x".repeat(SHIM_MESSAGE_BYTES_MAX - 16);
        let full = (0..16).find_map(|_| a.send(&long).err());
        assert!(matches!(full, Some(WireError::Backlog)), "{full:?}");
        let too_long = "x".repeat(SHIM_MESSAGE_BYTES_MAX + 1);
        assert!(matches!(a.send(&too_long), Err(WireError::TooLong(_))));
    }

    #[test]
    fn a_length_that_lies_ends_the_connection() {
        let (a, mut b) = pair();
        (&a.stream).write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(b.receive::<u32>(), Err(WireError::TooLong(_))));
    }
}
