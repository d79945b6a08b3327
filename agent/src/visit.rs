//! The agent's side of a visit: how it reaches the shim of an assignment, and what it hears.

use crate::shim::VISITS;
use crate::shim::message::{VisitReply, VisitRequest};
use crate::wire::{frame, short_path};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use yard_common::limits::SHIM_MESSAGE_BYTES_MAX;

/// Why there is no visit.
#[derive(Debug, Error)]
pub(crate) enum VisitError {
    /// No shim listens.
    #[error("its ranks do not run on this node, or were started by an earlier release")]
    Nobody,
    /// The connection failed.
    #[error("its shim cannot be reached")]
    Io(#[from] io::Error),
    /// What came is no answer.
    #[error("its shim answered something that is not understood")]
    Strange,
}

/// The connection of a visit.
#[derive(Debug)]
pub(crate) struct Visit(tokio::net::UnixStream);

/// Asks the shim that lives in this directory. Waits for the connection, not for the answer.
pub(crate) fn ask(
    home: &Path,
    request: &VisitRequest,
    files: &[OwnedFd],
) -> Result<UnixStream, VisitError> {
    let nobody = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => VisitError::Nobody,
        _ => VisitError::Io(error),
    };
    let directory = File::open(home).map_err(nobody)?;
    let mut stream = UnixStream::connect(short_path(&directory, VISITS)).map_err(nobody)?;
    let raw: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(&[0])];
    sendmsg::<()>(stream.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)
        .map_err(io::Error::from)?;
    stream.write_all(&frame(request))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

impl Visit {
    /// Goes on with a connection.
    pub(crate) fn new(stream: UnixStream) -> Result<Visit, VisitError> {
        Ok(Visit(tokio::net::UnixStream::from_std(stream)?))
    }

    /// What the shim says next.
    pub(crate) async fn hear(&mut self) -> Result<VisitReply, VisitError> {
        let len = self.0.read_u32_le().await? as usize;
        if len > SHIM_MESSAGE_BYTES_MAX {
            return Err(VisitError::Strange);
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).await?;
        minicbor::decode(&body).map_err(|_| VisitError::Strange)
    }
}
