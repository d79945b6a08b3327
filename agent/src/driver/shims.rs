//! The driver's side of one shim: its process, the connection to it, and what it was told.

use super::ready::{Process, Ready};
use crate::shim::message::{FromShim, ToShim};
use crate::shim::{LOCK, LOG, SOCKET, enlist};
use crate::wire::{Wire, WireError, short_path};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use yard_core::agent::AssignmentId;

/// One shim.
#[derive(Debug)]
pub(super) struct Shim {
    directory: PathBuf,
    wire: Option<Wire>,
    child: Option<Child>,
    /// The connection is lost, and it is not known whether the shim is.
    pub(super) in_doubt: bool,
    /// It does not live.
    pub(super) is_dead: bool,
    /// What it was told, and is told again when it comes back.
    start: Option<u32>,
    cut: Option<u32>,
    stop: bool,
    kill: bool,
    /// Ends that it was told are on disk.
    pub(super) saved: u32,
    /// Processes that it killed and that do not end, for people.
    pub(super) stuck: Option<String>,
}

impl Shim {
    fn new(directory: PathBuf) -> Shim {
        Shim {
            directory,
            wire: None,
            child: None,
            in_doubt: false,
            is_dead: false,
            start: None,
            cut: None,
            stop: false,
            kill: false,
            saved: 0,
            stuck: None,
        }
    }

    /// Gives a process to an assignment. Its directory holds the details, and no record.
    pub(super) fn make(
        directory: PathBuf,
        id: AssignmentId,
        ready: &mut Ready,
    ) -> io::Result<Shim> {
        let lock = open_lock(&directory)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("a shim lives there already"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let log = options.open(directory.join(LOG))?;
        let Process { wire, child, .. } = loop {
            let process = ready.take(id)?;
            match enlist(process.wire.fd(), &directory, &lock, &log) {
                Ok(()) => break process,
                // It ended a moment ago; another one, then.
                Err(error) if process.stood_by => ready.lost(process, id, &error),
                Err(error) => return Err(error),
            }
        };
        Ok(Shim { wire: Some(wire), child: Some(child), ..Shim::new(directory) })
    }

    /// The shim of a directory that an earlier agent made.
    pub(super) fn found(directory: PathBuf) -> Shim {
        Shim { in_doubt: true, ..Shim::new(directory) }
    }

    /// A shim that never lived.
    pub(super) fn dead(directory: PathBuf) -> Shim {
        Shim { is_dead: true, ..Shim::new(directory) }
    }

    /// One that is yet to be made; it remembers what it is to be told.
    pub(super) fn waiting(directory: PathBuf) -> Shim {
        Shim::new(directory)
    }

    /// Takes over what the one before was to be told.
    pub(super) fn follow(&mut self, before: Option<Shim>) {
        let Some(before) = before else { return };
        (self.start, self.cut) = (before.start, before.cut);
        (self.stop, self.kill, self.saved) = (before.stop, before.kill, before.saved);
        self.repeat();
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The connection.
    pub(super) fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    /// Whether its process is gone: nobody holds the lock.
    pub(super) fn lock_is_free(&self) -> bool {
        match open_lock(&self.directory) {
            Ok(lock) => lock.try_lock().is_ok(),
            // Without its directory it has nothing to go on with.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Connects again; the shim tells its state first.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        let directory = File::open(&self.directory)?;
        let stream = UnixStream::connect(short_path(&directory, SOCKET))?;
        self.wire = Some(Wire::new(stream)?);
        self.in_doubt = false;
        self.repeat();
        Ok(())
    }

    /// What it says. The end of the connection puts it in doubt.
    pub(super) fn receive(&mut self) -> Vec<FromShim> {
        let Some(wire) = &mut self.wire else { return Vec::new() };
        let received: Result<Vec<FromShim>, WireError> = wire.flush().and_then(|()| wire.receive());
        received.unwrap_or_else(|_| {
            self.lose();
            Vec::new()
        })
    }

    fn lose(&mut self) {
        self.wire = None;
        self.in_doubt = true;
    }

    fn tell(&mut self, message: &ToShim) {
        if let Some(wire) = &mut self.wire
            && wire.send(message).is_err()
        {
            self.lose();
        }
    }

    pub(super) fn start(&mut self, len: u32) {
        self.start = Some(len);
        self.tell(&ToShim::Start(len));
    }

    pub(super) fn cut(&mut self, len: u32) {
        self.cut = Some(self.cut.map_or(len, |old| old.min(len)));
        self.tell(&ToShim::Cut(len));
    }

    pub(super) fn signal_stop(&mut self) {
        self.stop = true;
        self.tell(&ToShim::SignalStop);
    }

    pub(super) fn kill(&mut self) {
        self.kill = true;
        self.tell(&ToShim::Kill);
    }

    /// It uses more of the disk than it may. Told again for as long as that is so.
    pub(super) fn tell_full(&mut self) {
        self.tell(&ToShim::Full);
    }

    pub(super) fn tell_saved(&mut self, ended: u32) {
        if ended > self.saved {
            self.saved = ended;
            self.tell(&ToShim::Saved(ended));
        }
    }

    pub(super) fn tell_lease_moved(&mut self) {
        self.tell(&ToShim::LeaseMoved);
    }

    /// Lets it go. What is left of the process is still to be waited for.
    pub(super) fn leave(mut self) -> Option<Child> {
        self.tell(&ToShim::Leave);
        self.child
    }

    /// Tells again what may have been lost with a connection. All of it may be repeated.
    fn repeat(&mut self) {
        let orders = [
            self.start.map(ToShim::Start),
            self.cut.map(ToShim::Cut),
            self.stop.then_some(ToShim::SignalStop),
            self.kill.then_some(ToShim::Kill),
            (self.saved > 0).then_some(ToShim::Saved(self.saved)),
        ];
        for order in orders.into_iter().flatten() {
            self.tell(&order);
        }
    }

    /// Reaps the process if it has ended.
    pub(super) fn reap(&mut self) {
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(Some(_)))
        {
            self.child = None;
        }
    }
}

fn open_lock(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(LOCK))
}

/// Makes the directory of a shim: others may pass through, to the socket of the job.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path)
}
