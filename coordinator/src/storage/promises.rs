//! Promises about leases, durable before they are made.

use super::StorageError;
use super::frame;
use super::record::{FORMAT, Identity, PromisesHead, to_bytes};
use super::segment::{check_head, mend};
use super::snapshot::write_whole;
use crate::env::{Env, File, Folder, run_blocking};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use yard_common::id::{LeaseId, NodeId};
use yard_common::limits::PROMISES_ROOM_BYTES;
use yard_core::lease::PromiseRecord;

/// The file.
pub(super) const NAME: &str = "promises";

/// The promises of a member. Clones are the same file.
#[derive(Clone)]
pub struct Promises {
    env: Arc<dyn Env>,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    folder: Arc<dyn Folder>,
    identity: Identity,
    file: Arc<dyn File>,
    /// The length of the file; where the next frame goes, and what it continues.
    length: u64,
    end: u64,
    crc: u32,
    latest: BTreeMap<NodeId, LeaseId>,
    failed: Option<StorageError>,
}

/// Writes the file anew.
pub(super) fn create(
    folder: &dyn Folder,
    identity: &Identity,
    records: &[PromiseRecord],
) -> Result<(), StorageError> {
    let records = to_bytes(&records);
    // A file that ends early was cut, since it is as long as this from the beginning.
    let length = records.len() as u64 + PROMISES_ROOM_BYTES;
    let head = to_bytes(&PromisesHead { format: FORMAT, identity: *identity, length });
    write_whole(folder, NAME, &[&head, &records], usize::try_from(length).unwrap_or_default())
}

impl Kept {
    fn load(folder: &Arc<dyn Folder>, identity: Identity) -> Result<Kept, StorageError> {
        let file = folder.open(NAME).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StorageError::Missing { file: NAME.into() },
            _ => StorageError::io("open", NAME)(error),
        })?;
        let bytes = file.read_all().map_err(StorageError::io("read", NAME))?;
        let scan = frame::scan(NAME, &bytes, Some(0))?;
        let damaged = |what| StorageError::Damaged { file: NAME.into(), offset: 0, what };
        let unknown = |_| damaged("it has a form that is not known");
        let (head, rest) = scan.bodies.split_first().ok_or_else(|| damaged("it is cut off"))?;
        let head: PromisesHead = minicbor::decode(&bytes[head.clone()]).map_err(unknown)?;
        check_head(NAME, head.format, &head.identity, &identity)?;
        if rest.is_empty() {
            return Err(damaged("it is cut off"));
        }
        if (bytes.len() as u64) < head.length {
            return Err(damaged("the file is shorter than it was"));
        }
        if scan.torn {
            mend(&*file, NAME, &bytes, &scan)?;
        }
        // What a killed process left behind may be in memory only.
        file.sync().map_err(StorageError::io("sync", NAME))?;
        let (folder, length) = (Arc::clone(folder), head.length);
        let (end, crc) = (scan.end as u64, scan.crc);
        let latest = BTreeMap::new();
        let failed = None;
        let mut kept = Kept { folder, identity, file, length, end, crc, latest, failed };
        for body in rest {
            let records: Vec<PromiseRecord> =
                minicbor::decode(&bytes[body.clone()]).map_err(unknown)?;
            kept.note(&records);
        }
        Ok(kept)
    }

    fn note(&mut self, records: &[PromiseRecord]) {
        for record in records {
            let latest = self.latest.entry(record.node).or_insert(record.lease);
            *latest = record.lease.max(*latest);
        }
    }

    fn records(&self) -> Vec<PromiseRecord> {
        let record =
            |(node, lease): (&NodeId, &LeaseId)| PromiseRecord { node: *node, lease: *lease };
        self.latest.iter().map(record).collect()
    }

    fn persist(&mut self, records: &[PromiseRecord]) -> Result<(), StorageError> {
        let mut buffer = Vec::new();
        let at = frame::begin(&mut buffer);
        buffer.extend_from_slice(&to_bytes(&records));
        let crc = frame::finish(&mut buffer, at, self.crc);
        if self.end + buffer.len() as u64 > self.length {
            self.note(records);
            create(&*self.folder, &self.identity, &self.records())?;
            *self = Kept::load(&self.folder, self.identity)?;
            return Ok(());
        }
        self.file.write_at(self.end, &buffer).map_err(StorageError::io("write", NAME))?;
        self.file.sync().map_err(StorageError::io("sync", NAME))?;
        (self.end, self.crc) = (self.end + buffer.len() as u64, crc);
        self.note(records);
        Ok(())
    }
}

impl Promises {
    pub(super) fn open(
        env: &Arc<dyn Env>,
        folder: &Arc<dyn Folder>,
        identity: Identity,
    ) -> Result<Promises, StorageError> {
        let kept = Arc::new(Mutex::new(Kept::load(folder, identity)?));
        Ok(Promises { env: Arc::clone(env), kept })
    }

    /// All promises: what `Keeper::restore` wants.
    #[must_use]
    pub fn all(&self) -> Vec<PromiseRecord> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).records()
    }

    /// Makes promises durable. They are when this returns; all of them share one flush.
    ///
    /// # Errors
    /// If they cannot be made durable. None of them may be made then, and the process must end,
    /// unless it is only that the disk is full.
    pub async fn persist(&self, records: Vec<PromiseRecord>) -> Result<(), StorageError> {
        let kept = Arc::clone(&self.kept);
        let write = move || {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = &kept.failed {
                return Err(error.clone());
            }
            let outcome = kept.persist(&records);
            // On a full disk nothing was begun; there may be room later.
            kept.failed = outcome.as_ref().err().filter(|error| !error.is_full()).cloned();
            outcome
        };
        run_blocking(&*self.env, write).await
    }
}
