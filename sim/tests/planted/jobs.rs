//! Jobs, from the request to the end: none is lost, none comes twice, none moves against a wish.

use super::*;
use yard_common::state::{JobState, TaskState};
use yard_sim::world::World;

planted! {
    "acked_submissions_survive": a_job_that_is_lost,
    "acked_submissions_survive": a_job_that_nobody_asked_for,
    "one_terminal_state": a_terminal_state_that_is_left,
    "one_terminal_state": a_task_that_ends_twice,
    "requests_idempotent": a_request_with_two_answers,
    "cancel_sticks": a_cancelled_task_that_runs_again,
    "cancel_sticks": a_cancelled_task_that_never_ends,
    "waits_respected": a_held_job_that_starts,
    "waits_respected": a_grant_on_a_drained_node,
    "pending_reason_matches": an_explanation_by_which_machines_are_full,
    "pending_reason_matches": an_explanation_that_forgets_a_plan,
    "every_job_ends": a_job_that_is_left_behind,
}

fn a_job_that_is_lost() -> Found {
    let (mut shown, state) = (Shown::begun(), State::default());
    let (actor, request) = (Actor::User(PrincipalId(1)), RequestId::from_u128(1));
    let answer = Ok(Reply::Job(JobId(5)));
    let command = tick().1;
    let seen = Seen::Answered { actor, request, command: &command, answer: &answer, again: None };
    assert_eq!(shown.see(&seen), None);
    shown.over(&state)
}

fn a_job_that_nobody_asked_for() -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    assert_eq!(Shown::begun().over(&lab.state), None);
    let requests = BTreeMap::new();
    Shown::begun().see(&Seen::Over { state: &lab.state, requests: &requests, members: &[] })
}

fn a_terminal_state_that_is_left() -> Found {
    let job = |state| Event::Job { job: JobId(1), state };
    let events = vec![job(JobState::Failed), job(JobState::Running)];
    Shown::begun().facts(events, &State::default())
}

fn a_task_that_ends_twice() -> Found {
    let task = |state| Event::Tasks { job: JobId(1), tasks: TaskRange::one(0), state, cause: None };
    let events = vec![task(TaskState::Cancelled), task(TaskState::Queued)];
    Shown::begun().facts(events, &State::default())
}

fn a_request_with_two_answers() -> Found {
    // Its first command was answered with `Done`.
    let answer = Ok(Reply::Job(JobId(1)));
    Shown::begun().command(tick(), answer, vec![], &State::default())
}

/// A job whose cancel was shown.
fn cancelled() -> (Shown, Lab, JobId) {
    let (mut shown, mut lab) = (Shown::begun(), Lab::new());
    let job = lab.submit(1, |_| ());
    let cancel = JobCommand::Cancel { job, tasks: None, reason: String::new() };
    let cancel = (LEADER, Command::Job(cancel));
    assert_eq!(shown.command(cancel, Ok(Reply::Done), vec![], &lab.state), None);
    (shown, lab, job)
}

fn a_cancelled_task_that_runs_again() -> Found {
    let (mut shown, lab, job) = cancelled();
    shown.facts(vec![granted_to(job, 1)], &lab.state)
}

fn a_cancelled_task_that_never_ends() -> Found {
    let (mut shown, lab, _) = cancelled();
    shown.over(&lab.state)
}

#[test]
fn a_cancelled_task_that_ends() {
    let (mut shown, mut lab, job) = cancelled();
    let cancel = JobCommand::Cancel { job, tasks: None, reason: String::new() };
    lab.apply(ADMIN, Command::Job(cancel));
    assert_eq!(shown.over(&lab.state), None);
}

/// A job starts after a command was shown that had, or had not, an effect.
fn starts_after(command: impl Fn(JobId) -> Command, reply: Result<Reply, Rejection>) -> Found {
    let (mut shown, mut lab) = (Shown::begun(), Lab::new());
    let job = lab.submit(2, |_| ());
    let grants = lab.start();
    assert_eq!(shown.command((LEADER, command(job)), reply, vec![], &lab.state), None);
    shown.facts(grants, &lab.state)
}

fn hold(job: JobId) -> Command {
    Command::Job(JobCommand::Hold { job, reason: String::new() })
}

fn a_held_job_that_starts() -> Found {
    starts_after(hold, Ok(Reply::Done))
}

#[test]
fn a_job_that_starts_after_its_hold_was_refused() {
    let refused = Err(Rejection::NotFound(Object::Job(JobId(9))));
    assert_eq!(starts_after(hold, refused), None);
}

fn drain(in_ms: u64) -> impl Fn(JobId) -> Command {
    move |_| {
        let plan = DrainPlan { in_ms, deadline_ms: None, reason: String::new() };
        Command::Node(NodeCommand::Drain { node: NodeId(1), plan })
    }
}

fn a_grant_on_a_drained_node() -> Found {
    starts_after(drain(0), Ok(Reply::Done))
}

#[test]
fn a_grant_on_a_node_that_will_be_drained() {
    assert_eq!(starts_after(drain(10), Ok(Reply::Done)), None);
}

fn an_explanation_by_which_machines_are_full() -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    assert_eq!(Shown::begun().audit(&lab.state), None);
    // Sums say so, but nobody holds anything there.
    for id in 0..2 {
        let node = lab.state.nodes.get_mut(NodeId(id)).expect("it has joined");
        node.used = node.facts.amounts;
    }
    Shown::begun().audit(&lab.state)
}

fn an_explanation_that_forgets_a_plan() -> Found {
    let mut lab = Lab::new();
    lab.submit(1, |_| ());
    let policy = Policy::default();
    let look = |plan: Plan| {
        let planned = yard_core::scheduler::Planned { plan, complete: true };
        let (state, now_ms) = (&lab.state, lab.state.now_ms());
        Shown::begun().see(&Seen::Planned { state, planned: &planned, now_ms, policy: &policy })
    };
    assert_eq!(look(lab.plan()), None);
    // What is explained as about to start is not planned.
    look(Plan::default())
}

#[test]
fn explanations_of_what_waits() {
    let mut lab = Lab::new();
    // Nine GPUs of eight, a gang that waits behind it, a job too large, and one that is held.
    for nodes in [2, 2, 2, 2, 1, 2, 3] {
        lab.submit(nodes, |_| ());
    }
    lab.submit(1, |plan| plan.hold = true);
    lab.start();
    let mut shown = Shown::begun();
    // A look every 40 audits, at two of them.
    for _ in 0..800 {
        assert_eq!(shown.audit(&lab.state), None);
    }
}

/// The world's answer to what is unfinished, with one member whose state this is.
fn unfinished(state: &State) -> Option<String> {
    let mut world = World::new(1, false);
    world.members[0].up = true;
    world.members[0].state = state.clone();
    world.unfinished()
}

fn a_job_that_is_left_behind() -> Found {
    let mut lab = Lab::new();
    assert_eq!(unfinished(&lab.state), None);
    lab.submit(1, |_| ());
    unfinished(&lab.state).map(|_| "every_job_ends")
}
