//! How long output stays on a node: its time after the end, or until the disk is needed.
//!
//! Nobody tells a node that a job has ended; it does not need to know. A job that holds something
//! here has a scratch directory, which goes with its last assignment. The output of all others is
//! of attempts that have ended, and is as old as its last byte.
//!
//! **Invariant:** output of a job that holds something on this node is never removed. What is
//! removed is renamed first, so that nobody sees half of an attempt.

use crate::paths::Paths;
use nix::sys::statvfs::statvfs;
use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use yard_common::id::{AttemptNumber, JobId, TaskIndex};
use yard_common::limits::{LOG_DISK_PERCENT_MAX, LOG_SPARED_PERCENT, LOGS_REMOVED_MAX};
use yard_common::spec::storage::Logs;
use yard_runtime::files;

/// Says how long the output of a job is kept, in milliseconds; without it, as by default.
const KEEP: &str = "keep";
/// That is one number.
const KEEP_BYTES_MAX: usize = 32;
/// A directory that was made so long ago is not of an assignment that is just beginning.
const SETTLED: Duration = Duration::from_secs(3_600);

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Attempts whose output is gone.
    pub attempts: u64,
    /// Bytes that it took on the disk.
    pub bytes: u64,
}

/// The output of jobs that hold nothing on this node.
#[derive(Clone, Debug)]
pub struct Retention {
    paths: Paths,
}

/// The output of one attempt. The order is that in which it is given up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ended {
    written: SystemTime,
    path: PathBuf,
    bytes: u64,
}

impl Retention {
    /// Of the node that has these directories.
    #[must_use]
    pub fn new(paths: &Paths) -> Retention {
        Retention { paths: paths.clone() }
    }

    /// Notes how long the output of a job is kept. Written by whoever knows its spec, before it
    /// has ended.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn note(&self, job: JobId, keep_ms: u64) -> io::Result<()> {
        let path = self.paths.logs().join(job.to_string()).join(KEEP);
        if keep_ms == Logs::DEFAULT.keep.ms() || path.exists() {
            return Ok(());
        }
        fs::write(path, keep_ms.to_string())
    }

    /// Removes output whose time is over.
    ///
    /// # Errors
    /// If there is no list of what is there.
    pub fn by_age(&self, now: SystemTime) -> io::Result<Freed> {
        let mut freed = Freed::default();
        for job in self.ended_jobs()? {
            let keep = Duration::from_millis(keep_ms(&job));
            let is_over =
                |ended: &Ended| now.duration_since(ended.written).is_ok_and(|age| age > keep);
            for ended in attempts(&job).filter(is_over) {
                self.remove(&ended, &mut freed);
            }
            self.forget(&job, now);
        }
        Ok(freed)
    }

    /// Removes the oldest output while more than `LOG_DISK_PERCENT_MAX` of the disk is used. What
    /// takes no more than `LOG_SPARED_PERCENT` of it in all stays: removing that helps nobody.
    ///
    /// # Errors
    /// If the disk or the list cannot be read.
    pub fn by_share(&self) -> io::Result<Freed> {
        let disk = Disk::of(self.paths.root())?;
        if disk.used_percent() <= LOG_DISK_PERCENT_MAX {
            return Ok(Freed::default());
        }
        let mut left = 0u64;
        for job in self.ended_jobs()? {
            left = attempts(&job).fold(left, |sum, ended| sum.saturating_add(ended.bytes));
        }
        let spared = disk.bytes / 100 * LOG_SPARED_PERCENT;
        self.oldest_until(|freed| {
            let full = Disk::of(self.paths.root())?.used_percent() > LOG_DISK_PERCENT_MAX;
            Ok(!full || left.saturating_sub(freed.bytes) <= spared)
        })
    }

    /// Removes the oldest output, one attempt after the other, until it is enough or nothing is
    /// left that could go. For disks that are about to be full.
    ///
    /// # Errors
    /// If the list cannot be read, or those of `enough`.
    pub fn oldest_until(
        &self,
        mut enough: impl FnMut(Freed) -> io::Result<bool>,
    ) -> io::Result<Freed> {
        let mut freed = Freed::default();
        while !enough(freed)? {
            let before = freed;
            for ended in self.oldest()? {
                if enough(freed)? {
                    return Ok(freed);
                }
                self.remove(&ended, &mut freed);
            }
            if freed == before {
                break;
            }
        }
        Ok(freed)
    }

    /// The oldest output, at most `LOGS_REMOVED_MAX` attempts.
    fn oldest(&self) -> io::Result<BTreeSet<Ended>> {
        let mut oldest = BTreeSet::new();
        for job in self.ended_jobs()? {
            for ended in attempts(&job) {
                oldest.insert(ended);
                if oldest.len() > LOGS_REMOVED_MAX {
                    oldest.pop_last();
                }
            }
        }
        Ok(oldest)
    }

    /// Directories with the output of jobs that hold nothing here.
    fn ended_jobs(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.paths.logs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut jobs = Vec::new();
        for entry in entries {
            let entry = entry?;
            let job = entry.file_name().to_str().and_then(|name| name.parse().ok().map(JobId));
            if job.is_some_and(|job| !self.holds(job)) {
                jobs.push(entry.path());
            }
        }
        Ok(jobs)
    }

    /// Attempts of such jobs that have output here.
    ///
    /// # Errors
    /// If there is no list of what is there.
    pub(crate) fn ended_attempts(&self) -> io::Result<Vec<(JobId, TaskIndex, AttemptNumber)>> {
        let mut found = Vec::new();
        for job in self.ended_jobs()? {
            let name = job.file_name().and_then(|name| name.to_str());
            let Some(id) = name.and_then(|name| name.parse().ok()) else { continue };
            for attempt in attempts(&job) {
                let name = attempt.path.file_name().and_then(|name| name.to_str());
                let parts = name.and_then(|name| name.split_once('.'));
                let numbers = parts.and_then(|(task, attempt)| {
                    Some((task.parse().ok()?, AttemptNumber(attempt.parse().ok()?)))
                });
                found.extend(numbers.map(|(task, attempt)| (JobId(id), task, attempt)));
            }
        }
        Ok(found)
    }

    /// Whether a job has an assignment here. One that cannot be looked at counts as one that has.
    fn holds(&self, job: JobId) -> bool {
        match fs::read_dir(self.paths.jobs().join(job.to_string())) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    fn remove(&self, ended: &Ended, freed: &mut Freed) {
        let trash = self.paths.root().join("trash");
        let unique = format!("logs-{:016x}", rand::random::<u64>());
        let grave = trash.join(unique);
        // What cannot be removed now is tried again with the next look.
        if fs::create_dir_all(&trash).and_then(|()| fs::rename(&ended.path, &grave)).is_ok()
            && fs::remove_dir_all(&grave).is_ok()
        {
            freed.attempts += 1;
            freed.bytes = freed.bytes.saturating_add(ended.bytes);
        }
    }

    /// Removes what is left of a job without output: its notes.
    fn forget(&self, job: &Path, now: SystemTime) {
        let settled = |path: &Path| {
            let modified = path.metadata().and_then(|found| found.modified());
            modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > SETTLED))
        };
        if attempts(job).next().is_some() || !settled(job) {
            return;
        }
        let entries = fs::read_dir(job).into_iter().flatten().flatten();
        entries.for_each(|entry| drop(fs::remove_file(entry.path())));
        let _ = fs::remove_dir(job);
    }
}

/// The attempts of a job with output here.
fn attempts(job: &Path) -> impl Iterator<Item = Ended> {
    let entries = fs::read_dir(job).into_iter().flatten().flatten();
    let is_attempt = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_attempt).map(|entry| ended(entry.path()))
}

fn ended(path: PathBuf) -> Ended {
    let modified = |found: fs::Metadata| found.modified().unwrap_or(UNIX_EPOCH);
    let mut written = path.metadata().map_or(UNIX_EPOCH, modified);
    let mut bytes = 0u64;
    for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        // A stream may be in parts.
        let below = found.is_dir().then(|| fs::read_dir(entry.path()).into_iter().flatten());
        let below = below.into_iter().flatten().flatten().filter_map(|part| part.metadata().ok());
        for found in below.chain([found]) {
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
            written = written.max(modified(found));
        }
    }
    Ended { written, path, bytes }
}

fn keep_ms(job: &Path) -> u64 {
    let text = files::read_text(&job.join(KEEP), KEEP_BYTES_MAX);
    let noted = text.ok().and_then(|text| text.trim().parse().ok());
    noted.unwrap_or(Logs::DEFAULT.keep.ms())
}

/// The disk that output is on.
#[derive(Clone, Copy, Debug)]
struct Disk {
    bytes: u64,
    free: u64,
}

impl Disk {
    fn of(path: &Path) -> io::Result<Disk> {
        let found = statvfs(path)?;
        let unit = found.fragment_size();
        let of_all = |blocks: u64| blocks.saturating_mul(unit);
        Ok(Disk { bytes: of_all(found.blocks()), free: of_all(found.blocks_available()) })
    }

    fn used_percent(self) -> u64 {
        let used = self.bytes.saturating_sub(self.free);
        (u128::from(used) * 100 / u128::from(self.bytes.max(1))) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::AllocationId;
    use yard_core::agent::AssignmentId;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    struct Node {
        _directory: tempfile::TempDir,
        paths: Paths,
        retention: Retention,
        now: SystemTime,
    }

    fn node() -> Node {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let retention = Retention::new(&paths);
        Node { _directory: directory, paths, retention, now: SystemTime::now() }
    }

    impl Node {
        /// Output of an attempt that was written last so long before now.
        fn output(&self, job: u64, attempt: u32, age: Duration) -> PathBuf {
            let at = self.paths.attempt_logs(JobId(job), 0, AttemptNumber(attempt));
            fs::create_dir_all(&at).unwrap();
            let file = fs::File::create(at.join("0.out")).unwrap();
            io::Write::write_all(&mut &file, &[b'x'; 8_192]).unwrap();
            file.set_modified(self.now - age).unwrap();
            fs::File::open(&at).unwrap().set_modified(self.now - age).unwrap();
            at
        }

        fn scratch(&self, job: u64) -> PathBuf {
            let id = AssignmentId { allocation: AllocationId(7), group: 0 };
            let at = self.paths.scratch(JobId(job), id);
            fs::create_dir_all(&at).unwrap();
            at
        }
    }

    #[test]
    fn output_goes_when_its_time_is_over_and_not_before() {
        let node = node();
        let (old, new) = (node.output(8, 1, 15 * DAY), node.output(8, 2, 13 * DAY));
        let freed = node.retention.by_age(node.now).unwrap();
        assert_eq!((freed.attempts, old.exists(), new.exists()), (1, false, true));
        assert!(freed.bytes >= 8_192, "{freed:?}");
        assert_eq!(node.retention.by_age(node.now).unwrap(), Freed::default());
    }

    #[test]
    fn a_job_says_how_long_its_output_is_kept() {
        let node = node();
        let (short, usual) = (node.output(8, 1, 2 * DAY), node.output(9, 1, 2 * DAY));
        node.retention.note(JobId(8), DAY.as_millis() as u64).unwrap();
        node.retention.note(JobId(9), Logs::DEFAULT.keep.ms()).unwrap();
        node.retention.by_age(node.now).unwrap();
        assert_eq!((short.exists(), usual.exists()), (false, true));
    }

    #[test]
    fn nothing_is_left_of_a_job_without_output() {
        let node = node();
        let at = node.output(8, 1, 15 * DAY);
        let job = at.parent().unwrap();
        fs::write(job.join("7-0.first"), "3").unwrap();
        // A moment ago something may still be beginning.
        node.retention.by_age(node.now).unwrap();
        assert!(job.exists());
        fs::File::open(job).unwrap().set_modified(node.now - DAY).unwrap();
        node.retention.by_age(node.now).unwrap();
        assert!(!job.exists());
    }

    #[test]
    fn output_of_a_job_that_holds_something_stays() {
        let node = node();
        let at = node.output(8, 1, 400 * DAY);
        let scratch = node.scratch(8);
        assert_eq!(node.retention.by_age(node.now).unwrap(), Freed::default());
        assert_eq!(node.retention.oldest_until(|_| Ok(false)).unwrap(), Freed::default());
        assert!(at.exists());
        fs::remove_dir(scratch).unwrap();
        assert_eq!(node.retention.oldest_until(|_| Ok(false)).unwrap().attempts, 1);
    }

    #[test]
    fn the_oldest_goes_first_and_no_more_than_needed() {
        let node = node();
        let kept: Vec<PathBuf> = [(8, 3), (9, 5), (10, 1), (11, 4)]
            .map(|(job, age)| node.output(job, 1, age * DAY))
            .into();
        node.retention.oldest_until(|freed| Ok(freed.attempts == 2)).unwrap();
        let there: Vec<bool> = kept.iter().map(|path| path.exists()).collect();
        assert_eq!(there, [true, false, true, false]);
    }

    #[test]
    fn what_takes_no_room_is_spared_by_a_full_disk() {
        let node = node();
        let at = node.output(8, 1, DAY);
        // A few kilobytes are less than the share that is spared, however full this disk is.
        node.retention.by_share().unwrap();
        assert!(at.exists());
    }

    #[test]
    fn shares_of_a_disk_are_percents() {
        for (bytes, free, percent) in
            [(0, 0, 0), (100, 100, 0), (1_000, 199, 80), (u64::MAX, 0, 100)]
        {
            assert_eq!(Disk { bytes, free }.used_percent(), percent);
        }
    }
}
