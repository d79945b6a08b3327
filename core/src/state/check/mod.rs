//! The audit of the whole state: slow, obvious, and independent of how apply keeps its books.
//!
//! Every count, index and total is found anew from the records and compared with what is kept.
//! Tests and the simulator call it after each command. One file per group of rules.

mod attempts;
mod jobs;
mod names;
mod nodes;
mod timers;

use super::State;
use std::fmt;

/// A rule that the state breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Where, with what is kept and what was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// The rules, by what they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Counts of the tasks of a job are those of its runs, which cover its indices.
    TaskCounts,
    /// The state of a job follows from its tasks; it has an end exactly if its tasks have ended,
    /// and holds nothing then.
    JobState,
    /// A job is in the order of its queue exactly if it has a queued task.
    Pending,
    /// No task is queued while its job waits; no task is blocked for nothing.
    Blocked,
    /// Each task that holds resources is in the chain of one allocation, in the part that has not
    /// ended, under its present attempt; and the other way round.
    Attempt,
    /// Positions of a chain are in order, and an allocation has a cause exactly if it stops.
    Chain,
    /// Each group of a gang has as many different machines as it asks for.
    Gang,
    /// Nodes list exactly what is on them, and hold exactly the sum of it.
    NodeBooks,
    /// No device is held by more than one whole.
    Devices,
    /// Pools count their nodes, and know the smallest of them.
    Pools,
    /// Totals are those of allocations and of jobs that have not ended.
    Holdings,
    /// Shapes count the jobs and allocations that use them.
    Shapes,
    /// The request of each job leads to it, and no answer leads nowhere.
    Dedup,
    /// Whatever waits for a time has its timer.
    Timers,
    /// Who waits for whom is what jobs that have not ended say.
    Dependents,
    /// Ended jobs are listed by the time of their end.
    Ended,
    /// Each name leads to the one record that has it.
    Names,
    /// Holders count what they hold.
    HolderCounts,
    /// What is named exists.
    References,
    /// Promises are for tasks that wait, on nodes that exist.
    Reservations,
    /// An enabled user is admin of the whole cluster.
    Admin,
    /// No member has a number above the highest one that was given.
    Members,
}

impl Rule {
    /// Every rule.
    pub const ALL: &[Rule] = &[
        Rule::TaskCounts,
        Rule::JobState,
        Rule::Pending,
        Rule::Blocked,
        Rule::Attempt,
        Rule::Chain,
        Rule::Gang,
        Rule::NodeBooks,
        Rule::Devices,
        Rule::Pools,
        Rule::Holdings,
        Rule::Shapes,
        Rule::Dedup,
        Rule::Timers,
        Rule::Dependents,
        Rule::Ended,
        Rule::Names,
        Rule::HolderCounts,
        Rule::References,
        Rule::Reservations,
        Rule::Admin,
        Rule::Members,
    ];
}

impl State {
    /// Every rule that the state breaks; none, if all is well.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut findings = Findings::default();
        jobs::check(self, &mut findings);
        attempts::check(self, &mut findings);
        nodes::check(self, &mut findings);
        timers::check(self, &mut findings);
        names::check(self, &mut findings);
        findings.0
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    /// Notes a violation unless the rule holds here.
    fn expect(&mut self, rule: Rule, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Violation { rule, what: what() });
        }
    }

    /// Notes a violation unless what is kept is what was found.
    fn same<T: PartialEq + fmt::Debug>(
        &mut self,
        rule: Rule,
        what: impl FnOnce() -> String,
        kept: &T,
        found: &T,
    ) {
        self.expect(rule, kept == found, || format!("{}: kept {kept:?}, found {found:?}", what()));
    }
}
