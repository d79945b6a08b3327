//! Output that comes through pipes: where the file system makes no holes, ranks cannot write to
//! files by themselves and have them bounded. The shim is in their way then.

use super::run::Shim;
use crate::logs::Parted;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::unistd::pipe2;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Bytes of one pipe in a row; then the loop looks at the rest.
const TURN_BYTES: usize = 1 << 20;
/// Such turns when the ranks have ended.
const TURNS_LAST: u32 = 16;
/// Bytes of one read: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// The pipes of the ranks that run.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

#[derive(Debug)]
struct Pipe {
    from: File,
    to: Parted,
}

impl Pipes {
    /// A pipe into the file of a stream. Returns the end that is written to.
    pub(super) fn open(&mut self, stream: &Path, bytes_max: u64) -> io::Result<OwnedFd> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let flags = OFlag::from_bits_retain(fcntl(&read, FcntlArg::F_GETFL)?);
        fcntl(&read, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        self.0.push(Pipe { from: File::from(read), to: Parted::new(stream, bytes_max)? });
        Ok(write)
    }

    /// Adds what to poll.
    pub(super) fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.0.iter().map(|pipe| PollFd::new(pipe.from.as_fd(), PollFlags::POLLIN)));
    }

    /// Writes down what has come, each pipe in its turn.
    fn pump(&mut self) {
        self.0.retain_mut(|pipe| pipe.pump(TURN_BYTES) != Came::End);
    }

    /// Writes down what is left of ranks that have ended, and lets go of their pipes.
    pub(super) fn finish(&mut self) {
        for mut pipe in self.0.drain(..) {
            // Somebody who got the pipe from a rank may write on for ever.
            let mut turns = 0..TURNS_LAST;
            while turns.next().is_some() && pipe.pump(TURN_BYTES) == Came::More {}
        }
    }
}

/// What a look at a pipe gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// There may be more at once.
    More,
    /// Nothing is there now.
    All,
    /// Nobody can write any more.
    End,
}

impl Pipe {
    fn pump(&mut self, bytes_max: usize) -> Came {
        let mut bytes = vec![0; READ_BYTES];
        let mut len = 0;
        while len < bytes_max {
            match self.from.read(&mut bytes) {
                Ok(0) => return Came::End,
                Ok(count) => {
                    self.to.write(&bytes[..count]);
                    len += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => {
                    return Came::All;
                }
                Err(_) => return Came::End,
            }
        }
        Came::More
    }
}

impl Shim {
    /// Writes down what ranks have written.
    pub(super) fn pump_output(&mut self) {
        self.pipes.pump();
    }
}
