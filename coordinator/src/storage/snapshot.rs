//! Snapshots: a whole state in one file, in chunks that are checked one by one.
//!
//! The first frame says what it stands for, the last one that it is complete. A file gets its name
//! when it is durable and taken for the state, so one that has its name is whole, or damaged. A
//! file that never gets there is removed when nobody holds it any more.

use super::StorageError;
use super::frame::{self, OVERHEAD};
use super::open::TEMPORARY;
use super::record::{
    FORMAT, Identity, Position, SnapshotEnd, SnapshotHead, SnapshotMeta, to_bytes,
};
use super::segment::check_head;
use crate::env::{Env, File, Folder};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use yard_common::id::{LeaderId, LogIndex, MemberId};
use yard_common::limits::SNAPSHOT_CHUNK_BYTES;

/// The snapshots of a member.
#[derive(Clone)]
pub struct Snapshots {
    env: Arc<dyn Env>,
    folder: Arc<dyn Folder>,
    identity: Identity,
    found: Option<Snapshot>,
    /// Numbers temporary files.
    next: Arc<AtomicU64>,
}

/// A snapshot that is complete. Clones are the same file.
#[derive(Clone)]
pub struct Snapshot {
    file: Arc<dyn File>,
    name: Arc<str>,
    meta: Arc<SnapshotMeta>,
    /// Where the first chunk begins.
    begin: u64,
    bytes: u64,
    /// The name that it was written under.
    written: Option<Arc<Temporary>>,
}

/// A file that has no name of its own yet.
struct Temporary {
    folder: Arc<dyn Folder>,
    name: String,
    adopted: AtomicBool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.adopted.load(Ordering::Acquire) {
            // What stays behind is removed when the folder is opened.
            let _ = self.folder.remove(&self.name);
        }
    }
}

/// A snapshot that is being written.
pub struct SnapshotWriter {
    file: Arc<dyn File>,
    temporary: Arc<Temporary>,
    meta: SnapshotMeta,
    crc: u32,
    begin: u64,
    at: u64,
    bytes: u64,
    chunk: Vec<u8>,
}

/// Writes a file as a whole: frames with these bodies and zeros up to the length, flushed before
/// it gets its name.
pub(super) fn write_whole(
    folder: &dyn Folder,
    name: &str,
    bodies: &[&[u8]],
    length: usize,
) -> Result<(), StorageError> {
    let temporary = format!("{name}{TEMPORARY}");
    let file = folder.create(&temporary).map_err(StorageError::io("create", &temporary))?;
    let (mut buffer, mut crc) = (Vec::new(), 0);
    for body in bodies {
        let at = frame::begin(&mut buffer);
        buffer.extend_from_slice(body);
        crc = frame::finish(&mut buffer, at, crc);
    }
    buffer.resize(buffer.len().max(length), 0);
    if let Err(error) = file.write_at(0, &buffer).map_err(StorageError::io("write", &temporary)) {
        // Whatever comes of it: half a file is of no use, and the next try needs its name.
        let _ = folder.remove(&temporary);
        return Err(error);
    }
    file.sync().map_err(StorageError::io("sync", &temporary))?;
    folder.rename(&temporary, name).map_err(StorageError::io("rename", &temporary))?;
    folder.sync().map_err(StorageError::io("sync the folder of", name))
}

fn name_of(position: Position) -> String {
    let LeaderId { term, member } = position.leader;
    format!("snapshot-{:020}-{term}-{member}", position.index.0)
}

fn position_of(name: &str) -> Option<Position> {
    let mut parts = name.strip_prefix("snapshot-")?.splitn(3, '-');
    let mut number = || parts.next()?.parse().ok();
    let (index, term, member) = (LogIndex(number()?), number()?, MemberId(number()?));
    Some(Position { leader: LeaderId { term, member }, index })
}

impl Snapshots {
    pub(super) fn open(
        env: &Arc<dyn Env>,
        folder: &Arc<dyn Folder>,
        identity: Identity,
        names: &[String],
    ) -> Result<Snapshots, StorageError> {
        let (env, folder) = (Arc::clone(env), Arc::clone(folder));
        let mut snapshots = Snapshots { env, folder, identity, found: None, next: Arc::default() };
        let latest = names.iter().max_by_key(|name| position_of(name).map(|p| p.index));
        if let Some(name) = latest.filter(|name| position_of(name).is_some()) {
            snapshots.found = Some(snapshots.read_head(name)?);
        }
        Ok(snapshots)
    }

    /// The environment that blocking calls belong into.
    #[must_use]
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }

    /// The latest snapshot as of the opening of the folder.
    #[must_use]
    pub fn found(&self) -> Option<&Snapshot> {
        self.found.as_ref()
    }

    fn read_head(&self, name: &str) -> Result<Snapshot, StorageError> {
        let damaged = |what| StorageError::Damaged { file: name.into(), offset: 0, what };
        let file = self.folder.open(name).map_err(StorageError::io("open", name))?;
        let bytes = file.read_all().map_err(StorageError::io("read", name))?;
        let scan = frame::scan(name, &bytes, Some(0))?;
        let [head, .., end] = &scan.bodies[..] else {
            return Err(damaged("it is cut off"));
        };
        let (begin, chunks) = (head.end as u64 + 1, &scan.bodies[1..scan.bodies.len() - 1]);
        let unknown = |_| damaged("it has a form that is not known");
        let head: SnapshotHead = minicbor::decode(&bytes[head.clone()]).map_err(unknown)?;
        check_head(name, head.format, &head.identity, &self.identity)?;
        let end: SnapshotEnd =
            minicbor::decode(&bytes[end.clone()]).map_err(|_| damaged("it is cut off"))?;
        let len: usize = chunks.iter().map(ExactSizeIterator::len).sum();
        if scan.torn || len as u64 != end.bytes || name_of(head.meta.last) != name {
            return Err(damaged("it is not what its name and its end say"));
        }
        let (name, meta) = (name.into(), Arc::new(head.meta));
        Ok(Snapshot { file, name, meta, begin, bytes: end.bytes, written: None })
    }

    /// Begins a snapshot. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(&self, meta: SnapshotMeta) -> Result<SnapshotWriter, StorageError> {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("snapshot-{nth}{TEMPORARY}");
        let file = self.folder.create(&name).map_err(StorageError::io("create", &name))?;
        let (folder, adopted) = (Arc::clone(&self.folder), AtomicBool::new(false));
        let temporary = Arc::new(Temporary { folder, name, adopted });
        let head = SnapshotHead { format: FORMAT, identity: self.identity, meta: meta.clone() };
        let (crc, begin, at, bytes, chunk) = (0, 0, 0, 0, to_bytes(&head));
        let mut writer = SnapshotWriter { file, temporary, meta, crc, begin, at, bytes, chunk };
        writer.write_frame()?;
        writer.begin = writer.at;
        Ok(writer)
    }

    /// Gives a snapshot that was written its name. It is found again from here on. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn adopt(&self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let Some(temporary) = &snapshot.written else { return Ok(()) };
        if temporary.adopted.load(Ordering::Acquire) {
            return Ok(());
        }
        let renamed = self.folder.rename(&temporary.name, &snapshot.name);
        renamed.map_err(StorageError::io("rename", &temporary.name))?;
        temporary.adopted.store(true, Ordering::Release);
        self.folder.sync().map_err(StorageError::io("sync the folder of", &snapshot.name))
    }

    /// Removes all snapshots but this one, which must be durable. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep_only(&self, kept: &Snapshot) -> Result<(), StorageError> {
        let names = self.folder.list().map_err(StorageError::io("list", "the folder"))?;
        for name in names.iter().filter(|name| position_of(name).is_some()) {
            if **name != *kept.name {
                self.folder.remove(name).map_err(StorageError::io("remove", name))?;
            }
        }
        Ok(())
    }
}

impl SnapshotWriter {
    fn write_frame(&mut self) -> Result<(), StorageError> {
        let mut buffer = Vec::with_capacity(self.chunk.len() + OVERHEAD);
        let at = frame::begin(&mut buffer);
        buffer.append(&mut self.chunk);
        self.crc = frame::finish(&mut buffer, at, self.crc);
        let written = self.file.write_at(self.at, &buffer);
        written.map_err(StorageError::io("write", &self.temporary.name))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// Adds bytes of the state. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = SNAPSHOT_CHUNK_BYTES - self.chunk.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == SNAPSHOT_CHUNK_BYTES {
                self.write_frame()?;
            }
        }
        Ok(())
    }

    /// Completes the snapshot. Its bytes are durable when this returns; it has no name yet. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self) -> Result<Snapshot, StorageError> {
        if !self.chunk.is_empty() {
            self.write_frame()?;
        }
        self.chunk = to_bytes(&SnapshotEnd { bytes: self.bytes });
        self.write_frame()?;
        self.file.sync().map_err(StorageError::io("sync", &self.temporary.name))?;
        let name = name_of(self.meta.last).as_str().into();
        let (file, meta, written) = (self.file, Arc::new(self.meta), Some(self.temporary));
        Ok(Snapshot { file, name, meta, begin: self.begin, bytes: self.bytes, written })
    }
}

impl minicbor::encode::Write for SnapshotWriter {
    type Error = StorageError;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.write(bytes)
    }
}

impl Snapshot {
    /// What it stands for.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Bytes of the state.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many chunks it has.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(SNAPSHOT_CHUNK_BYTES as u64)
    }

    /// The bytes of one chunk, checked. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read or holds something else.
    pub fn chunk(&self, nth: u64) -> Result<Vec<u8>, StorageError> {
        let whole = SNAPSHOT_CHUNK_BYTES as u64;
        let len = whole.min(self.bytes - (nth * whole).min(self.bytes));
        let offset = self.begin + nth * (whole + OVERHEAD as u64);
        let damaged = |what| StorageError::Damaged { file: self.name.to_string(), offset, what };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0) + OVERHEAD];
        let read = self.file.read_at(offset, &mut bytes);
        read.map_err(StorageError::io("read", &self.name))?;
        let scan = frame::scan(&self.name, &bytes, None)?;
        match &scan.bodies[..] {
            [body] if body.len() as u64 == len => Ok(bytes[body.clone()].to_vec()),
            _ => Err(damaged("a chunk is not what was written")),
        }
    }

    /// All bytes of the state, checked. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read or holds something else.
    pub fn read(&self) -> Result<Vec<u8>, StorageError> {
        let mut bytes = Vec::new();
        for nth in 0..self.chunks() {
            bytes.extend_from_slice(&self.chunk(nth)?);
        }
        Ok(bytes)
    }
}
