//! The audit finds what it is there for: each book of a healthy state is falsified in turn, and
//! the rule that forbids it must speak.

mod support;

use std::collections::BTreeSet;
use support::*;
use yard_common::ExitCause;
use yard_common::amount::Amounts;
use yard_common::id::*;
use yard_common::state::{AttemptState, JobState};
use yard_core::agent::Chain;
use yard_core::command::*;
use yard_core::state::{Holdings, Member, Phase, Rule, State, Tasks};
use yard_core::table::Ordered;

/// One job runs on two nodes, one waits for it, one has ended, one backs off, and tokens, drains,
/// limits, volumes and promises are there.
fn busy() -> State {
    let mut lab = Lab::new();
    let (a, b) = (lab.join("a", 4, &["h100"]), lab.join("b", 4, &["h100"]));
    let running = lab.submit(gang(2, 2));
    lab.place(running, TaskRange::one(0), &[a, b]);
    let mut waits = single();
    waits.after.ok = vec![running];
    lab.submit(waits);
    let mut plan = with_gpus(1);
    plan.retry.user = 1;
    let fails = lab.submit(plan);
    let shares = vec![ShareChoice { node: a, group: 0, gpus: devices([0]) }];
    let placement = Placement { job: fails, tasks: vec![TaskRange::one(0)], shares };
    let allocation = lab.try_place(placement).expect("it fits");
    lab.start(a, allocation, 1);
    lab.exit(a, allocation, ExitCause::Exited(1));
    let ended = lab.submit(single());
    lab.cancel(ended, None);
    let queued = lab.submit(single());
    let promises = vec![Promise { job: queued, task: 0, nodes: vec![b], from_ms: 0 }];
    lab.ok(Actor::Leader, Command::Plan(Plan { promises, ..Plan::default() }));
    let workspace = lab.workspace;
    let (name, definition) = ("data".to_string(), "nfs".to_string());
    let user = lab.user();
    lab.ok(user, Command::Holder(Holder::AddMount { workspace, name, definition }));
    let plan = DrainPlan { in_ms: 60_000, deadline_ms: None, reason: String::new() };
    lab.ok(user, Command::Node(NodeCommand::Drain { node: b, plan }));
    lab.state
}

/// What the audit says after a falsification.
fn found(falsify: impl Fn(&mut State)) -> BTreeSet<Rule> {
    let mut state = busy();
    assert!(state.check().is_empty(), "healthy before");
    falsify(&mut state);
    let violations = state.check();
    assert!(violations.iter().all(|it| !it.to_string().is_empty()));
    violations.into_iter().map(|violation| violation.rule).collect()
}

const RUNNING: JobId = JobId(0);
const WAITS: JobId = JobId(1);
const ENDED: JobId = JobId(3);
const QUEUED: JobId = JobId(4);
const NODE: NodeId = NodeId(0);
const GANG: AllocationId = AllocationId(0);

type Falsify = fn(&mut State);

/// A member with a number that nobody gave.
fn unnumbered_member(state: &mut State) {
    let address = "a:1".into();
    let member = Member { address, joined: None, votes: false, leaves: false };
    state.members.insert(MemberId(state.member_last + 1), member);
}

/// Every way to falsify the books, with the rule that must notice.
fn falsifications() -> Vec<(Rule, Falsify)> {
    vec![
        (Rule::TaskCounts, |s| s.jobs[QUEUED].tasks = Tasks::new(TaskRange::one(3), Phase::Queued)),
        (Rule::JobState, |s| s.jobs[QUEUED].state = JobState::Running),
        (Rule::JobState, |s| s.jobs[RUNNING].allocations = 2),
        (Rule::JobState, |s| s.jobs[ENDED].ended = None),
        (Rule::JobState, |s| s.jobs[ENDED].waits.jobs = 1),
        (Rule::Pending, |s| s.pending = Ordered::default()),
        (Rule::Pending, |s| {
            let place = s.jobs[WAITS].place(WAITS);
            s.pending.insert(place, ());
        }),
        (Rule::Blocked, |s| s.jobs[QUEUED].waits.until_ms = 5),
        (Rule::Blocked, |s| s.jobs[WAITS].waits.jobs = 0),
        (Rule::Attempt, |s| s.allocations[GANG].chain = Chain::one(0, AttemptNumber(2))),
        (Rule::Attempt, |s| {
            let tasks = Tasks::new(TaskRange::one(0), Phase::Running(AllocationId(404)));
            s.jobs[QUEUED].tasks = tasks;
        }),
        (Rule::Attempt, |s| s.jobs[RUNNING].tasks = Tasks::new(TaskRange::one(0), Phase::Queued)),
        (Rule::Attempt, |s| s.allocations[GANG].started = 1),
        (Rule::Chain, |s| s.allocations[GANG].ended = 1),
        (Rule::Chain, |s| s.allocations[GANG].state = AttemptState::Stopping),
        (Rule::Chain, |s| s.allocations[GANG].cause = Some(ExitCause::Preempted)),
        (Rule::Gang, |s| s.allocations[GANG].shares.truncate(1)),
        (Rule::Gang, |s| s.allocations[GANG].shares[1].node = NODE),
        (Rule::NodeBooks, |s| s.nodes[NODE].used = Amounts::ZERO),
        (Rule::NodeBooks, |s| s.nodes[NODE].allocations = Ordered::default()),
        (Rule::NodeBooks, |s| s.nodes[NODE].leftovers = Ordered::default()),
        (Rule::NodeBooks, |s| drop(s.allocations.remove(GANG))),
        (Rule::Devices, |s| s.nodes[NODE].device_parts.make_mut()[0] = 0),
        (Rule::Devices, |s| s.nodes[NODE].device_parts.make_mut().push(0)),
        (Rule::Devices, |s| s.allocations[GANG].shares[0].gpus = devices([0])),
        (Rule::Pools, |s| s.pools[PoolId(0)].nodes = 1),
        (Rule::Pools, |s| s.pools[PoolId(0)].floor = None),
        (Rule::Holdings, |s| s.holdings = Holdings::default()),
        (Rule::Holdings, |s| s.allocations[GANG].shares[0].amounts.cpu_milli += 1),
        (Rule::Shapes, |s| s.jobs[QUEUED].shape = s.jobs[RUNNING].shape),
        (Rule::Dedup, |s| s.jobs[QUEUED].request = RequestId::from_u128(404)),
        (Rule::Dedup, |s| drop(s.jobs.remove(ENDED))),
        (Rule::Timers, |s| s.timers = Default::default()),
        (Rule::Timers, |s| s.jobs[QUEUED].waits.until_ms = 5),
        (Rule::Timers, |s| s.allocations[GANG].deadline_ms = None),
        (Rule::Timers, |s| s.nodes[NODE].maintenance_until_ms = u64::MAX),
        (Rule::Timers, |s| s.nodes[NODE].back = true),
        (Rule::Dependents, |s| s.dependents = Ordered::default()),
        (Rule::Dependents, |s| s.jobs[WAITS].waits.jobs = 2),
        (Rule::Ended, |s| s.ended = Ordered::default()),
        (Rule::Names, |s| s.nodes[NODE].name = "c".into()),
        (Rule::Names, |s| s.queues[QueueId(0)].name = "c".into()),
        (Rule::Names, |s| s.mount_names = Ordered::default()),
        (Rule::HolderCounts, |s| s.workspaces[WorkspaceId(0)].jobs = 0),
        (Rule::HolderCounts, |s| s.workspaces[WorkspaceId(0)].holds = 0),
        (Rule::HolderCounts, |s| s.queues[QueueId(0)].jobs = 0),
        (Rule::References, |s| s.jobs[QUEUED].owner = PrincipalId(404)),
        (Rule::References, |s| s.queues[QueueId(0)].set.pools = vec![PoolId(404)]),
        (Rule::References, |s| s.mounts[MountId(0)].workspace = WorkspaceId(404)),
        (Rule::References, |s| {
            let grant = Grant { workspace: Some(WorkspaceId(404)), role: Role::User };
            s.principals[PrincipalId(0)].grants.push(grant);
        }),
        (Rule::Reservations, |s| {
            let (key, promise) = s.reservations.first().expect("a promise");
            let (key, promise) = (*key, Promise { nodes: vec![NodeId(404)], ..promise.clone() });
            s.reservations.insert(key, promise);
        }),
        (Rule::Reservations, |s| drop(s.jobs.remove(QUEUED))),
        (Rule::Admin, |s| s.principals[PrincipalId(0)].disabled = true),
        (Rule::Members, unnumbered_member),
    ]
}

#[test]
fn every_falsification_is_found() {
    for (number, (rule, falsify)) in falsifications().into_iter().enumerate() {
        let found = found(falsify);
        assert!(found.contains(&rule), "falsification {number} of {rule:?}: found {found:?}");
    }
}

#[test]
fn every_rule_has_a_falsification() {
    let tried: BTreeSet<Rule> = falsifications().into_iter().map(|(rule, _)| rule).collect();
    let untried: Vec<_> = Rule::ALL.iter().filter(|rule| !tried.contains(rule)).collect();
    assert!(untried.is_empty(), "{untried:?}");
}
