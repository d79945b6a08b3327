//! What an agent knows of itself, in small files that outlast a crash.
//!
//! ```text
//! identity/        0700
//!   ca.pem         whom it believes
//!   identity.pem   its certificate and key, 0600
//!   join           the request that it joins with, until it has joined
//!   node           who it is; written last of all: with it the machine has joined
//!   members        where the members are
//!   lease          which lease it renews
//!   inventory      what it told of the machine last
//!   setup          what the pool wants of the machine, and what of it was done
//!   begun          the automaton has a memory: a start without it would be a lie
//!   away           it asked to be left alone for a while
//! ```
//!
//! **Invariants:** a file is whole or not there. The request is on disk before it is sent, so that
//! a retry finds the same node.

use crate::setup::SetupFile;
use minicbor::{Decode, Encode};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use yard_common::id::{ClusterId, Generation, Incarnation, LeaseId, NodeId, RequestId, TokenId};
use yard_common::limits::SMALL_PAYLOAD_BYTES_MAX;
use yard_core::agent::Fence;
use yard_core::command::Inventory;
use yard_runtime::files::{self, FileError};

/// Who the machine is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NodeFile {
    /// The cluster.
    #[n(0)]
    pub(crate) cluster: ClusterId,
    /// Its number.
    #[n(1)]
    pub(crate) node: NodeId,
    /// Its name.
    #[n(2)]
    pub(crate) name: String,
    /// The lease that it got when it joined.
    #[n(3)]
    pub(crate) lease: LeaseId,
    /// The life of the cluster in which it joined.
    #[n(4)]
    pub(crate) incarnation: Incarnation,
    /// The desired set that it began with, which was empty.
    #[n(5)]
    pub(crate) generation: Generation,
    /// What its lease is counted on for.
    #[n(6)]
    pub(crate) lease_ms: u64,
    /// The token that it joined with.
    #[n(7)]
    pub(crate) token: TokenId,
    /// Where it asked to join: tried when no member is where it was.
    #[n(8)]
    pub(crate) addresses: Vec<String>,
}

impl NodeFile {
    /// Where an agent without memory begins.
    pub(crate) fn fence(&self) -> Fence {
        Fence { incarnation: self.incarnation, generation: self.generation }
    }
}

/// The request to join, kept so that a retry asks for the very same.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct JoinFile {
    #[n(0)]
    pub(crate) token: TokenId,
    #[n(1)]
    pub(crate) request: RequestId,
    #[n(2)]
    pub(crate) name: String,
    #[n(3)]
    pub(crate) inventory: Inventory,
}

/// Where the members are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MembersFile {
    /// The log position of the list.
    #[n(0)]
    pub(crate) index: u64,
    /// Member and `host:port`.
    #[n(1)]
    pub(crate) members: Vec<(u64, String)>,
}

/// Which lease the node renews. Written before the set that brings a new one is obeyed; which of
/// the two counts after a crash is told by the fence that was obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LeaseFile {
    /// The set that brings it.
    #[n(0)]
    pub(crate) fence: Fence,
    /// The lease from that set on.
    #[n(1)]
    pub(crate) lease: LeaseId,
    /// The lease before.
    #[n(2)]
    pub(crate) before: LeaseId,
}

impl LeaseFile {
    /// The lease of a node that obeys this set.
    pub(crate) fn lease_at(&self, obeyed: Fence) -> LeaseId {
        if obeyed >= self.fence { self.lease } else { self.before }
    }
}

/// What went wrong with a file of the agent's own.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// It cannot be read or written.
    #[error("a file of the agent failed")]
    File(#[from] FileError),
    /// The directory cannot be made.
    #[error("{path}: cannot make the directory")]
    Make {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It cannot be removed.
    #[error("{path}: cannot remove the file")]
    Remove {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Certificate or key cannot be kept.
    #[error("the identity failed")]
    Identity(#[from] yard_runtime::identity::IdentityError),
    /// Its bytes are not those that were written.
    #[error("{} is damaged; move the agent's directory away and join the node anew", .0.display())]
    Damaged(PathBuf),
}

/// The files.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// The files of the agent with this directory.
    pub(crate) fn new(root: &Path) -> Memory {
        Memory { folder: root.join("identity") }
    }

    /// The same, with their folder made if need be.
    pub(crate) fn create(root: &Path) -> Result<Memory, MemoryError> {
        // Ranks pass through the directory of the agent on their way to their own.
        let made = DirBuilder::new().recursive(true).mode(0o711).create(root);
        made.map_err(|source| MemoryError::Make { path: root.into(), source })?;
        let memory = Memory::new(root);
        files::private_folder(&memory.folder)?;
        Ok(memory)
    }

    /// The folder, which holds certificate and key too.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn node(&self) -> Result<Option<NodeFile>, MemoryError> {
        self.read("node")
    }

    pub(crate) fn save_node(&self, node: &NodeFile) -> Result<(), MemoryError> {
        self.write("node", node)
    }

    pub(crate) fn join(&self) -> Result<Option<JoinFile>, MemoryError> {
        self.read("join")
    }

    pub(crate) fn save_join(&self, join: &JoinFile) -> Result<(), MemoryError> {
        self.write("join", join)
    }

    pub(crate) fn remove_join(&self) -> Result<(), MemoryError> {
        self.remove("join")
    }

    pub(crate) fn members(&self) -> Result<Option<MembersFile>, MemoryError> {
        self.read("members")
    }

    pub(crate) fn save_members(&self, members: &MembersFile) -> Result<(), MemoryError> {
        self.write("members", members)
    }

    pub(crate) fn lease(&self) -> Result<Option<LeaseFile>, MemoryError> {
        self.read("lease")
    }

    pub(crate) fn save_lease(&self, lease: &LeaseFile) -> Result<(), MemoryError> {
        self.write("lease", lease)
    }

    pub(crate) fn inventory(&self) -> Result<Option<Inventory>, MemoryError> {
        self.read("inventory")
    }

    pub(crate) fn save_inventory(&self, inventory: &Inventory) -> Result<(), MemoryError> {
        self.write("inventory", inventory)
    }

    /// The last check of itself that the node was asked for.
    pub(crate) fn asked(&self) -> Result<u32, MemoryError> {
        Ok(self.read("check")?.unwrap_or(0))
    }

    pub(crate) fn save_asked(&self, check: u32) -> Result<(), MemoryError> {
        self.write("check", &check)
    }

    /// What the pool wants of the machine, and what of it was done.
    pub(crate) fn setup(&self) -> Result<SetupFile, MemoryError> {
        Ok(self.read("setup")?.unwrap_or_default())
    }

    pub(crate) fn save_setup(&self, setup: &SetupFile) -> Result<(), MemoryError> {
        self.write("setup", setup)
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.folder.join("begun").exists()
    }

    pub(crate) fn save_begun(&self) -> Result<(), MemoryError> {
        Ok(files::write_durably(&self.folder.join("begun"), b"", files::PRIVATE)?)
    }

    pub(crate) fn is_away(&self) -> bool {
        self.folder.join("away").exists()
    }

    pub(crate) fn save_away(&self) -> Result<(), MemoryError> {
        Ok(files::write_durably(&self.folder.join("away"), b"", files::PRIVATE)?)
    }

    pub(crate) fn remove_away(&self) -> Result<(), MemoryError> {
        self.remove("away")
    }

    fn read<T: for<'b> Decode<'b, ()>>(&self, name: &str) -> Result<Option<T>, MemoryError> {
        let path = self.folder.join(name);
        let bytes = match files::read(&path, SMALL_PAYLOAD_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(FileError::Open(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let Some((crc, body)) = bytes.split_first_chunk::<4>() else {
            return Err(MemoryError::Damaged(path));
        };
        if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
            return Err(MemoryError::Damaged(path));
        }
        minicbor::decode(body).map(Some).map_err(|_| MemoryError::Damaged(path))
    }

    fn write<T: Encode<()>>(&self, name: &str, value: &T) -> Result<(), MemoryError> {
        let body = minicbor::to_vec(value).expect("a value is encoded into memory");
        let mut bytes = crc32fast::hash(&body).to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        Ok(files::write_durably(&self.folder.join(name), &bytes, files::PRIVATE)?)
    }

    fn remove(&self, name: &str) -> Result<(), MemoryError> {
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(files::flush_folder(&self.folder)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(MemoryError::Remove { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(generation: u64) -> Fence {
        Fence { incarnation: Incarnation(1), generation: Generation(generation) }
    }

    #[test]
    fn a_file_is_read_back_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::create(&directory.path().join("agent")).unwrap();
        assert_eq!(memory.members().unwrap(), None);
        let members = MembersFile { index: 7, members: vec![(3, "a:1".into())] };
        memory.save_members(&members).unwrap();
        assert_eq!(memory.members().unwrap(), Some(members));
        let path = memory.folder().join("members");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(memory.members(), Err(MemoryError::Damaged(_))));
        memory.remove_join().unwrap();
    }

    #[test]
    fn a_new_lease_counts_once_its_set_is_obeyed() {
        let file = LeaseFile { fence: fence(5), lease: LeaseId(3), before: LeaseId(2) };
        assert_eq!(file.lease_at(fence(4)), LeaseId(2));
        assert_eq!(file.lease_at(fence(5)), LeaseId(3));
        assert_eq!(file.lease_at(fence(9)), LeaseId(3));
    }
}
