//! The deadlines of the node's lease, in a small file that the agent writes and every shim reads.
//!
//! It is shared memory in effect: written in place with each renewal, never flushed, and good for
//! one boot only. A shim looks at it when the deadline that it knows has come, and before each
//! start, so a renewal costs one write however many shims there are. A new agent finds in it what
//! the shims count on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use yard_common::id::{BootId, LeaseId};
use yard_core::agent::Lease;

const LEN: usize = 64;
/// A reader that meets a writer tries again; a write takes microseconds.
const TRIES: usize = 1_000;

/// The file, opened by its writer or a reader.
#[derive(Debug)]
pub struct LeaseFile {
    file: File,
    boot: BootId,
}

impl LeaseFile {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create(path: &Path, boot: BootId) -> io::Result<LeaseFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(LeaseFile { file: options.open(path)?, boot })
    }

    /// The deadlines; none in a new boot, or before the first renewal.
    #[must_use]
    pub fn read(&self) -> Option<Lease> {
        for _ in 0..TRIES {
            let mut bytes = [0; LEN];
            match self.file.read_exact_at(&mut bytes, 0) {
                // Also of a file that is empty yet.
                Err(_) => return None,
                Ok(()) if is_whole(&bytes) => return self.decode(&bytes),
                Ok(()) => std::hint::spin_loop(),
            }
        }
        None
    }

    /// Writes deadlines down. Each moves forward only.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn advance(&self, new: Lease) -> io::Result<Lease> {
        let old = self.read().unwrap_or(Lease {
            id: new.id,
            strict_ms: 0,
            fenced_ms: 0,
            tolerant_ms: 0,
            maintenance_ms: 0,
        });
        let lease = Lease {
            id: new.id.max(old.id),
            strict_ms: new.strict_ms.max(old.strict_ms),
            fenced_ms: new.fenced_ms.max(old.fenced_ms),
            tolerant_ms: new.tolerant_ms.max(old.tolerant_ms),
            maintenance_ms: new.maintenance_ms.max(old.maintenance_ms),
        };
        let boot = self.boot.to_u128();
        let fields = [
            (boot >> 64) as u64,
            boot as u64,
            lease.id.0,
            lease.strict_ms,
            lease.fenced_ms,
            lease.tolerant_ms,
            lease.maintenance_ms,
        ];
        let mut bytes = [0; LEN];
        for (at, field) in fields.iter().enumerate() {
            bytes[at * 8..at * 8 + 8].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..LEN - 4]);
        bytes[LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all_at(&bytes, 0)?;
        Ok(lease)
    }

    fn decode(&self, bytes: &[u8; LEN]) -> Option<Lease> {
        let field = |at: usize| bytes[at * 8..at * 8 + 8].try_into().map_or(0, u64::from_le_bytes);
        let boot = u128::from(field(0)) << 64 | u128::from(field(1));
        (boot == self.boot.to_u128()).then(|| Lease {
            id: LeaseId(field(2)),
            strict_ms: field(3),
            fenced_ms: field(4),
            tolerant_ms: field(5),
            maintenance_ms: field(6),
        })
    }
}

fn is_whole(bytes: &[u8; LEN]) -> bool {
    let crc = crc32fast::hash(&bytes[..LEN - 4]);
    bytes[LEN - 4..] == crc.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_move_forward_and_end_with_the_boot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let boot = BootId::from_u128(7);
        let file = LeaseFile::create(&path, boot).unwrap();
        assert_eq!(file.read(), None);
        let lease = Lease {
            id: LeaseId(2),
            strict_ms: 3_000,
            fenced_ms: 60_000,
            tolerant_ms: 90_000,
            maintenance_ms: 0,
        };
        file.advance(lease).unwrap();
        let older = Lease { strict_ms: 2_000, fenced_ms: 61_000, ..lease };
        file.advance(older).unwrap();
        let reader = LeaseFile::create(&path, boot).unwrap();
        assert_eq!(reader.read(), Some(Lease { fenced_ms: 61_000, ..lease }));
        let after = LeaseFile::create(&path, BootId::from_u128(8)).unwrap();
        assert_eq!(after.read(), None);
    }
}
