//! What a visitor sends, on its way to a program or a port that may not read it.
//!
//! **Invariants.** No more waits here than was granted: a visitor that sends more is cut off. The
//! stream is always read, so that nothing that was sent stands before the visitor's leave.

use super::{Answers, Cut, DataError, Gone};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::tcp::OwnedWriteHalf;
use tonic::Streaming;
use yard_common::limits::VISIT_WINDOW_BYTES;
use yard_proto::internal::MemberData;
use yard_proto::internal::agent_data::What as Said;

/// What was taken is granted anew in portions of this: a message for every few bytes would be as
/// much work as the bytes.
const PORTION: usize = VISIT_WINDOW_BYTES / 4;

/// Where it goes. Dropped, it ends there.
#[derive(Debug)]
pub(super) enum To {
    Program(AsyncFd<File>),
    Port(OwnedWriteHalf),
}

/// What a visitor sent.
#[derive(Debug)]
pub(super) enum Came {
    Bytes(bytes::Bytes),
    /// Nothing more follows.
    End,
    /// Something else, which is done with.
    Nothing,
}

/// The bytes between the two.
#[derive(Debug)]
struct Window {
    waits: VecDeque<u8>,
    /// What may still come.
    open: usize,
    /// What may come once the visitor is told.
    taken: usize,
}

impl Window {
    fn new() -> Window {
        Window { waits: VecDeque::new(), open: 0, taken: VISIT_WINDOW_BYTES }
    }

    /// Bytes that came; they wait, or are taken at once, as nobody reads them any more.
    fn put(&mut self, bytes: &[u8], wanted: bool) -> Result<(), DataError> {
        let Some(open) = self.open.checked_sub(bytes.len()) else {
            return Err(DataError::limit(format!(
                "{} bytes came, and {} were granted",
                bytes.len(),
                self.open
            )));
        };
        self.open = open;
        match wanted {
            true => self.waits.extend(bytes),
            false => self.taken += bytes.len(),
        }
        Ok(())
    }

    /// So many of those that wait went on.
    fn take(&mut self, count: usize) {
        self.waits.drain(..count);
        self.taken += count;
    }

    /// Nobody reads any more.
    fn give_up(&mut self) {
        self.taken += self.waits.len();
        self.waits = VecDeque::new();
    }

    fn grant(&mut self) -> u64 {
        let granted = std::mem::take(&mut self.taken);
        self.open += granted;
        granted as u64
    }
}

/// Carries what is sent, until nobody is there any more, or too much came.
pub(super) async fn carry(
    to: To,
    inputs: &mut Streaming<MemberData>,
    answers: &Answers,
    grants: fn(u64) -> Said,
    mut sort: impl FnMut(MemberData) -> Came,
) -> Cut {
    let mut to = Some(to);
    let mut window = Window::new();
    let mut has_ended = false;
    loop {
        if has_ended && window.waits.is_empty() {
            to = None;
        }
        tokio::select! {
            came = inputs.message() => match came {
                Ok(Some(data)) => match sort(data) {
                    Came::Bytes(bytes) => {
                        if let Err(error) = window.put(&bytes, to.is_some() && !has_ended) {
                            return error.into();
                        }
                    }
                    Came::End => has_ended = true,
                    Came::Nothing => {}
                },
                Ok(None) | Err(_) => return Cut::Gone,
            },
            written = write(&mut to, window.waits.as_slices().0), if !window.waits.is_empty() => {
                match written {
                    Ok(count) => window.take(count),
                    // It does not read any more. It may write all the same.
                    Err(_) => {
                        to = None;
                        window.give_up();
                    }
                }
            }
            place = answers.place(), if window.taken >= PORTION => match place {
                Ok(place) => place.fill(grants(window.grant())),
                Err(Gone) => return Cut::Gone,
            },
        }
    }
}

/// Writes as much as fits, at least a byte. May be dropped and called again.
async fn write(to: &mut Option<To>, bytes: &[u8]) -> io::Result<usize> {
    let written = match to {
        None => return Err(io::ErrorKind::BrokenPipe.into()),
        Some(To::Port(port)) => port.write(bytes).await?,
        Some(To::Program(file)) => loop {
            let mut ready = file.writable().await?;
            match ready.try_io(|file| file.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => break written?,
                Err(_) => {}
            }
        },
    };
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_sends_no_more_than_was_granted() {
        let mut window = Window::new();
        assert!(window.put(b"x", true).is_err(), "nothing was granted");
        let window_bytes = VISIT_WINDOW_BYTES as u64;
        assert_eq!(window.grant(), window_bytes);
        let all = vec![7; VISIT_WINDOW_BYTES];
        window.put(&all[1..], true).unwrap();
        let error = window.put(b"xy", true).unwrap_err();
        assert_eq!(error.message, "2 bytes came, and 1 were granted");
        window.put(b"x", true).unwrap();
        assert!(window.put(b"y", true).is_err());
        assert_eq!((window.waits.len(), window.grant()), (VISIT_WINDOW_BYTES, 0));
        // What goes on makes room for as much.
        window.take(10);
        assert_eq!(window.grant(), 10);
        window.put(b"0123456789", true).unwrap();
        assert_eq!((window.waits.len(), window.open), (VISIT_WINDOW_BYTES, 0));
        // What nobody reads waits for nobody.
        window.give_up();
        assert_eq!(window.grant(), window_bytes);
        window.put(&all, false).unwrap();
        assert_eq!((window.waits.len(), window.grant()), (0, window_bytes));
    }
}
