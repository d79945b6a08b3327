//! Why a task waits: the planner itself is asked, with numbers from its own predicates.
//!
//! The reason is found by running a round up to the task's turn, and then by asking again in
//! worlds that differ in one thing: *would it start if nothing were in doubt? if no drain were
//! planned? if everything else were gone?* So an explanation cannot disagree with what
//! [`plan`](super::plan) does.

use super::cache::Cache;
use super::lines::{LineKey, Turn};
use super::round::{Round, Stop};
use super::site::Wish;
use super::{Budget, Policy};
use crate::command::ShareChoice;
use crate::fit::{Room, Unfit};
use crate::state::{Excess, Job, Phase, State, pending_of};
use std::collections::BTreeMap;
use yard_common::gpu::GpuCount;
use yard_common::id::{JobId, NodeId, QueueId, TaskId, TaskIndex, TaskRange};
use yard_common::state::TaskState;
use yard_common::{Amounts, PendingReason};

mod display;
mod numbers;
mod worlds;

/// Why a task waits, or that it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The task.
    pub task: TaskId,
    /// Where it is in its life.
    pub state: TaskState,
    /// What is going to happen.
    pub outlook: Outlook,
    /// Everything that keeps it back, first of all what the reason names.
    pub constraints: Vec<Constraint>,
    /// Changes that would let it start at once, each on its own.
    pub changes: Vec<Change>,
}

impl Explanation {
    /// Why it waits; nothing if it runs, has ended, or starts in the next round.
    #[must_use]
    pub fn reason(&self) -> Option<PendingReason> {
        match self.outlook {
            Outlook::Waits(reason) => Some(reason),
            Outlook::NotPending | Outlook::Starts => None,
        }
    }
}

/// What is going to happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It runs or has ended.
    NotPending,
    /// The next round of the scheduler starts it.
    Starts,
    /// It waits; the first reason in the order of checks.
    Waits(PendingReason),
}

/// Something that keeps a task back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// Held, and the reason given.
    Held(Box<str>),
    /// Suspended, and the reason given.
    Suspended(Box<str>),
    /// Jobs that it waits for and that have not ended as they must.
    Dependency(Vec<JobId>),
    /// Not before this time, in `cluster_ms`.
    NotBefore(u64),
    /// Its next attempt comes no earlier than this, in `cluster_ms`.
    Backoff(u64),
    /// Its queue starts nothing.
    QueueClosed(QueueId),
    /// Tasks of the array that hold resources, and how many may.
    Throttle {
        /// Hold resources, or would after the next round.
        running: u32,
        /// May.
        max: u32,
    },
    /// A limit.
    Limit(Excess),
    /// Too few nodes, group by group.
    Nodes(Vec<GroupNumbers>),
    /// Nodes that it could use and that jobs ahead of it wait for, by job.
    Claimed(Vec<(JobId, u32)>),
    /// Who holds resources of nodes that it could use, or gets them in the next round: those with
    /// most first.
    HeldBy(Vec<Holder>),
    /// What is in doubt on nodes that it could use.
    InDoubt {
        /// Nodes that are silent.
        silent: u32,
        /// Nodes with processes of ended attempts that are not seen gone.
        unreaped: u32,
    },
    /// Where it stands in its queue.
    Position {
        /// Its queue.
        queue: QueueId,
        /// Jobs with queued tasks before it.
        ahead: u32,
    },
}

/// What one group of a gang finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNumbers {
    /// Its name.
    pub name: Box<str>,
    /// Nodes that it needs at least.
    pub wanted: u32,
    /// What it takes of each node; of the first pool that it may use.
    pub amounts: Amounts,
    /// What it takes of GPUs.
    pub gpus: GpuCount,
    /// Nodes of the cluster.
    pub nodes: u32,
    /// Nodes that could run a share, as they are built.
    pub ever: u32,
    /// Nodes that have room now and are kept for nobody else.
    pub free: u32,
    /// Nodes that fail, by the first thing that they fail at.
    pub unfit: BTreeMap<Unfit, u32>,
    /// The most CPU, memory and disk that is free on any node that could run it, each on its own.
    /// If none could: on any that is only too small. Nothing if there is none of those either.
    pub most_free: Option<Amounts>,
    /// The most whole GPUs of an accepted kind that are free on any such node.
    pub most_free_gpus: u32,
    /// The most nodes that have room now and share a value of the level that the gang must lie
    /// within, if it must.
    pub together: Option<u32>,
}

/// A job that holds resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub job: JobId,
    /// Nodes on which it holds something.
    pub nodes: u32,
    /// GPUs that it holds there, in ten-thousandths.
    pub gpu_parts: u64,
}

/// A change that would let a task start at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Fewer nodes.
    Nodes(u32),
    /// Fewer whole GPUs a node.
    Gpus(u16),
    /// A higher limit, of the one that is passed.
    Limit {
        /// What is bounded, as in [`Excess`].
        what: &'static str,
        /// The bound, in the same unit.
        bound: u64,
    },
    /// Release, resume.
    Release,
    /// To open its queue.
    OpenQueue,
}

/// Why a task waits; nothing if there is no such task.
#[must_use]
pub fn explain(
    view: &State,
    now_ms: u64,
    policy: &Policy,
    job: JobId,
    task: TaskIndex,
) -> Option<Explanation> {
    let record = view.jobs.get(job)?;
    let phase = record.tasks.get(task)?.phase;
    let mut constraints = own_waits(view, record, task, phase);
    let mut changes = Vec::new();
    let task_id = TaskId { job, index: task };
    let mut outlook = match constraints.first() {
        Some(first) => Outlook::Waits(first.reason()),
        None => Outlook::NotPending,
    };
    if constraints.is_empty() && phase == Phase::Queued {
        let question = Question { view, now_ms, policy, task: task_id };
        let answer = question.ask();
        outlook = answer.outlook(&question);
        if outlook != Outlook::Starts {
            constraints = question.constraints(&answer, outlook);
            changes = question.changes(&answer);
        }
    } else if outlook != Outlook::NotPending {
        changes.extend(Question { view, now_ms, policy, task: task_id }.own_change(&constraints));
    }
    Some(Explanation { task: task_id, state: phase.state(), outlook, constraints, changes })
}

/// What keeps a task out of the order of its queue, or its queue from starting it.
fn own_waits(view: &State, job: &Job, task: TaskIndex, phase: Phase) -> Vec<Constraint> {
    let mut found = Vec::new();
    if !phase.state().is_pending() {
        return found;
    }
    let waits = &job.waits;
    found.extend(waits.held.clone().map(Constraint::Held));
    found.extend(waits.suspended.clone().map(Constraint::Suspended));
    let undone = undone(view, job, task);
    if waits.jobs > 0 || !undone.is_empty() {
        found.push(Constraint::Dependency(undone));
    }
    if waits.until_ms > 0 {
        found.push(Constraint::NotBefore(waits.until_ms));
    }
    if let Phase::Backoff(until_ms) = phase {
        found.push(Constraint::Backoff(until_ms));
    }
    if !view.queues[job.queue].set.starts {
        found.push(Constraint::QueueClosed(job.queue));
    }
    found
}

/// Jobs that a task waits for and that have not ended, or whose task of the same index has not.
fn undone(view: &State, job: &Job, task: TaskIndex) -> Vec<JobId> {
    let whole = job
        .plan
        .after
        .whole()
        .map(|(id, _)| id)
        .filter(|id| view.jobs.get(*id).is_some_and(|other| other.ended.is_none()));
    let each = job.plan.after.each.iter().copied().filter(|id| {
        let status = view.jobs.get(*id).and_then(|other| other.tasks.get(task));
        status.is_some_and(|status| !status.phase.state().is_terminal())
    });
    whole.chain(each).collect()
}

impl Constraint {
    /// The reason that users see for it, where it is the first.
    fn reason(&self) -> PendingReason {
        match self {
            Constraint::Held(_) => PendingReason::Held,
            Constraint::Suspended(_) => PendingReason::Suspended,
            Constraint::Dependency(_) => PendingReason::Dependency,
            Constraint::NotBefore(_) => PendingReason::NotBefore,
            Constraint::Backoff(_) => PendingReason::Backoff,
            Constraint::QueueClosed(_) => PendingReason::QueueClosed,
            Constraint::Throttle { .. } => PendingReason::ArrayThrottle,
            Constraint::Limit(excess) => excess.reason,
            Constraint::Claimed(_) => PendingReason::Priority,
            Constraint::InDoubt { .. } => PendingReason::NodesInDoubt,
            Constraint::Nodes(_) | Constraint::HeldBy(_) | Constraint::Position { .. } => {
                PendingReason::Resources
            }
        }
    }
}

/// Whether a queued task would start, in some world.
#[derive(Clone, Copy)]
struct Question<'a> {
    view: &'a State,
    now_ms: u64,
    policy: &'a Policy,
    task: TaskId,
}

/// What became of the task in its turn.
struct Answer {
    starts: bool,
    stop: Option<Stop>,
    /// Allocations of the job in the round.
    placed: u32,
    /// Nodes that it could use and that jobs ahead keep.
    claimed: BTreeMap<NodeId, JobId>,
    /// What the round left on nodes that it placed something on.
    rooms: BTreeMap<NodeId, Room>,
    /// What the round granted to jobs ahead: node, job, parts of GPUs.
    granted: Vec<(NodeId, JobId, u64)>,
}

impl Question<'_> {
    /// Runs a round up to and with the turn of the task's job.
    fn ask(&self) -> Answer {
        let mut cache = Cache::default();
        cache.refresh(self.view, self.now_ms);
        let round = Round::new(&cache, self.view, self.now_ms, self.policy, Budget::UNLIMITED);
        let mut round = round.explaining();
        let (id, job) = (self.task.job, &self.view.jobs[self.task.job]);
        let considered = round.run(Some(Turn::of(self.view, id, job)));
        let mut claimed: BTreeMap<_, _> = round.claims().collect();
        let shares = round.placements().iter().flat_map(|placement| {
            let grant = |share: &ShareChoice| (share.node, placement.job, share.gpus.total_parts());
            placement.shares.iter().map(grant)
        });
        let granted = shares.collect();
        // A plan that is full before its turn: the next one goes on with it.
        let mut stop = None;
        let line = LineKey::of(job);
        let cut = !considered
            || match round.serve(id, &line) {
                Ok(found) => {
                    stop = found;
                    false
                }
                Err(_) => true,
            };
        let wish = Wish::new(self.view, &line, self.now_ms);
        let sites = wish.sites(self.view, &round.stock.kinds, &round.holdings).sites;
        let wanted = round.wanted(&wish, &sites);
        claimed.retain(|node, _| wanted.contains(node));
        let mine = round.placements().iter().filter(|placement| placement.job == id);
        let has = |range: &TaskRange| range.contains(self.task.index);
        let starts = cut || mine.clone().any(|placement| placement.tasks.iter().any(has));
        let placed = u32::try_from(mine.count()).unwrap_or(u32::MAX);
        let rooms = round.taken.iter().map(|(id, taken)| (*id, taken.room.clone())).collect();
        Answer { starts, stop, placed, claimed, rooms, granted }
    }

    /// The one thing of its own that keeps a task back, if it would start without it.
    fn own_change(self, constraints: &[Constraint]) -> Option<Change> {
        let (change, world) = match constraints {
            [Constraint::Held(_) | Constraint::Suspended(_)] => {
                (Change::Release, self.view.as_if_released(self.task.job))
            }
            [Constraint::QueueClosed(queue)] => {
                (Change::OpenQueue, worlds::with_open_queue(self.view, *queue))
            }
            _ => return None,
        };
        self.in_world(&world).then_some(change)
    }

    fn in_world(self, view: &State) -> bool {
        Question { view, ..self }.ask().starts
    }

    fn job(&self) -> &Job {
        &self.view.jobs[self.task.job]
    }
}

impl Answer {
    /// What is going to happen, and why.
    fn outlook(&self, question: &Question<'_>) -> Outlook {
        if self.starts {
            return Outlook::Starts;
        }
        Outlook::Waits(match &self.stop {
            Some(Stop::Throttle) => PendingReason::ArrayThrottle,
            Some(Stop::Limit(excess)) => excess.reason,
            Some(Stop::NoRoom) | None => self.machines(question),
        })
    }

    /// Which of the reasons that lie with the machines it is.
    fn machines(&self, question: &Question<'_>) -> PendingReason {
        let view = question.view;
        if !worlds::ever_starts(question) {
            PendingReason::Unsatisfiable
        } else if question.in_world(&worlds::without_doubt(view)) {
            PendingReason::NodesInDoubt
        } else if question.in_world(&worlds::without_planned_drains(view, question.now_ms)) {
            PendingReason::PlannedDrain
        } else if self.claimed.is_empty() {
            PendingReason::Resources
        } else {
            PendingReason::Priority
        }
    }
}

impl Question<'_> {
    /// Everything with a number that keeps the task back; what the reason names comes first.
    fn constraints(&self, answer: &Answer, outlook: Outlook) -> Vec<Constraint> {
        let job = self.job();
        let mut found = match answer.stop {
            Some(Stop::Throttle) => {
                let max = job.plan.array.as_ref().and_then(|array| array.running_max);
                let running = job.allocations.saturating_add(answer.placed);
                vec![Constraint::Throttle { running, max: max.unwrap_or(running) }]
            }
            Some(Stop::Limit(excess)) => vec![Constraint::Limit(excess)],
            Some(Stop::NoRoom) | None => self.machine_constraints(answer, outlook),
        };
        let pending = pending_of(&self.view.pending, job.queue);
        let ahead = pending.take_while(|other| *other != self.task.job).count();
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        found.push(Constraint::Position { queue: job.queue, ahead });
        found
    }

    fn machine_constraints(&self, answer: &Answer, outlook: Outlook) -> Vec<Constraint> {
        let nodes = Constraint::Nodes(self.group_numbers(answer));
        let mut by_job: BTreeMap<JobId, u32> = BTreeMap::new();
        for job in answer.claimed.values() {
            *by_job.entry(*job).or_default() += 1;
        }
        let claimed: Vec<_> = by_job.into_iter().collect();
        let claimed = (!claimed.is_empty()).then_some(Constraint::Claimed(claimed));
        let holders = self.holders(answer);
        let held = (!holders.is_empty()).then_some(Constraint::HeldBy(holders));
        let mut found: Vec<_> =
            [self.in_doubt(), claimed, Some(nodes), held].into_iter().flatten().collect();
        // A stable sort keeps the rest in order behind what the reason names.
        found.sort_by_key(|constraint| Outlook::Waits(constraint.reason()) != outlook);
        found
    }
}
