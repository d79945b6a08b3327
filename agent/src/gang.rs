//! How the shims of a gang reach each other.
//!
//! A shim asks for a stream to another node of its gang, and hears the streams of others.
//! [`LocalGang`] serves gangs whose nodes are all on one machine, as those of `yard dev`: sockets
//! in a directory that all of their agents share, which only root and the agent's own user may use.
//! Between machines, the agents will carry the streams over mTLS, with a ticket per attempt.

use crate::wire::short_path;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use yard_common::id::AllocationId;

/// All nodes of the gang are on this machine.
#[derive(Clone, Debug)]
pub struct LocalGang {
    directory: PathBuf,
    allocation: AllocationId,
}

impl LocalGang {
    /// The gang of an allocation; agents that share the directory share the gang.
    #[must_use]
    pub fn new(directory: PathBuf, allocation: AllocationId) -> LocalGang {
        LocalGang { directory, allocation }
    }

    fn open(&self) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        File::open(&self.directory)
    }

    fn name(&self, node_rank: u32) -> String {
        format!("{}.{node_rank}", self.allocation)
    }

    /// A stream to the shim of another node.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn dial(&self, node_rank: u32) -> io::Result<UnixStream> {
        UnixStream::connect(short_path(&self.open()?, &self.name(node_rank)))
    }

    /// Where streams of other nodes to this one arrive.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn listen(&self, node_rank: u32) -> io::Result<UnixListener> {
        let directory = self.open()?;
        let name = self.name(node_rank);
        let _ = std::fs::remove_file(self.directory.join(&name));
        let listener = UnixListener::bind(short_path(&directory, &name))?;
        std::fs::set_permissions(self.directory.join(&name), Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Nothing arrives any more.
    pub fn close(&self, node_rank: u32) {
        let _ = std::fs::remove_file(self.directory.join(self.name(node_rank)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn nodes_of_a_gang_reach_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("x".repeat(120)).join("gang");
        let gang = LocalGang::new(deep.clone(), AllocationId(7));
        let listener = gang.listen(1).unwrap();
        assert!(gang.dial(0).is_err());
        assert!(LocalGang::new(deep, AllocationId(8)).dial(1).is_err());
        gang.dial(1).unwrap().write_all(b"hello").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        gang.close(1);
        assert!(gang.dial(1).is_err());
    }
}
