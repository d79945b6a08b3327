//! Reads a backup, piece by piece, and believes nothing before its end.

use super::parts::{
    BackupError, BackupHead, End, FORMAT, Keys, Kind, MAGIC, PART_HEADER, PREAMBLE,
};
use super::write::crc_of;
use crate::build::Build;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use yard_common::id::JobId;
use yard_common::limits::SNAPSHOT_CHUNK_BYTES;
use yard_common::state::JobState;
use yard_core::state::{Job, State};
use yard_runtime::digest::Sha256;
use yard_runtime::identity::{Authority, Trust};
use zeroize::{Zeroize, Zeroizing};

/// Takes the bytes of a backup in, in pieces of any size.
pub struct Reader {
    /// What is not looked at yet: less than one part.
    buffer: Vec<u8>,
    begun: bool,
    /// The kind of the last part.
    last: Option<Kind>,
    crc: u32,
    sha: Sha256,
    head: Option<BackupHead>,
    keys: Option<Keys>,
    state_bytes: u64,
    pieces: u64,
    /// The state, if it is wanted.
    state: Option<Vec<u8>>,
}

/// What is in a backup, all of it checked.
pub struct Contents {
    /// What it says of itself.
    pub head: BackupHead,
    /// The CAs.
    pub(crate) authority: Authority,
    /// The state.
    pub(crate) state: State,
    /// The state as it stands in the file.
    pub(crate) state_bytes: Vec<u8>,
}

impl Contents {
    /// Jobs of which something ran then, with their names.
    pub fn running(&self) -> impl Iterator<Item = (JobId, &str)> {
        let runs = |job: &Job| match job.state {
            JobState::Preparing | JobState::Running | JobState::Stopping => true,
            JobState::Queued | JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
                false
            }
        };
        let jobs = self.state.jobs.iter().filter(move |(_, job)| runs(job));
        jobs.map(|(id, job)| (id, &*job.plan.name))
    }
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new(false)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The keys of the CAs may have passed through it.
        self.buffer.zeroize();
    }
}

impl Reader {
    fn new(keeps: bool) -> Reader {
        Reader {
            buffer: Vec::new(),
            begun: false,
            last: None,
            crc: 0,
            sha: Sha256::default(),
            head: None,
            keys: None,
            state_bytes: 0,
            pieces: 0,
            state: keeps.then(Vec::new),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// If this is no backup, or damaged.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.buffer.extend_from_slice(bytes);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        let outcome = loop {
            match self.next(&buffer[at..]) {
                Ok(Some(taken)) => at += taken,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        buffer.drain(..at);
        self.buffer = buffer;
        outcome
    }

    /// What comes next, for messages.
    fn place(&self) -> String {
        match self.last {
            None if !self.begun => "the first bytes".into(),
            None => "the head".into(),
            Some(Kind::Head) => "the keys".into(),
            Some(Kind::Keys | Kind::State) => format!("part {} of the state", self.pieces + 1),
            Some(Kind::End) => "what follows the end".into(),
        }
    }

    fn damaged(&self) -> BackupError {
        BackupError::Damaged { part: self.place() }
    }

    /// Takes one part from these bytes. None: it is not whole yet.
    fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, BackupError> {
        if !self.begun {
            return self.begin(bytes);
        }
        if self.last == Some(Kind::End) {
            return if bytes.is_empty() { Ok(None) } else { Err(self.damaged()) };
        }
        let Some(header) = bytes.first_chunk::<PART_HEADER>() else { return Ok(None) };
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let (len, crc) =
            (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
        let known = Kind::of(kind).filter(|kind| self.may_follow(*kind));
        let known = known.filter(|kind| len as usize <= kind.bytes_max());
        let Some(known) = known else { return Err(self.damaged()) };
        let end = PART_HEADER + len as usize;
        let Some(body) = bytes.get(PART_HEADER..end) else { return Ok(None) };
        if crc_of(self.crc, kind, len, body) != crc || !self.part(known, body) {
            return Err(self.damaged());
        }
        self.sha.update(&bytes[..end]);
        (self.crc, self.last) = (crc, Some(known));
        Ok(Some(end))
    }

    fn begin(&mut self, bytes: &[u8]) -> Result<Option<usize>, BackupError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(BackupError::Foreign);
        }
        let Some(preamble) = bytes.get(..PREAMBLE) else { return Ok(None) };
        let found = preamble[MAGIC.len()];
        if found != FORMAT {
            return Err(BackupError::Format { found });
        }
        self.sha.update(preamble);
        self.begun = true;
        Ok(Some(PREAMBLE))
    }

    fn may_follow(&self, kind: Kind) -> bool {
        match self.last {
            None => kind == Kind::Head,
            Some(Kind::Head) => kind == Kind::Keys,
            Some(Kind::Keys | Kind::State) => kind == Kind::State || kind == Kind::End,
            Some(Kind::End) => false,
        }
    }

    /// Whether the part is one that can be read.
    fn part(&mut self, kind: Kind, body: &[u8]) -> bool {
        match kind {
            Kind::Head => {
                self.head = minicbor::decode(body).ok();
                self.head.is_some()
            }
            Kind::Keys => {
                self.keys = minicbor::decode(body).ok();
                self.keys.is_some()
            }
            Kind::State => {
                self.state_bytes += body.len() as u64;
                self.pieces += 1;
                if let Some(state) = &mut self.state {
                    state.extend_from_slice(body);
                }
                !body.is_empty()
            }
            Kind::End => {
                let sha256 = self.sha.clone().finish();
                let end = End { state_bytes: self.state_bytes, sha256 };
                minicbor::decode::<End>(body).is_ok_and(|found| found == end)
            }
        }
    }

    /// There is no more: what the backup says of itself, now that all of it is known to be whole.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn finish(mut self) -> Result<BackupHead, BackupError> {
        self.ended()
    }

    fn ended(&mut self) -> Result<BackupHead, BackupError> {
        let cut_off = BackupError::CutOff { part: self.place() };
        match self.head.take() {
            Some(head) if self.last == Some(Kind::End) => Ok(head),
            Some(_) | None => Err(cut_off),
        }
    }

    fn contents(mut self, build: &Build) -> Result<Contents, BackupError> {
        let head = self.ended()?;
        let known = build.feature_level_max;
        if head.feature_level > known {
            return Err(BackupError::Level { found: head.feature_level, known });
        }
        // Both are there, since the end is.
        let (keys, state_bytes) = (self.keys.take(), self.state.take().unwrap_or_default());
        let keys = keys.ok_or(BackupError::Damaged { part: "the keys".into() })?;
        let trust = Trust::from_pem(&keys.trust_pem).map_err(BackupError::Keys)?;
        let texts: Vec<&str> = keys.keys_pem.iter().map(|key| key.as_str()).collect();
        let authority = Authority::from_keys(&trust, &texts).map_err(BackupError::Keys)?;
        let state = State::from_bytes(&state_bytes).map_err(BackupError::State)?;
        let same = state.cluster == Some(head.cluster)
            && trust.cluster() == head.cluster
            && state.incarnation == head.incarnation
            && state.feature_level == head.feature_level;
        if !same {
            return Err(BackupError::Mixed);
        }
        Ok(Contents { head, authority, state, state_bytes })
    }
}

/// Reads all of a file.
fn read(path: &Path, reader: &mut Reader) -> Result<(), BackupError> {
    let failed = |step| move |error| BackupError::Io(path.to_path_buf(), step, error);
    let mut file = File::open(path).map_err(failed("open"))?;
    let mut piece = Zeroizing::new(vec![0; SNAPSHOT_CHUNK_BYTES]);
    loop {
        match file.read(&mut piece).map_err(failed("read"))? {
            0 => return Ok(()),
            len => reader.take(&piece[..len])?,
        }
    }
}

/// What a backup says of itself, after all of it was checked. Blocks.
///
/// # Errors
/// If it is none, or not as it was written.
pub fn show(path: &Path) -> Result<BackupHead, BackupError> {
    let mut reader = Reader::new(false);
    read(path, &mut reader)?;
    reader.finish()
}

/// Reads a backup that is to be restored. Blocks.
///
/// # Errors
/// If it is none, not as it was written, or of a feature level that the program does not know.
pub fn open(path: &Path, build: &Build) -> Result<Contents, BackupError> {
    let mut reader = Reader::new(true);
    read(path, &mut reader)?;
    reader.contents(build)
}
