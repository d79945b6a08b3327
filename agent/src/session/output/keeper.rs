//! Looks at the files of all attempts that run: notes when they grow, and keeps them within bounds.

use super::progress::Progress;
use crate::delivery::Delivery;
use crate::driver::{Released, Share};
use crate::launch::Orders;
use crate::logs::{
    AttemptLogs, Kind, Retention, Stream, Times, Writer, bound, bound_behind, share_of,
};
use crate::paths::Paths;
use crate::shim::DETAIL;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use yard_common::id::{AttemptNumber, JobId, TaskIndex};
use yard_common::limits::DETAIL_BYTES_MAX;
use yard_common::spec::JobSpec;
use yard_common::spec::storage::Logs;
use yard_core::agent::{AssignmentId, Chain};
use yard_runtime::files;

/// One attempt of a task with output here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt {
    pub(super) job: JobId,
    pub(super) task: TaskIndex,
    pub(super) attempt: AttemptNumber,
}

impl Attempt {
    /// The directory of its output.
    pub(super) fn directory(self, paths: &Paths) -> std::path::PathBuf {
        paths.attempt_logs(self.job, self.task, self.attempt)
    }

    /// Where its output is delivered to; none: nowhere, or all of it has been.
    pub(super) fn delivery(self, paths: &Paths) -> Option<Delivery> {
        Delivery::noted(&self.directory(paths))
    }
}

/// What there was to look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Attempts that run.
    pub(super) running: Vec<Attempt>,
    /// Attempts that have ended since the last look.
    pub(super) ended: Vec<Attempt>,
    /// Those of both whose output is delivered to a directory, and whether they have ended.
    pub(super) delivered: Vec<(Attempt, Delivery, bool)>,
}

/// Looks at files again and again.
#[derive(Debug)]
pub(super) struct Keeper {
    paths: Paths,
    retention: Retention,
    assigned: BTreeMap<AssignmentId, Assigned>,
    /// Streams of attempts that run.
    known: BTreeMap<(Attempt, Writer, Kind), Known>,
    /// Whether the disk makes no holes; told once.
    unbounded: bool,
    /// What was delivered.
    progress: Progress,
}

/// An assignment that is held.
#[derive(Debug)]
struct Assigned {
    job: JobId,
    chain: Chain,
    bytes_max: u64,
    /// Whether the output goes to a directory of the user's as well.
    is_delivered: bool,
    /// Tasks of the chain that had ended at the last look.
    ended: u32,
}

/// What is known of a stream.
#[derive(Debug, Default)]
struct Known {
    size: u64,
    times: Times,
}

impl Keeper {
    pub(super) fn new(paths: &Paths, progress: Progress) -> Keeper {
        Keeper {
            paths: paths.clone(),
            retention: Retention::new(paths),
            assigned: BTreeMap::new(),
            known: BTreeMap::new(),
            unbounded: false,
            progress,
        }
    }

    /// Looks at what runs, and for the last time at what has ended.
    pub(super) fn look(
        &mut self,
        shares: &[Share],
        released: Vec<Released>,
        wall_ms: u64,
    ) -> Looked {
        let mut looked = Looked::default();
        for share in shares.iter().filter(|share| share.started > 0) {
            let Some(assigned) = self.assigned(share.id) else { continue };
            let (job, bytes_max, is_delivered) =
                (assigned.job, assigned.bytes_max, assigned.is_delivered);
            let from = std::mem::replace(&mut assigned.ended, share.ended);
            let tasks: Vec<_> = assigned.chain.slice(from, share.started).tasks().collect();
            for (position, (task, attempt)) in (from..).zip(tasks) {
                let attempt = Attempt { job, task, attempt };
                let over = position < share.ended;
                let delivered = is_delivered && self.find_delivery(attempt, over, &mut looked);
                self.look_at(attempt, bytes_max, wall_ms, (over, delivered));
                match over {
                    true => self.over(attempt, &mut looked),
                    false => looked.running.push(attempt),
                }
            }
        }
        for Released { id, job, chain } in released {
            let assigned = self.assigned.remove(&id);
            // Of an assignment that was never looked at, nothing is known.
            let is_delivered = assigned.as_ref().is_none_or(|assigned| assigned.is_delivered);
            let from = assigned.as_ref().map_or(0, |assigned| assigned.ended);
            let bytes_max =
                assigned.map_or(Logs::DEFAULT.max_per_rank.0, |assigned| assigned.bytes_max);
            let tasks: Vec<_> = chain.slice(from, chain.len()).tasks().collect();
            for (task, attempt) in tasks {
                let attempt = Attempt { job, task, attempt };
                let delivered = is_delivered && self.find_delivery(attempt, true, &mut looked);
                self.look_at(attempt, bytes_max, wall_ms, (true, delivered));
                self.over(attempt, &mut looked);
            }
        }
        let held: BTreeSet<AssignmentId> = shares.iter().map(|share| share.id).collect();
        self.assigned.retain(|id, _| held.contains(id));
        looked
    }

    /// Whether the output of an attempt is delivered; if so, that is among what was found.
    fn find_delivery(&self, attempt: Attempt, over: bool, looked: &mut Looked) -> bool {
        let Some(delivery) = attempt.delivery(&self.paths) else { return false };
        looked.delivered.push((attempt, delivery, over));
        true
    }

    fn over(&mut self, attempt: Attempt, looked: &mut Looked) {
        self.known.retain(|(of, ..), _| *of != attempt);
        looked.ended.push(attempt);
    }

    /// What is known of an assignment; none: its orders cannot be read.
    fn assigned(&mut self, id: AssignmentId) -> Option<&mut Assigned> {
        if !self.assigned.contains_key(&id) {
            let path = self.paths.shim(id).join(DETAIL);
            let orders =
                Orders::from_bytes(&files::read(&path, 2 * DETAIL_BYTES_MAX).ok()?).ok()?;
            let (job, chain) = (orders.assignment.job, orders.chain);
            let spec = JobSpec::from_json(&orders.assignment.spec);
            let logs = spec.as_ref().map_or(Logs::DEFAULT, |spec| spec.logs.clone());
            // Without the note it is kept as by default.
            if let Err(error) = self.retention.note(job, logs.keep.ms()) {
                tracing::warn!(%job, %error, "how long its output is kept cannot be noted");
            }
            let (bytes_max, is_delivered) = (logs.max_per_rank.0, logs.dir.is_some());
            self.assigned.insert(id, Assigned { job, chain, bytes_max, is_delivered, ended: 0 });
        }
        self.assigned.get_mut(&id)
    }

    fn look_at(
        &mut self,
        attempt: Attempt,
        bytes_max: u64,
        wall_ms: u64,
        (over, is_delivered): (bool, bool),
    ) {
        let logs = AttemptLogs::new(&self.paths, attempt.job, attempt.task, attempt.attempt);
        // One that never wrote has no directory.
        let Ok(streams) = logs.streams() else { return };
        for (at, stream) in streams.iter().enumerate() {
            // Of what came and went between two looks the file itself says when that was.
            let is_new = !self.known.contains_key(&(attempt, stream.writer, stream.kind));
            let noted = match over && is_new {
                true => Ok(()),
                false => self.note(&logs, attempt, *stream, wall_ms),
            };
            let own_max = share_of(&streams, at, bytes_max);
            let bounded = noted.and_then(|()| match stream.size > own_max && !self.unbounded {
                true => self.bound(&logs, attempt, stream, own_max, is_delivered),
                false => Ok(()),
            });
            match bounded {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.unbounded = true;
                    tracing::warn!(
                        "the file system of the agent's directory makes no holes in files: output \
                         is not bounded by logs.max_per_rank"
                    );
                }
                Err(error) => {
                    let Attempt { job, task, .. } = attempt;
                    tracing::debug!(%job, task, ?stream, %error, "output cannot be looked after");
                }
            }
        }
    }

    fn bound(
        &self,
        logs: &AttemptLogs,
        attempt: Attempt,
        stream: &Stream,
        bytes_max: u64,
        is_delivered: bool,
    ) -> io::Result<()> {
        let path = logs.path(stream.writer, stream.kind);
        match is_delivered {
            true => {
                let delivered = self.progress.of((attempt, stream.writer, stream.kind));
                bound_behind(&path, bytes_max, delivered).map(drop)
            }
            false => bound(&path, bytes_max).map(drop),
        }
    }

    /// Notes that a stream has grown, or that the job cut it off.
    fn note(
        &mut self,
        logs: &AttemptLogs,
        attempt: Attempt,
        stream: Stream,
        wall_ms: u64,
    ) -> io::Result<()> {
        if stream.size == 0 {
            return Ok(());
        }
        let path = logs.path(stream.writer, stream.kind);
        let known = self
            .known
            .entry((attempt, stream.writer, stream.kind))
            .or_insert_with(|| Known { size: 0, times: Times::read(&path) });
        if stream.size < known.size {
            return logs.rebase(stream, known.size);
        }
        if stream.size == known.size {
            return Ok(());
        }
        known.size = stream.size;
        known.times.note(&path, stream.size, wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::id::AllocationId;
    use yard_common::state::AssignmentState;

    const JOB: JobId = JobId(8);
    const MAX: u64 = 1 << 20;

    struct Node {
        _directory: tempfile::TempDir,
        paths: Paths,
        keeper: Keeper,
    }

    fn id() -> AssignmentId {
        AssignmentId { allocation: AllocationId(7), group: 0 }
    }

    fn attempt(task: TaskIndex) -> Attempt {
        Attempt { job: JOB, task, attempt: AttemptNumber(1) }
    }

    fn assigned(chain: Chain) -> Assigned {
        Assigned { job: JOB, chain, bytes_max: MAX, is_delivered: true, ended: 0 }
    }

    /// A node that holds a chain of three tasks.
    fn node() -> Node {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let mut keeper = Keeper::new(&paths, Progress::default());
        let chain = (0..3).map(|task| Chain::one(task, AttemptNumber(1)).0[0]);
        let chain = Chain(chain.collect());
        keeper.assigned.insert(id(), assigned(chain));
        Node { _directory: directory, paths, keeper }
    }

    impl Node {
        fn write(&self, task: TaskIndex, name: &str, bytes: &[u8]) {
            let at = self.paths.attempt_logs(JOB, task, AttemptNumber(1));
            std::fs::create_dir_all(&at).unwrap();
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.append(true).create(true).open(at.join(name)).unwrap();
            io::Write::write_all(&mut file, bytes).unwrap();
        }

        fn look(&mut self, started: u32, ended: u32, wall_ms: u64) -> Looked {
            let state = AssignmentState::Running;
            let share = Share {
                id: id(),
                job: JOB,
                state,
                started,
                ended,
                connected: true,
                silent: false,
                stuck: None,
            };
            self.keeper.look(&[share], Vec::new(), wall_ms)
        }

        fn logs(&self, task: TaskIndex) -> AttemptLogs {
            AttemptLogs::new(&self.paths, JOB, task, AttemptNumber(1))
        }
    }

    #[test]
    fn each_task_of_a_chain_is_looked_at_until_it_has_ended() {
        let mut node = node();
        assert_eq!(node.look(0, 0, 1), Looked::default());
        let running = |task| Looked { running: vec![attempt(task)], ..Looked::default() };
        assert_eq!(node.look(1, 0, 2), running(0));
        let both =
            Looked { running: vec![attempt(1)], ended: vec![attempt(0)], ..Looked::default() };
        assert_eq!(node.look(2, 1, 3), both);
        assert_eq!(node.look(2, 1, 4), running(1));
        // Let go before anybody looked again.
        let chain = node.keeper.assigned[&id()].chain.clone();
        let released = Released { id: id(), job: JOB, chain };
        let looked = node.keeper.look(&[], vec![released.clone()], 5);
        let ended = vec![attempt(1), attempt(2)];
        assert_eq!(looked, Looked { ended, ..Looked::default() });
        // And one that nobody ever saw.
        let looked = node.keeper.look(&[], vec![released], 6);
        assert_eq!(looked.ended, [attempt(0), attempt(1), attempt(2)]);
        assert!(node.keeper.known.is_empty());
    }

    #[test]
    fn growth_is_noted_with_its_time() {
        let mut node = node();
        node.write(0, "0.out", b"abc");
        node.look(1, 0, 1_000);
        node.look(1, 0, 2_000);
        node.write(0, "0.out", b"de");
        node.look(1, 0, 3_000);
        let reader = node.logs(0).open(Writer::Rank(0), Kind::Out).unwrap();
        let times = reader.times();
        assert_eq!(times.of(2).map(|mark| mark.wall_ms), Some(1_000));
        assert_eq!(times.of(3).map(|mark| mark.wall_ms), Some(3_000));
    }

    #[test]
    fn both_streams_of_a_rank_share_one_bound() {
        use std::os::unix::fs::MetadataExt;
        let mut node = node();
        for name in ["0.out", "0.err", "1.out"] {
            node.write(0, name, &vec![b'x'; 4 * MAX as usize]);
        }
        node.look(1, 0, 1_000);
        let held = |writer, kind| {
            let found = std::fs::metadata(node.logs(0).path(writer, kind)).unwrap();
            assert_eq!(found.len(), 4 * MAX);
            found.blocks() * 512
        };
        let both = held(Writer::Rank(0), Kind::Out) + held(Writer::Rank(0), Kind::Err);
        assert!(both <= MAX, "{both}");
        let alone = held(Writer::Rank(1), Kind::Out);
        assert!(alone <= MAX && alone > MAX / 2, "{alone}");
    }

    #[test]
    fn what_is_not_delivered_stays_on_the_node() {
        use std::os::unix::fs::MetadataExt;
        let mut node = node();
        let delivery = Delivery {
            target: crate::delivery::Target::new("/share".into(), None, 0),
            folder: "8/attempt-1".into(),
            node: "n1".into(),
            bytes_max: MAX,
        };
        node.write(0, "0.out", &vec![b'x'; 4 * MAX as usize]);
        let at = node.paths.attempt_logs(JOB, 0, AttemptNumber(1));
        delivery.note(&at).unwrap();
        let looked = node.look(1, 0, 1_000);
        assert_eq!(looked.delivered, [(attempt(0), delivery.clone(), false)]);
        let held = || std::fs::metadata(at.join("0.out")).unwrap().blocks() * 512;
        assert!(held() >= 4 * MAX);
        let stream = (attempt(0), Writer::Rank(0), Kind::Out);
        node.keeper.progress.set(stream, 4 * MAX);
        node.look(1, 0, 2_000);
        assert!(held() <= MAX, "{}", held());
        // What has ended is told of until all is delivered.
        assert_eq!(node.look(1, 1, 3_000).delivered, [(attempt(0), delivery, true)]);
    }

    #[test]
    fn output_that_became_shorter_goes_on_behind_what_was_seen() {
        let mut node = node();
        node.write(0, "0.out", b"0123456789");
        node.look(1, 0, 1_000);
        let path = node.logs(0).path(Writer::Rank(0), Kind::Out);
        std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        node.look(1, 0, 2_000);
        node.write(0, "0.out", b"new");
        node.look(1, 0, 3_000);
        assert_eq!(node.logs(0).streams().unwrap()[0].size, 13);
    }
}
