//! A checker that cannot fail is no checker: each is shown something that breaks its rule.

use std::collections::BTreeMap;
use yard_common::ExitCause;
use yard_common::gpu::{DeviceSet, GpuGrant};
use yard_common::id::*;
use yard_common::state::{JobState, TaskState};
use yard_core::agent::{AssignmentId, Ending, Fence};
use yard_core::command::*;
use yard_core::event::{Applied, Audit, Event};
use yard_core::job::IsolationClass;
use yard_core::state::State;
use yard_sim::clock::SECOND;
use yard_sim::invariants::{Checks, Seen, Step, all};
use yard_sim::truth::{Behaviour, JobTruth, Run, Truth};
use yard_sim::workload::Workload;

const LEADER: LeaderId = LeaderId { term: 1, member: MemberId(1) };

/// A job of the witness with this isolation.
fn truth(class: IsolationClass) -> Truth {
    let mut truth = Truth::new(1);
    let mut plan = Workload::new(1).submit(1, 0, &[]).0.plan;
    plan.isolation.class = class;
    let behaviour = Behaviour { run_ms: (1, 1), permille: (0, 0, 0) };
    truth.jobs.insert(JobId(1), JobTruth { plan, behaviour });
    truth
}

fn run(machine: usize, allocation: u64, attempt: u32) -> Run {
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

/// Shows one applied command.
fn show(
    checks: &mut Checks,
    truth: &Truth,
    (leader, command): (LeaderId, Command),
    reply: Result<Reply, Rejection>,
    events: Vec<Event>,
    state: &State,
) -> Option<&'static str> {
    let (actor, request) = (Actor::User(PrincipalId(1)), Some(RequestId::from_u128(1)));
    let envelope = Envelope { actor, leader, stamp: Stamp::default(), request };
    let audit = Audit {
        index: LogIndex(1),
        actor,
        request,
        wall_ms: 0,
        family: "job".into(),
        outcome: reply.clone(),
    };
    let applied = Applied { reply, events, audit };
    let step =
        Step { index: 1, nth: 0, envelope: &envelope, command: &command, applied: &applied, state };
    checks.see(&Seen::Applied(step), truth).map(|(rule, _)| rule)
}

fn begun() -> (Checks, Truth, State) {
    let (mut checks, truth, state) = (all(), truth(IsolationClass::Fenced), State::default());
    let first = (LEADER, Command::Cluster(Cluster::LeaderStarted));
    assert_eq!(show(&mut checks, &truth, first, Ok(Reply::Done), vec![], &state), None);
    (checks, truth, state)
}

fn tick() -> (LeaderId, Command) {
    (LEADER, Command::Cluster(Cluster::Tick))
}

fn granted(attempt: u32) -> Event {
    let (allocation, job) = (AllocationId(1), JobId(1));
    Event::Granted { allocation, job, tasks: TaskRange::one(0), attempt: AttemptNumber(attempt) }
}

fn ended(attempt: u32, cause: ExitCause) -> Event {
    let (allocation, job, tasks) = (AllocationId(1), JobId(1), TaskRange::one(0));
    Event::AttemptEnded { job, tasks, attempt: AttemptNumber(attempt), cause, allocation }
}

#[test]
fn an_attempt_number_that_comes_twice() {
    let (mut checks, truth, state) = begun();
    let events = vec![granted(1), ended(1, ExitCause::NodeLost), granted(1)];
    let rule = show(&mut checks, &truth, tick(), Ok(Reply::Done), events, &state);
    assert_eq!(rule, Some("attempts_rise"));
}

#[test]
fn a_success_that_nobody_saw() {
    let (mut checks, truth, state) = begun();
    let events = vec![granted(1), ended(1, ExitCause::Exited(0))];
    let rule = show(&mut checks, &truth, tick(), Ok(Reply::Done), events, &state);
    assert_eq!(rule, Some("exit_status_true"));
}

#[test]
fn a_success_that_was_seen_is_one() {
    let (mut checks, mut truth, state) = begun();
    if let Some(known) = truth.jobs.get_mut(&JobId(1)) {
        known.plan.decides = yard_core::job::Decides::FirstRank;
    }
    truth.start(run(0, 1, 1));
    let ending = Ending { status: ExitCause::Exited(0), stopped: false, rank: None };
    truth.end(0, run(0, 1, 1).assignment, Some(ending));
    let events = vec![granted(1), ended(1, ExitCause::Exited(0))];
    assert_eq!(show(&mut checks, &truth, tick(), Ok(Reply::Done), events, &state), None);
}

#[test]
fn a_terminal_state_that_is_left() {
    let (mut checks, truth, state) = begun();
    let job = |state| Event::Job { job: JobId(1), state };
    let events = vec![job(JobState::Failed), job(JobState::Running)];
    let rule = show(&mut checks, &truth, tick(), Ok(Reply::Done), events, &state);
    assert_eq!(rule, Some("one_terminal_state"));
}

#[test]
fn a_task_that_ends_twice() {
    let (mut checks, truth, state) = begun();
    let task = |state| Event::Tasks { job: JobId(1), tasks: TaskRange::one(0), state, cause: None };
    let events = vec![task(TaskState::Cancelled), task(TaskState::Queued)];
    let rule = show(&mut checks, &truth, tick(), Ok(Reply::Done), events, &state);
    assert_eq!(rule, Some("one_terminal_state"));
}

#[test]
fn a_leader_of_the_past_that_is_heard() {
    let (mut checks, truth, state) = begun();
    let rival = LeaderId { term: 1, member: MemberId(2) };
    let start = (rival, Command::Cluster(Cluster::LeaderStarted));
    assert_eq!(show(&mut checks, &truth, start, Ok(Reply::Done), vec![], &state), None);
    let rule = show(&mut checks, &truth, tick(), Ok(Reply::Done), vec![], &state);
    assert_eq!(rule, Some("leader_fenced"));
}

#[test]
fn a_request_with_two_answers() {
    let (mut checks, truth, state) = begun();
    let answer = |job| Ok(Reply::Job(JobId(job)));
    assert_eq!(show(&mut all(), &truth, tick(), answer(1), vec![], &state), Some("leader_fenced"));
    let rule = show(&mut checks, &truth, tick(), answer(1), vec![], &state);
    assert_eq!(rule, Some("requests_idempotent"), "its first command was answered Done");
}

#[test]
fn time_that_runs_ahead_or_falls() {
    let (mut checks, truth, mut state) = begun();
    state.clock.cluster_ms = 500_000;
    let rule = show(&mut checks, &truth, tick(), Ok(Reply::Done), vec![], &state);
    assert_eq!(rule, Some("time_never_falls"));
}

#[test]
fn a_fence_that_falls() {
    let (mut checks, truth, _) = begun();
    let fence =
        |generation| Fence { incarnation: Incarnation(1), generation: Generation(generation) };
    let mut see = |generation| {
        let seen = Seen::Obeyed { machine: 3, fence: fence(generation) };
        checks.see(&seen, &truth).map(|(rule, _)| rule)
    };
    assert_eq!((see(4), see(7), see(6)), (None, None, Some("fences_rise")));
}

#[test]
fn a_start_that_comes_twice() {
    let (mut checks, mut truth, _) = begun();
    truth.start(run(0, 1, 1));
    let again = truth.start(run(0, 1, 1));
    let rule = checks.see(&Seen::Started(&truth.runs[again]), &truth).map(|(rule, _)| rule);
    assert_eq!(rule, Some("start_once"));
}

#[test]
fn two_attempts_of_a_strict_job() {
    let (mut checks, mut truth) = (all(), truth(IsolationClass::Strict));
    truth.start(run(0, 1, 1));
    let newer = truth.start(run(1, 2, 2));
    let rule = checks.see(&Seen::Started(&truth.runs[newer]), &truth).map(|(rule, _)| rule);
    assert_eq!(rule, Some("no_overlap_strict"));
}

#[test]
fn an_attempt_that_outlives_its_deadline() {
    let (mut checks, mut truth) = (all(), truth(IsolationClass::Fenced));
    truth.start(run(0, 1, 1));
    truth.start(run(1, 2, 2));
    truth.now_us = 90 * SECOND;
    let old = truth.end(0, run(0, 1, 1).assignment, None);
    let rule = checks.see(&Seen::Ended(&truth.runs[old]), &truth).map(|(rule, _)| rule);
    assert_eq!(rule, Some("fenced_overlap_bounded"));
}

#[test]
fn a_gpu_with_two_holders() {
    let (mut checks, mut truth, _) = begun();
    for allocation in [1, 2] {
        let grant = GpuGrant::whole(DeviceSet::one(2));
        truth.grants.insert((AllocationId(allocation), 0, 0), grant);
    }
    truth.start(run(0, 1, 1));
    let other = Run { job: JobId(2), ..run(0, 2, 1) };
    let second = truth.start(other);
    let rule = checks.see(&Seen::Started(&truth.runs[second]), &truth).map(|(rule, _)| rule);
    assert_eq!(rule, Some("gpu_one_holder"));
}

#[test]
fn replicas_that_differ() {
    let (mut checks, truth, mut state) = begun();
    let mut see = |member, state: &State| {
        let seen = Seen::Replica { member, index: 9, state };
        checks.see(&seen, &truth).map(|(rule, _)| rule)
    };
    assert_eq!(see(0, &state), None);
    state.history_hash = 77;
    assert_eq!(see(1, &state), Some("replicas_agree"));
}

#[test]
fn a_job_that_is_lost() {
    let (mut checks, truth, state) = begun();
    let (actor, request) = (Actor::User(PrincipalId(1)), RequestId::from_u128(1));
    let answer = Ok(Reply::Job(JobId(5)));
    let command = tick().1;
    let seen = Seen::Answered { actor, request, command: &command, answer: &answer, again: None };
    assert!(checks.see(&seen, &truth).is_none());
    let requests = BTreeMap::new();
    let over = Seen::Over { state: &state, requests: &requests, members: &[] };
    let rule = checks.see(&over, &truth).map(|(rule, _)| rule);
    assert_eq!(rule, Some("acked_submissions_survive"));
}
