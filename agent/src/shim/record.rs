//! What a shim writes down: an append-only file that the agent reads when the shim is gone.
//!
//! Format 1: see [`crate::frames`]; magic `yardshim`; the kind of a frame is the number of its
//! [`Entry`]. Numbers are never used again, new ones are skipped by older readers.
//!
//! Order: `Starting` before a fork, `Started` with the processes after it, `RankEnded` and `Ended`
//! before anything is reaped.

use crate::frames::{self, Chain as Link, End};
use minicbor::{Decode, Encode};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use thiserror::Error;
use yard_common::ExitCause;
use yard_common::id::{BootId, JobId};
use yard_common::limits::{SHIM_RECORD_FILE_BYTES_MAX, SHIM_STARTS_AHEAD};
use yard_core::agent::{AssignmentId, Ending, Found};

const MAGIC: [u8; 8] = *b"yardshim";
const VERSION: u32 = 1;
/// The highest kind that this release knows.
const KIND_MAX: u16 = 14;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Entry {
    /// The first: whose file this is.
    #[n(1)]
    Made {
        /// The assignment.
        #[n(0)]
        id: AssignmentId,
        /// Its job.
        #[n(1)]
        job: JobId,
        /// The boot of the machine.
        #[n(2)]
        boot: BootId,
        /// When, by the boot clock.
        #[n(3)]
        at_ms: u64,
    },
    /// Everything is ready for the first task.
    #[n(2)]
    Prepared,
    /// Preparing failed.
    #[n(3)]
    Failed(#[n(0)] ExitCause),
    /// The start was given for so many tasks.
    #[n(4)]
    StartGiven(#[n(0)] u32),
    /// The task at this position is about to start.
    #[n(5)]
    Starting(#[n(0)] u32),
    /// It did not start after all: the lease was over before a process ran.
    #[n(6)]
    Held(#[n(0)] u32),
    /// Its processes run.
    #[n(7)]
    Started {
        /// Position.
        #[n(0)]
        position: u32,
        /// Its main processes.
        #[n(1)]
        processes: Vec<MainProcess>,
    },
    /// A main process has ended.
    #[n(8)]
    RankEnded {
        /// Position.
        #[n(0)]
        position: u32,
        /// Its local rank; none: a launcher.
        #[n(1)]
        rank: Option<u32>,
        /// What the kernel said.
        #[n(2)]
        status: ExitCause,
        /// When it was seen, by the boot clock.
        #[n(3)]
        at_ms: u64,
    },
    /// The task is over on this node.
    #[n(9)]
    Ended {
        /// Position.
        #[n(0)]
        position: u32,
        /// Of the rank to blame, or success.
        #[n(1)]
        status: ExitCause,
        /// Whether it came after a stop or kill.
        #[n(2)]
        stopped: bool,
        /// The local rank to blame.
        #[n(3)]
        rank: Option<u32>,
    },
    /// No task from this position on will start.
    #[n(10)]
    Cut(#[n(0)] u32),
    /// The stop signal was sent.
    #[n(11)]
    Signalled,
    /// Everything is being killed.
    #[n(12)]
    Killing(#[n(0)] KillReason),
    /// The deadline that was looked at had moved to this time of the boot clock.
    #[n(13)]
    Deadline(#[n(0)] u64),
    /// No process is left.
    #[n(14)]
    Reaped,
}

/// A main process: a rank's, or a launcher's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MainProcess {
    /// Its local rank; none: a launcher.
    #[n(0)]
    pub rank: Option<u32>,
    /// Its process id.
    #[n(1)]
    pub pid: i32,
    /// Its start in ticks since the boot, which tells it from a later process of the same id.
    #[n(2)]
    pub started: u64,
}

/// Why everything is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum KillReason {
    /// The agent said so.
    #[n(0)]
    Ordered,
    /// The deadline of the lease passed.
    #[n(1)]
    Deadline,
    /// It uses more of the disk than its job may.
    #[n(2)]
    Disk,
}

/// Why a record cannot be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The system's answer.
    #[error("the shim's record cannot be read")]
    Io(#[from] io::Error),
    /// It is damaged.
    #[error("the shim's record is damaged")]
    Frame(#[from] frames::FrameError),
    /// It is longer than any shim writes.
    #[error("the shim's record has {0} bytes")]
    TooLong(u64),
}

impl Entry {
    fn kind(&self) -> u16 {
        match self {
            Entry::Made { .. } => 1,
            Entry::Prepared => 2,
            Entry::Failed(_) => 3,
            Entry::StartGiven(_) => 4,
            Entry::Starting(_) => 5,
            Entry::Held(_) => 6,
            Entry::Started { .. } => 7,
            Entry::RankEnded { .. } => 8,
            Entry::Ended { .. } => 9,
            Entry::Cut(_) => 10,
            Entry::Signalled => 11,
            Entry::Killing(_) => 12,
            Entry::Deadline(_) => 13,
            Entry::Reaped => KIND_MAX,
        }
    }
}

/// The file as its shim writes it.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    chain: Link,
}

impl Writer {
    /// A new file; there is none yet.
    pub(super) fn create(path: &Path) -> io::Result<Writer> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let mut file = options.open(path)?;
        let (header, chain) = frames::header(MAGIC, VERSION);
        file.write_all(&header)?;
        Ok(Writer { file, chain })
    }

    /// Appends. From here on the record outlives this process, though not yet the machine.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let body = minicbor::to_vec(entry).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        self.chain.push(entry.kind(), &body, &mut bytes);
        self.file.write_all(&bytes)
    }

    /// Puts everything on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What a record adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The boot in which it was made.
    pub boot: Option<BootId>,
    /// Whether preparing is done.
    pub prepared: bool,
    /// Why it failed.
    pub failed: Option<ExitCause>,
    /// Whether the start was given.
    pub start_given: bool,
    /// Tasks that have started or may still start.
    pub len: u32,
    /// Tasks that started, or are about to.
    pub starting: u32,
    /// Tasks whose processes ran.
    pub started: u32,
    /// How tasks ended, from the first on.
    pub endings: Vec<Ending>,
    /// Whether the stop signal was sent.
    pub signalled: bool,
    /// Why everything is being killed.
    pub killing: Option<KillReason>,
    /// Whether nothing is left.
    pub reaped: bool,
    /// Main processes of the last task that started.
    pub processes: Vec<MainProcess>,
    /// Whether a part of the file cannot be read.
    pub damaged: bool,
}

impl History {
    /// Takes one entry in.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Made { boot, .. } => self.boot = Some(*boot),
            Entry::Prepared => self.prepared = true,
            Entry::Failed(cause) => self.failed = Some(*cause),
            Entry::StartGiven(len) => (self.start_given, self.len) = (true, *len),
            Entry::Starting(position) => self.starting = self.starting.max(position + 1),
            Entry::Held(position) => self.starting = *position,
            Entry::Started { position, processes } => {
                self.started = self.started.max(position + 1);
                self.processes.clone_from(processes);
            }
            Entry::Ended { position, status, stopped, rank } => {
                if *position as usize == self.endings.len() {
                    let (status, stopped, rank) = (*status, *stopped, *rank);
                    self.endings.push(Ending { status, stopped, rank });
                }
            }
            Entry::Cut(len) => self.len = self.len.min(*len),
            Entry::Signalled => self.signalled = true,
            Entry::Killing(reason) => self.killing = Some(*reason),
            Entry::Reaped => self.reaped = true,
            Entry::RankEnded { .. } | Entry::Deadline(_) => {}
        }
    }

    /// Reads a file. A torn tail is left out; what is behind damage too.
    ///
    /// # Errors
    /// If it cannot be read at all.
    pub fn read(path: &Path) -> Result<History, RecordError> {
        let len = std::fs::metadata(path)?.len();
        if len > SHIM_RECORD_FILE_BYTES_MAX {
            return Err(RecordError::TooLong(len));
        }
        let bytes = std::fs::read(path)?;
        let scan = frames::scan(&bytes, MAGIC, VERSION)?;
        let mut history = History { damaged: scan.end == End::Damaged, ..History::default() };
        for (kind, body) in scan.frames {
            match minicbor::decode(&bytes[body]) {
                Ok(entry) => history.apply(&entry),
                Err(_) if kind > KIND_MAX => {}
                Err(_) => history.damaged = true,
            }
        }
        Ok(history)
    }

    /// What an agent finds, of a shim of a chain of `chain_len` tasks. `ordered`: the length of
    /// the start that the agent had given by its own record, `ended`: the ends that it knows.
    #[must_use]
    pub fn found(
        &self,
        id: AssignmentId,
        alive: bool,
        boot: BootId,
        chain_len: u32,
        ordered: Option<u32>,
        ended: u32,
    ) -> Found {
        let mut found = Found {
            id,
            alive,
            prepared: self.prepared,
            start_given: self.start_given,
            started: if alive { self.started } else { self.starting.max(self.started) },
            len: self.len,
            endings: self.endings.clone(),
            failed: self.failed,
        };
        let rebooted = self.boot != Some(boot);
        if let (true, Some(len)) = (rebooted, ordered) {
            // The last records may not have reached the disk. What the agent had on disk is how
            // far the shim may have gone ahead of them.
            (found.start_given, found.len) = (true, len);
            let known = ended.max(self.endings.len() as u32);
            let ahead = known.saturating_add(SHIM_STARTS_AHEAD);
            found.started = found.started.max(ahead).min(len);
        }
        if self.damaged && !alive {
            (found.start_given, found.len, found.started) = (true, chain_len, chain_len);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::AllocationId;

    const ID: AssignmentId = AssignmentId { allocation: AllocationId(57), group: 0 };

    fn boot(number: u128) -> BootId {
        BootId::from_u128(number)
    }

    fn life() -> Vec<Entry> {
        let ended = |position| Entry::Ended {
            position,
            status: ExitCause::Exited(position as i32),
            stopped: false,
            rank: None,
        };
        let process = MainProcess { rank: Some(0), pid: 77, started: 5 };
        vec![
            Entry::Made { id: ID, job: JobId(1), boot: boot(1), at_ms: 0 },
            Entry::Prepared,
            Entry::StartGiven(40),
            Entry::Starting(0),
            Entry::Started { position: 0, processes: vec![process] },
            Entry::RankEnded { position: 0, rank: Some(0), status: ExitCause::Exited(0), at_ms: 9 },
            ended(0),
            Entry::Starting(1),
        ]
    }

    fn write(path: &Path, entries: &[Entry]) {
        let mut writer = Writer::create(path).unwrap();
        for entry in entries {
            writer.append(entry).unwrap();
        }
    }

    #[test]
    fn what_was_written_adds_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        write(&path, &life());
        let history = History::read(&path).unwrap();
        assert_eq!((history.starting, history.started, history.len), (2, 1, 40));
        assert_eq!(history.processes[0].pid, 77);
        let alive = history.found(ID, true, boot(1), 40, Some(40), 0);
        assert_eq!((alive.started, alive.endings.len()), (1, 1));
        let dead = history.found(ID, false, boot(1), 40, Some(40), 0);
        assert_eq!(dead.started, 2, "it may have started");
    }

    #[test]
    fn after_a_reboot_what_ran_ahead_of_the_disk_counts_as_started() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        write(&path, &life()[..2]);
        let history = History::read(&path).unwrap();
        let found = history.found(ID, false, boot(2), 40, Some(40), 3);
        assert_eq!((found.start_given, found.len), (true, 40));
        assert_eq!(found.started, 3 + SHIM_STARTS_AHEAD);
        let never = history.found(ID, false, boot(2), 40, None, 0);
        assert_eq!((never.start_given, never.started), (false, 0));
    }

    #[test]
    fn damage_means_that_everything_may_have_started() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        write(&path, &life());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[frames::HEADER_LEN + 14] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let history = History::read(&path).unwrap();
        assert!(history.damaged);
        assert_eq!(history.found(ID, false, boot(1), 40, None, 0).started, 40);
    }

    #[test]
    fn a_kind_of_a_later_release_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        let mut writer = Writer::create(&path).unwrap();
        let mut bytes = Vec::new();
        writer.chain.push(KIND_MAX + 1, b"\xff", &mut bytes);
        writer.file.write_all(&bytes).unwrap();
        writer.append(&Entry::Prepared).unwrap();
        let history = History::read(&path).unwrap();
        assert!(history.prepared && !history.damaged);
    }
}
