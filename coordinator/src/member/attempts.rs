//! What this member remembers of attempts: where they ran, and how they ended.
//!
//! The state forgets an attempt when its resources are free; people ask for its logs, and for what
//! went wrong, afterwards. This is derived from what was under way when the member started and what
//! was applied since; it is written down beside the log (see `notebook`) and bounded: the oldest go
//! first. What passed this member by, the others are asked for (see `recall`).

mod kept;

pub(crate) use self::kept::{End, Fault, Kept, Noted};

use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use yard_common::id::{AllocationId, AttemptNumber, JobId, NodeId, TaskIndex};
use yard_common::limits::{
    ATTEMPTS_KEPT_MAX, ATTEMPTS_PAGE_BYTES, CHAIN_TASKS_MAX, PAYLOAD_BYTES_MAX,
};
use yard_core::agent::{ChainLink, ReportKind};
use yard_core::command::{Command, Envelope, NodeReport, Plan, Reply, ShareChoice, Stamp};
use yard_core::event::{Applied, Event};
use yard_core::state::{Allocation, State};
use yard_proto::wire::Payload;

/// Attempts of all jobs. Written by few tasks, read by all calls.
#[derive(Default)]
pub(crate) struct Attempts {
    books: Mutex<Books>,
    /// How often something passed this member by.
    gaps: watch::Sender<u64>,
}

#[derive(Default)]
struct Books {
    kept: BTreeMap<AllocationId, Kept>,
    by_job: BTreeMap<JobId, Vec<AllocationId>>,
    /// What is not written down yet.
    changed: BTreeSet<AllocationId>,
}

/// A part of what a member remembers, in the order of the allocations.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Page {
    /// It.
    #[n(0)]
    pub(crate) noted: Vec<Noted>,
    /// Whether there is more behind it.
    #[n(1)]
    pub(crate) has_more: bool,
}

impl Payload for Page {
    const NAME: &'static str = "remembered attempts";
    const BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something passed this member by: it knows what is under way in the state, and what it knew
    /// of jobs that are there still.
    pub(crate) fn start_anew(&self, state: &State) {
        let mut books = self.lock();
        let is_gone = |job: &&JobId| state.jobs.get(**job).is_none();
        let gone: Vec<JobId> = books.by_job.keys().filter(is_gone).copied().collect();
        gone.into_iter().for_each(|job| books.forget(job));
        for (id, allocation) in state.allocations.iter() {
            if !books.kept.contains_key(&id) {
                books.keep(id, under_way(state, allocation));
            }
        }
        drop(books);
        self.gaps.send_modify(|gaps| *gaps += 1);
    }

    /// How often something passed this member by.
    pub(crate) fn gaps(&self) -> watch::Receiver<u64> {
        self.gaps.subscribe()
    }

    /// What another member remembers. What came of it later is known here already.
    pub(crate) fn told(&self, noted: Vec<Noted>) {
        let mut books = self.lock();
        for (id, theirs) in noted {
            let known = books.kept.get(&id).cloned();
            match known {
                Some(known) if known.job != theirs.job => {}
                Some(known) => {
                    let merged = known.clone().merge(theirs);
                    if merged != known {
                        books.keep(id, merged);
                    }
                }
                None => books.keep(id, theirs),
            }
        }
    }

    /// What is remembered, from an allocation on.
    pub(crate) fn page(&self, from: AllocationId) -> Page {
        let books = self.lock();
        let (mut noted, mut bytes) = (Vec::new(), 0);
        for (id, kept) in books.kept.range(from..) {
            if bytes >= ATTEMPTS_PAGE_BYTES {
                return Page { noted, has_more: true };
            }
            let one = (*id, kept.clone());
            bytes += minicbor::to_vec(&one).map_or(0, |bytes| bytes.len());
            noted.push(one);
        }
        Page { noted, has_more: false }
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
    pub(crate) fn remember(&self, noted: Vec<Noted>) {
        let mut books = self.lock();
        noted.into_iter().for_each(|(id, kept)| books.keep(id, kept));
        books.changed.clear();
    }

    /// What has changed since the last time, to be written down.
    pub(crate) fn changed(&self) -> Vec<Noted> {
        let mut books = self.lock();
        let ids = std::mem::take(&mut books.changed);
        // What was forgotten since is not written.
        ids.into_iter().filter_map(|id| Some((id, books.kept.get(&id)?.clone()))).collect()
    }

    /// Everything, in order.
    pub(crate) fn all(&self) -> Vec<Noted> {
        self.lock().kept.iter().map(|(id, kept)| (*id, kept.clone())).collect()
    }

    /// The nodes of an allocation, in the order of the gang.
    pub(crate) fn nodes_of(&self, id: AllocationId) -> Vec<NodeId> {
        let books = self.lock();
        let kept = books.kept.get(&id);
        kept.map_or(Vec::new(), |kept| kept.shares.iter().map(|(node, _)| *node).collect())
    }

    /// The job of an allocation.
    pub(crate) fn job_of(&self, id: AllocationId) -> Option<JobId> {
        self.lock().kept.get(&id).map(|kept| kept.job)
    }

    /// Allocations of a job, the latest first.
    pub(crate) fn of(&self, job: JobId) -> Vec<Noted> {
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
    ) -> Option<Noted> {
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

    fn forget(&mut self, job: JobId) {
        for id in self.by_job.remove(&job).unwrap_or_default() {
            self.kept.remove(&id);
            self.changed.remove(&id);
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
                if !full && !kept.faults.iter().any(|known| known.is_of(&fault)) {
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
                    let end = End { tasks: *tasks, attempt: *attempt, cause: *cause, at };
                    if !kept.ends.iter().any(|known| known.is_of(&end)) {
                        kept.ends.push(end);
                        self.changed.insert(*allocation);
                    }
                }
            }
            Event::Forgotten(job) => self.forget(*job),
            Event::Changed(_)
            | Event::Job { .. }
            | Event::Tasks { .. }
            | Event::Freed(_)
            | Event::Node { .. }
            | Event::Desired { .. }
            | Event::Silence { .. } => {}
            Event::ShareLost { allocation, node } => {
                if let Some(kept) = self.kept.get_mut(allocation) {
                    kept.lost(*node);
                    self.changed.insert(*allocation);
                }
            }
        }
    }
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
    use super::kept::Start;
    use super::*;
    use yard_common::ExitCause;
    use yard_common::gpu::GpuGrant;
    use yard_common::id::{LeaderId, LogIndex, MemberId, Sequence, TaskRange};
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
    fn a_lost_node_is_to_blame_and_not_whom_it_took_along() {
        let books = Attempts::default();
        let tasks = TaskRange { first: 0, len: 4 };
        grant(&books, 1, 1);
        books.lock().kept.get_mut(&AllocationId(1)).unwrap().shares.push((NodeId(8), 0));
        let allocation = AllocationId(1);
        let lost = Event::ShareLost { allocation, node: NodeId(8) };
        learn(&books, Command::Plan(Plan::default()), Reply::Done, vec![lost]);
        let exit = Exit {
            link: ChainLink { tasks, attempt: AttemptNumber(1) },
            cause: ExitCause::Signaled(15),
            status: None,
            rank: Some(1),
        };
        let report = Report {
            sequence: Sequence(1),
            assignment: AssignmentId { allocation, group: 0 },
            what: ReportKind::Exited(vec![exit]),
        };
        let (attempt, cause) = (AttemptNumber(1), ExitCause::NodeLost);
        let ended = Event::AttemptEnded { job: JOB, tasks, attempt, cause, allocation };
        let reports = NodeReport { node: NODE, reports: vec![report] };
        learn(&books, Command::Report(reports), Reply::Reported(Sequence(1)), vec![ended]);
        let (_, kept) = books.find(JOB, 1, attempt).unwrap();
        let fault = kept.fault_of(1).unwrap();
        assert_eq!((fault.node, fault.rank), (NodeId(8), None));
        let end = kept.end_of(1).unwrap();
        assert_eq!(kept.exit_of((NodeId(8), 0), end), None, "nobody knows how its ranks ended");
        assert_eq!(kept.exit_of((NODE, 0), end), Some(ExitCause::Signaled(15)));
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

    fn kept(nodes: u32) -> Kept {
        Kept {
            job: JOB,
            links: Vec::new(),
            shares: (0..nodes).map(|node| (NodeId(node), 0)).collect(),
            granted: Stamp { cluster_ms: 5, wall_ms: 6 },
            starts: Vec::new(),
            ends: Vec::new(),
            faults: Vec::new(),
        }
    }

    #[test]
    fn what_is_told_in_pages_is_all_of_it_and_fits_a_message() {
        let books = Attempts::default();
        books.remember((1..=500).map(|id| (AllocationId(id), kept(2_000))).collect());
        let anew = Attempts::default();
        let (mut from, mut pages) = (AllocationId(0), 0);
        loop {
            let bytes = books.page(from).to_payload().unwrap();
            assert!(bytes.len() < 2 * ATTEMPTS_PAGE_BYTES);
            let page = Page::from_payload(&bytes).unwrap();
            (from, pages) = (AllocationId(page.noted.last().unwrap().0.0 + 1), pages + 1);
            anew.told(page.noted);
            if !page.has_more {
                break;
            }
        }
        assert!(pages > 1);
        assert_eq!((anew.all(), anew.changed().len()), (books.all(), 500));
    }

    #[test]
    fn what_others_tell_comes_before_what_was_heard_since() {
        let link = |task| ChainLink { tasks: TaskRange::one(task), attempt: AttemptNumber(1) };
        let stamp = |cluster_ms| Stamp { cluster_ms, wall_ms: 0 };
        let start = |task, at| Start { link: link(task), at: stamp(at) };
        let end = |task, at| End {
            tasks: TaskRange::one(task),
            attempt: AttemptNumber(1),
            cause: ExitCause::Exited(3),
            at: stamp(at),
        };
        let theirs = Kept {
            links: vec![link(0), link(1)],
            starts: vec![start(0, 10), start(1, 20)],
            ends: vec![end(0, 15)],
            ..kept(1)
        };
        // Of what runs when a snapshot comes, its start is not in the state.
        let own = Kept {
            links: vec![link(1), link(2)],
            starts: vec![start(2, 30)],
            ends: vec![end(1, 25)],
            granted: stamp(9),
            ..kept(1)
        };
        let whole = Kept {
            links: vec![link(0), link(1), link(2)],
            starts: vec![start(0, 10), start(1, 20), start(2, 30)],
            ends: vec![end(0, 15), end(1, 25)],
            ..kept(1)
        };
        let books = Attempts::default();
        books.remember(vec![(AllocationId(1), own)]);
        books.told(vec![(AllocationId(1), theirs.clone())]);
        assert_eq!(books.changed(), [(AllocationId(1), whole.clone())]);
        books.told(vec![(AllocationId(1), theirs)]);
        assert_eq!(books.changed(), [], "nothing new");
        let other = Kept { job: JobId(9), ..kept(3) };
        books.told(vec![(AllocationId(1), other)]);
        assert_eq!(books.all(), [(AllocationId(1), whole)], "an allocation has one job");
    }
}
