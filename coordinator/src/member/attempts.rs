//! What this member remembers of attempts: where they ran, and how they ended.
//!
//! The state forgets an attempt when its resources are free; people ask for its logs, and for what
//! went wrong, afterwards. This is derived from what was under way when the member started and what
//! was applied since; it is written down beside the log (see `notebook`) and bounded: the oldest go
//! first.

use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use yard_common::ExitCause;
use yard_common::id::{AllocationId, AttemptNumber, JobId, NodeId, TaskIndex, TaskRange};
use yard_common::limits::{ATTEMPTS_KEPT_MAX, CHAIN_TASKS_MAX};
use yard_core::agent::{ChainLink, ReportKind};
use yard_core::command::{Command, Envelope, NodeReport, Plan, Reply, ShareChoice, Stamp};
use yard_core::event::{Applied, Event};
use yard_core::state::{Allocation, State};

/// Attempts of all jobs. Written by one task, read by all calls.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<Books>);

#[derive(Default)]
struct Books {
    kept: BTreeMap<AllocationId, Kept>,
    by_job: BTreeMap<JobId, Vec<AllocationId>>,
    /// What is not written down yet.
    changed: BTreeSet<AllocationId>,
}

/// One allocation, with the attempts that ran on it in turn.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Kept {
    /// The job.
    #[n(0)]
    pub(crate) job: JobId,
    /// The attempts.
    #[n(1)]
    pub(crate) links: Vec<ChainLink>,
    /// Node and group of each share, in the order of the gang.
    #[n(2)]
    pub(crate) shares: Vec<(NodeId, u8)>,
    /// When it was granted.
    #[n(3)]
    pub(crate) granted: Stamp,
    /// When ranks of attempts were first told to run, in order. A member that came later does not
    /// know it of what ran then.
    #[n(4)]
    pub(crate) starts: Vec<Start>,
    /// How attempts ended, in order.
    #[n(5)]
    pub(crate) ends: Vec<End>,
    /// What nodes reported of ends that were no success, in order; each share once an attempt.
    #[n(6)]
    pub(crate) faults: Vec<Fault>,
}

/// The start of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Start {
    /// Which tasks, and their attempt.
    #[n(0)]
    pub(crate) link: ChainLink,
    /// When.
    #[n(1)]
    pub(crate) at: Stamp,
}

/// The end of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct End {
    /// Which tasks.
    #[n(0)]
    pub(crate) tasks: TaskRange,
    /// Their attempt.
    #[n(1)]
    pub(crate) attempt: AttemptNumber,
    /// Why.
    #[n(2)]
    pub(crate) cause: ExitCause,
    /// When.
    #[n(3)]
    pub(crate) at: Stamp,
}

/// An end that was no success, as its node told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Fault {
    /// Which tasks, and their attempt.
    #[n(0)]
    pub(crate) link: ChainLink,
    /// The node.
    #[n(1)]
    pub(crate) node: NodeId,
    /// The group of the share.
    #[n(2)]
    pub(crate) group: u8,
    /// The rank on that node, if one is to blame.
    #[n(3)]
    pub(crate) rank: Option<u32>,
    /// How the ranks there ended.
    #[n(4)]
    pub(crate) cause: ExitCause,
}

impl Kept {
    /// Whether it has an attempt of a task; 0: any.
    pub(crate) fn has(&self, task: TaskIndex, attempt: AttemptNumber) -> bool {
        let is = |link: &ChainLink| {
            link.tasks.contains(task) && (attempt.0 == 0 || link.attempt == attempt)
        };
        self.links.iter().any(is)
    }

    /// The number of the attempt of a task.
    pub(crate) fn attempt_of(&self, task: TaskIndex) -> Option<AttemptNumber> {
        let link = self.links.iter().find(|link| link.tasks.contains(task));
        link.map(|link| link.attempt)
    }

    /// When ranks of a task's attempt had started.
    pub(crate) fn start_of(&self, task: TaskIndex) -> Option<Stamp> {
        let start = self.starts.iter().find(|start| start.link.tasks.contains(task));
        start.map(|start| start.at)
    }

    /// Takes the first word on each task: a gang has one from each of its nodes, and what was told
    /// is told again after a connection broke.
    fn started(&mut self, link: ChainLink, at: Stamp) {
        let known = self
            .links
            .iter()
            .any(|known| known.attempt == link.attempt && known.tasks.contains(link.tasks.first));
        if !known || self.start_of(link.tasks.first).is_some() {
            return;
        }
        let full = self.starts.len() >= CHAIN_TASKS_MAX as usize;
        match self.starts.last_mut() {
            Some(last) if last.at == at && follows(&last.link, &link) => {
                last.link.tasks.len += link.tasks.len;
            }
            _ if full => {}
            _ => self.starts.push(Start { link, at }),
        }
    }

    /// How the attempt of a task ended.
    pub(crate) fn end_of(&self, task: TaskIndex) -> Option<&End> {
        self.ends.iter().find(|end| end.tasks.contains(task))
    }

    /// How the share of a node ended, of tasks that ended together; nothing where nobody told.
    pub(crate) fn exit_of(&self, share: (NodeId, u8), end: &End) -> Option<ExitCause> {
        let is = |fault: &&Fault| {
            (fault.node, fault.group) == share && fault.link.tasks.contains(end.tasks.first)
        };
        let told = self.faults.iter().find(is).map(|fault| fault.cause);
        told.or(end.cause.is_success().then_some(end.cause))
    }

    /// Who failed first in the attempt of a task.
    pub(crate) fn fault_of(&self, task: TaskIndex) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.link.tasks.contains(task))
    }
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is under way in a state. What is known already stays as it is.
    pub(crate) fn seed(&self, state: &State) {
        let mut books = self.lock();
        for (id, allocation) in state.allocations.iter() {
            if !books.kept.contains_key(&id) {
                books.keep(id, under_way(state, allocation));
            }
        }
    }

    /// A command was applied.
    pub(crate) fn learn(&self, envelope: &Envelope, command: &Command, applied: &Applied) {
        let mut books = self.lock();
        if let (Command::Plan(plan), Ok(Reply::Planned { placements })) = (command, &applied.reply)
        {
            books.granted(plan, placements, envelope.stamp);
        }
        if let (Command::Report(report), Ok(_)) = (command, &applied.reply) {
            books.reported(report, envelope.stamp);
        }
        for event in &applied.events {
            books.happened(event, envelope.stamp);
        }
    }

    /// Takes in what was written down before the member started.
    pub(crate) fn remember(&self, noted: Vec<(AllocationId, Kept)>) {
        let mut books = self.lock();
        noted.into_iter().for_each(|(id, kept)| books.keep(id, kept));
        books.changed.clear();
    }

    /// What has changed since the last time, to be written down.
    pub(crate) fn changed(&self) -> Vec<(AllocationId, Kept)> {
        let mut books = self.lock();
        let ids = std::mem::take(&mut books.changed);
        // What was forgotten since is not written.
        ids.into_iter().filter_map(|id| Some((id, books.kept.get(&id)?.clone()))).collect()
    }

    /// Everything, in order.
    pub(crate) fn all(&self) -> Vec<(AllocationId, Kept)> {
        self.lock().kept.iter().map(|(id, kept)| (*id, kept.clone())).collect()
    }

    /// The job of an allocation.
    pub(crate) fn job_of(&self, id: AllocationId) -> Option<JobId> {
        self.lock().kept.get(&id).map(|kept| kept.job)
    }

    /// Allocations of a job, the latest first.
    pub(crate) fn of(&self, job: JobId) -> Vec<(AllocationId, Kept)> {
        let books = self.lock();
        let ids = books.by_job.get(&job).into_iter().flatten().rev();
        ids.filter_map(|id| Some((*id, books.kept.get(id)?.clone()))).collect()
    }

    /// The latest allocation that had this attempt of a task; 0: any.
    pub(crate) fn find(
        &self,
        job: JobId,
        task: TaskIndex,
        attempt: AttemptNumber,
    ) -> Option<(AllocationId, Kept)> {
        let books = self.lock();
        let mut ids = books.by_job.get(&job)?.iter().rev();
        ids.find_map(|id| {
            let kept = books.kept.get(id).filter(|kept| kept.has(task, attempt))?;
            Some((*id, kept.clone()))
        })
    }
}

impl Books {
    fn granted<E>(&mut self, plan: &Plan, placements: &[Result<AllocationId, E>], at: Stamp) {
        for (placement, outcome) in plan.placements.iter().zip(placements) {
            let Ok(id) = outcome else { continue };
            let share = |share: &ShareChoice| (share.node, share.group);
            let kept = Kept {
                job: placement.job,
                links: Vec::new(),
                shares: placement.shares.iter().map(share).collect(),
                granted: at,
                starts: Vec::new(),
                ends: Vec::new(),
                faults: Vec::new(),
            };
            self.keep(*id, kept);
        }
    }

    fn keep(&mut self, id: AllocationId, kept: Kept) {
        let ids = self.by_job.entry(kept.job).or_default();
        // In order, and once, also if an entry comes again that the state had already.
        if let Err(at) = ids.binary_search(&id) {
            ids.insert(at, id);
        }
        self.kept.insert(id, kept);
        self.changed.insert(id);
        while self.kept.len() > ATTEMPTS_KEPT_MAX {
            let Some((id, kept)) = self.kept.pop_first() else { return };
            self.changed.remove(&id);
            if let Some(ids) = self.by_job.get_mut(&kept.job) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_job.remove(&kept.job);
                }
            }
        }
    }

    fn reported(&mut self, report: &NodeReport, at: Stamp) {
        for one in &report.reports {
            let Some(kept) = self.kept.get_mut(&one.assignment.allocation) else { continue };
            self.changed.insert(one.assignment.allocation);
            let exits = match &one.what {
                ReportKind::Started(chain) => {
                    chain.0.iter().for_each(|link| kept.started(*link, at));
                    continue;
                }
                ReportKind::Exited(exits) => exits,
                ReportKind::Ready
                | ReportKind::Recalled(_)
                | ReportKind::Reaped
                | ReportKind::Silent { .. }
                | ReportKind::Active => continue,
            };
            for exit in exits.iter().filter(|exit| !exit.cause.is_success()) {
                let fault = Fault {
                    link: exit.link,
                    node: report.node,
                    group: one.assignment.group,
                    rank: exit.rank,
                    cause: exit.cause,
                };
                // A chain has one share, and a gang of many shares one attempt.
                let full = kept.faults.len() >= kept.shares.len().max(CHAIN_TASKS_MAX as usize);
                let is = |known: &Fault| {
                    (known.link, known.node, known.group) == (fault.link, fault.node, fault.group)
                };
                if !full && !kept.faults.iter().any(is) {
                    kept.faults.push(fault);
                }
            }
        }
    }

    fn happened(&mut self, event: &Event, at: Stamp) {
        match event {
            Event::Granted { allocation, tasks, attempt, .. } => {
                if let Some(kept) = self.kept.get_mut(allocation) {
                    let link = ChainLink { tasks: *tasks, attempt: *attempt };
                    // A member that starts anew may hear again what it has written down.
                    if !kept.links.contains(&link) {
                        kept.links.push(link);
                        self.changed.insert(*allocation);
                    }
                }
            }
            Event::AttemptEnded { tasks, attempt, cause, allocation, .. } => {
                if let Some(kept) = self.kept.get_mut(allocation) {
                    let (tasks, attempt, cause) = (*tasks, *attempt, *cause);
                    let is = |end: &End| (end.tasks, end.attempt) == (tasks, attempt);
                    if !kept.ends.iter().any(is) {
                        kept.ends.push(End { tasks, attempt, cause, at });
                        self.changed.insert(*allocation);
                    }
                }
            }
            Event::Forgotten(job) => {
                for id in self.by_job.remove(job).unwrap_or_default() {
                    self.kept.remove(&id);
                    self.changed.remove(&id);
                }
            }
            Event::Changed(_)
            | Event::Job { .. }
            | Event::Tasks { .. }
            | Event::Freed(_)
            | Event::Node { .. }
            | Event::Desired { .. }
            | Event::Silence { .. } => {}
        }
    }
}

/// Whether a link goes on where another one ends.
fn follows(before: &ChainLink, link: &ChainLink) -> bool {
    before.attempt == link.attempt && before.tasks.end() == link.tasks.first
}

/// An allocation of a state that nothing else is known of. Of a chain, what has ended of it is not
/// in the state any more.
fn under_way(state: &State, allocation: &Allocation) -> Kept {
    let ago_ms = state.clock.cluster_ms.saturating_sub(allocation.granted_ms);
    let wall_ms = state.clock.wall_ms.saturating_sub(ago_ms);
    Kept {
        job: allocation.job,
        links: allocation.chain.0.clone(),
        shares: allocation.shares.iter().map(|share| (share.node, share.group)).collect(),
        granted: Stamp { cluster_ms: allocation.granted_ms, wall_ms },
        starts: Vec::new(),
        ends: Vec::new(),
        faults: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use yard_common::gpu::GpuGrant;
    use yard_common::id::{LeaderId, LogIndex, MemberId, Sequence};
    use yard_core::agent::{AssignmentId, Chain, Exit, Report};
    use yard_core::command::{Actor, Placement, Rejection};
    use yard_core::event::Audit;

    const JOB: JobId = JobId(3);
    const NODE: NodeId = NodeId(7);

    fn learn(books: &Attempts, command: Command, reply: Reply, events: Vec<Event>) {
        learn_at(books, Stamp { cluster_ms: 5, wall_ms: 6 }, command, reply, events);
    }

    fn learn_at(
        books: &Attempts,
        stamp: Stamp,
        command: Command,
        reply: Reply,
        events: Vec<Event>,
    ) {
        let leader = LeaderId { term: 1, member: MemberId(1) };
        let envelope = Envelope { actor: Actor::Leader, leader, stamp, request: None };
        let audit = Audit {
            index: LogIndex(1),
            actor: Actor::Leader,
            request: None,
            wall_ms: 6,
            family: command.family().into(),
            outcome: Ok(reply.clone()),
        };
        books.learn(&envelope, &command, &Applied { reply: Ok(reply), events, audit });
    }

    fn grant(books: &Attempts, id: u64, attempt: u32) {
        let share = ShareChoice { node: NODE, group: 0, gpus: GpuGrant::NONE };
        let tasks = TaskRange { first: 0, len: 4 };
        let placement = Placement { job: JOB, tasks: vec![tasks], shares: vec![share] };
        let other = Placement { job: JobId(9), tasks: vec![tasks], shares: Vec::new() };
        let plan = Plan { placements: vec![other, placement], ..Plan::default() };
        let (allocation, attempt) = (AllocationId(id), AttemptNumber(attempt));
        let refused = Err(Rejection::DoesNotFit("full".into()));
        let reply = Reply::Planned { placements: vec![refused, Ok(allocation)] };
        let granted = Event::Granted { allocation, job: JOB, tasks, attempt };
        learn(books, Command::Plan(plan), reply, vec![granted]);
    }

    #[test]
    fn an_ended_attempt_is_found_with_who_failed_first() {
        let books = Attempts::default();
        grant(&books, 1, 1);
        let link = |task| ChainLink { tasks: TaskRange::one(task), attempt: AttemptNumber(1) };
        let exit = |task, code, rank| Exit {
            link: link(task),
            cause: ExitCause::Exited(code),
            status: None,
            rank,
        };
        let report = Report {
            sequence: Sequence(1),
            assignment: AssignmentId { allocation: AllocationId(1), group: 0 },
            what: ReportKind::Exited(vec![exit(0, 0, None), exit(1, 3, Some(2)), exit(1, 4, None)]),
        };
        let ended = Event::AttemptEnded {
            job: JOB,
            tasks: TaskRange::one(1),
            attempt: AttemptNumber(1),
            cause: ExitCause::Exited(3),
            allocation: AllocationId(1),
        };
        let reports = NodeReport { node: NODE, reports: vec![report] };
        learn(&books, Command::Report(reports), Reply::Reported(Sequence(1)), vec![ended]);
        let (id, kept) = books.find(JOB, 1, AttemptNumber(1)).unwrap();
        assert_eq!((id, kept.shares.as_slice()), (AllocationId(1), &[(NODE, 0)][..]));
        assert_eq!(kept.fault_of(1).unwrap().rank, Some(2));
        assert_eq!(kept.end_of(1).unwrap().cause, ExitCause::Exited(3));
        assert!(kept.fault_of(0).is_none() && kept.end_of(0).is_none());
        let end = kept.end_of(1).unwrap();
        assert_eq!(kept.exit_of((NODE, 0), end), Some(ExitCause::Exited(3)));
        assert_eq!(kept.exit_of((NODE, 1), end), None, "nobody told of it");
        let success = End { cause: ExitCause::Exited(0), ..*end };
        assert_eq!(kept.exit_of((NODE, 1), &success), Some(ExitCause::Exited(0)));
        assert_eq!(books.find(JOB, 1, AttemptNumber(2)), None);
        assert_eq!(books.find(JobId(9), 1, AttemptNumber(0)), None, "it was refused");
    }

    #[test]
    fn the_first_word_on_a_start_counts() {
        let books = Attempts::default();
        grant(&books, 1, 1);
        let started = |cluster_ms, first, len, attempt| {
            let tasks = TaskRange { first, len };
            let link = ChainLink { tasks, attempt: AttemptNumber(attempt) };
            let report = Report {
                sequence: Sequence(1),
                assignment: AssignmentId { allocation: AllocationId(1), group: 0 },
                what: ReportKind::Started(Chain(vec![link])),
            };
            let command = Command::Report(NodeReport { node: NODE, reports: vec![report] });
            let stamp = Stamp { cluster_ms, wall_ms: cluster_ms + 1 };
            learn_at(&books, stamp, command, Reply::Reported(Sequence(1)), Vec::new());
        };
        started(7, 0, 1, 1);
        started(7, 1, 1, 1);
        started(8, 0, 2, 1);
        started(9, 2, 1, 2);
        let (_, kept) = books.find(JOB, 0, AttemptNumber(1)).unwrap();
        let first = Some(Stamp { cluster_ms: 7, wall_ms: 8 });
        assert_eq!([0, 1, 2, 3].map(|task| kept.start_of(task)), [first, first, None, None]);
        assert_eq!(kept.starts.len(), 1, "neighbours of one moment are kept as one");
    }

    #[test]
    fn what_was_written_down_is_known_and_heard_once() {
        let books = Attempts::default();
        grant(&books, 1, 1);
        let ended = Event::AttemptEnded {
            job: JOB,
            tasks: TaskRange::one(1),
            attempt: AttemptNumber(1),
            cause: ExitCause::Exited(3),
            allocation: AllocationId(1),
        };
        learn(&books, Command::Plan(Plan::default()), Reply::Done, vec![ended.clone()]);
        let noted = books.changed();
        assert_eq!(noted, books.all());
        assert_eq!(books.changed(), []);
        let anew = Attempts::default();
        anew.remember(noted.clone());
        assert_eq!(anew.changed(), []);
        learn(&anew, Command::Plan(Plan::default()), Reply::Done, vec![ended]);
        assert_eq!((anew.all(), anew.changed()), (noted, Vec::new()));
        grant(&anew, 2, 2);
        learn(&anew, Command::Plan(Plan::default()), Reply::Done, vec![Event::Forgotten(JOB)]);
        assert_eq!((anew.all(), anew.changed()), (Vec::new(), Vec::new()));
    }

    #[test]
    fn the_latest_comes_first_and_a_forgotten_job_goes() {
        let books = Attempts::default();
        grant(&books, 1, 1);
        grant(&books, 2, 2);
        assert_eq!(books.find(JOB, 0, AttemptNumber(0)).unwrap().0, AllocationId(2));
        assert_eq!(books.find(JOB, 0, AttemptNumber(1)).unwrap().0, AllocationId(1));
        assert_eq!(books.of(JOB).len(), 2);
        learn(&books, Command::Plan(Plan::default()), Reply::Done, vec![Event::Forgotten(JOB)]);
        assert!(books.of(JOB).is_empty());
    }
}
