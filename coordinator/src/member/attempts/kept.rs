//! What is kept of one allocation.

use minicbor::{Decode, Encode};
use yard_common::ExitCause;
use yard_common::id::{AllocationId, AttemptNumber, JobId, NodeId, TaskIndex, TaskRange};
use yard_common::limits::CHAIN_TASKS_MAX;
use yard_core::agent::ChainLink;
use yard_core::command::Stamp;

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

/// An allocation, and what is remembered of it.
pub(crate) type Noted = (AllocationId, Kept);

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

impl End {
    pub(super) fn is_of(&self, other: &End) -> bool {
        (self.tasks, self.attempt) == (other.tasks, other.attempt)
    }
}

impl Fault {
    pub(super) fn is_of(&self, other: &Fault) -> bool {
        (self.link, self.node, self.group) == (other.link, other.node, other.group)
    }
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
    pub(super) fn started(&mut self, link: ChainLink, at: Stamp) {
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

    /// The same allocation as another member knows it. What that one has not heard yet came later.
    pub(super) fn merge(self, mut theirs: Kept) -> Kept {
        let Kept { links, starts, ends, faults, .. } = self;
        let is_known = |known: &[Start], new: &Start| {
            known.iter().any(|known| known.link.tasks.contains(new.link.tasks.first))
        };
        let starts = starts.into_iter().filter(|new| !is_known(&theirs.starts, new));
        theirs.starts.extend(starts.collect::<Vec<Start>>());
        add(&mut theirs.links, links, |known, new| known == new);
        add(&mut theirs.ends, ends, End::is_of);
        add(&mut theirs.faults, faults, Fault::is_of);
        theirs
    }

    /// The shares of a node are over without a word from it.
    pub(super) fn lost(&mut self, node: NodeId) {
        let groups = self.shares.iter().filter(|share| share.0 == node).map(|share| share.1);
        for group in groups {
            for link in &self.links {
                let fault =
                    Fault { link: *link, node, group, rank: None, cause: ExitCause::NodeLost };
                // Bounded: a gang has one link, and a chain one share.
                if !self.faults.contains(&fault) {
                    self.faults.push(fault);
                }
            }
        }
    }

    /// How the attempt of a task ended.
    pub(crate) fn end_of(&self, task: TaskIndex) -> Option<&End> {
        self.ends.iter().find(|end| end.tasks.contains(task))
    }

    /// How the share of a node ended, of tasks that ended together; nothing where nobody told.
    pub(crate) fn exit_of(&self, share: (NodeId, u8), end: &End) -> Option<ExitCause> {
        let is = |fault: &&Fault| {
            let of = fault.link.tasks.contains(end.tasks.first);
            // That the node was lost is no word of how its ranks ended.
            of && (fault.node, fault.group) == share && fault.cause != ExitCause::NodeLost
        };
        let told = self.faults.iter().find(is).map(|fault| fault.cause);
        told.or(end.cause.is_success().then_some(end.cause))
    }

    /// Who failed first in the attempt of a task, and for whom it ended. Ranks that were stopped
    /// since, for a lost node or a time limit, are not to blame.
    pub(crate) fn fault_of(&self, task: TaskIndex) -> Option<&Fault> {
        let cause = self.end_of(task).map(|end| end.cause);
        let mut told = self.faults.iter().filter(|fault| fault.link.tasks.contains(task));
        told.find(|fault| cause.is_none_or(|cause| fault.cause == cause))
    }

    /// Whose last words tell most of an attempt of a task: who is to blame, else whoever ended
    /// first.
    pub(crate) fn telling_of(&self, task: TaskIndex) -> Option<&Fault> {
        let first = self.faults.iter().find(|fault| fault.link.tasks.contains(task));
        self.fault_of(task).or(first)
    }
}

/// Adds what is not there yet.
fn add<T>(known: &mut Vec<T>, new: Vec<T>, is_same: impl Fn(&T, &T) -> bool) {
    for one in new {
        if !known.iter().any(|known| is_same(known, &one)) {
            known.push(one);
        }
    }
}

/// Whether a link goes on where another one ends.
fn follows(before: &ChainLink, link: &ChainLink) -> bool {
    before.attempt == link.attempt && before.tasks.end() == link.tasks.first
}
