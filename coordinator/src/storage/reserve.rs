//! Room on the disk that is kept for the log while the disk is full.
//!
//! A file of zeros, made while there is room, which becomes the next file of the log when there is
//! none. Nobody else can take it away meanwhile, as could happen with mere free space.

use super::StorageError;
use super::open::TEMPORARY;
use crate::env::Folder;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The file.
pub(super) const NAME: &str = "reserve";
/// Bytes that are written at a time.
const STEP: u64 = 1 << 20;

/// The room that is kept. Clones are the same one.
#[derive(Clone)]
pub struct Reserve {
    folder: Arc<dyn Folder>,
    /// Bytes of the file; 0: there is none.
    bytes: Arc<AtomicU64>,
    turn: Arc<Mutex<()>>,
}

impl Reserve {
    /// What is there, as of the opening of the folder.
    pub(super) fn open(
        folder: &Arc<dyn Folder>,
        names: &[String],
    ) -> Result<Reserve, StorageError> {
        let mut bytes = 0;
        if names.iter().any(|name| name == NAME) {
            let file = folder.open(NAME).map_err(StorageError::io("open", NAME))?;
            bytes = file.size().map_err(StorageError::io("read", NAME))?;
        }
        let (bytes, turn) = (Arc::new(AtomicU64::new(bytes)), Arc::default());
        Ok(Reserve { folder: Arc::clone(folder), bytes, turn })
    }

    /// Bytes that are kept; 0: nothing is, or it was used up.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Bytes that are free on the disk. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn free_bytes(&self) -> Result<u64, StorageError> {
        self.folder.free_bytes().map_err(StorageError::io("look at the room of", "the folder"))
    }

    /// Makes it, unless it is there. Blocks.
    ///
    /// # Errors
    /// Those of the file system. If the disk is full nothing was changed.
    pub fn make(&self, bytes: u64) -> Result<(), StorageError> {
        let _one = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bytes() > 0 {
            return Ok(());
        }
        let temporary = format!("{NAME}{TEMPORARY}");
        let made = self.write(&temporary, bytes);
        if made.is_err() {
            // Half of it is of no use, and takes room that somebody may need.
            let _ = self.folder.remove(&temporary);
        }
        made?;
        self.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    fn write(&self, temporary: &str, bytes: u64) -> Result<(), StorageError> {
        let file = self.folder.create(temporary).map_err(StorageError::io("create", temporary))?;
        let zeros = vec![0; usize::try_from(STEP.min(bytes)).unwrap_or_default()];
        let mut at = 0;
        while at < bytes {
            let len = usize::try_from(STEP.min(bytes - at)).unwrap_or_default();
            let written = file.write_at(at, &zeros[..len]);
            written.map_err(StorageError::io("write", temporary))?;
            at += len as u64;
        }
        file.sync().map_err(StorageError::io("sync", temporary))?;
        self.folder.rename(temporary, NAME).map_err(StorageError::io("rename", temporary))?;
        self.folder.sync().map_err(StorageError::io("sync the folder of", NAME))
    }

    /// Held while the file is made, or made use of: a new one must not take the name of one that
    /// is about to be renamed.
    pub(super) fn turn(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// Takes it, to be renamed, in one's turn. Its bytes; none if there is none.
    pub(super) fn take(&self) -> Option<u64> {
        Some(self.bytes.swap(0, Ordering::AcqRel)).filter(|bytes| *bytes > 0)
    }
}
