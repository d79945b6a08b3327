//! Attempts: their numbers, their ends, and what runs beside what.

use super::*;
use yard_core::agent::{AssignmentId, ChainLink, Ending, Exit, Report, ReportKind};
use yard_sim::clock::SECOND;
use yard_sim::truth::Run;

planted! {
    "attempts_rise": an_attempt_number_that_comes_twice,
    "exit_status_true": a_success_that_nobody_saw,
    "retries_within_budget": a_retry_beyond_the_budget,
    "retries_within_budget": a_failure_within_the_budget,
    "start_once": a_start_that_comes_twice,
    "no_overlap_strict": two_attempts_of_a_strict_job,
    "fenced_overlap_bounded": an_attempt_that_outlives_its_deadline,
}

pub(super) fn run(machine: usize, allocation: u64, attempt: u32) -> Run {
    Run {
        job: JobId(1),
        task: 0,
        attempt: AttemptNumber(attempt),
        assignment: AssignmentId { allocation: AllocationId(allocation), group: 0 },
        machine,
        from_us: 0,
        until_us: None,
        ending: None,
        was_frozen: false,
    }
}

/// Shows checkers that a run has begun.
pub(super) fn start(shown: &mut Shown, run: Run) -> Found {
    let at = shown.truth.start(run);
    let found = shown.checks.see(&Seen::Started(&shown.truth.runs[at]), &shown.truth);
    found.map(|(rule, _)| rule)
}

fn an_attempt_number_that_comes_twice() -> Found {
    let mut shown = Shown::begun();
    let events = vec![granted(1), ended(1, ExitCause::NodeLost), granted(1)];
    shown.facts(events, &State::default())
}

#[test]
fn attempt_numbers_that_rise() {
    let events = vec![granted(1), ended(1, ExitCause::NodeLost), granted(2)];
    assert_eq!(Shown::begun().facts(events, &State::default()), None);
}

fn a_success_that_nobody_saw() -> Found {
    let events = vec![granted(1), ended(1, ExitCause::Exited(0))];
    Shown::begun().facts(events, &State::default())
}

#[test]
fn a_success_that_was_seen_is_one() {
    let mut shown = Shown::begun();
    if let Some(known) = shown.truth.jobs.get_mut(&JobId(1)) {
        known.plan.decides = yard_core::job::Decides::FirstRank;
    }
    assert_eq!(start(&mut shown, run(0, 1, 1)), None);
    let ending = Ending { status: ExitCause::Exited(0), stopped: false, rank: None };
    shown.truth.end(0, run(0, 1, 1).assignment, Some(ending));
    let events = vec![granted(1), ended(1, ExitCause::Exited(0))];
    assert_eq!(shown.facts(events, &State::default()), None);
}

/// A task of a job that had so many retries exits with 1. Then its record says that it has others.
fn after_a_failure(had: u16, has: u16) -> Found {
    let mut lab = Lab::new();
    let job = lab.submit(1, |plan| plan.retry.user = had);
    let mut events = lab.start();
    let (id, node) = (lab.allocation(), lab.state.allocations[lab.allocation()].shares[0].node);
    let link = ChainLink { tasks: TaskRange::one(0), attempt: AttemptNumber(1) };
    let exit = Exit { link, cause: ExitCause::Exited(1), status: None, rank: None };
    let what = ReportKind::Exited(vec![exit]);
    let assignment = AssignmentId { allocation: id, group: 0 };
    let reports = vec![Report { sequence: Sequence(1), assignment, what }];
    let report = Command::Report(NodeReport { node, reports });
    events.extend(lab.apply(Actor::Node(node), report).1);
    let record = lab.state.jobs.get_mut(job).expect("it was submitted");
    record.plan.make_mut().retry.user = has;
    Shown::begun().facts(events, &lab.state)
}

fn a_retry_beyond_the_budget() -> Found {
    after_a_failure(1, 0)
}

fn a_failure_within_the_budget() -> Found {
    after_a_failure(0, 1)
}

#[test]
fn a_retry_within_the_budget() {
    assert_eq!((after_a_failure(1, 1), after_a_failure(0, 0)), (None, None));
}

fn a_start_that_comes_twice() -> Found {
    let mut shown = Shown::begun();
    assert_eq!(start(&mut shown, run(0, 1, 1)), None);
    start(&mut shown, run(0, 1, 1))
}

fn two_attempts_of(class: IsolationClass) -> Found {
    let mut shown = Shown { checks: all(), truth: truth(class) };
    assert_eq!(start(&mut shown, run(0, 1, 1)), None);
    start(&mut shown, run(1, 2, 2))
}

fn two_attempts_of_a_strict_job() -> Found {
    two_attempts_of(IsolationClass::Strict)
}

#[test]
fn two_attempts_of_a_fenced_job() {
    assert_eq!(two_attempts_of(IsolationClass::Fenced), None);
}

/// The older of two attempts ends so long after the newer one began.
fn an_overlap_of(seconds: u64) -> Found {
    let mut shown = Shown { checks: all(), truth: truth(IsolationClass::Fenced) };
    shown.truth.start(run(0, 1, 1));
    shown.truth.start(run(1, 2, 2));
    shown.truth.now_us = seconds * SECOND;
    let old = shown.truth.end(0, run(0, 1, 1).assignment, None);
    let found = shown.checks.see(&Seen::Ended(&shown.truth.runs[old]), &shown.truth);
    found.map(|(rule, _)| rule)
}

fn an_attempt_that_outlives_its_deadline() -> Found {
    an_overlap_of(61)
}

#[test]
fn an_attempt_that_ends_at_its_deadline() {
    assert_eq!(an_overlap_of(60), None);
}
