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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: u32,
    job: JobId,
}

impl Place {
    const MIN: Place = Place { rank: 0, job: JobId(0) };
    const MAX: Place = Place { rank: u32::MAX, job: JobId(u64::MAX) };
}

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
        self.place.job
    }
}

fn place_of(id: JobId, job: &Job) -> Place {
    Place { rank: job.place(id).rank, job: id }
}

fn is_pending(job: &Job) -> bool {
    job.tasks.counts().of(TaskState::Queued) > 0
}

/// All lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    lines: BTreeMap<LineKey, BTreeSet<Place>>,
    /// The first job of each line, queue by queue, so that a round begins without a look at every
    /// line: even where no two jobs are alike, it ends after a few turns.
    heads: BTreeMap<(QueueId, Place), LineKey>,
}

impl Lines {
    /// The lines of all pending jobs.
    pub(super) fn of(view: &State) -> Lines {
        let mut places: BTreeMap<LineKey, Vec<Place>> = BTreeMap::new();
        for (key, ()) in view.pending.iter() {
            let line = places.entry(LineKey::of(&view.jobs[key.job])).or_default();
            line.push(Place { rank: key.rank, job: key.job });
        }
        // Each line is in order already, which makes a set of it in one go.
        let head = |(key, line): (&LineKey, &Vec<Place>)| ((key.queue, line[0]), *key);
        let heads = places.iter().map(head).collect();
        let lines = places.into_iter().map(|(key, places)| (key, places.into_iter().collect()));
        Lines { lines: lines.collect(), heads }
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
        let (key, place) = (LineKey::of(job), place_of(id, job));
        let line = self.lines.entry(key).or_default();
        let before = line.first().copied();
        line.insert(place);
        self.move_head(key, before);
    }

    fn remove(&mut self, id: JobId, job: &Job) {
        let key = LineKey::of(job);
        let Some(line) = self.lines.get_mut(&key) else { return };
        let before = line.first().copied();
        line.remove(&place_of(id, job));
        self.move_head(key, before);
        if self.lines.get(&key).is_some_and(BTreeSet::is_empty) {
            self.lines.remove(&key);
        }
    }

    /// Brings the head of a line in line with its first job; `before`: the one that it had.
    fn move_head(&mut self, key: LineKey, before: Option<Place>) {
        let now = self.lines.get(&key).and_then(BTreeSet::first).copied();
        if before == now {
            return;
        }
        if let Some(place) = before {
            self.heads.remove(&(key.queue, place));
        }
        if let Some(place) = now {
            self.heads.insert((key.queue, place), key);
        }
    }

    /// The first head of a queue behind a place.
    fn head_after(&self, queue: QueueId, place: Option<Place>) -> Option<(Place, LineKey)> {
        let first = place
            .map_or(Bound::Included((queue, Place::MIN)), |place| Bound::Excluded((queue, place)));
        let ((_, place), key) =
            self.heads.range((first, Bound::Included((queue, Place::MAX)))).next()?;
        Some((*place, *key))
    }
}

/// Who is next, over all lines of queues that start tasks.
pub(super) struct Turns<'a> {
    lines: &'a Lines,
    /// What comes next: of each queue the next line that had no turn yet, and of the lines that
    /// had one and were put back their next job.
    next: BinaryHeap<Reverse<(Turn, LineKey, Source)>>,
}

/// Where a turn comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// It is the first of its line.
    Head,
    /// Its line was put back.
    Rest,
}

impl<'a> Turns<'a> {
    pub(super) fn new(lines: &'a Lines, view: &State) -> Turns<'a> {
        let mut turns = Turns { lines, next: BinaryHeap::new() };
        for (queue, record) in view.queues.iter().filter(|(_, queue)| queue.set.starts) {
            turns.push_head(queue, Reverse(record.set.priority), None);
        }
        turns
    }

    fn push_head(&mut self, queue: QueueId, priority: Reverse<i32>, after: Option<Place>) {
        if let Some((place, key)) = self.lines.head_after(queue, after) {
            self.next.push(Reverse((Turn { queue: priority, place }, key, Source::Head)));
        }
    }

    /// The next turn and its line, which leaves until it is put back.
    pub(super) fn pop(&mut self) -> Option<(Turn, LineKey)> {
        let Reverse((turn, key, source)) = self.next.pop()?;
        match source {
            Source::Head => self.push_head(key.queue, turn.queue, Some(turn.place)),
            Source::Rest => {}
        }
        Some((turn, key))
    }

    /// Lets the rest of a line take part again, behind the turn that was taken.
    pub(super) fn put_back(&mut self, turn: Turn, key: LineKey) {
        let rest = (Bound::Excluded(turn.place), Bound::Unbounded);
        let next = self.lines.lines.get(&key).and_then(|line| line.range(rest).next());
        if let Some(place) = next {
            let turn = Turn { place: *place, ..turn };
            self.next.push(Reverse((turn, key, Source::Rest)));
        }
    }
}
