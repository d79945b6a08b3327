//! Pending jobs in lines: jobs that are alike to the scheduler stand one behind the other.
//!
//! Jobs of one line have the same queue, owner, workspace, shape and time limit. What stops the
//! first of them (no room, a limit) stops all, so the whole line leaves the round at once. A
//! hundred thousand pending jobs are usually a few hundred lines.

use crate::state::{Job, Payers, State};
use crate::table::Table;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;
use yard_common::id::{JobId, PrincipalId, QueueId, ShapeId, WorkspaceId};
use yard_common::state::TaskState;

/// What jobs of one line have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineKey {
    pub(super) queue: QueueId,
    pub(super) workspace: WorkspaceId,
    pub(super) owner: PrincipalId,
    pub(super) shape: ShapeId,
    pub(super) time_limit_ms: Option<u64>,
}

impl LineKey {
    pub(super) fn of(job: &Job) -> LineKey {
        let Payers { queue, workspace, owner } = State::payers(job);
        let (shape, time_limit_ms) = (job.shape, job.plan.time_limit_ms);
        LineKey { queue, workspace, owner, shape, time_limit_ms }
    }

    pub(super) fn payers(&self) -> Payers {
        Payers { queue: self.queue, workspace: self.workspace, owner: self.owner }
    }
}

/// Place in a line: by priority, then as submitted.
type Place = (u32, JobId);

/// Place in the order of all that is planned: by priority of the queue, then as in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    queue: Reverse<i32>,
    place: Place,
}

impl Turn {
    /// The turn of a job, were it pending.
    pub(super) fn of(view: &State, id: JobId, job: &Job) -> Turn {
        Turn { queue: Reverse(view.queues[job.queue].set.priority), place: place_of(id, job) }
    }

    /// Whose turn it is.
    pub(super) fn job(&self) -> JobId {
        self.place.1
    }
}

fn place_of(id: JobId, job: &Job) -> Place {
    (job.place(id).rank, id)
}

fn is_pending(job: &Job) -> bool {
    job.tasks.counts().of(TaskState::Queued) > 0
}

/// All lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    lines: BTreeMap<LineKey, BTreeSet<Place>>,
}

impl Lines {
    /// The lines of all pending jobs.
    pub(super) fn of(view: &State) -> Lines {
        let mut places: BTreeMap<LineKey, Vec<Place>> = BTreeMap::new();
        for (key, ()) in view.pending.iter() {
            let line = places.entry(LineKey::of(&view.jobs[key.job])).or_default();
            line.push((key.rank, key.job));
        }
        // Each line is in order already, which makes a set of it in one go.
        let lines = places.into_iter().map(|(key, places)| (key, places.into_iter().collect()));
        Lines { lines: lines.collect() }
    }

    /// Takes in what changed since an older table of jobs.
    pub(super) fn update(&mut self, older: &Table<JobId, Job>, newer: &Table<JobId, Job>) {
        newer.changed_since(older, |id| {
            if let Some(job) = older.get(id).filter(|job| is_pending(job)) {
                self.remove(id, job);
            }
            if let Some(job) = newer.get(id).filter(|job| is_pending(job)) {
                self.add(id, job);
            }
        });
    }

    fn add(&mut self, id: JobId, job: &Job) {
        self.lines.entry(LineKey::of(job)).or_default().insert(place_of(id, job));
    }

    fn remove(&mut self, id: JobId, job: &Job) {
        let key = LineKey::of(job);
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.remove(&place_of(id, job));
        if line.is_empty() {
            self.lines.remove(&key);
        }
    }
}

/// Who is next, over all lines of queues that start tasks.
pub(super) struct Turns<'a> {
    lines: Vec<(&'a LineKey, Reverse<i32>, &'a BTreeSet<Place>)>,
    /// The first of each line that is still in the round.
    heads: BinaryHeap<Reverse<(Turn, usize)>>,
}

impl<'a> Turns<'a> {
    pub(super) fn new(lines: &'a Lines, view: &State) -> Turns<'a> {
        let mut found = Vec::with_capacity(lines.lines.len());
        // Lines come queue by queue, so each queue is looked up once.
        let mut last = None;
        for (key, line) in &lines.lines {
            if last.is_none_or(|(queue, _)| queue != key.queue) {
                last = Some((key.queue, &view.queues[key.queue].set));
            }
            if let Some((_, queue)) = last.filter(|(_, queue)| queue.starts) {
                found.push((key, Reverse(queue.priority), line));
            }
        }
        let lines = found;
        let head = |(at, (_, queue, line)): (usize, &(_, _, &BTreeSet<Place>))| {
            line.first().map(|place| Reverse((Turn { queue: *queue, place: *place }, at)))
        };
        let heads = lines.iter().enumerate().filter_map(head).collect();
        Turns { lines, heads }
    }

    /// The next turn, and the number of its line, which leaves until it is put back.
    pub(super) fn pop(&mut self) -> Option<(Turn, usize)> {
        self.heads.pop().map(|Reverse(head)| head)
    }

    /// What the jobs of a line have in common.
    pub(super) fn key(&self, line: usize) -> &LineKey {
        self.lines[line].0
    }

    /// Lets the rest of a line take part again, behind the turn that was taken.
    pub(super) fn put_back(&mut self, turn: Turn, line: usize) {
        let (_, queue, places) = &self.lines[line];
        let rest = (Bound::Excluded(turn.place), Bound::Unbounded);
        if let Some(place) = places.range(rest).next() {
            self.heads.push(Reverse((Turn { queue: *queue, place: *place }, line)));
        }
    }
}
