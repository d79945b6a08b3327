//! What is remembered of attempts, on disk: a member that starts anew still knows where they ran,
//! and so whom to ask for their output.
//!
//! One file of records, of which the last of an allocation counts. It is derived, in no backup, and
//! never flushed: what a loss of power takes of it is what the member would have forgotten anyway.
//!
//! **Invariants.** It never takes room that the log needs. What goes wrong with it ends nothing;
//! it is then written anew with the next change.

use super::Member;
use super::attempts::{Kept, Noted};
use crate::env::{Env, File, Folder, run_blocking};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use yard_common::id::AllocationId;
use yard_common::limits::{ATTEMPTS_BOOK_BYTES_MAX, ATTEMPTS_SPARED_BYTES};

/// How often changes are written down. What comes and goes within it is written once.
const PAUSE: Duration = Duration::from_secs(1);
/// The file, and what it is called until it is whole.
const NAMES: [&str; 2] = ["attempts.book", "attempts.new"];
/// Begins the file; the last digit is the version of its form.
const MAGIC: [u8; 8] = *b"ydbook01";
/// The length and the checksum of a record.
const HEAD_BYTES: usize = 8;
/// A file of this size is worth the work to write it anew.
const WORTH_BYTES: u64 = 4 << 20;

/// The file.
pub(crate) struct Notebook {
    path: PathBuf,
    env: Arc<dyn Env>,
    /// None: it is written anew with the next change.
    open: Option<Open>,
}

struct Open {
    folder: Arc<dyn Folder>,
    file: Arc<dyn File>,
    len: u64,
    /// The length at which it is written anew.
    anew_at: u64,
}

impl Notebook {
    /// That of a folder, which is made when it is needed, and what is written in it.
    pub(crate) fn open(path: PathBuf, env: Arc<dyn Env>) -> (Notebook, Vec<Noted>) {
        let mut notebook = Notebook { path, env, open: None };
        let noted = notebook.read().unwrap_or_else(|error| {
            tracing::warn!(%error, "what was remembered of attempts cannot be read");
            Vec::new()
        });
        (notebook, noted)
    }

    fn read(&mut self) -> io::Result<Vec<Noted>> {
        let folder = self.env.folder(&self.path)?;
        let file = match folder.open(NAMES[0]) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if file.size()? > ATTEMPTS_BOOK_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let bytes = file.read_all()?;
        let (noted, len) = records(&bytes);
        // Behind something that is damaged, nothing new would be found.
        if len == bytes.len() {
            let len = len as u64;
            self.open = Some(Open { folder, file, len, anew_at: anew_at(len / 2) });
        }
        Ok(noted.into_iter().collect())
    }

    /// Writes changes down; `all` gives everything, if it has to be written anew.
    ///
    /// # Errors
    /// Those of the file system; `StorageFull` if too little would be left.
    fn note(&mut self, changed: &[Noted], all: impl FnOnce() -> Vec<Noted>) -> io::Result<()> {
        let done = match &mut self.open {
            Some(open) if open.len < open.anew_at => open.append(changed),
            Some(_) | None => self.write_anew(&all()),
        };
        if done.is_err() {
            self.open = None;
        }
        done
    }

    fn write_anew(&mut self, all: &[Noted]) -> io::Result<()> {
        let folder = self.env.folder(&self.path)?;
        has_room(&*folder)?;
        let mut parts = Vec::new();
        let mut len = MAGIC.len();
        // The latest matter most.
        for noted in all.iter().rev() {
            let record = record(noted)?;
            if (len + record.len()) as u64 > ATTEMPTS_BOOK_BYTES_MAX / 2 {
                break;
            }
            len += record.len();
            parts.push(record);
        }
        let mut bytes = MAGIC.to_vec();
        parts.iter().rev().for_each(|record| bytes.extend_from_slice(record));
        match folder.remove(NAMES[1]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = folder.create(NAMES[1])?;
        file.write_at(0, &bytes)?;
        folder.rename(NAMES[1], NAMES[0])?;
        let len = bytes.len() as u64;
        self.open = Some(Open { folder, file, len, anew_at: anew_at(len) });
        Ok(())
    }
}

impl Open {
    fn append(&mut self, changed: &[Noted]) -> io::Result<()> {
        has_room(&*self.folder)?;
        let mut bytes = Vec::new();
        for noted in changed {
            bytes.extend_from_slice(&record(noted)?);
        }
        self.file.write_at(self.len, &bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

/// When a file that is so long at first is written anew.
fn anew_at(len: u64) -> u64 {
    WORTH_BYTES.max(2 * len)
}

fn has_room(folder: &dyn Folder) -> io::Result<()> {
    match folder.free_bytes()? < ATTEMPTS_SPARED_BYTES {
        true => Err(io::ErrorKind::StorageFull.into()),
        false => Ok(()),
    }
}

fn record(noted: &Noted) -> io::Result<Vec<u8>> {
    let body = minicbor::to_vec(noted).map_err(io::Error::other)?;
    let len = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut record = len.to_le_bytes().to_vec();
    record.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    record.extend_from_slice(&body);
    Ok(record)
}

/// What is written, and where the last good record ends.
fn records(bytes: &[u8]) -> (BTreeMap<AllocationId, Kept>, usize) {
    let mut noted = BTreeMap::new();
    if !bytes.starts_with(&MAGIC) {
        return (noted, 0);
    }
    let mut at = MAGIC.len();
    while let Some((id, kept, end)) = next(bytes, at) {
        noted.insert(id, kept);
        at = end;
    }
    (noted, at)
}

fn next(bytes: &[u8], at: usize) -> Option<(AllocationId, Kept, usize)> {
    let head = bytes.get(at..at.checked_add(HEAD_BYTES)?)?;
    let (len, sum) = head.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let begin = at + HEAD_BYTES;
    let end = begin.checked_add(len)?;
    let body = bytes.get(begin..end)?;
    if crc32fast::hash(body).to_le_bytes()[..] != *sum {
        return None;
    }
    let (id, kept) = minicbor::decode(body).ok()?;
    Some((id, kept, end))
}

/// Writes down what changes, until it is stopped.
pub(crate) async fn run(member: Arc<Member>, mut notebook: Notebook, stop: CancellationToken) {
    loop {
        let is_last = tokio::select! {
            () = stop.cancelled() => true,
            () = sleep(PAUSE) => false,
        };
        let changed = member.attempts.changed();
        if !changed.is_empty() {
            let remembers = Arc::clone(&member);
            let work = move || {
                let done = notebook.note(&changed, || remembers.attempts.all());
                Ok::<_, io::Error>((notebook, done))
            };
            let Ok((back, done)) = run_blocking(&*member.env, work).await else { return };
            notebook = back;
            if let Err(error) = done {
                tracing::debug!(%error, "what is remembered of attempts is not written down");
            }
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{MemoryDisk, TestEnv};
    use yard_common::id::{JobId, NodeId};
    use yard_core::command::Stamp;

    fn noted(id: u64, job: u64) -> Noted {
        let kept = Kept {
            job: JobId(job),
            links: Vec::new(),
            shares: vec![(NodeId(4), 0)],
            granted: Stamp { cluster_ms: 5, wall_ms: 6 },
            starts: Vec::new(),
            ends: Vec::new(),
            faults: Vec::new(),
        };
        (AllocationId(id), kept)
    }

    fn open(disk: &MemoryDisk) -> (Notebook, Vec<Noted>) {
        let env: Arc<dyn Env> = Arc::new(TestEnv::new(disk.clone(), 1, 1_000_000));
        Notebook::open(PathBuf::from("/attempts"), env)
    }

    fn never() -> Vec<Noted> {
        panic!("it is not written anew")
    }

    #[test]
    fn the_last_word_on_an_allocation_is_read() {
        let disk = MemoryDisk::default();
        let (mut notebook, none) = open(&disk);
        assert_eq!(none, []);
        notebook.note(&[noted(1, 8)], || vec![noted(1, 8)]).unwrap();
        notebook.note(&[noted(2, 8), noted(1, 9)], never).unwrap();
        assert_eq!(open(&disk).1, [noted(1, 9), noted(2, 8)]);
        // Whoever starts anew goes on behind it.
        let (mut notebook, _) = open(&disk);
        notebook.note(&[noted(3, 9)], never).unwrap();
        assert_eq!(open(&disk).1, [noted(1, 9), noted(2, 8), noted(3, 9)]);
    }

    #[test]
    fn behind_damage_nothing_counts_and_the_file_is_written_anew() {
        let disk = MemoryDisk::default();
        let (mut notebook, _) = open(&disk);
        notebook.note(&[noted(1, 8)], || vec![noted(1, 8)]).unwrap();
        notebook.note(&[noted(2, 8)], never).unwrap();
        let file = disk.folder().open(NAMES[0]).unwrap();
        file.write_at(file.size().unwrap() - 1, &[0xff]).unwrap();
        let (mut notebook, read) = open(&disk);
        assert_eq!(read, [noted(1, 8)]);
        notebook.note(&[noted(3, 8)], || vec![noted(1, 8), noted(3, 8)]).unwrap();
        assert_eq!(open(&disk).1, [noted(1, 8), noted(3, 8)]);
    }

    #[test]
    fn a_file_that_grows_is_written_anew_and_stays_bounded() {
        let disk = MemoryDisk::default();
        let (mut notebook, _) = open(&disk);
        let many: Vec<Noted> = (0..2_000).map(|id| noted(id, 8)).collect();
        for _ in 0..100 {
            notebook.note(&many, || many.clone()).unwrap();
            let len = notebook.open.as_ref().unwrap().len;
            assert!(len < 2 * WORTH_BYTES, "{len}");
        }
        assert_eq!(open(&disk).1, many);
    }

    #[test]
    fn a_disk_that_is_nearly_full_gets_nothing() {
        let disk = MemoryDisk::default();
        disk.set_capacity(Some(1 << 20));
        let (mut notebook, _) = open(&disk);
        let error = notebook.note(&[noted(1, 8)], || vec![noted(1, 8)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.set_capacity(None);
        notebook.note(&[noted(2, 8)], || vec![noted(1, 8), noted(2, 8)]).unwrap();
        assert_eq!(open(&disk).1.len(), 2);
    }
}
